//! A matrix for a person, and entry by entry as JSON.

use std::collections::HashMap;
use std::io::{self, Write};

use super::{Entry, Matrix};
use crate::family::Family;
use crate::trace::WithoutBackend;

/// Keys sorted and four spaces a level, as all JSON for people is printed.
pub(super) fn write_entry(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
    let text = |text: &str| serde_json::to_string(text).map_err(io::Error::other);
    let port = entry
        .port
        .map_or("null".to_owned(), |port| port.to_string());
    let allowed_family = match entry.allowed_family {
        Some(family) => text(family.name())?,
        None => "null".to_owned(),
    };
    let port_name = match &entry.port_name {
        Some(name) => text(name)?,
        None => "null".to_owned(),
    };
    let without_backend = serde_json::to_string(&entry.without_backend);
    let without_backend = without_backend.map_err(io::Error::other)?;
    write!(
        out,
        "    {{\n        \"allowedFamily\": {allowed_family},\n        \"from\": {},\n        \"port\": {port},\n        \"portName\": \
         {port_name},\n        \"protocol\": {},\n        \"reason\": {},\n        \"someBackends\": {},\n        \
         \"to\": {},\n        \"verdict\": {},\n        \"withoutBackend\": {without_backend}\n    }}",
        text(&entry.from)?,
        text(&entry.protocol)?,
        text(&entry.reason)?,
        entry.some_backends,
        text(&entry.to)?,
        text(&entry.verdict)?,
    )
}

pub(super) fn write_header(out: &mut dyn Write, first: usize, titles: &[String]) -> io::Result<()> {
    write!(out, "{:<first$}", "FROM")?;
    for title in titles {
        write!(out, "   {title}")?;
    }
    out.write_all(b"\n")
}

/// What the marks mean that do not speak for themselves, if there are any.
pub(super) fn write_legend(out: &mut dyn Write, marks: &[Mark]) -> io::Result<()> {
    if marks.iter().any(|mark| matches!(mark, Mark::Only(_))) {
        out.write_all(b"4, 6: over IPv4 or IPv6 alone\n")?;
    }
    if marks.iter().any(|mark| matches!(mark, Mark::Some)) {
        out.write_all(b"~: by some of the Service's backends\n")?;
    }
    if marks.iter().any(|mark| matches!(mark, Mark::Refused)) {
        out.write_all(b"R: refused at once, as the Service has no ready backend\n")?;
    }
    Ok(())
}

/// What a table has for a person.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Mark {
    Passes,
    Only(Family),
    /// By some of a Service's backends.
    Some,
    /// Told at once that there is nobody.
    Refused,
    Dropped,
}

impl Mark {
    pub(super) const fn of(
        accept: bool,
        (some, allowed_family, without_backend): (bool, Option<Family>, Option<WithoutBackend>),
    ) -> Mark {
        match (allowed_family, without_backend) {
            _ if accept => Mark::Passes,
            _ if some => Mark::Some,
            (Some(family), _) => Mark::Only(family),
            (None, Some(without)) if without.is_refusal() => Mark::Refused,
            (None, _) => Mark::Dropped,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Mark::Passes => ".",
            Mark::Only(Family::V4) => "4",
            Mark::Only(Family::V6) => "6",
            Mark::Some => "~",
            Mark::Refused => "R",
            Mark::Dropped => "X",
        }
    }
}

/// One row of a table; none of a cell that there is not.
pub(super) fn write_row(
    out: &mut dyn Write,
    (first, name): (usize, &str),
    titles: &[String],
    cells: impl Iterator<Item = Option<Mark>>,
) -> io::Result<()> {
    let mut line = format!("{name:<first$}");
    for (title, cell) in titles.iter().zip(cells) {
        let mark = cell.map_or(" ", Mark::text);
        let width = title.len();
        line.push_str(&format!("   {mark:<width$}"));
    }
    out.write_all(line.trim_end().as_bytes())?;
    out.write_all(b"\n")
}

impl Matrix {
    /// For a person: one row a sender, one column a receiver's port; `.` passes, `X` does not,
    /// `4` or `6` passes over that family alone, `~` by some of a Service's backends, `R` is refused
    /// because a Service has none.
    pub fn text(&self) -> String {
        let title = |entry: &Entry| match entry.port {
            Some(port) => format!("{}:{port}/{}", entry.to, entry.protocol),
            None => format!("{} {}", entry.to, entry.protocol),
        };
        let mut titles: Vec<String> = Vec::new();
        let mut column_of: HashMap<String, usize> = HashMap::new();
        let mut rows: Vec<(&str, HashMap<usize, Mark>)> = Vec::new();
        let mut row_of: HashMap<&str, usize> = HashMap::new();
        for entry in &self.entries {
            let title = title(entry);
            let column = *column_of.entry(title).or_insert_with_key(|title| {
                titles.push(title.clone());
                titles.len() - 1
            });
            let row = *row_of.entry(&entry.from).or_insert_with(|| {
                rows.push((&entry.from, HashMap::new()));
                rows.len() - 1
            });
            let cells = &mut rows[row].1;
            let accept = entry.verdict == "allow";
            let odd = (
                entry.some_backends,
                entry.allowed_family,
                entry.without_backend,
            );
            let mark = Mark::of(accept, odd);
            cells.entry(column).or_insert(mark);
        }
        let first = rows.iter().map(|(name, _)| name.len());
        let first = first.max().unwrap_or(0).max(4);
        let mut text = Vec::new();
        // Writing into memory cannot fail.
        let _ = write_header(&mut text, first, &titles);
        let marks = rows.iter().flat_map(|(_, cells)| cells.values());
        let marks: Vec<Mark> = marks.copied().collect();
        for (name, cells) in &rows {
            let cells = (0..titles.len()).map(|column| cells.get(&column).copied());
            let _ = write_row(&mut text, (first, name), &titles, cells);
        }
        let _ = write_legend(&mut text, &marks);
        String::from_utf8_lossy(&text).into_owned()
    }
}
