//! EndpointSlices and Endpoints: which pods a Service means.
//!
//! Slices of Services with a selector follow the pods; so do Endpoints, for those who still ask for
//! them. Endpoints that people write for a Service without a selector become its slices
//! (`endpointslicemirroring` in kube-controller-manager).

use std::collections::BTreeSet;
use std::sync::Arc;

use control::client::ClientError;
use control::service::{MANAGED_BY, SERVICE_NAME, derive};
use serde_json::{Map, Value, json};

use super::Agent;
use super::objects::{is_terminating, owner_reference, owner_uid, text};

/// What we write into [`MANAGED_BY`], and into [`MADE_BY`] of Endpoints.
const OURS: &str = "weir-lab";
/// Label that tells Endpoints of ours from those that people write.
const MADE_BY: &str = "endpoints.kubernetes.io/managed-by";
/// Label of Endpoints that are not to become slices.
const SKIP_MIRROR: &str = "endpointslice.kubernetes.io/skip-mirror";

/// Writes the slices of every Service, and removes those that nothing stands for any more.
pub fn look(agent: &Agent, pods: &[Arc<Value>]) -> Result<(), ClientError> {
    let services = agent.mirror.list("Service");
    let mut slices = Wanted::new("EndpointSlice", "endpointslices");
    let mut endpoints = Wanted::new("Endpoints", "endpoints");
    for service in services.iter().filter(|service| !is_terminating(service)) {
        let derived = derive(service, pods.iter().map(Arc::as_ref), OURS);
        if derived.is_empty() {
            let (namespace, name) = place(service);
            let written = agent.mirror.get("Endpoints", &namespace, &name);
            for slice in written
                .iter()
                .flat_map(|written| mirrored(service, written))
            {
                slices.write(agent, slice, &["endpoints", "ports"])?;
            }
            continue;
        }
        endpoints.write(agent, endpoints_of(service, &derived), &["subsets"])?;
        for slice in derived {
            slices.write(agent, slice, &["endpoints", "ports"])?;
        }
    }
    slices.remove_others(agent, MANAGED_BY)?;
    endpoints.remove_others(agent, MADE_BY)
}

fn place(object: &Value) -> (String, String) {
    let part = |pointer| text(object, pointer).to_owned();
    (part("/metadata/namespace"), part("/metadata/name"))
}

/// The objects of a kind that there are to be.
struct Wanted {
    kind: &'static str,
    resource: &'static str,
    places: BTreeSet<(String, String)>,
}

impl Wanted {
    fn new(kind: &'static str, resource: &'static str) -> Wanted {
        Wanted {
            kind,
            resource,
            places: BTreeSet::new(),
        }
    }

    /// Writes an object unless the one that is there agrees with it in these fields.
    fn write(&mut self, agent: &Agent, object: Value, fields: &[&str]) -> Result<(), ClientError> {
        let place = place(&object);
        let known = agent.mirror.get(self.kind, &place.0, &place.1);
        self.places.insert(place);
        let same = known.is_some_and(|known| {
            let equal = |field: &&str| known[*field] == object[*field];
            fields.iter().all(equal) && owner_uid(&known) == owner_uid(&object)
        });
        match same {
            true => Ok(()),
            false => agent.apply(object).map(|_| ()),
        }
    }

    /// Removes what is ours, by that label, and was not written.
    fn remove_others(&self, agent: &Agent, label: &str) -> Result<(), ClientError> {
        for object in agent.mirror.list(self.kind) {
            let ours = object["metadata"]["labels"][label] == OURS;
            if ours && !self.places.contains(&place(&object)) {
                agent.remove(self.resource, &object)?;
            }
        }
        Ok(())
    }
}

