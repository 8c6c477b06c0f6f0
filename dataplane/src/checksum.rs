//! Checksums: the Internet's one's complement sum (RFC 1071, RFC 1624) and CRC32c (RFC 9260,
//! appendix A).

use crate::{Address, Protocol};

/// A one's complement sum in the making.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// The sum of nothing.
    pub const ZERO: Sum = Sum(0);

    /// The sum of a pseudo-header (RFC 9293, section 3.1; RFC 8200, section 8.1): `length` counts
    /// transport header and payload.
    pub fn pseudo_header(
        source: Address,
        destination: Address,
        protocol: Protocol,
        length: u32,
    ) -> Sum {
        Sum::ZERO
            .address(source)
            .address(destination)
            .word32(u32::from(protocol.0))
            .word32(length)
    }

    /// Adds an address as its family writes it.
    pub fn address(self, address: Address) -> Sum {
        match address.as_v4() {
            Some(bits) => self.word32(bits),
            None => [96, 64, 32, 0]
                .into_iter()
                .fold(self, |sum, shift| sum.word32((address.0 >> shift) as u32)),
        }
    }

    /// Adds a 32-bit word, as two 16-bit ones.
    pub const fn word32(self, word: u32) -> Sum {
        Sum(self.0 + word as u64)
    }

    /// Adds bytes that stand at an even offset; an odd last one counts as if a 0 followed.
    ///
    /// Sums in the machine's byte order and swaps once at the end (RFC 1071, section 2B), which
    /// leaves the loop to the compiler's vectors.
    pub fn bytes(self, bytes: &[u8]) -> Sum {
        let (words, rest) = bytes.as_chunks::<4>();
        let native: u64 = words
            .iter()
            .map(|word| u64::from(u32::from_ne_bytes(*word)))
            .sum();
        let mut last = [0; 4];
        for (to, from) in last.iter_mut().zip(rest) {
            *to = *from;
        }
        let native = native + u64::from(u32::from_ne_bytes(last));
        Sum(self.0 + u64::from(u16::from_be(fold(native))))
    }

    /// Adds bytes that stand at an odd offset: each belongs to the other half of its word.
    pub fn bytes_at_odd(self, bytes: &[u8]) -> Sum {
        Sum(self.0 + u64::from(Sum::ZERO.bytes(bytes).folded().swap_bytes()))
    }

    /// The sum in 16 bits, not complemented.
    pub const fn folded(self) -> u16 {
        fold(self.0)
    }

    /// Whether [`Sum::folded`] is `field`. To fold is to divide by 65,535, and asking whether that goes
    /// is one multiplication.
    #[inline]
    pub const fn folds_to(self, field: u16) -> bool {
        let rest = self.0 + (0xffff - field) as u64;
        rest.is_multiple_of(0xffff) & ((field == 0) == (self.0 == 0))
    }

    /// What a checksum field holds: the complement of the sum.
    pub const fn checksum(self) -> u16 {
        !fold(self.0)
    }
}

/// Folds carries into 16 bits; 0 only for the sum of zeros.
const fn fold(sum: u64) -> u16 {
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff_ffff) + (sum >> 32);
    let sum = (sum & 0xffff) + (sum >> 16);
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The checksum field `field` after a word it covers has changed from `old` to `new` (RFC 1624,
/// equation 3, which unlike RFC 1141's is right where the sum is 0).
pub const fn updated(field: u16, old: u16, new: u16) -> u16 {
    !fold(!field as u64 + !old as u64 + new as u64)
}

/// What changes in the words that a checksum covers.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Change(u64);

impl Change {
    /// Nothing.
    pub const NONE: Change = Change(0);

    /// A word changes from `old` to `new`.
    pub const fn word(self, old: u16, new: u16) -> Change {
        Change(self.0 + !old as u64 + new as u64)
    }

    /// An address changes to another of its family.
    pub fn address(self, old: Address, new: Address) -> Change {
        let word = |change: Change, shift: u32| {
            let (old, new) = ((old.0 >> shift) as u32, (new.0 >> shift) as u32);
            Change(change.0 + u64::from(!old) + u64::from(new))
        };
        // Of IPv4-mapped addresses, whose other words are alike, these add nothing but zeros.
        [96, 64, 32, 0].into_iter().fold(self, word)
    }

    /// The checksum field after the change (RFC 1624, equation 3).
    pub const fn update(self, field: u16) -> u16 {
        !fold(!field as u64 + self.0)
    }

    /// The sum in a field that is not complemented, after the change.
    pub const fn add_to(self, field: u16) -> u16 {
        fold(field as u64 + self.0)
    }
}

const CRC32C_POLYNOMIAL: u32 = 0x82f6_3b78;

const CRC32C_TABLES: [[u32; 256]; 8] = crc32c_tables();

const fn crc32c_tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = byte as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 1 {
                crc >> 1 ^ CRC32C_POLYNOMIAL
            } else {
                crc >> 1
            };
            bit += 1;
        }
        tables[0][byte] = crc;
        byte += 1;
    }
    let mut byte = 0;
    while byte < 256 {
        let mut table = 1;
        while table < 8 {
            let previous = tables[table - 1][byte];
            tables[table][byte] = previous >> 8 ^ tables[0][(previous & 0xff) as usize];
            table += 1;
        }
        byte += 1;
    }
    tables
}

