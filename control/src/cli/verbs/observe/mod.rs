//! `observe`: flows, with the filters and forms of `hubble observe`.
//!
//! Of Hubble's flags those are here that mean something without identities, layer 7 and clusters
//! of clusters; any other is an error.

mod filters;
mod print;
mod when;

use std::io::{self, BufRead, IsTerminal};
use std::time::SystemTime;

use crate::cli::flags::{Flag, joined, optional, switch, value};
use crate::cli::session::{Session, VerbError, put};
use crate::flow::Flow;
use crate::flow::filter::Matcher;
use crate::protocol::{Lost, ObserveParams};

pub use filters::Filters;
use print::Printer;

/// Flows printed if nothing says how many, as `hubble observe` does.
const LAST: u32 = 20;

/// What is not about which flows.
const OWN: [Flag; 14] = [
    switch("follow", Some('f'), "Print flows as they come"),
    value(
        "last",
        None,
        "The newest N of the flows that the daemon holds (default 20)",
    ),
    value("first", None, "The oldest N of them"),
    switch("all", None, "All of them"),
    value(
        "since",
        None,
        "None before this: 3s, 4m, 1h43m, 2026-11-21 or RFC 3339",
    ),
    value("until", None, "None after this; as --since"),
    value(
        "output",
        Some('o'),
        "compact (default), dict, table, json (one object a line), jsonpb (Hubble's JSON)",
    ),
    value(
        "time-format",
        None,
        "StampMilli (default), YearMonthDay, YearMonthDayHourMinute, RFC3339, RFC3339Milli, \
         RFC3339Micro, RFC3339Nano",
    ),
    switch("print-node-name", None, "Print the node's name"),
    switch("numeric", None, "Print addresses instead of pods"),
    optional(
        "ip-translation",
        "true",
        "Print pods instead of addresses (default true)",
    ),
    value("color", None, "auto (default), always or never"),
    switch("silent-errors", Some('s'), "Say nothing on stderr"),
    value(
        "input-file",
        None,
        "Flows from this file, as -o json printed them, or - for stdin",
    ),
];

/// Which flows: Hubble's filters.
pub const FILTERS: [Flag; 57] = [
    switch("not", None, "Turn the next filter round"),
    value("verdict", None, "FORWARDED, DROPPED or AUDIT"),
    value("drop-reason-desc", None, "Drop reason, as POLICY_DENIED"),
    value("type", Some('t'), "drop or policy-verdict"),
    value("policy", None, "The deciding policy, [NS/]NAME"),
    value("traffic-direction", None, "ingress or egress"),
    value(
        "protocol",
        None,
        "tcp, udp, sctp, icmp, icmpv4, icmpv6 or a number",
    ),
    value("tcp-flags", None, "Flags that are all set, as syn,ack"),
    value(
        "pod",
        None,
        "Either end is a pod whose name begins so, [NS/]NAME; NS is default if it is not given",
    ),
    value("from-pod", None, "The source is"),
    value("to-pod", None, "The destination is"),
    value("from-namespace", None, "The source is in this namespace"),
    value("to-namespace", None, "The destination is"),
    switch("all-namespaces", Some('A'), "Either end is a pod"),
    switch("from-all-namespaces", None, "The source is a pod"),
    switch("to-all-namespaces", None, "The destination is a pod"),
    value(
        "label",
        Some('l'),
        "Either end is a pod that this label selector picks",
    ),
    value("from-label", None, "The source is"),
    value("to-label", None, "The destination is"),
    value(
        "ip",
        None,
        "Either end has this address, or is in this CIDR",
    ),
    value("from-ip", None, "The source has"),
    value("to-ip", None, "The destination has"),
    value(
        "workload",
        None,
        "Either end is a pod of this workload, [KIND/]NAME, as deployment/web",
    ),
    value("from-workload", None, "The source is"),
    value("to-workload", None, "The destination is"),
    value(
        "service",
        None,
        "It is to a Service whose name begins so, [NS/]NAME; NS is default if it is not given",
    ),
    value("to-service", None, "The same"),
    value(
        "node-name",
        None,
        "The node's name, in which * stands for anything",
    ),
    switch("ipv4", Some('4'), "IPv4 only"),
    switch("ipv6", Some('6'), "IPv6 only"),
    value("ip-version", None, "v4 or v6"),
    value("port", None, "Either end has this port"),
    value("from-port", None, "The source has"),
    value("to-port", None, "The destination has"),
    // Hubble's, each refused with its reason.
    value("fqdn", None, "Refused: not known here"),
    value("from-fqdn", None, "Refused: not known here"),
    value("to-fqdn", None, "Refused: not known here"),
    value("http-status", None, "Refused: not known here"),
    value("http-method", None, "Refused: not known here"),
    value("http-path", None, "Refused: not known here"),
    value("http-url", None, "Refused: not known here"),
    value("http-header", None, "Refused: not known here"),
    value("trace-id", None, "Refused: not known here"),
    value("ip-trace-id", None, "Refused: not known here"),
    value("identity", None, "Refused: not known here"),
    value("from-identity", None, "Refused: not known here"),
    value("to-identity", None, "Refused: not known here"),
    value("from-cluster", None, "Refused: not known here"),
    value("to-cluster", None, "Refused: not known here"),
    value("node-label", None, "Refused: not known here"),
    value("from-service", None, "Refused: not known here"),
    value("snat-ip", None, "Refused: not known here"),
    value("uuid", None, "Refused: not known here"),
    value("interface", None, "Refused: not known here"),
    value("cel-expression", None, "Refused: not known here"),
    value("allowlist", None, "Refused: not known here"),
    value("denylist", None, "Refused: not known here"),
];

