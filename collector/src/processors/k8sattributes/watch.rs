//! Follows Pods, and where their labels are asked for namespaces and nodes, and keeps the index of them.

use std::collections::BTreeMap;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures::{Stream, StreamExt, stream};
use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use karez_collector_config::k8s_attributes as config;
use kube::runtime::WatchStreamExt;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use regex::RegexSet;
use serde::de::DeserializeOwned;
use tokio::sync::watch::Sender;
use tokio::time::Instant;

use super::extract::Rules;
use super::index::{Index, Ways};

/// Data of a Pod that is gone may come for this long.
const REMEMBERED: Duration = Duration::from_secs(120);
/// Changes that come together are indexed together.
const GATHER: Duration = Duration::from_millis(100);

/// What is followed, and how.
pub(super) struct Watch {
    pub(super) client: Client,
    pub(super) filter: config::Filter,
    /// The node whose Pods are followed; empty for all.
    pub(super) node: String,
    pub(super) excluded: RegexSet,
    pub(super) rules: Arc<Rules>,
    pub(super) ways: Arc<Ways>,
    pub(super) index: Arc<ArcSwap<Index>>,
    /// Becomes true when everything has been listed once.
    pub(super) synced: Sender<bool>,
}

/// One thing that happened.
enum News {
    Pod(Box<Event<Pod>>),
    Namespace(Box<Event<Namespace>>),
    Node(Box<Event<Node>>),
}

/// The objects of a kind, by namespace and name.
struct Seen<K> {
    objects: BTreeMap<(String, String), K>,
    listing: Option<BTreeMap<(String, String), K>>,
    listed: bool,
}

impl<K: Resource> Seen<K> {
    fn new(followed: bool) -> Self {
        Seen {
            objects: BTreeMap::new(),
            listing: None,
            listed: !followed,
        }
    }

    /// Takes an event, and gives the objects that went by it.
    fn take(&mut self, event: Event<K>) -> Vec<K> {
        let key = |object: &K| (object.namespace().unwrap_or_default(), object.name_any());
        match event {
            Event::Init => self.listing = Some(BTreeMap::new()),
            Event::InitApply(object) => {
                self.listing.get_or_insert_default().insert(key(&object), object);
            }
            Event::InitDone => {
                self.listed = true;
                let now = self.listing.take().unwrap_or_default();
                let before = std::mem::replace(&mut self.objects, now);
                let gone = before
                    .into_iter()
                    .filter(|(key, _)| !self.objects.contains_key(key));
                return gone.map(|(_, object)| object).collect();
            }
            Event::Apply(object) => {
                self.objects.insert(key(&object), object);
            }
            Event::Delete(object) => {
                self.objects.remove(&key(&object));
                return vec![object];
            }
        }
        Vec::new()
    }
}

impl Watch {
    /// Follows for ever.
    pub(super) async fn run(self) {
        let (of_namespaces, of_nodes) = (
            self.rules.asks(config::From::Namespace),
            self.rules.asks(config::From::Node),
        );
        let mut pods = Seen::new(true);
        let mut namespaces = Seen::new(of_namespaces);
        let mut nodes = Seen::new(of_nodes);
        let mut gone: Vec<(Instant, Pod)> = Vec::new();
        let mut news = pin!(self.news(of_namespaces, of_nodes));
        let mut due: Option<Instant> = None;
        let mut forget = tokio::time::interval(REMEMBERED / 4);
        loop {
            tokio::select! {
                Some(news) = news.next() => {
                    match news {
                        News::Pod(event) => {
                            let went = pods.take(*event).into_iter().map(|pod| (Instant::now(), pod));
                            gone.extend(went);
                        }
                        News::Namespace(event) => drop(namespaces.take(*event)),
                        News::Node(event) => drop(nodes.take(*event)),
                    }
                    due.get_or_insert_with(|| Instant::now() + GATHER);
                }
                _ = forget.tick() => {
                    let before = gone.len();
                    gone.retain(|(since, _)| since.elapsed() < REMEMBERED);
                    if gone.len() != before {
                        due.get_or_insert_with(Instant::now);
                    }
                }
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => {
                    due = None;
                    if !(pods.listed && namespaces.listed && nodes.listed) {
                        continue;
                    }
                    // Those that are there come last, and so outdo those that are gone.
                    let all = gone.iter().map(|(_, pod)| pod).chain(pods.objects.values());
                    let kept = all.filter(|pod| !self.excluded.is_match(&pod.name_any()));
                    let index = Index::new(
                        &self.rules,
                        &self.ways,
                        kept,
                        namespaces.objects.values(),
                        nodes.objects.values(),
                    );
                    self.index.store(Arc::new(index));
                    self.synced.send_replace(true);
                }
            }
        }
    }

    fn news(&self, of_namespaces: bool, of_nodes: bool) -> impl Stream<Item = News> + use<> {
        let pods: Api<Pod> = match self.filter.namespace.as_str() {
            "" => Api::all(self.client.clone()),
            namespace => Api::namespaced(self.client.clone(), namespace),
        };
        let select = watcher::Config {
            label_selector: Some(self.filter.label_selector()).filter(|selector| !selector.is_empty()),
            field_selector: Some(self.filter.field_selector(&self.node))
                .filter(|selector| !selector.is_empty()),
            ..watcher::Config::default()
        };
        let mut all = stream::SelectAll::new();
        all.push(
            follow(pods, select)
                .map(|event| News::Pod(Box::new(event)))
                .boxed(),
        );
        if of_namespaces {
            let api: Api<Namespace> = Api::all(self.client.clone());
            all.push(
                follow(api, watcher::Config::default())
                    .map(|event| News::Namespace(Box::new(event)))
                    .boxed(),
            );
        }
        if of_nodes {
            let api: Api<Node> = Api::all(self.client.clone());
            all.push(
                follow(api, watcher::Config::default())
                    .map(|event| News::Node(Box::new(event)))
                    .boxed(),
            );
        }
        all
    }
}

fn follow<K>(api: Api<K>, select: watcher::Config) -> impl Stream<Item = Event<K>> + Send
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    let mut said = String::new();
    watcher(api, select).default_backoff().filter_map(move |event| {
        let event = event
            .inspect_err(|error| {
                let error = error.to_string();
                if error != said {
                    let kind = K::kind(&());
                    tracing::warn!(
                        %kind, error,
                        "k8sattributes cannot follow the API; its ServiceAccount needs get, list and watch of this kind"
                    );
                    said = error;
                }
            })
            .ok();
        std::future::ready(event)
    })
}
