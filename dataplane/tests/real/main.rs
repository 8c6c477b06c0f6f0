//! Real packets over real veths through our sockets, and no others.
//!
//! Needs root; without it every test reports itself skipped. Everything happens in network
//! namespaces named `weir-xsk-PID-…` and on a bpffs of the tests' own, removed afterwards.
//! `cargo test -p weir-dataplane --test real [FILTER]`.
#![allow(clippy::unwrap_used, clippy::expect_used, missing_docs)]

mod captures;
#[path = "../it/simulator/cut.rs"]
mod cut;
mod engine;
mod forwarder;
mod fragments;
mod services;
mod traffic;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use dataplane::snapshot::Role;
use dataplane::xdp::Programs;
use dataplane::xsk::{
    Burst, Census, Kick, PortOptions, PortSocket, TransmitSocket, Umem, XskError,
};
use forwarder::Forwarder;
use world::World;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "bytes_out_are_bytes_in_between_two_workers",
        bytes_out_are_bytes_in,
    ),
    (
        "packets_of_several_frames_pass",
        packets_of_several_frames_pass,
    ),
    ("nobody_else_reaches_a_pod", nobody_else_reaches_a_pod),
    (
        "a_killed_daemon_leaves_the_doors_shut",
        a_killed_daemon_leaves_the_doors_shut,
    ),
    (
        "an_interface_that_goes_gives_its_frames_back",
        an_interface_that_goes,
    ),
    ("a_busy_queue_is_waited_for", a_busy_queue_is_waited_for),
    (
        "an_uplink_keeps_what_is_the_nodes",
        an_uplink_keeps_what_is_the_nodes,
    ),
    (
        "an_interface_that_is_left_stays_shut_and_comes_back",
        an_interface_that_is_left_stays_shut,
    ),
    (
        "the_sweep_leaves_live_interfaces_shut",
        the_sweep_leaves_live_interfaces_shut,
    ),
    (
        "packets_pass_between_pods_and_the_node",
        engine::packets_pass_between_pods_and_the_node,
    ),
    (
        "packets_pass_through_the_uplink",
        engine::packets_pass_through_the_uplink,
    ),
    (
        "policy_decides_and_cuts_live_connections",
        engine::policy_decides_and_cuts_live_connections,
    ),
    (
        "services_lead_to_their_backends",
        services::services_lead_to_their_backends,
    ),
    (
        "large_packets_go_through_services",
        services::large_packets_go_through_services,
    ),
    (
        "node_ports_are_reached_from_outside",
        services::node_ports_are_reached_from_outside,
    ),
    (
        "services_without_backends_refuse",
        services::services_without_backends_refuse,
    ),
    (
        "queues_wake_their_worker_busy_and_quiet_again",
        engine::queues_wake_their_worker_busy_and_quiet_again,
    ),
    (
        "publications_wake_sleepers_and_do_not_wait_for_the_clock",
        engine::publications_wake_sleepers_and_do_not_wait_for_the_clock,
    ),
    ("ports_come_and_go", engine::ports_come_and_go),
    (
        "datagrams_pass_in_fragments_or_not_at_all",
        fragments::datagrams_pass_or_not_at_all,
    ),
    (
        "fragments_pass_in_any_order",
        fragments::fragments_pass_in_any_order,
    ),
    (
        "held_fragments_go_with_their_port",
        fragments::held_fragments_go_with_their_port,
    ),
    (
        "a_tap_has_packets_with_their_verdicts",
        captures::a_tap_has_packets_with_their_verdicts,
    ),
    (
        "a_tap_names_the_service_of_translated_packets",
        captures::a_tap_names_the_service_of_translated_packets,
    ),
    (
        "a_tap_that_nobody_reads_costs_no_packet",
        captures::a_tap_that_nobody_reads_costs_no_packet,
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, pins, first, second] = arguments.as_slice()
        && mode == "daemon"
    {
        forwarder::run_as_daemon(pins.as_ref(), first, second);
    }
    if arguments.iter().any(|argument| argument == "--list") {
        TESTS.iter().for_each(|(name, _)| println!("{name}: test"));
        return ExitCode::SUCCESS;
    }
    let filter = arguments.iter().find(|argument| !argument.starts_with('-'));
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in TESTS {
        if filter.is_some_and(|filter| !name.contains(filter.as_str())) {
            continue;
        }
        if let Some(reason) = world::lacks() {
            println!("{name}: skipped: {reason}");
            skipped += 1;
            continue;
        }
        // A thread of its own: entering a network namespace does not leak into the next test.
        let outcome = thread::scope(|scope| {
            scope
                .spawn(|| catch_unwind(AssertUnwindSafe(test)).is_ok())
                .join()
                .unwrap_or(false)
        });
        println!("{name}: {}", if outcome { "ok" } else { "FAILED" });
        if outcome { passed += 1 } else { failed += 1 }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// Two ports, each owned by one thread and sent to by the other's TX-only socket; TCP with
/// offloaded checksums and UDP of every size, both families. Afterwards every frame is accounted.
fn bytes_out_are_bytes_in() {
    let world = World::new("pass", 1500);
    let umem = Umem::in_memory(4096, 4096).unwrap();
    let forwarder = Forwarder::start(&world.pins, &umem, &world.ports(), false);
    traffic::udp_echo(&world, 3_000, 1472);
    traffic::tcp_transfer(&world, 32 << 20);
    let report = forwarder.stop();
    assert_eq!(report.counters.bad_completions, 0);
    assert_eq!(report.counters.bad_receptions, 0);
    assert_eq!(report.counters.bad_requests, 0);
    assert_eq!(report.counters.completed, report.counters.transmitted);
    assert!(report.counters.transmitted > 20_000, "{report:?}");
    assert!(
        report.offloaded > 1_000,
        "TCP left its checksum to us: {report:?}"
    );
    assert_all_free(&umem);
}

fn packets_of_several_frames_pass() {
    let world = World::new("parts", 9000);
    let umem = Umem::in_memory(4096, 4096).unwrap();
    let forwarder = Forwarder::start(&world.pins, &umem, &world.ports(), true);
    traffic::udp_echo(&world, 500, 8900);
    traffic::tcp_transfer(&world, 32 << 20);
    let report = forwarder.stop();
    assert!(report.continued > 1_000, "{report:?}");
    assert_eq!(
        report.counters.bad_completions + report.counters.bad_requests,
        0
    );
    assert_eq!(report.counters.completed, report.counters.transmitted);
    assert_all_free(&umem);
}

/// The kernel would pass packets by a bridge, by the node's own stack and by a queue without a
/// socket; every probe succeeds before the programs are attached and fails after.
fn nobody_else_reaches_a_pod() {
    let world = World::new("shut", 1500);
    world.bridge();
    assert!(
        traffic::soon(|| traffic::pod_reaches_pod(&world)),
        "the bridge passes packets before"
    );
    assert!(
        traffic::soon(|| traffic::node_reaches_pod(&world)),
        "the node's stack reaches the pod before"
    );
    let mut programs = Programs::load(&world.pins, 16).unwrap();
    let attached: Vec<_> = world
        .ports()
        .iter()
        .map(|i| programs.attach(Role::Pod, *i).unwrap())
        .collect();
    assert!(
        !traffic::pod_reaches_pod(&world),
        "a queue without a socket drops"
    );
    assert!(
        !traffic::node_reaches_pod(&world),
        "the egress program drops"
    );
    drop(programs);
    assert!(
        !traffic::pod_reaches_pod(&world),
        "and with no daemon at all"
    );
    assert!(!traffic::node_reaches_pod(&world));
    let mut programs = Programs::load(&world.pins, 16).unwrap();
    attached
        .into_iter()
        .for_each(|a| programs.detach(a).unwrap());
    assert!(
        traffic::soon(|| traffic::pod_reaches_pod(&world)),
        "detached, the kernel passes packets again"
    );
    assert!(traffic::soon(|| traffic::node_reaches_pod(&world)));
}

/// A daemon of its own process is killed: nothing passes. The next one updates the pinned links,
/// binds the same queues and passes packets again.
fn a_killed_daemon_leaves_the_doors_shut() {
    let world = World::new("kill", 1500);
    world.bridge();
    for round in 0..3 {
        let mut daemon = world.spawn_daemon();
        let start = Instant::now();
        // The bridge passes packets until the first daemon has attached its programs.
        while world.pins() < 4 || !traffic::pod_reaches_pod(&world) {
            assert!(
                start.elapsed() < Duration::from_secs(10),
                "round {round}: nothing passes"
            );
        }
        assert!(
            !traffic::node_reaches_pod(&world),
            "the node's stack stays out"
        );
        daemon.kill();
        assert!(
            !traffic::pod_reaches_pod(&world),
            "round {round}: dead, yet something passes"
        );
        assert!(!traffic::node_reaches_pod(&world));
        assert_eq!(
            world.pins(),
            4,
            "an XDP and an egress pin for each port, none piled up"
        );
    }
}

fn an_interface_that_goes() {
    let world = World::new("gone", 1500);
    let umem = Umem::in_memory(1024, 2048).unwrap();
    let [a, b] = world.ports();
    let mut magazine = umem.magazine();
    let mut first = PortSocket::open(&umem, &PortOptions::new(a, 0)).unwrap();
    let mut second = PortSocket::open(&umem, &PortOptions::new(b, 0)).unwrap();
    let mut sender = TransmitSocket::open(first.pool()).unwrap();
    assert_eq!(
        first.refill(&mut magazine) + second.refill(&mut magazine),
        64
    );
    world.remove_port(0);
    let frame = magazine.take().unwrap();
    sender.transmit(frame, 60, None).unwrap();
    assert_eq!(sender.kick(), Kick::Gone);
    // The UMEM was registered by the socket whose interface is gone; sharing goes on with another.
    let again = world.add_port();
    let mut third = PortSocket::open(&umem, &PortOptions::new(again, 0)).unwrap();
    assert_eq!(third.refill(&mut magazine), 32);
    assert_eq!(umem.census().transmit, 1);
    drop((first, sender));
    assert_eq!(umem.reclaim(), 33);
    drop((second, third));
    // No socket is left: the next registers the memory again.
    let fourth = PortSocket::open(&umem, &PortOptions::new(b, 0)).unwrap();
    assert_eq!(umem.reclaim(), 64);
    drop(fourth);
    umem.reclaim();
    drop(magazine);
    assert_all_free(&umem);
}

fn a_busy_queue_is_waited_for() {
    let world = World::new("busy", 1500);
    let [a, _] = world.ports();
    let (one, other) = (
        Umem::in_memory(512, 2048).unwrap(),
        Umem::in_memory(512, 2048).unwrap(),
    );
    let first = PortSocket::open(&one, &PortOptions::new(a, 0)).unwrap();
    let start = Instant::now();
    let error = PortSocket::open(&other, &PortOptions::new(a, 0)).unwrap_err();
    assert!(matches!(error, XskError::Busy { .. }), "{error}");
    assert!(start.elapsed() >= Duration::from_secs(3));
    let leaver = thread::spawn(move || {
        thread::sleep(Duration::from_millis(100));
        drop(first);
    });
    let start = Instant::now();
    PortSocket::open(&other, &PortOptions::new(a, 0)).unwrap();
    assert!(start.elapsed() >= Duration::from_millis(100));
    leaver.join().unwrap();
    let error = PortSocket::open(&other, &PortOptions::new(a, 9)).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(22), "{error}");
}

