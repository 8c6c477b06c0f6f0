//! `top`: what pods, the node and flows do at present, as rates between two looks at the daemon's
//! counts.
//!
//! `kubectl top` shows processors and memory. A lab's pods are processes of this machine, for which
//! there is `ps`; what only Weir can tell is what goes through it.

mod flows;
mod node;
mod pods;

use std::io::{self, IsTerminal, Write};
use std::time::Duration;

use serde_json::Value;

use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::table::Table;
use crate::cli::values;
use crate::client::Client;
use crate::protocol::Load;

use super::{ALL_NAMESPACES, SELECTOR};

/// What rates are measured over, unless the command line says otherwise.
const INTERVAL: Duration = Duration::from_secs(1);
/// The shortest: below it a rate is noise.
const INTERVAL_MIN: Duration = Duration::from_millis(10);
/// Rows of `top flows`.
const LIMIT: usize = 20;

/// Flags of `top`.
pub const FLAGS: &[Flag] = &[
    ALL_NAMESPACES,
    SELECTOR,
    value(
        "field-selector",
        None,
        "With pod: field selector, as spec.nodeName=lab-node",
    ),
    value(
        "sort-by",
        None,
        "name (pods' default), packets, bytes (flows' default), drops or connections",
    ),
    switch("watch", Some('w'), "Look again and again"),
    value(
        "interval",
        None,
        "What rates are measured over, as 500ms (default 1s)",
    ),
    value("limit", None, "Rows at most (flows: 20 if not given)"),
    value(
        "output",
        Some('o'),
        "table (default) or json (one object a look)",
    ),
    switch("no-headers", None, "Leave the columns' names out"),
];

/// By what rows are sorted, the largest first; by name the other way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Key {
    Name,
    Packets,
    Bytes,
    Drops,
    Connections,
}

/// How things are shown.
struct Look {
    interval: Duration,
    sort_by: Option<Key>,
    limit: Option<usize>,
    json: bool,
    headers: bool,
}

/// What one look is printed as.
struct Shown {
    tables: Vec<Table>,
    json: Value,
    /// Said on stderr.
    notes: Vec<String>,
}

/// Runs `top`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let arguments = session.parsed.arguments.clone();
    let (what, names) = match arguments.split_first() {
        Some((what, names)) => (what.as_str(), names),
        None => {
            let text = "what to look at is missing: pod, node or flows";
            return Err(VerbError::Usage(text.into()));
        }
    };
    let look = look(session)?;
    if !matches!(what, "pod" | "pods" | "po") {
        for flag in ["selector", "field-selector"] {
            if session.parsed.was_given(flag) {
                let text = format!("--{flag} is for pods, not for {what}");
                return Err(VerbError::Usage(text));
            }
        }
    }
    let watch = session.parsed.is_on("watch");
    let mut client = session.connect()?;
    loop {
        let shown = match what {
            "pod" | "pods" | "po" => pods::shown(session, &mut client, names, &look)?,
            "node" | "nodes" | "no" => node::shown(&mut client, names, &look)?,
            "flow" | "flows" => flows::shown(session, &mut client, names, &look)?,
            other => {
                let text =
                    format!("unknown command {other:?} for \"weir top\": pod, node or flows");
                return Err(VerbError::Usage(text));
            }
        };
        match print(&shown, &look, watch) {
            // Whoever read has seen enough, as `| head` has.
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => return Ok(()),
            other => other?,
        }
        if !watch {
            return Ok(());
        }
    }
}

