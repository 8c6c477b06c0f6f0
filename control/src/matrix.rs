//! `weir matrix`: who reaches whom, over all pairs of pods and the receivers' ports. Computed with
//! the table that the workers run.

use std::borrow::Cow;
use std::fmt::Write as _;

use dataplane::Protocol;
use k8s_openapi::api::core::v1::Pod;
use serde::{Deserialize, Serialize};

use crate::lower;
use crate::protocol::MatrixParams;
use crate::trace::{End, TraceError, View, families, protocol, resolve_port};

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
    /// `allow` or `deny`.
    pub verdict: Cow<'static, str>,
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
    end: End,
    protocol: Protocol,
    protocol_name: String,
    port: Option<u16>,
    port_name: Option<String>,
}

impl View<'_> {
    /// The matrix. A pod without a containerPort is asked for only with explicit ports.
    ///
    /// Where both ends have both families, `allow` means both: each is judged on its own.
    pub fn matrix(&self, params: &MatrixParams) -> Result<Matrix, TraceError> {
        let mut rows = Vec::new();
        let mut columns = Vec::new();
        for object in self.cluster.list_of::<Pod>() {
            let wanted = params
                .namespace
                .as_deref()
                .is_none_or(|n| n == object.namespace());
            let ended = object.as_pod().is_some_and(lower::has_ended);
            let end = self.pod_end(object);
            if !wanted || ended || end.addresses.is_empty() {
                continue;
            }
            self.columns(&end, &params.ports, &mut columns)?;
            rows.push(end);
        }
        for text in &params.with {
            if let Some(service) = self.service(text) {
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
        let mut entries = Vec::with_capacity(rows.len() * columns.len());
        for row in &rows {
            for column in &columns {
                entries.push(self.cell(row, column));
            }
        }
        Ok(Matrix { entries })
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
            columns.push(Column {
                name: end.name.clone(),
                end: end.clone(),
                protocol,
                protocol_name,
                port: number.filter(|_| protocol.has_ports()),
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
                end: end.clone(),
                protocol,
                protocol_name,
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
            let (end, number) = self.backend(text, service, word, protocol)?;
            columns.push(Column {
                name: text.to_owned(),
                end,
                protocol,
                protocol_name,
                port: number,
                port_name: None,
            });
        }
        Ok(())
    }

    fn cell(&self, from: &End, column: &Column) -> Entry {
        let mut entry = Entry {
            from: from.name.clone(),
            to: column.name.clone(),
            protocol: column.protocol_name.clone(),
            port: column.port,
            port_name: column.port_name.clone(),
            verdict: "deny".into(),
            reason: "no common address family".to_owned(),
        };
        for pair in families(from, &column.end) {
            let protocol = match (column.protocol, pair.1.is_ipv6()) {
                (Protocol::ICMP, true) => Protocol::ICMPV6,
                (other, _) => other,
            };
            let trace = self.judge(from, &column.end, pair, protocol, column.port);
            entry.verdict = trace.verdict.into();
            entry.reason = trace.reason;
            if trace.verdict == "deny" {
                break;
            }
        }
        entry
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

impl Matrix {
    /// For a person: one row a sender, one column a receiver's port; `.` passes, `X` does not.
    pub fn text(&self) -> String {
        let mut rows: Vec<&str> = Vec::new();
        let mut columns: Vec<String> = Vec::new();
        let title = |entry: &Entry| match entry.port {
            Some(port) => format!("{}:{port}/{}", entry.to, entry.protocol),
            None => format!("{} {}", entry.to, entry.protocol),
        };
        for entry in &self.entries {
            if !rows.contains(&entry.from.as_str()) {
                rows.push(&entry.from);
            }
            let title = title(entry);
            if !columns.contains(&title) {
                columns.push(title);
            }
        }
        let first = rows.iter().map(|row| row.len()).max().unwrap_or(0).max(4);
        let mut text = format!("{:<first$}", "FROM");
        for column in &columns {
            // Writing into a String cannot fail.
            let _ = write!(text, "   {column}");
        }
        text.push('\n');
        for row in rows {
            let mut line = format!("{row:<first$}");
            for column in &columns {
                let mut cells = self.entries.iter();
                let cell = cells.find(|e| e.from == row && title(e) == *column);
                let mark = match cell.map(|entry| entry.verdict.as_ref()) {
                    Some("allow") => ".",
                    Some(_) => "X",
                    None => " ",
                };
                let width = column.len();
                let _ = write!(line, "   {mark:<width$}");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}
