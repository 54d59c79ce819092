use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};

use super::*;

fn sampler(change: impl FnOnce(&mut config::ProbabilisticSampler), logs: bool) -> Sampler {
    let mut config = config::ProbabilisticSampler::default();
    change(&mut config);
    Sampler::new(&config, logs)
}

fn pair(key: &str, value: Variant) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn span(number: u64) -> Span {
    let spread = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    Span {
        trace_id: [number.to_be_bytes(), spread.to_be_bytes()].concat(),
        span_id: vec![1; 8],
        name: "n".into(),
        ..Span::default()
    }
}

fn spans(sampler: &Sampler, spans: Vec<Span>) -> Vec<Span> {
    let items = spans.len();
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    let batch = Batch::encode(Signal::Traces, &request, items);
    let Some(sifted) = wire::sift(batch, |item| sampler.span(item)) else {
        return Vec::new();
    };
    let scanned = Batch::scan(Signal::Traces, sifted.payload.clone()).unwrap();
    assert_eq!(scanned.items, sifted.items);
    let decoded: ExportTraceServiceRequest = sifted.decode().unwrap();
    let scopes = decoded.resource_spans.into_iter().flat_map(|r| r.scope_spans);
    scopes.flat_map(|s| s.spans).collect()
}

fn record(sampler: &Sampler, record: LogRecord) -> Option<LogRecord> {
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![ScopeLogs {
                log_records: vec![record],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    let batch = wire::sift(Batch::encode(Signal::Logs, &request, 1), |item| {
        sampler.record(item)
    })?;
    let mut decoded: ExportLogsServiceRequest = batch.decode().unwrap();
    decoded.resource_logs[0].scope_logs[0].log_records.pop()
}

#[test]
fn keeps_about_the_percentage_in_every_mode() {
    for mode in [
        SamplerMode::HashSeed,
        SamplerMode::Equalizing,
        SamplerMode::Proportional,
    ] {
        let sampler = sampler(
            |config| {
                config.mode = Some(mode);
                config.sampling_percentage = 25.0;
            },
            false,
        );
        let kept = spans(&sampler, (1..=8000).map(span).collect());
        assert!((1800..2200).contains(&kept.len()), "{mode:?}: {}", kept.len());
        let again = spans(&sampler, (1..=8000).map(span).collect());
        assert_eq!(kept, again, "{mode:?} decides alike");
        assert!(kept[0].trace_state.contains("th:c"), "{}", kept[0].trace_state);
    }
}

#[test]
fn none_and_all() {
    for (percentage, expected) in [(0.0, 0), (100.0, 50), (150.0, 50)] {
        for seed in [0, 7] {
            let sampler = sampler(
                |config| {
                    config.sampling_percentage = percentage;
                    config.hash_seed = seed;
                },
                false,
            );
            let kept = spans(&sampler, (1..=50).map(span).collect());
            assert_eq!(kept.len(), expected, "{percentage} with seed {seed}");
        }
    }
}

#[test]
fn a_priority_decides_before_the_percentage() {
    let none = sampler(|_| (), false);
    let all = sampler(|config| config.sampling_percentage = 100.0, false);
    let with = |value: Variant| {
        let mut span = span(1);
        span.attributes.push(pair("sampling.priority", value));
        span
    };
    assert_eq!(spans(&none, vec![with(Variant::IntValue(1)), span(2)]).len(), 1);
    assert_eq!(spans(&all, vec![with(Variant::IntValue(0)), span(2)]).len(), 1);
    assert_eq!(spans(&all, vec![with(Variant::StringValue("0".into()))]).len(), 0);
    assert_eq!(spans(&none, vec![with(Variant::DoubleValue(0.5))]).len(), 1);
}

#[test]
fn a_share_is_of_what_comes_and_an_equal_one_is_of_all() {
    let of = |mode| {
        sampler(
            |config| {
                config.mode = Some(mode);
                config.sampling_percentage = 50.0;
            },
            false,
        )
    };
    let mut sampled = span(1);
    sampled.trace_state = "ot=th:8;rv:ffffffffffffff".into();
    let kept = spans(&of(SamplerMode::Proportional), vec![sampled.clone()]);
    assert_eq!(kept[0].trace_state, "ot=rv:ffffffffffffff;th:c");
    let kept = spans(&of(SamplerMode::Equalizing), vec![sampled.clone()]);
    assert_eq!(kept[0].trace_state, "ot=rv:ffffffffffffff;th:8");
    sampled.trace_state = "ot=th:8;rv:00000000000000".into();
    assert!(
        spans(&of(SamplerMode::Proportional), vec![sampled]).is_empty(),
        "its threshold is a lie"
    );
}

#[test]
fn what_cannot_be_decided_goes_unless_told_otherwise() {
    let nameless = Span::default();
    let closed = sampler(|config| config.sampling_percentage = 99.0, false);
    assert!(spans(&closed, vec![nameless.clone()]).is_empty());
    let open = sampler(
        |config| {
            config.sampling_percentage = 1.0;
            config.fail_closed = false;
        },
        false,
    );
    assert_eq!(spans(&open, vec![nameless]).len(), 1);
}

#[test]
fn log_records_are_sampled_by_an_attribute_and_may_ask_for_more() {
    let by_attribute = sampler(
        |config| {
            config.sampling_percentage = 50.0;
            config.attribute_source = AttributeSource::Record;
            config.from_attribute = "id".into();
        },
        true,
    );
    let with = |id: u32| LogRecord {
        attributes: vec![pair("id", Variant::StringValue(id.to_string()))],
        ..LogRecord::default()
    };
    let kept = (0..1000)
        .filter(|id| record(&by_attribute, with(*id)).is_some())
        .count();
    assert!((400..600).contains(&kept), "{kept}");
    assert!(record(&by_attribute, LogRecord::default()).is_none());
    let asks = sampler(
        |config| {
            config.sampling_priority = "p".into();
            config.mode = Some(SamplerMode::Equalizing);
        },
        true,
    );
    let mut asking = LogRecord {
        trace_id: vec![1; 16],
        ..LogRecord::default()
    };
    assert!(record(&asks, asking.clone()).is_none());
    asking.attributes.push(pair("p", Variant::IntValue(100)));
    let kept = record(&asks, asking).unwrap();
    assert!(
        kept.attributes
            .contains(&pair("sampling.threshold", Variant::StringValue("0".into())))
    );
}
