//! Whole labs: up, real connections, restarts, kills, down.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use control::lab_protocol::{self, ContainerTarget, ExecRequest, LogsRequest};
use control::netlink::Namespace;
use testbed::lab::{self, Lab, UpOptions};

use crate::{Outcome, Skipped, Test, WEIR_LAB};

pub const TESTS: &[Test] = &[
    (
        "agent::pods_connect_in_both_families_and_a_policy_closes_at_once",
        connections,
    ),
    (
        "agent::controllers_make_replace_and_remove_pods",
        controllers_replace,
    ),
    (
        "agent::scaled_and_restarted_pods_come_and_go",
        scaled_and_restarted,
    ),
    ("agent::nothing_is_left_after_everything_was_killed", killed),
    ("agent::two_labs_know_nothing_of_each_other", two_labs),
];

const WEB: &str = "
apiVersion: apps/v1
kind: Deployment
metadata: {name: web}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      containers:
      - {name: web, image: web, ports: [{containerPort: 80, name: http}],
         readinessProbe: {httpGet: {port: http, path: /health}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {clusterIP: None, selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  terminationGracePeriodSeconds: 1
  containers: [{name: c, image: busybox, command: [sleep, '1000']}]
";

const DENY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: web}}, ingress: []}
";

const DATABASE: &str = "
apiVersion: apps/v1
kind: StatefulSet
metadata: {name: db}
spec:
  serviceName: db
  replicas: 2
  selector: {matchLabels: {app: db}}
  template:
    metadata: {labels: {app: db}}
    spec: {containers: [{name: db, image: mysql, ports: [{containerPort: 3306}]}]}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {name: watcher}
spec:
  selector: {matchLabels: {app: watcher}}
  template:
    metadata: {labels: {app: watcher}}
    spec: {containers: [{name: watcher, image: watcher, ports: [{containerPort: 9100}]}]}
";

/// A lab of this test, down when the test is over.
struct Up {
    lab: Lab,
    folder: PathBuf,
}

fn weir() -> PathBuf {
    Path::new(WEIR_LAB).with_file_name("weir")
}

