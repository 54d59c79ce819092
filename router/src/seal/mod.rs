//! Connections that are encrypted from the first to the last site: routers between carry what they cannot read.
//!
//! ```text
//!  document: seal.tls ─▶ profile ─▶ material.rs: what this site may serve and reach sealed, and whom it believes
//!
//!  client ─▶ first router: `outgoing` ── sealed? ──▶ Open { sealed } ══ routers between ══▶ last router: `incoming`
//!               session.rs ◀═══════ TLS 1.3, both certificates, bound to address and client ═══════▶ session.rs
//!               halves.rs  ◀════════════════════════ records ═══════════════════════════════════▶ halves.rs ─▶ target
//! ```
//!
//! Nothing that comes over a link decides whether something goes in plain: a first router whose own certificate names an
//! address carries it sealed or refuses the client, and a last router whose document says so takes nothing else.

mod halves;
mod material;
mod session;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use jiff::Timestamp;
use karez_topology::{Address, Fingerprint};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::metrics::Fault;
use crate::profiles::Profile;
use crate::shared::Shared;

pub(crate) use halves::{SealedReceive, SealedSend};
pub(crate) use material::Material;
pub(crate) use session::{Sealed, accept, connect};

/// What goes on being wrong is said again after this.
const SAID_AGAIN: Duration = Duration::from_secs(60);
/// More of it at once is counted only.
const SAID_AT_ONCE: usize = 64;

/// What this site has for the ends of sealed connections.
#[derive(Clone, Default)]
pub(crate) enum Hold {
    /// The document names no profile for it.
    #[default]
    Nothing,
    /// It names one that cannot be used; the reason.
    Waiting(String),
    /// It can seal.
    Ready(Arc<Material>),
}

impl Hold {
    fn of(profile: &Profile) -> Self {
        match profile {
            Profile::Waiting(reason) => Self::Waiting(reason.clone()),
            Profile::Ready(material) => match Material::read(material) {
                Ok(material) => Self::Ready(Arc::new(material)),
                Err(reason) => Self::Waiting(reason),
            },
        }
    }

    fn ready(&self) -> Result<&Arc<Material>, String> {
        match self {
            Self::Nothing => {
                Err("this site has no seal certificate: apply the one that was made for it".to_owned())
            }
            Self::Waiting(reason) => Err(format!("this site's seal certificate is not usable: {reason}")),
            Self::Ready(material) => material.in_time(Timestamp::now()).map(|()| material),
        }
    }

    /// Who vouches for this site when it serves an address sealed.
    pub(crate) fn vouches(&self, address: &Address) -> Option<Fingerprint> {
        match self {
            Self::Ready(material) if material.serves(address) => Some(material.authority),
            _ => None,
        }
    }

    /// How a connection from here to another site goes: sealed, in plain, or not at all, and why.
    ///
    /// `only` is what the listener says, `offered` what the network says. The network can ask for more, never for less.
    pub(crate) fn outgoing(
        &self,
        address: &Address,
        only: bool,
        offered: &[Fingerprint],
    ) -> Result<Option<Arc<Material>>, String> {
        if address.is_udp() {
            return match offered {
                [] => Ok(None),
                _ => Err("the address is said to be sealed, and datagrams cannot be".to_owned()),
            };
        }
        let named = matches!(self, Self::Ready(material) if material.reaches(address));
        if !only && !named && offered.is_empty() {
            return Ok(None);
        }
        let refused = |reason: String| format!("the address is reached sealed or not at all, and {reason}");
        let material = self.ready().map_err(refused)?;
        if !material.reaches(address) {
            let reason = "this site's seal certificate does not name it among what it reaches: have one made that does";
            return Err(refused(reason.to_owned()));
        }
        if !offered.is_empty() && !offered.iter().any(|one| material.believes(one)) {
            let reason = "its site's seal certificate is of another authority than this site's";
            return Err(refused(reason.to_owned()));
        }
        Ok(Some(material.clone()))
    }

    /// How a connection from another site to a target here is taken: sealed, in plain, or not at all, and why.
    pub(crate) fn incoming(
        &self,
        address: &Address,
        only: bool,
        asked: bool,
    ) -> Result<Option<Arc<Material>>, String> {
        if !asked {
            return match only {
                true => Err(
                    "the address takes only connections that are sealed from the first to the last site"
                        .to_owned(),
                ),
                false => Ok(None),
            };
        }
        let refused = |reason: String| format!("a sealed connection cannot be taken: {reason}");
        let material = self.ready().map_err(refused)?;
        if !material.serves(address) {
            return Err(refused(format!(
                "the seal certificate of its site does not name {address} among what it serves"
            )));
        }
        Ok(Some(material.clone()))
    }
}

/// What this site has, for every connection; and what was said lately, so that nobody can fill the log.
#[derive(Default)]
pub(crate) struct Seals {
    hold: ArcSwap<Hold>,
    said: Mutex<HashMap<String, Instant>>,
}

impl Seals {
    /// What this site has now.
    pub(crate) fn hold(&self) -> Arc<Hold> {
        self.hold.load_full()
    }

    pub(crate) fn set(&self, hold: Hold) {
        self.hold.store(Arc::new(hold));
    }

    fn is_news(&self, what: String) -> bool {
        let mut said = self.said.lock().expect("nothing panics while it is held");
        said.retain(|_, at| at.elapsed() < SAID_AGAIN);
        said.len() < SAID_AT_ONCE && said.insert(what, Instant::now()).is_none()
    }
}

/// Counts a connection that was refused or broken because of its seal, and logs it unless it was said lately.
pub(crate) fn complain(shared: &Shared, address: &Address, site: &str, reason: &str) {
    shared.metrics.fault(Fault::Seal);
    if shared.seals.is_news(format!("{address} {site} {reason}")) {
        tracing::warn!(%address, site, reason, "a sealed connection was refused or broken");
    }
}

/// Follows the profile until `stop`.
pub(crate) async fn follow(
    shared: Arc<Shared>,
    mut profile: watch::Receiver<Profile>,
    stop: CancellationToken,
) {
    loop {
        let hold = Hold::of(&profile.borrow_and_update());
        match &hold {
            Hold::Ready(material) => {
                tracing::info!(site = material.site, until = %material.until, "this site can seal connections");
            }
            Hold::Waiting(reason) => tracing::warn!(reason, "this site cannot seal connections"),
            Hold::Nothing => {}
        }
        crate::reload::take_seal(&shared, hold);
        tokio::select! {
            () = stop.cancelled() => break,
            changed = profile.changed() => if changed.is_err() {
                stop.cancelled().await;
                break;
            },
        }
    }
    crate::reload::take_seal(&shared, Hold::Nothing);
}

#[cfg(test)]
mod tests;
