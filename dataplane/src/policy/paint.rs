//! The rules that hold a peer, painted onto the line of ports in order of evaluation.
//!
//! A place once painted keeps its colour, which is what "the first match decides" means. A pass
//! closes a place for its tier and leaves it bare for the next. Behind the rules of a tier comes
//! what the tier does by default, if it does anything.

use super::nodes::Stretch;
use super::ports::END;

/// What a rule does to the places that it matches.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Colour {
    /// The decision of this number.
    Decision(u32),
    /// Nothing in this tier.
    Pass,
}

/// A line while it is painted. Kept for the next one: painting allocates nothing once its buffers
/// have grown.
#[derive(Debug, Default)]
pub(super) struct Painter {
    /// The line cut wherever something's ports begin or end; the first cut is 0, the last [`END`].
    cuts: Vec<u32>,
    /// The decision for each piece between two cuts, once there is one.
    decisions: Vec<Option<u32>>,
    /// For each piece the nearest one, from itself onwards, that may still be painted in this
    /// tier: a forest of jumps, shortened as it is walked, so that no piece is painted twice.
    next: Vec<u32>,
    line: Vec<Stretch>,
}

impl Painter {
    /// A bare line, cut at the ends of all `places` that will be painted.
    pub(super) fn begin(&mut self, places: impl Iterator<Item = (u32, u32)>) {
        self.cuts.clear();
        self.cuts.extend([0, END]);
        for (first, end) in places {
            self.cuts.extend([first, end]);
        }
        self.cuts.sort_unstable();
        self.cuts.dedup();
        self.decisions.clear();
        self.decisions.resize(self.cuts.len() - 1, None);
    }

    /// Begins the next tier: whatever is undecided may be painted.
    pub(super) fn tier(&mut self) {
        let pieces = self.decisions.len() as u32;
        let opened = (0..)
            .zip(&self.decisions)
            .map(|(piece, decision)| match decision {
                None => piece,
                Some(_) => piece + 1,
            });
        self.next.clear();
        self.next.extend(opened.chain([pieces]));
    }

    /// Paints the open pieces among the places from `first` to before `end`, which are ends that
    /// the line was cut at.
    pub(super) fn paint(&mut self, first: u32, end: u32, colour: Colour) {
        let first = self.cuts.partition_point(|&cut| cut < first);
        let mut piece = self.open_from(first);
        while self.cuts[piece] < end {
            if let Colour::Decision(decision) = colour {
                self.decisions[piece] = Some(decision);
            }
            self.next[piece] = piece as u32 + 1;
            piece = self.open_from(piece + 1);
        }
    }

    /// The first piece from `piece` onwards that may still be painted; the count if none is.
    fn open_from(&mut self, mut piece: usize) -> usize {
        while self.next[piece] as usize != piece {
            let skip = self.next[self.next[piece] as usize];
            self.next[piece] = skip;
            piece = skip as usize;
        }
        piece
    }

    /// The line, where what is still bare gets the decision `otherwise`.
    pub(super) fn finish(&mut self, otherwise: u32) -> &[Stretch] {
        self.line.clear();
        let lasts = self.cuts[1..].iter().map(|&end| end - 1);
        for (last, decision) in lasts.zip(&self.decisions) {
            let decision = decision.unwrap_or(otherwise);
            match self.line.last_mut() {
                Some(before) if before.1 == decision => before.0 = last,
                _ => self.line.push((last, decision)),
            }
        }
        &self.line
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_colour_stays_and_a_pass_is_for_one_tier() {
        let mut painter = Painter::default();
        painter.begin([(10, 20), (15, 30), (18, 40)].into_iter());
        painter.tier();
        painter.paint(10, 20, Colour::Pass);
        painter.paint(15, 30, Colour::Decision(1));
        painter.paint(18, 40, Colour::Decision(2));
        painter.tier();
        painter.paint(15, 30, Colour::Decision(3));
        let line = painter.finish(9).to_vec();
        assert_eq!(line, [(14, 9), (19, 3), (29, 1), (39, 2), (END - 1, 9)]);
        painter.begin(std::iter::empty());
        painter.tier();
        painter.paint(0, END, Colour::Decision(5));
        assert_eq!(painter.finish(9), [(END - 1, 5)]);
    }
}
