//! Who is in which set: what control has said so far, and what of it chains do not yet know.

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::ir::PeerSetId;
use super::numbers::{NONE, Numbers};
use crate::Address;

/// The sets, their members, and the members' numbers.
///
/// Memory: about 20 bytes for each member of each set.
#[derive(Debug, Default)]
pub(super) struct Members {
    sets: HashMap<PeerSetId, Set>,
    /// The sets that each numbered address is in, rising.
    of: Vec<Vec<PeerSetId>>,
    pub(super) numbers: Numbers,
    /// Numbers to be given again.
    free: Vec<u32>,
    /// What joined or left since the last time.
    pending: Vec<(u32, PeerSetId)>,
}

/// One set.
#[derive(Debug, Default)]
struct Set {
    /// How often each address was added.
    times: HashMap<u32, u32>,
    /// The chains whose rules name the set.
    chains: Vec<u32>,
}

impl Members {
    /// Adds an address to a set once more.
    pub(super) fn add(&mut self, set: PeerSetId, address: Address) {
        let number = self.number(address);
        let times = self.sets.entry(set).or_default().times.entry(number);
        let times = times.or_insert(0);
        *times += 1;
        if *times == 1 {
            let of = &mut self.of[number as usize];
            if let Err(at) = of.binary_search(&set) {
                of.insert(at, set);
            }
            self.pending.push((number, set));
        }
    }

    /// Takes an address out of a set, once.
    pub(super) fn remove(&mut self, set: PeerSetId, address: Address) {
        let number = self.numbers.find(address, self.numbers.probe(address));
        let Some(known) = self.sets.get_mut(&set) else {
            return;
        };
        let Entry::Occupied(mut times) = known.times.entry(number) else {
            return;
        };
        *times.get_mut() -= 1;
        if *times.get() > 0 {
            return;
        }
        times.remove();
        let of = &mut self.of[number as usize];
        if let Ok(at) = of.binary_search(&set) {
            of.remove(at);
        }
        self.pending.push((number, set));
    }

    /// The address's number; a new one if it has none.
    fn number(&mut self, address: Address) -> u32 {
        let known = self.numbers.find(address, self.numbers.probe(address));
        if known != NONE {
            return known;
        }
        let number = self.free.pop().unwrap_or(self.of.len() as u32);
        if number as usize == self.of.len() {
            self.of.push(Vec::new());
        }
        self.numbers.insert(address, number);
        number
    }

    /// The address of a number.
    pub(super) fn address(&self, number: u32) -> Option<Address> {
        self.numbers.address(number)
    }

    /// The sets that a numbered address is in.
    pub(super) fn sets_of(&self, number: u32) -> &[PeerSetId] {
        &self.of[number as usize]
    }

    /// Says that a chain's rules name these sets.
    pub(super) fn name(&mut self, sets: &[PeerSetId], chain: u32) {
        for &set in sets {
            self.sets.entry(set).or_default().chains.push(chain);
        }
    }

    /// Takes back [`Members::name`].
    pub(super) fn forget(&mut self, sets: &[PeerSetId], chain: u32) {
        for set in sets {
            let Some(known) = self.sets.get_mut(set) else {
                continue;
            };
            if let Some(at) = known.chains.iter().position(|&other| other == chain) {
                known.chains.swap_remove(at);
            }
            if known.chains.is_empty() && known.times.is_empty() {
                self.sets.remove(set);
            }
        }
    }

    /// The chains and numbers for which something may have changed since the last time, each pair
    /// once.
    pub(super) fn take_changed(&mut self) -> Changed {
        let pending = std::mem::take(&mut self.pending);
        let mut changed = Changed::default();
        for &(number, set) in &pending {
            let known = self.sets.get(&set);
            let chains = known.iter().flat_map(|set| &set.chains);
            changed.pairs.extend(chains.map(|&chain| (chain, number)));
            changed.numbers.push(number);
            if known.is_some_and(|set| set.chains.is_empty() && set.times.is_empty()) {
                self.sets.remove(&set);
            }
        }
        changed.pairs.sort_unstable();
        changed.pairs.dedup();
        changed.numbers.sort_unstable();
        changed.numbers.dedup();
        changed
    }

    /// Gives up the numbers of addresses that are in no set any more. No chain may know them.
    pub(super) fn give_up(&mut self, numbers: &[u32]) {
        for &number in numbers {
            if let Some(address) = self.address(number)
                && self.of[number as usize].is_empty()
            {
                self.numbers.remove(address);
                self.free.push(number);
            }
        }
    }

