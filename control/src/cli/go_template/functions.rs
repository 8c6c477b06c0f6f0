//! The functions of a template: Go's own, and kubectl's `exists` and `base64decode`.

use std::borrow::Cow;
use std::cmp::Ordering;

use serde_json::Value;

use super::exec::Val;
use super::format::{print, printf};
use crate::cli::base64;

const KNOWN: &[&str] = &[
    "and",
    "base64decode",
    "eq",
    "exists",
    "ge",
    "gt",
    "html",
    "index",
    "js",
    "le",
    "len",
    "lt",
    "ne",
    "not",
    "or",
    "print",
    "printf",
    "println",
    "slice",
    "urlquery",
];

/// Whether a function of that name exists.
pub fn is_known(name: &str) -> bool {
    KNOWN.contains(&name)
}

/// Calls a function.
pub fn call<'a>(name: &str, mut values: Vec<Val<'a>>) -> Result<Val<'a>, String> {
    let least = match name {
        "print" | "println" | "html" | "js" | "urlquery" => 0,
        "ne" | "lt" | "le" | "gt" | "ge" => 2,
        _ => 1,
    };
    if values.len() < least {
        let want = if least == 2 { "2" } else { "at least 1" };
        return Err(format!(
            "wrong number of args: want {want} got {}",
            values.len()
        ));
    }
    let only = |values: &[Val<'a>]| match values.len() {
        1 => Ok(()),
        got => Err(format!("wrong number of args: want 1 got {got}")),
    };
    match name {
        // Whatever decided it was returned already.
        "and" | "or" => Ok(values.pop().unwrap_or(Val::Missing)),
        "not" => {
            only(&values)?;
            Ok(Val::made(!values[0].truth()))
        }
        "eq" => equal_any(&values).map(Val::made),
        "ne" => Ok(Val::made(!equal(&values[0], &values[1])?)),
        "lt" => Ok(Val::made(order(&values[0], &values[1])?.is_lt())),
        "le" => Ok(Val::made(order(&values[0], &values[1])?.is_le())),
        "gt" => Ok(Val::made(order(&values[0], &values[1])?.is_gt())),
        "ge" => Ok(Val::made(order(&values[0], &values[1])?.is_ge())),
        "index" => index(values),
        "exists" => {
            let found = index(values);
            Ok(Val::made(
                found.is_ok_and(|found| !matches!(found, Val::Missing)),
            ))
        }
        "slice" => slice(&values),
        "len" => {
            only(&values)?;
            len(&values[0])
        }
        "print" => Ok(Val::made(print(&values, false))),
        "println" => Ok(Val::made(print(&values, true))),
        "printf" => match &values[0] {
            Val::Json(form) if form.is_string() => Ok(Val::made(printf(
                form.as_str().unwrap_or_default(),
                &values[1..],
            ))),
            other => Err(format!(
                "wrong type for value; expected string; got {}",
                other.go_type()
            )),
        },
        "html" => Ok(Val::made(html(&joined(&values)))),
        "js" => Ok(Val::made(js(&joined(&values)))),
        "urlquery" => Ok(Val::made(urlquery(&joined(&values)))),
        "base64decode" => {
            only(&values)?;
            let Val::Json(text) = &values[0] else {
                return Err("wrong type for value; expected string".to_owned());
            };
            let text = text.as_str().unwrap_or_default();
            base64::decode(text).map(|bytes| {
                let decoded = String::from_utf8_lossy(&bytes).into_owned();
                Val::made(decoded)
            })
        }
        _ => Err(format!("{name} is not a function")),
    }
}

/// What the escaping functions make text of: text alone as it is, else as `print` does.
fn joined(values: &[Val<'_>]) -> String {
    print(values, false)
}

/// What two values that can be compared are.
enum Pair<'v> {
    Texts(&'v str, &'v str),
    Bools(bool, bool),
    Floats(f64, f64),
    Ints(i64, i64),
    Nulls(bool, bool),
}

fn pair<'v>(left: &'v Val<'_>, right: &'v Val<'_>) -> Result<Pair<'v>, String> {
    let incompatible = || Err("incompatible types for comparison".to_owned());
    let null = |value: &Val<'_>| match value {
        Val::Missing => true,
        Val::Json(value) => value.is_null(),
        Val::Int(_) => false,
    };
    if null(left) || null(right) {
        return Ok(Pair::Nulls(null(left), null(right)));
    }
    match (left, right) {
        (Val::Int(left), Val::Int(right)) => Ok(Pair::Ints(*left, *right)),
        (Val::Json(left), Val::Json(right)) => match (&**left, &**right) {
            (Value::String(left), Value::String(right)) => Ok(Pair::Texts(left, right)),
            (Value::Bool(left), Value::Bool(right)) => Ok(Pair::Bools(*left, *right)),
            (Value::Number(left), Value::Number(right)) => {
                let float = |number: &serde_json::Number| number.as_f64().unwrap_or_default();
                Ok(Pair::Floats(float(left), float(right)))
            }
            (Value::Array(_) | Value::Object(_), _) | (_, Value::Array(_) | Value::Object(_)) => {
                Err("non-comparable type".to_owned())
            }
            _ => incompatible(),
        },
        _ => incompatible(),
    }
}

fn equal(left: &Val<'_>, right: &Val<'_>) -> Result<bool, String> {
    Ok(match pair(left, right)? {
        Pair::Texts(left, right) => left == right,
        Pair::Bools(left, right) => left == right,
        Pair::Floats(left, right) => left == right,
        Pair::Ints(left, right) => left == right,
        Pair::Nulls(left, right) => left == right,
    })
}

