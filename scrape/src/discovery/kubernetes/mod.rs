//! `kubernetes_sd_configs`: objects are watched, each is a group.
//!
//! ```text
//! watch of the role's objects ──┐                               ┌─▶ objects (pure) ─▶ Group ─▶ Sink
//! watches of Services, Pods, …  ┴▶ stores, who refers to whom ──┘
//! ```
//!
//! Nothing is given before every watch has told what there is, as a group without its Pods' labels is a wrong group.

mod client;
pub mod objects;
mod slim;
mod store;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use futures::stream::{BoxStream, SelectAll};
use futures::{Stream, StreamExt};
use k8s_openapi::api::core::v1::{Endpoints, Namespace, Node, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use karez_scrape_config::Group;
use karez_scrape_config::discovery::{KubernetesDiscovery, Role};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt, watcher as watch};
use kube::{Api, Client, ResourceExt};
use serde::de::DeserializeOwned;

use super::{Context, Health, Sink};
use objects::Others;
use slim::Slim;
use store::{Key, Store};

pub(super) async fn run(config: KubernetesDiscovery, sink: Sink, cx: Context) {
    let mut health = Health::default();
    let client = loop {
        match client::make(&config, &cx).await {
            Ok(client) => break client,
            Err(error) => health.failed(&sink, "kubernetes", &error),
        }
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
    };
    let mut namespaces = config.namespaces.clone();
    if config.own_namespace {
        namespaces.push(client.default_namespace().to_owned());
    }
    if namespaces.is_empty() {
        namespaces.push(String::new());
    }
    namespaces.sort();
    namespaces.dedup();
    let mut watcher = Watcher::new(&config, client, namespaces);
    watcher.follow(&sink, &mut health).await;
}

/// What a watch tells. A moment's value, never kept: boxing each event would cost more than the room it takes.
#[allow(clippy::large_enum_variant)]
enum Told {
    Node(Event<Node>),
    Pod(Event<Pod>),
    Service(Event<Service>),
    Endpoints(Event<Endpoints>),
    Slice(Event<EndpointSlice>),
    Ingress(Event<Ingress>),
    Namespace(Event<Namespace>),
}

/// An object that another's group takes labels from.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Reference {
    Service(Key),
    Pod(Key),
    Node(String),
    Namespace(String),
}

type Heard = (usize, Result<Told, watcher::Error>);

struct Watcher {
    role: Role,
    streams: SelectAll<BoxStream<'static, Heard>>,
    /// The namespace of each watch; empty for all.
    scopes: Vec<String>,
    /// Watches that have not told yet what there is, where groups depend on several.
    silent: HashSet<usize>,
    /// Watches that have not told yet what there is.
    untold: HashSet<usize>,
    nodes: Store<Node>,
    pods: Store<Pod>,
    services: Store<Service>,
    endpoints: Store<Endpoints>,
    slices: Store<EndpointSlice>,
    ingresses: Store<Ingress>,
    namespaces: Store<Namespace>,
    referring: HashMap<Reference, HashSet<Key>>,
    referred: HashMap<Key, Vec<Reference>>,
}

