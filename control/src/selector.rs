//! Label selectors (apimachinery `pkg/labels`): `metav1.LabelSelector`, and the text form of
//! `kubectl -l`.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use thiserror::Error;

/// A selector as policies hold it: all requirements must hold; without any it selects everything.
///
/// Comparable, so that equal selectors are resolved once.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default)]
pub struct Selector {
    requirements: Vec<Requirement>,
}

/// One requirement on one key.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Requirement {
    /// The label's key.
    pub key: String,
    /// What must hold of its value.
    pub test: Test,
}

/// What must hold of a label's value.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Test {
    /// The key exists with one of the values.
    In(Vec<String>),
    /// The key is absent, or has none of the values.
    NotIn(Vec<String>),
    /// The key exists.
    Exists,
    /// The key is absent.
    DoesNotExist,
    /// Nothing satisfies it: an operator that we do not know, or one without the values it needs.
    Never,
}

/// Text that is no selector.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("unable to parse requirement: {0}")]
pub struct ParseError(String);

impl Selector {
    /// The API's selector. What validation would refuse selects nothing: an unknown operator, `In`
    /// without values, `Exists` with some.
    pub fn new(selector: &LabelSelector) -> Selector {
        let labels = selector.match_labels.iter().flatten();
        let mut requirements: Vec<Requirement> = labels
            .map(|(key, value)| Requirement {
                key: key.clone(),
                test: Test::In(vec![value.clone()]),
            })
            .collect();
        for expression in selector.match_expressions.iter().flatten() {
            let mut values = expression.values.clone().unwrap_or_default();
            values.sort_unstable();
            values.dedup();
            let test = match (expression.operator.as_str(), values.is_empty()) {
                ("In", false) => Test::In(values),
                ("NotIn", false) => Test::NotIn(values),
                ("Exists", true) => Test::Exists,
                ("DoesNotExist", true) => Test::DoesNotExist,
                _ => Test::Never,
            };
            requirements.push(Requirement {
                key: expression.key.clone(),
                test,
            });
        }
        requirements.sort_unstable();
        requirements.dedup();
        Selector { requirements }
    }

    /// The requirements without those that nobody can read ([`Test::Never`]), and whether there
    /// was any: for those who must not take "cannot be read" for "does not mean me".
    pub fn readable(mut self) -> (Selector, bool) {
        let all = self.requirements.len();
        self.requirements.retain(|r| r.test != Test::Never);
        let unread = self.requirements.len() < all;
        (self, unread)
    }

    /// What both select.
    pub fn and(mut self, other: Selector) -> Selector {
        self.requirements.extend(other.requirements);
        self.requirements.sort_unstable();
        self.requirements.dedup();
        self
    }

    /// The requirements.
    pub fn requirements(&self) -> &[Requirement] {
        &self.requirements
    }

    /// Whether labels satisfy the selector; `get` gives a label's value.
    pub fn matches<'a>(&self, get: impl Fn(&str) -> Option<&'a str>) -> bool {
        self.requirements.iter().all(|requirement| {
            let value = get(&requirement.key);
            match &requirement.test {
                Test::In(values) => value.is_some_and(|v| values.iter().any(|w| w == v)),
                Test::NotIn(values) => value.is_none_or(|v| values.iter().all(|w| w != v)),
                Test::Exists => value.is_some(),
                Test::DoesNotExist => value.is_none(),
                Test::Never => false,
            }
        })
    }

    /// Whether a map of labels satisfies the selector.
    pub fn matches_map(&self, labels: Option<&BTreeMap<String, String>>) -> bool {
        self.matches(|key| labels?.get(key).map(String::as_str))
    }

    /// The text form (`app=web,tier in (a,b),!old`), as `kubectl -l` takes it.
    pub fn parse(text: &str) -> Result<Selector, ParseError> {
        let mut requirements = Vec::new();
        for part in split_requirements(text)? {
            requirements.push(parse_requirement(part)?);
        }
        requirements.sort_unstable();
        Ok(Selector { requirements })
    }
}

