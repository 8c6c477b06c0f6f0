//! `explain`: what a kind's fields are, as kubectl prints it. Which fields there are and of which types
//! is asked of the decoder itself ([`Kind::structure`]), so that none is missing; what is said of them
//! is in `explain/fields.txt`, and of those that have no words of our own in `explain/kubernetes.txt`.

mod custom;

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
const OWN_TEXTS: &str = include_str!("explain/fields.txt");
/// As [`OWN_TEXTS`], of Kubernetes; what it says more is in its head.
const TEXTS: &str = include_str!("explain/kubernetes.txt");

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
    let depth = usize::try_from(depth).map_err(|_| local("--max-depth must be non-negative"))?;
    let version = parsed.value("api-version").map(str::to_owned);
    let wanted = custom::Wanted {
        version: version.as_deref(),
        recursive,
        depth,
    };
    let text = match known(&path, wanted) {
        Ok(text) => text,
        // What begins with a word that everybody knows may go on with a group that is defined.
        Err(error) => custom::page(session, &path, wanted)?.ok_or(error)?,
    };
    print!("{text}");
    Ok(())
}

/// The page of a kind that everybody knows.
fn known(path: &str, wanted: custom::Wanted) -> Result<String, VerbError> {
    let (kind, fields) = resolve(path, wanted.version)?;
    let structure = kind
        .structure()
        .map_err(|error| VerbError::Local(error.to_string()))?;
    let page = Page {
        kind,
        structure: &structure,
        texts: texts(),
        recursive: wanted.recursive,
        depth: wanted.depth,
    };
    page.text(&fields)
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
    let lines = TEXTS.lines().chain(OWN_TEXTS.lines());
    let texts = lines
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split_once(": "));
    let each = texts.flat_map(|(names, text)| names.split(' ').map(move |name| (name, text)));
    each.collect()
}

struct Page<'p> {
    kind: &'static Kind,
    structure: &'p Structure,
    texts: BTreeMap<&'static str, &'static str>,
    recursive: bool,
    /// 0: no limit.
    depth: usize,
}

impl Page<'_> {
    fn text(&self, path: &[String]) -> Result<String, VerbError> {
        let kind = self.kind;
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

    /// What is said of a struct or a field, without its mark. A name that several kinds' structs have
    /// may be told of for this kind apart.
    fn said(&self, name: &str) -> &str {
        let text = self.marked(name);
        text.strip_prefix('!').unwrap_or(text)
    }

    fn marked(&self, name: &str) -> &str {
        let kind = self.kind.kind;
        let own = self.texts.get(format!("{kind}/{name}").as_str());
        if let Some(text) = own.or_else(|| self.texts.get(name)) {
            return text;
        }
        // Of these two that every kind has no more is to be said.
        let (owner, field) = name.split_once('.').unwrap_or((name, ""));
        match KINDS.iter().find(|kind| kind.kind == owner) {
            Some(kind) if field == "apiVersion" => kind.api_version,
            Some(kind) if field == "kind" => kind.kind,
            _ => "",
        }
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
            let required = self.marked(&key).starts_with('!');
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

/// Lines of 80 characters with their indent; `\n` in the text ends one.
fn wrapped(text: &str, indent: usize, out: &mut String) {
    let width = 80 - indent;
    for paragraph in text.split("\\n") {
        // What begins with blanks is an example and stays as it is.
        let lead = paragraph.len() - paragraph.trim_start().len();
        let mut line = " ".repeat(lead);
        for word in paragraph.split_whitespace() {
            let is_begun = line.len() > lead;
            if is_begun && line.chars().count() + 1 + word.chars().count() > width {
                out.push_str(&format!("{:indent$}{line}\n", ""));
                line.truncate(lead);
            } else if is_begun {
                line.push(' ');
            }
            line.push_str(word);
        }
        match line.trim().is_empty() {
            true => out.push('\n'),
            false => out.push_str(&format!("{:indent$}{line}\n", "")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    /// What is left out of Kubernetes' words: a schema's inside, and kinds that nothing here calls.
    const SILENT: [&str; 7] = [
        "ExternalDocumentation",
        "JSONSchemaProps",
        "MutatingWebhookConfiguration",
        "ValidatingAdmissionPolicy",
        "ValidatingAdmissionPolicyBinding",
        "ValidatingWebhookConfiguration",
        "ValidationRule",
    ];

    fn page<'p>(kind: &'static Kind, structure: &'p Structure) -> Page<'p> {
        Page {
            kind,
            structure,
            texts: texts(),
            recursive: false,
            depth: 0,
        }
    }

    #[test]
    fn every_kind_is_explained_whole() {
        let mut missing = Vec::new();
        for kind in KINDS.iter().filter(|kind| !SILENT.contains(&kind.kind)) {
            let structure = kind.structure().unwrap();
            // Of what is kept as it comes no field is known.
            if structure.names().next().is_none() {
                continue;
            }
            let page = page(kind, &structure);
            for name in structure.names().filter(|name| !SILENT.contains(name)) {
                for (field, _) in structure.fields(name) {
                    let key = format!("{name}.{field}");
                    if page.said(&key).is_empty() {
                        missing.push(key);
                    }
                }
            }
            if page.said(kind.kind).is_empty() {
                missing.push(kind.kind.to_owned());
            }
        }
        missing.sort();
        missing.dedup();
        assert!(missing.is_empty(), "not explained:\n{}", missing.join("\n"));
    }

    #[test]
    fn lines_end_where_the_text_says_and_where_the_page_does() {
        let mut out = String::new();
        let long = "word ".repeat(20);
        wrapped(&format!("One:\\n  - two\\n\\n{long}"), 4, &mut out);
        let lines: Vec<&str> = out.lines().collect();
        assert_eq!(lines[..3], ["    One:", "      - two", ""]);
        assert_eq!(lines.len(), 5, "{out}");
        assert!(lines.iter().all(|line| line.len() <= 80), "{out}");
    }

    #[test]
    fn nothing_is_said_of_what_is_not_there() {
        let mut known = HashSet::new();
        for kind in KINDS {
            let of_kind = |name: String| [format!("{}/{name}", kind.kind), name];
            known.insert(kind.kind.to_owned());
            let structure = kind.structure().unwrap();
            for name in structure.names() {
                known.extend(of_kind(name.to_owned()));
                let fields = structure.fields(name).iter();
                known.extend(fields.flat_map(|(field, _)| of_kind(format!("{name}.{field}"))));
            }
        }
        for name in texts().keys() {
            assert!(known.contains(*name), "{name}");
        }
    }
}
