//! The last step before a program runs: a process of its own, with one thread, that takes its
//! terminal, its view of the files, its user and its capabilities, and executes the program.

use std::convert::Infallible;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::process::{Gid, Uid};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};
use signal_hook::consts::{
    SIGALRM, SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGTSTP, SIGTTIN, SIGTTOU, SIGUSR1,
    SIGUSR2, SIGWINCH,
};

use super::message::{ProcessSpec, VolumeMount};
use super::{capability, root, stand_ins};

/// `PATH` of a container that sets none.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Why a program cannot run, with the exit status that a shell would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unstartable {
    /// 127: not found; 126: not executable; 128: anything else.
    pub code: i32,
    /// In containerd's words.
    pub message: String,
}

/// Finds the program as execvp would.
pub fn find_program(spec: &ProcessSpec) -> Result<PathBuf, Unstartable> {
    let name = spec.command.first().map(String::as_str).unwrap_or_default();
    let wrong = |code, why: &str| {
        let message = format!("exec: {name:?}: {why}");
        Unstartable { code, message }
    };
    let executable = |path: &Path| {
        let mode = fs::metadata(path).ok().filter(fs::Metadata::is_file);
        mode.is_some_and(|found| found.permissions().mode() & 0o111 != 0)
    };
    if name.is_empty() {
        return Err(wrong(127, "no command"));
    }
    if name.contains('/') {
        let path = Path::new(&spec.directory).join(name);
        return match fs::metadata(&path) {
            Err(_) if stand_ins::has(&spec.programs, name) => Ok(path),
            Err(_) => Err(wrong(127, "stat: no such file or directory")),
            Ok(_) if !executable(&path) => Err(wrong(126, "permission denied")),
            Ok(_) => Ok(path),
        };
    }
    let set = spec.environment.iter().rev().find(|(key, _)| key == "PATH");
    let list = set.map_or(DEFAULT_PATH, |(_, value)| value);
    std::env::split_paths(OsStr::new(list))
        .map(|folder| folder.join(name))
        .find(|path| executable(path))
        .or_else(|| stand_ins::path_of(&spec.programs, name))
        .ok_or_else(|| wrong(127, "executable file not found in $PATH"))
}

/// Becomes the program that `spec` (JSON) describes. Returns only if that fails.
pub fn become_program(spec: &str) -> i32 {
    let result: io::Result<Infallible> = serde_json::from_str(spec)
        .map_err(io::Error::from)
        .and_then(|spec| try_become(&spec));
    let Err(error) = result;
    eprintln!("{error}");
    match error.kind() {
        io::ErrorKind::NotFound => 127,
        io::ErrorKind::PermissionDenied => 126,
        _ => 128,
    }
}

fn try_become(spec: &ProcessSpec) -> io::Result<Infallible> {
    rustix::process::setsid()?;
    if spec.tty {
        rustix::process::ioctl_tiocsctty(io::stdin())?;
    }
    match spec.join {
        Some(pid) => join_files(pid)?,
        None => {
            own_files(&spec.mounts)?;
            stand_ins::install(&spec.programs)?;
        }
    }
    let directory = if spec.directory.is_empty() {
        "/"
    } else {
        &spec.directory
    };
    if let Some(responder) = &spec.responder {
        drop_privileges(spec)?;
        return crate::responder::serve(responder);
    }
    if !Path::new(directory).exists() {
        fs::create_dir_all(directory)?;
    }
    let program = find_program(spec).map_err(|wrong| {
        let kind = match wrong.code {
            127 => io::ErrorKind::NotFound,
            _ => io::ErrorKind::PermissionDenied,
        };
        io::Error::new(kind, wrong.message)
    })?;
    drop_privileges(spec)?;
    rustix::process::chdir(directory)?;
    heed_signals()?;
    let mut command = Command::new(program);
    command
        .arg0(&spec.command[0])
        .args(&spec.command[1..])
        .env_clear();
    command.envs(spec.environment.iter().map(|(key, value)| (key, value)));
    Err(command.exec())
}

/// Lets the program begin with every signal's default. What an ancestor ignores (the lab was brought
/// up by `nohup`, or by a script in the background) it would ignore as well, Ctrl-C among it;
/// `execve` sets to the default what has a handler, so that each gets one.
fn heed_signals() -> io::Result<()> {
    let unused = Arc::new(AtomicBool::new(false));
    for signal in [
        SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGALRM, SIGUSR1, SIGUSR2, SIGCHLD, SIGTSTP, SIGTTIN,
        SIGTTOU, SIGWINCH,
    ] {
        signal_hook::flag::register(signal, Arc::clone(&unused))?;
    }
    Ok(())
}

