//! Flags as kubectl has them: tables of what each verb accepts, and one parser over the tables.
//!
//! kubectl (cobra and pflag) lets flags stand before the verb and among the arguments, bundles
//! short flags (`-it`), takes values as `--name=value` or `--name value`, and lets a switch carry
//! `=true` or `=false`. The tables are the only place where a flag is declared, so that `--help`
//! and the parser cannot disagree.

use std::collections::HashMap;

use thiserror::Error;

/// What a flag takes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Takes {
    /// Nothing: present means true; `=true` and `=false` are understood.
    Switch,
    /// One value.
    Value,
    /// A value after `=` only; alone it means the given default.
    Optional(&'static str),
}

/// One flag of a verb.
#[derive(Clone, Copy, Debug)]
pub struct Flag {
    /// Long name, without dashes.
    pub long: &'static str,
    /// Short name.
    pub short: Option<char>,
    /// What it takes.
    pub takes: Takes,
    /// One line for `--help`. Empty: accepted for scripts' sake and without effect here.
    pub help: &'static str,
}

/// A switch.
pub const fn switch(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag {
        long,
        short,
        takes: Takes::Switch,
        help,
    }
}

/// A flag with a value.
pub const fn value(long: &'static str, short: Option<char>, help: &'static str) -> Flag {
    Flag {
        long,
        short,
        takes: Takes::Value,
        help,
    }
}

/// A flag whose value may be left out.
pub const fn optional(long: &'static str, default: &'static str, help: &'static str) -> Flag {
    Flag {
        long,
        short: None,
        takes: Takes::Optional(default),
        help,
    }
}

/// Two lists of flags as one, of their lengths together.
///
/// # Panics
/// If `N` is another length; at compile time where the list is a constant.
pub const fn joined<const N: usize>(first: &[Flag], second: &[Flag]) -> [Flag; N] {
    assert!(
        N == first.len() + second.len(),
        "not their lengths together"
    );
    let mut flags = [first[0]; N];
    let mut at = 0;
    while at < N {
        flags[at] = if at < first.len() {
            first[at]
        } else {
            second[at - first.len()]
        };
        at += 1;
    }
    flags
}

/// Flags that every verb accepts.
pub const GLOBAL: &[Flag] = &[
    value("namespace", Some('n'), "Namespace of the request"),
    value(
        "socket",
        None,
        "The daemon's socket; default $WEIR_SOCKET or /run/weir/weir.sock",
    ),
    value(
        "lab",
        None,
        "The lab to speak to; default $WEIR_LAB, or the one that runs",
    ),
    value(
        "v",
        Some('v'),
        "Verbosity; 1 prints the generation that a change went live with",
    ),
    switch("help", Some('h'), "Print help"),
    value("context", None, ""),
    value("cluster", None, ""),
    value("kubeconfig", None, ""),
    value("user", None, ""),
    value("request-timeout", None, ""),
    switch("insecure-skip-tls-verify", None, ""),
    switch(
        "warnings-as-errors",
        None,
        "Treat warnings of the daemon as errors",
    ),
];

/// Why a command line does not parse. The texts are kubectl's.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum FlagError {
    /// No flag of that name.
    #[error("unknown flag: --{0}")]
    UnknownLong(String),
    /// No short flag of that name.
    #[error("unknown shorthand flag: '{0}' in -{1}")]
    UnknownShort(char, String),
    /// A value is missing.
    #[error("flag needs an argument: {0}")]
    MissingValue(String),
    /// A value that is no boolean.
    #[error(
        "invalid argument \"{value}\" for \"{flag}\" flag: strconv.ParseBool: parsing \"{value}\": invalid syntax"
    )]
    NotBoolean {
        /// The flag as kubectl names it.
        flag: String,
        /// The value given.
        value: String,
    },
    /// A value that is no number, or no duration.
    #[error("invalid argument \"{value}\" for \"--{flag}\" flag: {why}")]
    Invalid {
        /// Long name.
        flag: &'static str,
        /// The value given.
        value: String,
        /// In Go's words.
        why: String,
    },
}

/// A command line taken apart.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Parsed {
    values: HashMap<&'static str, Vec<String>>,
    /// Every flag in the order in which it was given.
    pub in_order: Vec<(&'static str, String)>,
    /// Arguments that are no flags.
    pub arguments: Vec<String>,
    /// How many of them stood before `--`; what follows is the command of `exec` and `run`.
    pub before_dashes: Option<usize>,
}

