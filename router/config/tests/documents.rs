//! Documents in, configurations or problems out.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use karez_router_config::{Mode, Role, RouterDocument, TlsSource, api, validate};

const PUBLIC: &str = r#"
version: 1
site: {id: u-1, name: public-site, namespace: default, version: 0.1.0}
router: {id: public-site-host, mode: interior}
tls:
  - {name: skupper-internal, secret: skupper-site-server}
  - {name: skupper-amqps, secret: skupper-local-server}
  - {name: link1-profile, directory: /certs/link1}
accept:
  - {name: inter-router, role: inter-router, host: 0.0.0.0, port: 55671, tls: skupper-internal}
  - {name: edge, role: edge, host: 0.0.0.0, port: 45671, tls: skupper-internal}
tokens:
  - {name: skupper-site-requested-token, serial: "0A1b", fingerprint: 00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff}
links:
  - {name: link1, role: edge, host: 127.1.2.1, port: 45671, cost: 1, tls: link1-profile}
local: {host: 0.0.0.0, port: 5671, tls: skupper-amqps}
admin: {host: 0.0.0.0, port: 9090}
services:
  - {address: otel-liked-collector, protocol: tcp, ports: [4317, 4318], origin: "", targets: [{name: otel-collector-app-collector}]}
listeners:
  - {name: "otel-liked-collector:4317", address: "otel-liked-collector:4317", host: 0.0.0.0, port: 1024}
connectors:
  - {name: "c", address: "otel-liked-collector:4317", host: otel-collector-app-collector, port: 4317, target: otel-collector-app-collector}
"#;

fn read(text: &str) -> RouterDocument {
    serde_saphyr::from_str(text).unwrap()
}

#[test]
fn a_whole_document_means_what_it_says() {
    let document = read(PUBLIC);
    let config = validate(&document).unwrap();
    assert_eq!(config.mode(), Mode::Interior);
    assert_eq!(
        config.tls["link1-profile"],
        TlsSource::Directory("/certs/link1".into())
    );
    assert_eq!(config.accepts["edge"].role, Role::Edge);
    assert_eq!(
        config.listeners["otel-liked-collector:4317"].address.to_string(),
        "otel-liked-collector:4317"
    );
    let fingerprint = "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";
    let admitted = config.tokens.admit("0a1b", fingerprint);
    assert_eq!(admitted.unwrap().name, "skupper-site-requested-token");
    assert_eq!(config.tokens.admit("0a1c", fingerprint), None);
    assert_eq!(config.tokens.admit("0a1b", &"0".repeat(64)), None);
}

#[test]
fn what_is_written_is_read_back() {
    let document = read(PUBLIC);
    let text = document.to_yaml();
    assert_eq!(read(&text), document, "{text}");
    assert_eq!(document.to_yaml(), text);
}

#[test]
fn reports_all_problems_at_once() {
    let document = read(
        r#"
version: 2
site: {id: "", name: edge}
router: {mode: edge}
tls: [{name: a}, {name: a, secret: x}]
accept: [{name: x, role: edge, port: 1, tls: nope}]
tokens: [{name: t, serial: xyz, fingerprint: "12"}]
links: [{name: l, role: inter-router, host: "", port: 0, cost: 0, tls: a}]
services: [{address: s, protocol: sctp, ports: []}]
listeners: [{name: l, address: nope, port: 1}, {name: m, address: "a:1", port: 1}]
connectors: [{name: c, address: "a:0", host: "", port: 0}]
"#,
    );
    let keys: Vec<_> = validate(&document)
        .unwrap_err()
        .into_iter()
        .map(|problem| problem.key)
        .collect();
    let expected = [
        "version",
        "site.id",
        "tls.0",
        "tls.1.name",
        "accept",
        "accept.0.tls",
        "tokens.0.serial",
        "tokens.0.fingerprint",
        "links.0.host",
        "links.0.port",
        "links.0.cost",
        "links.0.role",
        "services.0.protocol",
        "services.0.ports",
        "listeners.0.address",
        "listeners.1.port",
        "connectors.0.host",
        "connectors.0.port",
        "connectors.0.address",
    ];
    assert_eq!(keys, expected);
}

#[test]
fn the_status_keeps_its_spelling() {
    let status = api::Status {
        links: vec![api::LinkStatus {
            name: "link1".into(),
            role: Role::InterRouter,
            host: "h".into(),
            port: 1,
            cost: 1,
            direction: api::Direction::Outgoing,
            peer: Some(api::PeerStatus {
                site_id: "u".into(),
                site_name: "n".into(),
                ..Default::default()
            }),
            state: api::LinkState::Refused,
            error: Some("certificate expired".into()),
            since: "2026-01-01T00:00:00Z".into(),
            token: None,
            transport: None,
            carries: None,
            fingerprint: None,
            renewed: None,
        }],
        ..api::Status::default()
    };
    let json = serde_json::to_value(&status).unwrap();
    assert_eq!(json["links"][0]["peer"]["siteId"], "u");
    assert_eq!(json["links"][0]["state"], "refused");
    assert_eq!(json["links"][0]["role"], "inter-router");
    assert_eq!(json["links"][0]["direction"], "outgoing");
    assert_eq!(serde_json::from_value::<api::Status>(json).unwrap(), status);
}

#[test]
fn a_diagnosis_names_file_line_and_key() {
    let origin = karez_document::Origin::embedded("manifest.yaml", 11);
    let text = PUBLIC
        .trim_start()
        .replace("cost: 1", "cost: 0")
        .replace("admin:", "adnim:");
    let (config, found) = karez_router_config::check(&text, &origin);
    assert!(config.is_none());
    let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert_eq!(texts.len(), 1, "{texts:?}");
    assert!(
        texts[0].starts_with("manifest.yaml:26: error: adnim"),
        "{texts:?}"
    );
    let (_, found) = karez_router_config::check(&text.replace("adnim:", "admin:"), &origin);
    let texts: Vec<_> = found.iter().map(ToString::to_string).collect();
    assert!(
        texts[0].starts_with("manifest.yaml:24: error: links[0].cost: a link cannot be free"),
        "{texts:?}"
    );
    let (config, found) = karez_router_config::check(PUBLIC, &origin);
    assert!(config.is_some() && found.is_empty(), "{found:?}");
    for text in ["", "version: [", "- a", "version: 1\n---\nversion: 1"] {
        let (config, found) = karez_router_config::check(text, &origin);
        assert!(config.is_none() && !found.is_empty(), "{text}");
    }
}
