//! Moments on the command line: so long ago, a day, or RFC 3339.

use std::time::{Duration, SystemTime};

use crate::cli::values;
use crate::flow::{normalize_time, time_text};

/// The moment as [`Flow::time`](crate::flow::Flow::time) has it; none if the text is no moment.
pub fn parse(text: &str, now: SystemTime) -> Option<String> {
    if let Some(ago) = duration(text) {
        return Some(time_text(now.checked_sub(ago)?));
    }
    if let Some(moment) = normalize_time(text) {
        return Some(moment);
    }
    // A day, or an hour or minute of it with a zone: what is left out is zero.
    let (date, rest) = text.split_once('T').unwrap_or((text, ""));
    let zone = rest.find(['Z', '+', '-']).unwrap_or(rest.len());
    let (clock, zone) = rest.split_at(zone);
    let zone = if rest.is_empty() { "Z" } else { zone };
    let clock = match clock.split(':').count() {
        _ if rest.is_empty() => "00:00:00".to_owned(),
        1 => format!("{clock}:00:00"),
        2 => format!("{clock}:00"),
        _ => return None,
    };
    normalize_time(&format!("{date}T{clock}{zone}"))
}

/// Go's durations, `1h43m`, `2.5s`, as far as they are not negative.
fn duration(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(values::seconds(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_in_every_spelling() {
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_795_226_400);
        for (text, expected) in [
            ("3s", Some("2026-11-21T01:59:57.000000000Z")),
            ("1h43m", Some("2026-11-21T00:17:00.000000000Z")),
            ("1.5s", Some("2026-11-21T01:59:58.500000000Z")),
            ("250ms", Some("2026-11-21T01:59:59.750000000Z")),
            ("2026-11-20", Some("2026-11-20T00:00:00.000000000Z")),
            ("2026-11-20T08Z", Some("2026-11-20T08:00:00.000000000Z")),
            (
                "2026-11-20T08:30+01:00",
                Some("2026-11-20T07:30:00.000000000Z"),
            ),
            (
                "2026-11-20T08:30:05.25-07:00",
                Some("2026-11-20T15:30:05.250000000Z"),
            ),
            ("", None),
            ("3", None),
            ("3 apples", None),
            ("noon", None),
            ("-3s", None),
        ] {
            assert_eq!(parse(text, now).as_deref(), expected, "{text}");
        }
    }
}
