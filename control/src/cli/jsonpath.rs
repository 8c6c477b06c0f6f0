//! kubectl's JSONPath templates: text with `{…}` expressions, `range`/`end`, filters.
//!
//! The dialect is kubectl's own (kubernetes.io/docs/reference/kubectl/jsonpath), not RFC 9535:
//! it prints strings bare, joins results with spaces and silently prints nothing for keys that
//! are not there.

use serde_json::Value;
use thiserror::Error;

/// Why a template does not parse.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TemplateError {
    /// A brace, bracket or quote that is not closed.
    #[error("unclosed {0} in jsonpath template {1}")]
    Unclosed(&'static str, String),
    /// Something that is no expression.
    #[error("unrecognized expression {0:?} in jsonpath template")]
    Unrecognized(String),
    /// `{end}` without `{range}`, or the reverse.
    #[error("not in range, nothing to end")]
    Unbalanced,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Text(String),
    Path(Vec<Step>),
    Range(Vec<Step>, Vec<Piece>),
}

#[derive(Debug, Clone, PartialEq)]
enum Step {
    Root,
    Key(String),
    All,
    Descend,
    Slice(Option<i64>, Option<i64>),
    Index(i64),
    Filter(Vec<Step>, Option<(Comparison, Value)>),
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Comparison {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// A parsed template.
#[derive(Debug)]
pub struct Template {
    pieces: Vec<Piece>,
}

impl Template {
    /// Parses `text`; a bare path such as `.status.podIP` counts as `{.status.podIP}`, as in
    /// kubectl.
    pub fn parse(text: &str) -> Result<Template, TemplateError> {
        let relaxed = if text.contains('{') {
            text.to_owned()
        } else {
            let dot = if text.starts_with(['.', '[', '$']) {
                ""
            } else {
                "."
            };
            format!("{{{dot}{text}}}")
        };
        let mut rest = relaxed.as_str();
        let pieces = pieces(&mut rest, false)?;
        Ok(Template { pieces })
    }

    /// What each path of the template leads to, texts left out.
    pub fn select<'a>(&self, root: &'a Value) -> Vec<Vec<&'a Value>> {
        let found = self.pieces.iter().filter_map(|piece| match piece {
            Piece::Text(_) => None,
            Piece::Path(steps) | Piece::Range(steps, _) => Some(select(steps, root, root)),
        });
        found.collect()
    }

    /// The template's text for `root`.
    pub fn render(&self, root: &Value) -> String {
        let mut out = String::new();
        print_pieces(&self.pieces, root, root, &mut out);
        out
    }
}

fn pieces(rest: &mut &str, inside_range: bool) -> Result<Vec<Piece>, TemplateError> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let Some(open) = rest.find('{') else {
            found.push(Piece::Text(std::mem::take(rest).to_owned()));
            break;
        };
        if open > 0 {
            found.push(Piece::Text(rest[..open].to_owned()));
        }
        let inner = until(&rest[open + 1..], '}')
            .ok_or_else(|| TemplateError::Unclosed("action", (*rest).to_owned()))?;
        *rest = &rest[open + 1 + inner.len() + 1..];
        let expression = inner.trim();
        if expression == "end" {
            return if inside_range {
                Ok(found)
            } else {
                Err(TemplateError::Unbalanced)
            };
        }
        if let Some(over) = expression.strip_prefix("range") {
            let over = steps(over.trim())?;
            found.push(Piece::Range(over, pieces(rest, true)?));
        } else if expression.starts_with(['"', '\'']) {
            found.push(Piece::Text(unquote(expression)?));
        } else {
            found.push(Piece::Path(steps(expression)?));
        }
    }
    if inside_range {
        Err(TemplateError::Unbalanced)
    } else {
        Ok(found)
    }
}

/// The text before `close`, quotes respected.
fn until(text: &str, close: char) -> Option<&str> {
    let (mut quote, mut escaped) = (None, false);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            _ if escaped => escaped = false,
            (_, '\\') => escaped = true,
            (Some(q), _) if q == c => quote = None,
            (Some(_), _) => {}
            (None, '"' | '\'') => quote = Some(c),
            (None, _) if c == close => return Some(&text[..at]),
            _ => {}
        }
    }
    None
}

fn unquote(text: &str) -> Result<String, TemplateError> {
    let quote = text.chars().next().unwrap_or('"');
    let inner = text
        .strip_prefix(quote)
        .and_then(|t| t.strip_suffix(quote))
        .ok_or_else(|| TemplateError::Unclosed("quoted string", text.to_owned()))?;
    let mut out = String::new();
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match (c, c == '\\') {
            (_, true) => match chars.next() {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some(other) => out.push(other),
                None => {}
            },
            _ => out.push(c),
        }
    }
    Ok(out)
}

