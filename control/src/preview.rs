//! What a change of objects would open and close between the pods that are there before and after
//! it (`--dry-run=server`).
//!
//! Two tables with the same slots are compared, or what one enforces with what it would if policies
//! in audit mode were enforced, for the endpoints whose decisions may differ, pair by pair, and each
//! address family on its own. Between the edges of the port ranges that any rule speaks of no decision
//! changes, so one question a stretch is enough for all ports. Addresses that no pod has are asked for
//! by example: one for every prefix that rules speak of, and one that none of them holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::rc::Rc;

use dataplane::policy::{EndpointSlot, Peer, PolicyTable, Spoken};
use dataplane::{Address, Direction, Protocol};
use ipnet::IpNet;

use crate::family::Family;
use crate::protocol::{Preview, PreviewGroup};

/// The most decisions that one comparison makes; what is left then is counted, not compared.
pub const MAX_DECISIONS: usize = 1_000_000;
/// The most groups of pairs that are told, of what opens and of what closes each.
pub const MAX_GROUPS: usize = 200;
/// The most ends that one side of a group names.
pub const MAX_NAMES: usize = 50;
/// The most prefixes of an endpoint that are asked for by example.
const MAX_PREFIXES: usize = 32;

/// Somebody who may send or receive.
#[derive(Clone, Debug)]
pub struct Party {
    /// `NS/POD`, or what the address is an example of.
    pub name: String,
    /// At most one of a family counts.
    pub addresses: Vec<IpAddr>,
    /// Its place in both tables; none for who is no endpoint of this node.
    pub slot: Option<EndpointSlot>,
}

/// A table's policies.
#[derive(Clone, Copy)]
pub struct Side<'a> {
    table: &'a PolicyTable,
    audited: bool,
}

impl<'a> Side<'a> {
    /// Those that are enforced.
    pub const fn enforced(table: &'a PolicyTable) -> Side<'a> {
        let audited = false;
        Side { table, audited }
    }

    /// With those in audit mode.
    pub const fn audited(table: &'a PolicyTable) -> Side<'a> {
        let audited = true;
        Side { table, audited }
    }

    fn spoken_of(&self, slot: EndpointSlot, direction: Direction) -> Spoken {
        match self.audited {
            true => self.table.audit_spoken_of(slot, direction),
            false => self.table.spoken_of(slot, direction),
        }
    }

    fn accepts(
        &self,
        slot: EndpointSlot,
        direction: Direction,
        peer: &Peer,
        protocol: Protocol,
        port: Option<u16>,
    ) -> bool {
        let audit = self
            .audited
            .then(|| self.table.audit(slot, direction, peer, protocol, port));
        // Where nothing is audited, what is enforced stays.
        let decision = audit
            .flatten()
            .unwrap_or_else(|| self.table.decide(slot, direction, peer, protocol, port));
        decision.verdict.accept
    }
}

/// What is compared.
pub struct Comparison<'a> {
    /// As it is.
    pub before: Side<'a>,
    /// As it would be.
    pub after: Side<'a>,
    /// The endpoints whose decisions may differ.
    pub touched: &'a BTreeSet<EndpointSlot>,
    /// The pods that are there before and after.
    pub pods: &'a [Party],
}

/// A stretch of ports between whose edges no decision changes: protocol, first, last. Without a
/// protocol it stands for all that have no ports.
type Stretch = (Option<Protocol>, u16, u16);

const WITH_PORTS: [Protocol; 3] = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];

