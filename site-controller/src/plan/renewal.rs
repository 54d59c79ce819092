//! Renewal of links' credentials, at both ends, without the issuer's authority leaving the site-level controller.
//!
//! ```text
//!  holder                                          issuer
//!  near its end: a new key in the token's Secret
//!  document: links[].renewal ─▶ router ══ link ══▶ router ─▶ status: renewals[]
//!                                                    │ service-level: request-….csr into the token's record
//!                                                    │ site-level:    renewed-….crt in its place
//!  status: links[].renewed  ◀─ router ══ link ══◀ router ◀─ document: renewals[], tokens[]
//!  the certificate, with its key, takes the old one's place
//! ```

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use karez_identity::{CertificateFacts, CertificateRequest, ConnectionToken, request_digest, signed_by};
use karez_kubernetes::labels;
use karez_router_config as router;
use karez_router_config::api::{Direction, LinkStatus, RenewedStatus};
use kube::ResourceExt;

use super::certificates::{annotation, bytes};
use super::{Note, Plan, SecretChange};
use crate::object::reference;
use crate::snapshot::ServiceSnapshot;

/// Data key of a holder's next private key.
pub(crate) const NEXT_KEY: &str = "next.key";
/// Data key of a holder's request for the next certificate.
pub(crate) const NEXT_REQUEST: &str = "next.csr";
/// How keys of requests begin in an issuer's record.
const REQUEST: &str = "request-";
/// How keys of renewed certificates begin in an issuer's record.
const RENEWED: &str = "renewed-";
/// Requests that one record holds at once.
const REQUESTS: usize = 64;
/// Digits of a request's digest that name it in a record.
const DIGITS: usize = 16;

/// Data key of a request in the record.
fn request_key(digest: &str) -> String {
    format!("{REQUEST}{}.csr", &digest[..DIGITS.min(digest.len())])
}

/// Data key of the certificate that answers a request.
fn renewed_key(digest: &str) -> String {
    format!("{RENEWED}{}.crt", &digest[..DIGITS.min(digest.len())])
}

/// Requests that wait in a record: data key and request.
pub(crate) fn waiting(record: &Secret) -> Vec<(String, Vec<u8>)> {
    let data = record.data.iter().flatten();
    data.filter(|(key, _)| key.starts_with(REQUEST))
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect()
}

/// What the key of a request becomes once it is answered.
pub(crate) fn answered_key(request: &str) -> String {
    let digits = request.trim_start_matches(REQUEST).trim_end_matches(".csr");
    format!("{RENEWED}{digits}.crt")
}

/// Certificates that renewed the one that a record was made with.
pub(crate) fn renewed(record: &Secret) -> impl Iterator<Item = (&String, &[u8])> {
    let data = record.data.iter().flatten();
    data.filter(|(key, _)| key.starts_with(RENEWED))
        .map(|(key, value)| (key, value.0.as_slice()))
}

/// Plans what renewal needs; adds to the document what the router is to send.
pub(crate) fn plan(
    snapshot: &ServiceSnapshot,
    document: &mut router::RouterDocument,
    now: Timestamp,
    plan: &mut Plan,
) {
    answer(snapshot, document, plan);
    document.authorities = authorities(snapshot);
    remember_users(snapshot, plan);
    for secret in &snapshot.tokens {
        let is_link = super::tokens::kind(secret) == Some(labels::TYPE_TOKEN)
            && annotation(secret, labels::GENERATED_BY) != Some(&snapshot.site.id);
        if is_link && secret.metadata.deletion_timestamp.is_none() {
            hold(snapshot, secret, document, now, plan);
        }
    }
}

/// Whom the holders of this site's tokens are to believe: all records say the same.
fn authorities(snapshot: &ServiceSnapshot) -> Option<String> {
    let own = snapshot.tokens.iter().filter(|secret| {
        super::tokens::kind(secret) == Some(labels::TYPE_TOKEN)
            && annotation(secret, labels::GENERATED_BY) == Some(&snapshot.site.id)
    });
    let record = own.min_by_key(|secret| secret.metadata.name.clone())?;
    let bundle = bytes(record, "ca.crt").filter(|bundle| !bundle.is_empty())?;
    Some(String::from_utf8_lossy(bundle).into_owned())
}

