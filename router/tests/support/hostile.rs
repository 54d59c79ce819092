//! Peers by hand, which say what no router would; and what an honest link beside them must go on doing.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use karez_identity::{Credential, TlsMaterial, client_config};
use karez_router_config::TokenSection;
use prost::Message;
use quinn::crypto::rustls::QuicClientConfig;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{LIMIT, Site, ask, echo, pair};

pub(crate) const ALPN: &[u8] = b"karez-link/1";

/// The honest link beside goes on carrying.
pub(crate) async fn carries(edge: &Site) {
    let mut stream = TcpStream::connect(edge.listener().await).await.unwrap();
    assert_eq!(ask(&mut stream, b"still here").await, b"still here");
}

/// The number of refusals that the public router has counted for a reason.
pub(crate) async fn counted(site: &Site, reason: &str) -> u64 {
    let mut stream = TcpStream::connect(site.router().admin_address().unwrap())
        .await
        .unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut answer = String::new();
    timeout(LIMIT, stream.read_to_string(&mut answer))
        .await
        .unwrap()
        .unwrap();
    let line = format!("karez_router_peers_refused_total{{reason=\"{reason}\"}} ");
    let found = answer.lines().find_map(|found| found.strip_prefix(&line));
    found.map_or(0, |number| number.parse().unwrap())
}

/// A peer by hand, which says what no router would.
pub(crate) struct Hostile {
    pub(crate) connection: quinn::Connection,
    _endpoint: quinn::Endpoint,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct HelloSite {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(string, tag = "2")]
    name: String,
    #[prost(bool, tag = "5")]
    edge: bool,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Hello {
    #[prost(uint32, tag = "1")]
    version: u32,
    #[prost(message, optional, tag = "2")]
    site: Option<HelloSite>,
    #[prost(string, tag = "3")]
    role: String,
    #[prost(uint32, tag = "4")]
    cost: u32,
    #[prost(string, tag = "5")]
    router: String,
    #[prost(uint32, tag = "6")]
    oldest: u32,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Control {
    #[prost(message, optional, tag = "1")]
    hello: Option<Hello>,
}

#[derive(Clone, PartialEq, Message)]
pub(crate) struct Open {
    #[prost(string, tag = "1")]
    address: String,
    #[prost(uint32, tag = "2")]
    port: u32,
    #[prost(uint32, tag = "3")]
    hop_limit: u32,
}

impl Hostile {
    pub(crate) async fn connect(port: SocketAddr, token: &Credential) -> Self {
        let config = client_config(&TlsMaterial::from(token), &[ALPN]).unwrap();
        let crypto = QuicClientConfig::try_from(config).unwrap();
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse().unwrap()).unwrap();
        let config = quinn::ClientConfig::new(Arc::new(crypto));
        let connecting = endpoint.connect_with(config, port, "skupper-router").unwrap();
        Self {
            connection: timeout(LIMIT, connecting).await.unwrap().unwrap(),
            _endpoint: endpoint,
        }
    }

    /// A peer that has said hello properly: its control stream.
    pub(crate) async fn greeted(
        port: SocketAddr,
        token: &Credential,
    ) -> (Self, quinn::SendStream, quinn::RecvStream) {
        let peer = Self::connect(port, token).await;
        let (mut send, mut receive) = peer.connection.open_bi().await.unwrap();
        let hello = Hello {
            version: 2,
            oldest: 2,
            site: Some(HelloSite {
                id: "id-hostile".into(),
                name: "hostile".into(),
                edge: true,
            }),
            role: "edge".into(),
            cost: 1,
            router: "hostile-0".into(),
        };
        let body = Control { hello: Some(hello) }.encode_to_vec();
        send.write_all(&framed(&body)).await.unwrap();
        let mut length = [0; 4];
        timeout(LIMIT, receive.read_exact(&mut length))
            .await
            .unwrap()
            .unwrap();
        (peer, send, receive)
    }

    /// Opens a stream with a header and gives the first byte of the answer.
    pub(crate) async fn wants(&self, address: &str, port: u32) -> u8 {
        let (mut send, mut receive) = self.connection.open_bi().await.unwrap();
        let open = Open {
            address: address.into(),
            port,
            hop_limit: 3,
        };
        let body = open.encode_to_vec();
        let length = u16::try_from(body.len()).unwrap().to_be_bytes();
        send.write_all(&[&length[..], &body].concat()).await.unwrap();
        let mut answer = [9];
        timeout(LIMIT, receive.read_exact(&mut answer))
            .await
            .unwrap()
            .unwrap();
        answer[0]
    }

    /// Waits until the router has closed the connection; its reason.
    pub(crate) async fn closed(&self) -> String {
        timeout(LIMIT, self.connection.closed())
            .await
            .unwrap()
            .to_string()
    }
}

pub(crate) fn framed(body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&length[..], body].concat()
}

/// A public and an edge site that are linked, and a further token.
pub(crate) async fn with_token(change: impl FnOnce(&mut TokenSection)) -> (Site, Site, Credential) {
    let (mut public, edge) = pair(echo().await).await;
    edge.listener().await;
    let token = public.token("hostile", Timestamp::now());
    change(public.document.tokens.last_mut().unwrap());
    public.write();
    let (port, known) = (public.port().await, token.clone());
    // The document is taken over in a moment: until then the token is unknown.
    let taken_over = async {
        loop {
            let peer = Hostile::connect(port, &known).await;
            let refused = timeout(Duration::from_millis(300), peer.connection.closed()).await;
            if refused.is_err() {
                break;
            }
        }
    };
    timeout(LIMIT, taken_over)
        .await
        .expect("the token is taken over in time");
    (public, edge, token)
}
