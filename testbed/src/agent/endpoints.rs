//! EndpointSlices: which pods a Service means.

use std::collections::BTreeSet;
use std::sync::Arc;

use control::client::ClientError;
use control::service::{MANAGED_BY, derive};
use serde_json::Value;

use super::Agent;
use super::objects::{is_terminating, owner_uid, text, uid};

/// What we write into [`MANAGED_BY`].
const OURS: &str = "weir-lab";

/// Writes the slices of every Service with a selector, and removes those that nothing stands for any
/// more.
pub fn look(agent: &Agent, pods: &[Arc<Value>]) -> Result<(), ClientError> {
    let services = agent.mirror.list("Service");
    let mut wanted: BTreeSet<(String, String)> = BTreeSet::new();
    for service in services.iter().filter(|service| !is_terminating(service)) {
        for slice in derive(service, pods.iter().map(Arc::as_ref), OURS) {
            let place = place(&slice);
            let known = agent.mirror.get("EndpointSlice", &place.0, &place.1);
            let same = |known: &Value| {
                known["endpoints"] == slice["endpoints"]
                    && known["ports"] == slice["ports"]
                    && owner_uid(known) == uid(service)
            };
            wanted.insert(place);
            if !known.as_deref().is_some_and(same) {
                agent.apply(slice)?;
            }
        }
    }
    for slice in agent.mirror.list("EndpointSlice") {
        if slice["metadata"]["labels"][MANAGED_BY] == OURS && !wanted.contains(&place(&slice)) {
            agent.remove("endpointslices", &slice)?;
        }
    }
    Ok(())
}

fn place(object: &Value) -> (String, String) {
    let part = |pointer| text(object, pointer).to_owned();
    (part("/metadata/namespace"), part("/metadata/name"))
}
