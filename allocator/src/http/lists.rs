//! Lists of targets as HTTP discovery has them: `[{"targets":["host:port"],"labels":{…}}]`, an element a target.

use karez_allocation::{Allocation, Held};
use karez_scrape::config::labels::ADDRESS;
use serde::Serialize;
use serde_json::ser::{CompactFormatter, Serializer};

/// What a collector has of a job, with the labels before relabelling.
pub(crate) fn of_collector(allocation: &Allocation, job: &str, collector: &str, out: &mut Vec<u8>) {
    out.push(b'[');
    for (number, held) in allocation.held(job, collector).enumerate() {
        if number > 0 {
            out.push(b',');
        }
        target(&held, out);
    }
    out.push(b']');
}

fn target(held: &Held<'_>, out: &mut Vec<u8>) {
    let address = match held.own.get(ADDRESS) {
        "" => held.group.get(ADDRESS),
        own => own,
    };
    out.extend_from_slice(b"{\"targets\":[");
    text(address, out);
    out.extend_from_slice(b"],\"labels\":{");
    let mut first = true;
    merged(held, |name, value| {
        if !std::mem::take(&mut first) {
            out.push(b',');
        }
        text(name, out);
        out.push(b':');
        text(value, out);
    });
    out.extend_from_slice(b"}}");
}

/// Both sets in the order of names; a target's own label counts before its group's.
fn merged(held: &Held<'_>, mut put: impl FnMut(&str, &str)) {
    let (mut group, mut own) = (held.group.iter().peekable(), held.own.iter().peekable());
    loop {
        let next = match (group.peek(), own.peek()) {
            (None, None) => return,
            (Some((a, _)), Some((b, _))) if a < b => group.next(),
            (Some((a, _)), Some((b, _))) => {
                if a == b {
                    group.next();
                }
                own.next()
            }
            (Some(_), None) => group.next(),
            (None, Some(_)) => own.next(),
        };
        if let Some((name, value)) = next {
            put(name, value);
        }
    }
}

/// A text as JSON has it. Nearly all stand there as they are, and a list of a collector is megabytes of them.
pub(crate) fn text(text: &str, out: &mut Vec<u8>) {
    let special = |found, byte: &u8| found | (*byte < 0x20) | (*byte == b'"') | (*byte == b'\\');
    if !text.as_bytes().iter().fold(false, special) {
        out.reserve(text.len() + 2);
        out.push(b'"');
        out.extend_from_slice(text.as_bytes());
        out.push(b'"');
        return;
    }
    // Writing a text to memory does not fail.
    let _ = text.serialize(&mut Serializer::with_formatter(out, CompactFormatter));
}

/// A name as it stands in a path or query.
pub(crate) fn escaped(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect()
}

/// `/jobs`: the jobs that have targets.
pub(crate) fn jobs(allocation: &Allocation) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (number, (job, _)) in allocation.jobs_with_targets().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        text(job, &mut out);
        out.extend_from_slice(b":{\"_link\":");
        text(&format!("/jobs/{}/targets", escaped(job)), &mut out);
        out.push(b'}');
    }
    out.extend_from_slice(b"}\n");
    out
}

/// `/jobs/{job}/targets`: every collector with what it has.
pub(crate) fn of_job(allocation: &Allocation, job: &str) -> Vec<u8> {
    let mut out = vec![b'{'];
    for (number, (collector, ..)) in allocation.collectors().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        text(collector, &mut out);
        out.extend_from_slice(b":{\"_link\":");
        text(&link(job, collector), &mut out);
        out.extend_from_slice(b",\"targets\":");
        of_collector(allocation, job, collector, &mut out);
        out.push(b'}');
    }
    out.extend_from_slice(b"}\n");
    out
}

/// Where a collector's list is.
pub(crate) fn link(job: &str, collector: &str) -> String {
    format!(
        "/jobs/{}/targets?collector_id={}",
        escaped(job),
        escaped(collector)
    )
}

#[cfg(test)]
mod tests {
    use karez_scrape::config::Labels;

    use super::*;

    #[test]
    fn texts_are_written_as_json_has_them() {
        for given in [
            "",
            "plain",
            "Grüße",
            "\"",
            "back\\slash",
            "a\nb",
            "\u{7f}",
            "x\u{1}",
        ] {
            let mut out = Vec::new();
            text(given, &mut out);
            assert_eq!(
                String::from_utf8(out).unwrap(),
                serde_json::to_string(given).unwrap()
            );
        }
    }

    #[test]
    fn a_targets_own_labels_count_first() {
        let held = Held {
            group: &Labels::of([("a", "group"), ("b", "group"), ("__meta_x", "\"")]),
            own: &Labels::of([("__address__", "h:1"), ("b", "own"), ("c", "own")]),
            identity: 1,
        };
        let mut out = Vec::new();
        target(&held, &mut out);
        let expected = r#"{"targets":["h:1"],"labels":{"__address__":"h:1","__meta_x":"\"","a":"group","b":"own","c":"own"}}"#;
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
