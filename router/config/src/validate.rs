//! From what is written to what it means: a `RouterDocument` in, a `RouterConfig` or every problem out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use crate::api::SiteIdentity;
use crate::config::{
    AcceptConfig, Address, AdminConfig, ConnectorConfig, LinkConfig, ListenerConfig, LocalConfig,
    ProxyChoice, RouterConfig, ServiceConfig, TlsSource,
};
use crate::document::{
    Congestion, ListenerSection, Mode, Protocol, Role, RouterDocument, TlsSection, Transport, VERSION,
};
use crate::policy::{RenewalConfig, TokenConfig, Tokens};

/// More entries in one list than any site has.
const ENTRIES: usize = 10_000;

/// More connections a link would only take memory.
const MOST_CONNECTIONS: u16 = 16;

/// What a router carries at once unless the document says more, and the most that it may say.
const CONNECTIONS: u32 = 32 * 1024;
const MOST_CARRIED: u32 = 1 << 20;

/// One thing that is wrong: the key path (list indices as `links.0.port`), what and the mend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// Where in the document.
    pub key: String,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub mend: String,
}

/// Checks a document as a whole and reports all problems at once.
pub fn validate(document: &RouterDocument) -> Result<RouterConfig, Vec<Problem>> {
    let mut check = Check {
        problems: Vec::new(),
        profiles: BTreeSet::new(),
        mode: document.router.mode,
    };
    if document.version != VERSION {
        check.problem(
            "version",
            format!("version {} is unknown", document.version),
            "this router reads version 1; run a router that matches its service-controller",
        );
    }
    check.required("site.id", &document.site.id);
    check.required("site.name", &document.site.name);
    check.sizes(document);
    let tls = check.tls(&document.tls);
    let config = RouterConfig {
        site: SiteIdentity {
            id: document.site.id.clone(),
            name: document.site.name.clone(),
            namespace: document.site.namespace.clone(),
            version: document.site.version.clone(),
            mode: document.router.mode,
        },
        router_id: document.router.id.clone(),
        max_connections: check.max_connections(document.router.max_connections),
        tls,
        peers: check.peers(document),
        accepts: check.accepts(document),
        tokens: check.tokens(document),
        sharing: document.policy.clone().unwrap_or_default().sharing,
        renew_expired: Duration::from_secs(document.policy.clone().unwrap_or_default().renew_expired_seconds),
        renewals: check.renewals(document),
        authorities: document.authorities.clone(),
        links: check.links(document),
        seal: check.seal(document),
        local: check.local(document),
        admin: document.admin.as_ref().map(|admin| AdminConfig {
            host: admin.host.clone(),
            port: admin.port,
        }),
        access_log: document.access_log.as_ref().map(|log| log.per_second),
        services: check.services(document),
        listeners: check.listeners(document),
        connectors: check.connectors(document),
    };
    if check.problems.is_empty() {
        Ok(config)
    } else {
        Err(check.problems)
    }
}

struct Check {
    problems: Vec<Problem>,
    profiles: BTreeSet<String>,
    mode: Mode,
}

impl Check {
    fn problem(&mut self, key: impl Into<String>, message: impl Into<String>, mend: impl Into<String>) {
        self.problems.push(Problem {
            key: key.into(),
            message: message.into(),
            mend: mend.into(),
        });
    }

    fn required(&mut self, key: impl Into<String>, value: &str) {
        if value.trim().is_empty() {
            self.problem(key, "is empty", "give it a value");
        }
    }

    fn port(&mut self, key: String, port: u16) {
        if port == 0 {
            self.problem(key, "0 is no port to dial", "use 1 to 65535");
        }
    }

    /// A limit of nothing would be no limit but a closed door.
    fn positive(&mut self, key: String, number: Option<u32>) {
        if number == Some(0) {
            self.problem(
                key,
                "0 would let nothing through",
                "use 1 or more, or leave it out",
            );
        }
    }

