//! One chain's answer for every peer class, in constant time and little memory.
//!
//! A chain cares for few of the cuts that all chains together make, so neighbouring classes mostly
//! mean the same to it. A row marks with one bit each class at which the meaning changes; how many
//! bits are set up to a class says which of the meanings it has.

use super::ports::PortMap;

/// Classes under one [`Word`].
const BITS: u32 = u64::BITS;

/// A map from class to [`PortMap`].
#[derive(Debug)]
pub(super) struct Row {
    /// The meaning before the first mark.
    before: PortMap,
    /// The meaning from each mark on.
    maps: Vec<PortMap>,
    /// Index of the first word that is kept: before it there are no marks, nor after the last.
    first_word: u32,
    words: Vec<Word>,
}

/// The marks of [`BITS`] classes.
#[derive(Clone, Copy, Debug, Default)]
struct Word {
    marks: u64,
    /// Marks in all words before this one.
    earlier: u32,
}

impl Row {
    /// A row from its runs: the class at which each starts, rising, the first 0.
    pub(super) fn new(runs: &[(u32, PortMap)]) -> Row {
        let Some((&(_, before), marks)) = runs.split_first() else {
            // Without a run there is no meaning: a map that does not exist, which drops.
            return Row {
                before: PortMap(u32::MAX),
                maps: Vec::new(),
                first_word: 0,
                words: Vec::new(),
            };
        };
        let first_word = marks.first().map_or(0, |&(class, _)| class / BITS);
        let words = marks
            .last()
            .map_or(0, |&(class, _)| class / BITS - first_word + 1);
        let mut words = vec![Word::default(); words as usize];
        for &(class, _) in marks {
            words[(class / BITS - first_word) as usize].marks |= 1 << (class % BITS);
        }
        let mut earlier = 0;
        for word in &mut words {
            word.earlier = earlier;
            earlier += word.marks.count_ones();
        }
        Row {
            before,
            maps: marks.iter().map(|&(_, map)| map).collect(),
            first_word,
            words,
        }
    }

    /// What `class` means to the chain.
    pub(super) fn map(&self, class: u32) -> PortMap {
        let marks = match (class / BITS).checked_sub(self.first_word) {
            None => 0,
            Some(index) => match self.words.get(index as usize) {
                None => self.maps.len(),
                Some(word) => {
                    let upto = word.marks << (BITS - 1 - class % BITS);
                    (word.earlier + upto.count_ones()) as usize
                }
            },
        };
        let mark = marks.checked_sub(1).and_then(|mark| self.maps.get(mark));
        mark.copied().unwrap_or(self.before)
    }

    /// Every meaning that some class has.
    pub(super) fn maps(&self) -> impl Iterator<Item = PortMap> {
        [self.before].into_iter().chain(self.maps.iter().copied())
    }

    /// Bytes on the heap.
    pub(super) fn bytes(&self) -> usize {
        self.maps.len() * size_of::<PortMap>() + self.words.len() * size_of::<Word>()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_has_the_run_that_holds_it() {
        let starts: [&[u32]; 6] = [
            &[0],
            &[0, 1],
            &[0, 63, 64, 65],
            &[0, 200],
            &[0, 127, 128, 319, 320, 321],
            &[0, 64, 500],
        ];
        for starts in starts {
            let runs: Vec<(u32, PortMap)> = starts
                .iter()
                .map(|&start| (start, PortMap(start + 1000)))
                .collect();
            let row = Row::new(&runs);
            for class in 0..1000 {
                let run = runs.iter().rfind(|run| run.0 <= class).unwrap();
                assert_eq!(row.map(class), run.1, "class {class} of {starts:?}");
            }
            assert_eq!(row.maps().count(), starts.len());
        }
    }
}
