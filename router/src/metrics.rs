//! What the router counts. Labels come from closed sets, names of the document, or nothing.

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::policy::RefusedFor;

/// How a carried connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Ending {
    /// Both sides finished.
    Completed,
    /// The client reset it.
    ClientReset,
    /// The target reset it.
    TargetReset,
    /// Nothing serves the address.
    NoRoute,
    /// No target took it.
    Refused,
    /// All targets had as many connections as they should have, and it went elsewhere.
    Saturated,
    /// Its client sent no datagram for long.
    Idle,
    /// The document no longer has its target.
    TargetRemoved,
    /// The router stopped while it was open.
    Shutdown,
    /// It was dropped before it was carried.
    Abandoned,
}

/// Which way bytes went, as the client sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Way {
    /// From the client to the target.
    Sent,
    /// From the target to the client.
    Received,
}

/// What went wrong with a link or a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Fault {
    /// A peer was refused here.
    PeerRefused,
    /// We were refused by a peer.
    RefusedByPeer,
    /// A peer is not reachable.
    PeerDown,
    /// A peer broke the protocol.
    Protocol,
    /// A connection did not begin with the PROXY header that its listener expects.
    ProxyHeader,
    /// A target could not be dialled.
    TargetDown,
    /// A socket could not be bound.
    Bind,
    /// Nothing serves the address.
    NoRoute,
    /// A connection that is encrypted from the first to the last site was refused, or broken on its way.
    Seal,
}

/// Why a datagram was not handed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, EncodeLabelValue)]
pub(crate) enum Dropped {
    /// The kernel dropped it: it came faster than a listener's socket was read.
    SocketFull,
    /// More came than went on.
    QueueFull,
    /// Nothing serves the address.
    NoRoute,
    /// No target took the session.
    Unreachable,
    /// The router carries as many sessions as it can.
    TooManySessions,
    /// It waited in a session that ended.
    SessionEnded,
    /// It came over a link for a session that is not there.
    NoSession,
    /// It came over a link and made no sense.
    Malformed,
    /// It went over a link and did not arrive.
    LinkLost,
    /// Longer than what it was to go through.
    TooLong,
    /// The target's host refuses datagrams.
    TargetRefused,
    /// The client's host cannot be sent to.
    ClientUnreachable,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DroppedLabels {
    reason: Dropped,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct EndingLabels {
    ending: Ending,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WayLabels {
    direction: Way,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FaultLabels {
    reason: Fault,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RefusedLabels {
    reason: RefusedFor,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LinkLabels {
    direction: String,
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProfileLabels {
    profile: String,
}

/// The router's metrics; clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Metrics {
    /// Connections open now.
    pub(crate) open: Gauge,
    ended: Family<EndingLabels, Counter>,
    bytes: Family<WayLabels, Counter>,
    faults: Family<FaultLabels, Counter>,
    refused: Family<RefusedLabels, Counter>,
    links: Family<LinkLabels, Gauge>,
    /// 1 while the newest document is not running because of its errors.
    pub(crate) document_rejected: Gauge,
    /// Documents that were not acceptable.
    pub(crate) document_errors: Counter,
    expiry: Family<ProfileLabels, Gauge>,
    /// Changes of the ways to addresses.
    pub(crate) route_changes: Counter,
    /// When the last of them was, seconds since 1970.
    pub(crate) route_changed: Gauge,
    /// Records that the access log had no room for.
    pub(crate) access_skipped: Counter,
    /// Sessions of UDP open now.
    pub(crate) udp_sessions: Gauge,
    /// Sessions of UDP that ended for a newer one.
    pub(crate) udp_evicted: Counter,
    /// Datagrams handed on.
    pub(crate) udp_datagrams: Counter,
    dropped: Family<DroppedLabels, Counter>,
}

impl Metrics {
    /// Registers all under `karez_router_…`.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let registry = registry.sub_registry_with_prefix("karez_router");
        registry.register(
            "connections_open",
            "Carried connections open now",
            self.open.clone(),
        );
        registry.register(
            "connections",
            "Carried connections by how they ended",
            self.ended.clone(),
        );
        registry.register(
            "bytes",
            "Bytes carried, as the client sees them",
            self.bytes.clone(),
        );
        registry.register("errors", "What went wrong, by reason", self.faults.clone());
        let help = "What peers were refused, by reason";
        registry.register("peers_refused", help, self.refused.clone());
        registry.register("links", "Links by direction and state", self.links.clone());
        let help = "Whether the newest document is rejected and an older one runs";
        registry.register("document_rejected", help, self.document_rejected.clone());
        registry.register(
            "document_errors",
            "Documents that were rejected",
            self.document_errors.clone(),
        );
        let help = "When a TLS profile's certificate ends, seconds since 1970";
        registry.register("certificate_expiry_timestamp_seconds", help, self.expiry.clone());
        let help = "Changes of the ways to addresses";
        registry.register("route_changes", help, self.route_changes.clone());
        let help = "Records of the access log that were left out, as there were too many in a second";
        registry.register("access_log_skipped", help, self.access_skipped.clone());
        self.register_udp(registry);
    }

    fn register_udp(&self, registry: &mut Registry) {
        registry.register(
            "udp_sessions_open",
            "Sessions of UDP open now",
            self.udp_sessions.clone(),
        );
        let help = "Sessions of UDP that ended for a newer one, as there were too many";
        registry.register("udp_sessions_evicted", help, self.udp_evicted.clone());
        let help = "Datagrams handed on, both ways";
        registry.register("udp_datagrams", help, self.udp_datagrams.clone());
        let help = "Datagrams that were not handed on, by reason";
        registry.register("udp_dropped", help, self.dropped.clone());
    }

    /// Counts a datagram that was not handed on.
    pub(crate) fn dropped(&self, reason: Dropped) {
        self.dropped_many(reason, 1);
    }

    /// Counts datagrams that were not handed on.
    pub(crate) fn dropped_many(&self, reason: Dropped, number: u64) {
        if number > 0 {
            self.dropped
                .get_or_create(&DroppedLabels { reason })
                .inc_by(number);
        }
    }

    /// Counts a finished connection.
    pub(crate) fn ended(&self, ending: Ending) {
        self.ended.get_or_create(&EndingLabels { ending }).inc();
    }

    /// The counter of carried bytes.
    pub(crate) fn bytes(&self, direction: Way) -> Counter {
        self.bytes.get_or_create(&WayLabels { direction }).clone()
    }

    /// Counts something that went wrong.
    pub(crate) fn fault(&self, reason: Fault) {
        self.faults.get_or_create(&FaultLabels { reason }).inc();
    }

    /// Counts something that a peer was refused.
    pub(crate) fn refused(&self, reason: RefusedFor) {
        self.refused.get_or_create(&RefusedLabels { reason }).inc();
    }

    /// Sets the numbers of links by direction and state.
    pub(crate) fn set_links<'a>(&self, links: impl Iterator<Item = (&'a str, &'a str)>) {
        self.links.clear();
        for (direction, state) in links {
            let labels = LinkLabels {
                direction: direction.to_owned(),
                state: state.to_owned(),
            };
            self.links.get_or_create(&labels).inc();
        }
    }

    /// Says when a profile's certificate ends.
    pub(crate) fn set_expiry(&self, profile: &str, seconds: i64) {
        self.expiry
            .get_or_create(&ProfileLabels {
                profile: profile.to_owned(),
            })
            .set(seconds);
    }

    /// Forgets a profile.
    pub(crate) fn forget_expiry(&self, profile: &str) {
        self.expiry.remove(&ProfileLabels {
            profile: profile.to_owned(),
        });
    }
}
