//! `kubernetes_sd_configs`: objects are watched, each is a group.
//!
//! ```text
//! watch of the role's objects ──┐                                     ┌─▶ Group ─▶ Sink
//! watches of Services, Pods, …  ┴▶ what is known, who refers to whom ─┘
//! ```
//!
//! Nothing is given before every watch has told what there is, as a group without its Pods' labels is a wrong group.
//! What changes at about the same time changes each group that it concerns once.

mod client;
mod objects;
mod raw;
mod set;
mod watch;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use karez_scrape_config::Group;
use karez_scrape_config::discovery::{KubernetesDiscovery, Role};
use karez_scrape_config::labels::{ADDRESS, Labels};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Instant, timeout_at};

use super::{Context, Health, Sink};
use objects::{Behind, End, EndPort, Ends, Facts, Key, Part};
use watch::{Kind, Told, Watch};

pub(super) use set::sanitize;

/// What is told within this time is taken together.
const TOGETHER: Duration = Duration::from_millis(10);
/// Pages that wait to be taken, at most.
const WAITING: usize = 4;

pub(super) async fn run(config: KubernetesDiscovery, sink: Sink, cx: Context) {
    let mut health = Health::default();
    let client = loop {
        match client::make(&config, &cx).await {
            Ok(client) => break client,
            Err(error) => health.failed(&sink, "kubernetes", &error),
        }
        tokio::time::sleep(Duration::from_secs(10)).await;
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
    let watches = watches(&config, &client, &namespaces);
    let (tell, mut told) = mpsc::channel(WAITING);
    // Dropped, the watches end.
    let mut tasks = JoinSet::new();
    for (number, watch) in watches.iter().enumerate() {
        tasks.spawn(watch.clone().run(number, tell.clone()));
    }
    drop(tell);
    let mut known = Known::new(&config, &watches);
    while let Some((number, first)) = told.recv().await {
        let until = Instant::now() + TOGETHER;
        known.hear(number, first, &sink, &mut health);
        while let Ok(Some((number, more))) = timeout_at(until, told.recv()).await {
            known.hear(number, more, &sink, &mut health);
        }
        known.give(&sink);
    }
}

/// What has to be watched.
fn watches(config: &KubernetesDiscovery, client: &kube::Client, namespaces: &[String]) -> Vec<Watch> {
    let watch = |kind: Kind, role: Option<Role>, namespace: &str, primary: bool| {
        let selector = config
            .selectors
            .iter()
            .find(|selector| Some(selector.role) == role);
        let (labels, fields) = selector.map_or_else(Default::default, |selector| {
            (selector.label.clone(), selector.field.clone())
        });
        Watch {
            client: client.clone(),
            kind,
            primary,
            namespace: namespace.to_owned(),
            labels,
            fields,
            attach_node: config.attach_node,
            attach_namespace: config.attach_namespace && config.role != Role::Node,
        }
    };
    let mut all = Vec::new();
    let kind = kind_of(config.role);
    for namespace in namespaces.iter().filter(|_| config.role != Role::Node) {
        all.push(watch(kind, Some(config.role), namespace, true));
        if matches!(config.role, Role::Endpoints | Role::EndpointSlice) {
            all.push(watch(Kind::Service, Some(Role::Service), namespace, false));
            all.push(watch(Kind::Pod, Some(Role::Pod), namespace, false));
        }
    }
    if config.role == Role::Node || config.attach_node {
        all.push(watch(Kind::Node, Some(Role::Node), "", config.role == Role::Node));
    }
    if config.attach_namespace && config.role != Role::Node {
        all.push(watch(Kind::Namespace, None, "", false));
    }
    all
}

fn kind_of(role: Role) -> Kind {
    match role {
        Role::Node => Kind::Node,
        Role::Pod => Kind::Pod,
        Role::Service => Kind::Service,
        Role::Endpoints => Kind::Endpoints,
        Role::EndpointSlice => Kind::Slice,
        Role::Ingress => Kind::Ingress,
    }
}

/// What is known of an object.
#[derive(Default)]
struct Entry {
    /// Whether it is there. What is only referred to may come.
    there: bool,
    facts: Option<Facts>,
    /// Groups that take labels from it.
    referring: Vec<Key>,
}

/// How one watch stands.
struct Standing {
    primary: bool,
    /// What the keys of its objects begin with.
    prefix: String,
    /// Whether it has ever begun to tell what there is, and ended.
    begun: bool,
    ended: bool,
    /// What it has told since it began again.
    listed: Option<HashSet<Key>>,
}

/// All that is known, and the groups that are to be made of it.
struct Known {
    watches: Vec<Standing>,
    /// Whether groups depend on more than their own object.
    mixed: bool,
    /// `None` for an object of which nothing is kept and that nobody refers to: there are many.
    objects: HashMap<Key, Option<Box<Entry>>>,
    /// Groups that are to be given, in the order of their names.
    changed: HashSet<Key>,
    /// Groups that depend on nothing, made already.
    ready: Vec<(Key, Group)>,
    told: bool,
}

impl Known {
    fn new(config: &KubernetesDiscovery, watches: &[Watch]) -> Self {
        let standing = |watch: &Watch| Standing {
            primary: watch.primary,
            prefix: match watch.namespace.is_empty() {
                true => format!("{}/", watch.kind.name()),
                false => format!("{}/{}/", watch.kind.name(), watch.namespace),
            },
            begun: false,
            ended: false,
            listed: None,
        };
        let attached = (config.attach_node || config.attach_namespace) && config.role != Role::Node;
        Known {
            watches: watches.iter().map(standing).collect(),
            mixed: attached || matches!(config.role, Role::Endpoints | Role::EndpointSlice),
            objects: HashMap::new(),
            changed: HashSet::new(),
            ready: Vec::new(),
            told: false,
        }
    }

    fn hear(&mut self, number: usize, told: Told, sink: &Sink, health: &mut Health) {
        if let Told::Failed(error) = told {
            return health.failed(sink, "kubernetes", &error);
        }
        health.works(sink, "kubernetes");
        let watch = &mut self.watches[number];
        match told {
            Told::Begins => {
                watch.listed = watch.begun.then(HashSet::new);
                watch.begun = true;
            }
            Told::Objects(objects) => {
                let primary = watch.primary;
                if let Some(listed) = &mut watch.listed {
                    listed.extend(objects.iter().map(|(key, _)| key.clone()));
                }
                for (key, facts) in objects {
                    match facts {
                        Some(facts) => self.put(key, facts, primary),
                        None => self.remove(&key, primary),
                    }
                }
            }
            Told::Ends => {
                watch.ended = true;
                if let Some(listed) = watch.listed.take() {
                    self.keep(number, &listed);
                }
            }
            Told::Failed(_) => {}
        }
    }

    /// Of a watch's objects only these are there.
    fn keep(&mut self, number: usize, listed: &HashSet<Key>) {
        let watch = &self.watches[number];
        let (primary, prefix) = (watch.primary, watch.prefix.as_str());
        let there = |entry: &Option<Box<Entry>>| entry.as_ref().is_none_or(|entry| entry.there);
        let mine = self
            .objects
            .iter()
            .filter(|(key, entry)| key.starts_with(prefix) && there(entry));
        let gone: Vec<Key> = mine
            .map(|(key, _)| key.clone())
            .filter(|key| !listed.contains(key))
            .collect();
        for key in gone {
            self.remove(&key, primary);
        }
    }

    /// An object is there, so.
    fn put(&mut self, key: Key, mut facts: Facts, primary: bool) {
        if let (Facts::Group(part), false) = (&mut facts, self.mixed) {
            let key = match self.objects.get_key_value(&key) {
                Some((known, _)) => known.clone(),
                None => {
                    self.objects.insert(key.clone(), None);
                    key
                }
            };
            let Part { labels, targets, .. } = std::mem::take(part);
            self.ready.push((key, Group { labels, targets }));
            return;
        }
        self.share_keys(&mut facts);
        let entry = self.objects.entry(key.clone()).or_default();
        let entry = entry.get_or_insert_default();
        if entry.there && entry.facts.as_ref() == Some(&facts) {
            return;
        }
        entry.there = true;
        let new = references(&facts);
        let old = entry.facts.replace(facts);
        let referring = entry.referring.clone();
        let old = old.as_ref().map(references).unwrap_or_default();
        if old != new {
            self.unlink(&key, &old);
            self.link(&key, new);
        }
        match primary {
            true => drop(self.changed.insert(key)),
            false => self.changed.extend(referring),
        }
    }

    fn remove(&mut self, key: &Key, primary: bool) {
        let Some((key, entry)) = self.objects.get_key_value(key) else {
            return;
        };
        let (key, known) = (key.clone(), entry.is_some());
        if known && let Some(Some(entry)) = self.objects.get_mut(&key) {
            entry.there = false;
            let old = entry.facts.take();
            let referring = entry.referring.clone();
            if let Some(old) = old {
                self.unlink(&key, &references(&old));
            }
            if !referring.is_empty() {
                self.changed.extend(referring);
            } else {
                self.objects.remove(&key);
            }
        } else {
            self.objects.remove(&key);
        }
        if primary {
            self.changed.insert(key);
        }
    }

    /// The same key is there once: an end's Pod is the Pod that is known.
    fn share_keys(&self, facts: &mut Facts) {
        let share = |key: &mut Key| {
            if let Some((known, _)) = self.objects.get_key_value(key) {
                *key = known.clone();
            }
        };
        match facts {
            Facts::Ends(ends) => ends.references_mut().for_each(share),
            Facts::Group(part) => part.attached.iter_mut().for_each(share),
            Facts::Labels(_) | Facts::Behind(_) => {}
        }
    }

    fn link(&mut self, key: &Key, references: HashSet<Key>) {
        for reference in references {
            let entry = self
                .objects
                .entry(reference)
                .or_insert_with(|| Some(Box::default()));
            entry.get_or_insert_default().referring.push(key.clone());
        }
    }

    fn unlink(&mut self, key: &Key, references: &HashSet<Key>) {
        for reference in references {
            let Some(Some(entry)) = self.objects.get_mut(reference) else {
                continue;
            };
            if let Some(place) = entry.referring.iter().position(|other| other == key) {
                entry.referring.swap_remove(place);
            }
            if entry.referring.is_empty() && !entry.there {
                self.objects.remove(reference);
            }
        }
    }

    /// Gives the groups that have changed, once all is known that they are made of.
    fn give(&mut self, sink: &Sink) {
        let ended = self.watches.iter().all(|watch| watch.ended);
        for (key, group) in self.ready.drain(..) {
            sink.put(&key, Some(Arc::new(group)));
        }
        if ended || !self.mixed {
            for key in std::mem::take(&mut self.changed) {
                sink.put(&key, self.group(&key).map(Arc::new));
            }
        }
        if ended && !std::mem::replace(&mut self.told, true) {
            self.objects.shrink_to_fit();
            sink.told();
        }
    }

    fn facts(&self, key: &Key) -> Option<&Facts> {
        self.objects.get(key)?.as_ref()?.facts.as_ref()
    }

    fn labels(&self, key: &Key) -> Option<&Labels> {
        match self.facts(key)? {
            Facts::Labels(labels) => Some(labels),
            _ => None,
        }
    }

    fn group(&self, key: &Key) -> Option<Group> {
        match self.facts(key)? {
            Facts::Group(part) => Some(Group {
                labels: self.with_attached(&part.attached, &part.labels),
                targets: part.targets.clone(),
            }),
            Facts::Ends(ends) => Some(self.endpoints(ends)),
            Facts::Labels(_) | Facts::Behind(_) => None,
        }
    }

    fn with_attached(&self, attached: &[Key], labels: &Labels) -> Labels {
        let attached: Vec<&Labels> = attached.iter().filter_map(|key| self.labels(key)).collect();
        match attached.is_empty() {
            true => labels.clone(),
            false => Labels::merged(attached.into_iter().chain([labels]), &[]),
        }
    }

    /// A target for each end at each port, and for each further port of the Pods behind them.
    fn endpoints(&self, ends: &Ends) -> Group {
        let mut targets = Vec::with_capacity(ends.subsets.iter().map(|s| s.ends.len() * s.ports.len()).sum());
        let mut seen: BTreeMap<&Key, (&Behind, Vec<i32>)> = BTreeMap::new();
        for subset in &ends.subsets {
            for port in &subset.ports {
                for end in &subset.ends {
                    let behind = end.pod.as_ref().and_then(|pod| match self.facts(pod)? {
                        Facts::Behind(behind) => Some((pod, behind)),
                        _ => None,
                    });
                    if let Some((pod, behind)) = behind {
                        let known = seen.entry(pod).or_insert_with(|| (behind, Vec::new()));
                        known.1.push(port.number);
                    }
                    let node = end.node.as_ref().and_then(|node| self.labels(node));
                    targets.push(target(end, port, node, behind.map(|(_, behind)| behind)));
                }
            }
        }
        for (behind, ports) in seen.values().filter(|(behind, _)| !behind.ip.is_empty()) {
            unlisted(behind, ports, &mut targets);
        }
        targets.shrink_to_fit();
        Group {
            labels: self.with_attached(&ends.attached, &ends.labels),
            targets,
        }
    }
}

/// Everything whose labels a group takes.
fn references(facts: &Facts) -> HashSet<Key> {
    match facts {
        Facts::Ends(ends) => ends.references().cloned().collect(),
        Facts::Group(part) => part.attached.iter().cloned().collect(),
        Facts::Labels(_) | Facts::Behind(_) => HashSet::new(),
    }
}

fn target(end: &End, port: &EndPort, node: Option<&Labels>, behind: Option<&Behind>) -> Labels {
    let address = set::host_port(&end.host, port.number);
    let mut more = vec![(ADDRESS, address.as_str())];
    let mut sets = vec![&end.labels, &port.labels];
    sets.extend(node);
    if let Some(behind) = behind {
        sets.push(&behind.labels);
        if let Some(labels) = behind.port(port.number) {
            sets.push(labels);
            let protocol = port.protocol.as_deref();
            more.extend(protocol.map(|protocol| ("__meta_kubernetes_pod_container_port_protocol", protocol)));
        }
    }
    Labels::merged(sets, &more)
}

/// Ports of a Pod behind a Service that the Service does not have: they are targets, too.
fn unlisted(behind: &Behind, listed: &[i32], targets: &mut Vec<Labels>) {
    for port in behind.ports.iter().filter(|port| !listed.contains(&port.number)) {
        let address = set::host_port(&behind.ip, port.number);
        targets.push(Labels::merged(
            [&port.labels, &behind.labels],
            &[(ADDRESS, &address)],
        ));
    }
}

impl Behind {
    /// The labels of a container's port with that number: of several containers with it the last counts, of several
    /// such ports of one the first.
    fn port(&self, number: i32) -> Option<&Labels> {
        let mut with = self.ports.iter().filter(|port| port.number == number);
        let mut found = with.next()?;
        for port in with {
            if port.container != found.container {
                found = port;
            }
        }
        Some(&found.labels)
    }
}

#[cfg(test)]
mod tests;