/// Flags of `observe`.
pub const FLAGS: &[Flag] = &joined::<{ OWN.len() + FILTERS.len() }>(&OWN, &FILTERS);

/// The flags that [`Filters::read`] understands: [`FILTERS`], and what `-n` means beside them.
pub fn filter_flags() -> impl Iterator<Item = Flag> {
    let namespace = value("namespace", Some('n'), "Either end is in this namespace");
    let is_read = |flag: &Flag| !flag.help.starts_with("Refused");
    FILTERS.into_iter().filter(is_read).chain([namespace])
}

/// Runs `observe`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    match session.parsed.arguments.as_slice() {
        [] => {}
        [one] if one == "flows" => {}
        [other, ..] => {
            let text = format!("unknown command {other:?} for \"weir observe\"");
            return Err(VerbError::Usage(text));
        }
    }
    let params = request(session)?;
    let mut printer = Printer::new(&session.parsed, io::stdout().is_terminal())?;
    let printed = match session.parsed.value("input-file") {
        Some(file) => replay(file, &params, &mut printer),
        None => ask(session, &params, &mut printer),
    };
    match printed {
        // Whoever read has seen enough, as `| head` has.
        Err(VerbError::Pipe) => Ok(()),
        other => other,
    }
}

/// What the flags ask for.
fn request(session: &Session) -> Result<ObserveParams, VerbError> {
    let parsed = &session.parsed;
    let count = |flag: &'static str| match parsed.value(flag) {
        None => Ok(None),
        Some(text) => match text.parse::<u32>() {
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some(count)),
            Err(_) => Err(VerbError::Usage(format!(
                "invalid argument {text:?} for \"--{flag}\" flag: not a whole number"
            ))),
        },
    };
    let (first, last) = (count("first")?, count("last")?);
    let (all, follow) = (parsed.is_on("all"), parsed.is_on("follow"));
    for (given, with, text) in [
        (first.is_some(), last.is_some(), "--first and --last"),
        (first.is_some(), all, "--first and --all"),
        (first.is_some(), follow, "--first and --follow"),
        (last.is_some(), all, "--last and --all"),
    ] {
        if given && with {
            return Err(VerbError::Usage(format!("cannot set both {text}")));
        }
    }
    let now = SystemTime::now();
    let moment = |flag: &str| match parsed.value(flag) {
        None => Ok(None),
        Some(text) => when::parse(text, now)
            .map(Some)
            .ok_or_else(|| VerbError::Usage(format!("failed to parse the {flag} time: {text:?}"))),
    };
    let since = moment("since")?;
    let until = if follow { None } else { moment("until")? };
    let bounded = since.is_some() || until.is_some() || all;
    let number = match first.or(last) {
        None if follow && all => Some(u32::MAX),
        None if !bounded && !follow => Some(LAST),
        other => other,
    };
    let Filters { allow, deny } = Filters::read(&parsed.in_order)?;
    // Refused here already, so that the words are the same with and without a daemon.
    Matcher::new(&allow, &deny).map_err(VerbError::Usage)?;
    Ok(ObserveParams {
        follow,
        number,
        first: first.is_some(),
        since,
        until,
        allow,
        deny,
    })
}

/// Flows from a file, in its order.
fn replay(file: &str, params: &ObserveParams, printer: &mut Printer) -> Result<(), VerbError> {
    let reader: Box<dyn BufRead> = if file == "-" {
        Box::new(io::stdin().lock())
    } else {
        let opened = std::fs::File::open(file)
            .map_err(|error| VerbError::Local(format!("{file}: {error}")))?;
        Box::new(io::BufReader::new(opened))
    };
    let wanted = Matcher::new(&params.allow, &params.deny).map_err(VerbError::Usage)?;
    for (number, line) in (1..).zip(reader.lines()) {
        let line = line?;
        if line.trim().is_empty() {
            continue;
        }
        let flow: Flow = serde_json::from_str(&line)
            .map_err(|error| VerbError::Local(format!("{file}:{number}: {error}")))?;
        if wanted.matches(&flow) {
            put(&printer.flow(&flow))?;
        }
    }
    put(&printer.finish())
}

fn ask(
    session: &mut Session,
    params: &ObserveParams,
    printer: &mut Printer,
) -> Result<(), VerbError> {
    let silent = session.parsed.is_on("silent-errors");
    let mut client = session.connect()?;
    let reply = client.observe(params)?;
    for flow in &reply.flows {
        put(&printer.flow(flow))?;
    }
    if reply.subscription.is_none() {
        put(&printer.finish())?;
        if !reply.accepts && !silent {
            eprintln!(
                "Connections that pass are recorded only while somebody follows \
                 (weir observe -f), or with log.accepts in the configuration."
            );
        }
        return Ok(());
    }
    loop {
        let event = client.next_flow()?;
        if let Some(flow) = &event.flow {
            put(&printer.flow(flow))?;
        }
        if let Some(Lost { client, daemon }) = event.lost
            && !silent
        {
            eprintln!(
                "LOST: {client} flows that this program did not take in time, {daemon} events that \
                 were too many for the daemon"
            );
        }
    }
}
