//! Defaults (apiextensions-apiserver `pkg/apiserver/schema/defaulting`).

use serde_json::Value;

use super::{Additional, Schema};

/// What defaults would make of an object is larger than an object may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLarge;

impl Schema {
    /// Puts defaults where nothing is, and where null stands that may not stand there; refuses to add
    /// more than `room` bytes.
    pub fn fill(&self, value: &mut Value, room: usize) -> Result<(), TooLarge> {
        let mut room = room;
        self.fill_within(value, &mut room)
    }

    fn fill_within(&self, value: &mut Value, room: &mut usize) -> Result<(), TooLarge> {
        match value {
            Value::Object(members) => {
                for (name, property) in &self.properties {
                    let Some(default) = &property.default else {
                        continue;
                    };
                    let present = members.get(name);
                    if present.is_none_or(|there| there.is_null() && !property.nullable) {
                        let more = name.len() + weight(default);
                        *room = room.checked_sub(more).ok_or(TooLarge)?;
                        members.insert(name.clone(), default.clone());
                    }
                }
                for (name, member) in members.iter_mut() {
                    match (self.properties.get(name), &self.additional) {
                        (Some(property), _) => property.fill_within(member, room)?,
                        (None, Additional::Each(each)) => each.fill_within(member, room)?,
                        (None, Additional::Any | Additional::Unknown) => {}
                    }
                }
            }
            Value::Array(items) => {
                if let Some(schema) = &self.items {
                    for item in items {
                        schema.fill_within(item, room)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }
}

/// About as many bytes as it is written with.
fn weight(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => 8,
        Value::String(text) => text.len() + 2,
        Value::Array(items) => 2 + items.iter().map(weight).sum::<usize>(),
        Value::Object(members) => {
            let each = members
                .iter()
                .map(|(name, member)| name.len() + 4 + weight(member));
            2 + each.sum::<usize>()
        }
    }
}
