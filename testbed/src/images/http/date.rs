//! Dates as HTTP and its logs write them.

use std::time::{SystemTime, UNIX_EPOCH};

const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];
const MONTHS: [&str; 12] = [
    "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
];

struct Civil {
    year: i64,
    month: usize,
    day: i64,
    weekday: usize,
    time: String,
}

/// Days to dates in the proleptic Gregorian calendar, by years that begin in March.
fn civil(time: SystemTime) -> Civil {
    let seconds = time
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs() as i64;
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * of_year + 2) / 153;
    let month = if from_march < 10 {
        from_march + 2
    } else {
        from_march - 10
    };
    Civil {
        year: year_of_era + era * 400 + i64::from(month < 2),
        month: month as usize,
        day: of_year - (153 * from_march + 2) / 5 + 1,
        weekday: (days % 7) as usize,
        time: format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60),
    }
}

/// As `Date` has it (RFC 9110, section 5.6.7).
pub fn http_date(time: SystemTime) -> String {
    let c = civil(time);
    let (weekday, month) = (DAYS[c.weekday], MONTHS[c.month]);
    format!(
        "{weekday}, {:02} {month} {:04} {} GMT",
        c.day, c.year, c.time
    )
}

/// As access logs have it.
pub fn common_log_date(time: SystemTime) -> String {
    let c = civil(time);
    format!(
        "{:02}/{}/{:04}:{} +0000",
        c.day, MONTHS[c.month], c.year, c.time
    )
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn known_dates() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(http_date(at(0)), "Thu, 01 Jan 1970 00:00:00 GMT");
        assert_eq!(http_date(at(784_111_777)), "Sun, 06 Nov 1994 08:49:37 GMT");
        assert_eq!(
            http_date(at(1_508_979_201)),
            "Thu, 26 Oct 2017 00:53:21 GMT"
        );
        assert_eq!(http_date(at(951_782_400)), "Tue, 29 Feb 2000 00:00:00 GMT");
        assert_eq!(
            common_log_date(at(951_782_400)),
            "29/Feb/2000:00:00:00 +0000"
        );
    }
}
