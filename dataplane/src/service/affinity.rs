//! Which client goes to which backend, for Services that want a client to stay with one.
//!
//! One table for all workers, since a client's connections may come to different ones. A bond is made
//! or renewed by each new connection and ends when there has been none for the Service's time. Bonds
//! have as many places as the table was made with: where a bucket is full, the bond that would end first
//! gives way, and that is counted if it had not ended. A bucket has a lock that nobody waits for: who
//! does not get it chooses by the client's address alone, as everybody would for whom there is no
//! place.

use std::hint::spin_loop;
use std::sync::{Mutex, MutexGuard, TryLockError};

use crossbeam_utils::CachePadded;

use super::Found;
use crate::conntrack::keyed_hash;
use crate::{Address, FlowKey, Protocol, SocketAddress, Time};

/// Bonds in one bucket.
const WAYS: usize = 8;
/// How often a worker tries a bucket's lock: some microseconds.
const TRIES: u32 = 256;

/// A client's bond with a backend.
#[derive(Clone, Copy, Debug)]
struct Bond {
    client: Address,
    service: SocketAddress,
    protocol: Protocol,
    backend: SocketAddress,
    /// The client's last new connection.
    since: Time,
    /// For how long the bond lasts from then.
    seconds: u32,
}

impl Bond {
    fn until(&self) -> Time {
        self.since.plus_seconds(self.seconds.into())
    }
}

/// Kubernetes' default (`service.spec.sessionAffinityConfig.clientIP.timeoutSeconds`), of bonds whose
/// Service is not known yet.
const SECONDS: u32 = 10_800;

type Bucket = [Option<Bond>; WAYS];

/// The table. See the module's documentation.
#[derive(Debug)]
pub struct Affinity {
    seed: [u64; 2],
    buckets: Box<[CachePadded<Mutex<Bucket>>]>,
}

/// What [`Affinity::choose`] chose.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Chosen {
    /// The backend.
    pub backend: SocketAddress,
    /// Whether another client's bond, which had not ended, was given up for this one's.
    pub displaced: bool,
}

impl Affinity {
    /// An empty table with room for about so many bonds, 112 bytes each. `seed` is a secret, so that
    /// nobody can aim at a bucket or a backend.
    pub fn new(bonds: u32, seed: [u64; 2]) -> Affinity {
        let buckets = (bonds as usize).div_ceil(WAYS).max(1);
        Affinity {
            seed,
            buckets: (0..buckets)
                .map(|_| CachePadded::new(Mutex::new([None; WAYS])))
                .collect(),
        }
    }

    /// The backend of a new connection whose client asks for `key.destination`; none if there is none.
    /// Without affinity it depends on the connection alone: the same first packet gets the same
    /// backend, whichever worker it comes to.
    pub fn choose(&self, key: &FlowKey, found: &Found<'_>, now: Time) -> Option<Chosen> {
        let ports = u64::from(key.source_port) << 16 | u64::from(key.destination_port);
        let by_connection = found.choose(self.hash(key, ports | 1 << 40))?;
        let Some(seconds) = found.frontend.affinity_s else {
            return Some(Chosen {
                backend: by_connection,
                displaced: false,
            });
        };
        let hash = self.hash(key, u64::from(key.destination_port));
        let Some(mut bucket) = self.lock(hash) else {
            return Some(Chosen {
                backend: found.choose(hash)?,
                displaced: false,
            });
        };
        let place = place(&bucket, key);
        let lasts = |bond: &Bond| {
            let bond = Bond { seconds, ..*bond };
            bond.until() >= now && found.serves(bond.backend)
        };
        let own = bucket[place].filter(|bond| bond.is_of(key));
        let backend = own.filter(lasts).map_or(by_connection, |bond| bond.backend);
        let displaced = own.is_none() && bucket[place].is_some_and(|bond| bond.until() >= now);
        bucket[place] = Some(Bond {
            client: key.source,
            service: key.receiver(),
            protocol: key.protocol,
            backend,
            since: now,
            seconds,
        });
        Some(Chosen { backend, displaced })
    }

    /// Takes on a bond that an earlier process had: its client has had a connection to this backend
    /// since then. Where the Service wants no affinity, nobody asks for it.
    pub(crate) fn learn(&self, key: &FlowKey, backend: SocketAddress, since: Time) {
        let Some(mut bucket) = self.lock(self.hash(key, u64::from(key.destination_port))) else {
            return;
        };
        let place = place(&bucket, key);
        let is_newer = |bond: &Bond| bond.is_of(key) && bond.since >= since;
        if !bucket[place].as_ref().is_some_and(is_newer) {
            bucket[place] = Some(Bond {
                client: key.source,
                service: key.receiver(),
                protocol: key.protocol,
                backend,
                since,
                seconds: SECONDS,
            });
        }
    }

    /// A number that nobody can foretell for a new connection's own use.
    pub(crate) fn draw(&self, key: &FlowKey) -> u64 {
        let ports = u64::from(key.source_port) << 16 | u64::from(key.destination_port);
        self.hash(key, ports | 1 << 41)
    }

    fn hash(&self, key: &FlowKey, rest: u64) -> u64 {
        let (a, b) = (key.source.0, key.destination.0);
        let addresses = [(a >> 64) as u64, a as u64, (b >> 64) as u64, b as u64];
        keyed_hash(
            &addresses,
            rest | u64::from(key.protocol.0) << 32,
            self.seed,
        )
    }

