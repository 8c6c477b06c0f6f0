//! The kinds that Weir knows, and what each means here.

use std::fmt;
use std::hash::{Hash, Hasher};

use k8s_openapi::api::{
    admissionregistration::v1 as admission, apps::v1 as apps, autoscaling::v2 as autoscaling,
    batch::v1 as batch, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, networking::v1 as networking, policy::v1 as policy,
    rbac::v1 as rbac, scheduling::v1 as scheduling, storage::v1 as storage,
};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1 as apiextensions;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde_json::Value;

use super::go_json::{self, Structure, TypeError, VersionOf};
use super::policy_api::{admin, cluster, groups};

/// What an object of a kind does here.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Category {
    /// Decides, or says where, packets go.
    Enforced,
    /// A lab runs it, or reads it for what it runs.
    Workload,
    /// Stored, listed, deleted, without effect: applying it warns.
    Stored,
}

/// A kind of object.
pub struct Kind {
    /// `networking.k8s.io/v1`, `v1`.
    pub api_version: &'static str,
    /// `NetworkPolicy`.
    pub kind: &'static str,
    /// `networkpolicies`.
    pub plural: &'static str,
    /// `netpol`.
    pub short_names: &'static [&'static str],
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
    /// What its objects do here.
    pub category: Category,
    /// Whether the API server counts `metadata.generation` for it.
    pub counts_generation: bool,
    /// Whether a CustomResourceDefinition defines it ([`definitions`](super::definitions)), whose
    /// other names are told there.
    pub is_custom: bool,
    /// Reads a value as this kind's Go type would be read; gives the unknown fields' paths.
    pub check: fn(&Value) -> Result<Vec<String>, TypeError>,
    /// See [`Kind::structure`].
    fields: fn(VersionOf) -> Result<Structure, TypeError>,
}

impl Kind {
    /// A kind that a CustomResourceDefinition defines. What its objects hold beside `metadata` is for
    /// the definition's schema to say.
    pub(super) const fn custom(
        api_version: &'static str,
        kind: &'static str,
        plural: &'static str,
        namespaced: bool,
        category: Category,
    ) -> Kind {
        Kind {
            api_version,
            kind,
            plural,
            short_names: &[],
            namespaced,
            category,
            counts_generation: true,
            is_custom: true,
            check: check_metadata,
            fields: go_json::structure::<Value>,
        }
    }

    /// `networking.k8s.io`; empty for the core group.
    pub fn group(&self) -> &'static str {
        self.api_version
            .split_once('/')
            .map_or("", |(group, _)| group)
    }

    /// `v1`.
    pub fn version(&self) -> &'static str {
        self.api_version
            .split_once('/')
            .map_or(self.api_version, |(_, version)| version)
    }

    /// `networkpolicy`.
    pub fn singular(&self) -> String {
        self.kind.to_ascii_lowercase()
    }

    /// As kubectl prints it before a name: `networkpolicy.networking.k8s.io`, `pod`.
    pub fn qualified_singular(&self) -> String {
        self.qualify(&self.singular())
    }

    /// As the API server names the resource: `networkpolicies.networking.k8s.io`, `pods`.
    pub fn qualified_plural(&self) -> String {
        self.qualify(self.plural)
    }

    /// Its fields, and those of what they hold: exactly what is read of an object.
    pub fn structure(&self) -> Result<Structure, TypeError> {
        (self.fields)(|name| {
            let kind = KINDS.iter().find(|kind| kind.kind == name);
            kind.map(|kind| kind.api_version)
        })
    }

    fn qualify(&self, word: &str) -> String {
        match self.group() {
            "" => word.to_owned(),
            group => format!("{word}.{group}"),
        }
    }
}

impl PartialEq for Kind {
    fn eq(&self, other: &Kind) -> bool {
        std::ptr::eq(self, other) || self.identity() == other.identity()
    }
}

impl Eq for Kind {}

impl PartialOrd for Kind {
    fn partial_cmp(&self, other: &Kind) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Kind {
    fn cmp(&self, other: &Kind) -> std::cmp::Ordering {
        self.identity().cmp(&other.identity())
    }
}

impl Hash for Kind {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.identity().hash(state);
    }
}

impl Kind {
    fn identity(&self) -> (&'static str, &'static str) {
        (self.api_version, self.kind)
    }
}

impl fmt::Debug for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.api_version, self.kind)
    }
}

/// `metadata` as Go reads it; what else there is is left alone.
fn check_metadata(value: &Value) -> Result<Vec<String>, TypeError> {
    let unknown = go_json::check::<ObjectMeta>(&value["metadata"])?;
    let paths = unknown.into_iter().map(|path| format!("metadata.{path}"));
    Ok(paths.collect())
}

