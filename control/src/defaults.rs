//! What the API server fills in (`pkg/apis/*/v1/defaults.go`, registry strategies), and nulls made
//! what Go makes of them.

use k8s_openapi::ByteString;
use serde_json::{Map, Value, json};

use crate::cluster::{Cluster, Reason, Refusal};
use crate::objects::definitions::DEFINITION;
use crate::objects::definitions::schema::TooLarge;
use crate::objects::{Kind, Object};
use crate::service;

/// Fills in a new object; refused, if a Service wants what it cannot have.
pub fn on_create(kind: &'static Kind, value: &mut Value, cluster: &Cluster) -> Result<(), Refusal> {
    if kind.is_custom {
        if cluster
            .definitions()
            .of(kind)
            .is_some_and(|own| own.shown().has_status)
            && let Some(members) = value.as_object_mut()
        {
            members.shift_remove("status");
        }
        return custom(kind, value, cluster);
    }
    without_nulls(value);
    match (kind.api_version, kind.kind) {
        ("v1", "Namespace") => {
            set(value, &["spec", "finalizers"], json!(["kubernetes"]));
            set(value, &["status", "phase"], json!("Active"));
        }
        ("v1", "Pod") => set(value, &["status", "phase"], json!("Pending")),
        ("v1", "Service") => service::on_create(value, cluster)?,
        _ => {}
    }
    fill(kind, value);
    Ok(())
}

/// Fills in an object that takes the place of `old`; refused, if a Service wants what it cannot
/// have.
pub fn on_update(
    kind: &'static Kind,
    value: &mut Value,
    old: &Object,
    cluster: &Cluster,
) -> Result<(), Refusal> {
    if kind.is_custom {
        return custom(kind, value, cluster);
    }
    without_nulls(value);
    if (kind.api_version, kind.kind) == ("v1", "Service") {
        service::on_update(value, old.value(), cluster)?;
    }
    fill(kind, value);
    Ok(())
}

/// What the definition of a custom resource fills in: within `metadata` nulls are Go's, elsewhere the
/// schema says where null may stand.
fn custom(kind: &'static Kind, value: &mut Value, cluster: &Cluster) -> Result<(), Refusal> {
    without_nulls(&mut value["metadata"]);
    let Some(definition) = cluster.definitions().of(kind) else {
        return Ok(());
    };
    let most = config::limits::CUSTOM_OBJECT_BYTES;
    let filled = definition.shown().schema.fill(value, most);
    filled.map_err(|TooLarge| {
        let message = format!("Request entity too large: limit is {most}");
        Refusal::new(Reason::RequestEntityTooLarge, message)
    })
}

/// Names that follow from others, and that the kind is there from now on.
fn definition(value: &mut Value) {
    let names = &mut value["spec"]["names"];
    let kind = names["kind"].as_str().unwrap_or_default().to_owned();
    set(names, &["singular"], json!(kind.to_lowercase()));
    set(names, &["listKind"], json!(format!("{kind}List")));
    set(value, &["spec", "conversion", "strategy"], json!("None"));
    let names = value["spec"]["names"].clone();
    let versions = value["spec"]["versions"].as_array().into_iter().flatten();
    let stored: Vec<Value> = versions
        .filter(|version| version["storage"] == true)
        .map(|version| version["name"].clone())
        .collect();
    force(value, &["status", "acceptedNames"], names);
    set(value, &["status", "storedVersions"], json!(stored));
    let condition = |kind: &str, reason: &str, message: &str| json!({"type": kind, "status": "True", "reason": reason, "message": message});
    let conditions = json!([
        condition("NamesAccepted", "NoConflicts", "no conflicts found"),
        condition(
            "Established",
            "InitialNamesAccepted",
            "the initial names have been accepted"
        ),
    ]);
    set(value, &["status", "conditions"], conditions);
}

fn fill(kind: &'static Kind, value: &mut Value) {
    match (kind.api_version, kind.kind) {
        ("v1", "Namespace") => {
            let name = value["metadata"]["name"].clone();
            // Always the name, whatever was written (NamespaceDefaultLabelName).
            force(
                value,
                &["metadata", "labels", "kubernetes.io/metadata.name"],
                name,
            );
        }
        DEFINITION => definition(value),
        ("networking.k8s.io/v1", "NetworkPolicy") => network_policy(value),
        (
            "policy.networking.k8s.io/v1alpha1",
            "AdminNetworkPolicy" | "BaselineAdminNetworkPolicy",
        ) => admin_network_policy(value),
        ("v1", "Pod") => pod_spec(&mut value["spec"]),
        ("v1", "Secret") => secret(value),
        ("discovery.k8s.io/v1", "EndpointSlice") => slice_ports(value),
        ("v1", "ReplicationController") => replication_controller(value),
        ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") => {
            controller(kind.kind, value);
        }
        ("batch/v1", "Job") => {
            job(&mut value["spec"]);
        }
        ("batch/v1", "CronJob") => {
            set(value, &["spec", "concurrencyPolicy"], json!("Allow"));
            set(value, &["spec", "suspend"], json!(false));
            set(value, &["spec", "successfulJobsHistoryLimit"], json!(3));
            set(value, &["spec", "failedJobsHistoryLimit"], json!(1));
            pod_spec(&mut value["spec"]["jobTemplate"]["spec"]["template"]["spec"]);
        }
        _ => {}
    }
}

