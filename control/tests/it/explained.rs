//! What `explain` says in Kubernetes' own words, `kubernetes.txt`, is what k8s-openapi's sources say of
//! the fields of which `fields.txt` says nothing. After an update of that crate
//! `WEIR_WRITE=1 cargo test -p weir-control --test it explained` writes the file anew.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use control::objects::Kind;
use control::objects::kinds::KINDS;

const OWN: &str = include_str!("../../src/cli/verbs/explain/fields.txt");
const FILE: &str = "src/cli/verbs/explain/kubernetes.txt";
const HEAD: &str = "\
# Kubernetes' descriptions of its API's structs and fields, as k8s-openapi's sources have them; see
# NOTICE. A test writes this file: what Weir says in its own words is in fields.txt and comes first.
# Several names before the colon share a text; KIND/STRUCT is a struct of a name that other kinds'
# structs have, too; \\n is the end of a line.
";
/// Nothing here calls webhooks, and much is said of them.
const LEFT_OUT: &str = "admissionregistration.k8s.io";
/// Nor is a schema's inside asked for.
const SCHEMAS: [&str; 3] = ["ExternalDocumentation", "JSONSchemaProps", "ValidationRule"];
/// What every kind has; its own words for them are in `explain.rs`.
const COMMON: [&str; 2] = ["apiVersion", "kind"];

/// Of a struct: its description, and those of its fields by their names in JSON.
#[derive(Default)]
struct Described {
    said: String,
    fields: BTreeMap<String, (String, bool)>,
}

/// Structs by name, then by module.
type Structs = BTreeMap<String, BTreeMap<String, Described>>;

/// The folder of k8s-openapi's API, if cargo knows where it is.
fn source() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--format-version=1", "--offline", "--locked"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .ok()?;
    let metadata: serde_json::Value = serde_json::from_slice(&output.stdout).ok()?;
    let packages = metadata["packages"].as_array()?;
    let package = packages.iter().find(|one| one["name"] == "k8s-openapi")?;
    let manifest = Path::new(package["manifest_path"].as_str()?);
    Some(manifest.with_file_name("src").join("v1_34"))
}

fn read(folder: &Path, root: &Path, structs: &mut Structs) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            read(&path, root, structs);
        } else if path.extension().is_some_and(|end| end == "rs") {
            let module = folder.strip_prefix(root).unwrap();
            let module = module.to_str().unwrap().to_owned();
            for (name, described) in parse(&fs::read_to_string(&path).unwrap()) {
                structs
                    .entry(name)
                    .or_default()
                    .insert(module.clone(), described);
            }
        }
    }
}

/// The structs of a file that k8s-openapi's generator has written.
fn parse(text: &str) -> Vec<(String, Described)> {
    // `"hostIP" => Field::Key_host_ip,` says what a field is called in JSON.
    let called: BTreeMap<&str, &str> = text
        .lines()
        .filter_map(|line| {
            let (name, field) = line.trim().split_once(" => Field::Key_")?;
            Some((field.trim_end_matches(','), name.trim_matches('"')))
        })
        .collect();
    let (mut found, mut doc): (Vec<(String, Described)>, Vec<&str>) = (Vec::new(), Vec::new());
    let mut is_inside = false;
    for line in text.lines() {
        let indented = line.starts_with("    ");
        let code = line.trim_start();
        if let Some(said) = code.strip_prefix("///").filter(|_| indented == is_inside) {
            doc.push(said.strip_prefix(' ').unwrap_or(said));
        } else if let Some(rest) = line.strip_prefix("pub struct ") {
            let end = rest.find(|c: char| !c.is_alphanumeric());
            let described = Described {
                said: joined(&doc),
                ..Described::default()
            };
            found.push((rest[..end.unwrap_or(rest.len())].to_owned(), described));
            is_inside = rest.ends_with('{');
            doc.clear();
        } else if is_inside && let Some(field) = line.strip_prefix("    pub ") {
            let (name, of) = field.split_once(": ").unwrap();
            let name = name.trim_start_matches("r#");
            let json = called.get(name).copied().unwrap_or(name);
            // Every kind has metadata, whether it must be written or not.
            let required = !of.starts_with("Option<") && json != "metadata";
            let (_, described) = found.last_mut().unwrap();
            let said = (joined(&doc), required);
            described.fields.insert(json.to_owned(), said);
            doc.clear();
        } else if line == "}" {
            is_inside = false;
        } else if !code.starts_with('#') && !code.is_empty() {
            doc.clear();
        }
    }
    found
}

