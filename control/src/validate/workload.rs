//! Pods and what makes them (`pkg/apis/core/validation`, `pkg/apis/apps/validation`).

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use serde_json::Value;

use super::{Findings, metadata, names, selectors};
use crate::objects::{Object, go_json};
use crate::selector::Selector;

pub(super) fn validate_pod(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    let default = PodSpec::default();
    let spec = object.as_pod().and_then(|pod| pod.spec.as_ref());
    pod_spec(spec.unwrap_or(&default), "spec", findings);
    if let Some(old) = old
        && frozen(object.value()) != frozen(old.value())
    {
        findings.forbidden(
            "spec",
            "pod updates may not change fields other than `spec.containers[*].image`,\
             `spec.initContainers[*].image`,`spec.activeDeadlineSeconds`,`spec.tolerations` (only \
             additions to existing tolerations),`spec.terminationGracePeriodSeconds` (allow it to \
             be set to 1 if it was previously negative)",
        );
    }
}

/// What of a pod's spec may not change. A node's name may be given once (binding).
fn frozen(pod: &Value) -> Value {
    let mut spec = pod["spec"].clone();
    if let Some(map) = spec.as_object_mut() {
        for field in [
            "activeDeadlineSeconds",
            "tolerations",
            "terminationGracePeriodSeconds",
            "nodeName",
            "ephemeralContainers",
        ] {
            map.shift_remove(field);
        }
    }
    for list in ["containers", "initContainers"] {
        for container in spec[list].as_array_mut().into_iter().flatten() {
            if let Some(map) = container.as_object_mut() {
                map.shift_remove("image");
            }
        }
    }
    spec
}

fn pod_spec(spec: &PodSpec, path: &str, findings: &mut Findings) {
    let volumes: Vec<&str> = spec
        .volumes
        .iter()
        .flatten()
        .map(|v| v.name.as_str())
        .collect();
    for (index, name) in volumes.iter().enumerate() {
        let path = format!("{path}.volumes[{index}].name");
        if name.is_empty() {
            findings.required(path.as_str(), "");
        } else {
            for message in names::is_dns_1123_label(name) {
                findings.invalid(path.as_str(), *name, &message);
            }
        }
        if volumes[..index].contains(name) {
            findings.duplicate(path, *name);
        }
    }
    if spec.containers.is_empty() {
        findings.required(format!("{path}.containers"), "");
    }
    let mut seen = Vec::new();
    let inits = spec.init_containers.iter().flatten().enumerate();
    let all = spec
        .containers
        .iter()
        .enumerate()
        .map(|(index, c)| (format!("{path}.containers[{index}]"), c))
        .chain(inits.map(|(index, c)| (format!("{path}.initContainers[{index}]"), c)));
    for (path, container) in all {
        container_fields(container, &path, &volumes, findings);
        if seen.contains(&container.name.as_str()) {
            findings.duplicate(format!("{path}.name"), container.name.as_str());
        }
        seen.push(container.name.as_str());
    }
    let policy = spec.restart_policy.as_deref().unwrap_or("Always");
    if !["Always", "OnFailure", "Never"].contains(&policy) {
        let supported = ["Always", "OnFailure", "Never"];
        findings.unsupported(format!("{path}.restartPolicy"), policy, &supported);
    }
    if let Some(name) = spec.hostname.as_deref().filter(|name| !name.is_empty()) {
        for message in names::is_dns_1123_label(name) {
            findings.invalid(format!("{path}.hostname"), name, &message);
        }
    }
}

