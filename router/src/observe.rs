//! Metrics that are looked up when somebody asks for them: links as they are now, and totals by the names of others.

use std::fmt::Error;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use karez_router_config::api::Direction;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::link::LiveLink;
use crate::shared::Shared;

/// Looks at the router when it is asked.
#[derive(Debug)]
pub(crate) struct Observer(pub(crate) Weak<Shared>);

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Shared")
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    link: String,
    peer: String,
    direction: &'static str,
    transport: &'static str,
}

fn labels(link: &LiveLink) -> Labels {
    Labels {
        link: link.name.clone(),
        peer: link.peer.name.clone(),
        direction: match link.direction {
            Direction::Incoming => "incoming",
            Direction::Outgoing => "outgoing",
        },
        transport: link.connection.kind().as_str(),
    }
}

impl Collector for Observer {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(shared) = self.0.upgrade() else {
            return Ok(());
        };
        let links: Vec<_> = shared.read(|state| state.live.values().cloned().collect());
        of_links(&links, &mut encoder)?;
        totals(&shared, links.len(), &mut encoder)
    }
}

fn of_links(links: &[Arc<LiveLink>], encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let seconds = |link: &LiveLink| link.connection.statistics().round_trip.as_secs_f64();
    gauges(
        encoder,
        "karez_router_link_round_trip_seconds",
        "Smoothed round trip",
        links,
        |link| ConstGauge::new(seconds(link)),
    )?;
    let help = "Connections and sessions that a link carries for this router's clients and peers";
    gauges(
        encoder,
        "karez_router_link_connections_open",
        help,
        links,
        |link| ConstGauge::new(i64::try_from(link.open.load(Ordering::Relaxed)).unwrap_or(i64::MAX)),
    )?;
    let counted: [(&str, &str, Count); 4] = [
        ("karez_router_link_packets_sent", "Packets sent", |link| {
            link.connection.statistics().packets_sent
        }),
        (
            "karez_router_link_packets_lost",
            "Packets sent and lost",
            |link| link.connection.statistics().packets_lost,
        ),
        (
            "karez_router_link_sent_bytes",
            "Bytes sent, with the transport's own",
            |link| link.connection.statistics().bytes_sent,
        ),
        (
            "karez_router_link_received_bytes",
            "Bytes received, with the transport's own",
            |link| link.connection.statistics().bytes_received,
        ),
    ];
    for (name, help, value) in counted {
        gauges(encoder, name, help, links, |link| ConstCounter::new(value(link)))?;
    }
    Ok(())
}

/// Reads a count off a link.
type Count = fn(&LiveLink) -> u64;

/// One family with a value for each link.
fn gauges<M: EncodeMetric>(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    links: &[Arc<LiveLink>],
    value: impl Fn(&LiveLink) -> M,
) -> Result<(), Error> {
    let Some(first) = links.first() else { return Ok(()) };
    let kind = value(first).metric_type();
    let mut family = encoder.encode_descriptor(name, help, None, kind)?;
    for link in links {
        value(link).encode(family.encode_family(&labels(link))?)?;
    }
    Ok(())
}

/// The names that dashboards for skupper-router read. They are gauges in spite of their names.
fn totals(shared: &Shared, links: usize, encoder: &mut DescriptorEncoder<'_>) -> Result<(), Error> {
    let view = shared.view();
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let (virtual_size, resident) = memory();
    let all = [
        ("qdr_connections_total", "Links that are up", number(links)),
        (
            "qdr_links_total",
            "Carried connections open now",
            shared.metrics.open.get(),
        ),
        (
            "qdr_addresses_total",
            "Addresses that can be reached",
            number(view.table.iter().count()),
        ),
        (
            "qdr_routers_total",
            "Interior routers that can be reached",
            number(view.table.routers().count()),
        ),
        (
            "qdr_last_topology_change_timestamp",
            "When the ways to addresses changed last, seconds since 1970",
            shared.metrics.route_changed.get(),
        ),
        ("qdr_router_vmsize_bytes", "Virtual memory", virtual_size),
        ("qdr_router_rss_bytes", "Resident memory", resident),
    ];
    for (name, help, value) in all {
        let gauge = ConstGauge::new(value);
        let metric = encoder.encode_descriptor(name, help, None, gauge.metric_type())?;
        gauge.encode(metric)?;
    }
    Ok(())
}

/// Virtual and resident memory in bytes; 0 where the system does not say.
fn memory() -> (i64, i64) {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let kibibytes = |name: &str| -> Option<i64> {
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        line.split_ascii_whitespace().next()?.parse().ok()
    };
    let bytes = |name| kibibytes(name).unwrap_or(0).saturating_mul(1024);
    (bytes("VmSize:"), bytes("VmRSS:"))
}
