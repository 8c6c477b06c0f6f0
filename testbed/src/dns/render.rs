//! Records for the objects of a cluster, after the Kubernetes DNS specification 1.1.0
//! (github.com/kubernetes/dns, docs/specification.md), with CoreDNS's answers where it leaves room.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Namespace, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::records::{Record, Records, reverse_name};

/// How long clients may keep an answer, in seconds: CoreDNS's default for its kubernetes plugin.
pub const TTL_S: u32 = 5;
/// The version of the specification, as `dns-version` answers it.
const SPECIFICATION: &str = "1.1.0";
/// Label that names a slice's Service.
const SERVICE_NAME: &str = "kubernetes.io/service-name";

/// What the objects do not say.
#[derive(Clone, Debug)]
pub struct Options {
    /// The cluster's domain, in lower case, without the last dot.
    pub domain: String,
    /// Where the DNS server is reached: addresses of `ns.dns.DOMAIN`.
    pub server: Vec<IpAddr>,
    /// Names outside the cluster, in any case, and their addresses. `*.example.com` stands for all
    /// names below `example.com`, `*` for all names outside. Any other name does not exist.
    pub external: BTreeMap<String, Vec<IpAddr>>,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            domain: "cluster.local".into(),
            server: Vec::new(),
            external: BTreeMap::new(),
        }
    }
}

/// [`render`]'s outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rendered {
    /// The records; they pass [`Records::check`].
    pub records: Records,
    /// What has no names, and why: a line each.
    pub skipped: Vec<String>,
}

/// Renders Namespaces, Services, EndpointSlices and Pods; other kinds are passed over. Equal
/// objects make equal records, whatever their order.
///
/// What is left out is said in [`Rendered::skipped`]: an object that cannot be read, and a name
/// that DNS cannot carry. The rest is served all the same.
pub fn render<'a>(objects: impl IntoIterator<Item = &'a Value>, options: &Options) -> Rendered {
    let mut cluster = Cluster::default();
    let mut skipped = Vec::new();
    for object in objects {
        if let Err(error) = cluster.take(object) {
            let text = |pointer| {
                object
                    .pointer(pointer)
                    .and_then(Value::as_str)
                    .unwrap_or("?")
            };
            let (kind, name) = (text("/kind"), text("/metadata/name"));
            skipped.push(format!(
                "{kind} {}/{name}: {error}",
                text("/metadata/namespace")
            ));
        }
    }
    let mut out = Output {
        options,
        records: Records::new(TTL_S),
    };
    out.zones();
    for namespace in &cluster.namespaces {
        out.records
            .declare(&format!("{namespace}.svc.{}", options.domain));
        out.records
            .declare(&format!("{namespace}.pod.{}", options.domain));
    }
    cluster.pods.iter().for_each(|pod| out.pod(pod));
    for service in &cluster.services {
        let slices = cluster
            .slices
            .get(&key(service))
            .map_or(&[][..], Vec::as_slice);
        out.service(service, slices);
    }
    let mut records = out.records;
    drop_unspeakable(&mut records, &mut skipped);
    skipped.sort();
    Rendered { records, skipped }
}

/// Takes out what no message can carry, so that one bad name does not cost all the others.
fn drop_unspeakable(records: &mut Records, skipped: &mut Vec<String>) {
    while let Err(error) = records.check() {
        let alone = |name: &String, set: &BTreeSet<Record>| Records {
            names: BTreeMap::from([(name.clone(), set.clone())]),
            ..Records::new(TTL_S)
        };
        let bad = |(name, set): (&String, &BTreeSet<Record>)| {
            alone(name, set).check().is_err().then(|| name.clone())
        };
        let Some(name) = records.names.iter().find_map(bad) else {
            return;
        };
        records.names.remove(&name);
        skipped.push(format!("{name}: {error}"));
    }
}

/// Namespace and name.
type Key = (String, String);

fn key(service: &Service) -> Key {
    let metadata = &service.metadata;
    let text = |text: &Option<String>| text.clone().unwrap_or_default();
    (text(&metadata.namespace), text(&metadata.name))
}

