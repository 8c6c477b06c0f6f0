//! Which objects a command line means: those of `-f`, or what its arguments, `-l` and `--all`
//! choose, with the errors of kubectl's resource builder (cli-runtime `pkg/resource`).

use serde_json::Value;

use crate::cli::session::{Session, VerbError};
use crate::client::Client;
use crate::objects::Object;
use crate::protocol::{GetParams, GetReply, Reason, Target};
use crate::selector::Selector;

use super::mutate::decode;
use super::{Named, categories, named, singular, target};

/// What kubectl says to a command line that names nothing.
const NOTHING_NAMED: &str = "You must provide one or more resources by argument or filename.\n\
     Example resource specifications include:\n   '-f rsrc.yaml'\n   '--filename=rsrc.json'\n   \
     '<resource> <name>'\n   '<resource>'";

/// An object that is meant.
#[derive(Clone, Debug)]
pub struct Found {
    /// `deployments.apps`.
    pub resource: String,
    /// What stands before the slash: `deployment.apps`.
    pub shown: String,
    /// Whether its kind lives in namespaces.
    pub namespaced: bool,
    /// As it was when it was looked for.
    pub object: Value,
}

impl Found {
    /// Its name.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// Its UID.
    pub fn uid(&self) -> &str {
        self.object["metadata"]["uid"].as_str().unwrap_or_default()
    }

    /// What names it in a request.
    pub fn target(&self) -> Target {
        target(&self.resource, &self.object)
    }

    /// `deployments`: the resource without its group.
    pub fn plural(&self) -> &str {
        self.resource.split('.').next().unwrap_or_default()
    }
}

/// The questions to the daemon whose answers are meant. With `all_by_default` a kind alone means
/// all of its objects in the namespace; `--all` means that, too.
pub fn queries(session: &Session, all_by_default: bool) -> Result<Vec<GetParams>, VerbError> {
    let parsed = &session.parsed;
    let local = |text: &str| VerbError::Local(text.to_owned());
    let wanted = categories::expand(session, named(&parsed.arguments)?);
    if parsed.was_given("filename") || parsed.was_given("kustomize") {
        if !wanted.is_empty() {
            return Err(local(
                "when paths, URLs, or stdin is provided as input, you may not specify resource \
                 arguments as well",
            ));
        }
        return of_files(session);
    }
    if wanted.is_empty() {
        return Err(local(NOTHING_NAMED));
    }
    let selected = parsed.value("selector").is_some() || parsed.value("field-selector").is_some();
    let has_names = wanted.iter().any(|one| !one.names.is_empty());
    if has_names && selected {
        let pairs = parsed.arguments.iter().any(|word| word.contains('/'));
        return Err(local(if pairs {
            "selectors and the all flag cannot be used when passing resource/name arguments"
        } else {
            "name cannot be provided when a selector is specified"
        }));
    }
    let all_namespaces = parsed.is_on("all-namespaces");
    if has_names && all_namespaces {
        return Err(local(
            "a resource cannot be retrieved by name across all namespaces",
        ));
    }
    let pairs = parsed.arguments[0].contains('/');
    if has_names && wanted.len() > 1 && !pairs {
        return Err(local("you must specify only one resource"));
    }
    if !has_names && !selected && !all_by_default && !parsed.is_on("all") {
        return Err(local(
            "resource(s) were provided, but no name was specified",
        ));
    }
    let mut queries = Vec::new();
    for Named { resource, names } in wanted {
        let query = GetParams {
            resource,
            namespace: session.namespace(),
            all_namespaces,
            label_selector: parsed.value("selector").map(str::to_owned),
            field_selector: parsed.value("field-selector").map(str::to_owned),
            name: None,
        };
        if names.is_empty() {
            queries.push(query);
        } else {
            queries.extend(names.into_iter().map(|name| GetParams {
                name: Some(name),
                ..query.clone()
            }));
        }
    }
    Ok(queries)
}

/// One question for each object of the files.
fn of_files(session: &Session) -> Result<Vec<GetParams>, VerbError> {
    Ok(of_objects(session, &decode(session)?))
}

