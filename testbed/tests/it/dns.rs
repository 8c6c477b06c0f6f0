//! `weir-dns` asked over UDP and TCP on the loopback interface, along the search path too. Questions
//! are put together here, byte by byte, and answers are read by a parser of this file's own, so
//! that the server's library does not judge itself.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, SocketAddr, TcpStream, UdpSocket};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use testbed::dns::{Options, render};

const A: u16 = 1;
const SOA: u16 = 6;
const PTR: u16 = 12;
const AAAA: u16 = 28;
const SRV: u16 = 33;
const AXFR: u16 = 252;

struct Server {
    child: Child,
    lines: BufReader<std::process::ChildStdout>,
    folder: PathBuf,
    address: SocketAddr,
}

impl Server {
    fn start(test: &str, objects: Option<&[Value]>) -> Server {
        let folder = format!("weir-dns-{test}-{}", std::process::id());
        let folder = std::env::temp_dir().join(folder);
        std::fs::create_dir_all(&folder).unwrap();
        if let Some(objects) = objects {
            publish(&folder, objects);
        }
        let mut child = Command::new(env!("CARGO_BIN_EXE_weir-dns"))
            .args(["--listen", "127.0.0.1:0", "--records"])
            .arg(folder.join("records.json"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap());
        let address = ([127, 0, 0, 1], 0).into();
        let mut server = Server {
            child,
            lines,
            folder,
            address,
        };
        let line = server.line_with("serving ");
        server.address = line.split(' ').nth(1).unwrap().parse().unwrap();
        server
    }

    /// The next line of its log that has a text.
    fn line_with(&mut self, text: &str) -> String {
        loop {
            let mut line = String::new();
            assert!(self.lines.read_line(&mut line).unwrap() > 0, "it ended");
            if line.contains(text) {
                return line;
            }
        }
    }

    fn ask(&self, name: &str, kind: u16) -> Message {
        Message::parse(&self.send(&question(name, kind, None)))
    }

    fn send(&self, question: &[u8]) -> Vec<u8> {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(10)))
            .unwrap();
        socket.connect(self.address).unwrap();
        socket.send(question).unwrap();
        let mut answer = [0; 65_535];
        let length = socket.recv(&mut answer).unwrap();
        answer[..length].to_vec()
    }

    fn addresses(&self, name: &str, kind: u16) -> Vec<String> {
        let mut all = self.ask(name, kind).values(kind);
        all.sort();
        all
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
        let _left = std::fs::remove_dir_all(&self.folder);
    }
}

fn publish(folder: &std::path::Path, objects: &[Value]) {
    let outside: Vec<IpAddr> = vec![
        "172.31.255.2".parse().unwrap(),
        "fd00:10:255::2".parse().unwrap(),
    ];
    let options = Options {
        server: vec!["10.244.0.10".parse().unwrap()],
        external: BTreeMap::from([("www.google.com".to_owned(), outside)]),
        ..Options::default()
    };
    let rendered = render(objects, &options);
    assert!(rendered.skipped.is_empty(), "{:?}", rendered.skipped);
    rendered
        .records
        .write(&folder.join("records.json"))
        .unwrap();
}

/// A question with recursion desired; `payload` adds EDNS.
fn question(name: &str, kind: u16, payload: Option<u16>) -> Vec<u8> {
    let mut bytes = vec![
        0x12,
        0x34,
        1,
        0,
        0,
        1,
        0,
        0,
        0,
        0,
        0,
        u8::from(payload.is_some()),
    ];
    for label in name.split('.').filter(|label| !label.is_empty()) {
        bytes.push(label.len() as u8);
        bytes.extend(label.bytes());
    }
    bytes.push(0);
    bytes.extend(kind.to_be_bytes());
    bytes.extend([0, 1]);
    if let Some(payload) = payload {
        bytes.extend([0, 0, 41]);
        bytes.extend(payload.to_be_bytes());
        bytes.extend([0; 6]);
    }
    bytes
}

/// Owner, type, time to live in seconds, value.
type Row = (String, u16, u32, String);

#[derive(Debug)]
struct Message {
    code: u8,
    cut: bool,
    with_authority: bool,
    question: String,
    sections: [Vec<Row>; 3],
}

impl Message {
    fn parse(bytes: &[u8]) -> Message {
        assert_eq!(bytes[..2], [0x12, 0x34], "another question's answer");
        assert_eq!(
            bytes[2] & 0x81,
            0x81,
            "a response that says recursion was desired"
        );
        let count = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
        let mut at = 12;
        let mut question = String::new();
        for _ in 0..count(4) {
            question = read_name(bytes, &mut at);
            at += 4;
        }
        let sections = [6, 8, 10].map(|counter| {
            let rows = (0..count(counter)).map(|_| read_row(bytes, &mut at));
            rows.filter(|(_, kind, ..)| *kind != 41).collect()
        });
        assert_eq!(at, bytes.len(), "bytes after the message");
        Message {
            code: bytes[3] & 15,
            cut: bytes[2] & 2 != 0,
            with_authority: bytes[2] & 4 != 0,
            question,
            sections,
        }
    }