/// A row of [`KINDS`].
macro_rules! kind {
    ($api:literal $kind:literal $plural:literal $short:tt $scope:ident $category:ident
     $generation:ident $type:ty) => {
        Kind {
            api_version: $api,
            kind: $kind,
            plural: $plural,
            short_names: &$short,
            namespaced: kind!(@scope $scope),
            category: Category::$category,
            counts_generation: kind!(@generation $generation),
            is_custom: false,
            check: go_json::check::<$type>,
            fields: go_json::structure::<$type>,
        }
    };
    (@scope namespaced) => { true };
    (@scope cluster) => { false };
    (@generation counted) => { true };
    (@generation plain) => { false };
}

/// Every kind that can be stored, in `kubectl api-resources`' order. The names, short names and
/// scopes are the API server's (Kubernetes 1.34).
pub static KINDS: &[Kind] = &[
    kind!("v1" "ConfigMap" "configmaps" ["cm"] namespaced Workload plain core::ConfigMap),
    kind!("v1" "Endpoints" "endpoints" ["ep"] namespaced Stored plain core::Endpoints),
    kind!("v1" "Event" "events" ["ev"] namespaced Workload plain core::Event),
    kind!("v1" "LimitRange" "limitranges" ["limits"] namespaced Stored plain core::LimitRange),
    kind!("v1" "Namespace" "namespaces" ["ns"] cluster Enforced plain core::Namespace),
    kind!("v1" "Node" "nodes" ["no"] cluster Enforced plain core::Node),
    kind!("v1" "PersistentVolumeClaim" "persistentvolumeclaims" ["pvc"] namespaced Stored plain
        core::PersistentVolumeClaim),
    kind!("v1" "PersistentVolume" "persistentvolumes" ["pv"] cluster Stored plain
        core::PersistentVolume),
    kind!("v1" "Pod" "pods" ["po"] namespaced Enforced counted core::Pod),
    kind!("v1" "PodTemplate" "podtemplates" [] namespaced Stored counted core::PodTemplate),
    kind!("v1" "ReplicationController" "replicationcontrollers" ["rc"] namespaced Workload counted
        core::ReplicationController),
    kind!("v1" "ResourceQuota" "resourcequotas" ["quota"] namespaced Stored plain
        core::ResourceQuota),
    kind!("v1" "Secret" "secrets" [] namespaced Workload plain core::Secret),
    kind!("v1" "ServiceAccount" "serviceaccounts" ["sa"] namespaced Enforced plain
        core::ServiceAccount),
    kind!("v1" "Service" "services" ["svc"] namespaced Enforced plain core::Service),
    kind!("admissionregistration.k8s.io/v1" "MutatingWebhookConfiguration"
        "mutatingwebhookconfigurations" [] cluster Stored counted
        admission::MutatingWebhookConfiguration),
    kind!("admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicy"
        "validatingadmissionpolicies" [] cluster Stored counted
        admission::ValidatingAdmissionPolicy),
    kind!("admissionregistration.k8s.io/v1" "ValidatingAdmissionPolicyBinding"
        "validatingadmissionpolicybindings" [] cluster Stored counted
        admission::ValidatingAdmissionPolicyBinding),
    kind!("admissionregistration.k8s.io/v1" "ValidatingWebhookConfiguration"
        "validatingwebhookconfigurations" [] cluster Stored counted
        admission::ValidatingWebhookConfiguration),
    kind!("apiextensions.k8s.io/v1" "CustomResourceDefinition" "customresourcedefinitions"
        ["crd", "crds"] cluster Stored counted apiextensions::CustomResourceDefinition),
    kind!("apps/v1" "DaemonSet" "daemonsets" ["ds"] namespaced Workload counted apps::DaemonSet),
    kind!("apps/v1" "Deployment" "deployments" ["deploy"] namespaced Workload counted
        apps::Deployment),
    kind!("apps/v1" "ReplicaSet" "replicasets" ["rs"] namespaced Workload counted apps::ReplicaSet),
    kind!("apps/v1" "StatefulSet" "statefulsets" ["sts"] namespaced Workload counted
        apps::StatefulSet),
    kind!("autoscaling/v2" "HorizontalPodAutoscaler" "horizontalpodautoscalers" ["hpa"] namespaced
        Stored plain autoscaling::HorizontalPodAutoscaler),
    kind!("batch/v1" "CronJob" "cronjobs" ["cj"] namespaced Workload counted batch::CronJob),
    kind!("batch/v1" "Job" "jobs" [] namespaced Workload counted batch::Job),
    kind!("coordination.k8s.io/v1" "Lease" "leases" [] namespaced Stored plain coordination::Lease),
    kind!("discovery.k8s.io/v1" "EndpointSlice" "endpointslices" [] namespaced Enforced counted
        discovery::EndpointSlice),
    kind!("networking.k8s.io/v1" "IngressClass" "ingressclasses" [] cluster Stored counted
        networking::IngressClass),
    kind!("networking.k8s.io/v1" "Ingress" "ingresses" ["ing"] namespaced Stored counted
        networking::Ingress),
    kind!("networking.k8s.io/v1" "NetworkPolicy" "networkpolicies" ["netpol"] namespaced Enforced
        counted networking::NetworkPolicy),
    kind!("policy/v1" "PodDisruptionBudget" "poddisruptionbudgets" ["pdb"] namespaced Stored counted
        policy::PodDisruptionBudget),
    kind!("policy.networking.k8s.io/v1alpha1" "AdminNetworkPolicy" "adminnetworkpolicies" ["anp"]
        cluster Enforced counted admin::AdminNetworkPolicy),
    kind!("policy.networking.k8s.io/v1alpha1" "BaselineAdminNetworkPolicy"
        "baselineadminnetworkpolicies" ["banp"] cluster Enforced counted
        admin::BaselineAdminNetworkPolicy),
    kind!("policy.networking.k8s.io/v1alpha2" "ClusterNetworkPolicy" "clusternetworkpolicies"
        ["cnp"] cluster Enforced counted cluster::ClusterNetworkPolicy),
    kind!("rbac.authorization.k8s.io/v1" "ClusterRoleBinding" "clusterrolebindings" [] cluster
        Stored plain rbac::ClusterRoleBinding),
    kind!("rbac.authorization.k8s.io/v1" "ClusterRole" "clusterroles" [] cluster Stored plain
        rbac::ClusterRole),
    kind!("rbac.authorization.k8s.io/v1" "RoleBinding" "rolebindings" [] namespaced Stored plain
        rbac::RoleBinding),
    kind!("rbac.authorization.k8s.io/v1" "Role" "roles" [] namespaced Stored plain rbac::Role),
    kind!("scheduling.k8s.io/v1" "PriorityClass" "priorityclasses" ["pc"] cluster Stored counted
        scheduling::PriorityClass),
    kind!("storage.k8s.io/v1" "StorageClass" "storageclasses" ["sc"] cluster Stored plain
        storage::StorageClass),
    kind!("vpcresources.k8s.aws/v1beta1" "SecurityGroupPolicy" "securitygrouppolicies" ["sgp"]
        namespaced Enforced counted groups::SecurityGroupPolicy),
    kind!("weir.dev/v1alpha1" "SecurityGroup" "securitygroups" ["sg"] cluster Enforced counted
        groups::SecurityGroup),
];

