//! Binding what a document asks for. In a Pod of the local cluster an unspecified or local address means the Pod's own,
//! so that no two Pods collide; elsewhere it is taken literally.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use futures::Stream;
use socket2::TcpKeepalive;
use tokio::net::{TcpListener, TcpStream, UdpSocket};

use crate::endpoint::{EndpointError, split_host_port};
use crate::holder::{self, Holder, Protocol};
use crate::{Net, is_loopback_itself};

/// A silent connection is asked whether it lives after this.
const KEEP_ALIVE: Duration = Duration::from_secs(60);

/// How connections are asked whether they live: without it, one whose other end vanished is only noticed when something
/// is sent to it.
pub(crate) fn keep_alive() -> TcpKeepalive {
    TcpKeepalive::new()
        .with_time(KEEP_ALIVE)
        .with_interval(KEEP_ALIVE / 4)
}

/// Room for a burst of datagrams; the kernel gives what its own limit allows.
const UDP_BUFFER: usize = 4 << 20;

/// Why an endpoint cannot be bound.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The text is no endpoint.
    #[error("cannot listen: {0}")]
    Endpoint(#[from] EndpointError),
    /// The host name has no address.
    #[error("cannot listen on {endpoint:?}: the name {host:?} has no address")]
    Host {
        /// What was asked for.
        endpoint: String,
        /// The name.
        host: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another socket is bound there.
    #[error(
        "{protocol} port {} on {} (asked for as {endpoint:?}) is in use{}; stop that program or give this one another port",
        address.port(), address.ip(), by(holder)
    )]
    InUse {
        /// TCP or UDP.
        protocol: Protocol,
        /// What was asked for.
        endpoint: String,
        /// Where it should have been bound.
        address: SocketAddr,
        /// Who holds it, if that can be known.
        holder: Option<Holder>,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system refuses for another reason.
    #[error(
        "cannot listen on {protocol} {address} (asked for as {endpoint:?}): {source}{}",
        hint(source)
    )]
    Refused {
        /// TCP or UDP.
        protocol: Protocol,
        /// What was asked for.
        endpoint: String,
        /// Where it should have been bound.
        address: SocketAddr,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

fn by(holder: &Option<Holder>) -> String {
    holder
        .as_ref()
        .map(|holder| format!(" by {holder}"))
        .unwrap_or_default()
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrNotAvailable => "; the address is not one of this machine's",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege, use a higher one",
        _ => "",
    }
}

impl BindError {
    fn new(protocol: Protocol, endpoint: &str, address: SocketAddr, source: io::Error) -> Self {
        let endpoint = endpoint.to_owned();
        if source.kind() == io::ErrorKind::AddrInUse {
            let holder = holder::find(protocol, address);
            return Self::InUse {
                protocol,
                endpoint,
                address,
                holder,
                source,
            };
        }
        Self::Refused {
            protocol,
            endpoint,
            address,
            source,
        }
    }
}

/// Where to bind: the first must succeed, the others are taken when they are free.
#[derive(Debug, PartialEq, Eq)]
struct Places {
    must: SocketAddr,
    may: Vec<SocketAddr>,
}

impl Net {
    /// Listens for TCP connections at `HOST:PORT`.
    ///
    /// # Errors
    /// When the text is no endpoint or the address cannot be had; the message says who holds it.
    pub async fn listen_tcp(&self, endpoint: &str) -> Result<TcpListeners, BindError> {
        let places = self.places_of(endpoint).await?;
        let refused = |address, source| BindError::new(Protocol::Tcp, endpoint, address, source);
        let first = TcpListener::bind(places.must)
            .await
            .map_err(|error| refused(places.must, error))?;
        let port = first
            .local_addr()
            .map_err(|error| refused(places.must, error))?
            .port();
        let mut listeners = vec![first];
        for place in places.may {
            match TcpListener::bind(SocketAddr::new(place.ip(), port)).await {
                Ok(listener) => listeners.push(listener),
                Err(error) => not_taken(Protocol::Tcp, place.ip(), port, &error),
            }
        }
        Ok(TcpListeners::new(listeners))
    }

