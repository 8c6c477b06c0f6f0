//! The control thread's side: sets and chains that change, and the tables made of them.

use std::ops::Range;
use std::sync::{Arc, Weak};

use hashbrown::hash_map::Entry;
use hashbrown::{HashMap, HashSet};

use super::cidrs::Cidrs;
use super::compounds::Compounds;
use super::ir::{Block, Chain, Isolation, PeerSetId, Rule};
use super::live::LiveChain;
use super::members::Members;
use super::rules::{Rules, Scratch};
use super::table::{PolicyTable, SlotChains, Slots};
use super::{ChainId, EndpointSlot, Slot};
use crate::{Address, Direction};

/// Compiles chains, and keeps what is compiled: a change costs what it touches.
///
/// A new chain is compiled alone: the lines of its blocks' classes and of its sets' members. A
/// member that joins or leaves a set touches one entry in each chain that names the set. Chains
/// with the same lists of blocks share these (the same: what one [`Arc`] holds), and equal chains
/// are one.
///
/// Used by the control thread alone; workers see the [`PolicyTable`]s.
#[derive(Debug, Default)]
pub struct Compiler {
    members: Members,
    /// Each distinct rule of the chains.
    rules: HashSet<Arc<Rule>>,
    /// How many of the chains' rules each of them is, by where it lies in memory: found without
    /// reading it, for a rule may have 100,000 blocks.
    rule_uses: HashMap<usize, u32>,
    by_content: HashMap<ChainKey, u32>,
    /// A chain, its key and how often it was given.
    chains: Vec<Option<(LiveChain, ChainKey, u32)>>,
    /// The chains of each slot, by their numbers and as workers get them.
    placed: Vec<Option<Slot>>,
    slots: Slots,
    free: Vec<u32>,
    /// By where the lists lie in memory, which they hold.
    cidrs: HashMap<Vec<usize>, Weak<Cidrs>>,
    compounds: Compounds,
    scratch: Scratch,
}

/// What makes two chains equal: direction, who binds, who isolates, and the rules by where they
/// lie in memory.
type ChainKey = (Direction, Vec<Isolation>, Vec<Isolation>, Vec<usize>);

impl Compiler {
    /// No sets, no chains, and no compound counters: every decision counts for one rule.
    pub fn new() -> Compiler {
        Compiler::default()
    }

    /// The same with compound counters of these numbers, which are no rule's.
    pub fn with_compounds(numbers: Range<u32>) -> Compiler {
        Compiler {
            compounds: Compounds::new(numbers),
            ..Compiler::default()
        }
    }

    /// Which rules each compound counter is of.
    pub const fn compounds(&self) -> &Compounds {
        &self.compounds
    }

    /// The same, to be told what becomes of the counters.
    pub const fn compounds_mut(&mut self) -> &mut Compounds {
        &mut self.compounds
    }

    /// Adds an address to a set. Counted: two pods may share an address for a moment, and the
    /// address is a member until it was removed as often as it was added.
    ///
    /// Takes effect with [`Compiler::settle`].
    pub fn add_member(&mut self, set: PeerSetId, address: Address) {
        self.members.add(set, address);
    }

    /// Takes back one [`Compiler::add_member`]; without one it changes nothing.
    pub fn remove_member(&mut self, set: PeerSetId, address: Address) {
        self.members.remove(set, address);
    }

    /// The chain's number. Equal chains of one direction have the same; it is theirs until it was
    /// released as often as it was given.
    pub fn chain(&mut self, direction: Direction, chain: &Chain) -> ChainId {
        let rules: Vec<Arc<Rule>> = chain.rules.iter().map(|rule| self.one_of(rule)).collect();
        let places = rules.iter().map(|rule| Arc::as_ptr(rule).addr()).collect();
        let key = (
            direction,
            chain.bound.clone(),
            chain.isolating.clone(),
            places,
        );
        if let Some(&known) = self.by_content.get(&key) {
            if let Some((_, _, times)) = &mut self.chains[known as usize] {
                *times += 1;
            }
            return ChainId(known);
        }
        for rule in &rules {
            let uses = self.rule_uses.entry(Arc::as_ptr(rule).addr());
            let uses = uses.or_insert_with(|| {
                self.rules.insert(rule.clone());
                0
            });
            *uses += 1;
        }
        let source = Arc::new(Chain {
            rules,
            ..chain.clone()
        });
        let id = self.free.pop().unwrap_or(self.chains.len() as u32);
        if id as usize == self.chains.len() {
            self.chains.push(None);
        }
        let rules = Rules::new(direction, &source);
        let cidrs = self.cidrs(&rules);
        let (members, scratch) = (&self.members, &mut self.scratch);
        let compounds = &mut self.compounds;
        let live = LiveChain::new(direction, source, rules, cidrs, members, scratch, compounds);
        self.members.name(live.sets(), id);
        self.by_content.insert(key.clone(), id);
        self.chains[id as usize] = Some((live, key, 1));
        ChainId(id)
    }

    /// The one of all equal rules that chains are made with; the given one if it is the first.
    fn one_of(&self, rule: &Arc<Rule>) -> Arc<Rule> {
        if self.rule_uses.contains_key(&Arc::as_ptr(rule).addr()) {
            return rule.clone();
        }
        self.rules.get(rule).unwrap_or(rule).clone()
    }

