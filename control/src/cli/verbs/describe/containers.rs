//! Containers, volumes and pod templates as `kubectl describe` prints them.

use serde_json::Value;

use crate::cli::go_template::shown_exactly;

use super::page::{Page, items, rfc1123, text};

/// `Containers:` and each of them. `space` stands before the heading of a template's.
pub fn containers(page: &mut Page, label: &str, pod: &Value, statuses: &[Value], space: &str) {
    let field = match label {
        "Init Containers" => "/initContainers",
        "Ephemeral Containers" => "/ephemeralContainers",
        _ => "/containers",
    };
    let containers = items(pod, field);
    let none = if containers.is_empty() { " <none>" } else { "" };
    page.line(0, format!("{space}{label}:{none}"));
    let indent = if space.is_empty() { "" } else { " " };
    for container in containers {
        let name = text(container, "/name");
        page.line(1, format!("{indent}{name}:"));
        let status = statuses.iter().find(|status| text(status, "/name") == name);
        container_lines(page, container, status);
    }
}

fn container_lines(page: &mut Page, container: &Value, status: Option<&Value>) {
    if let Some(status) = status {
        page.field(2, "Container ID", text(status, "/containerID"));
    }
    page.field(2, "Image", text(container, "/image"));
    if let Some(status) = status {
        page.field(2, "Image ID", text(status, "/imageID"));
    }
    for (label, field) in [("Port", "containerPort"), ("Host Port", "hostPort")] {
        let ports: Vec<String> = { items(container, "/ports").iter() }
            .map(|port| port_text(port, field))
            .collect();
        match ports.len() {
            0 => page.field(2, label, "<none>"),
            1 => page.field(2, label, &ports[0]),
            _ => page.field(2, &format!("{label}s"), ports.join(", ")),
        }
    }
    for (label, field) in [("Command", "/command"), ("Args", "/args")] {
        let words = items(container, field);
        if !words.is_empty() {
            page.line(2, format!("{label}:"));
        }
        let lines = words
            .iter()
            .filter_map(Value::as_str)
            .flat_map(|word| word.split('\n'));
        lines.for_each(|line| page.line(3, line));
    }
    if let Some(status) = status {
        state(page, "State", &status["state"]);
        if status["lastState"]["terminated"].is_object() {
            state(page, "Last State", &status["lastState"]);
        }
        let ready = status["ready"].as_bool() == Some(true);
        page.field(2, "Ready", if ready { "True" } else { "False" });
        let restarts = status["restartCount"].as_u64().unwrap_or(0);
        page.field(2, "Restart Count", restarts.to_string());
    }
    for (label, field) in [
        ("Limits", "/resources/limits"),
        ("Requests", "/resources/requests"),
    ] {
        let quantities = sorted(container.pointer(field));
        if !quantities.is_empty() {
            page.line(2, format!("{label}:"));
        }
        for (name, quantity) in quantities {
            page.field(3, name, plain(quantity));
        }
    }
    for (label, field) in [
        ("Liveness", "livenessProbe"),
        ("Readiness", "readinessProbe"),
        ("Startup", "startupProbe"),
    ] {
        if container[field].is_object() {
            page.field(2, label, probe(&container[field]));
        }
    }
    environment(page, container);
    mounts(page, container);
}

/// `80/TCP (http)`.
fn port_text(port: &Value, field: &str) -> String {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let number = port[field].as_u64().unwrap_or(0);
    match port["name"].as_str().filter(|name| !name.is_empty()) {
        Some(name) => format!("{number}/{protocol} ({name})"),
        None => format!("{number}/{protocol}"),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => shown_exactly(other),
    }
}

/// Members of a map by name.
pub fn sorted(map: Option<&Value>) -> Vec<(&str, &Value)> {
    let members = map.and_then(Value::as_object).into_iter().flatten();
    let mut members: Vec<_> = members.map(|(key, value)| (key.as_str(), value)).collect();
    members.sort_by_key(|(key, _)| *key);
    members
}

