//! What the router's tasks share: a view to forward by (read without a lock), and the state behind it.
//!
//! Every change goes through [`Shared::change`]: it runs on the state under a short lock, publishes the new view,
//! hands announcements to the links, and moves the status' generation on.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use karez_identity::Grace;
use karez_lifecycle::Shutdown;
use karez_net::Net;
use karez_router_config::api::{Direction, DocumentStatus, LinkState, RefusalStatus};
use karez_router_config::{Congestion, RouterConfig};
use karez_topology::{
    Address, Arrival, Decision, Event, LinkId, Load, Message, NextHop, Outcome, RouterId, Site, Table,
    TargetId, To, Topology, decide, decide_onward,
};
use tokio::sync::{Notify, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::access::AccessLog;
use crate::connector::Connector;
use crate::link::{ClientEndpoints, LiveLink, Settings};
use crate::metrics::{Fault, Metrics};
use crate::policy::Holders;
use crate::seal::{Hold, Seals};
use crate::slots::Slots;

/// Connections carried at once before the document has said how many.
const CONNECTIONS: u32 = 1024;

/// Refused peers that are remembered for the status.
const REFUSALS: usize = 32;

/// What the router's tasks share.
pub(crate) struct Shared {
    pub(crate) net: Net,
    pub(crate) metrics: Arc<Metrics>,
    /// Whether there is a log record for each connection.
    pub(crate) access: Arc<AccessLog>,
    /// Begins the drain.
    pub(crate) shutdown: Shutdown,
    /// Ends the drain: what is still open is reset.
    pub(crate) force: CancellationToken,
    /// Carried connections.
    pub(crate) carried: TaskTracker,
    /// Bounds them.
    pub(crate) slots: Slots,
    pub(crate) client_endpoints: ClientEndpoints,
    /// SHA-256 of the certificate that the routers of this site know each other by, when it has several.
    pub(crate) own_certificate: ArcSwapOption<String>,
    /// How long past the end of its certificate a peer is let in, to renew it.
    pub(crate) grace: Grace,
    /// What this site has for connections that are encrypted from the first to the last site.
    pub(crate) seals: Seals,
    /// The topology has something to do sooner than was thought.
    stirred: Notify,
    view: ArcSwap<View>,
    state: Mutex<State>,
    generation: watch::Sender<u64>,
}

/// What forwarding needs, all of one moment.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) table: Arc<Table>,
    /// This router's name.
    pub(crate) router: RouterId,
    pub(crate) connectors: HashMap<TargetId, Arc<Connector>>,
    pub(crate) links: HashMap<LinkId, Arc<LiveLink>>,
    /// Links to a router that has made the same link anew: probably dead, only not noticed yet.
    superseded: HashSet<LinkId>,
    /// Connections from here that distant routers were chosen for.
    distant: HashMap<RouterId, Arc<AtomicU64>>,
}

impl View {
    /// Where a client's new connection goes that was not taken where it was `tried` already.
    pub(crate) fn decide(&self, address: &Address, tried: &[NextHop]) -> Decision {
        let loads = |next: &NextHop| self.load_untried(next, address, tried);
        untried(decide(&self.table, address, loads), tried)
    }

    /// Where a connection that came over a link goes.
    pub(crate) fn decide_onward(&self, address: &Address, arrival: &Arrival, tried: &[NextHop]) -> Decision {
        let loads = |next: &NextHop| self.load_untried(next, address, tried);
        let decision = decide_onward(&self.table, &self.router, address, arrival, loads);
        untried(decision, tried)
    }

    /// Counts the connections from here to a distant router.
    pub(crate) fn distant(&self, to: &To) -> Option<Arc<AtomicU64>> {
        match to {
            To::Router(router) => self.distant.get(router).cloned(),
            To::Edge | To::Uplink => None,
        }
    }

    /// Whether what was chosen has as many connections as it should have.
    pub(crate) fn is_saturated(&self, next: &NextHop, address: &Address) -> bool {
        self.load(next, address).saturated
    }

    fn load_untried(&self, next: &NextHop, address: &Address, tried: &[NextHop]) -> Load {
        match tried.contains(next) {
            // Busier than anything: taken only when nothing else is left.
            true => Load {
                open: u64::MAX,
                set_aside: true,
                saturated: true,
            },
            false => self.load(next, address),
        }
    }

