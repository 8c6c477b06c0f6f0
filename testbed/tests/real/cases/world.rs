//! A lab that is led from case to case: what a case has in common with the one before stays, above
//! all its pods.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use control::client::{Client, ClientError};
use control::lab_protocol::{self, AgentStatus};
use control::netlink::Namespace;
use control::objects::{Key, Object};
use control::policy_test::model::{PolicyTest, Step, Transport};
use control::policy_test::{Flow, Flows};
use control::protocol::{
    ApplyParams, DeleteParams, Explained, Mutation, PatchParams, PatchType, Target, TraceParams,
    UpdateStatusParams,
};
use serde_json::{Map, Value, json};

use super::prober::{Probe, Prober, Seen};
use crate::lab::Lab;

/// How long pods may take to come or go.
const PODS: Duration = Duration::from_secs(60);
/// Namespace of the lab's own pods.
const SYSTEM: &str = "kube-system";

/// A lab and what is in it.
pub struct World {
    lab: Lab,
    client: Client,
    /// By key, as they were last written.
    there: BTreeMap<Key, Value>,
    prober: Prober,
    /// Namespaces of the pods that run, by address.
    places: HashMap<IpAddr, String>,
    external: String,
    /// What has been seen to connect without policy, as long as its pods live.
    proven: HashSet<Proof>,
}

/// A connection, and the Service's address that it is to.
type Proof = (
    IpAddr,
    IpAddr,
    Transport,
    Option<u16>,
    Option<(IpAddr, u16)>,
);

fn target(key: &Key) -> Target {
    let (kind, group) = (key.kind, key.kind.group());
    let resource = match group {
        "" => kind.plural.to_owned(),
        group => format!("{}.{group}", kind.plural),
    };
    Target {
        resource,
        namespace: Some(key.namespace.to_string()).filter(|n| !n.is_empty()),
        name: key.name.to_string(),
    }
}

fn is_policy(key: &Key) -> bool {
    !["Namespace", "Pod", "Service", "ServiceAccount", "Node"].contains(&key.kind.kind)
}

fn is_pod(key: &Key) -> bool {
    key.kind.kind == "Pod"
}

fn words(error: ClientError) -> String {
    error.to_string()
}

fn objects(values: &[Value]) -> Result<BTreeMap<Key, Value>, String> {
    let mut all = BTreeMap::new();
    for value in values {
        let object = Object::new(value.clone()).map_err(|error| error.to_string())?;
        all.insert(object.key().clone(), value.clone());
    }
    Ok(all)
}

/// With every namespace that they are in.
fn with_namespaces(mut all: BTreeMap<Key, Value>) -> BTreeMap<Key, Value> {
    let named: Vec<String> = all.keys().map(|key| key.namespace.to_string()).collect();
    for name in named.into_iter().filter(|name| !name.is_empty()) {
        let value = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
        let Ok(object) = Object::new(value.clone()) else {
            continue;
        };
        all.entry(object.key().clone()).or_insert(value);
    }
    all
}

fn addresses(pod: &Value) -> Vec<IpAddr> {
    let listed = pod["status"]["podIPs"].as_array().into_iter().flatten();
    let texts = listed.filter_map(|one| one["ip"].as_str());
    texts.filter_map(|text| text.parse().ok()).collect()
}

impl World {
    /// Brings up a lab without pods of its own.
    pub fn up() -> World {
        let lab = Lab::up("{apiVersion: v1, kind: Namespace, metadata: {name: cases}}");
        let client = Client::connect(lab.folder().join("weir.sock"));
        let status = status(&lab).unwrap();
        // Whoever answers out there does so under whatever address it was called by.
        let external = Namespace::open(&status.external_namespace).unwrap();
        external
            .run(|| std::fs::write("/proc/sys/net/ipv6/ip_nonlocal_bind", "1"))
            .unwrap()
            .unwrap();
        World {
            client: client.unwrap(),
            lab,
            there: BTreeMap::new(),
            prober: Prober::default(),
            places: HashMap::new(),
            external: status.external_namespace,
            proven: HashSet::new(),
        }
    }

