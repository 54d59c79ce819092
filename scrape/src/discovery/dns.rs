//! `dns_sd_configs`: a group a name, a target a record.

use hickory_resolver::TokioResolver;
use hickory_resolver::proto::rr::{RData, RecordType};
use karez_scrape_config::Group;
use karez_scrape_config::discovery::{DnsDiscovery, Record};
use karez_scrape_config::labels::{ADDRESS, Labels};

use super::{Given, Health, Sink, ticks};

/// Records of one name that are taken.
const MAX_RECORDS: usize = 10_000;

pub(super) async fn run(config: DnsDiscovery, sink: Sink) {
    let mut health: Vec<Health> = config.names.iter().map(|_| Health::default()).collect();
    let mut given: Vec<Given> = config.names.iter().map(|_| Given::default()).collect();
    let mut ticks = ticks(config.refresh);
    loop {
        ticks.tick().await;
        // Built anew, so that a changed resolv.conf counts, and nothing is answered from a cache.
        let resolver = TokioResolver::builder_tokio().and_then(|builder| builder.build());
        let mut failed = false;
        for (index, name) in config.names.iter().enumerate() {
            let found = match &resolver {
                Ok(resolver) => lookup(resolver, name, &config).await,
                Err(error) => Err(error.to_string()),
            };
            match found {
                Ok(group) => {
                    health[index].works(&sink, name);
                    given[index].replace(&sink, [(format!("{index}:{name}"), group)]);
                }
                Err(error) => {
                    failed = true;
                    health[index].failed(&sink, name, &error);
                }
            }
        }
        if !failed {
            sink.told();
        }
    }
}

async fn lookup(resolver: &TokioResolver, name: &str, config: &DnsDiscovery) -> Result<Group, String> {
    let kind = match config.record {
        Record::A => RecordType::A,
        Record::AAAA => RecordType::AAAA,
        Record::SRV => RecordType::SRV,
        Record::MX => RecordType::MX,
        Record::NS => RecordType::NS,
    };
    let found = match resolver.lookup(name, kind).await {
        Ok(found) => found,
        // The name is not there, or has no such record: that is an answer.
        Err(error) if error.is_no_records_found() => return Ok(Group::default()),
        Err(error) => return Err(error.to_string()),
    };
    let records = found.answers().iter().map(|record| &record.data);
    let targets = records
        .filter_map(|data| target(name, data, config))
        .take(MAX_RECORDS)
        .collect();
    Ok(Group {
        labels: Labels::default(),
        targets,
    })
}

fn target(name: &str, data: &RData, config: &DnsDiscovery) -> Option<Labels> {
    let port = config.port;
    let (address, srv) = match (config.record, data) {
        (Record::A, RData::A(a)) => (format!("{}:{port}", a.0), None),
        (Record::AAAA, RData::AAAA(a)) => (format!("[{}]:{port}", a.0), None),
        (Record::SRV, RData::SRV(srv)) => {
            let target = srv.target.to_string();
            let host = target.trim_end_matches('.');
            (
                format!("{host}:{}", srv.port),
                Some((target.clone(), srv.port.to_string())),
            )
        }
        (Record::MX, RData::MX(mx)) => (host_and_port(&mx.exchange.to_string(), port), None),
        (Record::NS, RData::NS(ns)) => (host_and_port(&ns.0.to_string(), port), None),
        _ => return None,
    };
    let (srv_target, srv_port) = srv.unwrap_or_default();
    Some(Labels::of([
        (ADDRESS, address.as_str()),
        ("__meta_dns_name", name),
        ("__meta_dns_srv_record_target", &srv_target),
        ("__meta_dns_srv_record_port", &srv_port),
    ]))
}

fn host_and_port(host: &str, port: u16) -> String {
    format!("{}:{port}", host.trim_end_matches('.'))
}
