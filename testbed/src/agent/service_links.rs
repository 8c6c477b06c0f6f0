//! The variables by which programs find Services without DNS
//! (`pkg/kubelet/envvars/envvars.go`).

use std::sync::Arc;

use serde_json::Value;

use super::objects::text;

/// `WEB_SERVICE_HOST`, `WEB_PORT_80_TCP_ADDR` and their like, for the Services of a namespace that
/// have an address of their own, by name.
pub fn variables(services: &[Arc<Value>], namespace: &str) -> Vec<(String, String)> {
    let mut all = Vec::new();
    for service in services {
        let address = text(service, "/spec/clusterIP");
        let here = text(service, "/metadata/namespace") == namespace;
        if here && !address.is_empty() && address != "None" {
            of_one(service, address, &mut all);
        }
    }
    all
}

fn of_one(service: &Value, address: &str, all: &mut Vec<(String, String)>) {
    let prefix = variable(text(service, "/metadata/name"));
    let ports = service.pointer("/spec/ports").and_then(Value::as_array);
    let ports = ports.map_or(&[][..], Vec::as_slice);
    let Some(first) = ports.first() else { return };
    let mut add = |name: String, value: String| all.push((format!("{prefix}_{name}"), value));
    add("SERVICE_HOST".into(), address.to_owned());
    add("SERVICE_PORT".into(), first["port"].to_string());
    for port in ports {
        let name = text(port, "/name");
        if !name.is_empty() {
            let name = format!("SERVICE_PORT_{}", variable(name));
            add(name, port["port"].to_string());
        }
    }
    // As Docker's links once did.
    let host = if address.contains(':') {
        format!("[{address}]")
    } else {
        address.to_owned()
    };
    for (index, port) in ports.iter().enumerate() {
        let (number, protocol) = (&port["port"], text(port, "/protocol"));
        let protocol = if protocol.is_empty() { "TCP" } else { protocol };
        let (lower, link) = (protocol.to_lowercase(), format!("PORT_{number}_{protocol}"));
        let url = format!("{lower}://{host}:{number}");
        if index == 0 {
            add("PORT".into(), url.clone());
        }
        add(link.clone(), url);
        add(format!("{link}_PROTO"), lower);
        add(format!("{link}_PORT"), number.to_string());
        add(format!("{link}_ADDR"), address.to_owned());
    }
}

fn variable(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn variables_are_those_of_kubelet() {
        let service = |name: &str, namespace: &str, address: &str| {
            Arc::new(json!({
                "metadata": {"name": name, "namespace": namespace},
                "spec": {
                    "clusterIP": address,
                    "ports": [
                        {"name": "p", "port": 8080, "protocol": "TCP"}, {"port": 53, "protocol": "UDP"},
                    ],
                },
            }))
        };
        let services = [
            service("my-db", "ns", "10.96.0.7"),
            service("headless", "ns", "None"),
            service("other", "elsewhere", "10.96.0.8"),
        ];
        let found = variables(&services, "ns");
        let found: Vec<String> = found.iter().map(|(k, v)| format!("{k}={v}")).collect();
        let expected = [
            "MY_DB_SERVICE_HOST=10.96.0.7",
            "MY_DB_SERVICE_PORT=8080",
            "MY_DB_SERVICE_PORT_P=8080",
            "MY_DB_PORT=tcp://10.96.0.7:8080",
            "MY_DB_PORT_8080_TCP=tcp://10.96.0.7:8080",
            "MY_DB_PORT_8080_TCP_PROTO=tcp",
            "MY_DB_PORT_8080_TCP_PORT=8080",
            "MY_DB_PORT_8080_TCP_ADDR=10.96.0.7",
            "MY_DB_PORT_53_UDP=udp://10.96.0.7:53",
            "MY_DB_PORT_53_UDP_PROTO=udp",
            "MY_DB_PORT_53_UDP_PORT=53",
            "MY_DB_PORT_53_UDP_ADDR=10.96.0.7",
        ];
        assert_eq!(found, expected);
    }
}
