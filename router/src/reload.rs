//! Document → configuration → difference → change. What did not change is not touched.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::sync::Arc;

use karez_lifecycle::{Readiness, serve_admin};
use karez_router_config::{
    AcceptConfig, AdminConfig, Difference, LinkConfig, Mode, Protocol, RouterConfig, TlsSource,
};
use karez_topology::{Event, Local, RouterId, Service, Site};
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::connector::Connector;
use crate::link;
use crate::link::{Accept, Dial, accept, dial, revoke, revoked};
use crate::listener::{BIND_AGAIN, endpoint, listen, virtual_address};
use crate::local_api;
use crate::metrics::Fault;
use crate::peers::link_peers;
use crate::profiles::{Profile, Secrets, follow};
use crate::seal::{self, Hold};
use crate::shared::{Shared, State};
use crate::udp;

/// What runs, by its name in the document.
pub(crate) struct Running {
    shared: Arc<Shared>,
    secrets: Secrets,
    registry: Arc<Registry>,
    readiness: Readiness,
    config: Option<Arc<RouterConfig>>,
    profiles: BTreeMap<String, (TlsSource, watch::Receiver<Profile>)>,
    accepts: BTreeMap<String, Task>,
    links: BTreeMap<String, Task>,
    costs: BTreeMap<String, watch::Sender<u32>>,
    listeners: BTreeMap<String, Task>,
    peers: Option<Task>,
    seal: Option<Task>,
    local: Option<Task>,
    admin: Option<Task>,
}

/// A task that can be told to stop.
struct Task {
    stop: CancellationToken,
    handle: JoinHandle<()>,
}

impl Task {
    fn start<F: Future<Output = ()> + Send + 'static>(make: impl FnOnce(CancellationToken) -> F) -> Self {
        let stop = CancellationToken::new();
        let handle = tokio::spawn(make(stop.clone()));
        Self { stop, handle }
    }

    /// Returns when it has let go of its sockets.
    async fn stop(self) {
        self.stop.cancel();
        if let Err(error) = self.handle.await {
            tracing::error!(%error, "a task of the router ended badly");
        }
    }
}

/// A part of the document with the TLS source that it refers to: both decide whether it is the same.
type WithTls<T> = BTreeMap<String, (T, Option<TlsSource>)>;

impl Running {
    pub(crate) fn new(
        shared: Arc<Shared>,
        secrets: Secrets,
        registry: Arc<Registry>,
        readiness: Readiness,
    ) -> Self {
        Self {
            shared,
            secrets,
            registry,
            readiness,
            config: None,
            profiles: BTreeMap::new(),
            accepts: BTreeMap::new(),
            links: BTreeMap::new(),
            costs: BTreeMap::new(),
            listeners: BTreeMap::new(),
            peers: None,
            seal: None,
            local: None,
            admin: None,
        }
    }

    /// Makes a new configuration run.
    pub(crate) async fn apply(&mut self, config: RouterConfig) {
        let config = Arc::new(config);
        let old = self.config.replace(config.clone());
        self.shared.access.set(config.access_log);
        self.shared.slots.set(config.max_connections);
        self.shared.grace.set(config.renew_expired);
        self.follow_profiles(&config).await;
        self.shared.change(|state| take_over(state, &config));
        link::take_over(&self.shared, &config);
        self.revoke();
        let old = old.as_deref();
        self.change_seal(old, &config).await;
        self.change_links(old, &config).await;
        self.change_peers(old, &config).await;
        self.change_accepts(old, &config).await;
        self.change_listeners(old, &config).await;
        self.change_local(old, &config).await;
        self.change_admin(old, &config).await;
    }

    /// Stops everything; connections that are still open are reset.
    pub(crate) async fn stop(mut self) {
        let links = std::mem::take(&mut self.links).into_values();
        let accepts = std::mem::take(&mut self.accepts).into_values();
        let listeners = std::mem::take(&mut self.listeners).into_values();
        for task in links
            .chain(accepts)
            .chain(listeners)
            .chain(self.peers.take())
            .chain(self.seal.take())
            .chain(self.local.take())
            .chain(self.admin.take())
        {
            task.stop().await;
        }
    }

    async fn follow_profiles(&mut self, config: &RouterConfig) {
        self.profiles
            .retain(|name, (source, _)| config.tls.get(name) == Some(source));
        for (name, source) in &config.tls {
            if !self.profiles.contains_key(name) {
                let (secrets, metrics) = (self.secrets.clone(), (*self.shared.metrics).clone());
                let profile = follow(name.clone(), source.clone(), secrets, metrics).await;
                self.profiles.insert(name.clone(), (source.clone(), profile));
            }
        }
    }

    fn profile(&self, name: &str) -> watch::Receiver<Profile> {
        match self.profiles.get(name) {
            Some((_, profile)) => profile.clone(),
            // Validation refuses such documents.
            None => watch::channel(Profile::Waiting("no such profile".to_owned())).1,
        }
    }

