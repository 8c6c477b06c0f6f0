//! Whose words are spoken: those of kubectl 1.34, unless the lab was made for an older one.
//!
//! A tutorial shows what the kubectl of its day printed, and relies on what that one did. A lab says
//! which one that was (`kubectl: "1.8"`); `lab up` leaves it beside the daemon's socket, where whoever
//! may speak to the daemon can read it. Everything that differs by version is decided here.

use std::path::Path;

/// The file beside a daemon's socket that holds the version.
pub const FILE: &str = "kubectl-version";
/// Takes the file's place.
pub const VARIABLE: &str = "WEIR_KUBECTL_VERSION";
/// Bytes of that file at most.
const FILE_BYTES: u64 = 16;

/// A minor version of kubectl 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubectlVersion {
    minor: u32,
}

impl KubectlVersion {
    /// The one whose words Weir speaks of itself.
    pub const CURRENT: KubectlVersion = KubectlVersion { minor: 34 };

    /// Reads `1.8`, `v1.8` or `1.8.4`.
    pub fn parse(text: &str) -> Result<KubectlVersion, String> {
        let wrong = || format!("\"{text}\" is no version of kubectl: write it as 1.8");
        let plain = text.strip_prefix('v').unwrap_or(text);
        let mut parts = plain.split('.');
        let major = parts.next();
        let minor = parts.next().and_then(|minor| minor.parse().ok());
        let rest = parts.all(|part| part.parse::<u32>().is_ok());
        match (major, minor) {
            (Some("1"), Some(minor)) if rest => Ok(KubectlVersion { minor }),
            _ => Err(wrong()),
        }
    }

    /// The version that is meant where the daemon answers at `socket`.
    pub fn of(socket: Option<&Path>) -> Result<KubectlVersion, String> {
        if let Some(text) = std::env::var(VARIABLE).ok().filter(|text| !text.is_empty()) {
            return KubectlVersion::parse(&text).map_err(|why| format!("{VARIABLE}: {why}"));
        }
        let Some(path) = socket.map(|socket| socket.with_file_name(FILE)) else {
            return Ok(KubectlVersion::CURRENT);
        };
        let small = |found: std::fs::Metadata| found.is_file() && found.len() <= FILE_BYTES;
        if !std::fs::metadata(&path).is_ok_and(small) {
            return Ok(KubectlVersion::CURRENT);
        }
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        KubectlVersion::parse(text.trim()).map_err(|why| format!("{}: {why}", path.display()))
    }

    /// Up to 1.10: `deployment "web" created`; since: `deployment.apps/web created`.
    fn quotes_names(self) -> bool {
        self.minor < 11
    }

    /// Up to 1.17 `run` makes a Deployment (or a Job), since then a Pod.
    pub fn run_makes_workloads(self) -> bool {
        self.minor < 18
    }

    /// 1.12 to 1.17 complain of what `run` makes.
    pub fn run_deprecates_workloads(self) -> bool {
        (12..18).contains(&self.minor)
    }

    /// Up to 1.30 a command may follow the pod without dashes.
    pub fn exec_needs_no_dashes(self) -> bool {
        self.minor < 31
    }

    /// Since 1.34 `attach` says that a container's log keeps what is typed.
    pub fn attach_warns_of_logs(self) -> bool {
        self.minor >= 34
    }

    /// That `operation` was done to an object; `kind` is its singular with its group, as
    /// `deployment.apps`.
    pub fn done(self, kind: &str, name: &str, operation: &str) -> String {
        if self.quotes_names() {
            return format!("{} \"{name}\" {operation}", without_group(kind));
        }
        format!("{kind}/{name} {operation}")
    }

    /// That an object was deleted; `operation` is `deleted` or `force deleted`.
    pub fn deleted(
        self,
        kind: &str,
        name: &str,
        operation: &str,
        namespace: Option<&str>,
    ) -> String {
        let kind = match self.quotes_names() {
            true => without_group(kind),
            false => kind,
        };
        match namespace.filter(|_| self.minor >= 34) {
            Some(namespace) => format!("{kind} \"{name}\" {operation} from {namespace} namespace"),
            None => format!("{kind} \"{name}\" {operation}"),
        }
    }
}

fn without_group(kind: &str) -> &str {
    kind.split('.').next().unwrap_or(kind)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(text: &str) -> KubectlVersion {
        KubectlVersion::parse(text).unwrap()
    }

    #[test]
    fn versions_are_read_and_nonsense_is_not() {
        assert_eq!(version("1.8"), version("v1.8.4"));
        assert!(version("1.8") < version("1.18"));
        for wrong in ["", "8", "2.0", "1", "1.x", "1.8.x"] {
            assert!(KubectlVersion::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn each_version_has_its_words() {
        let policy = "networkpolicy.networking.k8s.io";
        let (old, middle, current) = (version("1.8"), version("1.20"), KubectlVersion::CURRENT);
        assert_eq!(
            old.done(policy, "x", "created"),
            "networkpolicy \"x\" created"
        );
        let line = format!("{policy}/x created");
        assert_eq!(middle.done(policy, "x", "created"), line);
        assert_eq!(current.done(policy, "x", "created"), line);
        let deleted = |of: KubectlVersion| of.deleted(policy, "x", "deleted", Some("ns"));
        assert_eq!(deleted(old), "networkpolicy \"x\" deleted");
        assert_eq!(deleted(middle), format!("{policy} \"x\" deleted"));
        assert_eq!(
            deleted(current),
            format!("{policy} \"x\" deleted from ns namespace")
        );
    }

    #[test]
    fn the_file_beside_the_socket_says_the_version() {
        let folder = std::env::temp_dir().join(format!("weir-kubectl-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = folder.join("weir.sock");
        assert_eq!(
            KubectlVersion::of(Some(&socket)),
            Ok(KubectlVersion::CURRENT)
        );
        std::fs::write(folder.join(FILE), "1.8\n").unwrap();
        assert_eq!(KubectlVersion::of(Some(&socket)), Ok(version("1.8")));
        std::fs::write(folder.join(FILE), "eight\n").unwrap();
        assert!(KubectlVersion::of(Some(&socket)).is_err());
        std::fs::remove_dir_all(folder).unwrap();
    }
}
