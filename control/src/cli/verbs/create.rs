//! `create` without a file: an object of a few words (kubectl `pkg/cmd/create`).

mod made;

use serde_json::{Value, json};

use crate::cli::flags::{Flag, FlagError, value};
use crate::cli::session::{Session, VerbError};
use crate::client::Client;
use crate::protocol::{ApplyParams, Mutation};

use super::done::Done;
use super::mutate::{self, DryRun, dry_run};
use made::{config_map, deployment, ingress, job, object, secret, service};

/// Flags of the generators; each takes those that its row in [`GENERATORS`] names.
pub const FLAGS: [Flag; 14] = [
    value("image", None, "deployment, job: the containers' image"),
    value("replicas", Some('r'), "deployment: how many pods (1)"),
    value("port", None, "deployment: the container's port"),
    value(
        "tcp",
        None,
        "service: ports, as 80 or 80:8080, several with commas",
    ),
    value(
        "clusterip",
        None,
        "service clusterip: its address; None for a headless one",
    ),
    value(
        "node-port",
        None,
        "service nodeport: the port on every node",
    ),
    value(
        "external-name",
        None,
        "service externalname: the name outside",
    ),
    value("from-literal", None, "configmap, secret: KEY=VALUE"),
    value(
        "from-file",
        None,
        "configmap, secret: [KEY=]FILE or a folder",
    ),
    value(
        "from-env-file",
        None,
        "configmap, secret: a file of KEY=VALUE lines",
    ),
    value("type", None, "secret generic: its type"),
    value(
        "from",
        None,
        "job: the CronJob whose template it runs, cronjob/NAME",
    ),
    value("class", None, "ingress: its class"),
    value("rule", None, "ingress: HOST/PATH=SERVICE:PORT[,tls=SECRET]"),
];

type Make = fn(&Session, &mut Client, &str) -> Result<Value, VerbError>;

/// What can be created by words.
struct Generator {
    /// The words, each with its other spellings.
    words: &'static [&'static [&'static str]],
    flags: &'static [&'static str],
    make: Make,
}

const GENERATORS: &[Generator] = &[
    Generator {
        words: &[&["namespace", "ns"]],
        flags: &[],
        make: |_, _, name| Ok(object("v1", "Namespace", name, json!({}))),
    },
    Generator {
        words: &[&["deployment", "deploy"]],
        flags: &["image", "replicas", "port"],
        make: |session, _, name| deployment(session, name),
    },
    Generator {
        words: &[&["service", "svc"], &["clusterip"]],
        flags: &["tcp", "clusterip"],
        make: |session, _, name| service(session, name, "ClusterIP"),
    },
    Generator {
        words: &[&["service", "svc"], &["nodeport"]],
        flags: &["tcp", "node-port"],
        make: |session, _, name| service(session, name, "NodePort"),
    },
    Generator {
        words: &[&["service", "svc"], &["loadbalancer"]],
        flags: &["tcp"],
        make: |session, _, name| service(session, name, "LoadBalancer"),
    },
    Generator {
        words: &[&["service", "svc"], &["externalname"]],
        flags: &["tcp", "external-name"],
        make: |session, _, name| service(session, name, "ExternalName"),
    },
    Generator {
        words: &[&["configmap", "cm"]],
        flags: &["from-literal", "from-file", "from-env-file"],
        make: |session, _, name| config_map(session, name),
    },
    Generator {
        words: &[&["secret"], &["generic"]],
        flags: &["from-literal", "from-file", "from-env-file", "type"],
        make: |session, _, name| secret(session, name),
    },
    Generator {
        words: &[&["job"]],
        flags: &["image", "from"],
        make: job,
    },
    Generator {
        words: &[&["serviceaccount", "sa"]],
        flags: &[],
        make: |_, _, name| Ok(object("v1", "ServiceAccount", name, json!({}))),
    },
    Generator {
        words: &[&["ingress", "ing"]],
        flags: &["class", "rule"],
        make: |session, _, name| ingress(session, name),
    },
];

/// What kubectl creates by words and Weir does not.
const FOREIGN: &[&str] = &[
    "clusterrole",
    "clusterrolebinding",
    "cronjob",
    "poddisruptionbudget",
    "priorityclass",
    "quota",
    "role",
    "rolebinding",
    "token",
];

