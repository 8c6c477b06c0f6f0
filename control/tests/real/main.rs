//! Tests that need root and the kernel: namespaces, links, the daemon itself.
//!
//! Not under libtest, because libtest cannot say "skipped": each test is listed as `ok`, `FAILED`
//! or `skipped: REASON`, and the last line counts them. Arguments pick tests by part of the name.

mod captures;
mod churn;
mod daemon;
mod netlink;
mod told;
mod uplink;

type Test = (&'static str, fn());

const TESTS: &[Test] = &[
    (
        "told::connections_are_listed_and_deleted_by_what_they_are",
        told::connections_are_listed_and_deleted_by_what_they_are,
    ),
    (
        "netlink::a_veth_pair_across_namespaces",
        netlink::a_veth_pair_across_namespaces,
    ),
    (
        "netlink::routes_rules_and_neighbours",
        netlink::routes_rules_and_neighbours,
    ),
    (
        "netlink::the_monitor_tells_of_a_link_that_goes",
        netlink::the_monitor_tells_of_a_link_that_goes,
    ),
    (
        "daemon::policy_is_enforced_the_moment_the_reply_is_there",
        daemon::policy_is_enforced_the_moment_the_reply_is_there,
    ),
    (
        "daemon::killed_it_is_closed_and_started_again_it_goes_on",
        daemon::killed_it_is_closed_and_started_again_it_goes_on,
    ),
    (
        "daemon::a_dry_run_tells_what_it_would_cut_and_cuts_nothing",
        daemon::a_dry_run_tells_what_it_would_cut_and_cuts_nothing,
    ),
    (
        "daemon::an_interface_that_goes_takes_its_endpoint_along",
        daemon::an_interface_that_goes_takes_its_endpoint_along,
    ),
    (
        "told::flows_hits_and_samples_of_real_packets",
        told::flows_hits_and_samples_of_real_packets,
    ),
    (
        "told::a_policy_in_audit_mode_reports_and_decides_nothing",
        told::a_policy_in_audit_mode_reports_and_decides_nothing,
    ),
    (
        "uplink::channels_are_told_of_each_namespace",
        uplink::channels_are_told_of_each_namespace,
    ),
    (
        "uplink::every_queue_of_an_uplink_and_of_a_hot_pod_carries_packets",
        uplink::every_queue_of_an_uplink_and_of_a_hot_pod_carries_packets,
    ),
    (
        "uplink::an_uplink_that_gets_more_queues_is_followed",
        uplink::an_uplink_that_gets_more_queues_is_followed,
    ),
    (
        "uplink::a_queue_that_is_not_driven_drops",
        uplink::a_queue_that_is_not_driven_drops,
    ),
    (
        "uplink::next_hops_are_followed_while_packets_flow",
        uplink::next_hops_are_followed_while_packets_flow,
    ),
    (
        "captures::a_capture_opens_in_tshark_and_tcpdump",
        captures::a_capture_opens_in_tshark_and_tcpdump,
    ),
    (
        "captures::stuck_clients_cost_no_packet",
        captures::stuck_clients_cost_no_packet,
    ),
    (
        "captures::top_tells_rates_of_real_packets",
        captures::top_tells_rates_of_real_packets,
    ),
    (
        "churn::a_flow_loses_nothing_while_other_pods_come_and_go",
        churn::a_flow_loses_nothing_while_other_pods_come_and_go,
    ),
    (
        "churn::two_hundred_and_fifty_pods_cost_little",
        churn::two_hundred_and_fifty_pods_cost_little,
    ),
];

fn main() {
    let filters: Vec<String> = std::env::args()
        .skip(1)
        .filter(|a| !a.starts_with('-'))
        .collect();
    let picked =
        |name: &str| filters.is_empty() || filters.iter().any(|f| name.contains(f.as_str()));
    let root = rustix::process::geteuid().is_root();
    let (mut passed, mut failed, mut skipped) = (0, 0, 0);
    for (name, test) in TESTS.iter().filter(|(name, _)| picked(name)) {
        if !root {
            println!("test {name} ... skipped: needs root");
            skipped += 1;
        } else if std::panic::catch_unwind(test).is_ok() {
            println!("test {name} ... ok");
            passed += 1;
        } else {
            println!("test {name} ... FAILED");
            failed += 1;
        }
    }
    println!("{passed} passed, {failed} failed, {skipped} skipped");
    if failed > 0 {
        std::process::exit(1);
    }
}