/// The kind called `kind` in `api_version`.
pub fn find(api_version: &str, kind: &str) -> Option<&'static Kind> {
    KINDS
        .iter()
        .find(|k| k.api_version == api_version && k.kind == kind)
}

/// The kind that `word` names on a command line: plural, singular, short name or kind in any
/// case, with a group (and a version before it) behind a dot if need be: `po`, `pods`, `Pod`,
/// `networkpolicies.networking.k8s.io`, `deployments.v1.apps`.
pub fn find_resource(word: &str) -> Option<&'static Kind> {
    let word = word.to_ascii_lowercase();
    let (name, group) = match word.split_once('.') {
        Some((name, group)) => (name, Some(group)),
        None => (word.as_str(), None),
    };
    KINDS.iter().find(|k| {
        let named =
            k.plural == name || k.kind.eq_ignore_ascii_case(name) || k.short_names.contains(&name);
        let grouped = group.is_none_or(|group| {
            group == k.group()
                || group
                    .strip_prefix(k.version())
                    .is_some_and(|rest| rest.strip_prefix('.').unwrap_or(rest) == k.group())
        });
        named && grouped
    })
}

/// A kind known by its type constant; `None` for types that [`KINDS`] does not list.
pub fn of<T: k8s_openapi::Resource>() -> Option<&'static Kind> {
    find(T::API_VERSION, T::KIND)
}

/// Groups whose policies other implementations enforce, and we do not; of the groups that we know,
/// other versions and kinds.
const FOREIGN_POLICY_GROUPS: &[&str] = &[
    "cilium.io",
    "crd.projectcalico.org",
    "projectcalico.org",
    "crd.antrea.io",
    "security.antrea.io",
    "security.istio.io",
    "k8s.ovn.org",
    "policy.networking.k8s.io",
    "networking.k8s.aws",
    "vpcresources.k8s.aws",
    "policy.karmada.io",
    "policy.linkerd.io",
    "kuma.io",
];

/// Whether objects of this kind are meant to restrict traffic although we would not obey them.
pub fn is_foreign_policy(api_version: &str, kind: &str) -> bool {
    let group = api_version.split_once('/').map_or("", |(group, _)| group);
    let restricts = kind.contains("Policy")
        || kind.contains("Firewall")
        || kind == "PeerAuthentication"
        || kind == "ServerAuthorization";
    let network_policy = kind.ends_with("NetworkPolicy") && find(api_version, kind).is_none();
    network_policy || (FOREIGN_POLICY_GROUPS.contains(&group) && restricts)
}
