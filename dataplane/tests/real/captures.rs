//! What a tap is told of real packets, and that one that nobody reads costs no packet.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use dataplane::policy::ir::EndpointPolicy;
use dataplane::snapshot::{Incarnation, PortId};
use dataplane::tap::{Fate, Form, Tap, TapRecord};
use dataplane::{DropReason, PolicyId, Protocol, SocketAddress, wire};

use super::engine::{Lab, comes_back, inside, only, pod_address, udp_pair};
use super::services::{self, TARGET};

const PATIENCE: Duration = Duration::from_secs(10);
const PAYLOAD: &[u8] = b"weir";

type Captured = (TapRecord, Vec<u8>);

fn drained(tap: &Tap) -> Vec<Captured> {
    let mut records = Vec::new();
    tap.drain(usize::MAX, |record, bytes| {
        records.push((*record, bytes.to_vec()))
    });
    records
}

/// What a tap told and nobody has looked at yet.
struct Reader {
    tap: Arc<Tap>,
    waiting: VecDeque<Captured>,
}

impl Reader {
    /// The next record that is wanted, if it comes in time.
    fn next(&mut self, what: &str, wanted: impl Fn(&Captured) -> bool) -> Captured {
        let deadline = Instant::now() + PATIENCE;
        loop {
            while let Some(record) = self.waiting.pop_front() {
                if wanted(&record) {
                    return record;
                }
            }
            assert!(Instant::now() < deadline, "{what}");
            std::thread::sleep(Duration::from_millis(1));
            self.waiting.extend(drained(&self.tap));
        }
    }
}

fn has_payload(bytes: &[u8]) -> bool {
    bytes.ends_with(PAYLOAD)
}

/// A packet as it came and as it went, what policy dropped with who said so, and nothing of ports that
/// nobody watches.
pub fn a_tap_has_packets_with_their_verdicts() {
    let mut lab = Lab::new("tap", 2);
    let [a, b, c] = [0, 1, 2].map(|pod| lab.pod(pod));
    let ports: Vec<PortId> = lab.parts.ports.iter().map(|port| port.id).collect();
    let tap = lab.engine().new_tap(1 << 20);
    tap.watch(ports[1], true);
    lab.engine().record(Some(&tap)).unwrap();
    let mut reader = Reader {
        tap: Arc::clone(&tap),
        waiting: VecDeque::new(),
    };
    for v4 in [true, false] {
        let (client, server) = udp_pair(&a, &b, pod_address(1, v4));
        let number = server.local_addr().unwrap().port();
        lab.set_policy(1, only(0, Some((Protocol::UDP, number))));
        assert!(comes_back(&client, &server));
        let what = format!("v4 {v4}");
        // Only B is watched: what A sends is seen as it is sent to B, what B sends as B sends it.
        let (record, bytes) = reader.next(&what, |(_, bytes)| has_payload(bytes));
        assert_eq!(record.form, Form::Sent(ports[1]), "{what}");
        assert_eq!((record.ingress, record.is_reply), (ports[0], false));
        assert_eq!(record.fate, Fate::Forwarded(ports[1]));
        assert_eq!(record.length as usize, bytes.len());
        assert_eq!(bytes[..6], [2, 0, 0, 9, 0, 1], "B's Ethernet address");
        let verdict = record.verdict.unwrap();
        assert!(verdict.accept);
        assert_eq!(verdict.provenance.policy, Some(PolicyId(5)));
        assert_eq!(verdict.provenance.rule, Some(0));
        let (reply, bytes) = reader.next(&what, |(_, bytes)| bytes.ends_with(b"reiw"));
        assert_eq!((reply.form, reply.ingress), (Form::Received, ports[1]));
        assert_eq!(reply.fate, Fate::Forwarded(ports[0]));
        assert!(reply.is_reply && reply.verdict == Some(verdict));
        assert_eq!(bytes[6..12], [2, 0, 0, 9, 0, 1], "B's Ethernet address");

        // C may not: the packet never comes to B, and is told of all the same.
        let stranger = inside(&c, || {
            let any = if v4 { "0.0.0.0:0" } else { "[::]:0" };
            std::net::UdpSocket::bind(any).unwrap()
        });
        stranger.connect(server.local_addr().unwrap()).unwrap();
        for reason in [DropReason::PolicyDenied, DropReason::ConnectionDenied] {
            stranger.send(PAYLOAD).unwrap();
            let (record, _) = reader.next(&what, |(_, bytes)| has_payload(bytes));
            assert_eq!(record.fate, Fate::Dropped(reason));
            assert_eq!((record.form, record.ingress), (Form::Received, ports[2]));
            let verdict = record.verdict.unwrap();
            assert_eq!(
                (verdict.accept, verdict.provenance.policy),
                (false, Some(PolicyId(5)))
            );
        }
    }
    // Packets of several frames come whole, or as much of them as is wanted.
    let (client, server) = udp_pair(&a, &b, pod_address(1, true));
    let number = server.local_addr().unwrap().port();
    lab.set_policy(1, only(0, Some((Protocol::UDP, number))));
    tap.set_snaplen(60);
    assert!(comes_back(&client, &server));
    tap.watch(ports[1], false);
    tap.watch(ports[0], true);
    client.send(&[7; 1400]).unwrap();
    let (record, bytes) = reader.next("short", |(record, _)| record.length > 1400);
    assert_eq!((record.form, bytes.len()), (Form::Received, 60));
    assert_eq!(tap.lost(), 0);

    drop(reader);
    lab.engine().record(None).unwrap();
    let others = Arc::strong_count(&tap);
    assert_eq!(others, 1, "no worker has it any more");
    assert!(comes_back(&client, &server));
    lab.finish();
}

