//! A pod's root: the machine's below, read-only, and a tmpfs of the pod's own above.
//!
//! Everything here happens in the pod's mount namespace, so it is gone with the pod's last
//! process. `/run` and `/tmp` start empty: the machine's sockets are not for pods.

use std::collections::BTreeMap;
use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Component, Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use rustix::mount::{MountFlags, MountPropagationFlags, UnmountFlags};

use super::message::{RootSpec, Volume};
use crate::images::{self, busybox::sh};

/// Where volumes wait to be bound into containers; readable by root in the pod only.
pub const VOLUMES: &str = "/run/.volumes";

/// Where the log of denials lies on a node of EKS.
const NODE_LOG: &str = "var/log/aws-routed-eni/network-policy-agent.log";
/// File systems of the machine that pods see besides the root's own.
const SHOWN: [&str; 7] = ["ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "overlay"];
/// Folders of the machine that pods have their own of.
const OWN: [&str; 6] = ["/proc", "/sys", "/dev", "/run", "/tmp", "/boot"];

/// Files of `/proc` that reach the machine; made unreadable (as runc's `maskedPaths`).
const MASKED: [&str; 7] = [
    "kcore",
    "keys",
    "latency_stats",
    "timer_list",
    "sched_debug",
    "kmsg",
    "kallsyms",
];
/// Folders of `/proc` that reach the machine; made read-only (as runc's `readonlyPaths`).
const READ_ONLY: [&str; 5] = ["bus", "fs", "irq", "sys", "sysrq-trigger"];

fn at(what: impl std::fmt::Display) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{what}: {error}"))
}

fn mount(kind: &str, path: &Path, flags: MountFlags, options: &str) -> io::Result<()> {
    fs::create_dir_all(path)?;
    let options = std::ffi::CString::new(options)?;
    let options = (!options.is_empty()).then_some(options.as_c_str());
    rustix::mount::mount(kind, path, kind, flags, options)
        .map_err(io::Error::from)
        .map_err(at(format_args!("mount {kind} on {}", path.display())))
}

/// Makes the root and moves into it. For process 1 of a pod, before it has other threads.
pub fn enter(spec: &RootSpec) -> io::Result<()> {
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    rustix::system::sethostname(spec.hostname.as_bytes())?;
    let scratch = Path::new(&spec.scratch);
    let submounts = submounts(&fs::read_to_string("/proc/self/mountinfo")?);
    let size = format!("mode=700,size={}", spec.writable_bytes);
    mount("tmpfs", scratch, MountFlags::NODEV, &size)?;
    let root = scratch.join("root");
    overlay(Path::new("/"), &root, scratch, 0)?;
    for (number, below) in submounts.iter().enumerate() {
        let target = root.join(below.strip_prefix("/").unwrap_or(below));
        // A mount point that the root's own file system does not have stays hidden.
        if target.is_dir() {
            overlay(below, &target, scratch, number + 1)?;
        }
    }
    devices(&root.join("dev"))?;
    kernel_files(&root)?;
    let small = "mode=1777,size=64m";
    let safe = MountFlags::NODEV | MountFlags::NOSUID;
    mount("tmpfs", &root.join("tmp"), safe, small)?;
    mount("tmpfs", &root.join("run"), safe, "mode=755,size=64m")?;
    fs::create_dir_all(root.join("run/lock"))?;
    applets(&root, &spec.applets)?;
    resolver_files(&root, spec)?;
    volumes(&root, spec)?;
    rustix::process::chdir(&root)?;
    rustix::process::pivot_root(".", ".")?;
    rustix::mount::unmount(".", UnmountFlags::DETACH)?;
    rustix::process::chdir("/")?;
    Ok(())
}

fn overlay(below: &Path, target: &Path, scratch: &Path, number: usize) -> io::Result<()> {
    let layer = scratch.join(format!("layer-{number}"));
    let (upper, work) = (layer.join("upper"), layer.join("work"));
    fs::create_dir_all(&upper)?;
    fs::create_dir_all(&work)?;
    // The mode of the upper folder is the mode of the root that pods see.
    fs::set_permissions(&upper, fs::metadata(below)?.permissions())?;
    let escape = |path: &Path| {
        let text = path.display().to_string();
        text.replace('\\', "\\\\")
            .replace(',', "\\,")
            .replace(':', "\\:")
    };
    let (low, up, work) = (escape(below), escape(&upper), escape(&work));
    let options = format!("lowerdir={low},upperdir={up},workdir={work}");
    mount("overlay", target, MountFlags::NODEV, &options)
}

