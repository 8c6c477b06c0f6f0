//! The cells of Services and of what stands behind them.

use serde_json::Value;

use super::{items, labels, or, text};

/// How many of a list are shown.
const SHOWN: usize = 3;
/// Characters of a load balancer's addresses, but for `-o wide`.
const LOAD_BALANCER: usize = 16;

/// The first three, and how many more there are.
pub fn first_of(all: &[String]) -> String {
    match all.len() {
        0..=SHOWN => all.join(","),
        more => format!("{} + {} more...", all[..SHOWN].join(","), more - SHOWN),
    }
}

/// `10.0.0.1:80`, `[fd00::1]:80`.
pub fn address_and_port(address: &str, port: &Value) -> String {
    match address.contains(':') {
        true => format!("[{address}]:{port}"),
        false => format!("{address}:{port}"),
    }
}

/// A Service's cells.
pub fn service(object: &Value, name: String, age: String, wide: bool) -> Vec<String> {
    let kind = or(text(object, "/spec/type"), "ClusterIP");
    let own = texts(items(object, "/spec/externalIPs"));
    let external = match kind.as_str() {
        "LoadBalancer" => {
            let given = Some(load_balancer(object, wide)).filter(|given| !given.is_empty());
            let all: Vec<String> = given.into_iter().chain(own).collect();
            or(all.join(","), "<pending>")
        }
        "ExternalName" => text(object, "/spec/externalName"),
        _ => or(own.join(","), "<none>"),
    };
    let ports: Vec<String> = items(object, "/spec/ports")
        .iter()
        .map(|port| {
            let protocol = port["protocol"].as_str().unwrap_or("TCP");
            match port["nodePort"].as_u64() {
                Some(node) if node > 0 => format!("{}:{node}/{protocol}", port["port"]),
                _ => format!("{}/{protocol}", port["port"]),
            }
        })
        .collect();
    vec![
        name,
        kind,
        or(text(object, "/spec/clusterIP"), "<none>"),
        external,
        or(ports.join(","), "<none>"),
        age,
        or(labels(object.pointer("/spec/selector")), "<none>"),
    ]
}

/// The addresses that a load balancer has been given; cut off but for `-o wide`.
pub fn load_balancer(object: &Value, wide: bool) -> String {
    let given = items(object, "/status/loadBalancer/ingress").iter();
    let mut given: Vec<String> = given
        .map(|one| or(text(one, "/ip"), &text(one, "/hostname")))
        .filter(|address| !address.is_empty())
        .collect();
    given.sort_unstable();
    given.dedup();
    let all = given.join(",");
    match all.char_indices().nth(LOAD_BALANCER) {
        Some(_) if !wide => {
            let kept: String = all.chars().take(LOAD_BALANCER - 3).collect();
            format!("{kept}...")
        }
        _ => all,
    }
}

/// The addresses and ports of an Endpoints object: nothing if none of them is ready.
pub fn endpoints(object: &Value) -> String {
    let subsets = items(object, "/subsets");
    if subsets.is_empty() {
        return "<none>".to_owned();
    }
    let mut found = Vec::new();
    for subset in subsets {
        let addresses = items(subset, "/addresses").iter();
        let addresses: Vec<String> = addresses.map(|address| text(address, "/ip")).collect();
        let ports = items(subset, "/ports");
        if ports.is_empty() {
            found.extend_from_slice(&addresses);
        }
        for port in ports {
            let with = |address: &String| address_and_port(address, &port["port"]);
            found.extend(addresses.iter().map(with));
        }
    }
    first_of(&found)
}

