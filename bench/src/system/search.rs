//! The throughput of RFC 2544: the greatest rate at which no more than a stated share is lost.

/// Halves the range below `ceiling`, so many times. A rate that is not sustained is tried once
/// more before it counts as too much, since the machine itself stops now and then.
pub fn throughput<E>(
    ceiling: f64,
    halvings: u32,
    mut sustains: impl FnMut(f64) -> Result<bool, E>,
) -> Result<f64, E> {
    let mut twice = |rate: f64| Ok(sustains(rate)? || sustains(rate)?);
    if twice(ceiling)? {
        return Ok(ceiling);
    }
    let (mut good, mut bad) = (0.0, ceiling);
    for _ in 0..halvings {
        let middle = (good + bad) / 2.0;
        if twice(middle)? {
            good = middle;
        } else {
            bad = middle;
        }
    }
    Ok(good)
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::throughput;

    #[test]
    fn the_greatest_rate_is_found_within_the_last_half() {
        for limit in [1.0, 333.0, 640.0, 999.0] {
            let sustains = |rate: f64| Ok::<_, Infallible>(rate <= limit);
            let found = throughput(1000.0, 8, sustains).unwrap();
            assert!(found <= limit && limit - found <= 1000.0 / 256.0, "{found}");
        }
    }

    #[test]
    fn the_ceiling_itself_can_be_sustained() {
        assert_eq!(throughput(5.0, 8, |_| Ok::<_, Infallible>(true)), Ok(5.0));
    }

    #[test]
    fn one_hiccup_is_forgiven_and_the_trials_are_bounded() {
        let mut trials = 0;
        let sustains = |rate: f64| {
            trials += 1;
            Ok::<_, Infallible>(rate <= 500.0 && trials != 3)
        };
        let found = throughput(1000.0, 6, sustains).unwrap();
        assert!(found > 480.0, "{found}");
        assert!(trials <= 2 * 7);
    }
}
