//! Who can be reached how: a pure core. No sockets, no clock, no tasks.
//!
//! ```text
//!  document changed ─┐                         ┌─▶ Table: address ──▶ local targets and links, with costs
//!  link up / down  ──┼──Event──▶ Topology ─────┤
//!  a peer's Message ─┘    tick ──▶             └─▶ links to wake: next(link) ──▶ Message
//!
//!  a client's connection:  decide(&Table, address, loads) ──▶ Decision: Local(target), Link(path) or NoRoute
//!  one from a link:        decide_onward(…, Arrival: link, router chosen by the first, hops left, …) ──▶ the same
//! ```
//!
//! Interior routers keep the network's state in records: one of each router, with its interior neighbours and what it
//! serves, and one of each edge attached to it. They flood them among each other and compute shortest paths, so that all
//! come to the same paths. An edge only says what it has, and is told what it can reach. `flood.rs` says how records
//! travel, `database.rs` what is bounded and when it is forgotten.

mod database;
mod decide;
mod filter;
mod flood;
mod index;
mod message;
mod model;
mod outbox;
mod paths;
mod sites;
mod topology;

pub use decide::{Arrival, Decision, Hop, Load, NextHop, Path, Table, To, Ways, decide, decide_onward};
pub use filter::{Filter, Scope};
pub use message::{Digest, Flooded, Have, Message, Summary};
pub use model::{
    Address, Announcement, Body, CORE, Fingerprint, LinkId, LinkKind, Neighbour, Part, Record, Route,
    RouterId, Service, Site, TargetId, Version, epoch,
};
pub use paths::Reach;
pub use topology::{Event, Local, Outcome, Topology};
