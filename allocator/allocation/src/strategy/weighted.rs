//! Rendezvous hashing with bounded load: each target has an order of collectors of its own; it goes to the first that
//! has room. What room is follows from samples scraped.

use crate::entries::{Entry, mix};
use crate::seats::{Member, Seat, Seats};
use crate::settings::Settings;

/// The most that a collector should have: a little above the mean, and no more than the cap.
pub(crate) fn limit(settings: &Settings, seats: &Seats, total: u64) -> u64 {
    let collectors = seats.serving.len().max(1) as f64;
    let limit = (total as f64 / collectors * (1.0 + settings.slack)).ceil() as u64;
    match settings.cap {
        0 => limit,
        cap => limit.min(cap),
    }
}

fn score(entry: &Entry, member: &Member) -> u64 {
    mix(entry.identity ^ member.hash)
}

fn candidates(seats: &Seats) -> impl Iterator<Item = (Seat, &Member)> {
    let known = |seat: &Seat| seats.get(*seat).map(|member| (*seat, member));
    seats.serving.iter().filter_map(known)
}

/// The first in a target's order that has room; if none has, the one with the least, unless that is above the cap.
pub(crate) fn choose(settings: &Settings, seats: &Seats, entry: &Entry, limit: u64) -> Option<Seat> {
    let room = |member: &Member| member.load + entry.weight() <= limit;
    let best = candidates(seats)
        .filter(|(_, member)| room(member))
        .max_by_key(|(_, member)| score(entry, member));
    let fits = |member: &Member| settings.cap == 0 || member.load + entry.weight() <= settings.cap;
    let least = || {
        candidates(seats)
            .filter(|(_, member)| fits(member))
            .min_by_key(|(_, member)| member.load)
    };
    best.or_else(least).map(|(seat, _)| seat)
}

/// The first in a target's order, but for its owner, that is not above the limit with it. If it is too heavy for all,
/// it goes to the one with the least, where it makes the two more even.
pub(crate) fn next(settings: &Settings, seats: &Seats, entry: &Entry, limit: u64) -> Option<Seat> {
    let others = || candidates(seats).filter(|(seat, _)| *seat != entry.owner);
    let room = |member: &Member| member.load + entry.weight() <= limit;
    let best = others()
        .filter(|(_, member)| room(member))
        .max_by_key(|(_, member)| score(entry, member));
    let owner = seats.get(entry.owner).map_or(0, |member| member.load);
    let better = |member: &Member| {
        let after = member.load + entry.weight();
        after < owner && (settings.cap == 0 || after <= settings.cap)
    };
    let least = || {
        others()
            .filter(|(_, member)| better(member))
            .min_by_key(|(_, member)| member.load)
    };
    best.or_else(least).map(|(seat, _)| seat)
}