#[derive(Default)]
struct Cluster {
    namespaces: BTreeSet<String>,
    pods: Vec<Pod>,
    services: Vec<Service>,
    slices: BTreeMap<Key, Vec<EndpointSlice>>,
}

fn typed<T: DeserializeOwned>(object: &Value) -> Result<T, serde_json::Error> {
    T::deserialize(object)
}

impl Cluster {
    fn take(&mut self, object: &Value) -> Result<(), serde_json::Error> {
        match object["kind"].as_str() {
            Some("Namespace") => {
                let namespace: Namespace = typed(object)?;
                self.namespaces.extend(namespace.metadata.name);
            }
            Some("Pod") => self.pods.push(typed(object)?),
            Some("Service") => self.services.push(typed(object)?),
            Some("EndpointSlice") => {
                let slice: EndpointSlice = typed(object)?;
                let labels = slice.metadata.labels.as_ref();
                if let Some(service) = labels.and_then(|labels| labels.get(SERVICE_NAME)) {
                    let namespace = slice.metadata.namespace.clone().unwrap_or_default();
                    self.slices
                        .entry((namespace, service.clone()))
                        .or_default()
                        .push(slice);
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// A ready backend.
struct Backend {
    /// Its label below the Service's name.
    label: String,
    address: IpAddr,
    /// Name, protocol in lower case and number of its ports.
    ports: Vec<(String, String, u16)>,
}

fn backends(slices: &[EndpointSlice]) -> Vec<Backend> {
    let mut all = Vec::new();
    for slice in slices {
        let ports = slice.ports.iter().flatten().filter_map(|port| {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            let number = u16::try_from(port.port?).ok()?;
            Some((port.name.clone().unwrap_or_default(), protocol, number))
        });
        let ports: Vec<_> = ports.collect();
        for endpoint in &slice.endpoints {
            // No word means ready. Slices of a Service that publishes unready addresses say ready.
            if endpoint
                .conditions
                .as_ref()
                .is_some_and(|c| c.ready == Some(false))
            {
                continue;
            }
            // Slices of type FQDN have names here, which nobody resolves.
            for address in endpoint
                .addresses
                .iter()
                .filter_map(|text| text.parse().ok())
            {
                let hostname = endpoint.hostname.clone().filter(|name| !name.is_empty());
                let label = hostname.unwrap_or_else(|| dashed(address));
                all.push(Backend {
                    label,
                    address,
                    ports: ports.clone(),
                });
            }
        }
    }
    all
}

/// `10-244-0-20`, `fd00-10-244--14`.
fn dashed(address: IpAddr) -> String {
    address.to_string().replace(['.', ':'], "-")
}

struct Output<'a> {
    options: &'a Options,
    records: Records,
}

impl Output<'_> {
    /// The zones, their server, and the external names. The root is a zone too: whatever is not
    /// the cluster's is looked for among the external names and found or not, with authority.
    fn zones(&mut self) {
        let domain = &self.options.domain;
        let server = format!("ns.dns.{domain}");
        let mailbox = format!("hostmaster.{domain}");
        for zone in [domain, "in-addr.arpa", "ip6.arpa", ""] {
            let (server, mailbox) = (server.clone(), mailbox.clone());
            self.records.add(zone, Record::Ns(server.clone()));
            self.records.add(zone, Record::Soa { server, mailbox });
        }
        self.records.declare(&server);
        for address in &self.options.server {
            self.records.add(&server, Record::address(*address));
        }
        self.records.add(
            &format!("dns-version.{domain}"),
            Record::Txt(SPECIFICATION.into()),
        );
        self.records.declare(&format!("svc.{domain}"));
        self.records.declare(&format!("pod.{domain}"));
        for (name, addresses) in &self.options.external {
            let name = name.trim_end_matches('.').to_lowercase();
            self.records.declare(&name);
            for address in addresses {
                self.records.add(&name, Record::address(*address));
            }
        }
    }

    /// `10-244-0-20.NAMESPACE.pod.DOMAIN`, for pods that there are (CoreDNS's `pods verified`).
    fn pod(&mut self, pod: &Pod) {
        let namespace = pod.metadata.namespace.as_deref().unwrap_or_default();
        let Some(status) = &pod.status else { return };
        if matches!(status.phase.as_deref(), Some("Succeeded" | "Failed")) {
            return;
        }
        let several = status.pod_ips.iter().flatten().map(|entry| Some(&entry.ip));
        for text in several.chain([status.pod_ip.as_ref()]).flatten() {
            if let Ok(address) = text.parse::<IpAddr>() {
                let name = format!(
                    "{}.{namespace}.pod.{}",
                    dashed(address),
                    self.options.domain
                );
                self.records.add(&name, Record::address(address));
            }
        }
    }

    fn service(&mut self, service: &Service, slices: &[EndpointSlice]) {
        let (namespace, name) = key(service);
        let name = format!("{name}.{namespace}.svc.{}", self.options.domain);
        let Some(spec) = &service.spec else { return };
        if spec.type_.as_deref() == Some("ExternalName") {
            let target = spec.external_name.as_deref().unwrap_or_default();
            let target = target.trim_end_matches('.').to_lowercase();
            // An address is no name: CoreDNS has no answer then.
            if target.parse::<IpAddr>().is_err() && !target.is_empty() {
                self.records.add(&name, Record::Cname(target));
            }
            return;
        }
        let backends = backends(slices);
        for backend in &backends {
            let endpoint = format!("{}.{name}", backend.label);
            self.records
                .add(&endpoint, Record::address(backend.address));
            self.records
                .add(&reverse_name(backend.address), Record::Ptr(endpoint));
        }
        let first = spec.cluster_ip.iter();
        let cluster_ips: BTreeSet<&String> =
            first.chain(spec.cluster_ips.iter().flatten()).collect();
        if cluster_ips.iter().any(|text| *text == "None") {
            self.headless(&name, &backends);
            return;
        }
        self.records.declare(&name);
        for address in cluster_ips
            .iter()
            .filter_map(|text| text.parse::<IpAddr>().ok())
        {
            self.records
                .add(&reverse_name(address), Record::Ptr(name.clone()));
            self.records.add(&name, Record::address(address));
        }
        for port in spec.ports.iter().flatten() {
            let protocol = port.protocol.as_deref().unwrap_or("TCP").to_lowercase();
            if let Ok(number) = u16::try_from(port.port) {
                let port_name = port.name.as_deref().unwrap_or_default();
                self.port(&name, port_name, &protocol, number, &name);
            }
        }
    }

    /// Without a ready backend there is no such name, as with CoreDNS.
    fn headless(&mut self, name: &str, backends: &[Backend]) {
        for backend in backends {
            self.records.add(name, Record::address(backend.address));
            let target = format!("{}.{name}", backend.label);
            for (port, protocol, number) in &backend.ports {
                self.port(name, port, protocol, *number, &target);
            }
        }
    }

    /// SRV records: all ports under the Service's own name, as CoreDNS has them, named ones under
    /// `_PORT._PROTOCOL` too.
    fn port(&mut self, service: &str, name: &str, protocol: &str, port: u16, target: &str) {
        let record = Record::Srv {
            port,
            target: target.to_owned(),
        };
        self.records.add(service, record.clone());
        if !name.is_empty() {
            self.records
                .add(&format!("_{name}._{protocol}.{service}"), record);
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn namespace(name: &str) -> Value {
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    }

    fn service(name: &str, spec: Value) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "ns"}, "spec": spec,
        })
    }

    /// A slice of `service` with one endpoint per (address, ready, hostname).
    fn slice(service: &str, endpoints: &[(&str, Option<bool>, &str)], ports: Value) -> Value {
        let family = if endpoints[0].0.contains(':') {
            "IPv6"
        } else {
            "IPv4"
        };
        let endpoints = endpoints.iter().map(|(address, ready, hostname)| {
            let mut endpoint = json!({"addresses": [address]});
            if let Some(ready) = ready {
                endpoint["conditions"] = json!({"ready": ready});
            }
            if !hostname.is_empty() {
                endpoint["hostname"] = json!(hostname);
            }
            endpoint
        });
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": {
                "name": format!("{service}-{family}"), "namespace": "ns",
                "labels": {SERVICE_NAME: service},
            },
            "addressType": family, "endpoints": endpoints.collect::<Vec<_>>(), "ports": ports,
        })
    }

    fn names(objects: &[Value], options: &Options) -> BTreeMap<String, Vec<String>> {
        let rendered = render(objects, options);
        assert_eq!(rendered.skipped, [] as [String; 0]);
        let backwards = render(objects.iter().rev(), options);
        assert_eq!(backwards, rendered, "order matters");
        rendered.records.check().unwrap();
        let texts = |set: BTreeSet<Record>| set.iter().map(|r| format!("{r:?}")).collect();
        rendered
            .records
            .names
            .into_iter()
            .map(|(name, set)| (name, texts(set)))
            .collect()
    }

    fn of<'a>(names: &'a BTreeMap<String, Vec<String>>, name: &str) -> Option<Vec<&'a str>> {
        Some(names.get(name)?.iter().map(String::as_str).collect())
    }

    #[test]
    fn a_headless_service_is_its_ready_pods() {
        let http = json!([{"name": "http", "protocol": "TCP", "port": 8080}]);
        let objects = [
            namespace("ns"),
            service("db", json!({"clusterIP": "None", "ports": [{"port": 80}]})),
            service("gone", json!({"clusterIP": "None"})),
            slice(
                "db",
                &[
                    ("10.0.0.1", Some(true), "db-0"),
                    ("10.0.0.2", Some(false), "db-1"),
                ],
                http.clone(),
            ),
            slice(
                "db",
                &[("fd00::1", None, "db-0"), ("fd00::3", None, "")],
                http,
            ),
            slice("gone", &[("10.0.0.9", Some(false), "")], json!([])),
        ];
        let names = names(&objects, &Options::default());
        let db = "db.ns.svc.cluster.local";
        assert_eq!(
            of(&names, db).unwrap(),
            [
                "A(10.0.0.1)",
                "Aaaa(fd00::1)",
                "Aaaa(fd00::3)",
                r#"Srv { port: 8080, target: "db-0.db.ns.svc.cluster.local" }"#,
                r#"Srv { port: 8080, target: "fd00--3.db.ns.svc.cluster.local" }"#,
            ]
        );
        assert_eq!(of(&names, &format!("_http._tcp.{db}")).unwrap().len(), 2);
        let first = of(&names, &format!("db-0.{db}")).unwrap();
        assert_eq!(first, ["A(10.0.0.1)", "Aaaa(fd00::1)"]);
        assert_eq!(of(&names, &format!("db-1.{db}")), None);
        assert_eq!(
            of(&names, "1.0.0.10.in-addr.arpa").unwrap(),
            [r#"Ptr("db-0.db.ns.svc.cluster.local")"#]
        );
        assert_eq!(of(&names, "gone.ns.svc.cluster.local"), None);
        assert_eq!(of(&names, "ns.svc.cluster.local").unwrap(), [] as [&str; 0]);
    }

    #[test]
    fn a_services_name_is_its_cluster_ip() {
        let spec = json!({
            "clusterIP": "10.96.0.7", "clusterIPs": ["10.96.0.7", "fd00:96::7"],
            "ports": [{"name": "dns", "protocol": "UDP", "port": 53}, {"port": 80}],
        });
        let objects = [
            service("web", spec.clone()),
            service("idle", spec),
            slice("web", &[("10.0.0.1", None, "")], json!([])),
        ];
        let options = Options::default();
        let name = "web.ns.svc.cluster.local";
        let addresses = |names: &BTreeMap<String, Vec<String>>, name: &str| {
            let mut all = names.get(name).unwrap().clone();
            all.retain(|record| !record.starts_with("Srv"));
            all
        };
        let all = names(&objects, &options);
        assert_eq!(addresses(&all, name), ["A(10.96.0.7)", "Aaaa(fd00:96::7)"]);
        assert_eq!(addresses(&all, "idle.ns.svc.cluster.local").len(), 2);
        assert_eq!(
            of(&all, &format!("_dns._udp.{name}")).unwrap(),
            [r#"Srv { port: 53, target: "web.ns.svc.cluster.local" }"#]
        );
        let unnamed = r#"Srv { port: 80, target: "web.ns.svc.cluster.local" }"#;
        assert!(of(&all, name).unwrap().contains(&unnamed));
        assert_eq!(
            of(&all, &format!("10-0-0-1.{name}")).unwrap(),
            ["A(10.0.0.1)"]
        );
        assert_eq!(of(&all, "7.0.96.10.in-addr.arpa").unwrap().len(), 2);
    }

    #[test]
    fn external_names_and_the_zones_are_there() {
        let mut options = Options::default();
        options.server.push("10.244.0.10".parse().unwrap());
        let outside: Vec<IpAddr> = vec![
            "172.31.255.2".parse().unwrap(),
            "fd00:10:255::2".parse().unwrap(),
        ];
        options.external.insert("WWW.Google.com.".into(), outside);
        let objects = [
            service(
                "out",
                json!({"type": "ExternalName", "externalName": "www.google.COM."}),
            ),
            service(
                "bad",
                json!({"type": "ExternalName", "externalName": "10.0.0.1"}),
            ),
        ];
        let names = names(&objects, &options);
        assert_eq!(
            of(&names, "www.google.com").unwrap(),
            ["A(172.31.255.2)", "Aaaa(fd00:10:255::2)"]
        );
        let alias = of(&names, "out.ns.svc.cluster.local").unwrap();
        assert_eq!(alias, [r#"Cname("www.google.com")"#]);
        assert_eq!(of(&names, "bad.ns.svc.cluster.local"), None);
        assert_eq!(
            of(&names, "ns.dns.cluster.local").unwrap(),
            ["A(10.244.0.10)"]
        );
        assert_eq!(
            of(&names, "dns-version.cluster.local").unwrap(),
            [r#"Txt("1.1.0")"#]
        );
        for apex in ["", "cluster.local", "in-addr.arpa", "ip6.arpa"] {
            assert_eq!(of(&names, apex).unwrap().len(), 2, "{apex}");
        }
    }

    #[test]
    fn pods_have_names_while_they_live() {
        let pod = |name: &str, status: Value| {
            json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": name, "namespace": "ns"}, "status": status,
            })
        };
        let objects = [
            pod(
                "a",
                json!({"podIP": "10.0.0.1", "podIPs": [{"ip": "10.0.0.1"}, {"ip": "fd00::1"}]}),
            ),
            pod("b", json!({"phase": "Succeeded", "podIP": "10.0.0.2"})),
            pod("c", json!({"phase": "Pending"})),
        ];
        let names = names(&objects, &Options::default());
        assert_eq!(
            of(&names, "10-0-0-1.ns.pod.cluster.local").unwrap(),
            ["A(10.0.0.1)"]
        );
        assert_eq!(
            of(&names, "fd00--1.ns.pod.cluster.local").unwrap(),
            ["Aaaa(fd00::1)"]
        );
        assert_eq!(of(&names, "10-0-0-2.ns.pod.cluster.local"), None);
    }

    #[test]
    fn what_cannot_be_served_costs_nothing_else() {
        let objects = [
            service("web", json!({"clusterIP": "None"})),
            slice("web", &[("10.0.0.1", None, "")], json!([])),
            service(
                "odd",
                json!({"type": "ExternalName", "externalName": "a b"}),
            ),
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "x"}, "spec": 5}),
            json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "x"}, "data": 5}),
        ];
        let rendered = render(&objects, &Options::default());
        rendered.records.check().unwrap();
        assert!(
            rendered
                .records
                .names
                .contains_key("web.ns.svc.cluster.local")
        );
        assert!(
            !rendered
                .records
                .names
                .contains_key("odd.ns.svc.cluster.local")
        );
        assert_eq!(rendered.skipped.len(), 2, "{:?}", rendered.skipped);
        assert!(
            rendered.skipped[0].starts_with("Service ?/x: "),
            "{:?}",
            rendered.skipped
        );
        assert!(
            rendered.skipped[1].contains("a b"),
            "{:?}",
            rendered.skipped
        );
    }
}
