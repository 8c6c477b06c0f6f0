//! `apply`, `create` and `replace`: objects from files, in one transaction.

use serde_json::Value;

use crate::cli::files;
use crate::cli::flags::{Flag, joined, optional, switch, value};
use crate::cli::kubectl_version::KubectlVersion;
use crate::cli::kustomize;
use crate::cli::output::{Form, list, unmatched, yaml};
use crate::cli::session::{Session, VerbError};
use crate::objects::{
    self, DecodeError, DecodeOptions, Decoded, Definitions, Object, decode_value, documents,
};
use crate::protocol::{ApplyParams, FieldValidation, Mutation, Operation, OperationKind};
use crate::selector::Selector;

use super::{FILES, MISSING_KEYS, OUTPUT, SELECTOR, TEMPLATE, create, last_applied, replace};

/// Flags of the three verbs; `create` has those of its generators too.
pub const FLAGS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    OUTPUT,
    TEMPLATE,
    MISSING_KEYS,
    optional(
        "dry-run",
        "unchanged",
        "none, client or server: do everything but the change",
    ),
    optional(
        "validate",
        "strict",
        "strict, warn or ignore: what to do with unknown fields",
    ),
    value(
        "expected-generation",
        None,
        "Refuse unless this is the live generation",
    ),
    SELECTOR,
    switch("save-config", None, ""),
    switch("show-managed-fields", None, ""),
    value("field-manager", None, ""),
];

/// Flags of `apply`.
pub const APPLY_FLAGS: &[Flag] = &joined::<{ FLAGS.len() + APPLY.len() }>(FLAGS, &APPLY);

const APPLY: [Flag; 7] = [
    switch(
        "server-side",
        None,
        "As without it, in other words; objects of any size, which then replace what is there",
    ),
    switch(
        "prune",
        None,
        "Refused: nothing is deleted that was not named",
    ),
    switch("all", None, "With --prune"),
    switch("force", None, ""),
    switch("force-conflicts", None, ""),
    switch("overwrite", None, ""),
    switch("openapi-patch", None, ""),
];

/// Flags of `replace`.
pub const REPLACE_FLAGS: &[Flag] = &joined::<{ FLAGS.len() + REPLACE.len() }>(FLAGS, &REPLACE);

const REPLACE: [Flag; 4] = [
    switch(
        "force",
        None,
        "Delete what is there, wait until it is gone, create it anew",
    ),
    value(
        "grace-period",
        None,
        "With --force: seconds that a pod gets to end (0)",
    ),
    value(
        "timeout",
        None,
        "With --force: how long to wait, as 30s; 0 for as long as it takes",
    ),
    value("cascade", None, ""),
];

/// Flags of `create`: it makes objects without a file, too.
pub const CREATE_FLAGS: &[Flag] =
    &joined::<{ FLAGS.len() + create::FLAGS.len() }>(FLAGS, &create::FLAGS);

/// Which of the three.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Create or change.
    Apply,
    /// Create; what is there already is an error.
    Create,
    /// Put in place of what is there.
    Replace,
}

impl Way {
    const fn method(self) -> &'static str {
        match self {
            Way::Apply => "apply",
            Way::Create => "create",
            Way::Replace => "replace",
        }
    }
}

/// Runs the verb.
pub fn run(session: &mut Session, way: Way) -> Result<(), VerbError> {
    if way == Way::Create && !session.parsed.arguments.is_empty() {
        return create::run(session);
    }
    if way == Way::Apply && last_applied::is_meant(&session.parsed.arguments) {
        return last_applied::view(session);
    }
    if !session.parsed.arguments.is_empty() {
        let text = format!("Unexpected args: [{}]", session.parsed.arguments.join(" "));
        return Err(VerbError::Usage(text));
    }
    if way == Way::Replace {
        if session.parsed.is_on("force") {
            return replace::by_force(session);
        }
        for flag in ["grace-period", "timeout"] {
            if session.parsed.was_given(flag) {
                let text = format!("--{flag} must have --force specified");
                return Err(VerbError::Local(text));
            }
        }
    }
    if session.parsed.is_on("prune") || session.parsed.is_on("all") {
        return Err(VerbError::Local(
            "--prune is not supported: apply deletes nothing here; `weir delete` does, by name, \
             label or file"
                .into(),
        ));
    }
    let form = form(session)?;
    let objects = read_objects(session)?;
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    let params = ApplyParams {
        objects,
        namespace: session.namespace(),
        expected_generation: expected_generation(session)?,
        dry_run: dry_run != DryRun::None,
        field_validation: validation(session.parsed.value("validate"))?,
        server_side: session.parsed.is_on("server-side"),
    };
    let mut client = session.connect()?;
    let mutation: Mutation = client.call(way.method(), &params)?;
    let said = Said {
        dry_run,
        by_server: session.parsed.is_on("server-side"),
        kubectl: session.kubectl()?,
    };
    print(&mutation, form.as_ref(), &said)?;
    session.report_mutation(&mutation)
}

