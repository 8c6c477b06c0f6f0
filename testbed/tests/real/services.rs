//! Services on real packets: names, backends that come and go, node ports, both families, and policy
//! on the pod behind.

use std::collections::BTreeSet;
use std::process::Output;

use crate::lab::{Lab, eventually, in_namespace, needs, text, url};
use crate::{Outcome, Test};

pub const TESTS: &[Test] = &[
    (
        "services::clients_reach_backends_by_name_and_follow_readiness",
        by_name,
    ),
    (
        "services::node_ports_answer_the_world_and_affinity_keeps_a_client",
        from_outside,
    ),
    (
        "services::policy_is_about_the_pod_behind_the_service",
        policy,
    ),
];

/// A Service, first, so that pods have its variables; two pods with other numbers for one port name, the first of them unready at will, and a client.
const WEB: &str = "
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  type: NodePort
  ipFamilyPolicy: RequireDualStack
  selector: {app: web}
  ports:
  - {name: http, port: 80, targetPort: http, nodePort: 30080}
  - {name: echo, port: 53, targetPort: echo, protocol: UDP}
---
apiVersion: v1
kind: Pod
metadata: {name: web-a, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: nginx
    ports: [{name: http, containerPort: 8080}, {name: echo, containerPort: 5353, protocol: UDP}]
    readinessProbe: {exec: {command: [test, '!', -e, /unready]}, periodSeconds: 1, failureThreshold: 1}
---
apiVersion: v1
kind: Pod
metadata: {name: web-b, labels: {app: web}}
spec:
  terminationGracePeriodSeconds: 1
  containers:
  - name: web
    image: nginx
    ports: [{name: http, containerPort: 9090}, {name: echo, containerPort: 5353, protocol: UDP}]
---
apiVersion: v1
kind: Pod
metadata: {name: client, labels: {app: client}}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: debian, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Service
metadata: {name: sticky}
spec: {selector: {app: web}, sessionAffinity: ClientIP, ports: [{port: 80, targetPort: http}]}
---
apiVersion: v1
kind: Service
metadata: {name: nobody}
spec: {selector: {app: nobody}, ports: [{port: 80}]}
";

fn up() -> Result<Lab, crate::Skipped> {
    needs(&["curl", "nsenter"])?;
    Ok(Lab::up(WEB))
}

fn curl(lab: &Lab, pod: &str, url: &str) -> Output {
    lab.sh(pod, &format!("curl -s -g -m 2 {url}"))
}

/// The pod that a responder says it is.
fn answered_by(output: &Output) -> Option<String> {
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let line = said.lines().find_map(|line| line.strip_prefix("pod: "))?;
    Some(line.to_owned())
}

/// Who answers, asked so often that with two backends one is missed once in a million times.
fn answering(lab: &Lab, url: &str) -> BTreeSet<String> {
    let script = format!("for i in $(seq 20); do curl -s -g -m 2 {url}; done");
    let said = lab.sh("default/client", &script);
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    let names = said.lines().filter_map(|line| line.strip_prefix("pod: "));
    names.map(str::to_owned).collect()
}

fn named(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

fn by_name() -> Outcome {
    let lab = up()?;
    let both = named(&["default/web-a", "default/web-b"]);
    let first = "http://web/";
    eventually("both backends answer", || answering(&lab, first) == both);
    let addresses = lab.ok(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIPs[*]}"]);
    let clustered = url(addresses.split_whitespace().next().unwrap(), 80);
    for address in addresses.split_whitespace() {
        // Each family has an EndpointSlice of its own, and one comes before the other.
        let url = url(address, 80);
        eventually("both backends answer", || answering(&lab, &url) == both);
    }
    // UDP, answered with the pod's name.
    let udp = lab.sh(
        "default/client",
        "exec 3<>/dev/udp/web/53; echo hi >&3; timeout 2 head -c 13 <&3",
    );
    assert!(text(&udp).contains("default/web-"), "{}", text(&udp));

    // Nobody behind it, and no such port: refused at once, not silence.
    for target in ["http://nobody/", "http://web:81/"] {
        let refused = curl(&lab, "default/client", target);
        assert_eq!(
            refused.status.code(),
            Some(7),
            "{target}: {}",
            text(&refused)
        );
    }

    lab.sh("default/web-a", "touch /unready");
    let only = named(&["default/web-b"]);
    eventually("an unready pod gets nothing", || {
        answering(&lab, first) == only
    });
    lab.sh("default/web-a", "rm /unready");
    eventually("a ready one gets its share", || {
        answering(&lab, first) == both
    });
    lab.ok(&["delete", "pod", "web-b"]);
    let only = named(&["default/web-a"]);
    eventually("the last one gets all", || answering(&lab, first) == only);

    // A pod reaches itself through its Service, whatever NetworkPolicies say (semantics D7).
    for policy in ["", CLOSED] {
        if !policy.is_empty() {
            lab.apply(policy);
        }
        let itself = curl(&lab, "default/web-a", &clustered);
        assert_eq!(answered_by(&itself).as_deref(), Some("default/web-a"));
    }
    let others = curl(&lab, "default/client", &clustered);
    assert_eq!(others.status.code(), Some(28), "{}", text(&others));
    // A container has the variables of the Services that were there when it started.
    lab.ok(&["run", "late", "--image=debian", "--", "sleep", "infinity"]);
    lab.ok(&["wait", "--for=condition=Ready", "pod/late", "--timeout=20s"]);
    let variables = lab.sh("default/late", "env | grep ^WEB_SERVICE");
    let variables = text(&variables);
    assert!(
        variables.contains("WEB_SERVICE_PORT_HTTP=80"),
        "{variables}"
    );
    Ok(())
}

/// Nothing in, nothing out.
const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: web}}, policyTypes: [Ingress, Egress]}
";