    fn profile(&mut self, key: String, name: &str) {
        if !self.profiles.contains(name) {
            let known: Vec<_> = self.profiles.iter().cloned().collect();
            let known = if known.is_empty() {
                "none is defined".to_owned()
            } else {
                known.join(", ")
            };
            self.problem(
                key,
                format!("no TLS profile is named \"{name}\""),
                format!("add it to tls: ({known})"),
            );
        }
    }

    fn sizes(&mut self, document: &RouterDocument) {
        let lists = [
            ("tls", document.tls.len()),
            ("accept", document.accept.len()),
            ("tokens", document.tokens.len()),
            ("renewals", document.renewals.len()),
            ("links", document.links.len()),
            ("services", document.services.len()),
            ("listeners", document.listeners.len()),
            ("connectors", document.connectors.len()),
        ];
        for (key, length) in lists {
            if length > ENTRIES {
                let message = format!("{length} entries are more than the {ENTRIES} that are allowed");
                self.problem(key, message, "remove some");
            }
        }
    }

    /// Inserts under a unique, non-empty name.
    fn insert<T>(&mut self, into: &mut BTreeMap<String, T>, key: String, name: &str, value: T) {
        self.required(key.clone(), name);
        if into.insert(name.to_owned(), value).is_some() {
            self.problem(
                key,
                format!("\"{name}\" is there twice"),
                "give each its own name",
            );
        }
    }

    fn tls(&mut self, sections: &[TlsSection]) -> BTreeMap<String, TlsSource> {
        let mut profiles = BTreeMap::new();
        for (index, section) in sections.iter().enumerate() {
            let source = match (&section.secret, &section.directory) {
                (Some(secret), None) => TlsSource::Secret(secret.clone()),
                (None, Some(directory)) => TlsSource::Directory(PathBuf::from(directory)),
                _ => {
                    let message = format!("profile \"{}\" needs exactly one source", section.name);
                    self.problem(
                        format!("tls.{index}"),
                        message,
                        "write either secret: or directory:",
                    );
                    TlsSource::Secret(String::new())
                }
            };
            self.insert(&mut profiles, format!("tls.{index}.name"), &section.name, source);
            self.profiles.insert(section.name.clone());
        }
        profiles
    }

    fn accepts(&mut self, document: &RouterDocument) -> BTreeMap<String, AcceptConfig> {
        let mut accepts = BTreeMap::new();
        let mut bound = BTreeSet::new();
        if self.mode == Mode::Edge && !document.accept.is_empty() {
            self.problem(
                "accept",
                "an edge router accepts no links",
                "remove it, or set router.mode: interior",
            );
        }
        for (index, section) in document.accept.iter().enumerate() {
            if section.port != 0 && !bound.insert((section.host.clone(), section.port)) {
                let message = format!("{}:{} is there twice", section.host, section.port);
                self.problem(format!("accept.{index}.port"), message, "use another port");
            }
            self.profile(format!("accept.{index}.tls"), &section.tls);
            let accept = AcceptConfig {
                role: section.role,
                host: section.host.clone(),
                port: section.port,
                tls: section.tls.clone(),
                transport: section.transport,
                congestion: section.congestion,
            };
            self.insert(
                &mut accepts,
                format!("accept.{index}.name"),
                &section.name,
                accept,
            );
        }
        accepts
    }

    fn tokens(&mut self, document: &RouterDocument) -> Tokens {
        let mut tokens = Tokens::default();
        for (index, section) in document.tokens.iter().enumerate() {
            self.required(format!("tokens.{index}.name"), &section.name);
            let serial = hexadecimal(&section.serial);
            let fingerprint = hexadecimal(&section.fingerprint);
            if serial.is_empty() || serial.len() > 64 {
                let message = format!("\"{}\" is no serial number", section.serial);
                self.problem(format!("tokens.{index}.serial"), message, "write it in hex");
            }
            if fingerprint.len() != 64 {
                self.problem(
                    format!("tokens.{index}.fingerprint"),
                    format!("\"{}\" is no SHA-256 fingerprint", section.fingerprint),
                    "write the 64 hex digits of the certificate's SHA-256",
                );
            }
            let (token, wrong) = TokenConfig::read(section);
            for (part, message, mend) in wrong {
                self.problem(format!("tokens.{index}.{part}"), message, mend);
            }
            tokens.insert(token, &trim(&serial), &fingerprint);
        }
        tokens
    }

