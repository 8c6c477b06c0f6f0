//! What `--help` prints.

use super::flags::{Flag, GLOBAL, Takes};
use super::verb_list::{COMPANIONS, VERBS, Verb};

/// Of the program.
pub fn overview() -> String {
    let mut text = String::from(
        "Weir enforces Kubernetes NetworkPolicy on real packets, over AF_XDP.\n\nCommands:\n",
    );
    let own = VERBS.iter().map(|verb| (verb.name, verb.about));
    for (name, about) in own.chain(COMPANIONS.iter().copied()) {
        text.push_str(&format!("  {name:<13} {about}\n"));
    }
    text.push_str(
        "\nUsage:\n  weir [flags] COMMAND [options]\n\n\
         Use \"weir COMMAND --help\" for more about a command.\n",
    );
    text
}

/// Of one verb.
pub fn verb_help(verb: &Verb) -> String {
    let mut text = format!("{}.\n\nExamples:\n", verb.about);
    for line in verb.examples.lines() {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str("\nOptions:\n");
    let shown = |flag: &&Flag| !flag.help.is_empty();
    for flag in verb.flags.iter().filter(shown) {
        text.push_str(&flag_help(flag));
    }
    text.push_str(&format!(
        "\nUsage:\n  weir {}\n\nGlobal options:\n",
        verb.usage
    ));
    for flag in GLOBAL.iter().filter(shown) {
        text.push_str(&flag_help(flag));
    }
    let silent: Vec<String> = verb
        .flags
        .iter()
        .chain(GLOBAL)
        .filter(|flag| flag.help.is_empty())
        .map(|flag| format!("--{}", flag.long))
        .collect();
    text.push_str(&format!(
        "\nAccepted, without effect here: {}\n",
        silent.join(" ")
    ));
    text
}

fn flag_help(flag: &Flag) -> String {
    let short = flag
        .short
        .map_or("    ".to_owned(), |short| format!("-{short}, "));
    let long = match flag.takes {
        Takes::Switch => format!("--{}", flag.long),
        Takes::Value => format!("--{} VALUE", flag.long),
        Takes::Optional(default) => format!("--{}[={default}]", flag.long),
    };
    format!("    {short}{long}\n        {}\n", flag.help)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// Flags that scripts pass and that mean nothing here. Any other flag must have an effect, and
    /// therefore a line in `--help`.
    const HARMLESS: &[&str] = &[
        "context",
        "cluster",
        "kubeconfig",
        "user",
        "request-timeout",
        "insecure-skip-tls-verify",
        "force",
        "save-config",
        "field-manager",
        "cascade",
        "quiet",
        "image-pull-policy",
        "insecure-skip-tls-verify-backend",
        "retries",
        "chunk-size",
        "raw",
        "flatten",
        "server-side",
        "force-conflicts",
        "concurrency",
        "openapi-patch",
        "overwrite",
        "show-managed-fields",
    ];

    #[test]
    fn flags_without_help_are_the_listed_harmless_ones() {
        for verb in VERBS {
            let mut seen = HashSet::new();
            for flag in verb.flags.iter().chain(GLOBAL) {
                assert!(
                    seen.insert(flag.long),
                    "{} has --{} twice",
                    verb.name,
                    flag.long
                );
                if flag.help.is_empty() {
                    assert!(
                        HARMLESS.contains(&flag.long),
                        "{}: --{}",
                        verb.name,
                        flag.long
                    );
                }
            }
        }
    }

    #[test]
    fn every_verb_explains_itself() {
        for verb in VERBS {
            let text = verb_help(verb);
            assert!(
                text.contains("Examples:") && text.contains(verb.usage),
                "{text}"
            );
        }
        assert!(overview().contains("  lab "));
    }
}
