//! The machine's jitter floor: what a thread sees that waits for no device at all.

use std::hint::black_box;
use std::time::Duration;

use hdrhistogram::Histogram;
use serde::Serialize;

use super::interrupt::Interrupt;
use super::traffic::{histogram, now, pinned};
use crate::error::BenchError;

/// How long the piece of arithmetic is meant to take, nanoseconds.
const PIECE_NS: u64 = 250_000;

/// What a thread on one core saw, microseconds.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Jitter {
    /// Gaps between two looks at the clock: the half of them is below.
    pub gap_p50_us: f64,
    /// 99.99 % of them are below.
    pub gap_p9999_us: f64,
    /// The longest.
    pub gap_max_us: f64,
    /// A piece of arithmetic of 250 µs or so: the median.
    pub piece_p50_us: f64,
    /// 99 % take no longer.
    pub piece_p99_us: f64,
}

/// Looks at the clock for this long, then calculates for as long.
pub fn measure(
    core: usize,
    duration: Duration,
    interrupt: &Interrupt,
) -> Result<Jitter, BenchError> {
    pinned(core, || {
        let until = |begun: u64| now() - begun < duration.as_nanos() as u64 && !interrupt.is_set();
        let mut gaps = histogram()?;
        let begun = now();
        let mut last = begun;
        while until(begun) {
            let time = now();
            gaps.saturating_record((time - last).max(1));
            last = time;
        }
        let mut rounds = 1000;
        while timed(rounds) < PIECE_NS {
            rounds *= 2;
        }
        // The fastest of several, since one may be interrupted.
        let fastest = (0..20).map(|_| timed(rounds)).min().unwrap_or(PIECE_NS);
        let rounds = rounds * PIECE_NS / fastest.max(1);
        let mut pieces = histogram()?;
        let begun = now();
        while until(begun) {
            pieces.saturating_record(timed(rounds).max(1));
        }
        interrupt.check()?;
        let micros = |of: &Histogram<u64>, share| of.value_at_quantile(share) as f64 / 1000.0;
        Ok(Jitter {
            gap_p50_us: micros(&gaps, 0.5),
            gap_p9999_us: micros(&gaps, 0.9999),
            gap_max_us: gaps.max() as f64 / 1000.0,
            piece_p50_us: micros(&pieces, 0.5),
            piece_p99_us: micros(&pieces, 0.99),
        })
    })
}

/// Nanoseconds that so many rounds of arithmetic take.
fn timed(rounds: u64) -> u64 {
    let begun = now();
    let mut word = begun | 1;
    for _ in 0..rounds {
        word = black_box(word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(23));
    }
    now() - begun
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_takes_about_as_long_as_it_is_meant_to() {
        let interrupt = Interrupt::default();
        let jitter = measure(0, Duration::from_millis(50), &interrupt).unwrap();
        assert!(jitter.piece_p50_us >= 150.0, "{jitter:?}");
        assert!(jitter.gap_p50_us <= jitter.gap_p9999_us);
    }
}
