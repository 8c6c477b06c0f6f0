//! The format of a policy test, as it is read: nothing is resolved yet.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use crate::family::Family;
use crate::objects::{DecodeOptions, Object};

/// `apiVersion` of a test.
pub const API_VERSION: &str = "weir.dev/v1alpha1";
/// `kind` of a test.
pub const KIND: &str = "PolicyTest";

/// One document of kind `PolicyTest`.
#[derive(Clone, Debug)]
pub struct PolicyTest {
    /// The file it stands in, as errors name it.
    pub file: String,
    /// Its number among the file's documents, from 1.
    pub document: usize,
    /// The line it begins in.
    pub line: Option<usize>,
    /// `metadata.name`.
    pub name: String,
    /// What it shows.
    pub description: Option<String>,
    /// The objects of `files`.
    pub files: Vec<Object>,
    /// The objects that stand in the test.
    pub objects: Manifests,
    /// What must hold of these objects.
    pub expect: Vec<Expect>,
    /// Changes, and what must hold after each.
    pub steps: Vec<Step>,
    /// Where the test does not run.
    pub skip: Skip,
}

/// Objects as they were written. They are decoded when they are applied, because a step may
/// expect that they are refused.
#[derive(Clone, Debug, Default)]
pub struct Manifests {
    /// In the order of the file; `List`s count as one.
    pub values: Vec<Value>,
    /// Kinds to leave out (`--ignore-kinds`).
    pub ignored_kinds: Vec<String>,
    /// Namespace of objects that name none.
    pub namespace: Option<String>,
}

impl Manifests {
    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }

    /// How they are decoded: strictly.
    pub fn options(&self) -> DecodeOptions<'_> {
        DecodeOptions {
            ignored_kinds: &self.ignored_kinds,
            namespace: self.namespace.as_deref(),
            ..DecodeOptions::default()
        }
    }
}

/// A change, and what must hold after it. The change is one transaction: deletions first, then what
/// is applied, then labels.
#[derive(Clone, Debug, Default)]
pub struct Step {
    /// The line it begins in.
    pub line: Option<usize>,
    /// What it is called; else it goes by its number.
    pub name: Option<String>,
    /// Objects to store, each in place of one of the same name.
    pub apply: Manifests,
    /// Objects to delete.
    pub delete: Vec<Reference>,
    /// Labels to set or remove.
    pub label: Vec<Relabel>,
    /// The change must be refused with a message that holds this text; then nothing has changed.
    pub refused: Option<String>,
    /// What must hold afterwards. Lines of earlier steps count no more.
    pub expect: Vec<Expect>,
    /// Where the step is left out, its change too.
    pub skip: Skip,
}

/// Names one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference {
    /// A kind, plural, singular or short name: `NetworkPolicy`, `netpol`, `pods`.
    pub kind: String,
    /// Its namespace; `default` if none is given.
    pub namespace: Option<String>,
    /// Its name.
    pub name: String,
}

/// A change of an object's labels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Relabel {
    /// Whose labels.
    pub object: Reference,
    /// What to set; none removes the label.
    pub labels: BTreeMap<String, Option<String>>,
}

/// Where a test, a step or a line does not count, and why.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Skip {
    /// Not on files (`weir test`).
    pub offline: Option<String>,
    /// Not on real packets.
    pub packets: Option<String>,
}

/// What must hold of some connections. A later line takes the place of an earlier one where both
/// speak of the same sender, receiver, protocol, port and address family.
#[derive(Clone, Debug)]
pub struct Expect {
    /// The line it begins in.
    pub line: Option<usize>,
    /// Who sends.
    pub from: End,
    /// Who receives.
    pub to: End,
    /// The destination's ports, each a connection of its own; of a Service, the Service's. Empty
    /// for ICMP only.
    pub ports: Vec<Port>,
    /// By default TCP.
    pub protocol: Transport,
    /// By default every family that both ends have.
    pub family: Option<Family>,
    /// Whether they pass.
    pub allow: bool,
    /// The policy that must have decided; of a denial by default one that isolates. `NS/NAME`, or
    /// `NAME` of a policy that lives in no namespace.
    pub because: Option<String>,
    /// Where the line does not count.
    pub skip: Skip,
}

/// One or several ends of connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// `"*"`: every pod.
    Everyone,
    /// `NS/POD`, or as a receiver `NS/SERVICE`, which stands for every pod behind it; with `pod/` or
    /// `service/` before it where both are called so.
    Named(String),
    /// An address.
    Address(IpAddr),
    /// Every pod with these labels, and at least one.
    Labelled {
        /// In this namespace; by default in any.
        namespace: Option<String>,
        /// All of these.
        labels: BTreeMap<String, String>,
    },
    /// All of them.
    Several(Vec<End>),
}

/// A port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Port {
    /// 1 to 65535.
    Number(u16),
    /// As the receiver's containers, or the Service, call it.
    Name(String),
}

impl Port {
    /// As it was written.
    pub fn text(&self) -> String {
        match self {
            Port::Number(number) => number.to_string(),
            Port::Name(name) => name.clone(),
        }
    }
}

/// A protocol that expectations can speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Transport {
    /// TCP.
    Tcp,
    /// UDP.
    Udp,
    /// SCTP.
    Sctp,
    /// Echo, of the ends' family.
    Icmp,
}

impl Transport {
    /// As it is written: `TCP`.
    pub const fn name(self) -> &'static str {
        match self {
            Transport::Tcp => "TCP",
            Transport::Udp => "UDP",
            Transport::Sctp => "SCTP",
            Transport::Icmp => "ICMP",
        }
    }
}
