//! Validation in the API server's words (`pkg/apis/*/validation`, apimachinery
//! `pkg/util/validation`): same field paths, same messages, several for one object.

use std::fmt;

use serde_json::Value;

use crate::cluster::Cluster;
use crate::objects::policy_api::{AdminNetworkPolicy, ClusterNetworkPolicy, MODE};
use crate::objects::{Object, definitions};

mod batch;
mod cluster_policy;
mod crd;
pub mod custom;
pub mod definition;
mod endpoint_slice;
mod metadata;
mod names;
mod network_policy;
pub mod security_group;
mod selectors;
pub(crate) mod service;
mod workload;

pub use metadata::has_room_for_annotations;
pub use names::{is_dns_1123_label, is_dns_1123_subdomain};

/// One thing wrong with a field.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct FieldError {
    /// `spec.ingress[0].ports[0].endPort`.
    pub path: String,
    /// `Invalid value: 0: must be between 1 and 65535, inclusive`.
    pub message: String,
}

impl fmt::Display for FieldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.message)
    }
}

/// What validation found.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// Any of them refuses the object.
    pub errors: Vec<FieldError>,
    /// The API server's warnings.
    pub warnings: Vec<String>,
}

impl Findings {
    fn push(&mut self, path: impl Into<String>, message: String) {
        self.errors.push(FieldError {
            path: path.into(),
            message,
        });
    }

    pub(crate) fn invalid(
        &mut self,
        path: impl Into<String>,
        value: impl Into<Value>,
        detail: &str,
    ) {
        let value = value.into();
        self.push(path, format!("Invalid value: {value}: {detail}"));
    }

    fn required(&mut self, path: impl Into<String>, detail: &str) {
        let end = if detail.is_empty() { "" } else { ": " };
        self.push(path, format!("Required value{end}{detail}"));
    }

    fn forbidden(&mut self, path: impl Into<String>, detail: &str) {
        self.push(path, format!("Forbidden: {detail}"));
    }

    fn duplicate(&mut self, path: impl Into<String>, value: impl Into<Value>) {
        self.push(path, format!("Duplicate value: {}", value.into()));
    }

    fn not_found(&mut self, path: impl Into<String>, value: &str) {
        self.push(path, format!("Not found: {value:?}"));
    }

    fn unsupported(&mut self, path: impl Into<String>, value: &str, supported: &[&str]) {
        let list: Vec<String> = supported.iter().map(|s| format!("{s:?}")).collect();
        let list = list.join(", ");
        self.push(
            path,
            format!("Unsupported value: {value:?}: supported values: {list}"),
        );
    }

    /// 1 to 65535.
    fn port_number(&mut self, path: String, port: i32) {
        if !(1..=65535).contains(&port) {
            self.invalid(path, port, "must be between 1 and 65535, inclusive");
        }
    }

    /// TCP, UDP or SCTP; absent is TCP.
    fn protocol(&mut self, path: String, protocol: Option<&str>) {
        if let Some(other) = protocol
            && !["TCP", "UDP", "SCTP"].contains(&other)
        {
            self.unsupported(path, other, &["TCP", "UDP", "SCTP"]);
        }
    }
}

/// Checks an object; `old` is what an update would replace.
///
/// Defaults have been filled in, but need not be.
pub fn validate(object: &Object, old: Option<&Object>) -> Findings {
    let mut findings = Findings::default();
    metadata::validate(object, &mut findings);
    mode(object, &mut findings);
    match (object.kind().api_version, object.kind().kind) {
        ("networking.k8s.io/v1", "NetworkPolicy") => {
            network_policy::validate(object, old, &mut findings);
        }
        ("policy.networking.k8s.io/v1alpha1" | "policy.networking.k8s.io/v1alpha2", _) => {
            cluster_policy::validate(object, &mut findings);
        }
        ("weir.dev/v1alpha1", "SecurityGroup") => {
            security_group::validate_group(object, old, &mut findings);
        }
        ("vpcresources.k8s.aws/v1beta1", "SecurityGroupPolicy") => {
            security_group::validate_binding(object, &mut findings);
        }
        definitions::DEFINITION => definition::validate(object, old, &mut findings),
        ("v1", "Pod") => workload::validate_pod(object, old, &mut findings),
        ("v1", "Service") => service::validate(object, old, &mut findings),
        ("discovery.k8s.io/v1", "EndpointSlice") => {
            endpoint_slice::validate(object, old, &mut findings);
        }
        ("v1", "ReplicationController")
        | ("apps/v1", "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet") => {
            workload::validate_template(object, old, &mut findings);
        }
        ("batch/v1", "Job") => batch::validate_job(object, old, &mut findings),
        ("batch/v1", "CronJob") => batch::validate_cron_job(object, &mut findings),
        _ => {}
    }
    findings
}

/// Whether a policy is enforced, or only watched.
fn mode(object: &Object, findings: &mut Findings) {
    let kind = object.kind().kind;
    let is_policy = kind.ends_with("NetworkPolicy") || kind.starts_with("SecurityGroup");
    if let Some(stated) = object.annotation(MODE)
        && is_policy
        && !["audit", "enforce"].contains(&stated)
    {
        let path = format!("metadata.annotations[{MODE}]");
        findings.unsupported(path, stated, &["audit", "enforce"]);
    }
}

/// A warning, if the object is a policy and another of its tier has its priority: where both match,
/// the API leaves open which decides, and here it is the name that does.
pub fn rivals(object: &Object, cluster: &Cluster) -> Option<String> {
    let (tier, priority) = cluster_policy::rank(object)?;
    let admin = cluster.list_of::<AdminNetworkPolicy>();
    let others = admin.chain(cluster.list_of::<ClusterNetworkPolicy>());
    let rivals = others.filter(|other| {
        other.key() != object.key() && cluster_policy::rank(other) == Some((tier, priority))
    });
    let names: Vec<String> = rivals.take(3).map(|other| other.key().display()).collect();
    (!names.is_empty()).then(|| {
        format!(
            "spec.priority: {} has priority {priority} in the {tier} tier too: where both match, \
             AdminNetworkPolicies decide before ClusterNetworkPolicies, then the name that sorts \
             first",
            names.join(", ")
        )
    })
}

/// What kubectl prints of an object that is invalid.
pub fn invalid(kind: &str, name: &str, errors: &[FieldError]) -> String {
    let head = format!("The {kind} {name:?} is invalid: ");
    match errors {
        [only] => format!("{head}{only}"),
        several => {
            let lines = several.iter().map(|error| format!("\n* {error}"));
            head + &lines.collect::<String>()
        }
    }
}
