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
