//! What the rules of an endpoint speak of: the ports and addresses at which its decisions can
//! change.

use ipnet::IpNet;

use super::chain::CompiledChain;
use super::ir::{Peers, PortRange, Ports};
use super::{EndpointSlot, PolicyTable};
use crate::Direction;

/// What rules speak of, each once, in order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Spoken {
    /// Between the edges of these no decision changes with the port.
    pub ports: Vec<PortRange>,
    /// Prefixes, and what is taken out of them: between their edges no decision changes with an
    /// address that is in no set.
    pub prefixes: Vec<IpNet>,
}

impl PolicyTable {
    /// What the rules enforced for an endpoint in one direction speak of. Nothing for a slot that
    /// the table does not hold.
    ///
    /// Allocates, and walks all rules: for people, not for packets.
    pub fn spoken_of(&self, slot: EndpointSlot, direction: Direction) -> Spoken {
        let chain = self.chain(slot, direction);
        chain.map(spoken).unwrap_or_default()
    }

    /// The same of the rules that there would be if policies in audit mode were enforced; nothing
    /// where that cannot differ.
    pub fn audit_spoken_of(&self, slot: EndpointSlot, direction: Direction) -> Spoken {
        let chains = self.slot(slot).and_then(|chains| chains.audit.as_ref());
        let chain = chains.map(|chains| &*chains[direction as usize]);
        chain.map(spoken).unwrap_or_default()
    }
}

fn spoken(chain: &CompiledChain) -> Spoken {
    let mut spoken = Spoken::default();
    for rule in &chain.source.rules {
        if let Ports::List(ranges) = &rule.ports {
            spoken.ports.extend_from_slice(ranges);
        }
        if let Peers::Of { blocks, .. } = &rule.peers {
            for block in blocks.iter() {
                spoken.prefixes.push(block.prefix);
                spoken.prefixes.extend(&block.except);
            }
        }
    }
    spoken.ports.sort_unstable();
    spoken.ports.dedup();
    spoken.prefixes.sort_unstable();
    spoken.prefixes.dedup();
    spoken
}
