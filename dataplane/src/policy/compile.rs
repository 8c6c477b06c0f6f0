//! Chains to tables.
//!
//! 1. Intern: peers by the addresses they hold, rules by content, chains by their rules. Endpoints
//!    with equal chains share one.
//! 2. Cut the number line at the edges of all peers ([`Classes`]).
//! 3. For each chain, sweep over the classes. The set of rules whose peers hold the class changes
//!    only at the edges of that chain's own peers; between them one [`PortMap`] serves.
//!
//! The work is in proportion to the edges of each distinct chain times the rules in force there:
//! not to endpoints × policies, nor to the classes that other chains made.

use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;

use super::Slot;
use super::classes::Classes;
use super::ir::{Action, Block, Chain, Peers, Ports, Rule};
use super::ports::{self, PortMap, PortMapsBuilder};
use super::row::Row;
use super::spans::{self, Span};
use super::table::{Compiled, PolicyTable};
use crate::{CounterId, Direction, PolicyId, Tier};

/// Compiles; see [`PolicyTable::compile`]. The chains' rules name no sets.
pub(super) fn compile(chains: &[(Direction, &Chain)], slots: Vec<Option<Slot>>) -> PolicyTable {
    let mut interned = Interned::default();
    let distinct: Vec<DistinctChain<'_>> = chains
        .iter()
        .map(|&(direction, chain)| DistinctChain {
            direction,
            chain,
            rules: chain.rules.iter().map(|rule| interned.rule(rule)).collect(),
        })
        .collect();
    let classes = Classes::around(interned.sets.iter().flatten().copied());
    let in_classes = |set: &Vec<Span>| set.iter().map(|&span| classes.within(span)).collect();
    let sets: Vec<Vec<(u32, u32)>> = interned.sets.iter().map(in_classes).collect();
    let mut maps = PortMapsBuilder::default();
    let compiled = distinct
        .iter()
        .map(|chain| chain.compile(&sets, &mut maps))
        .collect();
    PolicyTable::new(classes, maps.finish(), compiled, slots)
}

/// Which addresses a rule's peers hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum PeerSet {
    Any,
    /// Index into [`Interned::sets`].
    Set(u32),
}

/// A rule by content, its peers by what they hold.
#[derive(PartialEq, Eq, Hash)]
struct RuleKey<'a> {
    policy: PolicyId,
    index: u16,
    tier: Tier,
    action: Action,
    counter: CounterId,
    peers: PeerSet,
    ports: &'a Ports,
}

/// Peers and rules seen so far. Lists are found by address first: control shares them between
/// endpoints, and comparing them again for each would be most of the work.
#[derive(Default)]
struct Interned<'a> {
    sets: Vec<Vec<Span>>,
    set_by_address: HashMap<*const [Block], u32>,
    set_by_spans: HashMap<Vec<Span>, u32>,
    rule_by_address: HashMap<*const Rule, (u32, PeerSet)>,
    rule_by_content: HashMap<RuleKey<'a>, u32>,
}

impl<'a> Interned<'a> {
    /// The rule's number and its peers.
    fn rule(&mut self, rule: &'a Arc<Rule>) -> (u32, PeerSet) {
        if let Some(&known) = self.rule_by_address.get(&Arc::as_ptr(rule)) {
            return known;
        }
        let peers = match &rule.peers {
            Peers::Any => PeerSet::Any,
            Peers::Of { blocks, .. } => PeerSet::Set(self.set(blocks)),
        };
        let key = RuleKey {
            policy: rule.policy,
            index: rule.index,
            tier: rule.tier,
            action: rule.action,
            counter: rule.counter,
            peers,
            ports: &rule.ports,
        };
        let next = self.rule_by_content.len() as u32;
        let number = *self.rule_by_content.entry(key).or_insert(next);
        self.rule_by_address
            .insert(Arc::as_ptr(rule), (number, peers));
        (number, peers)
    }

    /// The number of the set of addresses in `blocks`.
    fn set(&mut self, blocks: &'a Arc<[Block]>) -> u32 {
        if let Some(&known) = self.set_by_address.get(&Arc::as_ptr(blocks)) {
            return known;
        }
        let set = match self.set_by_spans.entry(spans::of_blocks(blocks)) {
            Entry::Occupied(known) => *known.get(),
            Entry::Vacant(new) => {
                let set = self.sets.len() as u32;
                self.sets.push(new.key().clone());
                *new.insert(set)
            }
        };
        self.set_by_address.insert(Arc::as_ptr(blocks), set);
        set
    }
}

/// A chain to compile.
struct DistinctChain<'a> {
    direction: Direction,
    chain: &'a Chain,
    /// The number and the peers of each rule.
    rules: Vec<(u32, PeerSet)>,
}

/// A rule of a chain that can match something.
struct Effective<'a> {
    rule: &'a Rule,
    /// Equal for equal rules only, in all chains.
    number: u32,
    peers: PeerSet,
}

