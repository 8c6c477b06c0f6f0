//! `top pod`.

use std::collections::{HashMap, HashSet};

use serde_json::{Value, json};

use super::{Key, Look, Shown, rate, rounded, short, twice};
use crate::cli::session::{Session, VerbError};
use crate::cli::table::Table;
use crate::client::Client;
use crate::protocol::{GetParams, GetReply, Load, PortLoad};

/// One pod's rates, seen from the pod.
#[derive(Debug, PartialEq)]
struct Row {
    namespace: String,
    name: String,
    sent_packets: f64,
    sent_bytes: f64,
    received_packets: f64,
    received_bytes: f64,
    dropped: f64,
    connections: u64,
}

/// One look at the pods.
pub fn shown(
    session: &Session,
    client: &mut Client,
    names: &[String],
    look: &Look,
) -> Result<Shown, VerbError> {
    let all = session.parsed.is_on("all-namespaces");
    let namespace = session.namespace().unwrap_or_else(|| "default".into());
    let selected = selected(session, client, all)?;
    let (before, after, seconds) = twice(client, look.interval)?;
    let is_wanted = |port: &PortLoad| {
        let (Some(own), Some(pod)) = (&port.namespace, &port.pod) else {
            return false;
        };
        let key = (own.clone(), pod.clone());
        (all || *own == namespace)
            && (names.is_empty() || names.contains(pod))
            && selected.as_ref().is_none_or(|some| some.contains(&key))
    };
    let mut rows = rows(&before, &after, seconds, is_wanted);
    for name in names {
        if !rows.iter().any(|row| row.name == *name) {
            let text = format!("Error from server (NotFound): pods {name:?} not found");
            return Err(VerbError::Several(vec![VerbError::Local(text)]));
        }
    }
    sort(&mut rows, look.sort_by.unwrap_or(Key::Name));
    rows.truncate(look.limit.unwrap_or(usize::MAX));
    let mut notes = Vec::new();
    if rows.is_empty() && !look.json {
        notes.push(match all {
            true => "No resources found".to_owned(),
            false => format!("No resources found in {namespace} namespace."),
        });
    }
    Ok(Shown {
        tables: if rows.is_empty() {
            Vec::new()
        } else {
            vec![table(&rows, all)]
        },
        json: json!({
            "seconds": rounded(seconds),
            "pods": rows.iter().map(value).collect::<Vec<_>>(),
        }),
        notes,
    })
}

/// The pods that `-l` and `--field-selector` pick; none if neither is given.
fn selected(
    session: &Session,
    client: &mut Client,
    all: bool,
) -> Result<Option<HashSet<(String, String)>>, VerbError> {
    let given = |flag: &str| session.parsed.value(flag).map(str::to_owned);
    let (labels, fields) = (given("selector"), given("field-selector"));
    if labels.is_none() && fields.is_none() {
        return Ok(None);
    }
    let params = GetParams {
        resource: "pods".into(),
        namespace: session.namespace(),
        all_namespaces: all,
        label_selector: labels,
        field_selector: fields,
        name: None,
    };
    let reply: GetReply = client.call("get", params)?;
    let text = |object: &Value, pointer: &str| {
        let text = object.pointer(pointer).and_then(Value::as_str);
        text.unwrap_or_default().to_owned()
    };
    let names = reply.items.iter().map(|pod| {
        let namespace = text(pod, "/metadata/namespace");
        (namespace, text(pod, "/metadata/name"))
    });
    Ok(Some(names.collect()))
}

fn rows(
    before: &Load,
    after: &Load,
    seconds: f64,
    is_wanted: impl Fn(&PortLoad) -> bool,
) -> Vec<Row> {
    let none = PortLoad::default();
    let earlier: HashMap<(u16, &Option<String>), &PortLoad> = before
        .ports
        .iter()
        .map(|port| ((port.port, &port.uid), port))
        .collect();
    let wanted = after.ports.iter().filter(|port| is_wanted(port));
    let row = |port: &PortLoad| {
        // A pod that has come in between has no rate yet: its number may have been another's.
        let was = earlier.get(&(port.port, &port.uid)).copied();
        let was = was.unwrap_or(&none);
        let known = !std::ptr::eq(was, &none);
        let rate = |before, after| {
            if known {
                rate(before, after, seconds)
            } else {
                0.0
            }
        };
        Row {
            namespace: port.namespace.clone().unwrap_or_default(),
            name: port.pod.clone().unwrap_or_default(),
            sent_packets: rate(was.in_packets, port.in_packets),
            sent_bytes: rate(was.in_bytes, port.in_bytes),
            received_packets: rate(was.out_packets, port.out_packets),
            received_bytes: rate(was.out_bytes, port.out_bytes),
            dropped: rate(was.dropped, port.dropped),
            connections: port.connections,
        }
    };
    wanted.map(row).collect()
}

