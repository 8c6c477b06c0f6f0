//! `weir matrix`: who reaches whom, over all pairs of pods and the receivers' ports. Computed with
//! the table that the workers run.

use std::borrow::Cow;
use std::collections::HashMap;
use std::io::{self, Write};
use std::net::IpAddr;

use dataplane::{Direction, Protocol, Verdict};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::family::Family;
use crate::lower;
use crate::protocol::MatrixParams;
use crate::trace::{End, TraceError, View, families, protocol, resolve_port};

/// The most entries of a matrix that is made in memory, as the daemon's is.
pub const MAX_ENTRIES: usize = 250_000;

/// One pair and port.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    /// `NS/POD` or an address.
    pub from: String,
    /// `NS/POD`, `NS/SERVICE` or an address.
    pub to: String,
    /// `TCP`.
    pub protocol: String,
    /// Destination port; none for protocols without.
    pub port: Option<u16>,
    /// The container port's name.
    pub port_name: Option<String>,
    /// `allow` or `deny`. Where both ends have both families, `allow` means both.
    pub verdict: Cow<'static, str>,
    /// Of `deny`, the family that is allowed all the same.
    pub allowed_family: Option<Family>,
    /// Of `deny`, whether some backends of the Service are allowed all the same.
    #[serde(default)]
    pub some_backends: bool,
    /// The decision in a line.
    pub reason: String,
}

/// All pairs.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
#[serde(transparent)]
pub struct Matrix {
    /// By sender, receiver, port.
    pub entries: Vec<Entry>,
}

/// A column: a receiver and a port of it.
struct Column {
    name: String,
    /// One; of a Service its backends, each with its own port, which may be none.
    ends: Vec<(End, Option<u16>)>,
    protocol: Protocol,
    protocol_name: String,
    /// As the receiver has it; of a Service, as clients ask for it.
    port: Option<u16>,
    port_name: Option<String>,
    is_service: bool,
}

impl Column {
    fn title(&self) -> String {
        match self.port {
            Some(port) => format!("{}:{port}/{}", self.name, self.protocol_name),
            None => format!("{} {}", self.name, self.protocol_name),
        }
    }
}

/// The senders and receivers of a matrix. Cells are judged as they are written, so that a matrix
/// of any size takes the memory of its rows and columns.
pub struct Plan<'a> {
    view: View<'a>,
    rows: Vec<End>,
    columns: Vec<Column>,
}

/// A cell's verdict, and the decision in a line.
struct Cell {
    accept: bool,
    allowed_family: Option<Family>,
    /// Whether some backends of a Service are allowed all the same.
    some: bool,
    reason: String,
}

impl Cell {
    const fn mark(&self) -> Mark {
        Mark::of(self.accept, self.some, self.allowed_family)
    }

    const fn denied(reason: String) -> Cell {
        Cell {
            accept: false,
            allowed_family: None,
            some: false,
            reason,
        }
    }
}

impl<'a> View<'a> {
    /// The whole matrix in memory.
    ///
    /// Errors: more than [`MAX_ENTRIES`] entries, and those of [`View::plan`].
    pub fn matrix(&self, params: &MatrixParams) -> Result<Matrix, TraceError> {
        let plan = self.plan(params)?;
        let count = plan.rows.len().saturating_mul(plan.columns.len());
        if count > MAX_ENTRIES {
            return Err(TraceError::TooLarge {
                entries: count,
                limit: MAX_ENTRIES,
            });
        }
        let mut entries = Vec::with_capacity(count);
        for row in &plan.rows {
            entries.extend(plan.columns.iter().map(|column| plan.entry(row, column)));
        }
        Ok(Matrix { entries })
    }

