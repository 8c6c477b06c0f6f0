//! `weir bench system` in a few seconds, and what it leaves behind: nothing.

use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const BENCH: &str = env!("CARGO_BIN_EXE_weir-bench");
/// So short that no number means anything.
const SHORT: [&str; 12] = [
    "system",
    "--quick",
    "--trial",
    "20",
    "--halvings",
    "2",
    "--pairs",
    "1",
    "--idle-pods",
    "3",
    "--output",
    "json",
];
/// Every test wants both cores.
pub static MACHINE: Mutex<()> = Mutex::new(());

/// Why this machine cannot run it.
pub fn lacks() -> Option<&'static str> {
    let owner =
        std::fs::metadata("/proc/self").map(|own| std::os::unix::fs::MetadataExt::uid(&own));
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    match () {
        () if owner.ok() != Some(0) => Some("needs root"),
        () if !Path::new("/sys/fs/bpf").exists() => Some("this kernel has no bpf file system"),
        () if !Path::new(BENCH).with_file_name("weir").exists() => {
            Some("weir is not built: cargo build --workspace")
        }
        () if cores < 2 => Some("needs two cores"),
        () => None,
    }
}

fn start(arguments: &[&str]) -> Child {
    let mut command = Command::new(BENCH);
    command.args(SHORT).args(arguments);
    let started = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    started.unwrap()
}

/// Names of namespaces, folders and pins of a run.
pub fn left_by(pid: u32) -> Vec<String> {
    let prefix = format!("weir-bench-{pid}-");
    let entries = ["/run/netns", "/run", "/sys/fs/bpf/weir"]
        .into_iter()
        .flat_map(std::fs::read_dir)
        .flatten()
        .flatten();
    let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
    names.filter(|name| name.starts_with(&prefix)).collect()
}

pub fn output(child: Child) -> (u32, Output) {
    let pid = child.id();
    (pid, child.wait_with_output().unwrap())
}

#[test]
fn every_part_of_the_system_benchmark_runs_and_leaves_nothing_behind() {
    if let Some(reason) = lacks() {
        eprintln!("SKIPPED every_part_of_the_system_benchmark: {reason}");
        return;
    }
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let plots = std::env::temp_dir().join(format!("weir-bench-plots-{}", std::process::id()));
    let folder = plots.to_str().unwrap();
    // A loss that even a machine full of other work keeps below: this is about passing at all.
    let words = ["--loss", "0.9", "--plots", folder, "--only"];
    let (pid, output) = output(start(
        &[&words[..], &["weir,raw,kernel nftables rps"]].concat(),
    ));
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    assert_eq!(left_by(pid), Vec::<String>::new());
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let results = &report["results"];
    let rows = results["packets"].as_array().unwrap();
    let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(
        names[0], "Weir, policy and conntrack",
        "{}",
        report["notes"]
    );
    assert!(
        names.contains(&"AF_XDP forwarding, no policy"),
        "{}",
        report["notes"]
    );
    // How much is forwarded is the machine's affair, which may be busy with other tests: nothing that
    // is sustained is a result, and whoever sustains nothing has no latencies.
    let positive = |value: &Value| value["median"].as_f64().is_some_and(|median| median > 0.0);
    let is_weir = |row: &Value| row["name"] == names[0];
    for row in rows {
        assert!(positive(&row["forwarded"]), "{row}");
    }
    assert!(positive(&rows[0]["newFlows"]), "{}", rows[0]);
    let sustained = rows.iter().any(|row| positive(&row["throughput"]));
    let latencies = results["latencies"].as_array().unwrap();
    assert!(sustained || latencies.is_empty(), "{rows:?}");
    assert!(latencies.len() <= rows.len() * 4);
    for row in latencies {
        assert!(row["packets"].as_u64().unwrap() > 0, "{row}");
    }
    for row in results["tcp"].as_array().unwrap() {
        assert!(row["streamGbps"]["median"].as_f64().unwrap() > 0.0, "{row}");
        assert!(
            row["connections"]["median"].as_f64().unwrap() > 0.0,
            "{row}"
        );
    }
    let wakes = results["wakes"].as_array().unwrap();
    for gap in [20, 10_000] {
        assert!(wakes.iter().any(|row| row["gapUs"] == gap), "{wakes:?}");
    }
    for row in wakes {
        assert!(row["percentiles"]["p50"].as_f64().unwrap() > 0.0, "{row}");
        assert_eq!(row["corePercent"].is_null(), !is_weir(row), "{row}");
    }
    assert_eq!(results["idle"]["pods"], 3);
    assert!(results["added"]["pairs"].as_u64().unwrap() > 0);
    for plot in ["throughput.svg", "cpu.svg", "latency.svg"] {
        let svg = std::fs::read_to_string(plots.join(plot)).unwrap();
        assert!(svg.contains("Weir, policy and conntrack"));
    }
    std::fs::remove_dir_all(plots).unwrap();
}

#[test]
fn an_interrupted_run_leaves_nothing_behind() {
    if let Some(reason) = lacks() {
        eprintln!("SKIPPED an_interrupted_run: {reason}");
        return;
    }
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let child = start(&["--only", "raw", "--measure", "packets", "--rounds", "100"]);
    let pid = child.id();
    let begun = Instant::now();
    while left_by(pid).len() < 4 && begun.elapsed() < Duration::from_secs(20) {
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(left_by(pid).len() >= 4, "nothing was set up");
    let status = Command::new("kill")
        .args(["-INT", &pid.to_string()])
        .status();
    assert!(status.unwrap().success());
    let (pid, output) = output(child);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(
        !output.status.success() && errors.contains("interrupted"),
        "{errors}"
    );
    assert_eq!(left_by(pid), Vec::<String>::new());
}
