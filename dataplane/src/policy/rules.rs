//! A chain's rules, made ready: which of them can match at all, by what they look for, what each
//! decides, and the line of ports of any peer that one asks for.
//!
//! Rules that only let traffic go on (a `Pass`, a security group's) are no part of the verdict, but
//! they are counted: where one of them has its say, the place's decision is one that counts for it
//! too ([`Compounds`]). Such decisions come up with the lines that need them.

use std::sync::Arc;

use hashbrown::HashMap;

use super::compounds::{Combination, Compounds};
use super::ir::{Action, Block, Chain, Isolation, PeerSetId, Peers, Ports, Rule};
use super::nodes::Stretch;
use super::paint::{Colour, Painter};
use super::ports::{self, END};
use super::{Decision, naive};
use crate::{CounterId, Direction, Tier};

/// The tiers that have rules, in order.
const TIERS: [Tier; 4] = [
    Tier::SecurityGroup,
    Tier::Admin,
    Tier::NetworkPolicy,
    Tier::Baseline,
];

/// The rules of one chain.
#[derive(Debug)]
pub(super) struct Rules {
    rules: Vec<Ready>,
    /// The places of all rules' ports.
    places: Vec<(u32, u32)>,
    /// By what the peers are, the positions in `rules`, rising: whoever they are, by a list of
    /// `lists`, by a set of `sets`.
    any: Vec<u32>,
    by_list: Vec<Vec<u32>>,
    by_set: Vec<Vec<u32>>,
    /// Distinct lists of blocks that rules name.
    pub(super) lists: Vec<Arc<[Block]>>,
    /// Distinct sets that rules name.
    pub(super) sets: Vec<PeerSetId>,
    /// What rules and defaults decide, by number; then the same for more counters.
    pub(super) decisions: Vec<Decision>,
    /// The numbers of the latter, and what was acquired for them.
    combined: HashMap<(u32, Combination), u32>,
    /// What each of [`TIERS`] does where none of its rules matched.
    defaults: [Option<u32>; TIERS.len()],
    /// The decision where nothing decides.
    accepted: u32,
}

/// A rule that can match something.
#[derive(Debug)]
struct Ready {
    /// Index into [`TIERS`].
    tier: usize,
    /// It matches whatever port, so that nothing behind it in its tier counts.
    is_last: bool,
    colour: Colour,
    /// Its part of [`Rules::places`].
    places: (u32, u32),
    /// Its counter, if it lets traffic go on and has one.
    passing: CounterId,
}

/// Buffers for [`Rules::line`], and for who looks whether there is one already.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    pub(super) signature: Vec<u32>,
    holding: Vec<u32>,
    painter: Painter,
    line: Vec<Stretch>,
    /// By tier, the counters of the rules that let traffic go on, as a line.
    passing: [Vec<Stretch>; TIERS.len()],
    combined: Vec<Stretch>,
}

impl Rules {
    /// Makes the rules of a chain ready.
    ///
    /// SecurityGroup rules count only if something binds, NetworkPolicy rules only if a policy
    /// isolates, Baseline rules only if none does.
    pub(super) fn new(direction: Direction, chain: &Chain) -> Rules {
        let mut numbering = Numbering::default();
        let accepted = numbering.number(naive::accepted(direction));
        let counts = |tier| match tier {
            Tier::SecurityGroup => !chain.bound.is_empty(),
            Tier::Admin => true,
            Tier::NetworkPolicy => !chain.isolating.is_empty(),
            Tier::Baseline => chain.isolating.is_empty(),
            Tier::Default => false,
        };
        let mut default = |tier, first: Option<&Isolation>| {
            first.map(|&first| numbering.number(naive::by_default(first, tier, direction)))
        };
        let defaults = [
            default(Tier::SecurityGroup, chain.bound.first()),
            None,
            default(Tier::NetworkPolicy, chain.isolating.first()),
            None,
        ];
        let mut made = Rules {
            rules: Vec::with_capacity(chain.rules.len()),
            places: Vec::new(),
            any: Vec::new(),
            by_list: Vec::new(),
            by_set: Vec::new(),
            lists: Vec::new(),
            sets: Vec::new(),
            decisions: Vec::new(),
            combined: HashMap::new(),
            defaults,
            accepted,
        };
        let mut seen = Seen::default();
        for (at, tier) in TIERS
            .into_iter()
            .enumerate()
            .filter(|&(_, tier)| counts(tier))
        {
            for rule in chain.rules.iter().filter(|rule| rule.tier == tier) {
                let first = made.places.len() as u32;
                made.places.extend(ports::places(&rule.ports));
                let end = made.places.len() as u32;
                if first == end {
                    continue;
                }
                made.index(&rule.peers, &mut seen);
                made.rules.push(Ready {
                    tier: at,
                    is_last: rule.ports == Ports::Any,
                    colour: match passes(rule) {
                        true => Colour::Pass,
                        false => {
                            Colour::Decision(numbering.number(naive::by_rule(rule, direction)))
                        }
                    },
                    places: (first, end),
                    passing: match passes(rule) {
                        true => rule.counter,
                        false => CounterId::NONE,
                    },
                });
            }
        }
        made.decisions = numbering.decisions;
        made
    }

