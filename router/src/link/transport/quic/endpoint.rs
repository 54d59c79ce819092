//! QUIC as links use it: windows, timers, packet sizes, and endpoints over bound sockets.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use karez_identity::{LINK_SERVER_NAME, TlsMaterial};
use karez_router_config::Congestion;
use quinn::congestion::{BbrConfig, ControllerFactory, CubicConfig};
use quinn::crypto::rustls::{QuicClientConfig, QuicServerConfig};
use quinn::crypto::{CryptoError, HmacKey};
use quinn::{
    AckFrequencyConfig, ClientConfig, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    IdleTimeout, MtuDiscoveryConfig, ServerConfig, TransportConfig, VarInt,
};
use sha2::{Digest, Sha256};

use super::congestion::TolerantConfig;
use super::connection::QuicConnection;
use super::driver::begun;
use super::runtime::LinkRuntime;
use crate::link::failure::Failure;
use crate::link::transport::{Connection, ConnectionError, CryptoSetupError, Settings};
use crate::wire;

/// What one carried connection may have in flight: what a slow reader can hold back.
const STREAM_WINDOW: u32 = 4 << 20;
/// What all connections of a link may have in flight towards us: the bound of a link's memory.
const LINK_WINDOW: u32 = 64 << 20;
/// What a link keeps until the peer has acknowledged it.
const SEND_WINDOW: u64 = 32 << 20;
/// Datagrams that wait to be read or sent, in bytes; when there are more the oldest are dropped.
const DATAGRAMS: usize = 1 << 20;
/// Streams that a peer may open at first: quinn keeps room for all that it may, so it may more once it has many.
pub(super) const FIRST_STREAMS: u32 = 128;
/// A silent peer is gone after this.
const IDLE: Duration = Duration::from_secs(10);
/// How often a quiet link says that it lives.
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// The largest packet that is tried. Ten of them, which quinn hands to the kernel at once, must fit into one of its
/// 64 KiB sends: larger ones are dropped without an error.
const LARGEST_PACKET: u16 = 6_500;
/// The largest that an Ethernet takes, as quinn has it.
const ETHERNET: u16 = 1_452;
/// IPv6 and UDP.
const HEADERS: u16 = 48;
/// A handshake's first packets are sent again after thrice this, until the round trip is known.
const FIRST_ROUND_TRIP: Duration = Duration::from_millis(120);
/// Packets that are acknowledged at once.
const ACK_EVERY: u32 = 10;
/// Kernel buffers of a link's socket: a burst must not be dropped before it is read.
const SOCKET_BUFFER: usize = 4 << 20;

fn transport(largest_packet: u16, settings: Settings) -> Arc<TransportConfig> {
    let mut mtu = MtuDiscoveryConfig::default();
    mtu.upper_bound(largest_packet);
    let mut acks = AckFrequencyConfig::default();
    // A bulk sender needs no word about every second packet.
    acks.ack_eliciting_threshold(VarInt::from_u32(ACK_EVERY));
    let mut config = TransportConfig::default();
    config
        .max_concurrent_bidi_streams(VarInt::from_u32(settings.streams_taken().min(FIRST_STREAMS)))
        .max_concurrent_uni_streams(VarInt::from_u32(0))
        .stream_receive_window(VarInt::from_u32(STREAM_WINDOW))
        .receive_window(VarInt::from_u32(LINK_WINDOW))
        .send_window(SEND_WINDOW)
        .datagram_receive_buffer_size(Some(DATAGRAMS))
        .datagram_send_buffer_size(DATAGRAMS)
        .initial_rtt(FIRST_ROUND_TRIP)
        .ack_frequency_config(Some(acks))
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(
            u32::try_from(IDLE.as_millis()).unwrap_or(u32::MAX),
        ))))
        .mtu_discovery_config(Some(mtu));
    let controllers: Arc<dyn ControllerFactory + Send + Sync> = match settings.congestion {
        Congestion::Auto => Arc::new(TolerantConfig::default()),
        Congestion::Cubic => Arc::new(CubicConfig::default()),
        Congestion::Bbr => Arc::new(BbrConfig::default()),
    };
    config.congestion_controller_factory(controllers);
    Arc::new(config)
}

