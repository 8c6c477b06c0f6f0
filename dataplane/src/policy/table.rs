//! The table that workers consult for the first packet of a flow.

use std::sync::Arc;

use hashbrown::HashSet;

use super::chain::CompiledChain;
use super::explain::{self, Explanation};
use super::ir::EndpointPolicy;
use super::naive::PeerSets;
use super::numbers::Numbers;
use super::paged::Paged;
use super::{Compiler, Decision, EndpointSlot, Peer, Slot, naive, packed, ports, reach};
use crate::{Address, CounterId, Direction, Protocol, Provenance, Tier, Verdict};

/// The policies of all local endpoints, compiled, immutable: references to what a [`Compiler`]
/// keeps.
///
/// No look-up allocates, locks or panics, and the cost of one does not depend on how many
/// policies, rules, endpoints or sets there are, but for the depth of two search trees: where blocks
/// crowd together, 17 times as many leaves of eight edges are one more level (IPv6: nine times),
/// and five rules for a port that hold one peer are one.
#[derive(Debug, Default)]
pub struct PolicyTable {
    pub(super) numbers: Numbers,
    slots: Slots,
}

/// Each endpoint's chains, by slot. Few in a page: a change of one endpoint's copies a page.
pub(super) type Slots = Paged<Option<SlotChains>, 16>;

/// One endpoint's chains, by [`Direction`].
#[derive(Clone, Debug)]
pub(super) struct SlotChains {
    pub(super) enforced: [Arc<CompiledChain>; 2],
    pub(super) audit: Option<[Arc<CompiledChain>; 2]>,
}

/// How large a table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// Distinct chains, both directions together.
    pub chains: usize,
    /// Peer classes that blocks make, in each distinct list of them.
    pub classes: usize,
    /// Bytes of what look-ups read; the rules themselves belong to whoever made them.
    pub bytes: usize,
}

impl PolicyTable {
    pub(super) const fn new(numbers: Numbers, slots: Slots) -> PolicyTable {
        PolicyTable { numbers, slots }
    }

    /// Compiles the policies of all local endpoints at once, whose rules name no sets that have
    /// members. A table that changes comes from a [`Compiler`].
    ///
    /// Each slot is given once. A slot given twice accepts nothing: nobody can say which policy
    /// was meant.
    pub fn compile(endpoints: &[(EndpointSlot, &EndpointPolicy)]) -> PolicyTable {
        PolicyTable::compile_with(&PeerSets::new(), endpoints)
    }

    /// The same for rules that name these sets.
    pub fn compile_with(
        sets: &PeerSets,
        endpoints: &[(EndpointSlot, &EndpointPolicy)],
    ) -> PolicyTable {
        let mut compiler = Compiler::new();
        for (&set, members) in sets {
            for &member in members {
                compiler.add_member(set, member);
            }
        }
        let slots: Vec<(EndpointSlot, Slot)> = endpoints
            .iter()
            .map(|&(slot, policy)| {
                let chain = |direction| compiler.chain(direction, naive::chain(policy, direction));
                let enforced = [Direction::Egress, Direction::Ingress].map(chain);
                let audit = None;
                (slot, Slot { enforced, audit })
            })
            .collect();
        compiler.table(slots.into_iter())
    }

    /// Whether the table holds a policy for `slot`. Without one, nothing is accepted.
    pub fn contains(&self, slot: EndpointSlot) -> bool {
        self.chain(slot, Direction::Ingress).is_some()
    }

    /// What the table knows of an address, for [`PolicyTable::decide`].
    #[inline]
    pub fn peer(&self, address: Address) -> Peer {
        let number = self.numbers.find(address, self.numbers.probe(address));
        Peer { address, number }
    }

    /// What the endpoint's policy in one direction says of the first packet of a flow.
    ///
    /// `peer` is the other end: the source for [`Direction::Ingress`], the
    /// destination for [`Direction::Egress`]. `destination_port` counts for TCP, UDP and SCTP
    /// only; without one only rules for any port match, or for the protocol as such (semantics D12).
    ///
    /// A slot that the table does not hold drops: tier [`Tier::Default`], no policy (D10).
    #[inline]
    pub fn decide(
        &self,
        slot: EndpointSlot,
        direction: Direction,
        peer: &Peer,
        protocol: Protocol,
        destination_port: Option<u16>,
    ) -> Decision {
        let chain = self.chain(slot, direction);
        let place = ports::place(protocol, destination_port);
        match chain.and_then(|chain| chain.decide(peer, place)) {
            Some(decision) => packed::unpack(decision),
            None => unknown_endpoint(direction),
        }
    }

