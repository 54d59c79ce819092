//! Whom a target goes to.

mod consistent;
mod least;
mod node;
mod weighted;

use crate::entries::Entry;
use crate::seats::{Seat, Seats};
use crate::settings::{Settings, StrategyKind};

pub(crate) use consistent::PARTITIONS;

/// What strategies keep between two questions.
#[derive(Debug, Default)]
pub(crate) struct Strategy {
    ring: consistent::Ring,
    nodes: node::Nodes,
    /// The weight of all targets.
    pub(crate) total: u64,
}

impl Strategy {
    /// Collectors have come or gone; `nodes` are the numbers of the nodes of those that serve, in their order.
    pub(crate) fn seat(&mut self, settings: &Settings, seats: &Seats, nodes: &[u32]) {
        let uses = |kind| settings.strategy == kind || settings.fallback == Some(kind);
        if uses(StrategyKind::ConsistentHashing) {
            self.ring = consistent::Ring::new(seats);
        }
        if uses(StrategyKind::PerNode) {
            self.nodes = node::Nodes::new(seats, nodes);
        }
    }

    /// Whether a target that has an owner who serves keeps it after collectors came or went.
    pub(crate) fn keeps(&self, settings: &Settings, seats: &Seats, entry: &Entry) -> bool {
        let kind = match (settings.strategy, entry.node) {
            (StrategyKind::PerNode, 0) => match settings.fallback {
                Some(fallback) => fallback,
                None => return false,
            },
            (kind, _) => kind,
        };
        match kind {
            StrategyKind::ConsistentHashing => self.ring.owner(entry.partition) == Some(entry.owner),
            StrategyKind::PerNode => self.nodes.holds(entry.node, entry.owner),
            StrategyKind::LeastWeighted | StrategyKind::Weighted => seats.is_serving(entry.owner),
        }
    }

    /// Who a target without an owner goes to.
    pub(crate) fn choose(&self, settings: &Settings, seats: &Seats, entry: &Entry) -> Option<Seat> {
        match (settings.strategy, entry.node) {
            (StrategyKind::PerNode, 0) => self.by(settings.fallback?, settings, seats, entry),
            (kind, _) => self.by(kind, settings, seats, entry),
        }
    }

    fn by(&self, kind: StrategyKind, settings: &Settings, seats: &Seats, entry: &Entry) -> Option<Seat> {
        match kind {
            StrategyKind::ConsistentHashing => self.ring.owner(entry.partition),
            StrategyKind::LeastWeighted => least::choose(&seats.serving, seats, entry.job),
            StrategyKind::PerNode => least::choose(self.nodes.of(entry.node), seats, entry.job),
            StrategyKind::Weighted => {
                let limit = weighted::limit(settings, seats, self.total);
                weighted::choose(settings, seats, entry, limit)
            }
        }
    }

    /// `weighted`: the most that a collector should have.
    pub(crate) fn limit(&self, settings: &Settings, seats: &Seats) -> u64 {
        weighted::limit(settings, seats, self.total)
    }

    /// `weighted`: who comes next for a target that its owner has no room for.
    pub(crate) fn next(&self, settings: &Settings, seats: &Seats, entry: &Entry) -> Option<Seat> {
        let limit = weighted::limit(settings, seats, self.total);
        weighted::next(settings, seats, entry, limit)
    }
}
