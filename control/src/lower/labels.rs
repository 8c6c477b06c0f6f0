//! Labels, and an index that finds the selectors which match them without looking at every one.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::objects::Object;
use crate::selector::{Selector, Test};

/// An object's labels, by key.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Labels(Vec<(String, String)>);

impl Labels {
    /// Those of an object.
    pub fn of(object: &Object) -> Labels {
        let own = |(key, value): (&str, &str)| (key.to_owned(), value.to_owned());
        let mut labels: Vec<_> = object.labels().map(own).collect();
        labels.sort_unstable();
        Labels(labels)
    }

    /// One label's value.
    pub fn get(&self, key: &str) -> Option<&str> {
        let at = self
            .0
            .binary_search_by(|(known, _)| known.as_str().cmp(key));
        at.ok().map(|at| self.0[at].1.as_str())
    }

    /// All of them, by key.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// Whether `selector` matches them.
    pub fn satisfy(&self, selector: &Selector) -> bool {
        selector.matches(|key| self.get(key))
    }
}

/// What labels must have at least for a selector to match them.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Anchor<'a> {
    /// The key with one of the values.
    Values(&'a str, &'a [String]),
    /// The key.
    Key(&'a str),
    /// Nothing in particular.
    Anywhere,
    /// No labels will do.
    Nowhere,
}

impl Anchor<'_> {
    /// The narrowest anchor that one requirement of `selector` gives.
    pub fn of(selector: &Selector) -> Anchor<'_> {
        let mut found = Anchor::Anywhere;
        for requirement in selector.requirements() {
            let key = requirement.key.as_str();
            found = match (&requirement.test, found) {
                (Test::Never, _) => return Anchor::Nowhere,
                (Test::In(values), Anchor::Values(_, known)) if values.len() >= known.len() => {
                    found
                }
                (Test::In(values), _) => Anchor::Values(key, values),
                (Test::Exists, Anchor::Anywhere) => Anchor::Key(key),
                _ => found,
            };
        }
        found
    }
}

/// Items behind selectors. Looking up those whose selectors match some labels costs what the labels
/// and the selectors anchored at them cost, however many others there are.
#[derive(Clone, Debug)]
pub struct LabelIndex<T> {
    anchored: HashMap<String, Keyed<T>>,
    anywhere: Vec<(Selector, T)>,
}

/// The selectors that require one key.
#[derive(Clone, Debug)]
struct Keyed<T> {
    /// By a value that they take. One that takes several stands here several times; labels have
    /// only one of them.
    with_value: HashMap<String, Vec<(Selector, T)>>,
    with_any: Vec<(Selector, T)>,
}

impl<T> Default for Keyed<T> {
    fn default() -> Keyed<T> {
        Keyed {
            with_value: HashMap::new(),
            with_any: Vec::new(),
        }
    }
}

impl<T> Default for LabelIndex<T> {
    fn default() -> LabelIndex<T> {
        LabelIndex {
            anchored: HashMap::new(),
            anywhere: Vec::new(),
        }
    }
}

impl<T: Copy + Eq> LabelIndex<T> {
    /// Puts an item behind a selector.
    pub fn insert(&mut self, selector: &Selector, item: T) {
        let entry = || (selector.clone(), item);
        match Anchor::of(selector) {
            Anchor::Values(key, values) => {
                let keyed = self.anchored.entry(key.to_owned()).or_default();
                for value in values {
                    let place = keyed.with_value.entry(value.clone());
                    place.or_default().push(entry());
                }
            }
            Anchor::Key(key) => {
                let keyed = self.anchored.entry(key.to_owned()).or_default();
                keyed.with_any.push(entry());
            }
            Anchor::Anywhere => self.anywhere.push(entry()),
            Anchor::Nowhere => {}
        }
    }

    /// Takes an item out from behind a selector.
    pub fn remove(&mut self, selector: &Selector, item: T) {
        match Anchor::of(selector) {
            Anchor::Values(key, values) => {
                let Some(keyed) = self.anchored.get_mut(key) else {
                    return;
                };
                for value in values {
                    if let Entry::Occupied(mut place) = keyed.with_value.entry(value.clone()) {
                        take(place.get_mut(), item);
                        if place.get().is_empty() {
                            place.remove();
                        }
                    }
                }
                self.drop_if_empty(key);
            }
            Anchor::Key(key) => {
                if let Some(keyed) = self.anchored.get_mut(key) {
                    take(&mut keyed.with_any, item);
                }
                self.drop_if_empty(key);
            }
            Anchor::Anywhere => take(&mut self.anywhere, item),
            Anchor::Nowhere => {}
        }
    }

    fn drop_if_empty(&mut self, key: &str) {
        let empty = |keyed: &Keyed<T>| keyed.with_value.is_empty() && keyed.with_any.is_empty();
        if self.anchored.get(key).is_some_and(empty) {
            self.anchored.remove(key);
        }
    }

    /// Tells every item whose selector matches.
    pub fn matching(&self, labels: &Labels, mut found: impl FnMut(T)) {
        let mut look = |entries: &[(Selector, T)]| {
            for (selector, item) in entries {
                if labels.satisfy(selector) {
                    found(*item);
                }
            }
        };
        look(&self.anywhere);
        for (key, value) in labels.iter() {
            if let Some(keyed) = self.anchored.get(key) {
                look(&keyed.with_any);
                if let Some(entries) = keyed.with_value.get(value) {
                    look(entries);
                }
            }
        }
    }

    /// Whether there is no item.
    pub fn is_empty(&self) -> bool {
        self.anchored.is_empty() && self.anywhere.is_empty()
    }
}

fn take<T: Eq>(entries: &mut Vec<(Selector, T)>, item: T) {
    if let Some(at) = entries.iter().position(|(_, known)| *known == item) {
        entries.swap_remove(at);
    }
}

/// Items by their labels: the other way round, for a selector that has just come.
#[derive(Clone, Debug)]
pub struct Labelled<T>(HashMap<String, HashMap<String, Vec<T>>>);

impl<T> Default for Labelled<T> {
    fn default() -> Labelled<T> {
        Labelled(HashMap::new())
    }
}

impl<T: Copy + Eq> Labelled<T> {
    /// Puts an item behind its labels.
    pub fn insert(&mut self, labels: &Labels, item: T) {
        for (key, value) in labels.iter() {
            let values = self.0.entry(key.to_owned()).or_default();
            values.entry(value.to_owned()).or_default().push(item);
        }
    }

    /// Takes an item out from behind its labels.
    pub fn remove(&mut self, labels: &Labels, item: T) {
        for (key, value) in labels.iter() {
            let Some(values) = self.0.get_mut(key) else {
                continue;
            };
            if let Some(items) = values.get_mut(value) {
                items.retain(|known| *known != item);
                if items.is_empty() {
                    values.remove(value);
                }
            }
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    /// All that `selector` can match, and perhaps more; `None` where it does not narrow them down.
    pub fn candidates(&self, selector: &Selector) -> Option<Vec<T>> {
        let of = |key| self.0.get(key);
        match Anchor::of(selector) {
            Anchor::Values(key, values) => {
                let lists = values.iter().filter_map(|value| of(key)?.get(value));
                Some(lists.flatten().copied().collect())
            }
            Anchor::Key(key) => {
                let lists = of(key).into_iter().flat_map(HashMap::values);
                Some(lists.flatten().copied().collect())
            }
            Anchor::Anywhere => None,
            Anchor::Nowhere => Some(Vec::new()),
        }
    }
}
