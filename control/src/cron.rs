//! When a CronJob runs: schedules as Kubernetes reads them (robfig/cron v3, `ParseStandard`), with its
//! words for what is wrong.
//!
//! Five fields, minute, hour, day of the month, month, day of the week, of `*`, `?`, numbers, names of
//! months and days, ranges, lists and steps; where both days are given either will do. Or `@hourly` and
//! its like, or `@every 90m`. An hour that a change of clocks leaves out is left out.

use std::ops::RangeInclusive;

use jiff::civil::Date;
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp, ToSpan, Zoned};

use crate::go_duration;

/// Years within which a schedule must have a time, as 30 February has not.
const YEARS: i16 = 5;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];
const DAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// A schedule in its time zone.
#[derive(Clone, Debug)]
pub struct Schedule {
    times: Times,
    zone: TimeZone,
}

#[derive(Clone, Debug, PartialEq)]
enum Times {
    /// Seconds between one and the next.
    Every(i64),
    At(Fields),
}

/// What each field allows, a bit a value.
#[derive(Clone, Debug, PartialEq)]
struct Fields {
    minutes: Field,
    hours: Field,
    days: Field,
    months: Field,
    weekdays: Field,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Field {
    allowed: u64,
    /// Whether it is `*`, which says nothing.
    any: bool,
}

impl Field {
    fn allows(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.allowed & (1 << value) != 0)
    }
}

impl Schedule {
    /// Reads a schedule, in UTC or in the zone named.
    pub fn parse(text: &str, zone: Option<&str>) -> Result<Schedule, String> {
        let zone = match zone {
            Some(name) => time_zone(name)?,
            None => TimeZone::UTC,
        };
        let times = times(text)?;
        Ok(Schedule { times, zone })
    }

    /// The first time after `after`, both in seconds since 1970; `None` if it never comes.
    pub fn next(&self, after: i64) -> Option<i64> {
        match &self.times {
            Times::Every(seconds) => after.checked_add(*seconds),
            Times::At(fields) => {
                let after = Timestamp::from_second(after).ok()?;
                let found = fields.next(&after.to_zoned(self.zone.clone()))?;
                Some(found.timestamp().as_second())
            }
        }
    }
}

/// A time zone of the IANA's data base, as far as this machine has it.
pub fn time_zone(name: &str) -> Result<TimeZone, String> {
    match name {
        "UTC" | "Etc/UTC" => Ok(TimeZone::UTC),
        _ => TimeZone::get(name).map_err(|_| format!("unknown time zone {name}")),
    }
}

fn times(text: &str) -> Result<Times, String> {
    if text.is_empty() {
        return Err("empty spec string".into());
    }
    if let Some(every) = text.strip_prefix("@every ") {
        let seconds = go_duration::seconds(every)
            .map_err(|why| format!("failed to parse duration {text}: time: {why}"))?;
        // Whole seconds, at least one.
        return Ok(Times::Every((seconds as i64).max(1)));
    }
    let fields = match text {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other if other.starts_with('@') => {
            return Err(format!("unrecognized descriptor: {other}"));
        }
        other => other,
    };
    let fields: Vec<&str> = fields.split_whitespace().collect();
    let &[minutes, hours, days, months, weekdays] = fields.as_slice() else {
        return Err(format!(
            "expected exactly 5 fields, found {}: [{}]",
            fields.len(),
            fields.join(" ")
        ));
    };
    Ok(Times::At(Fields {
        minutes: field(minutes, 0..=59, &[])?,
        hours: field(hours, 0..=23, &[])?,
        days: field(days, 1..=31, &[])?,
        months: field(months, 1..=12, &MONTHS)?,
        weekdays: field(weekdays, 0..=6, &DAYS)?,
    }))
}

fn field(text: &str, bounds: RangeInclusive<u32>, names: &[&str]) -> Result<Field, String> {
    let mut field = Field {
        allowed: 0,
        any: false,
    };
    for part in text.split(',').filter(|part| !part.is_empty()) {
        let (allowed, any) = range(part, &bounds, names)?;
        field.allowed |= allowed;
        field.any |= any;
    }
    Ok(field)
}