fn container_fields(container: &Container, path: &str, volumes: &[&str], findings: &mut Findings) {
    if container.name.is_empty() {
        findings.required(format!("{path}.name"), "");
    } else {
        for message in names::is_dns_1123_label(&container.name) {
            findings.invalid(format!("{path}.name"), container.name.as_str(), &message);
        }
    }
    if container.image.as_deref().unwrap_or_default().is_empty() {
        findings.required(format!("{path}.image"), "");
    }
    let ports = container.ports.as_deref().unwrap_or_default();
    for (index, port) in ports.iter().enumerate() {
        let path = format!("{path}.ports[{index}]");
        if let Some(name) = port.name.as_deref().filter(|name| !name.is_empty()) {
            for message in names::is_port_name(name) {
                findings.invalid(format!("{path}.name"), name, &message);
            }
            if ports[..index]
                .iter()
                .any(|p| p.name.as_deref() == Some(name))
            {
                findings.duplicate(format!("{path}.name"), name);
            }
        }
        if port.container_port == 0 {
            findings.required(format!("{path}.containerPort"), "");
        } else {
            findings.port_number(format!("{path}.containerPort"), port.container_port);
        }
        if let Some(host) = port.host_port.filter(|&host| host != 0) {
            findings.port_number(format!("{path}.hostPort"), host);
        }
        findings.protocol(format!("{path}.protocol"), port.protocol.as_deref());
    }
    for (index, variable) in container.env.iter().flatten().enumerate() {
        if variable.name.is_empty() {
            findings.required(format!("{path}.env[{index}].name"), "");
        }
    }
    for (index, mount) in container.volume_mounts.iter().flatten().enumerate() {
        let path = format!("{path}.volumeMounts[{index}]");
        if mount.name.is_empty() {
            findings.required(format!("{path}.name"), "");
        } else if !volumes.contains(&mount.name.as_str()) {
            findings.not_found(format!("{path}.name"), &mount.name);
        }
        if mount.mount_path.is_empty() {
            findings.required(format!("{path}.mountPath"), "");
        }
    }
}

/// Deployment, ReplicaSet, StatefulSet, DaemonSet, ReplicationController, Job.
pub(super) fn validate_template(object: &Object, old: Option<&Object>, findings: &mut Findings) {
    let value = object.value();
    let spec = &value["spec"];
    if let Some(replicas) = spec["replicas"].as_i64()
        && replicas < 0
    {
        let message = "must be greater than or equal to 0";
        findings.invalid("spec.replicas", replicas, message);
    }
    let template = match go_json::decode::<PodTemplateSpec>(&spec["template"]) {
        Ok((template, _)) => template,
        // Cannot happen: the object was read as its kind before.
        Err(error) => return findings.invalid("spec.template", Value::Null, &error.to_string()),
    };
    let labels = template.metadata.as_ref().and_then(|m| m.labels.as_ref());
    metadata::labels(
        "spec.template.metadata.labels",
        labels
            .into_iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.as_str())),
        findings,
    );
    template_selector(object, labels, findings);
    let default = PodSpec::default();
    let pod = template.spec.as_ref().unwrap_or(&default);
    pod_spec(pod, "spec.template.spec", findings);
    let policy = pod.restart_policy.as_deref().unwrap_or("Always");
    let allowed: &[&str] = match object.kind().kind {
        "Job" => &["OnFailure", "Never"],
        _ => &["Always"],
    };
    if !allowed.contains(&policy) {
        findings.unsupported("spec.template.spec.restartPolicy", policy, allowed);
    }
    let frozen = object.kind().group() == "apps";
    if let Some(old) = old
        && frozen
        && old.value()["spec"]["selector"] != spec["selector"]
    {
        let value = spec["selector"].clone();
        findings.invalid("spec.selector", value, "field is immutable");
    }
}

fn template_selector(
    object: &Object,
    labels: Option<&std::collections::BTreeMap<String, String>>,
    findings: &mut Findings,
) {
    let value = &object.value()["spec"]["selector"];
    let selector = match object.kind().kind {
        "Job" => return,
        "ReplicationController" => LabelSelector {
            match_labels: go_json::decode(value).ok().map(|(labels, _)| labels),
            match_expressions: None,
        },
        _ => go_json::decode::<LabelSelector>(value)
            .map(|(selector, _)| selector)
            .unwrap_or_default(),
    };
    selectors::validate(&selector, "spec.selector", findings);
    let requirements = Selector::new(&selector);
    if requirements.requirements().is_empty() {
        if value.is_null() {
            findings.required("spec.selector", "");
        } else {
            let message = "empty selector is invalid for deployment";
            findings.invalid("spec.selector", value.clone(), message);
        }
    } else if !requirements.matches_map(labels) {
        findings.invalid(
            "spec.template.metadata.labels",
            serde_json::json!(labels),
            "`selector` does not match template `labels`",
        );
    }
}
