//! Entrances for `fuzz/`: what may stand in files that were damaged, or that others wrote.

use crate::durable;

/// A queue's state and its segments, as a disk may give them back: nothing panics, and what is kept lies within them.
pub fn queue(state: &[u8], segments: &[&[u8]]) {
    durable::fuzz(state, segments);
}
