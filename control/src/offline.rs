//! Objects from files judged without a daemon: `weir matrix -f`, `weir trace -f`.
//!
//! Namespaces that nobody declares are made with their name label. Workloads stand for the pods
//! that they would make (`NAME-0`, `NAME-1`, …). A pod without a status counts as running and gets
//! the next address of 10.0.0.0/8. A Service without EndpointSlices has those that Kubernetes would
//! make of the pods.

use std::collections::{BTreeMap, HashSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use dataplane::policy::{EndpointSlot, PolicyTable};
use ipnet::{IpNet, Ipv6Net};
use k8s_openapi::api::core::v1::{Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use serde_json::{Value, json};

use crate::cluster::{Cluster, Commit, DeleteOptions, Refusal, Seeded, Transaction};
use crate::lower::{self, Change, LocalEndpoint, OutOfSlots, Policies, PolicyIds, Settings};
use crate::objects::{Key, Object, kinds};
use crate::protocol::Reason;
use crate::service::{MANAGED_BY, Pools, SERVICE_NAME, Services, derive};
use crate::trace::View;

/// The most pods that one workload stands for.
const MAX_REPLICAS: u64 = 1000;

/// Objects from files, compiled.
#[derive(Debug)]
pub struct Offline {
    cluster: Cluster,
    source: Seeded,
    policies: Policies,
    services: Services,
    /// Every pod that can be a subject, by UID, with its place in the table.
    locals: Vec<LocalEndpoint>,
    slots: Vec<EndpointSlot>,
    table: PolicyTable,
    /// For stderr, behind `Warning: `.
    pub warnings: Vec<String>,
}

impl Offline {
    /// Takes objects as `kubectl apply` would, one after another; a later one of the same name
    /// takes the earlier one's place.
    pub fn new(objects: Vec<Object>) -> Result<Offline, Refusal> {
        let mut source = Seeded::new(0);
        // Both families, and whatever addresses the files say: they may come from any cluster.
        let second = IpNet::V6(Ipv6Net::new_assert(
            Ipv6Addr::new(0xfd00, 0x10, 0x96, 0, 0, 0, 0, 0),
            112,
        ));
        let mut pools = Pools {
            foreign: true,
            ..Pools::default()
        };
        pools.services.ranges.push(second);
        let empty = Cluster::empty().with_pools(pools);
        let system = empty.with_system_namespaces(&mut source);
        let mut offline = Offline {
            cluster: Cluster::empty(),
            source,
            policies: Policies::new(PolicyIds::new(), Settings::default()),
            services: Services::default(),
            locals: Vec::new(),
            slots: Vec::new(),
            table: PolicyTable::default(),
            warnings: Vec::new(),
        };
        offline.take(system)?;
        offline.change(|transaction| put_all(transaction, objects))?;
        Ok(offline)
    }

    /// Changes what is there, in one transaction. Refused, nothing has changed.
    pub fn change(
        &mut self,
        work: impl FnOnce(&mut Transaction<'_>) -> Result<(), Refusal>,
    ) -> Result<(), Refusal> {
        let mut transaction = self.cluster.begin(&mut self.source);
        work(&mut transaction)?;
        assign_addresses(&mut transaction)?;
        derive_slices(&mut transaction)?;
        let commit = transaction.commit();
        self.take(commit)
    }

    fn take(&mut self, commit: Commit) -> Result<(), Refusal> {
        let too_large = |message| Refusal::new(Reason::RequestEntityTooLarge, message);
        let pods = commit.cluster.list_of::<Pod>().filter_map(endpoint);
        let wanted: BTreeMap<String, LocalEndpoint> =
            pods.map(|local| (local.uid.clone(), local)).collect();
        if wanted.len() > usize::from(u16::MAX) {
            let message = format!("{} pods: at most {} fit", wanted.len(), u16::MAX);
            return Err(too_large(message));
        }
        let changes: Vec<Change> = commit.events.iter().map(Change::from).collect();
        // Whatever the number of changes is, they are few numbers: a policy has one as long as it is
        // called so.
        let services = self.services.with(&commit.cluster, &changes);
        let services = services.map_err(|error| too_large(error.to_string()))?;
        let updated = self.policies.update(&changes);
        updated.map_err(|error| too_large(error.to_string()))?;
        self.attach(&wanted)
            .map_err(|error| too_large(error.to_string()))?;
        self.cluster = commit.cluster;
        self.services = services;
        for warning in commit.warnings {
            if !self.warnings.contains(&warning) {
                self.warnings.push(warning);
            }
        }
        Ok(())
    }

    /// Makes every pod a subject.
    fn attach(&mut self, wanted: &BTreeMap<String, LocalEndpoint>) -> Result<(), OutOfSlots> {
        let there = self.policies.endpoints();
        let gone = there.filter(|(local, _)| wanted.get(&local.uid) != Some(local));
        let gone: Vec<String> = gone.map(|(local, _)| local.uid.clone()).collect();
        gone.iter().for_each(|uid| self.policies.detach(uid));
        for (uid, local) in wanted {
            if self.policies.slot(uid).is_none() {
                self.policies.attach(local.clone())?;
            }
        }
        self.policies.compile_endpoints();
        self.policies.keep();
        let placed = self.policies.endpoints();
        (self.locals, self.slots) = placed.map(|(local, slot)| (local.clone(), slot)).unzip();
        self.table = self.policies.table();
        Ok(())
    }

    /// For questions.
    pub fn view(&self) -> View<'_> {
        View {
            cluster: &self.cluster,
            locals: &self.locals,
            slots: &self.slots,
            table: &self.table,
            ids: self.policies.ids(),
            services: &self.services,
            generation: 0,
        }
    }
}

/// A pod as an endpoint, unless it is on the host network or has ended.
fn endpoint(object: &Arc<Object>) -> Option<LocalEndpoint> {
    let pod = object.as_pod()?;
    let spec = pod.spec.as_ref();
    let on_host = spec.and_then(|spec| spec.host_network).unwrap_or_default();
    if on_host || lower::has_ended(pod) {
        return None;
    }
    Some(LocalEndpoint {
        namespace: object.namespace().to_owned(),
        name: object.name().to_owned(),
        uid: object.uid().to_owned(),
        addresses: lower::pod_addresses(pod),
    })
}

/// Stores objects, each in place of one of the same name; namespaces that nobody declares are made,
/// workloads stand for their pods.
pub fn put_all(transaction: &mut Transaction<'_>, objects: Vec<Object>) -> Result<(), Refusal> {
    // Namespaces first, whatever the files' order.
    let (namespaces, rest): (Vec<_>, Vec<_>) = objects
        .into_iter()
        .partition(|object| object.kind().kind == "Namespace");
    for object in namespaces {
        put(transaction, object)?;
    }
    let mut workloads = Vec::new();
    for object in rest {
        declare_namespace(transaction, object.namespace())?;
        let before = transaction.get(object.key()).cloned();
        let status = object.value()["status"].clone();
        let stored = put(transaction, object)?;
        // What stood there before keeps its status otherwise.
        if status.is_object() && stored.value()["status"] != status {
            transaction.update_status(stored.key(), None, status)?;
        }
        workloads.push((stored, before));
    }
    // Behind all else: the pods may stand among the objects.
    for (workload, before) in workloads {
        expand(transaction, &workload, before.as_deref())?;
    }
    Ok(())
}

/// Stores an object, in place of one of the same name. Not by `apply`, whose annotation bounds the
/// size of what it can take.
fn put(transaction: &mut Transaction<'_>, object: Object) -> Result<Arc<Object>, Refusal> {
    let there = transaction.cluster().get(object.key()).is_some();
    let outcome = if there {
        transaction.replace(object)?
    } else {
        transaction.create(object)?
    };
    Ok(outcome.object)
}

fn declare_namespace(transaction: &mut Transaction<'_>, name: &str) -> Result<(), Refusal> {
    if name.is_empty() || transaction.cluster().has_namespace(name) {
        return Ok(());
    }
    let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    transaction.create(Object::new(value)?).map(drop)
}

/// The pods that a workload would make, in place of those that it made `before` it was changed. A
/// ReplicaSet or Job that something else owns is left to its owner.
fn expand(
    transaction: &mut Transaction<'_>,
    workload: &Object,
    before: Option<&Object>,
) -> Result<(), Refusal> {
    let spec = making_spec(workload);
    let replicas = match workload.kind().kind {
        "Deployment" | "ReplicaSet" | "StatefulSet" | "ReplicationController" => {
            spec["replicas"].as_u64().unwrap_or(1)
        }
        "Job" | "CronJob" => spec["parallelism"].as_u64().unwrap_or(1),
        "DaemonSet" => 1,
        _ => return Ok(()),
    };
    let Some(kind) = kinds::find("v1", "Pod") else {
        return Ok(());
    };
    if workload.owners().next().is_some() || has_pods(transaction.cluster(), workload) {
        return Ok(());
    }
    if replicas > MAX_REPLICAS {
        transaction.warn(format!(
            "{}: only {MAX_REPLICAS} of {replicas} pods are looked at",
            workload.key().display()
        ));
    }
    let replicas = replicas.min(MAX_REPLICAS);
    let template = &spec["template"];
    let is_same = before.is_some_and(|before| making_spec(before)["template"] == *template);
    for index in 0..MAX_REPLICAS {
        let name = format!("{}-{index}", workload.name());
        let key = Key::new(kind, workload.namespace(), &name);
        if let Some(pod) = transaction.get(&key) {
            let own = pod.owners().any(|uid| uid == workload.uid());
            if !own || (index < replicas && is_same) {
                continue;
            }
            let at_once = DeleteOptions {
                grace_period_s: Some(0),
                ..DeleteOptions::default()
            };
            transaction.delete(&key, &at_once)?;
        } else if index >= replicas {
            break;
        }
        if index < replicas {
            transaction.create(Object::new(json!({
                "apiVersion": "v1",
                "kind": "Pod",
                "metadata": {
                    "name": name,
                    "namespace": workload.namespace(),
                    "labels": template["metadata"]["labels"],
                    "ownerReferences": [{
                        "apiVersion": workload.kind().api_version,
                        "kind": workload.kind().kind,
                        "name": workload.name(),
                        "uid": workload.uid(),
                        "controller": true,
                    }],
                },
                "spec": template["spec"],
            }))?)?;
        }
    }
    Ok(())
}

/// The part of a workload that says which pods it makes: of a CronJob that of its Jobs.
fn making_spec(workload: &Object) -> &Value {
    let spec = &workload.value()["spec"];
    match workload.kind().kind {
        "CronJob" => &spec["jobTemplate"]["spec"],
        _ => spec,
    }
}

/// Whether the workload's pods stand among the objects themselves, as in what a cluster prints.
fn has_pods(cluster: &Cluster, workload: &Object) -> bool {
    let own = |reference: &Value| {
        let [kind, name] = ["kind", "name"].map(|field| reference[field].as_str().unwrap_or(""));
        let of_it = match workload.kind().kind {
            // Behind the Deployment's name stands a hash.
            "Deployment" if kind == "ReplicaSet" => name
                .strip_prefix(workload.name())
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|hash| !hash.contains('-')),
            // Behind the CronJob's stand the minutes since 1970.
            "CronJob" if kind == "Job" => name
                .strip_prefix(workload.name())
                .and_then(|rest| rest.strip_prefix('-'))
                .is_some_and(|time| time.parse::<u64>().is_ok()),
            own => own == kind && workload.name() == name,
        };
        of_it && reference["uid"] != workload.uid()
    };
    let mut pods = cluster.list_of::<Pod>();
    pods.any(|pod| {
        let references = pod.value()["metadata"]["ownerReferences"].as_array();
        pod.namespace() == workload.namespace() && references.into_iter().flatten().any(own)
    })
}

/// The EndpointSlices of Services that have none among the objects, from the pods.
fn derive_slices(transaction: &mut Transaction<'_>) -> Result<(), Refusal> {
    const KEEPER: &str = "weir";
    let cluster = transaction.cluster();
    let slices: Vec<Arc<Object>> = cluster.list_of::<EndpointSlice>().cloned().collect();
    let services: Vec<Arc<Object>> = cluster.list_of::<Service>().cloned().collect();
    let pods: Vec<Arc<Object>> = cluster.list_of::<Pod>().cloned().collect();
    let is_derived = |slice: &Object| slice.label(MANAGED_BY) == Some(KEEPER);
    let stated: HashSet<(&str, &str)> = slices
        .iter()
        .filter(|slice| !is_derived(slice))
        .filter_map(|slice| Some((slice.namespace(), slice.label(SERVICE_NAME)?)))
        .collect();
    let mut wanted: HashSet<Key> = HashSet::new();
    for service in &services {
        if stated.contains(&(service.namespace(), service.name())) {
            continue;
        }
        let pods = pods.iter().map(|pod| pod.value());
        for slice in derive(service.value(), pods, KEEPER) {
            let slice = Object::new(slice)?;
            wanted.insert(slice.key().clone());
            put(transaction, slice)?;
        }
    }
    let at_once = DeleteOptions::default();
    for slice in slices.iter().filter(|slice| is_derived(slice)) {
        if !wanted.contains(slice.key()) && transaction.get(slice.key()).is_some() {
            transaction.delete(slice.key(), &at_once)?;
        }
    }
    Ok(())
}

/// Running, and the next free address, for every pod that has none.
fn assign_addresses(transaction: &mut Transaction<'_>) -> Result<(), Refusal> {
    let pods: Vec<Arc<Object>> = transaction.cluster().list_of::<Pod>().cloned().collect();
    let of = |object: &Arc<Object>| object.as_pod().map(lower::pod_addresses);
    let taken: HashSet<IpAddr> = pods.iter().filter_map(of).flatten().collect();
    let mut free = (1..1u32 << 24)
        .map(|host| IpAddr::from(Ipv4Addr::from(10 << 24 | host)))
        .filter(|address| !taken.contains(address));
    let Some(kind) = kinds::find("v1", "Pod") else {
        return Ok(());
    };
    for object in &pods {
        let Some(pod) = object.as_pod() else { continue };
        if lower::has_ended(pod) || !lower::pod_addresses(pod).is_empty() {
            continue;
        }
        let Some(address) = free.next() else { break };
        let mut status = object.value()["status"].clone();
        if status.is_null() || status["phase"] == "Pending" {
            status["phase"] = Value::from("Running");
        }
        status["podIP"] = Value::from(address.to_string());
        status["podIPs"] = json!([{"ip": address.to_string()}]);
        let key = Key::new(kind, object.namespace(), object.name());
        transaction.update_status(&key, None, status)?;
    }
    Ok(())
}
