//! Addresses to classes: the number line cut wherever any rule's peers begin or end.
//!
//! Between two neighbouring cuts every address is in exactly the same prefixes, all covering
//! ones and not only the longest, and outside the same exceptions. So the piece it falls into
//! says everything that any rule could ask of an address; the piece's number is its class.

use super::spans::Span;
use crate::Address;

/// Keys that a search compares at one level: the cuts are found in a tree of this width, with the
/// position of the keys for pointers.
const WIDTH: usize = 16;

/// The pieces of the number line.
#[derive(Debug)]
pub(super) struct Classes {
    /// Where each piece starts; the first at 0, so that every address is in one.
    starts: Vec<u128>,
    /// Every [`WIDTH`]th key of the level below, the widest-spaced first; below the last comes
    /// `starts`.
    levels: Vec<Vec<u128>>,
}

impl Classes {
    /// Cuts where a span begins and after it ends.
    pub(super) fn around(spans: impl Iterator<Item = Span>) -> Classes {
        let mut starts = vec![0];
        for span in spans {
            starts.push(span.first);
            starts.extend(span.last.checked_add(1));
        }
        starts.sort_unstable();
        starts.dedup();

        let mut levels: Vec<Vec<u128>> = Vec::new();
        let mut below = &starts;
        while below.len() > WIDTH {
            let level = below.iter().step_by(WIDTH).copied().collect();
            levels.push(level);
            below = &levels[levels.len() - 1];
        }
        levels.reverse();
        Classes { starts, levels }
    }

    /// The number of the piece that holds `address`.
    pub(super) fn of(&self, address: Address) -> u32 {
        let mut at = 0;
        for level in self.levels.iter().chain([&self.starts]) {
            let first = at * WIDTH;
            let keys = &level[first..level.len().min(first + WIDTH)];
            // The first key is never above the address: it is the one that led here, or 0.
            at = first + keys.partition_point(|&key| key <= address.0) - 1;
        }
        at as u32
    }

    /// The pieces that make up `span`, which must be one of those given to [`Classes::around`]:
    /// first and one after the last.
    pub(super) fn within(&self, span: Span) -> (u32, u32) {
        let (first, last) = (self.of(Address(span.first)), self.of(Address(span.last)));
        (first, last + 1)
    }

    /// How many pieces there are; at least one.
    pub(super) fn count(&self) -> usize {
        self.starts.len()
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        let keys = self.levels.iter().map(Vec::len).sum::<usize>() + self.starts.len();
        keys * size_of::<u128>()
    }
}

impl Default for Classes {
    fn default() -> Classes {
        Classes::around(std::iter::empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_piece_at_every_size() {
        for count in [0_u128, 1, 7, 8, 9, 127, 128, 129, 5000] {
            let spans = (0..count).map(|i| Span {
                first: i * 10 + 3,
                last: i * 10 + 5,
            });
            let classes = Classes::around(spans);
            assert_eq!(classes.count() as u128, 2 * count + 1);
            for address in 0..count * 10 + 20 {
                let expected = classes.starts.iter().rposition(|&s| s <= address).unwrap();
                if address < 300 || address > count * 10 {
                    assert_eq!(classes.of(Address(address)) as usize, expected);
                }
            }
            let last = classes.of(Address(u128::MAX)) as usize;
            assert_eq!(last, classes.count() - 1);
        }
    }

    #[test]
    fn a_span_to_the_end_has_no_cut_after_it() {
        let all = Span {
            first: 0,
            last: u128::MAX,
        };
        let classes = Classes::around([all].into_iter());
        assert_eq!(classes.count(), 1);
        assert_eq!(classes.within(all), (0, 1));
    }
}