    /// Namespaces and pods of a case, and nothing of the case before.
    pub fn settle(&mut self, test: &PolicyTest) -> Result<(), String> {
        let wanted = with_namespaces(self.first_objects(test)?);
        let there = std::mem::take(&mut self.there);
        let is_namespace = |key: &Key| key.kind.kind == "Namespace";
        let (mut stays, mut goes) = (BTreeMap::new(), Vec::new());
        for (key, value) in there {
            let same = wanted.get(&key).is_some_and(|next| same_pod(&value, next));
            match is_namespace(&key) || (!is_policy(&key) && same) {
                true => drop(stays.insert(key, value)),
                false => goes.push(key),
            }
        }
        self.there = stays;
        self.remove(&goes)?;
        let mut new = Vec::new();
        for (key, value) in wanted.iter().filter(|(key, _)| !is_policy(key)) {
            match self.there.get(key) {
                Some(old) if labels(old) != labels(value) => self.relabel(key, value)?,
                Some(_) => {}
                None => new.push((key.clone(), value.clone())),
            }
        }
        self.create(new)?;
        self.wait()
    }

    /// The policies of a case.
    pub fn enforce(&mut self, test: &PolicyTest) -> Result<(), String> {
        let policies = self.first_objects(test)?.into_iter();
        let policies: Vec<(Key, Value)> = policies.filter(|(key, _)| is_policy(key)).collect();
        self.create(policies)
    }

    fn first_objects(&self, test: &PolicyTest) -> Result<BTreeMap<Key, Value>, String> {
        let files = test.files.iter().map(Object::to_value);
        let values: Vec<Value> = files.chain(test.objects.values.clone()).collect();
        objects(&values)
    }

    /// A step: deletions, then what is applied, then labels.
    pub fn change(&mut self, step: &Step) -> Result<(), String> {
        if let Some(wanted) = &step.refused {
            return self.refuse(&step.apply.values, wanted);
        }
        let mut gone = Vec::new();
        for reference in &step.delete {
            let kind = control::objects::kinds::find_resource(&reference.kind);
            let kind = kind.ok_or_else(|| format!("there is no kind {}", reference.kind))?;
            let namespace = reference.namespace.as_deref().unwrap_or("default");
            gone.push(Key::new(kind, namespace, &reference.name));
        }
        let applied = objects(&step.apply.values)?;
        // A pod goes before its successor comes; policies go and come in one breath.
        self.remove(&gone)?;
        let (old, new): (Vec<_>, Vec<_>) = with_namespaces(applied)
            .into_iter()
            .filter(|(key, _)| key.kind.kind != "Namespace" || !self.there.contains_key(key))
            .partition(|(key, _)| self.there.contains_key(key));
        self.create(new)?;
        self.replace(old)?;
        for relabel in &step.label {
            let kind = control::objects::kinds::find_resource(&relabel.object.kind);
            let kind = kind.ok_or_else(|| format!("there is no kind {}", relabel.object.kind))?;
            let namespace = relabel.object.namespace.as_deref().unwrap_or("default");
            let key = Key::new(kind, namespace, &relabel.object.name);
            let mut value = self.there.get(&key).cloned().unwrap_or_default();
            for (name, text) in &relabel.labels {
                value["metadata"]["labels"][name] = text.clone().map_or(Value::Null, Value::from);
            }
            self.relabel(&key, &value)?;
        }
        self.wait()
    }

    /// Sends what must be refused.
    fn refuse(&mut self, values: &[Value], wanted: &str) -> Result<(), String> {
        let keys: Vec<Value> = with_namespaces(objects(values).unwrap_or_default())
            .into_iter()
            .filter(|(key, _)| key.kind.kind == "Namespace" && !self.there.contains_key(key))
            .map(|(_, value)| value)
            .collect();
        if !keys.is_empty() {
            self.create(objects(&keys)?.into_iter().collect())?;
        }
        let params = ApplyParams {
            objects: values.to_vec(),
            ..ApplyParams::default()
        };
        match self.client.call::<Mutation>("apply", params) {
            Err(ClientError::Refused(error)) if error.message.contains(wanted) => Ok(()),
            Err(error) => Err(format!("refused, but: {error}")),
            Ok(_) => Err("accepted".into()),
        }
    }

    fn create(&mut self, objects: Vec<(Key, Value)>) -> Result<(), String> {
        self.write("create", objects)
    }

    fn replace(&mut self, objects: Vec<(Key, Value)>) -> Result<(), String> {
        self.write("replace", objects)
    }