impl Parsed {
    /// The last value of a flag.
    pub fn value(&self, long: &str) -> Option<&str> {
        self.values
            .get(long)
            .and_then(|all| all.last())
            .map(String::as_str)
    }

    /// Every value of a flag; commas separate values too, as in `-f a.yaml,b.yaml`.
    pub fn values(&self, long: &str) -> Vec<&str> {
        let all = self.values.get(long).map(Vec::as_slice).unwrap_or_default();
        all.iter()
            .flat_map(|one| one.split(','))
            .filter(|one| !one.is_empty())
            .collect()
    }

    /// Every value of a flag as it was given, commas and all, in order.
    pub fn each<'a>(&'a self, long: &'a str) -> impl Iterator<Item = &'a str> {
        let of = move |given: &&(&'static str, String)| given.0 == long;
        self.in_order
            .iter()
            .filter(of)
            .map(|given| given.1.as_str())
    }

    /// Whether a switch is on.
    pub fn is_on(&self, long: &str) -> bool {
        self.value(long) == Some("true")
    }

    /// Gives a flag that was not given a value.
    pub fn assume(&mut self, long: &'static str, text: &str) {
        let given = || vec![text.to_owned()];
        self.values.entry(long).or_insert_with(given);
    }

    /// Takes a flag back that means something else to what follows.
    pub fn forget(&mut self, long: &str) {
        self.values.remove(long);
    }

    /// Whether the flag was given at all.
    pub fn was_given(&self, long: &str) -> bool {
        self.values.contains_key(long)
    }
}

/// The flag of that long name.
pub fn find_long(own: &[Flag], name: &str) -> Option<Flag> {
    own.iter()
        .chain(GLOBAL)
        .find(|flag| flag.long == name)
        .copied()
}

/// The flag of that short name.
pub fn find_short(own: &[Flag], name: char) -> Option<Flag> {
    own.iter()
        .chain(GLOBAL)
        .find(|flag| flag.short == Some(name))
        .copied()
}

/// Takes `args` (without the program and the verb) apart by the verb's flags and the global ones.
pub fn parse(own: &[Flag], args: &[String]) -> Result<Parsed, FlagError> {
    let mut parsed = Parsed::default();
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            parsed.before_dashes = Some(parsed.arguments.len());
            parsed.arguments.extend(rest.by_ref().cloned());
        } else if let Some(long) = arg.strip_prefix("--") {
            take_long(own, long, &mut rest, &mut parsed)?;
        } else if arg.len() > 1 && arg.starts_with('-') {
            take_shorts(own, &arg[1..], &mut rest, &mut parsed)?;
        } else {
            parsed.arguments.push(arg.clone());
        }
    }
    Ok(parsed)
}

type Rest<'a> = std::slice::Iter<'a, String>;

fn take_long(
    own: &[Flag],
    text: &str,
    rest: &mut Rest<'_>,
    parsed: &mut Parsed,
) -> Result<(), FlagError> {
    let (name, inline) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    let flag = find_long(own, name).ok_or_else(|| FlagError::UnknownLong(name.to_owned()))?;
    let given = match (flag.takes, inline) {
        (_, Some(value)) => value.to_owned(),
        (Takes::Switch, None) => "true".to_owned(),
        (Takes::Optional(default), None) => default.to_owned(),
        (Takes::Value, None) => rest
            .next()
            .ok_or_else(|| FlagError::MissingValue(format!("--{name}")))?
            .clone(),
    };
    store(flag, given, parsed)
}

fn take_shorts(
    own: &[Flag],
    cluster: &str,
    rest: &mut Rest<'_>,
    parsed: &mut Parsed,
) -> Result<(), FlagError> {
    for (at, name) in cluster.char_indices() {
        let flag = find_short(own, name)
            .ok_or_else(|| FlagError::UnknownShort(name, cluster.to_owned()))?;
        let after = &cluster[at + name.len_utf8()..];
        if let Some(value) = after.strip_prefix('=') {
            return store(flag, value.to_owned(), parsed);
        }
        match flag.takes {
            Takes::Switch => store(flag, "true".to_owned(), parsed)?,
            Takes::Optional(default) => store(flag, default.to_owned(), parsed)?,
            Takes::Value if !after.is_empty() => return store(flag, after.to_owned(), parsed),
            Takes::Value => {
                let missing = || FlagError::MissingValue(format!("'{name}' in -{cluster}"));
                return store(flag, rest.next().ok_or_else(missing)?.clone(), parsed);
            }
        }
    }
    Ok(())
}

