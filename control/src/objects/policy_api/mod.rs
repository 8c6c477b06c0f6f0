//! Typed policies beyond `networking.k8s.io`: [`cluster`] (ClusterNetworkPolicy), [`admin`] (its
//! predecessors), [`groups`] (security groups for pods).
//!
//! # What cannot be read
//!
//! A newer API may bring members that this code has never heard of. Strict decoding refuses them
//! (`unknown field`); but they arrive by `--validate=warn|ignore`, by files read offline, and from
//! a journal that a newer Weir wrote. The types of which a rule is made keep the names of such
//! members in `unknown`, so that whoever decides can see that a part of the rule is missing, and
//! fail closed. This is the reading of those who decide (and the specification's, which reads it
//! once more by itself):
//!
//! **ClusterNetworkPolicy, AdminNetworkPolicy, BaselineAdminNetworkPolicy.** A rule that cannot be
//! read *as a whole* fails closed, in its place in the order: Accept (Allow) matches no traffic;
//! Deny, Pass and an action that the kind does not have deny all traffic of the subject in that
//! direction.
//! It cannot be read if
//!
//! * the rule, a peer, a protocol or anything below them has an unknown member;
//! * a peer or a protocol does not have exactly one member; a list of peers is absent or empty; a
//!   list of protocols (or ports) is there and empty;
//! * a peer is of `domainNames`, which are not supported;
//! * a selector has an operator that nobody knows, `In` or `NotIn` without values, `Exists` or
//!   `DoesNotExist` with some; `networks` is empty or one of its CIDRs cannot be read;
//! * `tcp`, `udp` or `sctp` is empty, a port's number or range is out of bounds (1 to 65535, start
//!   below end) or not exactly one of the two, a protocol's name is none of TCP, UDP, SCTP, a
//!   named port is the empty text, or named ports stand beside peers of `networks` or `nodes`;
//! * the policy itself cannot be read: its spec has an unknown member, its tier is unknown (it is
//!   then of the Admin tier), or its subject has unknown members, a selector that cannot be read,
//!   or not exactly one member. The subject is then every pod that what can be read of it selects:
//!   with two members the pods that both select, with none all pods.
//!
//! A rule that can be read but for its action denies what it matches.
//!
//! What validation refuses for its size alone (too many rules, long names) is read.
//!
//! **SecurityGroup.** A rule of which any part cannot be read, an unknown member included, matches
//! nothing, and so does every rule of a group whose spec has an unknown member: security groups
//! only allow.
//!
//! **SecurityGroupPolicy.** One of which any part cannot be read binds every pod that its readable
//! part selects, to no group: such a pod may do nothing. A ServiceAccount that is not in the
//! cluster has no labels that anybody could read (but for `default`, which every namespace has,
//! without labels): a `serviceAccountSelector` with requirements cannot be read for its pods, and
//! holds them.

//! # Modes
//!
//! Any policy may be annotated [`MODE`]`: audit`. It is then not enforced: what it would decide is
//! watched beside what the others do. Of a SecurityGroupPolicy that means that it binds nobody, of
//! a SecurityGroup that its rules allow nothing.

pub mod admin;
pub mod cluster;
pub mod groups;
mod selection;

pub use admin::{AdminNetworkPolicy, BaselineAdminNetworkPolicy};
pub use cluster::ClusterNetworkPolicy;
pub use groups::{SecurityGroup, SecurityGroupPolicy};
pub use selection::Selection;

/// The annotation that says whether a policy is enforced: `audit`, or `enforce` as without it.
pub const MODE: &str = "weir.dev/mode";