    fn load(&self, next: &NextHop, address: &Address) -> Load {
        match next {
            NextHop::Local(target) => self.connectors.get(target).map(|connector| connector.load()),
            NextHop::Link(path) => self.links.get(&path.link).map(|link| {
                let open = match &path.to {
                    To::Router(router) => self.distant.get(router).map_or(&link.open, |open| open),
                    To::Edge | To::Uplink => &link.open,
                };
                Load {
                    open: open.load(Ordering::Relaxed),
                    set_aside: self.superseded.contains(&path.link)
                        || link.is_dead()
                        || *link.suspect.borrow(),
                    saturated: link.saturation.holds(next, address),
                }
            }),
        }
        .unwrap_or(Load {
            set_aside: true,
            ..Load::default()
        })
    }
}

/// The decision, unless it was tried already: then nothing is left.
fn untried(decision: Decision, tried: &[NextHop]) -> Decision {
    let next = match &decision {
        Decision::Local(target) => NextHop::Local(target.clone()),
        Decision::Link(path) => NextHop::Link(path.clone()),
        Decision::NoRoute => return decision,
    };
    if tried.contains(&next) {
        Decision::NoRoute
    } else {
        decision
    }
}

/// What is known; the status is made of it.
pub(crate) struct State {
    pub(crate) config: Option<Arc<RouterConfig>>,
    /// What this site can seal, as far as it announces that.
    pub(crate) seal: Hold,
    pub(crate) document: DocumentStatus,
    pub(crate) topology: Topology,
    pub(crate) connectors: HashMap<TargetId, Arc<Connector>>,
    pub(crate) live: BTreeMap<LinkId, Arc<LiveLink>>,
    pub(crate) dialled: BTreeMap<String, DialState>,
    pub(crate) accepts: BTreeMap<String, BoundState>,
    pub(crate) listeners: BTreeMap<String, ListenerState>,
    pub(crate) local: Option<std::net::SocketAddr>,
    pub(crate) admin: Option<std::net::SocketAddr>,
    /// Which token holds which address.
    pub(crate) holders: Holders,
    /// Peers that were not admitted lately, the newest last.
    pub(crate) refusals: VecDeque<RefusalStatus>,
    next_link: u64,
    distant: HashMap<RouterId, Arc<AtomicU64>>,
    /// The topology's clock.
    started: std::time::Instant,
}

impl State {
    fn new() -> Self {
        // A clock from before 1970 shows nothing.
        let millis = u64::try_from(jiff::Timestamp::now().as_millisecond()).unwrap_or(0);
        Self {
            config: None,
            seal: Hold::Nothing,
            document: DocumentStatus::default(),
            topology: Topology::new(karez_topology::epoch(millis, rand::random()), 0),
            connectors: HashMap::new(),
            live: BTreeMap::new(),
            dialled: BTreeMap::new(),
            accepts: BTreeMap::new(),
            listeners: BTreeMap::new(),
            local: None,
            admin: None,
            holders: Holders::default(),
            refusals: VecDeque::new(),
            next_link: 0,
            distant: HashMap::new(),
            started: std::time::Instant::now(),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }
}

/// A link that we make, whatever its state.
#[derive(Clone)]
pub(crate) struct DialState {
    pub(crate) state: LinkState,
    pub(crate) error: Option<String>,
    pub(crate) peer: Option<Site>,
    pub(crate) token: Option<String>,
    pub(crate) since: jiff::Timestamp,
}

/// A socket of the document: bound, or why not.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct BoundState {
    pub(crate) addresses: Vec<std::net::SocketAddr>,
    pub(crate) error: Option<String>,
}

/// A listener.
#[derive(Clone)]
pub(crate) struct ListenerState {
    pub(crate) address: Address,
    pub(crate) bound: BoundState,
    pub(crate) open: Arc<AtomicU64>,
    /// Whether the last look found a way to its address.
    pub(crate) reachable: Option<bool>,
}