    /// Binds UDP sockets at `HOST:PORT`: one, or two where the host's address is taken too.
    ///
    /// # Errors
    /// As [`Net::listen_tcp`].
    pub fn bind_udp(&self, endpoint: &str) -> Result<Vec<UdpSocket>, BindError> {
        let (host, port) = split_host_port(endpoint)?;
        let places = match self.literal_places(&host, port) {
            Some(places) => places,
            None => {
                use std::net::ToSocketAddrs;
                let found = (host.as_str(), port).to_socket_addrs();
                Self::named_place(endpoint, &host, found.map(Iterator::collect))?
            }
        };
        let refused = |address, source| BindError::new(Protocol::Udp, endpoint, address, source);
        let first = udp_socket(places.must).map_err(|error| refused(places.must, error))?;
        let port = first
            .local_addr()
            .map_err(|error| refused(places.must, error))?
            .port();
        let mut sockets = vec![first];
        for place in places.may {
            match udp_socket(SocketAddr::new(place.ip(), port)) {
                Ok(socket) => sockets.push(socket),
                Err(error) => not_taken(Protocol::Udp, place.ip(), port, &error),
            }
        }
        Ok(sockets)
    }

    /// Listens for TCP connections at just this address, also where it would mean the Pod's own: for what is offered
    /// at [`Net::external_address`].
    ///
    /// # Errors
    /// When the address cannot be had; the message says who holds it.
    pub async fn listen_tcp_at(&self, address: SocketAddr) -> Result<TcpListeners, BindError> {
        let bound = TcpListener::bind(address).await;
        bound
            .map(TcpListeners::from)
            .map_err(|error| BindError::new(Protocol::Tcp, &address.to_string(), address, error))
    }

    /// Binds a UDP socket at just this address; see [`Net::listen_tcp_at`].
    ///
    /// # Errors
    /// When the address cannot be had; the message says who holds it.
    pub fn bind_udp_at(&self, address: SocketAddr) -> Result<UdpSocket, BindError> {
        udp_socket(address)
            .map_err(|error| BindError::new(Protocol::Udp, &address.to_string(), address, error))
    }

    async fn places_of(&self, endpoint: &str) -> Result<Places, BindError> {
        let (host, port) = split_host_port(endpoint)?;
        if let Some(places) = self.literal_places(&host, port) {
            return Ok(places);
        }
        let found = tokio::net::lookup_host((host.as_str(), port)).await;
        Self::named_place(endpoint, &host, found.map(Iterator::collect))
    }

    /// The places for a host that needs no look-up: empty, an address, or `localhost`.
    fn literal_places(&self, host: &str, port: u16) -> Option<Places> {
        let at = |ip: IpAddr| SocketAddr::new(ip, port);
        let asked = match host {
            "" => IpAddr::V6(std::net::Ipv6Addr::UNSPECIFIED),
            "localhost" => IpAddr::V4(Ipv4Addr::LOCALHOST),
            _ => host.parse().ok()?,
        };
        let inside = asked.is_unspecified() || is_loopback_itself(asked);
        let Some(pod) = self.pod_address().filter(|_| inside) else {
            let must = if host.is_empty() && !has_ipv6() {
                at(Ipv4Addr::UNSPECIFIED.into())
            } else {
                at(asked)
            };
            return Some(Places {
                must,
                may: Vec::new(),
            });
        };
        let host_too = self.inner.host_ports && port != 0 && !is_loopback_itself(pod);
        let may = if host_too {
            vec![at(Ipv4Addr::LOCALHOST.into())]
        } else {
            Vec::new()
        };
        Some(Places { must: at(pod), may })
    }

