//! What a pod has before its containers start, and what changes of it while they run.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::net::IpAddr;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Instant;

use control::protocol::{EndpointAddParams, EndpointAdded};
use k8s_openapi::api::core::v1::Container;
use serde_json::{Value, json};

use super::super::{Condition, ContainerState, Order, Role, log_folder};
use super::Worker;
use crate::agent::events::Tone;
use crate::agent::probes::Probing;
use crate::agent::volumes::{self, Sources};
use crate::agent::{NODE, lock, scratch, spec};
use crate::pod::message::{RootSpec, ToInit, Volume};
use crate::pod::sandbox::Sandbox;
use crate::topology::{self, mac_text};

/// Queues that a pod may ask for: each costs kernel memory for every chunk of packet memory.
const QUEUES: RangeInclusive<u32> = 1..=16;
/// Bytes that a pod may write outside its volumes.
const WRITABLE_BYTES: u64 = 512 << 20;

impl Worker<'_> {
    fn hostname(&self) -> String {
        if self.is_on_host() {
            return NODE.to_owned();
        }
        let mut name = self
            .spec
            .hostname
            .clone()
            .unwrap_or_else(|| self.pod.name.clone());
        name.truncate(63);
        name
    }

    /// Addresses, network, endpoint, root; in this order, so that nothing of the pod runs before
    /// its policy is live.
    pub(super) fn set_up(&mut self) -> Result<(), String> {
        if self.is_on_host() {
            return self.set_up_on_host();
        }
        let given = given_addresses(self.object);
        let addresses = self.agent.take_addresses(&given)?;
        lock(&self.pod.state).addresses = addresses.clone();
        self.read_containers()?;
        let queues = wanted_queues(self.object)?;
        let number = self.agent.interface_number();
        let (namespace, name) = (&self.pod.namespace, &self.pod.name);
        let network = self
            .agent
            .topology
            .add_pod(namespace, name, number, &addresses, queues);
        let network = self
            .network
            .insert(network.map_err(|error| error.to_string())?);
        lock(&self.pod.state).network = network.name.clone();
        let endpoint = EndpointAddParams {
            namespace: self.pod.namespace.clone(),
            name: self.pod.name.clone(),
            uid: self.pod.uid.clone(),
            interface: network.interface.clone(),
            mac: mac_text(network.mac),
            addresses: addresses.clone(),
        };
        self.write_status();
        self.bind()?;
        let added = self.agent.call::<EndpointAdded>("endpoint.add", &endpoint);
        added.map_err(|error| format!("endpoint.add: {error}"))?;
        {
            let mut state = lock(&self.pod.state);
            state.endpoint = Some(endpoint);
            state.networked = true;
        }
        self.start_sandbox()?;
        lock(&self.pod.state).message = None;
        Ok(())
    }

    /// In the node's own network, as a debugger on the node is.
    fn set_up_on_host(&mut self) -> Result<(), String> {
        {
            let mut state = lock(&self.pod.state);
            state.addresses = vec![topology::NODE_V4.into(), topology::NODE_V6.into()];
            state.network = topology::node_name(&self.agent.lab.name);
            state.networked = true;
        }
        self.read_containers()?;
        self.write_status();
        self.bind()?;
        self.start_sandbox()?;
        lock(&self.pod.state).message = None;
        Ok(())
    }

    /// Says in the object where the pod is.
    fn bind(&self) -> Result<(), String> {
        let network = lock(&self.pod.state).network.clone();
        let annotation = json!({"metadata": {"annotations": {"weir.dev/netns": network}}});
        self.agent
            .merge("pods", self.object, annotation)
            .map_err(|error| error.to_string())?;
        if self.spec.node_name.is_none() {
            let bound = json!({"spec": {"nodeName": NODE}});
            // A daemon that holds a pod's spec fixed is right to refuse; the column stays empty.
            let _refused = self.agent.merge("pods", self.object, bound);
        }
        Ok(())
    }

    fn read_containers(&mut self) -> Result<(), String> {
        let inits = self.spec.init_containers.iter().flatten();
        let inits = inits.map(|container| (container.clone(), Role::Init));
        let mains = self.spec.containers.iter();
        let mains = mains.map(|container| (container.clone(), Role::Main));
        let added = added_containers(self.object).into_iter();
        let added = added.map(|container| (container, Role::Ephemeral));
        let all: Vec<(Container, Role)> = inits.chain(mains).chain(added).collect();
        {
            let mut state = lock(&self.pod.state);
            state.containers.clear();
            state.warnings.clear();
        }
        self.declared.clear();
        self.unserved.clear();
        self.probes.clear();
        self.ending.clear();
        let mut failed = None;
        for (container, role) in all {
            if let Err(why) = self.add_container(container, role) {
                failed.get_or_insert(why);
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn add_container(&mut self, container: Container, role: Role) -> Result<(), String> {
        let identity = self.identity();
        let made = spec::process(&self.typed, &container, &identity, &self.agent.mirror);
        let failed = made.as_ref().err().cloned();
        let (process, warnings) = made.unwrap_or_default();
        let has_inits = self.spec.init_containers.as_ref();
        let waits_for_inits =
            role == Role::Main && has_inits.is_some_and(|inits| !inits.is_empty());
        let state = ContainerState {
            name: container.name.clone(),
            image: container.image.clone().unwrap_or_default(),
            role,
            condition: Condition::Waiting {
                reason: match (&failed, waits_for_inits) {
                    (Some(_), _) => "CreateContainerConfigError",
                    (None, true) => "PodInitializing",
                    (None, false) => "ContainerCreating",
                },
                message: failed.clone().unwrap_or_default(),
            },
            // One that cannot be made is never started.
            process_id: if failed.is_some() { u64::MAX } else { 0 },
            process,
            restarts: 0,
            started: None,
            finished: None,
            last: None,
            stand_in: false,
            up: false,
            ready: false,
            due: Instant::now(),
        };
        self.declared.push(container);
        self.unserved.push(None);
        self.probes.push(Probing::default());
        self.ending.push(None);
        let mut shared = lock(&self.pod.state);
        shared.containers.push(state);
        shared.warnings.extend(warnings);
        failed.map_or(Ok(()), Err)
    }

    /// Starts the containers that were added to the pod while it runs.
    pub(super) fn take_changes(&mut self, object: &Value) {
        for container in added_containers(object) {
            let name = container.name.clone();
            if self.declared.iter().any(|known| known.name == name) {
                continue;
            }
            if let Err(why) = self.add_container(container, Role::Ephemeral) {
                self.note(
                    None,
                    Tone::Warning,
                    "Failed",
                    format!("container {name}: {why}"),
                );
            }
        }
    }

    /// Puts what ConfigMaps and Secrets have now into the volumes that are made of them.
    pub(super) fn take_files(&mut self) {
        // One that is gone leaves the files as they were, as with a kubelet.
        let Ok((volumes, _)) = self.volumes() else {
            return;
        };
        for (name, volume) in &volumes {
            let known = self.mounted.get(name);
            if let Volume::Files(files) = volume
                && known.is_some_and(|known| known != volume)
            {
                let (volume, files) = (name.clone(), files.clone());
                self.tell(&ToInit::Files { volume, files }, None);
            }
        }
        self.mounted = volumes;
    }

    fn volumes(&self) -> Result<(BTreeMap<String, Volume>, Vec<String>), String> {
        let (identity, log) = (self.identity(), self.agent.lab.log());
        let sources = Sources {
            identity: &identity,
            mirror: &self.agent.mirror,
            log: &log.display().to_string(),
        };
        volumes::volumes(&self.spec, &sources)
    }

    fn start_sandbox(&mut self) -> Result<(), String> {
        let identity = self.identity();
        let (volumes, warnings) = self.volumes()?;
        lock(&self.pod.state).warnings.extend(warnings);
        self.mounted = volumes.clone();
        let network = match &self.network {
            Some(network) => &network.namespace,
            None => &self.agent.topology.node,
        };
        let hostname = self.hostname();
        let folder = self.agent.lab.folder();
        let text = |error: std::io::Error| error.to_string();
        let root = RootSpec {
            hosts: spec::hosts(&self.spec, &identity, &hostname),
            resolv_conf: spec::resolv_conf(&self.spec, &self.pod.namespace),
            hostname,
            scratch: scratch(&folder).map_err(text)?,
            writable_bytes: WRITABLE_BYTES,
            volumes,
            applets: crate::lab::applets_program()
                .map(|path| path.display().to_string())
                .unwrap_or_default(),
        };
        let logs = log_folder(self.agent, &self.pod.uid);
        fs::create_dir_all(&logs).map_err(text)?;
        let stderr = File::create(logs.join("init")).map_err(text)?;
        let sandbox = Sandbox::start(&self.agent.program, network, root, stderr);
        let sandbox = Arc::new(sandbox.map_err(text)?);
        let (pod, ear) = (self.pod.clone(), sandbox.clone());
        std::thread::spawn(move || {
            let mut buffer = Vec::new();
            while let Some(heard) = ear.listen(&mut buffer) {
                pod.order(Order::Heard(heard));
            }
            pod.order(Order::InitEnded);
        });
        let _only_once = self.pod.sandbox.set(sandbox);
        Ok(())
    }
}

/// Queues of the pod's interface each way: what its annotation `weir.dev/queues` asks for, else one.
fn wanted_queues(object: &Value) -> Result<u32, String> {
    let annotations = object.pointer("/metadata/annotations");
    let Some(text) = annotations.and_then(|all| all["weir.dev/queues"].as_str()) else {
        return Ok(1);
    };
    let queues = text.parse().ok().filter(|count| QUEUES.contains(count));
    queues.ok_or_else(|| {
        let (first, last) = QUEUES.into_inner();
        format!("annotation weir.dev/queues is {text:?}: a pod has {first} to {last} queues")
    })
}

/// The containers that were added to a pod. What only such a container has is left out.
fn added_containers(object: &Value) -> Vec<Container> {
    let listed = object.pointer("/spec/ephemeralContainers");
    let listed = listed.and_then(Value::as_array).into_iter().flatten();
    listed
        .filter_map(|container| serde_json::from_value(container.clone()).ok())
        .collect()
}

/// Addresses that the pod's manifest gives, in its status.
fn given_addresses(object: &Value) -> Vec<IpAddr> {
    let listed = object.pointer("/status/podIPs").and_then(Value::as_array);
    let many = listed
        .into_iter()
        .flatten()
        .filter_map(|entry| entry["ip"].as_str());
    let mut found: Vec<IpAddr> = many.filter_map(|text| text.parse().ok()).collect();
    let one = object.pointer("/status/podIP").and_then(Value::as_str);
    if found.is_empty() {
        found.extend(one.and_then(|text| text.parse::<IpAddr>().ok()));
    }
    // One per family.
    let mut families = Vec::new();
    found.retain(|address| {
        let new = !families.contains(&address.is_ipv4());
        families.push(address.is_ipv4());
        new
    });
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_has_one_queue_unless_it_asks_for_more() {
        let pod = |queues: &str| json!({"metadata": {"annotations": {"weir.dev/queues": queues}}});
        assert_eq!(wanted_queues(&json!({"metadata": {}})), Ok(1));
        assert_eq!(wanted_queues(&pod("4")), Ok(4));
        for wrong in ["0", "17", "many", ""] {
            assert!(wanted_queues(&pod(wrong)).is_err(), "{wrong}");
        }
    }
}
