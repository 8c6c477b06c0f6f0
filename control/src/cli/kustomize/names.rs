//! Names with prefixes, suffixes and hashes, and who refers to them.

use std::collections::HashMap;

use serde_json::Value;

use super::{Built, pod_specs};

/// Kinds whose names stay.
const KEPT: [&str; 2] = ["CustomResourceDefinition", "Namespace"];

/// Changes the names and what refers to them. `hashed` are `KIND/NAME` and the hash that it gets.
pub fn change(built: &mut [Built], prefix: &str, suffix: &str, hashed: &[(String, String)]) {
    let mut changed: HashMap<(String, String), String> = HashMap::new();
    for one in built.iter_mut().filter(|one| !KEPT.contains(&one.kind())) {
        let own = one.object["metadata"]["name"]
            .as_str()
            .unwrap_or_default()
            .to_owned();
        let key = format!("{}/{}", one.kind(), one.original);
        let hash = hashed.iter().find(|(hashed, _)| *hashed == key);
        let hash = hash.map_or(String::new(), |(_, hash)| format!("-{hash}"));
        let name = format!("{prefix}{own}{suffix}{hash}");
        if name != own {
            changed.insert((one.kind().to_owned(), own), name.clone());
            one.object["metadata"]["name"] = name.into();
        }
    }
    for one in built {
        refer(&mut one.object, &|kind, name| {
            changed.get(&(kind.to_owned(), name.to_owned())).cloned()
        });
    }
}

/// Puts new names where an object refers to others.
fn refer(object: &mut Value, renamed: &dyn Fn(&str, &str) -> Option<String>) {
    let at = |value: Option<&mut Value>, kind: &str| {
        if let Some(value) = value
            && let Some(name) = value.as_str().and_then(|own| renamed(kind, own))
        {
            *value = name.into();
        }
    };
    for spec in pod_specs(object) {
        at(spec.get_mut("serviceAccountName"), "ServiceAccount");
        for volume in list(spec, "volumes") {
            at(volume.pointer_mut("/configMap/name"), "ConfigMap");
            at(volume.pointer_mut("/secret/secretName"), "Secret");
            at(
                volume.pointer_mut("/persistentVolumeClaim/claimName"),
                "PersistentVolumeClaim",
            );
            for source in volume.pointer_mut("/projected/sources").into_iter() {
                for source in source.as_array_mut().into_iter().flatten() {
                    at(source.pointer_mut("/configMap/name"), "ConfigMap");
                    at(source.pointer_mut("/secret/name"), "Secret");
                }
            }
        }
        for secret in list(spec, "imagePullSecrets") {
            at(secret.get_mut("name"), "Secret");
        }
        for field in ["containers", "initContainers"] {
            for container in list(spec, field) {
                for variable in list(container, "env") {
                    at(
                        variable.pointer_mut("/valueFrom/configMapKeyRef/name"),
                        "ConfigMap",
                    );
                    at(
                        variable.pointer_mut("/valueFrom/secretKeyRef/name"),
                        "Secret",
                    );
                }
                for source in list(container, "envFrom") {
                    at(source.pointer_mut("/configMapRef/name"), "ConfigMap");
                    at(source.pointer_mut("/secretRef/name"), "Secret");
                }
            }
        }
    }
    match object["kind"].as_str().unwrap_or_default() {
        "StatefulSet" => at(object.pointer_mut("/spec/serviceName"), "Service"),
        "Ingress" => {
            at(
                object.pointer_mut("/spec/defaultBackend/service/name"),
                "Service",
            );
            let rules = object
                .pointer_mut("/spec/rules")
                .and_then(Value::as_array_mut);
            for rule in rules.into_iter().flatten() {
                let paths = rule
                    .pointer_mut("/http/paths")
                    .and_then(Value::as_array_mut);
                for path in paths.into_iter().flatten() {
                    at(path.pointer_mut("/backend/service/name"), "Service");
                }
            }
        }
        "ClusterRoleBinding" | "RoleBinding" => {
            let role = object["roleRef"]["kind"]
                .as_str()
                .unwrap_or_default()
                .to_owned();
            at(object.pointer_mut("/roleRef/name"), &role);
            for subject in list(object, "subjects") {
                if subject["kind"] == "ServiceAccount" {
                    at(subject.get_mut("name"), "ServiceAccount");
                }
            }
        }
        "HorizontalPodAutoscaler" => {
            let kind = object["spec"]["scaleTargetRef"]["kind"].as_str();
            let kind = kind.unwrap_or_default().to_owned();
            at(object.pointer_mut("/spec/scaleTargetRef/name"), &kind);
        }
        _ => {}
    }
}

fn list<'v>(value: &'v mut Value, field: &str) -> impl Iterator<Item = &'v mut Value> {
    let list = value.get_mut(field).and_then(Value::as_array_mut);
    list.into_iter().flatten()
}
