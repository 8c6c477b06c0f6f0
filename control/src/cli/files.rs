//! `-f`: files, folders and `-`, as kubectl takes them.

use std::io::Read;
use std::path::Path;

use super::session::VerbError;

/// Bytes of one file that are read at most.
pub const FILE_BYTES: u64 = 64 << 20;

/// One source of objects.
#[derive(Debug, PartialEq, Eq)]
pub struct Source {
    /// As errors name it.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Reads what `-f` names, in that order; folders give their `.json`, `.yaml` and `.yml` files by
/// name, with `recursive` those of their folders too.
pub fn read(names: &[&str], recursive: bool) -> Result<Vec<Source>, VerbError> {
    let mut sources = Vec::new();
    for name in names {
        if *name == "-" {
            let mut text = String::new();
            std::io::stdin()
                .take(FILE_BYTES)
                .read_to_string(&mut text)?;
            sources.push(Source {
                name: "STDIN".into(),
                text,
            });
        } else if name.starts_with("http://") || name.starts_with("https://") {
            return Err(VerbError::Local(format!(
                "{name}: addresses are not fetched yet; download the file and name it"
            )));
        } else {
            read_path(Path::new(name), recursive, true, &mut sources)?;
        }
    }
    Ok(sources)
}

fn read_path(
    path: &Path,
    recursive: bool,
    named: bool,
    sources: &mut Vec<Source>,
) -> Result<(), VerbError> {
    let shown = path.display();
    let about = std::fs::metadata(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => {
            VerbError::Local(format!("the path \"{shown}\" does not exist"))
        }
        _ => VerbError::Local(format!("the path \"{shown}\" cannot be accessed: {error}")),
    })?;
    if about.is_dir() {
        if !named && !recursive {
            return Ok(());
        }
        let mut inside: Vec<_> = std::fs::read_dir(path)?
            .flatten()
            .map(|e| e.path())
            .collect();
        inside.sort();
        for entry in inside {
            let manifest = entry
                .extension()
                .is_some_and(|extension| ["json", "yaml", "yml"].iter().any(|e| extension == *e));
            if manifest || entry.is_dir() {
                read_path(&entry, recursive, false, sources)?;
            }
        }
        return Ok(());
    }
    if about.len() > FILE_BYTES {
        return Err(VerbError::Local(format!(
            "{shown} is larger than {FILE_BYTES} bytes"
        )));
    }
    let text = std::fs::read_to_string(path)
        .map_err(|error| VerbError::Local(format!("cannot read {shown}: {error}")))?;
    sources.push(Source {
        name: shown.to_string(),
        text,
    });
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_give_their_manifests_by_name() {
        let folder = std::env::temp_dir().join(format!("weir-files-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("deep")).unwrap();
        for name in ["b.yaml", "a.yml", "notes.txt", "c.json", "deep/d.yaml"] {
            std::fs::write(folder.join(name), name).unwrap();
        }
        let texts = |recursive| -> Vec<String> {
            let all = read(&[folder.to_str().unwrap()], recursive).unwrap();
            all.into_iter().map(|source| source.text).collect()
        };
        assert_eq!(texts(false), ["a.yml", "b.yaml", "c.json"]);
        assert_eq!(texts(true), ["a.yml", "b.yaml", "c.json", "deep/d.yaml"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn a_missing_path_reads_as_kubectls() {
        let error = read(&["/nowhere/x.yaml"], false).unwrap_err();
        assert_eq!(
            error.to_string(),
            "the path \"/nowhere/x.yaml\" does not exist"
        );
    }
}
