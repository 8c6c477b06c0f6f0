//! `get conntrack` and `delete conntrack`: connections, with the filters of `observe`.
//!
//! The daemon hands out its table in parts; tables, names and JSON are printed as they come, so that a
//! million connections need no room here. YAML and JSONPath are of the whole, which is held for them.

use std::collections::HashSet;

use serde_json::{Value, json};

use crate::cli::flags::{Flag, GLOBAL, Parsed, switch, value};
use crate::cli::output::{Form, indented, list};
use crate::cli::session::{Session, VerbError, put};
use crate::cli::table::{Table, human_duration};
use crate::client::Client;
use crate::flow::FlowEnd;
use crate::flow::filter::Matcher;
use crate::protocol::{
    ConntrackEntry, ConntrackFilter, ConntrackFlushParams, ConntrackFlushReply,
    ConntrackListParams, ConntrackListReply,
};

use super::Named;
use super::mutate::dry_run;
use super::observe::Filters;

/// What the resource is called.
const NAMES: [&str; 3] = ["conntrack", "ct", "connections"];
/// The API version of what `-o json` prints.
const VERSION: &str = "weir.dev/v1alpha1";

/// Flags that pick connections; of no other resource.
pub const FILTERS: [Flag; 15] = [
    switch("not", None, "conntrack: turn the next filter round"),
    value(
        "pod",
        None,
        "conntrack: either end is a pod whose name begins so, [NS/]NAME; NS is default if it is \
         not given",
    ),
    value("from-pod", None, "conntrack: the initiator is"),
    value("to-pod", None, "conntrack: the responder is"),
    value(
        "ip",
        None,
        "conntrack: either end has this address, or is in this CIDR",
    ),
    value("from-ip", None, "conntrack: the initiator has"),
    value("to-ip", None, "conntrack: the responder has"),
    value("port", None, "conntrack: either end has this port"),
    value("from-port", None, "conntrack: the initiator has"),
    value("to-port", None, "conntrack: the responder has"),
    value(
        "protocol",
        None,
        "conntrack: tcp, udp, sctp, icmp, icmpv4, icmpv6 or a number",
    ),
    value("ip-version", None, "conntrack: v4 or v6"),
    value("verdict", None, "conntrack: FORWARDED or DROPPED"),
    value(
        "policy",
        None,
        "conntrack: the policy that decided, [NS/]NAME",
    ),
    value(
        "state",
        None,
        "conntrack: ESTABLISHED, UNREPLIED, DENIED and so on, several with commas",
    ),
];
/// Those of them that say which pods or addresses are meant.
const ENDS: [&str; 6] = ["pod", "from-pod", "to-pod", "ip", "from-ip", "to-ip"];

/// Whether connections are asked for. A word that a CustomResourceDefinition has means its kind.
pub fn is_meant(session: &Session, wanted: &[Named]) -> bool {
    let mut words = wanted.iter().filter(|one| is_named(one));
    words
        .next()
        .is_some_and(|one| session.definitions().find_resource(&one.resource).is_none())
}

fn is_named(one: &Named) -> bool {
    NAMES.contains(&one.resource.to_lowercase().as_str())
}

/// Refuses the flags that mean something for connections only.
pub fn refuse_filters(parsed: &Parsed) -> Result<(), VerbError> {
    let given = parsed.in_order.iter().map(|(flag, _)| *flag);
    match { given }.find(|flag| is_filter(flag)) {
        Some(flag) => Err(VerbError::Usage(format!(
            "--{flag} is for conntrack, not for objects"
        ))),
        None => Ok(()),
    }
}

fn is_filter(flag: &str) -> bool {
    FILTERS.iter().any(|filter| filter.long == flag)
}

/// Refuses flags that mean nothing for connections.
fn refuse_others(parsed: &Parsed, taken: &[&str]) -> Result<(), VerbError> {
    let known = |flag: &str| {
        let global = GLOBAL.iter().any(|one| one.long == flag);
        global || is_filter(flag) || taken.contains(&flag)
    };
    match parsed.in_order.iter().find(|(flag, _)| !known(flag)) {
        Some((flag, _)) => Err(VerbError::Usage(format!(
            "--{flag} means nothing for conntrack"
        ))),
        None => Ok(()),
    }
}

/// What the command line asks for.
#[derive(Debug)]
struct Question {
    filter: ConntrackFilter,
    /// Whether something narrows it down, beside a namespace.
    is_narrow: bool,
}

