//! What is told of real packets: by `observe`, `metrics`, `get -o wide`, `describe` and the log.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::daemon::{Node, PATIENCE, deny_b, serve};

pub fn weir(node: &Node, arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_weir"));
    command
        .args(arguments)
        .env("WEIR_SOCKET", node.folder.join("weir.sock"));
    command
}

pub fn printed(node: &Node, arguments: &[&str]) -> String {
    let output = weir(node, arguments).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "weir {arguments:?}: {error}");
    String::from_utf8(output.stdout).unwrap()
}

/// A metric's value; `series` is its name with labels.
pub fn metric(node: &Node, series: &str) -> f64 {
    let text = printed(node, &["metrics"]);
    let line = text.lines().find(|line| {
        line.strip_prefix(series)
            .is_some_and(|l| l.starts_with(' '))
    });
    let line = line.unwrap_or_else(|| panic!("{series} is not in:\n{text}"));
    line.rsplit(' ').next().unwrap().parse().unwrap()
}

/// `weir observe -f -o json`, and the flows that it prints.
struct Observer {
    process: Child,
    flows: Receiver<Value>,
}

impl Observer {
    fn start(node: &Node, filters: &[&str]) -> Observer {
        let mut arguments = vec!["observe", "-f", "-o", "json"];
        arguments.extend(filters);
        let mut process = weir(node, &arguments)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(process.stdout.take().unwrap()).lines();
        let (sender, flows) = channel();
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                let _ = sender.send(serde_json::from_str(&line).unwrap());
            }
        });
        Observer { process, flows }
    }

    /// The next flow that is wanted.
    fn next(&self, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let flow = self.flows.recv_timeout(left);
            let flow = flow.unwrap_or_else(|_| panic!("no flow: {what}"));
            if wanted(&flow) {
                return flow;
            }
        }
    }
}

impl Drop for Observer {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !holds() {
        assert!(Instant::now() < deadline, "{what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// Pods of `app: a` reach those of `app: b` at 8080; so would others that are not there.
fn allow_a() -> Value {
    let from = |app: &str| json!([{"podSelector": {"matchLabels": {"app": app}}}]);
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "allow-a"},
        "spec": {
            "podSelector": {"matchLabels": {"app": "b"}}, "policyTypes": ["Ingress"],
            "ingress": [
                {"from": from("a"), "ports": [{"port": 8080}]},
                {"from": from("nobody")},
            ],
        }
    })
}

/// A security group for pods of `app: b`, its binding, and a Pass.
fn passing_to_b() -> Value {
    let b = json!({"matchLabels": {"app": "b"}});
    json!([
        {
            "apiVersion": "weir.dev/v1alpha1", "kind": "SecurityGroup", "metadata": {"name": "web"},
            "spec": {"ingress": [
                {"protocol": "tcp", "fromPort": 8080, "toPort": 8080, "cidrs": ["10.77.0.0/24"]},
                {"protocol": "udp", "cidrs": ["10.77.0.0/24"]},
            ]}
        },
        {
            "apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
            "metadata": {"name": "web"},
            "spec": {"podSelector": b, "securityGroups": {"groupIds": ["web"]}}
        },
        {
            "apiVersion": "policy.networking.k8s.io/v1alpha2", "kind": "ClusterNetworkPolicy",
            "metadata": {"name": "pass"},
            "spec": {
                "tier": "Admin", "priority": 1,
                "subject": {"pods": {"namespaceSelector": {}, "podSelector": b}},
                "ingress": [
                    {"action": "Deny", "from": [{"pods": {
                        "namespaceSelector": {},
                        "podSelector": {"matchLabels": {"app": "nobody"}},
                    }}]},
                    {"action": "Pass", "from": [{"namespaces": {}}]},
                ],
            }
        },
    ])
}

