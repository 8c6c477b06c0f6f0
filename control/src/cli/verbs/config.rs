//! `config`: contexts and the namespace that each is in.

use std::path::Path;

use serde_json::{Value, json};

use crate::cli::context::{Choices, MACHINE, name_of};
use crate::cli::flags::{Flag, FlagError, switch};
use crate::cli::output::Form;
use crate::cli::session::{SOCKET, Session, VerbError};
use crate::cli::table::Table;
use crate::lab_protocol::{control_socket, running_labs};

use super::{MISSING_KEYS, OUTPUT, TEMPLATE};

/// Flags of all of its verbs.
pub const FLAGS: &[Flag] = &[
    switch("current", None, "set-context: the current context"),
    switch("minify", None, "view: the current context only"),
    switch("no-headers", None, "get-contexts: leave out the header"),
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    switch("raw", None, ""),
    switch("flatten", None, ""),
];

/// What each verb takes of them.
const VERBS: &[(&str, &[&str])] = &[
    ("current-context", &[]),
    ("get-clusters", &[]),
    ("get-contexts", &["no-headers", "output"]),
    ("get-users", &[]),
    ("set-context", &["current"]),
    ("use-context", &[]),
    (
        "view",
        &[
            "minify",
            "raw",
            "flatten",
            "output",
            "template",
            "allow-missing-template-keys",
        ],
    ),
];

/// What kubectl's `config` does and Weir's cannot.
const FOREIGN: &[&str] = &[
    "delete-cluster",
    "delete-context",
    "delete-user",
    "rename-context",
    "set",
    "set-cluster",
    "set-credentials",
    "unset",
];

/// The verbs' names.
pub fn verbs() -> impl Iterator<Item = &'static str> {
    VERBS.iter().map(|(name, _)| *name)
}

/// Runs `config`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let words: Vec<String> = session.parsed.arguments.clone();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let Some((verb, arguments)) = words.split_first() else {
        let known: Vec<&str> = verbs().collect();
        let text = format!("config takes one of: {}", known.join(", "));
        return Err(VerbError::Usage(text));
    };
    if FOREIGN.contains(verb) {
        return Err(VerbError::Local(format!(
            "config {verb} is not supported: a context here is a lab that runs, or the machine's \
             daemon; its socket's owner is the user"
        )));
    }
    let Some((_, takes)) = VERBS.iter().find(|(name, _)| name == verb) else {
        return Err(VerbError::Usage(format!("unknown command \"{verb}\"")));
    };
    let own = |flag: &str| FLAGS.iter().any(|own| own.long == flag);
    let foreign = |flag: &str| own(flag) && !takes.contains(&flag);
    if let Some((flag, _)) = { session.parsed.in_order.iter() }.find(|(flag, _)| foreign(flag)) {
        return Err(FlagError::UnknownLong((*flag).to_owned()).into());
    }
    let unexpected = || {
        let text = format!("Unexpected args: [{}]", arguments.join(" "));
        Err(VerbError::Usage(text))
    };
    match (*verb, arguments) {
        ("current-context", []) => {
            println!("{}", current(session)?);
            Ok(())
        }
        ("get-contexts", names) => get_contexts(session, names),
        ("get-clusters", []) => {
            println!("NAME");
            contexts(session).iter().for_each(|name| println!("{name}"));
            Ok(())
        }
        ("get-users", []) => {
            println!("NAME\n{}", user());
            Ok(())
        }
        ("set-context", names @ ([] | [_])) => set_context(session, names.first().copied()),
        ("use-context", [name]) => use_context(session, name),
        ("view", []) => view(session),
        _ => unexpected(),
    }
}

fn current(session: &Session) -> Result<String, VerbError> {
    let unset = || VerbError::Local("current-context is not set".into());
    session.context().ok_or_else(unset)
}

/// Who speaks to the daemon.
fn user() -> String {
    std::env::var("USER").unwrap_or_else(|_| rustix::process::getuid().as_raw().to_string())
}

/// Every context there is.
fn contexts(session: &Session) -> Vec<String> {
    let mut names = running_labs();
    if Path::new(SOCKET).exists() {
        names.push(MACHINE.to_owned());
    }
    names.extend(session.context());
    names.sort();
    names.dedup();
    names
}