impl Comparison<'_> {
    /// Compares.
    pub fn preview(&self) -> Preview {
        let mut comparing = Comparing {
            comparison: self,
            cuts: HashMap::new(),
            decisions: 0,
            left_out: 0,
            opens: Grouping::default(),
            closes: Grouping::default(),
        };
        let taken: HashSet<IpAddr> = self
            .pods
            .iter()
            .flat_map(|p| &p.addresses)
            .copied()
            .collect();
        let touches = |party: &&Party| party.slot.is_some_and(|slot| self.touched.contains(&slot));
        for party in self.pods.iter().filter(touches) {
            for other in self.pods {
                if std::ptr::eq(party, other) {
                    continue;
                }
                comparing.pair(party, other);
                // The other way is the other's turn, if it has one.
                if !touches(&other) {
                    comparing.pair(other, party);
                }
            }
            for outsider in self.outsiders(party, &taken) {
                comparing.pair(party, &outsider);
                comparing.pair(&outsider, party);
            }
        }
        Preview {
            opened_pairs: comparing.opens.pairs,
            opens: comparing.opens.groups(),
            closed_pairs: comparing.closes.pairs,
            closes: comparing.closes.groups(),
            pairs_left_out: comparing.left_out,
            ..Preview::default()
        }
    }

    /// Addresses that no pod has, as examples.
    fn outsiders(&self, party: &Party, taken: &HashSet<IpAddr>) -> Vec<Party> {
        let Some(slot) = party.slot else {
            return Vec::new();
        };
        let mut prefixes: BTreeSet<IpNet> = BTreeSet::new();
        for side in [self.before, self.after] {
            for direction in [Direction::Egress, Direction::Ingress] {
                prefixes.extend(side.spoken_of(slot, direction).prefixes);
            }
        }
        let is_pod = |address: &IpAddr| taken.contains(address);
        let mut found = Vec::new();
        for prefix in prefixes.iter().take(MAX_PREFIXES) {
            let inside: Vec<&IpNet> = prefixes
                .iter()
                .filter(|other| *other != prefix && prefix.contains(*other))
                .collect();
            let example = examples(prefix, &inside)
                .find(|a| !inside.iter().any(|other| other.contains(a)) && !is_pod(a));
            found.extend(example.map(|address| (prefix.to_string(), address)));
        }
        let v4 = [(192, 0, 2), (198, 51, 100), (203, 0, 113)];
        let v4 = v4.map(|(a, b, c)| IpAddr::V4(Ipv4Addr::new(a, b, c, 77)));
        let v6 = [0x77, 0x7777]
            .map(|last| IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last)));
        let elsewhere = |a: &&IpAddr| !prefixes.iter().any(|p| p.contains(*a)) && !is_pod(a);
        let any_v4 = v4.iter().find(elsewhere);
        found.extend(any_v4.map(|a| ("other IPv4 addresses".to_owned(), *a)));
        let any_v6 = v6.iter().find(elsewhere);
        found.extend(any_v6.map(|a| ("other IPv6 addresses".to_owned(), *a)));
        let party = |(name, address): (String, IpAddr)| Party {
            name,
            addresses: vec![address],
            slot: None,
        };
        found.into_iter().map(party).collect()
    }
}

/// Addresses of a prefix that are worth a look: its ends, and those behind what is in it.
fn examples<'a>(prefix: &'a IpNet, inside: &'a [&IpNet]) -> impl Iterator<Item = IpAddr> + 'a {
    let behind = inside.iter().filter_map(|other| match other.broadcast() {
        IpAddr::V4(last) => u32::from(last)
            .checked_add(1)
            .map(Ipv4Addr::from)
            .map(IpAddr::V4),
        IpAddr::V6(last) => u128::from(last)
            .checked_add(1)
            .map(Ipv6Addr::from)
            .map(IpAddr::V6),
    });
    [prefix.network(), prefix.broadcast()]
        .into_iter()
        .chain(behind.filter(|address| prefix.contains(address)))
}

/// Where decisions may change with the port, in order.
type Cuts = Rc<[(Protocol, u16)]>;

struct Comparing<'a> {
    comparison: &'a Comparison<'a>,
    /// Where decisions of an endpoint may change with the port, in either table, in order.
    cuts: HashMap<(EndpointSlot, Direction), Cuts>,
    decisions: usize,
    left_out: u64,
    opens: Grouping,
    closes: Grouping,
}

