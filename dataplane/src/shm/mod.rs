//! Memory that is shared by descriptor: the UMEM, its owner words, the connection table.
//!
//! A [`Region`] is a shared mapping of a descriptor that somebody else opened (a memfd, or a file
//! on a tmpfs). It holds no pointers, so that a process that maps the same descriptor later finds
//! the same things at the same offsets. A [`Header`] says whether what it finds can be trusted.
//! [`prefetch`] asks for a line of it before it is needed.
#![allow(unsafe_code)]

mod header;
mod prefetch;

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::atomic::AtomicU64;

pub use header::{Found, Header};
pub use prefetch::prefetch;

/// A shared mapping of a descriptor, unmapped on drop.
///
/// The only safe view is one of atomic words, because another process may hold the same memory.
#[derive(Debug)]
pub struct Region {
    base: NonNull<u8>,
    bytes: usize,
    fd: OwnedFd,
}

// SAFETY: the mapping belongs to the region alone, lives until it is dropped, and is only reached
// through atomics or (by `xsk::Umem`) under the discipline of frame ownership.
unsafe impl Send for Region {}
// SAFETY: as above.
unsafe impl Sync for Region {}

impl Region {
    /// Maps the first `bytes` of `fd`, readable, writable and shared. Pages are populated, so that
    /// later accesses do not fault, and are huge ones where the file system gives them to those who
    /// ask (a tmpfs with `huge=advise` or more; for a memfd
    /// `/sys/kernel/mm/transparent_hugepage/shmem_enabled`).
    ///
    /// # Errors
    ///
    /// `InvalidInput` when `bytes` is 0 or no multiple of 8, or the file is shorter (touching
    /// memory past its end would be SIGBUS); otherwise what `fstat`, `mmap` and `madvise` say: without
    /// memory, or on a full file system, pages cannot be populated.
    pub fn map(fd: OwnedFd, bytes: usize) -> io::Result<Region> {
        if bytes == 0 || !bytes.is_multiple_of(8) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a region of {bytes} bytes: must be a multiple of 8 above 0"),
            ));
        }
        let length = std::fs::File::from(fd.try_clone()?).metadata()?.len();
        if length < bytes as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("a region of {bytes} bytes in a file of {length}: set its length first"),
            ));
        }
        // SAFETY: a fresh mapping at an address of the kernel's choice touches no memory of ours.
        let address = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                bytes,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_SHARED,
                fd.as_raw_fd(),
                0,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = NonNull::new(address.cast()).ok_or_else(io::Error::last_os_error)?;
        let region = Region { base, bytes, fd };
        // A kernel without huge pages says no, and the others do.
        let _ = region.advise(libc::MADV_HUGEPAGE);
        region.advise(libc::MADV_POPULATE_WRITE)?;
        Ok(region)
    }

    fn advise(&self, advice: libc::c_int) -> io::Result<()> {
        // SAFETY: base and bytes are what mmap returned; neither advice changes what stands there.
        match unsafe { libc::madvise(self.base.as_ptr().cast(), self.bytes, advice) } {
            0 => Ok(()),
            _ => Err(io::Error::last_os_error()),
        }
    }

    /// The whole region as words.
    pub fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is page-aligned, `bytes` long, lives as long as `self`, and any bits
        // are a valid u64.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().cast(), self.bytes / 8) }
    }

    /// Its length in bytes.
    pub fn len(&self) -> usize {
        self.bytes
    }

    /// Never: a region has at least one word.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Its first byte, for `xsk::Umem`, which keeps its own discipline.
    pub(crate) fn base(&self) -> NonNull<u8> {
        self.base
    }
}

impl AsFd for Region {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        // SAFETY: base and bytes are what mmap returned, and no view outlives `self`.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.bytes) };
    }
}

/// An anonymous memory file of `bytes` zero bytes, sealed against changes of its length.
///
/// # Errors
///
/// What `memfd_create`, `ftruncate` and `fcntl` say.
pub fn memfd(name: &CStr, bytes: usize) -> io::Result<OwnedFd> {
    // SAFETY: the name is a C string; the call creates a descriptor and touches no memory.
    let fd =
        unsafe { libc::memfd_create(name.as_ptr(), libc::MFD_CLOEXEC | libc::MFD_ALLOW_SEALING) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the descriptor was just created and belongs to nobody else.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    std::fs::File::from(fd.try_clone()?).set_len(bytes as u64)?;
    let seals = libc::F_SEAL_SHRINK | libc::F_SEAL_GROW;
    // SAFETY: the descriptor is open and F_ADD_SEALS takes an int.
    if unsafe { libc::fcntl(fd.as_raw_fd(), libc::F_ADD_SEALS, seals) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(fd)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::Ordering;

    #[test]
    fn two_mappings_of_one_descriptor_are_one_memory() {
        let fd = memfd(c"weir-test", 4096).unwrap();
        let other = fd.try_clone().unwrap();
        let first = Region::map(fd, 4096).unwrap();
        let second = Region::map(other, 4096).unwrap();
        first.words()[511].store(7, Ordering::Release);
        assert_eq!(second.words()[511].load(Ordering::Acquire), 7);
        assert_eq!(first.words().len(), 512);
    }

    #[test]
    fn a_region_beyond_the_file_is_refused_instead_of_a_later_sigbus() {
        let fd = memfd(c"weir-test", 4096).unwrap();
        let error = Region::map(fd, 8192).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        for bytes in [0, 12] {
            let fd = memfd(c"weir-test", 4096).unwrap();
            assert!(Region::map(fd, bytes).is_err());
        }
    }

    #[test]
    fn pages_are_there_before_anybody_touches_them() {
        let bytes = 1 << 20;
        let region = Region::map(memfd(c"weir-test", bytes).unwrap(), bytes).unwrap();
        let begins = format!("{:x}-", region.base().as_ptr() as usize);
        let maps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let mut of_region = maps.lines().skip_while(|line| !line.starts_with(&begins));
        let resident = of_region
            .find_map(|line| line.strip_prefix("Rss:"))
            .unwrap();
        assert_eq!(resident.trim(), "1024 kB");
    }

    #[test]
    fn a_memfd_keeps_its_length() {
        let fd = memfd(c"weir-test", 4096).unwrap();
        assert!(std::fs::File::from(fd).set_len(0).is_err());
    }
}
