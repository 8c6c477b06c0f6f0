//! Rings, ownership and bounds against the mock kernel.

use std::io;
use std::sync::Arc;
use std::thread;

use proptest::prelude::*;

use super::mock::{ENTRIES, Kernel, Port, Ring, queue};
use super::*;
use crate::DropReason;

const CHUNK: u32 = 2048;

fn umem(chunks: u32) -> Arc<Umem> {
    Umem::in_memory(chunks, CHUNK).unwrap()
}

fn shallow() -> FillOptions {
    FillOptions { idle: 4, max: 16 }
}

fn fresh(magazine: &mut Magazine) -> Frame {
    magazine.take().unwrap()
}

/// Sends one packet by way of the owner's TX ring and returns its descriptor as the kernel sees it.
fn send(port: &mut Port, kernel: &mut Kernel, magazine: &mut Magazine) -> Descriptor {
    let transmitter = &mut port.transmitters[0];
    transmitter.transmit(fresh(magazine), 60, None).unwrap();
    let mut taken = None;
    let kick = transmitter.kick(|_| {
        taken = kernel.take(0);
        Ok(())
    });
    assert_eq!(kick, Kick::Done);
    taken.unwrap()
}

#[test]
fn all_chunks_start_free_and_can_all_be_taken() {
    let umem = umem(100);
    let mut magazine = umem.magazine();
    let frames: Vec<Frame> = std::iter::from_fn(|| magazine.take()).collect();
    assert_eq!(frames.len(), 100);
    assert_eq!(
        umem.census(),
        Census {
            held: 100,
            ..Census::default()
        }
    );
    frames.into_iter().for_each(|frame| magazine.give(frame));
    drop(magazine);
    assert_eq!(umem.census().free, 100);
    let mut again = umem.magazine();
    assert_eq!(
        std::iter::from_fn(|| again.take()).fold(0, |count, _frame| count + 1),
        100
    );
    assert_eq!(umem.lost(), 0);
}

#[test]
fn frames_do_not_overlap() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let mut frames: Vec<Frame> = std::iter::from_fn(|| magazine.take()).collect();
    for (index, frame) in frames.iter_mut().enumerate() {
        assert_eq!(umem.bytes(frame).len(), (CHUNK - PACKET_OFFSET) as usize);
        umem.bytes_mut(frame).fill(index as u8);
    }
    for (index, frame) in frames.into_iter().enumerate() {
        assert!(umem.bytes(&frame).iter().all(|byte| *byte == index as u8));
        magazine.give(frame);
    }
}

#[test]
#[should_panic(expected = "another memory area")]
fn a_frame_of_another_area_is_refused() {
    let (one, other) = (umem(64), umem(64));
    let frame = one.magazine().take().unwrap();
    let _ = other.bytes(&frame);
}

#[test]
fn layouts_that_cannot_be_are_refused() {
    for (chunks, bytes) in [(64, 1024), (64, 8192), (0, 2048)] {
        assert!(
            Umem::in_memory(chunks, bytes).is_err(),
            "{chunks} of {bytes}"
        );
    }
    let region = |bytes| {
        let fd = crate::shm::memfd(c"weir-test", bytes).unwrap();
        crate::shm::Region::map(fd, bytes).unwrap()
    };
    let error = Umem::new(region(64 * 2048), region(63 * 8), 2048).unwrap_err();
    assert!(error.to_string().contains("owner words"), "{error}");
    assert!(Umem::new(region(2048 + 1024), region(4096), 2048).is_err());
}

