//! A container's environment: what its spec says, what ConfigMaps, Secrets and the pod's fields have, and
//! where Services are.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{Container, EnvVarSource, PodSpec};
use serde_json::Value;

use super::Identity;
use crate::agent::mirror::Mirror;
use crate::agent::{NODE, service_links};
use crate::pod::stage;
use crate::topology;

/// Every variable, in order.
pub(super) fn variables(
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
pub fn field_value(path: &str, identity: &Identity) -> Result<String, String> {
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
pub fn entries(
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
pub(super) fn expand_references(text: &str, environment: &[(String, String)]) -> String {
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
}
