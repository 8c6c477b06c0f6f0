//! What may stand where the cursor is: `weir completion SHELL` prints a script for the shell, and the
//! script asks `weir __complete`, which knows verbs and flags from their tables and objects from the
//! daemon.

mod daemon;

use std::time::Duration;

use super::flags::{Flag, GLOBAL, Parsed, Takes, find_long, find_short, parse, split_verb};
use super::session::{Session, VerbError};
use super::verb_list::{COMPANIONS, VERBS, Verb};
use super::verbs::{config as contexts, create, set};
use crate::objects::Definitions;
use crate::objects::kinds::KINDS;
use daemon::Daemon;

/// The verb that scripts ask. Its arguments are the words behind the program's name, the last one as
/// far as it is written.
pub const ASKED: &str = "__complete";

/// How long a daemon may take to name its objects: somebody waits at the keyboard.
const PATIENCE: Duration = Duration::from_millis(500);

const SHELLS: &[(&str, &str)] = &[
    ("bash", include_str!("completion/weir.bash")),
    ("fish", include_str!("completion/weir.fish")),
    ("zsh", include_str!("completion/weir.zsh")),
];

/// What `weir lab` does.
const LAB_VERBS: &[(&str, &str)] = &[
    ("up", "Bring a lab up"),
    ("down", "Take a lab down"),
    ("list", "The labs there are"),
    ("run", "Play a lab's scenario"),
    ("shell", "A shell in a lab's folder"),
    ("status", "What a lab has"),
];

/// A word that fits, and what is said of it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Candidate {
    /// The whole word, with what is written of it.
    pub word: String,
    /// A few words; may be empty.
    pub about: &'static str,
}

fn candidate(word: impl Into<String>) -> Candidate {
    described(word, "")
}

fn described(word: impl Into<String>, about: &'static str) -> Candidate {
    let word = word.into();
    Candidate { word, about }
}

/// Where objects' names come from.
pub trait Objects {
    /// The objects of a resource in a namespace (none: the default one) as `name`, or in all (`*`) as
    /// `namespace/name`. Nothing if nobody answers.
    fn names(&mut self, resource: &str, namespace: Option<&str>) -> Vec<String>;
    /// The kinds that CustomResourceDefinitions define.
    fn definitions(&mut self) -> Definitions;
    /// The labs that run.
    fn labs(&mut self) -> Vec<String>;
}

/// `completion SHELL`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let names: Vec<&str> = SHELLS.iter().map(|(name, _)| *name).collect();
    let [wanted] = &session.parsed.arguments[..] else {
        let text = format!("exactly one shell is needed: {}", names.join(", "));
        return Err(VerbError::Usage(text));
    };
    let Some((_, script)) = SHELLS.iter().find(|(name, _)| name == wanted) else {
        let text = format!(
            "unsupported shell type \"{wanted}\": use one of {}",
            names.join(", ")
        );
        return Err(VerbError::Usage(text));
    };
    let program = std::env::current_exe()?;
    print!("{}", script.replace("@WEIR@", &quoted(&program)));
    Ok(())
}

/// As one word of a shell, which all three read alike. A quote in a path is too odd to be taken care of
/// in three tongues: then `weir` has to be on PATH.
fn quoted(program: &std::path::Path) -> String {
    match program.to_str() {
        Some(path) if !path.contains(['\'', '\\']) => format!("'{path}'"),
        _ => "weir".to_owned(),
    }
}

/// Answers a script: a line for each candidate, what is said of it behind a tab.
pub fn answer(words: &[String]) {
    let words = match words {
        [dashes, words @ ..] if dashes == "--" => words,
        words => words,
    };
    let mut objects = Daemon::from(words);
    for Candidate { word, about } in candidates(words, &mut objects) {
        match about {
            "" => println!("{word}"),
            about => println!("{word}\t{about}"),
        }
    }
}

/// Whatever may stand in place of the last word.
pub fn candidates(words: &[String], objects: &mut dyn Objects) -> Vec<Candidate> {
    let (partial, before) = match words.split_last() {
        Some((last, before)) => (last.as_str(), before),
        None => ("", &[][..]),
    };
    if before.iter().any(|word| word == "--") {
        // A command and its arguments.
        return Vec::new();
    }
    let every: Vec<Flag> = VERBS.iter().flat_map(|verb| verb.flags).copied().collect();
    let (name, rest) = split_verb(&every, before);
    let verb = (name.as_deref()).and_then(|name| VERBS.iter().find(|verb| verb.name == name));
    let own: &[Flag] = match (&name, verb) {
        (_, Some(verb)) => verb.flags,
        (None, None) => &every,
        (Some(_), None) => &[],
    };
    let mut fitting = match (pending(own, before, partial), name.as_deref(), verb) {
        (Some((flag, head, part)), _, _) => {
            let mut values = values(flag, verb, objects);
            values.retain(|value| value.word.starts_with(part));
            for value in &mut values {
                value.word.insert_str(0, head);
            }
            values
        }
        (None, _, _) if partial.starts_with('-') => flags(own, &rest),
        (None, None, _) => verbs(),
        (None, Some("help"), _) => verbs(),
        (None, Some("lab"), _) => lab(&rest, objects),
        (None, Some(_), Some(verb)) => {
            let parsed = parse(own, &rest).unwrap_or_default();
            arguments(verb, &parsed, partial, objects)
        }
        (None, Some(_), None) => Vec::new(),
    };
    fitting.retain(|one| one.word.starts_with(partial));
    fitting.sort();
    fitting.dedup();
    fitting
}

