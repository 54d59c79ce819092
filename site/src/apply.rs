//! Applies manifests to a cluster by server-side apply, and never against a controller: a field that another
//! manager has taken over since is left to it, and the rest of the object is applied.

use std::collections::{BTreeSet, HashMap};
use std::sync::Mutex;

use karez_kubernetes::labels;
use kube::api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams};
use kube::core::{GroupVersionKind, Status};
use kube::discovery::{self, Scope};
use kube::{Api, Client};
use serde_json::Value;

use crate::loader::Key;
use crate::manifest::Manifest;

/// The field manager of what comes from files.
pub const FIELD_MANAGER: &str = "karez-site";

/// Makes a cluster accept a kind that it does not know; gives what went wrong as text.
pub type AcceptKind = Box<dyn Fn(&str, &str) -> Result<(), String> + Send + Sync>;

/// Kinds that the API stores and that no program here acts on.
const INERT: [&str; 6] = [
    "Job",
    "CronJob",
    "Ingress",
    "NetworkPolicy",
    "PersistentVolumeClaim",
    "HorizontalPodAutoscaler",
];

/// Why an object is not applied or removed.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The cluster does not know the kind.
    #[error("this cluster has no kind {kind} of {api_version}: {reason}")]
    UnknownKind {
        /// `apiVersion`
        api_version: String,
        /// `kind`
        kind: String,
        /// Why it cannot be accepted.
        reason: String,
    },
    /// The API refused.
    #[error("{0}")]
    Refused(String),
    /// The API could not be asked.
    #[error(transparent)]
    Api(#[from] kube::Error),
}

/// What became of an applied object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Outcome {
    /// Whether something here acts on objects of this kind.
    pub runs: bool,
}

#[derive(Clone)]
struct Resolved {
    resource: ApiResource,
    namespaced: bool,
    runs: bool,
}

/// Applies and removes objects.
pub struct Applier {
    client: Client,
    namespace: String,
    accept: Option<AcceptKind>,
    kinds: Mutex<HashMap<(String, String), Resolved>>,
}

impl Applier {
    /// Applies through `client`; objects without a namespace go to `namespace`.
    pub fn new(client: Client, namespace: impl Into<String>, accept: Option<AcceptKind>) -> Applier {
        Applier {
            client,
            namespace: namespace.into(),
            accept,
            kinds: Mutex::default(),
        }
    }

