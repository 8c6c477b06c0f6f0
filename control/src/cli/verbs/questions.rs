//! `trace` and `matrix`: what policy says, of the daemon's objects or of files, and what real
//! packets say.

use std::collections::{BTreeMap, HashMap};
use std::io::{BufWriter, ErrorKind, Write};
use std::path::PathBuf;

use serde_json::Value;

use crate::cli::files;
use crate::cli::flags::{Flag, switch, value};
use crate::cli::output::indented;
use crate::cli::session::{Session, VerbError};
use crate::family::Family;
use crate::lab_protocol::{self, ContainerTarget, ExecRequest};
use crate::matrix::{Entry, Matrix, Plan};
use crate::objects::{DecodeOptions, UnknownKinds, decode_documents_with};
use crate::offline::Offline;
use crate::protocol::{Explained, GetParams, GetReply, MatrixParams, TraceParams};

use super::mutate::field_validation;
use super::{FILES, OUTPUT};

/// Flags of `trace`.
pub const TRACE_FLAGS: &[Flag] = &[
    value("from", None, "Sender: [NS/]POD or an address"),
    value(
        "to",
        None,
        "Receiver: [NS/]POD, [NS/]SERVICE (or pod/NS/NAME, service/NS/NAME) or an address",
    ),
    value("port", None, "Destination port, number or name"),
    value("protocol", None, "TCP (default), UDP, SCTP or ICMP"),
    value(
        "expect",
        None,
        "allow or deny: exit with 1 if the verdict is another",
    ),
    FILES[0],
    FILES[1],
    OUTPUT,
    value(
        "validate",
        None,
        "strict, warn or ignore: what to do with unknown fields",
    ),
    value(
        "ignore-kinds",
        None,
        "Kinds to leave out, as CiliumNetworkPolicy",
    ),
];
/// Flags of `matrix`.
pub const MATRIX_FLAGS: &[Flag] = &[
    value(
        "port",
        None,
        "Ports, as 80/TCP or icmp; default every containerPort",
    ),
    value(
        "with",
        None,
        "Addresses, CIDRs or NS/SERVICE beside the pods",
    ),
    switch(
        "live",
        None,
        "Try it with real connections between a lab's pods",
    ),
    FILES[0],
    FILES[1],
    OUTPUT,
    value(
        "validate",
        None,
        "strict, warn or ignore: what to do with unknown fields",
    ),
    value(
        "ignore-kinds",
        None,
        "Kinds to leave out, as CiliumNetworkPolicy",
    ),
];

/// How long a live probe waits for an answer.
const LIVE_LIMIT_MS: &str = "1000";

/// Runs `trace`.
pub fn trace(session: &mut Session) -> Result<(), VerbError> {
    let required = |flag: &str| {
        let missing = || VerbError::Usage(format!("required flag(s) \"{flag}\" not set"));
        session
            .parsed
            .value(flag)
            .map(str::to_owned)
            .ok_or_else(missing)
    };
    let params = TraceParams {
        from: required("from")?,
        to: required("to")?,
        port: session.parsed.value("port").map(str::to_owned),
        protocol: session.parsed.value("protocol").map(str::to_owned),
        namespace: session.namespace(),
    };
    let expected = match session.parsed.value("expect") {
        some @ (None | Some("allow" | "deny")) => some.map(str::to_owned),
        Some(other) => {
            return Err(VerbError::Local(format!(
                "--expect takes allow or deny, not \"{other}\""
            )));
        }
    };
    let explained = match offline(session)? {
        Some(offline) => {
            let trace = offline.view().trace(&params).map_err(local)?;
            Explained {
                text: trace.text(),
                json: to_json(&trace)?,
            }
        }
        None => session.connect()?.call("trace", &params)?,
    };
    print(session, &explained)?;
    let verdict = explained.json["verdict"].as_str().unwrap_or_default();
    match expected {
        Some(expected) if expected != verdict => Err(VerbError::Local(format!(
            "expected {expected}, but the verdict is {verdict}"
        ))),
        _ => Ok(()),
    }
}

