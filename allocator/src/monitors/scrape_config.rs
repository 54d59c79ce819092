//! ScrapeConfig: a job nearly as Prometheus writes it, with other names of the keys.

use serde_json::{Map, Value, json};

use super::auth::Auth;
use super::job::JobWriter;
use super::{Context, Refusal, Resource, classes, list, text};

/// Discovery that is read, with how its own keys are written.
const KNOWN: [(&str, &str); 6] = [
    ("staticConfigs", "static_configs"),
    ("fileSDConfigs", "file_sd_configs"),
    ("httpSDConfigs", "http_sd_configs"),
    ("kubernetesSDConfigs", "kubernetes_sd_configs"),
    ("consulSDConfigs", "consul_sd_configs"),
    ("dnsSDConfigs", "dns_sd_configs"),
];

pub(super) fn job(resource: Resource<'_>, cx: &Context<'_>) -> Result<Value, Refusal> {
    let Resource {
        namespace,
        name,
        spec,
    } = resource;
    let class = classes::class(cx, spec)?;
    let auth = Auth {
        secrets: cx.secrets,
        namespace,
    };
    let mut job = JobWriter::new(format!("scrapeConfig/{namespace}/{name}"));
    job.endpoint(spec);
    job.text("metrics_path", text(spec, "metricsPath"));
    job.text("scrape_interval", text(spec, "scrapeInterval"));
    auth.put_all(spec, &mut job)?;
    job.limits(spec);
    if !text(spec, "jobName").is_empty() {
        job.constant("job", text(spec, "jobName"));
    }
    for (key, value) in spec.as_object().into_iter().flatten() {
        let Some(items) = value.as_array().filter(|items| !items.is_empty()) else {
            continue;
        };
        if let Some((_, to)) = KNOWN.iter().find(|(from, _)| from == key) {
            let items: Result<Vec<Value>, Refusal> =
                items.iter().map(|item| discovery(item, &auth)).collect();
            job.put(to, items?);
        } else if key.ends_with("SDConfigs") {
            let kind = key.trim_end_matches("SDConfigs");
            return Err(format!(
                "{key}: Karez does not have this discovery ({kind}); use static, file, http, dns, kubernetes or consul"
            )
            .into());
        }
    }
    classes::apply(class, &mut job, &auth)?;
    job.relabelings(list(spec, "relabelings"))?;
    classes::metric_relabelings(class, &mut job)?;
    job.metric_relabelings(list(spec, "metricRelabelings"))?;
    Ok(job.finish())
}

/// Keys of credentials, which are not copied but looked up.
const LOOKED_UP: [&str; 5] = ["basicAuth", "authorization", "oauth2", "tlsConfig", "tokenRef"];

/// One discovery: keys in the way of Prometheus, credentials looked up.
fn discovery(item: &Value, auth: &Auth<'_>) -> Result<Value, Refusal> {
    let mut written = JobWriter::default();
    auth.put_all(item, &mut written)?;
    if let Some(token) = auth.secrets.value(auth.namespace, item.get("tokenRef"), true)? {
        written.put("token", token);
    }
    for (key, value) in item.as_object().into_iter().flatten() {
        if LOOKED_UP.contains(&key.as_str()) || value.is_null() {
            continue;
        }
        written.put(&snake(key), converted(key, value));
    }
    Ok(Value::Object(written.keys))
}

fn converted(key: &str, value: &Value) -> Value {
    match (key, value) {
        ("role" | "scheme", Value::String(text)) => json!(text.to_lowercase()),
        // Labels of targets are the user's names.
        ("labels", _) => value.clone(),
        (_, Value::Object(map)) => {
            let entries = map.iter().map(|(key, value)| (snake(key), converted(key, value)));
            Value::Object(entries.collect::<Map<_, _>>())
        }
        (_, Value::Array(items)) => items.iter().map(|item| converted("", item)).collect(),
        _ => value.clone(),
    }
}

/// `refreshInterval` → `refresh_interval`, `enableHTTP2` → `enable_http2`.
fn snake(name: &str) -> String {
    let mut out = String::new();
    let mut before_lower = false;
    for c in name.chars() {
        if c.is_ascii_uppercase() && before_lower {
            out.push('_');
        }
        before_lower = c.is_ascii_lowercase() || c.is_ascii_digit();
        out.push(c.to_ascii_lowercase());
    }
    out
}
