//! Whether every chunk is in exactly one place.
//!
//! A chunk's owner word says where it is. Others know it too: a magazine and the return queue hold
//! the numbers of free chunks, a pool counts what its rings were given and gave back. [`audit`]
//! compares the two. It is exact while no worker moves a frame: the kernel's own moves, from the
//! fill to the RX ring and from the TX to the completion ring, change neither side.

use std::collections::BTreeMap;

use super::pool::PoolId;
use super::umem::{Owner, Umem};

/// Problems that an [`Audit`] tells at most.
const PROBLEMS_MAX: usize = 16;

/// What a worker has, told between two rounds.
#[derive(Clone, Debug, Default)]
pub struct Holdings {
    /// The free chunks in its magazine.
    pub free: Vec<u32>,
    /// Frames in its hands that are in no ring.
    pub held: u32,
    /// Of each queue that it owns: the pool, frames lent to the kernel to receive into, and frames
    /// under way through its TX rings, by whichever worker.
    pub queues: Vec<(PoolId, u32, u32)>,
}

/// Where the chunks are, and what is wrong with that.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Audit {
    /// Chunks there are.
    pub chunks: u32,
    /// In magazines and in the return queue.
    pub free: u32,
    /// In workers' hands.
    pub held: u32,
    /// In fill and RX rings.
    pub fill: u32,
    /// In TX and completion rings and under way.
    pub transmit: u32,
    /// Of queues whose sockets are closed, on their way back.
    pub closing: u32,
    /// Whatever does not agree, in words; at most 16. None if every chunk is in exactly one place.
    pub problems: Vec<String>,
}

impl Audit {
    fn complain(&mut self, problem: String) {
        if self.problems.len() < PROBLEMS_MAX {
            self.problems.push(problem);
        }
    }

    fn compare(&mut self, what: &str, words: u32, counted: u32) {
        if words != counted {
            self.complain(format!("{what}: {words} by owner words, {counted} counted"));
        }
    }
}

/// Compares the owner words with what everybody says to have. `holdings` are all workers', none of
/// whom moves a frame before this returns.
pub fn audit(umem: &Umem, holdings: &[Holdings]) -> Audit {
    let mut audit = Audit {
        chunks: umem.chunks(),
        ..Audit::default()
    };
    let mut listed = umem.returned_chunks();
    listed.extend(holdings.iter().flat_map(|holding| &holding.free));
    let mut is_listed = vec![false; umem.chunks() as usize];
    for chunk in &listed {
        match is_listed.get_mut(*chunk as usize) {
            Some(seen) if !*seen => *seen = true,
            Some(_) => audit.complain(format!("chunk {chunk} is free twice")),
            None => audit.complain(format!("there is no chunk {chunk}")),
        }
    }
    let mut by_pool: BTreeMap<u16, (u32, u32)> = BTreeMap::new();
    for (chunk, is_listed) in is_listed.iter().enumerate() {
        let owner = umem.owner(chunk as u32);
        match owner {
            Some(Owner::Free) => audit.free += 1,
            Some(Owner::Held) => audit.held += 1,
            Some(Owner::Fill(PoolId(pool))) => by_pool.entry(pool).or_default().0 += 1,
            Some(Owner::Transmit(PoolId(pool))) => by_pool.entry(pool).or_default().1 += 1,
            None => audit.complain(format!("chunk {chunk} has an owner word that is none")),
        }
        if *is_listed != (owner == Some(Owner::Free)) {
            let word = if *is_listed { "listed" } else { "not listed" };
            audit.complain(format!("chunk {chunk} is {owner:?}, but {word} as free"));
        }
    }
    let held = holdings.iter().map(|holding| holding.held).sum();
    audit.compare("frames in hands", audit.held, held);
    for (pool, lent, under_way) in holdings.iter().flat_map(|holding| &holding.queues) {
        let (fill, transmit) = by_pool.remove(&pool.0).unwrap_or_default();
        audit.fill += fill;
        audit.transmit += transmit;
        audit.compare(&format!("frames lent to pool {}", pool.0), fill, *lent);
        let what = format!("frames under way by pool {}", pool.0);
        audit.compare(&what, transmit, *under_way);
    }
    for (pool, (fill, transmit)) in by_pool {
        audit.closing += fill + transmit;
        if !umem.is_closed(PoolId(pool)) {
            audit.complain(format!("pool {pool} has frames and belongs to no worker"));
        }
    }
    if umem.lost() > 0 {
        audit.complain(format!(
            "{} chunks found no room in the return queue",
            umem.lost()
        ));
    }
    audit
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whatever_is_in_two_places_or_in_none_is_told() {
        let umem = Umem::in_memory(256, 2048).unwrap();
        let mut magazine = umem.magazine();
        let frame = magazine.take().unwrap();
        let holdings = |magazine: &super::super::Magazine, held| {
            vec![Holdings {
                free: magazine.chunks().collect(),
                held,
                queues: Vec::new(),
            }]
        };
        let good = audit(&umem, &holdings(&magazine, 1));
        assert_eq!(good.problems, [""; 0]);
        assert_eq!((good.free, good.held), (255, 1));
        // Nobody says to have it.
        let lost = audit(&umem, &holdings(&magazine, 0));
        assert_eq!(
            lost.problems,
            ["frames in hands: 1 by owner words, 0 counted"]
        );
        // Somebody else lists it as free.
        let mut twice = holdings(&magazine, 1);
        twice[0].free.push(frame.chunk);
        let problems = audit(&umem, &twice).problems.join("\n");
        assert!(
            problems.contains("is Some(Held), but listed as free"),
            "{problems}"
        );
        twice[0].free.pop();
        let again = twice[0].free[0];
        twice[0].free.push(again);
        let problems = audit(&umem, &twice).problems.join("\n");
        assert!(problems.contains("is free twice"), "{problems}");
        // A queue that nobody owns has it.
        umem.set_owner(frame.chunk, Owner::Fill(PoolId(3)));
        let problems = audit(&umem, &holdings(&magazine, 0)).problems.join("\n");
        assert!(
            problems.contains("pool 3 has frames and belongs to no worker"),
            "{problems}"
        );
        let mut owned = holdings(&magazine, 0);
        owned[0].queues.push((PoolId(3), 2, 0));
        let problems = audit(&umem, &owned).problems.join("\n");
        assert_eq!(
            problems,
            "frames lent to pool 3: 1 by owner words, 2 counted"
        );
        umem.set_owner(frame.chunk, Owner::Held);
        magazine.give(frame);
        drop(magazine);
        let rest = audit(&umem, &[]);
        assert_eq!((rest.free, rest.problems.len()), (256, 0));
    }
}
