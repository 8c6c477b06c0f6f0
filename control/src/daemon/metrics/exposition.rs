//! Prometheus' text exposition format 0.0.4, as it is written.

use std::fmt::{Display, Write};

/// What a metric is.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// It only rises, from zero at the daemon's start.
    Counter,
    /// It is what it is.
    Gauge,
    /// How often something took how long.
    Histogram,
}

/// The text so far.
#[derive(Default)]
pub(super) struct Exposition {
    pub(super) text: String,
}

impl Exposition {
    /// Begins a metric: its samples follow.
    pub(super) fn family(&mut self, name: &str, kind: Kind, help: &str) -> Family<'_> {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.trim().replace('\\', "\\\\").replace('\n', "\\n");
        // Writing into a String cannot fail.
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
        Family {
            name: name.to_owned(),
            text: &mut self.text,
        }
    }

    /// A metric with a single sample.
    pub(super) fn single(&mut self, name: &str, kind: Kind, help: &str, value: impl Display) {
        self.family(name, kind, help).sample(&[], value);
    }
}

/// Bounds of a histogram of durations, seconds: a publication takes less than the first, an apply of
/// thousands of objects more than a second.
const BOUNDS_S: [f64; 14] = [
    0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
    1.0,
];

/// How often something took how long.
#[derive(Clone, Copy, Debug, Default)]
pub struct Durations {
    /// By bound, those that took no longer and longer than the bound before; those beyond at the end.
    counts: [u64; BOUNDS_S.len() + 1],
    sum_s: f64,
}

impl Durations {
    /// Something took so long.
    pub fn add(&mut self, seconds: f64) {
        let place = BOUNDS_S.iter().position(|bound| seconds <= *bound);
        self.counts[place.unwrap_or(BOUNDS_S.len())] += 1;
        self.sum_s += seconds;
    }
}

/// A metric whose samples are being written.
pub(super) struct Family<'a> {
    name: String,
    text: &'a mut String,
}

impl Family<'_> {
    pub(super) fn sample(&mut self, labels: &[(&str, &str)], value: impl Display) {
        self.text.push_str(&self.name);
        for (at, (key, label)) in labels.iter().enumerate() {
            self.text.push(if at == 0 { '{' } else { ',' });
            let _ = write!(self.text, "{key}=\"{}\"", escaped(label));
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        let _ = writeln!(self.text, " {value}");
    }
}

impl Exposition {
    /// A histogram without labels.
    pub(super) fn durations(&mut self, name: &str, help: &str, durations: &Durations) {
        let text = self.family(name, Kind::Histogram, help).text;
        let mut total = 0;
        let bounds = BOUNDS_S.iter().map(f64::to_string);
        for (count, bound) in durations.counts.iter().zip(bounds.chain(["+Inf".into()])) {
            total += count;
            let _ = writeln!(text, "{name}_bucket{{le=\"{bound}\"}} {total}");
        }
        let _ = writeln!(text, "{name}_sum {}\n{name}_count {total}", durations.sum_s);
    }
}

/// A label's value with what must be escaped.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn help_type_and_labels_are_written_as_the_format_wants_them() {
        let mut out = Exposition::default();
        out.single("weir_a", Kind::Gauge, " One.\nTwo\\. ", 0.5);
        let mut family = out.family("weir_b_total", Kind::Counter, "B.");
        family.sample(&[("x", "a\"b\\c\nd"), ("y", "")], 7);
        assert_eq!(
            out.text,
            "# HELP weir_a One.\\nTwo\\\\.\n# TYPE weir_a gauge\nweir_a 0.5\n\
             # HELP weir_b_total B.\n# TYPE weir_b_total counter\n\
             weir_b_total{x=\"a\\\"b\\\\c\\nd\",y=\"\"} 7\n"
        );
    }

    #[test]
    fn a_histogram_counts_up_to_each_bound() {
        let mut durations = Durations::default();
        // Sums of powers of two are exact.
        for seconds in [0.000_030_517_578_125, 0.25, 0.5, 3.0] {
            durations.add(seconds);
        }
        let mut out = Exposition::default();
        out.durations("weir_x_seconds", "X.", &durations);
        for line in [
            "# TYPE weir_x_seconds histogram",
            "weir_x_seconds_bucket{le=\"0.00005\"} 1",
            "weir_x_seconds_bucket{le=\"0.0001\"} 1",
            "weir_x_seconds_bucket{le=\"0.25\"} 2",
            "weir_x_seconds_bucket{le=\"0.5\"} 3",
            "weir_x_seconds_bucket{le=\"+Inf\"} 4",
            "weir_x_seconds_sum 3.750030517578125",
            "weir_x_seconds_count 4",
        ] {
            assert!(
                out.text.lines().any(|found| found == line),
                "{line}: {}",
                out.text
            );
        }
    }
}
