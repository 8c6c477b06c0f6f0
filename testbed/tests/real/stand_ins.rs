//! Stand-ins for images, in pods.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use testbed::lab::{self, Lab};

use crate::{Outcome, Skipped, Test, WEIR_LAB};

pub const TESTS: &[Test] = &[(
    "stand_ins::busybox_has_its_own_programs_and_other_pods_the_machines",
    busybox,
)];

/// A lab of this test, down when the test is over.
struct Up {
    lab: Lab,
    folder: PathBuf,
    /// What `lab up` said.
    said: String,
}

impl Drop for Up {
    fn drop(&mut self) {
        if self.lab.exists() {
            lab::down(&self.lab).unwrap();
        }
        let _gone = fs::remove_dir_all(&self.folder);
    }
}

fn weir() -> PathBuf {
    PathBuf::from(WEIR_LAB).with_file_name("weir")
}

fn up(name: &str, manifest: &str) -> Result<Up, Skipped> {
    if !weir().exists() {
        let reason = "weir is not built: cargo build --workspace";
        return Err(Skipped(reason.into()));
    }
    let lab = Lab::named(name).unwrap();
    if lab.exists() {
        lab::down(&lab).unwrap();
    }
    let folder = std::env::temp_dir().join(format!("weir-{name}"));
    fs::create_dir_all(&folder).unwrap();
    let file = folder.join("objects.yaml");
    fs::write(&file, manifest).unwrap();
    let mut up = Up {
        lab,
        folder,
        said: String::new(),
    };
    let output = Command::new(WEIR_LAB)
        .args(["up", name, "-f"])
        .arg(&file)
        .output()
        .unwrap();
    up.said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{}", up.said);
    Ok(up)
}

impl Up {
    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(weir());
        command.args(["--lab", &self.lab.name]).args(arguments);
        command
    }

    /// Whether it succeeded, and what it wrote, both streams together.
    fn weir(&self, arguments: &[&str]) -> (bool, String) {
        both(&self.command(arguments).output().unwrap())
    }

    fn exec(&self, pod: &str, command: &[&str]) -> (bool, String) {
        self.weir(&[&["exec", pod, "--"], command].concat())
    }

    fn address(&self, pod: &str) -> String {
        let template = "jsonpath={.status.podIP}";
        let (found, address) = self.weir(&["get", "pod", pod, "-o", template]);
        assert!(found, "{address}");
        address
    }

    fn apply(&self, manifest: &str) {
        let file = self.folder.join("more.yaml");
        fs::write(&file, manifest).unwrap();
        let (done, said) = self.weir(&["apply", "-f", file.to_str().unwrap()]);
        assert!(done, "{said}");
    }
}

fn both(output: &Output) -> (bool, String) {
    let streams = [&output.stdout[..], &output.stderr[..]].concat();
    let text = String::from_utf8_lossy(&streams).into_owned();
    (output.status.success(), text)
}

/// Tries until it holds: programs come up a moment after their containers.
fn wait_for<T>(what: &str, mut attempt: impl FnMut() -> Result<T, String>) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match attempt() {
            Ok(found) => return found,
            Err(why) if Instant::now() > deadline => panic!("{what}: {why}"),
            Err(_) => std::thread::sleep(Duration::from_millis(50)),
        }
    }
}

const BUSYBOX: &str = "
apiVersion: v1
kind: Pod
metadata: {name: bb1, labels: {app: bb1}}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: bb1, image: 'docker.io/library/busybox:1.28', command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: bb2}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: bb2, image: busybox, command: [sleep, infinity]}]
---
apiVersion: v1
kind: Pod
metadata: {name: other}
spec:
  terminationGracePeriodSeconds: 0
  containers: [{name: other, image: debian, command: [sleep, infinity]}]
";

const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: closed}
spec: {podSelector: {matchLabels: {app: bb1}}, ingress: []}
";

const SERVICE: &str = "
apiVersion: v1
kind: Service
metadata: {name: bb1}
spec: {clusterIP: None, selector: {app: bb1}, ports: [{port: 8888}]}
";

fn busybox() -> Outcome {
    let lab = up("standin-bb", BUSYBOX)?;
    assert!(
        lab.said.contains("busybox's nc, wget and sh"),
        "{}",
        lab.said
    );
    let address = lab.address("bb1");
    let mut listener = lab
        .command(&[
            "exec", "-i", "bb1", "--", "nc", "-vlkp", "8888", "-e", "/bin/sh",
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let scan = ["nc", "-znv", "-w", "2", &address, "8888"];
    let said = wait_for("a listener", || match lab.exec("bb2", &scan) {
        (true, said) => Ok(said),
        (false, said) => Err(said),
    });
    assert_eq!(said, format!("{address} ({address}:8888) open\n"));
    // Without a Service there is no such name, with a port in it or without.
    for host in [&["bb1:8888"][..], &["bb1", "8888"]] {
        let (found, said) = lab.exec("bb2", &[&["nc", "-znv", "-w", "2"], host].concat());
        assert!(
            !found && said.starts_with("nc: bad address 'bb1'\n"),
            "{said}"
        );
    }
    lab.apply(SERVICE);
    let by_name = ["nc", "-znv", "-w", "2", "bb1", "8888"];
    let said = wait_for("the name", || match lab.exec("bb2", &by_name) {
        (true, said) => Ok(said),
        (false, said) => Err(said),
    });
    assert_eq!(said, format!("bb1 ({address}:8888) open\n"));
    let talk = ["sh", "-c", "echo 'hostname; exit' | nc bb1 8888"];
    assert_eq!(lab.exec("bb2", &talk), (true, "bb1\n".into()));
    lab.apply(CLOSED);
    let (open, said) = lab.exec("bb2", &by_name);
    let expected = format!("nc: bb1 ({address}:8888): Connection timed out\n");
    assert!(!open && said.starts_with(&expected), "{said}");
    listener.kill().unwrap();
    let heard = both(&listener.wait_with_output().unwrap()).1;
    let own = lab.address("bb2");
    assert!(heard.starts_with("listening on [::]:8888 ...\n"), "{heard}");
    let connected = format!("connect to [::ffff:{address}]:8888 from [::ffff:{own}]:");
    assert!(heard.contains(&connected), "{heard}");

    let is_stand_in = ["test", "/bin/sh", "-ef", "/run/.weir/applets"];
    assert!(lab.exec("bb1", &is_stand_in).0);
    assert!(!lab.exec("other", &is_stand_in).0);
    // The machine's file behind it cannot be written, not even by root.
    let write = ["sh", "-c", "echo >>/run/.weir/applets"];
    let (written, said) = lab.exec("bb1", &write);
    assert!(!written && said.contains("Read-only file system"), "{said}");
    Ok(())
}