    /// Namespaces first: the others live in them.
    fn write(&mut self, how: &str, objects: Vec<(Key, Value)>) -> Result<(), String> {
        let (first, rest): (Vec<_>, Vec<_>) = objects
            .into_iter()
            .partition(|(key, _)| key.kind.kind == "Namespace");
        let objects: Vec<(Key, Value)> = first.into_iter().chain(rest).collect();
        if objects.is_empty() {
            return Ok(());
        }
        for (key, value) in &objects {
            let known = ["default", SYSTEM].contains(&&*key.name);
            if how == "create" && key.kind.kind == "Namespace" && known {
                // It is there from the beginning.
                self.there.insert(key.clone(), json!({"metadata": {}}));
                self.relabel(key, value)?;
            }
        }
        let sent = objects
            .iter()
            .filter(|(key, _)| !self.there.contains_key(key) || how != "create");
        let params = ApplyParams {
            objects: sent.map(|(_, value)| value.clone()).collect(),
            ..ApplyParams::default()
        };
        if !params.objects.is_empty() {
            self.client.call::<Mutation>(how, params).map_err(words)?;
        }
        // What is created brings its status along; what is replaced keeps the one it has.
        for (key, value) in objects.iter().filter(|(key, _)| key.kind.kind == "Node") {
            let params = UpdateStatusParams {
                target: target(key),
                uid: None,
                status: value["status"].clone(),
            };
            let updated = self.client.call::<Mutation>("updateStatus", params);
            updated.map_err(words)?;
        }
        self.there.extend(objects);
        Ok(())
    }

    fn remove(&mut self, keys: &[Key]) -> Result<(), String> {
        if keys.is_empty() {
            return Ok(());
        }
        for key in keys.iter().filter(|key| is_pod(key)) {
            self.forget(key);
        }
        let params = DeleteParams {
            targets: keys.iter().map(target).collect(),
            ignore_not_found: true,
            grace_period: Some(0),
            ..DeleteParams::default()
        };
        self.client
            .call::<Mutation>("delete", params)
            .map_err(words)?;
        for key in keys {
            self.there.remove(key);
        }
        match keys.iter().any(is_pod) {
            true => self.wait(),
            false => Ok(()),
        }
    }

    /// Leaves a pod's addresses to whoever gets them next.
    fn forget(&mut self, key: &Key) {
        let Some(pod) = self.there.get(key) else {
            return;
        };
        for address in addresses(pod) {
            self.prober.forget(address);
            self.places.remove(&address);
            self.proven
                .retain(|(from, to, ..)| *from != address && *to != address);
        }
    }

    fn relabel(&mut self, key: &Key, wanted: &Value) -> Result<(), String> {
        let old = self.there.get(key).map(labels).unwrap_or_default();
        let new = labels(wanted);
        let gone = old.keys().filter(|name| !new.contains_key(*name));
        let mut patch: Map<String, Value> = gone.map(|name| (name.clone(), Value::Null)).collect();
        patch.extend(new.clone());
        let params = PatchParams {
            target: target(key),
            patch_type: PatchType::Merge,
            patch: json!({"metadata": {"labels": patch}}),
            dry_run: false,
            field_validation: Default::default(),
        };
        self.client
            .call::<Mutation>("patch", params)
            .map_err(words)?;
        if let Some(value) = self.there.get_mut(key) {
            value["metadata"]["labels"] = Value::Object(new);
        }
        Ok(())
    }

