//! Kinds that CustomResourceDefinitions add to those that are known to everybody
//! ([`KINDS`](super::kinds::KINDS)).
//!
//! An object of such a kind may be written in any version that is served; it is kept and shown in
//! one, that which Kubernetes prefers, and made that one's as `conversion: None` does: by its
//! `apiVersion`. Kinds that restrict traffic and are not enforced here
//! ([`is_foreign_policy`](super::kinds::is_foreign_policy)) have a definition, so that asking for
//! them finds none, and no objects: decoding refuses them.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use super::decode::type_of;
use super::kinds::{self, Category, Kind};
use crate::protocol::{ApiResource, PrinterColumn};

pub mod schema;

use schema::{Schema, Unread};

/// The kind of what defines kinds.
pub const DEFINITION: (&str, &str) = ("apiextensions.k8s.io/v1", "CustomResourceDefinition");
/// Deepest nesting of `List`s in which definitions are looked for.
const LIST_DEPTH: usize = 8;

/// What one CustomResourceDefinition defines.
#[derive(Debug)]
pub struct Definition {
    /// The kind, in the version that its objects are kept and shown in.
    pub kind: &'static Kind,
    /// `crontab`.
    pub singular: String,
    /// `ct`.
    pub short_names: Vec<String>,
    /// Words that stand for several kinds: `all`.
    pub categories: Vec<String>,
    /// The versions that are served, that of [`Definition::kind`] first.
    versions: Vec<Version>,
    /// What of the schemas is not looked at.
    pub unread: Unread,
}

/// A version that is served.
#[derive(Debug)]
pub struct Version {
    /// `v1beta1`.
    pub name: String,
    /// What its objects hold.
    pub schema: Schema,
    /// What `get` shows of them.
    pub columns: Vec<PrinterColumn>,
    /// Whether `status` is written apart from the rest.
    pub has_status: bool,
    /// What whoever uses it is warned with.
    pub deprecated: Option<String>,
}

impl Definition {
    /// What a CustomResourceDefinition says. Its members have their types; `None` if it is not whole, if
    /// it serves no version, or if there are too many kinds ([`config::limits::CUSTOM_KINDS`]).
    pub fn read(definition: &Value) -> Option<Definition> {
        let spec = &definition["spec"];
        let (names, group) = (&spec["names"], spec["group"].as_str()?);
        let (kind, plural) = (names["kind"].as_str()?, names["plural"].as_str()?);
        let namespaced = spec["scope"] == "Namespaced";
        let mut unread = Unread::default();
        let versions = spec["versions"].as_array()?.iter();
        let served = versions.filter(|version| version["served"] == true);
        let mut versions: Vec<Version> = served
            .filter_map(|version| Version::read(version, &mut unread))
            .collect();
        versions.sort_by_cached_key(|version| std::cmp::Reverse(rank(&version.name)));
        let shown = versions.first()?;
        let texts = |list: &Value| -> Vec<String> {
            let list = list.as_array().into_iter().flatten();
            list.filter_map(|text| text.as_str().map(str::to_owned))
                .collect()
        };
        Some(Definition {
            kind: interned(&format!("{group}/{}", shown.name), kind, plural, namespaced)?,
            singular: match names["singular"].as_str() {
                None | Some("") => kind.to_lowercase(),
                Some(singular) => singular.to_owned(),
            },
            short_names: texts(&names["shortNames"]),
            categories: texts(&names["categories"]),
            versions,
            unread,
        })
    }

    /// A definition as a daemon tells of it: what objects hold is its own affair.
    fn told(resource: &ApiResource) -> Option<Definition> {
        let version = |name: &String| Version {
            name: name.clone(),
            schema: Schema::open(),
            columns: Vec::new(),
            has_status: false,
            deprecated: None,
        };
        let ApiResource {
            group,
            kind,
            plural,
            versions,
            ..
        } = resource;
        let shown = versions.first()?;
        Some(Definition {
            kind: interned(
                &format!("{group}/{shown}"),
                kind,
                plural,
                resource.namespaced,
            )?,
            singular: resource.singular.clone(),
            short_names: resource.short_names.clone(),
            categories: resource.categories.clone(),
            versions: versions.iter().map(version).collect(),
            unread: Unread::default(),
        })
    }

