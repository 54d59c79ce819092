//! What is still to be told over a link. It holds names, not messages: whoever is slow gets the latest state at once,
//! and takes no more memory than the state itself.

use std::collections::BTreeSet;

use crate::model::{Address, LinkKind, Part, RouterId};

/// What is still to be told over a link.
pub(crate) enum Outbox {
    /// To an interior router.
    Interior {
        digests: bool,
        have: BTreeSet<RouterId>,
        records: BTreeSet<(RouterId, Part)>,
    },
    /// To the router whose edge we are: whether our announcement changed.
    Uplink { announce: bool },
    /// To an edge.
    Attached(Box<ForEdge>),
}

/// What an edge is still to be told.
pub(crate) struct ForEdge {
    /// Nothing was told yet.
    pub(crate) first: bool,
    /// How far the first telling of all addresses has come; `None` when it is done.
    pub(crate) catch_up: Option<Option<Address>>,
    pub(crate) addresses: BTreeSet<Address>,
    pub(crate) sites: BTreeSet<String>,
    /// Sites that it was told of.
    pub(crate) told_sites: BTreeSet<String>,
}

impl ForEdge {
    pub(crate) fn nothing() -> Self {
        Self {
            first: false,
            catch_up: None,
            addresses: BTreeSet::new(),
            sites: BTreeSet::new(),
            told_sites: BTreeSet::new(),
        }
    }
}

impl Outbox {
    pub(crate) fn new(kind: LinkKind) -> Self {
        match kind {
            LinkKind::Interior => Self::Interior {
                digests: true,
                have: BTreeSet::new(),
                records: BTreeSet::new(),
            },
            LinkKind::Uplink => Self::Uplink { announce: true },
            LinkKind::Attached => Self::Attached(Box::new(ForEdge {
                first: true,
                catch_up: Some(None),
                ..ForEdge::nothing()
            })),
        }
    }

    /// A record is to be told.
    pub(crate) fn record(&mut self, router: &RouterId, part: Part) {
        if let Self::Interior { records, .. } = self {
            records.insert((router.clone(), part));
        }
    }

    /// The other has told us the same or something newer.
    pub(crate) fn knows(&mut self, router: &RouterId, part: Part) {
        if let Self::Interior { records, .. } = self {
            records.remove(&(router.clone(), part));
        }
    }

    /// Digests are to be told.
    pub(crate) fn digest(&mut self) {
        if let Self::Interior { digests, .. } = self {
            *digests = true;
        }
    }

    /// What we have of a router is to be told.
    pub(crate) fn have(&mut self, router: &RouterId) {
        if let Self::Interior { have, .. } = self {
            have.insert(router.clone());
        }
    }
}
