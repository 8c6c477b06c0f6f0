//! Durations as Go's `time.ParseDuration` reads them.

/// Reads a duration as Go writes it (`90s`, `1m30s`, `-500ms`, `0`), in seconds.
pub fn seconds(text: &str) -> Result<f64, String> {
    const UNITS: [(&str, f64); 8] = [
        ("ns", 1e-9),
        ("us", 1e-6),
        ("µs", 1e-6),
        ("μs", 1e-6),
        ("ms", 1e-3),
        ("s", 1.0),
        ("m", 60.0),
        ("h", 3600.0),
    ];
    let (sign, unsigned) = match text.strip_prefix('-') {
        Some(rest) => (-1.0, rest),
        None => (1.0, text.strip_prefix('+').unwrap_or(text)),
    };
    if unsigned == "0" {
        return Ok(0.0);
    }
    let wrong = || format!("invalid duration \"{text}\"");
    let (mut total, mut rest) = (0.0_f64, unsigned);
    if rest.is_empty() {
        return Err(wrong());
    }
    let digit = |c: char| c.is_ascii_digit() || c == '.';
    while !rest.is_empty() {
        let end = rest.find(|c| !digit(c)).unwrap_or(rest.len());
        let number: f64 = rest[..end].parse().map_err(|_| wrong())?;
        rest = &rest[end..];
        let end = rest.find(digit).unwrap_or(rest.len());
        let unit = &rest[..end];
        if unit.is_empty() {
            return Err(format!("missing unit in duration \"{text}\""));
        }
        let known = UNITS.iter().find(|(name, _)| *name == unit);
        let (_, scale) =
            known.ok_or_else(|| format!("unknown unit \"{unit}\" in duration \"{text}\""))?;
        total += number * scale;
        rest = &rest[end..];
    }
    // Go counts nanoseconds in 64 bits.
    if total > 9_223_372_036.0 {
        return Err(wrong());
    }
    Ok(sign * total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_go_reads_them() {
        let good = [
            ("0", 0.0),
            ("90s", 90.0),
            ("1m30s", 90.0),
            ("500ms", 0.5),
            ("1.5h", 5400.0),
            ("-1s", -1.0),
        ];
        for (text, expected) in good {
            assert_eq!(seconds(text).as_ref(), Ok(&expected), "{text}");
        }
        let bad = [
            ("", "invalid duration \"\""),
            ("soon", "invalid duration \"soon\""),
            ("5", "missing unit in duration \"5\""),
            ("5x", "unknown unit \"x\" in duration \"5x\""),
            ("400000000h", "invalid duration \"400000000h\""),
        ];
        for (text, expected) in bad {
            assert_eq!(seconds(text), Err(expected.to_owned()), "{text}");
        }
    }
}