    /// How a client is told of it.
    pub fn resource(&self) -> ApiResource {
        ApiResource {
            group: self.kind.group().to_owned(),
            versions: self
                .versions
                .iter()
                .map(|version| version.name.clone())
                .collect(),
            kind: self.kind.kind.to_owned(),
            plural: self.kind.plural.to_owned(),
            singular: self.singular.clone(),
            short_names: self.short_names.clone(),
            categories: self.categories.clone(),
            namespaced: self.kind.namespaced,
        }
    }

    /// The name of the CustomResourceDefinition: `crontabs.stable.example.com`.
    pub fn name(&self) -> String {
        self.kind.qualified_plural()
    }

    /// The version that objects are kept and shown in.
    pub fn shown(&self) -> &Version {
        &self.versions[0]
    }

    /// The versions that are served, the shown one first.
    pub fn versions(&self) -> &[Version] {
        &self.versions
    }

    /// Whether its objects restrict traffic, and are refused because that is not enforced here.
    pub fn is_foreign_policy(&self) -> bool {
        let is_refused = |version: &Version| {
            let api_version = format!("{}/{}", self.kind.group(), version.name);
            kinds::is_foreign_policy(&api_version, self.kind.kind)
        };
        self.versions.iter().any(is_refused)
    }

    /// Makes an object that is written in `version` one of the shown version, without what the schemas
    /// do not know. The paths of what went, as it was written.
    pub fn admit(&self, version: &Version, object: &mut Value) -> Vec<String> {
        let gone = version.schema.prune(object);
        let shown = self.shown();
        if version.name != shown.name {
            object["apiVersion"] = Value::from(self.kind.api_version);
            shown.schema.prune(object);
        }
        gone
    }

    fn is_called(&self, name: &str) -> bool {
        self.kind.plural == name
            || self.singular == name
            || self.kind.kind.eq_ignore_ascii_case(name)
            || self.short_names.iter().any(|short| short == name)
    }

    /// Whether what stands behind a name's dot means it: `GROUP` or `VERSION.GROUP`.
    fn is_of(&self, suffix: &str) -> bool {
        let group = self.kind.group();
        let in_version = |version: &Version| {
            let rest = suffix.strip_prefix(&version.name);
            rest.and_then(|rest| rest.strip_prefix('.')) == Some(group)
        };
        suffix == group || self.versions.iter().any(in_version)
    }
}

impl Version {
    fn read(version: &Value, unread: &mut Unread) -> Option<Version> {
        let columns = version["additionalPrinterColumns"].as_array();
        let columns: Vec<PrinterColumn> = columns
            .into_iter()
            .flatten()
            .filter_map(|column| serde_json::from_value(column.clone()).ok())
            .collect();
        let name = version["name"].as_str()?.to_owned();
        let deprecated = (version["deprecated"] == true).then(|| {
            let warning = version["deprecationWarning"].as_str();
            warning.unwrap_or_default().to_owned()
        });
        Some(Version {
            schema: Schema::read(&version["schema"]["openAPIV3Schema"], unread),
            columns: match columns.is_empty() {
                true => vec![PrinterColumn::age()],
                false => columns,
            },
            has_status: version["subresources"]["status"].is_object(),
            deprecated,
            name,
        })
    }
}

/// How much Kubernetes prefers a version: `v2`, `v1`, `v2beta1`, `v1beta2`, `v1alpha1`, then other names
/// (apimachinery `pkg/version/helpers.go`).
fn rank(version: &str) -> (u8, u64, u64, std::cmp::Reverse<String>) {
    let parsed = || {
        let rest = version.strip_prefix('v')?;
        let end = rest
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(rest.len());
        let major: u64 = rest[..end].parse().ok()?;
        let tail = &rest[end..];
        if tail.is_empty() {
            return Some((3, major, 0));
        }
        let beta = tail.strip_prefix("beta").map(|minor| (2, minor));
        let (stage, minor) = beta.or_else(|| Some((1, tail.strip_prefix("alpha")?)))?;
        Some((stage, major, minor.parse().ok()?))
    };
    let name = std::cmp::Reverse(version.to_owned());
    parsed().map_or((0, 0, 0, name.clone()), |(stage, major, minor)| {
        (stage, major, minor, name)
    })
}

