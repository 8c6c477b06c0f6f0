//! Horizontal bars as plain SVG.

use std::fmt::Write as _;

/// A chart of groups of bars.
#[derive(Debug)]
pub struct Chart {
    /// What is shown.
    pub title: String,
    /// In which unit.
    pub unit: String,
    /// From the top.
    pub groups: Vec<Group>,
    /// Decimals of the values.
    pub digits: usize,
    /// Whether lengths are logarithms.
    pub logarithmic: bool,
}

/// Bars that belong together.
#[derive(Debug)]
pub struct Group {
    /// On their left.
    pub name: String,
    /// From the top.
    pub bars: Vec<Bar>,
}

/// One bar.
#[derive(Debug)]
pub struct Bar {
    /// What tells it from the others of its group; empty if it is alone.
    pub name: String,
    /// Its value.
    pub value: f64,
}

const WIDTH: f64 = 930.0;
/// As wide as the longest name of a forwarder.
const NAMES: f64 = 360.0;
const SERIES: f64 = 52.0;
const VALUES: f64 = 70.0;
const TOP: f64 = 66.0;
const BAR: f64 = 16.0;
const GAP: f64 = 12.0;
const MARGIN: f64 = 16.0;
/// The first group is ours; the others are quiet.
const OURS: &str = "#0b6e99";
const OTHERS: &str = "#9aa5b1";

impl Chart {
    /// The whole document.
    pub fn svg(&self) -> String {
        let height: f64 = TOP
            + MARGIN
            + self
                .groups
                .iter()
                .map(|group| group.bars.len() as f64 * BAR + GAP)
                .sum::<f64>();
        let mut svg = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" \
             width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" font-size=\"12\" \
             role=\"img\">\n<title>{title}</title>\n\
             <rect width=\"{WIDTH}\" height=\"{height}\" fill=\"#ffffff\"/>\n",
            title = escaped(&self.title),
        );
        text(&mut svg, MARGIN, 26.0, "start", "#1f2933", 16, &self.title);
        text(&mut svg, MARGIN, 46.0, "start", "#52606d", 12, &self.unit);
        let mut y = TOP;
        for (number, group) in self.groups.iter().enumerate() {
            let fill = if number == 0 { OURS } else { OTHERS };
            let middle = y + group.bars.len() as f64 * BAR / 2.0 + 4.0;
            text(
                &mut svg,
                NAMES - 8.0,
                middle,
                "end",
                "#1f2933",
                12,
                &group.name,
            );
            let series = group.bars.iter().any(|bar| !bar.name.is_empty());
            let left = NAMES + if series { SERIES } else { 0.0 };
            for bar in &group.bars {
                let base = y + BAR - 4.0;
                if series {
                    text(&mut svg, left - 6.0, base, "end", "#52606d", 11, &bar.name);
                }
                let length = self.share(bar.value) * (WIDTH - left - VALUES - MARGIN);
                let _ = writeln!(
                    svg,
                    "<rect x=\"{left}\" y=\"{:.1}\" width=\"{length:.1}\" height=\"{:.1}\" \
                     fill=\"{fill}\"/>",
                    y + 1.0,
                    BAR - 2.0,
                );
                let value = format!("{:.*}", self.digits, bar.value);
                text(
                    &mut svg,
                    left + length + 5.0,
                    base,
                    "start",
                    "#1f2933",
                    11,
                    &value,
                );
                y += BAR;
            }
            y += GAP;
        }
        svg + "</svg>\n"
    }

    /// A value's length, 0 to 1 of the longest.
    fn share(&self, value: f64) -> f64 {
        let values = || {
            let bars = self.groups.iter().flat_map(|group| &group.bars);
            bars.map(|bar| bar.value)
                .filter(|value| value.is_finite() && *value > 0.0)
        };
        let most = values().fold(0.0, f64::max);
        if !value.is_finite() || value <= 0.0 {
            return 0.0;
        }
        if !self.logarithmic {
            return value / most;
        }
        // The least is still seen.
        let least = values().fold(f64::INFINITY, f64::min) / 2.0;
        (value / least).ln() / (most / least).ln()
    }
}

fn text(svg: &mut String, x: f64, y: f64, anchor: &str, fill: &str, size: u32, of: &str) {
    let _ = writeln!(
        svg,
        "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\" fill=\"{fill}\" \
         font-size=\"{size}\">{}</text>",
        escaped(of)
    );
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chart(values: &[f64], logarithmic: bool) -> Chart {
        let group = |value: &f64| Group {
            name: "a < b & c".to_owned(),
            bars: vec![Bar {
                name: String::new(),
                value: *value,
            }],
        };
        Chart {
            title: "t".to_owned(),
            unit: "u".to_owned(),
            groups: values.iter().map(group).collect(),
            digits: 1,
            logarithmic,
        }
    }

    #[test]
    fn lengths_are_shares_of_the_longest() {
        let linear = chart(&[1.0, 4.0], false);
        assert_eq!((linear.share(1.0), linear.share(4.0)), (0.25, 1.0));
        let logarithmic = chart(&[1.0, 8.0], true);
        assert!((logarithmic.share(1.0) - 0.25).abs() < 1e-9);
        assert_eq!(logarithmic.share(8.0), 1.0);
    }

    #[test]
    fn what_was_not_measured_has_no_length() {
        let chart = chart(&[0.0, f64::NAN], true);
        assert_eq!((chart.share(0.0), chart.share(f64::NAN)), (0.0, 0.0));
    }

    #[test]
    fn names_cannot_break_the_document() {
        let svg = chart(&[1.0], false).svg();
        assert!(svg.contains("a &lt; b &amp; c"), "{svg}");
        assert!(svg.ends_with("</svg>\n"));
    }
}