fn question(parsed: &Parsed, wanted: &[Named]) -> Result<Question, VerbError> {
    if wanted.iter().any(|one| !is_named(one)) {
        let text = "conntrack cannot be asked for together with objects";
        return Err(VerbError::Local(text.into()));
    }
    let names: Vec<String> = wanted.iter().flat_map(|one| one.names.clone()).collect();
    let flags = parsed.in_order.iter();
    let filters: Vec<_> = { flags }
        .filter(|(flag, _)| is_filter(flag) && *flag != "state")
        .cloned()
        .collect();
    let Filters { allow, deny } = Filters::read(&filters)?;
    Matcher::new(&allow, &deny).map_err(VerbError::Usage)?;
    let states = parsed.value("state").map(|text| text.split(','));
    let states: Vec<String> = states.into_iter().flatten().map(str::to_owned).collect();
    let selector = parsed.value("selector").map(str::to_owned);
    let is_narrow =
        !filters.is_empty() || !names.is_empty() || !states.is_empty() || selector.is_some();
    // Who names an end means it wherever it is.
    let names_an_end = filters.iter().any(|(flag, _)| ENDS.contains(flag));
    let everywhere = parsed.is_on("all-namespaces") || names_an_end || !names.is_empty();
    let given = parsed.value("namespace").filter(|name| !name.is_empty());
    let namespace = match given {
        Some(name) if !parsed.is_on("all-namespaces") => Some(name.to_owned()),
        _ if everywhere => None,
        _ => Some("default".to_owned()),
    };
    Ok(Question {
        filter: ConntrackFilter {
            allow,
            deny,
            namespace,
            selector,
            states,
            names,
        },
        is_narrow,
    })
}

/// Runs `get conntrack`.
pub fn get(session: &mut Session, form: &Form, wanted: &[Named]) -> Result<(), VerbError> {
    refuse_others(
        &session.parsed,
        &[
            "output",
            "template",
            "all-namespaces",
            "selector",
            "no-headers",
            "ignore-not-found",
        ],
    )?;
    let Question { filter, .. } = question(&session.parsed, wanted)?;
    let mut missing: HashSet<String> = filter.names.iter().cloned().collect();
    let mut client = session.connect()?;
    let (mut items, mut printed) = (Vec::new(), 0);
    let mut opened = JsonList::default();
    let (mut headers, mut widths) = (!session.parsed.is_on("no-headers"), Vec::new());
    let read = each_part(&mut client, &filter, |entries| {
        printed += entries.len();
        for entry in &entries {
            missing.remove(&entry.name);
        }
        match form {
            Form::Table { .. } if entries.is_empty() => Ok(()),
            Form::Table { wide } => {
                let text = table(&entries, *wide).render_below(headers, &mut widths);
                headers = false;
                put(&text)
            }
            Form::Json if filter.names.is_empty() => put(&opened.items(&entries)),
            Form::Name => {
                let lines = entries
                    .iter()
                    .map(|one| format!("conntrack/{}\n", one.name));
                put(&lines.collect::<String>())
            }
            _ => {
                items.extend(entries.iter().map(object));
                Ok(())
            }
        }
    });
    match read {
        Err(VerbError::Pipe) => return Ok(()),
        read => read?,
    }
    match form {
        Form::Table { .. } | Form::Name => {
            if printed == 0 && filter.names.is_empty() {
                eprintln!("{}", nothing_found(&filter));
            }
        }
        Form::Json if filter.names.is_empty() => put(opened.end())?,
        _ if filter.names.len() == 1 && items.len() == 1 => put(&form.render(&items[0])?)?,
        _ => put(&form.render(&list(items))?)?,
    }
    if missing.is_empty() || session.parsed.is_on("ignore-not-found") {
        return Ok(());
    }
    for name in &filter.names {
        if missing.contains(name) {
            eprintln!("Error from server (NotFound): conntrack \"{name}\" not found");
        }
    }
    Err(VerbError::Status(1))
}

/// Runs `delete conntrack`.
pub fn delete(session: &mut Session, wanted: &[Named]) -> Result<(), VerbError> {
    let parsed = &session.parsed;
    refuse_others(parsed, &["all-namespaces", "selector", "all", "dry-run"])?;
    let Question { filter, is_narrow } = question(parsed, wanted)?;
    if !is_narrow && !parsed.is_on("all") {
        let text = "resource(s) were provided, but no name was specified: give a selector, a \
                    filter, or --all";
        return Err(VerbError::Local(text.into()));
    }
    let dry_run = dry_run(parsed.value("dry-run"))?;
    let of = filter.namespace.as_ref();
    let of = of.map_or(String::new(), |name| format!(" of {name} namespace"));
    let mut client = session.connect()?;
    let (mut cursor, mut gone) = (None, 0);
    loop {
        let params = ConntrackFlushParams {
            cursor,
            filter: filter.clone(),
            all: true,
            dry_run: dry_run != super::mutate::DryRun::None,
        };
        let reply: ConntrackFlushReply = client.call("conntrack.flush", params)?;
        gone += reply.flushed;
        cursor = reply.next;
        if cursor.is_none() {
            break;
        }
    }
    let things = if gone == 1 {
        "connection"
    } else {
        "connections"
    };
    println!("{gone} {things}{of} deleted{}", dry_run.suffix());
    Ok(())
}

