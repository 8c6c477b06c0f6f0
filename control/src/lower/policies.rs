//! Policies as they stand among each other: whom each is about, and its rules, lowered.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use dataplane::policy::ir::{Action, Isolation, Peers, Ports, Rule};
use dataplane::{CounterId, Direction, PolicyId, Tier};

use super::counters::Counters;
use super::draft::{Draft, DraftChain, DraftRule, Subject};
use super::labels::Labels;
use super::namespaces::{Namespaces, ScopeId, Scoped};
use super::ports::{DraftPorts, NamedPort};
use super::sets::{DestinationsId, PeerSets};
use crate::objects::Key;
use crate::selector::Selector;

/// Both directions, in the order in which arrays have them.
pub const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];

/// A policy's number as long as it exists.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyIndex(u32);

/// The rules of one policy and direction for a subject.
pub type Rules = Arc<[Arc<Rule>]>;

/// One policy.
#[derive(Debug)]
pub struct Policy {
    /// Its number for verdicts.
    pub id: PolicyId,
    /// What its object says.
    pub draft: Draft,
    /// Its subject's, if that is picked by labels.
    scope: Option<ScopeId>,
    sides: [Side; 2],
}

/// One direction of a policy.
#[derive(Debug, Default)]
struct Side {
    isolation: Option<Isolation>,
    /// By rule.
    peers: Vec<Peers>,
    /// By rule, if security groups are among the peers: as they are where bindings in audit mode
    /// count.
    audit_peers: Vec<Peers>,
    /// By rule.
    counters: Vec<CounterId>,
    /// By rule: where names of ports mean something, if it sends to named ports.
    destinations: Vec<Option<DestinationsId>>,
    rules: Lowered,
    /// With [`Side::audit_peers`], if there are any.
    audit_rules: Option<Rules>,
}

#[derive(Debug)]
enum Lowered {
    /// The same for every subject.
    Once(Rules),
    /// By what the subjects call their ports.
    PerSubject(HashMap<Arc<[NamedPort]>, Rules>),
}

impl Default for Lowered {
    fn default() -> Lowered {
        Lowered::Once(Arc::from([]))
    }
}

impl Policy {
    /// What makes it isolate its subjects in a direction.
    pub fn isolation(&self, direction: Direction) -> Option<Isolation> {
        self.sides[direction as usize].isolation
    }

    /// Its rules in a direction for a subject that calls its ports so; `audited` where policies in
    /// audit mode count.
    pub fn rules(
        &mut self,
        direction: Direction,
        ports: &Arc<[NamedPort]>,
        audited: bool,
    ) -> Rules {
        let side = &mut self.sides[direction as usize];
        if let Some(rules) = side.audit_rules.as_ref().filter(|_| audited) {
            return rules.clone();
        }
        let subjects = match &mut side.rules {
            Lowered::Once(rules) => return rules.clone(),
            Lowered::PerSubject(subjects) => subjects,
        };
        if let Some(rules) = subjects.get(ports) {
            return rules.clone();
        }
        // Those that no chain has any more would gather.
        let in_use = |rules: &Rules| rules.iter().any(|rule| Arc::strong_count(rule) > 1);
        subjects.retain(|_, rules| in_use(rules));
        let draft = self.draft.chain(direction);
        let lowered = |(at, peers): (usize, &Peers)| {
            let rule = &draft.rules[at];
            let head = Head::of(self.id, &self.draft, side.counters[at], draft, at);
            head.rule(peers.clone(), rule.ports.on(ports))
        };
        let rules: Rules = side.peers.iter().enumerate().map(lowered).collect();
        subjects.insert(ports.clone(), rules.clone());
        rules
    }
}

/// What the [`Rule`]s that one rule becomes have in common.
struct Head {
    policy: PolicyId,
    index: u16,
    tier: Tier,
    action: Action,
    counter: CounterId,
}

impl Head {
    fn of(
        policy: PolicyId,
        draft: &Draft,
        counter: CounterId,
        chain: &DraftChain,
        at: usize,
    ) -> Head {
        Head {
            policy,
            index: rule_index(at),
            tier: draft.order.tier,
            action: chain.rules[at].action,
            counter,
        }
    }

    fn rule(&self, peers: Peers, ports: Ports) -> Arc<Rule> {
        Arc::new(Rule {
            policy: self.policy,
            index: self.index,
            tier: self.tier,
            action: self.action,
            peers,
            ports,
            counter: self.counter,
        })
    }
}

