//! `weir top -o json` before a daemon that tells a made-up load: what it prints is what its schemas
//! promise, with every kind of row there is.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::Command;
use std::thread::JoinHandle;

use control::protocol::{
    CaptureDirection, CaptureEvent, CaptureReply, CaptureSummary, CapturedPacket, Load, Lost,
    PortLoad, WorkerLoad,
};
use serde_json::{Value, json};

use crate::schemas;

/// One look: counts rise by `turn`.
fn load(turn: u64) -> Load {
    let port = |number: u16, interface: &str, role: &str, pod: Option<&str>| PortLoad {
        port: number,
        interface: interface.into(),
        role: role.into(),
        namespace: pod.map(|_| "shop".into()),
        pod: pod.map(str::to_owned),
        uid: pod.map(|pod| format!("uid-{pod}")),
        in_packets: 1000 * turn,
        in_bytes: 64_000 * turn,
        out_packets: 700 * turn,
        out_bytes: 99_000 * turn,
        dropped: 3 * turn,
        stalled: turn,
        connections: 12,
    };
    let worker = |worker: u32| WorkerLoad {
        worker,
        core: worker + 1,
        // More than there is time: the clocks are two.
        busy_ns: 3_000_000_000 * turn,
        packets: 1700 * turn,
        bytes: 163_000 * turn,
        flow_decisions: 5 * turn,
        sleeps: 7 * turn,
    };
    Load {
        node: "n1".into(),
        time_ns: 1_000_000_000 * turn,
        workers: vec![worker(0), worker(1)],
        ports: vec![
            port(1, "eth0", "uplink", None),
            port(2, "weir-node", "host-node", None),
            port(3, "weir-transit", "host-transit", None),
            port(4, "wp-a", "pod", Some("a")),
            port(5, "wp-b", "pod", Some("b")),
        ],
        connections: 24,
        connections_max: 1000,
        frames_free: 10,
        frames: 4096,
    }
}

/// A packet of a pod, to an address or, of a protocol without ports, to nowhere in particular.
fn packet(verdict: &str, port: Option<u16>) -> CapturedPacket {
    let flow = json!({
        "time": "2026-11-30T02:00:00.000000005Z", "verdict": verdict, "reason": "r",
        "direction": null, "generation": 1, "node": "n1", "tcpFlags": [],
        "source": {"ip": "10.0.0.1", "port": port, "namespace": "shop", "pod": "a", "labels": {}},
        "destination": {"ip": "fd00::2", "port": port, "namespace": null, "pod": null, "labels": {}},
        "protocol": if port.is_some() { "TCP" } else { "ICMPV6" },
    });
    CapturedPacket {
        time_ns: 5,
        port: 4,
        direction: CaptureDirection::In,
        length: 64,
        comment: String::new(),
        data: serde_json::from_value(json!("")).unwrap(),
        flow: Some(serde_json::from_value(flow).unwrap()),
    }
}

fn event(packets: Vec<CapturedPacket>, ended: Option<&str>) -> Value {
    let event = CaptureEvent {
        subscription: 1,
        packets,
        lost: Some(Lost {
            client: 2,
            ..Lost::default()
        }),
        ended: ended.map(str::to_owned),
        ..CaptureEvent::default()
    };
    json!({"jsonrpc": "2.0", "method": "capture", "params": event})
}

/// Answers whoever connects until the listener is gone.
fn serve(listener: &UnixListener) -> std::io::Result<()> {
    loop {
        let (stream, _) = listener.accept()?;
        answer(stream)?;
    }
}

fn answer(mut stream: UnixStream) -> std::io::Result<()> {
    let mut turn = 0;
    for line in BufReader::new(stream.try_clone()?).lines() {
        let request: Value = serde_json::from_str(&line?)?;
        let method = request["method"].as_str().unwrap_or_default();
        let result = match method {
            "load" => {
                turn += 1;
                json!(load(turn))
            }
            "capture" => json!(CaptureReply {
                subscription: 1,
                snaplen: 128,
                ..CaptureReply::default()
            }),
            "capture.stop" => json!(CaptureSummary::default()),
            // What every session begins with may be asked, too: there is nothing to tell.
            _ => Value::Null,
        };
        let mut lines = vec![json!({"jsonrpc": "2.0", "id": request["id"], "result": result})];
        match method {
            "capture" => {
                let some = [
                    ("FORWARDED", Some(80)),
                    ("DROPPED", Some(81)),
                    ("DROPPED", None),
                ];
                let packets = some.map(|(verdict, port)| packet(verdict, port));
                let mut packets = packets.to_vec();
                // An ARP packet is of no flow.
                packets.push(CapturedPacket {
                    flow: None,
                    ..packet("FORWARDED", None)
                });
                lines.push(event(packets, None));
            }
            "capture.stop" => lines.push(event(Vec::new(), Some("stopped"))),
            _ => {}
        }
        for line in lines {
            writeln!(stream, "{line}")?;
        }
    }
    Ok(())
}

/// A daemon that only tells; its thread ends with the test.
struct Toy {
    folder: PathBuf,
    _thread: JoinHandle<std::io::Result<()>>,
}

impl Toy {
    fn start() -> Toy {
        let folder = std::env::temp_dir().join(format!("weir-top-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let listener = UnixListener::bind(folder.join("weir.sock")).unwrap();
        Toy {
            _thread: std::thread::spawn(move || serve(&listener)),
            folder,
        }
    }

    fn top(&self, words: &[&str]) -> Value {
        let output = Command::new(env!("CARGO_BIN_EXE_weir"))
            .arg("top")
            .args(words)
            .args(["-o", "json", "--interval", "20ms"])
            .env("WEIR_SOCKET", self.folder.join("weir.sock"))
            .env("WEIR_CONFIG", self.folder.join("contexts.json"))
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{words:?}: {said}");
        serde_json::from_slice(&output.stdout).unwrap()
    }
}

impl Drop for Toy {
    fn drop(&mut self) {
        let _gone_already = std::fs::remove_dir_all(&self.folder);
    }
}

#[test]
fn what_top_prints_has_its_schemas() {
    let toy = Toy::start();
    let pods = toy.top(&["pod", "-A"]);
    schemas::holds("top-pod.v1.schema.json", &pods);
    assert_eq!(pods["pods"].as_array().unwrap().len(), 2, "{pods}");
    assert_eq!(pods["pods"][0]["sentPacketsPerSecond"], 1000.0, "{pods}");

    let node = toy.top(&["node"]);
    schemas::holds("top-node.v1.schema.json", &node);
    let roles = node["ports"].as_array().unwrap().iter();
    let roles: Vec<&str> = roles.filter_map(|port| port["role"].as_str()).collect();
    assert_eq!(roles, ["uplink", "host-node", "host-transit"]);
    assert_eq!(node["workers"][1]["busy"], 1.0, "{node}");

    let flows = toy.top(&["flows", "-A"]);
    schemas::holds("top-flows.v1.schema.json", &flows);
    let ends = flows["flows"].as_array().unwrap().iter();
    let mut ends: Vec<(&str, &str)> = ends
        .map(|flow| {
            let text = |name: &str| flow[name].as_str().unwrap();
            (text("destination"), text("verdict"))
        })
        .collect();
    ends.sort_unstable();
    let expected = [
        ("[fd00::2]:80", "FORWARDED"),
        ("[fd00::2]:81", "DROPPED"),
        ("fd00::2", "DROPPED"),
    ];
    assert_eq!(ends, expected);
    assert_eq!(flows["otherPackets"], 1, "{flows}");
    assert_eq!(flows["lostPackets"], 4, "{flows}");
}
