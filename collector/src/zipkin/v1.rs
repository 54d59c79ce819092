//! Spans as Zipkin's version 1 has them in JSON: one span of both sides of a call, whose annotations `cs`, `sr` and the
//! like say who is which. They become spans of version 2, one a side.

use serde::Deserialize;
use serde_json::Value;

use super::model::{self, Endpoint};

/// A span.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Span {
    /// 16 or 32 hexadecimal digits.
    pub trace_id: String,
    /// The parent's, if there is one.
    pub parent_id: Option<String>,
    /// 16 hexadecimal digits.
    pub id: String,
    /// What was done.
    pub name: Option<String>,
    /// When it began, in microseconds.
    pub timestamp: Option<u64>,
    /// How long it took, in microseconds.
    pub duration: Option<u64>,
    /// Whether it is to be kept in any case.
    pub debug: Option<bool>,
    /// What happened, and to whom.
    pub annotations: Vec<Annotation>,
    /// What else is known, and by whom.
    pub binary_annotations: Vec<BinaryAnnotation>,
}

/// Something that happened.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Annotation {
    /// When, in microseconds.
    pub timestamp: u64,
    /// What.
    pub value: String,
    /// Who saw it.
    pub endpoint: Option<Endpoint>,
}

/// Something that is known.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct BinaryAnnotation {
    /// Of what.
    pub key: String,
    /// A text, a number or a truth.
    pub value: Value,
    /// Who knows it; for `sa`, `ca` and `ma` whose address this is.
    pub endpoint: Option<Endpoint>,
}

/// A side of a call, with the annotations of its beginning and its end, and the key of the other side's address.
struct Side {
    kind: &'static str,
    begins: &'static str,
    ends: &'static str,
    other: &'static str,
}

const SIDES: [Side; 4] = [
    Side {
        kind: "CLIENT",
        begins: "cs",
        ends: "cr",
        other: "sa",
    },
    Side {
        kind: "SERVER",
        begins: "sr",
        ends: "ss",
        other: "ca",
    },
    Side {
        kind: "PRODUCER",
        begins: "ms",
        ends: "ws",
        other: "ma",
    },
    Side {
        kind: "CONSUMER",
        begins: "mr",
        ends: "wr",
        other: "ma",
    },
];

impl Side {
    fn tells(&self, annotation: &Annotation) -> bool {
        annotation.value == self.begins || annotation.value == self.ends
    }
}

/// Spans of version 2.
pub fn spans(old: Vec<Span>) -> Vec<model::Span> {
    old.into_iter().flat_map(Span::into_sides).collect()
}

impl Span {
    fn into_sides(self) -> Vec<model::Span> {
        let mut sides: Vec<model::Span> = SIDES.iter().filter_map(|side| self.side(side)).collect();
        if sides.is_empty() {
            sides.push(self.local());
        }
        // What the span says of its time holds for the side that began it.
        let shared = sides.len() > 1;
        if let Some(first) = sides.first_mut() {
            first.timestamp = self.timestamp.or(first.timestamp);
            first.duration = self.duration.or(first.duration);
        }
        for side in sides.iter_mut().skip(1) {
            side.shared = shared.then_some(true);
        }
        for annotation in &self.annotations {
            if !SIDES.iter().any(|side| side.tells(annotation)) {
                let of = place(&sides, annotation.endpoint.as_ref());
                sides[of].annotations.push(model::Annotation {
                    timestamp: annotation.timestamp,
                    value: annotation.value.clone(),
                });
            }
        }
        for known in &self.binary_annotations {
            if !is_address(known) {
                let of = place(&sides, known.endpoint.as_ref());
                sides[of].tags.insert(known.key.clone(), text(&known.value));
            }
        }
        sides
    }

    fn bare(&self) -> model::Span {
        model::Span {
            trace_id: self.trace_id.clone(),
            parent_id: self.parent_id.clone(),
            id: self.id.clone(),
            name: self.name.clone(),
            debug: self.debug,
            ..model::Span::default()
        }
    }

    /// A side, if anything tells of it.
    fn side(&self, side: &Side) -> Option<model::Span> {
        let of = |value: &str| self.annotations.iter().find(|it| it.value == value);
        let (begins, ends) = (of(side.begins), of(side.ends));
        let first = begins.or(ends)?;
        let took = begins
            .zip(ends)
            .map(|(begins, ends)| ends.timestamp.saturating_sub(begins.timestamp));
        Some(model::Span {
            kind: Some(side.kind.to_owned()),
            timestamp: Some(first.timestamp),
            duration: took.filter(|took| *took > 0),
            local_endpoint: first.endpoint.clone(),
            remote_endpoint: self.address(side.other),
            ..self.bare()
        })
    }

    /// A span that is no call.
    fn local(&self) -> model::Span {
        let endpoints = self.annotations.iter().map(|it| &it.endpoint);
        let known = self.binary_annotations.iter().filter(|it| !is_address(it));
        let mut endpoints = endpoints.chain(known.map(|it| &it.endpoint));
        // One that says only where it went is a call all the same.
        let server = self.address("sa");
        model::Span {
            kind: server.as_ref().map(|_| "CLIENT".to_owned()),
            local_endpoint: endpoints.find_map(Clone::clone),
            remote_endpoint: server.or_else(|| self.address("ca")),
            ..self.bare()
        }
    }

