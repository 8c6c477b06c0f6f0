//! Values as Go's `fmt` prints them.

use serde_json::Value;

use super::exec::Val;

/// Go's name of a value's type.
pub fn go_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "<nil>",
        Value::Bool(_) => "bool",
        Value::Number(_) => "float64",
        Value::String(_) => "string",
        Value::Array(_) => "[]interface {}",
        Value::Object(_) => "map[string]interface {}",
    }
}

/// Prints a value as an action does.
pub fn printed(value: &Val<'_>, out: &mut String) {
    match value {
        Val::Missing => out.push_str("<no value>"),
        Val::Int(number) => out.push_str(&number.to_string()),
        Val::Json(value) if value.is_null() => out.push_str("<no value>"),
        Val::Json(value) => plain(value, out),
    }
}

/// `%v` of a value; its numbers are floating-point numbers.
pub fn plain(value: &Value, out: &mut String) {
    plain_with(
        value,
        &|number| float(number.as_f64().unwrap_or_default()),
        out,
    );
}

/// `%v` of a value, with its numbers as `number` prints them.
pub fn plain_with(value: &Value, number: &dyn Fn(&serde_json::Number) -> String, out: &mut String) {
    match value {
        Value::Null => out.push_str("<nil>"),
        Value::Bool(bool) => out.push_str(if *bool { "true" } else { "false" }),
        Value::Number(own) => out.push_str(&number(own)),
        Value::String(text) => out.push_str(text),
        Value::Array(items) => {
            out.push('[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                plain_with(item, number, out);
            }
            out.push(']');
        }
        Value::Object(members) => {
            let mut pairs: Vec<_> = members.iter().collect();
            pairs.sort_by_key(|(key, _)| key.as_str());
            out.push_str("map[");
            for (at, (key, value)) in pairs.into_iter().enumerate() {
                if at > 0 {
                    out.push(' ');
                }
                out.push_str(key);
                out.push(':');
                plain_with(value, number, out);
            }
            out.push(']');
        }
    }
}

/// `%v` of a number: the fewest digits; from a million on, or below 10^-4, with an exponent.
pub fn float(number: f64) -> String {
    if number == 0.0 || !number.is_finite() {
        return match number {
            0.0 => "0".to_owned(),
            _ if number.is_nan() => "NaN".to_owned(),
            _ if number > 0.0 => "+Inf".to_owned(),
            _ => "-Inf".to_owned(),
        };
    }
    let scientific = format!("{number:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if (-4..6).contains(&exponent) {
        return format!("{number}");
    }
    let sign = if exponent < 0 { '-' } else { '+' };
    format!("{digits}e{sign}{:02}", exponent.abs())
}

/// One argument by one verb of `printf`.
fn formatted(verb: char, flags: &Flags, value: &Val<'_>) -> String {
    let json = match value {
        Val::Missing => &Value::Null,
        Val::Int(number) => return integer(verb, flags, *number),
        Val::Json(value) => &**value,
    };
    let mut text = String::new();
    match (verb, json) {
        ('v', _) => plain(json, &mut text),
        ('s', Value::String(own)) => {
            let most = flags.precision.unwrap_or(usize::MAX);
            text.extend(own.chars().take(most));
        }
        ('s', Value::Array(_) | Value::Object(_)) => plain(json, &mut text),
        ('q', Value::String(own)) => text = quoted(own),
        ('x', Value::String(own)) => {
            text.extend(own.bytes().map(|byte| format!("{byte:02x}")));
        }
        ('t', Value::Bool(bool)) => text = bool.to_string(),
        ('f' | 'F', Value::Number(number)) => {
            let number = number.as_f64().unwrap_or_default();
            text = format!("{number:.*}", flags.precision.unwrap_or(6));
        }
        ('g', Value::Number(number)) => text = float(number.as_f64().unwrap_or_default()),
        ('e', Value::Number(number)) => {
            let number = number.as_f64().unwrap_or_default();
            let shown = format!("{number:.*e}", flags.precision.unwrap_or(6));
            let (digits, exponent) = shown.split_once('e').unwrap_or((&shown, "0"));
            let exponent: i32 = exponent.parse().unwrap_or_default();
            let sign = if exponent < 0 { '-' } else { '+' };
            text = format!("{digits}e{sign}{:02}", exponent.abs());
        }
        ('T', _) => text = value.go_type().to_owned(),
        (_, Value::Null) => text = format!("%!{verb}(<nil>)"),
        _ => {
            let mut shown = String::new();
            plain(json, &mut shown);
            text = format!("%!{verb}({}={shown})", go_type(json));
        }
    }
    text
}

