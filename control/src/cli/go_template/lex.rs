//! Text into text and tokens.

use super::TemplateError;

/// A token inside `{{ }}`.
#[derive(Clone, Debug, PartialEq)]
pub enum Token {
    /// `range`, `printf`, `true`.
    Word(String),
    /// `.name`; the dot alone is an empty name.
    Field(String),
    /// `$name`; the root alone is an empty name.
    Variable(String),
    /// `"a\n"` or `` `a` ``.
    Text(String),
    /// `80`, `0x1f`, `'a'`.
    Integer(i64),
    /// `1.5`.
    Float(f64),
    /// `( ) | , := =`.
    Sign(&'static str),
    /// Blanks.
    Space,
}

/// A token and where it begins.
#[derive(Clone, Debug, PartialEq)]
pub struct Placed {
    /// What it is.
    pub token: Token,
    /// Its first byte in the template.
    pub at: usize,
}

/// A piece of the template.
#[derive(Debug, PartialEq)]
pub enum Piece {
    /// Printed as it is.
    Text(String),
    /// What stands between `{{` and `}}`.
    Action(Vec<Placed>),
}

/// Fails at a place, as Go's parser does.
pub fn fail<T>(text: &str, at: usize, what: impl AsRef<str>) -> Result<T, TemplateError> {
    let line = text[..at.min(text.len())].matches('\n').count() + 1;
    let what = what.as_ref();
    Err(TemplateError(format!("template: output:{line}: {what}")))
}

/// Takes the template apart. `{{- ` and ` -}}` trim the text beside them; comments are left out.
pub fn pieces(text: &str) -> Result<Vec<Piece>, TemplateError> {
    let mut found = Vec::new();
    let (mut at, mut trims) = (0, false);
    while at <= text.len() {
        let open = text[at..].find("{{").map(|open| at + open);
        let mut plain = &text[at..open.unwrap_or(text.len())];
        if trims {
            plain = plain.trim_start_matches(blank);
        }
        let Some(open) = open else {
            push_text(&mut found, plain);
            break;
        };
        let mut inside = open + 2;
        let marker = text[inside..].strip_prefix('-');
        if marker.is_some_and(|rest| rest.starts_with(blank)) {
            plain = plain.trim_end_matches(blank);
            inside += 1;
        }
        push_text(&mut found, plain);
        let rest = text[inside..].trim_start_matches(blank);
        if rest.starts_with("/*") {
            (at, trims) = comment(text, text.len() - rest.len())?;
            continue;
        }
        let (tokens, end, trimmed) = action(text, inside)?;
        found.push(Piece::Action(tokens));
        (at, trims) = (end, trimmed);
    }
    Ok(found)
}

fn push_text(found: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        found.push(Piece::Text(text.to_owned()));
    }
}

const fn blank(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\r' | '\n')
}

/// Behind a comment that begins at `start`, and whether it trims what follows.
fn comment(text: &str, start: usize) -> Result<(usize, bool), TemplateError> {
    let Some(end) = text[start..].find("*/") else {
        return fail(text, start, "unclosed comment");
    };
    let end = start + end + 2;
    for (close, trims) in [("}}", false), (" -}}", true)] {
        if text[end..].starts_with(close) {
            return Ok((end + close.len(), trims));
        }
    }
    fail(text, end, "comment ends before closing delimiter")
}

/// The tokens up to `}}`, what is behind it, and whether that is trimmed.
fn action(text: &str, start: usize) -> Result<(Vec<Placed>, usize, bool), TemplateError> {
    let mut tokens: Vec<Placed> = Vec::new();
    let mut at = start;
    loop {
        let rest = &text[at..];
        if rest.starts_with("}}") {
            return Ok((tokens, at + 2, false));
        }
        let blanks = rest.len() - rest.trim_start_matches(blank).len();
        if blanks > 0 && rest[blanks..].starts_with("-}}") {
            return Ok((tokens, at + blanks + 3, true));
        }
        let Some(first) = rest.chars().next() else {
            return fail(text, start, "unclosed action");
        };
        let (token, length) = if blanks > 0 {
            (Token::Space, blanks)
        } else {
            token(text, at, first)?
        };
        tokens.push(Placed { token, at });
        at += length;
    }
}