fn state(page: &mut Page, label: &str, state: &Value) {
    if let Some(running) = state.get("running").filter(|state| !state.is_null()) {
        page.field(2, label, "Running");
        return page.field(3, "Started", rfc1123(text(running, "/startedAt")));
    }
    if let Some(ended) = state.get("terminated").filter(|state| !state.is_null()) {
        page.field(2, label, "Terminated");
        for (name, field) in [("Reason", "/reason"), ("Message", "/message")] {
            match text(ended, field) {
                "" => {}
                told => page.field(3, name, told),
            }
        }
        page.field(
            3,
            "Exit Code",
            ended["exitCode"].as_i64().unwrap_or(0).to_string(),
        );
        if let Some(signal) = ended["signal"].as_i64().filter(|signal| *signal > 0) {
            page.field(3, "Signal", signal.to_string());
        }
        page.field(3, "Started", rfc1123(text(ended, "/startedAt")));
        return page.field(3, "Finished", rfc1123(text(ended, "/finishedAt")));
    }
    page.field(2, label, "Waiting");
    match text(state, "/waiting/reason") {
        "" => {}
        reason => page.field(3, "Reason", reason),
    }
}

/// `http-get http://:8080/health delay=0s timeout=1s period=10s successThreshold=1 failureThreshold=3`.
fn probe(probe: &Value) -> String {
    let number = |field: &str, default: i64| probe[field].as_i64().unwrap_or(default);
    let attributes = format!(
        "delay={}s timeout={}s period={}s successThreshold={} failureThreshold={}",
        number("initialDelaySeconds", 0),
        number("timeoutSeconds", 1),
        number("periodSeconds", 10),
        number("successThreshold", 1),
        number("failureThreshold", 3)
    );
    let action = if let Some(exec) = probe.get("exec").filter(|one| one.is_object()) {
        format!("exec {}", shown_exactly(&exec["command"]))
    } else if let Some(get) = probe.get("httpGet").filter(|one| one.is_object()) {
        let scheme = get["scheme"].as_str().unwrap_or("HTTP").to_lowercase();
        let (host, port) = (text(get, "/host"), plain(&get["port"]));
        format!("http-get {scheme}://{host}:{port}{}", text(get, "/path"))
    } else if let Some(socket) = probe.get("tcpSocket").filter(|one| one.is_object()) {
        format!(
            "tcp-socket {}:{}",
            text(socket, "/host"),
            plain(&socket["port"])
        )
    } else if let Some(grpc) = probe.get("grpc").filter(|one| one.is_object()) {
        format!(
            "grpc <pod>:{} {}",
            plain(&grpc["port"]),
            text(grpc, "/service")
        )
    } else {
        "unknown".to_owned()
    };
    format!("{action} {attributes}")
}

fn environment(page: &mut Page, container: &Value) {
    let from = items(container, "/envFrom");
    if !from.is_empty() {
        page.line(2, "Environment Variables from:");
    }
    for source in from {
        let (kind, what) = match source.get("configMapRef").filter(|one| one.is_object()) {
            Some(map) => ("ConfigMap", map),
            None => ("Secret", &source["secretRef"]),
        };
        let prefix = match text(source, "/prefix") {
            "" => String::new(),
            prefix => format!(" with prefix '{prefix}'"),
        };
        let optional = what["optional"].as_bool() == Some(true);
        page.line(
            3,
            format!(
                "{}\t{kind}{prefix}\tOptional: {optional}",
                text(what, "/name")
            ),
        );
    }
    let variables = items(container, "/env");
    if variables.is_empty() {
        return page.line(2, "Environment:\t<none>");
    }
    page.line(2, "Environment:");
    for variable in variables {
        let (name, from) = (text(variable, "/name"), &variable["valueFrom"]);
        let key_of = |what: &Value, kind: &str| {
            let optional = what["optional"].as_bool() == Some(true);
            format!(
                "<set to the key '{}' {kind} '{}'>\tOptional: {optional}",
                text(what, "/key"),
                text(what, "/name")
            )
        };
        let value = if from["secretKeyRef"].is_object() {
            key_of(&from["secretKeyRef"], "in secret")
        } else if from["configMapKeyRef"].is_object() {
            key_of(&from["configMapKeyRef"], "of config map")
        } else if from["fieldRef"].is_object() {
            let version = from["fieldRef"]["apiVersion"].as_str().unwrap_or("v1");
            format!(" ({version}:{})", text(&from["fieldRef"], "/fieldPath"))
        } else if from["resourceFieldRef"].is_object() {
            format!(" ({})", text(&from["resourceFieldRef"], "/resource"))
        } else {
            let mut lines = text(variable, "/value").split('\n');
            page.field(3, name, lines.next().unwrap_or_default());
            lines.for_each(|line| page.line(3, format!("\t{line}")));
            continue;
        };
        page.field(3, name, value);
    }
}

