//! How names become addresses and how sockets are bound: the same in a cluster, on a bare machine and in a Pod of the
//! local cluster, so that no program asks where it runs.
//!
//! ```text
//!  "0.0.0.0:4317" ──▶ endpoint ──▶ bind ──▶ TcpListeners, UdpSockets      (in a local Pod: on the Pod's own address)
//!  "name:4317"    ──▶ resolve: names file of the local cluster, else the system ──▶ connect ──▶ TcpStream
//! ```

mod bind;
mod connect;
mod endpoint;
mod holder;
pub mod names;
mod resolve;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

pub use bind::{BindError, TcpListeners};
pub use connect::ConnectError;
pub use endpoint::{EndpointError, split_host_port};
pub use holder::{Holder, Protocol};
pub use resolve::ResolveError;

/// Names of the environment variables by which the local cluster tells a Pod's process where it is.
pub mod variables {
    /// The Pod's own address: unspecified and local binds go there.
    pub const POD_ADDRESS: &str = "KAREZ_POD_ADDRESS";
    /// The address at which other sites reach this one.
    pub const EXTERNAL_ADDRESS: &str = "KAREZ_EXTERNAL_ADDRESS";
    /// `1` when binds shall also take the port on 127.0.0.1 where it is free (injected sidecars).
    pub const HOST_PORTS: &str = "KAREZ_HOST_PORTS";
    /// The file that says which Services and Pods there are.
    pub const NAMES: &str = "KAREZ_NAMES";
    /// The Pod's namespace, in which a bare Service name is looked up.
    pub const NAMESPACE: &str = "KAREZ_NAMESPACE";
}

/// Binds sockets and finds addresses. Cheap to clone; clones share what they have learnt.
#[derive(Clone, Debug)]
pub struct Net {
    inner: Arc<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    pod_address: Option<IpAddr>,
    external_address: Option<IpAddr>,
    host_ports: bool,
    namespace: Option<String>,
    names: Option<names::NamesFile>,
    /// Moves on with every connection, so that the ready Pods of a Service take turns.
    turn: AtomicUsize,
}

impl Net {
    /// The machine's own view: binds are taken literally, names are the system's.
    pub fn system() -> Self {
        Self::builder().build()
    }

    /// What the environment says: a Pod of the local cluster where [`variables`] are set, else [`Net::system`].
    /// A value that is no address is reported and left out.
    pub fn from_env() -> Self {
        let mut builder = Self::builder();
        if let Some(address) = address_from_env(variables::POD_ADDRESS) {
            builder = builder.pod_address(address);
        }
        if let Some(address) = address_from_env(variables::EXTERNAL_ADDRESS) {
            builder = builder.external_address(address);
        }
        if std::env::var(variables::HOST_PORTS).is_ok_and(|value| value == "1") {
            builder = builder.host_ports(true);
        }
        if let Some(path) = std::env::var_os(variables::NAMES) {
            builder = builder.names_file(PathBuf::from(path));
        }
        if let Ok(namespace) = std::env::var(variables::NAMESPACE) {
            builder = builder.namespace(namespace);
        }
        builder.build()
    }

    /// A view put together by hand.
    pub fn builder() -> NetBuilder {
        NetBuilder::default()
    }

    /// The Pod's own address, in a Pod of the local cluster.
    pub fn pod_address(&self) -> Option<IpAddr> {
        self.inner.pod_address
    }

    /// The address at which other sites reach this one, on the local cluster.
    pub fn external_address(&self) -> Option<IpAddr> {
        self.inner.external_address
    }
}

/// Puts a [`Net`] together.
#[derive(Debug, Default)]
pub struct NetBuilder {
    inner: Inner,
}

impl NetBuilder {
    /// Unspecified and local binds go to this address.
    #[must_use]
    pub fn pod_address(mut self, address: IpAddr) -> Self {
        self.inner.pod_address = Some(address);
        self
    }

    /// Other sites reach this one here.
    #[must_use]
    pub fn external_address(mut self, address: IpAddr) -> Self {
        self.inner.external_address = Some(address);
        self
    }

    /// With a Pod address: whether binds also take the port on 127.0.0.1 where it is free.
    #[must_use]
    pub fn host_ports(mut self, also: bool) -> Self {
        self.inner.host_ports = also;
        self
    }

    /// Service names are looked up in this file first.
    #[must_use]
    pub fn names_file(mut self, path: PathBuf) -> Self {
        self.inner.names = Some(names::NamesFile::new(path));
        self
    }

    /// The namespace of bare Service names; without it, the names file's.
    #[must_use]
    pub fn namespace(mut self, namespace: impl Into<String>) -> Self {
        self.inner.namespace = Some(namespace.into());
        self
    }

    /// The finished view.
    pub fn build(self) -> Net {
        Net {
            inner: Arc::new(self.inner),
        }
    }
}

fn address_from_env(name: &'static str) -> Option<IpAddr> {
    let value = std::env::var(name).ok()?;
    match value.trim().parse() {
        Ok(address) => Some(address),
        Err(_) => {
            tracing::warn!(variable = name, %value, "not an IP address: left out");
            None
        }
    }
}

/// Whether a bind to this address means "this machine, from inside": the Pod's own address where there is one.
fn is_loopback_itself(address: IpAddr) -> bool {
    address == IpAddr::V4(Ipv4Addr::LOCALHOST) || address == IpAddr::V6(std::net::Ipv6Addr::LOCALHOST)
}
