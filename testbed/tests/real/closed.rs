//! Nobody reaches a pod but through the daemon, whether it lives or not; and nothing is left behind.

use std::io::{BufRead, BufReader, Read};
use std::process::Command;
use std::time::Instant;

use crate::lab::{FRIENDS_ONLY, Lab, MANIFESTS, eventually, in_namespace, needs, text, url};
use crate::{Outcome, Skipped, Test, WEIR_LAB};

pub const TESTS: &[Test] = &[
    (
        "no_way_past_the_daemon_while_it_lives",
        no_way_past_the_daemon_while_it_lives,
    ),
    (
        "a_killed_daemon_closes_and_comes_back",
        a_killed_daemon_closes_and_comes_back,
    ),
    (
        "what_the_node_forwards_is_not_exempt",
        what_the_node_forwards_is_not_exempt,
    ),
    (
        "a_policy_reaches_no_other_lab",
        a_policy_reaches_no_other_lab,
    ),
    (
        "nothing_is_left_after_down_even_after_a_kill",
        nothing_is_left_after_down,
    ),
    (
        "ten_pods_are_up_in_three_seconds",
        ten_pods_are_up_in_three_seconds,
    ),
];

fn curl(lab: &Lab, pod: &str, address: &str) -> bool {
    lab.sh(
        pod,
        &format!("curl -gs -o /dev/null -m 1 {}", url(address, 8080)),
    )
    .status
    .success()
}

/// The node's own stack, a route made by hand and a bridge: none reaches an isolated pod.
///
/// Uses the node's namespace only, so that it works while no agent answers.
fn try_ways_past(lab: &Lab, web: &str, mac: &str, interface: &str) {
    let node = |arguments: &[&str]| lab.node(arguments);
    let must = |arguments: &[&str]| {
        let output = node(arguments);
        assert!(
            output.status.success(),
            "{}: {}",
            arguments.join(" "),
            text(&output)
        );
    };
    // A route by hand straight to the pod's veth, before the rule that leads to weir-node, with the
    // pod's own Ethernet address as a permanent neighbour.
    must(&[
        "ip", "neigh", "replace", web, "lladdr", mac, "dev", interface,
    ]);
    must(&["ip", "route", "add", web, "dev", interface, "table", "77"]);
    must(&["ip", "rule", "add", "pref", "1", "to", web, "lookup", "77"]);
    let ping = node(&["ping", "-c", "2", "-W", "1", web]);
    must(&["ip", "rule", "del", "pref", "1"]);
    must(&["ip", "route", "flush", "table", "77"]);
    must(&["ip", "neigh", "del", web, "dev", interface]);
    assert!(
        !ping.status.success(),
        "a route by hand reached the pod: {}",
        text(&ping)
    );
    // A bridge with the pod's veth as a port, and an address in the pod's own network on it.
    must(&["ip", "link", "add", "br-past", "type", "bridge"]);
    must(&["ip", "link", "set", interface, "master", "br-past"]);
    must(&["ip", "link", "set", "br-past", "up"]);
    must(&[
        "ip", "neigh", "replace", web, "lladdr", mac, "dev", "br-past",
    ]);
    must(&["ip", "route", "add", web, "dev", "br-past", "table", "77"]);
    must(&["ip", "rule", "add", "pref", "1", "to", web, "lookup", "77"]);
    let ping = node(&["ping", "-c", "2", "-W", "1", web]);
    must(&["ip", "rule", "del", "pref", "1"]);
    must(&["ip", "link", "set", interface, "nomaster"]);
    must(&["ip", "link", "del", "br-past"]);
    assert!(
        !ping.status.success(),
        "a bridge reached the pod: {}",
        text(&ping)
    );
}

fn no_way_past_the_daemon_while_it_lives() -> Outcome {
    needs(&["ip", "nsenter", "ping", "curl", "bash"])?;
    let lab = Lab::up(MANIFESTS);
    let (web, _) = lab.addresses("shop/web");
    let through_the_daemon =
        lab.node(&["curl", "-s", "-o", "/dev/null", "-m", "2", &url(&web, 8080)]);
    assert!(
        through_the_daemon.status.success(),
        "the node reaches its pod through the daemon"
    );
    try_ways_past(&lab, &web, &mac_of_web(&lab), &lab.interface("shop/web"));
    assert!(
        curl(&lab, "shop/client", &web),
        "the pod is as reachable as before"
    );
    Ok(())
}

