//! `explain`: what a kind's fields are, as kubectl prints it. Which fields there are and of which types
//! is asked of the decoder itself ([`Kind::structure`]), so that none is missing; what is said of them
//! is in `explain/fields.txt`.

use std::collections::BTreeMap;

use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::cli::values;
use crate::objects::Kind;
use crate::objects::go_json::{Structure, Type};
use crate::objects::kinds::{KINDS, find_resource};

/// Flags of `explain`.
pub const FLAGS: &[Flag] = &[
    switch("recursive", Some('R'), "The fields of fields, too"),
    value("max-depth", None, "With --recursive: how deep"),
    value(
        "api-version",
        None,
        "The version that is meant, as networking.k8s.io/v1",
    ),
    value("output", Some('o'), "plaintext"),
];

/// What is said of structs and fields: `STRUCT.FIELD: text`, `STRUCT: text`; `!` before the text: the
/// field is required.
const TEXTS: &str = include_str!("explain/fields.txt");

/// Runs `explain`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let parsed = &session.parsed;
    let local = |text: &str| VerbError::Local(text.to_owned());
    let path = match &parsed.arguments[..] {
        [] => {
            return Err(local(
                "You must specify the type of resource to explain. Use \"weir api-resources\" for \
                 a complete list of supported resources.",
            ));
        }
        [path] => path.clone(),
        _ => return Err(local("We accept only this format: explain RESOURCE")),
    };
    if !matches!(parsed.value("output"), None | Some("" | "plaintext")) {
        return Err(local("-o of explain is plaintext"));
    }
    let recursive = parsed.is_on("recursive");
    let depth = values::integer(parsed, "max-depth")?.unwrap_or(0);
    if depth > 0 && !recursive {
        return Err(local("--max-depth requires --recursive"));
    }
    let (kind, fields) = resolve(&path, parsed.value("api-version"))?;
    let structure = kind
        .structure()
        .map_err(|error| VerbError::Local(error.to_string()))?;
    let page = Page {
        structure: &structure,
        texts: texts(),
        recursive,
        depth: usize::try_from(depth).map_err(|_| local("--max-depth must be non-negative"))?,
    };
    print!("{}", page.text(kind, &fields)?);
    Ok(())
}

/// The kind, and the fields behind it: groups may stand in between, as in
/// `deployments.apps.spec`.
fn resolve(path: &str, version: Option<&str>) -> Result<(&'static Kind, Vec<String>), VerbError> {
    let parts: Vec<&str> = path.split('.').filter(|part| !part.is_empty()).collect();
    let first = parts.first().copied().unwrap_or_default();
    let fits = |kind: &&'static Kind| version.is_none_or(|version| kind.api_version == version);
    // The longest name that is one of a resource with its group.
    for length in (1..=parts.len()).rev() {
        let word = parts[..length].join(".");
        if let Some(kind) = find_resource(&word).filter(fits) {
            let rest = parts[length..].iter().map(|part| (*part).to_owned());
            return Ok((kind, rest.collect()));
        }
    }
    let other = KINDS.iter().find(|kind| kind.plural == first && fits(kind));
    if let Some(kind) = other {
        return Ok((
            kind,
            parts[1..].iter().map(|part| (*part).to_owned()).collect(),
        ));
    }
    Err(VerbError::Local(
        match version.filter(|_| find_resource(first).is_some()) {
            Some(version) => format!("couldn't find resource for \"{version}, Resource={first}\""),
            None => format!("the server doesn't have a resource type {first:?}"),
        },
    ))
}

fn texts() -> BTreeMap<&'static str, &'static str> {
    let lines = TEXTS
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.filter_map(|line| line.split_once(": ")).collect()
}

struct Page<'p> {
    structure: &'p Structure,
    texts: BTreeMap<&'static str, &'static str>,
    recursive: bool,
    /// 0: no limit.
    depth: usize,
}

