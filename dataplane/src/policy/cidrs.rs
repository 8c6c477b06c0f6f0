//! Which lists of blocks hold an address: the number line cut wherever a block begins or ends.
//!
//! Between two neighbouring cuts every address is in exactly the same prefixes, all covering ones
//! and not only the longest, and outside the same exceptions. So the piece it falls into says
//! everything that a rule could ask of an address. Pieces with the same answer are of one *class*.
//!
//! ```text
//!  10.0.0.0/8   ├───────────────────────────────┤        list 0
//!  10.1.0.0/16          ├───────┤                        list 1
//!  pieces       │   1   │   2   │       1       │  0     classes: {} {0} {0,1}
//! ```
//!
//! IPv4 has a line of its own, whose keys are four times as dense as 128-bit ones.

use std::sync::Arc;

use hashbrown::HashMap;

use super::ir::Block;
use super::pieces::Pieces;
use super::spans::{self, Span, V4};
use crate::Address;

/// The classes that some lists of blocks make. Immutable, shared by all chains with these lists.
///
/// Memory: 12 bytes (IPv6: 28) for a piece; there are at most two for a prefix or exception. A
/// class holds the numbers of its lists.
#[derive(Debug)]
pub(super) struct Cidrs {
    v4: Pieces<i32, 16>,
    v6: Pieces<u128, 8>,
    classes: Vec<Class>,
    /// What the classes are about. Held so that nobody else's list can have the same address.
    lists: Vec<Arc<[Block]>>,
}

/// What the addresses of some pieces have in common.
#[derive(Debug)]
pub(super) struct Class {
    /// The lists that hold them, by their place in what was given to [`Cidrs::new`], rising.
    pub(super) lists: Arc<[u32]>,
    /// How many addresses there are.
    pub(super) addresses: u128,
    /// The class before the first of the pieces, so an earlier one: of the prefix around it,
    /// mostly. The first class has itself.
    pub(super) before: u32,
}

/// An IPv4 address as a key: its order is that of signed numbers, which processors compare best.
const fn key(v4: u32) -> i32 {
    (v4 ^ 1 << 31) as i32
}

impl Cidrs {
    /// The classes of these lists.
    pub(super) fn new(lists: Vec<Arc<[Block]>>) -> Cidrs {
        let mut sweep = Sweep::default();
        let edges = edges(&lists);
        let mut pieces = Vec::with_capacity(edges.len() + 2);
        let mut first = 0;
        for at in edges.chunk_by(|a, b| a.at == b.at) {
            if first < at[0].at {
                pieces.push((at[0].at - 1, sweep.class(first, at[0].at - 1)));
                first = at[0].at;
            }
            at.iter().for_each(|edge| sweep.cross(edge));
        }
        pieces.push((u128::MAX, sweep.class(first, u128::MAX)));
        // The cuts at both ends of IPv4 are there: see `edges`.
        let (v4, v6): (Vec<_>, Vec<_>) = pieces
            .into_iter()
            .partition(|&(last, _)| (V4.first..=V4.last).contains(&last));
        let v4: Vec<_> = v4
            .iter()
            .map(|&(last, class)| (key(last as u32), class))
            .collect();
        Cidrs {
            v4: Pieces::new(&v4),
            v6: Pieces::new(&v6),
            classes: sweep.classes,
            lists,
        }
    }

    /// The class of an address.
    #[inline]
    pub(super) fn class(&self, address: Address) -> u32 {
        self.class_from(address, self.start(address))
    }

    /// The first half of [`Cidrs::class`]: where to look, for one who has many addresses.
    #[inline]
    pub(super) fn start(&self, address: Address) -> u32 {
        match address.as_v4() {
            Some(v4) => self.v4.start(key(v4)),
            None => self.start_v6(address),
        }
    }

    /// The second half of [`Cidrs::class`].
    #[inline]
    pub(super) fn class_from(&self, address: Address, start: u32) -> u32 {
        match address.as_v4() {
            Some(v4) => self.v4.value(key(v4), start),
            None => self.class_from_v6(address, start),
        }
    }

    // Out of the way of IPv4, which is short enough to be part of whatever loop asks.
    #[inline(never)]
    fn start_v6(&self, address: Address) -> u32 {
        self.v6.start(address.0)
    }

    #[inline(never)]
    fn class_from_v6(&self, address: Address, start: u32) -> u32 {
        self.v6.value(address.0, start)
    }

    /// All classes; at least one.
    pub(super) fn classes(&self) -> &[Class] {
        &self.classes
    }

    /// Bytes on the heap, without the blocks.
    pub(super) fn bytes(&self) -> usize {
        let classes = self.classes.iter();
        let classes = classes.map(|class| size_of_val(class) + size_of_val(&class.lists[..]));
        let lists = size_of_val(&self.lists[..]);
        self.v4.bytes() + self.v6.bytes() + lists + classes.sum::<usize>()
    }
}

