//! A burst in stages: what most packets are, established connections' ordinary ones, side by side.
//!
//! A packet waits for memory: for its headers, for its connection's bucket, then for the entry. So the stages take one
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
//!
//! A translated connection's packet goes with them, and finds its way only when it has met its entry,
//! which knows its other end.

use arrayvec::ArrayVec;

use super::decide::{Decision, Flow};
use super::forward::{self, Next};
use super::stage::{self, Stage};
use super::{BURST_MAX, Inbound, Outcome, Transmission, source};
use crate::conntrack::{Class, Ends, Epochs, Facts, PackedEpochs, Probe, Storage};
use crate::shm::prefetch;
use crate::snapshot::{EndpointSlot, Epoch, Incarnation, Local, Port, PortId, Role};
use crate::wire::{self, Brief, Checksum, TxChecksum, Version, rewrite, translate};
use crate::{Address, FlowKey};

/// A packet on the common way, with all that can be known without its connection.
#[derive(Clone, Copy, Debug)]
struct Lane {
    probe: Probe,
    ends: Ends,
    /// The endpoints at those ends.
    slots: [Option<EndpointSlot>; 2],
    epochs: PackedEpochs,
    facts: Facts,
    way: Way,
    /// It is for a Service: where it goes only its connection knows.
    to_service: bool,
}

/// So many packets before its turn a packet's headers are asked for: whoever received it, mostly the
/// kernel on the sender's core, has written them into a cache that is not ours.
const HEADER_LEAD: usize = 8;

/// Room for what is known of a burst's packets while they are on the common way. Kept from burst to
/// burst, for clearing it would take longer than filling it; nothing in it is read that the burst
/// has not written.
#[derive(Clone, Debug)]
pub struct Lanes([Lane; BURST_MAX]);

impl Default for Lanes {
    fn default() -> Self {
        Lanes([Lane::EMPTY; BURST_MAX])
    }
}

/// How a packet goes on if its connection lets it pass.
#[derive(Clone, Copy, Debug)]
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
        to_service: false,
    };

    /// Whether the packet is perhaps a flow's first.
    fn seems_new(&self) -> bool {
        !self.to_service && self.probe.is_lost() && self.facts.opens()
    }
}

/// The numbers of packets whose bits are set.
fn numbers(mut mask: u64) -> impl Iterator<Item = usize> {
    std::iter::from_fn(move || {
        let number = mask.trailing_zeros() as usize;
        let any = mask != 0;
        mask &= mask.wrapping_sub(1);
        any.then_some(number)
    })
}

