//! The addresses and node ports of Services: stable for a name, never given twice.

use super::Store;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::{collections::HashSet, net::Ipv4Addr};

/// 10.96.0.0/12, as a cluster has it; nothing routes it here.
const NETWORK: u32 = 0x0A60_0000;
const HOSTS: u32 = (1 << 20) - 2;
const NODE_PORTS: std::ops::Range<u32> = 30000..32768;

fn hash(text: &str) -> u32 {
    let digest = Sha256::digest(text.as_bytes());
    u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]])
}

fn spec<'a>(service: &'a Value, field: &str) -> &'a str {
    service
        .pointer("/spec")
        .and_then(|s| s.get(field))
        .and_then(Value::as_str)
        .unwrap_or("")
}

/// Gives a Service what is allocated: kept from `old` where it has it.
pub(super) fn allocate(store: &Store, old: Option<&Value>, service: &mut Value) {
    if spec(service, "type") == "ExternalName" {
        if let Some(spec) = service.get_mut("spec").and_then(Value::as_object_mut) {
            spec.shift_remove("clusterIPs");
        }
        return;
    }
    if !service.get("spec").is_some_and(Value::is_object) {
        return;
    }
    let before = old.map(|o| spec(o, "clusterIP")).unwrap_or("").to_owned();
    let address = match spec(service, "clusterIP") {
        "" if !before.is_empty() => before,
        "" => cluster_address(store, service),
        given => given.to_owned(),
    };
    service["spec"]["clusterIPs"] = json!([address]);
    service["spec"]["clusterIP"] = json!(address);
    for (field, value) in [
        ("ipFamilies", json!(["IPv4"])),
        ("ipFamilyPolicy", json!("SingleStack")),
    ] {
        if service["spec"].get(field).is_none() {
            service["spec"][field] = value;
        }
    }
    if matches!(spec(service, "type"), "NodePort" | "LoadBalancer") {
        node_ports(store, old, service);
    }
}

fn services(store: &Store) -> impl Iterator<Item = &Value> {
    let found = store
        .objects()
        .filter(|(key, _)| key.resource == "services" && key.group.is_empty());
    found.map(|(_, object)| &**object)
}

fn cluster_address(store: &Store, service: &Value) -> String {
    let taken: HashSet<&str> = services(store).map(|s| spec(s, "clusterIP")).collect();
    let (namespace, name) = (
        super::text(service, "/metadata/namespace"),
        super::text(service, "/metadata/name"),
    );
    let start = hash(&format!("{namespace}/{name}")) % HOSTS;
    let address = |offset: u32| Ipv4Addr::from(NETWORK + 1 + (start + offset) % HOSTS).to_string();
    (0..HOSTS)
        .map(address)
        .find(|a| !taken.contains(a.as_str()))
        .unwrap_or_default()
}

fn node_ports(store: &Store, old: Option<&Value>, service: &mut Value) {
    let ports_of = |s: &Value| {
        s.pointer("/spec/ports")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default()
    };
    let mut taken: HashSet<u64> = services(store)
        .flat_map(ports_of)
        .filter_map(|p| p["nodePort"].as_u64())
        .collect();
    let before = old.map(ports_of).unwrap_or_default();
    let name = super::text(service, "/metadata/name").to_owned();
    let Some(ports) = service.pointer_mut("/spec/ports").and_then(Value::as_array_mut) else {
        return;
    };
    for port in ports
        .iter_mut()
        .filter(|p| p["nodePort"].as_u64().unwrap_or(0) == 0)
    {
        let kept = before
            .iter()
            .find(|b| b["port"] == port["port"] && b["protocol"] == port["protocol"]);
        let number = kept.and_then(|k| k["nodePort"].as_u64()).or_else(|| {
            let start = hash(&format!("{name}/{}", port["port"]));
            let width = NODE_PORTS.end - NODE_PORTS.start;
            (0..width)
                .map(|i| u64::from(NODE_PORTS.start + (start % width + i) % width))
                .find(|p| !taken.contains(p))
        });
        if let Some(number) = number
            && port.is_object()
        {
            taken.insert(number);
            port["nodePort"] = json!(number);
        }
    }
}
