//! Policies and pods that come and go, in an order that the seed decides.

use std::collections::BTreeMap;
use std::time::Duration;

use control::client::Client;
use serde_json::{Value, json};

use super::node::{Node, Pod, Wanted, call};
use super::traffic::{self, Threads};
use crate::cluster::Numbers;
use crate::error::BenchError;

/// Policies that there can be at once.
const POLICIES: u32 = 12;
/// Pods that come and go.
pub const PODS: u16 = 6;
/// The number of the first of these.
pub const FIRST: u16 = 100;
/// The longest pause between two changes, milliseconds.
const PAUSE_MS: u32 = 60;

/// What has been changed so far.
#[derive(Clone, Copy, Debug, Default)]
pub struct Changed {
    /// Policies applied, over others of the same name too.
    pub applied: u64,
    /// Policies deleted.
    pub deleted: u64,
    /// Pods made.
    pub made: u64,
    /// Pods taken away.
    pub removed: u64,
}

/// Changes one thing after the other.
pub struct Changes<'a> {
    node: &'a Node,
    client: Client,
    numbers: Numbers,
    policies: Vec<String>,
    pods: BTreeMap<u16, (Threads, Pod)>,
    /// So far.
    pub changed: Changed,
}

impl<'a> Changes<'a> {
    /// Begins with no policy and no pod of its own.
    pub fn new(node: &'a Node, seed: u64) -> Result<Changes<'a>, BenchError> {
        Ok(Changes {
            client: node.client()?,
            node,
            numbers: Numbers(seed),
            policies: Vec::new(),
            pods: BTreeMap::new(),
            changed: Changed::default(),
        })
    }

    /// One change, and a pause.
    pub fn step(&mut self) -> Result<(), BenchError> {
        match self.numbers.below(10) {
            0..4 => self.apply()?,
            4..7 => self.delete()?,
            _ => self.turn_pod()?,
        }
        let pause = self.numbers.below(PAUSE_MS);
        std::thread::sleep(Duration::from_millis(pause.into()));
        Ok(())
    }

    fn apply(&mut self) -> Result<(), BenchError> {
        let name = format!("p{}", self.numbers.below(POLICIES));
        let policy = policy(&name, &mut self.numbers);
        call(&mut self.client, "apply", json!({"objects": [policy]}))?;
        if !self.policies.contains(&name) {
            self.policies.push(name);
        }
        self.changed.applied += 1;
        Ok(())
    }

    fn delete(&mut self) -> Result<(), BenchError> {
        if self.policies.is_empty() {
            return Ok(());
        }
        let at = self.numbers.below(self.policies.len() as u32) as usize;
        let name = self.policies.swap_remove(at);
        let target = json!({"resource": "networkpolicies", "namespace": "default", "name": name});
        call(&mut self.client, "delete", json!({"targets": [target]}))?;
        self.changed.deleted += 1;
        Ok(())
    }

    /// Makes a pod, or takes it away if it is there. It has the address of whoever was there before.
    fn turn_pod(&mut self) -> Result<(), BenchError> {
        let number = FIRST + self.numbers.below(PODS.into()) as u16;
        let abrupt = self.numbers.below(2) == 0;
        if let Some((threads, pod)) = self.pods.remove(&number) {
            self.node.remove(&mut self.client, &pod, abrupt)?;
            drop(threads);
            self.changed.removed += 1;
            return Ok(());
        }
        let wanted = Wanted {
            name: &format!("extra-{number}"),
            role: ["server", "extra"][self.numbers.below(2) as usize],
            number,
            queues: 1 + self.numbers.below(2),
        };
        let pod = self.node.add(&mut self.client, &wanted)?;
        self.pods.insert(number, (traffic::serve(&pod)?, pod));
        self.changed.made += 1;
        Ok(())
    }

    /// Takes all of it away.
    pub fn undo(&mut self) -> Result<(), BenchError> {
        while !self.policies.is_empty() {
            self.delete()?;
        }
        while let Some((_, (threads, pod))) = self.pods.pop_first() {
            self.node.remove(&mut self.client, &pod, false)?;
            drop(threads);
            self.changed.removed += 1;
        }
        Ok(())
    }
}

/// A policy about pods that take part; never about those whose fate is watched.
fn policy(name: &str, numbers: &mut Numbers) -> Value {
    let roles = ["client", "server", "extra"];
    let mut role = || roles[numbers.below(3) as usize];
    let (selected, peer) = (role(), role());
    let (kind, direction, way) = match numbers.below(2) {
        0 => ("Ingress", "ingress", "from"),
        _ => ("Egress", "egress", "to"),
    };
    let protocol = ["TCP", "UDP"][numbers.below(2) as usize];
    let peers = match numbers.below(3) {
        0 => json!([{"ipBlock": {"cidr": "10.244.0.0/16", "except": ["10.244.0.96/28"]}}]),
        _ => json!([{"podSelector": {"matchLabels": {"role": peer}}}]),
    };
    let rules = match numbers.below(4) {
        0 => json!([]),
        1 => json!([{ way: peers }]),
        _ => json!([{ way: peers, "ports": [{"protocol": protocol, "port": 8080}] }]),
    };
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"role": selected}},
            "policyTypes": [kind], direction: rules,
        },
    })
}

/// The policy that shuts the vault.
pub fn shut() -> Value {
    json!({
        "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
        "metadata": {"name": "shut", "namespace": "default"},
        "spec": {
            "podSelector": {"matchLabels": {"role": "vault"}}, "policyTypes": ["Ingress"],
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_makes_the_same_policies_and_none_is_about_the_watched() {
        let all = |seed| -> Vec<Value> {
            let mut numbers = Numbers(seed);
            (0..200).map(|_| policy("p", &mut numbers)).collect()
        };
        assert_eq!(all(7), all(7));
        assert_ne!(all(7), all(8));
        for policy in all(7) {
            let role = &policy["spec"]["podSelector"]["matchLabels"]["role"];
            assert!(role != "vault" && role != "watched", "{policy}");
        }
    }
}
