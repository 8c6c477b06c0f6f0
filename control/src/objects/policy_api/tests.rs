use serde_json::{Value, json};

use super::*;
use crate::objects::{DecodeError, DecodeOptions, Decoded, FieldValidation, Object, decode_value};

fn cnp(rule: Value) -> Value {
    json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha2",
        "kind": "ClusterNetworkPolicy",
        "metadata": {"name": "x"},
        "spec": {
            "tier": "Admin", "priority": 1,
            "subject": {"namespaces": {}},
            "egress": [rule],
        },
    })
}

fn decode(value: Value, fields: FieldValidation) -> Result<Decoded, DecodeError> {
    let options = DecodeOptions {
        fields,
        ..DecodeOptions::default()
    };
    let mut decoded = Decoded::default();
    decode_value(value, &options, &mut decoded)?;
    Ok(decoded)
}

fn peer_of(object: &Object) -> &EgressPeer {
    let policy = object.as_cluster_network_policy().unwrap();
    &policy.spec.egress[0].to.as_ref().unwrap()[0]
}

#[test]
fn a_newer_peer_is_refused_when_read_strictly() {
    let rule = json!({"action": "Deny", "to": [{"services": {"name": "dns"}}]});
    let error = decode(cnp(rule), FieldValidation::Strict).unwrap_err();
    assert_eq!(
        error.to_string(),
        "ClusterNetworkPolicy in version \"v1alpha2\" cannot be handled as a \
         ClusterNetworkPolicy: strict decoding error: unknown field \
         \"spec.egress[0].to[0].services\""
    );
}

#[test]
fn a_newer_peer_that_is_let_in_stays_visible() {
    let rule = json!({"action": "Deny", "to": [{"services": {"name": "dns"}}]});
    for fields in [FieldValidation::Warn, FieldValidation::Ignore] {
        let decoded = decode(cnp(rule.clone()), fields).unwrap();
        let peer = peer_of(&decoded.objects[0]);
        assert_eq!(peer.unknown, ["services"]);
        assert_eq!((&peer.namespaces, &peer.networks), (&None, &None));
    }
    // As a journal gives it back.
    let object = Object::new(cnp(rule)).unwrap();
    assert_eq!(peer_of(&object).unknown, ["services"]);
}

#[test]
fn unknown_members_are_kept_at_every_level_of_a_rule() {
    let object = Object::new(cnp(json!({
        "action": "Accept", "ports": [],
        "to": [{"pods": {"podSelector": {}, "serviceAccountSelector": {}}}],
        "protocols": [
            {"quic": {}},
            {"tcp": {"sourcePort": 1}},
            {"udp": {"destinationPort": {"name": "dns"}}},
            {"sctp": {"destinationPort": {"range": {"start": 1, "end": 2, "step": 2}}}},
        ],
    })))
    .unwrap();
    let rule = &object.as_cluster_network_policy().unwrap().spec.egress[0];
    assert_eq!(rule.unknown, ["ports"]);
    let pods = peer_of(&object).pods.as_ref().unwrap();
    assert_eq!(pods.unknown, ["serviceAccountSelector"]);
    let protocols = rule.protocols.as_ref().unwrap();
    let port = |transport: &Option<cluster::Transport>| {
        transport.clone().unwrap().destination_port.unwrap()
    };
    assert_eq!(protocols[0].unknown, ["quic"]);
    assert_eq!(protocols[1].tcp.as_ref().unwrap().unknown, ["sourcePort"]);
    assert_eq!(port(&protocols[2].udp).unknown, ["name"]);
    assert_eq!(port(&protocols[3].sctp).range.unwrap().unknown, ["step"]);
}

#[test]
fn null_is_absent_and_a_null_item_has_no_members() {
    let object = Object::new(cnp(json!({
        "action": "Accept", "to": [{"namespaces": null, "networks": null}, null],
        "protocols": null,
    })))
    .unwrap();
    let rule = &object.as_cluster_network_policy().unwrap().spec.egress[0];
    assert_eq!(rule.to, Some(vec![EgressPeer::default(); 2]));
    assert_eq!(rule.protocols, None);
}

#[test]
fn admin_policies_are_read() {
    let object = Object::new(json!({
        "apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy",
        "metadata": {"name": "x"},
        "spec": {"priority": 7, "subject": {"pods": {"podSelector": {}, "namespaceSelector": {}}},
            "ingress": [{"name": "n", "action": "Pass", "from": [{"namespaces": {}}], "ports": [
                {"portNumber": {"port": 80}}, {"namedPort": "web"},
                {"portRange": {"protocol": "UDP", "start": 1, "end": 9}}]}]},
    }))
    .unwrap();
    let spec = &object.as_admin_network_policy().unwrap().spec;
    assert_eq!((spec.priority, spec.ingress.len()), (7, 1));
    let ports = spec.ingress[0].ports.as_ref().unwrap();
    assert_eq!(ports[0].port_number.as_ref().unwrap().port, 80);
    assert_eq!(ports[1].named_port.as_deref(), Some("web"));
    assert_eq!(ports[2].port_range.as_ref().unwrap().end, 9);
    assert!(spec.egress.is_empty());
}

#[test]
fn a_security_group_s_protocol_may_be_a_bare_number() {
    let object = Object::new(json!({
        "apiVersion": "weir.dev/v1alpha1", "kind": "SecurityGroup", "metadata": {"name": "sg-1"},
        "spec": {"ingress": [{"protocol": -1, "cidrs": ["0.0.0.0/0"]},
            {"protocol": "tcp", "fromPort": 80, "toPort": 81, "securityGroups": ["sg-1"]}]},
    }))
    .unwrap();
    let spec = &object.as_security_group().unwrap().spec;
    let rules = spec.ingress.as_ref().unwrap();
    assert_eq!(
        rules[0].protocol,
        Some(k8s_openapi::apimachinery::pkg::util::intstr::IntOrString::Int(-1))
    );
    assert_eq!((rules[1].from_port, rules[1].to_port), (Some(80), Some(81)));
    assert_eq!(spec.egress, None);
}

#[test]
fn a_binding_is_read_in_aws_words() {
    let object = Object::new(json!({
        "apiVersion": "vpcresources.k8s.aws/v1beta1", "kind": "SecurityGroupPolicy",
        "metadata": {"name": "x", "namespace": "n"},
        "spec": {"podSelector": {"matchLabels": {"a": "b"}},
            "securityGroups": {"groupIds": ["sg-1", "sg-2"]}},
    }))
    .unwrap();
    let spec = &object.as_security_group_policy().unwrap().spec;
    assert!(spec.pod_selector.is_some() && spec.service_account_selector.is_none());
    assert_eq!(spec.security_groups.group_ids.as_deref().unwrap().len(), 2);
}
