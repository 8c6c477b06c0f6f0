//! `cp`: files to and from a container, through `tar` at both ends (kubectl `pkg/cmd/cp`).

use std::io::Write;
use std::path::{Component, Path, PathBuf};
use std::process::{Command, Stdio};

use crate::cli::flags::{Flag, switch, value};
use crate::cli::session::{Session, VerbError};
use crate::lab_protocol::{self, ContainerTarget, ExecRequest};

use super::CONTAINER;
use super::choose;

/// Flags of `cp`.
pub const FLAGS: &[Flag] = &[
    CONTAINER,
    switch(
        "no-preserve",
        None,
        "Owners and modes need not be kept in the container",
    ),
    value("retries", None, ""),
];

/// Bytes that one copy carries, at most: they are held in memory on their way.
const COPY_BYTES: usize = 256 << 20;

/// One end of a copy.
#[derive(Debug, PartialEq, Eq)]
struct End {
    /// Namespace, if it is said, and name of the pod, if it is one.
    pod: Option<(Option<String>, String)>,
    path: String,
}

fn local(text: impl Into<String>) -> VerbError {
    VerbError::Local(text.into())
}

impl End {
    /// `[[NAMESPACE/]POD:]PATH`.
    fn parse(text: &str) -> Result<End, VerbError> {
        let wrong =
            || local("filespec must match the canonical format: [[namespace/]pod:]file/path");
        let Some((pod, path)) = text.split_once(':') else {
            let path = text.to_owned();
            return Ok(End { pod: None, path });
        };
        let pod = match pod.split('/').collect::<Vec<_>>()[..] {
            [""] => return Err(wrong()),
            [name] => (None, name.to_owned()),
            [namespace, name] => (Some(namespace.to_owned()), name.to_owned()),
            _ => return Err(wrong()),
        };
        let path = path.to_owned();
        Ok(End {
            pod: Some(pod),
            path,
        })
    }
}

/// Runs `cp`.
pub fn run(session: &mut Session) -> Result<(), VerbError> {
    let [from, to] = &session.parsed.arguments[..] else {
        return Err(local("source and destination are required"));
    };
    let (from, to) = (End::parse(from)?, End::parse(to)?);
    if from.path.is_empty() || to.path.is_empty() {
        return Err(local("filepath can not be empty"));
    }
    match (&from.pod, &to.pod) {
        (Some(_), Some(_)) => Err(local(
            "one of src or dest must be a local file specification",
        )),
        (None, None) => Err(local(
            "one of src or dest must be a remote file specification",
        )),
        (Some((namespace, pod)), None) => {
            let pod = Container::find(session, namespace.as_deref(), pod)?;
            pod.fetch(&from.path, Path::new(&to.path))
        }
        (None, Some((namespace, pod))) => {
            let source = Path::new(&from.path);
            if source.symlink_metadata().is_err() {
                return Err(local(format!(
                    "{} doesn't exist in local filesystem",
                    from.path
                )));
            }
            let preserve = !session.parsed.is_on("no-preserve");
            let pod = Container::find(session, namespace.as_deref(), pod)?;
            pod.send(source, &to.path, preserve)
        }
    }
}

/// A container that commands run in.
struct Container {
    socket: PathBuf,
    target: ContainerTarget,
}

impl Container {
    fn find(
        session: &mut Session,
        namespace: Option<&str>,
        pod: &str,
    ) -> Result<Container, VerbError> {
        let namespace = namespace.map_or_else(|| super::namespace(session), str::to_owned);
        let mut client = session.connect()?;
        let pod = choose::object(&mut client, &namespace, &[pod.to_owned()])?;
        let container = choose::container(&pod, session.parsed.value("container"), false)?;
        Ok(Container {
            socket: session.lab_socket()?,
            target: super::exec::target(&pod, &container["name"]),
        })
    }

    /// Runs a command with its input; its output. What it says goes to stderr.
    fn run(&self, command: &[&str], input: Option<&[u8]>) -> Result<Vec<u8>, VerbError> {
        let request = ExecRequest {
            target: self.target.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            stdin: input.is_some(),
            ..ExecRequest::default()
        };
        let (status, out, err) =
            lab_protocol::exec_captured(&self.socket, &request, input.unwrap_or_default())?;
        std::io::stderr().write_all(&err)?;
        match status {
            0 => Ok(out),
            status => {
                eprintln!("command terminated with exit code {status}");
                Err(VerbError::Status(u8::try_from(status).unwrap_or(1)))
            }
        }
    }

    fn is_folder(&self, path: &str) -> Result<bool, VerbError> {
        let request = ExecRequest {
            target: self.target.clone(),
            command: ["test", "-d", path].map(str::to_owned).to_vec(),
            ..ExecRequest::default()
        };
        let (status, _, _) = lab_protocol::exec_captured(&self.socket, &request, &[])?;
        Ok(status == 0)
    }