    /// Who is asked about whom. A pod without a containerPort is asked for only with explicit
    /// ports.
    ///
    /// Where both ends have both families, `allow` means both: each is judged on its own.
    pub fn plan(&self, params: &MatrixParams) -> Result<Plan<'a>, TraceError> {
        let mut rows = Vec::new();
        let mut columns = Vec::new();
        let locals = self.locals_by_uid();
        for object in self.cluster.list_of::<Pod>() {
            let wanted = params
                .namespace
                .as_deref()
                .is_none_or(|n| n == object.namespace());
            let ended = object.as_pod().is_some_and(lower::has_ended);
            if !wanted || ended {
                continue;
            }
            let end = match locals.get(object.uid()) {
                Some(&at) => self.local_end(at),
                None => self.remote_end(object),
            };
            if end.addresses.is_empty() {
                continue;
            }
            self.columns(&end, &params.ports, &mut columns)?;
            rows.push(end);
        }
        for text in &params.with {
            if let Some(service) = self.service(text)? {
                self.service_columns(text, &service, &params.ports, &mut columns)?;
                continue;
            }
            // Of a block its address stands for all of it.
            let address = text.split('/').next().unwrap_or_default();
            let is_address = address.parse::<std::net::IpAddr>().is_ok();
            let mut end = self.end(if is_address { address } else { text })?;
            end.name = text.clone();
            self.columns(&end, &params.ports, &mut columns)?;
            rows.push(end);
        }
        Ok(Plan {
            view: *self,
            rows,
            columns,
        })
    }

    fn columns(
        &self,
        end: &End,
        ports: &[String],
        columns: &mut Vec<Column>,
    ) -> Result<(), TraceError> {
        for text in ports {
            let (port, name) = split_port(text);
            let (protocol, protocol_name) = protocol(name)?;
            // A name that this pod does not have: it has no such column.
            let Ok(number) = resolve_port(end, port, protocol) else {
                continue;
            };
            if protocol.has_ports() && number.is_none() {
                return Err(TraceError::PortMissing(protocol_name));
            }
            let number = number.filter(|_| protocol.has_ports());
            columns.push(Column {
                name: end.name.clone(),
                ends: vec![(end.clone(), number)],
                protocol,
                protocol_name,
                is_service: false,
                port: number,
                port_name: port
                    .filter(|p| p.parse::<u16>().is_err())
                    .map(str::to_owned),
            });
        }
        if !ports.is_empty() {
            return Ok(());
        }
        let pod = end.pod.as_ref().and_then(|object| object.as_pod());
        let spec = pod.and_then(|pod| pod.spec.as_ref());
        let containers = spec.iter().flat_map(|spec| &spec.containers);
        for port in containers.flat_map(|c| c.ports.iter().flatten()) {
            let (protocol, protocol_name) = protocol(port.protocol.as_deref())?;
            let Ok(number) = u16::try_from(port.container_port) else {
                continue;
            };
            columns.push(Column {
                name: end.name.clone(),
                ends: vec![(end.clone(), Some(number))],
                protocol,
                protocol_name,
                is_service: false,
                port: Some(number),
                port_name: port.name.clone().filter(|name| !name.is_empty()),
            });
        }
        Ok(())
    }

    fn service_columns(
        &self,
        text: &str,
        service: &crate::objects::Object,
        ports: &[String],
        columns: &mut Vec<Column>,
    ) -> Result<(), TraceError> {
        let spec = service.as_service().and_then(|s| s.spec.as_ref());
        let own = spec.iter().flat_map(|spec| spec.ports.iter().flatten());
        let own = own.map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP");
            format!("{}/{protocol}", port.port)
        });
        let own: Vec<String> = own.collect();
        for port in if ports.is_empty() { &own } else { ports } {
            let (word, name) = split_port(port);
            let (protocol, protocol_name) = protocol(name)?;
            let reached = self.reached(text, service, word, protocol, None)?;
            columns.push(Column {
                name: text.to_owned(),
                ends: reached.backends,
                protocol,
                protocol_name,
                is_service: true,
                port: reached.port,
                port_name: None,
            });
        }
        Ok(())
    }
}