    fn renewals(&mut self, document: &RouterDocument) -> BTreeMap<(String, String), RenewalConfig> {
        let mut renewals = BTreeMap::new();
        for (index, section) in document.renewals.iter().enumerate() {
            let request = hexadecimal(&section.request);
            if request.len() != 64 {
                let message = format!("\"{}\" is no digest of a request", section.request);
                let mend = "write the 64 hex digits of the request's SHA-256";
                self.problem(format!("renewals.{index}.request"), message, mend);
            }
            let answer = RenewalConfig {
                certificate: section.certificate.clone(),
                authorities: section.authorities.clone(),
            };
            renewals.insert((section.token.clone(), request), answer);
        }
        renewals
    }

    fn links(&mut self, document: &RouterDocument) -> BTreeMap<String, LinkConfig> {
        let mut links = BTreeMap::new();
        for (index, section) in document.links.iter().enumerate() {
            let key = |part: &str| format!("links.{index}.{part}");
            self.required(key("host"), &section.host);
            self.port(key("port"), section.port);
            self.profile(key("tls"), &section.tls);
            if section.cost == 0 {
                self.problem(key("cost"), "a link cannot be free", "use 1 or more");
            }
            if self.mode == Mode::Edge && section.role != Role::Edge {
                let message = "an edge router can only make edge links";
                self.problem(
                    key("role"),
                    message,
                    "write role: edge, with the peer's edge port",
                );
            }
            let link = LinkConfig {
                role: section.role,
                host: section.host.clone(),
                port: section.port,
                cost: section.cost,
                tls: section.tls.clone(),
                transport: section.transport,
                congestion: section.congestion,
                connections: self.connections(key("connections"), section.connections),
                proxy: self.proxy(key("proxy"), section.proxy.as_deref()),
                server_name: section.server_name.clone(),
                renewal: section.renewal.clone(),
            };
            self.server_name(key("serverName"), section.server_name.as_deref());
            self.insert(&mut links, key("name"), &section.name, link);
        }
        links
    }

    fn peers(&mut self, document: &RouterDocument) -> Option<LinkConfig> {
        let peers = document.router.peers.as_ref()?;
        let key = |part: &str| format!("router.peers.{part}");
        self.required(key("host"), &peers.host);
        self.port(key("port"), peers.port);
        self.profile(key("tls"), &peers.tls);
        if self.mode == Mode::Edge {
            let message = "edge routers do not link to each other";
            self.problem("router.peers", message, "remove it, or set router.mode: interior");
        }
        Some(LinkConfig {
            role: Role::InterRouter,
            host: peers.host.clone(),
            port: peers.port,
            cost: 1,
            tls: peers.tls.clone(),
            transport: Transport::default(),
            congestion: Congestion::default(),
            connections: 1,
            proxy: ProxyChoice::None,
            server_name: None,
            renewal: None,
        })
    }

    fn max_connections(&mut self, number: Option<u32>) -> u32 {
        let number = number.unwrap_or(CONNECTIONS);
        if !(1..=MOST_CARRIED).contains(&number) {
            let message = format!("a router carries 1 to {MOST_CARRIED} connections at once");
            let mend = "remember that each takes two files and some 16 KiB of memory";
            self.problem("router.maxConnections", message, mend);
        }
        number
    }

    fn connections(&mut self, key: String, number: Option<u16>) -> u16 {
        let number = number.unwrap_or(1);
        if !(1..=MOST_CONNECTIONS).contains(&number) {
            let message = format!("a link has 1 to {MOST_CONNECTIONS} connections");
            self.problem(key, message, "use at most one a core");
        }
        number
    }