pub fn flows_hits_and_samples_of_real_packets() {
    let every = "[self_check]\nsample_one_in = 1\ncpu_percent = 100\n";
    let mut node = Node::with("told", every);
    node.pod("a", 2, true);
    node.pod("b", 3, true);
    serve(node.find("b"));
    let a = &node.find("a").namespace;

    // Nobody follows: what passes is not told.
    assert!(node.connects(a, "b", false));
    let before = printed(&node, &["observe", "--all", "--verdict", "FORWARDED", "-s"]);
    assert_eq!(before, "");

    let generation = metric(&node, "weir_generation");
    let observer = Observer::start(&node, &["--to-pod", "b"]);
    wait_until("the observer is there", || {
        metric(&node, "weir_generation") > generation
    });
    for v6 in [false, true] {
        assert!(node.connects(a, "b", v6));
        let flow = observer.next("an accept", |flow| flow["verdict"] == "FORWARDED");
        assert_eq!(flow["source"]["pod"], "a", "{flow}");
        assert_eq!(flow["destination"]["pod"], "b", "{flow}");
        assert_eq!(flow["destination"]["port"], 8080, "{flow}");
        assert_eq!(flow["destination"]["labels"]["app"], "b", "{flow}");
        assert_eq!(flow["tcpFlags"], json!(["SYN"]), "{flow}");
        assert_eq!(flow["policy"], Value::Null, "{flow}");
    }
    node.apply(json!([deny_b()]));
    for v6 in [false, true] {
        assert!(node.is_silent(a, "b", v6));
        let flow = observer.next("a denial", |flow| {
            flow["verdict"] == "DROPPED" && flow["policy"] != Value::Null
        });
        assert_eq!(flow["direction"], "INGRESS", "{flow}");
        assert_eq!(flow["policy"]["name"], "deny-b", "{flow}");
        assert_eq!(flow["reason"], "no rule allows anything", "{flow}");
    }
    assert!(node.connects(&node.namespace, "b", false), "the node's own");
    let last = printed(
        &node,
        &[
            "observe",
            "--last",
            "1",
            "--verdict",
            "DROPPED",
            "-t",
            "policy-verdict",
        ],
    );
    let expected =
        "-> default/b:8080 policy-verdict:default/deny-b INGRESS DROPPED (TCP Flags: SYN";
    assert!(last.contains(expected), "{last}");

    node.apply(json!([allow_a()]));
    for v6 in [false, true] {
        assert!(node.connects(a, "b", v6));
    }
    let wide = printed(&node, &["get", "netpol", "-o", "wide", "--no-headers"]);
    let row = |name: &str| -> Vec<String> {
        let row = wide.lines().find(|line| line.starts_with(name)).unwrap();
        let cells = row.split("   ").map(str::trim);
        cells
            .filter(|cell| !cell.is_empty())
            .map(str::to_owned)
            .collect()
    };
    let allowed = row("allow-a");
    assert_eq!(allowed[3], "2", "two connections: {wide}");
    assert!(allowed[4].parse::<u64>().unwrap() > 4, "{wide}");
    assert!(allowed[5].ends_with("s ago"), "{wide}");
    assert_eq!(allowed[6], "ingress[1]", "{wide}");
    assert!(row("deny-b")[3].parse::<u64>().unwrap() >= 2, "{wide}");
    let described = printed(&node, &["describe", "netpol", "allow-a"]);
    for line in ["Pods:           default/b", "Never Matched:  ingress[1]"] {
        assert!(described.lines().any(|found| found == line), "{described}");
    }
    let pod = printed(&node, &["describe", "pod", "b"]);
    assert!(pod.contains("NetworkPolicy default/allow-a"), "{pod}");

    // Rules that let traffic go on to what decides are counted beside it.
    node.apply(passing_to_b());
    assert!(node.connects(a, "b", false));
    for (kind, name, rule) in [
        ("sg", "web", 0),
        ("cnp", "pass", 1),
        ("netpol", "allow-a", 0),
    ] {
        let page = printed(&node, &["describe", kind, name]);
        let row = page
            .lines()
            .find(|line| line.trim_start().starts_with(&format!("ingress[{rule}]")));
        let cells: Vec<&str> = row.unwrap().split_whitespace().collect();
        let connections = if kind == "netpol" { "3" } else { "1" };
        assert_eq!(cells[1], connections, "{page}");
        assert!(cells[2].parse::<u64>().unwrap() > 4, "{page}");
        let silent = format!("Never Matched:  ingress[{}]", 1 - rule);
        assert!(page.lines().any(|line| line == silent), "{page}");
    }

    // A spec that changes begins anew.
    let mut changed = allow_a();
    changed["spec"]["ingress"][0]["ports"][0]["port"] = json!(8081);
    node.apply(json!([changed]));
    let wide = printed(
        &node,
        &["get", "netpol", "allow-a", "-o", "wide", "--no-headers"],
    );
    assert!(wide.contains("ingress[0],ingress[1]"), "{wide}");

    wait_until("samples", || {
        metric(&node, "weir_policy_samples_total") >= 8.0
    });
    for name in [
        "weir_policy_mismatch_total",
        "weir_policy_reason_mismatch_total",
    ] {
        assert_eq!(metric(&node, name), 0.0, "{name}");
    }
    let denied = "weir_policy_denied_flows_total{tier=\"NETWORK_POLICY\",direction=\"INGRESS\"}";
    assert!(metric(&node, denied) >= 2.0);
}

