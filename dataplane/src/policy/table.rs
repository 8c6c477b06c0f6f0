//! The table that workers consult for the first packet of a flow.

use super::classes::Classes;
use super::explain::{self, Explanation};
use super::ir::{Chain, EndpointPolicy};
use super::naive::PeerSets;
use super::ports::PortMaps;
use super::row::Row;
use super::{Compiler, Decision, EndpointSlot, Peer, Slot, naive};
use crate::{Address, CounterId, Direction, Protocol, Provenance, Tier, Verdict};

/// The policies of all local endpoints, compiled, immutable.
///
/// No look-up allocates, locks or panics, and the cost of one does not depend on how many
/// policies, rules, endpoints or prefixes there are, but for the depth of a search tree in
/// [`PolicyTable::classify`] and the number of port ranges that one peer meets in
/// [`PolicyTable::decide`], both by their logarithm.
#[derive(Debug, Default)]
pub struct PolicyTable {
    classes: Classes,
    maps: PortMaps,
    chains: Vec<Compiled>,
    slots: Vec<Option<Slot>>,
}

/// One distinct chain.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) row: Row,
    pub(super) may_deny: bool,
    /// What it was compiled from, for [`PolicyTable::explain`]; the rules are shared.
    pub(super) source: Chain,
}

/// How large a table is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Footprint {
    /// Distinct chains, both directions together.
    pub chains: usize,
    /// Peer classes.
    pub classes: usize,
    /// Distinct maps from protocol and port to verdict.
    pub port_maps: usize,
    /// Bytes of what look-ups read, and of references to rules; the rules themselves belong to
    /// whoever made them.
    pub bytes: usize,
}

impl PolicyTable {
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

    pub(super) const fn new(
        classes: Classes,
        maps: PortMaps,
        chains: Vec<Compiled>,
        slots: Vec<Option<Slot>>,
    ) -> PolicyTable {
        PolicyTable {
            classes,
            maps,
            chains,
            slots,
        }
    }

    /// Whether the table holds a policy for `slot`. Without one, nothing is accepted.
    pub fn contains(&self, slot: EndpointSlot) -> bool {
        self.chain(slot, Direction::Ingress).is_some()
    }

    /// What the table knows of an address, for [`PolicyTable::decide`].
    pub fn peer(&self, address: Address) -> Peer {
        Peer {
            class: self.classes.of(address),
        }
    }

    /// What the endpoint's policy in one direction says of the first packet of a flow.
    ///
    /// `peer` is the other end: the source for [`Direction::Ingress`], the
    /// destination for [`Direction::Egress`]. `destination_port` counts for TCP, UDP and SCTP
    /// only; without one only rules for any port match (semantics D12).
    ///
    /// A slot that the table does not hold drops: tier [`Tier::Default`], no policy (D10).
    pub fn decide(
        &self,
        slot: EndpointSlot,
        direction: Direction,
        peer: &Peer,
        protocol: Protocol,
        destination_port: Option<u16>,
    ) -> Decision {
        let chain = self.chain(slot, direction);
        let decision =
            chain.and_then(|chain| self.by_chain(chain, peer, protocol, destination_port));
        decision.unwrap_or(unknown_endpoint(direction))
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
        let chain = self.slot(slot)?.audit?[direction as usize];
        let chain = self.chains.get(chain.0 as usize)?;
        self.by_chain(chain, peer, protocol, destination_port)
    }

    fn by_chain(
        &self,
        chain: &Compiled,
        peer: &Peer,
        protocol: Protocol,
        destination_port: Option<u16>,
    ) -> Option<Decision> {
        let map = chain.row.map(peer.class);
        self.maps.decision(map, protocol, destination_port)
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
                explain::explain(&chain.source, verdict, peer, protocol, destination_port)
            }
            None => Explanation::without_policies(verdict),
        }
    }

    /// How large the table is.
    pub fn footprint(&self) -> Footprint {
        let chain_bytes = |chain: &Compiled| {
            size_of_val(chain)
                + chain.row.bytes()
                + size_of_val(&chain.source.isolating[..])
                + size_of_val(&chain.source.rules[..])
        };
        Footprint {
            chains: self.chains.len(),
            classes: self.classes.count(),
            port_maps: self.maps.count(),
            bytes: self.classes.bytes()
                + self.maps.bytes()
                + self.chains.iter().map(chain_bytes).sum::<usize>()
                + size_of_val(&self.slots[..]),
        }
    }

    fn chain(&self, slot: EndpointSlot, direction: Direction) -> Option<&Compiled> {
        let chain = self.slot(slot)?.enforced[direction as usize];
        self.chains.get(chain.0 as usize)
    }

    fn slot(&self, slot: EndpointSlot) -> Option<&Slot> {
        self.slots.get(usize::from(slot.0))?.as_ref()
    }
}

/// The decision for an endpoint without compiled policy.
const fn unknown_endpoint(direction: Direction) -> Decision {
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