    /// The classes of the blocks that rules name.
    fn cidrs(&mut self, rules: &Rules) -> Arc<Cidrs> {
        let place = |list: &Arc<[Block]>| list.as_ptr().addr();
        let key: Vec<usize> = rules.lists.iter().map(place).collect();
        if let Some(known) = self.cidrs.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        let cidrs = Arc::new(Cidrs::new(rules.lists.clone()));
        self.cidrs.insert(key, Arc::downgrade(&cidrs));
        cidrs
    }

    /// Takes back one [`Compiler::chain`]; without one it changes nothing.
    pub fn release(&mut self, chain: ChainId) {
        let Some(place) = self.chains.get_mut(chain.0 as usize) else {
            return;
        };
        match place {
            Some((_, _, times)) if *times > 1 => *times -= 1,
            _ => {
                if let Some((live, key, _)) = place.take() {
                    self.remove(chain.0, live, &key);
                }
            }
        }
    }

    /// Forgets a chain that nobody uses.
    fn remove(&mut self, id: u32, chain: LiveChain, key: &ChainKey) {
        self.by_content.remove(key);
        self.members.forget(chain.sets(), id);
        chain.release(&mut self.compounds);
        for rule in &chain.compiled.source.rules {
            if let Entry::Occupied(mut uses) = self.rule_uses.entry(Arc::as_ptr(rule).addr()) {
                *uses.get_mut() -= 1;
                if *uses.get() == 0 {
                    uses.remove();
                    self.rules.remove(rule);
                }
            }
        }
        self.free.push(id);
        drop(chain);
        let chains = self.by_content.len();
        if self.cidrs.len() > 2 * chains + 16 {
            self.cidrs.retain(|_, cidrs| cidrs.strong_count() > 0);
        }
    }

    /// Applies the changes of membership since the last time. Returns the chains that now decide
    /// something else for some address, by number: flows of their endpoints are to be decided
    /// again. A chain that came after a change knows it already.
    pub fn settle(&mut self) -> Vec<ChainId> {
        let changed = self.members.take_changed();
        let mut differ = Vec::new();
        let mut renewed = HashSet::new();
        for pairs in changed.pairs.chunk_by(|a, b| a.0 == b.0) {
            let id = pairs[0].0;
            let Some((chain, _, _)) = &mut self.chains[id as usize] else {
                continue;
            };
            renewed.insert(id);
            let (members, scratch) = (&self.members, &mut self.scratch);
            let compounds = &mut self.compounds;
            let numbers = pairs.iter().map(|&(_, number)| number);
            if chain.update(numbers, members, scratch, compounds) {
                differ.push(ChainId(id));
            }
            if chain.is_worn() {
                *chain = chain.renew(members, scratch, compounds);
            }
        }
        self.members.give_up(&changed.numbers);
        self.place_again(&renewed);
        differ
    }

    /// Gives a slot other chains, or none. It has them until it is placed again, so that is done
    /// before they are released.
    ///
    /// A slot whose chains there are not, or are of the other direction, accepts nothing: nobody can
    /// say which policy was meant.
    pub fn place(&mut self, slot: EndpointSlot, chains: Option<Slot>) {
        let at = usize::from(slot.0);
        if self.placed.len() <= at {
            self.placed.resize(at + 1, None);
        }
        self.placed[at] = chains;
        let chains = chains.and_then(|chains| self.slot(&chains));
        self.slots.set(slot.0.into(), chains);
    }

    /// Gives the slots of these chains what the chains have become.
    fn place_again(&mut self, chains: &HashSet<u32>) {
        if chains.is_empty() {
            return;
        }
        for at in 0..self.placed.len() {
            let Some(slot) = self.placed[at] else {
                continue;
            };
            if slot.chains().any(|ChainId(id)| chains.contains(&id)) {
                let chains = self.slot(&slot);
                self.slots.set(at as u32, chains);
            }
        }
    }

    /// A table of the placed slots and of these others, as of the last [`Compiler::settle`].
    ///
    /// Costs what the others cost: placed slots are shared with the tables before.
    ///
    /// Another that is placed already or given twice accepts nothing, as one that is placed with
    /// chains that there are not.
    pub fn table(&self, others: impl Iterator<Item = (EndpointSlot, Slot)>) -> PolicyTable {
        let mut slots = self.slots.clone();
        let mut given = HashSet::new();
        for (slot, chains) in others {
            let placed = self.placed.get(usize::from(slot.0)).copied().flatten();
            let chains = match placed.is_some() || !given.insert(slot) {
                true => None,
                false => self.slot(&chains),
            };
            slots.set(slot.0.into(), chains);
        }
        PolicyTable::new(self.members.numbers.clone(), slots)
    }

    /// A slot's chains; none if one of them is not what it should be.
    fn slot(&self, slot: &Slot) -> Option<SlotChains> {
        let compiled = |id: ChainId, direction| {
            let (chain, _, _) = self.chains.get(id.0 as usize)?.as_ref()?;
            (chain.direction() == direction).then(|| chain.compiled.clone())
        };
        let both = |[egress, ingress]: [ChainId; 2]| {
            let egress = compiled(egress, Direction::Egress)?;
            Some([egress, compiled(ingress, Direction::Ingress)?])
        };
        let audit = match slot.audit {
            None => None,
            Some(chains) => Some(both(chains)?),
        };
        let enforced = both(slot.enforced)?;
        Some(SlotChains { enforced, audit })
    }
}
