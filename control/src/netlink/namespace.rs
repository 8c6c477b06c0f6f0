//! Network namespaces with names, as `ip netns` keeps them.

use std::fs::{self, File};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::mount::{MountPropagationFlags, UnmountFlags};
use rustix::thread::{LinkNameSpaceType, UnshareFlags};

use super::{NetlinkError, Result};

/// Where `ip netns` keeps its names.
const FOLDER: &str = "/run/netns";

/// A network namespace, held open.
#[derive(Debug)]
pub struct Namespace {
    file: OwnedFd,
}

impl Namespace {
    /// The path under which `ip netns` knows a name.
    pub fn path(name: &str) -> PathBuf {
        Path::new(FOLDER).join(name)
    }

    /// The namespace the calling thread is in.
    pub fn current() -> Result<Namespace> {
        Namespace::open_path(Path::new("/proc/thread-self/ns/net"))
    }

    /// The namespace of that name.
    pub fn open(name: &str) -> Result<Namespace> {
        Namespace::open_path(&Namespace::path(name))
    }

    /// The namespace behind a path: `/proc/PID/ns/net` or a mount of one.
    pub fn open_path(path: &Path) -> Result<Namespace> {
        let file = File::open(path).map_err(|source| NetlinkError {
            what: format!("open namespace {}", path.display()),
            source,
        })?;
        Ok(Namespace { file: file.into() })
    }

    /// Makes a namespace of that name, its loopback down. It is an error if the name exists.
    pub fn create(name: &str) -> Result<Namespace> {
        create(name).map_err(|source| NetlinkError {
            what: format!("create namespace {name}"),
            source,
        })?;
        Namespace::open(name)
    }

    /// Forgets a name. The namespace ends with the last process and descriptor in it.
    pub fn delete(name: &str) -> Result<()> {
        let path = Namespace::path(name);
        let removed = match rustix::mount::unmount(&path, UnmountFlags::DETACH) {
            // Not mounted: a leftover of a creation that was cut short.
            Ok(()) | Err(rustix::io::Errno::INVAL) => fs::remove_file(&path),
            Err(errno) => Err(errno.into()),
        };
        removed.map_err(|source| NetlinkError {
            what: format!("delete namespace {name}"),
            source,
        })
    }

    /// The names that exist, sorted.
    pub fn names() -> Vec<String> {
        let Ok(entries) = fs::read_dir(FOLDER) else {
            return Vec::new();
        };
        let mut names: Vec<String> = entries
            .flatten()
            .filter_map(|entry| entry.file_name().into_string().ok())
            .collect();
        names.sort();
        names
    }

    /// Moves the calling thread into the namespace, for good.
    pub fn enter(&self) -> Result<()> {
        let kind = Some(LinkNameSpaceType::Network);
        rustix::thread::move_into_link_name_space(self.file.as_fd(), kind).map_err(|errno| {
            NetlinkError {
                what: "enter namespace".into(),
                source: errno.into(),
            }
        })
    }

    /// Runs `work` inside the namespace, on a thread of its own; the caller stays where it is.
    pub fn run<T: Send>(&self, work: impl FnOnce() -> T + Send) -> Result<T> {
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                self.enter()?;
                Ok(work())
            });
            match thread.join() {
                Ok(result) => result,
                Err(panic) => std::panic::resume_unwind(panic),
            }
        })
    }
}

impl AsFd for Namespace {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }
}

fn create(name: &str) -> io::Result<()> {
    fs::create_dir_all(FOLDER)?;
    share_folder()?;
    let path = Namespace::path(name);
    File::options().write(true).create_new(true).open(&path)?;
    let mounted = std::thread::scope(|scope| {
        let thread = scope.spawn(|| -> io::Result<()> {
            // NEWNET alone: descriptors stay shared, which is what `unshare`'s successor is
            // unsafe for.
            #[allow(deprecated)]
            rustix::thread::unshare(UnshareFlags::NEWNET)?;
            rustix::mount::mount_bind("/proc/thread-self/ns/net", &path)?;
            Ok(())
        });
        thread
            .join()
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    });
    if mounted.is_err() {
        let _ = fs::remove_file(&path);
    }
    mounted
}

/// Makes the folder a shared mount, so that names made in one mount namespace show, and go, in
/// those made from it (as iproute2's `create_netns_dir` does).
fn share_folder() -> io::Result<()> {
    let flags = MountPropagationFlags::SHARED | MountPropagationFlags::REC;
    match rustix::mount::mount_change(FOLDER, flags) {
        Err(rustix::io::Errno::INVAL) => {
            rustix::mount::mount_bind_recursive(FOLDER, FOLDER)?;
            Ok(rustix::mount::mount_change(FOLDER, flags)?)
        }
        other => Ok(other?),
    }
}
