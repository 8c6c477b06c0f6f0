//! Fields that a schema does not know, taken out (apiextensions-apiserver
//! `pkg/apiserver/schema/pruning`).

use serde_json::{Map, Value};

use super::{Additional, Schema};

/// Members of every object that is a resource.
const OF_RESOURCES: [&str; 3] = ["apiVersion", "kind", "metadata"];
/// Paths of unknown fields that are told.
const TOLD: usize = 100;

impl Schema {
    /// Takes out of a resource what the schema does not know; the paths of what went (`spec.x`), at
    /// most 100.
    pub fn prune(&self, resource: &mut Value) -> Vec<String> {
        let mut pruning = Pruning::default();
        pruning.walk(self, resource, true);
        pruning.gone
    }
}

#[derive(Default)]
struct Pruning {
    path: String,
    gone: Vec<String>,
}

impl Pruning {
    fn walk(&mut self, schema: &Schema, value: &mut Value, is_resource: bool) {
        match value {
            Value::Object(members) => self.object(schema, members, is_resource),
            Value::Array(items) => {
                let Some(schema) = schema.items.as_deref() else {
                    return;
                };
                for (index, item) in items.iter_mut().enumerate() {
                    let length = self.path.len();
                    self.path.push_str(&format!("[{index}]"));
                    self.walk(schema, item, schema.is_embedded);
                    self.path.truncate(length);
                }
            }
            _ => {}
        }
    }

    fn object(&mut self, schema: &Schema, members: &mut Map<String, Value>, is_resource: bool) {
        members.retain(|name, member| {
            if is_resource && OF_RESOURCES.contains(&name.as_str()) {
                return true;
            }
            let length = self.path.len();
            if length > 0 {
                self.path.push('.');
            }
            self.path.push_str(name);
            let known = match (schema.properties.get(name), &schema.additional) {
                (Some(property), _) => {
                    self.walk(property, member, property.is_embedded);
                    true
                }
                (None, Additional::Each(each)) => {
                    self.walk(each, member, each.is_embedded);
                    true
                }
                (None, Additional::Any) => true,
                (None, Additional::Unknown) => schema.keeps_unknown,
            };
            if !known && self.gone.len() < TOLD {
                self.gone.push(self.path.clone());
            }
            self.path.truncate(length);
            known
        });
    }
}
