//! Stand-ins for programs of a container's image, in that container's view of the root.
//!
//! Where the machine has a program of that name, the stand-in is mounted over the name, which other
//! containers of the pod do not see. Over the name, not what it leads to: Debian's `sh` is a link to
//! `dash` and its `nc` one to `ncat` by way of the alternatives, and those keep their own names. Where
//! the machine has none, a link is made in the pod's root, which other containers see too: it hides
//! nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rustix::fs::CWD;
use rustix::mount::{MoveMountFlags, OpenTreeFlags};

use super::message::StandInProgram;
use super::stage::DEFAULT_PATH;
use crate::images::{APPLETS, MACHINE_SHELL};

/// Whether a path is one of the stand-ins'.
pub fn has(programs: &[StandInProgram], path: &str) -> bool {
    programs.iter().any(|program| program.path == path)
}

/// The stand-in with this file name.
pub fn path_of(programs: &[StandInProgram], name: &str) -> Option<PathBuf> {
    let mut paths = programs.iter().map(|program| Path::new(&program.path));
    let found = paths.find(|path| path.file_name() == Some(OsStr::new(name)))?;
    Some(found.to_owned())
}

/// Puts the stand-ins in place. For a process that has a mount namespace of its own.
pub fn install(programs: &[StandInProgram]) -> io::Result<()> {
    for program in programs {
        install_one(program).map_err(|error| {
            let message = format!("put a stand-in at {}: {error}", program.path);
            io::Error::new(error.kind(), message)
        })?;
    }
    Ok(())
}

fn install_one(program: &StandInProgram) -> io::Result<()> {
    let path = Path::new(&program.path);
    let name = path.file_name().unwrap_or_default();
    let names = names(path, name);
    if names.is_empty() {
        return link(path);
    }
    if program.machines {
        return Ok(());
    }
    for path in names {
        let original = fs::canonicalize(&path)?;
        if original == Path::new(APPLETS) {
            // An earlier container's link.
            continue;
        }
        if name == "sh" && fs::metadata(MACHINE_SHELL)?.len() == 0 {
            rustix::mount::mount_bind(&original, MACHINE_SHELL)?;
        }
        cover(&path)?;
    }
    Ok(())
}

/// Where the machine has a program of that name, each place once, whatever links lead to its folder.
fn names(path: &Path, name: &OsStr) -> Vec<PathBuf> {
    let folders = std::env::split_paths(OsStr::new(DEFAULT_PATH));
    let all = folders.chain(path.parent().map(Path::to_owned));
    let all = all.filter_map(|folder| Some(fs::canonicalize(folder).ok()?.join(name)));
    let mut found: Vec<PathBuf> = all.filter(|path| path.exists()).collect();
    found.sort();
    found.dedup();
    found
}

/// Mounts the stand-in over a name, which may be a link: unlike mount(2), `move_mount` follows none.
fn cover(path: &Path) -> io::Result<()> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = rustix::mount::open_tree(CWD, APPLETS, flags)?;
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    Ok(rustix::mount::move_mount(&tree, c"", CWD, path, flags)?)
}

fn link(path: &Path) -> io::Result<()> {
    // Made before privileges go: a machine without the programs shows at the first start.
    File::open(APPLETS)?;
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match symlink(APPLETS, path) {
        // Another container of this pod was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        done => done,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stand_ins_are_known_by_path_and_by_name() {
        let programs = [StandInProgram {
            path: "/bin/nc".into(),
            machines: false,
        }];
        assert!(has(&programs, "/bin/nc"));
        assert!(!has(&programs, "nc"));
        assert_eq!(path_of(&programs, "nc"), Some("/bin/nc".into()));
        assert_eq!(path_of(&programs, "wget"), None);
    }

    #[test]
    fn the_machines_programs_are_found_once() {
        let found = |path: &str, name: &str| names(Path::new(path), OsStr::new(name));
        let shells = found("/bin/sh", "sh");
        assert!(!shells.is_empty() && shells.iter().all(|path| path.ends_with("sh")));
        assert!(found("/no/such", "no-such-program").is_empty());
    }
}