    /// Whether policies in audit mode would change anything for `slot`: without them,
    /// [`PolicyTable::audit`] need not be asked.
    pub fn audits(&self, slot: EndpointSlot) -> bool {
        self.slot(slot).is_some_and(|chains| chains.audit.is_some())
    }

    /// What [`PolicyTable::decide`] would say if policies in audit mode were enforced; none where
    /// that cannot differ.
    pub fn audit(
        &self,
        slot: EndpointSlot,
        direction: Direction,
        peer: &Peer,
        protocol: Protocol,
        destination_port: Option<u16>,
    ) -> Option<Decision> {
        let chains = self.slot(slot)?.audit.as_ref()?;
        let place = ports::place(protocol, destination_port);
        let decision = chains[direction as usize].decide(peer, place);
        decision.map(packed::unpack)
    }

    /// Whether policy drops some traffic of the endpoint in `direction`: what a full conntrack
    /// must not let through untracked (semantics D15). True for an unknown slot.
    ///
    /// Exact: an endpoint whose policies isolate it and then accept everything is not denied
    /// anything.
    pub fn may_deny(&self, slot: EndpointSlot, direction: Direction) -> bool {
        self.chain(slot, direction)
            .is_none_or(|chain| chain.may_deny)
    }

    /// Whether policy would accept some flow of the endpoint in `direction` to this port, whoever is at
    /// the other end (semantics D19). False for an unknown slot.
    ///
    /// Looks at the endpoint's rules one after another: for what is seldom asked.
    pub fn may_accept(
        &self,
        slot: EndpointSlot,
        direction: Direction,
        protocol: Protocol,
        port: u16,
    ) -> bool {
        self.chain(slot, direction)
            .is_some_and(|chain| reach::may_accept(&chain.source, protocol, port))
    }

    /// The verdict of [`PolicyTable::decide`] with everything that led to it.
    ///
    /// Allocates: for people, not for packets.
    pub fn explain(
        &self,
        slot: EndpointSlot,
        direction: Direction,
        peer: Address,
        protocol: Protocol,
        destination_port: Option<u16>,
    ) -> Explanation {
        let known = self.peer(peer);
        let decision = self.decide(slot, direction, &known, protocol, destination_port);
        let verdict = decision.verdict;
        match self.chain(slot, direction) {
            Some(chain) => {
                let sets = chain.sets_that_hold(&known);
                let traffic = explain::Traffic {
                    peer,
                    sets: &sets,
                    protocol,
                    port: destination_port,
                };
                explain::explain(&chain.source, verdict, &traffic)
            }
            None => Explanation::without_policies(verdict),
        }
    }

    /// How large the table is.
    pub fn footprint(&self) -> Footprint {
        let mut footprint = Footprint {
            bytes: self.numbers.bytes() + self.slots.bytes(),
            ..Footprint::default()
        };
        let mut seen = HashSet::new();
        let slots = self.slots.iter().flatten();
        for chain in slots.flat_map(|slot| slot.enforced.iter().chain(slot.audit.iter().flatten()))
        {
            if seen.insert(Arc::as_ptr(chain).addr()) {
                footprint.chains += 1;
                footprint.bytes += size_of::<CompiledChain>() + chain.bytes();
            }
            if seen.insert(Arc::as_ptr(&chain.cidrs).addr()) {
                footprint.classes += chain.cidrs.classes().len();
                footprint.bytes += chain.cidrs.bytes();
            }
        }
        footprint
    }

    #[inline]
    pub(super) fn chain(&self, slot: EndpointSlot, direction: Direction) -> Option<&CompiledChain> {
        Some(&self.slot(slot)?.enforced[direction as usize])
    }

    #[inline]
    pub(super) fn slot(&self, slot: EndpointSlot) -> Option<&SlotChains> {
        self.slots.get(slot.0.into())?.as_ref()
    }
}

/// The decision for an endpoint without compiled policy.
pub(super) const fn unknown_endpoint(direction: Direction) -> Decision {
    Decision {
        verdict: Verdict {
            accept: false,
            provenance: Provenance {
                direction,
                tier: Tier::Default,
                policy: None,
                rule: None,
            },
        },
        counter: CounterId::NONE,
    }
}