    fn named_place(
        endpoint: &str,
        host: &str,
        found: io::Result<Vec<SocketAddr>>,
    ) -> Result<Places, BindError> {
        let first = found.and_then(|list| {
            list.into_iter()
                .next()
                .ok_or_else(|| io::ErrorKind::NotFound.into())
        });
        match first {
            Ok(must) => Ok(Places {
                must,
                may: Vec::new(),
            }),
            Err(source) => Err(BindError::Host {
                endpoint: endpoint.to_owned(),
                host: host.to_owned(),
                source,
            }),
        }
    }
}

/// Whether this machine has IPv6 at all: containers often have not, and `[::]` cannot be bound there.
fn has_ipv6() -> bool {
    std::net::UdpSocket::bind("[::]:0").is_ok()
}

fn udp_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = std::net::UdpSocket::bind(address)?;
    socket.set_nonblocking(true)?;
    // Best effort: without it the system's default stays.
    let _ = socket2::SockRef::from(&socket).set_recv_buffer_size(UDP_BUFFER);
    UdpSocket::from_std(socket)
}

fn not_taken(protocol: Protocol, ip: IpAddr, port: u16, error: &io::Error) {
    let holder = holder::find(protocol, SocketAddr::new(ip, port)).map(|holder| holder.to_string());
    tracing::info!(%protocol, %ip, port, %error, holder, "port not offered on the host, only on the Pod's address");
}

/// TCP listeners that are accepted from as one.
#[derive(Debug)]
pub struct TcpListeners {
    listeners: Vec<TcpListener>,
    /// Where the next accept starts to look, so that no listener starves another.
    next: usize,
}

impl TcpListeners {
    fn new(listeners: Vec<TcpListener>) -> Self {
        for listener in &listeners {
            // What a listening socket is set to, its connections begin with: four system calls less for each of them.
            // Best effort: a socket without is slower, or notices later that its client has vanished.
            let socket = socket2::SockRef::from(listener);
            let _ = socket.set_tcp_nodelay(true);
            let _ = socket.set_tcp_keepalive(&keep_alive());
        }
        Self { listeners, next: 0 }
    }

    /// The addresses that are bound; the first is the one that was asked for.
    pub fn local_addrs(&self) -> Vec<SocketAddr> {
        self.listeners
            .iter()
            .filter_map(|listener| listener.local_addr().ok())
            .collect()
    }

    /// The next connection, with small writes not held back, and asked whether it lives when it is silent.
    ///
    /// # Errors
    /// What the system says; most are passing (a connection that is gone already, no descriptors for a moment).
    pub async fn accept(&mut self) -> io::Result<(TcpStream, SocketAddr)> {
        std::future::poll_fn(|context| self.poll_accept(context)).await
    }

    /// The connections as a stream that never ends.
    pub fn into_stream(self) -> impl Stream<Item = io::Result<TcpStream>> + Send + Unpin {
        Accepting(self)
    }

    /// The listeners one by one; the first is on the address that was asked for.
    pub fn into_listeners(self) -> Vec<TcpListener> {
        self.listeners
    }