/// Splits at commas outside parentheses.
fn split_requirements(text: &str) -> Result<Vec<&str>, ParseError> {
    let mut parts = Vec::new();
    let (mut start, mut open) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '(' if !open => open = true,
            ')' if open => open = false,
            '(' | ')' => return Err(ParseError(format!("found {c:?} in {text:?}"))),
            ',' if !open => {
                parts.push(text[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if open {
        return Err(ParseError(format!("expected ')' in {text:?}")));
    }
    parts.push(text[start..].trim());
    if parts == [""] {
        parts.clear();
    }
    Ok(parts)
}

fn parse_requirement(part: &str) -> Result<Requirement, ParseError> {
    let requirement = |key: &str, test| {
        let key = key.trim();
        if key.is_empty() || key.contains(char::is_whitespace) {
            return Err(ParseError(format!(
                "found {part:?}, expected a label's key"
            )));
        }
        Ok(Requirement {
            key: key.to_owned(),
            test,
        })
    };
    if let Some(key) = part.strip_prefix('!') {
        return requirement(key, Test::DoesNotExist);
    }
    if let Some((head, list)) = part.split_once('(') {
        let list = list.trim_end().strip_suffix(')');
        let list = list.ok_or_else(|| ParseError(format!("found {part:?}, expected ')' last")))?;
        let values: Vec<String> = list.split(',').map(|v| v.trim().to_owned()).collect();
        let mut words = head.split_whitespace();
        return match (words.next(), words.next(), words.next()) {
            (Some(key), Some("in"), None) => requirement(key, Test::In(values)),
            (Some(key), Some("notin"), None) => requirement(key, Test::NotIn(values)),
            _ => Err(ParseError(format!("found {part:?}, expected: in, notin"))),
        };
    }
    let value = |text: &str| vec![text.trim().to_owned()];
    if let Some((key, text)) = part.split_once("!=") {
        return requirement(key, Test::NotIn(value(text)));
    }
    if let Some((key, text)) = part.split_once("==").or_else(|| part.split_once('=')) {
        return requirement(key, Test::In(value(text)));
    }
    requirement(part, Test::Exists)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelectorRequirement;

    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let own = |(k, v): &(&str, &str)| ((*k).to_owned(), (*v).to_owned());
        pairs.iter().map(own).collect()
    }

    /// Every operator against every case of a key: absent, empty, listed, not listed.
    #[test]
    fn every_operator_against_every_state_of_a_key() {
        let states = [
            labels(&[]),
            labels(&[("k", "")]),
            labels(&[("k", "a")]),
            labels(&[("k", "z")]),
        ];
        let cases: [(&str, &[&str], [bool; 4]); 8] = [
            ("In", &["a", "b"], [false, false, true, false]),
            ("In", &[""], [false, true, false, false]),
            ("NotIn", &["a", "b"], [true, true, false, true]),
            ("NotIn", &[""], [true, false, true, true]),
            ("Exists", &[], [false, true, true, true]),
            ("DoesNotExist", &[], [true, false, false, false]),
            // What validation refuses selects nothing.
            ("In", &[], [false; 4]),
            ("Equals", &["a"], [false; 4]),
        ];
        for (operator, values, expected) in cases {
            let selector = Selector::new(&LabelSelector {
                match_labels: None,
                match_expressions: Some(vec![LabelSelectorRequirement {
                    key: "k".to_owned(),
                    operator: operator.to_owned(),
                    values: Some(values.iter().map(|v| (*v).to_owned()).collect()),
                }]),
            });
            let found = states.each_ref().map(|l| selector.matches_map(Some(l)));
            assert_eq!(found, expected, "{operator} {values:?}");
        }
        let exact = Selector::new(&LabelSelector {
            match_labels: Some(labels(&[("k", "")])),
            match_expressions: None,
        });
        let found = states.each_ref().map(|l| exact.matches_map(Some(l)));
        assert_eq!(found, [false, true, false, false]);
        assert!(Selector::default().matches_map(None));
    }

    #[test]
    fn text_selectors_read_as_kubectl_s() {
        let web = labels(&[("app", "web"), ("tier", "a")]);
        let holds = |text: &str| Selector::parse(text).map(|s| s.matches_map(Some(&web)));
        for (text, expected) in [
            ("app=web", true),
            ("app==web", true),
            ("app!=web", false),
            ("other!=web", true),
            ("app in (x, web)", true),
            ("app notin (x,web), tier=a", false),
            ("app,tier", true),
            ("!app", false),
            ("!other", true),
            ("", true),
        ] {
            assert_eq!(holds(text), Ok(expected), "{text}");
        }
        for text in ["app in web", "app in (web", "=x", "a b", "app,,tier"] {
            assert!(holds(text).is_err(), "{text}");
        }
    }
}