/// The largest packet worth trying towards a peer: what the first hop takes, within what one send of the kernel does.
fn largest_packet(peer: SocketAddr) -> u16 {
    first_hop(peer)
        .and_then(|mtu| u16::try_from(mtu).ok())
        .map_or(ETHERNET, |mtu| mtu.saturating_sub(HEADERS))
        .clamp(ETHERNET, LARGEST_PACKET)
}

/// The MTU of the way's first hop.
fn first_hop(peer: SocketAddr) -> Option<u32> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    // Connected, nothing is sent; the kernel only looks up the way.
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect(peer).ok()?;
    match peer {
        SocketAddr::V4(_) => rustix::net::sockopt::ip_mtu(&socket).ok(),
        SocketAddr::V6(_) => rustix::net::sockopt::ipv6_mtu(&socket).ok(),
    }
}

/// Dials a peer from a socket.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    profile: &TlsMaterial,
    peer: SocketAddr,
    settings: Settings,
) -> Result<Connection, Failure> {
    let config =
        client_config(profile, peer, settings).map_err(|error| Failure::refused(error.to_string()))?;
    let (connecting, driver) = begun(|| endpoint.connect_with(config, peer, LINK_SERVER_NAME));
    let connecting = connecting.map_err(|error| Failure::down(format!("cannot dial {peer}: {error}")))?;
    let connection = connecting.await.map_err(ConnectionError::from)?;
    Ok(Connection::Quic(QuicConnection::new(
        connection, driver, settings,
    )))
}

fn client_config(
    profile: &TlsMaterial,
    peer: SocketAddr,
    settings: Settings,
) -> Result<ClientConfig, CryptoSetupError> {
    let tls = karez_identity::client_config(profile, &[wire::ALPN])?;
    let mut config = ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
    config.transport_config(transport(largest_packet(peer), settings));
    Ok(config)
}

/// What an accepting port uses until a peer is known; [`towards`] is for one that is.
pub(super) fn server_config(
    profile: &TlsMaterial,
    settings: Settings,
) -> Result<ServerConfig, CryptoSetupError> {
    let tls = karez_identity::server_config(profile, &[wire::ALPN])?;
    let mut config = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls)?));
    config
        .transport_config(transport(ETHERNET, settings))
        .max_incoming(1024);
    Ok(config)
}

/// The same for one peer: with what the way to it takes.
pub(super) fn towards(config: &ServerConfig, peer: SocketAddr, settings: Settings) -> ServerConfig {
    let mut config = config.clone();
    config.transport_config(transport(largest_packet(peer), settings));
    config
}

/// An endpoint that accepts links on a bound socket.
///
/// Its reset key comes from the profile's private key, so that a restarted router can tell peers at once that
/// their connections are gone, instead of leaving them to wait.
pub(super) fn server_endpoint(
    socket: tokio::net::UdpSocket,
    profile: &TlsMaterial,
    server: ServerConfig,
) -> std::io::Result<Endpoint> {
    let socket = socket.into_std()?;
    let mut config = EndpointConfig::new(Arc::new(ResetKey::of(profile)));
    config.cid_generator(|| Box::new(RandomIds));
    sized(&mut config);
    endpoint(config, Some(server), socket)
}

/// Connection ids that are random. quinn's own would not recognise ids from before a restart, and so answer nothing.
struct RandomIds;

impl ConnectionIdGenerator for RandomIds {
    fn generate_cid(&mut self) -> ConnectionId {
        ConnectionId::new(&rand::random::<[u8; 8]>())
    }