fn mounts(page: &mut Page, container: &Value) {
    let mut mounts: Vec<&Value> = items(container, "/volumeMounts").iter().collect();
    mounts.sort_by_key(|mount| text(mount, "/mountPath"));
    if mounts.is_empty() {
        return page.line(2, "Mounts:\t<none>");
    }
    page.line(2, "Mounts:");
    for mount in mounts {
        let mode = if mount["readOnly"].as_bool() == Some(true) {
            "ro"
        } else {
            "rw"
        };
        let below = match text(mount, "/subPath") {
            "" => String::new(),
            path => format!(",path={path:?}"),
        };
        let (path, name) = (text(mount, "/mountPath"), text(mount, "/name"));
        page.line(3, format!("{path} from {name} ({mode}{below})"));
    }
}

/// `Volumes:`.
pub fn volumes(page: &mut Page, pod: &Value, space: &str) {
    let volumes = items(pod, "/volumes");
    if volumes.is_empty() {
        return page.field(0, &format!("{space}Volumes"), "<none>");
    }
    page.line(0, format!("{space}Volumes:"));
    let indent = if space.is_empty() { "" } else { " " };
    for volume in volumes {
        page.line(1, format!("{indent}{}:", text(volume, "/name")));
        let source = { volume.as_object().into_iter().flatten() }
            .find(|(key, source)| *key != "name" && !source.is_null());
        let Some((kind, source)) = source else {
            page.field(
                2,
                "Type",
                "EmptyDir (a temporary directory that shares a pod's lifetime)",
            );
            continue;
        };
        volume_source(page, kind, source);
    }
}

/// What a volume's bytes come from, by the field that holds its source.
pub fn volume_source(page: &mut Page, kind: &str, source: &Value) {
    let or = |text: String, fallback: &str| match text.is_empty() {
        true => fallback.to_owned(),
        false => text,
    };
    let member = |field: &str| match &source[field] {
        Value::Null => String::new(),
        value => plain(value),
    };
    let is_true = |field: &str| (source[field].as_bool() == Some(true)).to_string();
    let (about, fields): (&str, Vec<(&str, String)>) = match kind {
        "emptyDir" => (
            "EmptyDir (a temporary directory that shares a pod's lifetime)",
            vec![
                ("Medium", member("medium")),
                ("SizeLimit", or(member("sizeLimit"), "<unset>")),
            ],
        ),
        "configMap" => (
            "ConfigMap (a volume populated by a ConfigMap)",
            vec![("Name", member("name")), ("Optional", is_true("optional"))],
        ),
        "secret" => (
            "Secret (a volume populated by a Secret)",
            vec![
                ("SecretName", member("secretName")),
                ("Optional", is_true("optional")),
            ],
        ),
        "hostPath" => (
            "HostPath (bare host directory volume)",
            vec![
                ("Path", member("path")),
                ("HostPathType", or(member("type"), "<none>")),
            ],
        ),
        "nfs" => (
            "NFS (an NFS mount that lasts the lifetime of a pod)",
            vec![
                ("Server", member("server")),
                ("Path", member("path")),
                ("ReadOnly", is_true("readOnly")),
            ],
        ),
        "local" => (
            "LocalVolume (a persistent volume backed by local storage on a node)",
            vec![("Path", member("path"))],
        ),
        "persistentVolumeClaim" => (
            "PersistentVolumeClaim (a reference to a PersistentVolumeClaim in the same namespace)",
            vec![
                ("ClaimName", member("claimName")),
                ("ReadOnly", is_true("readOnly")),
            ],
        ),
        "downwardAPI" => (
            "DownwardAPI (a volume populated by information about the pod)",
            vec![],
        ),
        "projected" => (
            "Projected (a volume that contains injected data from multiple sources)",
            vec![],
        ),
        other => (other, vec![]),
    };
    page.field(2, "Type", about);
    for (label, value) in fields {
        page.field(2, label, value);
    }
    if kind == "downwardAPI" {
        page.line(2, "Items:");
        for item in items(source, "/items") {
            let field = text(item, "/fieldRef/fieldPath");
            page.line(3, format!("{field} -> {}", text(item, "/path")));
        }
    }
    for part in items(source, "/sources") {
        projected(page, part);
    }
}

