//! Who has an address and a port, of all Services that would.
//!
//! A Service's own address comes first, then node ports, then addresses from elsewhere, so that
//! nobody takes by an `externalIPs` entry what is another's; of two alike the first by namespace and
//! name.

use std::collections::BTreeSet;
use std::sync::Arc;

use dataplane::service::{Frontend, ServiceChange};
use dataplane::{Protocol, SocketAddress};
use immutable_chunkmap::map::Map;

use super::lowered::{self, Lowered};
use super::table::{CHUNK, Node, Place};

/// An address and a port.
pub(super) type Key = (SocketAddress, Protocol);

/// By what a Service has an address and a port; the first has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    Cluster,
    NodePort,
    External,
}

/// What a Service would have.
#[derive(Clone, Debug)]
pub(super) struct Claim {
    rank: Rank,
    place: Place,
    frontend: Arc<Frontend>,
}

/// All claims. A copy shares with it what stays as it is.
#[derive(Clone, Debug, Default)]
pub(super) struct Claims(Map<Key, Arc<[Claim]>, CHUNK>);

impl Claims {
    /// Who has it.
    fn holder(&self, key: &Key) -> Option<&Arc<Frontend>> {
        let claims = self.0.get(key)?;
        claims.first().map(|claim| &claim.frontend)
    }

    /// Takes back what a Service would have had, and notes what that concerns.
    pub(super) fn withdraw(&mut self, place: &Place, keys: impl Iterator<Item = Key>) {
        for key in keys {
            let Some(known) = self.0.get(&key) else {
                continue;
            };
            let left = known.iter().filter(|claim| claim.place != *place);
            let left: Arc<[Claim]> = left.cloned().collect();
            match left.is_empty() {
                true => self.0.remove_cow(&key),
                false => self.0.insert_cow(key, left),
            };
        }
    }

    /// Notes what a Service would have.
    pub(super) fn make(&mut self, claims: impl Iterator<Item = (Key, Claim)>) {
        for (key, claim) in claims {
            let known = self.0.get(&key).map(|known| known.to_vec());
            let mut all = known.unwrap_or_default();
            // Behind its equals: of a Service's own ports the first counts.
            let of = (claim.rank, &claim.place);
            let at = all.partition_point(|other| (other.rank, &other.place) <= of);
            all.insert(at, claim);
            self.0.insert_cow(key, all.into());
        }
    }

    /// What those that hold `keys` now make of a table of those that held them `before`.
    pub(super) fn changes(&self, before: &Claims, keys: BTreeSet<Key>) -> ServiceChange {
        let mut change = ServiceChange::default();
        for key in keys {
            let (old, new) = (before.holder(&key), self.holder(&key));
            if old == new {
                continue;
            }
            change.gone.extend(old.map(|_| key));
            change.frontends.extend(new.cloned());
        }
        change
    }
}

/// What a Service would have, as it was lowered, at a node.
pub(super) fn of<'a>(
    place: &'a Place,
    lowered: &'a Lowered,
    node: &'a Node,
) -> impl Iterator<Item = (Key, Claim)> + 'a {
    let claim = |rank, frontend: Arc<Frontend>| {
        let key = (frontend.at(), frontend.protocol);
        let place = place.clone();
        let claim = Claim {
            rank,
            place,
            frontend,
        };
        (key, claim)
    };
    let cluster = lowered.cluster.iter().cloned();
    let cluster = cluster.map(move |frontend| claim(Rank::Cluster, frontend));
    let usable = node.addresses.iter();
    let usable = usable.filter(|address| !lowered::is_link_local(address.to_ip()));
    let node_ports = usable.flat_map(move |&address| {
        // Of a node port the address says the family only.
        let ports = lowered.node_ports.iter();
        let ports = ports.filter(move |port| port.address.is_v4() == address.is_v4());
        ports.map(move |port| Frontend {
            address,
            ..port.clone()
        })
    });
    let node_ports = node_ports.map(move |port| claim(Rank::NodePort, Arc::new(port)));
    let external = lowered.external.iter().map(move |frontend| {
        // Of an address of the node itself only this port is a Service's.
        let node_port = node.addresses.contains(&frontend.address);
        let frontend = frontend.clone();
        let frontend = Frontend {
            node_port,
            ..frontend
        };
        claim(Rank::External, Arc::new(frontend))
    });
    cluster.chain(node_ports).chain(external)
}