impl Watcher {
    fn new(config: &KubernetesDiscovery, client: Client, namespaces: Vec<String>) -> Self {
        let role = config.role;
        let mixed = matches!(role, Role::Endpoints | Role::EndpointSlice);
        let attached = config.attach_node || config.attach_namespace;
        let mut this = Watcher {
            role,
            streams: SelectAll::new(),
            scopes: Vec::new(),
            silent: HashSet::new(),
            untold: HashSet::new(),
            nodes: Store::new(config.attach_node),
            pods: Store::new(mixed || attached),
            services: Store::new(mixed || attached),
            endpoints: Store::new(true),
            slices: Store::new(true),
            ingresses: Store::new(attached),
            namespaces: Store::new(config.attach_namespace),
            referring: HashMap::new(),
            referred: HashMap::new(),
        };
        let selector = |role: Role| {
            let mut watch = watcher::Config::default();
            if let Some(selector) = config.selectors.iter().find(|selector| selector.role == role) {
                if !selector.label.is_empty() {
                    watch = watch.labels(&selector.label);
                }
                if !selector.field.is_empty() {
                    watch = watch.fields(&selector.field);
                }
            }
            watch
        };
        for namespace in &namespaces {
            let scope = Scope {
                client: client.clone(),
                namespace: namespace.clone(),
            };
            match role {
                Role::Node => {}
                Role::Pod => this.watch(&scope, scope.api(), selector(role), Told::Pod),
                Role::Service => this.watch(&scope, scope.api(), selector(role), Told::Service),
                Role::Ingress => this.watch(&scope, scope.api(), selector(role), Told::Ingress),
                Role::Endpoints => this.watch(&scope, scope.api(), selector(role), Told::Endpoints),
                Role::EndpointSlice => this.watch(&scope, scope.api(), selector(role), Told::Slice),
            }
            if mixed {
                this.watch(&scope, scope.api(), selector(Role::Service), Told::Service);
                this.watch(&scope, scope.api(), selector(Role::Pod), Told::Pod);
            }
        }
        let all = Scope {
            client: client.clone(),
            namespace: String::new(),
        };
        if role == Role::Node || config.attach_node {
            this.watch(&all, Api::all(client.clone()), selector(Role::Node), Told::Node);
        }
        if config.attach_namespace && role != Role::Node {
            this.watch(
                &all,
                Api::all(client),
                watcher::Config::default(),
                Told::Namespace,
            );
        }
        if role == Role::Node || !(mixed || attached) {
            // No group depends on another watch.
            this.silent.clear();
        }
        this
    }

    fn watch<K>(&mut self, scope: &Scope, api: Api<K>, config: watcher::Config, told: fn(Event<K>) -> Told)
    where
        K: kube::Resource + ResourceExt + Slim + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
    {
        let number = self.scopes.len();
        self.scopes.push(scope.namespace.clone());
        self.silent.insert(number);
        self.untold.insert(number);
        self.streams.push(heard(number, api, config, told).boxed());
    }

    async fn follow(&mut self, sink: &Sink, health: &mut Health) {
        while let Some((number, heard)) = self.streams.next().await {
            match heard {
                Ok(told) => {
                    health.works(sink, "kubernetes");
                    let done = is_list_end(&told);
                    let all = done && self.silent.remove(&number) && self.silent.is_empty();
                    let mut changed = self.take(number, told);
                    if all {
                        changed = self.primaries();
                    }
                    if self.silent.is_empty() {
                        changed
                            .into_iter()
                            .for_each(|(key, group)| self.give(sink, &key, group));
                    }
                    if done && self.untold.remove(&number) && self.untold.is_empty() {
                        sink.told();
                    }
                }
                Err(error) => health.failed(sink, "kubernetes", &error),
            }
        }
    }

    /// Takes an event; the groups that it changes.
    fn take(&mut self, number: usize, told: Told) -> Vec<(Key, Option<Group>)> {
        let scope = self.scopes[number].clone();
        let mut changed = Vec::new();
        match told {
            Told::Node(event) => changed = self.node(number, &scope, event),
            Told::Namespace(event) => {
                for (key, _) in self.namespaces.apply(number, &scope, event) {
                    changed.extend(self.referring(&Reference::Namespace(key.1)));
                }
            }
            Told::Pod(event) => {
                for (key, pod) in self.pods.apply(number, &scope, event) {
                    match self.role {
                        Role::Pod => changed.push(self.pod(key, pod)),
                        _ => changed.extend(self.referring(&Reference::Pod(key))),
                    }
                }
            }
            Told::Service(event) => {
                for (key, service) in self.services.apply(number, &scope, event) {
                    match self.role {
                        Role::Service => changed.push(self.service(key, service)),
                        _ => changed.extend(self.referring(&Reference::Service(key))),
                    }
                }
            }
            Told::Ingress(event) => {
                for (key, ingress) in self.ingresses.apply(number, &scope, event) {
                    self.refers(&key, vec![Reference::Namespace(key.0.clone())], ingress.is_some());
                    let group = ingress.map(|ingress| objects::ingress(&ingress, self));
                    changed.push((key, group));
                }
            }
            Told::Endpoints(event) => {
                for (key, endpoints) in self.endpoints.apply(number, &scope, event) {
                    changed.push(self.endpoints(key, endpoints));
                }
            }
            Told::Slice(event) => {
                for (key, slice) in self.slices.apply(number, &scope, event) {
                    changed.push(self.slice(key, slice));
                }
            }
        }
        changed
    }

