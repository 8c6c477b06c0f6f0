//! What a page hears as long as it is open.

use std::time::{Duration, Instant};

use control::flow::FlowVerdict;
use control::protocol::{Lost, WatchEventType};
use serde_json::{Value, json};
use ui::server::Bounds;
use ui::stream::{FLOWS_PER_BEAT, OBJECTS_PER_EVENT};

use crate::http::{PATIENCE, Stream, get, site, until};
use crate::toy::{Daemon, flow, pod};

fn edges(told: &Value) -> &[Value] {
    told["edges"].as_array().unwrap()
}

#[test]
fn a_page_begins_with_what_is_there_and_hears_what_comes() {
    let daemon = Daemon::start("hears");
    {
        let mut told = daemon.told();
        told.objects = vec![pod("a"), pod("b")];
        told.past = vec![flow(FlowVerdict::Dropped, 80)];
    }
    let site = site(&daemon, Bounds::default());
    let mut page = Stream::open(site, "");
    assert_eq!(page.next().0, "reset");
    let objects = page.wait("objects", |_| true);
    assert_eq!(objects["objects"][1]["name"], "b");
    assert_eq!(objects["synced"], true);
    let health = page.wait("health", |_| true);
    assert_eq!(health["generation"], 7);
    assert_eq!(health["workers"], json!({"live": 2, "total": 2}));
    assert_eq!(health["mismatches"], 5);
    let told = page.wait("edges", |_| true);
    assert_eq!(edges(&told)[0]["dropped"], 1);
    assert_eq!(edges(&told)[0]["now"], "allow");
    let told = page.wait("flows", |_| true);
    let sentence = told["flows"][0]["sentence"].as_str().unwrap();
    assert!(
        sentence.contains("NetworkPolicy shop/deny isolates"),
        "{sentence}"
    );

    daemon.told().object(WatchEventType::Added, pod("c"));
    let told = page.wait("objects", |_| true);
    assert_eq!(told["objects"][0]["name"], "c");
    daemon.told().flow(&flow(FlowVerdict::Forwarded, 80));
    let told = page.wait("edges", |_| true);
    assert_eq!(edges(&told)[0]["forwarded"], 1);
    daemon.told().object(WatchEventType::Deleted, pod("b"));
    let told = page.wait("objects", |_| true);
    assert_eq!(told["removed"], json!(["Pod/shop/b"]));
    let told = page.wait("edges", |told| {
        !told["removed"].as_array().unwrap().is_empty()
    });
    assert!(edges(&told).is_empty());
}

#[test]
fn many_objects_come_in_parts_and_the_last_one_says_so() {
    let daemon = Daemon::start("parts");
    let many = 2 * OBJECTS_PER_EVENT + 1;
    daemon.told().objects = (0..many).map(|n| pod(&format!("p{n}"))).collect();
    let site = site(&daemon, Bounds::default());
    let mut page = Stream::open(site, "");
    let mut counts = Vec::new();
    loop {
        let part = page.wait("objects", |_| true);
        counts.push(part["objects"].as_array().unwrap().len());
        if part["synced"] == true {
            break;
        }
    }
    assert_eq!(counts, [OBJECTS_PER_EVENT, OBJECTS_PER_EVENT, 1]);
}

