//! What changes: members that come and go, chains that come and go. After every step the table is
//! what one made from scratch would be, counters count for the rules that had a part in the decision,
//! and `settle` has named exactly the chains that decide something else.

use std::collections::{BTreeMap, BTreeSet};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::ir::EndpointPolicy;
use super::super::naive::{self, PeerSets};
use super::super::{ChainId, Compiler, EndpointSlot, PolicyTable, Slot};
use super::property::{SETS, WITHOUT_PORTS, address, endpoints, run_some};
use super::*;
use crate::{Address, Direction};

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// One step.
#[derive(Clone, Debug)]
enum Step {
    Add(PeerSetId, Address),
    Remove(PeerSetId, Address),
    /// Takes what was added, whichever it is, away again.
    TakeBack(Index),
    /// Gives an endpoint the policy of this number.
    Attach(u16, Index),
    Detach(u16),
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    let set = || (0..SETS).prop_map(PeerSetId);
    prop_oneof![
        4 => (set(), address()).prop_map(|(set, address)| Step::Add(set, address)),
        1 => (set(), address()).prop_map(|(set, address)| Step::Remove(set, address)),
        3 => any::<Index>().prop_map(Step::TakeBack),
        2 => (0..3_u16, any::<Index>()).prop_map(|(slot, policy)| Step::Attach(slot, policy)),
        1 => (0..3_u16).prop_map(Step::Detach),
        3 => Just(Step::Settle),
    ]
}

/// A place in every piece that the strategies' prefixes can make.
fn addresses() -> Vec<Address> {
    let some = [
        "0.0.0.0",
        "9.255.255.255",
        "127.255.255.255",
        "128.0.0.0",
        "255.255.255.255",
        "::",
        "::1",
        "::fffd:ffff:ffff",
        "::fffe:0:0",
        "::fffe:ffff:ffff",
        "::1:0:0:0",
        "::1:0:0:1",
        "0:0:0:0:8000::",
        "0:0:0:1::",
        "7fff::",
        "8000::",
        "fcff::",
        "fd01::",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
        "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ff00",
        "255.255.255.0",
    ];
    let some = some.map(|text| text.parse::<std::net::IpAddr>().unwrap().into());
    let v4 = (0..70).map(|host| Address::v4(0x0a00_0000 + host));
    let v6 = (0..70).map(|host| Address::v6((0xfd00 << 112) + host));
    some.into_iter().chain(v4).chain(v6).collect()
}

/// A port in every stretch that the strategies' ranges can make.
fn ports() -> Vec<(Protocol, Option<u16>)> {
    let numbers = [
        0, 1, 2, 3, 79, 80, 81, 82, 83, 443, 444, 65533, 65534, 65535,
    ];
    let with_ports = [Protocol::TCP, Protocol::UDP, Protocol::SCTP];
    let every = |protocol| numbers.map(|port| (protocol, Some(port)));
    let none = WITHOUT_PORTS.into_iter().chain([Protocol::TCP]);
    let none = none.map(|protocol| (protocol, None));
    with_ports.into_iter().flat_map(every).chain(none).collect()
}

/// All that a table decides for a slot in one direction.
fn decisions(table: &PolicyTable, slot: u16, direction: Direction) -> Vec<Decision> {
    let mut decisions = Vec::new();
    for address in addresses() {
        let peer = table.peer(address);
        for (protocol, port) in ports() {
            decisions.push(table.decide(EndpointSlot(slot), direction, &peer, protocol, port));
        }
    }
    decisions
}

/// A compiler beside what it should know.
#[derive(Default)]
struct Model {
    compiler: Compiler,
    times: BTreeMap<(PeerSetId, Address), u32>,
    attached: BTreeMap<u16, (EndpointPolicy, [ChainId; 2])>,
}

/// The first compound counter: no rule's.
const COMPOUNDS: u32 = 10_000;

impl Model {
    /// With so many compound counters.
    fn new(compounds: u32) -> Model {
        Model {
            compiler: Compiler::with_compounds(COMPOUNDS..COMPOUNDS + compounds),
            ..Model::default()
        }
    }