/// `kustomize`: prints what `-k` builds.
pub fn kustomize(session: &mut Session) -> Result<(), VerbError> {
    let folder = match &session.parsed.arguments[..] {
        [] => ".",
        [folder] => folder,
        _ => {
            return Err(VerbError::Usage(
                "specify one path to kustomization.yaml".into(),
            ));
        }
    };
    let texts: Vec<String> = kustomize::build(folder)?
        .iter()
        .map(yaml)
        .collect::<Result<_, _>>()?;
    print!("{}", texts.join("---\n"));
    Ok(())
}

/// The form that `-o` and `--template` name, if they do.
fn form(session: &Session) -> Result<Option<Form>, VerbError> {
    let given = |flag: &str| {
        session
            .parsed
            .value(flag)
            .is_some_and(|text| !text.is_empty())
    };
    if !given("output") && !given("template") {
        return Ok(None);
    }
    match Form::of(&session.parsed)? {
        Form::Table { .. } => Err(unmatched("wide", false)),
        Form::CustomColumns(_) => {
            let text = session.parsed.value("output").unwrap_or_default();
            Err(unmatched(text, false))
        }
        form => Ok(Some(form)),
    }
}

/// The objects of `-f`.
pub fn read_objects(session: &Session) -> Result<Vec<Value>, VerbError> {
    let objects = decode(session)?;
    Ok(objects.iter().map(Object::to_value).collect())
}

/// The objects of `-f`, decoded, their namespaces held against `-n`.
pub fn decode(session: &Session) -> Result<Vec<Object>, VerbError> {
    let names = session.parsed.values("filename");
    let folder = session.parsed.value("kustomize");
    match (names.is_empty(), folder) {
        (true, None) => return Err(VerbError::Local("must specify one of -f and -k".into())),
        (false, Some(_)) => {
            return Err(VerbError::Local(
                "only one of -f or -k can be specified".into(),
            ));
        }
        _ => {}
    }
    let local = |error: DecodeError| VerbError::Local(error.to_string());
    let mut sources: Vec<(String, Vec<Value>)> = Vec::new();
    if let Some(folder) = folder {
        sources.push((folder.to_owned(), kustomize::build(folder)?));
    }
    let copy = |url: &str| session.local_copy(url);
    for source in files::read_with(&names, session.parsed.is_on("recursive"), &copy)? {
        let values = documents(&source.text, &source.name).map_err(local)?;
        sources.push((source.name, values));
    }
    let namespace = session.namespace();
    let options = DecodeOptions {
        definitions: definitions(session, &sources),
        fields: field_validation(session.parsed.value("validate"))?,
        namespace: namespace.as_deref(),
        ..DecodeOptions::default()
    };
    // The daemon decodes again and warns then.
    let mut decoded = Decoded::default();
    for (source, values) in sources {
        for value in values {
            decode_value(value, &options, &mut decoded)
                .map_err(|error| VerbError::Local(undecoded(&error, &source)))?;
        }
    }
    let mut objects = decoded.objects;
    if objects.is_empty() {
        return Err(VerbError::Local("no objects passed to apply".into()));
    }
    // For verbs that find objects on the server the selector is told to it, too.
    let selector = session.parsed.value("selector").unwrap_or_default();
    let selector =
        Selector::parse(selector).map_err(|error| VerbError::Local(error.to_string()))?;
    objects.retain(|object: &Object| selector.matches(|key| object.label(key)));
    if objects.is_empty() {
        return Err(VerbError::Local("no objects passed to apply".into()));
    }
    if let Some(namespace) = session.namespace_flag() {
        for object in &objects {
            let own = object.namespace();
            if !own.is_empty() && own != namespace {
                return Err(VerbError::Local(format!(
                    "the namespace from the provided object \"{own}\" does not match the \
                     namespace \"{namespace}\". You must pass '--namespace={own}' to perform \
                     this operation."
                )));
            }
        }
    }
    Ok(objects)
}

/// The kinds that these documents need beside those that everybody knows.
fn definitions(session: &Session, sources: &[(String, Vec<Value>)]) -> Definitions {
    let add_own = |mut definitions: Definitions| {
        for (_, values) in sources {
            definitions.read_all(values);
        }
        definitions
    };
    let own = add_own(Definitions::default());
    match sources.iter().all(|(_, values)| own.know_all(values)) {
        true => own,
        false => add_own(session.definitions()),
    }
}

