//! Prometheus' custom resources, followed: each changed object alone is converted again, a bad one is refused alone.
//!
//! ```text
//! watches of four kinds, of Namespaces ─▶ Objects ─▶ monitors::jobs ─▶ Resources (jobs, what is refused)
//! Secrets that jobs name, asked for again and again ─┘                     └─▶ an Event on what is refused
//! ```
//!
//! A kind whose definition is not installed is said once and waited for.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use futures::stream::{BoxStream, SelectAll};
use futures::{FutureExt, StreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Namespace, ObjectReference, Secret};
use karez_scrape::config::ScrapeConfig;
use kube::api::{ApiResource, DynamicObject, GroupVersionKind};
use kube::runtime::events::{Event as KubeEvent, EventType, Recorder};
use kube::runtime::watcher::Event;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde_json::Value;
use tokio::sync::watch;

use crate::config::{AllocatorConfig, PrometheusResources};
use crate::monitors::{self, Context, Kind, Known, Reference, Refusal, Secrets};

pub(super) const GROUP: &str = "monitoring.coreos.com";
/// What comes within this time is converted together.
const TOGETHER: Duration = Duration::from_millis(100);
/// How often Secrets are looked at again.
const SECRETS: Duration = Duration::from_secs(30);
/// The largest Secret or ConfigMap that is taken.
const MAX_SECRET: usize = 1 << 20;

/// What the resources say.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Resources {
    /// Jobs.
    pub(crate) jobs: Vec<ScrapeConfig>,
    /// What is wrong with which.
    pub(crate) refused: Vec<(String, String)>,
    /// Whether each kind has told what there is, or cannot be read.
    pub(crate) heard: bool,
}

/// Follows the resources until nobody listens.
pub(crate) fn watch(config: &AllocatorConfig, client: Option<Client>) -> watch::Receiver<Resources> {
    let (sender, receiver) = watch::channel(Resources::default());
    match (config.prometheus.clone(), client) {
        (Some(config), Some(client)) => drop(tokio::spawn(Follower::new(config, client).follow(sender))),
        _ => sender.send_modify(|resources| resources.heard = true),
    }
    receiver
}

/// What a watch tells.
enum Told {
    Object(Kind, Event<DynamicObject>),
    Namespace(Event<Namespace>),
    /// A watch of a kind fails, or of Namespaces.
    Failed(Option<Kind>, watcher::Error),
}

/// A resource as it was converted last.
struct Object {
    object: DynamicObject,
    converted: Option<Result<Vec<ScrapeConfig>, Refusal>>,
}

type Key = (Kind, String, String);

struct Follower {
    config: PrometheusResources,
    client: Client,
    objects: BTreeMap<Key, Object>,
    /// What a list that is being told holds so far.
    listed: BTreeMap<Kind, HashSet<Key>>,
    /// Watches, by kind (none for Namespaces), that have not told yet what there is.
    awaited: BTreeMap<Option<Kind>, usize>,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
    secrets: Secrets,
    said: BTreeMap<Option<Kind>, String>,
    recorder: Recorder,
    published: BTreeMap<Key, String>,
}

impl Follower {
    fn new(config: PrometheusResources, client: Client) -> Self {
        Follower {
            secrets: Secrets::allowed_in(&config.secret_namespaces),
            recorder: Recorder::new(client.clone(), "karez-allocator".into()),
            config,
            client,
            objects: BTreeMap::new(),
            listed: BTreeMap::new(),
            awaited: BTreeMap::new(),
            namespaces: BTreeMap::new(),
            said: BTreeMap::new(),
            published: BTreeMap::new(),
        }
    }

