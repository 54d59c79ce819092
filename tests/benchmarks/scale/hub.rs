//! The router that all edges link to, a process of its own, and the documents of its edges.

use std::fs;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use karez_document::Source;
use karez_identity::{Authority, CertificateFacts, Credential, LINK_SERVER_NAME, Subject, Usage};
use karez_lifecycle::Shutdown;
use karez_net::Net;
use karez_router::{Router, RouterOptions};
use karez_router_config::api::LinkState;
use karez_router_config::{
    AcceptSection, AdminSection, ConnectorSection, LinkSection, ListenerSection, Mode, Role, RouterDocument,
    RouterSection, ServiceSection, SiteSection, TargetSection, TlsSection, TokenSection,
};
use tempfile::TempDir;

use crate::Options;
use crate::process::Process;

/// A link that is not there by then is stuck.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);
/// The port of every edge's address.
const PORT: u16 = 9_000;

/// The router and what its edges need. Ended when dropped.
pub(crate) struct Hub {
    pub(crate) process: Process,
    folder: TempDir,
    link: SocketAddr,
    target: SocketAddr,
    keys: String,
    /// Where each edge's address is offered.
    pub(crate) entrances: Vec<SocketAddr>,
}

impl Hub {
    /// Starts a router that admits so many edges; of the first `offered` the addresses are offered at it.
    pub(crate) fn start(
        options: &Options,
        edges: usize,
        offered: usize,
        target: SocketAddr,
    ) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let authority = Authority::new("scale", Timestamp::now(), Duration::from_secs(86_400))?;
        let server = issue(&authority, LINK_SERVER_NAME, &[LINK_SERVER_NAME], Usage::Server)?;
        write_profile(&folder.path().join("server"), &server)?;
        let mut tokens = Vec::with_capacity(edges);
        for number in 0..edges {
            let credential = issue(&authority, &name(number), &[], Usage::Client)?;
            write_profile(&folder.path().join(name(number)), &credential)?;
            let facts = CertificateFacts::from_pem(credential.certificate_pem.as_bytes())?;
            tokens.push(TokenSection {
                name: name(number),
                serial: facts.serial,
                fingerprint: facts.fingerprint,
                // As fleets have it: an edge is told of what it may reach, not of all other edges.
                reach: Some(vec!["hub".into()]),
                ..TokenSection::default()
            });
        }
        let link = UdpSocket::bind("127.0.0.1:0")?.local_addr()?;
        let entrances = free(offered)?;
        let document = hub_document(folder.path(), tokens, link, &entrances);
        let file = folder.path().join("hub.yaml");
        fs::write(&file, document.to_yaml())?;
        let log = folder.path().join("hub.log");
        let mut command = Command::new(&options.karez);
        command.args(["router", "--config"]).arg(file);
        let hub = Self {
            process: Process::start(command, &log)?,
            folder,
            link,
            target,
            keys: options.transport.clone(),
            entrances,
        };
        hub.ready(&log)?;
        Ok(hub)
    }

    fn ready(&self, log: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + DEADLINE;
        loop {
            let text = fs::read_to_string(log)?;
            if text.contains("accepting links") {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "the router does not start:\n{text}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Writes an edge's document; gives the file.
    pub(crate) fn edge(&self, number: usize) -> anyhow::Result<PathBuf> {
        let address = name(number);
        let profile = self.folder.path().join(&address);
        let document = RouterDocument {
            tls: vec![tls("token", &profile)],
            links: vec![LinkSection {
                name: "token".into(),
                role: Role::Edge,
                host: self.link.ip().to_string(),
                port: self.link.port(),
                cost: 1,
                tls: "token".into(),
                transport: serde_json::from_value(self.keys.clone().into())
                    .with_context(|| format!("--transport {}", self.keys))?,
                ..LinkSection::default()
            }],
            services: vec![ServiceSection {
                address: address.clone(),
                protocol: "tcp".into(),
                ports: vec![PORT],
                targets: vec![TargetSection { name: "echo".into() }],
                ..ServiceSection::default()
            }],
            connectors: vec![ConnectorSection {
                name: "echo".into(),
                address: format!("{address}:{PORT}"),
                host: self.target.ip().to_string(),
                port: self.target.port(),
                target: "echo".into(),
                ..ConnectorSection::default()
            }],
            ..base(&address, Mode::Edge)
        };
        let file = profile.join("edge.yaml");
        fs::write(&file, document.to_yaml())?;
        Ok(file)
    }
}

/// Starts a router in this process.
pub(crate) async fn start_edge(file: PathBuf, shutdown: Shutdown) -> anyhow::Result<Router> {
    let options = RouterOptions {
        config: Source::File(file),
        client: None,
        namespace: "default".into(),
        net: Net::system(),
    };
    Ok(Router::start(options, shutdown).await?)
}

/// Waits until the router's link is active.
pub(crate) async fn linked(router: &Router) -> anyhow::Result<()> {
    let mut generation = router.generation();
    let active = async {
        while router
            .status()
            .links
            .iter()
            .all(|link| link.state != LinkState::Active)
        {
            if generation.changed().await.is_err() {
                anyhow::bail!("the router has stopped");
            }
        }
        Ok(())
    };
    let waited = tokio::time::timeout(DEADLINE, active).await;
    waited.with_context(|| format!("not linked: {:?}", router.status().links))?
}

fn name(number: usize) -> String {
    format!("edge-{number}")
}

fn base(name: &str, mode: Mode) -> RouterDocument {
    RouterDocument {
        version: 1,
        site: SiteSection {
            id: name.into(),
            name: name.into(),
            ..SiteSection::default()
        },
        router: RouterSection {
            mode,
            ..RouterSection::default()
        },
        ..RouterDocument::default()
    }
}

fn tls(name: &str, directory: &Path) -> TlsSection {
    TlsSection {
        name: name.into(),
        directory: Some(directory.display().to_string()),
        ..TlsSection::default()
    }
}

fn hub_document(
    folder: &Path,
    tokens: Vec<TokenSection>,
    link: SocketAddr,
    entrances: &[SocketAddr],
) -> RouterDocument {
    let listeners = entrances
        .iter()
        .enumerate()
        .map(|(number, entrance)| ListenerSection {
            name: name(number),
            address: format!("{}:{PORT}", name(number)),
            host: entrance.ip().to_string(),
            port: entrance.port(),
            ..ListenerSection::default()
        });
    RouterDocument {
        tls: vec![tls("server", &folder.join("server"))],
        accept: vec![AcceptSection {
            name: "edge".into(),
            role: Role::Edge,
            host: link.ip().to_string(),
            port: link.port(),
            tls: "server".into(),
            ..AcceptSection::default()
        }],
        tokens,
        listeners: listeners.collect(),
        admin: Some(AdminSection {
            host: "127.0.0.1".into(),
            port: 0,
        }),
        ..base("hub", Mode::Interior)
    }
}

/// Ports that nobody uses, all different.
fn free(count: usize) -> anyhow::Result<Vec<SocketAddr>> {
    let held: Result<Vec<TcpListener>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    Ok(held?
        .iter()
        .map(TcpListener::local_addr)
        .collect::<Result<_, _>>()?)
}

fn issue(authority: &Authority, name: &str, dns_names: &[&str], usage: Usage) -> anyhow::Result<Credential> {
    let subject = Subject {
        common_name: name.to_owned(),
        dns_names: dns_names.iter().map(|name| (*name).to_owned()).collect(),
        usage,
        lifetime: Duration::from_secs(36_000),
        uri: None,
    };
    Ok(authority.issue(&subject, Timestamp::now())?)
}

fn write_profile(folder: &Path, credential: &Credential) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("tls.crt"), &credential.certificate_pem)?;
    fs::write(folder.join("tls.key"), &credential.key_pem)?;
    Ok(fs::write(folder.join("ca.crt"), &credential.ca_pem)?)
}
