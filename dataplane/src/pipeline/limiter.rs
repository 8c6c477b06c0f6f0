//! A token bucket: so many now and then, so many in a second, by the time that is passed in.

use crate::Time;

const SECOND_NS: u64 = 1_000_000_000;

/// Allows `rate` events a second, and a tenth of that (at least one) in a burst.
///
/// Credit is kept in nanoseconds of waiting, so that slow rates lose nothing to rounding.
#[derive(Clone, Copy, Debug, Default)]
pub struct RateLimiter {
    /// When the bucket was, or will be, empty.
    empty_at: Time,
}

impl RateLimiter {
    /// Takes one event's credit if it is there. A rate of 0 allows nothing.
    pub fn allow(&mut self, rate: u32, now: Time) -> bool {
        let Some(cost_ns) = SECOND_NS.checked_div(u64::from(rate)) else {
            return false;
        };
        let depth_ns = (SECOND_NS / 10).max(cost_ns);
        // The bucket is full when it was empty `depth_ns` ago or earlier.
        let empty_at = self.empty_at.0.max(now.0.saturating_sub(depth_ns));
        if now.0.saturating_sub(empty_at) < cost_ns {
            return false;
        }
        self.empty_at = Time(empty_at + cost_ns);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(rate: u32, times: impl Iterator<Item = u64>) -> usize {
        let mut limiter = RateLimiter::default();
        times
            .filter(|t| limiter.allow(rate, Time(SECOND_NS + t)))
            .count()
    }

    #[test]
    fn a_burst_is_a_tenth_and_a_second_gives_the_rate() {
        assert_eq!(allowed(100, std::iter::repeat_n(0, 1000)), 10);
        // A full bucket at the start, then the rate for a second.
        assert_eq!(allowed(100, (0..100_000).map(|i| i * 10_000)), 109);
    }

    #[test]
    fn slow_rates_allow_one_at_a_time_and_zero_nothing() {
        assert_eq!(allowed(1, std::iter::repeat_n(0, 5)), 1);
        assert_eq!(allowed(1, (0..50).map(|i| i * SECOND_NS / 10)), 5);
        assert_eq!(allowed(0, 0..5), 0);
    }
}
