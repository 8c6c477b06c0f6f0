//! Asking for memory before it is needed.

/// Asks the processor to bring the cache line of `place` near, and goes on at once.
///
/// A hint: nothing is read as far as the program is concerned. Where the processor has no such
/// instruction that stable Rust can name, it does nothing.
#[inline(always)]
pub fn prefetch<T>(place: &T) {
    #[cfg(target_arch = "x86_64")]
    // JUSTIFICATION: an early load whose value is used later holds up everything behind it as soon
    // as the processor's window of instructions is full, which is after a few packets; only this
    // instruction retires before its line has come. `core::hint` has no stable name for it.
    // SAFETY: the instruction exists on every x86-64 processor, never faults and changes no memory,
    // whatever the address; this one is of a live reference.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(place).cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = place;
}