fn up(name: &str) -> Result<Up, Skipped> {
    if !weir().exists() {
        let reason = "weir is not built: cargo build --workspace";
        return Err(Skipped(reason.into()));
    }
    if !Path::new("/sys/fs/bpf").exists() {
        return Err(Skipped("this kernel has no bpf file system".into()));
    }
    let lab = Lab::named(name).unwrap();
    if lab.exists() {
        lab::down(&lab).unwrap();
    }
    let folder = std::env::temp_dir().join(format!("weir-{name}"));
    fs::create_dir_all(&folder).unwrap();
    fs::write(folder.join("web.yaml"), WEB).unwrap();
    fs::write(folder.join("deny.yml.later"), DENY).unwrap();
    let output = Command::new(WEIR_LAB)
        .args(["up", name, "-f"])
        .arg(folder.join("web.yaml"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{said}");
    assert!(said.contains("\n  web: a responder"), "{said}");
    Ok(Up { lab, folder })
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.lab.exists() {
            lab::down(&self.lab).unwrap();
        }
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

impl Up {
    fn weir(&self, arguments: &[&str]) -> (bool, String) {
        let output = Command::new(weir())
            .args(["--lab", &self.lab.name])
            .args(arguments)
            .output()
            .unwrap();
        let text =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), text.into_owned())
    }

    fn exec(&self, pod: &str, command: &[&str]) -> (i32, String) {
        let request = ExecRequest {
            target: ContainerTarget {
                namespace: "default".into(),
                pod: pod.into(),
                container: None,
            },
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..ExecRequest::default()
        };
        let socket = self.lab.agent_socket();
        let (code, out, _) = lab_protocol::exec_captured(&socket, &request, &[]).unwrap();
        (code, String::from_utf8(out).unwrap())
    }

    /// Whether the client gets an answer.
    fn reaches(&self, address: &str) -> bool {
        let host = match address.contains(':') {
            true => format!("[{address}]"),
            false => address.to_owned(),
        };
        let url = format!("http://{host}/path");
        let (code, body) = self.exec("client", &["curl", "-s", "-g", "-m", "1", &url]);
        assert!(code == 0 || code == 28, "curl {url}: {code}");
        code == 0 && body.contains("path: /path")
    }

    fn web_pods(&self) -> Vec<String> {
        let status = self.lab.status().unwrap();
        let pods = status.pods.into_iter().filter(|pod| pod.ready);
        pods.map(|pod| pod.name)
            .filter(|name| name.starts_with("web-"))
            .collect()
    }

    fn addresses(&self, pod: &str) -> Vec<String> {
        let path = "jsonpath={.status.podIPs[*].ip}";
        let (_, text) = self.weir(&["get", "pod", pod, "-o", path]);
        text.split_whitespace().map(str::to_owned).collect()
    }

    fn wait(&self, what: &str, holds: impl Fn() -> bool) {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !holds() {
            assert!(Instant::now() < deadline, "{what}: {:?}", self.lab.status());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    fn names_left(&self) -> Vec<String> {
        let own = format!("weir-{}", self.lab.name);
        let names = Namespace::names().into_iter();
        names
            .filter(|name| *name == own || name.starts_with(&format!("{own}-")))
            .collect()
    }
}

fn connections() -> Outcome {
    let up = up("lab-test-a")?;
    let pod = &up.web_pods()[0];
    let addresses = up.addresses(pod);
    assert_eq!(addresses.len(), 2, "{addresses:?}");
    let outside = ["203.0.113.7".to_owned(), "2001:db8::7".to_owned()];
    for address in addresses.iter().chain(&outside) {
        assert!(up.reaches(address), "{address} before any policy");
    }
    let deny = up.folder.join("deny.yaml");
    fs::write(&deny, DENY).unwrap();
    let deny = deny.to_str().unwrap();
    assert!(up.weir(&["apply", "-f", deny]).0);
    for address in &addresses {
        assert!(!up.reaches(address), "{address} behind a policy");
    }
    // Probes come from the node and pass (semantics D6): the pods stay ready.
    std::thread::sleep(Duration::from_secs(1));
    assert_eq!(up.web_pods().len(), 2);
    // A daemon that was killed comes back with its policies, and so do the connections.
    let before = up.lab.status().unwrap().daemon_pid.unwrap();
    let pid = rustix::process::Pid::from_raw(before as i32).unwrap();
    rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    up.wait("the daemon is back", || {
        let now = up.lab.status().unwrap().daemon_pid;
        now.is_some_and(|now| now != before) && up.weir(&["get", "ns"]).0
    });
    for address in &addresses {
        assert!(
            !up.reaches(address),
            "{address} after the daemon was killed"
        );
    }
    assert!(up.weir(&["delete", "-f", deny]).0);
    up.wait("open again", || {
        addresses.iter().all(|address| up.reaches(address))
    });
    Ok(())
}

fn controllers_replace() -> Outcome {
    let up = up("lab-test-c")?;
    let before = up.web_pods();
    assert_eq!(before.len(), 2);
    let (_, slices) = up.weir(&["get", "endpointslices", "-o", "json"]);
    for pod in &before {
        assert!(slices.contains(&up.addresses(pod)[0]), "{slices}");
    }
    assert!(up.weir(&["delete", "pod", &before[0]]).0);
    up.wait("another pod takes its place", || {
        let now = up.web_pods();
        now.len() == 2 && !now.contains(&before[0])
    });
    let request = LogsRequest {
        target: ContainerTarget {
            namespace: "default".into(),
            pod: before[1].clone(),
            container: None,
        },
        ..LogsRequest::default()
    };
    let mut log = Vec::new();
    lab_protocol::logs(&up.lab.agent_socket(), &request, &mut log).unwrap();
    let log = String::from_utf8(log).unwrap();
    assert!(
        log.contains("serving 80/TCP\n") && log.contains("GET /health 200"),
        "{log}"
    );
    assert!(
        up.weir(&["delete", "-f", up.folder.join("web.yaml").to_str().unwrap()])
            .0
    );
    // The DNS pod, the node and the external world stay.
    up.wait("all pods and their namespaces are gone", || {
        up.lab.status().unwrap().pods.len() == 1 && up.names_left().len() == 3
    });
    Ok(())
}

fn scaled_and_restarted() -> Outcome {
    let up = up("lab-test-s")?;
    let ok = |line: &str| {
        let words: Vec<&str> = line.split(' ').collect();
        let (good, said) = up.weir(&words);
        assert!(good, "{line}: {said}");
        said
    };
    let names = |selector: &str| -> Vec<String> {
        let path = "jsonpath={.items[*].metadata.name}";
        let said = ok(&format!("get pod -l {selector} -o {path}"));
        said.split_whitespace().map(str::to_owned).collect()
    };
    let of = |pods: &[String]| -> Vec<String> {
        pods.iter().flat_map(|pod| up.addresses(pod)).collect()
    };
    let scaled = "deployment.apps/web scaled\n";
    assert_eq!(ok("scale deploy web --replicas=4 --timeout=20s"), scaled);
    ok("wait --for=jsonpath={.status.readyReplicas}=4 deploy/web --timeout=20s");
    assert_eq!(up.web_pods().len(), 4);
    assert_eq!(
        ok("scale deploy/web --current-replicas=4 --replicas=1"),
        scaled
    );
    ok("wait --for=jsonpath={.status.replicas}=1 deploy/web --timeout=20s");
    up.wait("three pods are gone", || names("app=web").len() == 1);

    let before = names("app=web");
    let addresses = of(&before);
    ok("rollout restart deployment/web");
    let said = ok("rollout status deployment/web --timeout=20s");
    let over = "deployment \"web\" successfully rolled out\n";
    assert!(said.ends_with(over), "{said}");
    ok(&format!(
        "wait --for=delete pod/{} --timeout=20s",
        before[0]
    ));
    let after = names("app=web");
    assert!(after.len() == 1 && after != before, "{after:?}");
    assert!(of(&after).iter().all(|new| !addresses.contains(new)));

    let file = up.folder.join("db.yaml");
    fs::write(&file, DATABASE).unwrap();
    ok(&format!("apply -f {}", file.display()));
    let said = ok("rollout status sts/db --timeout=20s");
    let over = "partitioned roll out complete: 2 new pods have been updated...\n";
    assert!(said.ends_with(over), "{said}");
    ok("rollout status ds/watcher --timeout=20s");
    let (pods, watchers) = (names("app=db"), names("app=watcher"));
    let addresses = of(&pods);
    ok("rollout restart sts/db ds/watcher");
    let said = ok("rollout status sts/db --timeout=30s");
    assert!(said.ends_with(over), "{said}");
    ok("rollout status ds/watcher --timeout=20s");
    ok("wait --for=condition=Ready pod -l app=db --timeout=20s");
    assert_eq!(names("app=db"), pods);
    assert!(of(&pods).iter().all(|new| !addresses.contains(new)));
    assert_ne!(names("app=watcher"), watchers);
    Ok(())
}

fn killed() -> Outcome {
    let up = up("lab-test-k")?;
    let status = up.lab.status().unwrap();
    for pid in [status.pid, status.daemon_pid.unwrap()] {
        let pid = rustix::process::Pid::from_raw(pid as i32).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    }
    up.wait("stale", || up.lab.agent_pid().is_none());
    assert!(!up.names_left().is_empty());
    assert!(
        lab::list()
            .lines()
            .any(|line| line.starts_with("lab-test-k") && line.contains("stale"))
    );
    lab::down(&up.lab).unwrap();
    assert_eq!(up.names_left(), Vec::<String>::new());
    assert!(!up.lab.exists());
    assert!(!Path::new("/sys/fs/bpf/weir/lab-lab-test-k").exists());
    let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
    assert!(!mounts.contains("lab-test-k"), "{mounts}");
    Ok(())
}

fn two_labs() -> Outcome {
    let (first, second) = (up("lab-test-x")?, up("lab-test-y")?);
    let refused = lab::up(&first.lab, &UpOptions::default())
        .unwrap_err()
        .to_string();
    assert_eq!(
        refused,
        "lab lab-test-x runs already; weir lab down lab-test-x ends it"
    );
    let deny = first.folder.join("deny.yaml");
    fs::write(&deny, DENY).unwrap();
    assert!(first.weir(&["apply", "-f", deny.to_str().unwrap()]).0);
    let address = |up: &Up| up.addresses(&up.web_pods()[0])[0].clone();
    assert!(!first.reaches(&address(&first)));
    assert!(second.reaches(&address(&second)));
    lab::down(&first.lab).unwrap();
    assert!(second.reaches(&address(&second)));
    Ok(())
}
