//! One chain as the compiler keeps it: what workers read, and what it takes to change that when an
//! address joins or leaves a set.

use std::sync::Arc;

use hashbrown::HashMap;

use super::chain::CompiledChain;
use super::cidrs::Cidrs;
use super::compounds::Compounds;
use super::ir::{Chain, PeerSetId};
use super::lines::{Base, Lines};
use super::members::Members;
use super::nodes::Nodes;
use super::packed::{self, Packed};
use super::paged::Paged;
use super::rules::{Rules, Scratch};
use crate::{Address, Direction};

/// Classes without an address that a chain may keep beside as many as have one.
const IDLE_CLASSES: usize = 256;

/// From so many classes of blocks on, lines say how they differ from each other: fewer are near the
/// processor in any case, and take less time to compile whole. Tests have few.
const MANY_CLASSES: usize = if cfg!(test) { 4 } else { 512 };

/// A chain with its compiled form.
#[derive(Debug)]
pub(super) struct LiveChain {
    pub(super) compiled: Arc<CompiledChain>,
    direction: Direction,
    rules: Rules,
    /// [`Rules::decisions`] as tables hold them, for the lines that are made of them; workers see
    /// them when [`LiveChain::show_decisions`] says so.
    decisions: Vec<Packed>,
    /// The place of each of the chain's sets in [`Rules::sets`].
    places: HashMap<PeerSetId, u32>,
    lines: Lines,
    /// The classes of addresses in sets, by [class of the blocks, sets…].
    by_signature: HashMap<Arc<[u32]>, u32>,
    /// How many addresses have each class, and whether it denies anything.
    classes: Vec<Use>,
    /// Classes that some address has and that deny something.
    denying: usize,
    /// Classes that some address has.
    used: usize,
}

/// Who uses a class.
#[derive(Debug)]
struct Use {
    addresses: u128,
    denies: bool,
}

impl LiveChain {
    /// Compiles a chain whose blocks make the classes `cidrs`.
    pub(super) fn new(
        direction: Direction,
        source: Arc<Chain>,
        rules: Rules,
        cidrs: Arc<Cidrs>,
        members: &Members,
        scratch: &mut Scratch,
        compounds: &mut Compounds,
    ) -> LiveChain {
        let compiled = CompiledChain {
            by_number: Paged::default(),
            lines: Nodes::default(),
            nodes: Nodes::default(),
            decisions: Arc::from([]),
            may_deny: false,
            holding: Paged::default(),
            sets: rules.sets.as_slice().into(),
            source,
            cidrs: cidrs.clone(),
        };
        let mut chain = LiveChain {
            compiled: Arc::new(compiled),
            direction,
            places: rules.sets.iter().copied().zip(0..).collect(),
            rules,
            decisions: Vec::new(),
            lines: Lines::default(),
            by_signature: HashMap::new(),
            classes: Vec::new(),
            denying: 0,
            used: 0,
        };
        let mut bases: Vec<Option<Base>> = Vec::new();
        for class in cidrs.classes() {
            let before = bases.get(class.before as usize).copied().flatten();
            let near = chain.is_near().then_some(before);
            let (number, base) = chain.add_class(&class.lists, None, near, scratch, compounds);
            bases.push(base);
            chain.join(number, class.addresses);
        }
        for (number, sets) in members.by_address(&chain.rules.sets).iter() {
            if let Some(address) = members.address(number) {
                chain.assign(number, address, sets, scratch, compounds);
            }
        }
        chain.show_decisions();
        chain
    }

    /// The sets that the chain's rules name.
    pub(super) fn sets(&self) -> &[PeerSetId] {
        &self.rules.sets
    }

    /// Brings addresses up to date with the sets that they are in. Says whether the chain now
    /// decides something else for any of them.
    pub(super) fn update(
        &mut self,
        numbers: impl Iterator<Item = u32>,
        members: &Members,
        scratch: &mut Scratch,
        compounds: &mut Compounds,
    ) -> bool {
        let mut moves = Vec::new();
        let mut sets = Vec::new();
        for number in numbers {
            let Some(address) = members.address(number) else {
                continue;
            };
            let held_by = members.sets_of(number).iter();
            sets.clear();
            sets.extend(held_by.filter_map(|set| self.places.get(set).copied()));
            sets.sort_unstable();
            moves.extend(self.assign(number, address, &sets, scratch, compounds));
        }
        self.show_decisions();
        moves.sort_unstable();
        moves.dedup();
        let (root, compiled) = (|class| self.compiled.lines.get(class), &self.compiled);
        // Where lines are told by how they differ, one of two equal ones may lead to another's.
        let alike = |before, after| self.is_near() && compiled.decides_alike(before, after);
        let differs =
            |&(before, after): &(u32, u32)| root(before) != root(after) && !alike(before, after);
        moves.iter().any(differs)
    }

    /// Lets workers have the decisions that lines have brought up.
    fn show_decisions(&mut self) {
        if self.compiled.decisions.len() != self.decisions.len() {
            let decisions = self.decisions.as_slice().into();
            Arc::make_mut(&mut self.compiled).decisions = decisions;
        }
    }

