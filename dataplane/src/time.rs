//! Time as the dataplane sees it: an argument, never read inside.

/// Nanoseconds of the machine's monotonic clock (`CLOCK_MONOTONIC`), which restarts at boot.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Time(pub u64);

impl Time {
    /// This moment and `seconds` later.
    pub const fn plus_seconds(self, seconds: u64) -> Time {
        Time(self.0.saturating_add(seconds.saturating_mul(1_000_000_000)))
    }

    /// This moment and `nanoseconds` later.
    pub const fn plus_nanos(self, nanoseconds: u64) -> Time {
        Time(self.0.saturating_add(nanoseconds))
    }

    /// Nanoseconds since `earlier`, 0 if it is not earlier.
    pub const fn since(self, earlier: Time) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}