    /// Whether a decision is the expected one, and counts for these; and if for the first alone,
    /// whether that is known of the others.
    fn agrees(&self, found: Decision, (by_rules, counters): (Decision, Vec<CounterId>)) -> bool {
        let compounds = self.compiler.compounds();
        let first = counters.first().copied().unwrap_or(CounterId::NONE);
        let others: BTreeSet<CounterId> = counters.into_iter().collect();
        let counted = match compounds.combination(found.counter) {
            Some(combination) => {
                let of_all = |member| compounds.of(member).any(|c| c == found.counter);
                combination.members().collect::<BTreeSet<_>>() == others
                    && combination.members().all(of_all)
            }
            None => {
                let missed = |member: &CounterId| *member == first || compounds.misses(*member);
                found.counter == first && others.iter().all(missed)
            }
        };
        found.verdict == by_rules.verdict && counted
    }

    /// Once nobody has a chain any more, nobody has a compound counter.
    fn give_up(mut self) -> Result<(), TestCaseError> {
        (0..3).for_each(|slot| self.detach(slot));
        for _ in 0..2 {
            self.compiler.compounds_mut().have_read();
        }
        let compounds = self.compiler.compounds();
        prop_assert_eq!((compounds.in_use(), compounds.without()), (0, 0));
        Ok(())
    }

    fn table(&self) -> PolicyTable {
        let slots = self.attached.iter().map(|(&slot, &(_, enforced))| {
            let audit = None;
            (EndpointSlot(slot), Slot { enforced, audit })
        });
        self.compiler.table(slots)
    }

    fn sets(&self) -> PeerSets {
        let mut sets = PeerSets::new();
        for &(set, member) in self.times.keys() {
            sets.entry(set).or_default().insert(member);
        }
        sets
    }

    fn take(&mut self, step: &Step, policies: &[EndpointPolicy]) {
        match step {
            Step::Add(set, address) => {
                self.compiler.add_member(*set, *address);
                *self.times.entry((*set, *address)).or_default() += 1;
            }
            Step::Remove(set, address) => self.remove(*set, *address),
            Step::TakeBack(index) if !self.times.is_empty() => {
                let at = index.index(self.times.len());
                let (set, address) = *self.times.keys().nth(at).unwrap();
                self.remove(set, address);
            }
            Step::Attach(slot, policy) => {
                self.detach(*slot);
                let policy = policy.get(policies).clone();
                let chain = |d| self.compiler.chain(d, naive::chain(&policy, d));
                let chains = DIRECTIONS.map(chain);
                self.attached.insert(*slot, (policy, chains));
            }
            Step::Detach(slot) => self.detach(*slot),
            Step::TakeBack(_) | Step::Settle => {}
        }
    }

    fn remove(&mut self, set: PeerSetId, address: Address) {
        self.compiler.remove_member(set, address);
        if let Some(times) = self.times.get_mut(&(set, address)) {
            *times -= 1;
            if *times == 0 {
                self.times.remove(&(set, address));
            }
        }
    }

    fn detach(&mut self, slot: u16) {
        if let Some((_, chains)) = self.attached.remove(&slot) {
            chains
                .into_iter()
                .for_each(|chain| self.compiler.release(chain));
        }
    }

    /// Settles, and holds what comes of it to the specification and to a table from scratch.
    fn settle(&mut self) -> Result<(), TestCaseError> {
        let before = self.table();
        self.compiler.compounds_mut().have_read();
        let changed = self.compiler.settle();
        let after = self.table();
        let sets = self.sets();
        let input = self.attached.iter();
        let input: Vec<_> = input
            .map(|(&slot, (policy, _))| (EndpointSlot(slot), policy))
            .collect();
        let scratch = PolicyTable::compile_with(&sets, &input);
        for (&slot, (policy, chains)) in &self.attached {
            for direction in DIRECTIONS {
                let decided = decisions(&after, slot, direction);
                let mut expected = decided.iter();
                for address in addresses() {
                    for (protocol, port) in ports() {
                        let by_rules = naive::decide_and_count(
                            policy, &sets, direction, address, protocol, port,
                        );
                        let found = *expected.next().unwrap();
                        let agrees = self.agrees(found, by_rules.clone());
                        prop_assert!(agrees, "{:?}: {:?}, not {:?}", address, found, by_rules);
                    }
                }
                let was = decisions(&before, slot, direction);
                let differs = changed.contains(&chains[direction as usize]);
                prop_assert_eq!(
                    differs,
                    was != decided,
                    "what settle names, and what differs"
                );
                let slot = EndpointSlot(slot);
                let denies = decided.iter().any(|decision| !decision.verdict.accept);
                prop_assert_eq!(after.may_deny(slot, direction), denies);
                prop_assert_eq!(scratch.may_deny(slot, direction), denies);
            }
        }
        Ok(())
    }
}

