//! Text to [`PolicyTest`]s, strictly: a field that the format does not have is an error, with the
//! file, the document and the line.

use std::net::IpAddr;
use std::path::Path;

use serde_json::Value;
use thiserror::Error;

use super::decode::{Fields, Node, Place};
use super::lines::Lines;
use super::model::{
    API_VERSION, End, Expect, KIND, Manifests, PolicyTest, Port, Reference, Relabel, Skip, Step,
    Transport,
};
use crate::cli::files;
use crate::family::Family;
use crate::objects::{
    DecodeOptions, Decoded, FieldValidation, Object, UnknownKinds, decode_documents_with,
    decode_value, yaml,
};
use crate::trace::EndName;

/// A file that is no test.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub struct LoadError {
    /// The file's name.
    pub file: String,
    /// The document's number, from 1.
    pub document: Option<usize>,
    /// The line, where it is known.
    pub line: Option<usize>,
    /// `expect[3].from`; empty for the document as a whole.
    pub path: String,
    /// What is wrong.
    pub message: String,
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(document) = self.document {
            write!(f, ": document {document}")?;
        }
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.message)
    }
}

/// How files are read.
#[derive(Clone, Copy, Debug, Default)]
pub struct LoadOptions<'a> {
    /// Unknown fields of plain objects (`--validate`); the tests' own objects are read strictly.
    pub fields: FieldValidation,
    /// Kinds to leave out, policies of others included (`--ignore-kinds`).
    pub ignored_kinds: &'a [String],
    /// Namespace of objects that name none; none is `default`.
    pub namespace: Option<&'a str>,
}

impl LoadOptions<'_> {
    /// For objects that were not written for the test: kinds that nobody knows are left out with a
    /// warning.
    pub fn plain(&self) -> DecodeOptions<'_> {
        DecodeOptions {
            fields: self.fields,
            unknown_kinds: UnknownKinds::Skip,
            ignored_kinds: self.ignored_kinds,
            namespace: self.namespace,
            ..DecodeOptions::default()
        }
    }
}

/// What a file holds.
#[derive(Clone, Debug, Default)]
pub struct File {
    /// As errors name it.
    pub name: String,
    /// Its tests.
    pub tests: Vec<PolicyTest>,
    /// Plain objects that stand beside them: objects of each of its tests.
    pub objects: Vec<Object>,
    /// For stderr, behind `Warning: `.
    pub warnings: Vec<String>,
}

/// Reads a file's text. `name` is for errors, `folder` is where the paths of `files` begin.
pub fn load(
    name: &str,
    text: &str,
    folder: &Path,
    options: &LoadOptions<'_>,
) -> Result<File, LoadError> {
    let documents = yaml::documents(text).map_err(|error| LoadError {
        file: name.to_owned(),
        document: Some(error.document),
        line: error.line,
        path: String::new(),
        message: format!("no YAML: {}", error.problem),
    })?;
    let lines = Lines::of_documents(text);
    let mut loading = Loading {
        folder,
        options,
        plain: Decoded::default(),
        tests: Vec::new(),
    };
    for (index, value) in documents.into_iter().enumerate() {
        let place = Place {
            file: name,
            document: index + 1,
        };
        loading.document(value, place, lines.get(index))?;
    }
    Ok(File {
        name: name.to_owned(),
        tests: loading.tests,
        objects: loading.plain.objects,
        warnings: loading.plain.warnings,
    })
}

struct Loading<'a> {
    folder: &'a Path,
    options: &'a LoadOptions<'a>,
    plain: Decoded,
    tests: Vec<PolicyTest>,
}

