//! The table that workers consult for the first packet of a flow.

use super::explain::Explanation;
use super::ir::EndpointPolicy;
use super::{EndpointSlot, PeerClass, explain, naive};
use crate::{Address, Direction, Protocol, Provenance, Tier, Verdict};

/// The policies of all local endpoints, compiled, immutable.
///
/// No look-up allocates, locks or fails.
#[derive(Debug, Default)]
pub struct PolicyTable {
    slots: Vec<Option<EndpointPolicy>>,
}

impl PolicyTable {
    /// Compiles the policies of all local endpoints.
    ///
    /// Each slot is given once. A slot given twice accepts nothing: nobody can say which policy
    /// was meant.
    pub fn compile(endpoints: &[(EndpointSlot, &EndpointPolicy)]) -> PolicyTable {
        let mut slots: Vec<Option<EndpointPolicy>> = Vec::new();
        let mut seen = std::collections::HashSet::new();
        for &(EndpointSlot(slot), policy) in endpoints {
            let slot = usize::from(slot);
            if slots.len() <= slot {
                slots.resize(slot + 1, None);
            }
            slots[slot] = seen.insert(slot).then(|| policy.clone());
        }
        PolicyTable { slots }
    }

    /// Whether the table holds a policy for `slot`. Without one, nothing is accepted.
    pub fn contains(&self, slot: EndpointSlot) -> bool {
        self.policy(slot).is_some()
    }

    /// The class of an address, for [`PolicyTable::decide`].
    pub fn classify(&self, address: Address) -> PeerClass {
        PeerClass(address)
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
        match self.policy(slot) {
            Some(policy) => naive::decide(policy, direction, peer.0, protocol, destination_port),
            None => unknown_endpoint(direction),
        }
    }

    /// Whether any traffic of the endpoint in `direction` may be dropped by policy: what a full
    /// conntrack must not let through untracked (semantics D15). True for an unknown slot.
    pub fn may_deny(&self, slot: EndpointSlot, direction: Direction) -> bool {
        self.policy(slot).is_none_or(|policy| {
            let chain = naive::chain(policy, direction);
            !chain.isolating.is_empty()
                || chain
                    .rules
                    .iter()
                    .any(|rule| rule.action == super::ir::Action::Deny)
        })
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
        match self.policy(slot) {
            Some(policy) => explain::explain(
                naive::chain(policy, direction),
                verdict,
                peer,
                protocol,
                destination_port,
            ),
            None => Explanation::without_policies(verdict),
        }
    }

    fn policy(&self, slot: EndpointSlot) -> Option<&EndpointPolicy> {
        self.slots.get(usize::from(slot.0))?.as_ref()
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