    /// A local file or folder to the container: into `to` if that is a folder, else as `to`.
    fn send(&self, from: &Path, to: &str, preserve: bool) -> Result<(), VerbError> {
        let (folder, base) = parts(from)?;
        let mut to = PathBuf::from(to);
        if self.is_folder(&to.display().to_string())? {
            to.push(&base);
        }
        let (target_folder, target_base) = parts(&to)?;
        let archive = pack(&folder, &base, &target_base)?;
        let target_folder = target_folder.display().to_string();
        let mut command = vec!["tar"];
        if !preserve {
            command.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        command.extend(["-xmf", "-", "-C", &target_folder]);
        self.run(&command, Some(&archive)).map(|_| ())
    }

    /// A file or folder of the container: into `to` if that is a folder, else as `to`.
    fn fetch(&self, from: &str, to: &Path) -> Result<(), VerbError> {
        let (folder, base) = parts(Path::new(from))?;
        let folder = folder.display().to_string();
        let archive = self.run(&["tar", "-cf", "-", "-C", &folder, "--", &base], None)?;
        let to = if to.is_dir() {
            to.join(&base)
        } else {
            to.to_owned()
        };
        let (target_folder, target_base) = parts(&to)?;
        unpack(&archive, &target_folder, &base, &target_base)
    }
}

/// The folder that a path lies in, and its name there.
fn parts(path: &Path) -> Result<(PathBuf, String), VerbError> {
    let plain: PathBuf = path.components().collect();
    let Some(Component::Normal(base)) = plain.components().next_back() else {
        return Err(local(format!("{} has no name to copy as", path.display())));
    };
    let folder = plain.parent().unwrap_or(Path::new(""));
    let folder = match folder.as_os_str().is_empty() {
        true => PathBuf::from("."),
        false => folder.to_owned(),
    };
    Ok((folder, base.to_string_lossy().into_owned()))
}

/// An expression for tar that gives what is packed as `from` the name `to`.
fn renaming(from: &str, to: &str) -> Result<String, VerbError> {
    if [from, to].iter().any(|name| name.contains(['\n', ';'])) {
        return Err(local(
            "names with a line's end or a semicolon cannot be copied",
        ));
    }
    let escaped: String = from
        .chars()
        .flat_map(|c| match ".*[]^$\\;".contains(c) {
            true => vec!['\\', c],
            false => vec![c],
        })
        .collect();
    let to = to.replace('\\', "\\\\").replace('&', "\\&");
    // Names of members, not of what symbolic links lead to.
    Ok(format!("--transform=flags=rh;s;^{escaped};{to};"))
}

fn tar() -> Command {
    Command::new("tar")
}

fn failed(what: &str, status: std::process::ExitStatus) -> VerbError {
    local(format!("tar could not {what}: {status}"))
}

fn pack(folder: &Path, base: &str, renamed: &str) -> Result<Vec<u8>, VerbError> {
    let output = tar()
        .arg("-cf")
        .arg("-")
        .arg(renaming(base, renamed)?)
        .arg("-C")
        .arg(folder)
        .args(["--", base])
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .map_err(|error| local(format!("cannot run tar: {error}")))?;
    if !output.status.success() {
        return Err(failed("read the files", output.status));
    }
    if output.stdout.len() > COPY_BYTES {
        return Err(local(format!(
            "{} bytes are more than one copy takes ({COPY_BYTES})",
            output.stdout.len()
        )));
    }
    Ok(output.stdout)
}

fn unpack(archive: &[u8], folder: &Path, base: &str, renamed: &str) -> Result<(), VerbError> {
    let mut child = tar()
        .args(["-xf", "-", "--no-same-owner"])
        .arg(renaming(base, renamed)?)
        .arg("-C")
        .arg(folder)
        .stdin(Stdio::piped())
        .spawn()
        .map_err(|error| local(format!("cannot run tar: {error}")))?;
    if let Some(mut input) = child.stdin.take() {
        // What tar does not want it has complained of.
        let _ended = input.write_all(archive);
    }
    match child.wait()? {
        status if status.success() => Ok(()),
        status => Err(failed("write the files", status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_are_local_or_in_a_pod() {
        let pod = |namespace: Option<&str>, name: &str, path: &str| End {
            pod: Some((namespace.map(str::to_owned), name.to_owned())),
            path: path.to_owned(),
        };
        assert_eq!(End::parse("bb:/tmp/x").unwrap(), pod(None, "bb", "/tmp/x"));
        assert_eq!(End::parse("ns/bb:x").unwrap(), pod(Some("ns"), "bb", "x"));
        assert_eq!(End::parse("./x").unwrap().pod, None);
        assert!(End::parse(":x").is_err());
        assert!(End::parse("a/b/c:x").is_err());
    }

    #[test]
    fn files_and_folders_arrive_under_their_new_names() {
        let folder = std::env::temp_dir().join(format!("weir-cp-{}", std::process::id()));
        let inner = folder.join("from.d/a.b");
        std::fs::create_dir_all(&inner).unwrap();
        std::fs::write(inner.join("x"), "text").unwrap();
        let archive = pack(&folder.join("from.d"), "a.b", "c&d").unwrap();
        unpack(&archive, &folder, "c&d", "e").unwrap();
        assert_eq!(std::fs::read_to_string(folder.join("e/x")).unwrap(), "text");
        std::fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn a_path_without_a_name_is_refused() {
        assert!(parts(Path::new("/")).is_err());
        assert!(parts(Path::new("..")).is_err());
        assert_eq!(
            parts(Path::new("x/")).unwrap(),
            (PathBuf::from("."), "x".into())
        );
    }
}