/// One question for each object.
pub fn of_objects(session: &Session, objects: &[Object]) -> Vec<GetParams> {
    let query = |object: &Object| GetParams {
        resource: object.kind().qualified_plural(),
        namespace: match object.namespace() {
            "" => session.namespace(),
            own => Some(own.to_owned()),
        },
        name: Some(object.name().to_owned()),
        label_selector: session.parsed.value("selector").map(str::to_owned),
        ..GetParams::default()
    };
    objects.iter().map(query).collect()
}

/// Asks them. Objects that are not there are errors of their own; the others are found nonetheless.
pub fn ask(
    client: &mut Client,
    queries: &[GetParams],
) -> Result<(Vec<Found>, Vec<VerbError>), VerbError> {
    let (mut found, mut missing) = (Vec::new(), Vec::new());
    for query in queries {
        let reply: GetReply = match client.call("get", query) {
            Ok(reply) => reply,
            // A kind that nobody knows is the client's own finding in kubectl.
            Err(error) if error.to_string().starts_with("the server doesn't have a") => {
                return Err(VerbError::Local(error.to_string()));
            }
            Err(error) if error.reason() == Some(Reason::NotFound) => {
                missing.push(VerbError::Client(error));
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        let (shown, chosen) = (singular(&reply), chosen(query)?);
        for object in reply.items.into_iter().filter(|object| chosen(object)) {
            found.push(Found {
                resource: reply.resource.clone(),
                shown: shown.clone(),
                namespaced: reply.namespaced,
                object,
            });
        }
    }
    Ok((found, missing))
}

/// Whether an object that was asked for by name has the labels that are wanted beside.
fn chosen(query: &GetParams) -> Result<impl Fn(&Value) -> bool, VerbError> {
    let text = query
        .label_selector
        .as_deref()
        .filter(|_| query.name.is_some());
    let selector = Selector::parse(text.unwrap_or_default())
        .map_err(|error| VerbError::Local(error.to_string()))?;
    Ok(move |object: &Value| selector.matches(|key| object["metadata"]["labels"][key].as_str()))
}

/// [`queries`], asked.
pub fn find(
    session: &Session,
    client: &mut Client,
    all_by_default: bool,
) -> Result<(Vec<Found>, Vec<VerbError>), VerbError> {
    ask(client, &queries(session, all_by_default)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::flags::parse;
    use crate::cli::verbs::{ALL_NAMESPACES, FILES, SELECTOR};

    fn queries_of(text: &str, all_by_default: bool) -> Result<Vec<GetParams>, String> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let all = crate::cli::flags::switch("all", None, "x");
        let flags = [FILES[0], SELECTOR, ALL_NAMESPACES, all];
        let session = Session::new(parse(&flags, &words).unwrap());
        queries(&session, all_by_default).map_err(|error| error.to_string())
    }

    #[test]
    fn what_is_refused_is_refused_in_the_builders_words() {
        let cases = [
            (
                "deploy",
                "resource(s) were provided, but no name was specified",
            ),
            (
                "deploy web -l a=b",
                "name cannot be provided when a selector is specified",
            ),
            (
                "deploy/web -l a=b",
                "selectors and the all flag cannot be used when passing resource/name arguments",
            ),
            (
                "deploy web -A",
                "a resource cannot be retrieved by name across all namespaces",
            ),
            ("deploy,sts web", "you must specify only one resource"),
            (
                "deploy -f x.yaml",
                "when paths, URLs, or stdin is provided as input, you may not specify resource \
                 arguments as well",
            ),
            (
                "-f /nowhere/x.yaml",
                "the path \"/nowhere/x.yaml\" does not exist",
            ),
        ];
        for (text, expected) in cases {
            assert_eq!(queries_of(text, false).unwrap_err(), expected, "{text}");
        }
        assert!(
            queries_of("", true)
                .unwrap_err()
                .starts_with("You must provide")
        );
    }

    #[test]
    fn kinds_alone_mean_all_where_that_is_said() {
        for text in ["deploy --all", "deploy -l a=b", "deploy,sts --all"] {
            assert!(queries_of(text, false).is_ok(), "{text}");
        }
        let asked = queries_of("deploy", true).unwrap();
        assert_eq!(asked[0].name, None);
        let asked = queries_of("deploy/a sts/b", false).unwrap();
        let named: Vec<_> = asked
            .iter()
            .map(|query| (query.resource.as_str(), query.name.as_deref().unwrap()))
            .collect();
        assert_eq!(named, [("deploy", "a"), ("sts", "b")]);
    }
}
