//! The control thread's side: sets and chains that change, and the tables made of them.

use std::collections::BTreeSet;
use std::sync::Arc;

use hashbrown::HashMap;
use hashbrown::hash_map::Entry;
use ipnet::IpNet;

use super::ir::{Block, Chain, PeerSetId, Peers, Rule};
use super::table::PolicyTable;
use super::{ChainId, EndpointSlot, Slot, compile};
use crate::{Address, Direction};

/// Compiles chains, and keeps what is compiled: a change costs what it touches.
///
/// Used by the control thread alone; workers see the [`PolicyTable`]s.
#[derive(Debug, Default)]
pub struct Compiler {
    /// How often each address was added to each set.
    sets: HashMap<PeerSetId, HashMap<Address, u32>>,
    changed: BTreeSet<PeerSetId>,
    by_content: HashMap<(Direction, Chain), ChainId>,
    /// A chain and how often it was asked for.
    chains: Vec<Option<(Direction, Chain, u32)>>,
}

impl Compiler {
    /// No sets, no chains.
    pub fn new() -> Compiler {
        Compiler::default()
    }

    /// Adds an address to a set. Counted: two pods may share an address for a moment, and the
    /// address is a member until it was removed as often as it was added.
    ///
    /// Takes effect with [`Compiler::settle`].
    pub fn add_member(&mut self, set: PeerSetId, address: Address) {
        let times = self.sets.entry(set).or_default().entry(address);
        let times = times.or_insert(0);
        *times += 1;
        if *times == 1 {
            self.changed.insert(set);
        }
    }

    /// Takes back one [`Compiler::add_member`]; without one it changes nothing.
    pub fn remove_member(&mut self, set: PeerSetId, address: Address) {
        let Some(members) = self.sets.get_mut(&set) else {
            return;
        };
        if let Entry::Occupied(mut times) = members.entry(address) {
            *times.get_mut() -= 1;
            if *times.get() == 0 {
                times.remove();
                self.changed.insert(set);
            }
        }
    }

    /// The chain's number. Equal chains of one direction have the same; it is theirs until it was
    /// released as often as it was given.
    pub fn chain(&mut self, direction: Direction, chain: &Chain) -> ChainId {
        let next = self.chains.iter().position(Option::is_none);
        let next = next.unwrap_or(self.chains.len());
        match self.by_content.entry((direction, chain.clone())) {
            Entry::Occupied(known) => {
                let id = *known.get();
                if let Some(Some((_, _, times))) = self.chains.get_mut(id.0 as usize) {
                    *times += 1;
                }
                id
            }
            Entry::Vacant(new) => {
                let id = *new.insert(ChainId(next as u32));
                if next == self.chains.len() {
                    self.chains.push(None);
                }
                self.chains[next] = Some((direction, chain.clone(), 1));
                id
            }
        }
    }

    /// Takes back one [`Compiler::chain`]; without one it changes nothing.
    pub fn release(&mut self, chain: ChainId) {
        let Some(place) = self.chains.get_mut(chain.0 as usize) else {
            return;
        };
        if let Some((direction, chain, times)) = place {
            *times -= 1;
            if *times == 0 {
                self.by_content.remove(&(*direction, chain.clone()));
                *place = None;
            }
        }
    }

    /// Applies the changes of membership since the last time. Returns the chains that now mean
    /// something else for some address: flows of their endpoints are to be decided again.
    pub fn settle(&mut self) -> Vec<ChainId> {
        let changed = std::mem::take(&mut self.changed);
        let uses = |rule: &Arc<Rule>| match &rule.peers {
            Peers::Any => false,
            Peers::Of { sets, .. } => sets.iter().any(|set| changed.contains(set)),
        };
        let chains = (0..).map(ChainId).zip(&self.chains);
        let chains = chains.filter_map(|(id, chain)| Some((id, chain.as_ref()?)));
        chains
            .filter(|(_, (_, chain, _))| chain.rules.iter().any(uses))
            .map(|(id, _)| id)
            .collect()
    }

    /// A table of these endpoints' chains, as of the last [`Compiler::settle`].
    ///
    /// Each slot is given once. A slot given twice, or with a chain that there is not, accepts
    /// nothing: nobody can say which policy was meant.
    pub fn table(&self, slots: impl Iterator<Item = (EndpointSlot, Slot)>) -> PolicyTable {
        let mut places: Vec<Option<Slot>> = Vec::new();
        let mut given = Vec::new();
        for (EndpointSlot(slot), chains) in slots {
            let slot = usize::from(slot);
            if places.len() <= slot {
                places.resize(slot + 1, None);
                given.resize(slot + 1, false);
            }
            places[slot] = (!given[slot]).then_some(chains);
            given[slot] = true;
        }
        let nothing = (Direction::Egress, Chain::default());
        let resolved: Vec<(Direction, Chain)> = self
            .chains
            .iter()
            .map(|chain| match chain {
                Some((direction, chain, _)) => (*direction, self.resolve(chain)),
                None => nothing.clone(),
            })
            .collect();
        let chains: Vec<(Direction, &Chain)> = resolved.iter().map(|(d, c)| (*d, c)).collect();
        compile::compile(&chains, places)
    }

    /// The chain with blocks in place of sets.
    fn resolve(&self, chain: &Chain) -> Chain {
        let rules = chain.rules.iter().map(|rule| match &rule.peers {
            Peers::Of { sets, blocks } if !sets.is_empty() => {
                let members = sets.iter().filter_map(|set| self.sets.get(set));
                let members = members.flat_map(HashMap::keys).map(|member| Block {
                    prefix: IpNet::from(member.to_ip()),
                    except: Vec::new(),
                });
                let all: Vec<Block> = blocks.iter().cloned().chain(members).collect();
                Arc::new(Rule {
                    peers: Peers::blocks(all),
                    ..Rule::clone(rule)
                })
            }
            _ => rule.clone(),
        });
        Chain {
            rules: rules.collect(),
            ..chain.clone()
        }
    }
}
