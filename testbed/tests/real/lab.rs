//! A lab of somebody's own manifests, for the tests that look at it from outside.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::{Outcome, Skipped, WEIR_LAB};

/// A lab that is taken down when it goes out of scope, whatever happened in it.
pub struct Lab {
    pub name: String,
    /// What `lab up` said.
    pub said: String,
}

impl Lab {
    /// Brings a lab up with these manifests and waits until every pod is ready.
    pub fn up(manifests: &str) -> Lab {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("t{}x{number}", std::process::id());
        let said = String::new();
        let mut lab = Lab { name, said };
        let file = std::env::temp_dir().join(format!("weir-{}.yaml", lab.name));
        std::fs::write(&file, manifests).unwrap();
        let output = Command::new(WEIR_LAB)
            .args(["up", &lab.name, "-f", file.to_str().unwrap()])
            .output()
            .unwrap();
        std::fs::remove_file(&file).unwrap();
        assert!(output.status.success(), "lab up: {}", text(&output));
        lab.said = String::from_utf8_lossy(&output.stderr).into_owned();
        lab
    }

    /// `weir` against this lab.
    pub fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(weir());
        command
            .env_remove("WEIR_SOCKET")
            .env("WEIR_LAB", &self.name)
            .args(arguments);
        command
    }

    /// Runs a verb that must succeed, and gives what it printed.
    pub fn ok(&self, arguments: &[&str]) -> String {
        let output = self.weir(arguments).output().unwrap();
        assert!(
            output.status.success(),
            "weir {}: {}",
            arguments.join(" "),
            text(&output)
        );
        String::from_utf8_lossy(&output.stdout)
            .trim_end()
            .to_owned()
    }

    /// Whether a verb succeeded, and what it wrote, both streams together.
    pub fn both(&self, arguments: &[&str]) -> (bool, String) {
        both(&self.weir(arguments).output().unwrap())
    }

    /// Runs a command in a pod of the namespace `default`.
    pub fn exec(&self, pod: &str, command: &[&str]) -> (bool, String) {
        self.both(&[&["exec", pod, "--"], command].concat())
    }

    /// What a command says as soon as it succeeds.
    pub fn soon(&self, pod: &str, command: &[&str]) -> String {
        wait_for(&command.join(" "), || match self.exec(pod, command) {
            (true, said) => Ok(said),
            (false, said) => Err(said),
        })
    }

    /// That a command fails, and what it says first.
    pub fn fails(&self, pod: &str, command: &[&str], first: &str) {
        let (done, said) = self.exec(pod, command);
        assert!(!done && said.starts_with(first), "{said}");
    }

    /// Applies a manifest.
    pub fn apply(&self, manifest: &str) {
        use std::io::Write;
        let mut child = self
            .weir(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .unwrap();
        child
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        assert!(child.wait().unwrap().success(), "apply of {manifest}");
    }

    /// Runs a shell command in a pod (`NAMESPACE/NAME`).
    pub fn sh(&self, pod: &str, script: &str) -> Output {
        let (namespace, name) = pod.split_once('/').unwrap();
        self.weir(&["exec", "-n", namespace, name, "--", "bash", "-c", script])
            .output()
            .unwrap()
    }

    /// Starts a shell command in a pod.
    pub fn start(&self, pod: &str, script: &str) -> Child {
        let (namespace, name) = pod.split_once('/').unwrap();
        self.weir(&["exec", "-n", namespace, name, "--", "bash", "-c", script])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }

    /// A pod's addresses: IPv4, IPv6.
    pub fn addresses(&self, pod: &str) -> (String, String) {
        let (namespace, name) = pod.split_once('/').unwrap();
        let object: Value =
            serde_json::from_str(&self.ok(&["get", "pod", "-n", namespace, name, "-o", "json"]))
                .unwrap();
        let all: Vec<String> = object["status"]["podIPs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["ip"].as_str().unwrap().to_owned())
            .collect();
        let family = |v6: bool| {
            all.iter()
                .find(|ip| ip.contains(':') == v6)
                .unwrap()
                .clone()
        };
        (family(false), family(true))
    }

    /// A pod's IPv4 address.
    pub fn address(&self, pod: &str) -> String {
        self.addresses(pod).0
    }

    /// The daemon's process.
    pub fn daemon_pid(&self) -> i32 {
        let status: Value = serde_json::from_str(&self.ok(&["status", "-o", "json"])).unwrap();
        status["pid"].as_i64().unwrap() as i32
    }

    /// Runs a program in the lab's node namespace.
    pub fn node(&self, arguments: &[&str]) -> Output {
        in_namespace(&format!("weir-{}", self.name), arguments)
    }

    /// The host-side interface of a pod, in the node namespace.
    pub fn interface(&self, pod: &str) -> String {
        let status: Value = serde_json::from_str(&self.ok(&["status", "-o", "json"])).unwrap();
        let ports = status["ports"].as_array().unwrap();
        let port = ports.iter().find(|port| port["pod"] == pod).unwrap();
        port["interface"].as_str().unwrap().to_owned()
    }

    /// The lab's folder.
    pub fn folder(&self) -> PathBuf {
        Path::new("/run/weir/labs").join(&self.name)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let down = Command::new(WEIR_LAB).args(["down", &self.name]).output();
        if !std::thread::panicking() {
            let output = down.unwrap();
            assert!(output.status.success(), "lab down: {}", text(&output));
        }
    }
}

/// Runs a program in a network namespace.
pub fn in_namespace(namespace: &str, arguments: &[&str]) -> Output {
    Command::new("nsenter")
        .arg(format!("--net=/run/netns/{namespace}"))
        .args(arguments)
        .output()
        .unwrap()
}

/// The `weir` beside this build's `weir-lab`.
pub fn weir() -> PathBuf {
    Path::new(WEIR_LAB).with_file_name("weir")
}

/// Both outputs of a program.
pub fn text(output: &Output) -> String {
    let (out, err) = (&output.stdout, &output.stderr);
    format!(
        "{} {}",
        String::from_utf8_lossy(out),
        String::from_utf8_lossy(err)
    )
}

/// Whether a program succeeded, and what it wrote, both streams together.
pub fn both(output: &Output) -> (bool, String) {
    let streams = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&streams).into_owned();
    (output.status.success(), text)
}

