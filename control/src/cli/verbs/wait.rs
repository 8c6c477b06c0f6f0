//! `wait`: until objects are there, gone, or as wanted.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::cli::flags::{Flag, switch, value};
use crate::cli::jsonpath::Template;
use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::client::Client;
use crate::daemon::server::refused;
use crate::protocol::{GetParams, Reason};

use super::done::Done;
use super::find::{Found, ask, queries};
use super::mutate::DryRun;
use super::watched::Watched;
use super::{ALL_NAMESPACES, FILES, MISSING_KEYS, OUTPUT, SELECTOR, TEMPLATE};

/// Flags of `wait`.
pub const FLAGS: &[Flag] = &[
    value(
        "for",
        None,
        "create, delete, condition=NAME[=VALUE] (VALUE is true by default) or jsonpath=PATH[=VALUE]",
    ),
    value(
        "timeout",
        None,
        "How long to wait, as 30s (default) or 2m; 0 looks once, below 0 is a week",
    ),
    FILES[0],
    FILES[1],
    SELECTOR,
    value(
        "field-selector",
        None,
        "Field selector, as status.phase=Running",
    ),
    switch("all", None, "All objects of the kinds in the namespace"),
    ALL_NAMESPACES,
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
];

const WEEK: Duration = Duration::from_secs(7 * 24 * 3600);
/// How often to look for objects that are not there yet: what is asked for by label or in a kind
/// that other namespaces have, too, no single watch tells.
const LOOK: Duration = Duration::from_millis(200);
const TIMED_OUT: &str = "timed out waiting for the condition";

/// What is waited for.
#[derive(Debug)]
enum For {
    Create,
    Delete,
    Condition {
        name: String,
        status: String,
    },
    JsonPath {
        path: Template,
        value: Option<String>,
    },
}

/// When to give up.
#[derive(Clone, Copy)]
struct Patience {
    /// Look once, and say what is not met.
    once: bool,
    deadline: Instant,
}

impl Patience {
    fn is_over(self) -> bool {
        Instant::now() >= self.deadline
    }
}

/// Runs `wait`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let seconds = values::duration(&session.parsed, "timeout")?.unwrap_or(30.0);
    let mut done = Done::new(session, DryRun::None)?;
    let wanted = For::parse(session.parsed.value("for").unwrap_or_default())?;
    let limit = match Duration::try_from_secs_f64(seconds) {
        Ok(limit) => limit.min(WEEK),
        Err(_) => WEEK,
    };
    let patience = Patience {
        once: limit.is_zero(),
        deadline: Instant::now() + limit,
    };
    // kubectl's default, for this verb alone.
    session.parsed.assume("recursive", "true");
    let queries = queries(session, false)?;
    let mut client = session.connect()?;
    if let For::Create = wanted {
        until_created(&mut client, &queries, patience)?;
    }
    let (found, missing) = ask(&mut client, &queries)?;
    let mut errors = match wanted {
        For::Delete => Vec::new(),
        _ => missing,
    };
    if found.is_empty() {
        VerbError::all(errors)?;
        return match wanted {
            For::Delete => Ok(()),
            _ => Err(VerbError::Local("no matching resources found".into())),
        };
    }
    let mut watched = Watched::of(session, &found)?;
    for one in &found {
        match wait_for(&wanted, one, &mut watched, patience) {
            Ok(object) => done.print(&one.shown, &object, "condition met")?,
            Err(error) => errors.push(error),
        }
    }
    VerbError::all(errors)
}

/// Waits until all that is asked for by name, and any of what is asked for otherwise, is there.
fn until_created(
    client: &mut Client,
    queries: &[GetParams],
    patience: Patience,
) -> Result<(), VerbError> {
    loop {
        let (found, missing) = ask(client, queries)?;
        if missing.is_empty() && !found.is_empty() {
            return Ok(());
        }
        if patience.is_over() {
            return Err(VerbError::Local(TIMED_OUT.into()));
        }
        let left = patience.deadline.saturating_duration_since(Instant::now());
        std::thread::sleep(LOOK.min(left));
    }
}

