//! `weir bench soak` in a few seconds, and what it leaves behind: nothing.

use std::process::{Command, Stdio};
use std::sync::PoisonError;

use serde_json::Value;

use super::system::{BENCH, MACHINE, lacks, left_by, output};

/// Mixed load, policies and pods coming and going, audited: all holds, and everything has happened.
#[test]
fn a_short_soak_holds_and_leaves_nothing() {
    if let Some(reason) = lacks() {
        eprintln!("skipped: {reason}");
        return;
    }
    let _alone = MACHINE.lock().unwrap_or_else(PoisonError::into_inner);
    let child = Command::new(BENCH)
        .args(["soak", "--seconds", "20", "--seed", "7", "--output", "json"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (pid, output) = output(child);
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{told}");
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    let done = report["results"]["done"].as_object().unwrap();
    for (what, count) in done {
        assert!(count.as_u64().unwrap() > 0, "{what}: {done:?}");
    }
    assert_eq!(left_by(pid), [""; 0]);
}
