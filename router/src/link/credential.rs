//! What a peer is admitted by, and how that is renewed and changed while its link is up.
//!
//! ```text
//!  document ─ tokens ─▶ take_over ─▶ Admission ─▶ reaches (each stream), Filter (announcements), ended (the link's end)
//!  document ─ links[].renewal, renewals, authorities ─▶ take_over ─▶ tell ══▶ the peer's heard ─▶ its status
//! ```

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use karez_identity::{CertificateFacts, request_digest};
use karez_router_config::api::{Direction, RenewalStatus, RenewedStatus};
use karez_router_config::{RenewalConfig, RouterConfig};
use karez_topology::{Address, Announcement, Event};
use tokio::sync::watch;

use super::failure::{CloseCode, Failure};
use super::live::LiveLink;
use crate::policy::{
    Admission, CERTIFICATE_ENDED, RefusedFor, TOKEN_REVOKED, filter, is_named_elsewhere, nothing,
};
use crate::shared::{Shared, State};
use crate::wire::{Renewal, WireError, clean};

/// How long an end is waited for before the clock is looked at again, which may have been set meanwhile.
const LOOK_AGAIN: Duration = Duration::from_secs(20);

/// What one side of a link holds by.
pub(crate) struct Credential {
    /// By what the peer is admitted (acceptor only).
    admission: ArcSwapOption<Admission>,
    /// The names that the peer offered last.
    offered: Mutex<BTreeSet<String>>,
    /// What is to be told to the peer.
    tell: watch::Sender<Renewal>,
    /// What the peer asked for, until it is answered (acceptor).
    asked: ArcSwapOption<RenewalStatus>,
    /// What the peer sent (dialler).
    renewed: ArcSwapOption<RenewedStatus>,
}

impl Credential {
    /// Of a link that comes up.
    pub(crate) fn new(admission: Option<Admission>) -> Self {
        Self {
            admission: ArcSwapOption::from_pointee(admission),
            offered: Mutex::default(),
            tell: watch::Sender::default(),
            asked: ArcSwapOption::default(),
            renewed: ArcSwapOption::default(),
        }
    }

    /// By what the peer is admitted.
    pub(crate) fn admission(&self) -> Option<Arc<Admission>> {
        self.admission.load_full()
    }

    /// Whether this admission is by the same token; its certificate may have been renewed between the two.
    pub(crate) fn is_of(&self, admission: Option<&Admission>) -> bool {
        let own = self.admission();
        own.map(|own| own.token.name.clone()) == admission.map(|other| other.token.name.clone())
    }

    /// What the peer asked for.
    pub(crate) fn asked(&self) -> Option<Arc<RenewalStatus>> {
        self.asked.load_full()
    }

    /// What the peer sent.
    pub(crate) fn renewed(&self) -> Option<Arc<RenewedStatus>> {
        self.renewed.load_full()
    }

    /// What is to be told, as it comes.
    pub(crate) fn to_tell(&self) -> watch::Receiver<Renewal> {
        let mut receiver = self.tell.subscribe();
        if *receiver.borrow() != Renewal::default() {
            receiver.mark_changed();
        }
        receiver
    }

    /// Whether the peer may reach an address. Whom we dialled reaches what is exposed here.
    pub(crate) fn reaches(&self, address: &Address) -> bool {
        let admission = self.admission.load();
        admission.as_ref().is_none_or(|admission| {
            let patterns = admission.token.reach.as_deref();
            !admission.is_late
                && patterns.is_none_or(|patterns| {
                    let mut patterns = patterns.iter();
                    patterns.any(|pattern| pattern.matches(address.service(), address.port))
                })
        })
    }

    fn tell(&self, change: impl FnOnce(&mut Renewal)) {
        self.tell.send_if_modified(|renewal| {
            let before = renewal.clone();
            change(renewal);
            *renewal != before
        });
    }
}

/// Whether the certificate that a peer is admitted by is no longer on the document's list.
pub(crate) fn revoked(shared: &Shared, link: &LiveLink) -> bool {
    let Some(admission) = link.credential.admission() else {
        return false;
    };
    let config = shared.read(|state| state.config.clone());
    config.is_none_or(|config| {
        let listed = config.tokens.admit(&admission.serial, &admission.fingerprint);
        listed.is_none()
    })
}

/// Waits until the certificate that the peer holds by has ended without being renewed, then closes the link.
pub(crate) async fn ended(link: &LiveLink) -> Failure {
    loop {
        let Some(admission) = link.credential.admission() else {
            return std::future::pending().await;
        };
        let left = admission.until.duration_since(Timestamp::now());
        match Duration::try_from(left) {
            Ok(left) if !left.is_zero() => tokio::time::sleep(left.min(LOOK_AGAIN)).await,
            _ => {
                link.close(CloseCode::Revoked, CERTIFICATE_ENDED);
                return Failure::refused(CERTIFICATE_ENDED);
            }
        }
    }
}

