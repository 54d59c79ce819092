//! What this machine's environment says about proxies, and what a server's says about time.

use jiff::Timestamp;

use super::{Finding, Outcome};

/// Says which proxy is set, and whether it is for this host.
pub(super) fn proxy(host: &str, findings: &mut Vec<Finding>) {
    let variable = |names: [&'static str; 2]| {
        names.into_iter().find_map(|name| {
            Some((
                name,
                std::env::var(name)
                    .ok()
                    .filter(|value| !value.trim().is_empty())?,
            ))
        })
    };
    let set = variable(["HTTPS_PROXY", "https_proxy"]).or_else(|| variable(["ALL_PROXY", "all_proxy"]));
    let Some((name, value)) = set else {
        return findings.push(Finding::ok("proxy", "none is set (HTTPS_PROXY)"));
    };
    if let Some((no, bypassed)) = variable(["NO_PROXY", "no_proxy"])
        && is_bypassed(host, &bypassed)
    {
        return findings.push(Finding::ok(
            "proxy",
            format!("{name} is set, and {no} excepts {host}"),
        ));
    }
    let shown = without_credentials(&value);
    let found = format!("{name} is {shown}");
    findings.push(
        if value.starts_with("http://") || value.starts_with("https://") || !value.contains("://") {
            Finding::new(
                "proxy",
                Outcome::Ok,
                format!("{found}: for TCP; QUIC goes directly"),
                "",
            )
        } else {
            let mend = "use an HTTP proxy that allows CONNECT: http://host:port or https://host:port";
            Finding::new("proxy", Outcome::Warning, found, mend)
        },
    );
}

/// Whether a host is on a list as `NO_PROXY` has it: names with their subdomains, addresses, `*`.
pub fn is_bypassed(host: &str, list: &str) -> bool {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let mut entries = list.split(',').map(|entry| entry.trim().to_ascii_lowercase());
    entries.any(|entry| {
        let name = entry.trim_start_matches('.');
        !name.is_empty() && (entry == "*" || host == name || host.ends_with(&format!(".{name}")))
    })
}

fn without_credentials(url: &str) -> String {
    let (scheme, rest) = url
        .split_once("://")
        .map_or(("", url), |(scheme, rest)| (scheme, rest));
    let host = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    let host: String = host.chars().filter(|c| !c.is_control()).take(200).collect();
    if scheme.is_empty() {
        host
    } else {
        format!("{scheme}://{host}")
    }
}

/// The time that an HTTP answer's head says.
pub fn http_date(head: &[u8]) -> Option<Timestamp> {
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines().filter_map(|line| line.split_once(':'));
    let (_, date) = lines.find(|(name, _)| name.eq_ignore_ascii_case("date"))?;
    let read = jiff::fmt::rfc2822::DateTimeParser::new().parse_timestamp(date.trim());
    read.ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn exceptions_hold_for_names_below_them() {
        assert!(is_bypassed("a.example.com", "x, .example.com"));
        assert!(is_bypassed("example.com", "example.com"));
        assert!(is_bypassed("anything", "*"));
        assert!(!is_bypassed("badexample.com", "example.com"));
        assert!(!is_bypassed("a", " , "));
    }

    #[test]
    fn credentials_of_a_proxy_are_not_shown() {
        assert_eq!(
            without_credentials("http://me:secret@proxy:3128"),
            "http://proxy:3128"
        );
        assert_eq!(without_credentials("proxy:3128"), "proxy:3128");
    }

    #[test]
    fn a_head_says_the_time() {
        let head = b"HTTP/1.1 405 Method Not Allowed\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n";
        assert_eq!(http_date(head).unwrap().to_string(), "1994-11-06T08:49:37Z");
        assert_eq!(http_date(b"HTTP/1.1 200 OK\r\n"), None);
    }

    proptest! {
        #[test]
        fn foreign_heads_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), text in "\\PC{0,60}") {
            let _ = http_date(&bytes);
            let _ = http_date(format!("date:{text}").as_bytes());
            let _ = is_bypassed(&text, &text);
        }
    }
}