/// Hands over the entries that are meant, part by part.
fn each_part(
    client: &mut Client,
    filter: &ConntrackFilter,
    mut each: impl FnMut(Vec<ConntrackEntry>) -> Result<(), VerbError>,
) -> Result<(), VerbError> {
    let mut cursor = None;
    loop {
        let params = ConntrackListParams {
            limit: None,
            cursor,
            filter: filter.clone(),
        };
        let reply: ConntrackListReply = client.call("conntrack.list", params)?;
        each(reply.entries)?;
        cursor = reply.next;
        if cursor.is_none() {
            return Ok(());
        }
    }
}

fn table(entries: &[ConntrackEntry], wide: bool) -> Table {
    let mut header = vec!["PROTOCOL", "SOURCE", "DESTINATION", "STATE", "IDLE", "AGE"];
    if wide {
        header.extend([
            "EXPIRES",
            "SOURCE-IP",
            "DESTINATION-IP",
            "SERVICE",
            "POLICY",
        ]);
    }
    let mut table = Table::new(header);
    for entry in entries {
        let age = |seconds: u64| human_duration(i64::try_from(seconds).unwrap_or(i64::MAX));
        let mut row = vec![
            entry.protocol.clone(),
            end(&entry.source),
            end(&entry.destination),
            entry.state.clone(),
            age(entry.idle_seconds),
            age(entry.age_seconds),
        ];
        if wide {
            row.extend([
                age(entry.expires_seconds),
                entry.source.ip.to_string(),
                entry.destination.ip.to_string(),
                entry.service.clone().unwrap_or_else(|| "<none>".to_owned()),
                entry.policy.clone().unwrap_or_else(|| "<none>".to_owned()),
            ]);
        }
        table.push(row);
    }
    table
}

/// `NS/POD:PORT`, or the address where no pod is known.
fn end(end: &FlowEnd) -> String {
    let (who, is_v6) = match end.pod_name() {
        Some(pod) => (pod, false),
        None => (end.ip.to_string(), end.ip.is_ipv6()),
    };
    match end.port {
        Some(port) if is_v6 => format!("[{who}]:{port}"),
        Some(port) => format!("{who}:{port}"),
        None => who,
    }
}

/// An entry as an object: `control/schemas/conntrack.v1.schema.json`.
fn object(entry: &ConntrackEntry) -> Value {
    let mut value = json!(entry);
    let Some(fields) = value.as_object_mut() else {
        return value;
    };
    let name = fields.remove("name");
    fields.insert("apiVersion".to_owned(), VERSION.into());
    fields.insert("kind".to_owned(), "Connection".into());
    fields.insert("metadata".to_owned(), json!({"name": name}));
    value
}

/// The text of [`list`] in JSON, some items at a time.
#[derive(Debug, Default)]
struct JsonList {
    has_items: bool,
}

impl JsonList {
    /// The list's beginning, if these are the first items, and the items.
    fn items(&mut self, entries: &[ConntrackEntry]) -> String {
        let mut text = String::new();
        for entry in entries {
            text.push_str(if self.has_items {
                ","
            } else {
                "{\n    \"apiVersion\": \"v1\",\n    \"items\": ["
            });
            self.has_items = true;
            for line in indented(&object(entry)).lines() {
                text.push_str("\n        ");
                text.push_str(line);
            }
        }
        text
    }

    /// What stands behind the last item.
    fn end(&self) -> &'static str {
        if self.has_items {
            "\n    ],\n    \"kind\": \"List\",\n    \"metadata\": {\n        \"resourceVersion\": \"\"\n    }\n}\n"
        } else {
            "{\n    \"apiVersion\": \"v1\",\n    \"items\": [],\n    \"kind\": \"List\",\n    \"metadata\": \
             {\n        \"resourceVersion\": \"\"\n    }\n}\n"
        }
    }
}

