//! A decision in twelve bytes, as tables hold it.

use super::Decision;
use crate::{CounterId, Direction, PolicyId, Provenance, Tier, Verdict};

/// Bits that a word leaves to whoever keeps it among others.
pub(super) const SPARE: u32 = 2;

/// What fits in a word beside them.
const MASK: u32 = u32::MAX >> SPARE;

/// Words of a decision.
pub(super) const WORDS: usize = 3;

/// A decision in words whose upper [`SPARE`] bits are not used: the policy's number; the rule's
/// index with the rest; the counter's number.
pub(super) type Packed = [u32; WORDS];

// In the second word, above the rule's index.
const ACCEPT: u32 = 1 << 16;
const HAS_POLICY: u32 = 1 << 17;
const HAS_RULE: u32 = 1 << 18;
/// One bit.
const DIRECTION: u32 = 19;
/// Three bits.
const TIER: u32 = 20;

const _: () = assert!(PolicyId::MAX <= MASK && CounterId::MAX <= MASK);

/// Packs a decision.
pub(super) const fn pack(decision: Decision) -> Packed {
    let Decision {
        verdict: Verdict { accept, provenance },
        counter: CounterId(counter),
    } = decision;
    let Provenance {
        direction,
        tier,
        policy,
        rule,
    } = provenance;
    let (has_policy, policy) = match policy {
        Some(PolicyId(policy)) => (HAS_POLICY, policy),
        None => (0, 0),
    };
    let (has_rule, rule) = match rule {
        Some(rule) => (HAS_RULE, rule as u32),
        None => (0, 0),
    };
    let accept = if accept { ACCEPT } else { 0 };
    let direction = (direction as u32) << DIRECTION;
    let flags = accept | direction | (tier as u32) << TIER | has_policy | has_rule;
    [policy & MASK, rule | flags, counter & MASK]
}

/// The decision. The spare bits may be anything.
#[inline]
pub(super) const fn unpack(packed: &Packed) -> Decision {
    let &[policy, flags, counter] = packed;
    let provenance = Provenance {
        direction: match flags >> DIRECTION & 1 {
            0 => Direction::Egress,
            _ => Direction::Ingress,
        },
        // The numbers are the enumeration's own, so that it takes no branch.
        tier: match flags >> TIER & 7 {
            0 => Tier::SecurityGroup,
            1 => Tier::Admin,
            2 => Tier::NetworkPolicy,
            3 => Tier::Baseline,
            _ => Tier::Default,
        },
        policy: match flags & HAS_POLICY {
            0 => None,
            _ => Some(PolicyId(policy & MASK)),
        },
        rule: match flags & HAS_RULE {
            0 => None,
            _ => Some(flags as u16),
        },
    };
    Decision {
        verdict: Verdict {
            accept: flags & ACCEPT != 0,
            provenance,
        },
        counter: CounterId(counter & MASK),
    }
}

/// The decisions of these numbers, told apart by their counters.
#[cfg(test)]
pub(super) fn decisions(count: u32) -> Vec<Packed> {
    let decision = |number| Decision {
        counter: CounterId(number),
        ..super::naive::accepted(Direction::Ingress)
    };
    (0..count).map(|number| pack(decision(number))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_decision_is_what_it_was_whatever_the_spare_bits() {
        let verdict = |tier, policy, rule| Verdict {
            accept: rule == Some(0),
            provenance: Provenance {
                direction: Direction::Ingress,
                tier,
                policy,
                rule,
            },
        };
        for verdict in [
            Verdict::default_accept(Direction::Egress),
            verdict(
                Tier::NetworkPolicy,
                Some(PolicyId(PolicyId::MAX)),
                Some(u16::MAX),
            ),
            verdict(Tier::Admin, Some(PolicyId(0)), Some(0)),
            verdict(Tier::SecurityGroup, Some(PolicyId(1 << 23)), None),
            verdict(Tier::Default, None, None),
        ] {
            for counter in [0, 1, CounterId::MAX].map(CounterId) {
                let decision = Decision { verdict, counter };
                let packed = pack(decision);
                assert_eq!(unpack(&packed), decision);
                assert!(packed.iter().all(|&word| word <= MASK));
                assert_eq!(unpack(&packed.map(|word| word | !MASK)), decision);
            }
        }
    }
}
