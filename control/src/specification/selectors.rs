//! Label selectors, read literally.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, LabelSelectorRequirement};

use crate::objects::Object;

/// Whether the object's labels satisfy every requirement. One that cannot be read is satisfied by
/// nothing.
pub(super) fn holds(selector: &LabelSelector, object: &Object) -> bool {
    is_readable(selector) && readable_part_holds(selector, Some(object))
}

/// Whether the object's labels satisfy every requirement that can be read; no object has no
/// labels.
pub(super) fn readable_part_holds(selector: &LabelSelector, object: Option<&Object>) -> bool {
    let label = |key: &str| object.and_then(|object| object.label(key));
    for (key, value) in selector.match_labels.iter().flatten() {
        if label(key) != Some(value) {
            return false;
        }
    }
    for expression in selector.match_expressions.iter().flatten() {
        if !is_readable_requirement(expression) {
            continue;
        }
        let value = label(&expression.key);
        let listed = value.is_some_and(|value| {
            let mut values = expression.values.iter().flatten();
            values.any(|listed| listed == value)
        });
        let holds = match expression.operator.as_str() {
            "In" => listed,
            "NotIn" => !listed,
            "Exists" => value.is_some(),
            _ => value.is_none(),
        };
        if !holds {
            return false;
        }
    }
    true
}

/// Whether every requirement can be read.
pub(super) fn is_readable(selector: &LabelSelector) -> bool {
    let mut expressions = selector.match_expressions.iter().flatten();
    expressions.all(is_readable_requirement)
}

/// Whether a requirement has an operator that we know and values as it wants them.
fn is_readable_requirement(expression: &LabelSelectorRequirement) -> bool {
    let values = expression.values.iter().flatten().count();
    match expression.operator.as_str() {
        "In" | "NotIn" => values > 0,
        "Exists" | "DoesNotExist" => values == 0,
        _ => false,
    }
}

/// Whether there is anything to satisfy.
pub(super) fn has_requirements(selector: &LabelSelector) -> bool {
    selector.match_labels.iter().flatten().count() > 0
        || selector.match_expressions.iter().flatten().count() > 0
}
