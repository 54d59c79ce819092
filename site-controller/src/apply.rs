//! The one place that writes to an API: server-side apply of what a plan says, deletions, filled tokens, Events.
//!
//! An object is sent only when the plan for it changed or the live object differs from it, so that a plan that
//! is already so costs no request.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, EventSource, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::api::{DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::Value;
use sha2::{Digest, Sha256};

use crate::object::{ObjectRef, is_within};
use crate::plan::{Note, SecretChange};

/// How long to leave an object alone that does not become what is planned.
const STUBBORN: Duration = Duration::from_secs(30);

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ApplyError {
    /// The API refused or could not be reached.
    #[error("cannot {verb} {object}: {source}")]
    Api {
        verb: &'static str,
        object: ObjectRef,
        #[source]
        source: Box<kube::Error>,
    },
}

struct Sent {
    planned: [u8; 32],
    at: Instant,
}

/// Writes for one controller.
pub(crate) struct Applier {
    client: Client,
    manager: &'static str,
    sent: BTreeMap<(String, String, String), Sent>,
    events: BTreeMap<String, BTreeSet<String>>,
}

impl Applier {
    /// Writes as this field manager.
    pub(crate) fn new(client: Client, manager: &'static str) -> Self {
        Self {
            client,
            manager,
            sent: BTreeMap::new(),
            events: BTreeMap::new(),
        }
    }

    /// Applies an object unless it is already so.
    pub(crate) async fn apply(&mut self, planned: &Value, live: Option<&Value>) -> Result<(), ApplyError> {
        let object = ObjectRef::of(planned);
        let digest: [u8; 32] = Sha256::digest(planned.to_string()).into();
        if let (Some(sent), Some(live)) = (self.sent.get(&object.key()), live)
            && sent.planned == digest
            && (is_within(planned, live) || sent.at.elapsed() < STUBBORN)
        {
            return Ok(());
        }
        self.patch(&object, planned, None).await?;
        tracing::debug!(%object, "applied");
        self.sent.insert(
            object.key(),
            Sent {
                planned: digest,
                at: Instant::now(),
            },
        );
        Ok(())
    }

    /// Applies a status.
    pub(crate) async fn status(&mut self, planned: &Value, live: Option<&Value>) -> Result<(), ApplyError> {
        if live.is_some_and(|live| is_within(&planned["status"], &live["status"])) {
            return Ok(());
        }
        self.patch(&ObjectRef::of(planned), planned, Some("status")).await
    }

    async fn patch(
        &self,
        object: &ObjectRef,
        planned: &Value,
        subresource: Option<&'static str>,
    ) -> Result<(), ApplyError> {
        let api = self.api(object);
        let params = PatchParams::apply(self.manager).force();
        let patch = Patch::Apply(planned);
        let sent = match subresource {
            None => api.patch(&object.name, &params, &patch).await,
            Some(_) => api.patch_status(&object.name, &params, &patch).await,
        };
        sent.map(drop).map_err(|source| failed("apply", object, source))
    }

    /// Deletes an object; one that is gone already is fine.
    pub(crate) async fn delete(&mut self, object: &ObjectRef) -> Result<(), ApplyError> {
        self.sent.remove(&object.key());
        match self
            .api(object)
            .delete(&object.name, &DeleteParams::background())
            .await
        {
            Ok(_) => {
                tracing::info!(%object, "deleted: no longer wanted");
                Ok(())
            }
            Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
            Err(source) => Err(failed("delete", object, source)),
        }
    }

