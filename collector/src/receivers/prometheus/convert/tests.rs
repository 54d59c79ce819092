use std::time::Duration;

use karez_document::{Origin, yaml};
use karez_exposition::text::{self, Format};
use karez_scrape::config::document::{Options, read_one};
use karez_scrape::config::{Assembler, Fate, Group, Labels};
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{Metric, NumberDataPoint, number_data_point};

use super::*;
use crate::batch::{Batch, Signal};
use crate::prometheus::series;

const REPORT: Report = Report {
    up: true,
    duration: Duration::from_millis(250),
    body: 10,
    extra: false,
};

fn conversion(yaml: &str) -> Conversion {
    let node = yaml::parse(yaml, &Origin::file("p.yaml")).unwrap().remove(0);
    let mut said = Vec::new();
    let config = read_one(&node, "", Options::default(), &mut said).unwrap();
    assert_eq!(said, []);
    let address = Labels::of([("__address__", "host.example:9100"), ("env", "prod")]);
    let Fate::Kept(target) = Assembler::new(&config).assemble(&Group::default(), &address) else {
        panic!("the target is kept");
    };
    Conversion::new(Arc::new(config), target)
}

/// A scrape of a body; the scan must find in the batch what it says it holds.
fn scrape(conversion: &mut Conversion, now: i64, format: Format, body: &str) -> ExportMetricsServiceRequest {
    let mut scrape = conversion.scrape(now);
    if format == Format::OpenMetrics {
        scrape.openmetrics();
    }
    let parsed = text::parse(body, format, &mut scrape);
    if parsed.is_err() {
        scrape.fail();
    }
    let report = Report {
        up: parsed.is_ok(),
        ..REPORT
    };
    decoded(&scrape.finish(&report))
}

fn decoded(batch: &Batch) -> ExportMetricsServiceRequest {
    let scanned = Batch::scan(Signal::Metrics, batch.payload.clone()).expect("OTLP");
    assert_eq!(scanned.items, batch.items);
    batch.decode().expect("OTLP")
}

fn attributes(attributes: &[KeyValue]) -> String {
    let mut pairs: Vec<String> = attributes
        .iter()
        .map(|a| {
            format!(
                "{}={}",
                a.key,
                a.value.as_ref().map(series::text).unwrap_or_default()
            )
        })
        .collect();
    pairs.sort();
    pairs.join(",")
}

fn number(point: &NumberDataPoint) -> String {
    let value = match point.value {
        Some(number_data_point::Value::AsDouble(value)) => value.to_string(),
        _ => "none".to_owned(),
    };
    let value = if point.flags == 1 {
        "ended".to_owned()
    } else {
        value
    };
    let mut text = format!(
        "{{{}}} {value} @{}",
        attributes(&point.attributes),
        point.time_unix_nano / 1_000_000
    );
    if point.start_time_unix_nano > 0 {
        text.push_str(&format!(" since {}", point.start_time_unix_nano / 1_000_000));
    }
    for e in &point.exemplars {
        text.push_str(&format!(
            " like {} {}",
            hex::encode(&e.trace_id),
            attributes(&e.filtered_attributes)
        ));
    }
    text
}

fn show(metric: &Metric) -> Vec<String> {
    let name = &metric.name;
    match metric.data.as_ref().unwrap() {
        Data::Gauge(g) => g
            .data_points
            .iter()
            .map(|p| format!("gauge {name}{}", number(p)))
            .collect(),
        Data::Sum(s) => {
            assert!(s.is_monotonic && s.aggregation_temporality == 2);
            s.data_points
                .iter()
                .map(|p| format!("sum {name}{}", number(p)))
                .collect()
        }
        Data::Histogram(h) => h
            .data_points
            .iter()
            .map(|p| {
                format!(
                    "histogram {name}{{{}}} {:?} {:?} sum {:?} count {} flags {}",
                    attributes(&p.attributes),
                    p.explicit_bounds,
                    p.bucket_counts,
                    p.sum,
                    p.count,
                    p.flags
                )
            })
            .collect(),
        Data::Summary(s) => s
            .data_points
            .iter()
            .map(|p| {
                let quantiles: Vec<_> = p.quantile_values.iter().map(|q| (q.quantile, q.value)).collect();
                format!(
                    "summary {name}{{{}}} {quantiles:?} sum {} count {}",
                    attributes(&p.attributes),
                    p.sum,
                    p.count
                )
            })
            .collect(),
        Data::ExponentialHistogram(h) => h
            .data_points
            .iter()
            .map(|p| {
                format!(
                    "exponential {name} {:?} {:?} scale {} count {}",
                    p.positive, p.negative, p.scale, p.count
                )
            })
            .collect(),
    }
}