fn steps(text: &str) -> Result<Vec<Step>, TemplateError> {
    let wrong = || TemplateError::Unrecognized(text.to_owned());
    let mut found = Vec::new();
    let mut rest = text;
    if let Some(after) = rest.strip_prefix('$') {
        found.push(Step::Root);
        rest = after;
    } else if let Some(after) = rest.strip_prefix('@') {
        rest = after;
    } else if !rest.starts_with(['.', '[']) {
        return Err(wrong());
    }
    while !rest.is_empty() {
        if let Some(after) = rest.strip_prefix("..") {
            found.push(Step::Descend);
            rest = after;
            if !rest.starts_with('[') {
                rest = key(rest, &mut found);
            }
        } else if let Some(after) = rest.strip_prefix('.') {
            rest = key(after, &mut found);
        } else if let Some(after) = rest.strip_prefix('[') {
            let inner = until(after, ']')
                .ok_or_else(|| TemplateError::Unclosed("array", text.to_owned()))?;
            found.push(bracket(inner.trim())?);
            rest = &after[inner.len() + 1..];
        } else {
            return Err(wrong());
        }
    }
    Ok(found)
}

/// Takes one key off `rest`; `\.` is a dot inside a key.
fn key<'a>(rest: &'a str, found: &mut Vec<Step>) -> &'a str {
    let mut name = String::new();
    let mut chars = rest.char_indices();
    let mut end = rest.len();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' => name.extend(chars.next().map(|(_, escaped)| escaped)),
            '.' | '[' => {
                end = at;
                break;
            }
            _ => name.push(c),
        }
    }
    match name.as_str() {
        "" => {}
        "*" => found.push(Step::All),
        _ => found.push(Step::Key(name)),
    }
    &rest[end..]
}

fn bracket(inner: &str) -> Result<Step, TemplateError> {
    let wrong = || TemplateError::Unrecognized(format!("[{inner}]"));
    if inner == "*" {
        return Ok(Step::All);
    }
    if inner.starts_with(['\'', '"']) {
        return Ok(Step::Key(unquote(inner)?));
    }
    if let Some(filter) = inner.strip_prefix("?(").and_then(|f| f.strip_suffix(')')) {
        return filter_step(filter.trim());
    }
    let number = |text: &str| match text.trim() {
        "" => Ok(None),
        some => some.parse::<i64>().map(Some).map_err(|_| wrong()),
    };
    match inner.split_once(':') {
        Some((from, to)) => Ok(Step::Slice(number(from)?, number(to)?)),
        None => number(inner)?.map(Step::Index).ok_or_else(wrong),
    }
}

fn filter_step(filter: &str) -> Result<Step, TemplateError> {
    use Comparison::{Equal, Greater, GreaterOrEqual, Less, LessOrEqual, NotEqual};
    const OPERATORS: [(&str, Comparison); 6] = [
        ("==", Equal),
        ("!=", NotEqual),
        ("<=", LessOrEqual),
        (">=", GreaterOrEqual),
        ("<", Less),
        (">", Greater),
    ];
    let operator = OPERATORS.iter().find_map(|(sign, comparison)| {
        filter
            .split_once(sign)
            .map(|(left, right)| (left.trim(), *comparison, right.trim()))
    });
    let Some((left, comparison, right)) = operator else {
        return Ok(Step::Filter(steps(filter)?, None));
    };
    let right = if right.starts_with(['"', '\'']) {
        Value::String(unquote(right)?)
    } else {
        serde_json::from_str(right)
            .map_err(|_| TemplateError::Unrecognized(format!("[?({filter})]")))?
    };
    Ok(Step::Filter(steps(left)?, Some((comparison, right))))
}