    /// Changes some keys of a Secret.
    pub(crate) async fn change_secret(
        &self,
        namespace: &str,
        change: &SecretChange,
    ) -> Result<(), ApplyError> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
        let data: serde_json::Map<String, Value> = change
            .data
            .iter()
            .map(|(key, value)| {
                let encoded = value
                    .as_ref()
                    .map(|value| Value::String(BASE64_STANDARD.encode(value)));
                (key.clone(), encoded.unwrap_or(Value::Null))
            })
            .collect();
        let patch = serde_json::json!({"metadata": {"annotations": change.annotations}, "data": data});
        let params = PatchParams {
            field_manager: Some(self.manager.to_owned()),
            ..PatchParams::default()
        };
        let sent = api.patch(&change.secret, &params, &Patch::Merge(&patch)).await;
        sent.map(drop).map_err(|source| {
            let object = ObjectRef {
                api_version: "v1".to_owned(),
                kind: "Secret".to_owned(),
                namespace: namespace.to_owned(),
                name: change.secret.clone(),
            };
            failed("change", &object, source)
        })
    }

    /// Replaces a Secret, only in the version that was read.
    pub(crate) async fn replace_secret(&self, secret: &Secret) -> Result<(), ApplyError> {
        let namespace = secret.metadata.namespace.clone().unwrap_or_default();
        let name = secret.metadata.name.clone().unwrap_or_default();
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &namespace);
        let params = PostParams {
            field_manager: Some(self.manager.to_owned()),
            ..PostParams::default()
        };
        api.replace(&name, &params, secret)
            .await
            .map(drop)
            .map_err(|source| {
                let object = ObjectRef {
                    api_version: "v1".to_owned(),
                    kind: "Secret".to_owned(),
                    namespace: namespace.clone(),
                    name: name.clone(),
                };
                failed("replace", &object, source)
            })
    }

    /// Creates an authority. One that is there already stays: it is only marked as ours, to be seen from now on.
    pub(crate) async fn create_authority(&self, secret: &Secret) -> Result<(), ApplyError> {
        let object = ObjectRef::of(&crate::object::json(secret));
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &object.namespace);
        let params = PostParams {
            field_manager: Some(self.manager.to_owned()),
            ..PostParams::default()
        };
        match api.create(&params, secret).await {
            Ok(_) => Ok(()),
            Err(source @ kube::Error::Api(_)) if is_conflict(&source) => {
                let mark = serde_json::json!({"metadata": {"labels": secret.metadata.labels}});
                let marked = api
                    .patch(&object.name, &PatchParams::default(), &Patch::Merge(&mark))
                    .await;
                marked.map_err(|source| failed("mark", &object, source))?;
                Err(failed("create", &object, source))
            }
            Err(source) => Err(failed("create", &object, source)),
        }
    }

    /// Publishes notes as Events, each once while it holds, and takes back those that no longer do.
    ///
    /// `scope` is the namespace that the notes are about as a whole, so that those of others stay.
    pub(crate) async fn publish(&mut self, scope: &str, notes: &[Note], now: Timestamp) {
        let before = match self.events.remove(scope) {
            Some(before) => before,
            None => self.published_before(scope).await,
        };
        let mut current = BTreeSet::new();
        for note in notes {
            let event = event(note, self.manager, now);
            let namespace = event.metadata.namespace.clone().unwrap_or_default();
            let name = event.metadata.name.clone().unwrap_or_default();
            let id = format!("{namespace}/{name}");
            if before.contains(&id) || current.contains(&id) {
                current.insert(id);
                continue;
            }
            log(note);
            let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => {
                    current.insert(id);
                }
                Err(kube::Error::Api(status)) if status.code == 409 => {
                    current.insert(id);
                }
                Err(error) => tracing::debug!(%error, "cannot publish an Event"),
            }
        }
        for id in before.difference(&current) {
            let Some((namespace, name)) = id.split_once('/') else {
                continue;
            };
            let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
            if let Err(error) = api.delete(name, &DeleteParams::default()).await {
                tracing::debug!(%error, name, "cannot take back an Event");
            }
        }
        self.events.insert(scope.to_owned(), current);
    }

    /// Events of an earlier run in a namespace: they hold on, or are taken back like any other.
    async fn published_before(&self, namespace: &str) -> BTreeSet<String> {
        let api: Api<Event> = Api::namespaced(self.client.clone(), namespace);
        let listed = match api.list(&ListParams::default()).await {
            Ok(listed) => listed.items,
            Err(error) => {
                tracing::debug!(%error, namespace, "cannot list Events");
                return BTreeSet::new();
            }
        };
        let own = |event: &Event| {
            let source = event
                .source
                .as_ref()
                .and_then(|source| source.component.as_deref());
            source == Some(self.manager)
        };
        let names = listed
            .iter()
            .filter(|event| own(event))
            .filter_map(|event| event.metadata.name.as_ref());
        names.map(|name| format!("{namespace}/{name}")).collect()
    }

    fn api(&self, object: &ObjectRef) -> Api<DynamicObject> {
        let resource = object.resource();
        if object.namespace.is_empty() {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), &object.namespace, &resource)
        }
    }
}

fn failed(verb: &'static str, object: &ObjectRef, source: kube::Error) -> ApplyError {
    ApplyError::Api {
        verb,
        object: object.clone(),
        source: Box::new(source),
    }
}

fn is_conflict(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 409)
}

fn log(note: &Note) {
    let kind = note.about.kind.as_deref().unwrap_or_default();
    let name = note.about.name.as_deref().unwrap_or_default();
    if note.warning {
        tracing::warn!(kind, name, reason = note.reason, "{}", note.message);
    } else {
        tracing::info!(kind, name, reason = note.reason, "{}", note.message);
    }
}

/// The Event of a note. Its name follows from what it says, so that saying it again changes nothing.
fn event(note: &Note, manager: &str, now: Timestamp) -> Event {
    let about = &note.about;
    let mut hash = Sha256::new();
    for part in [
        about.kind.as_deref(),
        about.uid.as_deref(),
        Some(note.reason),
        Some(&note.message),
    ] {
        hash.update(part.unwrap_or_default());
        hash.update([0]);
    }
    let digest = hex::encode(&hash.finalize()[..8]);
    let name: String = about
        .name
        .as_deref()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{name}.{digest}")),
            namespace: Some(about.namespace.clone().unwrap_or_else(|| "default".to_owned())),
            ..ObjectMeta::default()
        },
        involved_object: about.clone(),
        type_: Some(if note.warning { "Warning" } else { "Normal" }.to_owned()),
        reason: Some(note.reason.to_owned()),
        // The API refuses longer ones.
        message: Some(note.message.chars().take(1000).collect()),
        source: Some(EventSource {
            component: Some(manager.to_owned()),
            ..EventSource::default()
        }),
        count: Some(1),
        first_timestamp: Some(Time(now)),
        last_timestamp: Some(Time(now)),
        reporting_component: Some(String::new()),
        reporting_instance: Some(String::new()),
        ..Event::default()
    }
}