fn a_killed_daemon_closes_and_comes_back() -> Outcome {
    needs(&["ip", "nsenter", "ping", "curl", "bash"])?;
    let lab = Lab::up(MANIFESTS);
    lab.apply(FRIENDS_ONLY);
    lab.ok(&["label", "-n", "shop", "pod", "client", "role=friend"]);
    let (web, _) = lab.addresses("shop/web");
    let (mac, interface) = (mac_of_web(&lab), lab.interface("shop/web"));
    assert!(curl(&lab, "shop/client", &web));
    let before = lab.daemon_pid();
    // The agent is held still, so that the daemon stays dead while we look.
    let agent: serde_json::Value =
        serde_json::from_str(&text_of(WEIR_LAB, &["list", "-o", "json"])).unwrap();
    let agent = agent
        .as_array()
        .and_then(|labs| labs.iter().find(|l| l["lab"] == lab.name.as_str()))
        .and_then(|l| l["pid"].as_i64())
        .expect("weir lab list -o json names the agent's pid");
    // A process that goes on inside the pod without the agent. Its first line says that it runs: a
    // command that reached the agent only afterwards would look at a daemon that is back.
    let mut looking = lab.start(
        "shop/client",
        &format!("echo looking; sleep 1; for i in 1 2 3; do curl -s -o /dev/null -m 1 {} && echo open || echo closed; done; sleep 2", url(&web, 8080)),
    );
    let mut said = BufReader::new(looking.stdout.take().unwrap());
    let mut line = String::new();
    said.read_line(&mut line).unwrap();
    assert_eq!(line, "looking\n");
    signal("STOP", agent);
    signal("KILL", i64::from(before));
    try_ways_past(&lab, &web, &mac, &interface);
    std::thread::sleep(std::time::Duration::from_secs(3));
    signal("CONT", agent);
    let mut seen = String::new();
    said.read_to_string(&mut seen).unwrap();
    looking.wait().unwrap();
    assert!(
        seen.contains("closed") && !seen.contains("open"),
        "while it was dead: {seen}"
    );
    eventually("the daemon is back", || {
        let status = lab.weir(&["status", "-o", "json"]).output().unwrap();
        status.status.success() && curl(&lab, "shop/client", &web)
    });
    assert_ne!(lab.daemon_pid(), before);
    assert!(
        !curl(&lab, "default/other", &web),
        "the policy is there again"
    );
    Ok(())
}