#[test]
fn changes_lead_where_starting_anew_leads() {
    run_some(
        (endpoints(), vec(step(), 1..40), select(vec![0, 2, 1000])),
        40,
        |(policies, steps, compounds)| {
            let mut model = Model::new(compounds);
            for step in steps {
                model.take(&step, &policies);
                if matches!(step, Step::Settle) {
                    model.settle()?;
                }
            }
            model.settle()?;
            model.give_up()
        },
    );
}

/// A compiler with one ingress chain, in a slot of its own.
fn one(chain: &Chain) -> (Compiler, Slot) {
    let mut compiler = Compiler::new();
    let egress = compiler.chain(Direction::Egress, &Chain::default());
    let ingress = compiler.chain(Direction::Ingress, chain);
    let enforced = [egress, ingress];
    let audit = None;
    (compiler, Slot { enforced, audit })
}

fn accepts(compiler: &Compiler, slot: Slot, peer: u32, port: u16) -> bool {
    let table = compiler.table([(EndpointSlot(0), slot)].into_iter());
    let peer = table.peer(Address::v4(peer));
    let (slot, tcp) = (EndpointSlot(0), Protocol::TCP);
    let decision = table.decide(slot, Direction::Ingress, &peer, tcp, Some(port));
    decision.verdict.accept
}

#[test]
fn an_address_that_two_pods_share_stays_until_both_are_gone() {
    let set = PeerSetId(7);
    let rule = allow(1, 0, Peers::sets([set]), Ports::Any);
    let (mut compiler, slot) = one(&chain(&[1], &[rule]));
    let ingress = slot.enforced[1];
    compiler.add_member(set, Address::v4(1));
    compiler.add_member(set, Address::v4(1));
    assert!(!accepts(&compiler, slot, 1, 80), "not before it is settled");
    assert_eq!(compiler.settle(), [ingress]);
    assert!(accepts(&compiler, slot, 1, 80) && !accepts(&compiler, slot, 2, 80));
    compiler.remove_member(set, Address::v4(1));
    assert_eq!(compiler.settle(), []);
    assert!(accepts(&compiler, slot, 1, 80));
    compiler.remove_member(set, Address::v4(1));
    assert_eq!(compiler.settle(), [ingress]);
    assert!(!accepts(&compiler, slot, 1, 80));
    compiler.remove_member(set, Address::v4(1));
    compiler.add_member(set, Address::v4(1));
    assert_eq!(
        compiler.settle(),
        [ingress],
        "one removal too many is forgotten"
    );
}

#[test]
fn settle_is_silent_where_nothing_is_decided_otherwise() {
    let (a, b) = (PeerSetId(1), PeerSetId(2));
    let rules = [
        allow(
            1,
            0,
            Peers::sets([a]),
            super::ports(&[(Protocol::TCP, 80, 80)]),
        ),
        allow(
            1,
            1,
            Peers::sets([a, b]),
            super::ports(&[(Protocol::TCP, 80, 80)]),
        ),
    ];
    let (mut compiler, slot) = one(&chain(&[1], &rules));
    compiler.add_member(a, Address::v4(1));
    assert_eq!(compiler.settle(), [slot.enforced[1]]);
    // The second rule now holds it twice; the first still decides.
    compiler.add_member(b, Address::v4(1));
    assert_eq!(compiler.settle(), []);
    // Nobody's set.
    compiler.add_member(PeerSetId(3), Address::v4(1));
    // Moves: leaves and joins before anyone looks.
    compiler.remove_member(a, Address::v4(1));
    compiler.add_member(a, Address::v4(1));
    assert_eq!(compiler.settle(), []);
    // The first rule no longer decides: another rule, another counter.
    compiler.remove_member(a, Address::v4(1));
    assert_eq!(compiler.settle(), [slot.enforced[1]]);
    assert!(accepts(&compiler, slot, 1, 80));
}

