//! Kubernetes objects: what they are ([`kinds`], [`definitions`]), how text becomes them ([`decode`]), and how
//! Go's JSON decoder reads them ([`go_json`]), nulls and unknown fields included.

use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod, Service, ServiceAccount};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub mod decode;
pub mod definitions;
pub mod go_json;
pub mod kinds;
pub mod policy_api;
pub(crate) mod yaml;

pub use decode::{
    DecodeError, DecodeOptions, Decoded, FieldValidation, UnknownKinds, decode_documents,
    decode_documents_with, decode_value, documents,
};
pub use definitions::Definitions;
pub use kinds::{Category, Kind};

use policy_api::{
    AdminNetworkPolicy, BaselineAdminNetworkPolicy, ClusterNetworkPolicy, SecurityGroup,
    SecurityGroupPolicy,
};

/// What names an object in a cluster. The parts stay apart: names may hold dots, and joined
/// strings collide.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Key {
    /// Its kind.
    pub kind: &'static Kind,
    /// Its namespace; empty for cluster-scoped kinds.
    pub namespace: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
}

impl Key {
    /// The key of `name` in `namespace`; the namespace is dropped for cluster-scoped kinds.
    pub fn new(kind: &'static Kind, namespace: &str, name: &str) -> Key {
        Key {
            kind,
            namespace: Arc::from(if kind.namespaced { namespace } else { "" }),
            name: Arc::from(name),
        }
    }

    /// As kubectl prints it: `pod/web`, `networkpolicy.networking.k8s.io/deny`.
    pub fn display(&self) -> String {
        format!("{}/{}", self.kind.qualified_singular(), self.name)
    }
}

/// One object: the value as it was written, and for the kinds that matter to packets a typed view.
///
/// Cheap to clone. Immutable: a change makes another object ([`Object::new`]).
#[derive(Clone, Debug)]
pub struct Object {
    key: Key,
    value: Arc<Value>,
    view: View,
}

/// Declares [`View`], with one variant for each kind whose objects are read as their type, and how
/// an object becomes one or gives one.
macro_rules! views {
    ($($api:literal $name:literal => $kind:ident $as:ident $article:literal,)*) => {
        /// Typed views of the kinds that packets or names depend on.
        #[derive(Clone, Debug)]
        enum View {
            $($kind(Arc<$kind>),)*
            Other,
        }

        impl View {
            /// `value` read as its kind, and the paths of its unknown fields.
            fn read(
                kind: &'static Kind,
                value: &Value,
            ) -> Result<(View, Vec<String>), go_json::TypeError> {
                match (kind.api_version, kind.kind) {
                    $(($api, $name) => {
                        let (typed, unknown) = go_json::decode(value)?;
                        Ok((View::$kind(Arc::new(typed)), unknown))
                    })*
                    _ => Ok((View::Other, (kind.check)(value)?)),
                }
            }
        }

        impl Object {
            $(
                #[doc = concat!("Typed, if it is ", $article, " ", $name, ".")]
                pub fn $as(&self) -> Option<&$kind> {
                    match &self.view {
                        View::$kind(typed) => Some(typed),
                        _ => None,
                    }
                }
            )*
        }
    };
}

views! {
    "v1" "Namespace" => Namespace as_namespace "a",
    "v1" "Pod" => Pod as_pod "a",
    "v1" "Service" => Service as_service "a",
    "v1" "ServiceAccount" => ServiceAccount as_service_account "a",
    "v1" "Node" => Node as_node "a",
    "discovery.k8s.io/v1" "EndpointSlice" => EndpointSlice as_endpoint_slice "an",
    "networking.k8s.io/v1" "NetworkPolicy" => NetworkPolicy as_network_policy "a",
    "policy.networking.k8s.io/v1alpha2" "ClusterNetworkPolicy" =>
        ClusterNetworkPolicy as_cluster_network_policy "a",
    "policy.networking.k8s.io/v1alpha1" "AdminNetworkPolicy" =>
        AdminNetworkPolicy as_admin_network_policy "an",
    "policy.networking.k8s.io/v1alpha1" "BaselineAdminNetworkPolicy" =>
        BaselineAdminNetworkPolicy as_baseline_admin_network_policy "a",
    "vpcresources.k8s.aws/v1beta1" "SecurityGroupPolicy" =>
        SecurityGroupPolicy as_security_group_policy "a",
    "weir.dev/v1alpha1" "SecurityGroup" => SecurityGroup as_security_group "a",
}

impl PartialEq for Object {
    fn eq(&self, other: &Object) -> bool {
        self.key == other.key && self.value == other.value
    }
}

