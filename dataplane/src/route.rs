//! Longest-prefix routes and next hops.

use std::collections::HashMap;

use ipnet::IpNet;

use crate::Address;
use crate::snapshot::PortId;

/// The way to a next hop.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum NextHop {
    /// A router with this address on the port's link: its neighbour entry has the Ethernet address.
    Gateway(Address),
    /// The destination itself is a neighbour on the port's link.
    OnLink,
    /// A local endpoint, by its index in the snapshot.
    Endpoint(u32),
}

/// Where packets to a prefix go.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct RouteTarget {
    /// The port they leave by.
    pub port: PortId,
    /// Whom they are handed to there.
    pub next_hop: NextHop,
}

/// A route to a prefix.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Route {
    /// Destinations; host bits are ignored.
    pub prefix: IpNet,
    /// Where they go; none for the kernel's `unreachable`, `blackhole` and `prohibit`, which hide
    /// shorter prefixes.
    pub target: Option<RouteTarget>,
}

/// Longest-prefix match over both families: built once, never changed, no allocation in lookups.
///
/// Prefixes nest or are disjoint, so at building they are cut into intervals that each have one
/// answer; a lookup is one binary search, over 32-bit numbers for IPv4.
#[derive(Debug, Default)]
pub struct RouteTable {
    v4: Intervals<u32>,
    v6: Intervals<u128>,
    targets: Vec<RouteTarget>,
}

/// No target: an index that [`RouteTable::new`] never gives.
const NOWHERE: u32 = u32::MAX;

/// Disjoint intervals, each up to where the next starts, and the target's index for each.
#[derive(Debug)]
struct Intervals<Bits> {
    starts: Vec<Bits>,
    targets: Vec<u32>,
}

impl<Bits> Default for Intervals<Bits> {
    fn default() -> Self {
        Intervals {
            starts: Vec::new(),
            targets: Vec::new(),
        }
    }
}

impl<Bits: Copy + Ord> Intervals<Bits> {
    fn lookup(&self, address: Bits) -> Option<u32> {
        let behind = self.starts.partition_point(|start| *start <= address);
        self.targets.get(behind.checked_sub(1)?).copied()
    }
}

/// A prefix as the addresses it covers, first and last.
struct Covered {
    first: u128,
    last: u128,
    target: u32,
}

impl RouteTable {
    /// A table of `routes`. Of two routes to one prefix the earlier in the list wins, so callers
    /// sort by metric. A prefix of IPv4-mapped IPv6 addresses matches nothing: no packet has them.
    pub fn new(routes: &[Route]) -> RouteTable {
        let mut numbers = HashMap::new();
        let mut targets = Vec::new();
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for route in routes {
            let target = match route.target {
                None => NOWHERE,
                Some(target) => *numbers.entry(target).or_insert_with(|| {
                    targets.push(target);
                    targets.len() as u32 - 1
                }),
            };
            let (family, first, last) = match route.prefix {
                IpNet::V4(net) => (
                    &mut v4,
                    u128::from(u32::from(net.network())),
                    u128::from(u32::from(net.broadcast())),
                ),
                IpNet::V6(net) => (
                    &mut v6,
                    u128::from(net.network()),
                    u128::from(net.broadcast()),
                ),
            };
            family.push(Covered {
                first,
                last,
                target,
            });
        }
        RouteTable {
            v4: intervals(v4, |bits| bits as u32),
            v6: intervals(v6, |bits| bits),
            targets,
        }
    }

    /// Where packets to `destination` go: the longest prefix that covers it.
    pub fn lookup(&self, destination: Address) -> Option<RouteTarget> {
        let target = match destination.as_v4() {
            Some(bits) => self.v4.lookup(bits),
            None => self.v6.lookup(destination.0),
        };
        self.targets.get(target? as usize).copied()
    }
}

/// Cuts nested prefixes into intervals; `bits` narrows a number to the family's width.
fn intervals<Bits>(mut prefixes: Vec<Covered>, bits: fn(u128) -> Bits) -> Intervals<Bits> {
    // Outer prefixes come before what they hold; the sort is stable, so the first of equal ones
    // stays in front.
    prefixes.sort_by(|a, b| a.first.cmp(&b.first).then(b.last.cmp(&a.last)));
    prefixes.dedup_by(|later, kept| later.first == kept.first && later.last == kept.last);
    let mut cuts: Vec<(u128, u32)> = Vec::with_capacity(2 * prefixes.len());
    let mut cut = |start: u128, target: u32| {
        // Of several prefixes that start here the innermost comes last and counts.
        if cuts.last().is_some_and(|(last, _)| *last == start) {
            cuts.pop();
        }
        if cuts.last().map_or(NOWHERE, |(_, last)| *last) != target {
            cuts.push((start, target));
        }
    };
    let mut open: Vec<Covered> = Vec::new();
    // Closes prefixes that end before `next`: behind each, the one around it answers again.
    let close = |open: &mut Vec<Covered>, next: Option<u128>, cut: &mut dyn FnMut(u128, u32)| {
        while let Some(ended) = open.pop_if(|inner| next.is_none_or(|next| inner.last < next)) {
            let around = open.last().map_or(NOWHERE, |outer| outer.target);
            // The last address has nothing behind it.
            if let Some(start) = ended.last.checked_add(1) {
                cut(start, around);
            }
        }
    };
    for prefix in prefixes {
        close(&mut open, Some(prefix.first), &mut cut);
        cut(prefix.first, prefix.target);
        open.push(prefix);
    }
    close(&mut open, None, &mut cut);
    // Behind IPv4's last address nothing can be asked for, and its number would wrap around.
    let width = 8 * size_of::<Bits>() as u32;
    cuts.retain(|(start, _)| width >= u128::BITS || *start >> width == 0);
    Intervals {
        starts: cuts.iter().map(|(start, _)| bits(*start)).collect(),
        targets: cuts.iter().map(|(_, target)| *target).collect(),
    }
}
