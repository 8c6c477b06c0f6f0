//! Services, Endpoints and EndpointSlices as `kubectl describe` prints them.

use serde_json::Value;

use crate::cli::columns::{address_and_port, first_of};

use super::page::{Page, items, joined, text};

/// By port, who may reach it: `80/TCP`, and the pods that may.
pub type Reachable = Vec<(String, Vec<String>)>;

/// `Service`; `slices` are those of its endpoints.
pub fn service(page: &mut Page, object: &Value, slices: &[&Value], reachable: &Reachable) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.labels(object);
    page.annotations(object);
    page.field(0, "Selector", joined(object.pointer("/spec/selector")));
    page.field(0, "Type", or(text(object, "/spec/type"), "ClusterIP"));
    given(page, object, "IP Family Policy", "/spec/ipFamilyPolicy");
    page.field(0, "IP Families", list(object, "/spec/ipFamilies", "<none>"));
    page.field(0, "IP", text(object, "/spec/clusterIP"));
    page.field(0, "IPs", list(object, "/spec/clusterIPs", "<none>"));
    given_list(page, object, "External IPs", "/spec/externalIPs");
    given(
        page,
        object,
        "Desired LoadBalancer IP",
        "/spec/loadBalancerIP",
    );
    given(page, object, "External Name", "/spec/externalName");
    let ingress = items(object, "/status/loadBalancer/ingress");
    if !ingress.is_empty() {
        page.field(0, "LoadBalancer Ingress", load_balancer(ingress));
    }
    for port in items(object, "/spec/ports") {
        service_port(page, port, slices);
    }
    page.field(
        0,
        "Session Affinity",
        or(text(object, "/spec/sessionAffinity"), "None"),
    );
    for (label, field) in [
        ("External Traffic Policy", "/spec/externalTrafficPolicy"),
        ("Internal Traffic Policy", "/spec/internalTrafficPolicy"),
    ] {
        given(page, object, label, field);
    }
    match object["spec"]["healthCheckNodePort"].as_u64() {
        None | Some(0) => {}
        Some(port) => page.field(0, "HealthCheck NodePort", port.to_string()),
    }
    given_list(
        page,
        object,
        "LoadBalancer Source Ranges",
        "/spec/loadBalancerSourceRanges",
    );
    given(
        page,
        object,
        "Traffic Distribution",
        "/spec/trafficDistribution",
    );
    reachable_lines(page, reachable);
}

/// Who may reach what is described, which kubectl does not know.
pub fn reachable_lines(page: &mut Page, reachable: &Reachable) {
    if !reachable.is_empty() {
        page.line(0, "Reachable From:");
    }
    for (port, senders) in reachable {
        page.list(1, port, senders);
    }
}

fn service_port(page: &mut Page, port: &Value, slices: &[&Value]) {
    let name = or(text(port, "/name"), "<unset>");
    let protocol = or(text(port, "/protocol"), "TCP");
    let number = port["port"].as_u64().unwrap_or(0);
    page.field(0, "Port", format!("{name}\t{number}/{protocol}"));
    let target = match &port["targetPort"] {
        Value::Null => number.to_string(),
        Value::String(named) => named.clone(),
        number => number.to_string(),
    };
    page.field(0, "TargetPort", format!("{target}/{protocol}"));
    given(page, port, "AppProtocol", "/appProtocol");
    match port["nodePort"].as_u64() {
        None | Some(0) => {}
        Some(node) => page.field(0, "NodePort", format!("{name}\t{node}/{protocol}")),
    }
    page.field(0, "Endpoints", ready(slices, text(port, "/name")));
}

/// The ready endpoints behind the port of that name: `10.0.0.1:80,10.0.0.2:80`.
pub fn ready(slices: &[&Value], port: &str) -> String {
    if slices.is_empty() {
        return "<none>".to_owned();
    }
    let mut found = Vec::new();
    for slice in slices {
        let ready = items(slice, "/endpoints").iter();
        let ready = ready.filter(|endpoint| endpoint["conditions"]["ready"] != false);
        let addresses: Vec<&str> = ready
            .filter_map(|endpoint| items(endpoint, "/addresses").first()?.as_str())
            .collect();
        let ports = items(slice, "/ports");
        if ports.is_empty() {
            found.extend(addresses.iter().map(|address| (*address).to_owned()));
        }
        for own in ports.iter().filter(|own| text(own, "/name") == port) {
            let with = |address: &&str| address_and_port(address, &own["port"]);
            found.extend(addresses.iter().map(with));
        }
    }
    first_of(&found)
}

