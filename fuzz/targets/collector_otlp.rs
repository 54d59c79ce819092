//! OTLP's encoding: the scan takes exactly what prost takes and counts what prost finds; splitting loses nothing.
#![no_main]

use bytes::Bytes;
use karez_collector::batch::{Batch, Signal};
use karez_collector::wire::{scan, split};
use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use prost::Message;

fn spans(bytes: &[u8]) -> Option<usize> {
    let request = ExportTraceServiceRequest::decode(bytes).ok()?;
    let scopes = request
        .resource_spans
        .iter()
        .flat_map(|resource| &resource.scope_spans);
    Some(scopes.map(|scope| scope.spans.len()).sum())
}

fn records(bytes: &[u8]) -> Option<usize> {
    let request = ExportLogsServiceRequest::decode(bytes).ok()?;
    let scopes = request
        .resource_logs
        .iter()
        .flat_map(|resource| &resource.scope_logs);
    Some(scopes.map(|scope| scope.log_records.len()).sum())
}

/// Whether it decodes; points of a metric that has its data twice are counted twice by a scan, so only that.
fn points(bytes: &[u8]) -> Option<usize> {
    let request = ExportMetricsServiceRequest::decode(bytes).ok()?;
    let scopes = request
        .resource_metrics
        .iter()
        .flat_map(|resource| &resource.scope_metrics);
    let metrics = scopes.flat_map(|scope| &scope.metrics);
    Some(
        metrics
            .map(|metric| match &metric.data {
                Some(Data::Gauge(data)) => data.data_points.len(),
                Some(Data::Sum(data)) => data.data_points.len(),
                Some(Data::Histogram(data)) => data.data_points.len(),
                Some(Data::ExponentialHistogram(data)) => data.data_points.len(),
                Some(Data::Summary(data)) => data.data_points.len(),
                None => 0,
            })
            .sum(),
    )
}

fuzz_target!(|bytes: &[u8]| {
    assert_eq!(scan(Signal::Traces, bytes).ok(), spans(bytes));
    assert_eq!(scan(Signal::Logs, bytes).ok(), records(bytes));
    let (scanned, decoded) = (scan(Signal::Metrics, bytes).ok(), points(bytes));
    assert_eq!(scanned.is_some(), decoded.is_some());
    assert!(scanned >= decoded);
    for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
        let Ok(batch) = Batch::scan(signal, Bytes::copy_from_slice(bytes)) else {
            continue;
        };
        let (items, most) = (batch.items, 1 + bytes.len() % 5);
        let parts = split(batch, most);
        let found: usize = parts
            .iter()
            .map(|part| scan(signal, &part.payload).expect("a part of what was scanned can be scanned"))
            .sum();
        assert_eq!(found, items, "splitting lost or added items");
    }
});
