//! Field selectors: `status.phase=Running,metadata.name!=x`, as apimachinery's `fields.ParseSelector`
//! reads them, but for its escapes.

use serde_json::Value;

/// What some fields of an object must be or not be.
#[derive(Clone, Debug, Default)]
pub struct FieldSelector {
    terms: Vec<Term>,
}

#[derive(Clone, Debug)]
struct Term {
    pointer: String,
    value: String,
    equal: bool,
}

impl FieldSelector {
    /// Reads a selector; the empty one matches everything. The error says which term is none.
    pub fn parse(text: &str) -> Result<FieldSelector, String> {
        let terms = text.split(',').filter(|term| !term.is_empty());
        let terms = terms.map(term).collect::<Result<_, _>>()?;
        Ok(FieldSelector { terms })
    }

    /// Whether an object's fields are as the selector wants them; a field that is not there is empty.
    pub fn matches(&self, object: &Value) -> bool {
        self.terms.iter().all(|term| {
            let found = match object.pointer(&term.pointer) {
                Some(Value::String(text)) => text.clone(),
                None | Some(Value::Null) => String::new(),
                Some(other) => other.to_string(),
            };
            (found == term.value) == term.equal
        })
    }
}

fn term(text: &str) -> Result<Term, String> {
    let operators = [("!=", false), ("==", true), ("=", true)];
    let split = operators.iter().find_map(|(operator, equal)| {
        let (path, value) = text.split_once(operator)?;
        Some((path, value, *equal))
    });
    let Some((path, value, equal)) = split else {
        let known = "known operators are =, ==, !=";
        return Err(format!("invalid field selector: {text:?}: {known}"));
    };
    Ok(Term {
        pointer: format!("/{}", path.trim().replace('~', "~0").replace('.', "/")),
        value: value.trim().to_owned(),
        equal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn fields_are_compared_as_text() {
        let pod = json!({"metadata": {"name": "a"}, "spec": {"hostNetwork": true},
            "status": {"phase": "Running"}});
        for (text, expected) in [
            ("", true),
            ("metadata.name=a", true),
            ("metadata.name==a,status.phase!=Pending", true),
            ("metadata.name=a,status.phase=Pending", false),
            ("spec.hostNetwork=true", true),
            ("spec.nodeName=", true),
            ("spec.nodeName!=n", true),
        ] {
            let selector = FieldSelector::parse(text).unwrap();
            assert_eq!(selector.matches(&pod), expected, "{text}");
        }
        assert_eq!(
            FieldSelector::parse("metadata.name").unwrap_err(),
            "invalid field selector: \"metadata.name\": known operators are =, ==, !="
        );
    }
}
