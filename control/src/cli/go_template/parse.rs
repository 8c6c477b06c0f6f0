//! Tokens into nodes.

use super::lex::{Piece, Placed, Token, fail, pieces};
use super::{DEPTH, Template, TemplateError};

/// A node of a template.
#[derive(Debug, PartialEq)]
pub enum Node {
    /// Printed as it is.
    Text(String),
    /// `{{pipeline}}`.
    Print(Pipeline),
    /// `{{if}}`.
    If(Branch),
    /// `{{with}}`.
    With(Branch),
    /// `{{range}}`.
    Range(Branch),
    /// `{{template "name" pipeline}}`.
    Call(String, Option<Pipeline>),
    /// `{{break}}`.
    Break,
    /// `{{continue}}`.
    Continue,
}

/// A pipeline, what is done if it holds, and else.
#[derive(Debug, PartialEq)]
pub struct Branch {
    /// What is looked at.
    pub pipeline: Pipeline,
    /// If it is not empty.
    pub then: Vec<Node>,
    /// If it is.
    pub otherwise: Vec<Node>,
}

/// `$x := command | command`.
#[derive(Debug, PartialEq)]
pub struct Pipeline {
    /// The variables that it sets.
    pub variables: Vec<String>,
    /// Whether they are new.
    pub declares: bool,
    /// Each but the first gets the result of the one before as its last argument.
    pub commands: Vec<Command>,
}

/// A function and its arguments, or one operand.
#[derive(Debug, PartialEq)]
pub struct Command {
    /// The first may be a function's name.
    pub operands: Vec<Operand>,
    /// Where it begins.
    pub at: usize,
    /// As it is written, for errors.
    pub written: String,
}

/// An operand.
#[derive(Debug, PartialEq)]
pub enum Operand {
    /// A function's name.
    Function(String),
    /// `.a.b`; empty: the dot.
    Field(Vec<String>),
    /// `$x.a.b`.
    Variable(String, Vec<String>),
    /// `(pipeline).a.b`.
    Nested(Pipeline, Vec<String>),
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
    /// Another number.
    Float(f64),
    /// `true` or `false`.
    Bool(bool),
    /// `nil`.
    Nil,
}

/// What ends a list of nodes.
#[derive(Debug, PartialEq)]
enum Closing {
    /// The text's own end.
    Text,
    /// `{{end}}`.
    End,
    /// `{{else}}`, or what follows in `{{else if …}}`.
    Else(Vec<Placed>),
}

struct Parser<'t> {
    text: &'t str,
    pieces: std::vec::IntoIter<Piece>,
    defined: Vec<(String, Vec<Node>)>,
    /// Variables in scope.
    variables: Vec<String>,
    depth: usize,
    ranges: usize,
}

/// Parses a whole template.
pub fn template(text: &str) -> Result<Template, TemplateError> {
    let mut parser = Parser {
        text,
        pieces: pieces(text)?.into_iter(),
        defined: Vec::new(),
        variables: vec![String::new()],
        depth: 0,
        ranges: 0,
    };
    let (main, end) = parser.nodes()?;
    if end != Closing::Text {
        let what = if end == Closing::End { "end" } else { "else" };
        return fail(text, text.len(), format!("unexpected {{{{{what}}}}}"));
    }
    Ok(Template {
        text: text.to_owned(),
        main,
        defined: parser.defined,
    })
}