/// The kinds that CustomResourceDefinitions add. Copies are cheap and independent.
#[derive(Clone, Debug, Default)]
pub struct Definitions {
    /// By group and kind.
    groups: Arc<BTreeMap<String, BTreeMap<String, Arc<Definition>>>>,
}

impl Definitions {
    /// The definitions that a daemon tells of.
    pub fn told(resources: &[ApiResource]) -> Definitions {
        let mut definitions = Definitions::default();
        for definition in resources.iter().filter_map(Definition::told) {
            definitions.insert(definition);
        }
        definitions
    }

    /// Adds what CustomResourceDefinitions among `objects` define, those in `List`s too. Others are
    /// taken no notice of, and so are definitions that are not right.
    pub fn read_all(&mut self, objects: &[Value]) {
        self.read_nested(objects, LIST_DEPTH);
    }

    fn read_nested(&mut self, objects: &[Value], depth: usize) {
        for object in objects {
            let Ok((api_version, kind)) = type_of(object) else {
                continue;
            };
            if (&*api_version, &*kind) == DEFINITION {
                self.read(object);
            } else if let Some(items) = object["items"].as_array()
                && (kind == "List" || kind == "CustomResourceDefinitionList")
                && depth > 0
            {
                self.read_nested(items, depth - 1);
            }
        }
    }

    /// Whether the kinds of all `objects` are known here or to everybody, those in `List`s too.
    pub fn know_all(&self, objects: &[Value]) -> bool {
        self.know_nested(objects, LIST_DEPTH)
    }

    fn know_nested(&self, objects: &[Value], depth: usize) -> bool {
        objects.iter().all(|object| {
            let Ok((api_version, kind)) = type_of(object) else {
                return true;
            };
            let known = |kind: &str| {
                kinds::find(&api_version, kind).is_some() || self.find(&api_version, kind).is_some()
            };
            match (object["items"].as_array(), kind.strip_suffix("List")) {
                (Some(items), Some("")) => depth == 0 || self.know_nested(items, depth - 1),
                (Some(_), Some(item)) => known(item) || known(&kind),
                _ => known(&kind),
            }
        })
    }

    /// Adds what one CustomResourceDefinition defines, unless everybody knows that kind.
    pub fn read(&mut self, definition: &Value) {
        if let Some(definition) = Definition::read(definition) {
            self.insert(definition);
        }
    }

    fn insert(&mut self, definition: Definition) {
        let kind = definition.kind;
        let same = |known: &&Kind| {
            known.group() == kind.group()
                && (known.kind == kind.kind || known.plural == kind.plural)
        };
        if kinds::KINDS.iter().any(|known| same(&known)) {
            return;
        }
        let groups = Arc::make_mut(&mut self.groups);
        let group = groups.entry(kind.group().to_owned()).or_default();
        group.insert(kind.kind.to_owned(), Arc::new(definition));
    }

    /// Removes what the CustomResourceDefinition of this name defines.
    pub fn remove(&mut self, name: &str) {
        let Some(definition) = self.named(name) else {
            return;
        };
        let (group, kind) = (definition.kind.group(), definition.kind.kind);
        let groups = Arc::make_mut(&mut self.groups);
        if let Some(kinds) = groups.get_mut(group) {
            kinds.remove(kind);
            if kinds.is_empty() {
                groups.remove(group);
            }
        }
    }