/// The flag whose value is being written, what of the last word belongs to the flag, and what to the
/// value.
fn pending<'w>(
    own: &[Flag],
    before: &[String],
    partial: &'w str,
) -> Option<(Flag, &'w str, &'w str)> {
    if let Some((name, _)) = partial.strip_prefix("--").and_then(|p| p.split_once('=')) {
        let (head, part) = partial.split_at(name.len() + 3);
        return Some((find_long(own, name)?, head, part));
    }
    let last = before.last()?;
    let flag = match last.strip_prefix("--") {
        Some(long) if !long.contains('=') => find_long(own, long),
        Some(_) => None,
        None => {
            let mut cluster = last.strip_prefix('-')?.chars();
            let short = cluster.next_back()?;
            let switches =
                cluster.all(|c| find_short(own, c).is_some_and(|f| f.takes == Takes::Switch));
            switches.then(|| find_short(own, short)).flatten()
        }
    }?;
    (flag.takes == Takes::Value).then_some((flag, "", partial))
}

fn values(flag: Flag, verb: Option<&Verb>, objects: &mut dyn Objects) -> Vec<Candidate> {
    let plain = |words: &[&str]| words.iter().map(|word| candidate(*word)).collect();
    let named = |words: Vec<String>| words.into_iter().map(candidate).collect();
    match flag.long {
        "namespace" => named(objects.names("namespaces", None)),
        "lab" => named(objects.labs()),
        "output" => plain(&forms(verb)),
        "dry-run" => plain(&["client", "none", "server"]),
        "verdict" if verb.is_some_and(|verb| ["capture", "observe"].contains(&verb.name)) => {
            plain(&["AUDIT", "DROPPED", "FORWARDED"])
        }
        "validate" => plain(&["ignore", "strict", "warn"]),
        "pod" | "from-pod" | "to-pod" | "from" | "to" => named(objects.names("pods", Some("*"))),
        "sort-by" if verb.is_some_and(|verb| verb.name == "top") => {
            plain(&["bytes", "connections", "drops", "name", "packets"])
        }
        "expect" => plain(&["allow", "deny"]),
        "restart" => plain(&["Always", "Never", "OnFailure"]),
        "override-type" => plain(&["json", "merge", "strategic"]),
        "for" => plain(&["condition=", "create", "delete", "jsonpath="]),
        "type" => plain(&["json", "merge", "strategic"]),
        _ if matches!(flag.takes, Takes::Switch) => plain(&["false", "true"]),
        _ => Vec::new(),
    }
}

/// Forms of output: what the verb's usage lists, else kubectl's.
fn forms(verb: Option<&Verb>) -> Vec<&'static str> {
    let listed = verb.and_then(|verb| verb.usage.split_once("[-o "));
    match listed.and_then(|(_, rest)| rest.split_once(']')) {
        Some((forms, _)) if forms.chars().all(|c| c.is_ascii_lowercase() || c == '|') => {
            forms.split('|').collect()
        }
        _ => vec![
            "custom-columns=",
            "go-template=",
            "json",
            "jsonpath-as-json=",
            "jsonpath=",
            "name",
            "wide",
            "yaml",
        ],
    }
}

/// The flags that have an effect and are not given yet.
fn flags(own: &[Flag], rest: &[String]) -> Vec<Candidate> {
    let given = |flag: &Flag| {
        let long = format!("--{}", flag.long);
        rest.contains(&long)
    };
    (own.iter().chain(GLOBAL))
        .filter(|flag| !flag.help.is_empty() && !flag.help.starts_with("Refused") && !given(flag))
        .map(|flag| described(format!("--{}", flag.long), flag.help))
        .collect()
}

fn verbs() -> Vec<Candidate> {
    let own = VERBS.iter().map(|verb| described(verb.name, verb.about));
    own.chain(
        COMPANIONS
            .iter()
            .map(|(name, about)| described(*name, about)),
    )
    .collect()
}

