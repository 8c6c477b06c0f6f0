//! The labels of ServiceAccounts, by which SecurityGroupPolicies pick pods.

use std::collections::HashMap;
use std::sync::Arc;

use super::labels::Labels;
use crate::selector::Selector;

/// Whether a selector picks a pod by its ServiceAccount.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Picks {
    /// It does.
    Yes,
    /// It does not.
    No,
    /// Nobody knows the labels of an account that does not exist: the pod is held, to be closed.
    Unknown,
}

/// ServiceAccounts by namespace and name.
#[derive(Debug, Default)]
pub struct Accounts(HashMap<Arc<str>, HashMap<Arc<str>, Labels>>);

impl Accounts {
    /// Takes an account's labels; `None` if it is gone. Whether they have changed.
    pub fn put(&mut self, namespace: &Arc<str>, name: &Arc<str>, labels: Option<Labels>) -> bool {
        let accounts = self.0.entry(namespace.clone()).or_default();
        let before = match &labels {
            Some(labels) => accounts.insert(name.clone(), labels.clone()),
            None => accounts.remove(name),
        };
        if accounts.is_empty() {
            self.0.remove(namespace);
        }
        before != labels
    }

    /// Whether `selector` picks the pods of an account. Every namespace has the account `default`,
    /// without labels unless it is declared with some.
    pub fn picks(&self, selector: &Selector, namespace: &str, name: &str) -> Picks {
        let declared = self.0.get(namespace).and_then(|own| own.get(name));
        let fits = match declared {
            _ if selector.requirements().is_empty() => true,
            Some(labels) => labels.satisfy(selector),
            None if name == "default" => Labels::default().satisfy(selector),
            None => return Picks::Unknown,
        };
        if fits { Picks::Yes } else { Picks::No }
    }
}
