//! The EndpointSlices that Kubernetes' controller would write for a Service
//! (`pkg/controller/endpointslice`), from its pods.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::table::SERVICE_NAME;

/// Label that names who keeps a slice.
pub const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
/// Endpoints of one slice.
const ENDPOINTS: usize = 1000;

/// A Service's slices: one for each of its families and each way in which its pods resolve its
/// ports. None of a Service without a selector: its slices are made by hand.
///
/// `pods` may be all there are. `keeper` is who says so.
pub fn derive<'a>(
    service: &Value,
    pods: impl IntoIterator<Item = &'a Value>,
    keeper: &str,
) -> Vec<Value> {
    let spec = &service["spec"];
    let selector = spec["selector"].as_object();
    let Some(selector) = selector.filter(|s| !s.is_empty() && spec["type"] != "ExternalName")
    else {
        return Vec::new();
    };
    let chosen: Vec<&Value> = pods
        .into_iter()
        .filter(|pod| chooses(service, selector, pod))
        .collect();
    let mut made = Vec::new();
    for family in families(spec) {
        // By the ports as text, so that the order of slices is the same each time.
        let mut groups: BTreeMap<String, (Value, Vec<Value>)> = BTreeMap::new();
        for pod in &chosen {
            let Some(endpoint) = endpoint(service, pod, family) else {
                continue;
            };
            let ports = ports(spec, pod);
            let group = groups.entry(ports.to_string());
            group
                .or_insert_with(|| (ports, Vec::new()))
                .1
                .push(endpoint);
        }
        if groups.is_empty() {
            // What has no pod yet has a slice all the same.
            groups.insert(String::new(), (json!([]), Vec::new()));
        }
        let parts = groups.into_values().flat_map(|(ports, endpoints)| {
            let parts: Vec<Vec<Value>> = match endpoints.is_empty() {
                true => vec![endpoints],
                false => endpoints.chunks(ENDPOINTS).map(<[_]>::to_vec).collect(),
            };
            parts.into_iter().map(move |part| (ports.clone(), part))
        });
        for (number, (ports, endpoints)) in (1..).zip(parts) {
            made.push(slice(service, keeper, family, number, ports, endpoints));
        }
    }
    made
}

fn families(spec: &Value) -> Vec<&str> {
    let stated = spec["ipFamilies"].as_array().into_iter().flatten();
    let stated: Vec<&str> = stated.filter_map(Value::as_str).collect();
    match stated.is_empty() {
        true => vec!["IPv4"],
        false => stated,
    }
}

fn chooses(service: &Value, selector: &Map<String, Value>, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    pod["metadata"]["namespace"] == service["metadata"]["namespace"]
        && selector
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
}

fn slice(
    service: &Value,
    keeper: &str,
    family: &str,
    number: usize,
    ports: Value,
    endpoints: Vec<Value>,
) -> Value {
    let meta = &service["metadata"];
    let name = meta["name"].as_str().unwrap_or_default();
    let suffix = match number {
        1 => family.to_lowercase(),
        more => format!("{}-{more}", family.to_lowercase()),
    };
    let mut labels = meta["labels"].as_object().cloned().unwrap_or_default();
    labels.insert(SERVICE_NAME.into(), name.into());
    labels.insert(MANAGED_BY.into(), keeper.into());
    if service["spec"]["clusterIP"] == "None" {
        labels.insert("service.kubernetes.io/headless".into(), "".into());
    }
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": format!("{name}-{suffix}"),
            "namespace": meta["namespace"],
            "labels": labels,
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": name, "uid": meta["uid"],
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": family,
        "endpoints": endpoints,
        "ports": ports,
    })
}

/// None of a pod without an address of the family, and of one that has ended.
fn endpoint(service: &Value, pod: &Value, family: &str) -> Option<Value> {
    let (meta, spec, status) = (&pod["metadata"], &pod["spec"], &pod["status"]);
    if status["phase"] == "Succeeded" || status["phase"] == "Failed" {
        return None;
    }
    let several = status["podIPs"].as_array().into_iter().flatten();
    let several = several.filter_map(|entry| entry["ip"].as_str());
    let mut all = several.chain(status["podIP"].as_str());
    let address = all.find(|ip| ip.contains(':') == (family == "IPv6"))?;
    let serving = is_ready(status);
    let going = meta["deletionTimestamp"].is_string();
    let published = service["spec"]["publishNotReadyAddresses"] == true;
    let mut endpoint = json!({
        "addresses": [address],
        "conditions": {
            "ready": published || (serving && !going), "serving": serving, "terminating": going,
        },
        "targetRef": {
            "kind": "Pod", "namespace": meta["namespace"], "name": meta["name"],
            "uid": meta["uid"],
        },
    });
    if spec["nodeName"].is_string() {
        endpoint["nodeName"] = spec["nodeName"].clone();
    }
    let hostname = spec["hostname"].as_str().unwrap_or_default();
    if !hostname.is_empty() && spec["subdomain"] == service["metadata"]["name"] {
        endpoint["hostname"] = hostname.into();
    }
    Some(endpoint)
}