impl Parser<'_> {
    fn fail<T>(&self, at: usize, what: impl AsRef<str>) -> Result<T, TemplateError> {
        fail(self.text, at, what)
    }

    fn deeper(&mut self) -> Result<(), TemplateError> {
        self.depth += 1;
        if self.depth > DEPTH {
            return self.fail(0, format!("nested deeper than {DEPTH}"));
        }
        Ok(())
    }

    fn nodes(&mut self) -> Result<(Vec<Node>, Closing), TemplateError> {
        self.deeper()?;
        let scope = self.variables.len();
        let mut found = Vec::new();
        let end = loop {
            let tokens = match self.pieces.next() {
                None => break Closing::Text,
                Some(Piece::Text(text)) => {
                    found.push(Node::Text(text));
                    continue;
                }
                Some(Piece::Action(tokens)) => tokens,
            };
            let (word, rest) = keyword(&tokens);
            match word {
                "end" => break Closing::End,
                "else" => break Closing::Else(rest.to_vec()),
                _ => found.extend(self.action(word, rest, &tokens)?),
            }
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        Ok((found, end))
    }

    fn action(
        &mut self,
        word: &str,
        rest: &[Placed],
        whole: &[Placed],
    ) -> Result<Option<Node>, TemplateError> {
        let at = whole.first().map_or(0, |first| first.at);
        Ok(Some(match word {
            "if" | "with" | "range" => self.branch(word, rest, at)?,
            "template" => {
                let (name, rest) = self.name(rest, at)?;
                let about = trimmed(rest);
                let about = match about.is_empty() {
                    true => None,
                    false => Some(self.pipeline(about, at)?),
                };
                Node::Call(name, about)
            }
            "define" | "block" => return self.define(word, rest, at),
            "break" | "continue" if self.ranges == 0 => {
                return self.fail(at, format!("{{{{{word}}}}} outside {{{{range}}}}"));
            }
            "break" => Node::Break,
            "continue" => Node::Continue,
            _ => Node::Print(self.pipeline(whole, at)?),
        }))
    }

    fn name<'r>(
        &self,
        tokens: &'r [Placed],
        at: usize,
    ) -> Result<(String, &'r [Placed]), TemplateError> {
        match trimmed(tokens) {
            [
                Placed {
                    token: Token::Text(name),
                    ..
                },
                rest @ ..,
            ] => Ok((name.clone(), rest)),
            _ => self.fail(at, "a template's name is a string"),
        }
    }

    /// `{{define "name"}}` prints nothing; `{{block "name" pipeline}}` defines and calls.
    fn define(
        &mut self,
        word: &str,
        rest: &[Placed],
        at: usize,
    ) -> Result<Option<Node>, TemplateError> {
        let (name, rest) = self.name(rest, at)?;
        let about = match word {
            "block" => Some(self.pipeline(trimmed(rest), at)?),
            _ => None,
        };
        let outside = std::mem::replace(&mut self.variables, vec![String::new()]);
        let (nodes, end) = self.nodes()?;
        self.variables = outside;
        if end != Closing::End {
            return self.fail(at, "unexpected EOF");
        }
        self.defined.push((name.clone(), nodes));
        Ok(about.map(|about| Node::Call(name, Some(about))))
    }

    fn branch(&mut self, word: &str, rest: &[Placed], at: usize) -> Result<Node, TemplateError> {
        self.deeper()?;
        let scope = self.variables.len();
        let rest = trimmed(rest);
        if rest.is_empty() {
            return self.fail(at, format!("missing value for {word}"));
        }
        let pipeline = self.pipeline_of(rest, at, word == "range")?;
        self.ranges += usize::from(word == "range");
        let (then, end) = self.nodes()?;
        self.ranges -= usize::from(word == "range");
        let otherwise = match end {
            Closing::Text => return self.fail(self.text.len(), "unexpected EOF"),
            Closing::End => Vec::new(),
            Closing::Else(tokens) => self.otherwise(word, &tokens, at)?,
        };
        self.variables.truncate(scope);
        self.depth -= 1;
        let branch = Branch {
            pipeline,
            then,
            otherwise,
        };
        Ok(match word {
            "if" => Node::If(branch),
            "with" => Node::With(branch),
            _ => Node::Range(branch),
        })
    }

    /// Behind `{{else}}`; `{{else if …}}` is an `if` of its own, without an `end`.
    fn otherwise(
        &mut self,
        word: &str,
        tokens: &[Placed],
        at: usize,
    ) -> Result<Vec<Node>, TemplateError> {
        let (next, rest) = keyword(tokens);
        if next == word && (word == "if" || word == "with") {
            return Ok(vec![self.branch(word, rest, at)?]);
        }
        if !trimmed(tokens).is_empty() {
            return self.fail(at, "unexpected token in {{else}}");
        }
        match self.nodes()? {
            (nodes, Closing::End) => Ok(nodes),
            (_, Closing::Text) => self.fail(self.text.len(), "unexpected EOF"),
            (_, Closing::Else(_)) => self.fail(at, "expected end; found {{else}}"),
        }
    }

    fn pipeline(&mut self, tokens: &[Placed], at: usize) -> Result<Pipeline, TemplateError> {
        self.pipeline_of(tokens, at, false)
    }

    /// A pipeline; that of a range may set two variables.
    fn pipeline_of(
        &mut self,
        tokens: &[Placed],
        at: usize,
        is_range: bool,
    ) -> Result<Pipeline, TemplateError> {
        let (variables, declares, rest) = self.assigned(tokens, is_range)?;
        let mut commands = Vec::new();
        for part in split(rest) {
            let part = trimmed(part);
            let Some(first) = part.first() else {
                return self.fail(at, "missing value for command");
            };
            commands.push(self.command(part, first.at)?);
        }
        if declares {
            self.variables.extend(variables.iter().cloned());
        }
        Ok(Pipeline {
            variables,
            declares,
            commands,
        })
    }

    /// The variables that stand before `:=` or `=`.
    fn assigned<'r>(
        &self,
        tokens: &'r [Placed],
        is_range: bool,
    ) -> Result<(Vec<String>, bool, &'r [Placed]), TemplateError> {
        let sign = |placed: &Placed| matches!(placed.token, Token::Sign(":=" | "="));
        let Some(end) = tokens.iter().position(sign) else {
            return Ok((Vec::new(), false, tokens));
        };
        let declares = tokens[end].token == Token::Sign(":=");
        let mut names = Vec::new();
        for placed in &tokens[..end] {
            match &placed.token {
                Token::Variable(name) if !name.is_empty() => {
                    if !declares && !self.variables.contains(name) {
                        return self.fail(placed.at, format!("undefined variable \"${name}\""));
                    }
                    names.push(name.clone());
                }
                Token::Space | Token::Sign(",") => {}
                _ => return self.fail(placed.at, "unexpected operand before an assignment"),
            }
        }
        let most = if is_range { 2 } else { 1 };
        if names.is_empty() || names.len() > most {
            return self.fail(tokens[end].at, "too many declarations in command");
        }
        Ok((names, declares, &tokens[end + 1..]))
    }

    fn command(&mut self, tokens: &[Placed], at: usize) -> Result<Command, TemplateError> {
        let mut operands = Vec::new();
        let mut rest = tokens;
        while let Some(first) = rest.first() {
            if first.token == Token::Space {
                rest = &rest[1..];
                continue;
            }
            let (operand, behind) = self.operand(rest)?;
            if operands.is_empty() {
                let follows = !trimmed(behind).is_empty();
                let callable = matches!(operand, Operand::Function(_));
                if follows && !callable {
                    let what = "can't give argument to non-function";
                    return self.fail(first.at, what);
                }
            }
            operands.push(operand);
            rest = behind;
        }
        let end = tokens.last().map_or(at, |last| {
            let tail = &self.text[last.at..];
            let close = tail.find("}}").unwrap_or(tail.len());
            let blank = tail.find([' ', '|']).unwrap_or(tail.len());
            last.at + close.min(blank)
        });
        Ok(Command {
            operands,
            at,
            written: self.text[at..end].trim().to_owned(),
        })
    }

    fn operand<'r>(
        &mut self,
        tokens: &'r [Placed],
    ) -> Result<(Operand, &'r [Placed]), TemplateError> {
        let (first, rest) = (&tokens[0], &tokens[1..]);
        let operand = match &first.token {
            Token::Field(name) if name.is_empty() => return Ok((Operand::Field(vec![]), rest)),
            Token::Field(name) => {
                let (mut path, rest) = chain(rest);
                path.insert(0, name.clone());
                return Ok((Operand::Field(path), rest));
            }
            Token::Variable(name) => {
                if !self.variables.contains(name) {
                    return self.fail(first.at, format!("undefined variable \"${name}\""));
                }
                let (path, rest) = chain(rest);
                return Ok((Operand::Variable(name.clone(), path), rest));
            }
            Token::Sign("(") => {
                let Some(close) = closing(tokens) else {
                    return self.fail(first.at, "unclosed left paren");
                };
                self.deeper()?;
                let nested = self.pipeline(&tokens[1..close], first.at)?;
                self.depth -= 1;
                let (path, rest) = chain(&tokens[close + 1..]);
                return Ok((Operand::Nested(nested, path), rest));
            }
            Token::Sign(sign) => {
                return self.fail(first.at, format!("unexpected {sign:?} in operand"));
            }
            Token::Word(word) => match word.as_str() {
                "true" => Operand::Bool(true),
                "false" => Operand::Bool(false),
                "nil" => Operand::Nil,
                word if super::functions::is_known(word) => Operand::Function(word.to_owned()),
                word => {
                    return self.fail(first.at, format!("function {word:?} not defined"));
                }
            },
            Token::Text(text) => Operand::Text(text.clone()),
            Token::Integer(number) => Operand::Integer(*number),
            Token::Float(number) => Operand::Float(*number),
            Token::Space => return self.fail(first.at, "missing operand"),
        };
        Ok((operand, rest))
    }
}

