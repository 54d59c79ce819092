//! A service of UDP from one site to the other: exposed by command, offered as a Service, carried both ways.

use std::net::UdpSocket;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::json;

use crate::support::Outcome;
use crate::support::cluster::text;
use crate::support::site::{Pair, TOKEN, plain_sites, save};
use crate::support::stage::Stage;
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![trial(
        "datagrams::a_service_of_udp_is_reached_from_the_other_site",
        &[],
        exposed_over_udp,
    )]
}

/// Answers every datagram with itself for as long as it lives.
struct Mirror {
    port: u16,
    stop: Arc<AtomicBool>,
}

impl Mirror {
    /// Not on the loopback address itself: to a Pod that would be the Pod.
    const HOST: &str = "127.9.9.9";

    fn start() -> Outcome<Self> {
        let socket = UdpSocket::bind((Self::HOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(100)))?;
        let port = socket.local_addr()?.port();
        let stop = Arc::<AtomicBool>::default();
        let stopped = stop.clone();
        std::thread::spawn(move || {
            let mut buffer = vec![0; 65_535];
            while !stopped.load(Ordering::Relaxed) {
                if let Ok((length, from)) = socket.recv_from(&mut buffer) {
                    let _ = socket.send_to(&buffer[..length], from);
                }
            }
        });
        Ok(Self { port, stop })
    }
}

impl Drop for Mirror {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn exposed_over_udp(stage: &Stage) -> Outcome {
    let mirror = Mirror::start()?;
    let (public, edge) = plain_sites(stage)?;
    let service = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "mirror"},
        "spec": {"type": "ExternalName", "externalName": Mirror::HOST,
            "ports": [{"name": "mirror", "port": mirror.port, "protocol": "UDP"}]}});
    save(&service, &public.join("30-mirror.yaml"))?;
    let pair = Pair::link(stage, &public, &edge)?;
    let expose = [
        "expose",
        "service/mirror",
        "--address",
        "mirrored",
        "--protocol",
        "udp",
    ];
    pair.public.karez(stage, &expose)?;

    let cluster = pair.edge.cluster()?;
    let offered = cluster.wait("/api/v1/namespaces/default/services/mirrored", 60)?;
    ensure!(
        text(&offered, "/spec/ports/0/protocol") == "UDP",
        "the address's Service: {offered}"
    );
    let place = cluster.wait_endpoint("default", "mirrored", text(&offered, "/spec/ports/0/name"), 60)?;
    let client = UdpSocket::bind("127.0.0.1:0")?;
    client.set_read_timeout(Some(Duration::from_millis(500)))?;
    for size in [5, 9_000, 60_000] {
        let sent = vec![b'x'; size];
        wait_for(format_args!("a datagram of {size} bytes comes back"), 60, || {
            client.send_to(&sent, place)?;
            let mut buffer = vec![0; 65_535];
            Ok(match client.recv_from(&mut buffer) {
                Ok((length, _)) if buffer[..length] == sent => Ok(()),
                Ok((length, _)) => Err(format!("{length} bytes")),
                Err(error) => Err(error.to_string()),
            })
        })?;
    }
    let services = pair.edge.karez(stage, &["service", "status"])?;
    ensure!(
        services.contains(&format!("mirrored (udp port {})", mirror.port)),
        "{services}"
    );
    let link = pair.edge.karez(stage, &["link", "status", "--verbose"])?;
    for word in [&format!("Link {TOKEN} is active"), "transport:", "token ends:"] {
        ensure!(link.contains(word), "{word} is not in:\n{link}");
    }
    Ok(())
}