    fn proxy(&mut self, key: String, proxy: Option<&str>) -> ProxyChoice {
        match proxy {
            None => ProxyChoice::Environment,
            Some("none") => ProxyChoice::None,
            Some(url) => {
                let rest = url.strip_prefix("http://").or(url.strip_prefix("https://"));
                // The URL may hold a password, so that the message does not show it.
                if rest.is_none_or(|rest| rest.is_empty() || rest.starts_with('/')) {
                    let message = "a proxy that is no http:// or https:// URL";
                    self.problem(key, message, "write http://HOST:PORT, https://HOST:PORT or none");
                }
                ProxyChoice::Url(url.to_owned())
            }
        }
    }

    fn server_name(&mut self, key: String, name: Option<&str>) {
        let fits = |name: &str| {
            let plain = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !name.is_empty() && name.len() <= 253 && name.chars().all(plain)
        };
        if let Some(name) = name.filter(|name| !fits(name)) {
            let message = format!("\"{name}\" is no DNS name");
            self.problem(key, message, "write the host name that the ingress goes by");
        }
    }

    fn seal(&mut self, document: &RouterDocument) -> Option<String> {
        let seal = document.seal.as_ref()?;
        self.profile("seal.tls".to_owned(), &seal.tls);
        Some(seal.tls.clone())
    }

    /// Datagrams are not sealed: whoever asks for it must not believe that they are.
    fn no_seal(&mut self, key: String, asked: bool) {
        if asked {
            let message = "datagrams cannot be encrypted from the first to the last site";
            self.problem(
                key,
                message,
                "leave it out, or let the application encrypt (DTLS, QUIC)",
            );
        }
    }

    fn local(&mut self, document: &RouterDocument) -> Option<LocalConfig> {
        let local = document.local.as_ref()?;
        self.profile("local.tls".to_owned(), &local.tls);
        Some(LocalConfig {
            host: local.host.clone(),
            port: local.port,
            tls: local.tls.clone(),
        })
    }

    fn services(&mut self, document: &RouterDocument) -> BTreeMap<String, ServiceConfig> {
        let mut services = BTreeMap::new();
        for (index, section) in document.services.iter().enumerate() {
            if !matches!(section.protocol.as_str(), "tcp" | "udp" | "http" | "http2") {
                let message = format!("protocol \"{}\" cannot be carried", section.protocol);
                self.problem(
                    format!("services.{index}.protocol"),
                    message,
                    "use tcp, udp, http or http2",
                );
            }
            if section.ports.is_empty() || section.ports.contains(&0) {
                let message = "needs at least one port, and none may be 0";
                self.problem(format!("services.{index}.ports"), message, "list its ports");
            }
            let service = ServiceConfig {
                protocol: section.protocol.clone(),
                ports: section.ports.clone(),
                targets: section.targets.iter().map(|target| target.name.clone()).collect(),
                sealed: section.sealed,
            };
            self.no_seal(
                format!("services.{index}.sealed"),
                section.sealed && section.protocol == "udp",
            );
            self.insert(
                &mut services,
                format!("services.{index}.address"),
                &section.address,
                service,
            );
        }
        services
    }

    fn listeners(&mut self, document: &RouterDocument) -> BTreeMap<String, ListenerConfig> {
        let mut listeners = BTreeMap::new();
        let mut bound = BTreeSet::new();
        for (index, section) in document.listeners.iter().enumerate() {
            if section.port != 0 && !bound.insert((section.protocol, section.host.clone(), section.port)) {
                let message = format!("{}:{} is there twice", section.host, section.port);
                self.problem(format!("listeners.{index}.port"), message, "use another port");
            }
            self.positive(
                format!("listeners.{index}.maxConnections"),
                section.max_connections,
            );
            self.idle(index, section);
            let udp = section.protocol == Protocol::Udp;
            self.no_proxy(
                format!("listeners.{index}.acceptProxyProtocol"),
                udp && section.accept_proxy_protocol,
            );
            let listener = ListenerConfig {
                address: self.address(format!("listeners.{index}.address"), &section.address),
                host: section.host.clone(),
                port: section.port,
                protocol: section.protocol,
                max_connections: section.max_connections,
                accept_proxy_protocol: section.accept_proxy_protocol,
                idle: idle(section),
                sealed: section.sealed,
            };
            self.no_seal(format!("listeners.{index}.sealed"), udp && section.sealed);
            self.insert(
                &mut listeners,
                format!("listeners.{index}.name"),
                &section.name,
                listener,
            );
        }
        listeners
    }