/// More rules than that do not fit a verdict; the last number stands for all behind it.
fn rule_index(at: usize) -> u16 {
    u16::try_from(at).unwrap_or(u16::MAX)
}

/// All policies.
#[derive(Debug, Default)]
pub struct PolicyStore {
    by_key: HashMap<Key, PolicyIndex>,
    places: Vec<Option<Policy>>,
    free: Vec<PolicyIndex>,
    /// Those whose subjects are picked by labels.
    by_subject: Scoped<PolicyIndex>,
    /// Of these, those that put their subjects into security groups.
    binding: Scoped<PolicyIndex>,
    bindings: BTreeSet<PolicyIndex>,
    /// The groups themselves.
    by_group: HashMap<Arc<str>, PolicyIndex>,
    /// Those with rules that send to named ports.
    sending: HashMap<DestinationsId, Vec<PolicyIndex>>,
}

/// What rules refer to.
pub struct Ground<'a> {
    /// Scopes.
    pub namespaces: &'a mut Namespaces,
    /// Peers.
    pub sets: &'a mut PeerSets,
    /// Counters.
    pub counters: &'a mut Counters,
}

impl PolicyStore {
    /// The policy of an object.
    pub fn find(&self, key: &Key) -> Option<PolicyIndex> {
        self.by_key.get(key).copied()
    }

    /// The policy under a number.
    pub fn get(&self, index: PolicyIndex) -> Option<&Policy> {
        self.places.get(index.0 as usize)?.as_ref()
    }

    /// The policy under a number, to be asked for its rules.
    pub fn get_mut(&mut self, index: PolicyIndex) -> Option<&mut Policy> {
        self.places.get_mut(index.0 as usize)?.as_mut()
    }

    /// Adds the policy of an object that has none.
    pub fn insert(
        &mut self,
        key: Key,
        id: PolicyId,
        draft: Draft,
        ground: &mut Ground<'_>,
    ) -> PolicyIndex {
        let index = match self.free.pop() {
            Some(index) => index,
            None => {
                self.places.push(None);
                PolicyIndex((self.places.len() - 1) as u32)
            }
        };
        let scope = match &draft.subject {
            Subject::Pods {
                scope, selector, ..
            } => {
                let scope = ground.namespaces.acquire(scope);
                self.by_subject.insert(scope, selector, index);
                if draft.order.tier == Tier::SecurityGroup {
                    self.binding.insert(scope, selector, index);
                    self.bindings.insert(index);
                }
                Some(scope)
            }
            Subject::Group(name) => {
                self.by_group.insert(name.clone(), index);
                None
            }
        };
        let sides = DIRECTIONS.map(|direction| side(id, &draft, direction, ground));
        for id in sides.iter().flat_map(|side| &side.destinations).flatten() {
            self.sending.entry(*id).or_default().push(index);
        }
        self.by_key.insert(key, index);
        self.places[index.0 as usize] = Some(Policy {
            id,
            draft,
            scope,
            sides,
        });
        self.lower(index, ground.sets);
        index
    }

    /// Takes a policy out.
    pub fn remove(&mut self, key: &Key, ground: &mut Ground<'_>) -> Option<Policy> {
        let index = self.by_key.remove(key)?;
        let policy = self.places[index.0 as usize].take()?;
        self.free.push(index);
        match (&policy.draft.subject, policy.scope) {
            (Subject::Pods { selector, .. }, Some(scope)) => {
                self.by_subject.remove(scope, selector, index);
                self.binding.remove(scope, selector, index);
                self.bindings.remove(&index);
                ground.namespaces.release(scope);
            }
            (Subject::Group(name), _) => {
                self.by_group.remove(name);
            }
            _ => {}
        }
        for side in &policy.sides {
            let peers = side.peers.iter().chain(&side.audit_peers);
            peers.for_each(|peers| ground.sets.release(peers));
            for id in side.destinations.iter().flatten() {
                ground.sets.release_destinations(*id);
                if let Some(users) = self.sending.get_mut(id) {
                    users.retain(|user| *user != index);
                    if users.is_empty() {
                        self.sending.remove(id);
                    }
                }
            }
        }
        Some(policy)
    }