fn lab(rest: &[String], objects: &mut dyn Objects) -> Vec<Candidate> {
    let plain: Vec<&str> = (rest.iter().map(String::as_str))
        .filter(|word| !word.starts_with('-'))
        .collect();
    match plain[..] {
        [] => LAB_VERBS
            .iter()
            .map(|(word, about)| described(*word, about))
            .collect(),
        ["up" | "run"] => (config::labs::LABS.iter())
            .map(|lab| described(lab.name, lab.about))
            .collect(),
        ["down" | "shell" | "status"] => objects.labs().into_iter().map(candidate).collect(),
        _ => Vec::new(),
    }
}

/// What is no flag: types and names, pods, or the shells.
fn arguments(
    verb: &Verb,
    parsed: &Parsed,
    partial: &str,
    objects: &mut dyn Objects,
) -> Vec<Candidate> {
    let namespace = parsed.value("namespace");
    let given = &parsed.arguments;
    if verb.name == "completion" {
        return SHELLS.iter().map(|(name, _)| candidate(*name)).collect();
    }
    if verb.name == "rollout" {
        return match given.split_first() {
            None => vec![candidate("restart"), candidate("status")],
            Some((_, given)) => typed(given, namespace, partial, objects),
        };
    }
    if verb.usage.contains("(POD |") {
        return match (given.is_empty(), partial.contains('/')) {
            (true, true) => typed(given, namespace, partial, objects),
            (true, false) => {
                let pods = objects.names("pods", namespace);
                pods.into_iter().map(candidate).collect()
            }
            (false, _) => Vec::new(),
        };
    }
    if verb.name == "top" {
        return match given.split_first() {
            None => ["flows", "node", "pod"].map(candidate).into(),
            Some((what, _)) if what == "pod" => {
                let pods = objects.names("pods", namespace);
                pods.into_iter().map(candidate).collect()
            }
            Some(_) => Vec::new(),
        };
    }
    if verb.name == "set" {
        return match given.split_first() {
            None => set::verbs().map(candidate).collect(),
            Some((_, given)) => typed(given, namespace, partial, objects),
        };
    }
    if verb.usage.contains("TYPE") {
        return typed(given, namespace, partial, objects);
    }
    if verb.usage.contains(" POD") && given.is_empty() {
        let pods = objects.names("pods", namespace);
        return pods.into_iter().map(candidate).collect();
    }
    if verb.name == "create" {
        return generators(given);
    }
    if verb.name == "config" && given.is_empty() {
        return contexts::verbs().map(candidate).collect();
    }
    if verb.name == "config" && given.len() == 1 && given[0].ends_with("e-context") {
        return objects.labs().into_iter().map(candidate).collect();
    }
    Vec::new()
}

/// The words that `create` takes without a file.
fn generators(given: &[String]) -> Vec<Candidate> {
    let next = |words: Vec<&'static str>| {
        let begins = words.len() > given.len() && words.iter().zip(given).all(|(a, b)| a == b);
        begins.then(|| candidate(words[given.len()]))
    };
    create::words().filter_map(next).collect()
}

