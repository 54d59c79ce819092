use opentelemetry_proto::tonic::metrics::v1::HistogramDataPoint;

use super::*;

fn series<'a>(kind: Kind, datum: Datum<'a>) -> Series<'a> {
    Series {
        name: "m",
        kind,
        help: "",
        labels: Labels::from([("job".to_owned(), "j".to_owned())]),
        datum,
        delta: false,
        time: 7,
        start: 0,
        exemplars: &[],
    }
}

fn encoded(series: &Series<'_>) -> Vec<model::TimeSeries> {
    let mut all = Vec::new();
    put(series, &mut |bytes| {
        all.push(model::TimeSeries::decode(bytes.as_slice()).unwrap())
    });
    all
}

fn show(series: &model::TimeSeries) -> String {
    let labels: Vec<String> = series
        .labels
        .iter()
        .map(|l| format!("{}={}", l.name, l.value))
        .collect();
    format!("{} {}", labels.join(","), series.samples[0].value)
}

#[test]
fn a_histogram_is_its_series_with_sorted_labels() {
    let point = HistogramDataPoint {
        count: 4,
        sum: Some(9.5),
        explicit_bounds: vec![0.5],
        bucket_counts: vec![1, 3],
        ..HistogramDataPoint::default()
    };
    let all: Vec<String> = encoded(&series(Kind::Histogram, Datum::Histogram(&point)))
        .iter()
        .map(show)
        .collect();
    assert_eq!(
        all,
        [
            "__name__=m_bucket,job=j,le=0.5 1",
            "__name__=m_bucket,job=j,le=+Inf 4",
            "__name__=m_sum,job=j 9.5",
            "__name__=m_count,job=j 4",
        ]
    );
}

#[test]
fn an_end_is_prometheus_own_nan() {
    let all = encoded(&series(Kind::Gauge, Datum::Ended));
    assert_eq!(all[0].samples[0].value.to_bits(), STALE);
}

#[test]
fn dense_buckets_become_spans() {
    let buckets = Buckets {
        offset: -3,
        bucket_counts: vec![1, 2, 0, 0, 0, 2],
    };
    let (found, deltas) = spans(Some(&buckets), 0);
    let found: Vec<_> = found.iter().map(|s| (s.offset, s.length)).collect();
    assert_eq!(found, [(-2, 2), (3, 1)]);
    assert_eq!(deltas, [1, 1, 0]);
}
