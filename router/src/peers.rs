//! The other routers of this site: found by a name that has the address of each, and linked to as interior routers.
//!
//! ```text
//!  document's router.peers ──resolve──▶ addresses ──▶ link/dial.rs, one task an address that is above our own
//! ```
//!
//! Of two routers the one with the lower address dials, so that there is one link between them. They prove themselves to
//! each other with the site's own certificate, which no other site has.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Duration;

use karez_identity::CertificateFacts;
use karez_router_config::LinkConfig;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use crate::link::{Dial, dial};
use crate::profiles::{Profile, usable};
use crate::shared::Shared;

/// How often the name is looked up again.
const LOOK_AGAIN: Duration = Duration::from_secs(5);
/// More routers of one site are not linked to.
const ROUTERS: usize = 32;

/// A link to one of them.
struct Peer {
    stop: CancellationToken,
    handle: JoinHandle<()>,
    _cost: watch::Sender<u32>,
}

/// Keeps links to the other routers of this site until `stop`.
pub(crate) async fn link_peers(
    shared: Arc<Shared>,
    config: LinkConfig,
    mut profile: watch::Receiver<Profile>,
    stop: CancellationToken,
) {
    let mut peers: BTreeMap<IpAddr, Peer> = BTreeMap::new();
    let run = async {
        loop {
            admit_own(&shared, &usable(&mut profile).await);
            follow(&shared, &config, &profile, &mut peers).await;
            tokio::select! {
                () = sleep(LOOK_AGAIN) => {}
                Ok(()) = profile.changed() => {}
            }
        }
    };
    tokio::select! {
        () = stop.cancelled() => {}
        () = shared.shutdown.triggered() => {}
        () = run => {}
    }
    shared.own_certificate.store(None);
    for peer in peers.values() {
        peer.stop.cancel();
    }
    for peer in peers.into_values() {
        // It only ends links, and cannot fail otherwise than by a defect that was logged.
        let _ = peer.handle.await;
    }
}

/// From now on whoever proves itself with the site's own certificate is one of its routers.
fn admit_own(shared: &Shared, profile: &Profile) {
    let Profile::Ready(material) = profile else { return };
    match material.facts() {
        Ok(CertificateFacts { fingerprint, .. }) => {
            shared.own_certificate.store(Some(Arc::new(fingerprint)));
        }
        Err(error) => tracing::error!(%error, "the certificate of this site's routers is not usable"),
    }
}

/// Begins and ends links, as the name's addresses are now.
async fn follow(
    shared: &Arc<Shared>,
    config: &LinkConfig,
    profile: &watch::Receiver<Profile>,
    peers: &mut BTreeMap<IpAddr, Peer>,
) {
    // While the name has no address, what is linked stays.
    let Ok(addresses) = shared.net.resolve(&config.host, config.port).await else {
        return;
    };
    let others: Vec<IpAddr> = addresses
        .into_iter()
        .filter(|address| {
            let own = shared.net.pod_address().or_else(|| own_address(*address));
            own.is_some_and(|own| own < address.ip())
        })
        .map(|address| address.ip())
        .take(ROUTERS)
        .collect();
    peers.retain(|address, peer| {
        let stays = others.contains(address);
        if !stays {
            peer.stop.cancel();
        }
        stays
    });
    for address in others {
        if peers.contains_key(&address) {
            continue;
        }
        let (costs, cost) = watch::channel(config.cost);
        let link = Dial {
            name: format!("peer-{address}"),
            config: LinkConfig {
                host: address.to_string(),
                ..config.clone()
            },
            cost,
            profile: profile.clone(),
        };
        let stop = CancellationToken::new();
        let peer = Peer {
            handle: tokio::spawn(dial(shared.clone(), link, stop.clone())),
            stop,
            _cost: costs,
        };
        peers.insert(address, peer);
    }
}

/// Which of our addresses we would speak to this one from; no packet is sent to find out.
fn own_address(peer: SocketAddr) -> Option<IpAddr> {
    let any: SocketAddr = match peer {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).ok()?;
    socket.connect(peer).ok()?;
    socket.local_addr().ok().map(|own| own.ip())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_two_addresses_one_dials() {
        let own = own_address(([127, 0, 0, 1], 9).into()).unwrap();
        assert_eq!(own, IpAddr::from([127, 0, 0, 1]), "oneself is not below oneself");
    }
}
