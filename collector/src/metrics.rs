//! The collector's own metrics, with the names that the OpenTelemetry Collector gives them.
//!
//! They outlive a reload: a component that is started again finds the counters of its id. The ledger is kept by them:
//! for each signal, accepted = delivered + queued + refused later + dropped.

use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use karez_collector_config::{ComponentId, Signal};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use crate::ledger::Ledger;
use crate::self_metrics::{LedgerCollector, ProcessCollector};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReceiverLabels {
    receiver: String,
    transport: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ProcessorLabels {
    processor: String,
    otel_signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConnectorLabels {
    connector: String,
    otel_signal: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ExporterLabels {
    exporter: String,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct QueueLabels {
    exporter: String,
    data_type: &'static str,
}

type Receivers = Family<ReceiverLabels, Counter>;
type Exporters = Family<ExporterLabels, Counter>;
type Level = Gauge<f64, AtomicU64>;

/// All families.
pub struct Metrics {
    registry: Arc<Registry>,
    ledger: Arc<Ledger>,
    accepted: [Receivers; 3],
    refused: [Receivers; 3],
    failed: [Receivers; 3],
    incoming: Family<ProcessorLabels, Counter>,
    outgoing: Family<ProcessorLabels, Counter>,
    dropped: Family<ProcessorLabels, Counter>,
    consumed: Family<ConnectorLabels, Counter>,
    produced: Family<ConnectorLabels, Counter>,
    sent: [Exporters; 3],
    send_failed: [Exporters; 3],
    enqueue_failed: [Exporters; 3],
    queue_size: Family<QueueLabels, Gauge>,
    queue_items: Family<QueueLabels, Gauge>,
    queue_bytes: Family<QueueLabels, Gauge>,
    queue_capacity: Family<QueueLabels, Gauge>,
    /// Reloads that were refused because the document was wrong.
    pub(crate) reload_failures: Counter,
    /// Reloads that took effect.
    pub(crate) reloads: Counter,
}

/// What a receiver counts, for a transport and a signal, in items.
#[derive(Debug, Clone)]
pub struct ReceiverMeter {
    /// Taken by the pipelines.
    pub accepted: Counter,
    /// Not taken now; the client may try again.
    pub refused: Counter,
    /// Not taken at all.
    pub failed: Counter,
}

/// What a processor counts, in items.
#[derive(Debug, Clone)]
pub struct ProcessorMeter {
    /// What came.
    pub incoming: Counter,
    /// What went on.
    pub outgoing: Counter,
    /// What was accepted and lost.
    pub dropped: Counter,
}

/// What a connector counts, in items.
#[derive(Debug, Clone)]
pub struct ConnectorMeter {
    /// What it took.
    pub consumed: Counter,
    /// What the pipelines behind it took.
    pub produced: Counter,
}

/// What an exporter counts.
#[derive(Debug, Clone)]
pub struct ExporterMeter {
    /// Items delivered.
    pub sent: Counter,
    /// Items given up.
    pub send_failed: Counter,
    /// Items that the queue did not take.
    pub enqueue_failed: Counter,
    /// Requests in the queue.
    pub queue_size: Gauge,
    /// Items in the queue and under way.
    pub queue_items: Gauge,
    /// Bytes in the queue and under way.
    pub queue_bytes: Gauge,
    /// What the queue holds at most, in its own measure.
    pub queue_capacity: Gauge,
}

impl Metrics {
    /// Registers all families.
    pub fn new() -> Arc<Self> {
        let mut registry = Registry::default();
        let ledger = Arc::new(Ledger::default());
        registry.register_collector(Box::new(LedgerCollector(ledger.clone())));
        let r = registry.sub_registry_with_prefix("otelcol");
        let mut metrics = Metrics {
            accepted: by_signal(r, "receiver_accepted", "Items that the pipelines took"),
            refused: by_signal(
                r,
                "receiver_refused",
                "Items that the pipelines did not take for now",
            ),
            failed: by_signal(
                r,
                "receiver_failed",
                "Items that the pipelines did not take at all",
            ),
            incoming: counters(r, "processor_incoming_items", "Items that came to the processor"),
            outgoing: counters(
                r,
                "processor_outgoing_items",
                "Items that the processor handed on",
            ),
            dropped: counters(
                r,
                "processor_dropped_items",
                "Items that the processor had taken and lost",
            ),
            consumed: counters(r, "connector_consumed_items", "Items that the connector took"),
            produced: counters(
                r,
                "connector_produced_items",
                "Items that the pipelines behind the connector took",
            ),
            sent: by_signal(r, "exporter_sent", "Items delivered"),
            send_failed: by_signal(r, "exporter_send_failed", "Items given up"),
            enqueue_failed: by_signal(r, "exporter_enqueue_failed", "Items that the queue did not take"),
            queue_size: gauges(r, "exporter_queue_size", "Requests in the queue"),
            queue_items: gauges(r, "exporter_queue_items", "Items in the queue and under way"),
            queue_bytes: gauges(r, "exporter_queue_bytes", "Bytes in the queue and under way"),
            queue_capacity: gauges(
                r,
                "exporter_queue_capacity",
                "What the queue holds at most, in its own measure",
            ),
            reload_failures: counter(r, "config_reload_failures", "Changed documents that were refused"),
            reloads: counter(r, "config_reloads", "Changed documents that took effect"),
            registry: Arc::default(),
            ledger,
        };
        register_process(r);
        metrics.registry = Arc::new(registry);
        Arc::new(metrics)
    }

    /// What is served at `/metrics`.
    pub fn registry(&self) -> Arc<Registry> {
        self.registry.clone()
    }

    /// What became of every item.
    pub fn ledger(&self) -> Arc<Ledger> {
        self.ledger.clone()
    }

    /// The counters of a receiver.
    pub fn receiver(&self, id: &ComponentId, transport: &'static str, signal: Signal) -> ReceiverMeter {
        let labels = ReceiverLabels {
            receiver: id.to_string(),
            transport,
        };
        let of = |families: &[Receivers; 3]| families[signal as usize].get_or_create_owned(&labels);
        ReceiverMeter {
            accepted: of(&self.accepted),
            refused: of(&self.refused),
            failed: of(&self.failed),
        }
    }

    /// The counters of a processor.
    pub fn processor(&self, id: &ComponentId, signal: Signal) -> ProcessorMeter {
        let labels = ProcessorLabels {
            processor: id.to_string(),
            otel_signal: signal.as_str(),
        };
        ProcessorMeter {
            incoming: self.incoming.get_or_create_owned(&labels),
            outgoing: self.outgoing.get_or_create_owned(&labels),
            dropped: self.dropped.get_or_create_owned(&labels),
        }
    }

    /// The counters of a connector.
    pub fn connector(&self, id: &ComponentId, signal: Signal) -> ConnectorMeter {
        let labels = ConnectorLabels {
            connector: id.to_string(),
            otel_signal: signal.as_str(),
        };
        ConnectorMeter {
            consumed: self.consumed.get_or_create_owned(&labels),
            produced: self.produced.get_or_create_owned(&labels),
        }
    }

    /// The counters of an exporter.
    pub fn exporter(&self, id: &ComponentId, signal: Signal) -> ExporterMeter {
        let labels = ExporterLabels {
            exporter: id.to_string(),
        };
        let queue = QueueLabels {
            exporter: id.to_string(),
            data_type: signal.as_str(),
        };
        let of = |families: &[Exporters; 3]| families[signal as usize].get_or_create_owned(&labels);
        ExporterMeter {
            sent: of(&self.sent),
            send_failed: of(&self.send_failed),
            enqueue_failed: of(&self.enqueue_failed),
            queue_size: self.queue_size.get_or_create_owned(&queue),
            queue_items: self.queue_items.get_or_create_owned(&queue),
            queue_bytes: self.queue_bytes.get_or_create_owned(&queue),
            queue_capacity: self.queue_capacity.get_or_create_owned(&queue),
        }
    }
}

/// A family for each signal: `receiver_accepted_spans` and so on.
fn by_signal<L: Labels>(registry: &mut Registry, name: &str, help: &str) -> [Family<L, Counter>; 3] {
    Signal::ALL.map(|signal| counters(registry, &format!("{name}_{}", signal.items()), help))
}

fn counters<L: Labels>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Counter> {
    let family = Family::<L, Counter>::default();
    registry.register(name, help, family.clone());
    family
}

fn gauges<L: Labels>(registry: &mut Registry, name: &str, help: &str) -> Family<L, Gauge> {
    let family = Family::<L, Gauge>::default();
    registry.register(name, help, family.clone());
    family
}

fn counter(registry: &mut Registry, name: &str, help: &str) -> Counter {
    let counter = Counter::default();
    registry.register(name, help, counter.clone());
    counter
}

/// What a set of labels must be to be registered.
trait Labels: EncodeLabelSet + Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static {}

impl<L: EncodeLabelSet + Clone + Eq + std::hash::Hash + std::fmt::Debug + Send + Sync + 'static> Labels
    for L
{
}

fn register_process(registry: &mut Registry) {
    let started = Level::default();
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    started.set(now.map_or(0.0, |now| now.as_secs_f64()));
    registry.register(
        "process_start_time_seconds",
        "When the collector started, since 1970",
        started,
    );
    registry.register_collector(Box::new(ProcessCollector::default()));
}