/// The CRC32c of `parts`, one after the other, as SCTP uses it; written to its field little-endian.
///
/// Eight bytes a step by tables: the processor's own instruction would need `unsafe`, and SCTP
/// whose sender left the sum to a device is rare.
pub fn crc32c(parts: &[&[u8]]) -> u32 {
    let mut crc = !0;
    for part in parts {
        let (words, rest) = part.as_chunks::<8>();
        for word in words {
            let word = u64::from_le_bytes(*word) ^ u64::from(crc);
            crc = 0;
            for (index, byte) in word.to_le_bytes().into_iter().enumerate() {
                crc ^= CRC32C_TABLES[7 - index][usize::from(byte)];
            }
        }
        for byte in rest {
            let index = (crc as u8 ^ byte) as usize;
            crc = crc >> 8 ^ CRC32C_TABLES[0][index];
        }
    }
    !crc
}

/// By what the CRC32c of some bytes changes when four of them, with `behind` more behind them, change
/// from `old` to `new`: the CRC is linear, so it is that of the difference with zeros behind it.
pub fn crc32c_change(old: [u8; 4], new: [u8; 4], behind: usize) -> u32 {
    let mut crc = u32::from_le_bytes(old) ^ u32::from_le_bytes(new);
    let step = |crc: u32, bytes: usize| {
        let tables = &CRC32C_TABLES;
        (crc.to_le_bytes().into_iter().enumerate()).fold(0, |sum, (at, byte)| {
            sum ^ tables[bytes - 1 - at][usize::from(byte)]
        })
    };
    crc = step(crc, 4);
    for _ in 0..behind / 8 {
        crc = step(crc, 8);
    }
    for _ in 0..behind % 8 {
        crc = crc >> 8 ^ CRC32C_TABLES[0][(crc & 0xff) as usize];
    }
    crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn naive_sum(bytes: &[u8]) -> u16 {
        let mut sum = 0u32;
        for pair in bytes.chunks(2) {
            sum += u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
            sum = (sum & 0xffff) + (sum >> 16);
        }
        sum as u16
    }

    fn naive_crc32c(bytes: &[u8]) -> u32 {
        let mut crc = !0u32;
        for byte in bytes {
            crc ^= u32::from(*byte);
            for _ in 0..8 {
                crc = crc >> 1 ^ if crc & 1 == 1 { CRC32C_POLYNOMIAL } else { 0 };
            }
        }
        !crc
    }

    #[test]
    fn known_values() {
        // RFC 1071, section 3.
        let bytes = [0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7];
        assert_eq!(Sum::ZERO.bytes(&bytes).folded(), 0xddf2);
        // RFC 3720, appendix B.4, and the usual check value.
        assert_eq!(crc32c(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(crc32c(&[b"123456789"]), 0xe306_9283);
        assert_eq!(crc32c(&[b"1234", b"", b"56789"]), 0xe306_9283);
        // RFC 1624, section 4: the case that RFC 1141 gets wrong.
        assert_eq!(updated(0xdd2f, 0x5555, 0x3285), 0x0000);
    }

    proptest! {
        #[test]
        fn equals_naive(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert_eq!(Sum::ZERO.bytes(&bytes).folded(), naive_sum(&bytes));
            prop_assert_eq!(crc32c(&[&bytes]), naive_crc32c(&bytes));
        }

        #[test]
        fn a_sum_folds_to_one_field_only(sum in any::<u32>(), scale in 0u64..8, other in any::<u16>()) {
            let multiples = [0, 0xffff, 2 * 0xffff].map(Sum);
            for sum in multiples.into_iter().chain([Sum(u64::from(sum) * scale)]) {
                for field in [0, 0xffff, other, sum.folded()] {
                    prop_assert_eq!(sum.folds_to(field), sum.folded() == field);
                }
            }
        }

        #[test]
        fn a_crc_changes_with_four_bytes_as_if_made_anew(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..200),
            at in any::<proptest::sample::Index>(),
            new in any::<[u8; 4]>(),
        ) {
            let at = at.index(bytes.len() - 3);
            let before = crc32c(&[&bytes]);
            let old = bytes[at..at + 4].try_into().unwrap();
            bytes[at..at + 4].copy_from_slice(&new);
            let change = crc32c_change(old, new, bytes.len() - at - 4);
            prop_assert_eq!(before ^ change, crc32c(&[&bytes]));
        }

        #[test]
        fn update_equals_recomputation(
            mut bytes in proptest::collection::vec(any::<u8>(), 4..60),
            at in any::<proptest::sample::Index>(),
            new in any::<u16>(),
        ) {
            let at = at.index(bytes.len() / 2) * 2;
            let before = Sum::ZERO.bytes(&bytes).checksum();
            let old = u16::from_be_bytes([bytes[at], bytes[at + 1]]);
            bytes[at..at + 2].copy_from_slice(&new.to_be_bytes());
            let after = Sum::ZERO.bytes(&bytes).checksum();
            let updated = updated(before, old, new);
            // Both zeros are one number in one's complement; bytes that are all 0 have the other.
            prop_assert!(updated == after || updated == !after && [0, 0xffff].contains(&after));
        }
    }
}
