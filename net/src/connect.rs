//! Connecting to a name.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::Net;
use crate::bind::keep_alive;
use crate::resolve::ResolveError;

/// A connection that takes longer than this is none.
const LIMIT: Duration = Duration::from_secs(10);
/// While there are more addresses to try, one gets no longer than this.
const TURN: Duration = Duration::from_secs(3);

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The name has no address.
    #[error("cannot connect to {host}:{port}: {source}")]
    Resolve {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// Why.
        #[source]
        source: ResolveError,
    },
    /// No address took the connection; this is what the last one said.
    #[error("cannot connect to {host}:{port} (tried {}): {source}", list(tried))]
    Refused {
        /// The name.
        host: String,
        /// The port.
        port: u16,
        /// The addresses, in the order in which they were tried.
        tried: Vec<SocketAddr>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn list(addresses: &[SocketAddr]) -> String {
    let texts: Vec<String> = addresses.iter().map(SocketAddr::to_string).collect();
    texts.join(", ")
}

impl Net {
    /// Connects to a Service, a name or an address: each address in turn, ten seconds in all, small writes not held
    /// back. A silent connection is asked whether it lives.
    ///
    /// # Errors
    /// When the name has no address or none of them takes the connection.
    pub async fn connect_tcp(&self, host: &str, port: u16) -> Result<TcpStream, ConnectError> {
        let end = Instant::now() + LIMIT;
        let resolved = self.resolve(host, port).await;
        let tried = resolved.map_err(|source| ConnectError::Resolve {
            host: host.to_owned(),
            port,
            source,
        })?;
        let mut last = io::Error::from(io::ErrorKind::NotFound);
        for (index, address) in tried.iter().enumerate() {
            let until = if index + 1 == tried.len() {
                end
            } else {
                end.min(Instant::now() + TURN)
            };
            match timeout_at(until, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    // Best effort, as for connections that are accepted.
                    let _ = stream.set_nodelay(true);
                    let _ = socket2::SockRef::from(&stream).set_tcp_keepalive(&keep_alive());
                    return Ok(stream);
                }
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(ConnectError::Refused {
            host: host.to_owned(),
            port,
            tried,
            source: last,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connects_and_says_what_it_tried() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        Net::system().connect_tcp("127.0.0.1", port).await.unwrap();
        drop(listener);
        let message = Net::system()
            .connect_tcp("127.0.0.1", port)
            .await
            .unwrap_err()
            .to_string();
        assert!(message.contains(&format!("tried 127.0.0.1:{port}")), "{message}");
    }
}