    /// Waits until exactly the pods that are wanted run.
    fn wait(&mut self) -> Result<(), String> {
        let wanted: HashMap<(&str, &str), &Value> = self
            .there
            .iter()
            .filter(|(key, _)| is_pod(key))
            .map(|(key, value)| ((&*key.namespace, &*key.name), value))
            .collect();
        let begin = Instant::now();
        loop {
            let status = status(&self.lab)?;
            let known = |namespace: &str, name: &str| wanted.contains_key(&(namespace, name));
            let (ours, others): (Vec<_>, Vec<_>) = status
                .pods
                .iter()
                .partition(|pod| known(&pod.namespace, &pod.name));
            let strangers = others.iter().filter(|pod| pod.namespace != SYSTEM).count();
            if ours.len() == wanted.len() && strangers == 0 && ours.iter().all(|pod| pod.ready) {
                self.places.clear();
                for pod in ours {
                    let value = wanted[&(pod.namespace.as_str(), pod.name.as_str())];
                    for address in addresses(value) {
                        self.places.insert(address, pod.network_namespace.clone());
                    }
                }
                return Ok(());
            }
            if begin.elapsed() > PODS {
                let states: Vec<String> =
                    status.pods.iter().map(|pod| format!("{pod:?}")).collect();
                return Err(format!("pods do not settle: {}", states.join("; ")));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// How many new flows the daemon's self-check has decided otherwise, in what or by whom.
    pub fn mismatches(&mut self) -> Result<u64, String> {
        let told = self
            .client
            .call::<Value>("metrics", json!({}))
            .map_err(words)?;
        let text = told["text"].as_str().unwrap_or_default();
        let of = |name: &str| {
            let value = text
                .lines()
                .find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
            value.ok_or_else(|| format!("there is no metric {name}"))
        };
        let verdicts: u64 = of("weir_policy_mismatch_total ")?;
        Ok(verdicts + of("weir_policy_reason_mismatch_total ")?)
    }

    fn probe_of(&self, flow: &Flow, allow: bool) -> Result<Probe, String> {
        let place = |address: IpAddr| {
            let outside = || self.external.clone();
            self.places.get(&address).cloned().unwrap_or_else(outside)
        };
        let (from, to) = (place(flow.source), place(flow.destination));
        if from == to && flow.source != flow.destination && flow.unserved.is_none() {
            return Err(format!(
                "{} and {} are both outside",
                flow.source, flow.destination
            ));
        }
        Ok(Probe {
            from,
            to,
            source: flow.source,
            destination: flow.destination,
            transport: flow.transport,
            port: flow.port.unwrap_or_default(),
            service: flow
                .service
                .map(|(address, port)| SocketAddr::new(address, port)),
            nobody: flow.unserved.is_some(),
            allow,
        })
    }

    /// What the daemon's `trace` says of a connection to a Service, once the daemon knows the same
    /// backends as the case does: slices follow the pods.
    pub fn trace(&mut self, flows: &Flows, flow: &Flow) -> Result<Value, String> {
        let Some((service, port)) = flow.service else {
            return Err("this is no connection to a Service's address".into());
        };
        let same = |other: &&Flow| {
            let by = (other.from, other.source, other.transport, other.service);
            by == (flow.from, flow.source, flow.transport, flow.service)
        };
        let others = flows.flows.iter().filter(same);
        let served = others.filter(|other| other.unserved.is_none());
        let mut wanted: Vec<&str> = served.map(|f| &*flows.ends.get(f.to).name).collect();
        wanted.sort_unstable();
        wanted.dedup();
        let from = flows.ends.get(flow.from);
        let params = TraceParams {
            from: match from.local {
                Some(_) => format!("pod/{}", from.name),
                None => flow.source.to_string(),
            },
            to: service.to_string(),
            port: Some(port.to_string()),
            protocol: Some(flow.transport.name().to_owned()),
            namespace: None,
        };
        let begin = Instant::now();
        loop {
            let told = self.client.call::<Explained>("trace", &params);
            let told = told.map_err(words)?.json;
            let backends = told["backends"].as_array().into_iter().flatten();
            let mut there: Vec<&str> = backends.filter_map(|b| b["to"].as_str()).collect();
            there.sort_unstable();
            there.dedup();
            if there == wanted {
                return Ok(told);
            }
            if begin.elapsed() > PODS {
                return Err(format!("{service} leads to {there:?}, not to {wanted:?}"));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Tries connections; what became of each.
    pub fn probe(&mut self, flows: &[(Flow, bool)]) -> Result<Vec<Seen>, String> {
        let probes = flows
            .iter()
            .map(|(flow, allow)| self.probe_of(flow, *allow));
        let probes = probes.collect::<Result<Vec<_>, _>>()?;
        self.prober
            .probe(&probes)
            .map_err(|error| error.to_string())
    }

    /// Tries those connections that were not seen to connect yet.
    pub fn probe_without_policy(&mut self, flows: &[Flow]) -> Result<Vec<(Flow, Seen)>, String> {
        let key = |flow: &Flow| {
            let by = flow.service;
            (flow.source, flow.destination, flow.transport, flow.port, by)
        };
        let mut new: Vec<(Flow, bool)> = Vec::new();
        let mut asked = HashSet::new();
        for flow in flows {
            if !self.proven.contains(&key(flow)) && asked.insert(key(flow)) {
                new.push((*flow, true));
            }
        }
        if new.is_empty() {
            return Ok(Vec::new());
        }
        let seen = self.probe(&new)?;
        let seen: Vec<(Flow, Seen)> = new.into_iter().map(|(flow, _)| flow).zip(seen).collect();
        let connected = seen.iter().filter(|(_, seen)| *seen == Seen::Connected);
        self.proven.extend(connected.map(|(flow, _)| key(flow)));
        Ok(seen)
    }
}

fn labels(value: &Value) -> Map<String, Value> {
    let labels = value["metadata"]["labels"].as_object().cloned();
    let labels = labels.unwrap_or_default().into_iter();
    labels.filter(|(_, value)| !value.is_null()).collect()
}

/// Whether one is the other but for its labels, which can be changed while it runs.
fn same_pod(old: &Value, new: &Value) -> bool {
    old["spec"] == new["spec"] && old["status"] == new["status"]
}

fn status(lab: &Lab) -> Result<AgentStatus, String> {
    lab_protocol::status(&lab_protocol::lab_socket(&lab.name)).map_err(|error| error.to_string())
}
