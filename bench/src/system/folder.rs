//! A folder in memory, as a node's `runtime_dir` should be.

use std::fs;
use std::path::{Path, PathBuf};

use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};

use super::setup;
use crate::error::BenchError;

/// A tmpfs with huge pages, if the kernel has them; gone with all that is in it when this is dropped.
#[derive(Debug)]
pub struct MemoryFolder(PathBuf);

impl MemoryFolder {
    /// Makes the folder at `path`.
    pub fn create(path: PathBuf) -> Result<MemoryFolder, BenchError> {
        fs::create_dir_all(&path).map_err(setup)?;
        let folder = MemoryFolder(path);
        let with = |options| {
            let flags = MountFlags::NODEV | MountFlags::NOSUID;
            mount("tmpfs", &folder.0, "tmpfs", flags, options)
        };
        with(Some(c"mode=0755,huge=within_size"))
            .or_else(|_| with(Some(c"mode=0755")))
            .map_err(setup)?;
        Ok(folder)
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for MemoryFolder {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
        let _ = fs::remove_dir(&self.0);
    }
}
