//! `metav1.LabelSelector` (apimachinery `pkg/apis/meta/v1/validation`).

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;

use super::{Findings, metadata, names};

pub(super) fn validate(selector: &LabelSelector, path: &str, findings: &mut Findings) {
    let labels = selector.match_labels.iter().flatten();
    metadata::labels(
        &format!("{path}.matchLabels"),
        labels.map(|(key, value)| (key.as_str(), value.as_str())),
        findings,
    );
    let expressions = selector.match_expressions.iter().flatten();
    for (index, expression) in expressions.enumerate() {
        let path = format!("{path}.matchExpressions[{index}]");
        let values = expression.values.as_deref().unwrap_or_default();
        match expression.operator.as_str() {
            "In" | "NotIn" if values.is_empty() => findings.required(
                format!("{path}.values"),
                "must be specified when `operator` is 'In' or 'NotIn'",
            ),
            "In" | "NotIn" => {}
            "Exists" | "DoesNotExist" if !values.is_empty() => findings.forbidden(
                format!("{path}.values"),
                "may not be specified when `operator` is 'Exists' or 'DoesNotExist'",
            ),
            "Exists" | "DoesNotExist" => {}
            other => findings.invalid(
                format!("{path}.operator"),
                other,
                "not a valid selector operator",
            ),
        }
        for message in names::is_qualified_name(&expression.key) {
            findings.invalid(format!("{path}.key"), expression.key.as_str(), &message);
        }
        for (at, value) in values.iter().enumerate() {
            for message in names::is_label_value(value) {
                findings.invalid(format!("{path}.values[{at}]"), value.as_str(), &message);
            }
        }
    }
}