fn nothing_found(filter: &ConntrackFilter) -> String {
    match &filter.namespace {
        Some(name) => format!("No resources found in {name} namespace."),
        None => "No resources found".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::parse;
    use crate::cli::verbs::{get::FLAGS, named};
    use crate::flow::FlowVerdict;

    fn asked(line: &str) -> Result<Question, VerbError> {
        let words: Vec<String> = line.split_whitespace().map(str::to_owned).collect();
        let parsed = parse(FLAGS, &words).unwrap();
        let wanted = named(&parsed.arguments).unwrap();
        assert!(wanted.iter().any(is_named));
        question(&parsed, &wanted)
    }

    #[test]
    fn a_namespace_is_meant_unless_an_end_is_named() {
        let namespace = |line: &str| asked(line).unwrap().filter.namespace;
        assert_eq!(namespace("conntrack").as_deref(), Some("default"));
        assert_eq!(namespace("ct -n shop").as_deref(), Some("shop"));
        assert_eq!(namespace("ct -A"), None);
        assert_eq!(namespace("ct --from-pod shop/web"), None);
        assert_eq!(namespace("ct --to-port 80").as_deref(), Some("default"));
        assert_eq!(
            namespace("ct --ip 10.0.0.1 -n shop").as_deref(),
            Some("shop")
        );
    }

    #[test]
    fn filters_are_those_of_observe_and_say_whether_they_narrow() {
        let question = asked("ct -l app=web --to-port 80,443 --state established,DENIED").unwrap();
        assert!(question.is_narrow);
        assert_eq!(question.filter.selector.as_deref(), Some("app=web"));
        assert_eq!(question.filter.states, ["established", "DENIED"]);
        assert_eq!(question.filter.allow[0].destination_port, [80, 443]);
        assert!(!asked("ct -n shop").unwrap().is_narrow);
        let question = asked("conntrack/tcp_10.0.0.1_4_10.0.0.2_80 conntrack/b").unwrap();
        assert!(question.is_narrow && question.filter.namespace.is_none());
        assert_eq!(question.filter.names.len(), 2);
        assert!(asked("ct --protocol nonsense").is_err());
        assert!(asked("ct,pods").is_err());
    }

    fn entry() -> ConntrackEntry {
        let end = FlowEnd {
            ip: "10.0.0.1".parse().unwrap(),
            port: Some(80),
            namespace: None,
            pod: None,
            labels: Default::default(),
            workload: None,
        };
        ConntrackEntry {
            name: "tcp_10.0.0.1_80_10.0.0.1_80".into(),
            protocol: "TCP".into(),
            source: end.clone(),
            destination: end,
            service: None,
            state: "ESTABLISHED".into(),
            verdict: FlowVerdict::Forwarded,
            policy: None,
            idle_seconds: 1,
            age_seconds: 2,
            expires_seconds: 3,
        }
    }

    #[test]
    fn a_list_in_parts_reads_as_one_printed_whole() {
        for parts in [&[][..], &[0, 0], &[1], &[2, 0, 3]] {
            let mut printed = JsonList::default();
            let mut text = String::new();
            for part in parts {
                text.push_str(&printed.items(&vec![entry(); *part]));
            }
            text.push_str(printed.end());
            let items = vec![object(&entry()); parts.iter().sum()];
            assert_eq!(text, Form::Json.render(&list(items)).unwrap(), "{parts:?}");
        }
    }

    #[test]
    fn the_json_is_the_one_that_is_promised() {
        let value = object(&entry());
        let schema = include_str!("../../../schemas/conntrack.v1.schema.json");
        let schema: Value = serde_json::from_str(schema).unwrap();
        for (schema, value) in [
            (&schema, &value),
            (&schema["$defs"]["end"], &value["source"]),
            (&schema["properties"]["metadata"], &value["metadata"]),
        ] {
            let required = schema["required"].as_array().unwrap();
            let mut required: Vec<&str> = required.iter().filter_map(Value::as_str).collect();
            let properties = schema["properties"].as_object().unwrap().keys();
            let mut properties: Vec<&str> = properties.map(String::as_str).collect();
            let mut present: Vec<&str> = value
                .as_object()
                .unwrap()
                .keys()
                .map(String::as_str)
                .collect();
            for keys in [&mut required, &mut properties, &mut present] {
                keys.sort_unstable();
            }
            assert_eq!(required, present);
            assert_eq!(properties, present);
        }
    }

    #[test]
    fn ends_are_pods_or_addresses() {
        let mut one = FlowEnd {
            ip: "fd00::1".parse().unwrap(),
            port: Some(80),
            namespace: None,
            pod: None,
            labels: Default::default(),
            workload: None,
        };
        assert_eq!(end(&one), "[fd00::1]:80");
        one.ip = "10.0.0.1".parse().unwrap();
        assert_eq!(end(&one), "10.0.0.1:80");
        (one.namespace, one.pod) = (Some("shop".into()), Some("web".into()));
        assert_eq!(end(&one), "shop/web:80");
        one.port = None;
        assert_eq!(end(&one), "shop/web");
    }
}