    fn node(&mut self, number: usize, scope: &str, event: Event<Node>) -> Vec<(Key, Option<Group>)> {
        let old = match &event {
            Event::Apply(node) => self.nodes.get("", &node.name_any()),
            _ => None,
        };
        let mut changed = Vec::new();
        for (key, node) in self.nodes.apply(number, scope, event) {
            if self.role == Role::Node {
                let group = node.map(|node| objects::node(&node).unwrap_or_default());
                changed.push((key, group));
                continue;
            }
            // A Node reports on itself all the time; only its labels concern others.
            let both = old.as_ref().zip(node.as_ref());
            if !both.is_some_and(|(old, node)| same_labels(&old.metadata, &node.metadata)) {
                changed.extend(self.referring(&Reference::Node(key.1)));
            }
        }
        changed
    }

    fn pod(&mut self, key: Key, pod: Option<Arc<Pod>>) -> (Key, Option<Group>) {
        let mut references = vec![Reference::Namespace(key.0.clone())];
        let node = pod.as_ref().and_then(|pod| pod.spec.as_ref()?.node_name.clone());
        references.extend(node.map(Reference::Node));
        self.refers(&key, references, pod.is_some());
        let group = pod.map(|pod| objects::pod(&pod, self));
        (key, group)
    }

    fn service(&mut self, key: Key, service: Option<Arc<Service>>) -> (Key, Option<Group>) {
        self.refers(&key, vec![Reference::Namespace(key.0.clone())], service.is_some());
        let group = service.map(|service| objects::service(&service, self));
        (key, group)
    }

    fn endpoints(&mut self, key: Key, endpoints: Option<Arc<Endpoints>>) -> (Key, Option<Group>) {
        let mut references = vec![
            Reference::Namespace(key.0.clone()),
            Reference::Service(key.clone()),
        ];
        let subsets = endpoints
            .iter()
            .flat_map(|endpoints| endpoints.subsets.iter().flatten());
        for address in subsets.flat_map(|s| {
            s.addresses
                .iter()
                .flatten()
                .chain(s.not_ready_addresses.iter().flatten())
        }) {
            references.extend(address.target_ref.as_ref().and_then(|r| refers_to(r, &key.0)));
            references.extend(address.node_name.clone().map(Reference::Node));
        }
        self.refers(&key, references, endpoints.is_some());
        let group = endpoints.map(|endpoints| objects::endpoints(&endpoints, self));
        (key, group)
    }

    fn slice(&mut self, key: Key, slice: Option<Arc<EndpointSlice>>) -> (Key, Option<Group>) {
        let mut references = vec![Reference::Namespace(key.0.clone())];
        if let Some(slice) = &slice {
            let service = objects::service_of(slice).map(|service| (key.0.clone(), service.to_owned()));
            references.extend(service.map(Reference::Service));
            for endpoint in &slice.endpoints {
                references.extend(endpoint.target_ref.as_ref().and_then(|r| refers_to(r, &key.0)));
                references.extend(endpoint.node_name.clone().map(Reference::Node));
            }
        }
        self.refers(&key, references, slice.is_some());
        let group = slice.map(|slice| objects::endpoint_slice(&slice, self));
        (key, group)
    }

    /// Notes whose labels a group takes.
    fn refers(&mut self, key: &Key, references: Vec<Reference>, there: bool) {
        for old in self.referred.remove(key).unwrap_or_default() {
            if let Some(referring) = self.referring.get_mut(&old) {
                referring.remove(key);
                if referring.is_empty() {
                    self.referring.remove(&old);
                }
            }
        }
        if !there {
            return;
        }
        for reference in &references {
            self.referring
                .entry(reference.clone())
                .or_default()
                .insert(key.clone());
        }
        self.referred.insert(key.clone(), references);
    }

    /// The groups that take labels of an object, made anew.
    fn referring(&mut self, reference: &Reference) -> Vec<(Key, Option<Group>)> {
        if !self.silent.is_empty() {
            return Vec::new();
        }
        let keys: Vec<Key> = self
            .referring
            .get(reference)
            .into_iter()
            .flatten()
            .cloned()
            .collect();
        keys.into_iter().map(|key| self.primary(key)).collect()
    }

