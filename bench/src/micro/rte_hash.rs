//! The peer: a small C program around DPDK's `rte_hash`, compiled when it is wanted.

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::error::BenchError;

const SOURCE: &str = include_str!("rte_hash.c");
/// Memory that it reserves, MiB.
const MEMORY_MIB: u32 = 1024;

/// The compiled program, in a folder of its own that goes with this.
#[derive(Debug)]
pub struct Program {
    folder: PathBuf,
}

impl Drop for Program {
    fn drop(&mut self) {
        // What cannot be removed is left in the temporary folder.
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The program with keys in its table, waiting to be told to look them up.
#[derive(Debug)]
pub struct Peer {
    child: Child,
    tell: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Drop for Peer {
    fn drop(&mut self) {
        // The end of its input ends it.
        self.tell = None;
        let _ = self.child.wait();
    }
}

impl Program {
    /// Compiles the program. None without DPDK's headers (Debian: `libdpdk-dev`) or a C compiler.
    pub fn compile() -> Result<Option<Program>, BenchError> {
        let Some(flags) = dpdk_flags() else {
            return Ok(None);
        };
        // Tests in one process compile it at the same time.
        let thread = format!("{:?}", std::thread::current().id());
        let number: String = thread.chars().filter(char::is_ascii_digit).collect();
        let name = format!("weir-bench-rte-hash-{}-{number}", std::process::id());
        let program = Program {
            folder: std::env::temp_dir().join(name),
        };
        let failed = |error: std::io::Error| BenchError::Setup(format!("rte_hash: {error}"));
        std::fs::create_dir_all(&program.folder).map_err(failed)?;
        let source = program.folder.join("rte_hash.c");
        std::fs::write(&source, SOURCE).map_err(failed)?;
        let output = Command::new("cc")
            .args(["-O3", "-march=native", "-o"])
            .arg(program.binary())
            .arg(&source)
            .args(flags.split_whitespace())
            .output();
        match output {
            Err(_) => Ok(None),
            Ok(output) if output.status.success() => Ok(Some(program)),
            Ok(output) => {
                let said = String::from_utf8_lossy(&output.stderr);
                let first = said.lines().next().unwrap_or_default();
                Err(BenchError::Setup(format!(
                    "rte_hash does not compile: {first}"
                )))
            }
        }
    }

    fn binary(&self) -> PathBuf {
        self.folder.join("rte_hash")
    }

    /// Starts it with these keys, one behind the other, of `key_bytes` octets each, in a table for
    /// `entries`.
    pub fn start(&self, keys: &[u8], key_bytes: usize, entries: u32) -> Result<Peer, BenchError> {
        let failed = |error: std::io::Error| BenchError::Setup(format!("rte_hash: {error}"));
        let file = self.folder.join(format!("keys-{key_bytes}"));
        std::fs::write(&file, keys).map_err(failed)?;
        let mut child = self
            .command(&file, key_bytes, entries)
            .spawn()
            .map_err(failed)?;
        let (tell, answers) = (child.stdin.take(), child.stdout.take());
        let answers = answers.ok_or_else(|| BenchError::Setup("rte_hash: no output".to_owned()))?;
        Ok(Peer {
            child,
            tell,
            answers: BufReader::new(answers),
        })
    }

    fn command(&self, file: &Path, key_bytes: usize, entries: u32) -> Command {
        let mut command = Command::new(self.binary());
        command
            .args(["--no-pci", "--no-telemetry", "--no-huge", "--no-shconf"])
            .args(["--log-level", "1", "-m", &MEMORY_MIB.to_string()])
            // The core that this thread may run on, so that a pinned run stays on one core.
            .args(["--lcores", &format!("0@{}", current_core())])
            .arg("--")
            .arg(file)
            .args([key_bytes.to_string(), entries.to_string()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        command
    }
}

impl Peer {
    /// Looks every key up once; cycles of the time-stamp counter for each.
    pub fn run(&mut self) -> Result<f64, BenchError> {
        let failed = |error: std::io::Error| BenchError::Setup(format!("rte_hash: {error}"));
        if let Some(tell) = &mut self.tell {
            tell.write_all(b"\n")
                .and_then(|()| tell.flush())
                .map_err(failed)?;
        }
        loop {
            let mut line = String::new();
            if self.answers.read_line(&mut line).map_err(failed)? == 0 {
                let ended = "rte_hash ended: it needs memory and its keys".to_owned();
                return Err(BenchError::Setup(ended));
            }
            // EAL says things of its own first.
            if let Ok(cycles) = line.trim().parse() {
                return Ok(cycles);
            }
        }
    }
}

/// What the compiler has to be told, by `pkg-config`.
fn dpdk_flags() -> Option<String> {
    let output = Command::new("pkg-config")
        .args(["--cflags", "--libs", "libdpdk"])
        .output()
        .ok()?;
    let flags = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(flags)
}

/// The first core that this thread may run on.
fn current_core() -> usize {
    let allowed = rustix::thread::sched_getaffinity(None);
    let first = |set: rustix::thread::CpuSet| {
        (0..rustix::thread::CpuSet::MAX_CPU).find(|core| set.is_set(*core))
    };
    allowed.ok().and_then(first).unwrap_or(0)
}