    fn cid_len(&self) -> usize {
        8
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

fn sized(config: &mut EndpointConfig) {
    config
        .max_udp_payload_size(LARGEST_PACKET)
        .expect("more than the least that QUIC demands");
}

fn endpoint(
    config: EndpointConfig,
    server: Option<ServerConfig>,
    socket: std::net::UdpSocket,
) -> std::io::Result<Endpoint> {
    let buffers = socket2::SockRef::from(&socket);
    // Best effort: without it the system's default stays.
    let _ = buffers.set_recv_buffer_size(SOCKET_BUFFER);
    let _ = buffers.set_send_buffer_size(SOCKET_BUFFER);
    Endpoint::new(config, server, socket, Arc::new(LinkRuntime))
}

fn client_endpoint(any: SocketAddr) -> std::io::Result<Endpoint> {
    let mut config = EndpointConfig::default();
    sized(&mut config);
    endpoint(config, None, std::net::UdpSocket::bind(any)?)
}

/// The sockets that links dial from: one for each address family, made when first needed.
#[derive(Default)]
pub(crate) struct ClientEndpoints {
    v4: Mutex<Option<Endpoint>>,
    v6: Mutex<Option<Endpoint>>,
}

impl ClientEndpoints {
    /// The endpoint to dial this peer from.
    pub(crate) fn towards(&self, peer: SocketAddr) -> std::io::Result<Endpoint> {
        let (slot, any): (_, SocketAddr) = match peer {
            SocketAddr::V4(_) => (&self.v4, (Ipv4Addr::UNSPECIFIED, 0).into()),
            SocketAddr::V6(_) => (&self.v6, (Ipv6Addr::UNSPECIFIED, 0).into()),
        };
        let mut slot = slot.lock().expect("nothing panics while it is held");
        if let Some(endpoint) = &*slot {
            return Ok(endpoint.clone());
        }
        Ok(slot.insert(client_endpoint(any)?).clone())
    }

    /// An endpoint of its own, to dial this peer from: so that another core can work on what it carries.
    pub(crate) fn another_towards(peer: SocketAddr) -> std::io::Result<Endpoint> {
        client_endpoint(match peer {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        })
    }

    /// Waits until the last farewells are sent.
    pub(crate) async fn wait_idle(&self) {
        for slot in [&self.v4, &self.v6] {
            let endpoint = slot.lock().expect("nothing panics while it is held").clone();
            if let Some(endpoint) = endpoint {
                endpoint.wait_idle().await;
            }
        }
    }
}

/// Signs reset tokens: HMAC-like, nested SHA-256 under a secret key.
#[derive(Clone, Copy)]
struct ResetKey([u8; 32]);

impl ResetKey {
    fn of(profile: &TlsMaterial) -> Self {
        Self(
            Sha256::new()
                .chain_update(b"karez stateless reset")
                .chain_update(&profile.key)
                .finalize()
                .into(),
        )
    }

    fn digest(&self, data: &[u8]) -> [u8; 32] {
        let inner = Sha256::new()
            .chain_update([0x36])
            .chain_update(self.0)
            .chain_update(data)
            .finalize();
        Sha256::new()
            .chain_update([0x5c])
            .chain_update(self.0)
            .chain_update(inner)
            .finalize()
            .into()
    }
}

impl HmacKey for ResetKey {
    fn sign(&self, data: &[u8], signature_out: &mut [u8]) {
        signature_out.copy_from_slice(&self.digest(data));
    }

    fn signature_len(&self) -> usize {
        32
    }

    fn verify(&self, data: &[u8], signature: &[u8]) -> Result<(), CryptoError> {
        let differing = self
            .digest(data)
            .iter()
            .zip(signature)
            .fold(0, |all, (a, b)| all | (a ^ b));
        if signature.len() == 32 && differing == 0 {
            Ok(())
        } else {
            Err(CryptoError)
        }
    }
}
