//! Objects: `apply`, `create`, `replace`, `patch`, `delete`, `updateStatus`, `get` and `resources`.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Preview;

/// What to do with fields that a kind does not have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum FieldValidation {
    /// Refuse.
    #[default]
    Strict,
    /// Warn.
    Warn,
    /// Take no notice.
    Ignore,
}

/// `apply`, `create`, `replace`: one transaction over all objects.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplyParams {
    /// Whole objects, `List`s among them.
    pub objects: Vec<Value>,
    /// Namespace of objects that name none; by default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Refuse with `Conflict` unless this is the live generation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_generation: Option<u64>,
    /// Do everything but the change.
    #[serde(default)]
    pub dry_run: bool,
    /// Unknown fields.
    #[serde(default)]
    pub field_validation: FieldValidation,
    /// Of `apply`: an object that is too large for an annotation to hold what was applied is taken
    /// nonetheless, and takes the place of all that is there.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub server_side: bool,
}

/// How a patch is merged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PatchType {
    /// RFC 7396.
    Merge,
    /// Kubernetes' strategic merge.
    #[default]
    Strategic,
    /// RFC 6902.
    Json,
}

/// Names one object, or all of a kind.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Plural, singular, short name or kind, a group behind a dot if need be: `po`, `netpol`,
    /// `networkpolicies.networking.k8s.io`.
    pub resource: String,
    /// Namespace; by default `default`. Without effect on cluster-scoped kinds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
}

/// `patch`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PatchParams {
    /// Which object.
    pub target: Target,
    /// How.
    #[serde(rename = "type", default)]
    pub patch_type: PatchType,
    /// With what.
    pub patch: Value,
    /// Do everything but the change.
    #[serde(default)]
    pub dry_run: bool,
    /// Unknown fields.
    #[serde(default)]
    pub field_validation: FieldValidation,
}

/// `delete`: one transaction over all targets.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeleteParams {
    /// Which objects.
    pub targets: Vec<Target>,
    /// Targets that do not exist are no error.
    #[serde(default)]
    pub ignore_not_found: bool,
    /// Seconds that a pod gets to end; a pod with a runner is removed by its runner.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub grace_period: Option<u32>,
    /// Do everything but the change.
    #[serde(default)]
    pub dry_run: bool,
    /// What only they own stays, without an owner.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub orphan: bool,
}

/// `updateStatus`: replaces the object's `status`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UpdateStatusParams {
    /// Which object.
    pub target: Target,
    /// Refuse with `Conflict` unless the object has this UID.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Its new status.
    pub status: Value,
}

/// Names an object in replies.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectRef {
    /// `networking.k8s.io/v1`.
    pub api_version: String,
    /// `NetworkPolicy`.
    pub kind: String,
    /// As kubectl prints it before the slash: `networkpolicy.networking.k8s.io`, `pod`.
    pub resource: String,
    /// Namespace of a namespaced kind.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
}

/// What became of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OperationKind {
    /// Was not there before.
    Created,
    /// Changed by `apply`.
    Configured,
    /// As it was.
    Unchanged,
    /// Changed by `replace`.
    Replaced,
    /// Changed by `patch` or `updateStatus`.
    Patched,
    /// Gone.
    Deleted,
    /// Marked as going (`metadata.deletionTimestamp`); its runner removes it.
    Terminating,
}

/// What became of one object.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Operation {
    /// Which.
    #[serde(flatten)]
    pub reference: ObjectRef,
    /// What.
    pub operation: OperationKind,
    /// The object as it is now, or as it was if it is gone.
    pub object: Value,
}

/// How many workers adopted a generation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Workers {
    /// Acknowledged.
    pub live: u32,
    /// Configured.
    pub total: u32,
}

/// Reply of every call that changes something, sent after every worker has adopted the change.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Mutation {
    /// By object, in the order they were sent.
    pub results: Vec<Operation>,
    /// For a person, on stderr behind `Warning: `.
    pub warnings: Vec<String>,
    /// The live generation.
    pub generation: u64,
    /// Who adopted it.
    pub workers: Workers,
    /// From publication to the last acknowledgement, µs.
    pub elapsed_micros: u64,
    /// From the arrival of the request's last byte to the last acknowledgement, µs; 0 if nothing had
    /// to be published.
    #[serde(default)]
    pub request_micros: u64,
    /// Of a change that was asked for and not made (`dryRun`): what it would do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub preview: Option<Preview>,
}

impl Mutation {
    /// `generation 42 live on 2/2 workers in 83 µs`.
    pub fn summary(&self) -> String {
        format!(
            "generation {} live on {}/{} workers in {} µs",
            self.generation, self.workers.live, self.workers.total, self.elapsed_micros
        )
    }
}

/// `get`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GetParams {
    /// As [`Target::resource`].
    pub resource: String,
    /// Namespace; by default `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// All of them.
    #[serde(default)]
    pub all_namespaces: bool,
    /// One object: its absence is `NotFound`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// As kubectl's `-l`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub label_selector: Option<String>,
    /// `metadata.name`, `metadata.namespace`, `status.phase`, … with `=`, `==`, `!=`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub field_selector: Option<String>,
}

/// Reply of `get`.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetReply {
    /// `v1`.
    pub api_version: String,
    /// `Pod`.
    pub kind: String,
    /// `pods`, with the group behind a dot if it has one.
    pub resource: String,
    /// Whether the kind has namespaces.
    pub namespaced: bool,
    /// The objects, by namespace and name.
    pub items: Vec<Value>,
    /// What a table shows of them beside their names; of kinds that a CustomResourceDefinition defines
    /// only, and never empty there.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub columns: Vec<PrinterColumn>,
    /// The store's version.
    pub resource_version: String,
}

/// A column of a table of custom resources (CustomResourceColumnDefinition).
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PrinterColumn {
    /// `Replicas`.
    pub name: String,
    /// `integer`, `number`, `string`, `boolean` or `date`.
    #[serde(rename = "type")]
    pub value_type: String,
    /// `.spec.replicas`.
    pub json_path: String,
    /// Only `-o wide` shows a column that has more than 0.
    #[serde(default)]
    pub priority: i32,
}

impl PrinterColumn {
    /// What stands where nothing is defined.
    pub fn age() -> PrinterColumn {
        PrinterColumn {
            name: "Age".to_owned(),
            value_type: "date".to_owned(),
            json_path: ".metadata.creationTimestamp".to_owned(),
            priority: 0,
        }
    }
}

/// Reply of `resources`: the kinds that CustomResourceDefinitions define. Those that every daemon knows
/// are not among them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResourcesReply {
    /// By group and kind.
    pub resources: Vec<ApiResource>,
}

/// A kind that a CustomResourceDefinition defines.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ApiResource {
    /// `stable.example.com`.
    pub group: String,
    /// Versions that objects may be written in; they are shown in the first.
    pub versions: Vec<String>,
    /// `CronTab`.
    pub kind: String,
    /// `crontabs`.
    pub plural: String,
    /// `crontab`.
    pub singular: String,
    /// `ct`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub short_names: Vec<String>,
    /// Words that stand for several kinds: `all`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub categories: Vec<String>,
    /// Whether its objects live in namespaces.
    pub namespaced: bool,
}
