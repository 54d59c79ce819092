//! The original's pages below `/debug/`, and what its JSON endpoints show to browsers: tables of jobs, collectors and
//! targets, bounded.

use std::fmt::Write;

use http::{HeaderMap, StatusCode, header};
use karez_allocation::{Allocation, Held};
use karez_scrape::config::labels::ADDRESS;
use serde_json::Value;

use super::body::{Answer, Media, answer as plain, packed};
use super::lists::escaped as in_query;
use super::page::{STYLE, escaped, guarded};
use super::routes::Query;
use crate::shared::Shared;

/// Rows at once; the rest is counted.
const MAX_ROWS: usize = 1000;

/// Whether it is a browser that asks.
pub(super) fn wants_html(headers: &HeaderMap) -> bool {
    let accepted = headers.get_all(header::ACCEPT).iter();
    let mut accepted = accepted.filter_map(|value| value.to_str().ok());
    accepted.any(|value| value.contains("text/html"))
}

/// A page below `/debug/`; `None` where there is none of that name.
pub(super) fn page(
    shared: &Shared,
    name: &str,
    query: &Query,
    headers: &HeaderMap,
    secure: bool,
) -> Option<Answer> {
    let allocation = shared.read();
    let needed = |key: &str| query.get(key).filter(|value| !value.is_empty());
    let page = match name {
        "targets" => Ok(targets(&allocation)),
        "jobs" => Ok(jobs(&allocation)),
        "scrape_configs" => Ok(scrape_configs(shared, secure)),
        "collector" => {
            needed("collector_id").map_or(Err(missing("collector_id")), |name| collector(&allocation, name))
        }
        "job" => needed("job_id").map_or(Err(missing("job_id")), |name| job(&allocation, name)),
        "target" => {
            needed("target_hash").map_or(Err(missing("target_hash")), |hash| target(&allocation, hash))
        }
        _ => return None,
    };
    Some(match page {
        Ok((title, body)) => framed(&title, &body, headers),
        Err((status, message)) => plain(status, Media::Text, format!("{message}\n")),
    })
}

/// `/scrape_configs` and `/jobs` for browsers.
pub(super) fn shown(shared: &Shared, name: &str, headers: &HeaderMap, secure: bool) -> Answer {
    let (title, body) = match name {
        "jobs" => jobs(&shared.read()),
        _ => scrape_configs(shared, secure),
    };
    framed(&title, &body, headers)
}

/// A title and what is below it, or why there is nothing.
type Page = (String, String);
type Refused = (StatusCode, String);

fn missing(key: &str) -> Refused {
    (StatusCode::BAD_REQUEST, format!("name it: ?{key}=…"))
}

fn unknown(what: &str) -> Refused {
    (StatusCode::NOT_FOUND, format!("there is no such {what}"))
}

fn framed(title: &str, body: &str, headers: &HeaderMap) -> Answer {
    let text = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>{0}</title><style>{STYLE}</style></head><body>\
         <main><h1>{0}</h1><p><a href=\"/\">Overview</a> <a href=\"/debug/jobs\">Jobs</a> <a href=\"/debug/targets\">Targets</a> \
         <a href=\"/debug/scrape_configs\">Scrape configurations</a></p>{body}</main></body></html>\n",
        escaped(title)
    );
    guarded(packed(headers, Media::Html, text.into_bytes()))
}

fn link(page: &str, key: &str, value: &str, shown: &str) -> String {
    format!(
        "<a href=\"/debug/{page}?{key}={}\">{}</a>",
        in_query(value),
        escaped(shown)
    )
}

fn table(heads: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut out = String::from("<table><thead><tr>");
    for head in heads {
        let _ = write!(out, "<th scope=\"col\">{head}</th>");
    }
    out.push_str("</tr></thead><tbody>");
    let mut more = 0usize;
    for (number, cells) in rows.enumerate() {
        if number >= MAX_ROWS {
            more += 1;
            continue;
        }
        out.push_str("<tr>");
        for cell in cells {
            let _ = write!(out, "<td>{cell}</td>");
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    if more > 0 {
        let _ = write!(out, "<p>{more} more.</p>");
    }
    out
}

fn address<'a>(held: &Held<'a>) -> &'a str {
    match held.own.get(ADDRESS) {
        "" => held.group.get(ADDRESS),
        own => own,
    }
}

/// Job, address and collector of a target that somebody has.
fn row(allocation: &Allocation, job: &str, held: &Held<'_>) -> Vec<String> {
    let owner = allocation.owner(held.identity).map_or("", |(owner, _)| owner);
    let hash = held.identity.to_string();
    vec![
        link("job", "job_id", job, job),
        link("target", "target_hash", &hash, address(held)),
        link("collector", "collector_id", owner, owner),
    ]
}

