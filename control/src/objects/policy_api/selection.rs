//! Label selectors of which nothing is overlooked.

use std::collections::BTreeMap;
use std::ops::Deref;

use k8s_openapi::apimachinery::pkg::apis::meta::v1 as meta;
use serde::{Deserialize, Deserializer};

use super::api_struct;

/// The operator of the requirement that stands for what cannot be read. No reader of selectors
/// knows it, so that each takes the selector for one that cannot be read as a whole.
const UNKNOWN: &str = "unknown member";

/// A `metav1.LabelSelector` in a policy. An unknown member of it narrows in a newer API (or an
/// older one: `namespaces: {sameLabels: …}`) what it selects; without it the rest would select too
/// much. So it is kept as a requirement that nobody can read.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct Selection {
    selector: meta::LabelSelector,
    unknown: Vec<String>,
}

impl Selection {
    /// Paths below the selector of members that this version of the API does not have.
    pub fn unknown(&self) -> &[String] {
        &self.unknown
    }

    /// The members that are known, as they were written.
    pub fn known(&self) -> meta::LabelSelector {
        let mut selector = self.selector.clone();
        if let Some(expressions) = selector.match_expressions.as_mut()
            && !self.unknown.is_empty()
        {
            expressions.pop();
        }
        selector
    }
}

/// With what is unknown as a requirement.
impl Deref for Selection {
    type Target = meta::LabelSelector;

    fn deref(&self) -> &meta::LabelSelector {
        &self.selector
    }
}

impl<'de> Deserialize<'de> for Selection {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Selection, D::Error> {
        let written = LabelSelector::deserialize(deserializer)?;
        let mut unknown = written.unknown;
        let mut expressions = Vec::new();
        let any = written.match_expressions.is_some();
        for (index, one) in written.match_expressions.into_iter().flatten().enumerate() {
            let below = one.unknown.iter();
            unknown.extend(below.map(|name| format!("matchExpressions[{index}].{name}")));
            expressions.push(meta::LabelSelectorRequirement {
                key: one.key,
                operator: one.operator,
                values: one.values,
            });
        }
        if let Some(first) = unknown.first() {
            expressions.push(meta::LabelSelectorRequirement {
                key: first.clone(),
                operator: UNKNOWN.to_owned(),
                values: None,
            });
        }
        let any = any || !unknown.is_empty();
        let selector = meta::LabelSelector {
            match_expressions: any.then_some(expressions),
            match_labels: written.match_labels,
        };
        Ok(Selection { selector, unknown })
    }
}

api_struct! {
    /// As it is written.
    struct LabelSelector {
        match_expressions: Option<Vec<LabelSelectorRequirement>> = "matchExpressions",
        match_labels: Option<BTreeMap<String, String>> = "matchLabels",
    }
}

api_struct! {
    /// As it is written.
    struct LabelSelectorRequirement {
        key: String = "key",
        operator: String = "operator",
        values: Option<Vec<String>> = "values",
    }
}
