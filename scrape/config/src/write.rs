//! A job as Prometheus itself writes it out, as JSON: what an allocator answers and collectors read.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::discovery::{
    ConsulDiscovery, DiscoveryConfig, DnsDiscovery, FileDiscovery, HttpDiscovery, KubernetesDiscovery, Role,
};
use crate::document::{Limits, ScrapeConfig};
use crate::http::{HttpConfig, OAuth2, Tls};
use crate::labels::ADDRESS;
use crate::relabel::{Action, Rule, RuleText};
use crate::target::Group;
use crate::values::{Secret, format_duration};

/// A job as a JSON object with sorted keys. It holds the job's secrets: see [`ScrapeConfig::has_secrets`].
pub fn to_json(job: &ScrapeConfig) -> Value {
    let mut out = Object::default();
    out.put("job_name", &job.job_name);
    out.flag("honor_labels", job.honor_labels);
    out.put("honor_timestamps", job.honor_timestamps);
    out.put("track_timestamps_staleness", job.track_timestamps_staleness);
    if !job.params.is_empty() {
        out.put("params", &job.params);
    }
    out.duration("scrape_interval", job.interval);
    out.duration("scrape_timeout", job.timeout);
    let protocols: Vec<&str> = job.protocols.iter().map(|protocol| protocol.as_str()).collect();
    out.put("scrape_protocols", protocols);
    if let Some(fallback) = job.fallback_protocol {
        out.put("fallback_scrape_protocol", fallback.as_str());
    }
    out.put("metrics_path", &job.metrics_path);
    out.put("scheme", &job.scheme);
    out.put("enable_compression", job.compression);
    out.flag("scrape_native_histograms", job.native_histograms);
    out.flag("always_scrape_classic_histograms", job.classic_histograms);
    limits(&job.limits, &mut out);
    http(&job.http, &mut out);
    out.list("relabel_configs", job.relabel.iter().map(rule).collect());
    out.list(
        "metric_relabel_configs",
        job.metric_relabel.iter().map(rule).collect(),
    );
    for source in &job.discovery {
        discovery(source, &mut out);
    }
    sorted(Value::Object(out.0))
}

/// Keys in their order, at every level.
fn sorted(value: Value) -> Value {
    match value {
        Value::Object(map) => {
            let mut entries: Vec<(String, Value)> = map.into_iter().collect();
            entries.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
            Value::Object(
                entries
                    .into_iter()
                    .map(|(key, value)| (key, sorted(value)))
                    .collect(),
            )
        }
        Value::Array(items) => Value::Array(items.into_iter().map(sorted).collect()),
        other => other,
    }
}

/// A block being written; what is empty is left out, as Prometheus leaves it out.
#[derive(Default)]
struct Object(Map<String, Value>);

impl Object {
    fn put(&mut self, key: &str, value: impl serde::Serialize) {
        // Texts, numbers, lists and maps with texts as keys: nothing that JSON lacks.
        self.0.insert(key.to_owned(), json!(value));
    }

    fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.put(key, value);
        }
    }

    fn secret(&mut self, key: &str, value: &Secret) {
        self.text(key, value.expose());
    }

    fn flag(&mut self, key: &str, value: bool) {
        if value {
            self.put(key, value);
        }
    }

    fn number(&mut self, key: &str, value: u64) {
        if value > 0 {
            self.put(key, value);
        }
    }

    fn duration(&mut self, key: &str, value: Duration) {
        self.put(key, format_duration(value));
    }

    fn list(&mut self, key: &str, items: Vec<Value>) {
        if !items.is_empty() {
            self.put(key, items);
        }
    }

    fn push(&mut self, key: &str, item: Value) {
        if let Value::Array(items) = self.0.entry(key).or_insert_with(|| Value::Array(Vec::new())) {
            items.push(item);
        }
    }
}

fn limits(limits: &Limits, out: &mut Object) {
    if limits.body_size > 0 {
        out.put("body_size_limit", size(limits.body_size));
    }
    out.number("sample_limit", limits.samples);
    out.number("target_limit", limits.targets);
    out.number("label_limit", limits.labels);
    out.number("label_name_length_limit", limits.label_name_length);
    out.number("label_value_length_limit", limits.label_value_length);
    out.number("native_histogram_bucket_limit", limits.native_buckets);
    out.number("keep_dropped_targets", limits.keep_dropped_targets);
}