fn store(flag: Flag, given: String, parsed: &mut Parsed) -> Result<(), FlagError> {
    let given = if flag.takes == Takes::Switch {
        match given.as_str() {
            "true" | "1" | "t" | "T" | "TRUE" | "True" => "true".to_owned(),
            "false" | "0" | "f" | "F" | "FALSE" | "False" => "false".to_owned(),
            _ => {
                let short = flag.short.map(|s| format!("-{s}, ")).unwrap_or_default();
                return Err(FlagError::NotBoolean {
                    flag: format!("{short}--{}", flag.long),
                    value: given,
                });
            }
        }
    } else {
        given
    };
    parsed.in_order.push((flag.long, given.clone()));
    parsed.values.entry(flag.long).or_default().push(given);
    Ok(())
}

/// Finds the verb among arguments that may begin with flags, and returns it with the others.
///
/// As in cobra, a flag before the verb that is not written `--flag=value` takes the next argument
/// as its value unless it is a switch; `every` lists the flags of all verbs to tell them apart.
pub fn split_verb(every: &[Flag], args: &[String]) -> (Option<String>, Vec<String>) {
    let mut others = Vec::with_capacity(args.len());
    let mut rest = args.iter();
    while let Some(arg) = rest.next() {
        if arg == "--" {
            others.push(arg.clone());
            break;
        }
        if !arg.starts_with('-') || arg.len() == 1 {
            others.extend(rest.cloned());
            return (Some(arg.clone()), others);
        }
        others.push(arg.clone());
        let flag = match arg.strip_prefix("--") {
            Some(long) if long.contains('=') => None,
            Some(long) => find_long(every, long),
            None if arg.contains('=') => None,
            None => arg
                .chars()
                .last()
                .and_then(|short| find_short(every, short)),
        };
        if flag.is_some_and(|flag| flag.takes == Takes::Value)
            && let Some(value) = rest.next()
        {
            others.push(value.clone());
        }
    }
    others.extend(rest.cloned());
    (None, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWN: &[Flag] = &[
        switch("stdin", Some('i'), "x"),
        switch("tty", Some('t'), "x"),
        value("filename", Some('f'), "x"),
        optional("dry-run", "unchanged", "x"),
    ];

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    #[test]
    fn bundles_inline_values_and_the_command_after_dashes() {
        let parsed = parse(
            OWN,
            &words("-it bb1 -fa.yaml --filename=b.yaml -- nc -vlkp 8"),
        )
        .unwrap();
        assert!(parsed.is_on("stdin") && parsed.is_on("tty"));
        assert_eq!(parsed.values("filename"), ["a.yaml", "b.yaml"]);
        assert_eq!(parsed.arguments, ["bb1", "nc", "-vlkp", "8"]);
        assert_eq!(parsed.before_dashes, Some(1));
    }

    #[test]
    fn errors_read_as_kubectls() {
        let error = |text| parse(OWN, &words(text)).unwrap_err().to_string();
        assert_eq!(error("--nope"), "unknown flag: --nope");
        assert_eq!(error("-iz"), "unknown shorthand flag: 'z' in -iz");
        assert_eq!(error("--filename"), "flag needs an argument: --filename");
        assert_eq!(error("-f"), "flag needs an argument: 'f' in -f");
        assert!(error("--stdin=maybe").contains("strconv.ParseBool"));
    }

    #[test]
    fn an_optional_value_never_takes_the_next_argument() {
        let parsed = parse(OWN, &words("--dry-run pod")).unwrap();
        assert_eq!(parsed.value("dry-run"), Some("unchanged"));
        assert_eq!(parsed.arguments, ["pod"]);
    }

    #[test]
    fn switches_may_stand_before_the_verb() {
        let (verb, rest) = split_verb(OWN, &words("-i -t exec bb1 -- sh"));
        assert_eq!(verb.as_deref(), Some("exec"));
        assert_eq!(rest, words("-i -t bb1 -- sh"));
        let (verb, rest) = split_verb(OWN, &words("-n stars get pods"));
        assert_eq!(verb.as_deref(), Some("get"));
        assert_eq!(rest, words("-n stars pods"));
    }
}
