//! What the whole-system tests share: folders, processes, clusters, peers, waiting.

pub(crate) mod backend;
pub(crate) mod cluster;
pub(crate) mod daemon;
pub(crate) mod dns;
pub(crate) mod http;
pub(crate) mod kubernetes;
pub(crate) mod manifests;
pub(crate) mod namespace;
pub(crate) mod peers;
pub(crate) mod process;
pub(crate) mod site;
pub(crate) mod stage;
pub(crate) mod wait;

/// How a test ends.
pub(crate) type Outcome<T = ()> = anyhow::Result<T>;
