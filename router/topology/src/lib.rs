//! Who can be reached how: a pure core. No sockets, no clock, no tasks.
//!
//! ```text
//!  document changed ─┐                         ┌─▶ Table: address ──▶ local targets and links, with costs
//!  link up / down  ──┼──Event──▶ Topology ─────┤
//!  peer announced  ──┘                         └─▶ announcements, each for one link
//!
//!  a new connection:  decide(&Table, address, hops left, loads) ──▶ Decision: Local(target), Link(id) or NoRoute
//! ```
//!
//! One hop now: a site announces what its own targets serve, and takes over no one else's routes. What several
//! hops need is in place: routes carry costs that add up, an announcement names its site, and a connection says
//! how many links it may still take.

mod decide;
mod model;
mod topology;

pub use decide::{Decision, Hop, Load, NextHop, Table, decide};
pub use model::{Address, Announcement, LinkId, Route, Service, Site, TargetId};
pub use topology::{Event, Local, Outcome, Topology};
