//! Packets of several frames against the mock kernel: whole or not at all, in both directions.

use std::sync::Arc;

use super::mock::{ENTRIES, Kernel, Port, queue_of};
use super::*;
use crate::DropReason;

const CHUNK: u32 = 2048;
/// What a chunk holds of a packet.
const FULL: u32 = CHUNK - PACKET_OFFSET;
const MORE: u32 = Descriptor::CONTINUES;

struct Bench {
    umem: Arc<Umem>,
    magazine: Magazine,
    port: Port,
    kernel: Kernel,
}

impl Bench {
    fn new(chunks: u32) -> Bench {
        Bench::with_rings(ENTRIES as u32, chunks)
    }

    fn with_rings(entries: u32, chunks: u32) -> Bench {
        let umem = Umem::in_memory(chunks, CHUNK).unwrap();
        let magazine = umem.magazine();
        let options = FillOptions {
            idle: entries,
            max: entries,
        };
        let (port, kernel) = queue_of(entries as usize, &umem, 2, options, 16);
        Bench {
            umem,
            magazine,
            port,
            kernel,
        }
    }

    /// The kernel delivers one packet of these lengths; the last continues too if it is `cut`.
    fn deliver(&mut self, lens: &[u32], cut: bool) {
        self.port.receiver.refill(&mut self.magazine);
        for (at, len) in lens.iter().enumerate() {
            let ends = at + 1 == lens.len() && !cut;
            assert!(self.kernel.deliver(*len, if ends { 0 } else { MORE }));
        }
    }

    fn receive(&mut self) -> Burst {
        let mut burst = Burst::new();
        let receiver = &mut self.port.receiver;
        let count = receiver.receive(&mut burst, &mut self.magazine);
        assert_eq!(count, burst.len());
        burst
    }

    fn give(&mut self, burst: Burst) {
        for received in burst {
            self.magazine.give(received.frame);
        }
    }

    /// Everything is free again but what the fill ring has.
    fn assert_nothing_lost(&self) {
        let census = self.umem.census();
        assert_eq!(census.held + census.transmit, 0, "{census:?}");
        assert_eq!(census.free + census.fill, self.umem.chunks());
    }
}

fn shape(burst: &Burst) -> Vec<(u32, bool)> {
    burst.iter().map(|r| (r.len, r.continues)).collect()
}

#[test]
fn a_packet_comes_whole_although_the_ring_wraps_within_it() {
    let mut bench = Bench::new(64);
    // Of 16 entries; indices wrap at 2^32 within the first packet, too.
    for _ in 0..20 {
        bench.deliver(&[FULL, FULL, 700], false);
        bench.deliver(&[60], false);
        bench.deliver(&[FULL, 1, FULL, 9], false);
        let burst = bench.receive();
        let expected = [
            (FULL, true),
            (FULL, true),
            (700, false),
            (60, false),
            (FULL, true),
            (1, true),
            (FULL, true),
            (9, false),
        ];
        assert_eq!(shape(&burst), expected);
        bench.give(burst);
    }
    assert_eq!(bench.port.receiver.counters().received, 160);
    assert_eq!(bench.port.receiver.take_refused(), Refused::default());
    bench.assert_nothing_lost();
}

#[test]
fn a_packet_without_its_end_waits_on_the_ring() {
    let mut bench = Bench::new(64);
    bench.deliver(&[60], false);
    bench.deliver(&[FULL, FULL], true);
    let burst = bench.receive();
    assert_eq!(shape(&burst), [(60, false)]);
    bench.give(burst);
    for _ in 0..3 {
        assert!(bench.receive().is_empty());
    }
    assert_eq!(bench.umem.census().held, 0, "its frames are the kernel's");
    assert_eq!(bench.port.receiver.waiting(), 2);
    bench.deliver(&[5], false);
    let burst = bench.receive();
    assert_eq!(shape(&burst), [(FULL, true), (FULL, true), (5, false)]);
    bench.give(burst);
    bench.assert_nothing_lost();
}

