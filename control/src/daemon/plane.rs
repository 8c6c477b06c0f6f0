//! What the daemon drives: the engine and the kernel's network behind one door, so that the
//! daemon's own logic is tested without either.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::ops::Range;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::Arc;
use std::time::{Duration, Instant};

use config::Config;
use config::limits::CAPTURE_RING_BYTES;
use dataplane::conntrack::Entry;
use dataplane::counters::{Counter, RuleHits, Totals};
use dataplane::engine::{Acknowledged, Engine, EngineError, PortSpec};
use dataplane::events::Event;
use dataplane::snapshot::{Generation, Incarnation, PortId, Role};
use dataplane::tap::Tap;
use dataplane::xsk::{Audit, Statistics};
use dataplane::{Address, CounterId, Snapshot, Time};
use ipnet::IpNet;

use super::network::{Facts, Interface, Network};
use crate::lower::OutOfSlots;
use crate::netlink::{Change, Channels, Link, Monitor, NetlinkError};

/// Why the dataplane could not do something.
#[derive(Debug, thiserror::Error)]
pub enum PlaneError {
    /// The engine says so.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// The kernel says so.
    #[error(transparent)]
    Kernel(#[from] NetlinkError),
    /// Packets of the interface's MTU would be dropped.
    #[error(
        "interface {name} has MTU {mtu}, and packets beyond {max} bytes are dropped here: \
             `ip link set dev {name} mtu {max}`"
    )]
    Mtu {
        /// The interface.
        name: String,
        /// Its MTU.
        mtu: u16,
        /// The largest that there may be.
        max: u32,
    },
    /// The tables are full.
    #[error(transparent)]
    Slots(#[from] OutOfSlots),
}

/// What has changed outside.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// Interfaces of ports that are gone.
    pub gone: Vec<u32>,
    /// Interfaces of ports that have changed, and such as may become an uplink, as they are now.
    pub links: Vec<Link>,
    /// Queues in use of ports' interfaces that have changed, as they are now.
    pub channels: Vec<Channels>,
    /// Whether [`Plane::facts`] may differ from what they were.
    pub facts: bool,
}

/// One worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct WorkerState {
    /// The generation it has adopted.
    pub generation: Generation,
    /// Whether its thread runs.
    pub alive: bool,
    /// Packets it has received.
    pub received: u64,
    /// Their bytes.
    pub received_bytes: u64,
    /// Nanoseconds of its rounds that had packets.
    pub busy_ns: u64,
    /// New flows that it has asked policy about.
    pub flow_decisions: u64,
    /// Times it went to sleep.
    pub sleeps: u64,
}

/// Frames of packet memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Frames {
    /// With nobody.
    pub free: u32,
    /// All.
    pub all: u32,
}

/// One connection.
#[derive(Clone, Debug)]
pub struct Connection {
    /// What the table holds.
    pub entry: Entry,
    /// Since it was last refreshed.
    pub idle: Duration,
}

fn connection(entry: Entry, now: Time) -> Connection {
    let idle = Duration::from_nanos(now.since(entry.last_seen));
    Connection { entry, idle }
}

/// The clock that the workers go by.
pub(super) fn monotonic() -> Time {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Monotonic);
    Time(now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64)
}

/// What the daemon drives.
pub trait Plane {
    /// Makes the host port and finds the uplinks.
    fn set_up(&mut self, config: &Config) -> Result<Vec<Interface>, PlaneError>;

    /// An uplink's interface.
    fn uplink(&mut self, uplink: &config::Uplink) -> Result<Interface, PlaneError>;

    /// Makes the host side of a pod's veth ready.
    fn pod_interface(&mut self, name: &str) -> Result<Interface, PlaneError>;

    /// Adds a port, which passes nothing before a published snapshot has it; under the number it
    /// had before, if that is known and free.
    fn add_port(
        &mut self,
        interface: &Interface,
        number: Option<PortId>,
    ) -> Result<PortId, PlaneError>;

    /// Drives so many queues of a port, if it was fewer.
    fn add_queues(&mut self, port: PortId, queues: u16) -> Result<(), PlaneError>;

    /// Removes a port that no snapshot has any more.
    fn remove_port(&mut self, port: PortId) -> Result<(), PlaneError>;

