//! Policy lowered change by change: it ends where lowering from scratch ends, and where the
//! specification is; what is not touched decides as before; what is taken back was never there.
//!
//! `WEIR_CASES` sets the number of sequences, `WEIR_SEED` picks others.

mod scale;
mod world;

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use control::cluster::Cluster;
use control::lower::{Change, LocalEndpoint, Policies, PolicyIds, Settings};
use control::objects::{Key, Object, kinds};
use control::specification::{self, Decision, Tier, Traffic, World};
use dataplane::policy::{self, EndpointSlot, PolicyTable};
use dataplane::{Address, CounterId, Direction, PolicyId, Protocol};
use proptest::prelude::*;
use proptest::test_runner::Config;
use serde_json::Value;
use world::Choices;

use crate::chance;

const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];
const TRAFFIC: [(Protocol, Option<u16>); 6] = [
    (Protocol::TCP, Some(80)),
    (Protocol::TCP, Some(8080)),
    (Protocol::TCP, Some(82)),
    (Protocol::UDP, Some(53)),
    (Protocol::SCTP, Some(80)),
    (Protocol::ICMP, None),
];

/// What is applied, and what was made of it.
struct Scene {
    cluster: Cluster,
    attached: Vec<LocalEndpoint>,
    policies: Policies,
    version: u64,
}

/// What an endpoint is told of one kind of traffic: enforced, and with the policies in audit mode.
type Answer = (Decision, Decision);

impl Scene {
    fn new() -> Scene {
        Scene {
            cluster: Cluster::empty(),
            attached: Vec::new(),
            policies: Policies::new(PolicyIds::new(), Settings::default()),
            version: 0,
        }
    }

    /// Applies a value (or deletes what is called so), and says what has changed.
    fn change(&mut self, value: Value, delete: bool) -> Change {
        let key = Object::new(value.clone()).unwrap().key().clone();
        let old = self.cluster.get(&key).cloned();
        self.version += 1;
        if delete {
            self.cluster.forget(&key, self.version);
        } else {
            self.cluster.restore(value).unwrap();
        }
        let new = self.cluster.get(&key).cloned();
        Change { old, new }
    }

    /// Attaches the pod of an object, or detaches it.
    fn toggle(&mut self, object: &Arc<Object>) {
        let known = self.attached.iter().position(|l| l.uid == object.uid());
        if let Some(at) = known {
            let gone = self.attached.remove(at);
            self.policies.detach(&gone.uid);
            return;
        }
        let local = world::endpoint(object);
        let taken = |address| self.attached.iter().any(|l| l.addresses.contains(address));
        if local.addresses.is_empty() || local.addresses.iter().any(taken) {
            return;
        }
        self.policies.attach(local.clone()).unwrap();
        self.attached.push(local);
    }

    fn peers(&self) -> Vec<IpAddr> {
        let outside = ["192.0.2.1", "10.0.0.77", "10.9.0.1", "fd00::77"];
        let mut peers: Vec<IpAddr> = outside.iter().map(|text| text.parse().unwrap()).collect();
        peers.extend((1..=world::PODS as u8).map(|host| IpAddr::from([10, 0, 0, host])));
        peers.push("fd00::1".parse().unwrap());
        peers
    }
}

fn decision(policies: &Policies, found: policy::Decision) -> Decision {
    let found = found.verdict;
    Decision {
        accept: found.accept,
        tier: match found.provenance.tier {
            dataplane::Tier::SecurityGroup => Tier::SecurityGroup,
            dataplane::Tier::Admin => Tier::Admin,
            dataplane::Tier::NetworkPolicy => Tier::NetworkPolicy,
            dataplane::Tier::Baseline => Tier::Baseline,
            dataplane::Tier::Default => Tier::Default,
        },
        policy: found.provenance.policy.and_then(|id| key(policies, id)),
        rule: found.provenance.rule.map(usize::from),
    }
}