#[test]
fn a_packet_without_its_end_goes_with_its_port() {
    let mut bench = Bench::new(64);
    bench.deliver(&[FULL, FULL], true);
    assert!(bench.receive().is_empty());
    let Bench {
        umem,
        magazine,
        port,
        ..
    } = bench;
    drop((port, magazine));
    assert_eq!(umem.reclaim(), 16);
    assert_eq!(umem.census().free, 64);
}

#[test]
fn a_packet_that_the_burst_has_no_room_for_waits() {
    let mut bench = Bench::new(256);
    let mut burst = Burst::new();
    let mut received = 0;
    while received < BURST - 2 {
        bench.deliver(&[60], false);
        let receiver = &mut bench.port.receiver;
        received += receiver.receive(&mut burst, &mut bench.magazine);
    }
    bench.deliver(&[FULL, FULL, 7], false);
    let receiver = &mut bench.port.receiver;
    assert_eq!(receiver.receive(&mut burst, &mut bench.magazine), 0);
    bench.give(std::mem::take(&mut burst));
    let next = bench.receive();
    assert_eq!(next.len(), 3);
    bench.give(next);
    bench.assert_nothing_lost();
}

#[test]
fn a_packet_of_too_many_frames_is_thrown_away_whole() {
    // In rings that hold more than the largest packet, and in such that it fills before it ends.
    for (entries, frames) in [
        (64, 18),
        (64, 19),
        (64, 40),
        (64, 100),
        (16, 16),
        (16, 17),
        (16, 40),
    ] {
        let mut bench = Bench::with_rings(entries, 128);
        let is_taken = frames <= PARTS_MAX.min(entries as usize);
        let mut burst = Burst::new();
        for start in (0..frames).step_by(8) {
            let now = (frames - start).min(8);
            bench.deliver(&vec![100; now], start + now < frames);
            let receiver = &mut bench.port.receiver;
            receiver.receive(&mut burst, &mut bench.magazine);
        }
        let refused = bench.port.receiver.take_refused();
        if is_taken {
            assert_eq!((burst.len(), refused.packets), (frames, 0));
        } else {
            assert_eq!(shape(&burst), []);
            let expected = (1, 100 * frames as u64);
            assert_eq!(
                (refused.packets, refused.bytes),
                expected,
                "{entries} {frames}"
            );
        }
        bench.give(burst);
        bench.deliver(&[FULL, 3], false);
        let next = bench.receive();
        assert_eq!(shape(&next), [(FULL, true), (3, false)]);
        bench.give(next);
        bench.assert_nothing_lost();
    }
}

#[test]
fn a_bad_frame_spoils_its_packet_and_no_other() {
    let mut bench = Bench::new(64);
    bench.port.receiver.refill(&mut bench.magazine);
    let lent = bench.kernel.fill.pop().unwrap();
    let good = |address: u64, options| Descriptor {
        address: address + u64::from(PACKET_OFFSET),
        len: 100,
        options,
    };
    let bad = Descriptor {
        address: u64::MAX,
        len: 100,
        options: MORE,
    };
    for descriptor in [good(lent, MORE), bad, bad] {
        assert!(bench.kernel.rx.push(descriptor));
    }
    let second = bench.kernel.fill.pop().unwrap();
    assert!(bench.kernel.rx.push(good(second, 0)));
    bench.kernel.rx.publish();
    bench.deliver(&[77], false);
    let burst = bench.receive();
    assert_eq!(shape(&burst), [(77, false)]);
    bench.give(burst);
    let receiver = &mut bench.port.receiver;
    assert_eq!(receiver.counters().bad_receptions, 2);
    let refused = receiver.take_refused();
    assert_eq!((refused.packets, refused.bytes), (1, 400));
    assert_eq!(receiver.take_refused(), Refused::default());
    bench.assert_nothing_lost();
}

fn parts(bench: &mut Bench, count: usize) -> Parts {
    let part = |_| Part {
        frame: bench.magazine.take().unwrap(),
        len: 1000,
    };
    (0..count).map(part).collect()
}