fn load_balancer(ingress: &[Value]) -> String {
    let one = |one: &Value| match (text(one, "/ip"), text(one, "/ipMode")) {
        ("", _) => text(one, "/hostname").to_owned(),
        (ip, "") => ip.to_owned(),
        (ip, mode) => format!("{ip} ({mode})"),
    };
    let all: Vec<String> = ingress.iter().map(one).collect();
    all.join(", ")
}

/// `Endpoints`.
pub fn endpoints(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.labels(object);
    page.annotations(object);
    page.line(0, "Subsets:");
    for subset in items(object, "/subsets") {
        for (label, field) in [
            ("Addresses", "/addresses"),
            ("NotReadyAddresses", "/notReadyAddresses"),
        ] {
            let addresses = items(subset, field).iter();
            let addresses: Vec<&str> = addresses.map(|address| text(address, "/ip")).collect();
            page.field(1, label, or(&addresses.join(","), "<none>"));
        }
        let ports = items(subset, "/ports");
        if !ports.is_empty() {
            page.line(1, "Ports:");
            page.line(2, "Name\tPort\tProtocol");
            page.line(2, "----\t----\t--------");
        }
        for port in ports {
            page.line(2, port_cells(port));
        }
        page.line(0, "");
    }
}

/// `http`, `80`, `TCP`, each in its column.
fn port_cells(port: &Value) -> String {
    let number = match &port["port"] {
        Value::Null => "<unset>".to_owned(),
        number => number.to_string(),
    };
    let name = or(text(port, "/name"), "<unset>");
    format!("{name}\t{number}\t{}", or(text(port, "/protocol"), "TCP"))
}

/// `EndpointSlice`.
pub fn endpoint_slice(page: &mut Page, object: &Value) {
    page.field(0, "Name", text(object, "/metadata/name"));
    page.field(0, "Namespace", text(object, "/metadata/namespace"));
    page.labels(object);
    page.annotations(object);
    page.field(0, "AddressType", text(object, "/addressType"));
    let ports = items(object, "/ports");
    if ports.is_empty() {
        page.line(0, "Ports: <unset>");
    } else {
        page.line(0, "Ports:");
        page.line(1, "Name\tPort\tProtocol");
        page.line(1, "----\t----\t--------");
    }
    for port in ports {
        page.line(1, port_cells(port));
    }
    let endpoints = items(object, "/endpoints");
    match endpoints.is_empty() {
        true => page.line(0, "Endpoints: <none>"),
        false => page.line(0, "Endpoints:"),
    }
    for endpoint in endpoints {
        let addresses = items(endpoint, "/addresses");
        let addresses: Vec<&str> = addresses.iter().filter_map(Value::as_str).collect();
        page.field(1, "- Addresses", or(&addresses.join(", "), "<none>"));
        page.line(2, "Conditions:");
        let ready = endpoint["conditions"]["ready"].as_bool();
        page.field(
            3,
            "Ready",
            ready.map_or("<unset>".to_owned(), |r| r.to_string()),
        );
        page.field(2, "Hostname", or(text(endpoint, "/hostname"), "<unset>"));
        if endpoint["targetRef"].is_object() {
            let of = &endpoint["targetRef"];
            let named = format!("{}/{}", text(of, "/kind"), text(of, "/name"));
            page.field(2, "TargetRef", named);
        }
        page.field(2, "NodeName", or(text(endpoint, "/nodeName"), "<unset>"));
        page.field(2, "Zone", or(text(endpoint, "/zone"), "<unset>"));
    }
}

fn or<'t>(found: &'t str, fallback: &'t str) -> &'t str {
    if found.is_empty() { fallback } else { found }
}

fn list(object: &Value, field: &str, fallback: &str) -> String {
    let texts: Vec<&str> = { items(object, field).iter() }
        .filter_map(Value::as_str)
        .collect();
    or(&texts.join(","), fallback).to_owned()
}

/// A field that is left out where there is nothing.
fn given(page: &mut Page, object: &Value, label: &str, field: &str) {
    match text(object, field) {
        "" => {}
        found => page.field(0, label, found),
    }
}

