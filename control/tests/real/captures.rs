//! `capture` and `top` of real packets, read by programs that are not ours.

use std::net::UdpSocket;
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use control::netlink::Namespace;
use serde_json::{Value, json};

use crate::daemon::{Node, PATIENCE, deny_b, serve};
use crate::told::{metric, printed, wait_until, weir};

/// A node with the pods a and b, where b answers at 8080.
fn node(name: &str) -> Node {
    let mut node = Node::new(name);
    node.pod("a", 2, true);
    node.pod("b", 3, true);
    serve(node.find("b"));
    node
}

/// `weir capture`, once the daemon records for it.
fn capture(node: &Node, arguments: &[&str]) -> Child {
    let before = metric(node, "weir_captures");
    let child = weir(node, &[&["capture"], arguments].concat())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    wait_until("the capture runs", || {
        metric(node, "weir_captures") > before
    });
    child
}

fn interrupt(child: &Child) {
    let pid = rustix::process::Pid::from_child(child);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
}

fn ended(child: Child) -> (String, String) {
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().unwrap();
    let [stdout, stderr] = [stdout, stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    assert!(status.success(), "{stdout}{stderr}");
    (stdout, stderr)
}

/// What a program says of a file; none where it is not installed.
fn read_by(program: &str, arguments: &[&str]) -> Option<String> {
    let Ok(output) = Command::new(program).args(arguments).output() else {
        println!("  skipped: {program} is not installed");
        return None;
    };
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program}: {error}");
    Some(String::from_utf8(output.stdout).unwrap())
}

pub fn a_capture_opens_in_tshark_and_tcpdump() {
    let node = node("capture");
    let a = &node.find("a").namespace;
    let file = node.folder.join("b.pcapng");
    let file = file.to_str().unwrap();
    let running = capture(&node, &["b", "-w", file]);
    for v6 in [false, true] {
        assert!(node.connects(a, "b", v6));
    }
    node.apply(json!([deny_b()]));
    for v6 in [false, true] {
        assert!(node.is_silent(a, "b", v6));
    }
    interrupt(&running);
    let (_, said) = ended(running);
    assert!(said.contains(" packets captured\n"), "{said}");

    let fields = |filter: &str, fields: &[&str]| {
        let mut arguments = vec!["-n", "-r", file, "-Y", filter, "-T", "fields"];
        arguments.extend(fields.iter().flat_map(|field| ["-e", field]));
        read_by("tshark", &arguments)
    };
    let names = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.comment",
    ];
    if let Some(all) = fields("tcp.dstport == 8080 && tcp.flags.syn == 1", &names) {
        let lines: Vec<Vec<&str>> = all.lines().map(|line| line.split('\t').collect()).collect();
        // Allowed, in both families: as they were sent to b.
        let sent = lines
            .iter()
            .filter(|line| line[0] == "wp-b")
            .collect::<Vec<_>>();
        assert_eq!(sent.len(), 2, "{all}");
        for line in sent {
            assert!(
                line[2].starts_with("FORWARDED to default/b (wp-b); ingress"),
                "{all}"
            );
        }
        // Denied: as they came from a, with who said so.
        let dropped = lines
            .iter()
            .filter(|line| line[0] == "wp-a")
            .collect::<Vec<_>>();
        assert!(dropped.len() >= 2, "{all}");
        for line in dropped {
            let policy = "; NetworkPolicy default/deny-b ingress: no rule allows anything";
            assert!(line[2].contains(policy), "{all}");
            assert!(line[2].starts_with("DROPPED ("), "{all}");
        }
    }
    if let Some(replies) = fields("tcp.srcport == 8080 && tcp.flags.syn == 1", &names) {
        assert_eq!(replies.lines().count(), 2, "{replies}");
        for line in replies.lines() {
            assert!(
                line.starts_with("wp-b\t") && line.contains("; reply"),
                "{replies}"
            );
        }
    }
    // Checksums are the sender's business until the packet leaves; all else must be whole.
    if let Some(broken) = fields("_ws.malformed || _ws.unreassembled", &["frame.number"]) {
        assert_eq!(broken, "");
    }
    if let Some(text) = read_by("tcpdump", &["-n", "-r", file, "port 8080"]) {
        assert!(
            text.contains("10.77.0.2") && text.contains("fd77::2"),
            "{text}"
        );
    }

    // To a program at a pipe's other end, with filters.
    let arguments = [
        "any",
        "-w",
        "-",
        "-c",
        "1",
        "--verdict",
        "DROPPED",
        "--to-port",
        "8080",
    ];
    let running = capture(&node, &arguments);
    assert!(node.is_silent(a, "b", false));
    let output = running.wait_with_output().unwrap();
    assert!(output.status.success());
    assert_eq!(output.stdout[..4], [0x0a, 0x0d, 0x0d, 0x0a]);

    // As lines.
    let running = capture(
        &node,
        &[
            "default/a",
            "-c",
            "1",
            "--duration",
            "10s",
            "--protocol",
            "tcp",
        ],
    );
    assert!(node.is_silent(a, "b", true));
    let (line, _) = ended(running);
    let expected = "default/b:8080: TCP SYN, length ";
    assert!(
        line.contains("In  default/a:") && line.contains(expected),
        "{line}"
    );
    let missing = weir(&node, &["capture", "nobody"]).output().unwrap();
    assert_eq!(missing.status.code(), Some(1));
    let said = String::from_utf8_lossy(&missing.stderr);
    assert!(
        said.starts_with("Error from server (NotFound): pods \"nobody\" not found"),
        "{said}"
    );
}

