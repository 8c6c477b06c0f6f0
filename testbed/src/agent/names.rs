//! The lab's DNS pod: an ordinary pod, labelled as CoreDNS is, so that policies about DNS are about
//! real packets; and its records, which follow the daemon's objects.
//!
//! The records come by file, not by network: a policy that cuts the DNS pod off does not make its
//! answers old.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::{Value, json};

use super::{Agent, DNS_SERVICE_V4, DNS_SERVICE_V6, DNS_V4, DNS_V6, lock};
use crate::dns::{Options, Records, render};
use crate::topology;

/// The DNS pod's namespace.
pub const NAMESPACE: &str = "kube-system";
/// The DNS pod.
pub const POD: &str = "coredns";
/// Where its records lie, in the pod.
const RECORDS: &str = "/run/weir-dns/records.json";
/// Domains whose names all stand for the external world. Others do not exist: a name that was
/// mistyped must not lead anywhere.
const EXTERNAL: [&str; 6] = ["*.com", "*.net", "*.org", "*.io", "*.dev", "*.test"];
/// Kinds that names are made of.
const KINDS: [&str; 4] = ["Namespace", "Service", "EndpointSlice", "Pod"];
/// Without any change, how often to look whether the pod was started again.
const LOOK: Duration = Duration::from_millis(500);

/// Changes that follow from one another come closer together than this.
const QUIET: Duration = Duration::from_millis(50);

/// The DNS pod as an object.
pub fn pod_object() -> Value {
    let program = std::env::current_exe().map(|own| own.with_file_name("weir-dns"));
    let program = program.unwrap_or_else(|_| PathBuf::from("weir-dns"));
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": POD, "namespace": NAMESPACE,
            "labels": {"k8s-app": "kube-dns"},
        },
        "spec": {
            "dnsPolicy": "Default",
            "containers": [{
                "name": "coredns", "image": "weir-dns",
                "command": [program, "--records", RECORDS],
                "ports": [
                    {"name": "dns", "containerPort": 53, "protocol": "UDP"},
                    {"name": "dns-tcp", "containerPort": 53, "protocol": "TCP"},
                ],
            }],
        },
        "status": {"podIPs": [{"ip": DNS_V4}, {"ip": DNS_V6}], "podIP": DNS_V4},
    })
}

/// Its Service, called as CoreDNS's is.
pub fn service_object() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Service",
        "metadata": {
            "name": "kube-dns", "namespace": NAMESPACE,
            "labels": {
                "k8s-app": "kube-dns", "kubernetes.io/cluster-service": "true",
                "kubernetes.io/name": "CoreDNS",
            },
        },
        "spec": {
            "selector": {"k8s-app": "kube-dns"},
            "ipFamilyPolicy": "RequireDualStack",
            "clusterIP": DNS_SERVICE_V4,
            "clusterIPs": [DNS_SERVICE_V4, DNS_SERVICE_V6],
            "ports": [
                {"name": "dns", "port": 53, "protocol": "UDP", "targetPort": 53},
                {"name": "dns-tcp", "port": 53, "protocol": "TCP", "targetPort": 53},
            ],
        },
    })
}

/// Keeps the DNS pod's records right, for good.
pub fn keep(agent: &Agent) {
    let (mut seen, mut written) = (0, None);
    while !agent.is_stopping() {
        seen = agent.mirror.wait(seen, LOOK);
        let Some(root) = root(agent) else { continue };
        let records = records(agent);
        if written.as_ref() == Some(&(root.clone(), records.clone())) {
            agent.named.store(seen, Ordering::Release);
            continue;
        }
        match write(&root, &records) {
            Ok(()) => {
                written = Some((root, records));
                agent.named.store(seen, Ordering::Release);
            }
            // The pod is just coming or going: looked at again soon.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => agent.complain(format_args!("the DNS pod's records: {error}")),
        }
    }
}

/// Whether what there is has its names, and nothing has changed for a while: controllers and
/// EndpointSlices are through.
pub fn is_settled(agent: &Agent) -> bool {
    let (number, age) = agent.mirror.last_change();
    age >= QUIET && (root(agent).is_none() || agent.named.load(Ordering::Acquire) >= number)
}

/// The DNS pod's root, as this process sees it while the pod's init runs.
fn root(agent: &Agent) -> Option<PathBuf> {
    let pods = lock(&agent.pods);
    let pod = pods
        .values()
        .find(|pod| pod.namespace == NAMESPACE && pod.name == POD)?;
    Some(
        Path::new("/proc")
            .join(pod.sandbox.get()?.pid().to_string())
            .join("root"),
    )
}

fn records(agent: &Agent) -> Records {
    let objects: Vec<Arc<Value>> = KINDS
        .iter()
        .flat_map(|kind| agent.mirror.list(kind))
        .collect();
    let (v4, v6) = topology::external_addresses();
    let outside: Vec<IpAddr> = vec![v4.into(), v6.into()];
    let external: BTreeMap<String, Vec<IpAddr>> = EXTERNAL
        .iter()
        .map(|name| ((*name).to_owned(), outside.clone()))
        .collect();
    let options = Options {
        server: vec![DNS_SERVICE_V4.into(), DNS_SERVICE_V6.into()],
        external,
        ..Options::default()
    };
    render(objects.iter().map(Arc::as_ref), &options).records
}

fn write(root: &Path, records: &Records) -> io::Result<()> {
    // Not joined with `RECORDS` as it stands: an absolute path would replace the root.
    let path = root.join(RECORDS.trim_start_matches('/'));
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder)?;
    }
    records.write(&path).map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_dns_pod_is_labelled_as_policies_expect_it() {
        let pod = pod_object();
        assert_eq!(pod["metadata"]["labels"]["k8s-app"], "kube-dns");
        assert_eq!(pod["status"]["podIPs"][0]["ip"], "10.244.0.10");
        assert_eq!(pod["spec"]["containers"][0]["command"][2], RECORDS);
    }
}
