//! Services: what the API server fills in and hands out ([`defaults`], [`families`], [`addresses`],
//! [`node_ports`]), and what they are to the dataplane ([`Services`]).
//!
//! The words and the order of things are those of `pkg/registry/core/service/storage` (alloc.go,
//! storage.go) and `pkg/apis/core/v1/defaults.go`. What is handed out is kept in the object itself;
//! the cluster knows who has what ([`Claims`](crate::cluster::Claims)), so that nothing is handed
//! out twice.

use std::sync::Arc;

use serde_json::Value;

use crate::cluster::{Cluster, Reason, Refusal};
use crate::validate::{self, Findings};

mod addresses;
mod claims;
mod defaults;
mod families;
mod lowered;
mod node_ports;
mod slices;
mod table;

pub(crate) use lowered::{cluster_ips, protocol_of};
pub use slices::{MANAGED_BY, derive};
pub use table::{Node, SERVICE_NAME, Services};

/// What is handed out, and by which rules.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pools {
    /// The ranges.
    pub services: config::Services,
    /// Whether stated addresses and node ports may lie outside the ranges: so it is with objects
    /// that were read from another cluster.
    pub foreign: bool,
}

/// Fills in a new Service.
pub(crate) fn on_create(value: &mut Value, cluster: &Cluster) -> Result<(), Refusal> {
    let named = name(value);
    let spec = &mut value["spec"];
    defaults::fill(spec);
    families::normalize(spec, None);
    families::settle(&named, spec, None, cluster)?;
    addresses::hand_out(&named, spec, cluster)?;
    node_ports::hand_out(&named, spec, None, cluster)
}

/// Fills in a Service that takes the place of `old`.
pub(crate) fn on_update(value: &mut Value, old: &Value, cluster: &Cluster) -> Result<(), Refusal> {
    let named = name(value);
    let (spec, old) = (&mut value["spec"], &old["spec"]);
    defaults::fill(spec);
    families::keep(spec, old);
    node_ports::keep(spec, old);
    families::normalize(spec, Some(old));
    families::settle(&named, spec, Some(old), cluster)?;
    addresses::hand_out(&named, spec, cluster)?;
    node_ports::hand_out(&named, spec, Some(old), cluster)?;
    families::let_go(spec, old);
    node_ports::let_go(spec, old);
    defaults::let_go(spec, old);
    Ok(())
}

/// Who the Service is: what is handed out follows from it, so that one that is made again has what
/// it had, if nobody else has it.
struct Named {
    namespace: String,
    name: String,
}

fn name(value: &Value) -> Named {
    let text = |field: &str| value["metadata"][field].as_str().unwrap_or_default();
    Named {
        namespace: text("namespace").to_owned(),
        name: text("name").to_owned(),
    }
}

impl Named {
    /// A number that follows from the names (FNV-1a, 64 bits) and from what is asked for.
    fn start(&self, what: &str) -> u64 {
        let parts = [&self.namespace, &self.name, what];
        let bytes = parts
            .iter()
            .flat_map(|part| part.bytes().chain(std::iter::once(0)));
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
        })
    }

    /// Whether it is this Service that has something.
    fn is(&self, holder: &(Arc<str>, Arc<str>)) -> bool {
        *holder.0 == *self.namespace && *holder.1 == *self.name
    }

    fn refusal(&self, findings: &Findings) -> Refusal {
        let message = validate::invalid("Service", &self.name, &findings.errors);
        Refusal::new(Reason::Invalid, message)
    }

    fn check(&self, findings: &Findings) -> Result<(), Refusal> {
        match findings.errors.is_empty() {
            true => Ok(()),
            false => Err(self.refusal(findings)),
        }
    }
}

/// `range is full`, as the API server tells of it.
fn full(what: &str) -> Refusal {
    let message = format!("Internal error occurred: failed to allocate a {what}: range is full");
    Refusal::new(Reason::InternalError, message)
}

fn kind(spec: &Value) -> &str {
    spec["type"].as_str().unwrap_or("ClusterIP")
}

fn text<'a>(spec: &'a Value, field: &str) -> &'a str {
    spec[field].as_str().unwrap_or_default()
}

fn texts(spec: &Value, field: &str) -> Vec<String> {
    let items = spec[field].as_array().into_iter().flatten();
    let texts = items.map(|item| item.as_str().unwrap_or_default().to_owned());
    texts.collect()
}

/// Sets a field, or removes it if there is nothing to set.
fn put(spec: &mut Value, field: &str, value: Value) {
    let is_nothing = match &value {
        Value::Null => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match spec.as_object_mut() {
        Some(map) if is_nothing => {
            map.shift_remove(field);
        }
        Some(map) => {
            map.insert(field.to_owned(), value);
        }
        None => {}
    }
}

fn is_external_name(spec: &Value) -> bool {
    kind(spec) == "ExternalName"
}

fn needs_node_ports(spec: &Value) -> bool {
    matches!(kind(spec), "NodePort" | "LoadBalancer")
}

/// Whether it has no address of its own.
fn is_headless(spec: &Value) -> bool {
    texts(spec, "clusterIPs") == ["None"]
}

fn has_selector(spec: &Value) -> bool {
    let selector = spec["selector"].as_object();
    selector.is_some_and(|selector| !selector.is_empty())
}