    /// Closes the links of peers whose token is no longer on the list.
    fn revoke(&self) {
        let live: Vec<_> = self.shared.read(|state| state.live.values().cloned().collect());
        for link in live.into_iter().filter(|link| revoked(&self.shared, link)) {
            revoke(&self.shared, &link);
        }
    }

    async fn change_links(&mut self, old: Option<&RouterConfig>, new: &RouterConfig) {
        let difference = Difference::between(&old.map(links).unwrap_or_default(), &links(new));
        for name in difference.to_stop() {
            self.costs.remove(name);
            stop(&mut self.links, name).await;
        }
        for name in difference.to_start() {
            let config = new.links[name].clone();
            let (costs, cost) = watch::channel(config.cost);
            let profile = self.profile(&config.tls);
            let link = Dial {
                name: name.clone(),
                config,
                cost,
                profile,
            };
            let shared = self.shared.clone();
            self.links
                .insert(name.clone(), Task::start(|stop| dial(shared, link, stop)));
            self.costs.insert(name.clone(), costs);
        }
        for (name, link) in &new.links {
            if let Some(cost) = self.costs.get(name) {
                cost.send_if_modified(|old| std::mem::replace(old, link.cost) != link.cost);
            }
        }
    }

    async fn change_accepts(&mut self, old: Option<&RouterConfig>, new: &RouterConfig) {
        let difference = Difference::between(&old.map(accepts).unwrap_or_default(), &accepts(new));
        for name in difference.to_stop() {
            stop(&mut self.accepts, name).await;
        }
        for name in difference.to_start() {
            let config = new.accepts[name].clone();
            let profile = self.profile(&config.tls);
            let port = Accept {
                name: name.clone(),
                config,
                profile,
            };
            let shared = self.shared.clone();
            self.accepts
                .insert(name.clone(), Task::start(|stop| accept(shared, port, stop)));
        }
    }

    async fn change_listeners(&mut self, old: Option<&RouterConfig>, new: &RouterConfig) {
        let none = BTreeMap::new();
        let difference = Difference::between(old.map_or(&none, |old| &old.listeners), &new.listeners);
        for name in difference.to_stop() {
            stop(&mut self.listeners, name).await;
        }
        for name in difference.to_start() {
            let (shared, config) = (self.shared.clone(), new.listeners[name].clone());
            let task = match config.protocol {
                Protocol::Tcp => Task::start(|stop| listen(shared, name.clone(), config, stop)),
                Protocol::Udp => Task::start(|stop| udp::listen(shared, name.clone(), config, stop)),
            };
            self.listeners.insert(name.clone(), task);
        }
    }

    async fn change_peers(&mut self, old: Option<&RouterConfig>, new: &RouterConfig) {
        let key = |config: &RouterConfig| {
            let peers = config.peers.clone();
            peers.map(|peers| (config.tls.get(&peers.tls).cloned(), peers))
        };
        if old.and_then(key) == key(new) {
            return;
        }
        if let Some(task) = self.peers.take() {
            task.stop().await;
        }
        if let Some(config) = new.peers.clone() {
            let (shared, profile) = (self.shared.clone(), self.profile(&config.tls));
            self.peers = Some(Task::start(|stop| link_peers(shared, config, profile, stop)));
        }
    }

    async fn change_seal(&mut self, old: Option<&RouterConfig>, new: &RouterConfig) {
        let key = |config: &RouterConfig| {
            let profile = config.seal.clone();
            profile.map(|profile| (config.tls.get(&profile).cloned(), profile))
        };
        if old.and_then(key) == key(new) {
            return;
        }
        if let Some(task) = self.seal.take() {
            task.stop().await;
        }
        if let Some(name) = &new.seal {
            let (shared, profile) = (self.shared.clone(), self.profile(name));
            self.seal = Some(Task::start(|stop| seal::follow(shared, profile, stop)));
        }
    }

    async fn change_local(&mut self, old: Option<&RouterConfig>, new: &RouterConfig) {
        let key = |config: &RouterConfig| {
            config
                .local
                .clone()
                .map(|local| (config.tls.get(&local.tls).cloned(), local))
        };
        if old.and_then(key) == key(new) {
            return;
        }
        if let Some(task) = self.local.take() {
            task.stop().await;
        }
        if let Some(config) = new.local.clone() {
            let (shared, profile) = (self.shared.clone(), self.profile(&config.tls));
            self.local = Some(Task::start(|stop| {
                local_api::serve(shared, config, profile, stop)
            }));
        }
    }

    async fn change_admin(&mut self, old: Option<&RouterConfig>, new: &RouterConfig) {
        if old.and_then(|old| old.admin.clone()) == new.admin {
            return;
        }
        if let Some(task) = self.admin.take() {
            task.stop().await;
        }
        if let Some(config) = new.admin.clone() {
            let (shared, registry, readiness) =
                (self.shared.clone(), self.registry.clone(), self.readiness.clone());
            self.admin = Some(Task::start(|stop| {
                admin(shared, config, registry, readiness, stop)
            }));
        }
    }
}

async fn stop(tasks: &mut BTreeMap<String, Task>, name: &str) {
    if let Some(task) = tasks.remove(name) {
        task.stop().await;
    }
}