    fn values(&self, wanted: u16) -> Vec<String> {
        let rows = self.sections[0]
            .iter()
            .filter(|(_, kind, ..)| *kind == wanted);
        rows.map(|(.., value)| value.clone()).collect()
    }
}

fn read_name(bytes: &[u8], at: &mut usize) -> String {
    let mut labels = Vec::new();
    let (mut from, mut jumped) = (*at, false);
    loop {
        let length = usize::from(bytes[from]);
        if length >= 0xc0 {
            if !jumped {
                *at = from + 2;
            }
            jumped = true;
            from = (length & 0x3f) << 8 | usize::from(bytes[from + 1]);
            continue;
        }
        from += 1 + length;
        if length == 0 {
            break;
        }
        labels.push(String::from_utf8(bytes[from - length..from].to_vec()).unwrap());
    }
    if !jumped {
        *at = from;
    }
    labels.join(".")
}

fn read_row(bytes: &[u8], at: &mut usize) -> Row {
    let owner = read_name(bytes, at);
    let two = |at: usize| u16::from_be_bytes([bytes[at], bytes[at + 1]]);
    let (kind, length) = (two(*at), usize::from(two(*at + 8)));
    let ttl_s = u32::from(two(*at + 4)) << 16 | u32::from(two(*at + 6));
    *at += 10;
    let mut inside = *at;
    let value = match kind {
        A => IpAddr::from(<[u8; 4]>::try_from(&bytes[*at..*at + 4]).unwrap()).to_string(),
        AAAA => IpAddr::from(<[u8; 16]>::try_from(&bytes[*at..*at + 16]).unwrap()).to_string(),
        SRV => {
            inside += 6;
            format!("{} {}", two(*at + 4), read_name(bytes, &mut inside))
        }
        PTR | SOA | 5 => read_name(bytes, &mut inside),
        _ => format!("{length} bytes"),
    };
    *at += length;
    (owner, kind, ttl_s, value)
}

/// Service `web` of namespace `ns` with so many ready pods, and a pod that is not.
fn cluster(pods: usize) -> Vec<Value> {
    let address = |number: usize| format!("10.244.{}.{}", number / 200 + 1, number % 200 + 1);
    let mut endpoints: Vec<Value> = (0..pods)
        .map(|number| json!({"addresses": [address(number)]}))
        .collect();
    endpoints.push(json!({"addresses": ["10.244.0.99"], "conditions": {"ready": false}}));
    vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "ns"}}),
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "ns"},
            "spec": {"clusterIP": "None", "ports": [{"name": "http", "port": 80}]},
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": "web-1", "namespace": "ns",
                "labels": {"kubernetes.io/service-name": "web"},
            },
            "addressType": "IPv4", "endpoints": endpoints,
            "ports": [{"name": "http", "port": 8080, "protocol": "TCP"}],
        }),
    ]
}

#[test]
fn a_search_path_ends_at_the_right_name() {
    let server = Server::start("search", Some(&cluster(1)));
    let search = [
        "ns.svc.cluster.local",
        "svc.cluster.local",
        "cluster.local",
        "",
    ];
    let begun = Instant::now();
    for (short, kind, codes, value) in [
        ("web", A, [0, 3, 3, 3], "10.244.1.1"),
        ("web.ns", A, [3, 0, 3, 3], "10.244.1.1"),
        ("web.ns.svc", A, [3, 3, 0, 3], "10.244.1.1"),
        ("www.google.com", A, [3, 3, 3, 0], "172.31.255.2"),
        ("www.google.com", AAAA, [3, 3, 3, 0], "fd00:10:255::2"),
        ("nobody", A, [3, 3, 3, 3], ""),
        ("nobody.example.com", A, [3, 3, 3, 3], ""),
    ] {
        for (domain, code) in search.iter().zip(codes) {
            let answer = server.ask(&format!("{short}.{domain}"), kind);
            assert_eq!(answer.code, code, "{short}.{domain}: {answer:?}");
            let values = answer.values(kind);
            assert_eq!(
                values.first().map(String::as_str),
                (code == 0).then_some(value)
            );
            if code == 3 {
                let (owner, kind, ttl_s, _) = &answer.sections[1][0];
                assert_eq!((*kind, *ttl_s), (SOA, 5));
                assert_eq!(
                    owner,
                    if domain.is_empty() {
                        ""
                    } else {
                        "cluster.local"
                    }
                );
            }
        }
    }
    assert!(
        begun.elapsed() < Duration::from_secs(5),
        "{:?}",
        begun.elapsed()
    );
}

#[test]
fn a_name_without_such_an_address_is_no_missing_name() {
    let server = Server::start("nodata", Some(&cluster(1)));
    for (name, kind) in [
        ("web.ns.svc.cluster.local", AAAA),
        ("ns.svc.cluster.local", A),
        ("cluster.local", A),
        ("www.google.com", SRV),
    ] {
        let answer = server.ask(name, kind);
        assert_eq!(
            (answer.code, answer.sections[0].len()),
            (0, 0),
            "{name}: {answer:?}"
        );
        assert_eq!(answer.sections[1][0].1, SOA, "{name}");
        assert!(answer.with_authority);
    }
}

