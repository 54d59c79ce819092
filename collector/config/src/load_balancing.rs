//! What the `loadbalancing` exporter is told.

use std::time::Duration;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, Parts, join_key};
use serde::Deserialize;
use serde_json::Value;

use crate::common::{GrpcClient, Sending};
use crate::document::unknown_keys;
use crate::exporters::GrpcExporter;
use crate::values::{duration, present};

/// `loadbalancing`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LoadBalancing {
    /// How each backend is sent to; its endpoint is the backend's.
    pub otlp: GrpcExporter,
    /// Where the backends are and what goes to which.
    pub settings: LoadBalancingSettings,
}

/// What the exporter has beside `protocol`.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LoadBalancingSettings {
    /// Where the backends are.
    pub resolver: Resolver,
    /// What is sent to the same backend.
    pub routing_key: RoutingKey,
    /// For `routing_key: attributes`: refused.
    pub routing_attributes: Option<Value>,
}

/// What is sent to the same backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum RoutingKey {
    /// Traces (and log records) by their identifier, metrics by service.
    #[default]
    #[serde(rename = "traceID", alias = "")]
    TraceId,
    /// All of a service.
    #[serde(rename = "service")]
    Service,
    /// All of a resource.
    #[serde(rename = "resource")]
    Resource,
}

/// Where the backends are: one of these.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Resolver {
    /// They are listed.
    #[serde(rename = "static", deserialize_with = "present")]
    pub fixed: Option<StaticResolver>,
    /// They are the addresses of a name.
    #[serde(deserialize_with = "present")]
    pub dns: Option<DnsResolver>,
    /// They are the endpoints of a Service.
    #[serde(deserialize_with = "present")]
    pub k8s: Option<K8sResolver>,
    /// Refused.
    pub aws_cloud_map: Option<Value>,
}

/// They are listed.
#[derive(Debug, Clone, PartialEq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct StaticResolver {
    /// `host` or `host:port`.
    pub hostnames: Vec<String>,
}

/// They are the addresses of a name.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct DnsResolver {
    /// The name.
    pub hostname: String,
    /// The port of all.
    pub port: u16,
    /// How often the name is looked up.
    #[serde(deserialize_with = "duration")]
    pub interval: Duration,
    /// How long that may take.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
}

impl Default for DnsResolver {
    fn default() -> Self {
        DnsResolver {
            hostname: String::new(),
            port: 4317,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
        }
    }
}

/// They are the endpoints of a Service.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct K8sResolver {
    /// `name` or `name.namespace`.
    pub service: String,
    /// Ports of each.
    pub ports: Vec<u16>,
    /// How long the API may take to list them.
    #[serde(deserialize_with = "duration")]
    pub timeout: Duration,
    /// Pods' names instead of addresses, of a headless Service.
    pub return_hostnames: bool,
}

impl Default for K8sResolver {
    fn default() -> Self {
        K8sResolver {
            service: String::new(),
            ports: vec![4317],
            timeout: Duration::from_secs(1),
            return_hostnames: false,
        }
    }
}

