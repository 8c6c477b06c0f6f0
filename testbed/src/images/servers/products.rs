//! What the shop of the EKS workshop sells here: identifier, name, description, price, tag. The
//! wares are this stand-in's own.

/// The wares.
pub const PRODUCTS: [[&str; 5]; 6] = [
    [
        "6d62d909-f957-430e-8689-b5129c0bb75e",
        "Pocket Watch",
        "Keeps time.",
        "385",
        "accessories",
    ],
    [
        "808a2de1-1aaa-4c25-a9b9-6612e8f29a38",
        "Chronograf Classic",
        "Keeps more of it.",
        "510",
        "accessories",
    ],
    [
        "a0a4f044-b040-410d-8ead-4de0446aec7e",
        "Umbrella",
        "Keeps rain off.",
        "45",
        "clothing",
    ],
    [
        "d27cf49f-b689-4a75-a249-d373e0330bb5",
        "Spare Shoes",
        "A pair of them.",
        "120",
        "clothing",
    ],
    [
        "ee3715be-b4ba-11ea-b3de-0242ac130004",
        "Bow Tie",
        "Tied already.",
        "30",
        "clothing",
    ],
    [
        "f4ebd070-de0f-4f5b-bd08-4f8a2d5b2c10",
        "Lantern",
        "Sees in the dark.",
        "75",
        "vehicles",
    ],
];
