//! `consul_sd_configs`: a group a service, a target an instance; the agent's catalogue is asked again and again.

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use ::http::{HeaderMap, HeaderValue};
use karez_net::Net;
use karez_scrape_config::Group;
use karez_scrape_config::discovery::ConsulDiscovery;
use karez_scrape_config::labels::{ADDRESS, Labels};
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::kubernetes::sanitize;
use super::{Given, Health, Sink, ticks};
use crate::client::Client;

const MAX_BODY: u64 = 64 << 20;
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Entry {
    node: Node,
    service: Service,
    checks: Vec<Check>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Node {
    node: String,
    address: String,
    datacenter: String,
    meta: Option<BTreeMap<String, String>>,
    tagged_addresses: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Service {
    #[serde(rename = "ID")]
    id: String,
    service: String,
    address: String,
    port: u32,
    tags: Option<Vec<String>>,
    meta: Option<BTreeMap<String, String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Check {
    status: String,
}

pub(super) async fn run(config: ConsulDiscovery, sink: Sink, net: Net) {
    let mut health = Health::default();
    let client = match Client::new(&config.http, &net) {
        Ok(client) => client,
        Err(error) => return health.failed(&sink, &config.server, &error),
    };
    let mut given = Given::default();
    let mut ticks = ticks(config.refresh);
    loop {
        ticks.tick().await;
        match ask(&client, &config).await {
            Ok(groups) => {
                health.works(&sink, &config.server);
                given.replace(&sink, groups);
                sink.told();
            }
            Err(error) => health.failed(&sink, &config.server, &error),
        }
    }
}

async fn ask(client: &Client, config: &ConsulDiscovery) -> Result<Vec<(String, Group)>, String> {
    let services = match config.services.is_empty() {
        false => config.services.clone(),
        true => {
            let all: HashMap<String, Vec<String>> = get(client, config, "catalog/services").await?;
            let tagged = |tags: &[String]| config.tags.iter().all(|tag| tags.contains(tag));
            all.into_iter()
                .filter(|(_, tags)| tagged(tags))
                .map(|(name, _)| name)
                .collect()
        }
    };
    let mut groups = Vec::new();
    for service in services {
        let name: String = url::form_urlencoded::byte_serialize(service.as_bytes()).collect();
        let entries: Vec<Entry> = get(client, config, &format!("health/service/{name}")).await?;
        let targets = entries.iter().filter_map(|entry| target(entry, config)).collect();
        let labels = Labels::of([("__meta_consul_service", service.as_str())]);
        groups.push((service, Group { labels, targets }));
    }
    Ok(groups)
}

async fn get<T: DeserializeOwned>(
    client: &Client,
    config: &ConsulDiscovery,
    path: &str,
) -> Result<T, String> {
    let url = format!(
        "{}://{}/v1/{path}?{}",
        config.scheme,
        config.server,
        query(config)
    );
    let mut headers = HeaderMap::new();
    if !config.token.is_empty() {
        let token = HeaderValue::from_str(config.token.expose());
        headers.insert(
            "x-consul-token",
            token.map_err(|_| "the token cannot be sent".to_owned())?,
        );
    }
    let answer = client.get(&url, &headers, MAX_BODY, TIMEOUT).await;
    let answer = answer.map_err(|error| error.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("answers {}", answer.status));
    }
    serde_json::from_slice(&answer.body).map_err(|error| format!("answers what is no list: {error}"))
}

fn query(config: &ConsulDiscovery) -> String {
    let mut query = url::form_urlencoded::Serializer::new(String::new());
    if !config.datacenter.is_empty() {
        query.append_pair("dc", &config.datacenter);
    }
    if config.allow_stale {
        query.append_pair("stale", "");
    }
    query.finish()
}

fn target(entry: &Entry, config: &ConsulDiscovery) -> Option<Labels> {
    let (node, service) = (&entry.node, &entry.service);
    let tags = service.tags.as_deref().unwrap_or_default();
    if !config.tags.iter().all(|tag| tags.contains(tag)) {
        return None;
    }
    let host = match service.address.is_empty() {
        true => &node.address,
        false => &service.address,
    };
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.clone()
    };
    // Tags stand between separators, so that a pattern finds a whole one.
    let separator = &config.tag_separator;
    let joined = format!("{separator}{}{separator}", tags.join(separator));
    let mut pairs = vec![
        (ADDRESS.to_owned(), format!("{host}:{}", service.port)),
        ("__meta_consul_address".to_owned(), node.address.clone()),
        ("__meta_consul_node".to_owned(), node.node.clone()),
        ("__meta_consul_tags".to_owned(), joined),
        (
            "__meta_consul_service_address".to_owned(),
            service.address.clone(),
        ),
        ("__meta_consul_service_port".to_owned(), service.port.to_string()),
        ("__meta_consul_service_id".to_owned(), service.id.clone()),
        ("__meta_consul_dc".to_owned(), node.datacenter.clone()),
        (
            "__meta_consul_health".to_owned(),
            health(&entry.checks).to_owned(),
        ),
    ];
    let maps = [
        ("__meta_consul_metadata_", &node.meta),
        ("__meta_consul_service_metadata_", &service.meta),
        ("__meta_consul_tagged_address_", &node.tagged_addresses),
    ];
    for (prefix, map) in maps {
        for (name, value) in map.iter().flatten() {
            pairs.push((format!("{prefix}{}", sanitize(name)), value.clone()));
        }
    }
    Some(Labels::of(
        pairs.iter().map(|(name, value)| (name.as_str(), value.as_str())),
    ))
}

/// The worst of the checks.
fn health(checks: &[Check]) -> &'static str {
    ["maintenance", "critical", "warning"]
        .into_iter()
        .find(|status| checks.iter().any(|check| check.status == *status))
        .unwrap_or("passing")
}