/// Where a list begins to hold the addresses, or no longer does.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    at: u128,
    /// None cuts and changes nothing.
    list: Option<u32>,
}

/// The edges of all lists and of IPv4, in order. One behind the last address is left out.
fn edges(lists: &[Arc<[Block]>]) -> Vec<Edge> {
    let mut edges = Vec::new();
    for (list, blocks) in (0..).zip(lists) {
        for span in spans::of_blocks(blocks) {
            push(&mut edges, span, Some(list));
        }
    }
    push(&mut edges, V4, None);
    edges.sort_unstable();
    edges
}

fn push(edges: &mut Vec<Edge>, span: Span, list: Option<u32>) {
    let at = span.first;
    edges.push(Edge { at, list });
    edges.extend(span.last.checked_add(1).map(|at| Edge { at, list }));
}

/// The state of a walk along the number line.
#[derive(Default)]
struct Sweep {
    /// The lists that hold the current piece, rising.
    holding: Vec<u32>,
    classes: Vec<Class>,
    by_lists: HashMap<Arc<[u32]>, u32>,
    /// The class of the piece before.
    before: u32,
}

impl Sweep {
    /// A list's spans do not touch, so each of its edges changes whether it holds.
    fn cross(&mut self, edge: &Edge) {
        let Some(list) = edge.list else { return };
        match self.holding.binary_search(&list) {
            Ok(at) => _ = self.holding.remove(at),
            Err(at) => self.holding.insert(at, list),
        }
    }

    /// The class of the piece from `first` to `last`.
    fn class(&mut self, first: u128, last: u128) -> u32 {
        let class = match self.by_lists.get(&self.holding[..]) {
            Some(&known) => known,
            None => {
                let lists: Arc<[u32]> = Arc::from(&self.holding[..]);
                let class = self.classes.len() as u32;
                self.classes.push(Class {
                    lists: lists.clone(),
                    addresses: 0,
                    before: self.before,
                });
                self.by_lists.insert(lists, class);
                class
            }
        };
        let addresses = &mut self.classes[class as usize].addresses;
        // The whole of the line is one more than fits; nobody needs the last one.
        *addresses = addresses.saturating_add((last - first).saturating_add(1));
        self.before = class;
        class
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(blocks: &[(&str, &[&str])]) -> Arc<[Block]> {
        let net = |text: &&str| text.parse().unwrap();
        let block = |(prefix, except): &(&str, &[&str])| Block {
            prefix: net(prefix),
            except: except.iter().map(net).collect(),
        };
        blocks.iter().map(block).collect()
    }

    fn lists_of(cidrs: &Cidrs, address: &str) -> Vec<u32> {
        let address = address.parse::<std::net::IpAddr>().unwrap().into();
        cidrs.classes()[cidrs.class(address) as usize]
            .lists
            .to_vec()
    }

    #[test]
    fn every_list_that_holds_an_address_is_in_its_class() {
        let cidrs = Cidrs::new(vec![
            list(&[("10.0.0.0/8", &["10.1.0.0/16"])]),
            list(&[("10.1.2.0/24", &[]), ("fd00::/8", &["fd00::/64"])]),
            list(&[("0.0.0.0/0", &[])]),
            list(&[("::/0", &[])]),
        ]);
        for (address, lists) in [
            ("9.255.255.255", &[2][..]),
            ("10.0.0.0", &[0, 2]),
            ("10.1.0.0", &[2]),
            ("10.1.2.255", &[1, 2]),
            ("10.1.3.0", &[2]),
            ("10.255.255.255", &[0, 2]),
            ("255.255.255.255", &[2]),
            ("::", &[3]),
            ("fd00::ffff", &[3]),
            ("fd00:0:0:1::", &[1, 3]),
            ("ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", &[3]),
        ] {
            assert_eq!(lists_of(&cidrs, address), lists, "{address}");
        }
    }

    #[test]
    fn classes_know_how_many_addresses_they_have() {
        let cidrs = Cidrs::new(vec![
            list(&[("10.0.0.0/30", &[]), ("fd00::/126", &[])]),
            list(&[("10.0.0.2/31", &[])]),
        ]);
        let of = |address: &str| {
            let address = address.parse::<std::net::IpAddr>().unwrap().into();
            cidrs.classes()[cidrs.class(address) as usize].addresses
        };
        assert_eq!((of("10.0.0.1"), of("10.0.0.2")), (6, 2));
        assert_eq!(of("::"), u128::MAX - 7, "all the others, of both families");
    }

    #[test]
    fn no_list_is_one_class() {
        let cidrs = Cidrs::new(Vec::new());
        assert_eq!(cidrs.classes().len(), 1);
        assert_eq!(lists_of(&cidrs, "::1"), lists_of(&cidrs, "1.2.3.4"));
        assert_eq!(cidrs.classes()[0].addresses, u128::MAX);
    }
}