impl Plan<'_> {
    fn cell(&self, from: &End, column: &Column) -> Cell {
        let mut judged: Vec<(Family, Cell)> = Vec::new();
        let mut passed = 0;
        for (end, port) in &column.ends {
            let mut all = true;
            for pair in families(from, end) {
                let (source, destination) = pair;
                let protocol = match (column.protocol, destination.is_ipv6()) {
                    (Protocol::ICMP, true) => Protocol::ICMPV6,
                    (other, _) => other,
                };
                let verdicts = self.view.verdicts(from, end, pair, protocol, *port);
                let mut cell = self.decided(pair, verdicts);
                all &= cell.accept;
                if column.is_service && !cell.accept {
                    cell.reason = format!("{}: {}", end.name, cell.reason);
                }
                judged.push((Family::of(source), cell));
            }
            passed += usize::from(all);
        }
        if column.ends.is_empty() {
            return Cell::denied("the Service has no ready backend".to_owned());
        }
        let mut cell = of_families(judged);
        let count = column.ends.len();
        cell.some = !cell.accept && passed > 0 && count > 1;
        if cell.some {
            let denied = count - passed;
            cell.reason = format!("{denied} of {count} backends are denied: {}", cell.reason);
        }
        cell
    }

    fn decided(&self, (source, destination): (IpAddr, IpAddr), by: [Option<Verdict>; 2]) -> Cell {
        let directions = [Direction::Egress, Direction::Ingress];
        let decided = directions.into_iter().zip(by);
        let mut allowed: Vec<String> = Vec::new();
        for (direction, verdict) in decided {
            let Some(verdict) = verdict else { continue };
            let reason = self.view.brief(direction, verdict);
            if !verdict.accept {
                return Cell::denied(reason);
            }
            allowed.push(reason);
        }
        let reason = match allowed.is_empty() {
            true if source == destination => "a pod always reaches its own address".to_owned(),
            true => "neither end is a pod on this node".to_owned(),
            false => allowed.join("; "),
        };
        Cell {
            accept: true,
            allowed_family: None,
            some: false,
            reason,
        }
    }

    fn entry(&self, from: &End, column: &Column) -> Entry {
        let cell = self.cell(from, column);
        Entry {
            from: from.name.clone(),
            to: column.name.clone(),
            protocol: column.protocol_name.clone(),
            port: column.port,
            port_name: column.port_name.clone(),
            verdict: verdict(cell.accept).into(),
            allowed_family: cell.allowed_family,
            some_backends: cell.some,
            reason: cell.reason,
        }
    }

    /// As [`Matrix::text`], row by row.
    pub fn write_text(&self, out: &mut dyn Write) -> io::Result<()> {
        let rows = self.rows.iter().map(|row| row.name.len());
        let first = rows.max().unwrap_or(0).max(4);
        let titles: Vec<String> = self.columns.iter().map(Column::title).collect();
        write_header(out, first, &titles)?;
        // Those that do not speak for themselves.
        let mut odd: Vec<Mark> = Vec::new();
        for row in &self.rows {
            let cells = self.columns.iter().map(|column| {
                let mark = self.cell(row, column).mark();
                if !matches!(mark, Mark::Passes | Mark::Dropped) && !odd.contains(&mark) {
                    odd.push(mark);
                }
                Some(mark)
            });
            write_row(out, (first, &row.name), &titles, cells)?;
        }
        write_legend(out, &odd)
    }

    /// As JSON, entry by entry, indented as everything else is.
    pub fn write_json(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(b"[")?;
        let mut before = "\n";
        for row in &self.rows {
            for column in &self.columns {
                out.write_all(before.as_bytes())?;
                before = ",\n";
                write_entry(out, &self.entry(row, column))?;
            }
        }
        out.write_all(match self.rows.is_empty() || self.columns.is_empty() {
            true => b"]\n",
            false => b"\n]\n",
        })
    }
}

const fn verdict(accept: bool) -> &'static str {
    if accept { "allow" } else { "deny" }
}