    /// Applies an object as its manifest says, except fields that others own.
    ///
    /// # Errors
    /// When the kind is unknown or the API refuses the object.
    pub async fn apply(&self, manifest: &Manifest) -> Result<Outcome, ApplyError> {
        let resolved = self.resolve(manifest.api_version(), manifest.kind()).await?;
        let api = self.api(&resolved, manifest.namespace());
        let mut object = annotated(manifest);
        let params = PatchParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PatchParams::default()
        };
        let mut last = String::new();
        // Each conflict takes at least one field out; more rounds than this mean that it does not help.
        for _ in 0..8 {
            match api.patch(manifest.name(), &params, &Patch::Apply(&object)).await {
                Ok(_) => return Ok(Outcome { runs: resolved.runs }),
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    let taken = conflicts(&status);
                    last = status.message.clone();
                    if taken.is_empty() || !withdraw(&mut object, &taken) {
                        break;
                    }
                }
                Err(kube::Error::Api(status)) => return Err(ApplyError::Refused(status.message.clone())),
                Err(error) => return Err(error.into()),
            }
        }
        Err(ApplyError::Refused(last))
    }

    /// Removes an object and what it owns; one that is gone already is removed.
    ///
    /// # Errors
    /// When the API refuses.
    pub(crate) async fn remove(&self, key: &Key) -> Result<(), ApplyError> {
        let resolved = self.resolve(&key.api_version, &key.kind).await?;
        let namespace = Some(key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        match self
            .api(&resolved, namespace)
            .delete(&key.name, &DeleteParams::background())
            .await
        {
            Ok(_) => Ok(()),
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn api(&self, resolved: &Resolved, namespace: Option<&str>) -> Api<DynamicObject> {
        if resolved.namespaced {
            let namespace = namespace.unwrap_or(&self.namespace);
            Api::namespaced_with(self.client.clone(), namespace, &resolved.resource)
        } else {
            Api::all_with(self.client.clone(), &resolved.resource)
        }
    }

    async fn resolve(&self, api_version: &str, kind: &str) -> Result<Resolved, ApplyError> {
        let key = (api_version.to_owned(), kind.to_owned());
        if let Some(known) = self.kinds.lock().expect("no holder panics").get(&key) {
            return Ok(known.clone());
        }
        let gvk = gvk(api_version, kind);
        let (found, runs) = match discovery::pinned_kind(&self.client, &gvk).await {
            Ok(found) => (found, !INERT.contains(&kind)),
            Err(error) => (self.accept(api_version, kind, &gvk, error).await?, false),
        };
        let (resource, capabilities) = found;
        let resolved = Resolved {
            resource,
            namespaced: capabilities.scope == Scope::Namespaced,
            runs,
        };
        self.kinds
            .lock()
            .expect("no holder panics")
            .insert(key, resolved.clone());
        Ok(resolved)
    }

    async fn accept(
        &self,
        api_version: &str,
        kind: &str,
        gvk: &GroupVersionKind,
        error: kube::Error,
    ) -> Result<(ApiResource, discovery::ApiCapabilities), ApplyError> {
        let unknown = |reason: String| ApplyError::UnknownKind {
            api_version: api_version.to_owned(),
            kind: kind.to_owned(),
            reason,
        };
        let accept = self.accept.as_ref().ok_or_else(|| unknown(error.to_string()))?;
        accept(api_version, kind).map_err(unknown)?;
        discovery::pinned_kind(&self.client, gvk)
            .await
            .map_err(|error| unknown(error.to_string()))
    }
}

fn gvk(api_version: &str, kind: &str) -> GroupVersionKind {
    let (group, version) = api_version.split_once('/').unwrap_or(("", api_version));
    GroupVersionKind::gvk(group, version, kind)
}

/// The object with annotations that say where it is declared.
fn annotated(manifest: &Manifest) -> Value {
    let mut object = manifest.object.clone();
    let mut places = vec![
        (labels::SOURCE_FILE, manifest.file.clone()),
        (labels::SOURCE_LINE, manifest.line.to_string()),
    ];
    places.extend(
        manifest
            .config_line
            .map(|line| (labels::CONFIG_LINE, line.to_string())),
    );
    let annotations = &mut object["metadata"]["annotations"];
    if !annotations.is_object() {
        *annotations = Value::Object(serde_json::Map::new());
    }
    for (key, value) in places {
        annotations[key] = Value::String(value);
    }
    object
}

/// The field paths that a 409 of server-side apply names.
fn conflicts(status: &Status) -> BTreeSet<String> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let taken = causes.filter(|cause| cause.reason == "FieldManagerConflict" && !cause.field.is_empty());
    taken.map(|cause| cause.field.clone()).collect()
}

/// Takes the named fields out of the object; says whether any was there.
fn withdraw(object: &mut Value, paths: &BTreeSet<String>) -> bool {
    fn walk(value: &mut Value, prefix: &str, paths: &BTreeSet<String>) -> bool {
        let Value::Object(map) = value else { return false };
        let before = map.len();
        map.retain(|key, _| !paths.contains(&format!("{prefix}.{key}")));
        let mut removed = before != map.len();
        for (key, value) in map.iter_mut() {
            removed |= walk(value, &format!("{prefix}.{key}"), paths);
        }
        removed
    }
    // A path inside a list (`.spec.ports[name="x"].port`) cannot be taken out alone: its list goes.
    let paths = paths
        .iter()
        .map(|path| path.split('[').next().unwrap_or(path).to_owned())
        .collect();
    walk(object, "", &paths)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_field_that_a_controller_took_over_is_left_to_it() {
        let status = json!({"status": "Failure", "code": 409, "details": {"causes": [
            {"reason": "FieldManagerConflict", "field": ".metadata.labels.skupper.io/type", "message": "conflict with x"}
        ]}});
        let taken = conflicts(&serde_json::from_value(status).unwrap());
        let mut object = json!({"metadata": {"labels": {"skupper.io/type": "a", "b": "c"}}});
        assert!(withdraw(&mut object, &taken));
        assert_eq!(object, json!({"metadata": {"labels": {"b": "c"}}}));
        assert!(!withdraw(&mut object, &taken));
    }

    #[test]
    fn an_object_says_where_it_is_declared() {
        let text = "apiVersion: v1\nkind: Secret\nmetadata: {name: a, annotations: {x: y}}\n";
        let manifest = crate::manifest::parse("f.yaml", text).unwrap().remove(0);
        let annotations = annotated(&manifest)["metadata"]["annotations"].clone();
        let expected = json!({"x": "y", "karez.dev/source-file": "f.yaml", "karez.dev/source-line": "1"});
        assert_eq!(annotations, expected);
    }
}