    fn address(&self, key: &str) -> Option<Endpoint> {
        let mut addresses = self.binary_annotations.iter().filter(|it| is_address(it));
        addresses.find(|it| it.key == key)?.endpoint.clone()
    }
}

/// Whether it says where the other side is.
fn is_address(known: &BinaryAnnotation) -> bool {
    matches!(known.key.as_str(), "sa" | "ca" | "ma") && text(&known.value) == "true"
}

/// The side that an endpoint is of; the first if it is of none.
fn place(sides: &[model::Span], of: Option<&Endpoint>) -> usize {
    let name = |endpoint: Option<&Endpoint>| endpoint.and_then(|it| it.service_name.clone());
    let Some(wanted) = name(of) else { return 0 };
    let found = sides
        .iter()
        .position(|side| name(side.local_endpoint.as_ref()).as_ref() == Some(&wanted));
    found.unwrap_or(0)
}

fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        Value::Null => String::new(),
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    fn tags(of: &[(&str, &str)]) -> BTreeMap<String, String> {
        of.iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    fn read(json: &str) -> Vec<model::Span> {
        spans(serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_span_of_both_sides_becomes_two() {
        let both = read(
            r#"[{"traceId": "1", "id": "2", "parentId": "3", "name": "get", "timestamp": 10, "duration": 40, "annotations": [
                {"timestamp": 10, "value": "cs", "endpoint": {"serviceName": "web", "ipv4": "10.0.0.1", "port": 80}},
                {"timestamp": 20, "value": "sr", "endpoint": {"serviceName": "api"}},
                {"timestamp": 25, "value": "cache miss", "endpoint": {"serviceName": "api"}},
                {"timestamp": 30, "value": "ss", "endpoint": {"serviceName": "api"}},
                {"timestamp": 50, "value": "cr", "endpoint": {"serviceName": "web"}}],
              "binaryAnnotations": [
                {"key": "http.path", "value": "/a", "endpoint": {"serviceName": "web"}},
                {"key": "rows", "value": 7, "endpoint": {"serviceName": "api"}},
                {"key": "ca", "value": true, "endpoint": {"serviceName": "web", "ipv4": "10.0.0.9"}}]}]"#,
        );
        let [client, server] = &both[..] else {
            panic!("{both:?}")
        };
        assert_eq!(
            (client.kind.as_deref(), client.timestamp, client.duration),
            (Some("CLIENT"), Some(10), Some(40))
        );
        assert_eq!(
            (server.kind.as_deref(), server.timestamp, server.duration),
            (Some("SERVER"), Some(20), Some(10))
        );
        assert_eq!((client.shared, server.shared), (None, Some(true)));
        assert_eq!(client.tags, tags(&[("http.path", "/a")]));
        assert_eq!(server.tags, tags(&[("rows", "7")]));
        assert_eq!(server.annotations[0].value, "cache miss");
        assert!(client.annotations.is_empty());
        let name = |endpoint: &Option<Endpoint>| endpoint.as_ref().unwrap().service_name.clone().unwrap();
        assert_eq!(
            (
                name(&client.local_endpoint).as_str(),
                name(&server.remote_endpoint).as_str()
            ),
            ("web", "web")
        );
        assert_eq!(
            server.remote_endpoint.as_ref().unwrap().ipv4.as_deref(),
            Some("10.0.0.9")
        );
    }

    #[test]
    fn local_spans_and_calls_of_one_side_stay_one() {
        let local = read(
            r#"[{"traceId": "1", "id": "2", "binaryAnnotations": [{"key": "lc", "value": "job", "endpoint": {"serviceName": "batch"}}]}]"#,
        );
        assert_eq!(local.len(), 1);
        assert_eq!(
            (local[0].kind.as_deref(), &local[0].tags),
            (None, &tags(&[("lc", "job")]))
        );
        assert_eq!(
            local[0].local_endpoint.as_ref().unwrap().service_name.as_deref(),
            Some("batch")
        );
        let client = read(
            r#"[{"traceId": "1", "id": "2", "binaryAnnotations": [{"key": "sa", "value": true, "endpoint": {"serviceName": "db"}}]}]"#,
        );
        assert_eq!(client[0].kind.as_deref(), Some("CLIENT"));
        assert!(client[0].tags.is_empty() && client[0].remote_endpoint.is_some());
        let consumer =
            read(r#"[{"traceId": "1", "id": "2", "annotations": [{"timestamp": 5, "value": "mr"}]}]"#);
        assert_eq!(
            (consumer[0].kind.as_deref(), consumer[0].timestamp),
            (Some("CONSUMER"), Some(5))
        );
        assert!(read(r#"[{"traceId": "1", "id": "2"}]"#)[0].kind.is_none());
    }
}
