//! From a Pod object to what its init is told.

mod environment;

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, Pod, PodSpec};

use environment::{expand_references, variables};

use super::DNS_SERVICE_V4;
use super::mirror::Mirror;
use super::probes::{self, Kind};
use crate::images;
use crate::pod::capability;
use crate::pod::message::{ProcessSpec, StandInProgram, VolumeMount};
use crate::responder;
use crate::topology;

pub use environment::{entries, field_value};

/// The user `nonroot` of images without a shell (distroless), and of many others.
const NON_ROOT: u32 = 65_532;

/// A pod's name and addresses, as its specs need them.
#[derive(Clone, Debug)]
pub struct Identity {
    /// Namespace.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// UID.
    pub uid: String,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Labels.
    pub labels: BTreeMap<String, String>,
    /// Annotations.
    pub annotations: BTreeMap<String, String>,
}

/// The pod's declared ports of one container: protocol and number.
pub fn declared_ports(container: &Container) -> Vec<(String, u16)> {
    let ports = container.ports.iter().flatten();
    ports
        .filter_map(|port| {
            let protocol = port.protocol.clone().unwrap_or_else(|| "TCP".into());
            Some((protocol, u16::try_from(port.container_port).ok()?))
        })
        .collect()
}

/// Text of `/etc/hosts`, with the pod's `hostAliases`.
pub fn hosts(spec: &PodSpec, identity: &Identity, hostname: &str) -> String {
    let mut text = "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n".to_owned();
    for address in &identity.addresses {
        text += &format!("{address}\t{hostname}\n");
    }
    for alias in spec.host_aliases.iter().flatten() {
        let names = alias.hostnames.clone().unwrap_or_default().join("\t");
        text += &format!("{}\t{names}\n", alias.ip);
    }
    text
}

/// Text of `/etc/resolv.conf`, by `dnsPolicy` and `dnsConfig`.
pub fn resolv_conf(spec: &PodSpec, namespace: &str) -> String {
    let policy = spec.dns_policy.as_deref().unwrap_or("ClusterFirst");
    let config = spec.dns_config.clone().unwrap_or_default();
    let (mut servers, mut search, mut options) = (Vec::new(), Vec::new(), Vec::new());
    match policy {
        "None" => {}
        "Default" => servers.push(topology::external_addresses().0.to_string()),
        _ => {
            servers.push(DNS_SERVICE_V4.to_string());
            search.push(format!("{namespace}.svc.cluster.local"));
            search.extend(["svc.cluster.local".to_owned(), "cluster.local".to_owned()]);
            options.push("ndots:5".to_owned());
            // A policy that cuts DNS off shall not look like a hung program: `bad address` comes
            // after 4 s instead of 20.
            options.extend(["timeout:1".to_owned(), "attempts:2".to_owned()]);
        }
    }
    servers.extend(config.nameservers.into_iter().flatten());
    search.extend(config.searches.into_iter().flatten());
    for option in config.options.into_iter().flatten() {
        let name = option.name.unwrap_or_default();
        options.push(match option.value {
            Some(value) => format!("{name}:{value}"),
            None => name,
        });
    }
    let mut text: String = servers
        .iter()
        .map(|server| format!("nameserver {server}\n"))
        .collect();
    if !search.is_empty() {
        text += &format!("search {}\n", search.join(" "));
    }
    if !options.is_empty() {
        text += &format!("options {}\n", options.join(" "));
    }
    text
}

