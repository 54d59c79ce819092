use super::name::{Counted, Naming};

fn naming(namespace: &str, suffixes: bool) -> Naming {
    Naming {
        namespace: namespace.into(),
        suffixes,
        escapes: true,
    }
}

/// From the specification's examples and the Collector's own tests.
#[test]
fn names_are_made_as_the_collector_makes_them() {
    let plain = naming("", true);
    for (name, unit, counted, expected) in [
        ("system.io", "By", Counted::Counter, "system_io_bytes_total"),
        (
            "system.network.io",
            "By/s",
            Counted::Gauge,
            "system_network_io_bytes_per_second",
        ),
        (
            "broken.metric.speed.km",
            "km/h",
            Counted::Gauge,
            "broken_metric_speed_km_per_hour",
        ),
        ("cpu.utilization", "1", Counted::Gauge, "cpu_utilization_ratio"),
        ("requests", "{request}", Counted::Counter, "requests_total"),
        ("requests_total", "", Counted::Counter, "requests_total"),
        (
            "http_request_duration_seconds",
            "s",
            Counted::Other,
            "http_request_duration_seconds",
        ),
        ("1st.metric", "", Counted::Gauge, "_1st_metric"),
        ("a:b", "", Counted::Gauge, "a:b"),
        ("disk.used", "%", Counted::Gauge, "disk_used_percent"),
    ] {
        assert_eq!(plain.metric(name, unit, counted), expected);
    }
    assert_eq!(
        naming("ns", true).metric("a.b", "s", Counted::Gauge),
        "ns_a_b_seconds"
    );
    assert_eq!(naming("ns", false).metric("a.b", "s", Counted::Counter), "ns_a_b");
    assert_eq!(plain.label("a.b-c"), "a_b_c");
    assert_eq!(plain.label("1a"), "key_1a");
    let utf8 = Naming {
        escapes: false,
        ..naming("", true)
    };
    assert_eq!(utf8.metric("a.b", "s", Counted::Counter), "a.b_seconds_total");
    assert_eq!(utf8.label("a.b"), "a.b");
}