/// Takes peers' requests into the records, and answers of the site-level controller into the document.
fn answer(snapshot: &ServiceSnapshot, document: &mut router::RouterDocument, plan: &mut Plan) {
    let requests = snapshot.status.iter().flat_map(|status| &status.renewals);
    for asked in requests {
        let record = snapshot.tokens.iter().find(|secret| {
            secret.metadata.name.as_ref() == Some(&asked.token)
                && annotation(secret, labels::GENERATED_BY) == Some(&snapshot.site.id)
        });
        let Some(record) = record else { continue };
        let digest = request_digest(asked.request.as_bytes());
        if let Some(certificate) = bytes(record, &renewed_key(&digest)) {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            document.renewals.push(router::RenewalSection {
                token: asked.token.clone(),
                request: digest,
                certificate: text(certificate),
                authorities: bytes(record, "ca.crt").map(text).unwrap_or_default(),
            });
        } else if bytes(record, &request_key(&digest)).is_none() && waiting(record).len() < REQUESTS {
            // A request that is none is not worth keeping; its sender is told by silence.
            if CertificateRequest::from_pem(asked.request.as_bytes()).is_ok() {
                plan.changes.push(SecretChange {
                    secret: asked.token.clone(),
                    data: BTreeMap::from([(request_key(&digest), Some(asked.request.clone().into_bytes()))]),
                    ..SecretChange::default()
                });
            }
        }
    }
}

/// Writes on a limited token which sites have used it, so that a restart forgets none.
fn remember_users(snapshot: &ServiceSnapshot, plan: &mut Plan) {
    let links = snapshot.status.iter().flat_map(|status| &status.links);
    let mut users: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    for link in links.filter(|link| link.direction == Direction::Incoming) {
        if let (Some(token), Some(peer)) = (&link.token, &link.peer) {
            users.entry(token).or_default().push(&peer.site_id);
        }
    }
    for secret in &snapshot.tokens {
        let Some(using) = secret.metadata.name.as_deref().and_then(|name| users.get(name)) else {
            continue;
        };
        if annotation(secret, karez_identity::ANNOTATION_USES).is_none() {
            continue;
        }
        let known = annotation(secret, karez_identity::ANNOTATION_USED_BY)
            .cloned()
            .unwrap_or_default();
        let mut all: Vec<&str> = known.split(',').filter(|id| !id.is_empty()).collect();
        let before = all.len();
        for site in using {
            if !all.contains(site) {
                all.push(site);
            }
        }
        if all.len() > before {
            plan.changes.push(SecretChange {
                secret: secret.name_any(),
                annotations: BTreeMap::from([(karez_identity::ANNOTATION_USED_BY.to_owned(), all.join(","))]),
                ..SecretChange::default()
            });
        }
    }
}

/// One credential that we link with: asks for the next, or takes it over.
fn hold(
    snapshot: &ServiceSnapshot,
    secret: &Secret,
    document: &mut router::RouterDocument,
    now: Timestamp,
    plan: &mut Plan,
) {
    let name = secret.name_any();
    let Some(Ok(facts)) = bytes(secret, "tls.crt").map(CertificateFacts::from_pem) else {
        return;
    };
    let link = snapshot.status.iter().flat_map(|status| &status.links);
    let link = link
        .filter(|link| link.direction == Direction::Outgoing)
        .find(|link| link.name == name);
    if let Some(sent) = link.and_then(|link: &LinkStatus| link.renewed.as_ref()) {
        match take_over(secret, &facts, sent) {
            Ok(Some(change)) => plan.changes.push(change),
            Ok(None) => {}
            Err(reason) => plan.notes.push(Note {
                about: reference("v1", "Secret", &secret.metadata),
                warning: true,
                reason: "RenewalNotTaken",
                message: format!("the peer sent a renewed certificate that is not taken over: {reason}"),
            }),
        }
    }
    if let Some(request) = bytes(secret, NEXT_REQUEST) {
        if let Some(link) = document.links.iter_mut().find(|link| link.name == name) {
            link.renewal = Some(String::from_utf8_lossy(request).into_owned());
        }
    } else if facts.renew_at() <= now || is_of_predecessor(secret, &facts) {
        plan.keys.push(name);
    } else {
        plan.again(facts.renew_at());
    }
}