fn given_list(page: &mut Page, object: &Value, label: &str, field: &str) {
    match list(object, field, "").as_str() {
        "" => {}
        found => page.field(0, label, found),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_service_reads_as_kubectls() {
        let object = json!({
            "metadata": {"name": "web", "namespace": "shop"},
            "spec": {"type": "LoadBalancer", "selector": {"app": "web"},
                "ipFamilyPolicy": "PreferDualStack", "ipFamilies": ["IPv4", "IPv6"],
                "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00::7"],
                "externalIPs": ["192.0.2.1"], "sessionAffinity": "ClientIP",
                "externalTrafficPolicy": "Local", "internalTrafficPolicy": "Cluster",
                "ports": [{"name": "http", "port": 80, "targetPort": "web", "protocol": "TCP",
                    "nodePort": 30080, "appProtocol": "http"}, {"name": "dns", "port": 53,
                    "targetPort": 5353, "protocol": "UDP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "198.51.100.7", "ipMode": "VIP"},
                {"hostname": "lb.example.org"}]}}
        });
        let endpoint = |n: u8, ready: bool| {
            json!({"addresses": [format!("10.0.0.{n}")],
            "conditions": {"ready": ready}})
        };
        let slice = json!({"endpoints": (1..6).map(|n| endpoint(n, n != 2)).collect::<Vec<_>>(),
            "ports": [{"name": "http", "port": 8080}]});
        let six = json!({"endpoints": [{"addresses": ["fd00::1"]}],
            "ports": [{"name": "dns", "port": 5353}]});
        let mut page = Page::default();
        let reachable = vec![("80/TCP".into(), vec!["shop/a".into(), "shop/b".into()])];
        service(&mut page, &object, &[&slice, &six], &reachable);
        assert_eq!(
            page.render(),
            "\
Name:                     web
Namespace:                shop
Labels:                   <none>
Annotations:              <none>
Selector:                 app=web
Type:                     LoadBalancer
IP Family Policy:         PreferDualStack
IP Families:              IPv4,IPv6
IP:                       10.96.0.7
IPs:                      10.96.0.7,fd00::7
External IPs:             192.0.2.1
LoadBalancer Ingress:     198.51.100.7 (VIP), lb.example.org
Port:                     http  80/TCP
TargetPort:               web/TCP
AppProtocol:              http
NodePort:                 http  30080/TCP
Endpoints:                10.0.0.1:8080,10.0.0.3:8080,10.0.0.4:8080 + 1 more...
Port:                     dns  53/UDP
TargetPort:               5353/UDP
Endpoints:                [fd00::1]:5353
Session Affinity:         ClientIP
External Traffic Policy:  Local
Internal Traffic Policy:  Cluster
Reachable From:
  80/TCP:  shop/a
           shop/b
"
        );
    }

    #[test]
    fn endpoints_and_slices_read_as_kubectls() {
        let mut page = Page::default();
        endpoints(
            &mut page,
            &json!({"metadata": {"name": "web", "namespace": "shop"}, "subsets": [{
                "addresses": [{"ip": "10.0.0.1"}, {"ip": "10.0.0.2"}],
                "ports": [{"port": 80, "protocol": "TCP"}]}]}),
        );
        assert_eq!(
            page.render(),
            "\
Name:         web
Namespace:    shop
Labels:       <none>
Annotations:  <none>
Subsets:
  Addresses:          10.0.0.1,10.0.0.2
  NotReadyAddresses:  <none>
  Ports:
    Name     Port  Protocol
    ----     ----  --------
    <unset>  80    TCP

"
        );
        let mut page = Page::default();
        endpoint_slice(
            &mut page,
            &json!({"metadata": {"name": "web-1"}, "addressType": "IPv4",
                "ports": [{"name": "http", "port": 80, "protocol": "TCP"}],
                "endpoints": [{"addresses": ["10.0.0.1"], "conditions": {"ready": true},
                    "targetRef": {"kind": "Pod", "name": "web-0"}, "nodeName": "n"}]}),
        );
        assert_eq!(
            page.render(),
            "\
Name:         web-1
Namespace:    
Labels:       <none>
Annotations:  <none>
AddressType:  IPv4
Ports:
  Name  Port  Protocol
  ----  ----  --------
  http  80    TCP
Endpoints:
  - Addresses:  10.0.0.1
    Conditions:
      Ready:    true
    Hostname:   <unset>
    TargetRef:  Pod/web-0
    NodeName:   n
    Zone:       <unset>
"
        );
    }
}
