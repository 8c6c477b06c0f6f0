//! Nodes into output.

use std::borrow::Cow;

use serde_json::Value;

use super::format::{self, printed};
use super::parse::{Branch, Command, Node, Operand, Pipeline};
use super::{DEPTH, OUTPUT, STEPS, Template, TemplateError, functions};

/// What an expression gives.
#[derive(Clone, Debug)]
pub enum Val<'a> {
    /// Nothing: a key that is not there.
    Missing,
    /// A whole number, which only a template writes or a function counts.
    Int(i64),
    /// Part of the object, or what a function makes; its numbers are floating-point.
    Json(Cow<'a, Value>),
}

impl Val<'_> {
    /// A value made here.
    pub fn made(value: impl Into<Value>) -> Val<'static> {
        Val::Json(Cow::Owned(value.into()))
    }

    /// Whether it is not empty.
    pub fn truth(&self) -> bool {
        match self {
            Val::Missing => false,
            Val::Int(number) => *number != 0,
            Val::Json(value) => match &**value {
                Value::Null => false,
                Value::Bool(bool) => *bool,
                Value::Number(number) => number.as_f64() != Some(0.0),
                Value::String(text) => !text.is_empty(),
                Value::Array(items) => !items.is_empty(),
                Value::Object(members) => !members.is_empty(),
            },
        }
    }

    /// Go's name of its type.
    pub fn go_type(&self) -> &'static str {
        match self {
            Val::Missing => "<nil>",
            Val::Int(_) => "int",
            Val::Json(value) => format::go_type(value),
        }
    }
}

/// What a list of nodes ends with.
#[derive(PartialEq)]
enum Flow {
    On,
    Break,
    Continue,
}

struct Exec<'a> {
    template: &'a Template,
    missing_keys: bool,
    out: String,
    steps: usize,
    depth: usize,
    /// Variables in scope, the innermost last; the root is called "".
    variables: Vec<(&'a str, Val<'a>)>,
}

/// Renders a template.
pub fn render(
    template: &Template,
    object: &Value,
    missing_keys: bool,
) -> Result<String, TemplateError> {
    let root = Val::Json(Cow::Borrowed(object));
    let mut exec = Exec {
        template,
        missing_keys,
        out: String::new(),
        steps: 0,
        depth: 0,
        variables: vec![("", root.clone())],
    };
    exec.nodes(&template.main, &root)?;
    Ok(exec.out)
}

impl<'a> Exec<'a> {
    /// An error where a command stands.
    fn error(&self, command: &Command, what: &str) -> TemplateError {
        let before = &self.template.text[..command.at];
        let line = before.matches('\n').count() + 1;
        let column = before.len() - before.rfind('\n').map_or(0, |newline| newline + 1);
        TemplateError(format!(
            "template: output:{line}:{column}: executing \"output\" at <{}>: {what}",
            command.written
        ))
    }

    fn step(&mut self) -> Result<(), TemplateError> {
        self.steps += 1;
        if self.steps > STEPS {
            let what = format!("template: output: more than {STEPS} steps");
            return Err(TemplateError(what));
        }
        if self.out.len() > OUTPUT {
            let what = format!("template: output: more than {OUTPUT} bytes of output");
            return Err(TemplateError(what));
        }
        Ok(())
    }

    fn nodes(&mut self, nodes: &'a [Node], dot: &Val<'a>) -> Result<Flow, TemplateError> {
        for node in nodes {
            self.step()?;
            match node {
                Node::Text(text) => self.out.push_str(text),
                Node::Print(pipeline) => {
                    let value = self.pipeline(pipeline, dot)?;
                    if pipeline.variables.is_empty() {
                        printed(&value, &mut self.out);
                    }
                }
                Node::If(branch) | Node::With(branch) => {
                    let scope = self.variables.len();
                    let value = self.pipeline(&branch.pipeline, dot)?;
                    let dot = if matches!(node, Node::With(_)) && value.truth() {
                        &value
                    } else {
                        dot
                    };
                    let nodes = if value.truth() {
                        &branch.then
                    } else {
                        &branch.otherwise
                    };
                    let flow = self.nodes(nodes, dot)?;
                    self.variables.truncate(scope);
                    if flow != Flow::On {
                        return Ok(flow);
                    }
                }
                Node::Range(branch) => self.range(branch, dot)?,
                Node::Call(name, about) => self.call(name, about.as_ref(), dot)?,
                Node::Break => return Ok(Flow::Break),
                Node::Continue => return Ok(Flow::Continue),
            }
        }
        Ok(Flow::On)
    }