impl Page<'_> {
    fn text(&self, kind: &Kind, path: &[String]) -> Result<String, VerbError> {
        let mut text = String::new();
        if !kind.group().is_empty() {
            text.push_str(&format!("GROUP:      {}\n", kind.group()));
        }
        text.push_str(&format!(
            "KIND:       {}\nVERSION:    {}\n\n",
            kind.kind,
            kind.version()
        ));
        let (mut at, mut said) = (self.structure.root().clone(), self.said(kind.kind));
        for (index, name) in path.iter().enumerate() {
            let missing = || VerbError::Local(format!("field \"{name}\" does not exist"));
            let owner = struct_of(&at).ok_or_else(missing)?;
            let fields = self.structure.fields(owner);
            let (_, found) = fields
                .iter()
                .find(|(own, _)| own == name)
                .ok_or_else(missing)?;
            said = self.said(&format!("{owner}.{name}"));
            at = found.clone();
            if index + 1 == path.len() {
                text.push_str(&format!("FIELD: {name} <{}>\n\n\n", type_name(&at)));
            }
        }
        text.push_str("DESCRIPTION:\n");
        let of_type = struct_of(&at).map_or("", |name| self.said(name));
        let both: Vec<&str> = match path.is_empty() {
            true => vec![said],
            false => vec![said, of_type],
        };
        let mut both: Vec<&str> = both.into_iter().filter(|text| !text.is_empty()).collect();
        both.dedup();
        match both.is_empty() {
            true => text.push_str("    <empty>\n"),
            false => both.iter().for_each(|said| wrapped(said, 4, &mut text)),
        }
        text.push('\n');
        if let Some(owner) = struct_of(&at) {
            text.push_str("FIELDS:\n");
            self.fields(owner, 1, &mut vec![owner], &mut text);
        }
        text.push('\n');
        Ok(text)
    }

    /// What is said of a struct or a field, without its mark.
    fn said(&self, name: &str) -> &'static str {
        let text = self.texts.get(name).copied().unwrap_or_default();
        text.strip_prefix('!').unwrap_or(text)
    }

    fn fields<'s>(
        &'s self,
        owner: &'s str,
        level: usize,
        above: &mut Vec<&'s str>,
        out: &mut String,
    ) {
        let mut fields: Vec<_> = self.structure.fields(owner).iter().collect();
        fields.sort_by_key(|(name, _)| name);
        for (name, kind) in fields {
            let key = format!("{owner}.{name}");
            let required = self
                .texts
                .get(key.as_str())
                .is_some_and(|text| text.starts_with('!'));
            let mark = if required { " -required-" } else { "" };
            let indent = "  ".repeat(level);
            out.push_str(&format!("{indent}{name}\t<{}>{mark}\n", type_name(kind)));
            if !self.recursive {
                let said = self.said(&key);
                let said = if said.is_empty() {
                    "<no description>"
                } else {
                    said
                };
                wrapped(said, 2 * level + 2, out);
                out.push('\n');
                continue;
            }
            let below = struct_of(kind).filter(|below| !above.contains(below));
            if let Some(below) = below.filter(|_| self.depth == 0 || level < self.depth) {
                above.push(below);
                self.fields(below, level + 1, above, out);
                above.pop();
            }
        }
    }
}

/// The struct that a type is, or holds.
fn struct_of(kind: &Type) -> Option<&'static str> {
    match kind {
        Type::Struct(name) => Some(name),
        Type::List(inner) | Type::Map(inner) => struct_of(inner),
        Type::Scalar(_) | Type::Unknown => None,
    }
}

fn type_name(kind: &Type) -> String {
    match kind {
        Type::Unknown => "Object".to_owned(),
        Type::Scalar(name) | Type::Struct(name) => (*name).to_owned(),
        Type::List(inner) => format!("[]{}", type_name(inner)),
        Type::Map(inner) => format!("map[string]{}", type_name(inner)),
    }
}

/// Lines of 76 characters, indented.
fn wrapped(text: &str, indent: usize, out: &mut String) {
    let width = 80 - indent;
    let mut line = String::new();
    for word in text.split_whitespace() {
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            out.push_str(&format!("{:indent$}{line}\n", ""));
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    if !line.is_empty() {
        out.push_str(&format!("{:indent$}{line}\n", ""));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// Kinds whose every field is explained.
    const EXPLAINED: [&str; 8] = [
        "NetworkPolicy",
        "ClusterNetworkPolicy",
        "AdminNetworkPolicy",
        "BaselineAdminNetworkPolicy",
        "SecurityGroup",
        "SecurityGroupPolicy",
        "Service",
        "Namespace",
    ];

    #[test]
    fn every_field_that_is_decoded_has_a_type() {
        for kind in KINDS {
            let structure = kind
                .structure()
                .unwrap_or_else(|error| panic!("{kind:?}: {error}"));
            let mut wanted = vec![struct_of(structure.root())];
            for name in structure.names() {
                for (field, of) in structure.fields(name) {
                    assert_ne!(*of, Type::Unknown, "{kind:?}: {name}.{field}");
                    wanted.push(struct_of(of));
                }
            }
            for name in wanted.into_iter().flatten() {
                assert!(structure.names().any(|own| own == name), "{kind:?}: {name}");
            }
        }
    }

    #[test]
    fn the_kinds_that_decide_are_explained_whole() {
        let texts = texts();
        let mut missing = Vec::new();
        for kind in KINDS.iter().filter(|kind| EXPLAINED.contains(&kind.kind)) {
            let structure = kind.structure().unwrap();
            for name in structure.names() {
                for (field, _) in structure.fields(name) {
                    let key = format!("{name}.{field}");
                    if !texts.contains_key(key.as_str()) {
                        missing.push(key);
                    }
                }
            }
            if !texts.contains_key(kind.kind) {
                missing.push(kind.kind.to_owned());
            }
        }
        missing.sort();
        missing.dedup();
        assert!(missing.is_empty(), "not explained:\n{}", missing.join("\n"));
    }

    #[test]
    fn nothing_is_said_of_what_is_not_there() {
        let mut known = HashSet::new();
        for kind in KINDS {
            known.insert(kind.kind.to_owned());
            let structure = kind.structure().unwrap();
            for name in structure.names() {
                known.insert(name.to_owned());
                let fields = structure.fields(name).iter();
                known.extend(fields.map(|(field, _)| format!("{name}.{field}")));
            }
        }
        for name in texts().keys() {
            assert!(known.contains(*name), "{name}");
        }
    }
}
