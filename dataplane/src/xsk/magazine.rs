//! Free frames near a worker.
//!
//! Frames received by one worker are completed at another's port, so that free frames wander. Each
//! worker has a magazine without atomics; magazines exchange whole batches through the one bounded
//! return queue, so that the queue costs two atomic operations per [`Batch::CAPACITY`] frames.

use std::sync::Arc;

use arrayvec::ArrayVec;

use super::umem::{Frame, Owner, PACKET_OFFSET, Umem};

/// Numbers of free chunks, as they travel through the return queue.
#[derive(Debug, Default)]
pub struct Batch(ArrayVec<u32, 32>);

impl Batch {
    /// Chunks in a full batch.
    pub const CAPACITY: usize = 32;

    pub(super) fn new() -> Self {
        Batch::default()
    }

    /// The caller has checked [`Batch::is_full`].
    pub(super) fn push(&mut self, chunk: u32) {
        self.0.push(chunk);
    }

    pub(super) fn is_full(&self) -> bool {
        self.0.is_full()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn chunks(&self) -> impl Iterator<Item = u32> {
        self.0.iter().copied()
    }
}

/// Free frames of one worker: at most two batches.
#[derive(Debug)]
pub struct Magazine {
    umem: Arc<Umem>,
    near: Batch,
    far: Batch,
}

impl Magazine {
    pub(super) fn new(umem: Arc<Umem>) -> Self {
        Magazine {
            umem,
            near: Batch::new(),
            far: Batch::new(),
        }
    }

    /// A frame for a packet of our own making, its packet starting at [`PACKET_OFFSET`]. `None`
    /// when no frame is free anywhere this worker can see.
    pub fn take(&mut self) -> Option<Frame> {
        let chunk = self.take_chunk()?;
        self.umem.set_owner(chunk, Owner::Held);
        Some(self.umem.frame(chunk, PACKET_OFFSET as u16))
    }

    /// Takes a frame back.
    ///
    /// # Panics
    ///
    /// When the frame belongs to another UMEM.
    pub fn give(&mut self, frame: Frame) {
        let _ = self.umem.address(&frame);
        self.umem.set_owner(frame.chunk, Owner::Free);
        self.give_chunk(frame.chunk);
    }

    /// The packet memory.
    pub fn umem(&self) -> &Arc<Umem> {
        &self.umem
    }

    /// The numbers of the free chunks in it.
    pub fn chunks(&self) -> impl Iterator<Item = u32> {
        self.near.chunks().chain(self.far.chunks())
    }

    /// A free chunk, its owner word still `Free`.
    pub(super) fn take_chunk(&mut self) -> Option<u32> {
        if self.near.0.is_empty() {
            if self.far.0.is_empty() {
                self.far = self.umem.take_batch()?;
            }
            std::mem::swap(&mut self.near, &mut self.far);
        }
        self.near.0.pop()
    }

    /// Takes back a chunk whose owner word says `Free` already.
    pub(super) fn give_chunk(&mut self, chunk: u32) {
        if self.near.is_full() {
            if !self.far.is_empty() {
                self.umem.give_back(std::mem::take(&mut self.far));
            }
            std::mem::swap(&mut self.near, &mut self.far);
        }
        self.near.push(chunk);
    }
}

impl Drop for Magazine {
    fn drop(&mut self) {
        self.umem.give_back(std::mem::take(&mut self.near));
        self.umem.give_back(std::mem::take(&mut self.far));
    }
}