impl Comparing<'_> {
    fn pair(&mut self, from: &Party, to: &Party) {
        let stretches = self.stretches(from, to);
        let mut changes = Vec::new();
        for v4 in [true, false] {
            let of = |party: &Party| party.addresses.iter().copied().find(|a| a.is_ipv4() == v4);
            let (Some(source), Some(destination)) = (of(from), of(to)) else {
                continue;
            };
            if self.decisions + stretches.len() > MAX_DECISIONS {
                self.left_out += 1;
                return;
            }
            self.decisions += stretches.len();
            let ends = (source, destination);
            let [before, after] = [self.comparison.before, self.comparison.after]
                .map(|side| Decider::new(side, from, to, ends));
            let mut opened: BTreeSet<Stretch> = BTreeSet::new();
            let mut closed: BTreeSet<Stretch> = BTreeSet::new();
            for stretch in &stretches {
                match (before.accepts(stretch), after.accepts(stretch)) {
                    (false, true) => opened.insert(*stretch),
                    (true, false) => closed.insert(*stretch),
                    _ => false,
                };
            }
            changes.push((Family::of(source), [opened, closed]));
        }
        for (i, grouping) in [&mut self.opens, &mut self.closes].into_iter().enumerate() {
            let changed: Vec<_> = changes
                .iter()
                .map(|(family, of)| (family, &of[i]))
                .collect();
            let alike = changed.windows(2).all(|pair| pair[0].1 == pair[1].1);
            let told = if alike { 1 } else { changed.len() };
            grouping.pairs += u64::from(changed.iter().any(|(_, of)| !of.is_empty()));
            for (family, changed) in changed.into_iter().take(told) {
                if changed.is_empty() {
                    continue;
                }
                let mut ports = in_words(&stretches, changed);
                if !alike {
                    ports = format!("{ports} (over {})", family.name());
                }
                grouping.add(from, to, ports);
            }
        }
    }

    /// The stretches of all ports, port 0 apart: no packet asks for it.
    fn stretches(&mut self, from: &Party, to: &Party) -> Vec<Stretch> {
        let mut cuts: Vec<(Protocol, u16)> = WITH_PORTS.map(|protocol| (protocol, 1)).into();
        for (party, direction) in [(from, Direction::Egress), (to, Direction::Ingress)] {
            if let Some(slot) = party.slot {
                cuts.extend_from_slice(&self.cuts(slot, direction));
            }
        }
        cuts.retain(|(_, first)| *first > 0);
        cuts.sort_unstable();
        cuts.dedup();
        let mut stretches: Vec<Stretch> = Vec::with_capacity(cuts.len() + 1);
        for (protocol, first) in cuts {
            if let Some((Some(last_protocol), _, last)) = stretches.last_mut()
                && *last_protocol == protocol
            {
                *last = first - 1;
            }
            stretches.push((Some(protocol), first, u16::MAX));
        }
        stretches.push((None, 0, 0));
        stretches
    }

    fn cuts(&mut self, slot: EndpointSlot, direction: Direction) -> Cuts {
        if let Some(known) = self.cuts.get(&(slot, direction)) {
            return known.clone();
        }
        let sides = [self.comparison.before, self.comparison.after];
        let spoken = sides.map(|side| side.spoken_of(slot, direction).ports);
        let edges = spoken.into_iter().flatten().flat_map(|range| {
            let behind = range.last.checked_add(1);
            let behind = behind.map(|port| (range.protocol, port));
            [Some((range.protocol, range.first)), behind]
        });
        let mut cuts: Vec<(Protocol, u16)> = edges
            .flatten()
            .filter(|(protocol, _)| WITH_PORTS.contains(protocol))
            .collect();
        cuts.sort_unstable();
        cuts.dedup();
        let cuts: Cuts = cuts.into();
        self.cuts.insert((slot, direction), cuts.clone());
        cuts
    }
}

/// What one side says of a pair of addresses.
struct Decider<'a> {
    side: Side<'a>,
    v4: bool,
    /// The endpoints that have a say, with their peers.
    says: [Option<(EndpointSlot, Direction, Peer)>; 2],
}

