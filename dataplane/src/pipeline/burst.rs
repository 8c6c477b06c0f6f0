//! A burst in stages: what most packets are, established connections' ordinary ones, side by side.
//!
//! A packet waits for memory: for its connection's bucket, then for the entry. So the stages take one
//! step for every packet before the next step: parse, check and hash, asking for the buckets;
//! compare tags, asking for the entries; then, packet by packet in their order, meet the entry,
//! advance its state and rewrite the headers.
//!
//! Packets that seem to begin a flow have policy asked ahead, all of them together: what it says of a
//! flow depends on the snapshot alone.
//!
//! Only the last stage reads or changes what packets share, so two packets of one burst are treated
//! as if one came after the other. And it only finishes what goes the common way: a live entry that
//! accepts, under the epochs in force, and a state that the packet fits. Every other packet leaves
//! the stages untouched and takes the whole way ([`Stage::run`]), as if there were no short one.

use arrayvec::ArrayVec;

use super::decide::{Decision, Flow};
use super::forward::{self, Next};
use super::stage::{self, Stage, incarnation};
use super::{BURST_MAX, Inbound, Outcome, Transmission, source, track};
use crate::conntrack::{Class, Ends, Facts, PackedEpochs, Probe, Storage};
use crate::snapshot::{Endpoint, EndpointSlot, Incarnation, PortId, Role};
use crate::wire::{self, Checksum, TxChecksum, Version, rewrite};

/// A packet on the common way, with all that can be known without its connection.
#[derive(Clone, Copy)]
struct Lane {
    probe: Probe,
    ends: Ends,
    /// The endpoints at those ends.
    slots: [Option<EndpointSlot>; 2],
    epochs: PackedEpochs,
    facts: Facts,
    way: Way,
}

/// How a packet goes on if its connection lets it pass.
#[derive(Clone, Copy)]
struct Way {
    egress: PortId,
    /// The Ethernet addresses, as the header holds them.
    ethernet: [u8; 12],
    version: Version,
    length: u32,
    checksum: Option<TxChecksum>,
}

impl Lane {
    const EMPTY: Lane = Lane {
        probe: Probe::EMPTY,
        ends: Ends {
            source: Incarnation::NONE,
            destination: Incarnation::NONE,
            ingress: PortId(0),
        },
        slots: [None; 2],
        epochs: PackedEpochs::NONE,
        facts: Facts::Other,
        way: Way {
            egress: PortId(0),
            ethernet: [0; 12],
            version: Version::V4,
            length: 0,
            checksum: None,
        },
    };
}

impl Lane {
    /// Whether the packet is perhaps a flow's first.
    fn seems_new(&self) -> bool {
        self.probe.is_lost() && self.facts.opens()
    }
}

impl<S: Storage> Stage<'_, '_, S> {
    /// Takes every packet to its end.
    pub fn burst(
        &mut self,
        burst: &mut ArrayVec<Inbound<'_>, BURST_MAX>,
        outcomes: &mut ArrayVec<Outcome, BURST_MAX>,
    ) {
        // Lanes are written where they stand: to move one takes longer than to fill it.
        let mut lanes = [Lane::EMPTY; BURST_MAX];
        let mut ready = 0_u64;
        for (number, (inbound, lane)) in burst.iter().zip(&mut lanes).enumerate() {
            ready |= u64::from(self.enter(inbound, lane)) << number;
        }
        let entered = |number: usize| ready >> number & 1 != 0;
        let probes = lanes.iter_mut().enumerate();
        let probes = probes.filter(|(number, _)| entered(*number));
        let probes = probes.map(|(_, lane)| &mut lane.probe);
        self.tables.conntrack.aim_all(probes);
        let new = |number: &usize| entered(*number) && lanes[*number].seems_new();
        let new: ArrayVec<usize, BURST_MAX> = (0..burst.len()).filter(new).collect();
        let ahead = self.decide_ahead(&lanes, &new);
        let mut ahead = new.iter().zip(&ahead).peekable();
        for (number, (inbound, lane)) in burst.iter_mut().zip(&lanes).enumerate() {
            let short = match entered(number) {
                true => self.finish(inbound, lane),
                false => None,
            };
            let ahead = ahead.next_if(|(new, _)| **new == number);
            let outcome = match short {
                Some(transmission) => Outcome::Forward(transmission),
                None => self.run(inbound, ahead.map(|(_, decision)| decision)),
            };
            outcomes.push(outcome);
        }
    }

