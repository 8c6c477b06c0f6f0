//! Verdicts and where they come from.

use std::fmt;

/// The direction of a policy decision, seen from the endpoint whose policy decides.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Direction {
    /// What the endpoint sends.
    Egress = 0,
    /// What the endpoint receives.
    Ingress = 1,
}

/// The tiers, in the order in which they decide.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Tier {
    /// Security groups that the endpoint is bound to. They only deny: what a group lets pass the
    /// next tiers decide.
    SecurityGroup = 0,
    /// ClusterNetworkPolicy's `Admin`.
    Admin = 1,
    /// `networking.k8s.io` NetworkPolicy.
    NetworkPolicy = 2,
    /// ClusterNetworkPolicy's `Baseline`.
    Baseline = 3,
    /// No policy decided: accept.
    Default = 4,
}

impl Tier {
    /// Two bits. [`Tier::Default`] never has a policy and [`Tier::SecurityGroup`] always does, so
    /// they share a number.
    const fn to_bits(self) -> u64 {
        match self {
            Tier::Admin => 0,
            Tier::NetworkPolicy => 1,
            Tier::Baseline => 2,
            Tier::SecurityGroup | Tier::Default => 3,
        }
    }

    const fn from_bits(bits: u64, has_policy: bool) -> Tier {
        match (bits & 3, has_policy) {
            (0, _) => Tier::Admin,
            (1, _) => Tier::NetworkPolicy,
            (2, _) => Tier::Baseline,
            (_, true) => Tier::SecurityGroup,
            (_, false) => Tier::Default,
        }
    }
}

/// A policy's number: given by the control thread, never used for another policy.
///
/// At most [`PolicyId::MAX`], so that a verdict fits the conntrack word.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PolicyId(pub u32);

impl PolicyId {
    /// The largest number a policy can have.
    pub const MAX: u32 = (1 << 24) - 1;
}

/// Where a verdict comes from.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Provenance {
    /// The direction that decided. An accept by both directions names ingress.
    pub direction: Direction,
    /// The tier that decided.
    pub tier: Tier,
    /// The policy that decided; for a default denial the first that isolates the endpoint, or
    /// binds it to security groups. Always there but in [`Tier::Default`], where it never is.
    pub policy: Option<PolicyId>,
    /// The rule's index in the policy's list for that direction; none where a default decided.
    pub rule: Option<u16>,
}

/// Accept or drop, always with its provenance.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Verdict {
    /// Whether the packet may pass.
    pub accept: bool,
    /// Who says so.
    pub provenance: Provenance,
}

impl Verdict {
    /// Bits that [`Verdict::to_bits`] uses, from bit 0.
    pub const BITS: u32 = 46;

    /// Accepted because no policy applies.
    pub const fn default_accept(direction: Direction) -> Verdict {
        Verdict {
            accept: true,
            provenance: Provenance {
                direction,
                tier: Tier::Default,
                policy: None,
                rule: None,
            },
        }
    }

    /// Whether a pod that reaches itself through a Service is spared this: NetworkPolicy never denies
    /// that, the other tiers may (semantics D7). What is left then is [`Verdict::default_accept`].
    pub fn spares_a_pod_itself(&self) -> bool {
        !self.accept && self.provenance.tier == Tier::NetworkPolicy
    }

    /// The verdict in the low [`Verdict::BITS`] bits of a word:
    /// accept 1, direction 1, tier 2, has-policy 1, policy 24, has-rule 1, rule 16. The tiers are
    /// five: number 3 is [`Tier::SecurityGroup`] with a policy and [`Tier::Default`] without.
    pub const fn to_bits(self) -> u64 {
        let p = self.provenance;
        let (has_policy, policy) = match p.policy {
            Some(PolicyId(id)) => (1, (id & PolicyId::MAX) as u64),
            None => (0, 0),
        };
        let (has_rule, rule) = match p.rule {
            Some(rule) => (1, rule as u64),
            None => (0, 0),
        };
        self.accept as u64
            | (p.direction as u64) << 1
            | p.tier.to_bits() << 2
            | has_policy << 4
            | policy << 5
            | has_rule << 29
            | rule << 30
    }

    /// The verdict that [`Verdict::to_bits`] made; higher bits are ignored.
    pub const fn from_bits(bits: u64) -> Verdict {
        let policy = PolicyId((bits >> 5) as u32 & PolicyId::MAX);
        Verdict {
            accept: bits & 1 != 0,
            provenance: Provenance {
                direction: if bits & 2 == 0 {
                    Direction::Egress
                } else {
                    Direction::Ingress
                },
                tier: Tier::from_bits(bits >> 2, bits & 1 << 4 != 0),
                policy: if bits & 1 << 4 != 0 {
                    Some(policy)
                } else {
                    None
                },
                rule: if bits & 1 << 29 != 0 {
                    Some((bits >> 30) as u16)
                } else {
                    None
                },
            },
        }
    }
}

impl fmt::Debug for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let p = self.provenance;
        f.write_str(if self.accept { "accept" } else { "drop" })?;
        write!(f, " ({:?} {:?}", p.direction, p.tier)?;
        if let Some(policy) = p.policy {
            write!(f, " policy {}", policy.0)?;
        }
        if let Some(rule) = p.rule {
            write!(f, " rule {rule}")?;
        }
        f.write_str(")")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_round_trip_at_the_edges() {
        for accept in [false, true] {
            for direction in [Direction::Egress, Direction::Ingress] {
                let (least, most) = (Some(PolicyId(0)), Some(PolicyId(PolicyId::MAX)));
                for (tier, policies) in [
                    (Tier::SecurityGroup, &[least, most][..]),
                    (Tier::Admin, &[least, most]),
                    (Tier::NetworkPolicy, &[least, most]),
                    (Tier::Baseline, &[least, most]),
                    (Tier::Default, &[None]),
                ] {
                    for &policy in policies {
                        for rule in [None, Some(0), Some(u16::MAX)] {
                            let verdict = Verdict {
                                accept,
                                provenance: Provenance {
                                    direction,
                                    tier,
                                    policy,
                                    rule,
                                },
                            };
                            let bits = verdict.to_bits();
                            assert!(bits >> Verdict::BITS == 0, "{bits:#x}");
                            assert_eq!(Verdict::from_bits(bits | u64::MAX << 46), verdict);
                        }
                    }
                }
            }
        }
    }
}