impl<'a> Decider<'a> {
    fn new(
        side: Side<'a>,
        from: &Party,
        to: &Party,
        (source, destination): (IpAddr, IpAddr),
    ) -> Decider<'a> {
        let say = |party: &Party, direction, peer: IpAddr| {
            let slot = party.slot?;
            Some((slot, direction, side.table.peer(Address::from(peer))))
        };
        Decider {
            side,
            v4: source.is_ipv4(),
            says: [
                say(from, Direction::Egress, destination),
                say(to, Direction::Ingress, source),
            ],
        }
    }

    fn accepts(&self, stretch: &Stretch) -> bool {
        let (protocol, port) = match *stretch {
            (Some(protocol), first, _) => (protocol, Some(first)),
            (None, ..) if self.v4 => (Protocol::ICMP, None),
            (None, ..) => (Protocol::ICMPV6, None),
        };
        self.says.iter().flatten().all(|(slot, direction, peer)| {
            self.side.accepts(*slot, *direction, peer, protocol, port)
        })
    }
}

/// `TCP 80, 443`, `UDP`, `everything`.
fn in_words(all: &[Stretch], some: &BTreeSet<Stretch>) -> String {
    if all.iter().all(|stretch| some.contains(stretch)) {
        return "everything".to_owned();
    }
    let mut parts = Vec::new();
    for (protocol, name) in WITH_PORTS.into_iter().zip(["TCP", "UDP", "SCTP"]) {
        let mut ranges: Vec<(u16, u16)> = Vec::new();
        for &(_, first, last) in some.iter().filter(|(p, ..)| *p == Some(protocol)) {
            match ranges.last_mut() {
                Some(before) if before.1.checked_add(1) == Some(first) => before.1 = last,
                _ => ranges.push((first, last)),
            }
        }
        let words: Vec<String> = ranges
            .iter()
            .map(|range| match *range {
                (1, u16::MAX) => String::new(),
                (first, last) if first == last => first.to_string(),
                (first, last) => format!("{first}-{last}"),
            })
            .collect();
        if !words.is_empty() {
            parts.push(format!("{name} {}", words.join(", ")).trim_end().to_owned());
        }
    }
    if some.iter().any(|(protocol, ..)| protocol.is_none()) {
        parts.push("protocols without ports".to_owned());
    }
    parts.join("; ")
}

/// Pairs with equal ports, those of equal senders and receivers together.
#[derive(Default)]
struct Grouping {
    pairs: u64,
    /// Senders by receiver and ports.
    senders: BTreeMap<(String, String), BTreeSet<String>>,
}

impl Grouping {
    fn add(&mut self, from: &Party, to: &Party, ports: String) {
        let place = self.senders.entry((ports, to.name.clone())).or_default();
        place.insert(from.name.clone());
    }

    fn groups(self) -> Vec<PreviewGroup> {
        let mut receivers: BTreeMap<(String, BTreeSet<String>), Vec<String>> = BTreeMap::new();
        for ((ports, to), from) in self.senders {
            receivers.entry((ports, from)).or_default().push(to);
        }
        let groups = receivers.into_iter().map(|((ports, from), to)| {
            let named = |names: Vec<String>| {
                let more = names.len().saturating_sub(MAX_NAMES) as u64;
                (names.into_iter().take(MAX_NAMES).collect(), more)
            };
            let pairs = (from.len() * to.len()) as u64;
            let (from, more_from) = named(from.into_iter().collect());
            let (to, more_to) = named(to);
            PreviewGroup {
                from,
                more_from,
                to,
                more_to,
                ports,
                pairs,
            }
        });
        let mut groups: Vec<PreviewGroup> = groups.collect();
        // The largest first: the bound then leaves out the least.
        groups.sort_by_key(|group| std::cmp::Reverse(group.pairs));
        groups.truncate(MAX_GROUPS);
        groups
    }
}