    fn primary(&mut self, key: Key) -> (Key, Option<Group>) {
        let (namespace, name) = (&key.0, &key.1);
        let group = match self.role {
            Role::Node => self
                .nodes
                .get(namespace, name)
                .map(|node| objects::node(&node).unwrap_or_default()),
            Role::Pod => self.pods.get(namespace, name).map(|pod| objects::pod(&pod, self)),
            Role::Service => self
                .services
                .get(namespace, name)
                .map(|service| objects::service(&service, self)),
            Role::Ingress => self
                .ingresses
                .get(namespace, name)
                .map(|ingress| objects::ingress(&ingress, self)),
            Role::Endpoints => self
                .endpoints
                .get(namespace, name)
                .map(|e| objects::endpoints(&e, self)),
            Role::EndpointSlice => self
                .slices
                .get(namespace, name)
                .map(|s| objects::endpoint_slice(&s, self)),
        };
        (key, group)
    }

    /// All groups, made anew.
    fn primaries(&mut self) -> Vec<(Key, Option<Group>)> {
        let keys: Vec<Key> = match self.role {
            Role::Node => self.nodes.keys().cloned().collect(),
            Role::Pod => self.pods.keys().cloned().collect(),
            Role::Service => self.services.keys().cloned().collect(),
            Role::Ingress => self.ingresses.keys().cloned().collect(),
            Role::Endpoints => self.endpoints.keys().cloned().collect(),
            Role::EndpointSlice => self.slices.keys().cloned().collect(),
        };
        keys.into_iter().map(|key| self.primary(key)).collect()
    }

    fn give(&self, sink: &Sink, key: &Key, group: Option<Group>) {
        let kind = match self.role {
            Role::Node => "node",
            Role::Pod => "pod",
            Role::Service => "svc",
            Role::Ingress => "ingress",
            Role::Endpoints => "endpoints",
            Role::EndpointSlice => "endpointslice",
        };
        let source = match key.0.is_empty() {
            true => format!("{kind}/{}", key.1),
            false => format!("{kind}/{}/{}", key.0, key.1),
        };
        sink.put(&source.into(), group.map(Arc::new));
    }
}

/// Whether a watch has told all there is.
fn is_list_end(told: &Told) -> bool {
    match told {
        Told::Node(event) => matches!(event, Event::InitDone),
        Told::Pod(event) => matches!(event, Event::InitDone),
        Told::Service(event) => matches!(event, Event::InitDone),
        Told::Endpoints(event) => matches!(event, Event::InitDone),
        Told::Slice(event) => matches!(event, Event::InitDone),
        Told::Ingress(event) => matches!(event, Event::InitDone),
        Told::Namespace(event) => matches!(event, Event::InitDone),
    }
}

/// Where objects are watched.
struct Scope {
    client: Client,
    namespace: String,
}

impl Scope {
    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match self.namespace.is_empty() {
            true => Api::all(self.client.clone()),
            false => Api::namespaced(self.client.clone(), &self.namespace),
        }
    }
}

fn heard<K>(
    number: usize,
    api: Api<K>,
    config: watcher::Config,
    told: fn(Event<K>) -> Told,
) -> impl Stream<Item = Heard> + Send
where
    K: kube::Resource + Slim + Clone + DeserializeOwned + std::fmt::Debug + Send + 'static,
{
    // What nobody reads is not kept.
    let bare = |object: &mut K| object.slim();
    watch(api, config)
        .default_backoff()
        .modify(bare)
        .map(move |heard| (number, heard.map(told)))
}

fn same_labels(
    a: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
    b: &k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta,
) -> bool {
    a.labels == b.labels && a.annotations == b.annotations
}

fn refers_to(reference: &k8s_openapi::api::core::v1::ObjectReference, namespace: &str) -> Option<Reference> {
    let name = reference.name.clone()?;
    match reference.kind.as_deref()? {
        "Pod" => {
            let namespace = reference
                .namespace
                .clone()
                .unwrap_or_else(|| namespace.to_owned());
            Some(Reference::Pod((namespace, name)))
        }
        "Node" => Some(Reference::Node(name)),
        _ => None,
    }
}

impl Others for Watcher {
    fn service(&self, namespace: &str, name: &str) -> Option<Arc<Service>> {
        self.services.get(namespace, name)
    }

    fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(namespace, name)
    }

    fn node(&self, name: &str) -> Option<Arc<Node>> {
        self.nodes.get("", name)
    }

    fn namespace(&self, name: &str) -> Option<Arc<Namespace>> {
        self.namespaces.get("", name)
    }
}
