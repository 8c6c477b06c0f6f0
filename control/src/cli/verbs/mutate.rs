//! `apply`, `create` and `replace`: objects from files, in one transaction.

use serde_json::{Value, json};

use crate::cli::files;
use crate::cli::flags::{Flag, optional, switch, value};
use crate::cli::kubectl_version::KubectlVersion;
use crate::cli::output::{Form, list};
use crate::cli::session::{Session, VerbError};
use crate::objects::{self, DecodeOptions, Object, decode_documents_with};
use crate::protocol::{ApplyParams, FieldValidation, Mutation, Operation, OperationKind};

use super::{FILES, OUTPUT, TEMPLATE};

/// Flags of the three verbs; `create` has those of its generators too.
pub const FLAGS: &[Flag] = &[
    FILES[0],
    FILES[1],
    FILES[2],
    OUTPUT,
    TEMPLATE,
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
    switch("force", None, ""),
    switch("save-config", None, ""),
    value("field-manager", None, ""),
];

/// Flags of `create`: it makes a Deployment without a file, too.
pub const CREATE_FLAGS: &[Flag] = &[
    FLAGS[0],
    FLAGS[1],
    FLAGS[2],
    FLAGS[3],
    FLAGS[4],
    FLAGS[5],
    FLAGS[6],
    FLAGS[7],
    value("image", None, "create deployment: the container's image"),
    value(
        "replicas",
        Some('r'),
        "create deployment: how many pods (1)",
    ),
    value("port", None, "create deployment: the container's port"),
    FLAGS[8],
    FLAGS[9],
    FLAGS[10],
];

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
    let form = match session.parsed.value("output") {
        None => None,
        some => Some(Form::parse(some, session.parsed.value("template"))?),
    };
    let generated = way == Way::Create && !session.parsed.arguments.is_empty();
    let objects = if generated {
        vec![generate(session)?]
    } else {
        read_objects(session)?
    };
    let dry_run = dry_run(session.parsed.value("dry-run"))?;
    let params = ApplyParams {
        objects,
        namespace: session.namespace(),
        expected_generation: expected_generation(session)?,
        dry_run: dry_run != DryRun::None,
        field_validation: validation(session.parsed.value("validate"))?,
    };
    let mut client = session.connect()?;
    let mutation: Mutation = client.call(way.method(), &params)?;
    print(&mutation, form.as_ref(), dry_run, session.kubectl()?)?;
    session.report_mutation(&mutation)
}

/// The objects of `-f`.
pub fn read_objects(session: &Session) -> Result<Vec<Value>, VerbError> {
    let objects = decode(session)?;
    Ok(objects.iter().map(Object::to_value).collect())
}

/// The objects of `-f`, decoded, their namespaces held against `-n`.
pub fn decode(session: &Session) -> Result<Vec<Object>, VerbError> {
    if session.parsed.was_given("kustomize") {
        return Err(VerbError::Local(
            "-k is not supported yet; render it first: kustomize build FOLDER | weir apply -f -"
                .into(),
        ));
    }
    let names = session.parsed.values("filename");
    if names.is_empty() {
        return Err(VerbError::Local("must specify one of -f and -k".into()));
    }
    let mut objects = Vec::new();
    let namespace = session.namespace();
    let options = DecodeOptions {
        fields: field_validation(session.parsed.value("validate"))?,
        namespace: namespace.as_deref(),
        ..DecodeOptions::default()
    };
    for source in files::read(&names, session.parsed.is_on("recursive"))? {
        // The daemon decodes again and warns then.
        let decoded = decode_documents_with(&source.text, &source.name, &options)
            .map_err(|error| VerbError::Local(error.to_string()))?;
        objects.extend(decoded.objects);
    }
    if objects.is_empty() {
        return Err(VerbError::Local("no objects passed to apply".into()));
    }
    if let Some(namespace) = session.namespace() {
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

/// `create namespace NAME` and `create deployment NAME --image=…`.
fn generate(session: &Session) -> Result<Value, VerbError> {
    let words: Vec<&str> = session
        .parsed
        .arguments
        .iter()
        .map(String::as_str)
        .collect();
    match words[..] {
        ["namespace" | "ns", name] => Ok(json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}
        })),
        ["deployment" | "deploy", name] => {
            let image = session
                .parsed
                .value("image")
                .ok_or_else(|| VerbError::Local("required flag(s) \"image\" not set".into()))?;
            let number = |flag: &str| match session.parsed.value(flag) {
                None => Ok(None),
                Some(text) => text.parse::<u16>().map(Some).map_err(|_| {
                    VerbError::Local(format!(
                        "invalid argument \"{text}\" for \"--{flag}\" flag: strconv.ParseInt: \
                         parsing \"{text}\": invalid syntax"
                    ))
                }),
            };
            let labels = json!({"app": name});
            let base = image.rsplit('/').next().unwrap_or(image);
            let base = base.split([':', '@']).next().unwrap_or(base);
            let mut container = json!({"name": base, "image": image});
            if let Some(port) = number("port")? {
                container["ports"] = json!([{"containerPort": port}]);
            }
            Ok(json!({
                "apiVersion": "apps/v1", "kind": "Deployment",
                "metadata": {"name": name, "labels": labels},
                "spec": {
                    "replicas": number("replicas")?.unwrap_or(1),
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {"containers": [container]}
                    }
                }
            }))
        }
        ["namespace" | "ns" | "deployment" | "deploy", ..] => Err(VerbError::Usage(format!(
            "exactly one NAME is required, got {}",
            words.len() - 1
        ))),
        _ => Err(VerbError::Usage(format!(
            "Unexpected args: [{}]\nWithout -f, `create` makes a namespace or a deployment",
            words.join(" ")
        ))),
    }
}

fn expected_generation(session: &Session) -> Result<Option<u64>, VerbError> {
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

fn validation(text: Option<&str>) -> Result<FieldValidation, VerbError> {
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

fn print(
    mutation: &Mutation,
    form: Option<&Form>,
    dry_run: DryRun,
    kubectl: KubectlVersion,
) -> Result<(), VerbError> {
    match form {
        None => {
            for result in &mutation.results {
                let Operation { reference, .. } = result;
                let done = past(result.operation);
                let line = kubectl.done(&reference.resource, &reference.name, done);
                println!("{line}{}", dry_run.suffix());
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
    fn a_generated_deployment_is_labelled_by_its_name() {
        let made = generate(&session("deployment web --image=x/nginx:1 --port=80 -r 2")).unwrap();
        assert_eq!(
            made.pointer("/spec/template/metadata/labels/app").unwrap(),
            "web"
        );
        assert_eq!(
            made.pointer("/spec/template/spec/containers/0/name")
                .unwrap(),
            "nginx"
        );
        assert_eq!(made.pointer("/spec/replicas").unwrap(), 2);
        assert!(generate(&session("deployment web")).is_err());
        assert!(generate(&session("deployment a b --image=x")).is_err());
        assert!(generate(&session("unicorn a")).is_err());
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