impl Loading<'_> {
    fn document(
        &mut self,
        value: Value,
        place: Place<'_>,
        lines: Option<&Lines>,
    ) -> Result<(), LoadError> {
        let node = Node::document(&value, place, lines);
        if value["kind"] == KIND {
            let test = self.test(&node, place)?;
            self.tests.push(test);
            return Ok(());
        }
        let has_tests = |items: &Vec<Value>| items.iter().any(|item| item["kind"] == KIND);
        if value["kind"] == "List" && value["items"].as_array().is_some_and(has_tests) {
            let message = format!("a List holds no {KIND}: let each be a document of its own");
            return Err(node.error(message));
        }
        let error = node.line();
        decode_value(value, &self.options.plain(), &mut self.plain).map_err(|why| LoadError {
            file: place.file.to_owned(),
            document: Some(place.document),
            line: error,
            path: String::new(),
            message: why.to_string(),
        })
    }

    fn test(&mut self, node: &Node<'_>, place: Place<'_>) -> Result<PolicyTest, LoadError> {
        let fields = node.fields(&[
            "apiVersion",
            "kind",
            "metadata",
            "description",
            "objects",
            "files",
            "expect",
            "steps",
            "skip",
        ])?;
        let version = fields.required("apiVersion")?;
        if version.text()? != API_VERSION {
            return Err(version.error(format!("must be {API_VERSION}")));
        }
        let metadata = fields.required("metadata")?.fields(&["name"])?;
        let test = PolicyTest {
            file: place.file.to_owned(),
            document: place.document,
            line: node.line(),
            name: metadata.required("name")?.text()?,
            description: fields.optional("description", Node::text)?,
            files: self.files(&fields)?,
            objects: self.manifests(&fields, "objects")?,
            expect: fields.list("expect", expect)?,
            steps: fields.list("steps", |step| self.step(step))?,
            skip: skip(&fields)?,
        };
        let speaks = |step: &Step| !step.expect.is_empty() || step.refused.is_some();
        if test.expect.is_empty() && !test.steps.iter().any(speaks) {
            return Err(node.error("expects nothing"));
        }
        Ok(test)
    }

    /// The objects of the files that `files` names.
    fn files(&mut self, fields: &Fields<'_>) -> Result<Vec<Object>, LoadError> {
        let mut objects = Vec::new();
        for node in fields.list("files", |node| Ok(node.clone()))? {
            let name = node.text()?;
            if name == "-" {
                return Err(node.error("standard input is nobody's file: give it with -f"));
            }
            let path = self.folder.join(&name).display().to_string();
            let sources = files::read(&[&path], false).map_err(|e| node.error(e.to_string()))?;
            for source in sources {
                let decoded =
                    decode_documents_with(&source.text, &source.name, &self.options.plain())
                        .map_err(|e| node.error(e.to_string()))?;
                objects.extend(decoded.objects);
                for warning in decoded.warnings {
                    if !self.plain.warnings.contains(&warning) {
                        self.plain.warnings.push(warning);
                    }
                }
            }
        }
        Ok(objects)
    }

    fn manifests(&self, fields: &Fields<'_>, key: &str) -> Result<Manifests, LoadError> {
        Ok(Manifests {
            values: fields.list(key, |node| Ok(node.value.clone()))?,
            ignored_kinds: self.options.ignored_kinds.to_vec(),
            namespace: self.options.namespace.map(str::to_owned),
        })
    }

    fn step(&self, node: &Node<'_>) -> Result<Step, LoadError> {
        let fields = node.fields(&[
            "name", "apply", "delete", "label", "refused", "expect", "skip",
        ])?;
        let step = Step {
            line: node.line(),
            name: fields.optional("name", Node::text)?,
            apply: self.manifests(&fields, "apply")?,
            delete: fields.list("delete", |node| {
                reference(&node.fields(&["kind", "namespace", "name"])?)
            })?,
            label: fields.list("label", relabel)?,
            refused: fields.optional("refused", Node::text)?,
            expect: fields.list("expect", expect)?,
            skip: skip(&fields)?,
        };
        let changes = !step.apply.is_empty() || !step.delete.is_empty() || !step.label.is_empty();
        if step.refused.is_some() && !changes {
            return Err(node.error("nothing is changed that could be refused"));
        }
        if !changes && step.expect.is_empty() {
            return Err(node.error("changes nothing and expects nothing"));
        }
        Ok(step)
    }
}

fn reference(fields: &Fields<'_>) -> Result<Reference, LoadError> {
    let kind = fields.required("kind")?;
    let reference = Reference {
        kind: kind.text()?,
        namespace: fields.optional("namespace", Node::text)?,
        name: fields.required("name")?.text()?,
    };
    if crate::objects::kinds::find_resource(&reference.kind).is_none() {
        return Err(kind.error(format!("there is no kind {:?}", reference.kind)));
    }
    Ok(reference)
}

fn relabel(node: &Node<'_>) -> Result<Relabel, LoadError> {
    let fields = node.fields(&["kind", "namespace", "name", "labels"])?;
    let labels = fields.required("labels")?.entries()?;
    let labels = labels.into_iter().map(|(key, node)| match node.value {
        Value::Null => Ok((key, None)),
        // A label's value may be empty.
        Value::String(text) => Ok((key, Some(text.clone()))),
        _ => Err(node.error("must be text, or null to remove the label")),
    });
    Ok(Relabel {
        object: reference(&fields)?,
        labels: labels.collect::<Result<_, _>>()?,
    })
}