impl<'a, S: Storage> Stage<'a, '_, S> {
    /// Takes every packet to its end.
    pub fn burst(
        &mut self,
        burst: &mut ArrayVec<Inbound<'_>, BURST_MAX>,
        Lanes(lanes): &mut Lanes,
        outcomes: &mut ArrayVec<Outcome, BURST_MAX>,
    ) {
        let lanes = &mut lanes[..burst.len()];
        let ready = self.enter_all(burst, lanes);
        let is_new = |number: &usize| lanes[*number].seems_new();
        let new = numbers(ready).filter(is_new);
        let new = new.fold(0, |mask: u64, number| mask | 1 << number);
        // Most bursts have none: then no room for decisions is touched.
        let mut ahead = ArrayVec::new();
        if new != 0 {
            self.decide_ahead(lanes, new, &mut ahead);
        }
        let mut ahead = ahead.iter();
        for (number, inbound) in burst.iter_mut().enumerate() {
            let is_set = |mask: u64| mask >> number & 1 != 0;
            let lane = is_set(ready).then(|| &lanes[number]);
            if let Some(transmission) = lane.and_then(|lane| self.finish(inbound, lane)) {
                outcomes.push(Outcome::Forward(transmission));
                continue;
            }
            let ahead = is_set(new).then(|| ahead.next()).flatten();
            self.take(inbound, lane, ahead, outcomes);
        }
    }

    /// Takes a packet to its end that has not been finished the common way, translated or the whole way.
    // Apart, so that the common way has the registers to itself.
    #[inline(never)]
    fn take(
        &mut self,
        inbound: &mut Inbound<'_>,
        lane: Option<&Lane>,
        ahead: Option<&Decision>,
        outcomes: &mut ArrayVec<Outcome, BURST_MAX>,
    ) {
        let aimed = lane.filter(|lane| !lane.probe.is_lost());
        if let Some(transmission) = aimed.and_then(|lane| self.finish_translated(inbound, lane)) {
            outcomes.push(Outcome::Forward(transmission));
            return;
        }
        outcomes.push(self.run(inbound, ahead));
    }

    /// The steps up to asking for the entries; which packets are on the common way.
    fn enter_all(&self, burst: &[Inbound<'_>], lanes: &mut [Lane]) -> u64 {
        let mut ready = 0_u64;
        let expect = |number: usize| {
            let window = burst.get(number).map(|inbound| &*inbound.window);
            if let Some(first) = window.and_then(<[u8]>::first) {
                prefetch(first);
            }
        };
        (0..HEADER_LEAD).for_each(expect);
        for (number, (inbound, lane)) in burst.iter().zip(lanes.iter_mut()).enumerate() {
            expect(number + HEADER_LEAD);
            ready |= u64::from(self.enter(inbound, lane)) << number;
        }
        let probes = lanes.iter_mut().enumerate();
        let probes = probes.filter(|(number, _)| ready >> number & 1 != 0);
        let probes = probes.map(|(_, lane)| &mut lane.probe);
        self.tables.conntrack.aim_all(probes);
        ready
    }

    /// What policy says of the flows of the lanes in `new`. Apart from [`Stage::burst`], so that bursts
    /// without new flows have no room for them on the stack.
    #[inline(never)]
    fn decide_ahead(
        &self,
        lanes: &[Lane],
        new: u64,
        decisions: &mut ArrayVec<Decision, BURST_MAX>,
    ) {
        let snapshot = self.snapshot;
        let flow = |number: usize| {
            let lane = &lanes[number];
            let endpoint = |slot: Option<EndpointSlot>| snapshot.endpoint(slot?);
            let [source, destination] = lane.slots.map(endpoint);
            let port = snapshot.port(lane.ends.ingress);
            Flow {
                key: lane.probe.key(),
                source,
                destination,
                ingress: port.map_or(Role::Uplink, |port| port.role),
                by_service: false,
            }
        };
        let mut flows = ArrayVec::<Flow<'_>, BURST_MAX>::new();
        flows.extend(numbers(new).map(flow));
        Flow::decide_all(&flows, snapshot, decisions);
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
        let key = brief.key;
        self.tables.conntrack.probe(&key, &mut lane.probe);
        let source = self.sender(port, &brief)?;
        let destination = snapshot.local_at(key.destination);
        lane.to_service = destination.is_none() && self.is_for_service(key);
        if !lane.to_service {
            let ends = [source, destination];
            self.find_way(port, ends, key.destination, &brief, &mut lane.way)?;
        }
        lane.ends.source = incarnation(source);
        lane.ends.destination = incarnation(destination);
        lane.ends.ingress = port.id;
        lane.slots = [source.map(|end| end.slot), destination.map(|end| end.slot)];
        lane.epochs = self.epochs(source, destination);
        lane.facts = match &brief.tcp {
            Some(tcp) => Facts::Tcp(stage::tcp_facts(tcp)),
            None => Facts::Udp,
        };
        lane.way.version = brief.version;
        lane.way.length = brief.length;
        lane.way.checksum = brief.tx_checksum();
        Some(())
    }

    /// Takes the key by its value: were it lent, the whole description would have to lie in memory.
    #[inline(never)]
    fn is_for_service(&self, key: FlowKey) -> bool {
        self.snapshot.services().concerns(&key)
    }

    #[inline(always)]
    fn epochs(&self, source: Option<&Local>, destination: Option<&Local>) -> PackedEpochs {
        let epoch =
            |end: Option<&Local>| end.map_or(Epoch::NONE, |end| self.snapshot.epoch(end.slot));
        Epochs {
            source: epoch(source),
            destination: epoch(destination),
        }
        .into()
    }

    /// The way of a packet between these local ends, to `to`; none if it cannot go there as it is.
    #[inline(always)]
    fn find_way(
        &self,
        port: &Port,
        [source, destination]: [Option<&Local>; 2],
        to: Address,
        brief: &Brief,
        way: &mut Way,
    ) -> Option<()> {
        let mtu = match destination {
            Some(local) => {
                way.egress = local.port;
                way.ethernet = local.ethernet;
                let is_ready = local.has_port & self.snapshot.has_policy(local.slot);
                // Only a pod that talks to itself goes out where it came in, which is seldom.
                let goes_on = is_ready & (local.port != port.id);
                goes_on.then_some(local.mtu)?
            }
            None => self.leave(port, source?, to, way)?,
        };
        let in_software =
            brief.checksum == Checksum::Partial && !self.completes_checksums(way.egress);
        (!in_software && brief.packet_length() <= u32::from(mtu)).then_some(())
    }

    /// Who sent the packet, if it may have that source; none leaves it to the whole way.
    #[inline(always)]
    fn sender(&self, port: &Port, brief: &Brief) -> Option<Option<&'a Local>> {
        let (snapshot, address) = (self.snapshot, brief.key.source);
        if let Some(slot) = port.endpoint {
            let local = snapshot.local(slot)?;
            let own = (local.mac() == brief.ethernet.source) & local.begins_with(address);
            return (own & snapshot.has_policy(slot)).then_some(Some(local));
        }
        // No port but a pod's has an endpoint's packets.
        let sender = source::check(snapshot, port, brief.ethernet.source, address);
        sender.ok()?.is_none().then_some(None)
    }

    /// The way of a packet from a local pod to somewhere else, and the MTU there.
    #[inline]
    fn leave(
        &self,
        port: &Port,
        source: &Local,
        destination: Address,
        way: &mut Way,
    ) -> Option<u16> {
        let hop = forward::next_hop(
            self.snapshot,
            port,
            Some(source.slot),
            None,
            destination,
            false,
        );
        let Ok(Next::Hop(hop)) = hop else {
            return None;
        };
        way.egress = hop.egress.id;
        way.ethernet[..6].copy_from_slice(&hop.mac.0);
        way.ethernet[6..].copy_from_slice(&hop.egress.mac.0);
        Some(hop.egress.mtu)
    }

    /// Sends the packet on if its connection lets it pass without further questions. Else nothing
    /// has been changed or counted.
    #[inline(always)]
    fn finish(&mut self, inbound: &mut Inbound<'_>, lane: &Lane) -> Option<Transmission> {
        if lane.to_service {
            return None;
        }
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

    /// [`Stage::finish`] for a packet of a translated connection, of which the burst has found out only
    /// who sent it. Its real ends and its way are looked up now that they are known.
    #[inline(never)]
    fn finish_translated(
        &mut self,
        inbound: &mut Inbound<'_>,
        lane: &Lane,
    ) -> Option<Transmission> {
        let (conntrack, snapshot) = (self.tables.conntrack, self.snapshot);
        let (met, translated) = conntrack.meet_translated(&lane.probe, &lane.ends, self.now)?;
        let port = snapshot.port(lane.ends.ingress)?;
        let bytes = inbound.window.get_mut(..lane.way.length as usize)?;
        let brief = wire::brief(bytes, stage::offload(port))?;
        let original = met.is_original();
        if original && brief.tcp.is_none() && !self.serves(port.role, &translated) {
            return None;
        }
        let (flow, ends) = (&translated.flow, &translated.ends);
        let (address, wanted) = match original {
            true => (flow.destination, ends.destination),
            false => (flow.source, ends.source),
        };
        let source = lane.slots[0].and_then(|slot| snapshot.local(slot));
        let other = snapshot.local_at(address);
        if incarnation(other) != wanted {
            return None;
        }
        let mut way = lane.way;
        self.find_way(port, [source, other], address, &brief, &mut way)?;
        if !met.is_accepted_under(self.epochs(source, other)) {
            return None;
        }
        match conntrack.track_met(&met, &lane.facts, self.now) {
            Ok(Class::Established | Class::Reply) => {}
            // Neither has changed anything.
            Ok(Class::New) | Err(_) => return None,
        }
        self.tables.counters.rule_packet(met.counters());
        // As in `finish`, neither of these fails.
        translate::translate_brief(bytes, &brief, &translated.to(original)).ok()?;
        rewrite::forward(bytes, way.version, &way.ethernet).ok()?;
        Some(Transmission {
            port: way.egress,
            len: way.length as usize,
            checksum: way.checksum,
        })
    }
}

#[inline(always)]
fn incarnation(end: Option<&Local>) -> Incarnation {
    end.map_or(Incarnation::NONE, |end| end.incarnation)
}
