//! `-o custom-columns`: a table whose columns are JSONPath expressions.

use serde_json::Value;

use super::go_template::shown_exactly;
use super::jsonpath::Template;
use super::session::VerbError;
use super::table::Table;

/// The columns.
#[derive(Debug)]
pub struct CustomColumns {
    columns: Vec<(String, Template)>,
}

impl CustomColumns {
    /// `NAME:.metadata.name,IP:.status.podIP`.
    pub fn parse(text: &str) -> Result<CustomColumns, VerbError> {
        let column = |part: &str| match part.split_once(':') {
            Some((header, path)) => Ok((header.to_owned(), relaxed(path)?)),
            None => Err(VerbError::Local(format!(
                "unexpected custom-columns spec: {part}, expected <header>:<json-path-expr>"
            ))),
        };
        let columns = text.split(',').map(column).collect::<Result<_, _>>()?;
        Ok(CustomColumns { columns })
    }

    /// A line of headers above a line of paths.
    pub fn parse_file(text: &str) -> Result<CustomColumns, VerbError> {
        let mut lines = text.lines();
        let mut words = |which: &str| match lines.next() {
            Some(line) => Ok(line.split_whitespace().collect::<Vec<_>>()),
            None => Err(VerbError::Local(format!(
                "invalid template, missing {which} line. Expected format is one line of space \
                 separated headers, one line of space separated column specs."
            ))),
        };
        let (headers, paths) = (words("header")?, words("spec")?);
        if headers.len() != paths.len() {
            return Err(VerbError::Local(format!(
                "number of headers ({}) and field specifications ({}) don't match",
                headers.len(),
                paths.len()
            )));
        }
        let column = |(header, path): (&str, &str)| Ok((header.to_owned(), relaxed(path)?));
        let columns = headers.into_iter().zip(paths).map(column);
        Ok(CustomColumns {
            columns: columns.collect::<Result<_, VerbError>>()?,
        })
    }

    /// The table of an object, or of the items of a list.
    pub fn render(&self, value: &Value, headers: bool) -> String {
        let mut table = Table::new(self.columns.iter().map(|(header, _)| header.as_str()));
        let objects = match &value["items"] {
            Value::Array(items) if value["kind"] == "List" => items.as_slice(),
            _ => std::slice::from_ref(value),
        };
        for object in objects {
            table.push(
                self.columns
                    .iter()
                    .map(|(_, path)| cell(path, object))
                    .collect(),
            );
        }
        table.render(headers)
    }
}

fn cell(path: &Template, object: &Value) -> String {
    let found: Vec<String> = path
        .select(object)
        .into_iter()
        .flatten()
        .map(shown_exactly)
        .collect();
    match found.is_empty() {
        true => "<none>".to_owned(),
        false => found.join(","),
    }
}

/// `metadata.name`, `.metadata.name`, `{metadata.name}` and `{.metadata.name}` alike.
fn relaxed(path: &str) -> Result<Template, VerbError> {
    let inner = match path.strip_prefix('{') {
        Some(inner) => inner.strip_suffix('}').unwrap_or(path),
        None => path,
    };
    if inner.is_empty() || inner.contains(['{', '}']) {
        return Err(VerbError::Local(
            "unexpected path string, expected a 'name1.name2' or '.name1.name2' or \
             '{name1.name2}' or '{.name1.name2}'"
                .into(),
        ));
    }
    let inner = inner.strip_prefix('.').unwrap_or(inner);
    let expression = format!("{{.{inner}}}");
    Template::parse(&expression).map_err(|error| VerbError::Local(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn paths_in_every_spelling() {
        let pod = json!({"metadata": {"name": "a", "labels": {"b": "2", "a": "1"}},
            "spec": {"ports": [{"n": 80}, {"n": 1_234_567}]}});
        let spec = "NAME:metadata.name,N:{.spec.ports[*].n},L:.metadata.labels,X:{spec.none}";
        let columns = CustomColumns::parse(spec).unwrap();
        assert_eq!(
            columns.render(&pod, true),
            "NAME   N            L              X\n\
             a      80,1234567   map[a:1 b:2]   <none>\n"
        );
        let file = "NAME   X\nmetadata.name {.spec.none}\n";
        let list = json!({"kind": "List", "items": [pod, {"metadata": {"name": "b"}}]});
        assert_eq!(
            CustomColumns::parse_file(file)
                .unwrap()
                .render(&list, false),
            "a   <none>\nb   <none>\n"
        );
    }

    #[test]
    fn wrong_ones_are_refused() {
        for (text, expected) in [
            (
                "NAME",
                "unexpected custom-columns spec: NAME, expected <header>:<json-path-expr>",
            ),
            ("N:{", "unexpected path string, expected a 'name1.name2' or"),
            ("N:", "unexpected path string, expected a 'name1.name2' or"),
        ] {
            let error = CustomColumns::parse(text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
        assert!(CustomColumns::parse_file("A B\n.a\n").is_err());
        assert!(CustomColumns::parse_file("A B\n").is_err());
    }
}
