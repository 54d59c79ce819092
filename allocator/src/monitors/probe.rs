//! Probe: one job that asks a prober for each target.

use serde_json::{Map, Value, json};

use super::auth::Auth;
use super::job::JobWriter;
use super::{Context, Refusal, Resource, classes, list, rules, text};

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
    let prober = spec.get("prober").unwrap_or(&Value::Null);
    let url = text(prober, "url");
    if url.is_empty() {
        return Err("spec.prober.url is missing".to_owned().into());
    }
    let mut job = JobWriter::new(format!("probe/{namespace}/{name}"));
    job.put("honor_timestamps", true);
    let path = Some(text(prober, "path")).filter(|path| !path.is_empty());
    job.put("metrics_path", path.unwrap_or("/probe"));
    job.text("scrape_interval", text(spec, "interval"));
    job.text("scrape_timeout", text(spec, "scrapeTimeout"));
    job.text("scheme", &text(prober, "scheme").to_lowercase());
    job.proxy(prober);
    params(&mut job, spec);
    auth.put_all(spec, &mut job)?;
    job.limits(spec);
    if !text(spec, "jobName").is_empty() {
        job.constant("job", text(spec, "jobName"));
    }
    let targets = spec.get("targets").unwrap_or(&Value::Null);
    let own = match (targets.get("staticConfig"), targets.get("ingress")) {
        (Some(fixed), _) if !fixed.is_null() => fixed_targets(&mut job, fixed, namespace, url),
        (_, Some(ingress)) if !ingress.is_null() => ingresses(&mut job, ingress, namespace, url)?,
        _ => {
            return Err("spec.targets names neither staticConfig nor ingress"
                .to_owned()
                .into());
        }
    };
    classes::apply(class, &mut job, &auth)?;
    job.relabelings(own)?;
    classes::metric_relabelings(class, &mut job)?;
    job.metric_relabelings(list(spec, "metricRelabelings"))?;
    Ok(job.finish())
}

/// Parameters by name, and the module.
fn params(job: &mut JobWriter, spec: &Value) {
    let mut params = Map::new();
    for param in list(spec, "params") {
        let values = list(param, "values").to_vec();
        params.insert(text(param, "name").to_owned(), Value::Array(values));
    }
    if !text(spec, "module").is_empty() {
        params.insert("module".to_owned(), json!([text(spec, "module")]));
    }
    if !params.is_empty() {
        job.put("params", params);
    }
}

fn fixed_targets<'a>(job: &mut JobWriter, fixed: &'a Value, namespace: &str, url: &str) -> &'a [Value] {
    let mut labels = fixed
        .get("labels")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    labels.entry("namespace").or_insert_with(|| namespace.into());
    // What a probe names is often a URL, which is no address of a target before the rules have made it a parameter.
    let mut groups = Vec::new();
    for target in list(fixed, "static").iter().filter_map(Value::as_str) {
        groups.push(target);
    }
    job.put("static_configs", json!([{"targets": groups, "labels": labels}]));
    job.replace(&["__address__"], "__param_target");
    job.replace(&["__param_target"], "instance");
    job.constant("__address__", url);
    list(fixed, "relabelingConfigs")
}

fn ingresses<'a>(
    job: &mut JobWriter,
    ingress: &'a Value,
    namespace: &str,
    url: &str,
) -> Result<&'a [Value], Refusal> {
    rules::discovery(job, "ingress", namespace, ingress.get("namespaceSelector"), false);
    rules::selector(job, ingress.get("selector").unwrap_or(&Value::Null), "ingress")?;
    job.rules.push(json!({
        "source_labels": ["__meta_kubernetes_ingress_scheme", "__address__", "__meta_kubernetes_ingress_path"],
        "separator": ";", "regex": "(.+);(.+);(.+)", "target_label": "__param_target",
        "replacement": "${1}://${2}${3}", "action": "replace",
    }));
    job.replace(&["__meta_kubernetes_namespace"], "namespace");
    job.replace(&["__meta_kubernetes_ingress_name"], "ingress");
    job.replace(&["__address__"], "__tmp_ingress_address");
    job.replace(&["__param_target"], "instance");
    job.constant("__address__", url);
    Ok(list(ingress, "relabelingConfigs"))
}