/// Mount points of file systems on the machine's disks below the root, outermost first.
fn submounts(mountinfo: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = mountinfo
        .lines()
        .filter_map(|line| {
            let (before, after) = line.split_once(" - ")?;
            let kind = after.split(' ').next()?;
            let point = before.split(' ').nth(4)?;
            let own = OWN.iter().any(|own| Path::new(point).starts_with(own));
            // Octal escapes mark spaces and the like; nothing there that a pod needs.
            let wanted = point != "/" && !own && !point.contains('\\') && SHOWN.contains(&kind);
            (wanted && Path::new(point).is_dir()).then(|| PathBuf::from(point))
        })
        .collect();
    found.sort();
    found.dedup();
    found
}

fn devices(dev: &Path) -> io::Result<()> {
    mount("tmpfs", dev, MountFlags::NOSUID, "mode=755,size=1m")?;
    let nodes = [
        ("null", 1, 3),
        ("zero", 1, 5),
        ("full", 1, 7),
        ("random", 1, 8),
        ("urandom", 1, 9),
        ("tty", 5, 0),
    ];
    let mask = rustix::process::umask(Mode::empty());
    for (name, major, minor) in nodes {
        let device = rustix::fs::makedev(major, minor);
        let mode = Mode::from_raw_mode(0o666);
        rustix::fs::mknodat(CWD, dev.join(name), FileType::CharacterDevice, mode, device)
            .map_err(io::Error::from)
            .map_err(at(format_args!("make /dev/{name}")))?;
    }
    rustix::process::umask(mask);
    for (name, target) in [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ] {
        symlink(target, dev.join(name))?;
    }
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC;
    mount(
        "devpts",
        &dev.join("pts"),
        safe,
        "newinstance,ptmxmode=0666,mode=620",
    )?;
    mount(
        "tmpfs",
        &dev.join("shm"),
        safe | MountFlags::NODEV,
        "mode=1777,size=64m",
    )
}

fn kernel_files(root: &Path) -> io::Result<()> {
    let safe = MountFlags::NOSUID | MountFlags::NOEXEC | MountFlags::NODEV;
    let sys = root.join("sys");
    mount("sysfs", &sys, safe, "")?;
    // Received packets are then processed by a kernel thread of this interface instead of inside
    // the dataplane's transmit call. Kernels before 5.12 have no such file; nor has the node, whose
    // network a debugger is in.
    let _not_there = fs::write(sys.join("class/net/eth0/threaded"), "1");
    rustix::mount::mount_remount(&sys, safe | MountFlags::RDONLY, c"")?;
    let proc = root.join("proc");
    mount("proc", &proc, safe, "")?;
    for name in READ_ONLY {
        let path = proc.join(name);
        if path.exists() {
            rustix::mount::mount_bind(&path, &path)?;
            let flags = safe | MountFlags::RDONLY | MountFlags::BIND;
            rustix::mount::mount_remount(&path, flags, c"")?;
        }
    }
    for name in MASKED {
        let path = proc.join(name);
        if path.exists() {
            rustix::mount::mount_bind(root.join("dev/null"), &path)?;
        }
    }
    Ok(())
}

fn resolver_files(root: &Path, spec: &RootSpec) -> io::Result<()> {
    // Without systemd's and avahi's modules, which take `.local` for themselves.
    let switch = "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\n\
                  services: files\nprotocols: files\n";
    let hostname = format!("{}\n", spec.hostname);
    for (name, text) in [
        ("hosts", spec.hosts.as_str()),
        ("resolv.conf", &spec.resolv_conf),
        ("hostname", &hostname),
        ("nsswitch.conf", switch),
    ] {
        let path = root.join("etc").join(name);
        // Often a link into /run, which is the pod's own.
        let _not_there = fs::remove_file(&path);
        fs::write(&path, text).map_err(at(format_args!("write /etc/{name}")))?;
    }
    Ok(())
}

/// Shows the stand-ins' programs, without a right to write them: whoever runs as root here could
/// reach the machine's file through `/proc` (CVE-2019-5736).
fn applets(root: &Path, program: &str) -> io::Result<()> {
    let folder = root.join(images::FOLDER.trim_start_matches('/'));
    fs::create_dir_all(&folder)?;
    File::create(root.join(images::MACHINE_SHELL.trim_start_matches('/')))?;
    fs::write(root.join(sh::START_FILE.trim_start_matches('/')), sh::START)?;
    if program.is_empty() {
        return Ok(());
    }
    let target = root.join(images::APPLETS.trim_start_matches('/'));
    File::create(&target)?;
    rustix::mount::mount_bind(program, &target)
        .map_err(io::Error::from)
        .map_err(at(format_args!("show {program} in the pod")))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV | MountFlags::NOSUID;
    rustix::mount::mount_remount(&target, flags, c"")?;
    Ok(())
}

