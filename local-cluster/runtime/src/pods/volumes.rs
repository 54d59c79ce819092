//! What a Pod's volumes hold: decided here, written by [`super::files`].

use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

use k8s_openapi::api::core::v1::{Container, DownwardAPIVolumeFile, KeyToPath, Volume, VolumeProjection};

use super::env::{Lookup, Missing};
use super::fields::View;

/// A file of a volume.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Content {
    pub(crate) bytes: Vec<u8>,
    pub(crate) mode: u32,
}

/// The files of a volume, by path inside it.
pub(crate) type Files = BTreeMap<PathBuf, Content>;

/// What a volume is on this machine.
pub(crate) enum Source {
    /// Files that the runtime writes and keeps current.
    Files(Files),
    /// A folder that starts empty and goes with the Pod.
    Empty,
    /// A folder that outlives the Pod, by its claim's name.
    Claim(String),
    /// A path of this machine.
    Host(PathBuf),
}

const DEFAULT_MODE: i32 = 0o644;

/// What `volume` is. `token` is the service account's token, where Pods get one.
pub(crate) fn source(
    view: &View<'_>,
    volume: &Volume,
    lookup: &dyn Lookup,
    token: Option<&str>,
) -> Result<Source, Missing> {
    let of = Filling {
        view,
        volume: &volume.name,
        lookup,
        token,
    };
    if let Some(from) = &volume.config_map {
        let mode = from.default_mode.unwrap_or(DEFAULT_MODE);
        return of
            .config_map(&from.name, from.items.as_deref(), from.optional, mode)
            .map(Source::Files);
    }
    if let Some(from) = &volume.secret {
        let mode = from.default_mode.unwrap_or(DEFAULT_MODE);
        let name = from.secret_name.as_deref().unwrap_or_default();
        return of
            .secret(name, from.items.as_deref(), from.optional, mode)
            .map(Source::Files);
    }
    if let Some(from) = &volume.downward_api {
        let mode = from.default_mode.unwrap_or(DEFAULT_MODE);
        return of
            .downward(from.items.as_deref().unwrap_or_default(), mode)
            .map(Source::Files);
    }
    if let Some(from) = &volume.projected {
        let mode = from.default_mode.unwrap_or(DEFAULT_MODE);
        let mut files = Files::new();
        for projection in from.sources.iter().flatten() {
            files.extend(of.projection(projection, mode)?);
        }
        return Ok(Source::Files(files));
    }
    if volume.empty_dir.is_some() {
        return Ok(Source::Empty);
    }
    if let Some(claim) = &volume.persistent_volume_claim {
        return of
            .plain(&claim.claim_name)
            .map(|_| Source::Claim(claim.claim_name.clone()));
    }
    if let Some(path) = &volume.host_path {
        return Ok(Source::Host(PathBuf::from(&path.path)));
    }
    Err(Missing::Volume {
        volume: volume.name.clone(),
    })
}

struct Filling<'a> {
    view: &'a View<'a>,
    volume: &'a str,
    lookup: &'a dyn Lookup,
    token: Option<&'a str>,
}