    /// Prefixes that uplinks bring to us.
    fn set_local_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), PlaneError>;

    /// Publishes a snapshot and waits for every worker.
    fn publish(&mut self, snapshot: Snapshot) -> Result<Acknowledged, EngineError>;

    /// Workers that decide by that generation, and workers there are.
    fn live(&self, generation: Generation) -> (usize, usize);

    /// The workers, by number.
    fn workers(&self) -> Vec<WorkerState>;

    /// The worker that owns each of a port's queues.
    fn owners(&self, port: PortId) -> Vec<usize>;

    /// The kernel's counters of a port's sockets.
    fn port_statistics(&self, port: PortId) -> Option<Statistics>;

    /// The connection table's counters.
    fn conntrack(&self) -> dataplane::conntrack::Counters;

    /// Datagrams that are coming in fragments.
    fn fragments(&self) -> dataplane::fragments::Counts;

    /// Connections, as many as the limit.
    fn list_connections(&self, limit: usize) -> Vec<Connection>;

    /// Slots of the connection table that have been in use.
    fn connection_slots(&self) -> u32;

    /// Connections in these slots of the table.
    fn connections_in(&self, slots: Range<u32>) -> Vec<Connection>;

    /// Removes a connection, if it is still the one that was listed; whether it was.
    fn remove_connection(&mut self, connection: &Connection) -> bool;

    /// The highest identity of a pod that has a connection in the table.
    fn last_incarnation(&self) -> Incarnation;

    /// Removes what daemons before this one left of ports that are none any more.
    fn sweep(&mut self) -> Result<(), PlaneError>;

    /// Where every frame is; the workers stop meanwhile.
    fn audit(&mut self) -> Result<Audit, PlaneError>;

    /// Events that did not reach [`Plane::take_events`].
    fn events_lost(&self) -> u64;

    /// Samples for the self-check that did not reach [`Plane::take_events`].
    fn samples_lost(&self) -> u64;

    /// Writes the hits of as many rules as there is room for, from `first` on.
    fn rule_hits(&self, first: CounterId, hits: &mut [RuleHits]);

    /// The hits of one rule.
    fn hits_of(&self, counter: CounterId) -> RuleHits;

    /// Removes a gone endpoint's connections.
    fn forget_endpoint(&mut self, incarnation: Incarnation);

    /// Connections that count in an endpoint's share of the table.
    fn connections_of(&self, incarnation: Incarnation) -> u32;

    /// Frames, and how many of them are free.
    fn frames(&self) -> Frames;

    /// The workers' counters.
    fn counters(&self) -> Totals;

    /// Takes at most `limit` events.
    fn take_events(&mut self, limit: usize) -> Vec<Event>;

    /// A tap that the workers could record into, with room for what may wait.
    fn new_tap(&self) -> Arc<Tap>;

    /// Lets the workers record packets for that tap, or for nobody.
    fn record(&mut self, tap: Option<&Arc<Tap>>) -> Result<(), PlaneError>;

    /// Reads addresses, routes and neighbours.
    fn facts(&mut self) -> Result<Facts, PlaneError>;

    /// What has changed outside since the last call.
    fn outside(&mut self) -> Outside;

    /// Asks for a next hop's MAC.
    fn resolve(&mut self, port: PortId, address: Address);

    /// Work that is due now and then.
    fn maintain(&mut self);
}

/// The engine and the kernel.
pub struct KernelPlane {
    engine: Engine,
    network: Network,
    monitor: Monitor,
    ports: BTreeMap<u32, (PortId, Role)>,
    /// What uplinks are called.
    uplinks: Vec<String>,
}

impl KernelPlane {
    /// Takes the namespace that the calling thread is in.
    pub fn new(engine: Engine, config: &Config) -> Result<KernelPlane, PlaneError> {
        Ok(KernelPlane {
            engine,
            // Before anything is read, so that no change falls in between.
            monitor: Monitor::connect()?,
            network: Network::connect(config)?,
            ports: BTreeMap::new(),
            uplinks: config.uplinks.iter().map(|u| u.interface.clone()).collect(),
        })
    }

    /// Descriptors that tell of changes outside.
    pub fn monitor_fds(&self) -> impl Iterator<Item = RawFd> {
        let channels = self.network.channels_fd();
        std::iter::once(self.monitor.as_raw_fd()).chain(channels)
    }