#[test]
fn a_change_of_policy_turns_edges_within_a_second() {
    let daemon = Daemon::start("turns");
    daemon.told().past = vec![flow(FlowVerdict::Forwarded, 80)];
    let site = site(&daemon, Bounds::default());
    let mut page = Stream::open(site, "");
    page.wait("edges", |told| edges(told)[0]["now"] == "allow");
    let policy =
        json!({"kind": "NetworkPolicy", "metadata": {"namespace": "shop", "name": "deny"}});
    {
        let mut told = daemon.told();
        (told.generation, told.denies) = (8, true);
        told.object(WatchEventType::Added, policy);
    }
    let begun = Instant::now();
    page.wait("edges", |told| edges(told)[0]["now"] == "deny");
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_filter_picks_flows_and_leaves_the_edges_alone() {
    let daemon = Daemon::start("picks");
    daemon.told().past = vec![
        flow(FlowVerdict::Forwarded, 80),
        flow(FlowVerdict::Dropped, 81),
        flow(FlowVerdict::Dropped, 82),
    ];
    let site = site(&daemon, Bounds::default());
    let mut page = Stream::open(site, "?verdict=DROPPED&not=&to-port=82");
    let told = page.wait("edges", |_| true);
    assert_eq!(edges(&told).len(), 3);
    let told = page.wait("flows", |_| true);
    let flows = told["flows"].as_array().unwrap();
    assert_eq!(flows.len(), 1);
    assert_eq!(flows[0]["destination"]["port"], 81);
}

#[test]
fn losses_are_told() {
    let daemon = Daemon::start("losses");
    let site = site(&daemon, Bounds::default());
    let mut page = Stream::open(site, "");
    page.wait("health", |_| true);
    {
        let mut told = daemon.told();
        told.lost(Lost {
            client: 3,
            daemon: 4,
        });
        for port in 1..=650 {
            told.flow(&flow(FlowVerdict::Forwarded, port));
        }
    }
    // Some may not even have left the daemon, which knows of them.
    let (mut told, mut left_out, mut lost) = (0, 0, None);
    let deadline = Instant::now() + PATIENCE;
    while lost.is_none() || told + left_out + daemon.told().not_taken < 650 {
        assert!(
            Instant::now() < deadline,
            "{told} told, {left_out} left out, {lost:?} lost"
        );
        let (name, event) = page.next();
        match name.as_str() {
            "flows" => {
                let some = event["flows"].as_array().unwrap().len();
                assert!(some <= FLOWS_PER_BEAT, "{some} at once");
                told += some as u64;
                left_out += event["leftOut"].as_u64().unwrap();
            }
            "lost" => lost = Some(event),
            _ => {}
        }
    }
    assert_eq!(told + left_out + daemon.told().not_taken, 650);
    assert_eq!(lost, Some(json!({"client": 3, "daemon": 4})));
}

#[test]
fn a_daemon_that_goes_and_comes_back_is_found_again() {
    let mut daemon = Daemon::start("back");
    let site = site(&daemon, Bounds::default());
    let mut page = Stream::open(site, "");
    page.wait("health", |_| true);
    daemon.stop();
    let gone = page.wait("gone", |_| true);
    assert!(
        gone["reason"].as_str().unwrap().contains("daemon"),
        "{gone}"
    );
    daemon.told().objects = vec![pod("new")];
    daemon.go_on();
    page.wait("reset", |_| true);
    let objects = page.wait("objects", |_| true);
    assert_eq!(objects["objects"][0]["name"], "new");
}

/// What a page does not take stays with the daemon; neither others nor this program grow by it.
#[test]
fn a_page_that_does_not_read_stops_nobody_and_is_let_go() {
    let daemon = Daemon::start("stuck");
    let site = site(&daemon, Bounds::default());
    let stuck = Stream::open(site, "");
    let mut other = Stream::open(site, "");
    other.wait("health", |_| true);
    until("both pages listen", || daemon.told().pages() == 2);
    for port in 1..=3000 {
        daemon.told().flow(&flow(FlowVerdict::Forwarded, port));
    }
    // Whatever was left out of the flood: what comes behind it is heard.
    let last = flow(FlowVerdict::Dropped, 9);
    let deadline = Instant::now() + PATIENCE;
    loop {
        daemon.told().flow(&last);
        let (name, told) = other.next();
        if name == "edges"
            && edges(&told)
                .iter()
                .any(|edge| edge["port"] == 9 && edge["verdict"] == "DROPPED")
        {
            break;
        }
        assert!(Instant::now() < deadline, "the other page hears nothing");
    }
    assert_eq!(get(site, "/metrics").status, 200);
    drop(stuck);
    until("the stuck page is gone", || daemon.told().pages() == 1);
}