pub(crate) fn read(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<LoadBalancing> {
    let mut parts = Parts::of(node, key);
    parts.knows(&["protocol"]);
    let settings: Option<LoadBalancingSettings> = parts.take(diagnoses);
    let sending: Option<Sending> = parts.take(diagnoses);
    parts.finish(diagnoses);
    let (settings, sending) = settings.zip(sending)?;
    let protocol_key = join_key(key, "protocol");
    let mut otlp = GrpcExporter::default();
    match node
        .get("protocol")
        .and_then(|protocol| protocol.get("otlp").map(|otlp| (protocol, otlp)))
    {
        None => {
            let mend = "write such as `protocol: {otlp: {tls: {insecure: true}}}`";
            let place = node.key_place("protocol");
            diagnoses.push(Diagnosis::error(place, protocol_key, "needs `otlp`", mend));
        }
        Some((protocol, block)) => {
            unknown_keys(protocol, &protocol_key, &["otlp"], diagnoses);
            let key = join_key(&protocol_key, "otlp");
            let mut parts = Parts::of(block, &key);
            let client: Option<GrpcClient> = parts.take(diagnoses);
            let own: Option<Sending> = parts.take(diagnoses);
            parts.finish(diagnoses);
            let (client, own) = client.zip(own)?;
            otlp = GrpcExporter { client, sending: own };
            if otlp.sending.sending_queue.storage.is_some() {
                let message = "a backend's queue cannot be on disk: the backend may never come back for it";
                let mend =
                    "let the collector before this one keep it: put an `otlp` exporter with a storage there";
                let place = block.key_place("sending_queue");
                diagnoses.push(Diagnosis::error(
                    place,
                    join_key(&key, "sending_queue.storage"),
                    message,
                    mend,
                ));
            }
        }
    }
    // Written for all backends, they hold for each.
    let written = |name: &str| node.get(name).is_some_and(|node| !node.is_null());
    if written("timeout") {
        otlp.sending.timeout = sending.timeout;
    }
    if written("retry_on_failure") {
        otlp.sending.retry_on_failure = sending.retry_on_failure;
    }
    if written("sending_queue") {
        otlp.sending.sending_queue = sending.sending_queue;
    }
    check(&settings, node, key, diagnoses);
    Some(LoadBalancing { otlp, settings })
}

fn check(settings: &LoadBalancingSettings, node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) {
    let resolver = &settings.resolver;
    let mut fault = |part: &str, message: &str, mend: &str| {
        let top = part.split('.').next().unwrap_or(part);
        diagnoses.push(Diagnosis::error(
            node.key_place(top),
            join_key(key, part),
            message,
            mend,
        ));
    };
    if node
        .at_path(&["sending_queue", "storage"])
        .is_some_and(|storage| !storage.is_null())
    {
        let mend = "let the collector before this one keep it: put an `otlp` exporter with a storage there";
        fault(
            "sending_queue.storage",
            "a backend's queue cannot be on disk",
            mend,
        );
    }
    if settings
        .routing_attributes
        .as_ref()
        .is_some_and(|value| !value.is_null())
    {
        fault(
            "routing_attributes",
            "routing by attributes is not supported",
            "route by traceID, service or resource",
        );
    }
    if resolver.aws_cloud_map.is_some() {
        fault(
            "resolver.aws_cloud_map",
            "is not supported",
            "use static, dns or k8s",
        );
        return;
    }
    check_resolver(resolver, &mut fault);
}

/// What is wrong with where the backends are; told as the key, what, and the mend.
fn check_resolver(resolver: &Resolver, fault: &mut dyn FnMut(&str, &str, &str)) {
    let given = [
        resolver.fixed.is_some(),
        resolver.dns.is_some(),
        resolver.k8s.is_some(),
    ];
    match given.iter().filter(|given| **given).count() {
        0 => fault(
            "resolver",
            "no resolver is given",
            "write such as `resolver: {static: {hostnames: [a:4317]}}`",
        ),
        1 => {}
        _ => fault(
            "resolver",
            "several resolvers are given",
            "keep one of static, dns and k8s",
        ),
    }
    if resolver
        .fixed
        .as_ref()
        .is_some_and(|fixed| fixed.hostnames.is_empty())
    {
        fault(
            "resolver.static.hostnames",
            "no backend is given",
            "write such as [a:4317, b:4317]",
        );
    }
    if resolver.dns.as_ref().is_some_and(|dns| dns.hostname.is_empty()) {
        fault(
            "resolver.dns.hostname",
            "is missing",
            "write the name whose addresses are the backends",
        );
    }
    if resolver
        .dns
        .as_ref()
        .is_some_and(|dns| dns.interval.is_zero() || dns.timeout.is_zero())
    {
        fault(
            "resolver.dns",
            "interval and timeout must be more than 0",
            "write such as 5s",
        );
    }
    if let Some(k8s) = &resolver.k8s {
        if k8s.service.is_empty() {
            fault(
                "resolver.k8s.service",
                "is missing",
                "write `name.namespace` of the Service",
            );
        }
        if k8s.ports.is_empty() {
            fault("resolver.k8s.ports", "no port is given", "write such as [4317]");
        }
    }
}
