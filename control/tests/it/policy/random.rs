//! Random clusters.

use control::cluster::{Cluster, Seeded};
use control::objects::Object;
use serde_json::{Value, json};

use super::objects::{Choices, NAMESPACES, labels, pod, policy};
use super::wide;

/// A cluster. An odd one holds what validation would refuse, put there without it.
pub(super) fn cluster(c: &mut Choices<'_>, odd: bool) -> Cluster {
    let mut objects = Vec::new();
    for name in NAMESPACES {
        let mut labels = labels(c);
        labels["kubernetes.io/metadata.name"] = json!(name);
        if odd && c.chance(1) {
            labels["kubernetes.io/metadata.name"] = json!("another");
        }
        objects.push(json!({"apiVersion": "v1", "kind": "Namespace",
            "metadata": {"name": name, "labels": labels}}));
    }
    for index in 0..=c.below(6) {
        objects.push(pod(c, index, odd));
    }
    for index in 0..c.below(3) {
        objects.push(wide::node(c, index));
    }
    for namespace in NAMESPACES {
        if c.chance(5) {
            objects.push(wide::account(c, namespace));
        }
    }
    let mut policies = Vec::new();
    for index in 0..c.below(5) {
        policies.push(policy(c, index, odd));
    }
    for index in 0..c.below(4) {
        policies.push(wide::cluster_policy(c, index, odd));
    }
    for index in 0..c.below(3) {
        policies.push(wide::admin_policy(c, index, odd));
    }
    if c.chance(3) {
        policies.push(wide::baseline_policy(c, odd));
    }
    if c.chance(4) {
        for index in 0..c.below(4) {
            policies.push(wide::group(c, index, odd));
        }
        for index in 0..=c.below(3) {
            policies.push(wide::binding(c, index, odd));
        }
    }
    for mut policy in policies {
        if c.chance(1) {
            policy["metadata"]["annotations"] = json!({"weir.dev/mode": "audit"});
        }
        objects.push(policy);
    }
    if odd {
        let mut cluster = Cluster::empty();
        for mut value in objects {
            value["metadata"]["uid"] = uid(&value);
            cluster.restore(value).unwrap();
        }
        return cluster;
    }
    let mut source = Seeded::new(1);
    let empty = Cluster::empty();
    let mut transaction = empty.begin(&mut source);
    for value in objects {
        let object = Object::new(value.clone()).unwrap();
        if let Err(refusal) = transaction.create(object) {
            panic!("{refusal} {value}");
        }
    }
    transaction.commit().cluster
}

/// A UID of what names the object.
fn uid(value: &Value) -> Value {
    let meta = &value["metadata"];
    json!(format!(
        "{}/{}/{}",
        value["kind"], meta["namespace"], meta["name"]
    ))
}