/// A size in the largest unit that leaves nothing over.
fn size(bytes: u64) -> String {
    let units = [(50, "PB"), (40, "TB"), (30, "GB"), (20, "MB"), (10, "KB")];
    let whole = units
        .into_iter()
        .find(|(shift, _)| bytes.trailing_zeros() >= *shift);
    whole.map_or_else(
        || format!("{bytes}B"),
        |(shift, unit)| format!("{}{unit}", bytes >> shift),
    )
}

fn http(http: &HttpConfig, out: &mut Object) {
    if let Some(basic) = &http.basic_auth {
        let mut block = Object::default();
        block.text("username", &basic.username);
        block.text("username_file", &basic.username_file);
        block.secret("password", &basic.password);
        block.text("password_file", &basic.password_file);
        out.put("basic_auth", block.0);
    }
    if let Some(authorization) = &http.authorization {
        let mut block = Object::default();
        block.text("type", &authorization.kind);
        block.secret("credentials", &authorization.credentials);
        block.text("credentials_file", &authorization.credentials_file);
        out.put("authorization", block.0);
    }
    if let Some(oauth2) = &http.oauth2 {
        out.put("oauth2", self::oauth2(oauth2));
    }
    if http.tls != Tls::default() {
        out.put("tls_config", tls(&http.tls));
    }
    out.put("follow_redirects", http.follow_redirects);
    out.put("enable_http2", http.enable_http2);
    let mut headers = Object::default();
    for (name, header) in &http.headers {
        let mut block = Object::default();
        block.list("values", header.values.iter().map(|value| json!(value)).collect());
        block.list(
            "secrets",
            header
                .secrets
                .iter()
                .map(|secret| json!(secret.expose()))
                .collect(),
        );
        block.list("files", header.files.iter().map(|file| json!(file)).collect());
        headers.put(name, block.0);
    }
    if !headers.0.is_empty() {
        out.put("http_headers", headers.0);
    }
}

fn oauth2(oauth2: &OAuth2) -> Value {
    let mut block = Object::default();
    block.put("client_id", &oauth2.client_id);
    block.secret("client_secret", &oauth2.client_secret);
    block.text("client_secret_file", &oauth2.client_secret_file);
    block.list("scopes", oauth2.scopes.iter().map(|scope| json!(scope)).collect());
    block.put("token_url", &oauth2.token_url);
    if !oauth2.endpoint_params.is_empty() {
        block.put("endpoint_params", &oauth2.endpoint_params);
    }
    if let Some(written) = &oauth2.tls_config {
        block.put("tls_config", tls(written));
    }
    Value::Object(block.0)
}

fn tls(tls: &Tls) -> Value {
    let mut block = Object::default();
    block.secret("ca", &tls.ca);
    block.text("ca_file", &tls.ca_file);
    block.secret("cert", &tls.cert);
    block.text("cert_file", &tls.cert_file);
    block.secret("key", &tls.key);
    block.text("key_file", &tls.key_file);
    block.text("server_name", &tls.server_name);
    block.put("insecure_skip_verify", tls.insecure_skip_verify);
    block.text("min_version", &tls.min_version);
    block.text("max_version", &tls.max_version);
    Value::Object(block.0)
}

/// A rule with what differs from the defaults, and with the pattern where the action has one.
fn rule(rule: &Rule) -> Value {
    let (text, usual) = (rule.text(), RuleText::default());
    let mut block = Object::default();
    block.list(
        "source_labels",
        text.source_labels.iter().map(|label| json!(label)).collect(),
    );
    let equal = matches!(text.action, Action::KeepEqual | Action::DropEqual);
    let names = matches!(text.action, Action::LabelDrop | Action::LabelKeep);
    if !equal {
        block.put("regex", &text.regex);
    }
    if !equal && !names {
        block.put("separator", &text.separator);
        // An empty replacement takes the label away: it must not be taken for the default.
        block.put("replacement", &text.replacement);
    }
    if text.modulus != usual.modulus {
        block.put("modulus", text.modulus);
    }
    block.text("target_label", &text.target_label);
    block.put("action", text.action.as_str());
    Value::Object(block.0)
}