/// Whether the first is equal to one of the others.
fn equal_any(values: &[Val<'_>]) -> Result<bool, String> {
    let (first, others) = (&values[0], &values[1..]);
    if others.is_empty() {
        return Err("missing argument for comparison".to_owned());
    }
    for other in others {
        if equal(first, other)? {
            return Ok(true);
        }
    }
    Ok(false)
}

fn order(left: &Val<'_>, right: &Val<'_>) -> Result<Ordering, String> {
    match pair(left, right)? {
        Pair::Texts(left, right) => Ok(left.cmp(right)),
        Pair::Floats(left, right) => Ok(left.total_cmp(&right)),
        Pair::Ints(left, right) => Ok(left.cmp(&right)),
        Pair::Bools(..) | Pair::Nulls(..) => Err("invalid type for comparison".to_owned()),
    }
}

/// A position, between 0 and `most`.
fn position(value: &Val<'_>, most: usize) -> Result<usize, String> {
    let number = match value {
        Val::Int(number) => *number,
        Val::Missing => return Err("cannot index slice/array with nil".to_owned()),
        other => {
            let kind = other.go_type();
            return Err(format!("cannot index slice/array with type {kind}"));
        }
    };
    match usize::try_from(number) {
        Ok(at) if at <= most => Ok(at),
        _ => Err(format!("index out of range: {number}")),
    }
}

fn index<'a>(values: Vec<Val<'a>>) -> Result<Val<'a>, String> {
    let mut values = values.into_iter();
    let mut at = values.next().unwrap_or(Val::Missing);
    for key in values {
        let Val::Json(value) = &at else {
            return match at {
                Val::Missing => Err("index of untyped nil".to_owned()),
                other => Err(format!("can't index item of type {}", other.go_type())),
            };
        };
        let found = match (&**value, &key) {
            (Value::Array(items), key) => {
                let last = items.len().checked_sub(1);
                let at = last.map_or_else(
                    || position(key, 0).and_then(|at| Err(format!("index out of range: {at}"))),
                    |last| position(key, last),
                )?;
                Some(element(value, at))
            }
            (Value::Object(members), Val::Json(key)) if key.is_string() => {
                let key = key.as_str().unwrap_or_default();
                members.contains_key(key).then(|| entry(value, key))
            }
            (Value::Object(_), key) => {
                return Err(format!(
                    "value has type {}; should be string",
                    key.go_type()
                ));
            }
            (Value::String(text), key) => {
                let last = text.len().saturating_sub(1);
                let byte = text.as_bytes().get(position(key, last)?);
                Some(byte.map_or(Val::Missing, |byte| Val::Int(i64::from(*byte))))
            }
            (Value::Null, _) => return Err("index of nil pointer".to_owned()),
            _ => return Err(format!("can't index item of type {}", at.go_type())),
        };
        at = found.unwrap_or(Val::Missing);
    }
    Ok(at)
}

fn element<'a>(value: &Cow<'a, Value>, at: usize) -> Val<'a> {
    match value {
        Cow::Borrowed(value) => Val::Json(Cow::Borrowed(&value[at])),
        Cow::Owned(value) => Val::made(value[at].clone()),
    }
}

fn entry<'a>(value: &Cow<'a, Value>, key: &str) -> Val<'a> {
    match value {
        Cow::Borrowed(value) => Val::Json(Cow::Borrowed(&value[key])),
        Cow::Owned(value) => Val::made(value[key].clone()),
    }
}

fn slice<'a>(values: &[Val<'a>]) -> Result<Val<'a>, String> {
    let Val::Json(value) = &values[0] else {
        return Err("slice of untyped nil".to_owned());
    };
    let length = match &**value {
        Value::Array(items) => items.len(),
        Value::String(text) => text.len(),
        other => {
            let kind = super::format::go_type(other);
            return Err(format!("can't slice item of type {kind}"));
        }
    };
    if values.len() > 3 {
        return Err("too many slice indexes".to_owned());
    }
    let at = |place: usize, otherwise| match values.get(place) {
        Some(value) => position(value, length),
        None => Ok(otherwise),
    };
    let (from, to) = (at(1, 0)?, at(2, length)?);
    if from > to {
        return Err(format!("invalid slice index: {from} > {to}"));
    }
    match &**value {
        Value::Array(items) => Ok(Val::made(items[from..to].to_vec())),
        Value::String(text) => {
            let bytes = &text.as_bytes()[from..to];
            Ok(Val::made(String::from_utf8_lossy(bytes).into_owned()))
        }
        _ => Ok(Val::Missing),
    }
}

fn len<'a>(value: &Val<'a>) -> Result<Val<'a>, String> {
    let Val::Json(json) = value else {
        return Err("len of nil pointer".to_owned());
    };
    let length = match &**json {
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        Value::String(text) => text.len(),
        Value::Null => return Err("len of nil pointer".to_owned()),
        _ => return Err(format!("len of type {}", value.go_type())),
    };
    Ok(Val::Int(length as i64))
}

fn html(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '"' => out.push_str("&#34;"),
            '\'' => out.push_str("&#39;"),
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            c => out.push(c),
        }
    }
    out
}

fn js(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars() {
        match c {
            '\\' | '\'' | '"' => out.extend(['\\', c]),
            '<' | '>' | '&' | '=' => out.push_str(&format!("\\u{:04X}", c as u32)),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", c as u32)),
            c => out.push(c),
        }
    }
    out
}

fn urlquery(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            byte => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}