pub fn a_policy_in_audit_mode_reports_and_decides_nothing() {
    let every = "[self_check]\nsample_one_in = 1\ncpu_percent = 100\n";
    let mut node = Node::with("audit", every);
    node.pod("a", 2, true);
    node.pod("b", 3, true);
    serve(node.find("b"));
    let a = &node.find("a").namespace;
    let mut audited = deny_b();
    audited["metadata"]["annotations"] = json!({"weir.dev/mode": "audit"});
    node.apply(json!([audited]));
    for v6 in [false, true] {
        assert!(node.connects(a, "b", v6), "what is audited decides nothing");
    }
    let log = node.log();
    for address in ["SIP: 10.77.0.2;", "SIP: fd77::2;"] {
        let line = log.lines().find(|line| line.contains(address));
        let line = line.unwrap_or_else(|| panic!("{address} is not in {log}"));
        for part in [
            "PolicyVerdict: AUDIT;Tier: NETWORK_POLICY;Direction: INGRESS;Source: default/a;",
            "Policy: default/deny-b;Reason: would be denied: no rule matches;",
            ";Would: DENY",
        ] {
            assert!(line.contains(part), "{line}");
        }
    }
    let told = printed(
        &node,
        &["observe", "--verdict", "AUDIT", "--last", "9", "-s"],
    );
    assert_eq!(told.lines().count(), 2, "{told}");
    let uid: Value =
        serde_json::from_str(&printed(&node, &["get", "netpol", "deny-b", "-o", "json"])).unwrap();
    let uid = uid["metadata"]["uid"].as_str().unwrap();
    let series = format!(
        "weir_policy_audited_flows_total{{would=\"deny\",kind=\"NetworkPolicy\",\
         namespace=\"default\",policy=\"deny-b\",uid=\"{uid}\"}}"
    );
    assert_eq!(metric(&node, &series), 2.0);
    let described = printed(&node, &["describe", "netpol", "deny-b"]);
    assert!(described.contains("Mode:           audit "), "{described}");
    // Enforced, it decides; and nothing is reported any more.
    printed(&node, &["annotate", "netpol", "deny-b", "weir.dev/mode-"]);
    assert!(node.is_silent(a, "b", false));
    assert_eq!(metric(&node, &series), 2.0);
    wait_until("samples", || {
        metric(&node, "weir_policy_samples_total") >= 3.0
    });
    assert_eq!(metric(&node, "weir_policy_mismatch_total"), 0.0);
}