/// Takes what a peer says about renewal.
pub(crate) fn heard(shared: &Shared, link: &LiveLink, renewal: &Renewal) -> Result<(), WireError> {
    renewal.checked()?;
    match link.direction {
        Direction::Incoming => {
            let Some(admission) = link.credential.admission() else {
                return Ok(());
            };
            if renewal.request.is_empty() {
                return Err(WireError::Content("a renewal without a request"));
            }
            link.credential.asked.store(Some(Arc::new(RenewalStatus {
                token: link.name.clone(),
                fingerprint: admission.fingerprint.clone(),
                request: renewal.request.clone(),
            })));
            // It may have been answered before, over a link that broke meanwhile.
            if let Some(config) = shared.read(|state| state.config.clone()) {
                answer(link, &config);
                believe(shared, link);
            }
        }
        Direction::Outgoing => {
            tracing::info!(
                link = link.name,
                peer = link.peer.name,
                "the peer sent a renewed credential"
            );
            link.credential.renewed.store(Some(Arc::new(RenewedStatus {
                certificate: renewal.certificate.clone(),
                authorities: renewal.authorities.clone(),
            })));
        }
    }
    shared.touch();
    Ok(())
}

/// Makes a document hold for links that are up: what their peers may do, and what is to be told to them.
pub(crate) fn take_over(shared: &Shared, config: &RouterConfig) {
    let live: Vec<_> = shared.read(|state| state.live.values().cloned().collect());
    shared.change(|state| state.holders.keep(&config.tokens));
    for link in live {
        match link.direction {
            Direction::Outgoing => ask(&link, config),
            Direction::Incoming => {
                rescope(&link, config);
                answer(&link, config);
                believe(shared, &link);
                authorities(&link, config);
            }
        }
    }
}

/// What is to be told over a link that comes up.
pub(crate) fn begin(shared: &Shared, link: &LiveLink) {
    let Some(config) = shared.read(|state| state.config.clone()) else {
        return;
    };
    match link.direction {
        Direction::Outgoing => ask(link, &config),
        Direction::Incoming => {
            if let Some(late) = link.credential.admission().filter(|admission| admission.is_late) {
                let (link, peer, ended) = (&link.name, &link.peer.name, late.not_after);
                tracing::warn!(link, peer, %ended, "the peer's certificate has ended: it is let in to renew it, and for nothing else");
            }
            believe(shared, link);
            authorities(link, &config);
        }
    }
}

/// Asks for a renewed certificate.
fn ask(link: &LiveLink, config: &RouterConfig) {
    let request = config
        .links
        .get(&link.name)
        .and_then(|config| config.renewal.clone());
    if let Some(request) = request {
        link.credential.tell(|renewal| renewal.request = request);
    }
}

/// Tells of another authority that takes over.
fn authorities(link: &LiveLink, config: &RouterConfig) {
    if let Some(authorities) = &config.authorities {
        link.credential
            .tell(|renewal| renewal.authorities.clone_from(authorities));
    }
}

/// Takes over what the token may do now.
fn rescope(link: &LiveLink, config: &RouterConfig) {
    let Some(old) = link.credential.admission() else {
        return;
    };
    let Some(token) = config.tokens.admit(&old.serial, &old.fingerprint) else {
        return;
    };
    if old.token != *token {
        let end = if old.is_late { old.until } else { old.not_after };
        let until = token.until.map_or(end, |until| until.min(end));
        let admission = Admission {
            until,
            token: token.clone(),
            ..(*old).clone()
        };
        link.credential.admission.store(Some(Arc::new(admission)));
    }
}

/// Answers a request that the document has a certificate for; from then on the peer holds by that.
fn answer(link: &LiveLink, config: &RouterConfig) {
    let (Some(asked), Some(old)) = (link.credential.asked(), link.credential.admission()) else {
        return;
    };
    let key = (asked.token.clone(), request_digest(asked.request.as_bytes()));
    let Some(RenewalConfig {
        certificate,
        authorities,
    }) = config.renewals.get(&key)
    else {
        return;
    };
    let facts = match CertificateFacts::from_pem(certificate.as_bytes()) {
        Ok(facts) => facts,
        Err(error) => return tracing::warn!(link = link.name, %error, "a renewed certificate cannot be read"),
    };
    // Only what the list admits extends a link.
    let Some(token) = config.tokens.admit(&facts.serial, &facts.fingerprint) else {
        return;
    };
    let admission = Admission {
        until: token
            .until
            .map_or(facts.not_after, |end| end.min(facts.not_after)),
        not_after: facts.not_after,
        is_late: facts.not_after <= Timestamp::now(),
        token: token.clone(),
        serial: facts.serial,
        fingerprint: facts.fingerprint,
    };
    tracing::info!(
        link = link.name,
        peer = link.peer.name,
        before = %old.until,
        until = %admission.until,
        "credential renewed"
    );
    link.credential.admission.store(Some(Arc::new(admission)));
    link.credential.asked.store(None);
    link.credential.tell(|renewal| {
        renewal.certificate.clone_from(certificate);
        renewal.authorities.clone_from(authorities);
    });
}