/// `NUMBER | NUMBER-NUMBER | * [/STEP]`: what it allows, and whether that is all.
fn range(text: &str, bounds: &RangeInclusive<u32>, names: &[&str]) -> Result<(u64, bool), String> {
    let (first, last) = (*bounds.start(), *bounds.end());
    let mut steps = text.split('/');
    let ends: Vec<&str> = steps.next().unwrap_or_default().split('-').collect();
    let value = |text: &str| match names
        .iter()
        .position(|name| text.eq_ignore_ascii_case(name))
    {
        Some(at) => Ok(first + at as u32),
        None => whole_number(text),
    };
    let any = matches!(ends[0], "*" | "?");
    let (start, end) = match ends.as_slice() {
        _ if any => (first, last),
        [only] => (value(only)?, value(only)?),
        [from, to] => (value(from)?, value(to)?),
        _ => return Err(format!("too many hyphens: {text}")),
    };
    let step = match (steps.next(), steps.next()) {
        (None, _) => None,
        (Some(step), None) => Some(whole_number(step)?),
        _ => return Err(format!("too many slashes: {text}")),
    };
    // From a number on, where a step follows it.
    let end = if step.is_some() && ends.len() == 1 {
        last
    } else {
        end
    };
    let step = step.unwrap_or(1);
    if start < first {
        return Err(format!(
            "beginning of range ({start}) below minimum ({first}): {text}"
        ));
    }
    if end > last {
        return Err(format!(
            "end of range ({end}) above maximum ({last}): {text}"
        ));
    }
    if start > end {
        return Err(format!(
            "beginning of range ({start}) beyond end of range ({end}): {text}"
        ));
    }
    if step == 0 {
        return Err(format!("step of range should be a positive number: {text}"));
    }
    let values = (start..=end).step_by(step as usize);
    Ok((
        values.fold(0, |all, value| all | 1 << value),
        any && step == 1,
    ))
}

fn whole_number(text: &str) -> Result<u32, String> {
    let number: i64 = text.parse().map_err(|_| {
        format!("failed to parse int from {text}: strconv.Atoi: parsing \"{text}\": invalid syntax")
    })?;
    if number < 0 {
        return Err(format!("negative number ({number}) not allowed: {text}"));
    }
    // Far beyond every field, and told so there.
    Ok(u32::try_from(number).unwrap_or(u32::MAX))
}

impl Fields {
    fn allow_day(&self, date: Date) -> bool {
        let day = self.days.allows(date.day());
        let weekday = self.weekdays.allows(date.weekday().to_sunday_zero_offset());
        match self.days.any || self.weekdays.any {
            true => day && weekday,
            false => day || weekday,
        }
    }