/// Waits for one object; gives it as it is when that is over.
fn wait_for(
    wanted: &For,
    one: &Found,
    watched: &mut Watched,
    patience: Patience,
) -> Result<Value, VerbError> {
    let local = VerbError::Local;
    if let For::Create = wanted {
        return Ok(one.object.clone());
    }
    // As in kubectl, what the others took is not left for this one.
    if patience.is_over() && !patience.once {
        return Err(local(format!(
            "{TIMED_OUT} on {}/{}",
            one.plural(),
            one.name()
        )));
    }
    let mut begun = false;
    loop {
        let now = watched.get(one);
        let same = now.filter(|object| object["metadata"]["uid"] == one.uid());
        match (wanted, now) {
            (For::Delete, _) if same.is_none() => return Ok(one.object.clone()),
            (For::Delete, _) => {}
            (_, Some(object)) if wanted.is_met(object).map_err(local)? => {
                return Ok(object.clone());
            }
            (_, None) if !begun => {
                let message = format!("{} \"{}\" not found", one.resource, one.name());
                let error = refused(Reason::NotFound, message);
                return Err(crate::client::ClientError::Refused(error).into());
            }
            _ => {}
        }
        if patience.once {
            let name = one.name();
            return Err(local(format!(
                "condition not met for {}/{name}",
                one.plural()
            )));
        }
        begun = true;
        if watched.next(Some(patience.deadline))?.is_none() {
            return Err(local(format!(
                "{TIMED_OUT} on {}/{}",
                one.plural(),
                one.name()
            )));
        }
    }
}

impl For {
    fn parse(text: &str) -> Result<For, VerbError> {
        match text.to_lowercase().as_str() {
            "create" => return Ok(For::Create),
            "delete" => return Ok(For::Delete),
            _ => {}
        }
        if let Some(condition) = text.strip_prefix("condition=") {
            let (name, status) = condition.split_once('=').unwrap_or((condition, "true"));
            return Ok(For::Condition {
                name: name.to_owned(),
                status: status.to_owned(),
            });
        }
        let Some(input) = text.strip_prefix("jsonpath=") else {
            return Err(VerbError::Local(format!(
                "unrecognized condition: \"{text}\""
            )));
        };
        let (path, value) = json_path(input).map_err(VerbError::Local)?;
        let path = Template::parse(&path)
            .map_err(|error| VerbError::Local(format!("error parsing jsonpath {path}, {error}")))?;
        Ok(For::JsonPath { path, value })
    }

    fn is_met(&self, object: &Value) -> Result<bool, String> {
        match self {
            For::Create => Ok(true),
            For::Delete => Ok(false),
            For::Condition { name, status } => Ok(has_condition(object, name, status)),
            For::JsonPath { path, value } => path_is(&path.select(object), value.as_deref()),
        }
    }
}

/// The path and the value of `PATH[=VALUE]`: a single `=` parts them, `==` belongs to the path.
fn json_path(input: &str) -> Result<(String, Option<String>), String> {
    let (mut parts, mut rest) = (vec![String::new()], input);
    while let Some(c) = rest.chars().next() {
        let last = parts.len() - 1;
        if rest.starts_with("==") {
            parts[last].push_str("==");
            rest = &rest[2..];
        } else {
            if c == '=' {
                parts.push(String::new());
            } else {
                parts[last].push(c);
            }
            rest = &rest[c.len_utf8()..];
        }
    }
    let mut parts = parts.into_iter();
    let path = parts.next().unwrap_or_default();
    let value = parts.next();
    if parts.next().is_some() {
        return Err(
            "jsonpath wait format must be --for=jsonpath='{.status.readyReplicas}'=3 or \
             --for=jsonpath='{.status.readyReplicas}'"
                .into(),
        );
    }
    if path.is_empty() {
        return Err("jsonpath expression cannot be empty".into());
    }
    let value = value.map(|value| value.trim_matches(['\'', '"']).to_owned());
    if value.as_deref() == Some("") {
        return Err("jsonpath wait has to have a value after equal sign, like \
             --for=jsonpath='{.status.readyReplicas}'=3"
            .into());
    }
    Ok((path, value))
}