fn skip(fields: &Fields<'_>) -> Result<Skip, LoadError> {
    let Some(node) = fields.get("skip") else {
        return Ok(Skip::default());
    };
    let fields = node.fields(&["offline", "packets"])?;
    let skip = Skip {
        offline: fields.optional("offline", Node::text)?,
        packets: fields.optional("packets", Node::text)?,
    };
    if skip == Skip::default() {
        return Err(node.error("says neither offline nor packets"));
    }
    Ok(skip)
}

fn expect(node: &Node<'_>) -> Result<Expect, LoadError> {
    let fields = node.fields(&[
        "from", "to", "port", "protocol", "family", "allow", "because", "skip",
    ])?;
    let protocol = fields.optional("protocol", protocol)?;
    let expect = Expect {
        line: node.line(),
        from: end(&fields.required("from")?)?,
        to: end(&fields.required("to")?)?,
        ports: fields.optional("port", ports)?.unwrap_or_default(),
        protocol: protocol.unwrap_or(Transport::Tcp),
        family: fields.optional("family", family)?,
        allow: fields.required("allow")?.boolean()?,
        because: fields.optional("because", Node::text)?,
        skip: skip(&fields)?,
    };
    match (expect.protocol, expect.ports.is_empty()) {
        (Transport::Icmp, false) => Err(node.error("ICMP has no port")),
        (Transport::Icmp, true) | (_, false) => Ok(expect),
        (other, true) => Err(node.error(format!("{} needs a port", other.name()))),
    }
}

fn protocol(node: &Node<'_>) -> Result<Transport, LoadError> {
    let protocols = [
        Transport::Tcp,
        Transport::Udp,
        Transport::Sctp,
        Transport::Icmp,
    ];
    let text = node.text()?;
    let found = protocols.into_iter().find(|p| p.name() == text);
    found.ok_or_else(|| node.error(format!("must be TCP, UDP, SCTP or ICMP, not {text:?}")))
}

fn family(node: &Node<'_>) -> Result<Family, LoadError> {
    let text = node.text()?;
    let found = [Family::V4, Family::V6]
        .into_iter()
        .find(|f| f.name() == text);
    found.ok_or_else(|| node.error(format!("must be IPv4 or IPv6, not {text:?}")))
}

/// A port, or a list of some.
fn ports(node: &Node<'_>) -> Result<Vec<Port>, LoadError> {
    let Value::Array(_) = node.value else {
        return Ok(vec![port(node)?]);
    };
    let items = node.items()?;
    if items.is_empty() {
        return Err(node.error("names no port"));
    }
    items.iter().map(port).collect()
}

fn port(node: &Node<'_>) -> Result<Port, LoadError> {
    let range = || node.error("must be a name or a number from 1 to 65535");
    match node.value {
        Value::String(text) if text.bytes().all(|b| b.is_ascii_digit()) => Err(range()),
        Value::String(text) => Ok(Port::Name(text.clone())),
        Value::Number(number) => match number.as_u64().map(u16::try_from) {
            Some(Ok(number @ 1..)) => Ok(Port::Number(number)),
            _ => Err(range()),
        },
        _ => Err(range()),
    }
}

fn end(node: &Node<'_>) -> Result<End, LoadError> {
    match node.value {
        Value::Array(_) => {
            let items = node.items()?;
            if items.is_empty() {
                return Err(node.error("names nobody"));
            }
            let ends = items.iter().map(|item| match item.value {
                Value::Array(_) => Err(item.error("a list in a list")),
                _ => end(item),
            });
            Ok(End::Several(ends.collect::<Result<_, _>>()?))
        }
        Value::Object(_) => {
            let fields = node.fields(&["namespace", "labels"])?;
            let labels = match fields.get("labels") {
                Some(labels) => labels.entries()?,
                None => Default::default(),
            };
            let labels = labels.into_iter().map(|(key, node)| match node.value {
                Value::String(text) => Ok((key, text.clone())),
                _ => Err(node.error("must be text")),
            });
            let labels = labels.collect::<Result<_, _>>()?;
            let namespace = fields.optional("namespace", Node::text)?;
            if namespace.is_none() && fields.get("labels").is_none() {
                return Err(node.error("names neither a namespace nor labels"));
            }
            Ok(End::Labelled { namespace, labels })
        }
        _ => named_end(node),
    }
}

fn named_end(node: &Node<'_>) -> Result<End, LoadError> {
    let text = node.text()?;
    if text == "*" {
        return Ok(End::Everyone);
    }
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(End::Address(address.to_canonical()));
    }
    if EndName::is_whole(&text) {
        return Ok(End::Named(text));
    }
    Err(node.error(format!(
        "{text:?} is no end: write NAMESPACE/POD, NAMESPACE/SERVICE, an address, \"*\", or \
         {{namespace: …, labels: {{…}}}}"
    )))
}
