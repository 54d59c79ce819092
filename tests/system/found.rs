//! What the collector finds by asking: names of a real resolver, which asks a name server of the test's own, and Consul's
//! API. In a network of its own, since names are asked for on port 53.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::Command;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::json;

use crate::support::Outcome;
use crate::support::daemon::{Daemon, run};
use crate::support::dns::{Dns, Record};
use crate::support::http::get;
use crate::support::namespace::{alone, ask_own_name_server};
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Namespaces];
    vec![
        trial("found::targets_by_dns_and_by_consul", NEEDS, targets),
        trial("found::backends_by_dns_share_the_traces", NEEDS, backends),
    ]
}

fn at(address: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(address.into(), port)
}

const LOCAL: Ipv4Addr = Ipv4Addr::LOCALHOST;

/// Serves pages by their path; what is asked for beside them is not found.
#[derive(Clone, Default)]
struct Pages(Arc<Mutex<BTreeMap<String, String>>>);

impl Pages {
    fn set(&self, path: &str, body: impl Into<String>) {
        let mut pages = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        pages.insert(path.to_owned(), body.into());
    }

    fn serve(&self, at: SocketAddr) -> Outcome {
        let (listener, pages) = (TcpListener::bind(at)?, self.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                // A connection that ends badly is the other side's to mend.
                let _ = pages.answer(stream);
            }
        });
        Ok(())
    }

    fn answer(&self, stream: TcpStream) -> Outcome {
        let mut reader = BufReader::new(stream.take(64 << 10));
        let mut first = String::new();
        reader.read_line(&mut first)?;
        let mut line = String::new();
        while reader.read_line(&mut line)? > 2 {
            line.clear();
        }
        let target = first.split(' ').nth(1).unwrap_or_default();
        let path = target.split('?').next().unwrap_or_default();
        let page = self
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .get(path)
            .cloned();
        let (status, body) = page.map_or(("404 Not Found", String::new()), |body| ("200 OK", body));
        let kind = match body.starts_with(['{', '[']) {
            true => "application/json",
            false => "text/plain; version=0.0.4",
        };
        let head = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
            body.len()
        );
        let mut stream = reader.into_inner().into_inner();
        stream.write_all(head.as_bytes())?;
        Ok(stream.write_all(body.as_bytes())?)
    }
}

/// A line of a catalogue's service, as Consul's health API has it.
fn instance(address: &str, port: u16) -> serde_json::Value {
    json!({
        "Node": {"Node": "n1", "Address": "10.9.9.9", "Datacenter": "dc1", "Meta": {"rack": "7"}},
        "Service": {"ID": "web-1", "Service": "web", "Address": address, "Port": port, "Tags": ["blue"], "Meta": {}},
        "Checks": [{"Status": "passing"}],
    })
}

const SCRAPER: &str = "
receivers:
  prometheus:
    config:
      global: {scrape_interval: 500ms, scrape_timeout: 400ms}
      scrape_configs:
        - job_name: srv
          dns_sd_configs: [{names: [_metrics._tcp.test], refresh_interval: 1s}]
        - job_name: a
          dns_sd_configs: [{names: [web.test], type: A, port: 9100, refresh_interval: 1s}]
        - job_name: consul
          consul_sd_configs: [{server: 'localhost:8500', tags: [blue], refresh_interval: 1s}]
          relabel_configs:
            - {source_labels: [__meta_consul_service, __meta_consul_node, __meta_consul_metadata_rack], target_label: from}
