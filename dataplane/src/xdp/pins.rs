//! Pins: the folder of an instance on a bpffs, and what lies in it.

#![allow(unsafe_code)]

use std::ffi::CString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::XdpError;

/// `statfs` type of a bpffs (`include/uapi/linux/magic.h`).
const BPF_FS_MAGIC: i64 = 0xcafe_4a11;

/// The pins of one instance.
#[derive(Debug)]
pub(super) struct Pins {
    folder: PathBuf,
}

impl Pins {
    /// Makes the folder, which must be on a bpffs.
    pub(super) fn open(folder: &Path) -> Result<Pins, XdpError> {
        let no_bpffs = || XdpError::NoBpffs {
            path: folder.to_owned(),
        };
        // The nearest part that exists tells the filesystem: on sysfs nothing can be made.
        let present = folder
            .ancestors()
            .find(|part| part.exists())
            .ok_or_else(no_bpffs)?;
        if filesystem(present).map_err(|source| file(present, source))? != BPF_FS_MAGIC {
            return Err(no_bpffs());
        }
        std::fs::create_dir_all(folder).map_err(|source| file(folder, source))?;
        Ok(Pins {
            folder: folder.to_owned(),
        })
    }

    /// Where the XDP link of an interface is pinned.
    pub(super) fn xdp(&self, ifindex: u32) -> PathBuf {
        self.folder.join(format!("xdp_{ifindex}"))
    }

    /// Where the egress link of an interface is pinned.
    pub(super) fn egress(&self, ifindex: u32) -> PathBuf {
        self.folder.join(format!("egress_{ifindex}"))
    }

    /// Removes a pin; one that is not there is no error.
    pub(super) fn remove(path: &Path) -> Result<(), XdpError> {
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(file(path, error)),
            _ => Ok(()),
        }
    }

    /// Removes the pins of interfaces that are not there any more, in the network namespace of the
    /// calling thread, nor named by `keep`.
    pub(super) fn sweep(&self, keep: &[u32]) -> Result<usize, XdpError> {
        let entries = std::fs::read_dir(&self.folder).map_err(|e| file(&self.folder, e))?;
        let mut removed = 0;
        for entry in entries.flatten() {
            let name = entry.file_name();
            let ifindex = name
                .to_str()
                .and_then(|name| name.strip_prefix("xdp_").or(name.strip_prefix("egress_")))
                .and_then(|number| number.parse::<u32>().ok());
            let gone = |ifindex: &u32| !keep.contains(ifindex) && interface_name(*ifindex).is_err();
            if ifindex.as_ref().is_some_and(gone) {
                Pins::remove(&entry.path())?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

/// The filesystem type of a path.
fn filesystem(path: &Path) -> io::Result<i64> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    let mut about = std::mem::MaybeUninit::<libc::statfs>::uninit();
    // SAFETY: `path` ends with a zero byte and outlives the call; `about` has room for the struct
    // that the kernel fills, and is read only if it said that it did.
    let about = unsafe {
        if libc::statfs(path.as_ptr(), about.as_mut_ptr()) != 0 {
            return Err(io::Error::last_os_error());
        }
        about.assume_init()
    };
    Ok(about.f_type)
}

/// The name of an interface in the calling thread's network namespace.
pub(super) fn interface_name(ifindex: u32) -> io::Result<String> {
    let mut name = [0_u8; libc::IF_NAMESIZE];
    // SAFETY: `name` has the IF_NAMESIZE bytes that if_indextoname(3) may write.
    let found = unsafe { libc::if_indextoname(ifindex, name.as_mut_ptr().cast()) };
    if found.is_null() {
        return Err(io::Error::last_os_error());
    }
    let end = name
        .iter()
        .position(|byte| *byte == 0)
        .unwrap_or(name.len());
    Ok(String::from_utf8_lossy(&name[..end]).into_owned())
}

fn file(path: &Path, source: io::Error) -> XdpError {
    XdpError::File {
        path: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_elsewhere_is_refused_with_the_command_that_mends_it() {
        let error = Pins::open(Path::new("/proc/weir/none"))
            .unwrap_err()
            .to_string();
        assert!(error.contains("mount -t bpf bpf /sys/fs/bpf"), "{error}");
    }

    #[test]
    fn interfaces_have_names() {
        assert_eq!(interface_name(1).unwrap(), "lo");
        assert!(interface_name(u32::MAX).is_err());
    }
}