/// Sees the files as another process does.
fn join_files(pid: i32) -> io::Result<()> {
    let file = File::open(format!("/proc/{pid}/ns/mnt"))?;
    let kind = Some(LinkNameSpaceType::Mount);
    Ok(rustix::thread::move_into_link_name_space(
        file.as_fd(),
        kind,
    )?)
}

/// A view of the pod's root with the container's volumes in it.
fn own_files(mounts: &[VolumeMount]) -> io::Result<()> {
    // Each container has a mount namespace even without volumes: exec joins it by process.
    // NEWNS and FS alone: descriptors stay as they are, which is what `unshare_unsafe` is about.
    #[expect(
        deprecated,
        reason = "the successor is unsafe only for UnshareFlags::FILES"
    )]
    rustix::thread::unshare(UnshareFlags::NEWNS)?;
    let private = MountPropagationFlags::PRIVATE | MountPropagationFlags::REC;
    rustix::mount::mount_change("/", private)?;
    for mount in mounts {
        bind(mount).map_err(|error| {
            let message = format!("mount volume {} on {}: {error}", mount.volume, mount.path);
            io::Error::other(message)
        })?;
    }
    Ok(())
}

fn bind(mount: &VolumeMount) -> io::Result<()> {
    let mut source = Path::new(root::VOLUMES).join(&mount.volume);
    if !mount.sub_path.is_empty() {
        source.push(&mount.sub_path);
    }
    let target = Path::new("/").join(&mount.path);
    if !source.exists() {
        fs::create_dir_all(&source)?;
    }
    if source.is_dir() {
        fs::create_dir_all(&target)?;
    } else if !target.exists() {
        fs::create_dir_all(target.parent().unwrap_or(Path::new("/")))?;
        File::create(&target)?;
    }
    // With what is mounted below it: the node's root has its log.
    rustix::mount::mount_bind_recursive(&source, &target)?;
    if mount.read_only {
        let flags = MountFlags::BIND | MountFlags::RDONLY | MountFlags::NODEV;
        rustix::mount::mount_remount(&target, flags, c"")?;
    }
    Ok(())
}

fn drop_privileges(spec: &ProcessSpec) -> io::Result<()> {
    let user = spec.user.unwrap_or(0);
    let group = spec.group.unwrap_or(user);
    let groups: Vec<Gid> = spec.groups.iter().map(|raw| Gid::from_raw(*raw)).collect();
    // This process has one thread, so that a thread's identity is the process's.
    rustix::thread::set_thread_groups(&groups)?;
    let group = Gid::from_raw(group);
    rustix::thread::set_thread_res_gid(group, group, group)?;
    // Kept over the change of user, or nothing could be removed from the bounding set after it.
    rustix::thread::set_keep_capabilities(true)?;
    let user = Uid::from_raw(user);
    rustix::thread::set_thread_res_uid(user, user, user)?;
    if !user.is_root() {
        let mut sets = rustix::thread::capabilities(None)?;
        sets.effective = sets.permitted;
        rustix::thread::set_capabilities(None, sets)?;
    }
    capability::limit_to(&spec.capabilities)?;
    rustix::thread::set_no_new_privs(true)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(name: &str, path: Option<&str>) -> ProcessSpec {
        let path = path.map(|path| ("PATH".to_owned(), path.to_owned()));
        ProcessSpec {
            command: vec![name.to_owned()],
            environment: path.into_iter().collect(),
            ..ProcessSpec::default()
        }
    }

    #[test]
    fn programs_are_found_as_execvp_finds_them() {
        assert!(find_program(&command("sh", None)).is_ok());
        assert!(find_program(&command("/bin/sh", Some("/nowhere"))).is_ok());
        let code = |spec: ProcessSpec| find_program(&spec).unwrap_err();
        let missing = code(command("sh", Some("/nowhere")));
        let expected = "exec: \"sh\": executable file not found in $PATH";
        assert_eq!((missing.code, missing.message.as_str()), (127, expected));
        assert_eq!(code(command("/etc/passwd", None)).code, 126);
        assert_eq!(code(command("/no/such", None)).code, 127);
        assert_eq!(code(command("", None)).code, 127);
    }
}