    /// Every definition, by group and kind.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Definition>> {
        self.groups.values().flat_map(BTreeMap::values)
    }

    /// What the CustomResourceDefinition of this name defines.
    pub fn named(&self, name: &str) -> Option<&Arc<Definition>> {
        let (plural, group) = name.split_once('.')?;
        let mut kinds = self.groups.get(group)?.values();
        kinds.find(|definition| definition.kind.plural == plural)
    }

    /// What defines a kind; `None` of kinds that everybody knows.
    pub fn of(&self, kind: &Kind) -> Option<&Arc<Definition>> {
        let definition = self.groups.get(kind.group())?.get(kind.kind);
        definition.filter(|_| kind.is_custom)
    }

    /// The definition of `kind` and its version, if `api_version` is one that is served.
    pub fn find(&self, api_version: &str, kind: &str) -> Option<(&Arc<Definition>, &Version)> {
        let (group, version) = api_version.split_once('/')?;
        let definition = self.groups.get(group)?.get(kind)?;
        let mut versions = definition.versions.iter();
        let version = versions.find(|served| served.name == version)?;
        Some((definition, version))
    }

    /// What whoever writes an object of this version is warned with, if it is deprecated.
    pub fn deprecated(&self, api_version: &str, kind: &str) -> Option<String> {
        let (_, version) = self.find(api_version, kind)?;
        let warning = version.deprecated.as_deref()?;
        Some(match warning {
            "" => format!("{api_version} {kind} is deprecated"),
            own => own.to_owned(),
        })
    }

    /// As [`kinds::find_resource`], with the kinds that are defined here behind those that everybody
    /// knows.
    pub fn find_resource(&self, word: &str) -> Option<&'static Kind> {
        if let Some(kind) = kinds::find_resource(word) {
            return Some(kind);
        }
        let word = word.to_ascii_lowercase();
        let (name, suffix) = match word.split_once('.') {
            Some((name, suffix)) => (name, Some(suffix)),
            None => (word.as_str(), None),
        };
        let meant = |definition: &&Arc<Definition>| {
            definition.is_called(name) && suffix.is_none_or(|suffix| definition.is_of(suffix))
        };
        self.iter().find(meant).map(|definition| definition.kind)
    }
}

/// Kinds that have been defined since this process began. Objects and keys point to their kind for
/// good, so that none of them goes; the same kind, defined again, is the same.
static INTERNED: Mutex<Vec<&'static Kind>> = Mutex::new(Vec::new());

/// The kind of this description; `None` if there are too many.
fn interned(
    api_version: &str,
    kind: &str,
    plural: &str,
    namespaced: bool,
) -> Option<&'static Kind> {
    let mut interned = INTERNED.lock().unwrap_or_else(PoisonError::into_inner);
    let same = |known: &&&'static Kind| {
        known.api_version == api_version
            && known.kind == kind
            && known.plural == plural
            && known.namespaced == namespaced
    };
    if let Some(known) = interned.iter().find(same) {
        return Some(known);
    }
    if interned.len() == config::limits::CUSTOM_KINDS {
        return None;
    }
    let kept = |text: &str| -> &'static str { Box::leak(text.to_owned().into_boxed_str()) };
    let known: &'static Kind = Box::leak(Box::new(Kind::custom(
        kept(api_version),
        kept(kind),
        kept(plural),
        namespaced,
        Category::Stored,
    )));
    interned.push(known);
    Some(known)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_preferred_as_kubernetes_prefers_them() {
        let mut names = [
            "foo1",
            "v1alpha1",
            "v10",
            "v2",
            "v1beta1",
            "v12alpha1",
            "v10beta3",
            "foo10",
            "v3beta1",
            "v1",
            "v11alpha2",
            "v11beta2",
        ];
        names.sort_by_cached_key(|name| std::cmp::Reverse(rank(name)));
        // The order of apimachinery's own documentation.
        let expected = [
            "v10",
            "v2",
            "v1",
            "v11beta2",
            "v10beta3",
            "v3beta1",
            "v1beta1",
            "v12alpha1",
            "v11alpha2",
            "v1alpha1",
            "foo1",
            "foo10",
        ];
        assert_eq!(names, expected);
    }
}