/// By its condition; a pod that has none, as in a file, if it runs.
fn is_ready(status: &Value) -> bool {
    let conditions = status["conditions"].as_array().into_iter().flatten();
    let mut ready = conditions.filter(|condition| condition["type"] == "Ready");
    match ready.next() {
        Some(condition) => condition["status"] == "True",
        None => status["phase"] == "Running",
    }
}

/// The Service's ports as this pod resolves them; one that it has not is left out.
fn ports(spec: &Value, pod: &Value) -> Value {
    let declared = spec["ports"].as_array().into_iter().flatten();
    let ports = declared.filter_map(|port| {
        let protocol = port["protocol"].as_str().unwrap_or("TCP");
        let number = match &port["targetPort"] {
            Value::String(name) => named_port(pod, name, protocol)?,
            Value::Null => port["port"].as_u64()?,
            number if *number == 0 => port["port"].as_u64()?,
            number => number.as_u64()?,
        };
        let mut made = json!({
            "name": port["name"].as_str().unwrap_or_default(),
            "protocol": protocol, "port": number,
        });
        if port["appProtocol"].is_string() {
            made["appProtocol"] = port["appProtocol"].clone();
        }
        Some(made)
    });
    ports.collect()
}

/// A container port by name, those of sidecars too (`podutil.FindPort`).
fn named_port(pod: &Value, name: &str, protocol: &str) -> Option<u64> {
    let spec = &pod["spec"];
    let list = |field: &str| spec[field].as_array().into_iter().flatten();
    let sidecars = list("initContainers").filter(|c| c["restartPolicy"] == "Always");
    let containers = list("containers").chain(sidecars);
    let mut ports = containers.flat_map(|c| c["ports"].as_array().into_iter().flatten());
    let same = |port: &&Value| {
        port["name"] == name && port["protocol"].as_str().unwrap_or("TCP") == protocol
    };
    ports.find(same)?["containerPort"].as_u64()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str, ready: &str, number: u16) -> Value {
        json!({
            "metadata": {"name": name, "namespace": "ns", "labels": {"app": "web"}, "uid": name},
            "spec": {
                "nodeName": "node",
                "containers": [{"ports": [{"name": "http", "containerPort": number}]}],
            },
            "status": {
                "podIPs": [{"ip": "10.244.0.20"}, {"ip": "fd00::20"}], "phase": "Running",
                "conditions": [{"type": "Ready", "status": ready}],
            },
        })
    }

    fn service(spec: Value) -> Value {
        let meta = json!({"name": "web", "namespace": "ns", "uid": "s"});
        json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec})
    }

    #[test]
    fn a_slice_has_the_pods_of_its_family_and_named_ports_as_numbers() {
        let service = service(json!({
            "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}],
            "ipFamilies": ["IPv6"],
        }));
        let pods = [pod("a", "True", 8080), pod("b", "False", 8080)];
        let made = derive(&service, &pods, "us");
        assert_eq!(made.len(), 1);
        let made = &made[0];
        assert_eq!(made["metadata"]["name"], "web-ipv6");
        assert_eq!(made["endpoints"][0]["addresses"], json!(["fd00::20"]));
        assert_eq!(made["endpoints"][0]["conditions"]["ready"], true);
        assert_eq!(made["endpoints"][1]["conditions"]["ready"], false);
        assert_eq!(made["endpoints"][1]["conditions"]["serving"], false);
        let ports = json!([{"name": "", "protocol": "TCP", "port": 8080}]);
        assert_eq!(made["ports"], ports);
    }

    #[test]
    fn pods_that_call_another_number_so_are_a_slice_of_their_own() {
        let service = service(json!({
            "selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": "http"}],
        }));
        let pods = [pod("a", "True", 8080), pod("b", "True", 9090)];
        let made = derive(&service, &pods, "us");
        let found: Vec<_> = made
            .iter()
            .map(|slice| {
                let name = slice["endpoints"][0]["targetRef"]["name"].as_str();
                (slice["ports"][0]["port"].as_u64(), name)
            })
            .collect();
        assert_eq!(found, [(Some(8080), Some("a")), (Some(9090), Some("b"))]);
        assert_eq!(made[1]["metadata"]["name"], "web-ipv4-2");
    }

    #[test]
    fn a_pod_that_goes_serves_on_and_unready_ones_may_be_published() {
        let mut going = pod("a", "True", 80);
        going["metadata"]["deletionTimestamp"] = "now".into();
        let spec = json!({"selector": {"app": "web"}, "ports": [{"port": 80}]});
        let plain = derive(&service(spec.clone()), [&going], "us");
        let conditions = json!({"ready": false, "serving": true, "terminating": true});
        assert_eq!(plain[0]["endpoints"][0]["conditions"], conditions);
        let mut published = spec;
        published["publishNotReadyAddresses"] = true.into();
        let unready = pod("b", "False", 80);
        let made = derive(&service(published), [&unready], "us");
        assert_eq!(made[0]["endpoints"][0]["conditions"]["ready"], true);
    }

    #[test]
    fn without_a_selector_slices_are_made_by_hand() {
        let spec = json!({"ports": [{"port": 80}]});
        assert!(derive(&service(spec), [&pod("a", "True", 80)], "us").is_empty());
    }
}
