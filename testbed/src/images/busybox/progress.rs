//! The line that shows how far a transfer is, as busybox draws it.

use std::time::{Duration, Instant};

/// Without news for this long a transfer has stalled.
const STALLED: Duration = Duration::from_secs(5);
/// What the line has besides the bar.
const BESIDE_BAR: usize = 48;

/// A transfer.
pub struct Progress {
    name: String,
    begin: u64,
    total: Option<u64>,
    terminal: bool,
    started: Instant,
    updated: Option<Instant>,
    moved: Instant,
    received: u64,
}

impl Progress {
    /// A transfer of `total` bytes that begins at byte `begin`.
    pub fn new(name: &str, begin: u64, length: Option<u64>, terminal: bool) -> Progress {
        let now = Instant::now();
        Progress {
            name: name.to_owned(),
            begin,
            total: length.map(|length| begin + length),
            terminal,
            started: now,
            updated: None,
            moved: now,
            received: 0,
        }
    }

    /// The line, if it is time for one: each second, and at the end.
    pub fn update(&mut self, received: u64, last: bool) -> Option<String> {
        let now = Instant::now();
        let soon = self
            .updated
            .is_some_and(|updated| now.duration_since(updated) < Duration::from_secs(1));
        if soon && !last {
            return None;
        }
        let whole = self
            .total
            .is_some_and(|total| self.begin + received >= total);
        // The last line is written by the one who knows that it is the last.
        if !last && (whole || self.updated.is_none()) {
            self.updated = Some(now);
            return None;
        }
        self.updated = Some(now);
        if received != self.received {
            (self.received, self.moved) = (received, now);
        }
        if last {
            // What had no length has one now.
            self.total = Some(self.begin + received);
        }
        Some(self.line(width()))
    }

    fn line(&self, width: usize) -> String {
        let done = self.begin + self.received;
        let name: String = self.name.chars().take(20).collect();
        let start = if self.terminal { "\r" } else { "" };
        let mut line = format!("{start}{name:<20} ");
        if let Some(total) = self.total {
            let share = |of: u64| match total {
                0 => of,
                total => (u128::from(of) * u128::from(done) / u128::from(total)) as u64,
            };
            line += &format!("{:>3}% ", share(100));
            let bar = width.saturating_sub(BESIDE_BAR).min(999);
            if bar > 2 {
                let stars = "*".repeat(share(bar as u64) as usize);
                line += &format!("|{stars:<bar$}| ");
            }
        }
        line += &scaled(done);
        line += &self.eta();
        if !self.terminal {
            line.push('\n');
        }
        line
    }

    fn eta(&self) -> String {
        if self.moved.elapsed() >= STALLED {
            return "  - stalled -".into();
        }
        match self.total {
            Some(total) if self.received > 0 => {
                let left = total.saturating_sub(self.begin + self.received);
                let elapsed = self.started.elapsed().as_secs();
                let seconds = u128::from(left) * u128::from(elapsed) / u128::from(self.received);
                let seconds = seconds.min(1000 * 3600 - 1);
                let (hours, rest) = (seconds / 3600, seconds % 3600);
                format!("{hours:>4}:{:02}:{:02} ETA", rest / 60, rest % 60)
            }
            _ => " --:--:-- ETA".into(),
        }
    }
}

/// Columns of the terminal behind standard error.
fn width() -> usize {
    let size = rustix::termios::tcgetwinsize(std::io::stderr());
    let columns = size.map_or(0, |size| usize::from(size.ws_col));
    if columns == 0 { 80 } else { columns }
}

/// A number in five columns: below 100000 as it is, else with a unit.
fn scaled(number: u64) -> String {
    if number < 100_000 {
        return format!("{number:>5}");
    }
    // Tenths of the unit, never rounded up.
    let (mut tenths, mut unit) = (u128::from(number) * 10, ' ');
    for next in ['k', 'M', 'G', 'T', 'P', 'E'] {
        if tenths < 10_000 {
            break;
        }
        (tenths, unit) = (tenths / 1024, next);
    }
    match tenths < 100 {
        true => format!(" {}.{}{unit}", tenths / 10, tenths % 10),
        false => format!("{:>4}{unit}", tenths / 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_line_is_busyboxs() {
        let mut progress = Progress::new("test", 0, Some(533), false);
        assert_eq!(progress.update(533, false), None);
        progress.received = 533;
        let expected = format!(
            "test                 100% |{}|   533   0:00:00 ETA\n",
            "*".repeat(32)
        );
        assert_eq!(progress.line(80), expected);
        assert!(progress.line(50).contains("100%   533"));
        assert!(progress.update(533, true).is_some());
    }

    #[test]
    fn sizes_take_five_columns() {
        for (number, expected) in [
            (0, "    0"),
            (99_999, "99999"),
            (100_000, "  97k"),
            (300_000, " 292k"),
            (5 << 20, " 5.0M"),
            (300 << 20, " 300M"),
        ] {
            assert_eq!(scaled(number), expected);
        }
    }
}
