//! `expose`: a Service in front of pods, or of what makes them (kubectl `pkg/cmd/expose`).

use serde_json::{Map, Value, json};

use crate::cli::flags::{Flag, optional, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cluster::patch;
use crate::protocol::ApplyParams;

use super::create::send;
use super::done::Done;
use super::find::{Found, find};
use super::mutate::{DryRun, dry_run};
use super::{FILES, MISSING_KEYS, OUTPUT, TEMPLATE};

/// Flags of `expose`.
pub const FLAGS: &[Flag] = &[
    value(
        "port",
        None,
        "The Service's port, or several with commas; else the containers'",
    ),
    value(
        "target-port",
        None,
        "Number or name of the pods' port; else the Service's port",
    ),
    value(
        "name",
        None,
        "The Service's name; else that of what is exposed",
    ),
    value(
        "type",
        None,
        "ClusterIP (default), NodePort, LoadBalancer or ExternalName",
    ),
    value(
        "protocol",
        None,
        "TCP (default), UDP or SCTP; else the containers'",
    ),
    value(
        "selector",
        None,
        "Labels of the pods; else those that what is exposed selects",
    ),
    value(
        "labels",
        Some('l'),
        "The Service's labels; else those of what is exposed",
    ),
    value(
        "cluster-ip",
        None,
        "The Service's address; None for a headless Service",
    ),
    value("session-affinity", None, "None or ClientIP"),
    value(
        "external-ip",
        None,
        "An address beside its own (not served here)",
    ),
    value(
        "load-balancer-ip",
        None,
        "Of type LoadBalancer: the address asked for",
    ),
    value("overrides", None, "JSON that is merged over the Service"),
    value(
        "override-type",
        None,
        "json, merge (default) or strategic: what --overrides is",
    ),
    optional("dry-run", "unchanged", "none, client or server"),
    FILES[0],
    FILES[1],
    FILES[2],
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    switch("show-managed-fields", None, ""),
    switch("save-config", None, ""),
    value("field-manager", None, ""),
];

/// The kinds that can be exposed.
const EXPOSABLE: [&str; 5] = [
    "deployments.apps",
    "pods",
    "replicasets.apps",
    "replicationcontrollers",
    "services",
];

/// Runs `expose`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    let mut done = Done::new(session, dry_run)?;
    // Here it chooses no objects: it is the Service's.
    let selector = session.parsed.value("selector").map(str::to_owned);
    session.parsed.forget("selector");
    let mut client = session.connect()?;
    let (found, mut errors) = find(session, &mut client, false)?;
    for one in &found {
        let exposed = expose(session, one, selector.as_deref()).and_then(|service| {
            if dry_run == DryRun::Client {
                return done.print("service", &service, "exposed");
            }
            let params = ApplyParams {
                objects: vec![service],
                namespace: one.target().namespace,
                dry_run: dry_run != DryRun::None,
                ..ApplyParams::default()
            };
            send(session, &mut client, &params, &mut done, "exposed")
        });
        errors.extend(exposed.err());
    }
    VerbError::all(errors)
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

/// The Service that is to be made.
fn expose(session: &Session, one: &Found, selector: Option<&str>) -> Result<Value, VerbError> {
    if !EXPOSABLE.contains(&one.resource.as_str()) {
        let kind = one.object["kind"].as_str().unwrap_or_default();
        let group = one
            .resource
            .split_once('.')
            .map_or(String::new(), |(_, g)| format!(".{g}"));
        return Err(local(format!("cannot expose a {kind}{group}")));
    }
    let given = |flag: &str| session.parsed.value(flag).filter(|text| !text.is_empty());
    let selector = match selector.filter(|text| !text.is_empty()) {
        Some(text) => pairs(text)?,
        None => selected(one).map_err(|why| {
            local(format!(
                "couldn't retrieve selectors via --selector flag or introspection: {why}"
            ))
        })?,
    };
    let labels = match given("labels") {
        Some(text) => pairs(text)?,
        None => map(&one.object["metadata"]["labels"]),
    };
    let name: String = match given("name") {
        Some(name) => name.to_owned(),
        None => one.name().chars().take(63).collect(),
    };
    let mut service = json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {"name": name},
        "spec": {"ports": ports(session, one)?, "selector": selector},
    });
    if !labels.is_empty() {
        service["metadata"]["labels"] = Value::Object(labels);
    }
    if let Some(namespace) = one.target().namespace {
        service["metadata"]["namespace"] = namespace.into();
    }
    if let Some(kind) = given("type") {
        service["spec"]["type"] = kind.into();
    }
    if let Some(address) = given("external-ip") {
        service["spec"]["externalIPs"] = json!([address]);
    }
    if let Some(address) =
        given("load-balancer-ip").filter(|_| given("type") == Some("LoadBalancer"))
    {
        service["spec"]["loadBalancerIP"] = address.into();
    }
    match given("session-affinity") {
        None => {}
        Some(affinity @ ("None" | "ClientIP")) => {
            service["spec"]["sessionAffinity"] = affinity.into();
        }
        Some(other) => return Err(local(format!("unknown session affinity: {other}"))),
    }
    if let Some(address) = given("cluster-ip") {
        service["spec"]["clusterIP"] = address.into();
    }
    if let Some(text) = given("overrides") {
        override_with(&mut service, text, given("override-type"))?;
    }
    Ok(service)
}