fn discovery(source: &DiscoveryConfig, out: &mut Object) {
    match source {
        DiscoveryConfig::Static(groups) => {
            groups
                .iter()
                .for_each(|group| out.push("static_configs", static_group(group)));
        }
        DiscoveryConfig::File(FileDiscovery { files, refresh }) => {
            let block = json!({"files": files, "refresh_interval": format_duration(*refresh)});
            out.push("file_sd_configs", block);
        }
        DiscoveryConfig::Http(source) => out.push("http_sd_configs", http_source(source)),
        DiscoveryConfig::Dns(source) => out.push("dns_sd_configs", dns(source)),
        DiscoveryConfig::Kubernetes(source) => out.push("kubernetes_sd_configs", kubernetes(source)),
        DiscoveryConfig::Consul(source) => out.push("consul_sd_configs", consul(source)),
    }
}

fn static_group(group: &Group) -> Value {
    let targets: Vec<&str> = group.targets.iter().map(|target| target.get(ADDRESS)).collect();
    let mut block = Object::default();
    block.put("targets", targets);
    if !group.labels.is_empty() {
        block.put("labels", &group.labels);
    }
    Value::Object(block.0)
}

fn http_source(source: &HttpDiscovery) -> Value {
    let mut block = Object::default();
    block.put("url", &source.url);
    block.duration("refresh_interval", source.refresh);
    http(&source.http, &mut block);
    Value::Object(block.0)
}

fn dns(source: &DnsDiscovery) -> Value {
    let mut block = Object::default();
    block.put("names", &source.names);
    block.put("type", format!("{:?}", source.record));
    block.number("port", source.port.into());
    block.duration("refresh_interval", source.refresh);
    Value::Object(block.0)
}

fn role(role: Role) -> &'static str {
    match role {
        Role::Node => "node",
        Role::Pod => "pod",
        Role::Service => "service",
        Role::Endpoints => "endpoints",
        Role::EndpointSlice => "endpointslice",
        Role::Ingress => "ingress",
    }
}

fn kubernetes(source: &KubernetesDiscovery) -> Value {
    let mut block = Object::default();
    block.put("role", role(source.role));
    block.text("api_server", &source.api_server);
    block.put("kubeconfig_file", &source.kubeconfig_file);
    http(&source.http, &mut block);
    if source.own_namespace || !source.namespaces.is_empty() {
        block.put(
            "namespaces",
            json!({"own_namespace": source.own_namespace, "names": source.namespaces}),
        );
    }
    let selector = |selector: &crate::discovery::Selector| {
        let mut block = Object::default();
        block.put("role", role(selector.role));
        block.text("label", &selector.label);
        block.text("field", &selector.field);
        Value::Object(block.0)
    };
    block.list("selectors", source.selectors.iter().map(selector).collect());
    if source.attach_node || source.attach_namespace {
        let mut attached = Object::default();
        attached.flag("node", source.attach_node);
        attached.flag("namespace", source.attach_namespace);
        block.put("attach_metadata", attached.0);
    }
    Value::Object(block.0)
}

fn consul(source: &ConsulDiscovery) -> Value {
    let mut block = Object::default();
    block.put("server", &source.server);
    block.secret("token", &source.token);
    block.text("datacenter", &source.datacenter);
    block.put("tag_separator", &source.tag_separator);
    block.put("scheme", &source.scheme);
    block.put("allow_stale", source.allow_stale);
    block.duration("refresh_interval", source.refresh);
    block.list(
        "services",
        source.services.iter().map(|name| json!(name)).collect(),
    );
    block.list("tags", source.tags.iter().map(|tag| json!(tag)).collect());
    http(&source.http, &mut block);
    Value::Object(block.0)
}

impl ScrapeConfig {
    /// Whether it holds a secret itself, rather than the name of a file with one.
    pub fn has_secrets(&self) -> bool {
        has_secrets(&self.http)
            || self.discovery.iter().any(|source| match source {
                DiscoveryConfig::Http(source) => has_password(&source.url) || has_secrets(&source.http),
                DiscoveryConfig::Kubernetes(source) => has_secrets(&source.http),
                DiscoveryConfig::Consul(source) => !source.token.is_empty() || has_secrets(&source.http),
                DiscoveryConfig::Static(_) | DiscoveryConfig::File(_) | DiscoveryConfig::Dns(_) => false,
            })
    }
}