/// Tries until it succeeds, 30 s at most: programs come up a moment after their containers.
pub fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

/// Skips the test unless these programs are there.
pub fn needs(programs: &[&str]) -> Outcome {
    let missing: Vec<&str> = programs
        .iter()
        .copied()
        .filter(|program| {
            let found = Command::new("sh")
                .args(["-c", &format!("command -v {program}")])
                .output();
            !found.is_ok_and(|output| output.status.success())
        })
        .collect();
    if !weir().exists() {
        return Err(Skipped(
            "needs `weir` beside weir-lab: cargo build --workspace".into(),
        ));
    }
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Skipped(format!("needs {}", missing.join(", "))))
    }
}

/// Waits until `condition` holds, 10 s at most.
pub fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let begin = Instant::now();
    while !condition() {
        assert!(
            begin.elapsed() < Duration::from_secs(10),
            "{what}: not within 10 s"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// `http://ADDRESS:PORT/` with IPv6 in brackets.
pub fn url(address: &str, port: u16) -> String {
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    format!("http://{host}:{port}/")
}

/// Two namespaces, a web pod with TCP and UDP, and two clients.
pub const MANIFESTS: &str = "
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: v1
kind: Pod
metadata: {name: web, namespace: shop, labels: {app: web}}
spec:
  containers:
  - name: web
    image: web
    ports:
    - {containerPort: 8080}
    - {containerPort: 5353, protocol: UDP}
---
apiVersion: v1
kind: Pod
metadata: {name: client, namespace: shop, labels: {app: client}}
spec:
  containers: [{name: client, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: other, namespace: default, labels: {app: other}}
spec:
  containers: [{name: other, image: busybox, command: [sleep, infinity]}]
";

/// Nobody reaches the web pod but pods labelled role=friend, on TCP 8080.
pub const FRIENDS_ONLY: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only, namespace: shop}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
  - from: [{podSelector: {matchLabels: {role: friend}}}]
    ports: [{port: 8080}]
";