    fn call(
        &mut self,
        name: &str,
        about: Option<&'a Pipeline>,
        dot: &Val<'a>,
    ) -> Result<(), TemplateError> {
        let template = self.template;
        let Some((_, nodes)) = template.defined.iter().rfind(|(own, _)| own == name) else {
            let what = format!("template: output: template {name:?} not defined");
            return Err(TemplateError(what));
        };
        if self.depth == DEPTH {
            let what = format!("template: output: templates call each other deeper than {DEPTH}");
            return Err(TemplateError(what));
        }
        let dot = match about {
            Some(pipeline) => self.pipeline(pipeline, dot)?,
            None => Val::Missing,
        };
        let outside = std::mem::replace(&mut self.variables, vec![("", dot.clone())]);
        self.depth += 1;
        self.nodes(nodes, &dot)?;
        self.depth -= 1;
        self.variables = outside;
        Ok(())
    }

    fn range(&mut self, branch: &'a Branch, dot: &Val<'a>) -> Result<(), TemplateError> {
        let scope = self.variables.len();
        let over = self.value(&branch.pipeline, dot)?;
        let pairs: Vec<(Val<'a>, Val<'a>)> = match elements(over) {
            Ok(pairs) => pairs,
            Err(over) => {
                let mut shown = String::new();
                printed(&over, &mut shown);
                let command = &branch.pipeline.commands[0];
                return Err(self.error(command, &format!("range can't iterate over {shown}")));
            }
        };
        if pairs.is_empty() {
            self.nodes(&branch.otherwise, dot)?;
        }
        for (key, element) in pairs {
            self.step()?;
            let inside = self.variables.len();
            let values: Vec<Val<'a>> = match branch.pipeline.variables.len() {
                2 => vec![key, element.clone()],
                1 => vec![element.clone()],
                _ => vec![],
            };
            for (name, value) in branch.pipeline.variables.iter().zip(values) {
                self.set(name, value, branch.pipeline.declares);
            }
            let flow = self.nodes(&branch.then, &element)?;
            self.variables.truncate(inside);
            if flow == Flow::Break {
                break;
            }
        }
        self.variables.truncate(scope);
        Ok(())
    }

    fn set(&mut self, name: &'a str, value: Val<'a>, declares: bool) {
        if declares {
            return self.variables.push((name, value));
        }
        let known = self.variables.iter_mut().rfind(|(own, _)| *own == name);
        if let Some((_, old)) = known {
            *old = value;
        }
    }

    /// A pipeline's value, given to its variable too.
    fn pipeline(
        &mut self,
        pipeline: &'a Pipeline,
        dot: &Val<'a>,
    ) -> Result<Val<'a>, TemplateError> {
        let value = self.value(pipeline, dot)?;
        if let Some(name) = pipeline.variables.first() {
            self.set(name, value.clone(), pipeline.declares);
        }
        Ok(value)
    }

    fn value(&mut self, pipeline: &'a Pipeline, dot: &Val<'a>) -> Result<Val<'a>, TemplateError> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, dot, last)?);
        }
        Ok(last.unwrap_or(Val::Missing))
    }

    fn command(
        &mut self,
        command: &'a Command,
        dot: &Val<'a>,
        last: Option<Val<'a>>,
    ) -> Result<Val<'a>, TemplateError> {
        self.step()?;
        let Some((Operand::Function(name), arguments)) = command.operands.split_first() else {
            if last.is_some() {
                return Err(self.error(command, "can't give argument to non-function"));
            }
            return match command.operands.first() {
                Some(Operand::Nil) => Err(self.error(command, "nil is not a command")),
                Some(operand) => self.operand(operand, dot, command),
                None => Ok(Val::Missing),
            };
        };
        // `and` and `or` do not look at what cannot matter.
        let decides = match name.as_str() {
            "and" => Some(false),
            "or" => Some(true),
            _ => None,
        };
        let mut values = Vec::with_capacity(arguments.len() + 1);
        for argument in arguments {
            let value = self.operand(argument, dot, command)?;
            if decides == Some(value.truth()) {
                return Ok(value);
            }
            values.push(value);
        }
        values.extend(last);
        functions::call(name, values)
            .map_err(|what| self.error(command, &format!("error calling {name}: {what}")))
    }

    fn operand(
        &mut self,
        operand: &'a Operand,
        dot: &Val<'a>,
        command: &Command,
    ) -> Result<Val<'a>, TemplateError> {
        match operand {
            Operand::Field(path) => self.follow(dot.clone(), path, command),
            Operand::Variable(name, path) => {
                let known = self.variables.iter().rfind(|(own, _)| own == name);
                let value = known.map_or(Val::Missing, |(_, value)| value.clone());
                self.follow(value, path, command)
            }
            Operand::Nested(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                self.follow(value, path, command)
            }
            Operand::Function(name) => functions::call(name, Vec::new())
                .map_err(|what| self.error(command, &format!("error calling {name}: {what}"))),
            Operand::Text(text) => Ok(Val::made(text.as_str())),
            Operand::Integer(number) => Ok(Val::Int(*number)),
            Operand::Float(number) => Ok(Val::made(*number)),
            Operand::Bool(bool) => Ok(Val::made(*bool)),
            Operand::Nil => Ok(Val::made(Value::Null)),
        }
    }

    fn follow(
        &self,
        value: Val<'a>,
        path: &[String],
        command: &Command,
    ) -> Result<Val<'a>, TemplateError> {
        let mut at = value;
        for name in path {
            at = match at {
                Val::Missing if self.missing_keys => Val::Missing,
                Val::Missing => {
                    let what = format!("nil data; no entry for key {name:?}");
                    return Err(self.error(command, &what));
                }
                Val::Json(value) => match member(value, name) {
                    Ok(Some(found)) => found,
                    Ok(None) if self.missing_keys => Val::Missing,
                    Ok(None) => {
                        let what = format!("map has no entry for key {name:?}");
                        return Err(self.error(command, &what));
                    }
                    Err(kind) => {
                        let what = match kind {
                            "<nil>" => format!("nil pointer evaluating interface {{}}.{name}"),
                            kind => format!("can't evaluate field {name} in type {kind}"),
                        };
                        return Err(self.error(command, &what));
                    }
                },
                Val::Int(_) => {
                    let what = format!("can't evaluate field {name} in type int");
                    return Err(self.error(command, &what));
                }
            };
        }
        Ok(at)
    }
}

