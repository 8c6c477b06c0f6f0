//! The objects that `create` makes of words and flags.

use serde_json::{Map, Value, json};

use crate::cli::key_values::{self, Sources};
use crate::cli::session::{Session, VerbError};
use crate::client::Client;
use crate::protocol::{GetParams, GetReply};

use super::local;

/// An object with no more than that.
pub fn object(api_version: &str, kind: &str, name: &str, more: Value) -> Value {
    let mut made = json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name}});
    if let (Some(made), Value::Object(more)) = (made.as_object_mut(), more) {
        made.extend(more);
    }
    made
}

/// A number that a flag has.
fn number(session: &Session, flag: &'static str) -> Result<Option<i64>, VerbError> {
    Ok(crate::cli::values::integer(&session.parsed, flag)?)
}

/// What stands behind `--`.
fn command(session: &Session) -> Vec<String> {
    let parsed = &session.parsed;
    let from = parsed.before_dashes.unwrap_or(parsed.arguments.len());
    parsed.arguments[from..].to_vec()
}

/// `nginx` of `registry/library/nginx:1.27`.
fn base(image: &str) -> &str {
    let base = image.rsplit('/').next().unwrap_or(image);
    base.split([':', '@']).next().unwrap_or(base)
}

/// `create deployment`.
pub fn deployment(session: &Session, name: &str) -> Result<Value, VerbError> {
    let images = session.parsed.values("image");
    if images.is_empty() {
        return Err(local("required flag(s) \"image\" not set"));
    }
    let command = command(session);
    if images.len() > 1 && !command.is_empty() {
        return Err(local("cannot specify multiple --image options and command"));
    }
    let replicas = number(session, "replicas")?.unwrap_or(1);
    if replicas < 0 {
        return Err(local("invalid value for --replicas: must be non-negative"));
    }
    let mut containers: Vec<Value> = Vec::new();
    for image in &images {
        let mut name = base(image).to_owned();
        // kubectl takes five random letters; a number tells them apart as well.
        if containers
            .iter()
            .any(|container| container["name"] == *name)
        {
            name = format!("{name}-{}", containers.len());
        }
        containers.push(json!({"name": name, "image": image}));
    }
    if !command.is_empty() {
        containers[0]["command"] = json!(command);
    }
    if let Some(port) = number(session, "port")? {
        for container in &mut containers {
            container["ports"] = json!([{"containerPort": port}]);
        }
    }
    let labels = json!({"app": name});
    Ok(json!({
        "apiVersion": "apps/v1", "kind": "Deployment",
        "metadata": {"name": name, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": containers}
            }
        }
    }))
}

/// `create service`, of a type.
pub fn service(session: &Session, name: &str, kind: &str) -> Result<Value, VerbError> {
    let pairs = session.parsed.values("tcp");
    let address = session.parsed.value("clusterip");
    let headless = address == Some("None");
    if pairs.is_empty() && !headless && kind != "ExternalName" {
        return Err(local("at least one tcp port specifier must be provided"));
    }
    let mut ports = Vec::new();
    for pair in pairs {
        let (own, target) = pair.split_once(':').unwrap_or((pair, pair));
        let own_number: u16 = own
            .parse()
            .map_err(|_| local(format!("invalid port {own:?} in {pair:?}")))?;
        let target: Value = target
            .parse::<u16>()
            .map_or_else(|_| target.into(), Value::from);
        let name = pair.replace(':', "-");
        let mut port = json!({
            "name": name, "port": own_number, "protocol": "TCP", "targetPort": target
        });
        if let Some(node_port) = number(session, "node-port")? {
            port["nodePort"] = node_port.into();
        }
        ports.push(port);
    }
    let labels = json!({"app": name});
    let mut made = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "labels": labels},
        "spec": {"selector": labels, "type": kind},
    });
    if !ports.is_empty() {
        made["spec"]["ports"] = ports.into();
    }
    if let Some(address) = address {
        made["spec"]["clusterIP"] = address.into();
    }
    if kind == "ExternalName" {
        let external = session.parsed.value("external-name").unwrap_or_default();
        if external.is_empty() {
            return Err(local("required flag(s) \"external-name\" not set"));
        }
        made["spec"]["externalName"] = external.into();
    }
    Ok(made)
}

/// Where the values of a ConfigMap or a Secret come from.
fn sources(session: &Session) -> Result<Sources, VerbError> {
    let all = |flag: &str| -> Vec<String> {
        let given = session.parsed.in_order.iter();
        given
            .filter(|(own, _)| *own == flag)
            .map(|(_, text)| text.clone())
            .collect()
    };
    let split = |flag: &str| {
        let values = session.parsed.values(flag);
        values.into_iter().map(str::to_owned).collect()
    };
    let sources = Sources {
        literals: all("from-literal"),
        files: split("from-file"),
        env_files: split("from-env-file"),
    };
    let others = !sources.files.is_empty() || !sources.literals.is_empty();
    if !sources.env_files.is_empty() && others {
        return Err(local(
            "from-env-file cannot be combined with from-file or from-literal",
        ));
    }
    Ok(sources)
}

/// `create configmap`.
pub fn config_map(session: &Session, name: &str) -> Result<Value, VerbError> {
    let values = key_values::read(&sources(session)?, std::path::Path::new("."))?;
    Ok(object(
        "v1",
        "ConfigMap",
        name,
        key_values::config_map(values),
    ))
}

