//! A small page for people: collectors × jobs, what is refused, and a search that explains.

use std::fmt::Write;

use http::{HeaderMap, HeaderValue, header};
use karez_allocation::{Explanation, Standing, Where};

use super::body::{Answer, Media, packed};
use super::lists::link;
use crate::shared::Shared;

/// Shown at once.
const MAX_FOUND: usize = 50;
/// Jobs in the table; the rest is counted.
const MAX_JOBS: usize = 200;

/// A text in HTML.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

pub(super) const STYLE: &str = "body{font:15px/1.4 system-ui,sans-serif;margin:2rem;color:#1b1b1b;background:#fff}table{border-collapse:collapse;margin:1rem 0}\
th,td{border:1px solid #bbb;padding:.25rem .6rem;text-align:left}td.n{text-align:right}input{font:inherit;width:30rem;max-width:100%}\
.bad{color:#8a0000}pre{white-space:pre-wrap;margin:.2rem 0}a{color:#0645ad}";

/// The page.
pub(crate) fn page(shared: &Shared, asked: &str, headers: &HeaderMap) -> Answer {
    let mut out = String::new();
    let _ = write!(
        out,
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>karez allocator</title><style>{STYLE}</style></head><body>\
         <main><h1>Targets and collectors</h1><form action=\"/\"><label>Find a target: <input name=\"q\" value=\"{}\" \
         placeholder=\"HOST:PORT, an identity, the value of a label\"></label> <button>Find</button></form>\
         <p><a href=\"/debug/jobs\">Jobs</a> <a href=\"/debug/targets\">Targets</a> \
         <a href=\"/debug/scrape_configs\">Scrape configurations</a></p>",
        escaped(asked)
    );
    if !asked.is_empty() {
        found(&shared.read().explain(asked, MAX_FOUND), &mut out);
    }
    table(shared, &mut out);
    let lacking = shared.lacking();
    if !lacking.is_empty() {
        let _ = write!(
            out,
            "<h2>Rights that are missing</h2><pre class=\"bad\">{}</pre>",
            escaped(&lacking)
        );
    }
    let served = shared.served();
    if !served.refused.is_empty() || !served.withheld.is_empty() {
        out.push_str("<h2>Refused</h2><ul>");
        for (what, why) in &served.refused {
            let _ = write!(out, "<li class=\"bad\">{}: {}</li>", escaped(what), escaped(why));
        }
        for job in &served.withheld {
            let why = "holds secrets, which plain HTTP does not give";
            let _ = write!(out, "<li class=\"bad\">job {}: {why}</li>", escaped(job));
        }
        out.push_str("</ul>");
    }
    out.push_str("</main></body></html>\n");
    guarded(packed(headers, Media::Html, out.into_bytes()))
}

/// A page that runs nothing and loads nothing.
pub(super) fn guarded(mut page: Answer) -> Answer {
    let policy =
        HeaderValue::from_static("default-src 'none'; style-src 'unsafe-inline'; form-action 'self'");
    page.headers_mut().insert(header::CONTENT_SECURITY_POLICY, policy);
    page
}

fn table(shared: &Shared, out: &mut String) {
    let allocation = shared.read();
    let jobs: Vec<(&str, u64)> = allocation.jobs_with_targets().collect();
    let collectors: Vec<_> = allocation.collectors().collect();
    let _ = write!(
        out,
        "<p>{} targets of {} jobs on {} collectors by <code>{}</code>; {} with nobody, {} changing hands.</p>",
        allocation.targets(),
        jobs.len(),
        collectors.len(),
        allocation.settings().strategy,
        allocation.unassigned(),
        allocation.in_transit(),
    );
    out.push_str("<table><thead><tr><th scope=\"col\">Collector</th><th scope=\"col\">Targets</th><th scope=\"col\">Samples</th>");
    for (job, targets) in jobs.iter().take(MAX_JOBS) {
        let _ = write!(out, "<th scope=\"col\">{} ({targets})</th>", escaped(job));
    }
    out.push_str("</tr></thead><tbody>");
    for (name, node, standing, targets, load) in collectors {
        let mut place = if node.is_empty() {
            String::new()
        } else {
            format!(" on {}", escaped(node))
        };
        if standing == Standing::Leaving {
            place.push_str(", leaving");
        }
        let _ = write!(
            out,
            "<tr><th scope=\"row\">{}{place}</th><td class=\"n\">{targets}</td><td class=\"n\">{load}</td>",
            escaped(name)
        );
        for (job, _) in jobs.iter().take(MAX_JOBS) {
            let (count, _) = allocation.tag(job, name);
            let _ = write!(
                out,
                "<td class=\"n\"><a href=\"{}\">{count}</a></td>",
                escaped(&link(job, name))
            );
        }
        out.push_str("</tr>");
    }
    out.push_str("</tbody></table>");
    if jobs.len() > MAX_JOBS {
        let _ = write!(
            out,
            "<p>{} more jobs: <a href=\"/jobs\">/jobs</a></p>",
            jobs.len() - MAX_JOBS
        );
    }
}

fn found(explained: &[Explanation], out: &mut String) {
    let _ = write!(out, "<h2>Found: {}</h2>", explained.len());
    for explanation in explained {
        let text = crate::explain::render(std::slice::from_ref(explanation));
        let class = match explanation.outcome {
            Where::Kept { .. } => "",
            Where::Dropped { .. } | Where::Wrong { .. } => " class=\"bad\"",
        };
        let _ = write!(out, "<pre{class}>{}</pre>", escaped(&text));
    }
}

#[cfg(test)]
mod tests {
    use super::escaped;

    #[test]
    fn names_are_escaped() {
        assert_eq!(
            escaped("<a href='x'>&\""),
            "&lt;a href=&#39;x&#39;&gt;&amp;&quot;"
        );
    }
}