fn key(policies: &Policies, id: PolicyId) -> Option<Key> {
    let name = policies.ids().name(id)?;
    let kind = kinds::KINDS.iter().find(|k| k.kind == name.kind).unwrap();
    Some(Key::new(kind, &name.namespace, &name.name))
}

/// All answers that an endpoint gets.
fn answers(
    policies: &Policies,
    table: &PolicyTable,
    slot: EndpointSlot,
    peers: &[IpAddr],
) -> Result<Vec<Answer>, TestCaseError> {
    let mut answers = Vec::new();
    for direction in DIRECTIONS {
        for &peer in peers {
            let known = table.peer(Address::from(peer));
            for (protocol, port) in TRAFFIC {
                let found = table.decide(slot, direction, &known, protocol, port);
                let audited = table.audit(slot, direction, &known, protocol, port);
                let explained = table.explain(slot, direction, Address::from(peer), protocol, port);
                check_counter(policies, direction, found, &explained)?;
                let audited = audited.unwrap_or(found);
                answers.push((decision(policies, found), decision(policies, audited)));
            }
        }
    }
    Ok(answers)
}

/// A counter is of the rules that had a part in the decision, and of no other: of what decides, of
/// the first rule of a security group that matches, of the Pass rules that do.
fn check_counter(
    policies: &Policies,
    direction: Direction,
    found: policy::Decision,
    explained: &policy::Explanation,
) -> Result<(), TestCaseError> {
    let by = found.verdict.provenance;
    let decider = by.policy.filter(|id| id.0 != PolicyId::MAX);
    let mut expected: BTreeSet<_> = decider
        .map(|policy| (policy, by.rule))
        .into_iter()
        .collect();
    let mut in_group = true;
    for consulted in &explained.consulted {
        for rule in consulted.rules.iter().filter(|rule| rule.matched()) {
            let passes = match consulted.tier {
                dataplane::Tier::SecurityGroup => std::mem::take(&mut in_group),
                dataplane::Tier::NetworkPolicy => false,
                _ => rule.action == policy::ir::Action::Pass,
            };
            if passes {
                expected.insert((consulted.policy, Some(rule.index)));
            }
        }
    }
    let members: Vec<CounterId> = match policies.compounds().combination(found.counter) {
        Some(combination) => combination.members().collect(),
        None => vec![found.counter],
    };
    let mut counted = BTreeSet::new();
    for member in members.into_iter().filter(|c| *c != CounterId::NONE) {
        let owner = policies.counters().counted(member).unwrap();
        prop_assert_eq!(owner.direction, direction);
        counted.insert((owner.policy, owner.rule));
    }
    prop_assert_eq!(counted, expected);
    Ok(())
}

/// What the specification says, in the order of [`answers`]; `None` for an endpoint whose pod is
/// not there.
fn specified(scene: &Scene, local: &LocalEndpoint, peers: &[IpAddr]) -> Option<Vec<Answer>> {
    let attached = scene.attached.iter();
    let attached = attached.map(|l| (l.uid.as_str(), l.addresses.as_slice()));
    let world = World::new(&scene.cluster, attached);
    let pod = world.pod(&local.namespace, &local.name)?;
    if pod.uid() != local.uid || world::is_on_host_network(pod) {
        return None;
    }
    let mut answers = Vec::new();
    for direction in DIRECTIONS {
        for &peer in peers {
            for (protocol, port) in TRAFFIC {
                let traffic = Traffic {
                    peer,
                    protocol,
                    port,
                };
                let by = |policies| world.decide_by(policies, pod, direction, traffic);
                answers.push((
                    by(specification::Policies::Enforced),
                    by(specification::Policies::WithAudited),
                ));
            }
        }
    }
    Some(answers)
}