    /// Makes a policy's rules from what its named ports mean now. Only those of egress depend on
    /// anything but the policy and its subject.
    pub fn lower(&mut self, index: PolicyIndex, sets: &PeerSets) {
        let Some(policy) = &mut self.places[index.0 as usize] else {
            return;
        };
        for direction in DIRECTIONS {
            let chain = policy.draft.chain(direction);
            let side = &policy.sides[direction as usize];
            let lower = |peers: &[Peers]| -> Rules {
                let mut rules = Vec::with_capacity(peers.len());
                for (at, peers) in peers.iter().enumerate() {
                    let head = Head::of(policy.id, &policy.draft, side.counters[at], chain, at);
                    let ports = &chain.rules[at].ports;
                    push_rule(&mut rules, &head, peers, ports, side.destinations[at], sets);
                }
                rules.into()
            };
            let named = |rule: &DraftRule| !rule.ports.names().is_empty();
            let per_subject = direction == Direction::Ingress && chain.rules.iter().any(named);
            let rules = match per_subject {
                true => Lowered::PerSubject(HashMap::new()),
                false => Lowered::Once(lower(&side.peers)),
            };
            let audit_rules = chain.names_groups().then(|| lower(&side.audit_peers));
            let side = &mut policy.sides[direction as usize];
            side.rules = rules;
            side.audit_rules = audit_rules;
        }
    }

    /// The policies that send to named ports on these destinations.
    pub fn sending(&self, id: DestinationsId) -> &[PolicyIndex] {
        self.sending.get(&id).map_or(&[], Vec::as_slice)
    }

    /// The policy of a security group.
    pub fn group(&self, name: &str) -> Option<PolicyIndex> {
        self.by_group.get(name).copied()
    }

    /// Tells the policies whose selectors match a pod with such labels in one of the scopes. Who is
    /// picked by ServiceAccount, too, is yet to be asked about that.
    pub fn selecting(&self, scopes: &[ScopeId], labels: &Labels, found: impl FnMut(PolicyIndex)) {
        self.by_subject.matching(scopes, labels, found);
    }

    /// Of those the ones that put pods into security groups.
    pub fn binding(&self, scopes: &[ScopeId], labels: &Labels, found: impl FnMut(PolicyIndex)) {
        self.binding.matching(scopes, labels, found);
    }

    /// All that put pods into security groups.
    pub fn bindings(&self) -> impl Iterator<Item = PolicyIndex> {
        self.bindings.iter().copied()
    }

    /// The scope and selector of a policy's subject, if it is picked by labels.
    pub fn subject(&self, index: PolicyIndex) -> Option<(ScopeId, &Selector)> {
        let policy = self.get(index)?;
        match &policy.draft.subject {
            Subject::Pods { selector, .. } => Some((policy.scope?, selector)),
            Subject::Group(_) => None,
        }
    }
}

fn side(id: PolicyId, draft: &Draft, direction: Direction, ground: &mut Ground<'_>) -> Side {
    let chain = draft.chain(direction);
    let counters = &mut *ground.counters;
    counters.claim(id, direction, chain.isolates, chain.rules.len());
    let mut side = Side {
        isolation: chain.isolates.then(|| Isolation {
            policy: id,
            counter: counters.by_default(id, direction),
        }),
        ..Side::default()
    };
    for (at, rule) in chain.rules.iter().enumerate() {
        let peers = ground.sets.acquire(&rule.peers, false, ground.namespaces);
        if chain.names_groups() {
            let audited = ground.sets.acquire(&rule.peers, true, ground.namespaces);
            side.audit_peers.push(audited);
        }
        let names = match &rule.ports {
            DraftPorts::Of { names, .. } if direction == Direction::Egress => Some(names),
            _ => None,
        };
        let names = names.filter(|names| !names.is_empty());
        let destinations = names.map(|names| ground.sets.acquire_destinations(&peers, names));
        side.destinations.push(destinations);
        side.peers.push(peers);
        side.counters
            .push(ground.counters.rule(id, direction, rule_index(at)));
    }
    side
}

/// A rule of its own for all peers and numbers, and for each meaning that the names have on some of
/// the peers another for these.
fn push_rule(
    rules: &mut Vec<Arc<Rule>>,
    head: &Head,
    peers: &Peers,
    ports: &DraftPorts,
    destinations: Option<DestinationsId>,
    sets: &PeerSets,
) {
    let numbers = ports.on(&[]);
    let Some(destinations) = destinations else {
        rules.push(head.rule(peers.clone(), numbers));
        return;
    };
    let before = rules.len();
    if numbers != Ports::List(Arc::from([])) {
        rules.push(head.rule(peers.clone(), numbers));
    }
    for (meaning, set) in sets.meanings(destinations) {
        rules.push(head.rule(Peers::sets([set]), Ports::List(meaning.clone())));
    }
    if rules.len() == before {
        // Nobody has such a port: the rule is kept, so that it can be explained.
        rules.push(head.rule(Peers::none(), Ports::List(Arc::from([]))));
    }
}