/// The words of each generator, for completion.
pub fn words() -> impl Iterator<Item = Vec<&'static str>> {
    let firsts = |generator: &Generator| generator.words.iter().map(|word| word[0]).collect();
    GENERATORS.iter().map(firsts)
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

/// Creates the object that the words name.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let parsed = &session.parsed;
    let before = parsed.before_dashes.unwrap_or(parsed.arguments.len());
    let words: Vec<&str> = parsed.arguments[..before]
        .iter()
        .map(String::as_str)
        .collect();
    let generator = generator(&words)?;
    let foreign =
        |flag: &str| FLAGS.iter().any(|own| own.long == flag) && !generator.flags.contains(&flag);
    if let Some((flag, _)) = parsed.in_order.iter().find(|(flag, _)| foreign(flag)) {
        return Err(FlagError::UnknownLong((*flag).to_owned()).into());
    }
    if parsed.was_given("filename") || parsed.was_given("kustomize") {
        return Err(local("cannot create by words and from files at once"));
    }
    let name = match &words[generator.words.len()..] {
        [name] => (*name).to_owned(),
        other => {
            return Err(VerbError::Usage(format!(
                "exactly one NAME is required, got {}",
                other.len()
            )));
        }
    };
    let dry_run = dry_run(parsed.value("dry-run"))?;
    let mut done = Done::new(session, dry_run)?;
    let mut client = session.connect()?;
    let mut made = (generator.make)(session, &mut client, &name)?;
    if made["kind"] != "Namespace"
        && let Some(namespace) = session.namespace()
    {
        made["metadata"]["namespace"] = namespace.into();
    }
    if dry_run == DryRun::Client {
        let shown = shown(&made);
        return done.print(&shown, &made, "created");
    }
    let params = ApplyParams {
        objects: vec![made],
        namespace: session.namespace(),
        expected_generation: mutate::expected_generation(session)?,
        dry_run: dry_run != DryRun::None,
        field_validation: mutate::validation(parsed_validate(session))?,
        ..ApplyParams::default()
    };
    send(session, &mut client, &params, &mut done, "created")
}

fn parsed_validate(session: &Session) -> Option<&str> {
    session.parsed.value("validate")
}

/// What stands before the slash for an object made here.
fn shown(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    let kind = crate::objects::kinds::find(text("apiVersion"), text("kind"));
    kind.map_or_else(
        || text("kind").to_lowercase(),
        |kind| kind.qualified_singular(),
    )
}

/// Creates objects and says what was done.
pub fn send(
    session: &Session,
    client: &mut Client,
    params: &ApplyParams,
    done: &mut Done,
    operation: &str,
) -> Result<(), VerbError> {
    let mutation: Mutation = client.call("create", params)?;
    for result in &mutation.results {
        done.print(&result.reference.resource, &result.object, operation)?;
    }
    session.report_mutation(&mutation)
}

fn generator(words: &[&str]) -> Result<&'static Generator, VerbError> {
    let fits = |generator: &&Generator| {
        let spelled = |(own, word): (&&[&str], &&str)| own.contains(word);
        words.len() >= generator.words.len() && generator.words.iter().zip(words).all(spelled)
    };
    if let Some(generator) = GENERATORS.iter().find(fits) {
        return Ok(generator);
    }
    let first = words.first().copied().unwrap_or_default();
    if FOREIGN.contains(&first) {
        return Err(local(format!(
            "create {first} is not supported: objects of that kind have no effect here; \
             `weir create -f FILE` stores them"
        )));
    }
    let kinds: Vec<String> = { GENERATORS.iter() }
        .filter(|generator| generator.words[0].contains(&first))
        .filter_map(|generator| Some(generator.words.get(1)?[0].to_owned()))
        .collect();
    if !kinds.is_empty() {
        return Err(VerbError::Usage(format!(
            "create {first} takes one of: {}",
            kinds.join(", ")
        )));
    }
    let known: Vec<&str> = GENERATORS
        .iter()
        .map(|generator| generator.words[0][0])
        .collect();
    let mut known = known;
    known.dedup();
    Err(VerbError::Usage(format!(
        "Unexpected args: [{}]\nWithout -f, `create` makes one of: {}",
        words.join(" "),
        known.join(", ")
    )))
}