#[test]
fn services_hosts_and_addresses_have_records() {
    let server = Server::start("srv", Some(&cluster(1)));
    let host = "10-244-1-1.web.ns.svc.cluster.local";
    let answer = server.ask("_http._tcp.web.ns.svc.cluster.local", SRV);
    assert_eq!(answer.values(SRV), [format!("8080 {host}")]);
    assert_eq!(
        answer.sections[2],
        [(host.to_owned(), A, 5, "10.244.1.1".to_owned())]
    );
    assert_eq!(server.addresses(host, A), ["10.244.1.1"]);
    assert_eq!(server.addresses("1.1.244.10.in-addr.arpa", PTR), [host]);
    assert_eq!(
        server.ask("99.0.244.10.in-addr.arpa", PTR).code,
        3,
        "a pod that is not ready"
    );
    let mixed = server.ask("Web.NS.svc.cluster.LOCAL", A);
    assert_eq!(mixed.question, "Web.NS.svc.cluster.LOCAL");
    assert_eq!(
        mixed.sections[0][0].0, "Web.NS.svc.cluster.LOCAL",
        "the case stays"
    );
}

#[test]
fn what_does_not_fit_a_datagram_is_cut_and_whole_over_tcp() {
    let server = Server::start("tcp", Some(&cluster(300)));
    let name = "web.ns.svc.cluster.local";
    for (payload, most) in [(None, 512), (Some(4096), 1232)] {
        let bytes = server.send(&question(name, A, payload));
        assert!(bytes.len() <= most, "{} bytes", bytes.len());
        let answer = Message::parse(&bytes);
        assert!(answer.cut && answer.code == 0 && answer.values(A).len() > 10);
    }
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(10)))
        .unwrap();
    // Two questions on one connection, the first in two pieces.
    let question = question(name, A, None);
    let framed = [&(question.len() as u16).to_be_bytes()[..], &question].concat();
    stream.write_all(&framed[..7]).unwrap();
    std::thread::sleep(Duration::from_millis(20));
    stream.write_all(&framed[7..]).unwrap();
    stream.write_all(&framed).unwrap();
    let mut firsts = Vec::new();
    for _ in 0..2 {
        let mut length = [0; 2];
        stream.read_exact(&mut length).unwrap();
        let mut bytes = vec![0; usize::from(u16::from_be_bytes(length))];
        stream.read_exact(&mut bytes).unwrap();
        let answer = Message::parse(&bytes);
        assert_eq!((answer.cut, answer.values(A).len()), (false, 300));
        firsts.push(answer.values(A)[0].clone());
    }
    assert_ne!(firsts[0], firsts[1], "answers take turns");
}

#[test]
fn a_replaced_file_is_served_at_once_and_a_bad_one_never() {
    let mut server = Server::start("reload", None);
    let (name, path) = (
        "web.ns.svc.cluster.local",
        server.folder.join("records.json"),
    );
    assert_eq!(
        server.ask(name, A).code,
        2,
        "without records there is no answer"
    );
    for pods in [1, 2, 5, 2, 0] {
        publish(&server.folder, &cluster(pods));
        let answer = server.ask(name, A);
        assert_eq!(answer.code, if pods == 0 { 3 } else { 0 });
        assert_eq!(answer.values(A).len(), pods);
    }
    publish(&server.folder, &cluster(3));
    assert_eq!(server.addresses(name, A).len(), 3);
    std::fs::write(&path, "{").unwrap();
    assert_eq!(server.addresses(name, A).len(), 3);
    server.line_with("records not taken");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(server.addresses(name, A).len(), 3);
    publish(&server.folder, &cluster(4));
    assert_eq!(server.addresses(name, A).len(), 4);
}

#[test]
fn what_is_no_question_is_refused_and_harms_nothing() {
    let server = Server::start("hostile", Some(&cluster(1)));
    let name = "web.ns.svc.cluster.local";
    let code = |bytes: &[u8]| server.send(bytes)[3] & 15;
    assert_eq!(code(&question(name, AXFR, None)), 5);
    let mut update = question(name, A, None);
    update[2] = 5 << 3 | 1;
    assert_eq!(code(&update), 4);
    let mut chaos = question(name, A, None);
    *chaos.last_mut().unwrap() = 3;
    assert_eq!(code(&chaos), 5);
    let mut none = question(name, A, None);
    none[5] = 0;
    none.truncate(12);
    assert_eq!(code(&none), 1);
    // Cut anywhere, it is answered with an error or not at all, and the next question is answered.
    let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
    let whole = question(name, A, Some(4096));
    for length in 0..whole.len() {
        socket.send_to(&whole[..length], server.address).unwrap();
    }
    let mut stream = TcpStream::connect(server.address).unwrap();
    stream.write_all(&[0xff, 0xff, 1, 2, 3]).unwrap();
    drop(stream);
    assert_eq!(server.addresses(name, A), ["10.244.1.1"]);
}
