//! Protobuf: `io.prometheus.client.MetricFamily`, each with its length before it. A family at a time is decoded, and
//! given on as the samples that the text formats would have had, or as native histograms.

use prost::Message;

use crate::{Error, Exemplar, Histogram, Kind, Meta, Sample, Sink, write};

/// A family is not larger than this.
const MAX_FAMILY: usize = 64 << 20;
/// Buckets of a native histogram; a length is only a number and would cost nothing to send.
const MAX_BUCKETS: usize = 10_000;

/// The messages, as Prometheus' client model has them.
#[allow(missing_docs)]
pub mod model {
    #[derive(Clone, PartialEq, prost::Message)]
    pub struct LabelPair {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub value: String,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Timestamp {
        #[prost(int64, tag = "1")]
        pub seconds: i64,
        #[prost(int32, tag = "2")]
        pub nanos: i32,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Gauge {
        #[prost(double, tag = "1")]
        pub value: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Counter {
        #[prost(double, tag = "1")]
        pub value: f64,
        #[prost(message, optional, tag = "2")]
        pub exemplar: Option<Exemplar>,
        #[prost(message, optional, tag = "3")]
        pub created: Option<Timestamp>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Quantile {
        #[prost(double, tag = "1")]
        pub quantile: f64,
        #[prost(double, tag = "2")]
        pub value: f64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Summary {
        #[prost(uint64, tag = "1")]
        pub count: u64,
        #[prost(double, tag = "2")]
        pub sum: f64,
        #[prost(message, repeated, tag = "3")]
        pub quantiles: Vec<Quantile>,
        #[prost(message, optional, tag = "4")]
        pub created: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Exemplar {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<LabelPair>,
        #[prost(double, tag = "2")]
        pub value: f64,
        #[prost(message, optional, tag = "3")]
        pub timestamp: Option<Timestamp>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Bucket {
        #[prost(uint64, tag = "1")]
        pub cumulative_count: u64,
        #[prost(double, tag = "4")]
        pub cumulative_count_float: f64,
        #[prost(double, tag = "2")]
        pub upper_bound: f64,
        #[prost(message, optional, tag = "3")]
        pub exemplar: Option<Exemplar>,
    }

    #[derive(Clone, Copy, PartialEq, prost::Message)]
    pub struct Span {
        #[prost(sint32, tag = "1")]
        pub offset: i32,
        #[prost(uint32, tag = "2")]
        pub length: u32,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Histogram {
        #[prost(uint64, tag = "1")]
        pub count: u64,
        #[prost(double, tag = "4")]
        pub count_float: f64,
        #[prost(double, tag = "2")]
        pub sum: f64,
        #[prost(message, repeated, tag = "3")]
        pub buckets: Vec<Bucket>,
        #[prost(message, optional, tag = "15")]
        pub created: Option<Timestamp>,
        #[prost(sint32, optional, tag = "5")]
        pub schema: Option<i32>,
        #[prost(double, optional, tag = "6")]
        pub zero_threshold: Option<f64>,
        #[prost(uint64, optional, tag = "7")]
        pub zero_count: Option<u64>,
        #[prost(double, optional, tag = "8")]
        pub zero_count_float: Option<f64>,
        #[prost(message, repeated, tag = "9")]
        pub negative_spans: Vec<Span>,
        #[prost(sint64, repeated, tag = "10")]
        pub negative_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "11")]
        pub negative_counts: Vec<f64>,
        #[prost(message, repeated, tag = "12")]
        pub positive_spans: Vec<Span>,
        #[prost(sint64, repeated, tag = "13")]
        pub positive_deltas: Vec<i64>,
        #[prost(double, repeated, tag = "14")]
        pub positive_counts: Vec<f64>,
        #[prost(message, repeated, tag = "16")]
        pub exemplars: Vec<Exemplar>,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct Metric {
        #[prost(message, repeated, tag = "1")]
        pub labels: Vec<LabelPair>,
        #[prost(message, optional, tag = "2")]
        pub gauge: Option<Gauge>,
        #[prost(message, optional, tag = "3")]
        pub counter: Option<Counter>,
        #[prost(message, optional, tag = "4")]
        pub summary: Option<Summary>,
        #[prost(message, optional, tag = "5")]
        pub untyped: Option<Gauge>,
        #[prost(message, optional, tag = "7")]
        pub histogram: Option<Histogram>,
        #[prost(int64, tag = "6")]
        pub timestamp_ms: i64,
    }

    #[derive(Clone, PartialEq, prost::Message)]
    pub struct MetricFamily {
        #[prost(string, tag = "1")]
        pub name: String,
        #[prost(string, tag = "2")]
        pub help: String,
        #[prost(int32, tag = "3")]
        pub kind: i32,
        #[prost(message, repeated, tag = "4")]
        pub metrics: Vec<Metric>,
        #[prost(string, tag = "5")]
        pub unit: String,
    }
}

/// How histograms are read.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Native histograms are given on.
    pub native: bool,
    /// Their classic buckets, too.
    pub classic_too: bool,
}

/// Reads a body.
pub fn parse<S: Sink>(mut body: &[u8], options: Options, sink: &mut S) -> Result<(), Error<S::Stop>> {
    let wrong = |error: prost::DecodeError| Error::Protobuf(error.to_string());
    while !body.is_empty() {
        let length = prost::decode_length_delimiter(&mut body).map_err(wrong)?;
        if length > body.len().min(MAX_FAMILY) {
            return Err(Error::Protobuf("a family is cut off or too large".to_owned()));
        }
        let (family, rest) = body.split_at(length);
        body = rest;
        let family = model::MetricFamily::decode(family).map_err(wrong)?;
        Reader {
            family: &family,
            options,
            series: String::new(),
        }
        .read(sink)?;
    }
    Ok(())
}

fn milliseconds(timestamp: &model::Timestamp) -> i64 {
    timestamp
        .seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(timestamp.nanos) / 1_000_000)
}

struct Reader<'a> {
    family: &'a model::MetricFamily,
    options: Options,
    series: String,
}

impl Reader<'_> {
    fn read<S: Sink>(&mut self, sink: &mut S) -> Result<(), Error<S::Stop>> {
        let family = self.family;
        let kind = match family.kind {
            0 => Kind::Counter,
            1 => Kind::Gauge,
            2 => Kind::Summary,
            4 => Kind::Histogram,
            5 => Kind::GaugeHistogram,
            _ => Kind::Unknown,
        };
        let metas = [
            Some(Meta::Kind(kind)),
            Some(Meta::Help(&family.help)).filter(|_| !family.help.is_empty()),
            Some(Meta::Unit(&family.unit)).filter(|_| !family.unit.is_empty()),
        ];
        for meta in metas.into_iter().flatten() {
            sink.meta(&family.name, meta).map_err(Error::Stopped)?;
        }
        for metric in &family.metrics {
            self.metric(metric, kind, sink)?;
        }
        Ok(())
    }

    fn metric<S: Sink>(
        &mut self,
        metric: &model::Metric,
        kind: Kind,
        sink: &mut S,
    ) -> Result<(), Error<S::Stop>> {
        if let Some(counter) = &metric.counter {
            let (value, created) = (counter.value, counter.created.as_ref());
            return self.sample(metric, "", None, value, counter.exemplar.as_ref(), created, sink);
        }
        if let Some(single) = metric.gauge.or(metric.untyped) {
            return self.sample(metric, "", None, single.value, None, None, sink);
        }
        if let Some(summary) = &metric.summary {
            let created = summary.created.as_ref();
            for q in &summary.quantiles {
                let mut text = String::new();
                write::value(&mut text, q.quantile);
                let label = Some(("quantile", text.as_str()));
                self.sample(metric, "", label, q.value, None, created, sink)?;
            }
            self.sample(metric, "_sum", None, summary.sum, None, created, sink)?;
            return self.sample(metric, "_count", None, summary.count as f64, None, created, sink);
        }
        let Some(histogram) = &metric.histogram else {
            return Ok(());
        };
        let native = self.options.native && is_native(histogram);
        if native {
            self.native(metric, histogram, kind, sink)?;
        }
        if !native || (self.options.classic_too && !histogram.buckets.is_empty()) {
            self.classic(metric, histogram, sink)?;
        }
        Ok(())
    }

    fn classic<S: Sink>(
        &mut self,
        metric: &model::Metric,
        histogram: &model::Histogram,
        sink: &mut S,
    ) -> Result<(), Error<S::Stop>> {
        let created = histogram.created.as_ref();
        let count = count_of(histogram.count, histogram.count_float);
        let mut infinite = false;
        for bucket in &histogram.buckets {
            infinite |= bucket.upper_bound == f64::INFINITY;
            let mut text = String::new();
            write::value(&mut text, bucket.upper_bound);
            let value = count_of(bucket.cumulative_count, bucket.cumulative_count_float);
            let label = Some(("le", text.as_str()));
            self.sample(
                metric,
                "_bucket",
                label,
                value,
                bucket.exemplar.as_ref(),
                created,
                sink,
            )?;
        }
        if !infinite {
            self.sample(
                metric,
                "_bucket",
                Some(("le", "+Inf")),
                count,
                None,
                created,
                sink,
            )?;
        }
        self.sample(metric, "_sum", None, histogram.sum, None, created, sink)?;
        self.sample(metric, "_count", None, count, None, created, sink)
    }

    // What a sample is made of; a type of its own would only be taken apart again.
    #[allow(clippy::too_many_arguments)]
    fn sample<S: Sink>(
        &mut self,
        metric: &model::Metric,
        suffix: &str,
        label: Option<(&str, &str)>,
        value: f64,
        exemplar: Option<&model::Exemplar>,
        created: Option<&model::Timestamp>,
        sink: &mut S,
    ) -> Result<(), Error<S::Stop>> {
        self.series.clear();
        let name = format!("{}{suffix}", self.family.name);
        let labels = metric.labels.iter().map(|l| (l.name.as_str(), l.value.as_str()));
        write::series(&mut self.series, &name, labels.chain(label));
        let text = exemplar.map(exemplar_labels);
        let sample = Sample {
            series: &self.series,
            value,
            timestamp: Some(metric.timestamp_ms).filter(|t| *t != 0),
            exemplar: exemplar
                .zip(text.as_deref())
                .map(|(e, labels)| example(e, labels)),
            created: created.map(milliseconds),
        };
        sink.sample(&sample).map_err(Error::Stopped)
    }

    fn native<S: Sink>(
        &mut self,
        metric: &model::Metric,
        h: &model::Histogram,
        kind: Kind,
        sink: &mut S,
    ) -> Result<(), Error<S::Stop>> {
        let positive = buckets(&h.positive_spans, &h.positive_deltas, &h.positive_counts);
        let negative = buckets(&h.negative_spans, &h.negative_deltas, &h.negative_counts);
        let (positive, negative) = positive.zip(negative).ok_or_else(|| {
            Error::Protobuf("the spans of a native histogram do not fit its buckets".to_owned())
        })?;
        self.series.clear();
        let labels = metric.labels.iter().map(|l| (l.name.as_str(), l.value.as_str()));
        write::series(&mut self.series, &self.family.name, labels);
        let texts: Vec<String> = h.exemplars.iter().map(exemplar_labels).collect();
        let exemplars: Vec<Exemplar<'_>> = h
            .exemplars
            .iter()
            .zip(&texts)
            .map(|(e, t)| example(e, t))
            .collect();
        let histogram = Histogram {
            series: &self.series,
            timestamp: Some(metric.timestamp_ms).filter(|t| *t != 0),
            created: h.created.as_ref().map(milliseconds),
            gauge: kind == Kind::GaugeHistogram,
            schema: h.schema.unwrap_or(0),
            count: count_of(h.count, h.count_float),
            sum: h.sum,
            zero_threshold: h.zero_threshold.unwrap_or(0.0),
            zero_count: count_of(h.zero_count.unwrap_or(0), h.zero_count_float.unwrap_or(0.0)),
            positive: &positive,
            negative: &negative,
            exemplars: &exemplars,
        };
        sink.histogram(&histogram).map_err(Error::Stopped)
    }
}

/// As Prometheus tells: any of the fields that only native histograms have.
fn is_native(h: &model::Histogram) -> bool {
    h.schema.is_some()
        && (h.zero_threshold.unwrap_or(0.0) > 0.0
            || h.zero_count.unwrap_or(0) > 0
            || h.zero_count_float.unwrap_or(0.0) > 0.0
            || !h.positive_spans.is_empty()
            || !h.negative_spans.is_empty())
}

fn count_of(whole: u64, float: f64) -> f64 {
    if float > 0.0 { float } else { whole as f64 }
}

fn example<'a>(exemplar: &model::Exemplar, labels: &'a str) -> Exemplar<'a> {
    Exemplar {
        labels,
        value: exemplar.value,
        timestamp: exemplar.timestamp.as_ref().map(milliseconds),
    }
}

fn exemplar_labels(exemplar: &model::Exemplar) -> String {
    let mut text = String::new();
    let labels = exemplar
        .labels
        .iter()
        .map(|l| (l.name.as_str(), l.value.as_str()));
    write::series(&mut text, "", labels);
    text
}

/// Spans and deltas (or counts) → indexes and counts; `None` when they do not fit.
fn buckets(spans: &[model::Span], deltas: &[i64], counts: &[f64]) -> Option<Vec<(i32, f64)>> {
    let mut found = Vec::with_capacity(deltas.len().max(counts.len()));
    let (mut index, mut number, mut whole) = (0i32, 0usize, 0i64);
    for span in spans {
        index = index.checked_add(span.offset)?;
        if found.len() + span.length as usize > MAX_BUCKETS {
            return None;
        }
        for _ in 0..span.length {
            let count = if counts.is_empty() {
                whole = whole.checked_add(*deltas.get(number)?)?;
                whole as f64
            } else {
                *counts.get(number)?
            };
            found.push((index, count));
            number += 1;
            index = index.checked_add(1)?;
        }
    }
    Some(found)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::text::tests::Notes;

    fn body(families: &[model::MetricFamily]) -> Vec<u8> {
        families
            .iter()
            .flat_map(|f| f.encode_length_delimited_to_vec())
            .collect()
    }

    fn label(name: &str, value: &str) -> model::LabelPair {
        model::LabelPair {
            name: name.into(),
            value: value.into(),
        }
    }

    fn histogram() -> model::MetricFamily {
        model::MetricFamily {
            name: "h".into(),
            help: "help".into(),
            kind: 4,
            metrics: vec![model::Metric {
                labels: vec![label("a", "b")],
                histogram: Some(model::Histogram {
                    count: 6,
                    sum: 1.5,
                    buckets: vec![model::Bucket {
                        cumulative_count: 4,
                        upper_bound: 0.5,
                        exemplar: Some(model::Exemplar {
                            labels: vec![label("trace_id", "x")],
                            value: 0.4,
                            timestamp: Some(model::Timestamp {
                                seconds: 7,
                                nanos: 5_000_000,
                            }),
                        }),
                        ..Default::default()
                    }],
                    schema: Some(3),
                    zero_threshold: Some(0.001),
                    zero_count: Some(1),
                    positive_spans: vec![
                        model::Span {
                            offset: -2,
                            length: 2,
                        },
                        model::Span { offset: 3, length: 1 },
                    ],
                    positive_deltas: vec![1, 1, 0],
                    ..Default::default()
                }),
                ..Default::default()
            }],
            ..Default::default()
        }
    }

    #[test]
    fn classic_histograms_are_flattened() {
        let mut notes = Notes::default();
        parse(&body(&[histogram()]), Options::default(), &mut notes).unwrap();
        assert_eq!(
            notes.0,
            [
                "h Kind(Histogram)",
                "h Help(\"help\")",
                "h_bucket{a=\"b\",le=\"0.5\"} = 4 like {trace_id=\"x\"} 0.4 Some(7005)",
                "h_bucket{a=\"b\",le=\"+Inf\"} = 6",
                "h_sum{a=\"b\"} = 1.5",
                "h_count{a=\"b\"} = 6",
            ]
        );
    }

    #[test]
    fn native_histograms_keep_their_buckets() {
        let mut notes = Notes::default();
        let options = Options {
            native: true,
            classic_too: true,
        };
        parse(&body(&[histogram()]), options, &mut notes).unwrap();
        let native = &notes.0[2];
        assert!(
            native.contains("positive: [(-2, 1.0), (-1, 2.0), (3, 2.0)]"),
            "{native}"
        );
        assert_eq!(notes.0.len(), 7);
    }

    proptest! {
        #[test]
        fn takes_any_bytes(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0usize..120) {
            let options = Options { native: true, classic_too: true };
            let _ = parse(&bytes, options, &mut Notes::default());
            let good = body(&[histogram()]);
            let _ = parse(&good[..cut.min(good.len())], options, &mut Notes::default());
        }
    }
}
