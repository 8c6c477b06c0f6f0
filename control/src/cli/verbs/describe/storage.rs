//! Volumes, claims and storage classes as `kubectl describe` prints them.

use serde_json::Value;

use crate::cli::columns::{access_modes, is_default_class, storage_class};

use super::containers::volume_source;
use super::page::{Page, items, joined, text};

/// `PersistentVolume`.
pub fn volume(page: &mut Page, object: &Value) {
    let spec = &object["spec"];
    page.field(0, "Name", text(object, "/metadata/name"));
    page.labels(object);
    page.annotations(object);
    page.field(0, "Finalizers", finalizers(object));
    page.field(0, "StorageClass", storage_class(object));
    page.field(0, "Status", phase(object, "Available"));
    let claim = &spec["claimRef"];
    let claim = match claim.is_object() {
        true => format!("{}/{}", text(claim, "/namespace"), text(claim, "/name")),
        false => String::new(),
    };
    page.field(0, "Claim", claim);
    let policy = text(spec, "/persistentVolumeReclaimPolicy");
    page.field(0, "Reclaim Policy", or(policy, "Retain"));
    let modes = access_modes(items(spec, "/accessModes"));
    page.field(0, "Access Modes", modes);
    page.field(0, "VolumeMode", or(text(spec, "/volumeMode"), "Filesystem"));
    page.field(0, "Capacity", or(text(spec, "/capacity/storage"), "0"));
    node_affinity(page, &spec["nodeAffinity"]["required"]);
    page.field(0, "Message", text(object, "/status/message"));
    page.line(0, "Source:");
    source(page, spec);
}

fn node_affinity(page: &mut Page, required: &Value) {
    let terms = items(required, "/nodeSelectorTerms");
    if terms.is_empty() {
        return page.line(0, "Node Affinity:\t<none>");
    }
    page.line(0, "Node Affinity:");
    page.line(1, "Required Terms:");
    for (number, term) in terms.iter().enumerate() {
        let texts: Vec<String> = { items(term, "/matchExpressions").iter() }
            .map(|one| {
                let values = items(one, "/values").iter().filter_map(Value::as_str);
                let values: Vec<&str> = values.collect();
                let (key, operator) = (text(one, "/key"), text(one, "/operator").to_lowercase());
                match values.is_empty() {
                    true => format!("{key} {operator}"),
                    false => format!("{key} {operator} [{}]", values.join(", ")),
                }
            })
            .collect();
        page.list(2, &format!("Term {number}"), &texts);
    }
}

/// Where a volume's bytes are: in the member that is no other of a volume's.
fn source(page: &mut Page, spec: &Value) {
    const OTHERS: [&str; 3] = ["capacity", "claimRef", "nodeAffinity"];
    let members = spec.as_object().into_iter().flatten();
    let mut sources =
        members.filter(|(name, value)| value.is_object() && !OTHERS.contains(&name.as_str()));
    match sources.next() {
        Some((kind, source)) => volume_source(page, kind, source),
        None => page.line(1, "<unknown>"),
    }
}

/// `PersistentVolumeClaim`; `pods` are those that use it.
pub fn claim(page: &mut Page, object: &Value, pods: &[String]) {
    let spec = &object["spec"];
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.field(0, "StorageClass", storage_class(object));
    page.field(0, "Status", phase(object, "Pending"));
    let volume = text(spec, "/volumeName");
    page.field(0, "Volume", volume);
    page.labels(object);
    page.annotations(object);
    page.field(0, "Finalizers", finalizers(object));
    let (capacity, modes) = match volume {
        "" => (String::new(), String::new()),
        _ => (
            or(text(object, "/status/capacity/storage"), "0"),
            access_modes(items(object, "/status/accessModes")),
        ),
    };
    page.field(0, "Capacity", capacity);
    page.field(0, "Access Modes", modes);
    page.field(0, "VolumeMode", or(text(spec, "/volumeMode"), "Filesystem"));
    if spec["dataSource"].is_object() {
        page.line(0, "DataSource:");
        for (label, field) in [
            ("APIGroup", "/apiGroup"),
            ("Kind", "/kind"),
            ("Name", "/name"),
        ] {
            match text(&spec["dataSource"], field) {
                "" => {}
                found => page.field(1, label, found),
            }
        }
    }
    page.list(0, "Used By", pods);
}

/// `StorageClass`.
pub fn class(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    let default = if is_default_class(object) {
        "Yes"
    } else {
        "No"
    };
    page.field(0, "IsDefaultClass", default);
    page.field(
        0,
        "Annotations",
        joined(object.pointer("/metadata/annotations")),
    );
    page.field(0, "Provisioner", text(object, "/provisioner"));
    page.field(0, "Parameters", joined(object.get("parameters")));
    let grows = match object["allowVolumeExpansion"].as_bool() {
        None => "<unset>",
        Some(true) => "True",
        Some(false) => "False",
    };
    page.field(0, "AllowVolumeExpansion", grows);
    let options = items(object, "/mountOptions");
    match options.is_empty() {
        true => page.field(0, "MountOptions", "<none>"),
        false => page.line(0, "MountOptions:"),
    }
    for option in options.iter().filter_map(Value::as_str) {
        page.line(1, option);
    }
    page.field(
        0,
        "ReclaimPolicy",
        or(text(object, "/reclaimPolicy"), "Delete"),
    );
    let mode = or(text(object, "/volumeBindingMode"), "Immediate");
    page.field(0, "VolumeBindingMode", mode);
}

fn phase(object: &Value, fallback: &str) -> String {
    match object.pointer("/metadata/deletionTimestamp") {
        Some(time) if !time.is_null() => "Terminating".to_owned(),
        _ => or(text(object, "/status/phase"), fallback),
    }
}

/// `[kubernetes.io/pv-protection]`.
fn finalizers(object: &Value) -> String {
    let all = items(object, "/metadata/finalizers").iter();
    let all: Vec<&str> = all.filter_map(Value::as_str).collect();
    format!("[{}]", all.join(" "))
}

fn or(found: &str, fallback: &str) -> String {
    if found.is_empty() { fallback } else { found }.to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn volumes_and_claims_read_as_kubectls() {
        let mut page = Page::default();
        volume(
            &mut page,
            &json!({"metadata": {"name": "pv"}, "spec": {"capacity": {"storage": "20Gi"},
                "accessModes": ["ReadWriteMany", "ReadWriteOnce"], "storageClassName": "manual",
                "hostPath": {"path": "/mnt/data"}}}),
        );
        assert_eq!(
            page.render(),
            "\
Name:            pv
Labels:          <none>
Annotations:     <none>
Finalizers:      []
StorageClass:    manual
Status:          Available
Claim:           
Reclaim Policy:  Retain
Access Modes:    RWO,RWX
VolumeMode:      Filesystem
Capacity:        20Gi
Node Affinity:   <none>
Message:         
Source:
    Type:          HostPath (bare host directory volume)
    Path:          /mnt/data
    HostPathType:  <none>
"
        );
        let mut page = Page::default();
        claim(
            &mut page,
            &json!({"metadata": {"name": "c", "namespace": "n"}, "spec": {"volumeName": "pv"},
                "status": {"phase": "Bound", "capacity": {"storage": "20Gi"},
                    "accessModes": ["ReadWriteOnce"]}}),
            &["web-0".into()],
        );
        let text = page.render();
        for line in [
            "Status:        Bound",
            "Access Modes:  RWO",
            "Used By:       web-0",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}:\n{text}");
        }
    }
}