impl DistinctChain<'_> {
    /// Sweeps over the classes. `sets` holds each set's classes: firsts and one after the lasts.
    fn compile(&self, sets: &[Vec<(u32, u32)>], maps: &mut PortMapsBuilder) -> Compiled {
        maps.begin();
        let rules = self.effective();
        let (mut sweep, edges) = Sweep::new(&rules, sets);
        let mut runs = vec![(0, sweep.port_map(self, maps))];
        for at in edges.chunk_by(|a, b| a.class() == b.class()) {
            sweep.cross(at);
            let (class, map) = (at[0].class(), sweep.port_map(self, maps));
            match runs.last_mut() {
                Some(last) if last.0 == class => last.1 = map,
                Some(last) if last.1 == map => {}
                _ => runs.push((class, map)),
            }
        }
        let row = Row::new(&runs);
        let may_deny = row.maps().any(|map| maps.maps().may_deny(map));
        Compiled {
            row,
            may_deny,
            source: self.chain.clone(),
        }
    }

    /// The rules that can match anything, by tier. NetworkPolicy rules count only if a policy
    /// isolates, Baseline rules only if none does.
    fn effective(&self) -> Vec<Effective<'_>> {
        let isolated = !self.chain.isolating.is_empty();
        let counts = |rule: &Rule| match rule.tier {
            Tier::SecurityGroup => !self.chain.bound.is_empty(),
            Tier::Admin => true,
            Tier::NetworkPolicy => isolated,
            Tier::Baseline => !isolated,
            Tier::Default => false,
        };
        let all = self.chain.rules.iter().zip(&self.rules);
        let mut effective: Vec<_> = all
            .filter(|(rule, _)| counts(rule) && !ports::is_empty(&rule.ports))
            .map(|(rule, &(number, peers))| Effective {
                rule,
                number,
                peers,
            })
            .collect();
        effective.sort_by_key(|effective| effective.rule.tier);
        effective
    }
}

/// Where the peers of a group of rules begin or end: class, group and whether they begin, in one
/// word, because sorting these is most of the work.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Edge(u64);

impl Edge {
    fn new(class: u32, group: usize, begins: bool) -> Edge {
        Edge(u64::from(class) << 32 | (group as u64) << 1 | u64::from(begins))
    }

    const fn class(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// Index into [`Sweep::groups`].
    const fn group(self) -> usize {
        (self.0 as u32 >> 1) as usize
    }

    const fn begins(self) -> bool {
        self.0 & 1 != 0
    }
}

/// The state of a sweep over the classes: which rules' peers hold the current one.
struct Sweep<'a> {
    rules: &'a [Effective<'a>],
    /// Positions in `rules` of those with the same peers.
    groups: Vec<Vec<u32>>,
    /// Positions of the rules whose peers hold the current class, rising.
    holding: Vec<u32>,
    /// Scratch: the numbers of the rules that count for the current class.
    reachable: Vec<u32>,
    /// Scratch: their positions.
    positions: Vec<u32>,
}

impl<'a> Sweep<'a> {
    /// A sweep before the first class, where only rules for any peer hold, and all edges ahead of
    /// it in order.
    fn new(rules: &'a [Effective<'a>], sets: &[Vec<(u32, u32)>]) -> (Sweep<'a>, Vec<Edge>) {
        let mut group_of = HashMap::new();
        let mut groups: Vec<Vec<u32>> = Vec::new();
        let mut holding = Vec::new();
        let mut edges = Vec::new();
        for (position, effective) in (0..).zip(rules) {
            let PeerSet::Set(set) = effective.peers else {
                holding.push(position);
                continue;
            };
            let group = *group_of.entry(set).or_insert_with(|| {
                let group = groups.len();
                for &(first, end) in &sets[set as usize] {
                    edges.extend([Edge::new(first, group, true), Edge::new(end, group, false)]);
                }
                groups.push(Vec::new());
                group
            });
            groups[group].push(position);
        }
        edges.sort_unstable();
        let sweep = Sweep {
            rules,
            groups,
            holding,
            reachable: Vec::new(),
            positions: Vec::new(),
        };
        (sweep, edges)
    }

    /// Moves over the edges at one class.
    fn cross(&mut self, edges: &[Edge]) {
        for edge in edges.iter().filter(|edge| !edge.begins()) {
            let leaving = &self.groups[edge.group()];
            match leaving[..] {
                [position] => {
                    if let Ok(at) = self.holding.binary_search(&position) {
                        self.holding.remove(at);
                    }
                }
                _ => self.holding.retain(|p| leaving.binary_search(p).is_err()),
            }
        }
        for edge in edges.iter().filter(|edge| edge.begins()) {
            let entering = &self.groups[edge.group()];
            match entering[..] {
                [position] => {
                    let at = self.holding.partition_point(|&p| p < position);
                    self.holding.insert(at, position);
                }
                _ => {
                    self.holding.extend(entering);
                    // Two sorted runs: the stable sort merges them.
                    self.holding.sort();
                }
            }
        }
    }

    /// The port map of the current class.
    fn port_map(&mut self, chain: &DistinctChain<'_>, maps: &mut PortMapsBuilder) -> PortMap {
        self.find_reachable();
        let rules = self.positions.iter().map(|&p| self.rules[p as usize].rule);
        maps.build(chain.direction, chain.chain, &self.reachable, rules)
    }

    /// Finds the rules that hold and are not behind one that takes all that reaches it: a rule for
    /// any port is the last of its tier. Not of the chain, even if it accepts or denies: what an
    /// earlier rule for some ports passed on is still to be decided by the next tier.
    fn find_reachable(&mut self) {
        self.reachable.clear();
        self.positions.clear();
        let mut rest = &self.holding[..];
        while let Some((&position, later)) = rest.split_first() {
            rest = later;
            let Effective { rule, number, .. } = self.rules[position as usize];
            self.reachable.push(number);
            self.positions.push(position);
            if rule.ports == Ports::Any {
                let tier = |&p: &u32| self.rules[p as usize].rule.tier;
                rest = &rest[rest.partition_point(|p| tier(p) <= rule.tier)..];
            }
        }
    }
}