/// Merges what `--overrides` holds.
pub fn override_with(object: &mut Value, text: &str, kind: Option<&str>) -> Result<(), VerbError> {
    let with: Value = serde_json::from_str(text)
        .map_err(|error| local(format!("Invalid JSON Patch: {error}")))?;
    match kind.unwrap_or("merge") {
        "merge" => {
            patch::merge(object, &with);
            Ok(())
        }
        "strategic" => patch::strategic(object, &with).map_err(VerbError::Local),
        "json" => patch::json(object, &with).map_err(VerbError::Local),
        other => Err(local(format!("invalid override type: {other}"))),
    }
}

fn map(value: &Value) -> Map<String, Value> {
    value.as_object().cloned().unwrap_or_default()
}

/// `a=b,c=d`.
pub fn pairs(text: &str) -> Result<Map<String, Value>, VerbError> {
    let mut found = Map::new();
    for pair in text.split(',') {
        match pair.split_once('=') {
            Some(("", _)) => return Err(local("unexpected empty label key")),
            Some((key, value)) if !value.contains('=') => {
                found.insert(key.to_owned(), value.into());
            }
            _ => return Err(local(format!("unexpected label spec: {pair}"))),
        }
    }
    Ok(found)
}

/// The labels of the pods that are meant.
fn selected(one: &Found) -> Result<Map<String, Value>, String> {
    let spec = &one.object["spec"];
    match one.resource.as_str() {
        "pods" => match map(&one.object["metadata"]["labels"]) {
            labels if labels.is_empty() => {
                Err("the pod has no labels and cannot be exposed".to_owned())
            }
            labels => Ok(labels),
        },
        "services" => match map(&spec["selector"]) {
            labels if labels.is_empty() => Err("the service has no pod selector set".to_owned()),
            labels => Ok(labels),
        },
        "replicationcontrollers" => Ok(match map(&spec["selector"]) {
            labels if labels.is_empty() => map(&spec["template"]["metadata"]["labels"]),
            labels => labels,
        }),
        _ => {
            let expressions = &spec["selector"]["matchExpressions"];
            if expressions.as_array().is_some_and(|all| !all.is_empty()) {
                return Err(format!(
                    "couldn't convert expressions - \"{expressions}\" to map-based selector format"
                ));
            }
            match map(&spec["selector"]["matchLabels"]) {
                labels if labels.is_empty() => {
                    let kind = one.object["kind"]
                        .as_str()
                        .unwrap_or_default()
                        .to_lowercase();
                    Err(format!(
                        "invalid {kind}: no selectors, therefore cannot be exposed"
                    ))
                }
                labels => Ok(labels),
            }
        }
    }
}

/// Ports and protocols of what is exposed, in their order.
fn own_ports(one: &Found) -> Vec<(String, Vec<String>)> {
    let spec = &one.object["spec"];
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let (all, key): (Vec<Value>, &str) = match one.resource.as_str() {
        "services" => (list(&spec["ports"]), "port"),
        "pods" => (containers_ports(&spec["containers"]), "containerPort"),
        _ => (
            containers_ports(&spec["template"]["spec"]["containers"]),
            "containerPort",
        ),
    };
    let mut found: Vec<(String, Vec<String>)> = Vec::new();
    for port in all {
        let number = port[key].to_string();
        let protocol = port["protocol"].as_str().unwrap_or("TCP").to_owned();
        match found.iter_mut().find(|(own, _)| *own == number) {
            Some((_, protocols)) => protocols.push(protocol),
            None => found.push((number, vec![protocol])),
        }
    }
    found
}

fn containers_ports(containers: &Value) -> Vec<Value> {
    let containers = containers.as_array().into_iter().flatten();
    let ports = containers.filter_map(|container| container["ports"].as_array());
    ports.flatten().cloned().collect()
}

fn ports(session: &Session, one: &Found) -> Result<Vec<Value>, VerbError> {
    let given = |flag: &str| session.parsed.value(flag).filter(|text| !text.is_empty());
    let own = own_ports(one);
    let wanted: Vec<String> = match given("port") {
        Some(text) => text.split(',').map(str::to_owned).collect(),
        None => own.iter().map(|(number, _)| number.clone()).collect(),
    };
    if wanted.is_empty() && given("cluster-ip") != Some("None") {
        return Err(local("couldn't find port via --port flag or introspection"));
    }
    let mut ports = Vec::new();
    for (at, text) in wanted.iter().enumerate() {
        let number: i64 = text
            .parse()
            .map_err(|_| local(format!("strconv.Atoi: parsing \"{text}\": invalid syntax")))?;
        let target: Value = match given("target-port") {
            None => number.into(),
            Some(target) => target
                .parse::<i64>()
                .map_or_else(|_| target.into(), Value::from),
        };
        let known = own
            .iter()
            .find(|(own, _)| own == text)
            .map(|(_, protocols)| protocols);
        let mut protocols = vec![given("protocol").unwrap_or("TCP").to_owned()];
        if let Some(known) = known.filter(|_| given("protocol").is_none()) {
            protocols = known.clone();
        }
        let several = protocols.len() > 1;
        for protocol in protocols {
            let mut port = json!({"port": number, "protocol": protocol, "targetPort": target});
            // Ports beside others need names.
            if several {
                let protocol = protocol.to_lowercase();
                port["name"] = format!("port-{}-{protocol}", at + 1).into();
            } else if wanted.len() > 1 {
                port["name"] = format!("port-{}", at + 1).into();
            }
            ports.push(port);
        }
    }
    Ok(ports)
}
