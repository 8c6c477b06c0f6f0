//! Services and EndpointSlices to what the dataplane is given.

use std::sync::Arc;

use control::cluster::{Cluster, DeleteOptions, Transaction};
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
    let frontends: Vec<&Frontend> = services.table().frontends().collect();
    let [
        Frontend {
            affinity_s,
            target_port,
            ..
        },
    ] = frontends[..]
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

/// Everything that the dataplane is given, in an order.
fn all(services: &Services) -> (Vec<Frontend>, Vec<Address>) {
    let table = services.table();
    let mut frontends: Vec<Frontend> = table.frontends().cloned().collect();
    frontends.sort_by_key(|frontend| (frontend.at(), frontend.protocol));
    let mut addresses: Vec<Address> = table.addresses().collect();
    addresses.sort_unstable();
    (frontends, addresses)
}

/// Services that want what others have, by node ports, external and load balancers' addresses, come,
/// change and go, and the node's addresses do: it makes no difference in which order.
#[test]
fn whatever_changes_the_table_is_what_it_is_from_scratch() {
    let mut random = Numbers(7);
    let (cluster, mut source) = cluster(&["10.96.0.0/24", "fd00:10:96::/120"]);
    let mut nodes = [node(), node()];
    nodes[1].addresses = vec![address("192.0.2.2"), address("192.0.2.3")];
    let mut services = Services::new(&cluster, node()).unwrap();
    let (mut now, mut at) = (cluster, 0);
    let mut seen = [0; 4];
    for _ in 0..600 {
        let mut t = now.begin(&mut source);
        for _ in 0..1 + random.below(3) {
            random_step(&mut random, &mut t);
        }
        let commit = t.commit();
        let changes: Vec<Change> = commit.events.iter().map(Change::from).collect();
        services = services.with(&commit.cluster, &changes).unwrap();
        now = commit.cluster;
        if random.below(10) == 0 {
            at = 1 - at;
            services = services.at(nodes[at].clone()).unwrap();
        }
        let whole = Services::new(&now, nodes[at].clone()).unwrap();
        let (frontends, addresses) = all(&services);
        assert_eq!((&frontends, &addresses), (&all(&whole).0, &all(&whole).1));
        seen[0] = seen[0].max(frontends.len());
        seen[1] += usize::from(frontends.iter().any(|f| f.node_port && f.port == 80));
        seen[2] += usize::from(frontends.iter().any(|f| !f.internal.is_empty()));
        let closed = |address: &&Address| frontends.iter().all(|f| f.address != **address);
        seen[3] += usize::from(addresses.iter().any(|address| closed(&address)));
    }
    assert!(
        seen[0] > 20 && seen[1] > 50 && seen[2] > 300 && seen[3] > 50,
        "{seen:?}"
    );
}

/// Numbers that are the same every time.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, limit: u64) -> u64 {
        // Knuth's, as PCG takes it.
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % limit
    }
}

/// Somebody comes, changes or goes; what is refused changes nothing.
fn random_step(random: &mut Numbers, t: &mut Transaction<'_>) {
    let name = format!("s{}", random.below(6));
    if random.below(3) == 0 {
        let endpoints: Vec<Value> = (0..random.below(4))
            .map(|_| {
                let address = format!("10.244.0.{}", 1 + random.below(5));
                json!({"addresses": [address], "conditions": {"ready": random.below(3) > 0}})
            })
            .collect();
        let slice = slice(
            &format!("e{}", random.below(4)),
            &name,
            "IPv4",
            ports(),
            json!(endpoints),
        );
        if t.replace(slice.clone()).is_err() {
            drop(t.create(slice).unwrap());
        }
        return;
    }
    if random.below(4) == 0 {
        let _gone_already = t.delete(&key(&name), &DeleteOptions::default());
        return;
    }
    // One node port and one external address are wanted by many.
    let kind = ["ClusterIP", "NodePort", "LoadBalancer"][random.below(3) as usize];
    let mut port = json!({"name": "http", "port": 80 + random.below(2)});
    if kind != "ClusterIP" {
        port["nodePort"] = json!(30_080 + random.below(3));
    }
    let externals = [
        "192.0.2.1",
        "192.0.2.2",
        "198.51.100.7",
        "10.96.0.1",
        "10.96.0.2",
    ];
    let externals: Vec<&str> = externals
        .into_iter()
        .filter(|_| random.below(3) == 0)
        .collect();
    let mut spec = json!({"type": kind, "ports": [port], "externalIPs": externals});
    if random.below(3) == 0 {
        spec["ipFamilyPolicy"] = json!("PreferDualStack");
    }
    let mut status = json!({});
    if kind == "LoadBalancer" {
        let address = format!("198.51.100.{}", 8 + random.below(2));
        status = json!({"loadBalancer": {"ingress": [{"ip": address}]}});
        if random.below(2) == 0 {
            spec["loadBalancerSourceRanges"] = json!(["203.0.113.0/24"]);
        }
    }
    let service = Object::new(json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
        "spec": spec, "status": status,
    }))
    .unwrap();
    if t.replace(service.clone()).is_err() {
        let _refused = t.create(service);
    }
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
        assert_eq!(all(&services), all(&whole));
        let mut t = now.begin(&mut source);
        t.create(pod.as_ref().unwrap().clone()).unwrap();
        let commit = t.commit();
        let changes: Vec<Change> = commit.events.iter().map(Change::from).collect();
        let same = services.with(&commit.cluster, &changes).unwrap();
        assert!(Arc::ptr_eq(same.table(), services.table()));
    }
    assert!(services.table().is_empty());
}