/// Whether a certificate is of an authority that another one follows: it was made before the first of those believed, who
/// is the newest, and not by it.
fn is_of_predecessor(secret: &Secret, facts: &CertificateFacts) -> bool {
    let (Some(certificate), Some(believed)) = (bytes(secret, "tls.crt"), bytes(secret, "ca.crt")) else {
        return false;
    };
    let Ok(newest) = CertificateFacts::from_pem(believed) else {
        return false;
    };
    let first = first_block(believed);
    newest.not_before > facts.not_before && matches!(signed_by(certificate, first), Ok(false))
}

/// The first certificate of a bundle.
fn first_block(bundle: &[u8]) -> &[u8] {
    const END: &[u8] = b"-----END CERTIFICATE-----";
    let end = bundle.windows(END.len()).position(|window| window == END);
    end.map_or(bundle, |at| &bundle[..at + END.len()])
}

/// What of an answer is taken over; why it is not.
fn take_over(
    secret: &Secret,
    current: &CertificateFacts,
    sent: &RenewedStatus,
) -> Result<Option<SecretChange>, String> {
    let authorities = sent.authorities.as_bytes();
    let mut data = BTreeMap::new();
    if !sent.certificate.is_empty() && bytes(secret, NEXT_REQUEST).is_some() {
        let certificate = sent.certificate.as_bytes();
        let text = |error: &dyn std::fmt::Display| error.to_string();
        let request = bytes(secret, NEXT_REQUEST).unwrap_or_default();
        let request = CertificateRequest::from_pem(request).map_err(|error| text(&error))?;
        // An answer to an earlier request is still shown: it was taken over before.
        if !request.is_answered_by(certificate) {
            return Ok(None);
        }
        let facts = CertificateFacts::from_pem(certificate).map_err(|error| text(&error))?;
        // One of the successor is worth having, even if it ends no later: its predecessor's is soon worth nothing.
        if facts.not_after <= current.not_after && !is_of_predecessor(secret, current) {
            return Err(format!(
                "it ends at {}, no later than the one in use",
                facts.not_after
            ));
        }
        if !signed_by(certificate, authorities).map_err(|error| text(&error))? {
            return Err("it is not signed by the authority that came with it".to_owned());
        }
        let key = bytes(secret, NEXT_KEY).ok_or("its private key is gone")?;
        data.insert("tls.crt".to_owned(), Some(certificate.to_vec()));
        data.insert("tls.key".to_owned(), Some(key.to_vec()));
        data.insert(NEXT_KEY.to_owned(), None);
        data.insert(NEXT_REQUEST.to_owned(), None);
    }
    // Authorities come over a link that was made under one that is believed already.
    if !authorities.is_empty() && bytes(secret, "ca.crt") != Some(authorities) {
        CertificateFacts::from_pem(authorities).map_err(|error| error.to_string())?;
        data.insert("ca.crt".to_owned(), Some(authorities.to_vec()));
    }
    Ok((!data.is_empty()).then(|| SecretChange {
        secret: secret.name_any(),
        data,
        ..SecretChange::default()
    }))
}

/// The entries of the router's list for the certificates that renewed a token's, but for those that ended too long ago.
pub(crate) fn sections(
    record: &Secret,
    token: &ConnectionToken,
    ended_before: Timestamp,
) -> Vec<router::TokenSection> {
    let read = renewed(record).filter_map(|(_, certificate)| CertificateFacts::from_pem(certificate).ok());
    read.filter(|facts| facts.not_after > ended_before)
        .map(|facts| super::router_document::token_section(token, &facts))
        .collect()
}