    /// The members of these sets, with the places of the sets that hold each.
    pub(super) fn by_address(&self, sets: &[PeerSetId]) -> ByAddress {
        let known = || (0..).zip(sets.iter().map(|set| self.sets.get(set)));
        let members = || {
            known().flat_map(|(place, set)| {
                let numbers = set.into_iter().flat_map(|set| set.times.keys());
                numbers.map(move |&number| (number, place))
            })
        };
        let count = known().map(|(_, set)| set.map_or(0, |set| set.times.len()));
        match count.sum::<usize>() {
            few if few < self.of.len() / FEW => ByAddress::sorted(members().collect()),
            _ => ByAddress::counted(self.of.len(), members),
        }
    }
}

/// What [`Members::take_changed`] found.
#[derive(Debug, Default)]
pub(super) struct Changed {
    /// Chains and numbers, by chain.
    pub(super) pairs: Vec<(u32, u32)>,
    /// All numbers that joined or left some set.
    pub(super) numbers: Vec<u32>,
}

/// Members are sorted if there are at most one in so many of all numbers; else walking along all of
/// them costs less.
const FEW: usize = 16;

/// Lists of places, one for each number that has any.
pub(super) struct ByAddress {
    /// Numbers, rising, and where in `places` each list ends.
    ends: Vec<(u32, u32)>,
    places: Vec<u32>,
}

impl ByAddress {
    /// From pairs of number and place.
    fn sorted(mut pairs: Vec<(u32, u32)>) -> ByAddress {
        pairs.sort_unstable();
        let mut end = 0;
        let ends = pairs.chunk_by(|a, b| a.0 == b.0).map(|same| {
            end += same.len() as u32;
            (same[0].0, end)
        });
        ByAddress {
            ends: ends.collect(),
            places: pairs.iter().map(|&(_, place)| place).collect(),
        }
    }

    /// The same of pairs whose numbers are below `numbers` and whose places rise: counted, then laid
    /// out.
    fn counted<I: Iterator<Item = (u32, u32)>>(numbers: usize, pairs: impl Fn() -> I) -> ByAddress {
        let mut next = vec![0_u32; numbers + 1];
        pairs().for_each(|(number, _)| next[number as usize + 1] += 1);
        let mut ends = Vec::new();
        let mut sum = 0;
        for (number, next) in (0..).zip(&mut next[1..]) {
            let count = std::mem::replace(next, sum);
            sum += count;
            if count > 0 {
                ends.push((number, sum));
            }
        }
        let mut places = vec![0; sum as usize];
        for (number, place) in pairs() {
            let next = &mut next[number as usize + 1];
            places[*next as usize] = place;
            *next += 1;
        }
        ByAddress { ends, places }
    }

    /// The numbers that have a place, with their places, rising.
    pub(super) fn iter(&self) -> impl Iterator<Item = (u32, &[u32])> {
        let mut start = 0;
        self.ends.iter().map(move |&(number, end)| {
            let places = &self.places[start as usize..end as usize];
            start = end;
            (number, places)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sorting_few_and_counting_many_lay_out_the_same() {
        let mut members = Members::default();
        let address = |number: u32| Address(u128::from(number) + 1);
        for number in 0..400 {
            members.add(PeerSetId(7), address(number));
        }
        for number in [3, 5, 250] {
            members.add(PeerSetId(1), address(number));
        }
        for number in [250, 3] {
            members.add(PeerSetId(2), address(number));
        }
        let lists = |sets: &[PeerSetId]| -> Vec<(u32, Vec<u32>)> {
            let found = members.by_address(sets);
            found
                .iter()
                .map(|(n, places)| (n, places.to_vec()))
                .collect()
        };
        let few = [PeerSetId(1), PeerSetId(9), PeerSetId(2)];
        let expected = vec![(3, vec![0, 2]), (5, vec![0]), (250, vec![0, 2])];
        assert_eq!(lists(&few), expected);
        let many = lists(&[PeerSetId(1), PeerSetId(7), PeerSetId(2)]);
        assert_eq!(many.len(), 400);
        assert_eq!(many[3], (3, vec![0, 1, 2]));
        assert_eq!(many[4], (4, vec![1]));
        assert_eq!(many[250], (250, vec![0, 1, 2]));
    }
}