fn from_outside() -> Outcome {
    let lab = up()?;
    let world = format!("weir-{}-external", lab.name);
    for address in ["172.31.255.1", "fd00:10:255::1"] {
        let target = url(address, 30_080);
        let answer = in_namespace(&world, &["curl", "-s", "-g", "-m", "2", &target]);
        let by = answered_by(&answer);
        assert!(by.is_some(), "{target}: {}", text(&answer));
        let answer = curl(&lab, "default/client", &target);
        assert!(
            answered_by(&answer).is_some(),
            "{target}: {}",
            text(&answer)
        );
    }
    // The node itself reaches Services, too.
    let address = lab.ok(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let answer = lab.node(&["curl", "-s", "-m", "2", &url(&address, 80)]);
    assert!(answered_by(&answer).is_some(), "{}", text(&answer));
    let same = answering(&lab, "http://sticky/");
    assert_eq!(same.len(), 1, "a client stays with its backend: {same:?}");
    Ok(())
}

/// The client may reach web-a on its own port, and nothing of the Service's address or port.
const POLICY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-web}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress:
  - to: [{podSelector: {matchLabels: {app: web}}}]
    ports: [{port: PORT}]
";

const RANGE: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: to-web}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
  egress: [{to: [{ipBlock: {cidr: 10.96.0.0/12}}]}]
";

fn policy() -> Outcome {
    let lab = up()?;
    let address = lab.ok(&["get", "svc", "web", "-o", "jsonpath={.spec.clusterIP}"]);
    let target = url(&address, 80);
    let both = named(&["default/web-a", "default/web-b"]);
    eventually("both backends answer", || answering(&lab, &target) == both);
    for (port, expected) in [
        ("80", named(&[])),
        ("8080", named(&["default/web-a"])),
        ("http", both),
    ] {
        lab.apply(&POLICY.replace("PORT", port));
        let script = format!("for i in $(seq 8); do curl -s -m 0.5 {target}; done");
        let said = lab.sh("default/client", &script);
        let said = String::from_utf8_lossy(&said.stdout).into_owned();
        let names = said.lines().filter_map(|line| line.strip_prefix("pod: "));
        let found: BTreeSet<String> = names.map(str::to_owned).collect();
        let missed = expected.difference(&found).count();
        // One of two is missed by eight tries once in 256 times; what is denied never answers.
        assert!(
            found.is_subset(&expected) && missed <= 1,
            "{port}: {found:?}"
        );
    }
    // Services' own addresses are nobody's peer.
    lab.apply(RANGE);
    let denied = curl(&lab, "default/client", &target);
    assert_eq!(denied.status.code(), Some(28), "{}", text(&denied));
    let log = std::fs::read_to_string(lab.folder().join("network-policy.log")).unwrap();
    let denied = log.lines().find(|line| line.contains("default/web-b"));
    let denied = denied.unwrap_or_else(|| panic!("no denial of web-b: {log}"));
    assert!(denied.contains("DPORT: 9090"), "{denied}");
    assert!(denied.contains(";Service: default/web:80"), "{denied}");
    let metrics = lab.ok(&["metrics"]);
    let right = metrics.contains("weir_policy_mismatch_total 0\n");
    assert!(right, "the self-check disagrees");
    Ok(())
}
