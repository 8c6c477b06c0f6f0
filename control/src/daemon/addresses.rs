//! Whose address it is: pods by their addresses, kept up with the changes, so that naming the ends
//! of a flow costs the same with ten pods as with ten thousand.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::Pod;

use crate::cluster::{Cluster, Event, EventKind};
use crate::objects::Object;

/// The pods behind addresses. Several may have one for a moment, while one replaces another.
#[derive(Debug, Default)]
pub struct PodAddresses {
    pods: HashMap<IpAddr, Vec<Arc<Object>>>,
}

impl PodAddresses {
    /// Of every pod there is.
    pub fn of(cluster: &Cluster) -> PodAddresses {
        let mut addresses = PodAddresses::default();
        for pod in cluster.list_of::<Pod>() {
            addresses.add(pod);
        }
        addresses
    }

    /// Keeps up with a change.
    pub fn follow(&mut self, events: &[Event]) {
        for event in events {
            // Of an object that is no pod there are no addresses.
            if let Some(old) = &event.old {
                self.remove(old);
            }
            if event.kind != EventKind::Deleted {
                self.add(&event.object);
            }
        }
    }

    /// The pod at an address: the first that was seen there.
    pub fn at(&self, address: IpAddr) -> Option<&Arc<Object>> {
        self.pods.get(&address)?.first()
    }

    fn add(&mut self, object: &Arc<Object>) {
        for address in addresses(object) {
            self.pods.entry(address).or_default().push(object.clone());
        }
    }

    fn remove(&mut self, object: &Arc<Object>) {
        for address in addresses(object) {
            if let Some(pods) = self.pods.get_mut(&address) {
                pods.retain(|pod| pod.key() != object.key());
                if pods.is_empty() {
                    self.pods.remove(&address);
                }
            }
        }
    }
}

/// Addresses of a pod that are its own: not of one that has ended or shares its node's.
fn addresses(object: &Object) -> Vec<IpAddr> {
    let Some(pod) = object.as_pod() else {
        return Vec::new();
    };
    let ended = pod
        .status
        .as_ref()
        .and_then(|status| status.phase.as_deref());
    let host_network = pod.spec.as_ref().and_then(|spec| spec.host_network);
    if matches!(ended, Some("Succeeded" | "Failed")) || host_network == Some(true) {
        return Vec::new();
    }
    let status = pod.status.iter();
    let texts = status.flat_map(|status| {
        let listed = status.pod_ips.iter().flatten().map(|ip| &ip.ip);
        listed.chain(&status.pod_ip)
    });
    let mut found: Vec<IpAddr> = texts.filter_map(|text| text.parse().ok()).collect();
    found.sort_unstable();
    found.dedup();
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cluster::Seeded;
    use serde_json::json;

    fn pod(name: &str, ip: &str, phase: &str) -> Object {
        Object::new(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": "default"},
            "spec": {"containers": [{"name": "c", "image": "i"}]},
            "status": {"phase": phase, "podIP": ip, "podIPs": [{"ip": ip}]},
        }))
        .unwrap()
    }

    #[test]
    fn an_address_that_is_used_again_is_the_new_pods() {
        let mut source = Seeded::new(1);
        let mut cluster = Cluster::new(&mut source);
        let mut known = PodAddresses::of(&cluster);
        let mut change = |cluster: &mut Cluster, known: &mut PodAddresses, objects: Vec<Object>| {
            for object in objects {
                let mut transaction = cluster.begin(&mut source);
                let (key, status) = (object.key().clone(), object.to_value()["status"].clone());
                transaction.apply(object).unwrap();
                transaction.update_status(&key, None, status).unwrap();
                let commit = transaction.commit();
                known.follow(&commit.events);
                *cluster = commit.cluster;
            }
        };
        let at = |known: &PodAddresses, ip: &str| {
            known
                .at(ip.parse().unwrap())
                .map(|pod| pod.name().to_owned())
        };
        change(
            &mut cluster,
            &mut known,
            vec![pod("a", "10.0.0.1", "Running")],
        );
        assert_eq!(at(&known, "10.0.0.1").as_deref(), Some("a"));
        change(
            &mut cluster,
            &mut known,
            vec![
                pod("a", "10.0.0.1", "Succeeded"),
                pod("b", "10.0.0.1", "Running"),
            ],
        );
        assert_eq!(at(&known, "10.0.0.1").as_deref(), Some("b"));
        change(
            &mut cluster,
            &mut known,
            vec![pod("b", "10.0.0.2", "Running")],
        );
        assert_eq!(at(&known, "10.0.0.1"), None);
        assert_eq!(at(&known, "10.0.0.2").as_deref(), Some("b"));
        let anew = PodAddresses::of(&cluster);
        assert_eq!(anew.pods.len(), known.pods.len());
    }
}