/// Sets the field unless it is there and not null. Objects on the way are made.
fn set(value: &mut Value, path: &[&str], default: Value) {
    let absent = |value: &Value| {
        let found = path.iter().try_fold(value, |value, step| value.get(step));
        found.is_none_or(Value::is_null)
    };
    if absent(value) {
        force(value, path, default);
    }
}

/// Sets the field. A value on the way that is no object stays: decoding has complained of it.
fn force(value: &mut Value, path: &[&str], to: Value) {
    let Some((step, rest)) = path.split_first() else {
        *value = to;
        return;
    };
    if value.is_null() {
        *value = Value::Object(Map::new());
    }
    if let Some(map) = value.as_object_mut() {
        force(map.entry(*step).or_insert(Value::Null), rest, to);
    }
}

/// Maps from text to text, where null is the empty string and not "absent".
const TEXT_MAPS: [&str; 6] = [
    "labels",
    "annotations",
    "matchLabels",
    "nodeSelector",
    "data",
    "stringData",
];
/// Lists of objects in policies, where null is an object without fields.
const OBJECT_LISTS: [&str; 9] = [
    "ingress",
    "egress",
    "from",
    "to",
    "ports",
    "protocols",
    "matchExpressions",
    "containers",
    "env",
];

/// Nulls as Go's decoder takes them: a field is absent, an item or a text is zero.
fn without_nulls(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|_, value| !value.is_null());
            for (key, value) in map.iter_mut() {
                match value {
                    Value::Object(texts) if TEXT_MAPS.contains(&key.as_str()) => {
                        for text in texts.values_mut().filter(|text| text.is_null()) {
                            *text = Value::from("");
                        }
                    }
                    Value::Array(items) => {
                        let objects = OBJECT_LISTS.contains(&key.as_str());
                        for item in items.iter_mut() {
                            if item.is_null() && objects {
                                *item = Value::Object(Map::new());
                            }
                            without_nulls(item);
                        }
                    }
                    other => without_nulls(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(without_nulls),
        _ => {}
    }
}

/// `protocol: TCP` in each item.
fn protocols(ports: &mut Value) {
    for port in ports.as_array_mut().into_iter().flatten() {
        set(port, &["protocol"], json!("TCP"));
    }
}

/// `name: ""` and `protocol: TCP` in each port of an EndpointSlice.
fn slice_ports(value: &mut Value) {
    protocols(&mut value["ports"]);
    for port in value["ports"].as_array_mut().into_iter().flatten() {
        set(port, &["name"], json!(""));
    }
    prune(value, "ports");
}

/// `policyTypes`: Ingress, and Egress if there is an egress rule.
fn network_policy(value: &mut Value) {
    let spec = &mut value["spec"];
    set(spec, &["podSelector"], json!({}));
    for direction in ["ingress", "egress"] {
        for rule in spec[direction].as_array_mut().into_iter().flatten() {
            protocols(&mut rule["ports"]);
            prune(rule, "ports");
        }
        prune(spec, direction);
    }
    let rules = |direction: &str| spec[direction].as_array().map_or(0, Vec::len);
    let stated = spec["policyTypes"].as_array().map_or(0, Vec::len);
    if stated == 0 {
        let types = match rules("egress") {
            0 => json!(["Ingress"]),
            _ => json!(["Ingress", "Egress"]),
        };
        spec["policyTypes"] = types;
    }
}

/// `protocol: TCP` in `portNumber` and `portRange`.
fn admin_network_policy(value: &mut Value) {
    for direction in ["ingress", "egress"] {
        let rules = value["spec"]
            .get_mut(direction)
            .and_then(Value::as_array_mut);
        let ports = rules
            .into_iter()
            .flatten()
            .filter_map(|r| r.get_mut("ports"));
        for port in ports.filter_map(Value::as_array_mut).flatten() {
            for member in ["portNumber", "portRange"] {
                if let Some(one) = port.get_mut(member).filter(|one| one.is_object()) {
                    set(one, &["protocol"], json!("TCP"));
                }
            }
        }
    }
}

/// Removes a null that looking at a field has left behind.
fn prune(value: &mut Value, field: &str) {
    if let Some(map) = value.as_object_mut()
        && map.get(field).is_some_and(Value::is_null)
    {
        map.shift_remove(field);
    }
}

fn pod_spec(spec: &mut Value) {
    set(spec, &["restartPolicy"], json!("Always"));
    set(spec, &["terminationGracePeriodSeconds"], json!(30));
    set(spec, &["dnsPolicy"], json!("ClusterFirst"));
    set(spec, &["securityContext"], json!({}));
    set(spec, &["schedulerName"], json!("default-scheduler"));
    set(spec, &["enableServiceLinks"], json!(true));
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            container_fields(container);
        }
        prune(spec, list);
    }
}