/// The Endpoints that say what slices of the Service's first family say.
fn endpoints_of(service: &Value, slices: &[Value]) -> Value {
    let family = &slices[0]["addressType"];
    let subsets: Vec<Value> = slices
        .iter()
        .filter(|slice| slice["addressType"] == *family)
        .filter_map(subset)
        .collect();
    let meta = &service["metadata"];
    let mut labels = meta["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(MADE_BY.into(), OURS.into());
    json!({
        "apiVersion": "v1", "kind": "Endpoints",
        "metadata": {
            "name": meta["name"], "namespace": meta["namespace"], "labels": labels,
            "ownerReferences": owner_reference(service),
        },
        "subsets": subsets,
    })
}

/// None of a slice without endpoints.
fn subset(slice: &Value) -> Option<Value> {
    let all = slice["endpoints"].as_array()?;
    let listed = |ready: bool| -> Vec<Value> {
        let wanted = all
            .iter()
            .filter(|e| (e["conditions"]["ready"] == true) == ready);
        // What is going and not ready is in no list.
        let wanted = wanted.filter(|e| ready || e["conditions"]["terminating"] != true);
        wanted
            .map(|endpoint| {
                let mut address = Map::new();
                address.insert("ip".into(), endpoint["addresses"][0].clone());
                for field in ["hostname", "nodeName", "targetRef"] {
                    if !endpoint[field].is_null() {
                        address.insert(field.into(), endpoint[field].clone());
                    }
                }
                address.into()
            })
            .collect()
    };
    let (ready, others) = (listed(true), listed(false));
    if ready.is_empty() && others.is_empty() {
        return None;
    }
    let mut subset = json!({"ports": slice["ports"]});
    for (field, list) in [("addresses", ready), ("notReadyAddresses", others)] {
        if !list.is_empty() {
            subset[field] = list.into();
        }
    }
    Some(subset)
}

/// The slices of Endpoints that people wrote: one for each subset and family.
fn mirrored(service: &Value, endpoints: &Value) -> Vec<Value> {
    let labels = &endpoints["metadata"]["labels"];
    if labels[MADE_BY] == OURS || labels[SKIP_MIRROR] == "true" {
        return Vec::new();
    }
    let (namespace, name) = place(service);
    let mut made = Vec::new();
    let subsets = endpoints["subsets"].as_array().into_iter().flatten();
    for (number, subset) in subsets.enumerate() {
        for family in ["IPv4", "IPv6"] {
            let listed: Vec<Value> = [("addresses", true), ("notReadyAddresses", false)]
                .into_iter()
                .flat_map(|(field, ready)| {
                    let list = subset[field].as_array().into_iter().flatten();
                    list.filter_map(move |address| mirrored_one(address, ready, family))
                })
                .collect();
            if listed.is_empty() {
                continue;
            }
            let suffix = family.to_lowercase();
            made.push(json!({
                "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
                "metadata": {
                    "name": format!("{name}-mirror-{number}-{suffix}"), "namespace": namespace,
                    "labels": {SERVICE_NAME: name, MANAGED_BY: OURS},
                    "ownerReferences": owner_reference(service),
                },
                "addressType": family,
                "endpoints": listed,
                "ports": mirrored_ports(subset),
            }));
        }
    }
    made
}

fn mirrored_one(address: &Value, ready: bool, family: &str) -> Option<Value> {
    let ip = address["ip"].as_str()?;
    if ip.contains(':') != (family == "IPv6") {
        return None;
    }
    let mut endpoint = json!({"addresses": [ip], "conditions": {"ready": ready}});
    for field in ["hostname", "nodeName", "targetRef"] {
        if !address[field].is_null() {
            endpoint[field] = address[field].clone();
        }
    }
    Some(endpoint)
}

/// With what the API server would fill in, so that they compare.
fn mirrored_ports(subset: &Value) -> Vec<Value> {
    let ports = subset["ports"].as_array().into_iter().flatten();
    ports
        .map(|port| {
            json!({
                "name": port["name"].as_str().unwrap_or_default(),
                "protocol": port["protocol"].as_str().unwrap_or("TCP"),
                "port": port["port"],
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn service(selector: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "ns", "uid": "s"},
            "spec": {"selector": selector, "ports": [{"port": 80}]},
        })
    }

    #[test]
    fn endpoints_say_what_slices_say() {
        let pod = |name: &str, ready: &str| {
            json!({
                "metadata": {"name": name, "namespace": "ns", "labels": {"app": "web"}},
                "spec": {"containers": []},
                "status": {
                    "podIPs": [{"ip": format!("10.0.0.{}", name.len())}], "phase": "Running",
                    "conditions": [{"type": "Ready", "status": ready}],
                },
            })
        };
        let service = service(json!({"app": "web"}));
        let made = derive(&service, &[pod("a", "True"), pod("bb", "False")], OURS);
        let endpoints = endpoints_of(&service, &made);
        let subset = &endpoints["subsets"][0];
        assert_eq!(subset["addresses"][0]["ip"], "10.0.0.1");
        assert_eq!(subset["notReadyAddresses"][0]["ip"], "10.0.0.2");
        assert_eq!(subset["ports"][0]["port"], 80);
        let empty = derive(&service, &[], OURS);
        assert_eq!(endpoints_of(&service, &empty)["subsets"], json!([]));
    }

    #[test]
    fn endpoints_that_people_write_become_slices() {
        let written = json!({
            "metadata": {"name": "web", "namespace": "ns"},
            "subsets": [{
                "addresses": [{"ip": "203.0.113.7"}, {"ip": "2001:db8::7"}], "ports": [{"port": 80}],
            }],
        });
        let made = mirrored(&service(Value::Null), &written);
        assert_eq!(made.len(), 2);
        assert_eq!(made[0]["endpoints"][0]["addresses"], json!(["203.0.113.7"]));
        assert_eq!(made[1]["addressType"], "IPv6");
        let ports = json!([{"name": "", "protocol": "TCP", "port": 80}]);
        assert_eq!(made[0]["ports"], ports);
        let mut own = written;
        own["metadata"]["labels"] = json!({MADE_BY: OURS});
        assert!(mirrored(&service(Value::Null), &own).is_empty());
    }
}