/// `create secret generic`.
pub fn secret(session: &Session, name: &str) -> Result<Value, VerbError> {
    let values = key_values::read(&sources(session)?, std::path::Path::new("."))?;
    let mut made = object("v1", "Secret", name, key_values::secret(values));
    if let Some(kind) = session.parsed.value("type") {
        made["type"] = kind.into();
    }
    Ok(made)
}

/// `create job`.
pub fn job(session: &Session, client: &mut Client, name: &str) -> Result<Value, VerbError> {
    let command = command(session);
    let image = session
        .parsed
        .value("image")
        .filter(|image| !image.is_empty());
    match (image, session.parsed.value("from")) {
        (Some(_), Some(_)) | (None, None) => {
            Err(local("either --image or --from must be specified"))
        }
        (Some(image), None) => {
            let mut container = json!({"name": name, "image": image});
            if !command.is_empty() {
                container["command"] = json!(command);
            }
            let pod = json!({"containers": [container], "restartPolicy": "Never"});
            let spec = json!({"spec": {"template": {"spec": pod}}});
            Ok(object("batch/v1", "Job", name, spec))
        }
        (None, Some(_)) if !command.is_empty() => Err(local("cannot specify --from and command")),
        (None, Some(from)) => {
            let Some(("cronjob" | "cronjobs" | "cj" | "cronjob.batch" | "cronjobs.batch", from)) =
                from.split_once('/')
            else {
                return Err(local("from must be an existing cronjob"));
            };
            let params = GetParams {
                resource: "cronjobs".into(),
                namespace: session.namespace(),
                name: Some(from.to_owned()),
                ..GetParams::default()
            };
            let reply: GetReply = client.call("get", params)?;
            let found = reply.items.into_iter().next().unwrap_or_default();
            Ok(job_of_cron_job(&found, name))
        }
    }
}

/// What a CronJob would run, by hand and now.
fn job_of_cron_job(cron_job: &Value, name: &str) -> Value {
    let template = &cron_job["spec"]["jobTemplate"];
    let mut job = object("batch/v1", "Job", name, json!({"spec": template["spec"]}));
    let mut annotations = json!({"cronjob.kubernetes.io/instantiate": "manual"});
    let own = template["metadata"]["annotations"].as_object();
    for (key, value) in own.into_iter().flatten() {
        annotations[key] = value.clone();
    }
    job["metadata"]["annotations"] = annotations;
    if template["metadata"]["labels"].is_object() {
        job["metadata"]["labels"] = template["metadata"]["labels"].clone();
    }
    job["metadata"]["ownerReferences"] = json!([{
        "apiVersion": "batch/v1", "kind": "CronJob", "controller": true,
        "name": cron_job["metadata"]["name"], "uid": cron_job["metadata"]["uid"],
    }]);
    job
}

/// `--rule=HOST/PATH=SERVICE:PORT[,tls[=SECRET]]`; a path that ends in `*` means all below.
pub fn ingress(session: &Session, name: &str) -> Result<Value, VerbError> {
    let rules: Vec<&String> = { session.parsed.in_order.iter() }
        .filter(|(flag, _)| *flag == "rule")
        .map(|(_, text)| text)
        .collect();
    if rules.is_empty() {
        return Err(local(
            "not enough information provided: every ingress has to either specify a \
             default-backend (which catches all traffic) or a list of rules (which catch specific \
             paths)",
        ));
    }
    let (mut hosts, mut tls): (Vec<(String, Vec<Value>)>, Vec<Value>) = (Vec::new(), Vec::new());
    for rule in rules {
        let wrong = || {
            local(format!(
                "rule {rule} is invalid and should be in format host/path=svcname:svcport[,tls[=secret]]"
            ))
        };
        let (rule, secured) = match rule.split_once(",tls") {
            Some((rule, secret)) => (rule, Some(secret.trim_start_matches('='))),
            None => (rule.as_str(), None),
        };
        let (at, to) = rule.split_once('=').ok_or_else(wrong)?;
        let (host, path) = at.split_once('/').ok_or_else(wrong)?;
        let (service, port) = to.split_once(':').ok_or_else(wrong)?;
        if service.is_empty() || port.is_empty() {
            return Err(wrong());
        }
        let port = match port.parse::<u16>() {
            Ok(number) => json!({"number": number}),
            Err(_) => json!({"name": port}),
        };
        let (path, kind) = match path.strip_suffix('*') {
            Some(path) => (path, "Prefix"),
            None => (path, "Exact"),
        };
        let entry = json!({
            "path": format!("/{path}"), "pathType": kind,
            "backend": {"service": {"name": service, "port": port}},
        });
        match hosts.iter_mut().find(|(own, _)| own == host) {
            Some((_, paths)) => paths.push(entry),
            None => hosts.push((host.to_owned(), vec![entry])),
        }
        if let Some(secret) = secured {
            let mut one = json!({"hosts": [host]});
            if !secret.is_empty() {
                one["secretName"] = secret.into();
            }
            tls.push(one);
        }
    }
    let rule = |(host, paths): (String, Vec<Value>)| {
        let mut rule = json!({"http": {"paths": paths}});
        if !host.is_empty() {
            rule["host"] = host.into();
        }
        rule
    };
    let mut spec = Map::new();
    if let Some(class) = session.parsed.value("class") {
        spec.insert("ingressClassName".into(), class.into());
    }
    spec.insert("rules".into(), hosts.into_iter().map(rule).collect());
    if !tls.is_empty() {
        spec.insert("tls".into(), tls.into());
    }
    Ok(object(
        "networking.k8s.io/v1",
        "Ingress",
        name,
        json!({"spec": spec}),
    ))
}