/// Packets to our prefixes come to the socket; the rest, ARP included, is the node's.
fn an_uplink_keeps_what_is_the_nodes() {
    let world = World::new("uplink", 1500);
    world.bridge();
    let umem = Umem::in_memory(512, 2048).unwrap();
    let [a, _] = world.ports();
    let mut programs = Programs::load(&world.pins, 16).unwrap();
    programs.attach(Role::Uplink, a).unwrap();
    let mut magazine = umem.magazine();
    let mut port = PortSocket::open(&umem, &PortOptions::new(a, 0)).unwrap();
    port.refill(&mut magazine);
    {
        use std::os::fd::AsFd;
        programs.set_socket(a, 0, port.as_fd()).unwrap();
    }
    let mut burst = Burst::new();
    assert!(
        traffic::soon(|| traffic::pod_reaches_pod(&world)),
        "no prefix is ours yet"
    );
    assert_eq!(port.receive(&mut burst, &mut magazine), 0);
    programs
        .set_local_prefixes(&["10.9.0.2/32".parse().unwrap()])
        .unwrap();
    assert!(!traffic::pod_reaches_pod(&world), "now 10.9.0.2 is");
    assert!(port.receive(&mut burst, &mut magazine) > 0);
    for received in burst.drain(..) {
        let bytes = &umem.bytes(&received.frame)[..received.len as usize];
        assert_eq!(
            (&bytes[12..14], &bytes[30..34]),
            (&[8, 0][..], &[10, 9, 0, 2][..])
        );
        magazine.give(received.frame);
    }
    assert!(
        traffic::soon(|| traffic::node_reaches_pod(&world)),
        "what is not for 10.9.0.2 is the node's"
    );
    programs
        .set_local_prefixes(&["fd09::/64".parse().unwrap()])
        .unwrap();
    assert!(
        traffic::soon(|| traffic::pod_reaches_pod(&world)),
        "prefixes are replaced, not added"
    );
}