/// Whether an address holds a user's password.
fn has_password(url: &str) -> bool {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let host = rest.split(['/', '?', '#']).next().unwrap_or_default();
    host.rsplit_once('@').is_some_and(|(user, _)| user.contains(':'))
}

fn has_secrets(http: &HttpConfig) -> bool {
    let basic = http.basic_auth.iter().any(|basic| !basic.password.is_empty());
    let bearer = http.authorization.iter().any(|a| !a.credentials.is_empty());
    let oauth2 = http.oauth2.iter().any(|oauth2| {
        !oauth2.client_secret.is_empty() || oauth2.tls_config.iter().any(|tls| !tls.key.is_empty())
    });
    let headers = http.headers.values().any(|header| !header.secrets.is_empty());
    basic || bearer || oauth2 || headers || !http.tls.key.is_empty()
}

#[cfg(test)]
mod tests {
    use karez_document::Origin;
    use karez_document::yaml::parse;

    use super::*;
    use crate::document::tests::scrape;
    use crate::document::{Options, read_one};

    const FULL: &str = "{job_name: a/b, honor_labels: true, params: {module: [x, y]}, scrape_interval: 90s,
        body_size_limit: 10MB, sample_limit: 7, metrics_path: /m, scheme: https, basic_auth: {username: u, password: p},
        tls_config: {ca_file: /ca, server_name: s}, http_headers: {X-A: {values: [b]}},
        relabel_configs: [{source_labels: [a, b], target_label: c, replacement: ''}, {action: labeldrop, regex: x},
          {action: keepequal, source_labels: [a], target_label: b}, {action: hashmod, source_labels: [a], target_label: h, modulus: 3}],
        metric_relabel_configs: [{source_labels: [__name__], regex: go_.*, action: drop}],
        static_configs: [{targets: ['h:1', 'h:2'], labels: {env: prod}}, {targets: ['h:3']}],
        file_sd_configs: [{files: [t.json]}], http_sd_configs: [{url: 'http://h/sd', refresh_interval: 5s}],
        dns_sd_configs: [{names: [x], type: A, port: 9100}], consul_sd_configs: [{server: 'c:8500', token: t}],
        kubernetes_sd_configs: [{role: pod, namespaces: {names: [a]}, selectors: [{role: pod, label: 'a=b'}], attach_metadata: {node: true}}]}";

    #[test]
    fn a_password_in_an_address_is_a_secret() {
        assert!(has_password("https://u:p@h:1/x") && has_password("u:p@h"));
        assert!(!has_password("https://u@h/a:b") && !has_password("https://h:1/u:p@x"));
    }

    #[test]
    fn what_is_written_reads_as_it_was() {
        let job = scrape(FULL);
        let text = serde_json::to_string(&to_json(&job)).unwrap();
        let node = parse(&text, &Origin::file("j.json")).unwrap().remove(0);
        let mut diagnoses = Vec::new();
        let again = read_one(&node, "", Options::default(), &mut diagnoses);
        assert_eq!(diagnoses, []);
        assert_eq!(again, Some(job));
    }

    #[test]
    fn defaults_are_filled_in_and_keys_sorted() {
        let text = to_json(&scrape("{job_name: a}")).to_string();
        assert_eq!(
            text,
            r#"{"enable_compression":true,"enable_http2":true,"follow_redirects":true,"honor_timestamps":true,"job_name":"a","metrics_path":"/metrics","scheme":"http","scrape_interval":"1m","scrape_protocols":["OpenMetricsText1.0.0","OpenMetricsText0.0.1","PrometheusText1.0.0","PrometheusText0.0.4"],"scrape_timeout":"10s","track_timestamps_staleness":false}"#
        );
    }

    #[test]
    fn tells_secrets_from_files() {
        assert!(scrape(FULL).has_secrets());
        for (yaml, expected) in [
            (
                "{job_name: a, basic_auth: {username: u, password_file: /p}}",
                false,
            ),
            ("{job_name: a, bearer_token: t}", true),
            ("{job_name: a, tls_config: {cert: c, key: k}}", true),
            ("{job_name: a, consul_sd_configs: [{token: t}]}", true),
            ("{job_name: a, http_headers: {X: {secrets: [s]}}}", true),
        ] {
            assert_eq!(scrape(yaml).has_secrets(), expected, "{yaml}");
        }
    }
}