fn token(text: &str, at: usize, first: char) -> Result<(Token, usize), TemplateError> {
    let rest = &text[at..];
    for sign in [":=", "=", "|", "(", ")", ","] {
        if rest.starts_with(sign) {
            return Ok((Token::Sign(sign), sign.len()));
        }
    }
    let word = |from: usize| {
        let end = rest[from..].find(|c: char| !c.is_alphanumeric() && c != '_');
        end.map_or(rest.len(), |end| from + end)
    };
    let number_follows = |from: usize| rest[from..].starts_with(|c: char| c.is_ascii_digit());
    match first {
        '.' if number_follows(1) => number(text, at),
        '.' => {
            let end = word(1);
            Ok((Token::Field(rest[1..end].to_owned()), end))
        }
        '$' => {
            let end = word(1);
            Ok((Token::Variable(rest[1..end].to_owned()), end))
        }
        '"' | '\'' => quoted(text, at, first),
        '`' => match rest[1..].find('`') {
            Some(end) => Ok((Token::Text(rest[1..end + 1].to_owned()), end + 2)),
            None => fail(text, at, "unterminated raw quoted string"),
        },
        '+' | '-' | '0'..='9' => number(text, at),
        c if c.is_alphanumeric() || c == '_' => {
            let end = word(0);
            Ok((Token::Word(rest[..end].to_owned()), end))
        }
        c => fail(
            text,
            at,
            format!(
                "unexpected bad character U+{:04X} '{c}' in command",
                c as u32
            ),
        ),
    }
}

fn number(text: &str, at: usize) -> Result<(Token, usize), TemplateError> {
    let rest = &text[at..];
    let mut before = ' ';
    let end = rest.char_indices().find(|(index, c)| {
        let sign = (*c == '+' || *c == '-') && (*index == 0 || before == 'e' || before == 'E');
        let part = c.is_ascii_alphanumeric() || *c == '.' || *c == '_' || sign;
        before = *c;
        !part
    });
    let end = end.map_or(rest.len(), |(index, _)| index);
    let written = &rest[..end];
    let plain = written.replace('_', "");
    let (sign, digits) = match plain.strip_prefix('-') {
        Some(digits) => (-1, digits),
        None => (1, plain.strip_prefix('+').unwrap_or(&plain)),
    };
    let radix = |prefixes: [&str; 2], radix| {
        let digits = prefixes
            .iter()
            .find_map(|prefix| digits.strip_prefix(prefix));
        digits.and_then(|digits| i64::from_str_radix(digits, radix).ok())
    };
    let whole = radix(["0x", "0X"], 16)
        .or_else(|| radix(["0o", "0O"], 8))
        .or_else(|| radix(["0b", "0B"], 2))
        .or_else(|| digits.parse::<i64>().ok());
    let numeric = digits.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    match whole {
        Some(whole) => Ok((Token::Integer(sign * whole), end)),
        None => match plain.parse::<f64>() {
            Ok(float) if numeric => Ok((Token::Float(float), end)),
            _ => fail(text, at, format!("bad number syntax: {written:?}")),
        },
    }
}

/// A string or, in single quotes, the number of a character.
fn quoted(text: &str, at: usize, quote: char) -> Result<(Token, usize), TemplateError> {
    let open = |what: &str| fail(text, at, what);
    let unterminated = if quote == '"' {
        "unterminated quoted string"
    } else {
        "unterminated character constant"
    };
    let mut out = String::new();
    let mut chars = text[at + 1..].char_indices();
    while let Some((index, c)) = chars.next() {
        match c {
            _ if c == quote => {
                let length = index + 2;
                if quote == '"' {
                    return Ok((Token::Text(out), length));
                }
                let mut only = out.chars();
                return match (only.next(), only.next()) {
                    (Some(one), None) => Ok((Token::Integer(i64::from(one as u32)), length)),
                    _ => open("malformed character constant"),
                };
            }
            '\n' => return open(unterminated),
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('n') => out.push('\n'),
                Some('t') => out.push('\t'),
                Some('r') => out.push('\r'),
                Some('a') => out.push('\x07'),
                Some('b') => out.push('\x08'),
                Some('f') => out.push('\x0c'),
                Some('v') => out.push('\x0b'),
                Some(c @ ('\\' | '"' | '\'')) => out.push(c),
                Some(kind @ ('x' | 'u' | 'U')) => {
                    let count = match kind {
                        'x' => 2,
                        'u' => 4,
                        _ => 8,
                    };
                    let digits: String = chars.by_ref().take(count).map(|(_, c)| c).collect();
                    let code = u32::from_str_radix(&digits, 16)
                        .ok()
                        .and_then(char::from_u32);
                    match code {
                        Some(c) if digits.len() == count => out.push(c),
                        _ => return open("invalid syntax"),
                    }
                }
                Some(_) => return open("invalid syntax"),
                None => return open(unterminated),
            },
            c => out.push(c),
        }
    }
    open(unterminated)
}
