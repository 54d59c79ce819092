//! The words: sites, services, addresses, routes, and what one site says to another.

use std::sync::Arc;

/// A virtual address: a name and a port.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address {
    /// The name.
    pub name: String,
    /// The port.
    pub port: u16,
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}:{}", self.name, self.port)
    }
}

/// One live link, for as long as it is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LinkId(pub u64);

/// A target on this site, by its connector's name.
pub type TargetId = Arc<str>;

/// Who a site is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Site {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// The version it runs.
    pub version: String,
    /// Whether it is an edge: never on the way to others.
    pub edge: bool,
}

/// A service that a site defines.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Service {
    /// Its virtual address, without a port.
    pub address: String,
    /// Its protocol.
    pub protocol: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// Names of what serves it.
    pub targets: Vec<String>,
}

/// An address that can be reached through the announcing site.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Route {
    /// The address.
    pub address: Address,
    /// The cost from the announcing site on; 0 for its own targets.
    pub cost: u32,
}

/// Everything a site says to a neighbour; each one replaces the one before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Announcement {
    /// Who speaks.
    pub site: Site,
    /// The services it defines.
    pub services: Vec<Service>,
    /// What can be reached through it.
    pub routes: Vec<Route>,
    /// Ids of the sites that it made links to.
    pub links: Vec<String>,
}