fn print_pieces(pieces: &[Piece], root: &Value, at: &Value, out: &mut String) {
    for piece in pieces {
        match piece {
            Piece::Text(text) => out.push_str(text),
            Piece::Path(steps) => {
                let texts: Vec<String> = select(steps, root, at).into_iter().map(plain).collect();
                out.push_str(&texts.join(" "));
            }
            Piece::Range(over, inner) => {
                for each in select(over, root, at) {
                    print_pieces(inner, root, each, out);
                }
            }
        }
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn select<'a>(steps: &[Step], root: &'a Value, at: &'a Value) -> Vec<&'a Value> {
    let mut current = vec![at];
    for step in steps {
        current = current
            .into_iter()
            .flat_map(|value| follow(step, root, value))
            .collect();
    }
    current
}

fn follow<'a>(step: &Step, root: &'a Value, value: &'a Value) -> Vec<&'a Value> {
    match step {
        Step::Root => vec![root],
        Step::Key(key) => value.get(key).into_iter().collect(),
        Step::All => children(value),
        Step::Descend => {
            let mut all = vec![value];
            for child in children(value) {
                all.extend(follow(step, root, child));
            }
            all
        }
        Step::Index(index) => {
            let Some(list) = value.as_array() else {
                return Vec::new();
            };
            let at = if *index < 0 {
                list.len() as i64 + index
            } else {
                *index
            };
            usize::try_from(at)
                .ok()
                .and_then(|at| list.get(at))
                .into_iter()
                .collect()
        }
        Step::Slice(from, to) => {
            let Some(list) = value.as_array() else {
                return Vec::new();
            };
            let length = list.len() as i64;
            let place = |at: i64| if at < 0 { length + at } else { at }.clamp(0, length) as usize;
            let (from, to) = (place(from.unwrap_or(0)), place(to.unwrap_or(length)));
            list.get(from..to).unwrap_or_default().iter().collect()
        }
        Step::Filter(path, comparison) => children(value)
            .into_iter()
            .filter(|child| matches(&select(path, root, child), comparison.as_ref()))
            .collect(),
    }
}

fn children(value: &Value) -> Vec<&Value> {
    match value {
        Value::Array(list) => list.iter().collect(),
        Value::Object(map) => map.values().collect(),
        _ => Vec::new(),
    }
}

fn matches(found: &[&Value], comparison: Option<&(Comparison, Value)>) -> bool {
    let Some((comparison, right)) = comparison else {
        return !found.is_empty();
    };
    found.iter().any(|left| {
        let order = match (left.as_f64(), right.as_f64()) {
            (Some(l), Some(r)) => l.partial_cmp(&r),
            _ => left.as_str().zip(right.as_str()).map(|(l, r)| l.cmp(r)),
        };
        match comparison {
            Comparison::Equal => *left == right,
            Comparison::NotEqual => *left != right,
            Comparison::Less => order.is_some_and(|o| o.is_lt()),
            Comparison::LessOrEqual => order.is_some_and(|o| o.is_le()),
            Comparison::Greater => order.is_some_and(|o| o.is_gt()),
            Comparison::GreaterOrEqual => order.is_some_and(|o| o.is_ge()),
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn render(template: &str) -> String {
        let pods = json!({"items": [
            {"metadata": {"name": "a", "labels": {"app.kubernetes.io/name": "x"}},
             "status": {"podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}]}},
            {"metadata": {"name": "b"}, "status": {"podIP": "10.0.0.2", "restarts": 3}},
        ]});
        Template::parse(template).unwrap().render(&pods)
    }

    #[test]
    fn the_documentations_examples() {
        assert_eq!(render("{.items[*].metadata.name}"), "a b");
        assert_eq!(render("{.items[0].status.podIP}"), "10.0.0.1");
        assert_eq!(render(".items[-1:].metadata.name"), "b");
        assert_eq!(
            render("{.items[0].metadata.labels.app\\.kubernetes\\.io/name}"),
            "x"
        );
        assert_eq!(render("{.items[0].metadata['name']}"), "a");
        assert_eq!(render("{..podIP}"), "10.0.0.1 10.0.0.2");
        assert_eq!(
            render("{.items[?(@.status.restarts>2)].metadata.name}"),
            "b"
        );
        assert_eq!(render("{.items[?(@.metadata.labels)].metadata.name}"), "a");
        assert_eq!(
            render("{.items[0].status.conditions[?(@.type==\"Ready\")].status}"),
            "True"
        );
        assert_eq!(
            render("{range .items[*]}{.metadata.name}{\"\\t\"}{.status.podIP}{\"\\n\"}{end}"),
            "a\t10.0.0.1\nb\t10.0.0.2\n"
        );
        assert_eq!(render("{.items[0].nothing}"), "");
    }

    #[test]
    fn errors_say_what_is_open() {
        assert!(matches!(
            Template::parse("{.a"),
            Err(TemplateError::Unclosed("action", _))
        ));
        assert!(matches!(
            Template::parse("{.a[0}"),
            Err(TemplateError::Unclosed(..))
        ));
        assert_eq!(
            Template::parse("{end}").unwrap_err(),
            TemplateError::Unbalanced
        );
        assert_eq!(
            Template::parse("{range .a[*]}x").unwrap_err(),
            TemplateError::Unbalanced
        );
        assert!(matches!(
            Template::parse("{a}"),
            Err(TemplateError::Unrecognized(_))
        ));
    }
}