fn integer(verb: char, flags: &Flags, number: i64) -> String {
    match verb {
        'v' | 'd' if flags.plus && number >= 0 => format!("+{number}"),
        'v' | 'd' => number.to_string(),
        'x' => format!("{number:x}"),
        'X' => format!("{number:X}"),
        'o' => format!("{number:o}"),
        'b' => format!("{number:b}"),
        'c' => {
            let c = u32::try_from(number).ok().and_then(char::from_u32);
            c.unwrap_or(char::REPLACEMENT_CHARACTER).to_string()
        }
        'T' => "int".to_owned(),
        _ => format!("%!{verb}(int={number})"),
    }
}

/// Text in Go's quotes.
fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            '\r' => out.push_str("\\r"),
            c if c.is_control() => out.push_str(&format!("\\x{:02x}", c as u32)),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The widest a value is padded to, as Go has it.
const WIDEST: usize = 1_000_000;

#[derive(Default)]
struct Flags {
    minus: bool,
    plus: bool,
    zero: bool,
    width: usize,
    precision: Option<usize>,
}

/// `printf`.
pub fn printf(form: &str, arguments: &[Val<'_>]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = form.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut flags = Flags::default();
        while let Some(flag) = chars.next_if(|c| "+-# 0".contains(*c)) {
            match flag {
                '-' => flags.minus = true,
                '+' => flags.plus = true,
                '0' => flags.zero = true,
                _ => {}
            }
        }
        let mut number = || {
            let mut number: Option<usize> = None;
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                let digit = digit as usize - '0' as usize;
                number = Some(number.unwrap_or(0).saturating_mul(10) + digit);
            }
            number.map(|number| number.min(WIDEST))
        };
        flags.width = number().unwrap_or(0);
        if chars.next_if_eq(&'.').is_some() {
            let mut digits = String::new();
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                digits.push(digit);
            }
            flags.precision = Some(digits.parse().unwrap_or(0).min(WIDEST));
        }
        let text = match chars.next() {
            None => "%!(NOVERB)".to_owned(),
            Some('%') => "%".to_owned(),
            Some(verb) => match arguments.next() {
                None => format!("%!{verb}(MISSING)"),
                Some(value) => formatted(verb, &flags, value),
            },
        };
        pad(&text, &flags, &mut out);
    }
    let extra: Vec<String> = arguments
        .map(|value| {
            let mut text = format!("{}=", value.go_type());
            match value {
                Val::Json(value) => plain(value, &mut text),
                other => printed(other, &mut text),
            }
            text
        })
        .collect();
    if !extra.is_empty() {
        out.push_str(&format!("%!(EXTRA {})", extra.join(", ")));
    }
    out
}

fn pad(text: &str, flags: &Flags, out: &mut String) {
    let missing = flags.width.saturating_sub(text.chars().count());
    if flags.minus {
        out.push_str(text);
        out.extend(std::iter::repeat_n(' ', missing));
    } else if flags.zero && text.starts_with('-') {
        out.push('-');
        out.extend(std::iter::repeat_n('0', missing));
        out.push_str(&text[1..]);
    } else {
        let with = if flags.zero { '0' } else { ' ' };
        out.extend(std::iter::repeat_n(with, missing));
        out.push_str(text);
    }
}

/// `print`: blanks between operands of which neither is text. `println`: always, and a line's end.
pub fn print(values: &[Val<'_>], is_line: bool) -> String {
    let mut out = String::new();
    let is_text = |value: &Val<'_>| matches!(value, Val::Json(value) if value.is_string());
    for (at, value) in values.iter().enumerate() {
        if at > 0 && (is_line || !is_text(value) && !is_text(&values[at - 1])) {
            out.push(' ');
        }
        match value {
            Val::Json(value) => plain(value, &mut out),
            Val::Missing => out.push_str("<nil>"),
            Val::Int(number) => out.push_str(&number.to_string()),
        }
    }
    if is_line {
        out.push('\n');
    }
    out
}
