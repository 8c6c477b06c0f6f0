//! What an object says as a policy, read once: every kind of policy becomes a [`Draft`], which
//! depends on that object alone. What it means for packets depends on the pods there are.

use std::sync::Arc;

use dataplane::policy::ir::{Action, Block};
use dataplane::{Direction, Tier};

use super::namespaces::Scope;
use super::ports::DraftPorts;
use crate::objects::Object;
use crate::selector::Selector;

/// The annotation that takes a policy out of what is enforced.
pub const MODE: &str = "weir.dev/mode";
/// Its one value. Any other leaves the policy enforced.
pub const AUDIT: &str = "audit";

/// A policy as its object says.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Draft {
    /// Its place among the policies of a pod.
    pub order: Order,
    /// It only reports what it would do.
    pub audit: bool,
    /// Whom it is about.
    pub subject: Subject,
    /// The security groups that it puts its subjects into.
    pub groups: Vec<Arc<str>>,
    /// What its subjects may receive.
    pub ingress: DraftChain,
    /// What its subjects may send.
    pub egress: DraftChain,
}

impl Draft {
    /// One direction.
    pub fn chain(&self, direction: Direction) -> &DraftChain {
        match direction {
            Direction::Egress => &self.egress,
            Direction::Ingress => &self.ingress,
        }
    }
}

/// Where a policy stands among others: by tier, priority, kind, namespace and name.
///
/// Where the API leaves the order open (equal priorities) this one is used, so that it never
/// changes by itself.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Order {
    /// Its tier.
    pub tier: Tier,
    /// Lower ones first.
    pub priority: i32,
    /// AdminNetworkPolicies come before ClusterNetworkPolicies of their priority, the
    /// BaselineAdminNetworkPolicy after those of any.
    pub rank: u8,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Order {
    /// The place of an object whose kind knows no priorities.
    pub fn plain(tier: Tier, object: &Object) -> Order {
        Order {
            tier,
            priority: 0,
            rank: 0,
            namespace: object.key().namespace.clone(),
            name: object.key().name.clone(),
        }
    }
}

/// Whom a policy is about. Pods on the host network are nobody's subjects.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Subject {
    /// Pods that are picked.
    Pods {
        /// Where.
        scope: Scope,
        /// By their labels.
        selector: Selector,
        /// And by those of their ServiceAccount.
        account: Option<Selector>,
    },
    /// Pods that are in a security group.
    Group(Arc<str>),
}

/// One direction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct DraftChain {
    /// Without a match in its tier its subjects' traffic is dropped.
    pub isolates: bool,
    /// The rules, in order.
    pub rules: Vec<DraftRule>,
}

/// One rule.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DraftRule {
    /// What a match means.
    pub action: Action,
    /// The other end.
    pub peers: DraftPeers,
    /// The destination's port.
    pub ports: DraftPorts,
}

impl DraftRule {
    /// What a rule that we cannot read becomes: one that accepts matches nothing, any other denies
    /// everything.
    pub fn unreadable(action: Action) -> DraftRule {
        match action {
            Action::Accept => DraftRule {
                action,
                peers: DraftPeers::none(),
                ports: DraftPorts::Any,
            },
            Action::Deny | Action::Pass => DraftRule {
                action: Action::Deny,
                peers: DraftPeers::Any,
                ports: DraftPorts::Any,
            },
        }
    }
}

/// A rule's other end. An empty set is a set that matches nothing, never [`DraftPeers::Any`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum DraftPeers {
    /// Everybody, outside the cluster too.
    Any,
    /// Whom one of these holds.
    Of {
        /// By what they are.
        picked: Vec<Picked>,
        /// By address.
        blocks: Arc<[Block]>,
    },
}

impl DraftPeers {
    /// Those picked and those in the blocks.
    pub fn of(picked: Vec<Picked>, mut blocks: Vec<Block>) -> DraftPeers {
        blocks.sort_unstable();
        blocks.dedup();
        DraftPeers::Of {
            picked,
            blocks: blocks.into(),
        }
    }

    /// Matches nothing.
    pub fn none() -> DraftPeers {
        DraftPeers::of(Vec::new(), Vec::new())
    }
}

impl DraftChain {
    /// Whether a rule's peers are members of a security group.
    pub fn names_groups(&self) -> bool {
        let mut all = self.rules.iter().flat_map(|rule| match &rule.peers {
            DraftPeers::Of { picked, .. } => picked.as_slice(),
            DraftPeers::Any => &[],
        });
        all.any(|picked| matches!(picked, Picked::Group(_)))
    }
}

/// Peers whose addresses change without the policy.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Picked {
    /// Pods.
    Pods(Scope, Selector),
    /// Nodes.
    Nodes(Selector),
    /// Pods in a security group.
    Group(Arc<str>),
}

/// Whether a policy only reports what it would do.
pub fn is_audit(object: &Object) -> bool {
    object.annotation(MODE) == Some(AUDIT)
}