fn get_contexts(session: &Session, wanted: &[&str]) -> Result<(), VerbError> {
    let form = session.parsed.value("output").unwrap_or_default();
    if !["", "name"].contains(&form) {
        return Err(VerbError::Local(format!(
            "--output {form} is not available in kubectl config get-contexts; resetting to default \
             output format"
        )));
    }
    let (all, current, choices) = (contexts(session), session.context(), Choices::load());
    let unknown = wanted
        .iter()
        .filter(|name| !all.iter().any(|own| own == *name));
    let errors: Vec<VerbError> = unknown
        .map(|name| VerbError::Local(format!("context {name} not found")))
        .collect();
    let mut table = Table::new(["CURRENT", "NAME", "CLUSTER", "AUTHINFO", "NAMESPACE"]);
    for name in all {
        if !wanted.is_empty() && !wanted.contains(&name.as_str()) {
            continue;
        }
        if form == "name" {
            println!("{name}");
            continue;
        }
        let mark = if current.as_ref() == Some(&name) {
            "*"
        } else {
            ""
        };
        let namespace = choices.namespaces.get(&name).cloned().unwrap_or_default();
        table.push(vec![mark.to_owned(), name.clone(), name, user(), namespace]);
    }
    if form.is_empty() {
        print!("{}", table.render(!session.parsed.is_on("no-headers")));
    }
    VerbError::all(errors)
}

fn set_context(session: &Session, name: Option<&str>) -> Result<(), VerbError> {
    let is_current = session.parsed.is_on("current");
    let local = |text: &str| Err(VerbError::Local(text.to_owned()));
    let name = match (name, is_current) {
        (Some(_), true) => return local("you cannot specify both a context name and --current"),
        (None, false) => {
            return local("you must specify a non-empty context name or --current");
        }
        (Some(name), false) => name.to_owned(),
        (None, true) => match session.context() {
            Some(name) => name,
            None => return local("no current context is set"),
        },
    };
    let all = contexts(session);
    if !all.contains(&name) {
        return Err(VerbError::Local(format!(
            "no context exists with the name: {name:?}: a context is a lab that runs; `weir lab \
             up NAME` starts one"
        )));
    }
    let mut choices = Choices::load();
    match session.parsed.value("namespace") {
        None => {}
        Some("") => drop(choices.namespaces.remove(&name)),
        Some(namespace) => drop(
            choices
                .namespaces
                .insert(name.clone(), namespace.to_owned()),
        ),
    }
    choices.store(&|context| all.iter().any(|own| own == context))?;
    println!("Context {name:?} modified.");
    Ok(())
}

fn use_context(session: &Session, name: &str) -> Result<(), VerbError> {
    let all = contexts(session);
    if !all.iter().any(|own| own == name) {
        let text = format!("no context exists with the name: {name:?}");
        return Err(VerbError::Local(text));
    }
    let mut choices = Choices::load();
    choices.current_context = Some(name.to_owned());
    choices.store(&|context| all.iter().any(|own| own == context))?;
    println!("Switched to context {name:?}.");
    Ok(())
}

fn view(session: &Session) -> Result<(), VerbError> {
    let choices = Choices::load();
    let current = session.context();
    let mut names = contexts(session);
    if session.parsed.is_on("minify") {
        names.retain(|name| current.as_ref() == Some(name));
    }
    let server = |name: &str| {
        let socket = match name {
            MACHINE => SOCKET.to_owned(),
            path if path.starts_with('/') => path.to_owned(),
            lab => control_socket(lab).display().to_string(),
        };
        debug_assert_eq!(name_of(Path::new(&socket)), name);
        format!("unix://{socket}")
    };
    let context = |name: &String| {
        let mut context = json!({"cluster": name, "user": user()});
        if let Some(namespace) = choices.namespaces.get(name) {
            context["namespace"] = namespace.as_str().into();
        }
        json!({"name": name, "context": context})
    };
    let clusters: Vec<Value> = { names.iter() }
        .map(|name| json!({"name": name, "cluster": {"server": server(name)}}))
        .collect();
    let shown = json!({
        "apiVersion": "v1", "kind": "Config", "preferences": {},
        "clusters": clusters,
        "contexts": names.iter().map(context).collect::<Vec<_>>(),
        "current-context": current.unwrap_or_default(),
        "users": [{"name": user(), "user": {}}],
    });
    let form = match Form::of(&session.parsed)? {
        Form::Table { .. } => Form::Yaml,
        form => form,
    };
    print!("{}", form.render(&shown)?);
    Ok(())
}