    fn next(&self, after: &Zoned) -> Option<Zoned> {
        let into = Span::new()
            .seconds(after.second())
            .nanoseconds(after.subsec_nanosecond());
        let mut at = after.checked_sub(into).ok()?.checked_add(1.minute()).ok()?;
        let last_year = after.year().saturating_add(YEARS);
        while at.year() <= last_year {
            let date = at.date();
            let later = if !self.months.allows(date.month()) {
                let first = date.first_of_month().checked_add(1.month()).ok()?;
                first.to_zoned(at.time_zone().clone()).ok()?
            } else if !self.allow_day(date) {
                at.tomorrow().ok()?.start_of_day().ok()?
            } else if !self.hours.allows(at.hour()) {
                let left = i64::from(60 - at.minute());
                at.checked_add(left.minutes()).ok()?
            } else if !self.minutes.allows(at.minute()) {
                at.checked_add(1.minute()).ok()?
            } else {
                return Some(at);
            };
            at = later;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn second(text: &str) -> i64 {
        text.parse::<Timestamp>().unwrap().as_second()
    }

    /// The times of a schedule after a moment.
    fn times_of(schedule: &str, zone: Option<&str>, after: &str, count: usize) -> Vec<String> {
        let schedule = Schedule::parse(schedule, zone).unwrap();
        let mut at = second(after);
        let mut found = Vec::new();
        for _ in 0..count {
            at = schedule.next(at).unwrap();
            found.push(Timestamp::from_second(at).unwrap().to_string());
        }
        found
    }

    #[test]
    fn schedules_have_the_times_that_cron_gives_them() {
        for (schedule, expected) in [
            ("* * * * *", "2026-11-30T04:07:00Z"),
            ("*/15 * * * *", "2026-11-30T04:15:00Z"),
            ("5/20 * * * *", "2026-11-30T04:25:00Z"),
            ("0 4 * * *", "2026-12-01T04:00:00Z"),
            ("30 2,14-16/2 * * *", "2026-11-30T14:30:00Z"),
            ("0 0 31 * *", "2026-12-31T00:00:00Z"),
            ("0 0 29 feb ?", "2028-02-29T00:00:00Z"),
            ("0 9 * * MON-fri", "2026-11-30T09:00:00Z"),
            // Either of two days will do.
            ("0 0 13 * 5", "2026-12-04T00:00:00Z"),
            ("0 0 1-7/1 * wed", "2026-12-01T00:00:00Z"),
            ("@hourly", "2026-11-30T05:00:00Z"),
            ("@daily", "2026-12-01T00:00:00Z"),
            ("@weekly", "2026-12-06T00:00:00Z"),
            ("@monthly", "2026-12-01T00:00:00Z"),
            ("@yearly", "2027-01-01T00:00:00Z"),
            ("@every 1m30s", "2026-11-30T04:08:11Z"),
        ] {
            let found = times_of(schedule, None, "2026-11-30T04:06:41Z", 1);
            assert_eq!(found, [expected], "{schedule}");
        }
        let never = Schedule::parse("0 0 30 2 *", None).unwrap();
        assert_eq!(never.next(second("2026-11-30T00:00:00Z")), None);
    }

    #[test]
    fn a_time_zone_s_clocks_are_kept() {
        if time_zone("Europe/Berlin").is_err() {
            println!("skipped: this machine has no zoneinfo");
            return;
        }
        let berlin = Some("Europe/Berlin");
        let found = times_of("30 2 * * *", berlin, "2026-03-27T12:00:00Z", 3);
        // On the 29th there is no half past two.
        let expected = [
            "2026-03-28T01:30:00Z",
            "2026-03-30T00:30:00Z",
            "2026-03-31T00:30:00Z",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn what_is_wrong_is_said_in_kubernetes_words() {
        for (schedule, expected) in [
            ("", "empty spec string"),
            ("* * *", "expected exactly 5 fields, found 3: [* * *]"),
            ("60 * * * *", "end of range (60) above maximum (59): 60"),
            ("* * 0 * *", "beginning of range (0) below minimum (1): 0"),
            ("* * * * 7", "end of range (7) above maximum (6): 7"),
            (
                "9-5 * * * *",
                "beginning of range (9) beyond end of range (5): 9-5",
            ),
            (
                "*/0 * * * *",
                "step of range should be a positive number: */0",
            ),
            ("1-2-3 * * * *", "too many hyphens: 1-2-3"),
            ("*/1/2 * * * *", "too many slashes: */1/2"),
            (
                "x * * * *",
                "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax",
            ),
            ("@often", "unrecognized descriptor: @often"),
            (
                "@every day",
                "failed to parse duration @every day: time: invalid duration \"day\"",
            ),
        ] {
            assert_eq!(times(schedule), Err(expected.to_owned()), "{schedule}");
        }
        let unknown = Schedule::parse("@daily", Some("Middle/Earth")).unwrap_err();
        assert_eq!(unknown, "unknown time zone Middle/Earth");
    }
}