/// Keys sorted and four spaces a level, as all JSON for people is printed.
fn write_entry(out: &mut dyn Write, entry: &Entry) -> io::Result<()> {
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
    write!(
        out,
        "    {{\n        \"allowedFamily\": {allowed_family},\n        \"from\": {},\n        \"port\": {port},\n        \"portName\": \
         {port_name},\n        \"protocol\": {},\n        \"reason\": {},\n        \"someBackends\": {},\n        \
         \"to\": {},\n        \"verdict\": {}\n    }}",
        text(&entry.from)?,
        text(&entry.protocol)?,
        text(&entry.reason)?,
        entry.some_backends,
        text(&entry.to)?,
        text(&entry.verdict)?,
    )
}

fn write_header(out: &mut dyn Write, first: usize, titles: &[String]) -> io::Result<()> {
    write!(out, "{:<first$}", "FROM")?;
    for title in titles {
        write!(out, "   {title}")?;
    }
    out.write_all(b"\n")
}

/// What the marks mean that do not speak for themselves, if there are any.
fn write_legend(out: &mut dyn Write, marks: &[Mark]) -> io::Result<()> {
    if marks.iter().any(|mark| matches!(mark, Mark::Only(_))) {
        out.write_all(b"4, 6: over IPv4 or IPv6 alone\n")?;
    }
    if marks.iter().any(|mark| matches!(mark, Mark::Some)) {
        out.write_all(b"~: by some of the Service's backends\n")?;
    }
    Ok(())
}

/// What the families make of a pair, each of which may have several backends.
fn of_families(judged: Vec<(Family, Cell)>) -> Cell {
    let mut cells: Vec<(Family, Cell)> = Vec::new();
    for (family, cell) in judged {
        match cells.iter_mut().find(|(known, _)| *known == family) {
            // The first denial of a family speaks for it.
            Some((_, known)) if known.accept && !cell.accept => *known = cell,
            Some(_) => {}
            None => cells.push((family, cell)),
        }
    }
    of_both(cells)
}

/// What the families' cells make of a pair: what is denied says why.
fn of_both(mut cells: Vec<(Family, Cell)>) -> Cell {
    let denied = cells.iter().position(|(_, cell)| !cell.accept);
    let allowed = cells.iter().find(|(_, cell)| cell.accept);
    let allowed_family = allowed.map(|(family, _)| *family);
    let telling = match denied {
        Some(place) => Some(cells.swap_remove(place)),
        None => cells.pop(),
    };
    match telling {
        Some((family, cell)) if denied.is_some() && allowed_family.is_some() => Cell {
            accept: false,
            allowed_family,
            some: false,
            reason: format!("{}: {}", family.name(), cell.reason),
        },
        Some((_, cell)) => cell,
        None => Cell::denied("no common address family".to_owned()),
    }
}

/// What a table has for a person.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mark {
    Passes,
    Only(Family),
    /// By some of a Service's backends.
    Some,
    Dropped,
}

impl Mark {
    const fn of(accept: bool, some: bool, allowed_family: Option<Family>) -> Mark {
        match allowed_family {
            _ if accept => Mark::Passes,
            _ if some => Mark::Some,
            Some(family) => Mark::Only(family),
            None => Mark::Dropped,
        }
    }

    const fn text(self) -> &'static str {
        match self {
            Mark::Passes => ".",
            Mark::Only(Family::V4) => "4",
            Mark::Only(Family::V6) => "6",
            Mark::Some => "~",
            Mark::Dropped => "X",
        }
    }
}

/// One row of a table; none of a cell that there is not.
fn write_row(
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

/// `80/TCP`, `80`, `web/UDP`, `icmp` as port and protocol.
fn split_port(text: &str) -> (Option<&str>, Option<&str>) {
    match text.split_once('/') {
        Some((port, protocol)) => (Some(port), Some(protocol)),
        None if text.eq_ignore_ascii_case("icmp") => (None, Some(text)),
        None => (Some(text), None),
    }
}

impl Matrix {
    /// For a person: one row a sender, one column a receiver's port; `.` passes, `X` does not,
    /// `4` or `6` passes over that family alone.
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
            let mark = Mark::of(accept, entry.some_backends, entry.allowed_family);
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
