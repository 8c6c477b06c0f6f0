//! Stand-ins for programs of a container's image, in that container's view of the root.
//!
//! Where the machine has a program of that name, the stand-in is mounted over it, which other
//! containers of the pod do not see. Where the name leads to a program of another name by way of
//! Debian's alternatives (`nc` to `ncat`), only the name is led elsewhere, and the program stays. Where
//! the machine has none, a link is made in the pod's root, which they see too: it hides nothing.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::{Path, PathBuf};

use rustix::mount::MountFlags;

use super::message::StandInProgram;
use super::stage::DEFAULT_PATH;
use crate::images::{APPLETS, MACHINE_SHELL};

/// The folder of links by which Debian's programs of one name and several packages are reached.
const ALTERNATIVES: &str = "/etc/alternatives";

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
    let (alternatives, direct): (Vec<_>, Vec<_>) =
        listed(path, name).partition(|path| alternative(path).is_some());
    let mut there = machines(direct);
    if there.is_empty() && alternatives.is_empty() {
        return link(path);
    }
    if program.machines {
        return Ok(());
    }
    for of_debian in alternatives.iter().filter_map(|path| alternative(path)) {
        lead_elsewhere(&of_debian)?;
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

/// Where a program of that name may lie.
fn listed(path: &Path, name: &OsStr) -> impl Iterator<Item = PathBuf> {
    let folders = std::env::split_paths(OsStr::new(DEFAULT_PATH));
    let in_folders = folders.map(|folder| folder.join(name)).collect::<Vec<_>>();
    in_folders.into_iter().chain([path.to_owned()])
}

/// The machine's programs at these paths, each once, whatever links lead there.
fn machines(paths: Vec<PathBuf>) -> Vec<PathBuf> {
    let paths = paths.iter().filter_map(|path| fs::canonicalize(path).ok());
    let mut found: Vec<PathBuf> = paths.collect();
    found.sort();
    found.dedup();
    found
}

/// The link among Debian's alternatives that this path leads to, if it does.
fn alternative(path: &Path) -> Option<PathBuf> {
    let link = fs::read_link(path).ok()?;
    (link.parent() == Some(Path::new(ALTERNATIVES))).then_some(link)
}

/// Lets a link among the alternatives lead to the stand-in, in this container's view alone.
fn lead_elsewhere(link: &Path) -> io::Result<()> {
    let folder = Path::new(ALTERNATIVES);
    if fs::metadata(folder)?.dev() == fs::metadata("/etc")?.dev() {
        let links: Vec<(PathBuf, PathBuf)> = (fs::read_dir(folder)?.flatten())
            .filter_map(|entry| Some((entry.path(), fs::read_link(entry.path()).ok()?)))
            .collect();
        let flags = MountFlags::NODEV | MountFlags::NOSUID;
        rustix::mount::mount("tmpfs", folder, "tmpfs", flags, c"mode=755,size=1m")?;
        for (path, to) in links {
            symlink(to, path)?;
        }
    }
    match fs::remove_file(link) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => symlink(APPLETS, link),
    }
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
        let found = |path: &str, name: &str| {
            let paths = listed(Path::new(path), OsStr::new(name));
            machines(paths.collect())
        };
        let shells = found("/bin/sh", "sh");
        assert!(!shells.is_empty() && shells.iter().all(|path| path.is_absolute()));
        assert!(found("/no/such", "no-such-program").is_empty());
    }
}
