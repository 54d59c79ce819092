//! `proxy_url`: connections through an HTTP proxy, by CONNECT, whatever goes over them.

use std::io;

use base64::Engine as _;
use karez_net::Net;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use url::Url;

/// The longest head of an answer that is read.
const MAX_HEAD: usize = 8 << 10;

/// An HTTP proxy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Proxy {
    /// Its host.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it is to be told about who we are.
    authorization: Option<String>,
}

impl Proxy {
    /// Reads `http://[user:password@]host[:port]`; a failure says what is wrong.
    pub fn parse(text: &str) -> Result<Self, String> {
        let url: Url = text.parse().map_err(|error| format!("is no URL: {error}"))?;
        if url.scheme() != "http" {
            return Err(format!("proxies are spoken to over http, not {}", url.scheme()));
        }
        let host = url
            .host_str()
            .ok_or("names no host")?
            .trim_matches(['[', ']'])
            .to_owned();
        let credentials = (!url.username().is_empty()).then(|| {
            let text = format!("{}:{}", url.username(), url.password().unwrap_or_default());
            format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(text))
        });
        Ok(Proxy {
            host,
            port: url.port_or_known_default().unwrap_or(80),
            authorization: credentials,
        })
    }

    /// Has it connect to a host.
    pub(super) async fn connect(&self, net: &Net, host: &str, port: u16) -> io::Result<TcpStream> {
        let connected = net.connect_tcp(&self.host, self.port).await;
        let mut stream = connected.map_err(io::Error::other)?;
        let host = if host.contains(':') {
            format!("[{host}]")
        } else {
            host.to_owned()
        };
        let mut request = format!("CONNECT {host}:{port} HTTP/1.1\r\nHost: {host}:{port}\r\n");
        if let Some(authorization) = &self.authorization {
            request.push_str(&format!("Proxy-Authorization: {authorization}\r\n"));
        }
        request.push_str("\r\n");
        stream.write_all(request.as_bytes()).await?;
        let head = read_head(&mut stream).await?;
        let status = head.split_whitespace().nth(1).unwrap_or_default();
        match status.starts_with('2') {
            true => Ok(stream),
            false => {
                let line = head.lines().next().unwrap_or_default();
                let message = format!("the proxy {}:{} does not connect: {line}", self.host, self.port);
                Err(io::Error::new(io::ErrorKind::ConnectionRefused, message))
            }
        }
    }
}

/// Byte by byte, so that nothing of what follows is taken.
async fn read_head(stream: &mut TcpStream) -> io::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if head.len() >= MAX_HEAD {
            return Err(io::Error::new(
                io::ErrorKind::InvalidData,
                "the proxy's answer is too long",
            ));
        }
        head.push(stream.read_u8().await?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proxies_are_read_from_urls() {
        let proxy = Proxy::parse("http://user:pass@proxy.example:3128").unwrap();
        assert_eq!((proxy.host.as_str(), proxy.port), ("proxy.example", 3128));
        assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNlcjpwYXNz"));
        assert!(Proxy::parse("https://p").is_err() && Proxy::parse("p:1").is_err());
    }

    #[tokio::test]
    async fn what_a_proxy_connects_is_a_connection_and_a_refusal_is_told() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let served = tokio::spawn(async move {
            let mut heads = Vec::new();
            for answer in ["HTTP/1.1 200 OK\r\n\r\nhello", "HTTP/1.1 403 Forbidden\r\n\r\n"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                heads.push(read_head(&mut stream).await.unwrap());
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
            heads
        });
        let proxy = Proxy::parse(&format!("http://127.0.0.1:{port}")).unwrap();
        let net = Net::system();
        let mut stream = proxy.connect(&net, "backend.example", 4318).await.unwrap();
        let mut hello = String::new();
        stream.read_to_string(&mut hello).await.unwrap();
        assert_eq!(hello, "hello");
        let refused = proxy.connect(&net, "::1", 1).await.unwrap_err();
        assert!(refused.to_string().contains("403"), "{refused}");
        let heads = served.await.unwrap();
        assert!(
            heads[0].starts_with("CONNECT backend.example:4318 HTTP/1.1\r\n"),
            "{heads:?}"
        );
        assert!(heads[1].starts_with("CONNECT [::1]:1 HTTP/1.1\r\n"), "{heads:?}");
    }
}