/// `TYPE[,TYPE…]`, then names; or `TYPE/NAME`.
fn typed(
    given: &[String],
    namespace: Option<&str>,
    partial: &str,
    objects: &mut dyn Objects,
) -> Vec<Candidate> {
    if let Some((resource, _)) = partial.split_once('/') {
        let names = objects.names(resource, namespace);
        let whole = names
            .into_iter()
            .map(|name| candidate(format!("{resource}/{name}")));
        return whole.collect();
    }
    let Some(resource) = given.first() else {
        let (head, _) = partial
            .rsplit_once(',')
            .map_or(("", partial), |(head, part)| {
                (&partial[..head.len() + 1], part)
            });
        let definitions = objects.definitions();
        let defined = definitions.iter().map(|definition| definition.kind);
        let kinds = KINDS.iter().chain(defined).map(|kind| {
            let group = kind.group();
            let clash = definitions
                .find_resource(kind.plural)
                .is_some_and(|first| first != kind);
            match clash {
                true => candidate(format!("{head}{}.{group}", kind.plural)),
                false => candidate(format!("{head}{}", kind.plural)),
            }
        });
        return kinds.collect();
    };
    if resource.contains('/') {
        return Vec::new();
    }
    let mut names = objects.names(resource, namespace);
    names.retain(|name| !given[1..].contains(name));
    names.into_iter().map(candidate).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ApiResource;

    struct Shop;

    impl Objects for Shop {
        fn definitions(&mut self) -> Definitions {
            let cron_tabs = ApiResource {
                group: "stable.example.com".to_owned(),
                versions: vec!["v1".to_owned()],
                kind: "CronTab".to_owned(),
                plural: "crontabs".to_owned(),
                namespaced: true,
                ..ApiResource::default()
            };
            Definitions::told(&[cron_tabs])
        }

        fn names(&mut self, resource: &str, namespace: Option<&str>) -> Vec<String> {
            let names: &[&str] = match (resource, namespace) {
                ("namespaces", _) => &["default", "shop", "stars"],
                ("pods" | "po" | "pod", None) => &["bb1", "bb2"],
                ("pods", Some("*")) => &["default/bb1", "shop/web"],
                ("pods" | "po", Some("shop")) => &["web"],
                ("netpol", None) => &["deny-all"],
                _ => &[],
            };
            names.iter().map(|name| (*name).to_owned()).collect()
        }

        fn labs(&mut self) -> Vec<String> {
            vec!["stars".to_owned()]
        }
    }

    /// What is offered behind `weir LINE`; a space at the end begins a word.
    fn offered(line: &str) -> Vec<String> {
        let words: Vec<String> = line.split(' ').map(str::to_owned).collect();
        let found = candidates(&words, &mut Shop);
        found.into_iter().map(|one| one.word).collect()
    }

    #[test]
    fn cases() {
        let cases: &[(&str, &[&str])] = &[
            ("des", &["describe"]),
            ("-n shop ge", &["get"]),
            ("get netpo", &[]),
            ("get networkp", &["networkpolicies"]),
            ("get pods,networkp", &["pods,networkpolicies"]),
            ("get po ", &["bb1", "bb2"]),
            ("get po bb1 ", &["bb2"]),
            ("get pod/bb", &["pod/bb1", "pod/bb2"]),
            ("get -n shop po ", &["web"]),
            ("-n shop get po ", &["web"]),
            ("get po -n ", &["default", "shop", "stars"]),
            ("get po -n s", &["shop", "stars"]),
            ("get po -ns", &[]),
            (
                "get po --namespace=s",
                &["--namespace=shop", "--namespace=stars"],
            ),
            ("get po -An ", &["default", "shop", "stars"]),
            ("get po -o js", &["json", "jsonpath-as-json=", "jsonpath="]),
            ("test -o ", &["json", "junit", "text"]),
            ("get po --show-l", &["--show-labels"]),
            ("get po --show-labels --show-l", &[]),
            ("get po --kubec", &[]),
            ("describe netpol d", &["deny-all"]),
            ("exec b", &["bb1", "bb2"]),
            ("exec bb1 ", &[]),
            ("logs -f pod/bb", &["pod/bb1", "pod/bb2"]),
            ("run bb --restart=N", &["--restart=Never"]),
            ("port-forward -n shop ", &["web"]),
            ("exec bb1 -- ", &[]),
            ("exec bb1 -- get p", &[]),
            ("trace --from d", &["default/bb1"]),
            ("trace --from default/bb1 --to shop/", &["shop/web"]),
            ("observe --verdict D", &["DROPPED"]),
            ("apply -f ", &[]),
            ("apply --dry-run=s", &["--dry-run=server"]),
            ("create n", &["namespace"]),
            ("create service c", &["clusterip"]),
            ("create namespace ", &[]),
            ("config u", &["use-context"]),
            ("config use-context ", &["stars"]),
            ("expose deploy", &["deployments"]),
            ("get cront", &["crontabs"]),
            ("lab st", &["status"]),
            ("lab down ", &["stars"]),
            ("lab up thr", &["three-tier"]),
            ("--lab ", &["stars"]),
            ("completion ", &["bash", "fish", "zsh"]),
            ("rollout ", &["restart", "status"]),
            ("rollout status deploym", &["deployments"]),
            ("wait po bb1 --for c", &["condition=", "create"]),
            ("patch po bb1 --type=m", &["--type=merge"]),
            ("version -o ", &["json", "yaml"]),
            ("help lab", &["label", "lab"]),
            ("nonsense ", &[]),
        ];
        for (line, expected) in cases {
            let mut expected = expected.to_vec();
            expected.sort_unstable();
            assert_eq!(offered(line), expected, "weir {line}");
        }
    }

    #[test]
    fn nothing_that_is_offered_is_unknown() {
        for verb in VERBS {
            for flag in offered(&format!("{} --", verb.name)) {
                let words = [format!("{flag}=1")];
                assert!(parse(verb.flags, &words).is_ok(), "{} {flag}", verb.name);
            }
        }
    }

    #[test]
    fn odd_lines_offer_nothing_and_do_no_harm() {
        for line in [
            "", " ", "-", "--", "---", "-- ", "get -", "get --=", "-o", "get é/",
        ] {
            let _ = offered(line);
        }
        assert!(candidates(&[], &mut Shop).len() > 10, "the verbs");
    }
}
