//! Small readings of objects, and the calls that write them.

use control::client::ClientError;
use control::protocol::{
    ApplyParams, DeleteParams, Mutation, PatchParams, PatchType, Reason, Target, UpdateStatusParams,
};
use serde_json::{Value, json};

use super::Agent;

/// A text within an object, empty where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object
        .pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// A number within an object.
pub fn number(object: &Value, pointer: &str) -> Option<i64> {
    object.pointer(pointer).and_then(Value::as_i64)
}

/// The object's UID.
pub fn uid(object: &Value) -> &str {
    text(object, "/metadata/uid")
}

/// Whether it is on its way out.
pub fn is_terminating(object: &Value) -> bool {
    object
        .pointer("/metadata/deletionTimestamp")
        .is_some_and(Value::is_string)
}

/// UID of the controller that made it.
pub fn owner_uid(object: &Value) -> &str {
    let owners = object
        .pointer("/metadata/ownerReferences")
        .and_then(Value::as_array);
    let controller = owners.and_then(|owners| owners.iter().find(|o| o["controller"] == true));
    controller.map_or("", |owner| text(owner, "/uid"))
}

/// The reference that makes `owner` the controller of what it makes.
pub fn owner_reference(owner: &Value) -> Value {
    json!([{
        "apiVersion": owner["apiVersion"], "kind": owner["kind"],
        "name": owner["metadata"]["name"], "uid": owner["metadata"]["uid"],
        "controller": true, "blockOwnerDeletion": true,
    }])
}

/// The target of a call.
pub fn target(resource: &str, object: &Value) -> Target {
    Target {
        resource: resource.to_owned(),
        namespace: Some(text(object, "/metadata/namespace").to_owned()),
        name: text(object, "/metadata/name").to_owned(),
    }
}

/// Whether an error only says that the object is no longer there, or is another one already.
fn is_stale(error: &ClientError) -> bool {
    matches!(error.reason(), Some(Reason::NotFound | Reason::Conflict))
}

impl Agent {
    /// Creates or updates an object as `kubectl apply` would.
    pub fn apply(&self, object: Value) -> Result<Mutation, ClientError> {
        let objects = vec![object];
        self.call(
            "apply",
            ApplyParams {
                objects,
                ..ApplyParams::default()
            },
        )
    }

    /// Creates an object. One that exists is left as it is.
    pub fn create(&self, object: Value) -> Result<(), ClientError> {
        let objects = vec![object];
        let params = ApplyParams {
            objects,
            ..ApplyParams::default()
        };
        match self.call::<Mutation>("create", params) {
            Err(error) if error.reason() == Some(Reason::AlreadyExists) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Removes an object now. One that is gone is no error.
    pub fn remove(&self, resource: &str, object: &Value) -> Result<(), ClientError> {
        let params = DeleteParams {
            targets: vec![target(resource, object)],
            ignore_not_found: true,
            grace_period: Some(0),
            ..DeleteParams::default()
        };
        self.call::<Mutation>("delete", params).map(|_| ())
    }

    /// Writes an object's status. An object that went meanwhile is no error.
    pub fn write_status(
        &self,
        resource: &str,
        object: &Value,
        status: Value,
    ) -> Result<(), ClientError> {
        let params = UpdateStatusParams {
            target: target(resource, object),
            uid: Some(uid(object).to_owned()),
            status,
        };
        match self.call::<Mutation>("updateStatus", params) {
            Err(error) if is_stale(&error) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Merges into an object (RFC 7396). An object that went meanwhile is no error.
    pub fn merge(&self, resource: &str, object: &Value, patch: Value) -> Result<(), ClientError> {
        let params = PatchParams {
            target: target(resource, object),
            patch_type: PatchType::Merge,
            patch,
            dry_run: false,
            field_validation: Default::default(),
        };
        match self.call::<Mutation>("patch", params) {
            Err(error) if is_stale(&error) => Ok(()),
            other => other.map(|_| ()),
        }
    }
}