#[test]
fn a_table_stays_as_it_was_made() {
    let set = PeerSetId(1);
    let rule = allow(1, 0, Peers::sets([set]), Ports::Any);
    let (mut compiler, slot) = one(&chain(&[1], &[rule]));
    (0..1000).for_each(|host| compiler.add_member(set, Address::v4(host)));
    compiler.settle();
    let table = compiler.table([(EndpointSlot(0), slot)].into_iter());
    let open = |host| {
        let peer = table.peer(Address::v4(host));
        let slot = EndpointSlot(0);
        let decision = table.decide(slot, Direction::Ingress, &peer, Protocol::TCP, Some(1));
        decision.verdict.accept
    };
    // Numbers are given again, to others.
    (0..1000).for_each(|host| compiler.remove_member(set, Address::v4(host)));
    compiler.settle();
    (1000..2000).for_each(|host| compiler.add_member(set, Address::v4(host)));
    compiler.settle();
    let chains = slot.enforced.into_iter();
    chains.for_each(|chain| compiler.release(chain));
    assert!((0..1000).all(open) && !(1000..2000).any(open));
}

#[test]
fn classes_that_nobody_has_any_more_do_not_pile_up() {
    let sets: Vec<PeerSetId> = (0..12).map(PeerSetId).collect();
    let rule = |&set: &PeerSetId| {
        let port = 80 + set.0 as u16;
        allow(
            1,
            set.0 as u16,
            Peers::sets([set]),
            super::ports(&[(Protocol::TCP, port, port)]),
        )
    };
    let rules: Vec<_> = sets.iter().map(rule).collect();
    let (mut compiler, slot) = one(&chain(&[1], &rules));
    // One address is in every combination of sets, one after another.
    let mut member = [false; 12];
    for round in 0..4096_u32 {
        for (at, &set) in sets.iter().enumerate() {
            let should = round & 1 << at != 0;
            match (member[at], should) {
                (false, true) => compiler.add_member(set, Address::v4(1)),
                (true, false) => compiler.remove_member(set, Address::v4(1)),
                _ => {}
            }
            member[at] = should;
        }
        compiler.settle();
        assert_eq!(accepts(&compiler, slot, 1, 85), member[5], "{round}");
    }
    let table = compiler.table([(EndpointSlot(0), slot)].into_iter());
    assert!(table.footprint().bytes < 200_000, "{:?}", table.footprint());
}

#[test]
fn a_number_of_a_chain_that_is_gone_gives_no_table() {
    let (mut compiler, slot) = one(&Chain::default());
    let table = |compiler: &Compiler, slot| compiler.table([(EndpointSlot(0), slot)].into_iter());
    assert!(table(&compiler, slot).contains(EndpointSlot(0)));
    let swapped = Slot {
        enforced: [slot.enforced[1], slot.enforced[0]],
        ..slot
    };
    assert!(
        !table(&compiler, swapped).contains(EndpointSlot(0)),
        "the other direction's"
    );
    let again = compiler.chain(Direction::Ingress, &Chain::default());
    assert_eq!(again, slot.enforced[1]);
    compiler.release(again);
    assert!(
        table(&compiler, slot).contains(EndpointSlot(0)),
        "given twice, released once"
    );
    compiler.release(again);
    assert!(!table(&compiler, slot).contains(EndpointSlot(0)));
    compiler.release(again);
    compiler.settle();
}

#[test]
fn placed_slots_follow_their_chains_and_older_tables_do_not() {
    let set = PeerSetId(1);
    let rule = allow(1, 0, Peers::sets([set]), Ports::Any);
    let (mut compiler, slot) = one(&chain(&[1], &[rule]));
    // Far apart: on pages of their own.
    let [here, there] = [EndpointSlot(3), EndpointSlot(900)];
    compiler.place(here, Some(slot));
    compiler.place(there, Some(slot));
    let open = |table: &PolicyTable, at| {
        let peer = table.peer(Address::v4(1));
        let decision = table.decide(at, Direction::Ingress, &peer, Protocol::TCP, Some(80));
        decision.verdict.accept
    };
    let closed = compiler.table(std::iter::empty());
    compiler.add_member(set, Address::v4(1));
    compiler.settle();
    let opened = compiler.table(std::iter::empty());
    assert!(!open(&closed, here) && !open(&closed, there));
    assert!(open(&opened, here) && open(&opened, there));
    // Beside the placed ones others may stand, but not in their place.
    let beside = compiler.table([(EndpointSlot(4), slot), (here, slot)].into_iter());
    assert!(open(&beside, EndpointSlot(4)) && open(&beside, there));
    assert!(!beside.contains(here));
    compiler.place(there, None);
    let left = compiler.table(std::iter::empty());
    assert!(open(&left, here) && !left.contains(there) && opened.contains(there));
    assert!(!left.contains(EndpointSlot(4)) && !left.contains(EndpointSlot(5000)));
}
