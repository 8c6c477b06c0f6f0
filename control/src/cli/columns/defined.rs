//! The columns that a CustomResourceDefinition defines (apiextensions-apiserver
//! `pkg/registry/customresource/tableconvertor`).

use serde_json::Value;

use super::{Layout, labels, seconds_since_1970, text};
use crate::cli::jsonpath::Template;
use crate::cli::table::{Table, human_duration};
use crate::protocol::PrinterColumn;

/// The table of `objects`, as [`super::table`].
pub fn table(
    columns: &[PrinterColumn],
    resource: &str,
    objects: &[Value],
    layout: Layout,
    now: i64,
) -> Table {
    let shown = columns
        .iter()
        .filter(|column| layout.wide || column.priority <= 0);
    let shown: Vec<(&PrinterColumn, Option<Template>)> = shown
        .map(|column| {
            let path = format!("{{{}}}", column.json_path);
            (column, Template::parse(&path).ok())
        })
        .collect();
    let namespace = layout.namespaces.then(|| "NAMESPACE".to_owned());
    let labelled = layout.labels.then(|| "LABELS".to_owned());
    let own = shown.iter().map(|(column, _)| column.name.to_uppercase());
    let header = namespace
        .into_iter()
        .chain(["NAME".to_owned()])
        .chain(own)
        .chain(labelled);
    let mut table = Table::new(header);
    for object in objects {
        let mut row = Vec::new();
        if layout.namespaces {
            row.push(text(object, "/metadata/namespace"));
        }
        let name = text(object, "/metadata/name");
        row.push(match layout.prefixed {
            true => format!("{resource}/{name}"),
            false => name,
        });
        for (column, path) in &shown {
            let selected = path.as_ref().map(|path| path.select(object));
            // Paths in definitions are of one result.
            let value = selected
                .as_ref()
                .and_then(|found| found.first()?.first().copied());
            row.push(value.map_or_else(String::new, |value| cell(column, value, now)));
        }
        if layout.labels {
            row.push(labels(object.pointer("/metadata/labels")));
        }
        table.push(row);
    }
    table
}

/// A value of the column's type; nothing if it is of another.
fn cell(column: &PrinterColumn, value: &Value, now: i64) -> String {
    match (column.value_type.as_str(), value) {
        ("string", Value::String(text)) => text.clone(),
        ("string", Value::Null) => String::new(),
        ("string", other) => other.to_string(),
        ("integer", Value::Number(number)) => match number.as_f64() {
            Some(number) => format!("{}", number.trunc()),
            None => String::new(),
        },
        ("number", Value::Number(number)) => number.to_string(),
        ("boolean", Value::Bool(truth)) => truth.to_string(),
        ("date", Value::String(stamp)) => match seconds_since_1970(stamp) {
            Some(then) => human_duration(now - then),
            None => "<invalid>".to_owned(),
        },
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn cells_are_of_their_columns_types() {
        let cases = [
            ("integer", json!(3.7), "3"),
            ("integer", json!("3"), ""),
            ("number", json!(0.5), "0.5"),
            ("boolean", json!(true), "true"),
            ("string", json!({"a": 1}), "{\"a\":1}"),
            ("string", json!(5), "5"),
            ("date", json!("1970-01-01T00:00:00Z"), "2m"),
            ("date", json!("yesterday"), "<invalid>"),
            ("date", json!(5), ""),
        ];
        for (value_type, value, expected) in cases {
            let column = PrinterColumn {
                value_type: value_type.to_owned(),
                ..PrinterColumn::age()
            };
            assert_eq!(cell(&column, &value, 120), expected, "{value_type} {value}");
        }
    }
}