const OF_TARGETS: [&str; 3] = ["Job", "Target", "Collector"];

fn held_by<'a>(
    allocation: &'a Allocation,
    job: &'a str,
    collector: &'a str,
) -> impl Iterator<Item = Vec<String>> + 'a {
    let held = allocation.held(job, collector);
    held.map(move |held| row(allocation, job, &held))
}

fn targets(allocation: &Allocation) -> Page {
    let names: Vec<&str> = allocation.collectors().map(|(name, ..)| name).collect();
    let jobs: Vec<&str> = allocation.jobs_with_targets().map(|(job, _)| job).collect();
    let each = jobs
        .iter()
        .flat_map(|job| names.iter().map(move |name| (*job, *name)));
    let rows = each.flat_map(|(job, name)| held_by(allocation, job, name));
    let shown = table(&OF_TARGETS, rows.take(MAX_ROWS));
    let count = allocation.targets();
    ("Targets".to_owned(), format!("<p>{count} in all.</p>{shown}"))
}

fn jobs(allocation: &Allocation) -> Page {
    let rows = allocation.jobs_with_targets();
    let rows = rows.map(|(job, count)| vec![link("job", "job_id", job, job), count.to_string()]);
    ("Jobs".to_owned(), table(&["Job", "Targets"], rows))
}

fn collector(allocation: &Allocation, name: &str) -> Result<Page, Refused> {
    if !allocation.knows_collector(name) {
        return Err(unknown("collector"));
    }
    let jobs: Vec<&str> = allocation.jobs_with_targets().map(|(job, _)| job).collect();
    let rows = jobs.iter().flat_map(|job| held_by(allocation, job, name));
    Ok((format!("Collector {name}"), table(&OF_TARGETS, rows)))
}

fn job(allocation: &Allocation, name: &str) -> Result<Page, Refused> {
    if !allocation.job_names().any(|job| job == name) {
        return Err(unknown("job"));
    }
    let collectors: Vec<&str> = allocation.collectors().map(|(name, ..)| name).collect();
    let counts = collectors.iter().map(|collector| {
        let (count, _) = allocation.tag(name, collector);
        vec![
            link("collector", "collector_id", collector, collector),
            count.to_string(),
        ]
    });
    let counts = table(&["Collector", "Targets"], counts);
    let rows = collectors
        .iter()
        .flat_map(|collector| held_by(allocation, name, collector));
    let rows = table(&OF_TARGETS, rows.take(MAX_ROWS));
    Ok((format!("Job {name}"), format!("{counts}{rows}")))
}

/// By the number that the pages name it with; `/explain` takes it in hexadecimal.
fn target(allocation: &Allocation, hash: &str) -> Result<Page, Refused> {
    let identity: u64 = hash
        .parse()
        .map_err(|_| (StatusCode::BAD_REQUEST, "target_hash is no number".to_owned()))?;
    let Some((owner, holder)) = allocation.owner(identity) else {
        return Err(unknown("target"));
    };
    let explained = allocation.explain(&format!("{identity:x}"), 1);
    let Some(explanation) = explained.first() else {
        return Err(unknown("target"));
    };
    let labels = explanation.discovered.iter();
    let labels = labels.map(|(name, value)| vec![escaped(name), escaped(value)]);
    let body = format!(
        "<p>Job {}, collector {}, held by {}.</p><pre>{}</pre>{}",
        link("job", "job_id", &explanation.job, &explanation.job),
        link("collector", "collector_id", owner, owner),
        escaped(holder),
        escaped(&crate::explain::render(&explained)),
        table(&["Label", "Value"], labels)
    );
    Ok((format!("Target {hash}"), body))
}

/// As they are given to who asks this way: what holds secrets is not shown over plain HTTP.
fn scrape_configs(shared: &Shared, secure: bool) -> Page {
    let served = shared.served();
    let text = match secure {
        true => &served.secure.text,
        false => &served.plain.text,
    };
    let all: serde_json::Map<String, Value> = serde_json::from_slice(text).unwrap_or_default();
    let rows = all.iter().map(|(job, config)| {
        let text = serde_json::to_string_pretty(config).unwrap_or_default();
        vec![
            link("job", "job_id", job, job),
            format!("<pre>{}</pre>", escaped(&text)),
        ]
    });
    let mut body = table(&["Job", "Configuration"], rows);
    for job in &served.withheld {
        if !secure {
            let _ = write!(
                body,
                "<p class=\"bad\">{} holds secrets and is given over mutual TLS only.</p>",
                escaped(job)
            );
        }
    }
    ("Scrape configurations".to_owned(), body)
}
