//! Services: what the API server would say, fill in and hand out.

use control::cluster::{Cluster, DeleteOptions, Seeded, Transaction};
use control::objects::{Key, Object, kinds};
use control::service::Pools;
use serde_json::{Value, json};

mod asked;
mod given;
mod lowered;
mod refused;
mod slices;

fn service(name: &str, spec: Value) -> Object {
    let meta = json!({"name": name, "namespace": "default"});
    Object::new(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta, "spec": spec}))
        .unwrap()
}

/// A Service with one port.
fn plain(name: &str) -> Object {
    service(name, json!({"ports": [{"port": 80}]}))
}

/// A cluster with these ranges.
fn cluster(ranges: &[&str]) -> (Cluster, Seeded) {
    let mut source = Seeded::new(7);
    let mut pools = Pools::default();
    pools.services.ranges = ranges.iter().map(|range| range.parse().unwrap()).collect();
    let cluster = Cluster::empty()
        .with_pools(pools)
        .with_system_namespaces(&mut source)
        .cluster;
    (cluster, source)
}

/// One transaction on a cluster with both families.
fn both<T>(work: impl FnOnce(&mut Transaction<'_>) -> T) -> T {
    let (cluster, mut source) = cluster(&["10.96.0.0/16", "fd00:10:96::/112"]);
    work(&mut cluster.begin(&mut source))
}

fn key(name: &str) -> Key {
    Key::new(kinds::find("v1", "Service").unwrap(), "default", name)
}

fn create(t: &mut Transaction<'_>, object: Object) -> Value {
    match t.create(object) {
        Ok(outcome) => outcome.object.value()["spec"].clone(),
        Err(refusal) => panic!("{refusal}"),
    }
}

fn replace(t: &mut Transaction<'_>, object: Object) -> Value {
    match t.replace(object) {
        Ok(outcome) => outcome.object.value()["spec"].clone(),
        Err(refusal) => panic!("{refusal}"),
    }
}

fn delete(t: &mut Transaction<'_>, name: &str) {
    t.delete(&key(name), &DeleteOptions::default()).unwrap();
}