fn mac_of_web(lab: &Lab) -> String {
    let output = lab.sh("shop/web", "cat /sys/class/net/eth0/address");
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

fn signal(name: &str, pid: i64) {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status();
    assert!(status.unwrap().success(), "kill -{name} {pid}");
}

fn text_of(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(output.status.success(), "{}", text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// A stranger behind the node, masqueraded to the node's address: the kubelet's exemption is the
/// port's, not the address's (semantics D13).
fn what_the_node_forwards_is_not_exempt() -> Outcome {
    needs(&["ip", "nsenter", "nft", "curl", "bash"])?;
    let lab = Lab::up(MANIFESTS);
    let (web, _) = lab.addresses("shop/web");
    let stranger = format!("weir-{}-stranger", lab.name);
    let node = format!("weir-{}", lab.name);
    let ip = |arguments: &[&str]| {
        let output = Command::new("ip").args(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "ip {}: {}",
            arguments.join(" "),
            text(&output)
        );
    };
    ip(&["netns", "add", &stranger]);
    ip(&[
        "-n", &node, "link", "add", "past0", "type", "veth", "peer", "name", "eth0", "netns",
        &stranger,
    ]);
    ip(&[
        "-n",
        &node,
        "addr",
        "add",
        "198.51.100.1/30",
        "dev",
        "past0",
    ]);
    ip(&["-n", &node, "link", "set", "past0", "up"]);
    ip(&[
        "-n",
        &stranger,
        "addr",
        "add",
        "198.51.100.2/30",
        "dev",
        "eth0",
    ]);
    ip(&["-n", &stranger, "link", "set", "eth0", "up"]);
    ip(&[
        "-n",
        &stranger,
        "route",
        "add",
        "default",
        "via",
        "198.51.100.1",
    ]);
    let forwarding = lab.node(&["sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"]);
    assert!(forwarding.status.success(), "{}", text(&forwarding));
    let try_it = || {
        in_namespace(
            &stranger,
            &["curl", "-s", "-o", "/dev/null", "-m", "2", &url(&web, 8080)],
        )
        .status
        .success()
    };
    let nft = "table ip past { chain post { type nat hook postrouting priority 100; \
               iifname past0 masquerade; }; }";
    let masquerade = lab.node(&["nft", nft]);
    let open = try_it();
    lab.apply(FRIENDS_ONLY);
    let (isolated, own) = (
        try_it(),
        lab.node(&["curl", "-s", "-o", "/dev/null", "-m", "2", &url(&web, 8080)])
            .status
            .success(),
    );
    ip(&["netns", "del", &stranger]);
    if !masquerade.status.success() {
        return Err(Skipped(format!(
            "this kernel has no masquerade: {}",
            text(&masquerade)
        )));
    }
    assert!(
        open,
        "without policy the stranger reaches the pod through the node"
    );
    assert!(own, "the node itself still reaches its pod");
    assert!(!isolated, "a masqueraded stranger passed as the node");
    Ok(())
}

fn a_policy_reaches_no_other_lab() -> Outcome {
    needs(&["curl", "bash"])?;
    let (one, two) = (Lab::up(MANIFESTS), Lab::up(MANIFESTS));
    let web = two.addresses("shop/web").0;
    one.apply(FRIENDS_ONLY);
    assert!(!curl(&one, "shop/client", &one.addresses("shop/web").0));
    assert!(
        curl(&two, "shop/client", &web),
        "the other lab's pods talk as before"
    );
    assert!(
        two.ok(&["get", "netpol", "-A", "--ignore-not-found", "-o", "name"])
            .is_empty()
    );
    Ok(())
}

fn nothing_is_left_after_down() -> Outcome {
    needs(&["ip", "bash"])?;
    let traces = |name: &str| {
        let mut found = Vec::new();
        for entry in std::fs::read_dir("/run/netns")
            .into_iter()
            .flatten()
            .flatten()
        {
            found.push(entry.path());
        }
        for folder in ["/sys/fs/bpf/weir", "/run/weir/labs", "/run/weir/tutorials"] {
            found.extend(
                std::fs::read_dir(folder)
                    .into_iter()
                    .flatten()
                    .flatten()
                    .map(|e| e.path()),
            );
        }
        found.retain(|path| path.to_string_lossy().contains(name));
        let mounts = std::fs::read_to_string("/proc/mounts").unwrap();
        let mounted = mounts.lines().filter(|line| line.contains(name)).count();
        let processes = Command::new("pgrep").args(["-f", name]).output().unwrap();
        let own = std::process::id().to_string();
        let running = String::from_utf8_lossy(&processes.stdout)
            .lines()
            .filter(|pid| **pid != own)
            .count();
        (found, mounted, running)
    };
    let lab = Lab::up(MANIFESTS);
    let name = lab.name.clone();
    let (found, ..) = traces(&name);
    assert!(
        found.len() >= 4,
        "a lab has namespaces, a folder and pins: {found:?}"
    );
    drop(lab);
    assert_eq!(traces(&name), (Vec::new(), 0, 0), "after down");
    let lab = Lab::up(MANIFESTS);
    let name = lab.name.clone();
    let daemon = lab.daemon_pid();
    let listed: serde_json::Value =
        serde_json::from_str(&text_of(WEIR_LAB, &["list", "-o", "json"])).unwrap();
    let listed = listed
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["lab"] == name.as_str())
        .unwrap();
    signal("KILL", listed["pid"].as_i64().unwrap());
    signal("KILL", i64::from(daemon));
    drop(lab);
    assert_eq!(
        traces(&name),
        (Vec::new(), 0, 0),
        "after a kill of agent and daemon, and down"
    );
    Ok(())
}

fn ten_pods_are_up_in_three_seconds() -> Outcome {
    needs(&[])?;
    let pods: Vec<String> = (0..10)
        .map(|number| {
            format!(
                "apiVersion: v1\nkind: Pod\nmetadata: {{name: p{number}}}\nspec:\n  containers:\n  \
                 - {{name: c, image: web, ports: [{{containerPort: 80}}]}}\n"
            )
        })
        .collect();
    let begin = Instant::now();
    let lab = Lab::up(&pods.join("---\n"));
    let took = begin.elapsed();
    let ready = lab.ok(&["get", "pods", "--no-headers"]);
    assert_eq!(
        ready.lines().filter(|line| line.contains("1/1")).count(),
        10,
        "{ready}"
    );
    // The bound holds for a release build; a debug build on a busy machine gets room.
    let bound = if cfg!(debug_assertions) { 9.0 } else { 3.0 };
    println!("ten pods up in {:.2} s", took.as_secs_f64());
    assert!(took.as_secs_f64() < bound, "took {took:?}");
    Ok(())
}
