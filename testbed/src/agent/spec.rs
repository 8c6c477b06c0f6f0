//! From a Pod object to what its init is told.

use std::collections::BTreeMap;
use std::net::IpAddr;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, Pod, PodSpec};
use serde_json::Value;

use super::mirror::Mirror;
use super::probes::{self, Kind};
use super::{DNS_SERVICE_V4, NODE, service_links};
use crate::images;
use crate::pod::message::{ProcessSpec, StandInProgram, VolumeMount};
use crate::pod::{capability, stage};
use crate::responder;
use crate::topology;

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
    let environment = environment(container, identity, mirror, &spec)?;
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
        user: id(security.run_as_user, pod_security.run_as_user),
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

fn environment(
    container: &Container,
    identity: &Identity,
    mirror: &Mirror,
    spec: &PodSpec,
) -> Result<Vec<(String, String)>, String> {
    let mut all: Vec<(String, String)> = vec![
        ("PATH".into(), stage::DEFAULT_PATH.into()),
        (
            "HOSTNAME".into(),
            spec.hostname
                .clone()
                .unwrap_or_else(|| identity.name.clone()),
        ),
        ("HOME".into(), "/root".into()),
    ];
    if container.tty == Some(true) {
        all.push(("TERM".into(), "xterm".into()));
    }
    if spec.enable_service_links != Some(false) {
        let services = mirror.list("Service");
        all.extend(service_links::variables(&services, &identity.namespace));
    }
    for source in container.env_from.iter().flatten() {
        let prefix = source.prefix.clone().unwrap_or_default();
        let of = |kind: &str, name: &str, optional: Option<bool>| {
            entries(
                mirror,
                kind,
                &identity.namespace,
                name,
                optional.unwrap_or(false),
            )
        };
        let mut found = BTreeMap::new();
        if let Some(map) = &source.config_map_ref {
            found.extend(of("ConfigMap", &map.name, map.optional)?);
        }
        if let Some(secret) = &source.secret_ref {
            found.extend(of("Secret", &secret.name, secret.optional)?);
        }
        all.extend(
            found
                .into_iter()
                .map(|(key, value)| (format!("{prefix}{key}"), value)),
        );
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) => Some(expand_references(text, &all)),
            (None, Some(source)) => value_from(source, identity, mirror)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            all.retain(|(key, _)| *key != variable.name);
            all.push((variable.name.clone(), value));
        }
    }
    Ok(all)
}

fn value_from(
    source: &EnvVarSource,
    identity: &Identity,
    mirror: &Mirror,
) -> Result<Option<String>, String> {
    let pick = |kind: &str, name: &str, key: &str, optional: Option<bool>| {
        let optional = optional.unwrap_or(false);
        let found = entries(mirror, kind, &identity.namespace, name, optional)?;
        match found.get(key) {
            Some(value) => Ok(Some(value.clone())),
            None if optional => Ok(None),
            None => Err(format!(
                "couldn't find key {key} in {kind} {}/{name}",
                identity.namespace
            )),
        }
    };
    if let Some(map) = &source.config_map_key_ref {
        return pick("ConfigMap", &map.name, &map.key, map.optional);
    }
    if let Some(secret) = &source.secret_key_ref {
        return pick("Secret", &secret.name, &secret.key, secret.optional);
    }
    if let Some(field) = &source.field_ref {
        return field_value(&field.field_path, identity).map(Some);
    }
    // Resources are not bounded in a lab.
    Ok(Some("0".into()))
}

