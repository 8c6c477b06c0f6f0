//! What the daemon that is meant knows: its objects' names, to complete them.

use super::{Objects, PATIENCE};
use crate::cli::flags::parse;
use crate::cli::session::{Session, VerbError};
use crate::lab_protocol::running_labs;
use crate::objects::Definitions;
use crate::protocol::{GetParams, GetReply, ResourcesReply};

/// The daemon that the flags on the line mean.
pub struct Daemon {
    session: Session,
}

impl Daemon {
    /// Of a line that may be wrong in its other parts.
    pub fn from(words: &[String]) -> Daemon {
        let mut meant = Vec::new();
        for (at, word) in words.iter().enumerate() {
            let wants_next = word == "--lab" || word == "--socket";
            if wants_next && at + 2 < words.len() {
                meant.extend_from_slice(&words[at..at + 2]);
            } else if word.starts_with("--lab=") || word.starts_with("--socket=") {
                meant.push(word.clone());
            }
        }
        Daemon {
            session: Session::new(parse(&[], &meant).unwrap_or_default()),
        }
    }

    fn get(&mut self, params: &GetParams) -> Result<GetReply, VerbError> {
        let mut client = self.session.connect()?;
        client.set_timeout(Some(PATIENCE))?;
        Ok(client.call("get", params)?)
    }
}

impl Objects for Daemon {
    fn definitions(&mut self) -> Definitions {
        let mut told = || -> Result<ResourcesReply, VerbError> {
            let mut client = self.session.connect()?;
            client.set_timeout(Some(PATIENCE))?;
            Ok(client.call("resources", serde_json::json!({}))?)
        };
        told().map_or_else(
            |_| Definitions::default(),
            |reply| Definitions::told(&reply.resources),
        )
    }

    fn names(&mut self, resource: &str, namespace: Option<&str>) -> Vec<String> {
        let all = namespace == Some("*");
        let meant = || self.session.namespace();
        let params = GetParams {
            resource: resource.to_owned(),
            namespace: namespace.filter(|_| !all).map(str::to_owned).or_else(meant),
            all_namespaces: all,
            ..GetParams::default()
        };
        // Whoever asks at a keyboard wants no error there.
        let Ok(reply) = self.get(&params) else {
            return Vec::new();
        };
        let named = reply.items.iter().filter_map(|object| {
            let text = |pointer| object.pointer(pointer).and_then(serde_json::Value::as_str);
            let name = text("/metadata/name")?;
            Some(match text("/metadata/namespace") {
                Some(namespace) if all => format!("{namespace}/{name}"),
                _ => name.to_owned(),
            })
        });
        named.collect()
    }

    fn labs(&mut self) -> Vec<String> {
        running_labs()
    }
}
