//! Contexts: what kubectl keeps in its configuration file. Here one is a lab that runs, or the daemon
//! of the machine; a user's file says which one is meant where several are, and which namespace in each
//! of them. No file: nothing is chosen.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::session::{SOCKET, VerbError};
use crate::lab_protocol::LABS_DIR;

/// Takes the file's place.
pub const VARIABLE: &str = "WEIR_CONFIG";
/// The context of the machine's daemon.
pub const MACHINE: &str = "weir";
/// Bytes of the file at most.
const FILE_BYTES: u64 = 256 << 10;
/// Namespaces that are remembered at most; the labs that are gone make room.
const NAMESPACES: usize = 256;

/// What a user has chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Choices {
    /// The context that is meant where several are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub current_context: Option<String>,
    /// By context.
    pub namespaces: BTreeMap<String, String>,
}

impl Choices {
    /// Those of the user; none if there is no file, or if it cannot be read.
    pub fn load() -> Choices {
        let Some(path) = file() else {
            return Choices::default();
        };
        let small = std::fs::metadata(&path).is_ok_and(|about| about.len() <= FILE_BYTES);
        let text = small.then(|| std::fs::read(&path).ok()).flatten();
        text.and_then(|text| serde_json::from_slice(&text).ok())
            .unwrap_or_default()
    }

    /// Keeps them; `exists` says which contexts there are.
    pub fn store(&mut self, exists: &dyn Fn(&str) -> bool) -> Result<(), VerbError> {
        if self.namespaces.len() > NAMESPACES {
            self.namespaces.retain(|context, _| exists(context));
        }
        let Some(path) = file() else {
            return Err(VerbError::Local(format!(
                "neither HOME nor {VARIABLE} is set: there is no place to keep a context in"
            )));
        };
        let at = |error: std::io::Error| VerbError::Local(format!("{}: {error}", path.display()));
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(at)?;
        }
        let text = serde_json::to_vec_pretty(self).map_err(std::io::Error::from);
        let new = path.with_extension("new");
        text.and_then(|text| std::fs::write(&new, text))
            .and_then(|()| std::fs::rename(&new, &path))
            .map_err(at)
    }
}

/// The user's file.
fn file() -> Option<PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty());
    if let Some(path) = set(VARIABLE) {
        return Some(PathBuf::from(path));
    }
    let folder = match set("XDG_CONFIG_HOME") {
        Some(folder) => PathBuf::from(folder),
        None => PathBuf::from(set("HOME")?).join(".config"),
    };
    Some(folder.join("weir").join("contexts.json"))
}

/// What the context of the daemon at `socket` is called: the lab's name, or the path of a socket that
/// is nobody's.
pub fn name_of(socket: &Path) -> String {
    if socket == Path::new(SOCKET) {
        return MACHINE.to_owned();
    }
    let folder = socket.parent();
    let is_lab = folder.and_then(Path::parent) == Some(Path::new(LABS_DIR));
    let name = folder.filter(|_| is_lab).and_then(Path::file_name);
    match name.and_then(|name| name.to_str()) {
        Some(lab) => lab.to_owned(),
        None => socket.display().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_are_called_by_their_labs() {
        assert_eq!(name_of(Path::new("/run/weir/weir.sock")), "weir");
        assert_eq!(
            name_of(Path::new("/run/weir/labs/stars/weir.sock")),
            "stars"
        );
        assert_eq!(name_of(Path::new("/tmp/x.sock")), "/tmp/x.sock");
    }
}
