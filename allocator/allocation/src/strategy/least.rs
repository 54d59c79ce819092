//! The fewest targets; of those, the fewest of the same job; of those, the first by name.

use crate::lists::List;
use crate::seats::{Seat, Seats};

/// Chooses among `candidates`, which are in the order of their names.
pub(crate) fn choose(candidates: &[Seat], seats: &Seats, job: u32) -> Option<Seat> {
    let mut best: Option<(u64, Seat)> = None;
    let mut tie = false;
    for seat in candidates {
        let Some(member) = seats.get(*seat) else { continue };
        match best {
            Some((targets, _)) if member.targets > targets => {}
            Some((targets, _)) if member.targets == targets => tie = true,
            _ => (best, tie) = (Some((member.targets, *seat)), false),
        }
    }
    let (targets, first) = best?;
    if !tie {
        return Some(first);
    }
    let of_job = |seat: &Seat| {
        let member = seats.get(*seat).filter(|member| member.targets == targets)?;
        Some((member.list(job).map_or(0, |list: &List| list.owned.len()), *seat))
    };
    // `min_by_key` gives the first of equals, which is the first by name.
    candidates
        .iter()
        .filter_map(of_job)
        .min_by_key(|(count, _)| *count)
        .map(|(_, seat)| seat)
}
