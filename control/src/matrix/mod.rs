//! `weir matrix`: who reaches whom, over all pairs of pods and the receivers' ports. Computed with
//! the table that the workers run.

use std::borrow::Cow;
use std::io::{self, Write};

use dataplane::snapshot::Role;
use dataplane::{Direction, Protocol};
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::family::Family;
use crate::lower;
use crate::protocol::MatrixParams;
use crate::trace::{
    Backend, End, Flow, NEITHER_HERE, OWN_ADDRESS, Reached, TraceError, View, WithoutBackend,
    families, protocol, resolve_port,
};

mod print;

use print::{Mark, write_entry, write_header, write_legend, write_row};

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
    /// Of a Service without a ready backend: what the sender gets.
    #[serde(default)]
    pub without_backend: Option<WithoutBackend>,
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
    answers: Answers,
    protocol: Protocol,
    protocol_name: String,
    /// As the receiver has it; of a Service, as clients ask for it.
    port: Option<u16>,
    port_name: Option<String>,
}

/// Who answers at a receiver's port.
enum Answers {
    /// The receiver itself, on the column's port.
    Itself(End),
    /// Who stands behind a Service: for this node's pods, and for others. Traffic policies tell the
    /// two apart.
    Behind(Box<[Reached; 2]>),
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
    without_backend: Option<WithoutBackend>,
    reason: String,
}

impl Cell {
    const fn mark(&self) -> Mark {
        let odd = (self.some, self.allowed_family, self.without_backend);
        Mark::of(self.accept, odd)
    }

    const fn denied(reason: String) -> Cell {
        Cell {
            accept: false,
            allowed_family: None,
            some: false,
            without_backend: None,
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
                answers: self.answers(end, protocol, number),
                protocol,
                protocol_name,
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
                answers: Answers::Itself(end.clone()),
                protocol,
                protocol_name,
                port: Some(number),
                port_name: port.name.clone().filter(|name| !name.is_empty()),
            });
        }
        Ok(())
    }

    /// Who answers at an end's port: an address may be a Service's.
    fn answers(&self, end: &End, protocol: Protocol, port: Option<u16>) -> Answers {
        let address = match &end.addresses[..] {
            [only] if end.pod.is_none() => *only,
            _ => return Answers::Itself(end.clone()),
        };
        let at = |role| self.reached_at(address, protocol, port, role);
        match (at(Role::Pod), at(Role::Uplink)) {
            (Some(inside), Some(outside)) => Answers::Behind(Box::new([inside, outside])),
            _ => Answers::Itself(end.clone()),
        }
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
            let reached = |role| self.reached(text, service, word, protocol, role);
            let [inside, outside] = [reached(Role::Pod)?, reached(Role::Uplink)?];
            columns.push(Column {
                name: text.to_owned(),
                port: inside.port,
                answers: Answers::Behind(Box::new([inside, outside])),
                protocol,
                protocol_name,
                port_name: None,
            });
        }
        Ok(())
    }
}

impl Plan<'_> {
    fn cell(&self, from: &End, column: &Column) -> Cell {
        let [inside, outside] = match &column.answers {
            Answers::Itself(to) => {
                let judged = self.pairs(from, to, (column.protocol, column.port), false);
                return of_families(judged);
            }
            Answers::Behind(reached) => &**reached,
        };
        let reached = match self.view.role(from) {
            Role::Pod => inside,
            _ => outside,
        };
        self.service_cell(from, reached, column.protocol)
    }

    /// What a Service's backends make of a sender, and its addresses that have none.
    fn service_cell(&self, from: &End, reached: &Reached, protocol: Protocol) -> Cell {
        let mut judged: Vec<(Family, Cell)> = Vec::new();
        let (mut count, mut denied) = (0, 0);
        for Backend { end, port, .. } in &reached.backends {
            let mut cells = self.pairs(from, end, (protocol, *port), reached.translated);
            for (_, cell) in cells.iter_mut().filter(|(_, cell)| !cell.accept) {
                cell.reason = format!("{}: {}", end.name, cell.reason);
            }
            // One of the other family is none for this sender.
            count += usize::from(!cells.is_empty());
            denied += usize::from(cells.iter().any(|(_, cell)| !cell.accept));
            judged.extend(cells);
        }
        let families: Vec<Family> = from.addresses.iter().map(|a| Family::of(*a)).collect();
        let unserved = reached.unserved.iter();
        let unserved = unserved.filter(|unserved| families.contains(&unserved.family));
        judged.extend(unserved.map(|unserved| {
            let without_backend = self.view.without_backend(from, unserved, protocol);
            let cell = Cell {
                without_backend: Some(without_backend),
                ..Cell::denied(without_backend.reason(&reached.name, unserved))
            };
            (unserved.family, cell)
        }));
        let mut cell = of_families(judged);
        cell.some = !cell.accept && denied > 0 && denied < count;
        if cell.some {
            cell.reason = format!("{denied} of {count} backends are denied: {}", cell.reason);
        }
        cell
    }

    /// What is decided for each family that both ends have.
    fn pairs(
        &self,
        from: &End,
        to: &End,
        (protocol, port): (Protocol, Option<u16>),
        by_service: bool,
    ) -> Vec<(Family, Cell)> {
        let pairs = families(from, to).into_iter();
        let cells = pairs.map(|(source, destination)| {
            let protocol = match (protocol, destination.is_ipv6()) {
                (Protocol::ICMP, true) => Protocol::ICMPV6,
                (other, _) => other,
            };
            let flow = Flow {
                from,
                to,
                source,
                destination,
                protocol,
                port,
                by_service,
            };
            (Family::of(source), self.decided(&flow))
        });
        cells.collect()
    }

    fn decided(&self, flow: &Flow<'_>) -> Cell {
        let directions = [Direction::Egress, Direction::Ingress];
        let decided = directions.into_iter().zip(self.view.verdicts(flow));
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
            true if flow.is_exempt() => OWN_ADDRESS.to_owned(),
            true => NEITHER_HERE.to_owned(),
            false => allowed.join("; "),
        };
        Cell {
            accept: true,
            ..Cell::denied(reason)
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
            without_backend: cell.without_backend,
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
            allowed_family,
            reason: format!("{}: {}", family.name(), cell.reason),
            ..cell
        },
        Some((_, cell)) => cell,
        None => Cell::denied("no common address family".to_owned()),
    }
}

/// `80/TCP`, `80`, `web/UDP`, `icmp` as port and protocol.
fn split_port(text: &str) -> (Option<&str>, Option<&str>) {
    match text.split_once('/') {
        Some((port, protocol)) => (Some(port), Some(protocol)),
        None if text.eq_ignore_ascii_case("icmp") => (None, Some(text)),
        None => (Some(text), None),
    }
}
