use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::{
    Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, ResourceMetrics, ScopeMetrics, Sum,
    number_data_point,
};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::*;

fn attribute(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.into(),
        value: Some(AnyValue {
            value: Some(any_value::Value::StringValue(value.into())),
        }),
        ..KeyValue::default()
    }
}

fn point(value: f64, attributes: Vec<KeyValue>, flags: u32) -> NumberDataPoint {
    NumberDataPoint {
        value: Some(number_data_point::Value::AsDouble(value)),
        time_unix_nano: 5_000_000_000,
        attributes,
        flags,
        ..NumberDataPoint::default()
    }
}

fn metric(name: &str, unit: &str, data: Data) -> Metric {
    Metric {
        name: name.into(),
        unit: unit.into(),
        description: format!("About {name}."),
        data: Some(data),
        ..Metric::default()
    }
}

fn counter(points: Vec<NumberDataPoint>, temporality: i32) -> Data {
    Data::Sum(Sum {
        data_points: points,
        aggregation_temporality: temporality,
        is_monotonic: true,
    })
}

fn request(metrics: Vec<Metric>) -> ExportMetricsServiceRequest {
    let attributes = vec![attribute("service.name", "shop"), attribute("host.name", "h")];
    ExportMetricsServiceRequest {
        resource_metrics: vec![ResourceMetrics {
            resource: Some(Resource {
                attributes,
                ..Resource::default()
            }),
            scope_metrics: vec![ScopeMetrics {
                metrics,
                ..ScopeMetrics::default()
            }],
            ..ResourceMetrics::default()
        }],
    }
}

fn exporter(change: impl FnOnce(&mut PrometheusSettings)) -> Prometheus {
    let mut config = PrometheusExporter::default();
    change(&mut config.settings);
    Prometheus::new(&config)
}

fn text(exporter: &Prometheus, openmetrics: bool) -> String {
    let timestamps = exporter.config.settings.send_timestamps;
    exporter.served.families().text(openmetrics, timestamps)
}

#[test]
fn serves_the_newest_value_of_each_series() {
    let exporter = exporter(|settings| {
        settings.const_labels.insert("region".into(), "eu".into());
    });
    let hist = HistogramDataPoint {
        count: 4,
        sum: Some(9.5),
        explicit_bounds: vec![0.5],
        bucket_counts: vec![1, 3],
        ..HistogramDataPoint::default()
    };
    let histogram = Data::Histogram(Histogram {
        data_points: vec![hist],
        aggregation_temporality: 2,
    });
    exporter.take(&request(vec![
        metric(
            "orders",
            "",
            counter(vec![point(1.0, vec![attribute("a.b", "x\"y")], 0)], 2),
        ),
        metric("time", "s", histogram),
    ]));
    exporter.take(&request(vec![metric(
        "orders",
        "",
        counter(vec![point(2.0, vec![attribute("a.b", "x\"y")], 0)], 2),
    )]));
    let expected = "# HELP orders_total About orders.
# TYPE orders_total counter
orders_total{a_b=\"x\\\"y\",job=\"shop\",region=\"eu\"} 2
# HELP target_info Target metadata
# TYPE target_info gauge
target_info{host_name=\"h\",job=\"shop\",region=\"eu\"} 1
# HELP time_seconds About time.
# TYPE time_seconds histogram
time_seconds_bucket{job=\"shop\",region=\"eu\",le=\"0.5\"} 1
time_seconds_bucket{job=\"shop\",region=\"eu\",le=\"+Inf\"} 4
time_seconds_sum{job=\"shop\",region=\"eu\"} 9.5
time_seconds_count{job=\"shop\",region=\"eu\"} 4
";
    assert_eq!(text(&exporter, false), expected);
    let open = text(&exporter, true);
    assert!(open.contains("# TYPE orders counter\norders_total{"), "{open}");
    assert!(open.ends_with("# EOF\n"));
}

#[test]
fn differences_are_added_up_and_ends_heard() {
    let exporter = exporter(|settings| settings.send_timestamps = true);
    let delta = || request(vec![metric("d", "", counter(vec![point(2.0, Vec::new(), 0)], 1))]);
    exporter.take(&delta());
    exporter.take(&delta());
    assert!(text(&exporter, false).contains("d_total{job=\"shop\"} 4 5000\n"));
    exporter.take(&request(vec![metric(
        "d",
        "",
        counter(vec![point(0.0, Vec::new(), 1)], 1),
    )]));
    assert!(!text(&exporter, false).contains("d_total{"));
}

#[test]
fn old_series_expire_and_resources_become_labels() {
    let exporter = exporter(|settings| settings.resource_to_telemetry_conversion.enabled = true);
    let gauge = Data::Gauge(Gauge {
        data_points: vec![point(1.0, Vec::new(), 0)],
    });
    exporter.take(&request(vec![metric("g", "", gauge)]));
    let served = text(&exporter, false);
    assert!(
        served.contains("g{host_name=\"h\",job=\"shop\",service_name=\"shop\"} 1\n"),
        "{served}"
    );
    exporter.served.families().expire(Duration::ZERO);
    assert_eq!(text(&exporter, false), "");
}
