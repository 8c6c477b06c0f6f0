//! `-f`: files, folders, `-` and addresses, as kubectl takes them. Nothing is fetched: a lab has copies
//! of what its tutorial finds on the web.

use std::io::Read;
use std::path::{Path, PathBuf};

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
/// name, with `recursive` those of their folders too. No address has a copy.
pub fn read(names: &[&str], recursive: bool) -> Result<Vec<Source>, VerbError> {
    read_with(names, recursive, &|_| None)
}

/// As [`read`]; `copy` says where the copy of what is at an address lies.
pub fn read_with(
    names: &[&str],
    recursive: bool,
    copy: &dyn Fn(&str) -> Option<PathBuf>,
) -> Result<Vec<Source>, VerbError> {
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
            let Some(path) = copy(name) else {
                return Err(VerbError::Local(format!(
                    "unable to read URL \"{name}\": Weir fetches nothing, and this lab has no copy \
                     of it; download the file and name it"
                )));
            };
            eprintln!(
                "{name}: nothing is fetched, this is the lab's copy, {}",
                path.display()
            );
            read_path(&path, recursive, true, &mut sources)?;
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
    fn addresses_are_those_of_copies() {
        let file = std::env::temp_dir().join(format!("weir-copy-{}.yaml", std::process::id()));
        std::fs::write(&file, "a: b").unwrap();
        let copy = |url: &str| (url == "https://x.org/a.yaml").then(|| file.clone());
        let found = read_with(&["https://x.org/a.yaml"], false, &copy).unwrap();
        assert_eq!(found[0].text, "a: b");
        let error = read_with(&["https://x.org/b.yaml"], false, &copy).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unable to read URL \"https://x.org/b.yaml\": Weir fetches nothing, and this lab has no \
             copy of it; download the file and name it"
        );
        std::fs::remove_file(&file).unwrap();
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