/// Lines of Markdown as one of text.
fn joined(lines: &[&str]) -> String {
    let mut text = String::new();
    let joined = lines.join("\n");
    let mut rest = joined.trim_end().chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '\\' if rest.peek().is_some_and(char::is_ascii_punctuation) => {}
            '\n' => text.push_str("\\n"),
            other => text.push(other),
        }
    }
    text
}

/// The struct of that name which `kind` has: of its own group rather than of another.
fn of_kind<'s>(structs: &'s Structs, kind: &Kind, name: &str) -> Option<&'s Described> {
    let modules = structs.get(name)?;
    let group = match kind.group() {
        "" => "core".to_owned(),
        group => group.split('.').next().unwrap_or_default().to_owned(),
    };
    let own = format!("/{}/{}", group, kind.version());
    let mut places = vec![own, "api/core/v1".into(), "/meta/v1".into(), String::new()];
    places.retain(|place| {
        modules
            .keys()
            .any(|module| module.ends_with(place.as_str()))
    });
    let place = places.first()?;
    let mut found = modules.iter();
    found
        .find(|(module, _)| module.ends_with(place.as_str()))
        .map(|(_, described)| described)
}

/// The lines of the file.
fn lines(structs: &Structs) -> BTreeSet<String> {
    let own: BTreeSet<&str> = OWN
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(key, _)| key)
        .collect();
    // What each kind would have said.
    let mut said: BTreeMap<String, BTreeMap<String, Vec<&str>>> = BTreeMap::new();
    for kind in KINDS.iter().filter(|kind| kind.group() != LEFT_OUT) {
        let structure = kind.structure().unwrap();
        for name in structure.names().filter(|name| !SCHEMAS.contains(name)) {
            let Some(described) = of_kind(structs, kind, name) else {
                continue;
            };
            let mut say = |key: String, text: &str| {
                if !text.is_empty() && !own.contains(key.as_str()) {
                    let texts = said.entry(key).or_default();
                    texts.entry(text.to_owned()).or_default().push(kind.kind);
                }
            };
            say(name.to_owned(), &described.said);
            for (field, _) in structure.fields(name) {
                let Some((text, required)) = described.fields.get(field) else {
                    continue;
                };
                let mark = if *required { "!" } else { "" };
                let is_common = COMMON.contains(&field.as_str()) && name == kind.kind;
                if !is_common {
                    say(format!("{name}.{field}"), &format!("{mark}{text}"));
                }
            }
        }
    }
    let mut names: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (key, texts) in &said {
        // The text that most kinds have needs no kind's name.
        let most = texts.values().map(Vec::len).max();
        let plain = texts.iter().find(|(_, kinds)| Some(kinds.len()) == most);
        let plain = plain.map(|(text, _)| text);
        for (text, kinds) in texts {
            let names = names.entry(text).or_default();
            match plain == Some(text) {
                true => drop(names.insert(key.clone())),
                false => names.extend(kinds.iter().map(|kind| format!("{kind}/{key}"))),
            }
        }
    }
    let joined = |names: BTreeSet<String>| Vec::from_iter(names).join(" ");
    let lines = names.into_iter();
    lines
        .map(|(text, names)| format!("{}: {text}", joined(names)))
        .collect()
}

#[test]
fn kubernetes_words_are_its_own() {
    let Some(source) = source().filter(|folder| folder.is_dir()) else {
        eprintln!("skipped: cargo does not say where k8s-openapi's sources are");
        return;
    };
    let mut structs = Structs::new();
    read(&source, &source, &mut structs);
    let mut text = HEAD.to_owned();
    for line in lines(&structs) {
        writeln!(text, "{line}").unwrap();
    }
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(FILE);
    if std::env::var_os("WEIR_WRITE").is_some() {
        fs::write(&file, &text).unwrap();
    }
    let kept = fs::read_to_string(&file).unwrap();
    let differs = kept.lines().zip(text.lines()).find(|(a, b)| a != b);
    assert!(
        kept == text,
        "{FILE} is not what k8s-openapi says: {differs:?}"
    );
}