    /// What policy says of the new lanes' flows.
    fn decide_ahead(&self, lanes: &[Lane], new: &[usize]) -> ArrayVec<Decision, BURST_MAX> {
        let snapshot = self.snapshot;
        let flow = |number: &usize| {
            let lane = &lanes[*number];
            let endpoint = |slot: Option<EndpointSlot>| snapshot.endpoint(slot?);
            let [source, destination] = lane.slots.map(endpoint);
            let port = snapshot.port(lane.ends.ingress);
            Flow {
                key: lane.probe.key(),
                source,
                destination,
                ingress: port.map_or(Role::Uplink, |port| port.role),
            }
        };
        let flows: ArrayVec<Flow<'_>, BURST_MAX> = new.iter().map(flow).collect();
        Flow::decide_all(&flows, snapshot)
    }

    /// Fills the packet's lane; false, with the lane half filled, unless the packet would be
    /// forwarded as it is if its connection stands.
    #[inline(always)]
    fn enter(&self, inbound: &Inbound<'_>, lane: &mut Lane) -> bool {
        self.try_enter(inbound, lane).is_some()
    }

    #[inline(always)]
    fn try_enter(&self, inbound: &Inbound<'_>, lane: &mut Lane) -> Option<()> {
        let snapshot = self.snapshot;
        let port = snapshot.port(inbound.ingress)?;
        let bytes = inbound.window.get(..inbound.len)?;
        let brief = wire::brief(bytes, stage::offload(port))?;
        if brief.ethernet.destination != port.mac || brief.hop_limit <= 1 {
            return None;
        }
        let key = &brief.key;
        self.tables.conntrack.probe(key, &mut lane.probe);
        let source = source::check(snapshot, port, brief.ethernet.source, key.source).ok()?;
        let destination = stage::receiver(snapshot, source, key.destination).ok()?;
        let from = source.map(|source| source.slot);
        let hop = match forward::next_hop(snapshot, port, from, destination, key.destination) {
            Ok(Next::Hop(hop)) => hop,
            _ => return None,
        };
        let egress = hop.egress.id;
        let in_software = brief.checksum == Checksum::Partial && !self.completes_checksums(egress);
        if in_software || brief.packet_length() > u32::from(hop.egress.mtu) {
            return None;
        }
        lane.ends.source = incarnation(source);
        lane.ends.destination = incarnation(destination);
        lane.ends.ingress = port.id;
        let slot = |endpoint: Option<&Endpoint>| endpoint.map(|endpoint| endpoint.slot);
        lane.slots = [source, destination].map(slot);
        lane.epochs = track::epochs(snapshot, source, destination).into();
        lane.facts = match &brief.tcp {
            Some(tcp) => Facts::Tcp(stage::tcp_facts(tcp)),
            None => Facts::Udp,
        };
        lane.way.egress = egress;
        lane.way.ethernet[..6].copy_from_slice(&hop.mac.0);
        lane.way.ethernet[6..].copy_from_slice(&hop.egress.mac.0);
        lane.way.version = brief.version;
        lane.way.length = brief.length;
        lane.way.checksum = brief.tx_checksum();
        Some(())
    }

    /// Sends the packet on if its connection lets it pass without further questions. Else nothing
    /// has been changed or counted.
    #[inline(always)]
    fn finish(&mut self, inbound: &mut Inbound<'_>, lane: &Lane) -> Option<Transmission> {
        let conntrack = self.tables.conntrack;
        let len = lane.way.length as usize;
        let bytes = inbound.window.get_mut(..len)?;
        let met = conntrack.meet(&lane.probe, &lane.ends, self.now)?;
        if !met.is_accepted_under(lane.epochs) {
            return None;
        }
        match conntrack.track_met(&met, &lane.facts, self.now) {
            Ok(Class::Established | Class::Reply) => {}
            // Neither has changed anything.
            Ok(Class::New) | Err(_) => return None,
        }
        self.tables.counters.rule_packet(met.counters());
        // The description is of these very bytes, so they are long enough.
        rewrite::forward(bytes, lane.way.version, &lane.way.ethernet).ok()?;
        Some(Transmission {
            port: lane.way.egress,
            len,
            checksum: lane.way.checksum,
        })
    }
}
