//! What several runs of one measurement say together.

use serde::Serialize;

/// The middle run and the extremes.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct Summary {
    /// The middle value; the mean of the two middle ones of an even number.
    pub median: f64,
    /// The least.
    pub min: f64,
    /// The greatest.
    pub max: f64,
}

impl Summary {
    /// Of at least one value; None of none.
    pub fn of(values: &[f64]) -> Option<Summary> {
        let mut sorted = values.to_vec();
        sorted.sort_unstable_by(f64::total_cmp);
        let (min, max) = (*sorted.first()?, *sorted.last()?);
        let middle = sorted.len() / 2;
        let median = if sorted.len().is_multiple_of(2) {
            (sorted[middle - 1] + sorted[middle]) / 2.0
        } else {
            sorted[middle]
        };
        Some(Summary { median, min, max })
    }
}

#[cfg(test)]
mod tests {
    use super::Summary;

    fn of(values: &[f64]) -> (f64, f64, f64) {
        let summary = Summary::of(values).unwrap();
        (summary.min, summary.median, summary.max)
    }

    #[test]
    fn the_median_is_the_middle_run_whatever_their_order() {
        assert_eq!(of(&[5.0]), (5.0, 5.0, 5.0));
        assert_eq!(of(&[9.0, 1.0, 4.0]), (1.0, 4.0, 9.0));
        assert_eq!(of(&[9.0, 1.0, 4.0, 100.0, 2.0]), (1.0, 4.0, 100.0));
    }

    #[test]
    fn an_even_number_of_runs_has_two_in_the_middle() {
        assert_eq!(of(&[8.0, 2.0]), (2.0, 5.0, 8.0));
        assert_eq!(of(&[1.0, 40.0, 2.0, 4.0]), (1.0, 3.0, 40.0));
    }

    #[test]
    fn no_run_has_no_summary() {
        assert_eq!(Summary::of(&[]), None);
    }
}
