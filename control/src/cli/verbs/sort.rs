//! `--sort-by`: objects by what a JSONPath leads to, as kubectl's sorter compares (cli-runtime
//! `pkg/printers` and kubectl `pkg/cmd/get/sorter.go`).

use std::cmp::Ordering;

use config::Quantity;
use serde_json::Value;

use crate::cli::jsonpath::Template;
use crate::cli::session::VerbError;

/// Sorts objects; those without the field come first. A field that none of them has is an error.
pub fn sort(objects: &mut [Value], path: &str) -> Result<(), VerbError> {
    let template = Template::parse(path)
        .map_err(|error| VerbError::Local(format!("error parsing jsonpath {path}, {error}")))?;
    let key = |object: &Value| -> Option<Value> {
        let found = template.select(object).into_iter().flatten().next();
        found.filter(|value| !value.is_null()).cloned()
    };
    let mut keyed: Vec<(Option<Value>, Value)> = objects
        .iter()
        .map(|object| (key(object), object.clone()))
        .collect();
    if !keyed.is_empty() && keyed.iter().all(|(key, _)| key.is_none()) {
        return Err(VerbError::Local(format!(
            "couldn't find any field with path \"{}\" in the list of objects",
            braced(path)
        )));
    }
    keyed.sort_by(|(a, _), (b, _)| match (a, b) {
        (Some(a), Some(b)) => compare(a, b),
        (a, b) => a.is_some().cmp(&b.is_some()),
    });
    for (place, (_, object)) in objects.iter_mut().zip(keyed) {
        *place = object;
    }
    Ok(())
}

fn braced(path: &str) -> String {
    match path.contains('{') {
        true => path.to_owned(),
        false => format!("{{.{}}}", path.trim_start_matches('.')),
    }
}

fn compare(a: &Value, b: &Value) -> Ordering {
    match (a, b) {
        (Value::Number(a), Value::Number(b)) => {
            let float = |n: &serde_json::Number| n.as_f64().unwrap_or_default();
            float(a).total_cmp(&float(b))
        }
        (Value::String(a), Value::String(b)) => match (Quantity::parse(a), Quantity::parse(b)) {
            (Some(a), Some(b)) => a.cmp(&b),
            _ => natural(a, b),
        },
        (Value::Bool(a), Value::Bool(b)) => a.cmp(b),
        (a, b) => a.to_string().cmp(&b.to_string()),
    }
}

/// Numbers inside of texts by their values: `web-2` before `web-10`.
fn natural(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a, b);
    loop {
        let digits =
            |text: &str| text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
        let (left, right) = (digits(a), digits(b));
        if left > 0 && right > 0 {
            let (x, y) = (
                a[..left].trim_start_matches('0'),
                b[..right].trim_start_matches('0'),
            );
            let order = x.len().cmp(&y.len()).then_with(|| x.cmp(y));
            if order.is_ne() {
                return order;
            }
            (a, b) = (&a[left..], &b[right..]);
            continue;
        }
        let (mut one, mut other) = (a.chars(), b.chars());
        match (one.next(), other.next()) {
            (None, None) => return Ordering::Equal,
            (left, right) if left != right => return left.cmp(&right),
            _ => (a, b) = (one.as_str(), other.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn sorted(values: Vec<Value>) -> Vec<Value> {
        let mut objects: Vec<Value> = values.into_iter().map(|v| json!({"a": v})).collect();
        sort(&mut objects, ".a").unwrap();
        objects.iter().map(|object| object["a"].clone()).collect()
    }

    #[test]
    fn values_by_their_kind() {
        let text = |values: &[&str]| values.iter().map(|v| json!(v)).collect::<Vec<_>>();
        assert_eq!(
            sorted(text(&["web-10", "web-2", "api"])),
            text(&["api", "web-2", "web-10"])
        );
        assert_eq!(
            sorted(text(&["1Gi", "100m", "2"])),
            text(&["100m", "2", "1Gi"])
        );
        assert_eq!(sorted(vec![json!(10), json!(9)]), [json!(9), json!(10)]);
        assert_eq!(
            sorted(vec![json!("a"), Value::Null]),
            [Value::Null, json!("a")]
        );
    }

    #[test]
    fn a_field_that_nobody_has_is_refused() {
        let error = sort(&mut [json!({"a": 1})], "{.b}")
            .unwrap_err()
            .to_string();
        assert_eq!(
            error,
            "couldn't find any field with path \"{.b}\" in the list of objects"
        );
        assert!(sort(&mut [], ".b").is_ok());
    }
}
