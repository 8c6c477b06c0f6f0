//! Where the table lies: a slice of atomic words.

#[cfg(loom)]
pub use interleaved::AtomicU64;
#[cfg(not(loom))]
pub use std::sync::atomic::AtomicU64;

/// loom's atomics, with loads and stores that both read and write.
///
/// loom 0.7 looks for races against the *last* access of a word only: a plain load by one thread is
/// forgotten as soon as another thread loads the same word, and what that one stores afterwards is
/// never tried before the first load. And it lets a read-modify-write read what a concurrent plain
/// store has already overwritten, and still come after it. With read-modify-writes alone, every
/// interleaving is tried. The price is that loads always see the newest value: reordering of memory
/// accesses is argued in comments (acquire and release), not tried.
#[cfg(loom)]
mod interleaved {
    use std::sync::atomic::Ordering;

    /// See the module.
    #[derive(Debug)]
    pub struct AtomicU64(loom::sync::atomic::AtomicU64);

    impl AtomicU64 {
        /// A word.
        pub fn new(value: u64) -> Self {
            AtomicU64(loom::sync::atomic::AtomicU64::new(value))
        }

        /// Its value.
        pub fn load(&self, _: Ordering) -> u64 {
            self.0.fetch_or(0, Ordering::AcqRel)
        }

        /// Sets it.
        pub fn store(&self, value: u64, _: Ordering) {
            self.0.swap(value, Ordering::AcqRel);
        }
    }

    impl std::ops::Deref for AtomicU64 {
        type Target = loom::sync::atomic::AtomicU64;

        fn deref(&self) -> &Self::Target {
            &self.0
        }
    }
}

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

/// A shared mapping, behind the header that says whether its content can be trusted.
#[cfg(not(loom))]
impl Storage for crate::shm::Region {
    fn words(&self) -> &[AtomicU64] {
        let words = crate::shm::Region::words(self);
        words.get(crate::shm::Header::WORDS..).unwrap_or_default()
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