/// An EndpointSlice's cells.
pub fn endpoint_slice(object: &Value, name: String, age: String) -> Vec<String> {
    let port = |port: &Value| match (&port["port"], port["name"].as_str()) {
        (Value::Null, None) => "*".to_owned(),
        (Value::Null, Some(name)) => name.to_owned(),
        (number, _) => number.to_string(),
    };
    let ports: Vec<String> = items(object, "/ports").iter().map(port).collect();
    let endpoints = items(object, "/endpoints").iter();
    let addresses: Vec<String> = endpoints
        .flat_map(|endpoint| texts(items(endpoint, "/addresses")))
        .collect();
    vec![
        name,
        text(object, "/addressType"),
        or(first_of(&ports), "<unset>"),
        or(first_of(&addresses), "<unset>"),
        age,
    ]
}

/// An Ingress' cells.
pub fn ingress(object: &Value, name: String, age: String, wide: bool) -> Vec<String> {
    let hosts: Vec<String> = items(object, "/spec/rules")
        .iter()
        .map(|rule| text(rule, "/host"))
        .filter(|host| !host.is_empty())
        .collect();
    let tls = !items(object, "/spec/tls").is_empty();
    vec![
        name,
        or(text(object, "/spec/ingressClassName"), "<none>"),
        or(first_of(&hosts), "*"),
        load_balancer(object, wide),
        if tls { "80, 443" } else { "80" }.to_owned(),
        age,
    ]
}

fn texts(list: &[Value]) -> Vec<String> {
    let texts = list.iter().filter_map(Value::as_str);
    texts.map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn external(spec: &Value, given: &Value, wide: bool) -> String {
        let object = json!({"spec": spec, "status": {"loadBalancer": {"ingress": given}}});
        service(&object, "s".into(), "1s".into(), wide).remove(3)
    }

    #[test]
    fn a_service_is_reached_from_outside_by_what_it_was_given() {
        let none = json!([]);
        for (kind, own, expected) in [
            ("ClusterIP", json!([]), "<none>"),
            ("ClusterIP", json!(["192.0.2.1"]), "192.0.2.1"),
            (
                "NodePort",
                json!(["192.0.2.1", "192.0.2.2"]),
                "192.0.2.1,192.0.2.2",
            ),
            ("LoadBalancer", json!([]), "<pending>"),
            ("LoadBalancer", json!(["192.0.2.1"]), "192.0.2.1"),
        ] {
            let spec = json!({"type": kind, "externalIPs": own});
            assert_eq!(external(&spec, &none, false), expected, "{kind}");
        }
        let given = json!([{"hostname": "lb.example.org"}, {"ip": "198.51.100.7"}]);
        let spec = json!({"type": "LoadBalancer", "externalIPs": ["192.0.2.1"]});
        assert_eq!(external(&spec, &given, false), "198.51.100.7,...,192.0.2.1");
        assert_eq!(
            external(&spec, &given, true),
            "198.51.100.7,lb.example.org,192.0.2.1"
        );
        let spec = json!({"type": "ExternalName", "externalName": "example.org"});
        assert_eq!(external(&spec, &none, false), "example.org");
    }

    #[test]
    fn endpoints_are_listed_port_by_port_and_three_of_them() {
        let subsets = |ready: Value| {
            json!({"subsets": [{"addresses": ready, "notReadyAddresses": [{"ip": "10.0.0.9"}],
                "ports": [{"port": 80}, {"port": 443}]}]})
        };
        let two = subsets(json!([{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]));
        assert_eq!(
            endpoints(&two),
            "10.0.0.1:80,[fd00::1]:80,10.0.0.1:443 + 1 more..."
        );
        assert_eq!(endpoints(&subsets(json!([]))), "");
        assert_eq!(endpoints(&json!({"metadata": {}})), "<none>");
    }

    #[test]
    fn a_slices_ports_may_be_names_or_any() {
        let slice = json!({"addressType": "IPv4", "ports": [{"port": 80, "name": "http"},
            {"name": "any"}, {}, {"port": 9}], "endpoints": []});
        assert_eq!(
            endpoint_slice(&slice, "s".into(), "1s".into())[1..4],
            ["IPv4", "80,any,* + 1 more...", "<unset>"]
        );
    }
}
