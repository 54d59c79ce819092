//! How TCP connections to a peer are made: directly, or through an HTTP proxy.

use std::io;

use karez_net::{ConnectError, Net};
use tokio::net::TcpStream;

use super::proxy::{Proxy, ProxyError};

/// The way to a peer's TCP port.
#[derive(Clone, Debug)]
pub(crate) struct TcpRoute {
    pub(crate) net: Net,
    pub(crate) host: String,
    pub(crate) port: u16,
    pub(crate) proxy: Option<Proxy>,
}

/// Why there is no TCP connection.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RouteError {
    /// The peer does not take one.
    #[error(transparent)]
    Direct(#[from] ConnectError),
    /// The proxy does not make one.
    #[error(transparent)]
    Proxy(#[from] ProxyError),
}

impl TcpRoute {
    /// Connects.
    pub(crate) async fn connect(&self) -> Result<TcpStream, RouteError> {
        match &self.proxy {
            None => Ok(self.net.connect_tcp(&self.host, self.port).await?),
            Some(proxy) => Ok(proxy.connect(&self.net, &self.host, self.port).await?),
        }
    }
}

impl From<RouteError> for io::Error {
    fn from(error: RouteError) -> Self {
        Self::other(error)
    }
}
