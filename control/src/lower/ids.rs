//! The numbers of policies.

use std::collections::HashMap;

use dataplane::PolicyId;

use crate::objects::Object;

/// A policy's names, for people.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub struct PolicyName {
    /// `NetworkPolicy`.
    pub kind: &'static str,
    /// Its namespace; empty for kinds that have none.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID: another policy of that name has another number.
    pub uid: String,
}

impl PolicyName {
    /// An object's.
    pub fn of(object: &Object) -> PolicyName {
        PolicyName {
            kind: object.kind().kind,
            namespace: object.namespace().to_owned(),
            name: object.name().to_owned(),
            uid: object.uid().to_owned(),
        }
    }
}

/// The numbers of policies. A number is never given to another policy, so that a verdict kept in
/// a conntrack entry or a log record is never read as another's.
#[derive(Clone, Debug, Default)]
pub struct PolicyIds {
    by_name: HashMap<PolicyName, PolicyId>,
    names: Vec<PolicyName>,
}

/// All [`PolicyId`]s have been given out.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
#[error(
    "{} policies have been numbered since the state directory was made; start with a new one",
    PolicyId::MAX
)]
pub struct OutOfPolicyIds;

impl PolicyIds {
    /// No numbers yet.
    pub fn new() -> PolicyIds {
        PolicyIds::default()
    }

    /// The registry whose numbers are these names' positions: what [`PolicyIds::names`] gave, from
    /// a journal.
    pub fn restore(names: Vec<PolicyName>) -> PolicyIds {
        let numbered = names.iter().cloned().enumerate();
        PolicyIds {
            by_name: numbered
                .map(|(at, name)| (name, PolicyId(at as u32)))
                .collect(),
            names,
        }
    }

    /// Every policy that ever had a number, by number.
    pub fn names(&self) -> &[PolicyName] {
        &self.names
    }

    /// Who has this number.
    pub fn name(&self, id: PolicyId) -> Option<&PolicyName> {
        self.names.get(id.0 as usize)
    }

    /// The policy's number, if it has one.
    pub fn find(&self, name: &PolicyName) -> Option<PolicyId> {
        self.by_name.get(name).copied()
    }

    /// The policy's number; a new one if it has none.
    pub fn id(&mut self, name: PolicyName) -> Result<PolicyId, OutOfPolicyIds> {
        if let Some(&id) = self.by_name.get(&name) {
            return Ok(id);
        }
        // The last number stands for "no policy at all" (an endpoint without a pod).
        if self.names.len() >= PolicyId::MAX as usize {
            return Err(OutOfPolicyIds);
        }
        let id = PolicyId(self.names.len() as u32);
        self.names.push(name.clone());
        self.by_name.insert(name, id);
        Ok(id)
    }

    /// Takes the newest numbers back, which nobody has been told: all from `count` on.
    pub fn truncate(&mut self, count: usize) {
        for name in self.names.drain(count.min(self.names.len())..) {
            self.by_name.remove(&name);
        }
    }
}