#[test]
fn a_packet_passes_and_its_frame_comes_back() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, mut kernel) = queue(&umem, 1, shallow(), 16);
    assert_eq!(port.receiver.refill(&mut magazine), 4);
    assert!(kernel.deliver(60, 0));
    let mut burst = Burst::new();
    assert_eq!(port.receiver.receive(&mut burst, &mut magazine), 1);
    let Received {
        frame,
        len,
        continues,
    } = burst.pop().unwrap();
    assert_eq!((len, continues, frame.offset()), (60, false, PACKET_OFFSET));
    let transmitter = &mut port.transmitters[0];
    transmitter
        .transmit(
            frame,
            len,
            Some(TxChecksum {
                start: 34,
                offset: 16,
            }),
        )
        .unwrap();
    assert!(kernel.take(0).is_none(), "nothing is seen before the kick");
    let mut taken = None;
    transmitter.kick(|_| {
        taken = kernel.take(0);
        Ok(())
    });
    let descriptor = taken.unwrap();
    assert_eq!(
        (descriptor.len, descriptor.options),
        (60, Descriptor::METADATA)
    );
    assert_eq!(
        umem.census(),
        Census {
            free: 60,
            held: 0,
            fill: 3,
            transmit: 1
        }
    );
    assert_eq!(port.receiver.pool().in_flight(), 1);
    assert!(kernel.complete(descriptor.address));
    assert_eq!(port.receiver.complete(&mut magazine), 1);
    assert_eq!(
        umem.census(),
        Census {
            free: 61,
            held: 0,
            fill: 3,
            transmit: 0
        }
    );
    assert_eq!(port.receiver.pool().in_flight(), 0);
}

#[test]
fn checksum_metadata_stands_right_before_the_packet() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, mut kernel) = queue(&umem, 1, shallow(), 16);
    let mut frame = fresh(&mut magazine);
    umem.bytes_mut(&mut frame)[..60].fill(0xaa);
    port.transmitters[0]
        .transmit(
            frame,
            60,
            Some(TxChecksum {
                start: 34,
                offset: 6,
            }),
        )
        .unwrap();
    let mut taken = None;
    port.transmitters[0].kick(|_| {
        taken = kernel.take(0);
        Ok(())
    });
    // The completion makes the chunk free; taken again, its bytes show what the kernel saw.
    let address = taken.unwrap().address;
    assert!(kernel.complete(address));
    port.receiver.complete(&mut magazine);
    let mut frame = fresh(&mut magazine);
    assert_eq!(umem.address(&frame), address);
    frame.offset -= TX_METADATA_BYTES as u16;
    let bytes = umem.bytes(&frame);
    assert_eq!(
        u64::from_ne_bytes(bytes[..8].try_into().unwrap()),
        2,
        "XDP_TXMD_FLAGS_CHECKSUM"
    );
    assert_eq!(u16::from_ne_bytes([bytes[8], bytes[9]]), 34);
    assert_eq!(u16::from_ne_bytes([bytes[10], bytes[11]]), 6);
    assert_eq!(bytes[24..84], [0xaa; 60]);
    magazine.give(frame);
}

#[test]
fn completions_that_cannot_be_are_counted_and_change_nothing() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, mut kernel) = queue(&umem, 1, shallow(), 16);
    let (mut neighbour, mut other_kernel) = queue(&umem, 1, shallow(), 16);
    port.receiver.refill(&mut magazine);
    let sent = send(&mut port, &mut kernel, &mut magazine);
    let elsewhere = send(&mut neighbour, &mut other_kernel, &mut magazine);
    let lent = (0..64)
        .find(|chunk| matches!(umem.owner(*chunk), Some(Owner::Fill(_))))
        .unwrap();
    let before = umem.census();
    let lies = [
        u64::MAX,
        64 * u64::from(CHUNK),
        u64::from(lent) * u64::from(CHUNK),
        elsewhere.address,
        umem.address(&fresh(&mut magazine)),
    ];
    for lie in lies {
        assert!(kernel.complete(lie));
    }
    assert_eq!(port.receiver.complete(&mut magazine), 0);
    assert_eq!(port.receiver.counters().bad_completions, lies.len() as u64);
    assert_eq!(
        umem.census(),
        Census {
            free: before.free - 1,
            held: before.held + 1,
            ..before
        }
    );
    assert_eq!(port.receiver.pool().in_flight(), 1);
    // The true one counts once, however often it is told.
    for _ in 0..3 {
        assert!(kernel.complete(sent.address));
    }
    assert_eq!(port.receiver.complete(&mut magazine), 1);
    assert_eq!(
        port.receiver.counters().bad_completions,
        lies.len() as u64 + 2
    );
    assert_eq!(port.receiver.pool().in_flight(), 0);
}