fn container_fields(container: &mut Value) {
    protocols(&mut container["ports"]);
    prune(container, "ports");
    set(container, &["resources"], json!({}));
    set(
        container,
        &["terminationMessagePath"],
        json!("/dev/termination-log"),
    );
    set(container, &["terminationMessagePolicy"], json!("File"));
    let image = container["image"].as_str().unwrap_or_default();
    let name = image.rsplit('/').next().unwrap_or_default();
    let latest = !image.contains('@') && name.split_once(':').is_none_or(|(_, t)| t == "latest");
    let pull = if latest { "Always" } else { "IfNotPresent" };
    prune(container, "image");
    set(container, &["imagePullPolicy"], json!(pull));
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        if !container[probe].is_object() {
            prune(container, probe);
            continue;
        }
        let probe = &mut container[probe];
        for (field, default) in [
            ("timeoutSeconds", 1),
            ("periodSeconds", 10),
            ("successThreshold", 1),
            ("failureThreshold", 3),
        ] {
            set(probe, &[field], json!(default));
        }
        if probe["httpGet"].is_object() {
            set(probe, &["httpGet", "path"], json!("/"));
            set(probe, &["httpGet", "scheme"], json!("HTTP"));
        }
        prune(probe, "httpGet");
    }
}

fn controller(kind: &str, value: &mut Value) {
    let spec = &mut value["spec"];
    if kind != "DaemonSet" {
        set(spec, &["replicas"], json!(1));
    }
    if kind != "ReplicaSet" {
        set(spec, &["revisionHistoryLimit"], json!(10));
    }
    let rolling = |spec: &mut Value, field: &str, surge: &str, unavailable: Value| {
        set(spec, &[field, "type"], json!("RollingUpdate"));
        if spec[field]["type"] == "RollingUpdate" {
            set(spec, &[field, "rollingUpdate", "maxSurge"], json!(surge));
            set(
                spec,
                &[field, "rollingUpdate", "maxUnavailable"],
                unavailable,
            );
        }
    };
    match kind {
        "Deployment" => {
            rolling(spec, "strategy", "25%", json!("25%"));
            set(spec, &["progressDeadlineSeconds"], json!(600));
        }
        "DaemonSet" => {
            set(spec, &["updateStrategy", "type"], json!("RollingUpdate"));
            let strategy = &mut spec["updateStrategy"];
            if strategy["type"] == "RollingUpdate" {
                set(strategy, &["rollingUpdate", "maxUnavailable"], json!(1));
                set(strategy, &["rollingUpdate", "maxSurge"], json!(0));
            }
        }
        "StatefulSet" => {
            set(spec, &["podManagementPolicy"], json!("OrderedReady"));
            // A strategy that was written without `rollingUpdate` stays without it.
            if !spec["updateStrategy"]["type"].is_string() {
                set(spec, &["updateStrategy", "type"], json!("RollingUpdate"));
                set(spec, &["updateStrategy", "rollingUpdate"], json!({}));
            }
            let strategy = &mut spec["updateStrategy"];
            if strategy["type"] == "RollingUpdate" && strategy["rollingUpdate"].is_object() {
                set(strategy, &["rollingUpdate", "partition"], json!(0));
            }
            prune(strategy, "rollingUpdate");
        }
        _ => {}
    }
    pod_spec(&mut spec["template"]["spec"]);
}

fn job(spec: &mut Value) {
    // Without either, one pod; with `parallelism` alone, pods that share out the work themselves.
    if spec["completions"].is_null() && spec["parallelism"].is_null() {
        set(spec, &["completions"], json!(1));
    }
    prune(spec, "completions");
    set(spec, &["parallelism"], json!(1));
    set(spec, &["backoffLimit"], json!(6));
    set(spec, &["completionMode"], json!("NonIndexed"));
    set(spec, &["suspend"], json!(false));
    pod_spec(&mut spec["template"]["spec"]);
}

fn replication_controller(value: &mut Value) {
    let labels = value["spec"]["template"]["metadata"]["labels"].clone();
    if labels.is_object() {
        set(value, &["spec", "selector"], labels.clone());
        set(value, &["metadata", "labels"], labels);
    }
    set(value, &["spec", "replicas"], json!(1));
    pod_spec(&mut value["spec"]["template"]["spec"]);
}

/// `stringData` becomes `data`, in base64.
fn secret(value: &mut Value) {
    set(value, &["type"], json!("Opaque"));
    let texts = value["stringData"].take();
    prune(value, "stringData");
    for (key, text) in texts.as_object().into_iter().flatten() {
        let bytes = ByteString(text.as_str().unwrap_or_default().as_bytes().to_vec());
        let encoded = serde_json::to_value(bytes).unwrap_or_default();
        force(value, &["data", key], encoded);
    }
}
