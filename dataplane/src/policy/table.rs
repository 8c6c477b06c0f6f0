//! The table that workers consult for the first packet of a flow.

use super::classes::Classes;
use super::explain::{self, Explanation};
use super::ir::{Chain, EndpointPolicy};
use super::ports::PortMaps;
use super::row::Row;
use super::{EndpointSlot, PeerClass, compile};
use crate::{Address, Direction, Protocol, Provenance, Tier, Verdict};

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
    /// Each endpoint's chains, by [`Direction`].
    slots: Vec<Option<[u32; 2]>>,
}

/// One distinct chain.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) row: Row,
    /// The verdict where no rule decides.
    pub(super) otherwise: Verdict,
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
    /// Compiles the policies of all local endpoints.
    ///
    /// Each slot is given once. A slot given twice accepts nothing: nobody can say which policy
    /// was meant.
    pub fn compile(endpoints: &[(EndpointSlot, &EndpointPolicy)]) -> PolicyTable {
        compile::compile(endpoints)
    }

    pub(super) const fn new(
        classes: Classes,
        maps: PortMaps,
        chains: Vec<Compiled>,
        slots: Vec<Option<[u32; 2]>>,
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

    /// The class of an address, for [`PolicyTable::decide`].
    pub fn classify(&self, address: Address) -> PeerClass {
        PeerClass(self.classes.of(address))
    }

    /// What the endpoint's policy in one direction says of the first packet of a flow.
    ///
    /// `peer` is the class of the other end: of the source for [`Direction::Ingress`], of the
    /// destination for [`Direction::Egress`]. `destination_port` counts for TCP, UDP and SCTP
    /// only; without one only rules for any port match (semantics D12).
    ///
    /// A slot that the table does not hold drops: tier [`Tier::Default`], no policy (D10).
    pub fn decide(
        &self,
        slot: EndpointSlot,
        direction: Direction,
        peer: PeerClass,
        protocol: Protocol,
        destination_port: Option<u16>,
    ) -> Verdict {
        let decide = |chain: &Compiled| {
            let map = chain.row.map(peer.0);
            let decision = self.maps.decision(map, protocol, destination_port)?;
            Some(decision.map_or(chain.otherwise, |decision| decision.verdict(direction)))
        };
        let verdict = self.chain(slot, direction).and_then(decide);
        verdict.unwrap_or(unknown_endpoint(direction))
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
        let class = self.classify(peer);
        let verdict = self.decide(slot, direction, class, protocol, destination_port);
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
        let chains = self.slots.get(usize::from(slot.0))?.as_ref()?;
        self.chains.get(chains[direction as usize] as usize)
    }
}

/// The verdict for an endpoint without compiled policy.
const fn unknown_endpoint(direction: Direction) -> Verdict {
    Verdict {
        accept: false,
        provenance: Provenance {
            direction,
            tier: Tier::Default,
            policy: None,
            rule: None,
        },
    }
}