#[test]
fn receptions_that_cannot_be_are_counted_and_change_nothing() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, mut kernel) = queue(&umem, 1, shallow(), 16);
    port.receiver.refill(&mut magazine);
    let lent = kernel.fill.pop().unwrap();
    let free = (0..64)
        .find(|chunk| umem.owner(*chunk) == Some(Owner::Free))
        .unwrap();
    let lies = [
        Descriptor {
            address: u64::MAX,
            len: 60,
            options: 0,
        },
        Descriptor {
            address: 64 * u64::from(CHUNK),
            len: 60,
            options: 0,
        },
        Descriptor {
            address: u64::from(free) * u64::from(CHUNK),
            len: 60,
            options: 0,
        },
        Descriptor {
            address: lent + 256,
            len: 0,
            options: 0,
        },
        Descriptor {
            address: lent + 256,
            len: CHUNK - 255,
            options: 0,
        },
        Descriptor {
            address: lent,
            len: u32::MAX,
            options: 0,
        },
    ];
    for lie in lies {
        assert!(kernel.rx.push(lie));
    }
    kernel.rx.publish();
    let mut burst = Burst::new();
    assert_eq!(port.receiver.receive(&mut burst, &mut magazine), 0);
    assert_eq!(port.receiver.counters().bad_receptions, lies.len() as u64);
    assert_eq!(
        umem.census(),
        Census {
            free: 60,
            held: 0,
            fill: 4,
            transmit: 0
        }
    );
    // The same frame twice is one frame.
    let once = Descriptor {
        address: lent + 256,
        len: 60,
        options: 0,
    };
    assert!(kernel.rx.push(once) && kernel.rx.push(once));
    kernel.rx.publish();
    assert_eq!(port.receiver.receive(&mut burst, &mut magazine), 1);
}

#[test]
fn impossible_indices_count_as_nothing() {
    let ring = Ring::new(ENTRIES);
    let mut consumer = Consumer::<_, u64>::new(ring.clone()).unwrap();
    let start = ring.produced();
    ring.claim_produced(start.wrapping_add(ENTRIES as u32 + 1));
    assert_eq!((consumer.available(), consumer.pop()), (0, None));
    ring.claim_produced(start.wrapping_sub(1));
    assert_eq!((consumer.available(), consumer.pop()), (0, None));
    ring.claim_produced(start.wrapping_add(ENTRIES as u32));
    assert_eq!(consumer.available(), ENTRIES as u32);

    let ring = Ring::new(ENTRIES);
    let mut producer = Producer::<_, u64>::new(ring.clone()).unwrap();
    ring.claim_consumed(ring.produced().wrapping_add(5));
    assert_eq!(
        producer.free(),
        0,
        "a consumer ahead of the producer has consumed nothing"
    );
    assert!(!producer.push(1));
    assert!(Producer::<_, u64>::new(Ring::new(12)).is_none());
    assert!(Consumer::<_, Descriptor>::new(Ring::new(0)).is_none());
}