/// All answers of all endpoints, held to those from scratch and to the specification.
fn judge(scene: &Scene) -> Result<Vec<(EndpointSlot, Vec<Answer>)>, TestCaseError> {
    let peers = scene.peers();
    let table = scene.policies.table();
    let scratch = Policies::from_scratch(&scene.cluster, scene.attached.clone()).unwrap();
    let scratch_table = scratch.table();
    let mut all = Vec::new();
    for local in &scene.attached {
        let slot = scene.policies.slot(&local.uid).unwrap();
        let found = answers(&scene.policies, &table, slot, &peers)?;
        let other = scratch.slot(&local.uid).unwrap();
        let expected = answers(&scratch, &scratch_table, other, &peers)?;
        prop_assert_eq!(&found, &expected, "{:?}: not as from scratch", local);
        if let Some(expected) = specified(scene, local, &peers) {
            for (at, (found, expected)) in found.iter().zip(&expected).enumerate() {
                let traffic = at % TRAFFIC.len();
                let peer = peers[at / TRAFFIC.len() % peers.len()];
                prop_assert_eq!(
                    found,
                    expected,
                    "{:?} {} {:?}: not as specified\n{}",
                    local,
                    peer,
                    TRAFFIC[traffic],
                    world::describe(&scene.cluster)
                );
            }
        }
        all.push((slot, found));
    }
    Ok(all)
}

/// Every policy has counters of its own, and no counter is anybody's who is gone.
fn check_counters(policies: &Policies, cluster: &Cluster) -> Result<(), TestCaseError> {
    let mut given = BTreeSet::new();
    for (counter, counted) in policies.counters().iter() {
        prop_assert!(given.insert(counter));
        let key = key(policies, counted.policy);
        let exists = key.is_some_and(|key| cluster.get(&key).is_some());
        prop_assert!(exists, "{:?} counts for a policy that is gone", counter);
        let own = policies.counters().of(counted.policy);
        prop_assert!(own.contains(&(counter, counted)));
    }
    Ok(())
}

fn run_sequence(bytes: &[u8]) -> Result<(), TestCaseError> {
    let mut c = Choices::new(bytes);
    let mut scene = Scene::new();
    let first: Vec<Change> = world::beginning(&mut c)
        .into_iter()
        .map(|value| scene.change(value, false))
        .collect();
    scene.policies.update(&first).unwrap();
    scene.policies.keep();
    let mut before = judge(&scene)?;
    for _ in 0..3 + c.below(6) {
        let endpoints_change = c.chance(4);
        if endpoints_change {
            for _ in 0..=c.below(3) {
                let pods: Vec<Arc<Object>> = world::pods(&scene.cluster);
                if !pods.is_empty() {
                    scene.toggle(&pods[c.below(pods.len())]);
                }
            }
        }
        let kept = scene.cluster.clone();
        let changes: Vec<Change> = (0..=c.below(4))
            .map(|_| {
                let (value, delete) = world::operation(&mut c, &scene.cluster);
                scene.change(value, delete)
            })
            .collect();
        let ids = scene.policies.ids().names().len();
        let touched = scene.policies.update(&changes).unwrap();
        let after = judge(&scene)?;
        for (slot, answers) in &after {
            let known = before.iter().find(|(known, _)| known == slot);
            // An endpoint that has come by a place that was another's is always touched.
            if !touched.endpoints.contains(slot) {
                let known = known.map(|(_, answers)| answers);
                prop_assert_eq!(known, Some(answers), "{:?} is touched, but not told", slot);
            }
        }
        before = after;
        if endpoints_change || !c.chance(3) {
            scene.policies.keep();
            check_counters(&scene.policies, &scene.cluster)?;
            continue;
        }
        // As when the journal cannot be written.
        scene.policies.undo(&changes);
        scene.cluster = kept;
        before = judge(&scene)?;
        prop_assert_eq!(scene.policies.ids().names().len(), ids);
    }
    Ok(())
}

#[test]
fn changes_lead_where_everything_from_scratch_leads() {
    let config = Config {
        max_shrink_iters: 400,
        ..Config::default()
    };
    let mut runner = chance::runner(300, config);
    let bytes = proptest::collection::vec(any::<u8>(), 200..2500);
    if let Err(error) = runner.run(&bytes, |bytes| run_sequence(&bytes)) {
        panic!("{error}");
    }
}
