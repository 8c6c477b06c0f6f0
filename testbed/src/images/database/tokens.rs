//! SQL's words.

/// Where reading failed: the rest of the statement.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError(pub String);

/// A word of SQL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Token {
    /// A name or a keyword.
    Word(String),
    /// A name in backticks.
    Quoted(String),
    /// A string.
    Text(String),
    /// A number.
    Number(String),
    /// Anything else.
    Symbol(char),
}

/// The words with where they begin.
pub fn tokens(text: &str) -> Result<Vec<(usize, Token)>, SyntaxError> {
    let mut found = Vec::new();
    let mut rest = text;
    loop {
        rest = skip_space(rest);
        let at = text.len() - rest.len();
        let Some(first) = rest.chars().next() else {
            return Ok(found);
        };
        let (token, length) = match first {
            '\'' => quoted(rest, '\'').map(|(text, length)| (Token::Text(text), length))?,
            '"' | '`' => quoted(rest, first).map(|(text, length)| match first {
                '`' => (Token::Quoted(text), length),
                _ => (Token::Text(text), length),
            })?,
            c if c.is_ascii_digit() => {
                let number = |c: char| !(c.is_ascii_digit() || c == '.');
                let end = rest.find(number).unwrap_or(rest.len());
                (Token::Number(rest[..end].to_owned()), end)
            }
            c if c.is_alphabetic() || c == '_' => {
                let other = |c: char| !(c.is_alphanumeric() || c == '_' || c == '$');
                let end = rest.find(other).unwrap_or(rest.len());
                (Token::Word(rest[..end].to_owned()), end)
            }
            c => (Token::Symbol(c), c.len_utf8()),
        };
        found.push((at, token));
        rest = &rest[length..];
    }
}

fn skip_space(text: &str) -> &str {
    let mut rest = text.trim_start();
    loop {
        let line = rest.strip_prefix("-- ").or_else(|| rest.strip_prefix('#'));
        rest = match (line, rest.strip_prefix("/*")) {
            (Some(line), _) => line.find('\n').map_or("", |end| &line[end..]),
            (None, Some(comment)) => comment.find("*/").map_or("", |end| &comment[end + 2..]),
            (None, None) => return rest,
        }
        .trim_start();
    }
}

/// A quoted piece and its length with the quotes.
fn quoted(text: &str, quote: char) -> Result<(String, usize), SyntaxError> {
    let mut inner = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        match c {
            '\\' if quote != '`' => match chars.next() {
                Some((_, 'n')) => inner.push('\n'),
                Some((_, 't')) => inner.push('\t'),
                Some((_, '0')) => inner.push('\0'),
                Some((_, other)) => inner.push(other),
                None => break,
            },
            c if c == quote => match chars.peek() {
                Some((_, next)) if *next == quote => {
                    chars.next();
                    inner.push(quote);
                }
                _ => return Ok((inner, at + 1)),
            },
            c => inner.push(c),
        }
    }
    Err(SyntaxError(text.to_owned()))
}
