//! Clients that do what they should not.

use std::io::{Read, Write};
use std::time::{Duration, Instant};

use ui::server::{Bounds, HEAD_BYTES};

use crate::http::{Stream, ask, connect, exchange, get, site, until};
use crate::toy::Daemon;

/// What the page may ask of the daemon.
const READING: &[&str] = &[
    "watch",
    "observe",
    "status",
    "metrics",
    "trace",
    "matrix",
    "get",
    "hits",
    "pod.policies",
];

#[test]
fn nothing_can_be_changed_and_nothing_but_reading_reaches_the_daemon() {
    let daemon = Daemon::start("changes");
    let site = site(&daemon, Bounds::default());
    for method in [
        "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "CONNECT", "TRACE",
    ] {
        let target = if method == "CONNECT" {
            "127.0.0.1:80"
        } else {
            "/api/trace"
        };
        let answer = ask(site, method, target);
        assert_eq!(answer.status, 405, "{method}");
        assert_eq!(answer.header("allow"), Some("GET, HEAD"));
    }
    for path in [
        "/api/apply",
        "/api/delete",
        "/api/policy?kind=Pod&name=x",
        "/api/patch",
    ] {
        assert!(get(site, path).status >= 400, "{path}");
    }
    let mut page = Stream::open(site, "");
    page.wait("health", |_| true);
    get(site, "/api/pod?namespace=shop&name=a");
    get(
        site,
        "/api/policy?kind=NetworkPolicy&namespace=shop&name=deny",
    );
    get(site, "/api/matrix");
    let told = daemon.told();
    let other = told
        .asked
        .iter()
        .find(|method| !READING.contains(&method.as_str()));
    assert_eq!(other, None);
}

#[test]
fn a_strangers_name_or_page_gets_nothing() {
    let daemon = Daemon::start("strangers");
    let site = site(&daemon, Bounds::default());
    let with = |headers: &str| {
        let head = format!("GET /metrics HTTP/1.1\r\n{headers}Connection: close\r\n\r\n");
        exchange(site, head.as_bytes())
    };
    assert_eq!(with(&format!("Host: {site}\r\n")).status, 200);
    let rebound = with("Host: evil.example\r\n");
    assert_eq!(rebound.status, 421);
    assert!(rebound.body.contains("--allow-host"), "{rebound:?}");
    assert_eq!(with("").status, 421);
    assert_eq!(
        with(&format!("Host: {site}\r\nHost: evil.example\r\n")).status,
        421
    );
    let cross = with(&format!("Host: {site}\r\nSec-Fetch-Site: cross-site\r\n"));
    assert_eq!(cross.status, 403);
    let foreign = with(&format!("Host: {site}\r\nOrigin: http://evil.example\r\n"));
    assert_eq!(foreign.status, 403);
    assert!(daemon.told().asked.iter().all(|method| method == "metrics"));
}

#[test]
fn nonsense_and_excess_are_refused_and_others_are_served() {
    let daemon = Daemon::start("nonsense");
    let site = site(&daemon, Bounds::default());
    let nonsense: [&[u8]; 4] = [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ];
    for bytes in nonsense {
        let mut stream = connect(site);
        stream.write_all(bytes).unwrap();
        let mut answer = String::new();
        // A refusal or a closed connection; either ends it.
        let _ = stream.read_to_string(&mut answer);
        assert!(
            answer.is_empty() || answer.starts_with("HTTP/1.1 4"),
            "{answer}"
        );
    }
    let long = format!(
        "GET / HTTP/1.1\r\nHost: {site}\r\nX: {}\r\n\r\n",
        "x".repeat(2 * HEAD_BYTES)
    );
    let mut stream = connect(site);
    let _ = stream.write_all(long.as_bytes());
    let mut answer = String::new();
    let _ = stream.read_to_string(&mut answer);
    assert!(
        answer.is_empty() || answer.starts_with("HTTP/1.1 431"),
        "{answer}"
    );

    let body = format!(
        "GET / HTTP/1.1\r\nHost: {site}\r\nContent-Length: 99999999999\r\nConnection: close\r\n\r\n"
    );
    assert_eq!(exchange(site, body.as_bytes()).status, 413);
    let query = (0..100).map(|n| format!("pod={n}&")).collect::<String>();
    assert_eq!(get(site, &format!("/api/stream?{query}")).status, 400);
    let target = format!("/?{}", "x".repeat(9000));
    assert_eq!(get(site, &target).status, 414);
    assert_eq!(get(site, "/").status, 200);
}

#[test]
fn heads_that_never_end_are_given_up_and_connections_are_bounded() {
    let daemon = Daemon::start("slow");
    let bounds = Bounds {
        connections: 4,
        head_time: Duration::from_millis(700),
        ..Bounds::default()
    };
    let site = site(&daemon, bounds);
    let begun = Instant::now();
    let mut held: Vec<_> = (0..4).map(|_| connect(site)).collect();
    held[0].write_all(b"GET / HTTP/1.1\r\nHost: ").unwrap();
    // The server takes connections in their order.
    let mut fifth = connect(site);
    let mut answer = String::new();
    let _ = fifth.read_to_string(&mut answer);
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    for mut stream in held {
        let mut rest = Vec::new();
        let _ = stream.read_to_end(&mut rest);
    }
    assert!(
        begun.elapsed() >= Duration::from_millis(500),
        "{:?}",
        begun.elapsed()
    );
    assert_eq!(get(site, "/").status, 200);
}

#[test]
fn pages_are_bounded_and_give_their_place_back() {
    let daemon = Daemon::start("pages");
    let bounds = Bounds {
        streams: 3,
        ..Bounds::default()
    };
    let site = site(&daemon, bounds);
    let mut pages: Vec<Stream> = (0..3).map(|_| Stream::open(site, "")).collect();
    for page in &mut pages {
        page.wait("health", |_| true);
    }
    let Err(refused) = Stream::try_open(site, "") else {
        panic!("a fourth page");
    };
    assert_eq!(refused.status, 503);
    assert_eq!(get(site, "/metrics").status, 200);
    pages.pop();
    until("the place is free again", || {
        Stream::try_open(site, "").is_ok()
    });
    drop(pages);
    until("the daemon is left alone", || daemon.told().pages() == 0);
}
