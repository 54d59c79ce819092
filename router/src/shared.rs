//! What the router's tasks share: a view to forward by (read without a lock), and the state behind it.
//!
//! Every change goes through [`Shared::change`]: it runs on the state under a short lock, publishes the new view,
//! hands announcements to the links, and moves the status' generation on.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arc_swap::ArcSwap;
use karez_lifecycle::Shutdown;
use karez_net::Net;
use karez_router_config::RouterConfig;
use karez_router_config::api::{Direction, DocumentStatus, LinkState};
use karez_topology::{
    Address, Decision, Event, LinkId, Load, NextHop, Site, Table, TargetId, Topology, decide,
};
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::connector::Connector;
use crate::link::{ClientEndpoints, LiveLink};
use crate::metrics::{Fault, Metrics};

/// More carried connections than this wait to be accepted.
const CONNECTIONS: usize = 16 * 1024;

/// What the router's tasks share.
pub(crate) struct Shared {
    pub(crate) net: Net,
    pub(crate) metrics: Metrics,
    /// Begins the drain.
    pub(crate) shutdown: Shutdown,
    /// Ends the drain: what is still open is reset.
    pub(crate) force: CancellationToken,
    /// Carried connections.
    pub(crate) carried: TaskTracker,
    /// Bounds them.
    pub(crate) slots: Arc<Semaphore>,
    pub(crate) client_endpoints: ClientEndpoints,
    view: ArcSwap<View>,
    state: Mutex<State>,
    generation: watch::Sender<u64>,
}

/// What forwarding needs, all of one moment.
#[derive(Default)]
pub(crate) struct View {
    pub(crate) table: Arc<Table>,
    pub(crate) connectors: HashMap<TargetId, Arc<Connector>>,
    pub(crate) links: HashMap<LinkId, Arc<LiveLink>>,
    /// Links to a site that has made the same link anew: probably dead, only not noticed yet.
    superseded: HashSet<LinkId>,
}

impl View {
    /// Where a new connection goes that was not taken where it was `tried` already.
    pub(crate) fn decide(&self, address: &Address, hops_left: u8, tried: &[NextHop]) -> Decision {
        let decision = decide(&self.table, address, hops_left, |next| {
            match tried.contains(next) {
                // Busier than anything: taken only when nothing else is left.
                true => Load {
                    open: u64::MAX,
                    set_aside: true,
                    saturated: true,
                },
                false => self.load(next, address),
            }
        });
        let next = match &decision {
            Decision::Local(target) => NextHop::Local(target.clone()),
            Decision::Link(id) => NextHop::Link(*id),
            Decision::NoRoute => return decision,
        };
        if tried.contains(&next) {
            Decision::NoRoute
        } else {
            decision
        }
    }

    /// Whether what `decide` chose has as many connections as it should have.
    pub(crate) fn is_saturated(&self, next: &NextHop, address: &Address) -> bool {
        self.load(next, address).saturated
    }

    fn load(&self, next: &NextHop, address: &Address) -> Load {
        match next {
            NextHop::Local(target) => self.connectors.get(target).map(|connector| connector.load()),
            NextHop::Link(id) => self.links.get(id).map(|link| Load {
                open: link.open.load(Ordering::Relaxed),
                set_aside: self.superseded.contains(id) || link.is_dead(),
                saturated: link.saturation.holds(next, address),
            }),
        }
        .unwrap_or(Load {
            set_aside: true,
            ..Load::default()
        })
    }
}

/// What is known; the status is made of it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) config: Option<Arc<RouterConfig>>,
    pub(crate) document: DocumentStatus,
    pub(crate) topology: Topology,
    pub(crate) connectors: HashMap<TargetId, Arc<Connector>>,
    pub(crate) live: BTreeMap<LinkId, Arc<LiveLink>>,
    pub(crate) dialled: BTreeMap<String, DialState>,
    pub(crate) accepts: BTreeMap<String, BoundState>,
    pub(crate) listeners: BTreeMap<String, ListenerState>,
    pub(crate) local: Option<std::net::SocketAddr>,
    pub(crate) admin: Option<std::net::SocketAddr>,
    next_link: u64,
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
            metrics,
            shutdown,
            force: CancellationToken::new(),
            carried: TaskTracker::new(),
            slots: Arc::new(Semaphore::new(CONNECTIONS)),
            client_endpoints: ClientEndpoints::default(),
            view: ArcSwap::default(),
            state: Mutex::default(),
            generation: watch::Sender::new(1),
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

    /// Feeds the topology; its announcements go to the links' sessions.
    pub(crate) fn event(&self, event: Event) {
        self.change(|state| state.event(event));
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
            cost: link.cost.load(Ordering::Relaxed),
            outgoing: link.direction == Direction::Outgoing,
            peer: link.peer.clone(),
        };
        self.change(|state| {
            state.live.insert(link.id, link);
            state.event(event);
        });
    }

    /// Removes a link; connections that it carries are not touched.
    pub(crate) fn link_down(&self, id: LinkId) {
        self.change(|state| {
            if state.live.remove(&id).is_some() {
                state.event(Event::LinkDown(id));
            }
        });
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
        self.view.store(Arc::new(View {
            table: state.topology.table(),
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
        .filter_map(|(id, link)| newest.insert((&link.name, &link.peer.id), *id))
        .collect()
}

impl State {
    /// Feeds the topology; its announcements go to the links' sessions.
    pub(crate) fn event(&mut self, event: Event) {
        for (id, announcement) in self.topology.handle(event).send {
            if let Some(link) = self.live.get(&id) {
                link.say.send_replace(announcement);
            }
        }
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