pub fn connections_are_listed_and_deleted_by_what_they_are() {
    let mut node = Node::with("conntrack", "");
    node.pod("a", 2, true);
    node.pod("b", 3, true);
    serve(node.find("b"));
    let a = &node.find("a").namespace;
    assert!(node.connects(a, "b", false));
    let socket = a.run(|| std::net::UdpSocket::bind("10.77.0.2:4000"));
    let socket = socket.unwrap().unwrap();
    let send = || socket.send_to(b"x", "10.77.0.3:9999").unwrap();
    let udp = ["get", "conntrack", "--protocol", "udp", "--no-headers"];
    send();
    wait_until("the datagram's entry", || {
        printed(&node, &udp).contains("default/a:4000")
    });
    let wide = printed(&node, &["get", "conntrack", "-A", "-o", "wide"]);
    assert!(wide.starts_with("PROTOCOL   SOURCE"), "{wide}");
    let row = wide.lines().find(|line| line.starts_with("UDP")).unwrap();
    for part in ["default/b:9999", "UNREPLIED", "10.77.0.2", "<none>"] {
        assert!(row.contains(part), "{row}");
    }
    assert!(wide.contains("default/b:8080"), "{wide}");
    let elsewhere = weir(&node, &["get", "conntrack", "-n", "elsewhere"]);
    let elsewhere = { elsewhere }.output().unwrap();
    let said = String::from_utf8_lossy(&elsewhere.stderr);
    assert_eq!(said, "No resources found in elsewhere namespace.\n");

    let name = printed(&node, &["get", "ct", "--to-port", "9999", "-o", "name"]);
    assert_eq!(name, "conntrack/udp_10.77.0.2_4000_10.77.0.3_9999\n");
    let json = printed(&node, &["get", name.trim(), "-o", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["kind"], "Connection", "{json}");
    assert_eq!(json["source"]["labels"]["app"], "a", "{json}");

    // Nobody deletes everything by leaving something out.
    let all = weir(&node, &["delete", "conntrack"]).output().unwrap();
    assert_eq!(all.status.code(), Some(1));
    let delete = ["delete", "conntrack", "-l", "app=a", "--protocol", "udp"];
    let deleted = printed(&node, &[&delete[..], &["--dry-run=server"]].concat());
    assert_eq!(
        deleted,
        "1 connection of default namespace deleted (server dry run)\n"
    );
    assert!(!printed(&node, &udp).is_empty());
    let deleted = printed(&node, &delete);
    assert_eq!(deleted, "1 connection of default namespace deleted\n");
    assert_eq!(printed(&node, &udp), "");

    // The next packet is a stranger's: policy decides it as it does a new flow's.
    let accepted = metric(&node, "weir_flows_accepted_total");
    send();
    wait_until("a new entry", || printed(&node, &udp).contains("UNREPLIED"));
    assert_eq!(metric(&node, "weir_flows_accepted_total"), accepted + 1.0);
    let left = printed(&node, &["delete", "conntrack", "-A", "--all"]);
    assert!(!left.starts_with("0 "), "{left}");
    node.apply(json!([deny_b()]));
    send();
    wait_until("a denial", || {
        printed(&node, &["get", "ct", "--state", "DENIED"]).contains("default/b:9999")
    });

    // The sockets' own counters are told of each port.
    let status = printed(&node, &["status", "-o", "json"]);
    let status: Value = serde_json::from_str(&status).unwrap();
    for port in status["ports"].as_array().unwrap() {
        assert_eq!(port["rings"]["rxRingFull"], 0, "{port}");
        assert!(port["rings"]["txRingEmpty"].is_u64(), "{port}");
    }
    let empty =
        "weir_port_xsk_tx_ring_empty_total{interface=\"wp-b\",role=\"pod\",pod=\"default/b\"}";
    assert!(metric(&node, empty) >= 0.0);
}
