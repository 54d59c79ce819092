//! Sites of one router each, with real sockets on loopback and documents in files.

#![allow(
    dead_code,
    clippy::unwrap_used,
    reason = "shared by tests and a benchmark; what cannot go on fails"
)]

pub(crate) mod hostile;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use karez_document::Source;
use karez_identity::{Authority, CertificateFacts, Credential, Subject, TokenUri, Usage};
use karez_lifecycle::Shutdown;
use karez_net::Net;
use karez_router::{Router, RouterOptions};
use karez_router_config::api::{LinkStatus, Status};
use karez_router_config::{
    AcceptSection, AdminSection, ConnectorSection, LinkSection, ListenerSection, LocalSection, Mode, Role,
    RouterDocument, RouterSection, ServiceSection, SiteSection, TargetSection, TlsSection, TokenSection,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

pub(crate) const LIMIT: Duration = Duration::from_secs(60);
pub(crate) const DAY: Duration = Duration::from_secs(86_400);
pub(crate) const ADDRESS: &str = "echo:7000";

/// One router with its document in a folder.
pub(crate) struct Site {
    pub(crate) folder: tempfile::TempDir,
    pub(crate) document: RouterDocument,
    pub(crate) authority: Authority,
    pub(crate) net: Net,
    shutdown: Shutdown,
    router: Option<Router>,
}

impl Site {
    pub(crate) fn new(name: &str, mode: Mode) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("skupper-site-ca", Timestamp::now(), 30 * DAY).unwrap();
        let document = RouterDocument {
            version: 1,
            site: SiteSection {
                id: format!("id-{name}"),
                name: name.into(),
                ..SiteSection::default()
            },
            router: RouterSection {
                mode,
                ..RouterSection::default()
            },
            ..RouterDocument::default()
        };
        Self {
            folder,
            document,
            authority,
            net: Net::system(),
            shutdown: Shutdown::new(),
            router: None,
        }
    }

    /// A public site: accepts links, serves the local API.
    pub(crate) fn public() -> Self {
        let mut site = Self::new("public", Mode::Interior);
        let server = site.issue("skupper-router", &["skupper-router"], Timestamp::now());
        site.profile("skupper-internal", &server);
        let local = site.issue(
            "skupper-router-local",
            &["skupper-router-local"],
            Timestamp::now(),
        );
        site.profile("skupper-amqps", &local);
        site.document.accept = vec![AcceptSection {
            name: "edge".into(),
            role: Role::Edge,
            host: "127.0.0.1".into(),
            port: 0,
            tls: "skupper-internal".into(),
            ..AcceptSection::default()
        }];
        site.document.local = Some(LocalSection {
            host: "127.0.0.1".into(),
            port: 0,
            tls: "skupper-amqps".into(),
        });
        site.document.admin = Some(AdminSection {
            host: "127.0.0.1".into(),
            port: 0,
        });
        site
    }

    pub(crate) fn issue(&self, name: &str, dns: &[&str], now: Timestamp) -> Credential {
        let subject = Subject {
            common_name: name.into(),
            dns_names: dns.iter().map(|name| (*name).to_owned()).collect(),
            usage: Usage::Both,
            lifetime: DAY,
            uri: Some(
                TokenUri {
                    site_id: self.document.site.id.clone(),
                    token: name.into(),
                }
                .to_uri(),
            ),
        };
        self.authority.issue(&subject, now).unwrap()
    }

    /// A token's credential, on the list of those admitted.
    pub(crate) fn token(&mut self, name: &str, now: Timestamp) -> Credential {
        let credential = self.issue(name, &[], now);
        let facts = CertificateFacts::from_pem(credential.certificate_pem.as_bytes()).unwrap();
        self.document.tokens.push(TokenSection {
            name: name.into(),
            serial: facts.serial,
            fingerprint: facts.fingerprint,
            ..TokenSection::default()
        });
        credential
    }

    pub(crate) fn profile(&mut self, name: &str, credential: &Credential) {
        let directory = self.folder.path().join(name);
        write_profile(&directory, credential);
        self.document.tls.push(TlsSection {
            name: name.into(),
            secret: None,
            directory: Some(directory.display().to_string()),
        });
    }

    /// A link to a peer's port.
    pub(crate) fn link_to(&mut self, peer: SocketAddr, credential: &Credential) {
        self.profile("link1-profile", credential);
        self.document.links = vec![LinkSection {
            name: "link1".into(),
            role: Role::Edge,
            host: peer.ip().to_string(),
            port: peer.port(),
            cost: 1,
            tls: "link1-profile".into(),
            ..LinkSection::default()
        }];
    }

    pub(crate) fn listen(&mut self) {
        self.document.listeners = vec![ListenerSection {
            name: ADDRESS.into(),
            address: ADDRESS.into(),
            host: "127.0.0.1".into(),
            port: 0,
            ..ListenerSection::default()
        }];
    }

    pub(crate) fn serve(&mut self, target: SocketAddr) {
        self.document.services = vec![ServiceSection {
            address: "echo".into(),
            protocol: "tcp".into(),
            ports: vec![7000],
            origin: String::new(),
            targets: vec![TargetSection {
                name: "echo-target".into(),
            }],
            ..ServiceSection::default()
        }];
        self.document.connectors = vec![ConnectorSection {
            name: "echo-target".into(),
            address: ADDRESS.into(),
            host: target.ip().to_string(),
            port: target.port(),
            target: "echo-target".into(),
            ..ConnectorSection::default()
        }];
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("karez-router.yaml")
    }

    pub(crate) fn write(&self) {
        self.write_text(&self.document.to_yaml());
    }

    pub(crate) fn write_text(&self, text: &str) {
        let new = self.folder.path().join("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, self.path()).unwrap();
    }

    pub(crate) async fn start(&mut self) {
        self.write();
        self.shutdown = Shutdown::new();
        let options = RouterOptions {
            config: Source::File(self.path()),
            client: None,
            namespace: "default".into(),
            net: self.net.clone(),
        };
        self.router = Some(Router::start(options, self.shutdown.clone()).await.unwrap());
    }

    pub(crate) async fn stop(&mut self) {
        self.shutdown.trigger();
        if let Some(router) = self.router.take() {
            timeout(LIMIT, router.finished())
                .await
                .expect("stops in time")
                .unwrap();
        }
    }

    pub(crate) fn router(&self) -> &Router {
        self.router.as_ref().unwrap()
    }

    pub(crate) fn status(&self) -> Status {
        self.router().status()
    }

    /// Waits until the status is as wanted.
    pub(crate) async fn until(&self, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
        let mut generation = self.router().generation();
        let waited = timeout(LIMIT, async {
            loop {
                let status = self.status();
                if wanted(&status) {
                    return status;
                }
                // Counts of open connections move without a new generation.
                let _ = timeout(Duration::from_millis(50), generation.changed()).await;
            }
        });
        match waited.await {
            Ok(status) => status,
            Err(_) => panic!("not in time: {what}; {:#?}", self.status()),
        }
    }

    /// The port that takes links.
    pub(crate) async fn port(&self) -> SocketAddr {
        let bound = |status: &Status| {
            status
                .accepts
                .first()
                .is_some_and(|accept| !accept.addresses.is_empty())
        };
        self.until("a bound port", bound).await.accepts[0].addresses[0]
            .parse()
            .unwrap()
    }

    /// The listener's socket, once its address can be reached.
    pub(crate) async fn listener(&self) -> SocketAddr {
        let listening = |status: &Status| {
            status
                .listeners
                .first()
                .is_some_and(|listener| listener.state == "listening")
        };
        let listener = self
            .until("a reachable listener", listening)
            .await
            .listeners
            .remove(0);
        SocketAddr::new(listener.host.parse().unwrap(), listener.port)
    }

    /// Our link's status, once it says so.
    pub(crate) async fn link(&self, what: &str, wanted: impl Fn(&LinkStatus) -> bool) -> LinkStatus {
        self.until(what, |status| status.links.first().is_some_and(&wanted))
            .await
            .links
            .remove(0)
    }
}

pub(crate) fn write_profile(directory: &Path, credential: &Credential) {
    std::fs::create_dir_all(directory).unwrap();
    std::fs::write(directory.join("tls.crt"), &credential.certificate_pem).unwrap();
    std::fs::write(directory.join("tls.key"), &credential.key_pem).unwrap();
    std::fs::write(directory.join("ca.crt"), &credential.ca_pem).unwrap();
}

/// A public site that serves `target`, and an edge site linked to it that listens.
pub(crate) async fn pair(target: SocketAddr) -> (Site, Site) {
    let mut public = Site::public();
    public.serve(target);
    let token = public.token("token1", Timestamp::now());
    public.start().await;
    let mut edge = Site::new("edge", Mode::Edge);
    edge.link_to(public.port().await, &token);
    edge.listen();
    edge.start().await;
    (public, edge)
}

/// Echoes until the end of input, then ends its output.
pub(crate) async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
                let _ = write.shutdown().await;
            });
        }
    });
    address
}

/// Sends text, ends the output, reads until the end.
pub(crate) async fn ask(stream: &mut TcpStream, text: &[u8]) -> Vec<u8> {
    let (mut read, mut write) = stream.split();
    let mut answer = Vec::new();
    let send = async {
        write.write_all(text).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let receive = async { read.read_to_end(&mut answer).await.unwrap() };
    timeout(LIMIT, async { tokio::join!(send, receive) })
        .await
        .expect("answered in time");
    answer
}

/// The value of a metric, summed over its labels that contain `label`; 0 while it is not there.
pub(crate) async fn metric(site: &Site, name: &str, label: &str) -> f64 {
    let admin = site.until("metrics", |_| site.router().admin_address().is_some());
    admin.await;
    let mut stream = TcpStream::connect(site.router().admin_address().unwrap())
        .await
        .unwrap();
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    stream.write_all(request).await.unwrap();
    let mut text = String::new();
    timeout(LIMIT, stream.read_to_string(&mut text))
        .await
        .unwrap()
        .unwrap();
    let lines = text.lines().filter(|line| {
        let rest = line.strip_prefix(name).unwrap_or_default();
        rest.starts_with([' ', '{']) && rest.contains(label)
    });
    lines
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum()
}
