use super::*;
use crate::{Direction, PolicyId, Provenance, Tier};

fn record(number: u64) -> TapRecord {
    TapRecord {
        time: Time(number),
        ingress: PortId(number as u16 % 300),
        form: Form::Received,
        fate: Fate::Forwarded(PortId(7)),
        length: 1 + number as u32,
        verdict: (!number.is_multiple_of(3)).then_some(Verdict {
            accept: number.is_multiple_of(2),
            provenance: Provenance {
                direction: Direction::Ingress,
                tier: Tier::NetworkPolicy,
                policy: Some(PolicyId(PolicyId::MAX)),
                rule: Some(number as u16),
            },
        }),
        is_reply: number.is_multiple_of(5),
        generation: Generation(u64::MAX - number),
        translated: number.is_multiple_of(7).then_some(Judged {
            flow: FlowKey {
                source: Address(u128::MAX - u128::from(number)),
                destination: Address(u128::from(number) << 64),
                source_port: u16::MAX,
                destination_port: number as u16,
                protocol: Protocol::SCTP,
            },
            service: SocketAddress {
                address: Address(u128::MAX >> 1),
                port: u16::MAX - 1,
            },
        }),
        source: Incarnation(u32::MAX - number as u32),
        destination: Incarnation(number as u32),
    }
}

fn bytes(number: u64) -> Vec<u8> {
    (0..number % 100)
        .map(|at| (at * 7 + number) as u8)
        .collect()
}

/// Writes a packet in two pieces.
fn write(ring: &TapRing, record: &TapRecord, bytes: &[u8]) -> bool {
    let (first, second) = bytes.split_at(bytes.len() / 3);
    let lost = ring.lost();
    let mut drafts = Drafts::default();
    drafts.write(ring, record, u32::MAX, [first, second].into_iter());
    drafts.publish(ring, Ok(()));
    ring.lost() == lost
}

#[test]
fn what_is_read_is_what_was_written_and_losses_are_counted() {
    let ring = TapRing::new(4096);
    let mut seen = Vec::new();
    let (mut written, mut read) = (0, 0);
    for round in 0..200 {
        while write(&ring, &record(written), &bytes(written)) {
            written += 1;
        }
        assert_eq!(ring.lost(), round + 1);
        while let Some(found) = ring.pop(&mut seen) {
            assert_eq!((found, &seen), (record(read), &bytes(read)));
            read += 1;
        }
        assert_eq!(read, written);
    }
    assert!(written > 3000, "{written}");
}

#[test]
fn every_fate_and_form_round_trips() {
    let port = PortId(4095);
    for form in [Form::Received, Form::Sent(port)] {
        for fate in [Fate::Forwarded(port), Fate::Answered] {
            assert_eq!(read_fate(fate_word(fate, form)), (fate, form));
        }
        for reason in DropReason::ALL {
            for fate in [Fate::Dropped(*reason), Fate::Refused(*reason)] {
                assert_eq!(read_fate(fate_word(fate, form)), (fate, form));
            }
        }
    }
}

#[test]
fn a_port_that_takes_nothing_turns_the_record_into_a_drop_and_sends_nothing() {
    let ring = TapRing::new(4096);
    let mut drafts = Drafts::default();
    let packet = [1, 2, 3];
    let sent = TapRecord {
        form: Form::Sent(PortId(7)),
        ..record(1)
    };
    let mut written = |taken| {
        for record in [record(1), sent] {
            drafts.write(&ring, &record, 2, [&packet[..]].into_iter());
        }
        drafts.publish(&ring, taken);
        let mut bytes = Vec::new();
        let pop = || {
            ring.pop(&mut bytes)
                .map(|record| (record.fate, record.form))
        };
        std::iter::from_fn(pop).collect::<Vec<_>>()
    };
    let full = DropReason::TransmitFull;
    assert_eq!(written(Err(full)), [(Fate::Dropped(full), Form::Received)]);
    let forwarded = Fate::Forwarded(PortId(7));
    let both = [(forwarded, Form::Received), (forwarded, sent.form)];
    assert_eq!(written(Ok(())), both);
}

#[test]
fn writing_allocates_nothing() {
    let ring = TapRing::new(1 << 16);
    let (record, bytes) = (record(99), bytes(99));
    let allocated = allocation_counter::measure(|| while write(&ring, &record, &bytes) {});
    assert_eq!(allocated.count_total, 0);
}

#[test]
fn ports_are_watched_each_for_itself() {
    let tap = Tap::new(1, 100, 0);
    tap.watch(PortId(64), true);
    tap.watch(PortId(65), true);
    tap.watch(PortId(65), false);
    // Beyond the ports there are: nothing happens.
    tap.watch(PortId(4000), true);
    let watched = (0..4096).filter(|port| tap.is_watched(PortId(*port)));
    assert_eq!(watched.collect::<Vec<_>>(), [64]);
}

/// A reader beside the writer: what comes is whole and in order, the rest is counted.
#[test]
fn a_worker_and_control_lose_nothing_uncounted() {
    const RECORDS: u64 = 30_000;
    let ring = TapRing::new(4096);
    std::thread::scope(|scope| {
        let worker = scope.spawn(|| {
            (0..RECORDS)
                .filter(|n| write(&ring, &record(*n), &bytes(*n)))
                .count() as u64
        });
        let (mut read, mut last, mut seen) = (0, None, Vec::new());
        loop {
            // Asked before the ring, so that the last records are not left in it.
            let is_last_look = worker.is_finished();
            while let Some(found) = ring.pop(&mut seen) {
                assert!(last.is_none_or(|last| found.time.0 > last));
                last = Some(found.time.0);
                assert_eq!((found, &seen), (record(found.time.0), &bytes(found.time.0)));
                read += 1;
            }
            if is_last_look {
                break;
            }
            std::thread::yield_now();
        }
        assert_eq!(read, worker.join().unwrap());
        assert_eq!(read + ring.lost(), RECORDS);
    });
}
