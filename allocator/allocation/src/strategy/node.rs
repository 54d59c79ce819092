//! The collectors on a target's node.

use std::collections::HashMap;

use crate::seats::{Seat, Seats};

/// Collectors by the number of their node, in the order of their names.
#[derive(Debug, Default)]
pub(crate) struct Nodes {
    on: HashMap<u32, Vec<Seat>>,
}

impl Nodes {
    /// `numbers` are those of the nodes of the collectors that serve, in their order.
    pub(crate) fn new(seats: &Seats, numbers: &[u32]) -> Self {
        let mut on: HashMap<u32, Vec<Seat>> = HashMap::new();
        for (seat, number) in seats.serving.iter().zip(numbers) {
            on.entry(*number).or_default().push(*seat);
        }
        Nodes { on }
    }

    pub(crate) fn of(&self, node: u32) -> &[Seat] {
        self.on.get(&node).map_or(&[], Vec::as_slice)
    }

    pub(crate) fn holds(&self, node: u32, seat: Seat) -> bool {
        self.of(node).contains(&seat)
    }
}