    fn poll_accept(&mut self, context: &mut Context<'_>) -> Poll<io::Result<(TcpStream, SocketAddr)>> {
        for step in 0..self.listeners.len() {
            let at = (self.next + step) % self.listeners.len();
            if let Poll::Ready(accepted) = self.listeners[at].poll_accept(context) {
                self.next = at + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}

impl From<TcpListener> for TcpListeners {
    fn from(listener: TcpListener) -> Self {
        Self::new(vec![listener])
    }
}

struct Accepting(TcpListeners);

impl Stream for Accepting {
    type Item = io::Result<TcpStream>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0
            .poll_accept(context)
            .map(|accepted| Some(accepted.map(|(stream, _)| stream)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn places(net: &Net, host: &str, port: u16) -> Option<Places> {
        net.literal_places(host, port)
    }

    #[test]
    fn in_a_pod_local_means_the_pods_own_address() {
        let net = Net::builder()
            .pod_address("127.9.8.7".parse().unwrap())
            .host_ports(true)
            .build();
        for host in ["", "0.0.0.0", "::", "localhost", "127.0.0.1", "::1"] {
            let found = places(&net, host, 4317).unwrap();
            assert_eq!(found.must.to_string(), "127.9.8.7:4317", "{host}");
            assert_eq!(found.may, ["127.0.0.1:4317".parse().unwrap()], "{host}");
        }
        assert_eq!(
            places(&net, "127.9.8.1", 1).unwrap().must.to_string(),
            "127.9.8.1:1"
        );
        assert!(places(&net, "::1", 0).unwrap().may.is_empty());
        assert_eq!(places(&net, "collector", 1), None);
    }

    #[tokio::test]
    async fn the_external_address_is_never_mapped_to_the_pods() {
        let external: SocketAddr = "127.0.0.1:0".parse().unwrap();
        let net = Net::builder()
            .pod_address("127.9.8.6".parse().unwrap())
            .external_address(external.ip())
            .build();
        let udp = net.bind_udp_at(external).unwrap().local_addr().unwrap();
        let tcp = net.listen_tcp_at(external).await.unwrap().local_addrs();
        assert_eq!((udp.ip(), tcp[0].ip()), (external.ip(), external.ip()));
    }

    #[tokio::test]
    async fn connections_begin_with_what_their_listener_was_set_to() {
        let mut listeners = Net::system().listen_tcp("127.0.0.1:0").await.unwrap();
        let _client = TcpStream::connect(listeners.local_addrs()[0]).await.unwrap();
        let (accepted, _) = listeners.accept().await.unwrap();
        let socket = socket2::SockRef::from(&accepted);
        assert!(accepted.nodelay().unwrap() && socket.keepalive().unwrap());
        assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEP_ALIVE);
        assert_eq!(socket.tcp_keepalive_interval().unwrap(), KEEP_ALIVE / 4);
    }

    #[test]
    fn elsewhere_it_is_taken_literally() {
        let net = Net::system();
        assert_eq!(places(&net, "0.0.0.0", 1).unwrap().must.to_string(), "0.0.0.0:1");
        assert_eq!(
            places(&net, "localhost", 1).unwrap().must.to_string(),
            "127.0.0.1:1"
        );
    }

    #[tokio::test]
    async fn a_port_in_use_says_who_should_move() {
        let net = Net::system();
        let mut first = net.listen_tcp("127.0.0.1:0").await.unwrap();
        let taken = first.local_addrs()[0].to_string();
        let message = net.listen_tcp(&taken).await.unwrap_err().to_string();
        assert!(
            message.contains("is in use by") && message.contains(&std::process::id().to_string()),
            "{message}"
        );
        let client = TcpStream::connect(&taken).await.unwrap();
        let (_, peer) = first.accept().await.unwrap();
        assert_eq!(peer, client.local_addr().unwrap());
        let udp = net.bind_udp("127.0.0.1:0").unwrap();
        let taken = udp[0].local_addr().unwrap().to_string();
        let message = net.bind_udp(&taken).unwrap_err().to_string();
        assert!(
            message.starts_with("UDP port") && message.contains("in use"),
            "{message}"
        );
    }

    #[tokio::test]
    async fn the_hosts_port_is_taken_only_when_free() {
        let net = Net::builder()
            .pod_address("127.77.66.5".parse().unwrap())
            .host_ports(true)
            .build();
        let holder = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = holder.local_addr().unwrap().port();
        let bound = net.listen_tcp(&format!("0.0.0.0:{port}")).await.unwrap();
        assert_eq!(
            bound.local_addrs(),
            [SocketAddr::new("127.77.66.5".parse().unwrap(), port)]
        );
        drop((bound, holder));
        let bound = net.listen_tcp(&format!("0.0.0.0:{port}")).await.unwrap();
        assert_eq!(bound.local_addrs().len(), 2);
    }
}