/// One of the sources of a projected volume.
fn projected(page: &mut Page, part: &Value) {
    for (field, label) in [("secret", "SecretName"), ("configMap", "ConfigMapName")] {
        let source = &part[field];
        if source.is_object() {
            page.field(2, label, text(source, "/name"));
            let optional = source["optional"].as_bool() == Some(true);
            page.field(2, "Optional", optional.to_string());
        }
    }
    if part["downwardAPI"].is_object() {
        page.field(2, "DownwardAPI", "true");
    }
    if let Some(seconds) = part["serviceAccountToken"]["expirationSeconds"].as_i64() {
        page.field(2, "TokenExpirationSeconds", seconds.to_string());
    }
}

/// `Pod Template:`.
pub fn template(page: &mut Page, template: &Value) {
    page.line(0, "Pod Template:");
    page.pairs(0, "  Labels", template.pointer("/metadata/labels"));
    if !sorted(template.pointer("/metadata/annotations")).is_empty() {
        page.annotations_of(0, "  Annotations", template);
    }
    let spec = &template["spec"];
    match text(spec, "/serviceAccountName") {
        "" => {}
        account => page.field(1, "Service Account", account),
    }
    if !items(spec, "/initContainers").is_empty() {
        containers(page, "Init Containers", spec, &[], "  ");
    }
    containers(page, "Containers", spec, &[], "  ");
    volumes(page, spec, "  ");
    page.pairs(0, "  Node-Selectors", spec.get("nodeSelector"));
    tolerations(page, "  Tolerations", spec);
}

/// `Tolerations:`.
pub fn tolerations(page: &mut Page, label: &str, pod: &Value) {
    let lines: Vec<String> = { items(pod, "/tolerations").iter() }
        .map(|toleration| {
            let (key, value) = (text(toleration, "/key"), text(toleration, "/value"));
            let (effect, operator) = (text(toleration, "/effect"), text(toleration, "/operator"));
            let mut line = key.to_owned();
            if !value.is_empty() {
                line.push_str(&format!("={value}"));
            }
            if !effect.is_empty() {
                line.push_str(&format!(":{effect}"));
            }
            if operator == "Exists" && value.is_empty() {
                let exists = if key.is_empty() && effect.is_empty() {
                    "op=Exists"
                } else {
                    " op=Exists"
                };
                line.push_str(exists);
            }
            if let Some(seconds) = toleration["tolerationSeconds"].as_i64() {
                line.push_str(&format!(" for {seconds}s"));
            }
            line
        })
        .collect();
    page.list(0, label, &lines);
}

/// `Conditions:` with the columns that a kind has.
pub fn conditions(page: &mut Page, object: &Value, columns: &[(&str, &str)]) {
    let conditions = items(object, "/status/conditions");
    if conditions.is_empty() {
        return;
    }
    page.line(0, "Conditions:");
    let header: Vec<&str> = columns.iter().map(|(name, _)| *name).collect();
    page.line(1, header.join("\t"));
    if columns.len() > 2 {
        let rule: Vec<String> = header.iter().map(|name| "-".repeat(name.len())).collect();
        page.line(1, rule.join("\t"));
    }
    for condition in conditions {
        let cells: Vec<String> = { columns.iter() }
            .map(|(_, field)| match field.ends_with("Time") {
                true => rfc1123(text(condition, field)),
                false => text(condition, field).to_owned(),
            })
            .collect();
        // kubectl has a blank behind the type.
        page.line(1, cells.join("\t").replacen('\t', " \t", 1));
    }
}
