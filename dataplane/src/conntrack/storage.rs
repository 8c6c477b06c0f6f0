//! Where the table lies: a slice of atomic words.

#[cfg(loom)]
pub use loom::sync::atomic::AtomicU64;
#[cfg(not(loom))]
pub use std::sync::atomic::AtomicU64;

/// Memory for a [`Table`](super::Table): shared memory in the daemon, the heap in tests.
///
/// Every call must return the same slice.
pub trait Storage: Send + Sync {
    /// The words.
    fn words(&self) -> &[AtomicU64];
}

impl Storage for Box<[AtomicU64]> {
    fn words(&self) -> &[AtomicU64] {
        self
    }
}

impl<S: Storage + ?Sized> Storage for std::sync::Arc<S> {
    fn words(&self) -> &[AtomicU64] {
        (**self).words()
    }
}

/// `words` zeroed words on the heap.
pub fn heap(words: usize) -> Box<[AtomicU64]> {
    (0..words).map(|_| AtomicU64::new(0)).collect()
}

/// A shared region whose first words are its [`Header`](crate::shm::Header), the rest the table.
///
/// The header's layout must be [`LAYOUT`](super::LAYOUT), and its boot this one, before a table in
/// it is attached to.
#[cfg(not(loom))]
#[derive(Debug)]
pub struct SharedStorage(pub crate::shm::Region);

#[cfg(not(loom))]
impl SharedStorage {
    /// Bytes that the region needs for so many [`Table::words`](super::Table::words).
    pub const fn bytes(words: usize) -> usize {
        (crate::shm::Header::WORDS + words) * 8
    }
}

#[cfg(not(loom))]
impl Storage for SharedStorage {
    fn words(&self) -> &[AtomicU64] {
        // A region shorter than a header holds no table: `Table` says that it is too small.
        self.0
            .words()
            .get(crate::shm::Header::WORDS..)
            .unwrap_or_default()
    }
}