/// What a field of the pod has, for the downward API.
pub(super) fn field_value(path: &str, identity: &Identity) -> Result<String, String> {
    let addresses = || identity.addresses.iter().map(ToString::to_string);
    let all = |map: &BTreeMap<String, String>| {
        let lines = map.iter().map(|(key, value)| format!("{key}={value:?}"));
        lines.collect::<Vec<_>>().join("\n")
    };
    if let Some((map, key)) = path
        .strip_suffix("']")
        .and_then(|path| path.split_once("['"))
    {
        let map = match map {
            "metadata.labels" => &identity.labels,
            "metadata.annotations" => &identity.annotations,
            _ => return Err(format!("fieldPath {path} is not supported")),
        };
        return Ok(map.get(key).cloned().unwrap_or_default());
    }
    Ok(match path {
        "metadata.name" => identity.name.clone(),
        "metadata.namespace" => identity.namespace.clone(),
        "metadata.uid" => identity.uid.clone(),
        "metadata.labels" => all(&identity.labels),
        "metadata.annotations" => all(&identity.annotations),
        "status.podIP" => addresses().next().unwrap_or_default(),
        "status.podIPs" => addresses().collect::<Vec<_>>().join(","),
        "status.hostIP" => topology::NODE_V4.to_string(),
        "status.hostIPs" => format!("{},{}", topology::NODE_V4, topology::NODE_V6),
        "spec.nodeName" => NODE.to_owned(),
        "spec.serviceAccountName" => "default".to_owned(),
        _ => return Err(format!("fieldPath {path} is not supported")),
    })
}

/// The entries of a ConfigMap or Secret.
pub(super) fn entries(
    mirror: &Mirror,
    kind: &str,
    namespace: &str,
    name: &str,
    optional: bool,
) -> Result<BTreeMap<String, String>, String> {
    let Some(object) = mirror.get(kind, namespace, name) else {
        return match optional {
            true => Ok(BTreeMap::new()),
            false => Err(format!("{} \"{name}\" not found", kind.to_lowercase())),
        };
    };
    let fields = |field: &str| object[field].as_object().cloned().unwrap_or_default();
    let mut found = BTreeMap::new();
    let plain = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    for (key, value) in fields("data") {
        let value = plain(&value);
        let value = if kind == "Secret" {
            decode_base64(&value)?
        } else {
            value
        };
        found.insert(key, value);
    }
    for (key, value) in fields("binaryData") {
        found.insert(key, decode_base64(&plain(&value))?);
    }
    for (key, value) in fields("stringData") {
        found.insert(key, plain(&value));
    }
    Ok(found)
}

/// RFC 4648, section 4. Bytes that are no UTF-8 become replacement characters.
fn decode_base64(text: &str) -> Result<String, String> {
    let (mut bytes, mut bits, mut have) = (Vec::new(), 0_u32, 0);
    for symbol in text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace() && *byte != b'=')
    {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return Err("illegal base64 data".into()),
        };
        bits = bits << 6 | u32::from(value);
        have += 6;
        if have >= 8 {
            have -= 8;
            bytes.push((bits >> have) as u8);
        }
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// `$(NAME)` as Kubernetes expands it: unknown ones stay, `$$` is `$`.
fn expand_references(text: &str, environment: &[(String, String)]) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some((name, after)) = rest
            .strip_prefix('(')
            .and_then(|inner| inner.split_once(')'))
        {
            match environment.iter().rev().find(|(key, _)| key == name) {
                Some((_, value)) => out.push_str(value),
                None => out.push_str(&format!("$({name})")),
            }
            rest = after;
        } else {
            out.push('$');
        }
    }
    out + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_expand_as_in_kubernetes() {
        let environment = [
            ("A".to_owned(), "1".to_owned()),
            ("B".to_owned(), "2".to_owned()),
        ];
        for (text, expected) in [
            ("$(A)-$(B)", "1-2"),
            ("$(C) $$(A) $A $", "$(C) $(A) $A $"),
            ("$(A", "$(A"),
        ] {
            assert_eq!(expand_references(text, &environment), expected);
        }
    }

    #[test]
    fn secrets_are_decoded() {
        assert_eq!(decode_base64("cGFzc3dvcmQ=").unwrap(), "password");
        assert_eq!(decode_base64("").unwrap(), "");
        assert!(decode_base64("!").is_err());
    }

    #[test]
    fn names_are_looked_up_in_the_pods_namespace_first() {
        let text = resolv_conf(&PodSpec::default(), "stars");
        assert!(text.starts_with("nameserver 10.96.0.10\nsearch stars.svc.cluster.local svc."));
        assert!(text.ends_with("options ndots:5 timeout:1 attempts:2\n"));
    }
}