/// The fields that follow without a blank.
fn chain(tokens: &[Placed]) -> (Vec<String>, &[Placed]) {
    let mut path = Vec::new();
    let mut rest = tokens;
    while let [
        Placed {
            token: Token::Field(name),
            ..
        },
        behind @ ..,
    ] = rest
        && !name.is_empty()
    {
        path.push(name.clone());
        rest = behind;
    }
    (path, rest)
}

/// The word that an action begins with, and what follows.
fn keyword(tokens: &[Placed]) -> (&str, &[Placed]) {
    match trimmed(tokens) {
        [
            Placed {
                token: Token::Word(word),
                ..
            },
            rest @ ..,
        ] => (word.as_str(), rest),
        other => ("", other),
    }
}

fn trimmed(tokens: &[Placed]) -> &[Placed] {
    let blank = |placed: &Placed| placed.token == Token::Space;
    let begin = tokens
        .iter()
        .position(|t| !blank(t))
        .unwrap_or(tokens.len());
    let end = tokens
        .iter()
        .rposition(|t| !blank(t))
        .map_or(begin, |end| end + 1);
    &tokens[begin..end]
}

/// Where the parenthesis closes that the first token opens.
fn closing(tokens: &[Placed]) -> Option<usize> {
    let mut open = 0;
    tokens.iter().position(|placed| {
        match placed.token {
            Token::Sign("(") => open += 1,
            Token::Sign(")") => open -= 1,
            _ => {}
        }
        open == 0
    })
}

/// The parts between `|`, those in parentheses aside.
fn split(tokens: &[Placed]) -> Vec<&[Placed]> {
    let (mut open, mut from, mut parts) = (0, 0, Vec::new());
    for (at, placed) in tokens.iter().enumerate() {
        match placed.token {
            Token::Sign("(") => open += 1,
            Token::Sign(")") => open -= 1,
            Token::Sign("|") if open == 0 => {
                parts.push(&tokens[from..at]);
                from = at + 1;
            }
            _ => {}
        }
    }
    parts.push(&tokens[from..]);
    parts
}