/// What goes to a Service is shown to whoever captures its backend: as the backend gets it, and if
/// policy has dropped it as the client has sent it.
pub fn a_tap_names_the_service_of_translated_packets() {
    let mut lab = Lab::new("tapsvc", 2);
    services::set(&mut lab, &[1]);
    let (a, b) = (lab.pod(0), lab.pod(1));
    let ports: Vec<PortId> = lab.parts.ports.iter().map(|port| port.id).collect();
    let tap = lab.engine().new_tap(1 << 20);
    tap.watch(ports[1], true);
    lab.engine().record(Some(&tap)).unwrap();
    let mut reader = Reader {
        tap: Arc::clone(&tap),
        waiting: VecDeque::new(),
    };
    for v4 in [true, false] {
        let what = format!("v4 {v4}");
        let to = SocketAddr::new(services::service(v4), 80);
        let at = SocketAddr::new(pod_address(1, v4), TARGET);
        services::name_server(&b, at, 7);
        assert_eq!(services::asks(&a, to).unwrap(), 7);
        let backend = SocketAddress {
            address: at.ip().into(),
            port: at.port(),
        };
        let service = SocketAddress {
            address: to.ip().into(),
            port: to.port(),
        };
        let shown = |bytes: &[u8]| {
            let packet = wire::parse(bytes, wire::Offload::Virtual).unwrap();
            packet.flow_key().unwrap().receiver()
        };
        let is_question = |(_, bytes): &Captured| bytes.ends_with(&services::QUESTION);
        let (sent, bytes) = reader.next(&what, is_question);
        assert_eq!((sent.form, shown(&bytes)), (Form::Sent(ports[1]), backend));
        let judged = sent.translated.unwrap();
        assert_eq!((judged.flow.receiver(), judged.service), (backend, service));
        assert_eq!(
            (sent.source, sent.destination),
            (Incarnation(1), Incarnation(2))
        );
        let (reply, _) = reader.next(&what, |(record, _)| record.is_reply);
        assert_eq!(
            (reply.form, reply.translated),
            (Form::Received, Some(judged))
        );
        assert_eq!(
            (reply.source, reply.destination),
            (Incarnation(2), Incarnation(1))
        );

        lab.set_policy(1, only(2, None));
        assert!(services::asks(&a, to).is_err());
        let (dropped, bytes) = reader.next(&what, is_question);
        assert_eq!(dropped.fate, Fate::Dropped(DropReason::PolicyDenied));
        assert_eq!((dropped.form, shown(&bytes)), (Form::Received, service));
        let judged = dropped.translated.unwrap();
        assert_eq!((judged.flow.receiver(), judged.service), (backend, service));
        assert_eq!(dropped.destination, Incarnation(2));
        lab.set_policy(1, EndpointPolicy::default());
    }
    lab.engine().record(None).unwrap();
    lab.finish();
}

/// Nobody reads the ring: it fills up, the rest is counted, and every packet passes.
pub fn a_tap_that_nobody_reads_costs_no_packet() {
    const PACKETS: u64 = 2_000;
    let mut lab = Lab::new("stuck", 2);
    let (a, b) = (lab.pod(0), lab.pod(1));
    let tap = lab.engine().new_tap(4096);
    for port in lab.parts.ports.clone() {
        tap.watch(port.id, true);
    }
    lab.engine().record(Some(&tap)).unwrap();
    let (client, server) = udp_pair(&a, &b, pod_address(1, true));
    for number in 0..PACKETS {
        assert!(comes_back(&client, &server), "datagram {number}");
    }
    // Two forms of each packet, there and back; a ring of 4096 bytes holds few of them.
    let kept = drained(&tap).len() as u64;
    let records = kept + tap.lost();
    assert!(records >= 4 * PACKETS, "{records} records");
    assert!(tap.lost() > 4 * PACKETS - 200, "{} lost", tap.lost());
    lab.engine().record(None).unwrap();
    lab.finish();
}