/// A link whose cost or request for renewal alone changed is the same link.
fn links(config: &RouterConfig) -> WithTls<LinkConfig> {
    let link = |link: &LinkConfig| {
        (
            LinkConfig {
                cost: 0,
                renewal: None,
                ..link.clone()
            },
            config.tls.get(&link.tls).cloned(),
        )
    };
    config
        .links
        .iter()
        .map(|(name, config)| (name.clone(), link(config)))
        .collect()
}

fn accepts(config: &RouterConfig) -> WithTls<AcceptConfig> {
    let accept = |accept: &AcceptConfig| (accept.clone(), config.tls.get(&accept.tls).cloned());
    config
        .accepts
        .iter()
        .map(|(name, config)| (name.clone(), accept(config)))
        .collect()
}

/// Takes over what needs no socket: the site, its services, its targets.
fn take_over(state: &mut State, config: &Arc<RouterConfig>) {
    let old = std::mem::take(&mut state.connectors);
    for (name, connector) in &config.connectors {
        let kept = old
            .get(name.as_str())
            .filter(|old| old.config == *connector)
            .cloned();
        let connector = kept.unwrap_or_else(|| Arc::new(Connector::new(name, connector.clone())));
        state.connectors.insert(connector.name.clone(), connector);
    }
    // New connections no longer find it; those that it has may finish.
    for (name, connector) in &old {
        if state
            .connectors
            .get(name)
            .is_none_or(|new| !Arc::ptr_eq(new, connector))
        {
            connector.removed.cancel();
        }
    }
    state.config = Some(config.clone());
    let local = local(config, state);
    state.event(Event::Local(local));
}

/// Takes over what this site can seal; the network is told.
pub(crate) fn take_seal(shared: &Shared, hold: Hold) {
    shared.seals.set(hold.clone());
    shared.change(|state| {
        state.seal = hold;
        if let Some(config) = state.config.clone() {
            let local = local(&config, state);
            state.event(Event::Local(local));
        }
    });
}

fn local(config: &RouterConfig, state: &State) -> Local {
    let site = &config.site;
    let services = config.services.iter().map(|(address, service)| Service {
        address: address.clone(),
        protocol: service.protocol.clone(),
        ports: service.ports.clone(),
        targets: service.targets.clone(),
        sealed: service.sealed,
    });
    let targets = state.connectors.iter().map(|(name, connector)| {
        let config = &connector.config;
        (name.clone(), virtual_address(&config.address, config.protocol))
    });
    let sealed = state
        .connectors
        .values()
        .filter(|connector| connector.config.sealed);
    let sealed: BTreeSet<_> = sealed
        .map(|connector| virtual_address(&connector.config.address, connector.config.protocol))
        .filter(|address| state.seal.vouches(address).is_some())
        .collect();
    Local {
        router: router_id(config),
        site: Site {
            id: site.id.clone(),
            name: site.name.clone(),
            namespace: site.namespace.clone(),
            version: site.version.clone(),
            edge: site.mode == Mode::Edge,
        },
        services: services.collect(),
        targets: targets.collect(),
        fingerprint: sealed.iter().find_map(|address| state.seal.vouches(address)),
        sealed,
    }
}

/// The router's name: the document's, or made of the site and the host, so that the routers of a site differ.
fn router_id(config: &RouterConfig) -> RouterId {
    if let Some(id) = &config.router_id {
        return id.as_str().into();
    }
    let named = std::env::var("HOSTNAME").ok();
    let named = named.or_else(|| std::fs::read_to_string("/proc/sys/kernel/hostname").ok());
    let host = named.as_deref().map(str::trim).filter(|host| !host.is_empty());
    match host {
        Some(host) => format!("{}-{host}", config.site.id).into(),
        None => config.site.id.as_str().into(),
    }
}

/// Serves metrics and health until `stop`.
async fn admin(
    shared: Arc<Shared>,
    config: AdminConfig,
    registry: Arc<Registry>,
    readiness: Readiness,
    stop: CancellationToken,
) {
    let wanted = endpoint(&config.host, config.port);
    let mut said = false;
    loop {
        match shared.net.listen_tcp(&wanted).await {
            Ok(listeners) => {
                let at = listeners.local_addrs().first().copied();
                shared.change(|all| all.admin = at);
                let serving = listeners.into_listeners().into_iter().map(|listener| {
                    serve_admin(
                        listener,
                        registry.clone(),
                        readiness.clone(),
                        shared.shutdown.clone(),
                    )
                });
                let mut serving: tokio::task::JoinSet<_> = serving.collect();
                tokio::select! {
                    () = stop.cancelled() => {}
                    _ = serving.join_next() => {}
                }
                return;
            }
            Err(error) if !said => {
                said = true;
                shared.metrics.fault(Fault::Bind);
                tracing::error!(%error, "metrics and health cannot be served; trying again");
            }
            Err(_) => {}
        }
        tokio::select! {
            () = stop.cancelled() => return,
            () = tokio::time::sleep(BIND_AGAIN) => {}
        }
    }
}