impl Object {
    /// The object that `value` describes, with `apiVersion` and `kind` of a known kind.
    ///
    /// Errors: see [`DecodeError`]. Unknown fields are taken no notice of here; [`decode_value`]
    /// reports them.
    pub fn new(value: Value) -> Result<Object, DecodeError> {
        let kind = decode::kind_of(&value)?;
        Object::with_kind(kind, value).map(|(object, _)| object)
    }

    /// As [`Object::new`], for a kind already looked up; also the unknown fields' paths.
    pub(crate) fn with_kind(
        kind: &'static Kind,
        value: Value,
    ) -> Result<(Object, Vec<String>), DecodeError> {
        let (view, unknown) =
            View::read(kind, &value).map_err(|error| DecodeError::mistyped(kind, error))?;
        let meta = &value["metadata"];
        let text = |field: &str| meta[field].as_str().unwrap_or_default();
        let key = Key::new(kind, text("namespace"), text("name"));
        let object = Object {
            key,
            value: Arc::new(value),
            view,
        };
        Ok((object, unknown))
    }

    /// What names it.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Its kind.
    pub fn kind(&self) -> &'static Kind {
        self.key.kind
    }

    /// Its name; empty until `generateName` has been filled in.
    pub fn name(&self) -> &str {
        &self.key.name
    }

    /// Its namespace; empty for cluster-scoped kinds.
    pub fn namespace(&self) -> &str {
        &self.key.namespace
    }

    /// The whole object as JSON.
    pub fn value(&self) -> &Value {
        &self.value
    }

    /// The whole object as JSON, to be changed.
    pub fn to_value(&self) -> Value {
        (*self.value).clone()
    }

    /// The whole object as JSON, which is copied only if the object has clones.
    pub fn into_value(self) -> Value {
        Arc::unwrap_or_clone(self.value)
    }

    /// `metadata.FIELD`, if it is text.
    fn meta(&self, field: &str) -> Option<&str> {
        self.value["metadata"][field].as_str()
    }

    /// `metadata.uid`; empty before it is stored.
    pub fn uid(&self) -> &str {
        self.meta("uid").unwrap_or_default()
    }

    /// `metadata.resourceVersion`; empty before it is stored.
    pub fn resource_version(&self) -> &str {
        self.meta("resourceVersion").unwrap_or_default()
    }

    /// `metadata.generation`; 0 where the kind counts none.
    pub fn generation(&self) -> u64 {
        self.value["metadata"]["generation"]
            .as_u64()
            .unwrap_or_default()
    }

    /// `metadata.creationTimestamp` (RFC 3339).
    pub fn creation_timestamp(&self) -> Option<&str> {
        self.meta("creationTimestamp")
    }

    /// Whether `metadata.deletionTimestamp` is set.
    pub fn is_terminating(&self) -> bool {
        self.meta("deletionTimestamp").is_some()
    }

    /// `metadata.labels`.
    pub fn labels(&self) -> impl Iterator<Item = (&str, &str)> {
        strings(self.value["metadata"]["labels"].as_object())
    }

    /// One label.
    pub fn label(&self, key: &str) -> Option<&str> {
        string(self.value["metadata"]["labels"].get(key)?)
    }

    /// `metadata.annotations`.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, &str)> {
        strings(self.value["metadata"]["annotations"].as_object())
    }

    /// One annotation.
    pub fn annotation(&self, key: &str) -> Option<&str> {
        string(self.value["metadata"]["annotations"].get(key)?)
    }

    /// UIDs of `metadata.ownerReferences`.
    pub fn owners(&self) -> impl Iterator<Item = &str> {
        let references = self.value["metadata"]["ownerReferences"].as_array();
        references
            .into_iter()
            .flatten()
            .filter_map(|reference| reference["uid"].as_str())
    }

    /// The object as a Kubernetes type of its kind (`Deployment` for a Deployment); `None` if it
    /// is of another kind.
    pub fn typed<T: k8s_openapi::Resource + DeserializeOwned>(&self) -> Option<T> {
        if (T::API_VERSION, T::KIND) != (self.kind().api_version, self.kind().kind) {
            return None;
        }
        go_json::decode(&self.value).ok().map(|(typed, _)| typed)
    }

    /// `metadata`, typed, read as Go reads it.
    pub fn metadata(&self) -> ObjectMeta {
        go_json::decode(&self.value["metadata"])
            .map(|(meta, _)| meta)
            .unwrap_or_default()
    }
}

/// A map's entries that are text; null is the empty string, as in Go.
fn strings(map: Option<&Map<String, Value>>) -> impl Iterator<Item = (&str, &str)> {
    map.into_iter()
        .flatten()
        .filter_map(|(key, value)| Some((key.as_str(), string(value)?)))
}

fn string(value: &Value) -> Option<&str> {
    match value {
        Value::Null => Some(""),
        other => other.as_str(),
    }
}
