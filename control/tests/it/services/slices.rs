//! EndpointSlices: defaults, and what they cannot be.

use control::objects::Object;
use serde_json::{Value, json};

use super::both;

fn slice(kind: &str, endpoints: Value, ports: Value) -> Object {
    Object::new(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "web", "namespace": "default"},
        "addressType": kind, "endpoints": endpoints, "ports": ports,
    }))
    .unwrap()
}

fn refused(object: Object, complaints: &[&str]) {
    let message = both(|t| t.create(object).unwrap_err().to_string());
    let head = "The EndpointSlice \"web\" is invalid: ";
    assert_eq!(message, crate::cases::scene::refusal_text(head, complaints));
}

#[test]
fn ports_have_a_name_and_a_protocol() {
    let endpoints = json!([{"addresses": ["10.0.0.7"]}]);
    let made = both(|t| {
        let outcome = t.create(slice("IPv4", endpoints, json!([{"port": 80}])));
        outcome.unwrap().object.value()["ports"].clone()
    });
    assert_eq!(made, json!([{"name": "", "protocol": "TCP", "port": 80}]));
}

#[test]
fn addresses_are_of_the_type_and_name_a_host() {
    let endpoints = json!([
        {"addresses": []}, {"addresses": ["fd00::1"]}, {"addresses": ["127.0.0.1"]},
        {"addresses": ["169.254.0.1"], "hostname": "A"},
    ]);
    refused(
        slice("IPv4", endpoints, json!([])),
        &[
            "endpoints[0].addresses: Required value: must contain at least 1 address",
            "endpoints[1].addresses[0]: Invalid value: \"fd00::1\": must be a valid IPv4 address",
            "endpoints[2].addresses[0]: Invalid value: \"127.0.0.1\": may not be in the loopback \
             range (127.0.0.0/8, ::1/128)",
            "endpoints[3].addresses[0]: Invalid value: \"169.254.0.1\": may not be in the \
             link-local range (169.254.0.0/16, fe80::/10)",
            "endpoints[3].hostname: Invalid value: \"A\": a lowercase RFC 1123 label must consist \
             of lower case alphanumeric characters or '-', and must start and end with an \
             alphanumeric character (e.g. 'my-name',  or '123-abc', regex used for validation is \
             '[a-z0-9]([-a-z0-9]*[a-z0-9])?')",
        ],
    );
    refused(
        slice("IPv7", json!([]), json!([])),
        &[
            "addressType: Unsupported value: \"IPv7\": supported values: \"FQDN\", \"IPv4\", \
           \"IPv6\"",
        ],
    );
}

#[test]
fn ports_differ_and_their_number_is_bounded() {
    let ports = json!([{"port": 80}, {"port": 81, "protocol": "X"}]);
    refused(
        slice("IPv4", json!([]), ports),
        &[
            "ports[1].name: Duplicate value: \"\"",
            "ports[1].protocol: Unsupported value: \"X\": supported values: \"TCP\", \"UDP\", \
             \"SCTP\"",
        ],
    );
    let many: Vec<Value> = (0..1001)
        .map(|_| json!({"addresses": ["10.0.0.1"]}))
        .collect();
    refused(
        slice("IPv4", many.into(), json!([])),
        &["endpoints: Too many: 1001: must have at most 1000 items"],
    );
}

#[test]
fn the_address_type_stays() {
    let message = both(|t| {
        t.create(slice("IPv4", json!([]), json!([]))).unwrap();
        let changed = t.replace(slice("IPv6", json!([]), json!([])));
        changed.unwrap_err().to_string()
    });
    assert_eq!(
        message,
        "The EndpointSlice \"web\" is invalid: addressType: Invalid value: \"IPv6\": field is \
         immutable"
    );
}