#[test]
fn requests_that_the_kernel_would_refuse_never_reach_the_ring() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, _kernel) = queue(&umem, 1, shallow(), 16);
    let transmitter = &mut port.transmitters[0];
    let window = CHUNK - PACKET_OFFSET;
    let checksum = |start, offset| Some(TxChecksum { start, offset });
    let bad = [
        (0, None),
        (13, None),
        (window + 1, None),
        (u32::MAX, None),
        (60, checksum(50, 9)),
        (60, checksum(59, 0)),
        (60, checksum(u16::MAX, u16::MAX)),
    ];
    for (len, checksum) in bad {
        let rejected = transmitter
            .transmit(fresh(&mut magazine), len, checksum)
            .unwrap_err();
        assert_eq!(rejected.reason, DropReason::Internal, "{len} {checksum:?}");
        magazine.give(rejected.frame);
    }
    assert_eq!(transmitter.counters().bad_requests, bad.len() as u64);
    assert_eq!(transmitter.free(), ENTRIES as u32);
    for (len, checksum) in [(14, None), (window, None), (60, checksum(50, 8))] {
        transmitter
            .transmit(fresh(&mut magazine), len, checksum)
            .unwrap();
    }
    let mut frame = fresh(&mut magazine);
    frame.offset = 23;
    assert!(
        transmitter.transmit(frame, 60, None).is_err(),
        "metadata would leave the chunk"
    );
}

#[test]
fn frames_in_flight_are_bounded_over_all_sockets_of_a_queue() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, mut kernel) = queue(&umem, 2, shallow(), 10);
    for index in 0..10 {
        port.transmitters[index % 2]
            .transmit(fresh(&mut magazine), 60, None)
            .unwrap();
    }
    for transmitter in &mut port.transmitters {
        let rejected = transmitter
            .transmit(fresh(&mut magazine), 60, None)
            .unwrap_err();
        assert_eq!(rejected.reason, DropReason::TransmitFull);
        magazine.give(rejected.frame);
    }
    let mut taken = None;
    port.transmitters[1].kick(|_| {
        taken = kernel.take(1);
        Err(io::Error::from_raw_os_error(libc::EAGAIN))
    });
    assert!(kernel.complete(taken.unwrap().address));
    assert_eq!(port.receiver.complete(&mut magazine), 1);
    port.transmitters[0]
        .transmit(fresh(&mut magazine), 60, None)
        .unwrap();
    assert_eq!(port.receiver.pool().in_flight(), 10);
}

#[test]
fn a_packet_of_several_frames_goes_whole_or_not_at_all() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, mut kernel) = queue(&umem, 1, shallow(), 4);
    let parts = |magazine: &mut Magazine, count: usize| -> Parts {
        (0..count)
            .map(|_| Part {
                frame: fresh(magazine),
                len: 1000,
            })
            .collect()
    };
    let transmitter = &mut port.transmitters[0];
    let checksum = Some(TxChecksum {
        start: 34,
        offset: 16,
    });
    let mut three = parts(&mut magazine, 3);
    transmitter.transmit_parts(&mut three, checksum).unwrap();
    assert!(three.is_empty());
    let mut two = parts(&mut magazine, 2);
    let reason = transmitter.transmit_parts(&mut two, checksum).unwrap_err();
    assert_eq!((two.len(), reason), (2, DropReason::TransmitFull));
    let reason = transmitter.transmit_parts(&mut three, None).unwrap_err();
    assert_eq!(reason, DropReason::Internal);
    let mut options = Vec::new();
    let kick = transmitter.kick(|_| {
        options.extend(kernel.take(0).map(|descriptor| descriptor.options));
        Ok(())
    });
    assert_eq!(kick, Kick::Done);
    let [more, metadata] = [Descriptor::CONTINUES, Descriptor::METADATA];
    assert_eq!(options, [more | metadata, more, 0]);
}

