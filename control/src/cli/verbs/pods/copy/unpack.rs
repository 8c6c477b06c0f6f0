//! What comes from a container, onto this machine's disk.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::path::{Component, Path, PathBuf};

use super::archive::{Archive, Kind, Member};

/// Where a copy goes.
pub struct Target<'a> {
    /// The name that all members begin with.
    pub base: &'a str,
    /// What they have instead of it.
    pub to: &'a Path,
    /// The command that copies links, too.
    pub instead: &'a str,
}

impl Target<'_> {
    /// Writes the members of an archive below the target and nowhere else; says what it leaves out.
    pub fn unpack(&self, archive: impl Read, warnings: &mut impl Write) -> io::Result<()> {
        let mut archive = Archive::new(archive);
        let mut root = self.to.to_owned();
        let mut first = true;
        let mut hint = format!(" (consider using \"{}\")", self.instead);
        while let Some(member) = archive.next()? {
            let rest = self.within(&member)?;
            if first && rest.as_os_str().is_empty() && member.kind != Kind::Folder && root.is_dir()
            {
                root.push(self.base);
            }
            first = false;
            let Some(path) = below(&root, &rest) else {
                let path = root.join(&rest);
                writeln!(
                    warnings,
                    "warning: file {path:?} is outside target destination, skipping"
                )?;
                continue;
            };
            let told = |error: io::Error| {
                let message = format!("{}: {error}", path.display());
                io::Error::new(error.kind(), message)
            };
            match member.kind {
                Kind::Folder => fs::create_dir_all(&path).map_err(told)?,
                Kind::File => write_file(&path, &mut archive).map_err(told)?,
                Kind::Symlink => {
                    let link = &member.link;
                    writeln!(
                        warnings,
                        "warning: skipping symlink: {path:?} -> {link:?}{hint}"
                    )?;
                    hint.clear();
                }
                Kind::Other => writeln!(
                    warnings,
                    "warning: skipping {path:?}: neither a file nor a folder"
                )?,
            }
        }
        Ok(())
    }

    /// What follows the name that all members begin with.
    fn within(&self, member: &Member) -> io::Result<PathBuf> {
        let rest = member.path.strip_prefix(self.base);
        let rest = rest.filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(rest) = rest else {
            let message = format!("tar contents corrupted: {:?}", member.path);
            return Err(io::Error::new(io::ErrorKind::InvalidData, message));
        };
        Ok(PathBuf::from(rest.trim_matches('/')))
    }
}

/// The path below `root`, unless it leads out of it.
fn below(root: &Path, rest: &Path) -> Option<PathBuf> {
    let mut inside = PathBuf::new();
    for component in rest.components() {
        match component {
            Component::Normal(name) => inside.push(name),
            Component::CurDir => {}
            Component::ParentDir if inside.pop() => {}
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    match inside.as_os_str().is_empty() {
        true => Some(root.to_owned()),
        false => Some(root.join(inside)),
    }
}

fn write_file(path: &Path, bytes: &mut impl Read) -> io::Result<()> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    let mut file = File::create(path)?;
    io::copy(bytes, &mut file)?;
    file.flush()
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 512;

    /// A member as a hostile `tar` may write it.
    fn member(path: &str, flag: u8, link: &str, text: &str) -> Vec<u8> {
        let mut block = [0_u8; BLOCK];
        block[..path.len()].copy_from_slice(path.as_bytes());
        let size = format!("{:011o}", text.len());
        block[124..135].copy_from_slice(size.as_bytes());
        block[148..156].fill(b' ');
        block[156] = flag;
        block[157..157 + link.len()].copy_from_slice(link.as_bytes());
        block[257..263].copy_from_slice(b"ustar\0");
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        let mut bytes = block.to_vec();
        bytes.extend_from_slice(text.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        bytes
    }

    /// A folder that is gone at the end; `target` and what lies beside it are in it.
    struct Scene(PathBuf);

    impl Scene {
        fn new(name: &str) -> Scene {
            let folder = std::env::temp_dir().join(format!("weir-{name}-{}", std::process::id()));
            fs::create_dir_all(folder.join("target")).unwrap();
            Scene(folder)
        }

        fn unpack(&self, members: &[Vec<u8>]) -> (io::Result<()>, String) {
            let target = Target {
                base: "d",
                to: &self.0.join("target"),
                instead: "by hand",
            };
            let mut warnings = Vec::new();
            let outcome = target.unpack(&members.concat()[..], &mut warnings);
            (outcome, String::from_utf8(warnings).unwrap())
        }

        fn files(&self) -> Vec<String> {
            let mut found = Vec::new();
            let mut folders = vec![self.0.clone()];
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap().flatten() {
                    let path = entry.path();
                    if path.symlink_metadata().unwrap().is_dir() {
                        folders.push(path);
                    } else {
                        let inside = path.strip_prefix(&self.0).unwrap();
                        found.push(inside.display().to_string());
                    }
                }
            }
            found.sort();
            found
        }
    }

    impl Drop for Scene {
        fn drop(&mut self) {
            fs::remove_dir_all(&self.0).unwrap();
        }
    }

    #[test]
    fn a_folder_s_contents_come_into_the_target() {
        let scene = Scene::new("unpack");
        let members = [
            member("d/", b'5', "", ""),
            member("d/a", b'0', "", "text"),
            member("d/e/../b", b'0', "", "more"),
        ];
        assert!(scene.unpack(&members).0.is_ok());
        assert_eq!(scene.files(), ["target/a", "target/b"]);
        let text = fs::read_to_string(scene.0.join("target/a")).unwrap();
        assert_eq!(text, "text");
    }

    #[test]
    fn a_file_comes_into_a_folder() {
        let scene = Scene::new("unpack-file");
        assert!(scene.unpack(&[member("d", b'0', "", "text")]).0.is_ok());
        assert_eq!(scene.files(), ["target/d"]);
    }

    #[test]
    fn nothing_is_written_outside_the_target() {
        let scene = Scene::new("unpack-outside");
        let (outcome, warnings) = scene.unpack(&[
            member("d/../../out", b'0', "", "text"),
            member("d/..", b'5', "", ""),
            member("d//etc/x", b'0', "", "inside"),
        ]);
        assert!(outcome.is_ok());
        assert_eq!(
            warnings
                .matches("is outside target destination, skipping")
                .count(),
            2
        );
        assert_eq!(scene.files(), ["target/etc/x"]);
        for path in ["out", "../out", "/etc/passwd", "dd/x"] {
            let (outcome, _) = scene.unpack(&[member(path, b'0', "", "text")]);
            let error = outcome.unwrap_err().to_string();
            assert!(error.starts_with("tar contents corrupted"), "{error}");
        }
    }

    #[test]
    fn links_are_left_out_so_that_nothing_goes_through_them() {
        let scene = Scene::new("unpack-links");
        let outside = scene.0.display().to_string();
        let (outcome, warnings) = scene.unpack(&[
            member("d/up", b'2', &outside, ""),
            member("d/up/x", b'0', "", "text"),
            member("d/again", b'2', "up", ""),
            member("d/hard", b'1', "/etc/passwd", ""),
            member("d/pipe", b'6', "", ""),
        ]);
        assert!(outcome.is_ok());
        // `up` is a folder, made for the file in it.
        assert_eq!(scene.files(), ["target/up/x"]);
        let lines: Vec<&str> = warnings.lines().collect();
        assert!(
            lines[0].starts_with("warning: skipping symlink: ")
                && lines[0].ends_with("(consider using \"by hand\")")
        );
        assert!(lines[1].ends_with("-> \"up\""));
        assert_eq!(lines.len(), 4);
    }
}
