//! Amounts as Kubernetes writes them: `100m`, `1Gi`, `1e3` (apimachinery `pkg/api/resource`).

use std::fmt;

/// What stands behind the number, and what it multiplies: of the binary ones powers of 1024, of the
/// others a power of ten.
const BINARY: [(&str, u32); 6] = [
    ("Ki", 1),
    ("Mi", 2),
    ("Gi", 3),
    ("Ti", 4),
    ("Pi", 5),
    ("Ei", 6),
];
const DECIMAL: [(&str, i32); 10] = [
    ("n", -9),
    ("u", -6),
    ("m", -3),
    ("", 0),
    ("k", 3),
    ("M", 6),
    ("G", 9),
    ("T", 12),
    ("P", 15),
    ("E", 18),
];
/// Digits of a number beyond which it is refused; Kubernetes' own fit.
const DIGITS: usize = 18;
const NANO: i128 = 1_000_000_000;

/// An amount, exact to 10⁻⁹; finer ones are rounded up, as Kubernetes does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quantity {
    nanos: i128,
    is_binary: bool,
}

impl Quantity {
    /// Reads an amount; none if the text is no such.
    pub fn parse(text: &str) -> Option<Quantity> {
        let end = text
            .find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '-' | '+'))
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(end);
        let (scale, power, is_binary) = match BINARY.iter().find(|(name, _)| *name == unit) {
            Some((_, step)) => (1024_i128.pow(*step), 0, true),
            None => (1, decimal_power(unit)?, false),
        };
        let digits = number.trim_start_matches(['+', '-']);
        if number.len() - digits.len() > 1 || digits.contains(['+', '-']) {
            return None;
        }
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all = format!("{whole}{fraction}");
        if all.is_empty() || all.len() > DIGITS || fraction.contains('.') {
            return None;
        }
        let value = all.parse::<i128>().ok()?.checked_mul(scale)?;
        let power = power - i32::try_from(fraction.len()).ok()? + 9;
        let steps = 10_i128.checked_pow(power.unsigned_abs())?;
        let nanos = match power >= 0 {
            true => value.checked_mul(steps)?,
            false => value.div_euclid(steps) + i128::from(value.rem_euclid(steps) != 0),
        };
        let nanos = if number.starts_with('-') {
            -nanos
        } else {
            nanos
        };
        Some(Quantity { nanos, is_binary })
    }

    /// The whole number of it, rounded up; none if it is negative or no `u64` holds it.
    pub fn whole(self) -> Option<u64> {
        u64::try_from(self.nanos.div_euclid(NANO) + i128::from(self.nanos.rem_euclid(NANO) != 0))
            .ok()
    }

    /// Both together, in the form of the first that is not nothing.
    #[must_use]
    pub fn plus(self, other: Quantity) -> Quantity {
        let is_binary = match self.nanos {
            0 => other.is_binary,
            _ => self.is_binary,
        };
        Quantity {
            nanos: self.nanos.saturating_add(other.nanos),
            is_binary,
        }
    }

    /// How many percent of `all` it is, rounded down; 0 of nothing.
    pub fn percent_of(self, all: Quantity) -> i128 {
        self.nanos
            .saturating_mul(100)
            .checked_div(all.nanos)
            .unwrap_or(0)
    }
}

/// The power of ten of `m`, `k`, `e3`, `E-3`.
fn decimal_power(unit: &str) -> Option<i32> {
    if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == unit) {
        return Some(*power);
    }
    let power = unit.strip_prefix(['e', 'E'])?.parse::<i32>().ok()?;
    (-18..=18).contains(&power).then_some(power)
}

/// Kubernetes' canonical form: the largest unit of which it is a whole number.
impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = self.nanos % NANO == 0;
        if self.is_binary && whole && (self.nanos / NANO).abs() >= 1024 {
            let (mut value, mut unit) = (self.nanos / NANO, "");
            for (name, _) in BINARY {
                if value % 1024 != 0 {
                    break;
                }
                (value, unit) = (value / 1024, name);
            }
            return write!(f, "{value}{unit}");
        }
        let (mut value, mut unit) = (self.nanos, "n");
        for (name, _) in &DECIMAL[1..] {
            if value == 0 || value % 1000 != 0 {
                break;
            }
            (value, unit) = (value / 1000, name);
        }
        match value {
            0 => f.write_str("0"),
            _ => write!(f, "{value}{unit}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_as_kubernetes_writes_them() {
        for (text, whole) in [
            ("64Mi", Some(64 << 20)),
            ("1500", Some(1500)),
            ("2k", Some(2000)),
            ("1e3", Some(1000)),
            ("1E3", Some(1000)),
            ("2E", Some(2_000_000_000_000_000_000)),
            ("0.5Ki", Some(512)),
            ("100m", Some(1)),
            (".5", Some(1)),
            ("7Ei", Some(7 << 60)),
            ("-1", None),
        ] {
            let read = Quantity::parse(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(read.whole(), whole, "{text}");
        }
        for text in [
            "",
            "many",
            "1.2.3",
            "1-",
            "--1",
            "Mi",
            "1 Mi",
            "1e99",
            "1234567890123456789012",
        ] {
            assert_eq!(Quantity::parse(text), None, "{text}");
        }
    }

    #[test]
    fn amounts_are_written_as_kubernetes_writes_them() {
        for (text, shown) in [
            ("1024Mi", "1Gi"),
            ("1536Mi", "1536Mi"),
            ("1023", "1023"),
            ("0.5Ki", "512"),
            ("1500m", "1500m"),
            ("1000m", "1"),
            ("2000", "2k"),
            ("0.1", "100m"),
            ("1e3", "1k"),
            ("0", "0"),
            ("0Mi", "0"),
            ("-250m", "-250m"),
        ] {
            assert_eq!(Quantity::parse(text).unwrap().to_string(), shown, "{text}");
        }
    }

    #[test]
    fn amounts_add_up_and_are_shares_of_another() {
        let read = |text| Quantity::parse(text).unwrap();
        let sum = ["64Mi", "1Gi"]
            .into_iter()
            .fold(Quantity::default(), |sum, text| sum.plus(read(text)));
        assert_eq!(sum.to_string(), "1088Mi");
        assert_eq!(read("250m").percent_of(read("2")), 12);
        assert_eq!(read("1").percent_of(Quantity::default()), 0);
        assert!(read("100m") < read("1") && read("1k") < read("1Ki"));
    }
}