fn look(session: &Session) -> Result<Look, VerbError> {
    let parsed = &session.parsed;
    let invalid = |flag: &str, text: &str, why: String| {
        VerbError::Usage(format!(
            "invalid argument {text:?} for \"--{flag}\" flag: {why}"
        ))
    };
    let interval = match parsed.value("interval") {
        None => INTERVAL,
        Some(text) => {
            let seconds = values::seconds(text).map_err(|why| invalid("interval", text, why))?;
            let interval = Duration::try_from_secs_f64(seconds).unwrap_or_default();
            if interval < INTERVAL_MIN {
                return Err(invalid("interval", text, "10ms is the least".into()));
            }
            interval
        }
    };
    let sort_by = match parsed.value("sort-by") {
        None => None,
        Some("name") => Some(Key::Name),
        Some("packets") => Some(Key::Packets),
        Some("bytes") => Some(Key::Bytes),
        Some("drops") => Some(Key::Drops),
        Some("connections") => Some(Key::Connections),
        Some(other @ ("cpu" | "memory")) => {
            let why = "processors and memory are not shown here: name, packets, bytes, drops or \
                       connections";
            return Err(invalid("sort-by", other, why.into()));
        }
        Some(other) => {
            let why = "name, packets, bytes, drops or connections";
            return Err(invalid("sort-by", other, why.into()));
        }
    };
    let limit = match parsed.value("limit") {
        None => None,
        Some(text) => match text.parse() {
            Ok(0) | Err(_) => return Err(invalid("limit", text, "not a number from 1 on".into())),
            Ok(limit) => Some(limit),
        },
    };
    Ok(Look {
        interval,
        sort_by,
        limit,
        json: match parsed.value("output") {
            None | Some("table" | "wide") => false,
            Some("json") => true,
            Some(other) => {
                let text = format!("invalid output format: {other}");
                return Err(VerbError::Usage(text));
            }
        },
        headers: !parsed.is_on("no-headers"),
    })
}

fn print(shown: &Shown, look: &Look, watch: bool) -> io::Result<()> {
    let mut text = String::new();
    if look.json {
        text = shown.json.to_string();
        text.push('\n');
    } else {
        let mut out = io::stdout();
        if watch && out.is_terminal() {
            // From the top, and nothing of the look before.
            out.write_all(b"\x1b[H\x1b[J")?;
        }
        let tables = shown.tables.iter().map(|table| table.render(look.headers));
        text.push_str(&tables.collect::<Vec<_>>().join("\n"));
    }
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    out.flush()?;
    for note in &shown.notes {
        eprintln!("{note}");
    }
    Ok(())
}

/// Two looks at the daemon's counts, and the seconds in between.
fn twice(client: &mut Client, interval: Duration) -> Result<(Load, Load, f64), VerbError> {
    let before: Load = client.call("load", serde_json::json!({}))?;
    std::thread::sleep(interval);
    let after: Load = client.call("load", serde_json::json!({}))?;
    let seconds = after.time_ns.saturating_sub(before.time_ns) as f64 / 1e9;
    Ok((before, after, seconds.max(1e-9)))
}

/// How much a count rises in a second.
fn rate(before: u64, after: u64, seconds: f64) -> f64 {
    after.saturating_sub(before) as f64 / seconds
}

/// `0`, `7`, `950`, `1.2k`, `34.1M`: three digits are enough to compare.
fn short(value: f64) -> String {
    const UNITS: [&str; 5] = ["", "k", "M", "G", "T"];
    let (mut value, mut unit) = (value, 0);
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 && value.fract() == 0.0 || value >= 99.95 {
        format!("{value:.0}{}", UNITS[unit])
    } else {
        format!("{value:.1}{}", UNITS[unit])
    }
}

fn percent(share: f64) -> String {
    format!("{:.0}%", share * 100.0)
}

/// A number as JSON has it: three digits behind the point say enough.
fn rounded(value: f64) -> Value {
    Value::from((value * 1000.0).round() / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        for (value, expected) in [
            (0.0, "0"),
            (7.0, "7"),
            (0.25, "0.2"),
            (999.4, "999"),
            (999.6, "1.0k"),
            (1234.0, "1.2k"),
            (99_960.0, "100k"),
            (34_100_000.0, "34.1M"),
            (5e15, "5000T"),
        ] {
            assert_eq!(short(value), expected, "{value}");
        }
    }

    #[test]
    fn a_count_that_begins_anew_is_no_rate() {
        assert_eq!(rate(10, 30, 2.0), 10.0);
        assert_eq!(rate(30, 10, 2.0), 0.0);
    }
}
