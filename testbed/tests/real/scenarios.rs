//! The scenarios that come with Weir, and that they fail when nothing is enforced.

use std::process::Command;

use crate::lab::{needs, text};
use crate::{Outcome, Test, WEIR_LAB};

pub const TESTS: &[Test] = &[
    ("the_stars_scenario_holds", || holds("stars")),
    ("the_three_tier_scenario_holds", || holds("three-tier")),
    (
        "a_scenario_fails_when_nothing_is_enforced",
        fails_without_enforcement,
    ),
];

fn holds(name: &str) -> Outcome {
    needs(&[])?;
    let output = Command::new(WEIR_LAB).args(["run", name]).output().unwrap();
    println!("{}", String::from_utf8_lossy(&output.stdout));
    assert!(output.status.success(), "{}", text(&output));
    Ok(())
}

fn fails_without_enforcement() -> Outcome {
    needs(&[])?;
    let output = Command::new(WEIR_LAB)
        .args(["run", "stars", "--enforcement=off"])
        .output()
        .unwrap();
    let seen = text(&output);
    assert_eq!(output.status.code(), Some(1), "{seen}");
    // Every denying step fails; the first, open one, holds.
    for step in 2..=5 {
        assert!(
            seen.contains(&format!("step {step}: ")),
            "step {step} held: {seen}"
        );
    }
    assert!(!seen.contains("step 1: "), "{seen}");
    Ok(())
}