#[test]
fn a_kick_repeats_itself_while_it_makes_headway() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let outcome =
        |error: Option<i32>| error.map_or(Ok(()), |n| Err(io::Error::from_raw_os_error(n)));
    // (error of every call, packets taken by each, how it ends)
    let cases = [
        (None, 4, Kick::Done),
        (Some(libc::EAGAIN), 4, Kick::Done),
        (Some(libc::EBUSY), 1, Kick::Done),
        (Some(libc::EAGAIN), 0, Kick::Pending),
        (Some(libc::ENOBUFS), 0, Kick::Pending),
        (None, 0, Kick::Pending),
        (Some(libc::ENETDOWN), 0, Kick::Down),
        (Some(libc::ENXIO), 0, Kick::Gone),
        (Some(libc::EINVAL), 0, Kick::Broken),
    ];
    for (error, each, expected) in cases {
        let (mut port, mut kernel) = queue(&umem, 1, shallow(), 16);
        let transmitter = &mut port.transmitters[0];
        (0..6).for_each(|_| {
            transmitter
                .transmit(fresh(&mut magazine), 60, None)
                .unwrap()
        });
        let mut calls = 0;
        let kick = transmitter.kick(|_| {
            calls += 1;
            (0..each).for_each(|_| {
                let _ = kernel.take(0);
            });
            outcome(error)
        });
        assert_eq!(kick, expected, "{error:?} {each}");
        assert_eq!(calls, if each == 0 { 1 } else { 6_u32.div_ceil(each) });
        drop(port);
        umem.reclaim();
    }
}

#[test]
fn a_removed_ports_frames_come_back_and_its_number_is_used_again() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, mut kernel) = queue(&umem, 2, shallow(), 16);
    let (mut other, _other_kernel) = queue(&umem, 1, shallow(), 16);
    other.receiver.refill(&mut magazine);
    port.receiver.refill(&mut magazine);
    send(&mut port, &mut kernel, &mut magazine);
    let id = port.receiver.pool().id();
    let lingering = port.transmitters.pop();
    drop(port);
    assert_eq!(umem.reclaim(), 0, "a TX-only socket is still open");
    drop(lingering);
    assert_eq!(umem.reclaim(), 5);
    assert_eq!(umem.reclaim(), 0);
    assert_eq!(
        umem.census(),
        Census {
            free: 60,
            held: 0,
            fill: 4,
            transmit: 0
        }
    );
    let (port, _kernel) = queue(&umem, 1, shallow(), 16);
    assert_eq!(port.receiver.pool().id(), id);
}

#[test]
fn the_more_ports_there_are_the_fewer_frames_idle_ones_have_waiting() {
    let umem = umem(512);
    let mut magazine = umem.magazine();
    let options = FillOptions { idle: 16, max: 16 };
    let mut ports: Vec<_> = (0..16).map(|_| queue(&umem, 1, options, 16)).collect();
    for (port, _) in &mut ports {
        port.receiver.refill(&mut magazine);
        assert_eq!(
            port.receiver.parked(),
            16,
            "sixteen have half of the chunks"
        );
    }
    ports.extend((0..16).map(|_| queue(&umem, 1, options, 16)));
    for (port, _) in &mut ports[16..] {
        port.receiver.refill(&mut magazine);
        assert_eq!(
            port.receiver.parked(),
            8,
            "thirty-two have half of them together"
        );
    }
    // Those that were there before get down to it with their packets.
    let mut burst = Burst::new();
    let (port, kernel) = &mut ports[0];
    for _ in 0..16 {
        assert!(kernel.deliver(60, 0));
        port.receiver.receive(&mut burst, &mut magazine);
        burst.drain(..).for_each(|r| magazine.give(r.frame));
        port.receiver.refill(&mut magazine);
    }
    assert_eq!(port.receiver.parked(), 8);
    ports.truncate(4);
    umem.reclaim();
    for (port, _) in &mut ports {
        port.receiver.refill(&mut magazine);
        assert_eq!(port.receiver.parked(), 16, "and back");
    }
}

