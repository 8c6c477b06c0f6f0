//! The stars lab, `weir ui` before it, and a browser before that.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::browser::{Browser, PATIENCE};

/// The window's size.
pub const SIZE: (u32, u32) = (1440, 900);

/// A program that was built beside `weir-ui`.
pub fn beside(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_weir-ui")).with_file_name(name)
}

pub fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(name).exists())
}

fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap()
}

/// All of it.
pub struct Scene {
    pub browser: Browser,
    pub url: String,
    _page: Page,
    lab: Lab,
}

/// A lab that is taken down when it goes out of scope.
struct Lab(String);

impl Lab {
    fn up(&self) {
        let manifests = repository().join("config/labs/stars/manifests");
        let output = Command::new(beside("weir-lab"))
            .args(["up", &self.0, "-q", "-f"])
            .arg(manifests)
            .output()
            .unwrap();
        assert!(output.status.success(), "lab up: {}", text(&output));
    }

    fn down(&self) {
        let down = Command::new(beside("weir-lab"))
            .args(["down", &self.0])
            .output();
        let _ = down.map(|output| output.status.success());
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        self.down();
    }
}

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

impl Scene {
    pub fn set_up() -> Scene {
        let lab = Lab(format!("ui{}", std::process::id()));
        lab.up();
        let mut page = Page(
            Command::new(env!("CARGO_BIN_EXE_weir-ui"))
                .args(["--listen", "127.0.0.1:0", "--lab", &lab.0])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap(),
        );
        let mut line = String::new();
        let mut told = BufReader::new(page.0.stdout.take().unwrap());
        told.read_line(&mut line).unwrap();
        let url = line.split(' ').next().unwrap().to_owned();
        let browser = Browser::start(SIZE.0, SIZE.1);
        browser.open(&url);
        Scene {
            browser,
            url,
            _page: page,
            lab,
        }
    }

    /// Takes the lab down and brings it up again.
    pub fn restart_lab(&self, meanwhile: impl FnOnce()) {
        self.lab.down();
        meanwhile();
        self.lab.up();
    }

    /// `weir` before this lab.
    pub fn weir(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(beside("weir"));
        command
            .env_remove("WEIR_SOCKET")
            .env("WEIR_LAB", &self.lab.0)
            .args(arguments);
        command
    }

    /// A verb that must succeed, and what it printed.
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

    /// Applies a policy of the stars demo.
    pub fn policy(&self, namespace: Option<&str>, name: &str) {
        let file = repository().join(format!("config/labs/stars/policies/{name}.yaml"));
        let mut arguments = vec!["apply", "-f", file.to_str().unwrap()];
        arguments.extend(namespace.iter().flat_map(|namespace| ["-n", namespace]));
        self.ok(&arguments);
    }

    /// Applies what is written here.
    pub fn apply(&self, manifest: &str) {
        let mut apply = self
            .weir(&["apply", "-f", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        apply
            .stdin
            .take()
            .unwrap()
            .write_all(manifest.as_bytes())
            .unwrap();
        assert!(apply.wait().unwrap().success());
    }

    /// Removes every policy.
    pub fn open_all(&self) {
        for namespace in ["stars", "client"] {
            self.ok(&["delete", "netpol", "--all", "-n", namespace]);
        }
    }

    /// Waits until so many pods are there, all of them in that phase.
    pub fn wait_for_pods(&self, wanted: usize, phase: &str) {
        let deadline = Instant::now() + 5 * PATIENCE;
        let phases = "jsonpath={range .items[*]}{.status.phase}{\"\\n\"}{end}";
        loop {
            let found = self.ok(&["get", "pods", "-A", "-o", phases]);
            let fitting = found.lines().filter(|line| *line == phase).count();
            if found.lines().count() == wanted && fitting == wanted {
                return;
            }
            assert!(
                Instant::now() < deadline,
                "{fitting} of {wanted} pods are {phase}"
            );
            std::thread::sleep(Duration::from_millis(200));
        }
    }

    /// A pod's name and address, by its role.
    pub fn pod(&self, namespace: &str, role: &str) -> (String, String) {
        let selector = format!("role={role}");
        let list: Value = serde_json::from_str(&self.ok(&[
            "get", "pods", "-n", namespace, "-l", &selector, "-o", "json",
        ]))
        .unwrap();
        let pod = &list["items"][0];
        let name = pod["metadata"]["name"].as_str().unwrap();
        let ip = pod["status"]["podIP"].as_str().unwrap();
        (name.to_owned(), ip.to_owned())
    }

    /// The client asks the backend, by address; whether it got an answer.
    pub fn client_asks_backend(&self) -> bool {
        let (client, _) = self.pod("client", "client");
        let (_, address) = self.pod("stars", "backend");
        let url = format!("http://{address}:6379/");
        let script = [
            "exec",
            "-n",
            "client",
            &client,
            "--",
            "curl",
            "-s",
            "-m",
            "1",
            "-o",
            "/dev/null",
            &url,
        ];
        self.weir(&script).output().unwrap().status.success()
    }

    /// Keeps a picture, if they are wanted.
    pub fn picture(&self, name: &str) {
        let Some(folder) = std::env::var_os("WEIR_SCREENSHOTS") else {
            return;
        };
        std::fs::create_dir_all(&folder).unwrap();
        self.browser
            .picture(&Path::new(&folder).join(format!("{name}.png")));
    }

    /// The page anew, with every pod there.
    pub fn reload(&self) {
        self.reload_folded();
        self.browser.wait(
            "the pods are there",
            "document.querySelectorAll('.pill').length >= 5",
        );
    }

    /// The page anew, however many pods there are.
    pub fn reload_folded(&self) {
        self.browser.resize(SIZE.0, SIZE.1);
        self.browser.open(&self.url);
        self.browser.wait(
            "it is live",
            "document.querySelector('[data-vital=generation]')",
        );
    }
}

/// `weir ui`, which ends with the test, whatever becomes of it.
struct Page(Child);

impl Drop for Page {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
