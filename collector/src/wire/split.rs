//! A batch in several, each with at most so many items, cut between spans, metrics or log records.

use bytes::Bytes;
use karez_collector_config::Signal;

use super::field::{Field, fields, put_delimited};
use crate::batch::Batch;

/// Splits a batch. A single metric with more data points than the bound stays whole. 0 means no bound.
pub fn split(batch: Batch, most: usize) -> Vec<Batch> {
    if most == 0 || batch.items <= most {
        return vec![batch];
    }
    let mut cut = Cut {
        signal: batch.signal,
        most,
        done: Vec::new(),
        payload: Vec::new(),
        items: 0,
    };
    for resource in fields(&batch.payload).flatten() {
        if resource.number == 1 {
            cut.resource(resource.value);
        }
    }
    cut.close();
    cut.done
}

struct Cut {
    signal: Signal,
    most: usize,
    done: Vec<Batch>,
    payload: Vec<u8>,
    items: usize,
}

impl Cut {
    /// A `ResourceSpans` or its like: its scopes are spread, all else is repeated with each.
    fn resource(&mut self, resource: &[u8]) {
        let (scopes, rest) = divide(resource);
        for scope in &scopes {
            let (items, scope_rest) = divide(scope.value);
            let mut from = 0;
            while from < items.len() || (items.is_empty() && from == 0) {
                let mut taken = Vec::new();
                let mut to = from;
                while to < items.len() {
                    let count = self.count(items[to].value);
                    if self.items > 0 && self.items + count > self.most {
                        break;
                    }
                    self.items += count;
                    taken.extend_from_slice(items[to].whole);
                    to += 1;
                }
                if to > from || items.is_empty() {
                    let mut out = scope_rest.clone();
                    out.append(&mut taken);
                    let mut resource = rest.clone();
                    put_delimited(&mut resource, 2, &out);
                    put_delimited(&mut self.payload, 1, &resource);
                }
                if items.is_empty() {
                    break;
                }
                from = to;
                if from < items.len() {
                    self.close();
                }
            }
        }
    }

    fn count(&self, item: &[u8]) -> usize {
        match self.signal {
            Signal::Traces | Signal::Logs => 1,
            Signal::Metrics => {
                let data = fields(item)
                    .flatten()
                    .filter(|f| matches!(f.number, 5 | 7 | 9 | 10 | 11));
                data.map(|data| fields(data.value).flatten().filter(|f| f.number == 1).count())
                    .sum()
            }
        }
    }

    fn close(&mut self) {
        let payload = std::mem::take(&mut self.payload);
        let items = std::mem::take(&mut self.items);
        if items > 0 {
            self.done.push(Batch {
                signal: self.signal,
                payload: Bytes::from(payload),
                items,
                context: None,
            });
        }
    }
}

/// The fields with number 2, and the bytes of all others.
pub(crate) fn divide(message: &[u8]) -> (Vec<Field<'_>>, Vec<u8>) {
    let (mut twos, mut rest) = (Vec::new(), Vec::new());
    for field in fields(message).flatten() {
        match field.number {
            2 => twos.push(field),
            _ => rest.extend_from_slice(field.whole),
        }
    }
    (twos, rest)
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
    use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn nothing_is_lost_and_no_part_is_too_large(
            shape in proptest::collection::vec(proptest::collection::vec(0usize..7, 0..4), 0..4),
            most in 1usize..9,
        ) {
            let mut id = 0u8;
            let mut span = || {
                id += 1;
                Span { span_id: vec![id; 8], ..Span::default() }
            };
            let request = ExportTraceServiceRequest {
                resource_spans: shape.iter().map(|scopes| ResourceSpans {
                    schema_url: "r".into(),
                    scope_spans: scopes.iter().map(|count| ScopeSpans {
                        schema_url: "s".into(),
                        spans: (0..*count).map(|_| span()).collect(),
                        ..ScopeSpans::default()
                    }).collect(),
                    ..ResourceSpans::default()
                }).collect(),
            };
            let ids = |request: &ExportTraceServiceRequest| -> Vec<Vec<u8>> {
                let scopes = request.resource_spans.iter().flat_map(|r| &r.scope_spans);
                scopes.flat_map(|s| &s.spans).map(|s| s.span_id.clone()).collect()
            };
            let whole = ids(&request);
            let parts = split(Batch::encode(Signal::Traces, &request, whole.len()), most);
            let mut seen = Vec::new();
            for part in &parts {
                let scanned = Batch::scan(Signal::Traces, part.payload.clone()).unwrap();
                prop_assert_eq!(scanned.items, part.items);
                prop_assert!(part.items <= most || whole.len() <= most);
                let decoded: ExportTraceServiceRequest = part.decode().unwrap();
                prop_assert!(decoded.resource_spans.iter().all(|r| r.schema_url == "r"));
                seen.extend(ids(&decoded));
            }
            prop_assert_eq!(seen, whole);
        }
    }
}