    /// Whether lines say how they differ from each other.
    fn is_near(&self) -> bool {
        self.compiled.cidrs.classes().len() >= MANY_CLASSES
    }

    /// Gives an address the class that these of the chain's sets make. Returns the class before and
    /// that one, if they differ.
    fn assign(
        &mut self,
        number: u32,
        address: Address,
        sets: &[u32],
        scratch: &mut Scratch,
        compounds: &mut Compounds,
    ) -> Option<(u32, u32)> {
        let blocks = self.compiled.cidrs.class(address);
        let before = self.compiled.class_of_member(number);
        let after = match sets {
            [] => None,
            _ => Some(self.class(blocks, sets, scratch, compounds)),
        };
        if before == after {
            return None;
        }
        let compiled = Arc::make_mut(&mut self.compiled);
        compiled.by_number.set(number, after.unwrap_or(0));
        let (before, after) = (before.unwrap_or(blocks), after.unwrap_or(blocks));
        self.join(after, 1);
        self.leave(before);
        Some((before, after))
    }

    /// The class of addresses that the blocks give the class `blocks` and that are in `sets`.
    fn class(
        &mut self,
        blocks: u32,
        sets: &[u32],
        scratch: &mut Scratch,
        compounds: &mut Compounds,
    ) -> u32 {
        let signature = &mut scratch.signature;
        signature.clear();
        signature.push(blocks);
        signature.extend(sets);
        if let Some(&known) = self.by_signature.get(&signature[..]) {
            return known;
        }
        let signature: Arc<[u32]> = signature.as_slice().into();
        let cidrs = self.compiled.cidrs.clone();
        let lists = &cidrs.classes()[blocks as usize].lists;
        let (class, _) = self.add_class(lists, Some(signature.clone()), None, scratch, compounds);
        self.by_signature.insert(signature, class);
        class
    }

    /// A new class that nobody has: of a signature, or of the addresses in no set. `near` and what
    /// is returned with the class are the bases of [`Lines::root_near`]; without, nobody is asked
    /// what is similar.
    fn add_class(
        &mut self,
        lists: &[u32],
        signature: Option<Arc<[u32]>>,
        near: Option<Option<Base>>,
        scratch: &mut Scratch,
        compounds: &mut Compounds,
    ) -> (u32, Option<Base>) {
        let sets = signature.as_deref().unwrap_or(&[0]);
        let line = self.rules.line(lists, &sets[1..], scratch, compounds);
        let decisions = &self.rules.decisions;
        let denies = |&(_, decision): &(u32, u32)| !decisions[decision as usize].verdict.accept;
        let denies = line.iter().any(denies);
        let class = self.classes.len() as u32;
        let new = decisions[self.decisions.len()..].iter().copied();
        self.decisions.extend(new.map(packed::pack));
        let compiled = Arc::make_mut(&mut self.compiled);
        let decisions = &self.decisions;
        let nodes = &mut compiled.nodes;
        let (root, base) = match near {
            Some(base) => self.lines.root_near(nodes, line, decisions, base),
            None => (self.lines.root(nodes, line, decisions), None),
        };
        compiled.lines.set(class, root);
        if signature.is_some() {
            compiled.holding.set(class, signature);
        }
        self.classes.push(Use {
            addresses: 0,
            denies,
        });
        (class, base)
    }

    /// Addresses join a class.
    fn join(&mut self, class: u32, addresses: u128) {
        let class = &mut self.classes[class as usize];
        if class.addresses == 0 {
            self.used += 1;
            self.denying += usize::from(class.denies);
        }
        class.addresses += addresses;
        self.note_denials();
    }

    /// An address leaves its class.
    fn leave(&mut self, class: u32) {
        let class = &mut self.classes[class as usize];
        class.addresses -= 1;
        if class.addresses == 0 {
            self.used -= 1;
            self.denying -= usize::from(class.denies);
        }
        self.note_denials();
    }

    fn note_denials(&mut self) {
        if self.compiled.may_deny != (self.denying > 0) {
            Arc::make_mut(&mut self.compiled).may_deny = self.denying > 0;
        }
    }

    /// Whether so many classes have lost their addresses that the chain had better be compiled
    /// anew.
    pub(super) fn is_worn(&self) -> bool {
        self.classes.len() > 2 * self.used + IDLE_CLASSES
    }

    /// The same chain, compiled anew.
    pub(super) fn renew(
        &self,
        members: &Members,
        scratch: &mut Scratch,
        compounds: &mut Compounds,
    ) -> LiveChain {
        let (source, cidrs) = (self.compiled.source.clone(), self.compiled.cidrs.clone());
        let direction = self.direction;
        let rules = Rules::new(direction, &source);
        let renewed = LiveChain::new(direction, source, rules, cidrs, members, scratch, compounds);
        // Only now: what both have keeps its numbers.
        self.release(compounds);
        renewed
    }

    /// Gives back the chain's counters; it is not compiled any further.
    pub(super) fn release(&self, compounds: &mut Compounds) {
        self.rules.release(compounds);
    }

    /// The direction that the chain decides.
    pub(super) const fn direction(&self) -> Direction {
        self.direction
    }
}