    /// Notes what the next rule's peers are.
    fn index(&mut self, peers: &Peers, seen: &mut Seen) {
        let position = self.rules.len() as u32;
        let Peers::Of { sets, blocks } = peers else {
            self.any.push(position);
            return;
        };
        for &set in sets.iter() {
            let place = *seen.sets.entry(set).or_insert_with(|| {
                self.sets.push(set);
                self.by_set.push(Vec::new());
                self.sets.len() - 1
            });
            self.by_set[place].push(position);
        }
        if !blocks.is_empty() {
            let place = *seen.lists.entry(blocks.as_ptr().addr()).or_insert_with(|| {
                self.lists.push(blocks.clone());
                self.by_list.push(Vec::new());
                self.lists.len() - 1
            });
            self.by_list[place].push(position);
        }
    }

    /// The line of ports of peers that are in these of [`Rules::lists`] and of [`Rules::sets`].
    pub(super) fn line<'s>(
        &mut self,
        lists: &[u32],
        sets: &[u32],
        scratch: &'s mut Scratch,
        compounds: &mut Compounds,
    ) -> &'s [Stretch] {
        let holding = &mut scratch.holding;
        holding.clear();
        holding.extend(&self.any);
        for &list in lists {
            holding.extend(&self.by_list[list as usize]);
        }
        for &set in sets {
            holding.extend(&self.by_set[set as usize]);
        }
        holding.sort_unstable();
        holding.dedup();
        self.drop_unreachable(holding);
        let passing = |&position: &u32| self.rules[position as usize].passing;
        if holding.iter().map(passing).all(|c| c == CounterId::NONE) {
            return self.paint(holding, &mut scratch.painter);
        }
        let painter = &mut scratch.painter;
        scratch.line.clear();
        scratch.line.extend(self.paint(holding, painter));
        for (tier, line) in scratch.passing.iter_mut().enumerate() {
            line.clear();
            line.extend(self.paint_passing(tier, holding, painter));
        }
        self.combine(scratch, compounds);
        &scratch.combined
    }

    /// Whether each place is accepted or denied, by whom.
    fn paint<'p>(&self, mut holding: &[u32], painter: &'p mut Painter) -> &'p [Stretch] {
        let places = |position: &u32| {
            let (first, end) = self.rules[*position as usize].places;
            self.places[first as usize..end as usize].iter().copied()
        };
        painter.begin(holding.iter().flat_map(places));
        for (tier, default) in self.defaults.into_iter().enumerate() {
            let behind = holding.partition_point(|&p| self.rules[p as usize].tier <= tier);
            let (own, rest) = holding.split_at(behind);
            holding = rest;
            if own.is_empty() && default.is_none() {
                continue;
            }
            painter.tier();
            for position in own {
                let colour = self.rules[*position as usize].colour;
                places(position).for_each(|(first, end)| painter.paint(first, end, colour));
            }
            if let Some(default) = default {
                painter.paint(0, END, Colour::Decision(default));
            }
        }
        painter.finish(self.accepted)
    }

    /// For each place the number of the counter of the tier's first match, if that lets traffic go
    /// on; [`CounterId::NONE`]'s otherwise.
    fn paint_passing<'p>(
        &self,
        tier: usize,
        holding: &[u32],
        painter: &'p mut Painter,
    ) -> &'p [Stretch] {
        let rules = holding.iter().map(|&p| &self.rules[p as usize]);
        let of_tier = rules.filter(|rule| rule.tier == tier);
        let passes = of_tier.clone().any(|rule| rule.passing != CounterId::NONE);
        let own = || of_tier.clone().filter(|_| passes);
        let places = |rule: &Ready| {
            let (first, end) = rule.places;
            self.places[first as usize..end as usize].iter().copied()
        };
        painter.begin(own().flat_map(places));
        painter.tier();
        for rule in own() {
            let colour = Colour::Decision(rule.passing.0);
            places(rule).for_each(|(first, end)| painter.paint(first, end, colour));
        }
        painter.finish(CounterId::NONE.0)
    }

    /// Joins the line with those of the rules that let traffic go on.
    fn combine(&mut self, scratch: &mut Scratch, compounds: &mut Compounds) {
        let Scratch {
            line,
            passing,
            combined,
            ..
        } = scratch;
        combined.clear();
        let mut ahead = passing.each_ref().map(|line| &line[..]);
        for &(end, decision) in line.iter() {
            let decided_in = self.decisions[decision as usize].verdict.provenance.tier;
            loop {
                let last = ahead.iter().map(|line| line[0].0).fold(end, u32::min);
                // Behind what decided, nobody is asked.
                let asked = TIERS.iter().zip(&ahead);
                let asked = asked.filter(|&(tier, _)| *tier < decided_in);
                let counters = asked.map(|(_, line)| CounterId(line[0].1));
                let number = self.combined(decision, counters, compounds);
                match combined.last_mut() {
                    Some(before) if before.1 == number => before.0 = last,
                    _ => combined.push((last, number)),
                }
                for line in &mut ahead {
                    // The last stretches all end where the line of ports does.
                    if line[0].0 == last && line.len() > 1 {
                        *line = &line[1..];
                    }
                }
                if last == end {
                    break;
                }
            }
        }
    }

    /// The number of a decision that counts for these rules too.
    fn combined(
        &mut self,
        decision: u32,
        passing: impl Iterator<Item = CounterId>,
        compounds: &mut Compounds,
    ) -> u32 {
        let decided = self.decisions[decision as usize];
        let combination = Combination::new(std::iter::once(decided.counter).chain(passing));
        if combination
            .members()
            .all(|member| member == decided.counter)
        {
            return decision;
        }
        if let Some(&known) = self.combined.get(&(decision, combination)) {
            return known;
        }
        let combined = Decision {
            counter: compounds.acquire(combination),
            ..decided
        };
        // One that counts for a single member may be there already.
        let is_single = combination.members().any(|m| m == combined.counter);
        let mut known = self.decisions.iter().filter(|_| is_single);
        let known = known.position(|known| *known == combined);
        let number = known.unwrap_or_else(|| {
            self.decisions.push(combined);
            self.decisions.len() - 1
        }) as u32;
        self.combined.insert((decision, combination), number);
        number
    }

    /// Gives back the counters that were acquired for lines.
    pub(super) fn release(&self, compounds: &mut Compounds) {
        for (_, combination) in self.combined.keys() {
            compounds.release(*combination);
        }
    }

    /// Drops the rules behind one that takes all that reaches it: it is the last of its tier. Not
    /// of the chain, even if it accepts or denies: what an earlier rule for some ports passed on
    /// is still to be decided by the next tier.
    fn drop_unreachable(&self, holding: &mut Vec<u32>) {
        let mut closed = None;
        holding.retain(|&position| {
            let rule = &self.rules[position as usize];
            if closed == Some(rule.tier) {
                return false;
            }
            if rule.is_last {
                closed = Some(rule.tier);
            }
            true
        });
    }
}

/// Whether a match leaves the decision to the next tiers.
const fn passes(rule: &Rule) -> bool {
    match rule.tier {
        Tier::SecurityGroup => true,
        Tier::NetworkPolicy => false,
        _ => matches!(rule.action, Action::Pass),
    }
}

/// Places of sets and of lists, the latter by where they lie in memory: rules of one policy share
/// theirs, and comparing 100,000 blocks for each rule would cost more than all else.
#[derive(Default)]
struct Seen {
    sets: HashMap<PeerSetId, usize>,
    lists: HashMap<usize, usize>,
}

/// Equal decisions once.
#[derive(Default)]
struct Numbering {
    decisions: Vec<Decision>,
    known: HashMap<Decision, u32>,
}

impl Numbering {
    fn number(&mut self, decision: Decision) -> u32 {
        *self.known.entry(decision).or_insert_with(|| {
            self.decisions.push(decision);
            self.decisions.len() as u32 - 1
        })
    }
}
