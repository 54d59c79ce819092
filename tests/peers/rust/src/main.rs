//! Sends traces, metrics and log records with the official OpenTelemetry SDK for Rust, as `send` does with that for Go.
//!
//!     send-rust PROTOCOL ADDRESS SERVICE COUNT COMPRESSION
//!
//! PROTOCOL is grpc or http, COMPRESSION is none or gzip. Sends COUNT spans `span-N` with the attribute `number`, a counter
//! `requests` with COUNT data points (attribute `number`), and COUNT log records `record N`. The exit status is 0 only
//! if the SDK reported no failure.

use std::error::Error;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry::logs::{AnyValue, LogRecord, Logger, LoggerProvider, Severity};
use opentelemetry::metrics::MeterProvider;
use opentelemetry::trace::{Span, Tracer, TracerProvider};
use opentelemetry_otlp::{
    Compression, LogExporter, MetricExporter, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig,
};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::logs::SdkLoggerProvider;
use opentelemetry_sdk::metrics::SdkMeterProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;

type Outcome<T = ()> = Result<T, Box<dyn Error>>;

/// Makes an exporter of one kind, over the protocol and with the compression that are asked for.
macro_rules! exporter {
    ($kind:ident, $to:expr, $path:literal) => {{
        let to: &To = $to;
        match to.grpc {
            true => {
                let builder = $kind::builder()
                    .with_tonic()
                    .with_endpoint(format!("http://{}", to.address))
                    .with_timeout(Duration::from_secs(20));
                match to.gzip {
                    true => builder.with_compression(Compression::Gzip).build()?,
                    false => builder.build()?,
                }
            }
            false => {
                let builder = $kind::builder()
                    .with_http()
                    .with_endpoint(format!("http://{}{}", to.address, $path))
                    .with_timeout(Duration::from_secs(20));
                match to.gzip {
                    true => builder.with_compression(Compression::Gzip).build()?,
                    false => builder.build()?,
                }
            }
        }
    }};
}

struct To {
    grpc: bool,
    address: String,
    gzip: bool,
}

fn main() -> Outcome {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [protocol, address, service, count, compression] = &arguments[..] else {
        return Err("usage: send-rust PROTOCOL ADDRESS SERVICE COUNT COMPRESSION".into());
    };
    let to = To {
        grpc: protocol == "grpc",
        address: address.clone(),
        gzip: compression == "gzip",
    };
    let count: i64 = count.parse()?;
    let about = Resource::builder_empty()
        .with_attribute(KeyValue::new("service.name", service.clone()))
        .build();
    // Only the exporters over gRPC need a runtime; those over HTTP must have none.
    let runtime = tokio::runtime::Runtime::new()?;
    let guard = to.grpc.then(|| runtime.enter());
    spans(&to, &about, count)?;
    points(&to, &about, count)?;
    records(&to, &about, count)?;
    drop(guard);
    Ok(())
}

fn spans(to: &To, about: &Resource, count: i64) -> Outcome {
    let provider = SdkTracerProvider::builder()
        .with_batch_exporter(exporter!(SpanExporter, to, "/v1/traces"))
        .with_resource(about.clone())
        .build();
    let tracer = provider.tracer("karez.tests");
    for number in 0..count {
        let mut span = tracer.start(format!("span-{number}"));
        span.set_attribute(KeyValue::new("number", number));
        span.end();
    }
    provider.force_flush()?;
    Ok(provider.shutdown()?)
}

fn points(to: &To, about: &Resource, count: i64) -> Outcome {
    let provider = SdkMeterProvider::builder()
        .with_periodic_exporter(exporter!(MetricExporter, to, "/v1/metrics"))
        .with_resource(about.clone())
        .build();
    let counter = provider.meter("karez.tests").u64_counter("requests").build();
    for number in 0..count {
        counter.add(number.unsigned_abs(), &[KeyValue::new("number", number)]);
    }
    // What is left at the shutdown is exported by it.
    Ok(provider.shutdown()?)
}

fn records(to: &To, about: &Resource, count: i64) -> Outcome {
    let provider = SdkLoggerProvider::builder()
        .with_batch_exporter(exporter!(LogExporter, to, "/v1/logs"))
        .with_resource(about.clone())
        .build();
    let logger = provider.logger("karez.tests");
    for number in 0..count {
        let mut record = logger.create_log_record();
        record.set_severity_number(Severity::Info);
        record.set_body(AnyValue::from(format!("record {number}")));
        record.add_attribute("number", number);
        logger.emit(record);
    }
    provider.force_flush()?;
    Ok(provider.shutdown()?)
}