fn sort(rows: &mut [Row], key: Key) {
    let number = |row: &Row| match key {
        Key::Name => 0.0,
        Key::Packets => row.sent_packets + row.received_packets,
        Key::Bytes => row.sent_bytes + row.received_bytes,
        Key::Drops => row.dropped,
        Key::Connections => row.connections as f64,
    };
    rows.sort_by(|a, b| {
        let names = || (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name));
        number(b).total_cmp(&number(a)).then_with(names)
    });
}

fn table(rows: &[Row], all: bool) -> Table {
    let mut header = Vec::new();
    header.extend(all.then_some("NAMESPACE"));
    header.extend([
        "NAME",
        "SENT(pkt/s)",
        "SENT(bit/s)",
        "RECEIVED(pkt/s)",
        "RECEIVED(bit/s)",
        "DROPPED(pkt/s)",
        "CONNECTIONS",
    ]);
    let mut table = Table::new(header);
    for row in rows {
        let mut cells = Vec::new();
        cells.extend(all.then(|| row.namespace.clone()));
        cells.extend([
            row.name.clone(),
            short(row.sent_packets),
            short(row.sent_bytes * 8.0),
            short(row.received_packets),
            short(row.received_bytes * 8.0),
            short(row.dropped),
            row.connections.to_string(),
        ]);
        table.push(cells);
    }
    table
}

fn value(row: &Row) -> Value {
    json!({
        "namespace": row.namespace,
        "name": row.name,
        "sentPacketsPerSecond": rounded(row.sent_packets),
        "sentBytesPerSecond": rounded(row.sent_bytes),
        "receivedPacketsPerSecond": rounded(row.received_packets),
        "receivedBytesPerSecond": rounded(row.received_bytes),
        "droppedPacketsPerSecond": rounded(row.dropped),
        "connections": row.connections,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(number: u16, pod: &str, uid: &str, packets: u64) -> PortLoad {
        PortLoad {
            port: number,
            namespace: Some("shop".into()),
            pod: Some(pod.into()),
            uid: Some(uid.into()),
            in_packets: packets,
            in_bytes: packets * 100,
            out_packets: packets * 2,
            dropped: packets / 10,
            connections: packets,
            ..PortLoad::default()
        }
    }

    #[test]
    fn rates_are_of_the_same_pod_only() {
        let load = |ports| Load {
            ports,
            ..Load::default()
        };
        let before = load(vec![port(3, "a", "1", 100), port(4, "b", "2", 100)]);
        let after = load(vec![port(3, "a", "1", 300), port(4, "c", "9", 900)]);
        let mut found = rows(&before, &after, 2.0, |_| true);
        assert_eq!(
            (found[0].sent_packets, found[0].received_packets),
            (100.0, 200.0)
        );
        assert_eq!((found[0].sent_bytes, found[0].dropped), (10_000.0, 10.0));
        assert_eq!((found[1].sent_packets, found[1].connections), (0.0, 900));
        sort(&mut found, Key::Connections);
        assert_eq!(found[0].name, "c");
        sort(&mut found, Key::Packets);
        assert_eq!(found[0].name, "a");
        sort(&mut found, Key::Name);
        assert_eq!(found[0].name, "a");
        let text = table(&found, true).render(true);
        assert!(
            text.starts_with("NAMESPACE   NAME   SENT(pkt/s)   SENT(bit/s)"),
            "{text}"
        );
        assert!(
            text.contains("shop        a      100           80.0k"),
            "{text}"
        );
    }
}