impl Shared {
    pub(crate) fn new(net: Net, metrics: Metrics, shutdown: Shutdown) -> Self {
        Self {
            net,
            metrics: Arc::new(metrics),
            access: Arc::default(),
            shutdown,
            force: CancellationToken::new(),
            carried: TaskTracker::new(),
            slots: Slots::new(CONNECTIONS),
            client_endpoints: ClientEndpoints::default(),
            own_certificate: ArcSwapOption::empty(),
            grace: Grace::default(),
            seals: Seals::default(),
            stirred: Notify::new(),
            view: ArcSwap::default(),
            state: Mutex::new(State::new()),
            generation: watch::Sender::new(1),
        }
    }

    /// How a link's connections are made.
    pub(crate) fn settings(&self, congestion: Congestion) -> Settings {
        Settings {
            congestion,
            streams: self.slots.limit(),
        }
    }

    /// The view of this moment.
    pub(crate) fn view(&self) -> Arc<View> {
        self.view.load_full()
    }

    /// Looks at the state without changing it.
    pub(crate) fn read<T>(&self, look: impl FnOnce(&State) -> T) -> T {
        look(&self.state.lock().expect("no change panics"))
    }

    /// Changes the state and publishes what follows.
    pub(crate) fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().expect("no change panics");
        let result = change(&mut state);
        self.publish(&mut state);
        result
    }

    /// Changes of the state what neither the view nor the status shows.
    pub(crate) fn settle<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        change(&mut self.state.lock().expect("no change panics"))
    }

    /// Feeds the topology; sessions that have something to tell are woken. Only a new table makes a new view.
    pub(crate) fn event(&self, event: Event) {
        let mut state = self.state.lock().expect("no change panics");
        if state.event(event) {
            self.publish(&mut state);
        } else {
            self.touch();
        }
        self.stirred.notify_one();
    }

    /// What is to be told over a link next.
    pub(crate) fn tell(&self, link: LinkId) -> Option<Message> {
        let mut state = self.state.lock().expect("no change panics");
        state.topology.next(link)
    }

    /// Does for the topology what is due, until the router stops.
    pub(crate) async fn keep_time(&self) {
        loop {
            let wait = {
                let mut state = self.state.lock().expect("no change panics");
                let now = state.now();
                if state.topology.deadline() <= now && state.tick() {
                    self.publish(&mut state);
                }
                state.topology.deadline().saturating_sub(now)
            };
            // Not more often than this, whatever is due.
            let wait = Duration::from_millis(wait.clamp(5, 60_000));
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = self.stirred.notified() => {}
            }
        }
    }

    /// Moves the generation on: something that the status shows changed elsewhere.
    pub(crate) fn touch(&self) {
        self.generation.send_modify(|generation| *generation += 1);
    }

    /// The status' generation.
    pub(crate) fn generation(&self) -> watch::Receiver<u64> {
        self.generation.subscribe()
    }

    /// A name for a link that comes up.
    pub(crate) fn next_link(&self) -> LinkId {
        let mut state = self.state.lock().expect("no change panics");
        state.next_link += 1;
        LinkId(state.next_link)
    }

    /// Adds a link that is up. Its session must [`link_down`](Self::link_down) it.
    pub(crate) fn link_up(&self, link: Arc<LiveLink>) {
        let event = Event::LinkUp {
            link: link.id,
            kind: link.kind,
            cost: link.cost.load(Ordering::Relaxed),
            outgoing: link.direction == Direction::Outgoing,
            router: link.router.clone(),
            peer: link.peer.clone(),
            filter: (**link.filter.load()).clone(),
        };
        self.change(|state| {
            state.live.insert(link.id, link);
            state.event(event);
        });
        self.stirred.notify_one();
    }

    /// Remembers a peer that was not admitted, each reason once an address.
    pub(crate) fn refused(&self, from: std::net::IpAddr, reason: &str) {
        let refusal = RefusalStatus {
            reason: reason.to_owned(),
            from: from.to_string(),
        };
        let mut state = self.state.lock().expect("no change panics");
        if state.refusals.contains(&refusal) {
            return;
        }
        if state.refusals.len() == REFUSALS {
            state.refusals.pop_front();
        }
        state.refusals.push_back(refusal);
        drop(state);
        self.touch();
    }

    /// Removes a link; connections that it carries are not touched.
    pub(crate) fn link_down(&self, id: LinkId) {
        self.change(|state| {
            if state.live.remove(&id).is_some() {
                state.event(Event::LinkDown(id));
            }
        });
        self.stirred.notify_one();
    }

    /// Sets how a dialled link is; says whether that is news.
    pub(crate) fn set_dialled(
        &self,
        name: &str,
        state: LinkState,
        error: Option<String>,
        peer: Option<Site>,
    ) -> bool {
        let known = self.read(|all| {
            all.dialled
                .get(name)
                .is_none_or(|old| old.state == state && old.error == error && old.peer == peer)
        });
        if known {
            return false;
        }
        self.change(|all| {
            if let Some(old) = all.dialled.get_mut(name) {
                if old.state != state {
                    old.since = jiff::Timestamp::now();
                }
                (old.state, old.error, old.peer) = (state, error, peer);
            }
        });
        true
    }

    fn publish(&self, state: &mut State) {
        let table = state.topology.table();
        state
            .distant
            .retain(|router, open| table.router(router).is_some() || Arc::strong_count(open) > 1);
        for (router, _) in table.routers() {
            if !state.distant.contains_key(router) {
                state.distant.insert(router.clone(), Arc::default());
            }
        }
        if !Arc::ptr_eq(&table, &self.view.load().table) {
            self.metrics.route_changes.inc();
            self.metrics.route_changed.set(jiff::Timestamp::now().as_second());
        }
        self.view.store(Arc::new(View {
            table,
            router: state.topology.router(),
            distant: state.distant.clone(),
            connectors: state.connectors.clone(),
            links: state.live.iter().map(|(id, link)| (*id, link.clone())).collect(),
            superseded: superseded(&state.live),
        }));
        state.note_reachability(&self.metrics);
        let incoming = state
            .live
            .values()
            .filter(|link| link.direction == Direction::Incoming);
        let dialled = state
            .dialled
            .values()
            .map(|dial| ("outgoing", dial.state.as_str()));
        self.metrics
            .set_links(dialled.chain(incoming.map(|_| ("incoming", "active"))));
        self.touch();
    }
}