    /// Whether the connection table went on from an earlier daemon's.
    pub fn taken_over(&self) -> bool {
        self.engine.taken_over()
    }

    /// Stops the workers; nothing passes from then on.
    pub fn stop(self) {
        self.engine.stop();
    }
}

impl Plane for KernelPlane {
    fn set_up(&mut self, config: &Config) -> Result<Vec<Interface>, PlaneError> {
        let mut interfaces = self.network.set_up_host_port(config)?;
        for uplink in &config.uplinks {
            interfaces.push(self.network.uplink(uplink)?);
        }
        Ok(interfaces)
    }

    fn uplink(&mut self, uplink: &config::Uplink) -> Result<Interface, PlaneError> {
        Ok(self.network.uplink(uplink)?)
    }

    fn pod_interface(&mut self, name: &str) -> Result<Interface, PlaneError> {
        Ok(self.network.pod_interface(name)?)
    }

    fn add_port(
        &mut self,
        interface: &Interface,
        number: Option<PortId>,
    ) -> Result<PortId, PlaneError> {
        let max = self.engine.mtu_max(interface.zero_copy);
        if u32::from(interface.mtu) > max {
            return Err(PlaneError::Mtu {
                name: interface.name.clone(),
                mtu: interface.mtu,
                max,
            });
        }
        let mut spec = PortSpec {
            ifindex: interface.index,
            role: interface.role,
            queues: interface.queues.driven,
            transmit_queues: interface.queues.transmit,
            zero_copy: interface.zero_copy,
            number,
        };
        let mut added = self.engine.add_port(&spec);
        if let Err(EngineError::NumberTaken(_)) = added {
            spec.number = None;
            added = self.engine.add_port(&spec);
        }
        let port = added?;
        self.ports.insert(interface.index, (port, interface.role));
        Ok(port)
    }

    fn add_queues(&mut self, port: PortId, queues: u16) -> Result<(), PlaneError> {
        self.engine.add_queues(port, queues)?;
        Ok(())
    }

    fn remove_port(&mut self, port: PortId) -> Result<(), PlaneError> {
        self.ports.retain(|_, (id, _)| *id != port);
        Ok(self.engine.remove_port(port)?)
    }

    fn set_local_prefixes(&mut self, prefixes: &[IpNet]) -> Result<(), PlaneError> {
        Ok(self.engine.set_local_prefixes(prefixes)?)
    }

    fn publish(&mut self, snapshot: Snapshot) -> Result<Acknowledged, EngineError> {
        self.engine.publish(snapshot)
    }

    fn live(&self, generation: Generation) -> (usize, usize) {
        self.engine.live(generation)
    }

    fn workers(&self) -> Vec<WorkerState> {
        let adopted = self.engine.adopted().into_iter();
        let workers = adopted.zip(self.engine.workers_alive()).enumerate();
        workers
            .map(|(index, (generation, alive))| WorkerState {
                generation,
                alive,
                received: self.engine.counter_of(index, Counter::Received),
                received_bytes: self.engine.counter_of(index, Counter::ReceivedBytes),
                busy_ns: self.engine.counter_of(index, Counter::BusyNanoseconds),
                flow_decisions: self.engine.counter_of(index, Counter::FlowDecisions),
                sleeps: self.engine.counter_of(index, Counter::Sleeps),
            })
            .collect()
    }

    fn owners(&self, port: PortId) -> Vec<usize> {
        self.engine.owners(port).to_vec()
    }

    fn port_statistics(&self, port: PortId) -> Option<Statistics> {
        self.engine.port_statistics(port)
    }

    fn conntrack(&self) -> dataplane::conntrack::Counters {
        self.engine.conntrack().counters()
    }

    fn fragments(&self) -> dataplane::fragments::Counts {
        self.engine.fragments().counts()
    }

    fn list_connections(&self, limit: usize) -> Vec<Connection> {
        let now = monotonic();
        let entries = self.engine.conntrack().entries(now).take(limit);
        entries.map(|entry| connection(entry, now)).collect()
    }

    fn connection_slots(&self) -> u32 {
        self.engine.conntrack().high_water()
    }

    fn connections_in(&self, slots: Range<u32>) -> Vec<Connection> {
        let now = monotonic();
        let entries = self.engine.conntrack().entries_in(slots, now);
        entries.map(|entry| connection(entry, now)).collect()
    }