/// A process from a container, and warnings about what is not given.
pub fn process(
    pod: &Pod,
    container: &Container,
    identity: &Identity,
    mirror: &Mirror,
) -> Result<(ProcessSpec, Vec<String>), String> {
    let spec = pod.spec.clone().unwrap_or_default();
    let environment = variables(container, identity, mirror, &spec)?;
    let expand = |list: &Option<Vec<String>>| -> Vec<String> {
        let list = list.iter().flatten();
        list.map(|text| expand_references(text, &environment))
            .collect()
    };
    let (mut command, arguments) = (expand(&container.command), expand(&container.args));
    let image = images::find(container.image.as_deref().unwrap_or_default());
    match image {
        Some(image) => command = image.command_line(&command, &arguments),
        None => command.extend(arguments),
    }
    if command.is_empty() && container.stdin == Some(true) {
        // Somebody wants to type: what images for that begin with.
        command.push("sh".to_owned());
    }
    let security = container.security_context.clone().unwrap_or_default();
    let pod_security = spec.security_context.clone().unwrap_or_default();
    let asked = security.capabilities.unwrap_or_default();
    let (capabilities, refused) = capability::resolve(
        &asked.add.unwrap_or_default(),
        &asked.drop.unwrap_or_default(),
    );
    let mut warnings: Vec<String> = refused
        .iter()
        .map(|name| {
            let container = &container.name;
            format!(
                "container {container}: capability {name} is not given: it reaches beyond the pod"
            )
        })
        .collect();
    if security.privileged == Some(true) {
        warnings.push(format!(
            "container {}: privileged has no effect: what a pod does stays in the pod",
            container.name
        ));
    }
    for kind in Kind::ALL {
        let Some(probe) = kind.of(container) else {
            continue;
        };
        let what = match probe {
            probe if probe.grpc.is_some() => "speaks gRPC, is not run and counts as succeeded",
            probe if probes::speaks_tls(probe) => "asks by HTTPS: the connection alone is tried",
            _ => continue,
        };
        let (container, kind) = (&container.name, kind.name().to_lowercase());
        warnings.push(format!("container {container}: its {kind} probe {what}"));
    }
    let id =
        |own: Option<i64>, pods: Option<i64>| own.or(pods).and_then(|id| u32::try_from(id).ok());
    let user = user(
        id(security.run_as_user, pod_security.run_as_user),
        security.run_as_non_root.or(pod_security.run_as_non_root),
        &container.name,
        identity,
    )?;
    let groups = pod_security.supplemental_groups.into_iter().flatten();
    let process = ProcessSpec {
        command,
        responder: None,
        environment,
        directory: container
            .working_dir
            .clone()
            .or_else(|| image.map(|image| image.directory.to_owned()))
            .unwrap_or_default(),
        user,
        group: id(security.run_as_group, pod_security.run_as_group),
        groups: groups
            .chain(pod_security.fs_group)
            .filter_map(|group| u32::try_from(group).ok())
            .collect(),
        capabilities,
        mounts: mounts(container),
        programs: image.map(programs).unwrap_or_default(),
        join: None,
        tty: container.tty.unwrap_or(false),
        stdin: container.stdin.unwrap_or(false),
        stdin_once: container.stdin_once.unwrap_or(false),
        size: None,
    };
    Ok((process, warnings))
}

/// Who a container runs as. What its image says is not known: one that must not be root and names
/// nobody runs as the user that images of that kind have.
fn user(
    named: Option<u32>,
    not_root: Option<bool>,
    container: &str,
    identity: &Identity,
) -> Result<Option<u32>, String> {
    match (named, not_root) {
        (Some(0), Some(true)) => {
            let (pod, namespace, uid) = (&identity.name, &identity.namespace, &identity.uid);
            Err(format!(
                "container's runAsUser breaks non-root policy (pod: \"{pod}_{namespace}({uid})\", \
                 container: {container})"
            ))
        }
        (None, Some(true)) => Ok(Some(NON_ROOT)),
        _ => Ok(named),
    }
}

/// The built-in responder in place of a container's program.
pub fn stand_in(
    process: &ProcessSpec,
    container: &Container,
    identity: &Identity,
    ports: Vec<(String, u16)>,
) -> ProcessSpec {
    ProcessSpec {
        command: Vec::new(),
        responder: Some(responder::Spec {
            pod: format!("{}/{}", identity.namespace, identity.name),
            image: container.image.clone().unwrap_or_default(),
            ports,
        }),
        // It must be able to serve what the container declares, whoever it runs as.
        user: None,
        group: None,
        groups: Vec::new(),
        tty: false,
        ..process.clone()
    }
}

fn programs(image: &images::Image) -> Vec<StandInProgram> {
    let programs = image.programs.iter();
    programs
        .map(|program| StandInProgram {
            path: program.path.to_owned(),
            machines: program.machines,
        })
        .collect()
}

fn mounts(container: &Container) -> Vec<VolumeMount> {
    let mounts = container.volume_mounts.iter().flatten();
    mounts
        .map(|mount| VolumeMount {
            volume: mount.name.clone(),
            path: mount.mount_path.clone(),
            sub_path: mount.sub_path.clone().unwrap_or_default(),
            read_only: mount.read_only.unwrap_or(false),
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_looked_up_in_the_pods_namespace_first() {
        let text = resolv_conf(&PodSpec::default(), "stars");
        assert!(text.starts_with("nameserver 10.96.0.10\nsearch stars.svc.cluster.local svc."));
        assert!(text.ends_with("options ndots:5 timeout:1 attempts:2\n"));
    }

    #[test]
    fn who_must_not_be_root_is_somebody_else() {
        let identity = Identity {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u".into(),
            addresses: Vec::new(),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
        };
        let user = |named, not_root| user(named, not_root, "c", &identity);
        assert_eq!(user(None, None), Ok(None));
        assert_eq!(user(Some(7), Some(true)), Ok(Some(7)));
        assert_eq!(user(None, Some(true)), Ok(Some(NON_ROOT)));
        let why = "container's runAsUser breaks non-root policy (pod: \"web_ns(u)\", container: c)";
        assert_eq!(user(Some(0), Some(true)), Err(why.into()));
    }
}
