//! Where a metric belongs: a resource (job and instance) and a scope.

use std::net::IpAddr;

use karez_scrape::config::Target;
use karez_scrape::config::labels::{INSTANCE, JOB, SCHEME};

use super::encode::{attribute, delimited_length};
use crate::wire::field::{put_delimited, put_varint};

/// The scope of what has none of its own.
const SCOPE: &str = "karez/receiver/prometheus";

/// What tells places apart.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Key {
    pub(super) job: String,
    pub(super) instance: String,
    pub(super) scope: String,
    pub(super) version: String,
    pub(super) schema_url: String,
    pub(super) attributes: Vec<(String, String)>,
}

/// A resource and a scope.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) key: Key,
    /// Attributes of the resource, encoded.
    resource: Vec<u8>,
    /// What `target_info` adds in this scrape.
    info: Vec<u8>,
    /// The scope, encoded but for what `otel_scope_info` adds.
    scope: Vec<u8>,
    scope_info: Vec<u8>,
}

impl Place {
    /// The target's own.
    pub(super) fn of_target(target: &Target) -> Self {
        let key = Key {
            job: target.labels.get(JOB).to_owned(),
            instance: target.labels.get(INSTANCE).to_owned(),
            ..Key::default()
        };
        Place::new(key, target.labels.get(SCHEME))
    }

    pub(super) fn new(key: Key, scheme: &str) -> Self {
        let mut resource = Vec::new();
        attribute(&mut resource, 1, "service.name", &key.job);
        attribute(&mut resource, 1, "service.instance.id", &key.instance);
        let (host, port) = host_and_port(&key.instance);
        if is_telling(host) {
            attribute(&mut resource, 1, "server.address", host);
        }
        attribute(&mut resource, 1, "server.port", port);
        attribute(&mut resource, 1, "url.scheme", scheme);
        let mut scope = Vec::new();
        match key.scope.is_empty() {
            true => {
                put_delimited(&mut scope, 1, SCOPE.as_bytes());
                put_delimited(&mut scope, 2, env!("CARGO_PKG_VERSION").as_bytes());
            }
            false => {
                put_delimited(&mut scope, 1, key.scope.as_bytes());
                put_delimited(&mut scope, 2, key.version.as_bytes());
            }
        }
        for (name, value) in &key.attributes {
            attribute(&mut scope, 3, name, value);
        }
        Place {
            key,
            resource,
            info: Vec::new(),
            scope,
            scope_info: Vec::new(),
        }
    }

    /// A new scrape.
    pub(super) fn start(&mut self) {
        self.info.clear();
        self.scope_info.clear();
    }

    /// `target_info`; 0 would say that it does not hold.
    pub(super) fn info(&mut self, attributes: &[u8], value: f64) {
        if value != 0.0 {
            attributes.clone_into(&mut self.info);
        }
    }

    pub(super) fn scope_info(&mut self, attributes: &[u8]) {
        attributes.clone_into(&mut self.scope_info);
    }

    /// `target_info` of another scope of the same resource counts here, too.
    pub(super) fn information(&self) -> &[u8] {
        &self.info
    }

    /// `ResourceMetrics` with these metrics (field 2 of a `ScopeMetrics`, encoded).
    pub(super) fn put(&self, out: &mut Vec<u8>, info: &[u8], metrics: &[u8]) {
        let schema_url = self.key.schema_url.as_bytes();
        let told = if schema_url.is_empty() {
            0
        } else {
            delimited_length(schema_url.len())
        };
        let own = self.scope.len() + self.scope_info.len();
        let scope = delimited_length(own) + metrics.len() + told;
        let known = self.resource.len() + info.len();
        let resource = delimited_length(known) + delimited_length(scope);
        out.reserve(delimited_length(resource));
        put_head(out, 1, resource);
        put_head(out, 1, known);
        out.extend_from_slice(&self.resource);
        out.extend_from_slice(info);
        put_head(out, 2, scope);
        put_head(out, 1, own);
        out.extend_from_slice(&self.scope);
        out.extend_from_slice(&self.scope_info);
        out.extend_from_slice(metrics);
        if !schema_url.is_empty() {
            put_delimited(out, 3, schema_url);
        }
    }
}

/// Key and length of a field whose value follows.
fn put_head(out: &mut Vec<u8>, number: u8, length: usize) {
    out.push(number << 3 | 2);
    put_varint(out, length as u64);
}

fn host_and_port(instance: &str) -> (&str, &str) {
    match instance.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') || host.starts_with('[') => {
            (host.trim_matches(['[', ']']), port)
        }
        _ => (instance, ""),
    }
}

/// Whether a host says something to others: not so `localhost`, loopback and unspecified addresses.
fn is_telling(host: &str) -> bool {
    if host.is_empty() || host.eq_ignore_ascii_case("localhost") {
        return false;
    }
    host.parse().map_or(true, |address: IpAddr| {
        !address.is_loopback() && !address.is_unspecified()
    })
}