#[test]
fn the_fill_depth_follows_the_load_and_all_ports_share_half_of_the_chunks() {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let options = FillOptions { idle: 4, max: 16 };
    let (mut port, mut kernel) = queue(&umem, 1, options, 16);
    let mut burst = Burst::new();
    let mut visit = |port: &mut Port, kernel: &mut Kernel, magazine: &mut Magazine, packets| {
        port.receiver.refill(magazine);
        let delivered = (0..packets).filter(|_| kernel.deliver(60, 0)).count();
        assert_eq!(port.receiver.receive(&mut burst, magazine), delivered);
        burst
            .drain(..)
            .for_each(|received| magazine.give(received.frame));
        port.receiver.parked()
    };
    for _ in 0..5 {
        visit(&mut port, &mut kernel, &mut magazine, 16);
    }
    port.receiver.refill(&mut magazine);
    assert_eq!(
        port.receiver.parked(),
        16,
        "the load doubled it up to the bound"
    );
    for _ in 0..4000 {
        visit(&mut port, &mut kernel, &mut magazine, 1);
    }
    assert!(
        port.receiver.parked() >= 14,
        "it stays for a while, for nobody else wants the frames: {}",
        port.receiver.parked()
    );
    assert!(umem.take_fill_spare(16));
    for _ in 0..4000 {
        visit(&mut port, &mut kernel, &mut magazine, 1);
    }
    assert!(
        port.receiver.parked() <= 4,
        "calm halves it once others may: {}",
        port.receiver.parked()
    );
    umem.return_fill_spare(16);

    // 64 chunks: ports may borrow 32 beyond their idle depth, 12 each here.
    let mut ports: Vec<_> = (0..3).map(|_| queue(&umem, 1, options, 16)).collect();
    for (port, kernel) in &mut ports {
        for _ in 0..5 {
            visit(port, kernel, &mut magazine, 16);
        }
        port.receiver.refill(&mut magazine);
    }
    let parked: Vec<u32> = ports
        .iter()
        .map(|(port, _)| port.receiver.parked())
        .collect();
    assert_eq!(parked[..2], [16, 16]);
    assert!(parked[2] < 16, "{parked:?}");
    drop(ports);
    umem.reclaim();
    assert!(umem.take_fill_spare(32), "what was borrowed came back");
}

#[test]
fn a_worker_without_free_frames_is_counted_and_others_can_help() {
    let umem = umem(64);
    let (mut hoarder, mut poor) = (umem.magazine(), umem.magazine());
    let hoard: Vec<Frame> = std::iter::from_fn(|| hoarder.take()).collect();
    let (mut port, _kernel) = queue(&umem, 1, shallow(), 16);
    assert_eq!(port.receiver.refill(&mut poor), 0);
    assert_eq!(port.receiver.counters().fill_starved, 1);
    hoard
        .into_iter()
        .take(64)
        .for_each(|frame| hoarder.give(frame));
    drop(hoarder);
    assert_eq!(port.receiver.refill(&mut poor), 4);
}

/// Frames wander from one worker's magazine to the other's and back; none is lost, none doubled.
#[test]
fn magazines_of_two_threads_exchange_frames() {
    let umem = umem(256);
    let ring = Arc::new(crossbeam_queue::ArrayQueue::new(64));
    let total = 200_000;
    let sender = {
        let (umem, ring) = (Arc::clone(&umem), Arc::clone(&ring));
        thread::spawn(move || {
            let mut magazine = umem.magazine();
            let mut sent = 0_u32;
            while sent < total {
                let Some(mut frame) = magazine.take() else {
                    thread::yield_now();
                    continue;
                };
                umem.bytes_mut(&mut frame)[..4].copy_from_slice(&sent.to_ne_bytes());
                let mut waiting = Some(frame);
                while let Some(frame) = waiting.take() {
                    waiting = ring.push(frame).err();
                    if waiting.is_some() {
                        thread::yield_now();
                    }
                }
                sent += 1;
            }
        })
    };
    let mut magazine = umem.magazine();
    let mut received = 0_u32;
    while received < total {
        let Some(frame) = ring.pop() else {
            thread::yield_now();
            continue;
        };
        assert_eq!(umem.bytes(&frame)[..4], received.to_ne_bytes());
        magazine.give(frame);
        received += 1;
    }
    sender.join().unwrap();
    drop(magazine);
    assert_eq!((umem.census().free, umem.lost()), (256, 0));
}