/// Runs `matrix`.
pub fn matrix(session: &mut Session) -> Result<(), VerbError> {
    let owned = |flag: &str| {
        session
            .parsed
            .values(flag)
            .into_iter()
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    let params = MatrixParams {
        ports: owned("port"),
        with: owned("with"),
        namespace: session.namespace(),
    };
    let offline = offline(session)?;
    if session.parsed.is_on("live") {
        if offline.is_some() {
            return Err(VerbError::Local(
                "--live asks a lab's pods, and takes no -f".into(),
            ));
        }
        return live(session, &params);
    }
    match offline {
        Some(offline) => write_matrix(session, &offline.view().plan(&params).map_err(local)?),
        None => {
            let explained = session.connect()?.call("matrix", &params)?;
            print(session, &explained)
        }
    }
}

/// Writes a matrix as it is judged.
fn write_matrix(session: &Session, plan: &Plan<'_>) -> Result<(), VerbError> {
    let json = is_json(session)?;
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = match json {
        true => plan.write_json(&mut out),
        false => plan.write_text(&mut out),
    };
    match written.and_then(|()| out.flush()) {
        // `weir matrix | head` has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}

/// Whether `-o` asks for JSON, else for a table.
fn is_json(session: &Session) -> Result<bool, VerbError> {
    match session.parsed.value("output") {
        None | Some("" | "table") => Ok(false),
        Some("json") => Ok(true),
        Some(other) => Err(VerbError::Local(format!(
            "unable to match a printer suitable for the output format \"{other}\", allowed \
             formats are: json,table"
        ))),
    }
}

fn print(session: &Session, explained: &Explained) -> Result<(), VerbError> {
    match is_json(session)? {
        true => print!("{}", indented(&explained.json)),
        false => print!("{}", explained.text),
    }
    Ok(())
}

fn local(error: impl std::fmt::Display) -> VerbError {
    VerbError::Local(error.to_string())
}

fn to_json(value: &impl serde::Serialize) -> Result<Value, VerbError> {
    serde_json::to_value(value).map_err(local)
}

/// The objects of `-f`, compiled; none without `-f`.
fn offline(session: &Session) -> Result<Option<Offline>, VerbError> {
    let names = session.parsed.values("filename");
    if names.is_empty() {
        return Ok(None);
    }
    let ignored: Vec<String> = session
        .parsed
        .values("ignore-kinds")
        .into_iter()
        .map(str::to_owned)
        .collect();
    let namespace = session.namespace();
    let options = DecodeOptions {
        fields: field_validation(session.parsed.value("validate"))?,
        unknown_kinds: UnknownKinds::Skip,
        ignored_kinds: &ignored,
        namespace: namespace.as_deref(),
        ..DecodeOptions::default()
    };
    let mut objects = Vec::new();
    for source in files::read(&names, session.parsed.is_on("recursive"))? {
        let decoded = decode_documents_with(&source.text, &source.name, &options).map_err(local)?;
        for warning in decoded.warnings {
            eprintln!("Warning: {warning}");
        }
        objects.extend(decoded.objects);
    }
    let offline = Offline::new(objects).map_err(local)?;
    for warning in &offline.warnings {
        eprintln!("Warning: {warning}");
    }
    Ok(Some(offline))
}

/// One pair to try: its place in the matrix, and the target as the probe takes it.
struct Attempt {
    entry: usize,
    target: String,
}

/// Tries every pair of the computed matrix with a real connection, and says where the two differ.
fn live(session: &mut Session, params: &MatrixParams) -> Result<(), VerbError> {
    let mut client = session.connect()?;
    let computed: Explained = client.call("matrix", params)?;
    let everywhere = GetParams {
        resource: "pods".into(),
        all_namespaces: true,
        ..GetParams::default()
    };
    let pods: GetReply = client.call("get", &everywhere)?;
    let addresses = pod_addresses(&pods);
    let Matrix { mut entries } = serde_json::from_value(computed.json).map_err(local)?;
    let attempts = attempts(&entries, &addresses);
    let socket = session.lab_socket()?;
    let results = std::thread::scope(|scope| {
        let threads: Vec<_> = attempts
            .iter()
            .map(|(pod, attempts)| scope.spawn(|| probe(&socket, pod, attempts)))
            .collect();
        let broke = || VerbError::Local("a probing thread broke".into());
        threads
            .into_iter()
            .map(|thread| thread.join().map_err(|_| broke())?)
            .collect::<Result<Vec<_>, VerbError>>()
    })?;
    let tried: HashMap<usize, String> = results.into_iter().flatten().collect();
    let mut different = Vec::new();
    let mut index = 0;
    entries.retain_mut(|entry| {
        let outcome = tried.get(&index);
        index += 1;
        let Some(outcome) = outcome else { return false };
        let measured = if outcome == "timed-out" {
            "deny"
        } else {
            "allow"
        };
        let said = verdict_over(entry, addresses.get(&entry.to));
        if said != measured {
            different.push(format!(
                "{} to {} port {}: policy says {said}, the packet says {outcome}",
                entry.from,
                entry.to,
                entry.port.unwrap_or_default(),
            ));
        }
        entry.verdict = measured.into();
        entry.allowed_family = None;
        entry.reason = outcome.clone();
        true
    });
    let measured = Matrix { entries };
    print(
        session,
        &Explained {
            text: measured.text(),
            json: to_json(&measured)?,
        },
    )?;
    for difference in &different {
        eprintln!("{difference}");
    }
    if different.is_empty() {
        Ok(())
    } else {
        Err(VerbError::Status(1))
    }
}

/// What a matrix says of connections to this very address.
fn verdict_over<'e>(entry: &'e Entry, to: Option<&String>) -> &'e str {
    let tried = to.and_then(|address| address.parse().ok()).map(Family::of);
    match entry.allowed_family {
        Some(family) if tried == Some(family) => "allow",
        _ => &entry.verdict,
    }
}

/// `NS/POD` → its first address.
fn pod_addresses(pods: &GetReply) -> HashMap<String, String> {
    let text = |pod: &Value, pointer: &str| pod.pointer(pointer)?.as_str().map(str::to_owned);
    pods.items
        .iter()
        .filter_map(|pod| {
            let name = text(pod, "/metadata/name")?;
            let namespace = text(pod, "/metadata/namespace")?;
            Some((format!("{namespace}/{name}"), text(pod, "/status/podIP")?))
        })
        .collect()
}

/// By sending pod, what it shall try: pairs of pods over TCP and UDP.
fn attempts(
    entries: &[Entry],
    addresses: &HashMap<String, String>,
) -> BTreeMap<String, Vec<Attempt>> {
    let mut attempts: BTreeMap<String, Vec<Attempt>> = BTreeMap::new();
    for (index, entry) in entries.iter().enumerate() {
        let scheme = match entry.protocol.as_str() {
            "TCP" => "",
            "UDP" => "udp:",
            _ => continue,
        };
        let (Some(address), Some(port)) = (addresses.get(&entry.to), entry.port) else {
            continue;
        };
        if !addresses.contains_key(&entry.from) {
            continue;
        }
        let host = if address.contains(':') {
            format!("[{address}]")
        } else {
            address.clone()
        };
        let target = format!("{scheme}{host}:{port}");
        attempts
            .entry(entry.from.clone())
            .or_default()
            .push(Attempt {
                entry: index,
                target,
            });
    }
    attempts
}

/// Lets one pod try its targets, all at once; the outcome of each, by its place in the matrix.
fn probe(
    socket: &std::path::Path,
    pod: &str,
    attempts: &[Attempt],
) -> Result<Vec<(usize, String)>, VerbError> {
    let (namespace, name) = pod.split_once('/').unwrap_or(("default", pod));
    // Pods see the machine's root read-only, so that the program is there under the same path.
    let program = std::env::current_exe()
        .map(|own| own.with_file_name("weir-lab"))
        .unwrap_or_else(|_| PathBuf::from("weir-lab"));
    let mut command: Vec<String> = vec![program.display().to_string(), "probe".into()];
    command.extend(["--limit-ms".to_owned(), LIVE_LIMIT_MS.to_owned()]);
    command.extend(attempts.iter().map(|attempt| attempt.target.clone()));
    let request = ExecRequest {
        target: ContainerTarget {
            namespace: namespace.to_owned(),
            pod: name.to_owned(),
            container: None,
        },
        command,
        ..ExecRequest::default()
    };
    let (status, stdout, stderr) = lab_protocol::exec_captured(socket, &request, &[])?;
    let outcomes: Vec<String> = String::from_utf8_lossy(&stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok())
        .filter_map(|line| line["outcome"].as_str().map(str::to_owned))
        .collect();
    if status != 0 || outcomes.len() != attempts.len() {
        let said = String::from_utf8_lossy(&stderr);
        return Err(VerbError::Local(format!(
            "the probe in {pod} ended with {status}: {}",
            said.trim()
        )));
    }
    Ok(attempts
        .iter()
        .map(|attempt| attempt.entry)
        .zip(outcomes)
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn pods_try_pods_by_address_and_protocol() {
        let entries: Matrix = serde_json::from_value(json!([
            {"from": "a/x", "to": "a/y", "protocol": "TCP", "port": 80, "portName": null, "verdict": "allow", "reason": ""},
            {"from": "a/x", "to": "a/y", "protocol": "UDP", "port": 53, "portName": null, "verdict": "allow", "reason": ""},
            {"from": "a/x", "to": "a/y", "protocol": "ICMP", "port": null, "portName": null, "verdict": "allow", "reason": ""},
            {"from": "10.0.0.9", "to": "a/y", "protocol": "TCP", "port": 80, "portName": null, "verdict": "allow", "reason": ""},
        ]))
        .unwrap();
        let addresses = [("a/x", "10.0.0.1"), ("a/y", "fd00::2")]
            .map(|(pod, address)| (pod.to_owned(), address.to_owned()))
            .into();
        let attempts = attempts(&entries.entries, &addresses);
        let targets: Vec<&str> = attempts["a/x"].iter().map(|a| a.target.as_str()).collect();
        assert_eq!(targets, ["[fd00::2]:80", "udp:[fd00::2]:53"]);
        assert_eq!(attempts.len(), 1);
    }
}