/// A member of an object; the type's name if it is none.
fn member<'a>(value: Cow<'a, Value>, name: &str) -> Result<Option<Val<'a>>, &'static str> {
    let found = match &value {
        Cow::Borrowed(Value::Object(members)) => members.get(name).map(Cow::Borrowed),
        Cow::Owned(Value::Object(members)) => members.get(name).cloned().map(Cow::Owned),
        other => return Err(format::go_type(other)),
    };
    Ok(found.map(Val::Json))
}

type Pairs<'a> = Vec<(Val<'a>, Val<'a>)>;

/// Keys and elements of what is ranged over; maps by key.
fn elements<'a>(over: Val<'a>) -> Result<Pairs<'a>, Val<'a>> {
    match over {
        Val::Missing => Ok(Vec::new()),
        Val::Int(count) => {
            // One more than will be executed.
            let count = count.min(STEPS as i64 + 1);
            Ok((0..count).map(|n| (Val::Int(n), Val::Int(n))).collect())
        }
        Val::Json(Cow::Borrowed(Value::Array(items))) => {
            let items = items.iter().map(|item| Val::Json(Cow::Borrowed(item)));
            Ok(numbered(items))
        }
        Val::Json(Cow::Owned(Value::Array(items))) => {
            Ok(numbered(items.into_iter().map(Val::made)))
        }
        Val::Json(Cow::Borrowed(Value::Object(members))) => {
            let mut pairs: Vec<_> = members.iter().collect();
            pairs.sort_by_key(|(key, _)| key.as_str());
            let pair = |(key, value): (&'a String, &'a Value)| {
                (Val::made(key.as_str()), Val::Json(Cow::Borrowed(value)))
            };
            Ok(pairs.into_iter().map(pair).collect())
        }
        Val::Json(Cow::Owned(Value::Object(members))) => {
            let mut pairs: Vec<_> = members.into_iter().collect();
            pairs.sort_by(|a, b| a.0.cmp(&b.0));
            let pair = |(key, value): (String, Value)| (Val::made(key), Val::made(value));
            Ok(pairs.into_iter().map(pair).collect())
        }
        Val::Json(value) if value.is_null() => Ok(Vec::new()),
        other => Err(other),
    }
}

fn numbered<'a>(items: impl Iterator<Item = Val<'a>>) -> Pairs<'a> {
    let pair = |(at, item)| (Val::Int(at as i64), item);
    items.enumerate().map(pair).collect()
}
