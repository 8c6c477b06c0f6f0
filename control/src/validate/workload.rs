//! Pods and what makes them (`pkg/apis/core/validation`, `pkg/apis/apps/validation`).

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, PodSpec, PodTemplateSpec, Probe};
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
    probes(container, path, findings);
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

/// What of a probe may be written (`validateProbe`).
fn probes(container: &Container, path: &str, findings: &mut Findings) {
    for (name, probe) in [
        ("livenessProbe", &container.liveness_probe),
        ("readinessProbe", &container.readiness_probe),
        ("startupProbe", &container.startup_probe),
    ] {
        let Some(probe) = probe else { continue };
        let path = format!("{path}.{name}");
        probe_fields(probe, &path, findings);
        let grace = probe.termination_grace_period_seconds;
        let path_of = |field: &str| format!("{path}.{field}");
        if name == "readinessProbe" {
            if let Some(grace) = grace {
                let message = "must not be set for readinessProbes";
                findings.invalid(path_of("terminationGracePeriodSeconds"), grace, message);
            }
            continue;
        }
        if let Some(grace) = grace.filter(|grace| *grace <= 0) {
            let message = "must be greater than 0";
            findings.invalid(path_of("terminationGracePeriodSeconds"), grace, message);
        }
        if let Some(count) = probe.success_threshold.filter(|count| *count > 1) {
            findings.invalid(path_of("successThreshold"), count, "must be 1");
        }
    }
}

fn probe_fields(probe: &Probe, path: &str, findings: &mut Findings) {
    let handlers = [
        ("exec", probe.exec.is_some()),
        ("httpGet", probe.http_get.is_some()),
        ("tcpSocket", probe.tcp_socket.is_some()),
        ("grpc", probe.grpc.is_some()),
    ];
    let mut given = handlers.iter().filter(|(_, given)| *given);
    if given.next().is_none() {
        findings.required(path, "must specify a handler type");
    }
    for (name, _) in given {
        let message = "may not specify more than 1 handler type";
        findings.forbidden(format!("{path}.{name}"), message);
    }
    for (field, number) in [
        ("initialDelaySeconds", probe.initial_delay_seconds),
        ("timeoutSeconds", probe.timeout_seconds),
        ("periodSeconds", probe.period_seconds),
        ("successThreshold", probe.success_threshold),
        ("failureThreshold", probe.failure_threshold),
    ] {
        if let Some(number) = number.filter(|number| *number < 0) {
            let message = "must be greater than or equal to 0";
            findings.invalid(format!("{path}.{field}"), number, message);
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
    let allowed: &[&str] = match object.kind().kind {
        "Job" => &["OnFailure", "Never"],
        _ => &["Always"],
    };
    if let Some(labels) = validate_pod_template(&spec["template"], "spec", allowed, findings) {
        template_selector(object, labels.as_ref(), findings);
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

/// The labels of the pods that it makes; none if it is no template.
pub(super) fn validate_pod_template(
    template: &Value,
    path: &str,
    policies: &[&str],
    findings: &mut Findings,
) -> Option<Option<BTreeMap<String, String>>> {
    let template = match go_json::decode::<PodTemplateSpec>(template) {
        Ok((template, _)) => template,
        // Cannot happen: the object was read as its kind before.
        Err(error) => {
            findings.invalid(format!("{path}.template"), Value::Null, &error.to_string());
            return None;
        }
    };
    let labels = template.metadata.and_then(|metadata| metadata.labels);
    metadata::labels(
        &format!("{path}.template.metadata.labels"),
        labels
            .iter()
            .flatten()
            .map(|(k, v)| (k.as_str(), v.as_str())),
        findings,
    );
    let pod = template.spec.unwrap_or_default();
    pod_spec(&pod, &format!("{path}.template.spec"), findings);
    let policy = pod.restart_policy.as_deref().unwrap_or("Always");
    if !policies.contains(&policy) {
        findings.unsupported(
            format!("{path}.template.spec.restartPolicy"),
            policy,
            policies,
        );
    }
    Some(labels)
}

fn template_selector(
    object: &Object,
    labels: Option<&BTreeMap<String, String>>,
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