    fn no_proxy(&mut self, key: String, asked: bool) {
        if asked {
            let message = "the PROXY protocol is for connections, not for datagrams";
            self.problem(key, message, "leave it out, or write protocol: tcp");
        }
    }

    fn idle(&mut self, index: usize, section: &ListenerSection) {
        let key = format!("listeners.{index}.idleSeconds");
        self.positive(key.clone(), section.idle_seconds);
        if section.idle_seconds.is_some() && section.protocol != Protocol::Udp {
            let message = "only sessions of UDP end when they are idle";
            self.problem(key, message, "leave it out, or write protocol: udp");
        }
    }

    fn connectors(&mut self, document: &RouterDocument) -> BTreeMap<String, ConnectorConfig> {
        let mut connectors = BTreeMap::new();
        for (index, section) in document.connectors.iter().enumerate() {
            let key = |part: &str| format!("connectors.{index}.{part}");
            self.required(key("host"), &section.host);
            self.port(key("port"), section.port);
            self.positive(key("capacity"), section.capacity);
            let udp = section.protocol == Protocol::Udp;
            self.no_proxy(
                key("sendProxyProtocol"),
                udp && section.send_proxy_protocol.is_some(),
            );
            let connector = ConnectorConfig {
                address: self.address(key("address"), &section.address),
                host: section.host.clone(),
                port: section.port,
                target: section.target.clone(),
                protocol: section.protocol,
                send_proxy_protocol: section.send_proxy_protocol,
                capacity: section.capacity,
                sealed: section.sealed,
            };
            self.no_seal(key("sealed"), udp && section.sealed);
            self.insert(&mut connectors, key("name"), &section.name, connector);
        }
        connectors
    }

    fn address(&mut self, key: String, text: &str) -> Address {
        let parsed = parse_address(text);
        if parsed.is_none() {
            self.problem(
                key,
                format!("\"{text}\" is no virtual address"),
                "write NAME:PORT",
            );
        }
        parsed.unwrap_or_else(|| Address {
            name: String::new(),
            port: 0,
        })
    }
}

/// For how long a client of UDP may be silent. A name server's answers come soon or never.
fn idle(section: &ListenerSection) -> Duration {
    let dns = section.address.ends_with(":53");
    let seconds = section.idle_seconds.unwrap_or(if dns { 10 } else { 60 });
    Duration::from_secs(seconds.into())
}

/// Reads `name:port`.
pub fn parse_address(text: &str) -> Option<Address> {
    let (name, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    if name.is_empty()
        || name.len() > 253
        || name.contains(|c: char| c == '/' || c.is_whitespace() || c.is_control())
    {
        return None;
    }
    Some(Address {
        name: name.to_owned(),
        port,
    })
}

/// Lower-case hex digits; colons between bytes are accepted. Empty when something else is in it.
fn hexadecimal(text: &str) -> String {
    let digits: String = text.chars().filter(|c| *c != ':').collect();
    if digits.chars().all(|c| c.is_ascii_hexdigit()) {
        digits.to_ascii_lowercase()
    } else {
        String::new()
    }
}

/// Without leading zero bytes, as certificates' serials are compared.
fn trim(serial: &str) -> String {
    let even = if serial.len() % 2 == 1 {
        format!("0{serial}")
    } else {
        serial.to_owned()
    };
    let mut rest = even.as_str();
    while let Some(shorter) = rest.strip_prefix("00") {
        rest = shorter;
    }
    rest.to_owned()
}