    async fn follow(mut self, sender: watch::Sender<Resources>) {
        let mut streams = self.streams();
        let mut heard = self.awaited.is_empty();
        sender.send_modify(|resources| resources.heard = heard);
        let mut again = tokio::time::interval(SECRETS);
        again.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                told = streams.next() => {
                    let Some(told) = told else { return };
                    let mut changed = self.take(told);
                    tokio::time::sleep(TOGETHER).await;
                    while let Some(Some(told)) = streams.next().now_or_never() {
                        changed |= self.take(told);
                    }
                    if !changed && heard == self.awaited.is_empty() {
                        continue;
                    }
                    heard = self.awaited.is_empty();
                }
                _ = again.tick() => {
                    if self.secrets.known.is_empty() || !self.look_again().await {
                        continue;
                    }
                }
                () = sender.closed() => return,
            }
            let resources = self.convert().await;
            sender.send_if_modified(|before| std::mem::replace(before, resources.clone()) != resources);
        }
    }

    fn streams(&mut self) -> SelectAll<BoxStream<'static, Told>> {
        let mut streams = SelectAll::new();
        let selections = Kind::ALL.into_iter().zip(&self.config.kinds);
        let mut by_namespace = false;
        for (kind, selection) in selections.filter(|(_, selection)| selection.objects.is_some()) {
            by_namespace |= selection.namespaces.is_some();
            let version = GroupVersionKind::gvk(GROUP, kind.version(), kind.name());
            let resource = ApiResource::from_gvk_with_plural(&version, kind.plural());
            // In namespaces that are named the right to read those is enough.
            let scopes = match self.config.allow_namespaces.as_slice() {
                [] => vec![Api::<DynamicObject>::all_with(self.client.clone(), &resource)],
                named => {
                    let api = |name: &String| Api::namespaced_with(self.client.clone(), name, &resource);
                    named.iter().map(api).collect()
                }
            };
            self.awaited.insert(Some(kind), scopes.len());
            for api in scopes {
                let events = watcher(api, watcher::Config::default()).default_backoff();
                let told = move |event| match event {
                    Ok(event) => Told::Object(kind, event),
                    Err(error) => Told::Failed(Some(kind), error),
                };
                streams.push(events.map(told).boxed());
            }
        }
        if by_namespace {
            self.awaited.insert(None, 1);
            let api: Api<Namespace> = Api::all(self.client.clone());
            let events = watcher(api, watcher::Config::default()).default_backoff();
            let told = |event| match event {
                Ok(event) => Told::Namespace(event),
                Err(error) => Told::Failed(None, error),
            };
            streams.push(events.map(told).boxed());
        }
        streams
    }

    /// Takes what a watch tells; whether anything may be other than before.
    fn take(&mut self, told: Told) -> bool {
        match told {
            Told::Object(kind, event) => {
                if self.said.remove(&Some(kind)).is_some() {
                    tracing::info!(kind = kind.name(), "the resources can be read now");
                }
                if matches!(event, Event::InitDone) {
                    self.told_all(Some(kind));
                }
                self.take_object(kind, event)
            }
            Told::Namespace(event) => {
                self.said.remove(&None);
                match event {
                    Event::Apply(namespace) | Event::InitApply(namespace) => {
                        self.namespaces
                            .insert(namespace.name_any(), namespace.labels().clone());
                    }
                    Event::Delete(namespace) => drop(self.namespaces.remove(&namespace.name_any())),
                    Event::Init => self.namespaces.clear(),
                    Event::InitDone => self.told_all(None),
                }
                true
            }
            Told::Failed(kind, error) => {
                self.fail(kind, &error);
                // What cannot be read is not waited for.
                self.awaited.remove(&kind);
                false
            }
        }
    }

    fn told_all(&mut self, kind: Option<Kind>) {
        if let Some(left) = self.awaited.get_mut(&kind) {
            *left = left.saturating_sub(1);
        }
        self.awaited.retain(|_, left| *left > 0);
    }

    fn take_object(&mut self, kind: Kind, event: Event<DynamicObject>) -> bool {
        match event {
            Event::Init => {
                self.listed.insert(kind, HashSet::new());
                false
            }
            Event::InitDone => {
                // With a watch for each of several namespaces each list tells of its own only.
                let listed = self.listed.remove(&kind).unwrap_or_default();
                if self.config.allow_namespaces.len() < 2 {
                    self.objects
                        .retain(|key, _| key.0 != kind || listed.contains(key));
                }
                true
            }
            Event::Apply(object) | Event::InitApply(object) => {
                let key = (kind, object.namespace().unwrap_or_default(), object.name_any());
                if let Some(listed) = self.listed.get_mut(&kind) {
                    listed.insert(key.clone());
                }
                let known = self.objects.get(&key).map(|known| &known.object);
                let same = known.is_some_and(|known| {
                    known.data.get("spec") == object.data.get("spec") && known.labels() == object.labels()
                });
                if !same {
                    self.objects.insert(
                        key,
                        Object {
                            object,
                            converted: None,
                        },
                    );
                }
                !same
            }
            Event::Delete(object) => {
                let key = (kind, object.namespace().unwrap_or_default(), object.name_any());
                self.objects.remove(&key).is_some()
            }
        }
    }

    /// Says once why a kind cannot be read.
    fn fail(&mut self, kind: Option<Kind>, error: &watcher::Error) {
        let (name, group, resource) = match kind {
            Some(kind) => (kind.name(), GROUP, kind.plural()),
            None => ("Namespace", "", "namespaces"),
        };
        let text = super::reason(error, group, resource);
        if self.said.get(&kind) != Some(&text) {
            tracing::warn!(kind = name, reason = text, "the resources cannot be read");
            self.said.insert(kind, text);
        }
    }

    fn selects(&self, key: &Key, object: &DynamicObject) -> bool {
        let (kind, namespace, _) = key;
        let selection = Kind::ALL
            .iter()
            .position(|other| other == kind)
            .and_then(|at| self.config.kinds.get(at));
        let Some(selection) = selection else {
            return false;
        };
        let (allow, deny) = (&self.config.allow_namespaces, &self.config.deny_namespaces);
        let allowed = (allow.is_empty() || allow.contains(namespace)) && !deny.contains(namespace);
        let empty = BTreeMap::new();
        let labels = self.namespaces.get(namespace).unwrap_or(&empty);
        allowed
            && selection
                .objects
                .as_ref()
                .is_some_and(|selector| selector.matches(object.labels()))
            && selection
                .namespaces
                .as_ref()
                .is_none_or(|selector| selector.matches(labels))
    }

    /// Converts what is not converted yet, and asks for the Secrets that this needs.
    async fn convert(&mut self) -> Resources {
        loop {
            let cx = Context {
                config: &self.config,
                secrets: &self.secrets,
            };
            for ((kind, namespace, name), object) in &mut self.objects {
                if !matches!(object.converted, None | Some(Err(Refusal::Pending))) {
                    continue;
                }
                let spec = object.object.data.get("spec").unwrap_or(&Value::Null);
                let resource = monitors::Resource {
                    namespace,
                    name,
                    spec,
                };
                object.converted = Some(monitors::jobs(*kind, resource, &cx));
            }
            let wanted = self.secrets.take_wanted();
            let unknown: Vec<Reference> = wanted
                .into_iter()
                .filter(|reference| !self.secrets.known.contains_key(reference))
                .collect();
            if unknown.is_empty() {
                break;
            }
            for reference in unknown {
                let known = self.fetch(&reference).await;
                self.secrets.known.insert(reference, known);
            }
        }
        self.told().await
    }

    /// The jobs of what is selected, and Events on what is refused.
    async fn told(&mut self) -> Resources {
        let mut resources = Resources {
            heard: self.awaited.is_empty(),
            ..Resources::default()
        };
        let mut wrong: Vec<(Key, String, ObjectReference)> = Vec::new();
        for (key, object) in &self.objects {
            if !self.selects(key, &object.object) {
                continue;
            }
            match &object.converted {
                Some(Ok(jobs)) => resources.jobs.extend(jobs.iter().cloned()),
                Some(Err(Refusal::Wrong(reason))) => {
                    let kind = GroupVersionKind::gvk(GROUP, key.0.version(), key.0.name());
                    let reference = object
                        .object
                        .object_ref(&ApiResource::from_gvk_with_plural(&kind, key.0.plural()));
                    wrong.push((key.clone(), reason.clone(), reference));
                }
                Some(Err(Refusal::Pending)) | None => {}
            }
        }
        self.published
            .retain(|key, _| wrong.iter().any(|(other, ..)| other == key));
        for (key, reason, reference) in wrong {
            let what = format!("{} {}/{}", key.0.name(), key.1, key.2);
            if self.published.get(&key) != Some(&reason) {
                tracing::warn!(resource = what, reason, "a resource is refused");
                self.publish(&reason, &reference).await;
                self.published.insert(key, reason.clone());
            }
            resources.refused.push((what, reason));
        }
        resources
    }

    async fn publish(&self, reason: &str, reference: &ObjectReference) {
        let note: String = reason.chars().take(900).collect();
        let event = KubeEvent {
            type_: EventType::Warning,
            reason: "Refused".to_owned(),
            note: Some(note),
            action: "Convert".to_owned(),
            secondary: None,
        };
        if let Err(error) = self.recorder.publish(&event, reference).await {
            tracing::debug!(%error, "no Event can be made");
        }
    }

    async fn fetch(&self, reference: &Reference) -> Known {
        let Reference {
            secret,
            namespace,
            name,
        } = reference;
        let failed = |error: kube::Error| match &error {
            kube::Error::Api(status) if status.code == 404 => "is not there".to_owned(),
            kube::Error::Api(status) if status.code == 403 => {
                let kind = if *secret { "secrets" } else { "configmaps" };
                format!(
                    "may not be read: the Role needs `{{apiGroups: [\"\"], resources: [{kind}], verbs: [get]}}`"
                )
            }
            _ => error.to_string(),
        };
        let data: BTreeMap<String, Vec<u8>> = match secret {
            true => {
                let api: Api<Secret> = Api::namespaced(self.client.clone(), namespace);
                let data = api.get(name).await.map_err(failed)?.data.unwrap_or_default();
                data.into_iter().map(|(key, value)| (key, value.0)).collect()
            }
            false => {
                let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), namespace);
                let data = api.get(name).await.map_err(failed)?.data.unwrap_or_default();
                data.into_iter()
                    .map(|(key, value)| (key, value.into_bytes()))
                    .collect()
            }
        };
        if data.values().map(Vec::len).sum::<usize>() > MAX_SECRET {
            return Err("is too large".to_owned());
        }
        let text = |(key, value)| String::from_utf8(value).ok().map(|value| (key, value));
        Ok(data.into_iter().filter_map(text).collect())
    }

    /// Asks for the Secrets again; whether any is other than before. What uses one is converted again then.
    async fn look_again(&mut self) -> bool {
        let known: Vec<Reference> = self.secrets.known.keys().cloned().collect();
        let mut changed = false;
        for reference in known {
            let now = self.fetch(&reference).await;
            changed |= self.secrets.known.insert(reference, now.clone()) != Some(now);
        }
        if changed {
            // Who uses what is not noted: all are converted again.
            self.objects
                .values_mut()
                .for_each(|object| object.converted = None);
        }
        changed
    }
}
