//! `debug` and `logging`: what goes through a pipeline, as log lines.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use futures::future::BoxFuture;
use karez_collector_config::Signal;
use karez_collector_config::exporters::{DebugExporter, LoggingExporter, Verbosity};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;

use crate::batch::Batch;
use crate::component::{ComponentContext, Exporter, Outcome};
use crate::registry::BuiltExporter;
use crate::wire::field::fields;

/// The exporter.
pub struct Debug {
    verbosity: Verbosity,
    key: String,
    output: Output,
    sampling: Sampling,
    /// `logging` writes its lines in its own style.
    logging: bool,
}

#[derive(Debug, Clone, Copy)]
enum Output {
    Log,
    Stdout,
    Stderr,
}

/// Makes the exporter.
pub fn build(config: &DebugExporter, cx: &ComponentContext) -> BuiltExporter {
    let stderr = config.output_paths.iter().any(|path| path == "stderr");
    let output = match (config.use_internal_logger, stderr) {
        (true, _) => Output::Log,
        (false, true) => Output::Stderr,
        (false, false) => Output::Stdout,
    };
    let sampling = Sampling::new(config.sampling_initial, config.sampling_thereafter);
    built(Debug {
        verbosity: config.verbosity,
        key: cx.key.clone(),
        output,
        sampling,
        logging: false,
    })
}

/// Makes the exporter by its old name.
pub fn build_logging(config: &LoggingExporter, cx: &ComponentContext) -> BuiltExporter {
    let sampling = Sampling::new(config.sampling_initial, config.sampling_thereafter);
    built(Debug {
        verbosity: config.verbosity,
        key: cx.key.clone(),
        output: Output::Log,
        sampling,
        logging: true,
    })
}

fn built(exporter: Debug) -> BuiltExporter {
    BuiltExporter {
        exporter: Arc::new(exporter),
        sending: None,
    }
}

impl Exporter for Debug {
    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        self.write(&batch);
        Box::pin(async { Outcome::Delivered })
    }
}

impl Debug {
    fn write(&self, batch: &Batch) {
        if !self.sampling.take() {
            return;
        }
        self.line(&self.summary(batch));
        match (self.verbosity, self.logging) {
            (Verbosity::Basic, _) | (Verbosity::Normal, true) => {}
            (Verbosity::Normal, false) => {
                for name in names(batch) {
                    self.line(&name);
                }
            }
            (Verbosity::Detailed, _) => self.line(&details(batch)),
        }
    }

    fn summary(&self, batch: &Batch) -> String {
        let resources = fields(&batch.payload)
            .filter(|field| field.as_ref().is_ok_and(|f| f.number == 1))
            .count();
        let items = batch.items;
        if self.logging {
            return match batch.signal {
                Signal::Traces => format!("TracesExporter {{\"#spans\": {items}}}"),
                Signal::Metrics => format!("MetricsExporter {{\"#metrics\": {}}}", metrics(batch)),
                Signal::Logs => format!("LogsExporter {{\"#logs\": {items}}}"),
            };
        }
        match batch.signal {
            Signal::Traces => format!("Traces {{\"resource spans\": {resources}, \"spans\": {items}}}"),
            Signal::Metrics => format!(
                "Metrics {{\"resource metrics\": {resources}, \"metrics\": {}, \"data points\": {items}}}",
                metrics(batch)
            ),
            Signal::Logs => format!("Logs {{\"resource logs\": {resources}, \"log records\": {items}}}"),
        }
    }

    fn line(&self, text: &str) {
        match self.output {
            Output::Log => tracing::info!(component = self.key, "{text}"),
            Output::Stdout => println!("{text}"),
            Output::Stderr => eprintln!("{text}"),
        }
    }
}

/// The messages at a path of field numbers.
fn at<'a>(message: &'a [u8], path: &[u32], found: &mut Vec<&'a [u8]>) {
    let Some((number, rest)) = path.split_first() else {
        return found.push(message);
    };
    for field in fields(message).flatten().filter(|field| field.number == *number) {
        at(field.value, rest, found);
    }
}

fn metrics(batch: &Batch) -> usize {
    let mut found = Vec::new();
    at(&batch.payload, &[1, 2, 2], &mut found);
    found.len()
}

/// A line for each span, metric or log record.
fn names(batch: &Batch) -> Vec<String> {
    let mut found = Vec::new();
    at(&batch.payload, &[1, 2, 2], &mut found);
    let name = |item: &[u8]| match batch.signal {
        Signal::Traces => {
            let (mut name, mut trace, mut span) = (String::new(), String::new(), String::new());
            for field in fields(item).flatten() {
                match field.number {
                    1 => trace = hex::encode(field.value),
                    2 => span = hex::encode(field.value),
                    5 => name = field.text().to_owned(),
                    _ => {}
                }
            }
            format!("{name} {trace} {span}")
        }
        Signal::Metrics => {
            let name = fields(item).flatten().find(|field| field.number == 1);
            name.map(|field| field.text().to_owned()).unwrap_or_default()
        }
        Signal::Logs => {
            let mut body = Vec::new();
            at(item, &[5, 1], &mut body);
            body.first()
                .map(|text| String::from_utf8_lossy(text).into_owned())
                .unwrap_or_default()
        }
    };
    found.into_iter().map(name).collect()
}

fn details(batch: &Batch) -> String {
    fn show<M: prost::Message + Default + std::fmt::Debug>(batch: &Batch) -> String {
        batch
            .decode::<M>()
            .map_or_else(|error| error.to_string(), |message| format!("{message:#?}"))
    }
    match batch.signal {
        Signal::Traces => show::<ExportTraceServiceRequest>(batch),
        Signal::Metrics => show::<ExportMetricsServiceRequest>(batch),
        Signal::Logs => show::<ExportLogsServiceRequest>(batch),
    }
}

/// The first few lines of each second, then every n-th.
struct Sampling {
    initial: u64,
    thereafter: u64,
    second: Mutex<Instant>,
    seen: AtomicU64,
}

impl Sampling {
    fn new(initial: u32, thereafter: u32) -> Self {
        let (initial, thereafter) = (u64::from(initial), u64::from(thereafter));
        Sampling {
            initial,
            thereafter,
            second: Mutex::new(Instant::now()),
            seen: AtomicU64::new(0),
        }
    }

    fn take(&self) -> bool {
        let mut second = self
            .second
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if second.elapsed() >= Duration::from_secs(1) {
            *second = Instant::now();
            self.seen.store(0, Ordering::Relaxed);
        }
        let seen = self.seen.fetch_add(1, Ordering::Relaxed);
        seen < self.initial || (self.thereafter > 0 && (seen - self.initial).is_multiple_of(self.thereafter))
    }
}