impl Filling<'_> {
    /// The path, when it stays inside the volume.
    fn plain(&self, path: &str) -> Result<PathBuf, Missing> {
        let candidate = Path::new(path);
        let plain = candidate
            .components()
            .all(|part| matches!(part, Component::Normal(_)));
        if path.is_empty() || !plain || path.len() > 1024 {
            return Err(Missing::Path {
                volume: self.volume.to_owned(),
                path: path.to_owned(),
            });
        }
        Ok(candidate.to_path_buf())
    }

    fn config_map(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Files, Missing> {
        let Some(map) = self.lookup.config_map(&self.view.namespace(), name) else {
            return self.absent("ConfigMap", name, optional);
        };
        let texts = map
            .data
            .iter()
            .flatten()
            .map(|(key, text)| (key.clone(), text.clone().into_bytes()));
        let binary = map
            .binary_data
            .iter()
            .flatten()
            .map(|(key, bytes)| (key.clone(), bytes.0.clone()));
        self.chosen(
            "ConfigMap",
            name,
            texts.chain(binary).collect(),
            items,
            optional,
            mode,
        )
    }

    fn secret(
        &self,
        name: &str,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Files, Missing> {
        let Some(secret) = self.lookup.secret(&self.view.namespace(), name) else {
            return self.absent("Secret", name, optional);
        };
        let data = secret
            .data
            .iter()
            .flatten()
            .map(|(key, bytes)| (key.clone(), bytes.0.clone()))
            .collect();
        self.chosen("Secret", name, data, items, optional, mode)
    }

    fn absent(&self, kind: &'static str, name: &str, optional: Option<bool>) -> Result<Files, Missing> {
        // What the API server adds to every Pod for its service account may have no source here.
        if optional.unwrap_or(false) || self.volume.starts_with("kube-api-access-") {
            return Ok(Files::new());
        }
        Err(Missing::Object {
            kind,
            name: name.to_owned(),
        })
    }

    fn chosen(
        &self,
        kind: &'static str,
        name: &str,
        mut data: BTreeMap<String, Vec<u8>>,
        items: Option<&[KeyToPath]>,
        optional: Option<bool>,
        mode: i32,
    ) -> Result<Files, Missing> {
        let mut files = Files::new();
        let Some(items) = items.filter(|items| !items.is_empty()) else {
            for (key, bytes) in data {
                files.insert(self.plain(&key)?, content(bytes, mode));
            }
            return Ok(files);
        };
        for item in items {
            match data.remove(&item.key) {
                Some(bytes) => {
                    files.insert(self.plain(&item.path)?, content(bytes, item.mode.unwrap_or(mode)));
                }
                None if optional.unwrap_or(false) => {}
                None => {
                    return Err(Missing::Key {
                        kind,
                        name: name.to_owned(),
                        key: item.key.clone(),
                    });
                }
            }
        }
        Ok(files)
    }

    fn downward(&self, items: &[DownwardAPIVolumeFile], mode: i32) -> Result<Files, Missing> {
        let mut files = Files::new();
        for item in items {
            let value = match (&item.field_ref, &item.resource_field_ref) {
                (Some(field), _) => self.view.field(&field.field_path),
                (None, Some(selector)) => self.view.resource(&Container::default(), selector),
                (None, None) => None,
            };
            let value = value.ok_or_else(|| Missing::Field(item.path.clone()))?;
            files.insert(
                self.plain(&item.path)?,
                content(value.into_bytes(), item.mode.unwrap_or(mode)),
            );
        }
        Ok(files)
    }

    fn projection(&self, from: &VolumeProjection, mode: i32) -> Result<Files, Missing> {
        if let Some(map) = &from.config_map {
            return self.config_map(&map.name, map.items.as_deref(), map.optional, mode);
        }
        if let Some(secret) = &from.secret {
            return self.secret(&secret.name, secret.items.as_deref(), secret.optional, mode);
        }
        if let Some(downward) = &from.downward_api {
            return self.downward(downward.items.as_deref().unwrap_or_default(), mode);
        }
        let mut files = Files::new();
        if let (Some(wanted), Some(token)) = (&from.service_account_token, self.token) {
            files.insert(
                self.plain(&wanted.path)?,
                content(token.as_bytes().to_vec(), 0o600),
            );
        }
        Ok(files)
    }
}

fn content(bytes: Vec<u8>, mode: i32) -> Content {
    // Never executable or special, whatever is asked for; always readable by us.
    Content {
        bytes,
        mode: (mode.unsigned_abs() & 0o666) | 0o400,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::env::tests::Fixed;
    use super::*;

    fn files(volume: serde_json::Value) -> Result<Vec<String>, String> {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
        let view = View {
            pod: &pod,
            address: "127.9.8.2".parse().unwrap(),
            host: "127.9.8.1".parse().unwrap(),
        };
        let mut lookup = Fixed::default();
        let map = json!({"data": {"a": "1", "b": "2"}, "binaryData": {"c": "Mw=="}});
        lookup
            .maps
            .insert("m".into(), serde_json::from_value(map).unwrap());
        lookup.secrets.insert(
            "s".into(),
            serde_json::from_value(json!({"data": {"k": "NA=="}})).unwrap(),
        );
        let volume = serde_json::from_value(volume).unwrap();
        match source(&view, &volume, &lookup, Some("token")).map_err(|missing| missing.to_string())? {
            Source::Files(files) => Ok(files
                .iter()
                .map(|(path, file)| format!("{}={}", path.display(), String::from_utf8_lossy(&file.bytes)))
                .collect()),
            Source::Empty => Ok(vec!["empty".into()]),
            Source::Claim(_) | Source::Host(_) => Ok(vec!["folder".into()]),
        }
    }

    #[test]
    fn volumes_hold_what_they_name() {
        let list = |value| files(value).unwrap();
        assert_eq!(
            list(json!({"name": "v", "configMap": {"name": "m"}})),
            ["a=1", "b=2", "c=3"]
        );
        let items = json!([{"key": "a", "path": "x/y"}]);
        assert_eq!(
            list(json!({"name": "v", "configMap": {"name": "m", "items": items}})),
            ["x/y=1"]
        );
        assert_eq!(list(json!({"name": "v", "emptyDir": {}})), ["empty"]);
        let sources = json!([{"secret": {"name": "s"}}, {"serviceAccountToken": {"path": "token"}},
            {"downwardAPI": {"items": [{"path": "ns", "fieldRef": {"fieldPath": "metadata.namespace"}}]}}]);
        assert_eq!(
            list(json!({"name": "v", "projected": {"sources": sources}})),
            ["k=4", "ns=n", "token=token"]
        );
    }

    #[test]
    fn what_is_missing_or_climbs_out_is_said() {
        let error = |value| files(value).unwrap_err();
        assert_eq!(
            error(json!({"name": "v", "secret": {"secretName": "no"}})),
            "Secret \"no\" not found"
        );
        let items = json!([{"key": "a", "path": "../x"}]);
        assert!(error(json!({"name": "v", "configMap": {"name": "m", "items": items}})).contains("\"../x\""));
        let items = json!([{"key": "z", "path": "x"}]);
        assert!(
            error(json!({"name": "v", "configMap": {"name": "m", "items": items}})).contains("no key \"z\"")
        );
        assert!(error(json!({"name": "v", "nfs": {"server": "s", "path": "p"}})).contains("of a kind"));
        assert!(
            files(json!({"name": "v", "secret": {"secretName": "no", "optional": true}}))
                .unwrap()
                .is_empty()
        );
    }
}
