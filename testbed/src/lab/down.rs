//! Taking a lab down, whoever was killed before.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use control::lab_protocol;
use control::netlink::Namespace;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use super::{CommandError, Lab, need_root, system};
use crate::topology;

/// How long killed processes may take to be gone.
const KILLED: Duration = Duration::from_secs(5);

/// Takes a lab down, whatever is left of it. A lab that is not there is an error.
pub fn down(lab: &Lab) -> Result<(), CommandError> {
    need_root()?;
    if !lab.exists() {
        return Err(CommandError::Refused(format!(
            "no lab is called {}",
            lab.name
        )));
    }
    // An agent that answers lets the daemon remove its own things first.
    let _no_agent = lab_protocol::shutdown(&lab.agent_socket());
    let _none_unpacked = fs::remove_dir_all(lab.tutorial_folder());
    clean(lab)
}

/// Removes everything of a lab, without anybody's help.
pub fn clean(lab: &Lab) -> Result<(), CommandError> {
    if let Some(agent) = lab.agent_pid() {
        let _gone = rustix::process::kill_process(agent, Signal::KILL);
    }
    let folder = lab.folder();
    let mut names: BTreeSet<String> = topology::remembered(&folder).into_iter().collect();
    names.insert(topology::node_name(&lab.name));
    names.insert(topology::external_name(&lab.name));
    kill_inside(&names)?;
    for name in names.iter().filter(|name| Namespace::path(name).exists()) {
        match Namespace::delete(name) {
            // Somebody else takes the same lab down: what is gone is gone.
            Err(_) if !Namespace::path(name).exists() => {}
            other => other.map_err(|error| CommandError::Refused(error.to_string()))?,
        }
    }
    let pins = Path::new("/sys/fs/bpf/weir").join(format!("lab-{}", lab.name));
    if pins.exists() {
        fs::remove_dir_all(&pins).map_err(system(format!("remove {}", pins.display())))?;
    }
    unmount_below(&folder)?;
    match fs::remove_dir_all(&folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other.map_err(system(format!("remove {}", folder.display()))),
    }
}

/// Kills every process in these namespaces, and waits until none is left.
fn kill_inside(names: &BTreeSet<String>) -> Result<(), CommandError> {
    let identity = |path: &Path| {
        fs::metadata(path)
            .ok()
            .map(|found| (found.dev(), found.ino()))
    };
    let own = identity(Path::new("/proc/self/ns/net"));
    let namespaces: BTreeSet<(u64, u64)> = names
        .iter()
        .filter_map(|name| identity(&Namespace::path(name)))
        // A name without its mount is a plain file; and nobody ends the machine's own namespace.
        .filter(|found| Some(*found) != own)
        .collect();
    let deadline = Instant::now() + KILLED;
    loop {
        let mut left = 0;
        for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = entry.file_name();
            let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
                continue;
            };
            let inside = identity(&entry.path().join("ns/net"));
            if inside.is_some_and(|inside| namespaces.contains(&inside))
                && let Some(pid) = Pid::from_raw(pid)
            {
                left += 1;
                let _gone = rustix::process::kill_process(pid, Signal::KILL);
            }
        }
        if left == 0 {
            return Ok(());
        }
        if Instant::now() > deadline {
            return Err(CommandError::Refused(format!(
                "{left} processes of the lab do not end; try again"
            )));
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn unmount_below(folder: &Path) -> Result<(), CommandError> {
    let table = fs::read_to_string("/proc/self/mountinfo").map_err(system("read mountinfo"))?;
    let points = table.lines().filter_map(|line| line.split(' ').nth(4));
    let mut points: Vec<&str> = points
        .filter(|point| Path::new(point).starts_with(folder))
        .collect();
    points.reverse();
    for point in points {
        rustix::mount::unmount(point, UnmountFlags::DETACH)
            .map_err(io::Error::from)
            .map_err(system(format!("unmount {point}")))?;
    }
    Ok(())
}