fn superseded(live: &BTreeMap<LinkId, Arc<LiveLink>>) -> HashSet<LinkId> {
    let mut newest = HashMap::new();
    // In the order in which they came up.
    live.iter()
        .filter_map(|(id, link)| newest.insert((&link.name, &link.router), *id))
        .collect()
}

impl State {
    /// Feeds the topology; sessions that have something to tell are woken. Says whether the table changed.
    pub(crate) fn event(&mut self, event: Event) -> bool {
        let now = self.now();
        let outcome = self.topology.handle(event, now);
        self.follow(outcome)
    }

    fn tick(&mut self) -> bool {
        let now = self.now();
        let outcome = self.topology.tick(now);
        self.follow(outcome)
    }

    fn follow(&mut self, outcome: Outcome) -> bool {
        for id in &outcome.wake {
            if let Some(link) = self.live.get(id) {
                link.wake.notify_one();
            }
        }
        for (id, address) in &outcome.refused {
            if let Some(link) = self.live.get(id) {
                let (link, peer) = (&link.name, &link.peer.name);
                tracing::warn!(link, peer, %address, "the peer offers an address that it may not offer: not believed");
            }
        }
        if outcome.dropped > 0 {
            tracing::warn!(
                records = outcome.dropped,
                "the network tells more than is kept, or what makes no sense"
            );
        }
        outcome.table.is_some()
    }

    /// Logs once when a listener's address comes into or goes out of reach.
    fn note_reachability(&mut self, metrics: &Metrics) {
        let table = self.topology.table();
        for (name, listener) in &mut self.listeners {
            let reachable = table.reaches(&listener.address);
            if listener.reachable == Some(reachable) {
                continue;
            }
            let first = listener.reachable.replace(reachable).is_none();
            let address = &listener.address;
            match (reachable, first) {
                (true, _) => tracing::info!(listener = name, %address, "address can be reached"),
                (false, true) => tracing::info!(listener = name, %address, "nothing serves the address yet"),
                (false, false) => {
                    metrics.fault(Fault::NoRoute);
                    tracing::warn!(listener = name, %address, "nothing serves the address any more: clients are reset");
                }
            }
        }
    }
}
