//! Stand-ins for programs of a container's image, in that container's view of the root.
//!
//! Where the machine has a program of that name, the stand-in is mounted over it, which other
//! containers of the pod do not see. Where it has none, a link is made in the pod's root, which
//! they see too: it hides nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

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
    let mut there = machines(path, name);
    if there.is_empty() {
        return link(path);
    }
    if program.machines {
        return Ok(());
    }
    // An earlier container's link, and a machine whose programs are busybox's own: what one name
    // of it is mounted over is mounted over all.
    there.retain(|path| !path.ends_with("busybox") && path != Path::new(APPLETS));
    for original in there {
        if name == "sh" && fs::metadata(MACHINE_SHELL)?.len() == 0 {
            rustix::mount::mount_bind(&original, MACHINE_SHELL)?;
        }
        rustix::mount::mount_bind(APPLETS, &original)?;
    }
    Ok(())
}

/// The machine's programs of that name, each once, whatever links lead there.
fn machines(path: &Path, name: &OsStr) -> Vec<PathBuf> {
    let listed = std::env::split_paths(OsStr::new(DEFAULT_PATH)).map(|folder| folder.join(name));
    let all = listed.chain([path.to_owned()]);
    let mut found: Vec<PathBuf> = all.filter_map(|path| fs::canonicalize(path).ok()).collect();
    found.sort();
    found.dedup();
    found
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
        let found = machines(Path::new("/bin/sh"), OsStr::new("sh"));
        assert!(!found.is_empty() && found.iter().all(|path| path.is_absolute()));
        assert!(machines(Path::new("/no/such"), OsStr::new("no-such-program")).is_empty());
    }
}
