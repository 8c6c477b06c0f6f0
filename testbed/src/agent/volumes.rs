//! From a pod's volumes to what its init is told.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    DownwardAPIVolumeFile, EmptyDirVolumeSource, KeyToPath, PodSpec, ProjectedVolumeSource,
    Volume as VolumeSpec,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;

use super::mirror::Mirror;
use super::spec::{Identity, entries, field_value};
use crate::pod::message::Volume;

/// Bytes of all files that a pod's volumes take: they travel in one message.
const FILE_BYTES: usize = 96 << 10;
/// Bytes of an empty folder whose spec names no limit. All of them lie in memory, whatever their
/// medium.
const EMPTY_BYTES: u64 = 64 << 20;
/// Bytes of the largest.
const LARGEST_BYTES: u64 = 1 << 30;

type Files = BTreeMap<String, String>;

/// What volumes are made from.
pub struct Sources<'a> {
    /// The pod.
    pub identity: &'a Identity,
    /// ConfigMaps and Secrets.
    pub mirror: &'a Mirror,
    /// The log that a shell on the node sees.
    pub log: &'a str,
}

/// The pod's volumes, and warnings about those that become an empty folder.
pub fn volumes(
    spec: &PodSpec,
    sources: &Sources<'_>,
) -> Result<(BTreeMap<String, Volume>, Vec<String>), String> {
    let (mut all, mut warnings) = (BTreeMap::new(), Vec::new());
    let mut bytes = 0;
    for volume in spec.volumes.iter().flatten() {
        let made = sources.volume(volume, &mut warnings)?;
        if let Volume::Files(files) = &made {
            let sizes = files.iter().map(|(name, text)| name.len() + text.len());
            bytes += sizes.sum::<usize>();
        }
        all.insert(volume.name.clone(), made);
    }
    if bytes > FILE_BYTES {
        return Err(format!(
            "ConfigMap and Secret volumes exceed {FILE_BYTES} bytes together"
        ));
    }
    Ok((all, warnings))
}

impl Sources<'_> {
    fn volume(&self, volume: &VolumeSpec, warnings: &mut Vec<String>) -> Result<Volume, String> {
        if let Some(map) = &volume.config_map {
            let files = self.entries("ConfigMap", &map.name, &map.items, map.optional)?;
            return Ok(Volume::Files(files));
        }
        if let Some(secret) = &volume.secret {
            let name = secret.secret_name.clone().unwrap_or_default();
            let files = self.entries("Secret", &name, &secret.items, secret.optional)?;
            return Ok(Volume::Files(files));
        }
        if let Some(own) = &volume.downward_api {
            return Ok(Volume::Files(self.fields(&own.items)?));
        }
        if let Some(projected) = &volume.projected {
            return Ok(Volume::Files(self.projected(
                &volume.name,
                projected,
                warnings,
            )?));
        }
        if let Some(empty) = &volume.empty_dir {
            return empty_dir(empty);
        }
        if volume
            .host_path
            .as_ref()
            .is_some_and(|host| host.path == "/")
        {
            return Ok(Volume::Node {
                log: self.log.to_owned(),
            });
        }
        let name = &volume.name;
        warnings.push(format!("volume {name} is an empty folder in a lab"));
        Ok(Volume::Empty { bytes: EMPTY_BYTES })
    }

    /// The entries of a ConfigMap or Secret, all or those chosen, by file name.
    fn entries(
        &self,
        kind: &str,
        name: &str,
        items: &Option<Vec<KeyToPath>>,
        optional: Option<bool>,
    ) -> Result<Files, String> {
        let (namespace, optional) = (&self.identity.namespace, optional.unwrap_or(false));
        let found = entries(self.mirror, kind, namespace, name, optional)?;
        let Some(items) = items.as_ref().filter(|items| !items.is_empty()) else {
            return Ok(found);
        };
        let mut files = Files::new();
        for item in items {
            match found.get(&item.key) {
                Some(text) => _ = files.insert(item.path.clone(), text.clone()),
                None if optional => {}
                None => {
                    let key = &item.key;
                    return Err(format!("references non-existent config key: {key}"));
                }
            }
        }
        Ok(files)
    }

    fn fields(&self, items: &Option<Vec<DownwardAPIVolumeFile>>) -> Result<Files, String> {
        let file = |item: &DownwardAPIVolumeFile| {
            let text = match &item.field_ref {
                Some(field) => field_value(&field.field_path, self.identity)?,
                // Resources are not bounded in a lab.
                None => "0".to_owned(),
            };
            Ok((item.path.clone(), text))
        };
        items.iter().flatten().map(file).collect()
    }

    fn projected(
        &self,
        name: &str,
        projected: &ProjectedVolumeSource,
        warnings: &mut Vec<String>,
    ) -> Result<Files, String> {
        let mut files = Files::new();
        for source in projected.sources.iter().flatten() {
            if let Some(map) = &source.config_map {
                files.extend(self.entries("ConfigMap", &map.name, &map.items, map.optional)?);
            } else if let Some(secret) = &source.secret {
                let (name, items) = (&secret.name, &secret.items);
                files.extend(self.entries("Secret", name, items, secret.optional)?);
            } else if let Some(own) = &source.downward_api {
                files.extend(self.fields(&own.items)?);
            } else {
                let text = format!("volume {name} has no tokens or certificates in a lab");
                if !warnings.contains(&text) {
                    warnings.push(text);
                }
            }
        }
        Ok(files)
    }
}

fn empty_dir(empty: &EmptyDirVolumeSource) -> Result<Volume, String> {
    let bytes = match &empty.size_limit {
        None => EMPTY_BYTES,
        Some(Quantity(text)) => config::Quantity::parse(text)
            .and_then(config::Quantity::whole)
            .ok_or_else(|| format!("sizeLimit {text:?} is no amount of bytes"))?,
    };
    // A file system of no size would take as much as it likes.
    let bytes = bytes.clamp(4096, LARGEST_BYTES);
    Ok(Volume::Empty { bytes })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_pod_says_of_itself_becomes_files() {
        let identity = Identity {
            namespace: "ns".into(),
            name: "web".into(),
            uid: "u".into(),
            addresses: vec![],
            labels: [("app".to_owned(), "web".to_owned())].into(),
            annotations: BTreeMap::new(),
        };
        let sources = Sources {
            identity: &identity,
            mirror: &Mirror::default(),
            log: "",
        };
        let spec: PodSpec = serde_json::from_value(serde_json::json!({
            "containers": [],
            "volumes": [
                {"name": "own", "downwardAPI": {"items": [
                    {"path": "labels", "fieldRef": {"fieldPath": "metadata.labels"}},
                    {"path": "app", "fieldRef": {"fieldPath": "metadata.labels['app']"}},
                ]}},
                {"name": "work", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}},
                {"name": "claim", "persistentVolumeClaim": {"claimName": "c"}},
            ],
        }))
        .unwrap();
        let (made, warnings) = volumes(&spec, &sources).unwrap();
        let files = [("app", "web"), ("labels", "app=\"web\"")];
        let files = files.map(|(name, text)| (name.to_owned(), text.to_owned()));
        assert_eq!(made["own"], Volume::Files(files.into()));
        assert_eq!(made["work"], Volume::Empty { bytes: 1 << 20 });
        assert_eq!(warnings, ["volume claim is an empty folder in a lab"]);
    }
}
