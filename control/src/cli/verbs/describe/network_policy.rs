//! A NetworkPolicy as `kubectl describe` prints it (kubernetes `staging/src/k8s.io/kubectl/pkg/describe`).

use serde_json::Value;

use crate::cli::columns::selector;

use super::created_on;
use super::page::{Page, items, text};

/// The words of a direction.
struct Words {
    isolated: &'static str,
    peers: &'static str,
    any: &'static str,
}

const INGRESS: Words = Words {
    isolated: "<none> (Selected pods are isolated for ingress connectivity)",
    peers: "From",
    any: "From: <any> (traffic not restricted by source)",
};
const EGRESS: Words = Words {
    isolated: "<none> (Selected pods are isolated for egress connectivity)",
    peers: "To",
    any: "To: <any> (traffic not restricted by destination)",
};

/// Writes the page.
pub fn describe(page: &mut Page, policy: &Value) {
    page.field(0, "Name", text(policy, "/metadata/name"));
    page.field(0, "Namespace", text(policy, "/metadata/namespace"));
    page.field(0, "Created on", created_on(policy));
    page.labels(policy);
    page.annotations(policy);
    page.line(0, "Spec:");
    let pods = match selector(policy.pointer("/spec/podSelector")).as_str() {
        "<none>" => "<none> (Allowing the specific traffic to all pods in this namespace)".into(),
        chosen => chosen.to_owned(),
    };
    page.line(1, format!("PodSelector:     {pods}"));
    let types: Vec<&str> = items(policy, "/spec/policyTypes")
        .iter()
        .filter_map(Value::as_str)
        .collect();
    if types.contains(&"Ingress") {
        page.line(1, "Allowing ingress traffic:");
        rules(page, items(policy, "/spec/ingress"), "/from", &INGRESS);
    } else {
        page.line(1, "Not affecting ingress traffic");
    }
    if types.contains(&"Egress") {
        page.line(1, "Allowing egress traffic:");
        rules(page, items(policy, "/spec/egress"), "/to", &EGRESS);
    } else {
        page.line(1, "Not affecting egress traffic");
    }
    page.line(1, format!("Policy Types: {}", types.join(", ")));
}

fn rules(page: &mut Page, rules: &[Value], peers: &str, words: &Words) {
    if rules.is_empty() {
        page.line(2, words.isolated);
    }
    for (at, rule) in rules.iter().enumerate() {
        let ports = items(rule, "/ports");
        if ports.is_empty() {
            page.line(2, "To Port: <any> (traffic allowed to all ports)");
        }
        for port in ports {
            page.line(2, format!("To Port: {}", port_text(port)));
        }
        let peers = items(rule, peers);
        if peers.is_empty() {
            page.line(2, words.any);
        }
        for peer in peers {
            page.line(2, format!("{}:", words.peers));
            peer_lines(page, peer);
        }
        if at + 1 < rules.len() {
            page.line(2, "----------");
        }
    }
}

/// `80/TCP`, `http/TCP`, `32000-32768/TCP`.
fn port_text(port: &Value) -> String {
    let protocol = port["protocol"].as_str().unwrap_or("TCP");
    let first = match &port["port"] {
        Value::String(name) => name.clone(),
        Value::Null => "<any>".to_owned(),
        number => number.to_string(),
    };
    match &port["endPort"] {
        Value::Null => format!("{first}/{protocol}"),
        last => format!("{first}-{last}/{protocol}"),
    }
}

fn peer_lines(page: &mut Page, peer: &Value) {
    for (member, name) in [
        ("/namespaceSelector", "NamespaceSelector"),
        ("/podSelector", "PodSelector"),
    ] {
        let chosen = peer.pointer(member).filter(|chosen| !chosen.is_null());
        if let Some(chosen) = chosen {
            page.line(3, format!("{name}: {}", selector(Some(chosen))));
        }
    }
    if let Some(block) = peer.pointer("/ipBlock").filter(|block| !block.is_null()) {
        page.line(3, "IPBlock:");
        page.line(4, format!("CIDR: {}", text(block, "/cidr")));
        let except: Vec<&str> = items(block, "/except")
            .iter()
            .filter_map(Value::as_str)
            .collect();
        page.line(4, format!("Except: {}", except.join(", ")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// The page of the Kubernetes documentation's example, as kubectl prints it.
    #[test]
    fn a_policy_reads_as_kubectls() {
        let policy = json!({
            "metadata": {"name": "test-network-policy", "namespace": "default",
                "creationTimestamp": "2026-11-21T02:00:00Z", "labels": {"b": "2", "a": "1"}},
            "spec": {
                "podSelector": {"matchLabels": {"role": "db"}},
                "policyTypes": ["Ingress", "Egress"],
                "ingress": [{
                    "from": [
                        {"ipBlock": {"cidr": "172.17.0.0/16", "except": ["172.17.1.0/24"]}},
                        {"namespaceSelector": {"matchLabels": {"project": "myproject"}},
                         "podSelector": {"matchLabels": {"role": "frontend"}}},
                    ],
                    "ports": [{"protocol": "TCP", "port": 6379}]
                }, {}],
                "egress": [{"ports": [
                    {"protocol": "TCP", "port": 32000, "endPort": 32768}, {"port": "http"}]}]
            }
        });
        let mut page = Page::default();
        describe(&mut page, &policy);
        assert_eq!(
            page.render(),
            "\
Name:         test-network-policy
Namespace:    default
Created on:   2026-11-21 02:00:00 +0000 UTC
Labels:       a=1
              b=2
Annotations:  <none>
Spec:
  PodSelector:     role=db
  Allowing ingress traffic:
    To Port: 6379/TCP
    From:
      IPBlock:
        CIDR: 172.17.0.0/16
        Except: 172.17.1.0/24
    From:
      NamespaceSelector: project=myproject
      PodSelector: role=frontend
    ----------
    To Port: <any> (traffic allowed to all ports)
    From: <any> (traffic not restricted by source)
  Allowing egress traffic:
    To Port: 32000-32768/TCP
    To Port: http/TCP
    To: <any> (traffic not restricted by destination)
  Policy Types: Ingress, Egress
"
        );
    }

    #[test]
    fn isolation_and_what_is_not_affected_are_said() {
        let mut page = Page::default();
        describe(
            &mut page,
            &json!({"metadata": {"name": "x"}, "spec": {
                "podSelector": {}, "policyTypes": ["Egress"], "egress": []}}),
        );
        let text = page.render();
        for line in [
            "  PodSelector:     <none> (Allowing the specific traffic to all pods in this namespace)",
            "  Not affecting ingress traffic",
            "    <none> (Selected pods are isolated for egress connectivity)",
        ] {
            assert!(text.lines().any(|found| found == line), "{text}");
        }
    }
}