/// What the kernel takes from a TX ring, and the order in which it completes it does not matter.
fn kick(bench: &mut Bench, socket: usize) -> Vec<Descriptor> {
    let mut seen = Vec::new();
    let kernel = &mut bench.kernel;
    bench.port.transmitters[socket].kick(|_| {
        seen.extend(kernel.take(socket));
        Ok(())
    });
    seen
}

#[test]
fn a_ring_with_room_for_half_a_packet_gets_none_of_it() {
    let mut bench = Bench::new(64);
    for (socket, before) in [(0, 14), (1, 15)] {
        let mut first = parts(&mut bench, before);
        let transmitter = &mut bench.port.transmitters[socket];
        transmitter.transmit_parts(&mut first, None).unwrap();
        let mut second = parts(&mut bench, 3);
        let transmitter = &mut bench.port.transmitters[socket];
        let refused = transmitter.transmit_parts(&mut second, None);
        assert_eq!(refused, Err(DropReason::TransmitFull));
        assert_eq!(second.len(), 3);
        for part in second {
            bench.magazine.give(part.frame);
        }
        // And the frames that were refused do not count as under way.
        assert_eq!(bench.port.receiver.pool().in_flight(), before as u32);
        let mut seen = kick(&mut bench, socket);
        assert_eq!(seen.len(), before);
        let continues = seen.iter().filter(|d| d.continues()).count();
        assert_eq!(
            (continues, seen[before - 1].continues()),
            (before - 1, false)
        );
        // Completions come back in any order.
        seen.rotate_left(before / 2);
        seen.reverse();
        for descriptor in &seen {
            assert!(bench.kernel.complete(descriptor.address));
        }
        let completed = bench.port.receiver.complete(&mut bench.magazine);
        assert_eq!(completed, before as u32);
        assert_eq!(bench.port.receiver.pool().in_flight(), 0);
    }
    bench.assert_nothing_lost();
}

#[test]
fn metadata_stands_in_the_first_descriptor_alone_and_must_lie_in_its_frame() {
    let mut bench = Bench::new(64);
    let checksum = |start| Some(TxChecksum { start, offset: 16 });
    let mut three = parts(&mut bench, 3);
    let transmitter = &mut bench.port.transmitters[0];
    let outside = transmitter.transmit_parts(&mut three, checksum(990));
    assert_eq!(outside, Err(DropReason::Internal));
    transmitter
        .transmit_parts(&mut three, checksum(34))
        .unwrap();
    let options: Vec<u32> = kick(&mut bench, 0).iter().map(|d| d.options).collect();
    assert_eq!(options, [MORE | Descriptor::METADATA, MORE, 0]);
}

#[test]
fn a_full_memory_loses_no_chunk() {
    // Sixteen chunks, all lent: nothing is left to lend again until what came is given back.
    let mut bench = Bench::new(16);
    for round in 0..50 {
        bench.deliver(&[FULL; 5], false);
        bench.deliver(&[FULL; 7], false);
        bench.deliver(&[FULL; 4], false);
        assert!(!bench.kernel.deliver(60, 0), "nothing is lent");
        let burst = bench.receive();
        assert_eq!(burst.len(), 16);
        let census = bench.umem.census();
        assert_eq!((census.held, census.fill, census.free), (16, 0, 0));
        let mut sent = Parts::new();
        for received in burst {
            sent.push(Part {
                frame: received.frame,
                len: received.len,
            });
            if received.continues {
                continue;
            }
            let transmitter = &mut bench.port.transmitters[round % 2];
            let _full = transmitter.transmit_parts(&mut sent, None);
            for part in sent.drain(..) {
                bench.magazine.give(part.frame);
            }
        }
        for descriptor in kick(&mut bench, round % 2) {
            assert!(bench.kernel.complete(descriptor.address));
        }
        bench.port.receiver.complete(&mut bench.magazine);
        bench.assert_nothing_lost();
    }
}