fn an_interface_that_is_left_stays_shut() {
    let world = World::new("left", 1500);
    world.bridge();
    assert!(traffic::soon(|| traffic::pod_reaches_pod(&world)));
    let mut programs = Programs::load(&world.pins, 16).unwrap();
    for _ in 0..3 {
        for interface in world.ports() {
            let attached = programs.attach(Role::Pod, interface).unwrap();
            programs.leave_shut(attached).unwrap();
        }
        assert!(!traffic::pod_reaches_pod(&world));
        assert!(!traffic::node_reaches_pod(&world));
        assert_eq!(programs.sweep().unwrap(), 0);
        assert_eq!(world.pins(), 4);
    }
    world.remove_port(1);
    assert_eq!(programs.sweep().unwrap(), 2, "they go with the interface");
}

fn the_sweep_leaves_live_interfaces_shut() {
    let world = World::new("sweep", 1500);
    world.bridge();
    let mut programs = Programs::load(&world.pins, 16).unwrap();
    world
        .ports()
        .iter()
        .for_each(|i| _ = programs.attach(Role::Pod, *i).unwrap());
    drop(programs);
    world.remove_port(1);
    assert_eq!(world.pins(), 4);
    let programs = Programs::load(&world.pins, 16).unwrap();
    assert_eq!(
        programs.sweep().unwrap(),
        2,
        "those of the interface that is gone"
    );
    assert!(
        !traffic::node_reaches_pod(&world),
        "the other's port stays shut"
    );
}

fn assert_all_free(umem: &Arc<Umem>) {
    assert_eq!(
        umem.census(),
        Census {
            free: umem.chunks(),
            ..Census::default()
        }
    );
    assert_eq!(umem.lost(), 0);
}