exporters: {prometheus: {endpoint: '127.0.0.1:9464', metric_expiration: 5s}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {metrics: {receivers: [prometheus], exporters: [prometheus]}}
";

/// Three targets: the first told by a service's record, the second by its name's address, the third by Consul.
fn findable() -> Outcome<(Dns, Pages)> {
    let dns = Dns::start(at(LOCAL, 53))?;
    let hosts = [1, 2, 3].map(|last| Ipv4Addr::new(127, 0, 2, last));
    for (host, name) in hosts.into_iter().zip(["one", "two", "three"]) {
        dns.set(&format!("{name}.test"), vec![Record::A(host)]);
        let pages = Pages::default();
        pages.set(
            "/metrics",
            format!("# TYPE place gauge\nplace{{of=\"{name}\"}} 1\n"),
        );
        pages.serve(at(host, 9100))?;
    }
    dns.set("_metrics._tcp.test", vec![service("one.test")]);
    dns.set("web.test", vec![Record::A(hosts[1])]);
    let consul = Pages::default();
    consul.set(
        "/v1/catalog/services",
        json!({"web": ["blue"], "other": []}).to_string(),
    );
    consul.set(
        "/v1/health/service/web",
        json!([instance("127.0.2.3", 9100)]).to_string(),
    );
    consul.serve(at(LOCAL, 8500))?;
    Ok((dns, consul))
}

fn service(target: &str) -> Record {
    Record::Srv {
        target: target.to_owned(),
        port: 9100,
    }
}

fn targets(stage: &Stage) -> Outcome {
    alone(|| {
        ask_own_name_server(stage)?;
        let (dns, consul) = findable()?;
        let shown = at(LOCAL, 9464);
        let _collector = Daemon::karez(stage, "collector", SCRAPER)?.listens(&[shown])?;
        sees(
            shown,
            &[
                &[
                    "place{",
                    "of=\"one\"",
                    "job=\"srv\"",
                    "instance=\"one.test:9100\"",
                ],
                &["place{", "of=\"two\"", "job=\"a\"", "instance=\"127.0.2.2:9100\""],
                &["place{", "of=\"three\"", "job=\"consul\"", "from=\"web;n1;7\""],
            ],
        )?;
        // What is found follows what is said.
        dns.set(
            "_metrics._tcp.test",
            vec![service("two.test"), service("three.test")],
        );
        consul.set("/v1/catalog/services", json!({"other": []}).to_string());
        sees(
            shown,
            &[
                &[
                    "place{",
                    "of=\"two\"",
                    "job=\"srv\"",
                    "instance=\"two.test:9100\"",
                ],
                &[
                    "place{",
                    "of=\"three\"",
                    "job=\"srv\"",
                    "instance=\"three.test:9100\"",
                ],
            ],
        )?;
        wait_for("the end of what is gone", 30, || {
            let (_, page) = get(shown, "/metrics")?;
            let left: Vec<&str> = page
                .lines()
                .filter(|line| line.starts_with("place{"))
                .filter(|line| line.contains("one.test") || line.contains("job=\"consul\""))
                .collect();
            Ok(if left.is_empty() {
                Ok(())
            } else {
                Err(format!("{left:?}"))
            })
        })
    })
}

/// Waits until the page has for each of these a line with all its words.
fn sees(at: SocketAddr, wanted: &[&[&str]]) -> Outcome {
    wait_for("the series", 30, || {
        let (_, page) = get(at, "/metrics")?;
        let missing = wanted.iter().find(|words| {
            !page
                .lines()
                .any(|line| words.iter().all(|word| line.contains(word)))
        });
        Ok(match missing {
            None => Ok(()),
            Some(words) => Err(format!("no line with {words:?} in\n{page}")),
        })
    })
}

/// A collector that takes traces at an address of its own, and counts them.
fn backend(stage: &Stage, host: Ipv4Addr) -> Outcome<Daemon> {
    let document = format!(
        "receivers: {{otlp: {{protocols: {{grpc: {{endpoint: '{host}:4317'}}}}}}}}
exporters: {{debug: {{verbosity: basic}}}}
service:
  telemetry: {{metrics: {{readers: [{{pull: {{exporter: {{prometheus: {{host: {host}, port: 8888}}}}}}}}]}}}}
  pipelines: {{traces: {{receivers: [otlp], exporters: [debug]}}}}
"
    );
    Daemon::karez(stage, &format!("backend-{host}"), &document)?.listens(&[at(host, 4317), at(host, 8888)])
}

/// How many spans it has taken.
fn taken(host: Ipv4Addr) -> Outcome<u64> {
    let (_, page) = get(at(host, 8888), "/metrics")?;
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix("otelcol_receiver_accepted_spans_total{"));
    let value = line.and_then(|line| line.rsplit(' ').next()?.parse().ok());
    Ok(value.unwrap_or(0))
}

fn backends(stage: &Stage) -> Outcome {
    alone(|| {
        ask_own_name_server(stage)?;
        let dns = Dns::start(at(LOCAL, 53))?;
        let hosts = [1, 2, 3].map(|last| Ipv4Addr::new(127, 0, 3, last));
        let records = |of: &[Ipv4Addr]| of.iter().map(|host| Record::A(*host)).collect::<Vec<_>>();
        dns.set("backends.test", records(&hosts[..2]));
        let mut running = Vec::new();
        for host in hosts {
            running.push(backend(stage, host)?);
        }
        let document = "
receivers: {otlp: {protocols: {grpc: {endpoint: '127.0.0.1:4317'}}}}
exporters:
  loadbalancing:
    protocol: {otlp: {tls: {insecure: true}}}
    resolver: {dns: {hostname: backends.test, port: 4317, interval: 500ms}}
service:
  telemetry: {metrics: {level: none}}
  pipelines: {traces: {receivers: [otlp], exporters: [loadbalancing]}}
";
        let _balancer = Daemon::karez(stage, "balancer", document)?.listens(&[at(LOCAL, 4317)])?;
        send(50)?;
        let first = shares(&hosts, 100)?;
        ensure!(
            first[0] > 0 && first[1] > 0 && first[2] == 0,
            "two backends share them: {first:?}"
        );
        // Another backend in the place of the first, which is told no more.
        dns.set("backends.test", records(&hosts[1..]));
        let mut sent = 100;
        wait_for("the third backend's share", 30, || {
            send(20)?;
            sent += 40;
            let now = shares(&hosts, sent)?;
            Ok(if now[2] > 0 {
                Ok(())
            } else {
                Err(format!("{now:?}"))
            })
        })?;
        let before = shares(&hosts, sent)?;
        send(50)?;
        let after = shares(&hosts, sent + 100)?;
        ensure!(
            after[0] == before[0] && after[1] > before[1] && after[2] > before[2],
            "{before:?}, then {after:?}"
        );
        Ok(())
    })
}

/// So many traces, of two spans each.
fn send(traces: usize) -> Outcome {
    let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
    command.args([
        "telemetrygen",
        "traces",
        "--otlp-insecure",
        "--otlp-endpoint=127.0.0.1:4317",
    ]);
    run(command.arg(format!("--traces={traces}")))?;
    Ok(())
}

/// What each has, once they have all together.
fn shares(hosts: &[Ipv4Addr; 3], all: u64) -> Outcome<[u64; 3]> {
    wait_for(format_args!("{all} spans"), 30, || {
        let mut shares = [0; 3];
        for (share, host) in shares.iter_mut().zip(hosts) {
            *share = taken(*host)?;
        }
        let sum: u64 = shares.iter().sum();
        Ok(if sum == all {
            Ok(shares)
        } else {
            Err(format!("{shares:?}"))
        })
    })
}
