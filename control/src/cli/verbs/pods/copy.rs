//! `cp`: files to and from a container, through `tar` in the container (kubectl `pkg/cmd/cp`).
//!
//! Both ways are streams: what is copied is never in memory as a whole, and only the disk bounds it.
//! What comes from a container is not trusted, as with kubectl: names that lead out of the target and
//! links are left out, with a warning.

mod archive;
mod unpack;

use std::path::{Component, Path, PathBuf};
use std::process::{Child, Command, Stdio};

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
        let target_folder = target_folder.display().to_string();
        let mut command = vec!["tar"];
        if !preserve {
            command.extend(["--no-same-permissions", "--no-same-owner"]);
        }
        command.extend(["-xmf", "-", "-C", &target_folder]);
        let mut packing = pack(&folder, &base, &target_base)?;
        let Some(mut archive) = packing.stdout.take() else {
            return Err(local("tar has no output"));
        };
        let status = lab_protocol::exec_streamed(
            &self.socket,
            &self.command(&command),
            Some(&mut archive),
            &mut std::io::sink(),
        );
        // Nobody reads on: a tar in the middle of its work ends.
        drop(archive);
        let packed = packing.wait()?;
        ended(status?)?;
        match packed.success() {
            true => Ok(()),
            false => Err(local(format!("tar could not read the files: {packed}"))),
        }
    }

    /// A file or folder of the container as `to`, or a file into it if that is a folder.
    fn fetch(&self, from: &str, to: &Path) -> Result<(), VerbError> {
        let (folder, base) = parts(Path::new(from))?;
        let folder = folder.display().to_string();
        // A file with several names comes whole by each of them.
        let command = [
            "tar",
            "--hard-dereference",
            "-cf",
            "-",
            "-C",
            &folder,
            "--",
            &base,
        ];
        let request = self.command(&command);
        let (reader, mut writer) = std::io::pipe()?;
        let target = unpack::Target {
            base: &base,
            to,
            instead: &self.by_hand(from),
        };
        let (unpacked, status) = std::thread::scope(|scope| {
            let running = scope.spawn(move || {
                lab_protocol::exec_streamed(&self.socket, &request, None, &mut writer)
            });
            let unpacked = target.unpack(reader, &mut std::io::stderr());
            (unpacked, running.join())
        });
        let status = status.unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match (unpacked, status) {
            // Its output is wrong because it failed.
            (Err(_), Ok(code)) if code != 0 => ended(code),
            (Err(error), _) => Err(local(error.to_string())),
            (Ok(()), status) => ended(status?),
        }
    }

    fn command(&self, command: &[&str]) -> ExecRequest {
        ExecRequest {
            target: self.target.clone(),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            ..ExecRequest::default()
        }
    }

    /// How to copy links, too.
    fn by_hand(&self, from: &str) -> String {
        let (namespace, pod) = (&self.target.namespace, &self.target.pod);
        format!("kubectl exec -n {namespace:?} {pod:?} -- tar cf - {from:?} | tar xf -")
    }
}

fn ended(status: i32) -> Result<(), VerbError> {
    match status {
        0 => Ok(()),
        status => {
            eprintln!("command terminated with exit code {status}");
            Err(VerbError::Status(u8::try_from(status).unwrap_or(1)))
        }
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

/// Starts packing a local file or folder under its new name.
fn pack(folder: &Path, base: &str, renamed: &str) -> Result<Child, VerbError> {
    Command::new("tar")
        .arg("-cf")
        .arg("-")
        .arg(renaming(base, renamed)?)
        .arg("-C")
        .arg(folder)
        .args(["--", base])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .map_err(|error| local(format!("cannot run tar: {error}")))
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
        let mut packing = pack(&folder.join("from.d"), "a.b", "c&d").unwrap();
        let to = folder.join("e");
        let target = unpack::Target {
            base: "c&d",
            to: &to,
            instead: "",
        };
        let archive = packing.stdout.take().unwrap();
        target.unpack(archive, &mut std::io::sink()).unwrap();
        assert!(packing.wait().unwrap().success());
        assert_eq!(std::fs::read_to_string(to.join("x")).unwrap(), "text");
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
