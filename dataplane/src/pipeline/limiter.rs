//! Bounds by time, which is passed in, and by number: what one worker may let through or tell.

use crate::Time;
use crate::snapshot::PortId;

/// One worker's limiters.
#[derive(Debug)]
pub struct Limiters {
    /// Bounds the ICMP errors that are forwarded.
    pub related_errors: RateLimiter,
    /// Bounds the ICMP errors that we make.
    pub own_errors: RateLimiter,
    /// By the port that a packet came in by, questions for a next hop that may use the whole event
    /// queue.
    questions: Box<[RateLimiter]>,
    /// Where the choice of flows for the self-check stands.
    phase: u32,
}

/// Questions for a next hop, of what came in by one port in a second, that are told as news; a
/// tenth of that in a burst. A pod that sends to many absent neighbours has its further questions
/// told where repeated denials are, and leaves the rest of the queue to others.
const QUESTIONS_PER_SECOND: u32 = 20;

/// 2³² by the golden ratio: multiples of it, modulo 2³², lie evenly in every range, so that no
/// rhythm in the traffic falls in with the choice.
const GOLDEN: u32 = 0x9e37_79b9;

impl Limiters {
    /// Full buckets, for ports numbered below `ports_max`.
    pub fn new(ports_max: u16) -> Limiters {
        Limiters {
            related_errors: RateLimiter::default(),
            own_errors: RateLimiter::default(),
            questions: vec![RateLimiter::default(); usize::from(ports_max)].into(),
            phase: 0,
        }
    }

    /// Whether a question for a next hop, of what came in by `ingress`, is told as news. Of a port
    /// beyond those there are, none is.
    pub(super) fn asks(&mut self, ingress: PortId, now: Time) -> bool {
        let questions = self.questions.get_mut(usize::from(ingress.0));
        questions.is_some_and(|limiter| limiter.allow(QUESTIONS_PER_SECOND, now))
    }

    /// Whether this new flow is one of `one_in` that the self-check takes; none if that is 0.
    pub(super) fn samples(&mut self, one_in: u32) -> bool {
        if one_in == 0 {
            return false;
        }
        self.phase = self.phase.wrapping_add(GOLDEN);
        u64::from(self.phase) * u64::from(one_in) < 1 << 32
    }
}

const SECOND_NS: u64 = 1_000_000_000;

/// A token bucket: allows `rate` events a second, and a tenth of that (at least one) in a burst.
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
    fn samples_are_one_in_so_many_whatever_the_rhythm() {
        for one_in in [1, 2, 3, 10, 1000] {
            for rhythm in [1, 2, 7, 64] {
                let mut limiters = Limiters::new(1);
                let flows = 100_000;
                let chosen: Vec<usize> = (0..flows).filter(|_| limiters.samples(one_in)).collect();
                let expected = flows / one_in as usize;
                assert!(
                    chosen.len().abs_diff(expected) <= 3,
                    "{one_in}: {}",
                    chosen.len()
                );
                // Of every so-manieth flow as many as of any other.
                let beat = chosen.iter().filter(|n| *n % rhythm == 0).count();
                let share = chosen.len() / rhythm;
                assert!(
                    beat.abs_diff(share) <= share / 2 + 5,
                    "{one_in} {rhythm}: {beat}"
                );
            }
        }
        assert!(!Limiters::new(1).samples(0));
    }

    #[test]
    fn each_port_has_its_own_share_of_questions() {
        let mut limiters = Limiters::new(2);
        let mut asked = |port: u16| {
            let now = Time(SECOND_NS);
            (0..10).filter(|_| limiters.asks(PortId(port), now)).count()
        };
        assert_eq!([asked(0), asked(0), asked(1), asked(2)], [2, 0, 2, 0]);
    }

    #[test]
    fn slow_rates_allow_one_at_a_time_and_zero_nothing() {
        assert_eq!(allowed(1, std::iter::repeat_n(0, 5)), 1);
        assert_eq!(allowed(1, (0..50).map(|i| i * SECOND_NS / 10)), 5);
        assert_eq!(allowed(0, 0..5), 0);
    }
}