fn volumes(root: &Path, spec: &RootSpec) -> io::Result<()> {
    let base = root.join(VOLUMES.trim_start_matches('/'));
    DirBuilder::new().mode(0o700).create(&base)?;
    for (name, volume) in &spec.volumes {
        inside(name)?;
        let folder = base.join(name);
        match volume {
            Volume::Empty { bytes } => {
                let options = format!("mode=777,size={bytes}");
                mount("tmpfs", &folder, MountFlags::NODEV, &options)?;
            }
            Volume::Files(files) => {
                let options = "mode=777,size=64m";
                mount("tmpfs", &folder, MountFlags::NODEV, options)?;
                write_files(&folder, files)?;
                rustix::mount::mount_remount(&folder, CLOSED, c"")?;
            }
            Volume::Node { log } => node_root(&folder, Path::new(&spec.scratch), Path::new(log))?,
        }
    }
    Ok(())
}

/// How volumes of files are mounted while nobody writes them.
const CLOSED: MountFlags = MountFlags::NODEV.union(MountFlags::RDONLY);

fn write_files(folder: &Path, files: &BTreeMap<String, String>) -> io::Result<()> {
    for (file, content) in files {
        inside(file)?;
        let path = folder.join(file);
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        // In one step, so that a reader has the old text or the new.
        let mut fresh = path.clone().into_os_string();
        fresh.push(".new");
        fs::write(&fresh, content)?;
        fs::rename(&fresh, path)?;
    }
    Ok(())
}

/// Gives a volume of files other ones while containers have it mounted.
pub fn replace_files(volume: &str, files: &BTreeMap<String, String>) -> io::Result<()> {
    inside(volume)?;
    let folder = Path::new(VOLUMES).join(volume);
    rustix::mount::mount_remount(&folder, MountFlags::NODEV, c"")?;
    let written = write_files(&folder, files).and_then(|()| remove_others(&folder, files));
    rustix::mount::mount_remount(&folder, CLOSED, c"")?;
    written
}

/// Removes the files right below the folder that are not among these.
fn remove_others(folder: &Path, files: &BTreeMap<String, String>) -> io::Result<()> {
    let kept = |name: &str| {
        let first = |path: &String| path.split('/').next() == Some(name);
        files.keys().any(first)
    };
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        if !kept(&entry.file_name().to_string_lossy()) {
            match entry.file_type()?.is_dir() {
                true => fs::remove_dir_all(entry.path())?,
                false => fs::remove_file(entry.path())?,
            }
        }
    }
    Ok(())
}

/// The node's files as a debugger sees them, with Weir's log where [`NODE_LOG`] says.
fn node_root(folder: &Path, scratch: &Path, log: &Path) -> io::Result<()> {
    fs::create_dir_all(folder)?;
    let layers = scratch.join("node");
    fs::create_dir_all(&layers)?;
    overlay(Path::new("/"), folder, &layers, 0)?;
    let submounts = submounts(&fs::read_to_string("/proc/self/mountinfo")?);
    for (number, below) in submounts.iter().enumerate() {
        let target = folder.join(below.strip_prefix("/").unwrap_or(below));
        if target.is_dir() {
            overlay(below, &target, &layers, number + 1)?;
        }
    }
    let target = folder.join(NODE_LOG);
    if let Some(parent) = target.parent() {
        fs::create_dir_all(parent)?;
    }
    File::create(&target)?;
    // The file as it is now: a log that is put aside meanwhile is followed by its name only.
    rustix::mount::mount_bind(log, &target)
        .map_err(io::Error::from)
        .map_err(at(format_args!("show {}", log.display())))?;
    let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV;
    Ok(rustix::mount::mount_remount(&target, flags, c"")?)
}

/// Refuses a name that leads out of the folder it is put in: the machine's files are still within
/// reach here.
fn inside(name: &str) -> io::Result<()> {
    let plain = |part| matches!(part, Component::Normal(_));
    if !name.is_empty() && Path::new(name).components().all(plain) {
        return Ok(());
    }
    let message = format!("volume path {name:?} leads out of its volume");
    Err(io::Error::new(io::ErrorKind::InvalidInput, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn volume_paths_stay_in_their_volume() {
        for name in ["../x", "/etc/passwd", "a/../../b", "", ".", ".."] {
            assert!(inside(name).is_err(), "{name}");
        }
        assert!(inside("a/b.conf").is_ok());
    }

    #[test]
    fn only_disks_below_the_root_are_shown_again() {
        let text = "27 1 254:0 / / rw shared:1 - ext4 /dev/vda rw\n\
                    28 27 0:25 / /proc rw - proc proc rw\n\
                    29 27 254:1 / /usr rw shared:2 - ext4 /dev/vdb rw\n\
                    30 27 254:2 / /run/x rw - ext4 /dev/vdc rw\n\
                    31 27 254:2 / /etc\\040x rw - ext4 /dev/vdc rw\n\
                    32 27 0:30 / /opt rw - nfs4 a:/ rw\n";
        assert_eq!(submounts(text), [PathBuf::from("/usr")]);
    }
}