    fn lock(&self, hash: u64) -> Option<MutexGuard<'_, Bucket>> {
        // The backend is chosen by the upper half.
        let bucket = (hash as u32 as usize) % self.buckets.len();
        let bucket = self.buckets.get(bucket)?;
        for _ in 0..TRIES {
            match bucket.try_lock() {
                Ok(guard) => return Some(guard),
                // A bucket is whole between any two of its changes.
                Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
                Err(TryLockError::WouldBlock) => spin_loop(),
            }
        }
        None
    }
}

impl Bond {
    fn is_of(&self, key: &FlowKey) -> bool {
        let same = (self.client, self.service, self.protocol);
        same == (key.source, key.receiver(), key.protocol)
    }
}

/// Where the bond of a client is, or may be: in place of that which ends first.
fn place(bucket: &Bucket, key: &FlowKey) -> usize {
    let is_own = |bond: &Option<Bond>| bond.as_ref().is_some_and(|bond| bond.is_of(key));
    let end = |at: &usize| bucket[*at].map_or(Time(0), |bond| bond.until());
    let own = bucket.iter().position(is_own);
    own.or_else(|| (0..WAYS).min_by_key(end)).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::super::{Frontend, ServiceParts, ServiceTable};
    use super::*;
    use crate::snapshot::Role;

    const SECOND: u64 = 1_000_000_000;

    fn at(address: u32, port: u16) -> SocketAddress {
        let address = Address::v4(address);
        SocketAddress { address, port }
    }

    fn table(backends: u32, affinity_s: Option<u32>) -> ServiceTable {
        let frontend = Frontend {
            address: Address::v4(1),
            protocol: Protocol::TCP,
            port: 80,
            internal: (0..backends).map(|n| at(100 + n, 8080)).collect(),
            external: Vec::new(),
            affinity_s,
            node_port: false,
            target_port: None,
        };
        let parts = ServiceParts {
            frontends: vec![frontend],
            ..ServiceParts::default()
        };
        ServiceTable::build(parts).unwrap()
    }

    fn key(client: u32, port: u16) -> FlowKey {
        FlowKey {
            source: Address::v4(client),
            destination: Address::v4(1),
            source_port: port,
            destination_port: 80,
            protocol: Protocol::TCP,
        }
    }

    fn choose(affinity: &Affinity, table: &ServiceTable, key: FlowKey, now: u64) -> Chosen {
        let found = table.find(Role::Pod, at(1, 80), Protocol::TCP).unwrap();
        affinity.choose(&key, &found, Time(now * SECOND)).unwrap()
    }

    fn spread(affinity: &Affinity, table: &ServiceTable, client: u32, now: u64) -> usize {
        let backend = |port| choose(affinity, table, key(client, port), now).backend;
        let all: std::collections::HashSet<_> = (4000..4050).map(backend).collect();
        all.len()
    }

    #[test]
    fn a_client_stays_until_its_time_is_over_or_its_backend_gone() {
        let affinity = Affinity::new(64, [3, 5]);
        assert_eq!(spread(&affinity, &table(4, None), 7, 1000), 4);
        let sticky = table(4, Some(60));
        assert_eq!(spread(&affinity, &sticky, 7, 1000), 1);
        let bound = choose(&affinity, &sticky, key(7, 1), 1050).backend;
        // Each connection renews the bond.
        assert_eq!(choose(&affinity, &sticky, key(7, 2), 1110).backend, bound);
        assert_eq!(choose(&affinity, &sticky, key(7, 3), 1160).backend, bound);
        let later = |port| {
            let affinity = Affinity::new(64, [3, 5]);
            choose(&affinity, &sticky, key(7, 1), 0);
            choose(&affinity, &sticky, key(7, port), 61).backend
        };
        let others: std::collections::HashSet<_> = (4000..4050).map(later).collect();
        assert_eq!(others.len(), 4, "a new choice after the time");
        let fewer = table(1, Some(60));
        let moved = choose(&affinity, &fewer, key(7, 4), 1170).backend;
        assert_eq!(moved, at(100, 8080));
        assert_eq!(choose(&affinity, &sticky, key(7, 5), 1171).backend, moved);
    }

    #[test]
    fn bonds_beyond_the_room_displace_those_that_end_first_and_are_counted() {
        let affinity = Affinity::new(WAYS as u32, [3, 5]);
        let sticky = table(4, Some(60));
        let fill = |from: u32, now| {
            (from..from + WAYS as u32)
                .filter(|client| choose(&affinity, &sticky, key(*client, 1), now).displaced)
                .count()
        };
        assert_eq!(fill(0, 1000), 0);
        assert_eq!(fill(100, 1010), WAYS);
        assert_eq!(fill(200, 1071), 0, "all had ended");
    }

    #[test]
    fn a_successor_learns_bonds_from_connections() {
        let affinity = Affinity::new(64, [9, 9]);
        let sticky = table(4, Some(60));
        let (old, new) = (at(102, 8080), at(101, 8080));
        affinity.learn(&key(7, 1), new, Time(990 * SECOND));
        affinity.learn(&key(7, 2), old, Time(980 * SECOND));
        for port in 3..9 {
            assert_eq!(choose(&affinity, &sticky, key(7, port), 1000).backend, new);
        }
        affinity.learn(&key(8, 1), old, Time(900 * SECOND));
        assert!(
            spread(&affinity, &sticky, 8, 1000) == 1,
            "renewed by the first"
        );
        let expired: std::collections::HashSet<_> = (0..40)
            .map(|port| {
                let affinity = Affinity::new(64, [9, 9]);
                affinity.learn(&key(8, 1), old, Time(900 * SECOND));
                choose(&affinity, &sticky, key(8, port), 1000).backend
            })
            .collect();
        assert_eq!(expired.len(), 4, "the Service's time counts");
    }
}