/// Why a document is no object; of a kind that nobody knows, in the words of kubectl's builder
/// (cli-runtime `pkg/resource/mapper.go`).
fn undecoded(error: &DecodeError, source: &str) -> String {
    match error {
        DecodeError::UnknownKind {
            name, namespace, ..
        } => format!(
            "resource mapping not found for name: {name:?} namespace: {namespace:?} from \
             {source:?}: {error}"
        ),
        other => other.to_string(),
    }
}

/// `--expected-generation`.
pub fn expected_generation(session: &Session) -> Result<Option<u64>, VerbError> {
    let Some(text) = session.parsed.value("expected-generation") else {
        return Ok(None);
    };
    text.parse().map(Some).map_err(|_| {
        VerbError::Local(format!(
            "--expected-generation takes a number, not \"{text}\""
        ))
    })
}

/// `--dry-run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DryRun {
    /// For real.
    None,
    /// As kubectl's client-side one; here the daemon checks it too.
    Client,
    /// All but the change.
    Server,
}

impl DryRun {
    /// What stands behind the operation.
    pub const fn suffix(self) -> &'static str {
        match self {
            DryRun::None => "",
            DryRun::Client => " (dry run)",
            DryRun::Server => " (server dry run)",
        }
    }
}

/// Reads `--dry-run`.
pub fn dry_run(text: Option<&str>) -> Result<DryRun, VerbError> {
    match text {
        None | Some("none" | "false") => Ok(DryRun::None),
        Some("client" | "unchanged" | "true") => Ok(DryRun::Client),
        Some("server") => Ok(DryRun::Server),
        Some(other) => Err(VerbError::Local(format!(
            "Invalid dry-run value ({other}). Must be \"none\", \"server\", or \"client\"."
        ))),
    }
}

/// `--validate`.
pub fn validation(text: Option<&str>) -> Result<FieldValidation, VerbError> {
    match text {
        None | Some("strict" | "true") => Ok(FieldValidation::Strict),
        Some("warn") => Ok(FieldValidation::Warn),
        Some("ignore" | "false") => Ok(FieldValidation::Ignore),
        Some(other) => Err(VerbError::Local(format!(
            "invalid - validate option \"{other}\"; must be one of: strict (or true), warn, \
             ignore (or false)"
        ))),
    }
}

/// [`validation`] in the decoder's terms.
pub fn field_validation(text: Option<&str>) -> Result<objects::FieldValidation, VerbError> {
    Ok(match validation(text)? {
        FieldValidation::Strict => objects::FieldValidation::Strict,
        FieldValidation::Warn => objects::FieldValidation::Warn,
        FieldValidation::Ignore => objects::FieldValidation::Ignore,
    })
}

/// How it is said what was done.
struct Said {
    dry_run: DryRun,
    /// `--server-side`.
    by_server: bool,
    kubectl: KubectlVersion,
}

fn print(mutation: &Mutation, form: Option<&Form>, said: &Said) -> Result<(), VerbError> {
    match form {
        None => {
            for result in &mutation.results {
                let Operation { reference, .. } = result;
                let done = match said.by_server {
                    true => "serverside-applied",
                    false => past(result.operation),
                };
                let line = said
                    .kubectl
                    .done(&reference.resource, &reference.name, done);
                println!("{line}{}", said.dry_run.suffix());
            }
        }
        Some(Form::Name) => {
            for Operation { reference, .. } in &mutation.results {
                println!("{}/{}", reference.resource, reference.name);
            }
        }
        Some(form) => {
            let mut objects: Vec<Value> = mutation
                .results
                .iter()
                .map(|result| result.object.clone())
                .collect();
            let value = if objects.len() == 1 {
                objects.remove(0)
            } else {
                list(objects)
            };
            print!("{}", form.render(&value)?);
        }
    }
    Ok(())
}

/// What kubectl says was done.
pub const fn past(operation: OperationKind) -> &'static str {
    match operation {
        OperationKind::Created => "created",
        OperationKind::Configured => "configured",
        OperationKind::Unchanged => "unchanged",
        OperationKind::Replaced => "replaced",
        OperationKind::Patched => "patched",
        OperationKind::Deleted | OperationKind::Terminating => "deleted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::parse;

    fn session(text: &str) -> Session {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        Session::new(parse(CREATE_FLAGS, &words).unwrap())
    }

    #[test]
    fn values_that_are_none_of_the_choices_are_refused() {
        assert_eq!(dry_run(Some("server")).unwrap(), DryRun::Server);
        assert!(dry_run(Some("maybe")).is_err());
        assert_eq!(validation(Some("warn")).unwrap(), FieldValidation::Warn);
        assert!(validation(Some("maybe")).is_err());
        assert!(expected_generation(&session("--expected-generation=x")).is_err());
    }
}
