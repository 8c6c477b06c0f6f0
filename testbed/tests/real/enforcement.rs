//! Policy on real packets, seen by programs that know nothing of it: curl, ncat, ping.

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;

use crate::lab::{FRIENDS_ONLY, Lab, MANIFESTS, needs, text, url};
use crate::{Outcome, Test};

pub const TESTS: &[Test] = &[
    (
        "policy_holds_the_moment_apply_returns",
        policy_holds_the_moment_apply_returns,
    ),
    (
        "a_living_connection_is_cut_and_resumes",
        a_living_connection_is_cut_and_resumes,
    ),
    (
        "a_gigabyte_arrives_unharmed_over_both_families",
        a_gigabyte_arrives_unharmed,
    ),
    ("udp_and_ping_follow_policy", udp_and_ping_follow_policy),
];

/// curl's exit status for a time-out: silence, no refusal.
const CURL_TIMED_OUT: i32 = 28;

fn curl(lab: &Lab, pod: &str, address: &str) -> i32 {
    let script = format!("curl -gs -o /dev/null -m 1 {}", url(address, 8080));
    lab.sh(pod, &script).status.code().unwrap()
}

/// Holds a client's reach against what is expected, over both families and with ncat too.
fn expect(lab: &Lab, pod: &str, reaches: bool, when: &str) {
    let (v4, v6) = lab.addresses("shop/web");
    let expected = if reaches { 0 } else { CURL_TIMED_OUT };
    for address in [&v4, &v6] {
        assert_eq!(
            curl(lab, pod, address),
            expected,
            "{when}: {pod} to {address}"
        );
    }
    let ncat = lab.sh(pod, &format!("ncat -z -w 1 {v4} 8080"));
    assert_eq!(
        ncat.status.success(),
        reaches,
        "{when}: ncat: {}",
        text(&ncat)
    );
}

fn policy_holds_the_moment_apply_returns() -> Outcome {
    needs(&["curl", "ncat", "bash"])?;
    let lab = Lab::up(MANIFESTS);
    expect(&lab, "shop/client", true, "without policy");
    expect(&lab, "default/other", true, "without policy");
    lab.apply(FRIENDS_ONLY);
    expect(&lab, "shop/client", false, "after apply");
    expect(&lab, "default/other", false, "after apply");
    lab.ok(&["label", "-n", "shop", "pod", "client", "role=friend"]);
    expect(&lab, "shop/client", true, "after label");
    lab.ok(&["label", "pod", "other", "role=friend"]);
    expect(&lab, "default/other", false, "a label in another namespace");
    lab.ok(&["label", "-n", "shop", "pod", "client", "role-"]);
    expect(&lab, "shop/client", false, "after the label is gone");
    lab.ok(&["delete", "netpol", "-n", "shop", "friends-only"]);
    expect(&lab, "shop/client", true, "after delete");
    expect(&lab, "default/other", true, "after delete");
    let log = std::fs::read_to_string(lab.folder().join("network-policy.log")).unwrap();
    let denial = log
        .lines()
        .find(|line| line.contains("Source: default/other"))
        .unwrap();
    for part in [
        "PolicyVerdict: DENY",
        "Destination: shop/web",
        "Policy: shop/friends-only",
    ] {
        assert!(denial.contains(part), "{denial}");
    }
    Ok(())
}

/// A client that sends a line and waits for its echo, over one connection for all its life.
fn a_living_connection_is_cut_and_resumes() -> Outcome {
    needs(&["ncat", "bash"])?;
    let lab = Lab::up(MANIFESTS);
    let (v4, _) = lab.addresses("shop/web");
    let mut server = lab.start("shop/web", "exec ncat -l -k 9000 -e /bin/cat");
    crate::lab::eventually("the echo server", || {
        lab.sh("shop/client", &format!("ncat -z -w 1 {v4} 9000"))
            .status
            .success()
    });
    let script = format!(
        "exec 3<>/dev/tcp/{v4}/9000; while read -r line; do echo \"$line\" >&3; \
         if read -r -t 1 -u 3 back; then echo \"$back\"; else echo silence; fi; done"
    );
    let mut client = lab
        .weir(&[
            "exec", "-i", "-n", "shop", "client", "--", "bash", "-c", &script,
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut to = client.stdin.take().unwrap();
    let mut from = BufReader::new(client.stdout.take().unwrap());
    let mut say = |word: &str| {
        writeln!(to, "{word}").unwrap();
        let mut line = String::new();
        from.read_line(&mut line).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(say("one"), "one");
    lab.apply(FRIENDS_ONLY);
    assert_eq!(
        say("two"),
        "silence",
        "the policy cuts the living connection"
    );
    lab.ok(&["delete", "netpol", "-n", "shop", "friends-only"]);
    // What was lost is sent again by TCP: the line of the silence comes first.
    crate::lab::eventually("the connection resumes", || say("three") != "silence");
    drop(to);
    client.wait().unwrap();
    server.kill().unwrap();
    server.wait().unwrap();
    Ok(())
}

fn a_gigabyte_arrives_unharmed() -> Outcome {
    needs(&["ncat", "bash", "sha256sum", "ethtool"])?;
    let lab = Lab::up(MANIFESTS);
    let offload = text(&lab.sh("shop/client", "ethtool -k eth0"));
    assert!(offload.contains("tx-checksum-ip-generic: on"), "{offload}");
    let (v4, v6) = lab.addresses("shop/web");
    for (address, port) in [(v4, 9001), (v6, 9002)] {
        let receiver = lab.start(
            "shop/web",
            &format!("ncat -l {port} --recv-only | sha256sum"),
        );
        crate::lab::eventually("the receiver", || {
            text(&lab.sh("shop/web", "cat /proc/net/tcp /proc/net/tcp6"))
                .contains(&format!(":{port:04X} "))
        });
        let script = format!(
            "head -c 1000000000 /dev/urandom | tee >(sha256sum >&2) | ncat --send-only {address} {port}"
        );
        let sender = lab.sh("shop/client", &script);
        assert!(sender.status.success(), "{}", text(&sender));
        let sent = String::from_utf8_lossy(&sender.stderr).trim().to_owned();
        let received = receiver.wait_with_output().unwrap();
        let received = String::from_utf8_lossy(&received.stdout).trim().to_owned();
        assert_eq!(sent.len(), 67, "{sent}");
        assert_eq!(sent, received, "over {address}");
    }
    Ok(())
}

fn udp_and_ping_follow_policy() -> Outcome {
    needs(&["ncat", "bash", "ping"])?;
    let lab = Lab::up(MANIFESTS);
    let (v4, v6) = lab.addresses("shop/web");
    let udp = |address: &str| {
        // ncat ends with its input: the pause gives the answer time.
        let script = format!("(echo hello; sleep 1) | ncat -u {address} 5353");
        !lab.sh("shop/client", &script).stdout.is_empty()
    };
    let ping = |address: &str| {
        lab.sh("shop/client", &format!("ping -c 1 -W 1 {address}"))
            .status
            .success()
    };
    for address in [&v4, &v6] {
        assert!(udp(address), "UDP to {address} without policy");
        assert!(ping(address), "ping {address} without policy");
    }
    lab.apply(FRIENDS_ONLY);
    lab.ok(&["label", "-n", "shop", "pod", "client", "role=friend"]);
    for address in [&v4, &v6] {
        assert!(
            !udp(address),
            "a rule for TCP does not let UDP to {address} pass"
        );
        assert!(
            !ping(address),
            "a rule with ports does not let echo to {address} pass"
        );
        assert_eq!(curl(&lab, "shop/client", address), 0);
    }
    Ok(())
}