fn path_is(found: &[Vec<&Value>], wanted: Option<&str>) -> Result<bool, String> {
    let Some(first) = found.first().filter(|first| !first.is_empty()) else {
        return Ok(false);
    };
    if found.len() > 1 {
        return Err("given jsonpath expression matches more than one list".into());
    }
    if first.len() > 1 {
        return Err("given jsonpath expression matches more than one value".into());
    }
    let Some(wanted) = wanted else {
        return Ok(true);
    };
    match first[0] {
        Value::Object(_) | Value::Array(_) => {
            Err("jsonpath leads to a nested object or list which is not supported".into())
        }
        Value::String(text) => Ok(text.trim() == wanted.trim()),
        other => {
            let shown = other.to_string();
            Ok(shown == wanted.trim())
        }
    }
}

/// Whether a condition has that status, without regard to case; one that an earlier generation of
/// the object had does not count.
fn has_condition(object: &Value, name: &str, status: &str) -> bool {
    let same = |value: &Value, text: &str| {
        let value = value.as_str().map(str::to_lowercase);
        value.is_some_and(|value| value == text.to_lowercase())
    };
    let conditions = object.pointer("/status/conditions");
    let mut conditions = conditions.and_then(Value::as_array).into_iter().flatten();
    conditions
        .find(|condition| same(&condition["type"], name) && condition["status"].is_string())
        .is_some_and(|condition| {
            let generation = object
                .pointer("/metadata/generation")
                .and_then(Value::as_i64);
            let observed = condition["observedGeneration"]
                .as_i64()
                .or_else(|| object.pointer("/status/observedGeneration")?.as_i64());
            let stale = generation
                .zip(observed)
                .is_some_and(|(now, seen)| seen < now);
            !stale && same(&condition["status"], status)
        })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn what_is_waited_for_is_read_as_kubectl_reads_it() {
        let refused = |text: &str| For::parse(text).unwrap_err().to_string();
        assert_eq!(refused(""), "unrecognized condition: \"\"");
        assert_eq!(refused("ready"), "unrecognized condition: \"ready\"");
        assert!(refused("jsonpath=").starts_with("jsonpath expression cannot be empty"));
        assert!(refused("jsonpath={.a}=").starts_with("jsonpath wait has to have a value"));
        assert!(refused("jsonpath={.a}=b=c").starts_with("jsonpath wait format must be"));
        assert!(matches!(For::parse("Delete"), Ok(For::Delete)));
        assert!(matches!(For::parse("create"), Ok(For::Create)));
        let filter = "{.conditions[?(@.type==\"Ready\")].status}";
        assert_eq!(
            json_path(&format!("{filter}='True'")).unwrap(),
            (filter.to_owned(), Some("True".to_owned()))
        );
    }

    #[test]
    fn conditions_of_an_earlier_generation_do_not_count() {
        let object = |generation: i64| {
            json!({
                "metadata": {"generation": generation},
                "status": {"observedGeneration": 2, "conditions": [
                    {"type": "Available", "status": "True"},
                    {"type": "Done", "status": "False", "observedGeneration": 9},
                ]},
            })
        };
        let cases = [
            (2, "available", "true", true),
            (2, "Available", "False", false),
            (3, "available", "true", false),
            (3, "done", "false", true),
            (2, "nothing", "true", false),
        ];
        for (generation, name, status, expected) in cases {
            assert_eq!(
                has_condition(&object(generation), name, status),
                expected,
                "{generation} {name} {status}"
            );
        }
    }

    #[test]
    fn a_path_leads_to_one_plain_value() {
        let object = json!({"a": 3, "b": " x ", "c": [1, 2], "d": {}});
        let met = |text: &str| For::parse(text).unwrap().is_met(&object);
        assert_eq!(met("jsonpath={.a}=3"), Ok(true));
        assert_eq!(met("jsonpath=.a=4"), Ok(false));
        assert_eq!(met("jsonpath={.b}=x"), Ok(true));
        assert_eq!(met("jsonpath={.a}"), Ok(true));
        assert_eq!(met("jsonpath={.nothing}"), Ok(false));
        assert!(
            met("jsonpath={.c[*]}=1")
                .unwrap_err()
                .ends_with("one value")
        );
        assert!(
            met("jsonpath={.a}{.b}=1")
                .unwrap_err()
                .ends_with("one list")
        );
        assert!(met("jsonpath={.d}=1").unwrap_err().contains("nested"));
    }
}