/// What of an edge's announcement is believed; the names in it decide what the topology takes.
pub(crate) fn offers(shared: &Shared, link: &LiveLink, said: Arc<Announcement>) -> Arc<Announcement> {
    let Some(admission) = link.credential.admission() else {
        return said;
    };
    let names = said.services.iter().map(|service| service.address.clone());
    let names = names
        .chain(said.routes.iter().map(|route| route.address.service().to_owned()))
        .collect();
    *lock(&link.credential.offered) = names;
    believe(shared, link);
    let may = |name: &str, port: u16| {
        let patterns = admission.token.offer.as_deref();
        patterns.is_none_or(|patterns| patterns.iter().any(|pattern| pattern.matches(name, port)))
    };
    let is_named = |address: &Address| {
        let patterns = admission.token.offer.iter().flatten();
        patterns
            .into_iter()
            .any(|pattern| pattern.names(address.service()))
    };
    // What is not named at all the topology refuses, and says so; here only ports of what is named.
    let unfit = |address: &Address| is_named(address) && !may(address.service(), address.port);
    if !said.routes.iter().any(|route| unfit(&route.address)) {
        return said;
    }
    let mut said = (*said).clone();
    said.routes.retain(|route| {
        let refused = unfit(&route.address);
        if refused {
            shared.metrics.refused(RefusedFor::Offer);
            let address = &route.address;
            tracing::warn!(link = link.name, %address, "the peer offers a port that it may not offer: not believed");
        }
        !refused
    });
    Arc::new(said)
}

/// Sets what the topology believes of a peer, and tells it, by its token and by what others hold.
fn believe(shared: &Shared, link: &LiveLink) {
    let Some(admission) = link.credential.admission() else {
        return;
    };
    let names = lock(&link.credential.offered).clone();
    let filter = shared.settle(|state| {
        let sharing = state
            .config
            .as_ref()
            .map(|config| config.sharing)
            .unwrap_or_default();
        let mut holders = std::mem::take(&mut state.holders);
        let reserved = |name: &str| is_reserved(state, link, &admission, name);
        let denied = holders.offer(
            &admission.token,
            sharing,
            names.iter().map(String::as_str),
            reserved,
        );
        state.holders = holders;
        if admission.is_late {
            nothing()
        } else {
            filter(&admission.token, denied)
        }
    });
    if **link.filter.load() != filter {
        link.filter.store(Arc::new(filter.clone()));
        shared.event(Event::LinkFilter {
            link: link.id,
            filter,
        });
    }
}

/// Whether a name is this site's own, another token's, or another site's already.
fn is_reserved(state: &State, link: &LiveLink, admission: &Admission, name: &str) -> bool {
    let Some(config) = &state.config else { return true };
    let own = config.services.contains_key(name)
        || config
            .connectors
            .values()
            .any(|connector| connector.address.name == name);
    own || is_named_elsewhere(&config.tokens, &admission.token, name) || is_elsewhere(state, link, name)
}

/// Whether another site offers the name.
fn is_elsewhere(state: &State, link: &LiveLink, name: &str) -> bool {
    state.topology.is_defined_elsewhere(&link.peer.id, name)
}

/// What a refused peer is told of, and by what it is counted: the one place for both.
pub(crate) fn note_refusal(shared: &Shared, from: std::net::IpAddr, failure: &Failure) {
    let reason = RefusedFor::of(&failure.text);
    shared.metrics.refused(reason);
    shared.refused(from, &clean(&failure.text, 256));
}

/// Closes a link whose token is gone.
pub(crate) fn revoke(shared: &Shared, link: &LiveLink) {
    tracing::warn!(
        link = link.name,
        peer = link.peer.name,
        "token revoked: link closed"
    );
    shared.metrics.refused(RefusedFor::Revoked);
    link.close(CloseCode::Revoked, TOKEN_REVOKED);
    shared.link_down(link.id);
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    // It holds a set that is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