    fn remove_connection(&mut self, connection: &Connection) -> bool {
        self.engine.conntrack().remove(&connection.entry)
    }

    fn last_incarnation(&self) -> Incarnation {
        let entries = self.engine.conntrack().entries(monotonic());
        let ends = entries.flat_map(|entry| [entry.ends.source, entry.ends.destination]);
        ends.max().unwrap_or(Incarnation::NONE)
    }

    fn sweep(&mut self) -> Result<(), PlaneError> {
        self.engine.sweep_pins()?;
        Ok(())
    }

    fn audit(&mut self) -> Result<Audit, PlaneError> {
        Ok(self.engine.audit()?)
    }

    fn events_lost(&self) -> u64 {
        self.engine.events_lost()
    }

    fn samples_lost(&self) -> u64 {
        self.engine.samples_lost()
    }

    fn rule_hits(&self, first: CounterId, hits: &mut [RuleHits]) {
        self.engine.rule_hits(first, hits);
    }

    fn hits_of(&self, counter: CounterId) -> RuleHits {
        self.engine.hits_of(counter)
    }

    fn forget_endpoint(&mut self, incarnation: Incarnation) {
        self.engine.forget_endpoint(incarnation);
    }

    fn connections_of(&self, incarnation: Incarnation) -> u32 {
        self.engine.conntrack().charged(incarnation)
    }

    fn frames(&self) -> Frames {
        let umem = self.engine.umem();
        Frames {
            free: umem.census().free,
            all: umem.chunks(),
        }
    }

    fn counters(&self) -> Totals {
        self.engine.counters()
    }

    fn take_events(&mut self, limit: usize) -> Vec<Event> {
        let mut events = Vec::new();
        self.engine.drain_events(limit, |event| events.push(*event));
        events
    }

    fn new_tap(&self) -> Arc<Tap> {
        self.engine.new_tap(CAPTURE_RING_BYTES)
    }

    fn record(&mut self, tap: Option<&Arc<Tap>>) -> Result<(), PlaneError> {
        Ok(self.engine.record(tap)?)
    }

    fn facts(&mut self) -> Result<Facts, PlaneError> {
        Ok(self.network.read(&self.ports)?)
    }

    fn outside(&mut self) -> Outside {
        let mut outside = Outside {
            channels: self.network.changed_channels(&self.ports),
            ..Outside::default()
        };
        let mut stale_pins = false;
        for change in self.monitor.read() {
            match change {
                Change::LinkGone { index, .. } => {
                    stale_pins = true;
                    if self.ports.contains_key(&index) {
                        outside.gone.push(index);
                    }
                }
                Change::Link(link) => outside.links.extend(self.of_interest(link)),
                // The node's own neighbours elsewhere are none of ours.
                Change::Neighbour(neighbour) if !self.ports.contains_key(&neighbour.interface) => {}
                Change::Overrun => {
                    outside.facts = true;
                    self.look_at_links(&mut outside);
                }
                _ => outside.facts = true,
            }
        }
        if stale_pins {
            // Those of a pod that was removed before its interface. What fails here is tried again
            // with the next one that goes.
            let _ = self.engine.sweep_pins();
        }
        outside
    }

    fn resolve(&mut self, port: PortId, address: Address) {
        let mut ports = self.ports.iter();
        if let Some((index, _)) = ports.find(|(_, (id, _))| *id == port) {
            let address: IpAddr = address.to_ip();
            self.network.resolve(*index, address, Instant::now());
        }
    }

    fn maintain(&mut self) {
        self.engine.maintain();
    }
}

impl KernelPlane {
    /// A link that is a port's interface, or could be an uplink's.
    fn of_interest(&self, link: Link) -> Option<Link> {
        let wanted = self.ports.contains_key(&link.index) || self.uplinks.contains(&link.name);
        wanted.then_some(link)
    }

    /// Looks at all links: after an overrun nobody tells of those that have come or gone.
    fn look_at_links(&mut self, outside: &mut Outside) {
        let Ok(links) = self.network.links() else {
            return;
        };
        let is_gone = |index: &&u32| links.iter().all(|link| link.index != **index);
        outside.gone.extend(self.ports.keys().filter(is_gone));
        let present = links.into_iter();
        outside
            .links
            .extend(present.filter_map(|link| self.of_interest(link)));
    }
}
