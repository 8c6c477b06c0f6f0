//! Namespaces, and the scopes in which selectors look for pods.

use std::collections::HashMap;
use std::sync::Arc;

use super::interned::Interned;
use super::labels::{LabelIndex, Labels};
use crate::selector::Selector;

/// Namespaces that a selector of pods looks into.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Scope {
    /// This one, also while nobody has declared it.
    One(Arc<str>),
    /// Those with such labels.
    Matching(Selector),
}

/// A [`Scope`]'s number as long as anybody uses it.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct ScopeId(u32);

/// The namespaces' labels, and the scopes that somebody uses.
#[derive(Debug, Default)]
pub struct Namespaces {
    declared: HashMap<Arc<str>, Labels>,
    scopes: Interned<Scope>,
    named: HashMap<Arc<str>, ScopeId>,
    matching: LabelIndex<ScopeId>,
}

impl Namespaces {
    /// Takes a namespace's labels; `None` if it is gone. Whether it is in other scopes now.
    pub fn put(&mut self, name: &Arc<str>, labels: Option<Labels>) -> bool {
        let before = self.scopes_of(name);
        match labels {
            Some(labels) => self.declared.insert(name.clone(), labels),
            None => self.declared.remove(name),
        };
        self.scopes_of(name) != before
    }

    /// The scopes that hold a namespace, in ascending order.
    pub fn scopes_of(&self, name: &str) -> Vec<ScopeId> {
        let mut scopes: Vec<ScopeId> = self.named.get(name).copied().into_iter().collect();
        if let Some(labels) = self.declared.get(name) {
            self.matching.matching(labels, |scope| scopes.push(scope));
        }
        scopes.sort_unstable();
        scopes
    }

    /// Whether `scope` holds a namespace.
    pub fn holds(&self, scope: ScopeId, name: &str) -> bool {
        match self.scopes.get(scope.0).map(|scope| &**scope) {
            Some(Scope::One(one)) => **one == *name,
            Some(Scope::Matching(selector)) => {
                let labels = self.declared.get(name);
                labels.is_some_and(|labels| labels.satisfy(selector))
            }
            None => false,
        }
    }

    /// The one namespace of a scope that can hold no other.
    pub fn only(&self, scope: ScopeId) -> Option<&Arc<str>> {
        match &**self.scopes.get(scope.0)? {
            Scope::One(one) => Some(one),
            Scope::Matching(_) => None,
        }
    }

    /// The namespaces in a scope.
    pub fn of(&self, scope: ScopeId) -> Vec<Arc<str>> {
        match self.scopes.get(scope.0).map(|scope| &**scope) {
            Some(Scope::One(one)) => vec![one.clone()],
            Some(Scope::Matching(selector)) => {
                let declared = self.declared.iter();
                let held = declared.filter(|(_, labels)| labels.satisfy(selector));
                held.map(|(name, _)| name.clone()).collect()
            }
            None => Vec::new(),
        }
    }

    /// The scope's number, with one use more.
    pub fn acquire(&mut self, scope: &Scope) -> ScopeId {
        let (number, new) = self.scopes.acquire(scope.clone());
        let id = ScopeId(number);
        match scope {
            _ if !new => {}
            Scope::One(name) => {
                self.named.insert(name.clone(), id);
            }
            Scope::Matching(selector) => self.matching.insert(selector, id),
        }
        id
    }

    /// One use less.
    pub fn release(&mut self, scope: ScopeId) {
        self.scopes.release(scope.0);
    }

    /// Forgets the scopes that nobody uses. Only at the end of a change: their numbers may be given
    /// out again.
    pub fn sweep(&mut self) {
        for (number, scope) in self.scopes.sweep() {
            match &*scope {
                Scope::One(name) => {
                    self.named.remove(name);
                }
                Scope::Matching(selector) => self.matching.remove(selector, ScopeId(number)),
            }
        }
        self.scopes.recycle();
    }
}

/// Items behind selectors of pods, each within a scope.
#[derive(Clone, Debug)]
pub struct Scoped<T>(HashMap<ScopeId, LabelIndex<T>>);

impl<T> Default for Scoped<T> {
    fn default() -> Scoped<T> {
        Scoped(HashMap::new())
    }
}

impl<T: Copy + Eq> Scoped<T> {
    /// Puts an item behind a selector.
    pub fn insert(&mut self, scope: ScopeId, selector: &Selector, item: T) {
        self.0.entry(scope).or_default().insert(selector, item);
    }

    /// Takes an item out from behind a selector.
    pub fn remove(&mut self, scope: ScopeId, selector: &Selector, item: T) {
        if let Some(index) = self.0.get_mut(&scope) {
            index.remove(selector, item);
            if index.is_empty() {
                self.0.remove(&scope);
            }
        }
    }

    /// Tells every item whose selector matches the labels of something in these scopes.
    pub fn matching(&self, scopes: &[ScopeId], labels: &Labels, mut found: impl FnMut(T)) {
        for index in scopes.iter().filter_map(|scope| self.0.get(scope)) {
            index.matching(labels, &mut found);
        }
    }
}