/// Clients that take nothing: packets pass as before, and what is lost is counted.
pub fn stuck_clients_cost_no_packet() {
    let node = node("stuck");
    let (a, b) = (&node.find("a").namespace, &node.find("b").namespace);
    let deaf = |arguments: &[&str]| {
        weir(&node, arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap()
    };
    // Nobody reads what they print, so that they soon take nothing more.
    let mut clients = vec![
        deaf(&["observe", "-f", "-o", "json"]),
        deaf(&["capture", "any", "-o", "json"]),
    ];
    wait_until("the capture runs", || metric(&node, "weir_captures") == 1.0);
    let (from, to) = (socket(a, "10.77.0.2:0"), socket(b, "10.77.0.3:9000"));
    to.set_read_timeout(Some(Duration::from_millis(200)))
        .unwrap();
    let (mut sent, mut received) = (0u64, 0u64);
    let payload = [7; 1200];
    let mut buffer = [0; 2048];
    let begin = Instant::now();
    let lost = |node: &Node| {
        metric(node, "weir_capture_packets_lost_total")
            + metric(node, "weir_capture_packets_not_taken_total")
    };
    // A datagram at a time, so that none is lost for another reason.
    while lost(&node) == 0.0 {
        assert!(begin.elapsed() < 6 * PATIENCE, "{sent} sent, nothing lost");
        for _ in 0..2000 {
            from.send_to(&payload, "10.77.0.3:9000").unwrap();
            sent += 1;
            received += u64::from(to.recv(&mut buffer).is_ok());
        }
    }
    while to.recv(&mut buffer).is_ok() {
        received += 1;
    }
    // On a busy machine the worker that collects what was sent may be kept from its core.
    let counters: Value = node.client().call("counters", json!({})).unwrap();
    let late = counters["drops"]["transmit_full"].as_u64().unwrap_or(0);
    assert_eq!(received + late, sent, "{counters}");
    assert!(node.connects(a, "b", false));
    for client in &mut clients {
        client.kill().unwrap();
        client.wait().unwrap();
    }
    wait_until("the tap is taken away", || {
        metric(&node, "weir_captures") == 0.0
    });
    let audit: Value = node.client().call("audit", json!({})).unwrap();
    assert_eq!(audit["problems"], json!([]), "{audit}");
}

pub fn top_tells_rates_of_real_packets() {
    let node = node("top");
    let (a, b) = (&node.find("a").namespace, &node.find("b").namespace);
    let (from, to) = (socket(a, "10.77.0.2:0"), socket(b, "10.77.0.3:9000"));
    let client = format!("default/a:{}", from.local_addr().unwrap().port());
    let sender = Sender::default();
    // What is lost on a busy machine is sent again.
    to.set_read_timeout(Some(Duration::from_millis(20)))
        .unwrap();
    std::thread::scope(|scope| {
        // Ends with the test, however that ends.
        let _ends = sender.ends();
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while sender.goes_on() {
                from.send_to(&[7; 1000], "10.77.0.3:9000").unwrap();
                let _ = to.recv(&mut buffer);
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        // A look, until one sees what is wanted: somebody else may have the machine meanwhile.
        let look = |arguments: &[&str], wanted: &dyn Fn(&Value) -> bool| {
            let json = ["-o", "json", "--interval", "500ms"];
            let mut found = Value::Null;
            wait_until(&format!("{arguments:?}"), || {
                let text = printed(&node, &[&["top"], arguments, &json].concat());
                found = serde_json::from_str(&text).unwrap();
                println!("  {found}");
                wanted(&found)
            });
            found
        };
        let number = |value: &Value| value.as_f64().unwrap();
        let of = |pods: &Value, name: &str| {
            let mut all = pods["pods"].as_array().unwrap().iter();
            all.find(|pod| pod["name"] == name).unwrap().clone()
        };
        let pods = look(&["pod", "--sort-by", "packets"], &|pods| {
            number(&of(pods, "a")["sentPacketsPerSecond"]) > 10.0
        });
        assert!(number(&of(&pods, "a")["sentBytesPerSecond"]) > 10_000.0);
        assert!(number(&of(&pods, "b")["receivedPacketsPerSecond"]) > 5.0);
        assert_eq!(of(&pods, "a")["connections"], 1);
        let busy = |found: &Value| -> f64 {
            let workers = found["workers"].as_array().unwrap().iter();
            workers.map(|worker| number(&worker["busy"])).sum()
        };
        let found = look(&["node"], &|found| busy(found) > 0.0);
        assert!(busy(&found) < 2.0);
        assert_eq!(
            (found["workers"].as_array().unwrap().len(), &found["node"]),
            (2, &json!("n1"))
        );
        let flows = look(&["flows"], &|flows| {
            let heaviest = &flows["flows"][0]["packetsPerSecond"];
            heaviest.as_f64().is_some_and(|rate| rate > 10.0)
        });
        let first = &flows["flows"][0];
        assert_eq!(
            (&first["source"], &first["destination"]),
            (&json!(client), &json!("default/b:9000"))
        );
        assert_eq!(
            (&first["protocol"], &first["verdict"]),
            (&json!("UDP"), &json!("FORWARDED"))
        );
        let table = printed(&node, &["top", "pod", "a"]);
        assert!(table.starts_with("NAME   SENT(pkt/s)"), "{table}");
        assert_eq!(table.lines().count(), 2, "{table}");
        let missing = weir(&node, &["top", "pod", "c"]).output().unwrap();
        let said = String::from_utf8_lossy(&missing.stderr);
        assert_eq!(said, "Error from server (NotFound): pods \"c\" not found\n");
    });
}

/// Somebody who sends until a test is over.
#[derive(Default)]
struct Sender {
    is_over: AtomicBool,
}

impl Sender {
    fn goes_on(&self) -> bool {
        !self.is_over.load(Ordering::Relaxed)
    }

    fn ends(&self) -> Ends<'_> {
        Ends(self)
    }
}

struct Ends<'a>(&'a Sender);

impl Drop for Ends<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Relaxed);
    }
}

/// A socket in a pod.
fn socket(at: &Namespace, address: &str) -> UdpSocket {
    let socket = at.run(|| UdpSocket::bind(address).unwrap()).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    socket
}
