//! A made-up cluster as Kubernetes objects: what a node with many pods and policies is told.

use serde_json::{Value, json};

use crate::cluster::Numbers;

/// How many there are.
#[derive(Clone, Copy, Debug, serde::Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Counts {
    /// NetworkPolicies.
    pub policies: u32,
    /// Pods.
    pub pods: u32,
    /// Pods on this node, of those above.
    pub local: u32,
}

/// Values that the label `app` has.
const APPS: u32 = 20;
/// Values that the namespaces' label `team` has.
const TEAMS: u32 = 10;
/// Pods of a namespace, about.
const PODS_PER_NAMESPACE: u32 = 100;

/// The cluster: every object's text follows from its number.
#[derive(Clone, Copy, Debug)]
pub struct Objects {
    /// How many there are.
    pub counts: Counts,
}

impl Objects {
    /// Namespaces that pods and policies are spread over.
    pub fn namespaces(&self) -> u32 {
        self.counts.pods.div_ceil(PODS_PER_NAMESPACE).max(1)
    }

    fn namespace_name(&self, number: u32) -> String {
        format!("weir-ns-{}", number % self.namespaces())
    }

    /// A namespace.
    pub fn namespace(&self, number: u32) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Namespace",
            "metadata": {
                "name": self.namespace_name(number),
                "labels": {"team": format!("t{}", number % TEAMS)},
            },
        })
    }

    /// Namespace and name of a pod; the first ones are this node's.
    pub fn pod_name(&self, number: u32) -> (String, String) {
        (self.namespace_name(number), format!("pod-{number}"))
    }

    /// The address of a pod.
    pub fn pod_address(&self, number: u32) -> String {
        format!(
            "10.{}.{}.{}",
            64 + (number >> 16),
            number >> 8 & 255,
            number & 255
        )
    }

    /// A pod; `turn` changes the value of its label `app`.
    pub fn pod(&self, number: u32, turn: u32) -> Value {
        let (namespace, name) = self.pod_name(number);
        let address = self.pod_address(number);
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": name, "namespace": namespace,
                "labels": {"app": self.app(number, turn), "tier": format!("tier-{}", number % 3)},
            },
            "spec": {"containers": [{
                "name": "c", "image": "registry.example/app:1",
                "ports": [{"name": "web", "containerPort": 8080, "protocol": "TCP"}],
            }]},
            "status": {"phase": "Running", "podIP": address, "podIPs": [{"ip": address}]},
        })
    }

    /// The value of a pod's label `app`.
    pub fn app(&self, number: u32, turn: u32) -> String {
        format!("a{}", (number / self.namespaces() + turn) % APPS)
    }

    /// The name of a policy.
    pub fn policy_name(&self, number: u32) -> (String, String) {
        (self.namespace_name(number), format!("policy-{number}"))
    }

    /// A policy as people write them: it selects the pods of one app, lets in those of another, of
    /// every fourth policy those of a team's namespaces, and of every eighth lets out to a prefix.
    /// `turn` changes its port and whom it lets in.
    pub fn policy(&self, number: u32, turn: u32) -> Value {
        let (namespace, name) = self.policy_name(number);
        let within = number / self.namespaces();
        let mut numbers = Numbers(u64::from(number) << 32 | u64::from(turn));
        let peer = json!({"matchLabels": {"app": format!("a{}", numbers.below(APPS))}});
        let mut from = vec![json!({"podSelector": peer})];
        if within.is_multiple_of(4) {
            let team = format!("t{}", numbers.below(TEAMS));
            from.push(json!({
                "namespaceSelector": {"matchLabels": {"team": team}}, "podSelector": peer,
            }));
        }
        let port = 1024 + numbers.below(30_000);
        let mut spec = json!({
            "podSelector": {"matchLabels": {"app": format!("a{}", within % APPS)}},
            "policyTypes": ["Ingress"],
            "ingress": [{"from": from, "ports": [{"protocol": "TCP", "port": port}]}],
        });
        if within.is_multiple_of(8) {
            spec["policyTypes"] = json!(["Ingress", "Egress"]);
            let cidr = format!("{}.{}.0.0/16", 20 + numbers.below(80), numbers.below(256));
            spec["egress"] = json!([{
                "to": [{"ipBlock": {"cidr": cidr}}, {"podSelector": peer}],
                "ports": [{"protocol": "TCP", "port": 443}],
            }]);
        }
        json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": name, "namespace": namespace},
            "spec": spec,
        })
    }

    /// Namespace and name of a Service.
    pub fn service_name(&self, number: u32) -> (String, String) {
        (self.namespace_name(number), format!("service-{number}"))
    }

    /// A Service with two ports; `turn` changes the first one's number.
    pub fn service(&self, number: u32, turn: u32) -> Value {
        let (namespace, name) = self.service_name(number);
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {
                "selector": {"service": number.to_string()},
                "ports": [
                    {"name": "web", "port": 80 + turn % 1000, "targetPort": 8080},
                    {"name": "sql", "port": 5432, "targetPort": "sql"},
                ],
            },
        })
    }

    /// The slice of a Service: its share of the pods that all Services have as `backends`. In odd
    /// turns the first of them is not ready.
    pub fn slice(&self, number: u32, services: u32, backends: u32, turn: u32) -> Value {
        let (namespace, name) = self.service_name(number);
        let share = |number: u32| u64::from(number) * u64::from(backends) / u64::from(services);
        let (first, next) = (share(number) as u32, share(number + 1) as u32);
        let endpoints = (first..next).map(|backend| {
            let address = self.pod_address(backend % self.counts.pods);
            let ready = backend != first || turn.is_multiple_of(2);
            json!({"addresses": [address], "conditions": {"ready": ready}})
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {
                "name": format!("{name}-a"), "namespace": namespace,
                "labels": {"kubernetes.io/service-name": name},
            },
            "endpoints": endpoints.collect::<Vec<_>>(),
            "ports": [{"name": "web", "port": 8080}, {"name": "sql", "port": 3306}],
        })
    }

    /// The Services with their slices, in an order that a store takes.
    pub fn services(&self, services: u32, backends: u32) -> impl Iterator<Item = Value> {
        let this = *self;
        (0..services).flat_map(move |number| {
            let slice = this.slice(number, services, backends, 0);
            [this.service(number, 0), slice]
        })
    }

    /// Whether a policy selects a pod of this node as they were made.
    pub fn selects_local(&self, policy: u32) -> bool {
        let namespaces = self.namespaces();
        let local = self.counts.local.saturating_sub(policy % namespaces);
        policy / namespaces % APPS < local.div_ceil(namespaces)
    }

    /// Everything, in an order that a store takes.
    pub fn all(&self) -> impl Iterator<Item = Value> {
        let this = *self;
        let namespaces = (0..this.namespaces()).map(move |number| this.namespace(number));
        let pods = (0..this.counts.pods).map(move |number| this.pod(number, 0));
        let policies = (0..this.counts.policies).map(move |number| this.policy(number, 0));
        namespaces.chain(pods).chain(policies)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::{Counts, Objects};

    #[test]
    fn every_object_is_one_that_the_store_takes() {
        let objects = Objects {
            counts: Counts {
                policies: 400,
                pods: 300,
                local: 7,
            },
        };
        let mut names = HashSet::new();
        for value in objects.all().chain(objects.services(20, 50)) {
            let object = control::objects::Object::new(value).unwrap();
            let findings = control::validate::validate(&object, None);
            assert!(findings.errors.is_empty(), "{:?}", findings.errors);
            assert!(names.insert(object.key().clone()));
        }
        assert_eq!(names.len(), 743);
        let shared = (0..20).map(|number| {
            let slice = objects.slice(number, 20, 50, 1);
            slice["endpoints"].as_array().map_or(0, Vec::len)
        });
        assert_eq!(shared.sum::<usize>(), 50);
    }

    #[test]
    fn a_policy_that_is_said_to_select_a_local_pod_does() {
        let objects = Objects {
            counts: Counts {
                policies: 400,
                pods: 300,
                local: 7,
            },
        };
        for policy in 0..400 {
            let value = objects.policy(policy, 3);
            let app = &value["spec"]["podSelector"]["matchLabels"]["app"];
            let selects = (0..7).any(|pod| {
                objects.pod_name(pod).0 == objects.policy_name(policy).0
                    && *app == objects.app(pod, 0)
            });
            assert_eq!(objects.selects_local(policy), selects, "{policy}");
        }
    }
}
