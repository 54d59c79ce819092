//! Scrape classes: what every job of a class has beside what its resource says.

use serde_json::Value;

use super::auth::Auth;
use super::job::JobWriter;
use super::{Context, Refusal, flag, list, text};

/// The class that a resource names, or the default one.
pub(super) fn class<'a>(cx: &'a Context<'_>, spec: &Value) -> Result<Option<&'a Value>, Refusal> {
    let classes = &cx.config.scrape_classes;
    let name = text(spec, "scrapeClass");
    if name.is_empty() {
        return Ok(classes.iter().find(|class| flag(class, "default") == Some(true)));
    }
    let found = classes.iter().find(|class| text(class, "name") == name);
    found
        .map(Some)
        .ok_or_else(|| format!("there is no scrape class `{name}`").into())
}

/// Whether a class wants the labels of Nodes.
pub(super) fn attaches_node(class: Option<&Value>) -> bool {
    class
        .and_then(|class| class.get("attachMetadata"))
        .and_then(|attach| flag(attach, "node"))
        == Some(true)
}

/// The class's rules for targets, its credentials and formats where the resource says none.
pub(super) fn apply(class: Option<&Value>, job: &mut JobWriter, auth: &Auth<'_>) -> Result<(), Refusal> {
    let Some(class) = class else {
        return Ok(());
    };
    job.relabelings(list(class, "relabelings"))?;
    if let Some(tls) = class
        .get("tlsConfig")
        .filter(|_| !job.keys.contains_key("tls_config"))
    {
        let tls = auth.tls(tls)?;
        job.put("tls_config", tls);
    }
    let ways = [
        "authorization",
        "basic_auth",
        "oauth2",
        "bearer_token",
        "bearer_token_file",
    ];
    let has_way = ways.iter().any(|way| job.keys.contains_key(*way));
    if let Some(authorization) = class.get("authorization").filter(|_| !has_way) {
        let authorization = auth.authorization(authorization)?;
        job.put("authorization", authorization);
    }
    if !job.keys.contains_key("fallback_scrape_protocol") {
        job.text("fallback_scrape_protocol", text(class, "fallbackScrapeProtocol"));
    }
    Ok(())
}

/// The class's rules for samples, which come before the resource's.
pub(super) fn metric_relabelings(class: Option<&Value>, job: &mut JobWriter) -> Result<(), Refusal> {
    class.map_or(Ok(()), |class| {
        job.metric_relabelings(list(class, "metricRelabelings"))
    })
}