#[derive(Clone, Debug)]
enum Step {
    Refill,
    Deliver(u8),
    /// Receive, then send on by this socket or give back.
    Forward(Option<u8>),
    /// The kernel takes so many packets of this socket.
    Kick(u8, u8),
    /// The kernel completes the packet that is so far back in its hands.
    Complete(u8),
    /// The kernel completes any address.
    Lie(u32),
    Reap,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        Just(Step::Refill),
        (0..20_u8).prop_map(Step::Deliver),
        prop::option::of(0..3_u8).prop_map(Step::Forward),
        (0..3_u8, 0..10_u8).prop_map(|(socket, count)| Step::Kick(socket, count)),
        any::<u8>().prop_map(Step::Complete),
        (0..70 * CHUNK).prop_map(Step::Lie),
        Just(Step::Reap),
    ];
    prop::collection::vec(step, 0..300)
}

/// A queue of one owner and two TX-only sockets under any sequence of events, with a kernel that
/// also lies: at every moment every chunk is in exactly one place, the count in flight is that of
/// frames in `Transmit`, and nothing is lost in the end.
fn play(steps: Vec<Step>) {
    let umem = umem(64);
    let mut magazine = umem.magazine();
    let (mut port, mut kernel) = queue(&umem, 3, shallow(), 12);
    let mut in_kernel: Vec<u64> = Vec::new();
    let mut number = 0_u32;
    for step in steps {
        match step {
            Step::Refill => {
                let _ = port.receiver.refill(&mut magazine);
            }
            Step::Deliver(count) => (0..count).for_each(|_| {
                let _ = kernel.deliver(60, 0);
            }),
            Step::Forward(socket) => {
                let mut burst = Burst::new();
                port.receiver.receive(&mut burst, &mut magazine);
                for mut received in burst.drain(..) {
                    number += 1;
                    umem.bytes_mut(&mut received.frame)[..4].copy_from_slice(&number.to_ne_bytes());
                    match socket {
                        Some(socket) => {
                            let transmitter = &mut port.transmitters[usize::from(socket)];
                            let sent = transmitter.transmit(received.frame, received.len, None);
                            if let Err(rejected) = sent {
                                magazine.give(rejected.frame);
                            }
                        }
                        None => magazine.give(received.frame),
                    }
                }
            }
            Step::Kick(socket, count) => {
                let mut left = count;
                port.transmitters[usize::from(socket)].kick(|_| {
                    if left > 0 {
                        left -= 1;
                        in_kernel.extend(kernel.take(usize::from(socket)).map(|d| d.address));
                    }
                    Err(io::Error::from_raw_os_error(libc::EAGAIN))
                });
            }
            Step::Complete(back) if !in_kernel.is_empty() => {
                let index = usize::from(back) % in_kernel.len();
                if kernel.complete(in_kernel[index]) {
                    in_kernel.remove(index);
                }
            }
            Step::Complete(_) => {}
            // Not of frames really in flight: those the kernel may complete at any time.
            Step::Lie(address) => match umem.owner(address / CHUNK) {
                Some(Owner::Transmit(_)) => {}
                _ => {
                    let _ = kernel.complete(u64::from(address));
                }
            },
            Step::Reap => {
                let _ = port.receiver.complete(&mut magazine);
            }
        }
        let census = umem.census();
        assert_eq!(
            census.free + census.held + census.fill + census.transmit,
            64
        );
        assert_eq!(census.held, 0);
        assert_eq!(census.fill, port.receiver.parked());
        assert_eq!(census.transmit, port.receiver.pool().in_flight());
        assert!(census.transmit <= 12);
    }
    assert_eq!(port.receiver.counters().bad_receptions, 0);
    drop(port);
    umem.reclaim();
    drop(magazine);
    let mut magazine = umem.magazine();
    let mut frames: Vec<Frame> = std::iter::from_fn(|| magazine.take()).collect();
    frames.sort_by_key(|frame| frame.chunk);
    frames.dedup_by_key(|frame| frame.chunk);
    assert_eq!(frames.len(), 64);
}

proptest! {
    #[test]
    fn a_frame_is_always_in_exactly_one_place(steps in steps()) {
        play(steps);
    }
}
