//! Services and EndpointSlices to what the dataplane is given.

use std::sync::Arc;

use control::cluster::{Cluster, Transaction};
use control::lower::Change;
use control::objects::Object;
use control::service::{Node, Services};
use dataplane::service::{Frontend, Lookup};
use dataplane::snapshot::Role;
use dataplane::{Address, Protocol};
use serde_json::{Value, json};

use super::{cluster, key, service};

const VIP: &str = "10.96.0.7";

fn slice(name: &str, of: &str, kind: &str, ports: Value, endpoints: Value) -> Object {
    Object::new(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {
            "name": name, "namespace": "default",
            "labels": {"kubernetes.io/service-name": of},
        },
        "addressType": kind, "endpoints": endpoints, "ports": ports,
    }))
    .unwrap()
}

fn node() -> Node {
    Node {
        name: Some("here".into()),
        addresses: vec![
            address("192.0.2.1"),
            address("fd01::1"),
            address("169.254.0.9"),
        ],
        sources: Vec::new(),
        pod_ranges: vec!["10.244.0.0/16".parse().unwrap()],
    }
}

fn address(text: &str) -> Address {
    text.parse::<std::net::IpAddr>().unwrap().into()
}

/// One transaction's work.
type Step = Box<dyn Fn(&mut Transaction<'_>)>;

/// A cluster of these objects.
fn of(objects: Vec<Object>) -> Cluster {
    let (cluster, mut source) = cluster(&["10.96.0.0/16", "fd00:10:96::/112"]);
    let mut t = cluster.begin(&mut source);
    for object in objects {
        t.create(object).unwrap();
    }
    t.commit().cluster
}

fn lowered(objects: Vec<Object>) -> Services {
    Services::new(&of(objects), node()).unwrap()
}

fn web(more: Value) -> Object {
    let mut spec = json!({
        "clusterIP": VIP, "ports": [{"port": 80, "name": "http", "targetPort": "web"}],
    });
    for (field, value) in more.as_object().unwrap() {
        spec[field] = value.clone();
    }
    service("web", spec)
}

fn ports() -> Value {
    json!([{"name": "http", "port": 8080}])
}

/// The backends that a connection from there is given.
fn backends(services: &Services, from: Role, to: &str, port: u16) -> Vec<String> {
    match services
        .table()
        .lookup(from, address(to), Protocol::TCP, port)
    {
        Lookup::Backends(backends) => backends.iter().map(ToString::to_string).collect(),
        Lookup::NoBackend { policy_port } => vec![format!("none, policy {policy_port}")],
        Lookup::NoSuchPort => vec!["no such port".into()],
        Lookup::NotAService => vec!["no Service".into()],
    }
}

#[test]
fn ready_endpoints_answer_and_draining_ones_only_where_none_is() {
    let endpoint = |last: u8, conditions: Value| json!({"addresses": [format!("10.244.0.{last}")], "conditions": conditions});
    let going = json!({"ready": false, "serving": true, "terminating": true});
    let some = json!([
        endpoint(1, json!({})),
        endpoint(2, json!({"ready": true})),
        endpoint(3, json!({"ready": false})),
        endpoint(4, going.clone()),
    ]);
    let services = lowered(vec![
        web(json!({})),
        slice("a", "web", "IPv4", ports(), some),
    ]);
    let found = backends(&services, Role::Pod, VIP, 80);
    assert_eq!(found, ["10.244.0.1:8080", "10.244.0.2:8080"]);
    assert_eq!(
        backends(&services, Role::Uplink, VIP, 80),
        found,
        "from everywhere"
    );
    assert_eq!(backends(&services, Role::Pod, VIP, 81), ["no such port"]);

    let last = json!([endpoint(3, json!({"ready": false})), endpoint(4, going)]);
    let services = lowered(vec![
        web(json!({})),
        slice("a", "web", "IPv4", ports(), last),
    ]);
    assert_eq!(backends(&services, Role::Pod, VIP, 80), ["10.244.0.4:8080"]);
    let nobody = lowered(vec![web(json!({}))]);
    assert_eq!(backends(&nobody, Role::Pod, VIP, 80), ["none, policy 80"]);
}

#[test]
fn slices_with_other_numbers_add_up_and_what_lacks_the_port_is_left_out() {
    let at = |last: u8| json!([{"addresses": [format!("10.244.0.{last}")]}]);
    let udp = json!([{"name": "http", "port": 7, "protocol": "UDP"}]);
    let services = lowered(vec![
        web(json!({})),
        slice("a", "web", "IPv4", ports(), at(1)),
        slice(
            "b",
            "web",
            "IPv4",
            json!([{"name": "http", "port": 9090}]),
            at(2),
        ),
        slice(
            "c",
            "web",
            "IPv4",
            json!([{"name": "other", "port": 1}]),
            at(3),
        ),
        slice("d", "web", "IPv4", udp, at(4)),
        slice("e", "other", "IPv4", ports(), at(5)),
    ]);
    let found = backends(&services, Role::Pod, VIP, 80);
    assert_eq!(found, ["10.244.0.1:8080", "10.244.0.2:9090"]);
}

#[test]
fn each_family_has_its_own_backends() {
    let spec = json!({
        "clusterIP": VIP, "ipFamilyPolicy": "RequireDualStack", "ports": [{"port": 80}],
    });
    let plain = json!([{"port": 80}]);
    let (four, six) = (
        json!([{"addresses": ["10.244.0.1"]}]),
        json!([{"addresses": ["fd00::1"]}]),
    );
    let cluster = of(vec![
        service("web", spec),
        slice("a", "web", "IPv4", plain.clone(), four),
        slice("b", "web", "IPv6", plain, six),
    ]);
    let services = Services::new(&cluster, node()).unwrap();
    let object = cluster.get(&key("web")).unwrap();
    let second = object.value()["spec"]["clusterIPs"][1].as_str().unwrap();
    assert_eq!(backends(&services, Role::Pod, VIP, 80), ["10.244.0.1:80"]);
    assert_eq!(backends(&services, Role::Pod, second, 80), ["[fd00::1]:80"]);
}

#[test]
fn traffic_policies_choose_by_where_connections_come_from() {
    let endpoints = json!([
        {"addresses": ["10.244.0.1"], "nodeName": "here"},
        {"addresses": ["10.245.0.1"], "nodeName": "there"}, {"addresses": ["10.245.0.2"]},
    ]);
    let more = json!({
        "type": "NodePort", "externalTrafficPolicy": "Local",
        "ports": [{"port": 80, "name": "http", "nodePort": 30_080}],
    });
    let services = lowered(vec![
        web(more),
        slice("a", "web", "IPv4", ports(), endpoints.clone()),
    ]);
    let all = ["10.244.0.1:8080", "10.245.0.1:8080", "10.245.0.2:8080"];
    assert_eq!(backends(&services, Role::Pod, VIP, 80), all);
    assert_eq!(
        backends(&services, Role::Uplink, "192.0.2.1", 30_080),
        all[..1]
    );
    assert_eq!(
        backends(&services, Role::Pod, "192.0.2.1", 30_080),
        all,
        "from inside all"
    );
    assert_eq!(
        backends(&services, Role::Pod, "192.0.2.1", 22),
        ["no Service"]
    );
    let link_local = backends(&services, Role::Pod, "169.254.0.9", 30_080);
    assert_eq!(link_local, ["no Service"]);

    let inside = json!({"internalTrafficPolicy": "Local"});
    let services = lowered(vec![
        web(inside),
        slice("a", "web", "IPv4", ports(), endpoints),
    ]);
    assert_eq!(backends(&services, Role::Pod, VIP, 80), all[..1]);
}

#[test]
fn headless_services_and_names_have_no_frontends() {
    let endpoints = json!([{"addresses": ["10.244.0.1"]}]);
    let name = json!({"type": "ExternalName", "externalName": "example.com"});
    let services = lowered(vec![
        service("web", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
        slice("a", "web", "IPv4", json!([{"port": 80}]), endpoints),
        service("name", name),
    ]);
    assert!(services.table().is_empty());
}

#[test]
fn affinity_and_target_ports_are_told() {
    let config = json!({"clientIP": {"timeoutSeconds": 60}});
    let more = json!({
        "sessionAffinity": "ClientIP", "sessionAffinityConfig": config,
        "ports": [{"port": 80, "targetPort": 8080}],
    });
    let services = lowered(vec![web(more)]);
    let [
        Frontend {
            affinity_s,
            target_port,
            ..
        },
    ] = services.table().frontends()
    else {
        panic!("one frontend");
    };
    assert_eq!((*affinity_s, *target_port), (Some(60), Some(8080)));
}

#[test]
fn nobody_takes_what_is_anothers_by_an_external_address() {
    let endpoints = json!([{"addresses": ["10.244.0.1"]}]);
    let thief = json!({
        "externalIPs": [VIP, "10.244.0.9", "198.51.100.7", "192.0.2.1"],
        "ports": [{"port": 80}],
    });
    let services = lowered(vec![
        web(json!({})),
        service("a-thief", thief),
        slice("a", "a-thief", "IPv4", json!([{"port": 80}]), endpoints),
    ]);
    assert_eq!(backends(&services, Role::Pod, VIP, 80), ["none, policy 80"]);
    assert_eq!(
        backends(&services, Role::Pod, "10.244.0.9", 80),
        ["no Service"]
    );
    assert_eq!(
        backends(&services, Role::Pod, "198.51.100.7", 80),
        ["10.244.0.1:80"]
    );
    assert_eq!(
        backends(&services, Role::Pod, "192.0.2.1", 80),
        ["10.244.0.1:80"]
    );
    assert_eq!(
        backends(&services, Role::Pod, "192.0.2.1", 22),
        ["no Service"],
        "the node's own"
    );
}

#[test]
fn a_change_is_what_all_of_it_is_from_scratch_and_others_cost_nothing() {
    let (cluster, mut source) = cluster(&["10.96.0.0/16"]);
    let mut services = Services::new(&cluster, node()).unwrap();
    let mut now = cluster;
    let at = |last: u8| json!([{"addresses": [format!("10.244.0.{last}")]}]);
    let pod = Object::new(json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "default"},
        "spec": {"containers": [{"name": "c", "image": "i"}]},
    }));
    let steps: Vec<Step> = vec![
        Box::new(|t| drop(t.create(web(json!({}))).unwrap())),
        Box::new(move |t| drop(t.create(slice("a", "web", "IPv4", ports(), at(1))).unwrap())),
        Box::new(move |t| {
            drop(
                t.replace(slice("a", "web", "IPv4", ports(), at(2)))
                    .unwrap(),
            )
        }),
        Box::new(move |t| drop(t.create(slice("b", "web", "IPv4", ports(), at(3))).unwrap())),
        Box::new(move |t| drop(t.replace(slice("b", "x", "IPv4", ports(), at(3))).unwrap())),
        Box::new(|t| super::delete(t, "web")),
    ];
    for step in steps {
        let mut t = now.begin(&mut source);
        step(&mut t);
        let commit = t.commit();
        let changes: Vec<Change> = commit.events.iter().map(Change::from).collect();
        services = services.with(&commit.cluster, &changes).unwrap();
        now = commit.cluster;
        let whole = Services::new(&now, node()).unwrap();
        assert_eq!(services.table().frontends(), whole.table().frontends());
        let mut t = now.begin(&mut source);
        t.create(pod.as_ref().unwrap().clone()).unwrap();
        let commit = t.commit();
        let changes: Vec<Change> = commit.events.iter().map(Change::from).collect();
        let same = services.with(&commit.cluster, &changes).unwrap();
        assert!(Arc::ptr_eq(same.table(), services.table()));
    }
    assert!(services.table().is_empty());
}