/// All points but those that are said of the scrape itself.
fn points(request: &ExportMetricsServiceRequest) -> Vec<String> {
    let metrics = request
        .resource_metrics
        .iter()
        .flat_map(|r| &r.scope_metrics)
        .flat_map(|s| &s.metrics);
    let own = metrics.filter(|m| m.name != "up" && !m.name.starts_with("scrape_"));
    own.flat_map(show).collect()
}

fn value(request: &ExportMetricsServiceRequest, name: &str) -> f64 {
    let mut metrics = request
        .resource_metrics
        .iter()
        .flat_map(|r| &r.scope_metrics)
        .flat_map(|s| &s.metrics);
    let metric = metrics
        .find(|m| m.name == name)
        .unwrap_or_else(|| panic!("no {name}"));
    match metric.data.as_ref().unwrap() {
        Data::Gauge(g) => match g.data_points[0].value {
            Some(number_data_point::Value::AsDouble(value)) => value,
            _ => panic!("no value"),
        },
        _ => panic!("no gauge"),
    }
}

#[test]
fn every_type_becomes_its_own() {
    let mut conversion = conversion("{job_name: j}");
    let body = "# HELP c Counted.
# TYPE c counter
c{a=\"b\"} 1
# TYPE g gauge
g 2 500
# TYPE h histogram
h_bucket{x=\"1\",le=\"0.1\"} 1
h_bucket{x=\"1\",le=\"1\"} 3
h_bucket{x=\"1\",le=\"+Inf\"} 4
h_sum{x=\"1\"} 9.5
h_count{x=\"1\"} 4
# TYPE s summary
s{quantile=\"0.5\"} 7
s{quantile=\"0.9\"} 8
s_sum 100
s_count 10
u 3
";
    let request = scrape(&mut conversion, 1000, Format::Prometheus, body);
    assert_eq!(
        points(&request),
        [
            "sum c{a=b,env=prod} 1 @1000",
            "gauge g{env=prod} 2 @500",
            "histogram h{env=prod,x=1} [0.1, 1.0] [1, 2, 1] sum Some(9.5) count 4 flags 0",
            "summary s{env=prod} [(0.5, 7.0), (0.9, 8.0)] sum 100 count 10",
            "gauge u{env=prod} 3 @1000",
        ]
    );
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    assert_eq!(
        attributes(&resource.attributes),
        "server.address=host.example,server.port=9100,service.instance.id=host.example:9100,service.name=j,url.scheme=http"
    );
    let metric = &request.resource_metrics[0].scope_metrics[0].metrics[0];
    assert_eq!(
        (metric.name.as_str(), metric.description.as_str()),
        ("c", "Counted.")
    );
    assert_eq!(attributes(&metric.metadata), "prometheus.type=counter");
    assert_eq!(value(&request, "up"), 1.0);
    assert_eq!(value(&request, "scrape_duration_seconds"), 0.25);
    assert_eq!(value(&request, "scrape_samples_scraped"), 12.0);
    assert_eq!(value(&request, "scrape_series_added"), 12.0);
    // Known series are read from memory, with the same result.
    let again = scrape(&mut conversion, 1000, Format::Prometheus, body);
    assert_eq!(points(&again), points(&request));
    assert_eq!(value(&again, "scrape_series_added"), 0.0);
}

#[test]
fn what_vanishes_is_said_to_have_ended_once() {
    let mut conversion = conversion("{job_name: j}");
    let all = "# TYPE h histogram\nh_bucket{le=\"+Inf\"} 1\nh_sum 1\nh_count 1\na 1\nb{x=\"1\"} 2\nb{x=\"2\"} 2 7\n";
    assert_eq!(
        points(&scrape(&mut conversion, 1000, Format::Prometheus, all)).len(),
        4
    );
    let less = points(&scrape(&mut conversion, 2000, Format::Prometheus, "a 1\n"));
    assert_eq!(
        less,
        [
            "histogram h{env=prod} [] [] sum None count 0 flags 1",
            "gauge a{env=prod} 1 @2000",
            "gauge b{env=prod,x=1} ended @2000",
        ]
    );
    assert_eq!(
        points(&scrape(&mut conversion, 3000, Format::Prometheus, "a 1\n")),
        ["gauge a{env=prod} 1 @3000"]
    );
    // A scrape that fails ends all.
    let failed = scrape(&mut conversion, 4000, Format::Prometheus, "a 1\nb{ 2\n");
    assert_eq!(points(&failed), ["gauge a{env=prod} ended @4000"]);
    assert_eq!(value(&failed, "up"), 0.0);
    assert_eq!(
        points(&scrape(&mut conversion, 5000, Format::Prometheus, "a 1\n")),
        ["gauge a{env=prod} 1 @5000"]
    );
    let ended = decoded(&conversion.scrape(6000).end());
    assert_eq!(points(&ended), ["gauge a{env=prod} ended @6000"]);
    let up = ended.resource_metrics[0].scope_metrics[0]
        .metrics
        .iter()
        .find(|m| m.name == "up")
        .unwrap();
    assert_eq!(show(up), ["gauge up{env=prod} ended @6000"]);
}

#[test]
fn openmetrics_brings_units_exemplars_and_when_counting_began() {
    let mut conversion = conversion("{job_name: j}");
    let body = "# TYPE foo_seconds counter
# UNIT foo_seconds seconds
foo_seconds_total{a=\"b\"} 17.0 # {trace_id=\"0102030405060708090a0b0c0d0e0f10\",x=\"y\"} 0.67 1.5
foo_seconds_created{a=\"b\"} 1.5
# TYPE h histogram
h_bucket{le=\"+Inf\"} 3
h_sum 1
h_count 3
h_created 2.5
# TYPE build info
build_info{v=\"1\"} 1
# TYPE target info
target_info{cluster=\"x\"} 1
# EOF
";
    let request = scrape(&mut conversion, 9000, Format::OpenMetrics, body);
    assert_eq!(
        points(&request),
        [
            "sum foo_seconds_total{a=b,env=prod} 17 @9000 since 1500 like 0102030405060708090a0b0c0d0e0f10 x=y",
            "histogram h{env=prod} [] [3] sum Some(1.0) count 3 flags 0",
            "gauge build_info{env=prod,v=1} 1 @9000",
        ]
    );
    let metrics = &request.resource_metrics[0].scope_metrics[0].metrics;
    assert_eq!(metrics[0].unit, "seconds");
    let Some(Data::Histogram(h)) = &metrics[1].data else {
        panic!("a histogram");
    };
    assert_eq!(h.data_points[0].start_time_unix_nano, 2_500_000_000);
    let resource = request.resource_metrics[0].resource.as_ref().unwrap();
    assert!(attributes(&resource.attributes).starts_with("cluster=x,env=prod,server.address"));
}

#[test]
fn labels_of_samples_and_targets_meet_as_the_job_says() {
    let body = "a{env=\"own\",job=\"other\",exported_env=\"x\"} 1\n";
    let exported = scrape(&mut conversion("{job_name: j}"), 1, Format::Prometheus, body);
    assert_eq!(
        points(&exported),
        ["gauge a{env=prod,exported_env=x,exported_exported_env=own,exported_job=other} 1 @1"]
    );
    let honored = scrape(
        &mut conversion("{job_name: j, honor_labels: true}"),
        1,
        Format::Prometheus,
        body,
    );
    assert_eq!(points(&honored), ["gauge a{env=own,exported_env=x} 1 @1"]);
    let jobs: Vec<String> = honored
        .resource_metrics
        .iter()
        .map(|r| attributes(&r.resource.as_ref().unwrap().attributes[..1]))
        .collect();
    assert_eq!(jobs, ["service.name=j", "service.name=other"]);
}

#[test]
fn samples_are_relabelled_and_limited() {
    let yaml = "{job_name: j, sample_limit: 2, metric_relabel_configs: [
        {source_labels: [__name__], regex: 'drop_.*', action: drop},
        {source_labels: [__name__], regex: 'old_(.*)', target_label: __name__, replacement: 'new_$1'}]}";
    let mut conversion = conversion(yaml);
    let request = scrape(
        &mut conversion,
        1,
        Format::Prometheus,
        "drop_me 1\nold_a 2\nb 3\n",
    );
    assert_eq!(
        points(&request),
        ["gauge new_a{env=prod} 2 @1", "gauge b{env=prod} 3 @1"]
    );
    assert_eq!(value(&request, "scrape_samples_scraped"), 3.0);
    assert_eq!(value(&request, "scrape_samples_post_metric_relabeling"), 2.0);
    let more = scrape(
        &mut conversion,
        2,
        Format::Prometheus,
        "drop_me 1\nold_a 2\nb 3\nc 4\n",
    );
    assert_eq!(value(&more, "up"), 0.0);
    assert_eq!(
        points(&more),
        ["gauge new_a{env=prod} ended @2", "gauge b{env=prod} ended @2"]
    );
}

#[test]
fn scopes_are_kept() {
    let body = "a{otel_scope_name=\"lib\",otel_scope_version=\"2\",otel_scope_x=\"y\"} 1\nb 1\n";
    let request = scrape(&mut conversion("{job_name: j}"), 1, Format::Prometheus, body);
    let scopes: Vec<_> = request
        .resource_metrics
        .iter()
        .flat_map(|r| &r.scope_metrics)
        .map(|s| {
            let scope = s.scope.as_ref().unwrap();
            (
                scope.name.clone(),
                scope.version.clone(),
                attributes(&scope.attributes),
                s.metrics[0].name.clone(),
            )
        })
        .collect();
    assert_eq!(scopes.len(), 2);
    assert_eq!(scopes[1], ("lib".into(), "2".into(), "x=y".into(), "a".into()));
}

#[test]
fn native_histograms_are_exponential() {
    let mut conversion = conversion("{job_name: j}");
    let histogram = Histogram {
        series: "h{a=\"b\"}",
        timestamp: None,
        created: Some(3),
        gauge: false,
        schema: 3,
        count: 6.0,
        sum: 1.5,
        zero_threshold: 0.001,
        zero_count: 1.0,
        positive: &[(-2, 1.0), (-1, 2.0), (3, 2.0)],
        negative: &[],
        exemplars: &[],
    };
    let mut scrape = conversion.scrape(5);
    scrape.histogram(&histogram).unwrap();
    let request = decoded(&scrape.finish(&REPORT));
    let Some(Data::ExponentialHistogram(h)) = &request.resource_metrics[0].scope_metrics[0].metrics[0].data
    else {
        panic!("exponential");
    };
    let point = &h.data_points[0];
    let positive = point.positive.as_ref().unwrap();
    assert_eq!(
        (positive.offset, positive.bucket_counts.as_slice()),
        (-3, &[1, 2, 0, 0, 0, 2][..])
    );
    assert_eq!(
        (point.scale, point.count, point.zero_count, point.sum),
        (3, 6, 1, Some(1.5))
    );
    assert_eq!(point.start_time_unix_nano, 3_000_000);
    // Far apart: merged instead of filled up.
    let mut scrape = conversion.scrape(6);
    let wide = Histogram {
        positive: &[(-1_000_000, 1.0), (1_000_000, 1.0)],
        ..histogram
    };
    scrape.histogram(&wide).unwrap();
    let batch = scrape.finish(&REPORT);
    assert!(batch.bytes() < 20_000);
    decoded(&batch);
}

#[test]
fn a_target_that_invents_series_is_forgotten_in_time() {
    let mut conversion = conversion("{job_name: j}");
    for round in 0..4 {
        let body: String = (0..20_000).map(|i| format!("m{round}_{i} 1\n")).collect();
        scrape(&mut conversion, round, Format::Prometheus, &body);
    }
    assert!(conversion.series.at(40_000).is_none());
    assert!(conversion.metrics.len() <= MAX_REMEMBERED + 20_000);
}

proptest::proptest! {
    /// Whatever was scraped before, and in whatever order: what is remembered changes nothing about what is read.
    #[test]
    fn what_is_remembered_changes_nothing(
        scrapes in proptest::collection::vec(proptest::collection::vec(0usize..10, 0..12), 1..6)
    ) {
        const LINES: [&str; 10] = [
            "a 1", "a{x=\"y\"} 2", "a {x=\"y\"} 3", "a {x=\"z\"}  4", "a{x=\"z\",} 5", "ab 6", "ab\t7", "ab{} 8", "b  9", "b 10",
        ];
        let mut remembering = conversion("{job_name: j}");
        for (now, lines) in (1..).zip(&scrapes) {
            let body: String = lines.iter().map(|line| format!("{}\n", LINES[*line])).collect();
            let read = |conversion: &mut Conversion| {
                let request = scrape(conversion, now, Format::Prometheus, &body);
                let mut points: Vec<_> = points(&request).into_iter().filter(|p| !p.contains("ended")).collect();
                points.sort();
                (points, value(&request, "scrape_samples_scraped"))
            };
            let fresh = read(&mut conversion("{job_name: j}"));
            proptest::prop_assert_eq!(read(&mut remembering), fresh, "{}", body);
        }
    }
}