/// A struct of the API that keeps the names of the members it does not know: its fields, their
/// names in JSON, and `unknown`. What is absent, or null, is its type's default.
macro_rules! api_struct {
    (
        $(#[$meta:meta])*
        $visible:vis struct $name:ident {
            $($(#[$field_meta:meta])* $field_visible:vis $field:ident: $type:ty = $json:literal,)*
        }
    ) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug, Default)]
        $visible struct $name {
            $($(#[$field_meta])* $field_visible $field: $type,)*
            /// Names of members that this version of the API does not have, in the order in which
            /// they stand.
            pub unknown: Vec<String>,
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Fields;

                impl<'de> serde::de::Visitor<'de> for Fields {
                    type Value = $name;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(stringify!($name))
                    }

                    fn visit_map<A: serde::de::MapAccess<'de>>(
                        self,
                        mut map: A,
                    ) -> Result<$name, A::Error> {
                        let mut read = $name::default();
                        while let Some(key) = map.next_key::<String>()? {
                            match key.as_str() {
                                $($json => read.$field = map.next_value()?,)*
                                _ => {
                                    map.next_value::<serde::de::IgnoredAny>()?;
                                    read.unknown.push(key);
                                }
                            }
                        }
                        Ok(read)
                    }
                }

                deserializer.deserialize_struct(stringify!($name), &[$($json),*], Fields)
            }
        }
    };
}
pub(crate) use api_struct;

/// An object of the API: a spec below `metadata`.
macro_rules! api_object {
    (
        $(#[$meta:meta])*
        pub struct $name:ident($spec:ty) in $group:literal $version:literal $plural:literal
            $scope:ident
    ) => {
        $(#[$meta])*
        #[derive(Clone, PartialEq, Debug, Default, serde::Deserialize)]
        #[serde(rename_all = "camelCase", default)]
        pub struct $name {
            /// `GROUP/VERSION`.
            pub api_version: String,
            /// The kind's name.
            pub kind: String,
            /// The object's metadata.
            pub metadata: k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
            /// What is wanted.
            pub spec: $spec,
            /// What implementations report; nothing here depends on it.
            pub status: crate::objects::policy_api::Status,
        }

        impl k8s_openapi::Resource for $name {
            const API_VERSION: &'static str = concat!($group, "/", $version);
            const GROUP: &'static str = $group;
            const KIND: &'static str = stringify!($name);
            const VERSION: &'static str = $version;
            const URL_PATH_SEGMENT: &'static str = $plural;
            type Scope = k8s_openapi::$scope;
        }
    };
}
pub(crate) use api_object;

/// Status of these kinds.
#[derive(Clone, PartialEq, Debug, Default, serde::Deserialize)]
#[serde(default)]
pub struct Status {
    /// As implementations report them.
    pub conditions: Vec<k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition>,
}

api_struct! {
    /// Whom a policy of the whole cluster is about: exactly one member.
    pub struct Subject {
        /// Every pod in these namespaces.
        pub namespaces: Option<Selection> = "namespaces",
        /// Some pods in some namespaces.
        pub pods: Option<NamespacedPod> = "pods",
    }
}

api_struct! {
    /// Pods by their namespaces' labels and their own. An absent namespace selector is all
    /// namespaces, unlike in NetworkPolicy.
    pub struct NamespacedPod {
        /// Absent or empty: all namespaces.
        pub namespace_selector: Selection = "namespaceSelector",
        /// Empty: all pods. Required; absent it is empty.
        pub pod_selector: Selection = "podSelector",
    }
}

api_struct! {
    /// Who sends: exactly one member.
    pub struct IngressPeer {
        /// Every pod in these namespaces.
        pub namespaces: Option<Selection> = "namespaces",
        /// Some pods in some namespaces.
        pub pods: Option<NamespacedPod> = "pods",
    }
}

api_struct! {
    /// Who receives: exactly one member.
    pub struct EgressPeer {
        /// Every pod in these namespaces.
        pub namespaces: Option<Selection> = "namespaces",
        /// Some pods in some namespaces.
        pub pods: Option<NamespacedPod> = "pods",
        /// Nodes by their labels, at the addresses of their status.
        pub nodes: Option<Selection> = "nodes",
        /// Addresses, pods' too.
        pub networks: Option<Vec<String>> = "networks",
        /// Not supported: a rule with it fails closed.
        pub domain_names: Option<Vec<String>> = "domainNames",
    }
}

#[cfg(test)]
mod tests;
