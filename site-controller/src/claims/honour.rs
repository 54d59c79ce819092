//! A claim at its issuer: name and password in, a token for this one redeemer out.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use karez_identity::{
    ANNOTATION_EXPIRES, ANNOTATION_OFFER, ANNOTATION_REACH, ANNOTATION_ROLE, ANNOTATION_USED_BY,
    ANNOTATION_USES, ClaimRecord, Refusal,
};
use karez_kubernetes::{FIELD_MANAGER_SERVICE, labels};
use kube::api::{DeleteParams, PostParams};
use kube::runtime::wait;
use kube::{Api, Client, ResourceExt};

use crate::object::{Strings, strings};
use crate::plan::tokens::kind;

/// How long the site-level controller may take to sign.
const SIGNING: Duration = Duration::from_secs(30);
/// Tries to count a redemption while others change the record.
const TRIES: usize = 5;
/// Denials remembered.
const REMEMBERED: usize = 32;
/// How long a denial is told of.
const TOLD: SignedDuration = SignedDuration::from_mins(10);

/// Why a redeemer goes away without a token.
#[derive(Debug, thiserror::Error)]
pub(super) enum Denied {
    /// No record of this name.
    #[error("No such claim")]
    Unknown,
    /// The record refuses.
    #[error("{0}")]
    Refused(#[source] Refusal),
    /// The API refuses, or others change the record all the time.
    #[error("Internal error")]
    Api(#[source] Box<kube::Error>),
    /// The record could not be counted down.
    #[error("Internal error")]
    Busy,
    /// The site-level controller did not sign in time.
    #[error("Internal error")]
    NotSigned,
}

impl Denied {
    /// The HTTP status.
    pub(super) fn status(&self) -> u16 {
        match self {
            Self::Unknown => 404,
            Self::Refused(refusal) => refusal.status(),
            Self::Api(_) | Self::Busy | Self::NotSigned => 503,
        }
    }

    /// Whether it counts as a wrong try.
    pub(super) fn is_wrong_try(&self) -> bool {
        matches!(
            self,
            Self::Unknown | Self::Refused(Refusal::Password | Refusal::Expired | Refusal::UsedUp)
        )
    }

    /// For the issuer's operator.
    pub(super) fn reason(&self) -> String {
        match self {
            Self::Unknown => "no such claim".to_owned(),
            Self::Refused(refusal) => refusal.reason().to_owned(),
            Self::Api(error) => error.to_string(),
            Self::Busy => "its record is changed by others all the time".to_owned(),
            Self::NotSigned => "the site-controller did not sign in time: is it running?".to_owned(),
        }
    }
}

/// What was denied lately, to be told on the records as Events.
#[derive(Clone, Debug, Default)]
pub(crate) struct Denials(Arc<Mutex<VecDeque<(Timestamp, String, String)>>>);

impl Denials {
    /// Remembers one.
    pub(super) fn add(&self, record: &str, reason: &str, now: Timestamp) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|(_, name, _)| name != record);
        if all.len() == REMEMBERED {
            all.pop_front();
        }
        all.push_back((now, record.to_owned(), reason.to_owned()));
    }

    /// The last reason for a record, while it is news.
    pub(crate) fn of(&self, record: &str, now: Timestamp) -> Option<String> {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let (_, _, reason) = all
            .iter()
            .find(|(at, name, _)| name == record && now.duration_since(*at) < TOLD)?;
        Some(reason.clone())
    }
}

/// Counts a redemption on the record and gives a token made for it.
pub(super) async fn honour(
    client: &Client,
    namespace: &str,
    name: &str,
    password: &[u8],
    site_id: Option<&str>,
) -> Result<Secret, Denied> {
    let api: Api<Secret> = Api::namespaced(client.clone(), namespace);
    let (record, made) = count(&api, name, password).await?;
    let token = request(&record, made, site_id);
    let token_name = token.name_any();
    let signed = match create(&api, &token).await {
        Ok(()) => filled(&api, &token_name).await,
        Err(error) => Err(error),
    };
    if signed.is_err() {
        // What was not given is not counted.
        if let Err(error) = api.delete(&token_name, &DeleteParams::default()).await {
            tracing::debug!(%error, token = token_name, "cannot remove a token request that was not answered");
        }
        give_back(&api, name).await;
    }
    signed
}

/// Takes one redemption off the record, against anybody who does so at the same time.
async fn count(api: &Api<Secret>, name: &str, password: &[u8]) -> Result<(Secret, u32), Denied> {
    for _ in 0..TRIES {
        let found = api.get_opt(name).await.map_err(boxed)?;
        let mut secret = found
            .filter(|secret| kind(secret) == Some(labels::TYPE_CLAIM_RECORD))
            .ok_or(Denied::Unknown)?;
        let after = read(&secret)
            .and_then(|record| record.redeem(password, Timestamp::now()))
            .map_err(Denied::Refused)?;
        secret.annotations_mut().extend(after.counts());
        match api.replace(name, &by_us(), &secret).await {
            Ok(secret) => return Ok((secret, after.made)),
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(boxed(error)),
        }
    }
    Err(Denied::Busy)
}

fn read(secret: &Secret) -> Result<ClaimRecord, Refusal> {
    let data = secret.data.iter().flatten();
    ClaimRecord::from_secret_parts(
        &secret.name_any(),
        secret.annotations(),
        &data.map(|(key, value)| (key.clone(), value.0.clone())).collect(),
    )
}

async fn give_back(api: &Api<Secret>, name: &str) {
    for _ in 0..TRIES {
        let Ok(Some(mut secret)) = api.get_opt(name).await else {
            return;
        };
        let Ok(mut record) = read(&secret) else { return };
        record.remaining = record.remaining.map(|left| left.saturating_add(1));
        record.made = record.made.saturating_sub(1);
        secret.annotations_mut().extend(record.counts());
        if api.replace(name, &by_us(), &secret).await.is_ok() {
            return;
        }
    }
    tracing::warn!(claim = name, "a redemption that gave no token stays counted");
}

/// The request for the redeemer's token. It goes with its record, and may do what the record says, for one site.
fn request(record: &Secret, made: u32, site_id: Option<&str>) -> Secret {
    let name = record.name_any();
    let scope = [
        ANNOTATION_REACH,
        ANNOTATION_OFFER,
        ANNOTATION_ROLE,
        ANNOTATION_EXPIRES,
    ];
    // The end of the claim is another than the token's; only the latter is under our own key.
    let mut annotations: Strings = scope
        .into_iter()
        .filter_map(|key| Some((key.to_owned(), record.annotations().get(key)?.clone())))
        .collect();
    annotations.insert(labels::CLAIM.to_owned(), name.clone());
    annotations.insert(ANNOTATION_USES.to_owned(), "1".to_owned());
    if let Some(site_id) = site_id {
        annotations.insert(ANNOTATION_USED_BY.to_owned(), site_id.to_owned());
        annotations.insert(labels::SUBJECT.to_owned(), site_id.to_owned());
    }
    let mut secret = Secret {
        type_: Some("Opaque".to_owned()),
        ..Secret::default()
    };
    secret.metadata.name = Some(format!("{name}-{made}"));
    secret.metadata.labels = Some(strings([(labels::TYPE, labels::TYPE_TOKEN_REQUEST)]));
    secret.metadata.annotations = Some(annotations);
    secret.metadata.owner_references = Some(vec![OwnerReference {
        api_version: "v1".to_owned(),
        kind: "Secret".to_owned(),
        name,
        uid: record.metadata.uid.clone().unwrap_or_default(),
        ..OwnerReference::default()
    }]);
    secret
}

async fn create(api: &Api<Secret>, token: &Secret) -> Result<(), Denied> {
    match api.create(&by_us(), token).await {
        Ok(_) => Ok(()),
        // Left by a record of the same name that was there before: not ours to give.
        Err(kube::Error::Api(status)) if status.code == 409 => {
            let _ = api.delete(&token.name_any(), &DeleteParams::default()).await;
            api.create(&by_us(), token).await.map(drop).map_err(boxed)
        }
        Err(error) => Err(boxed(error)),
    }
}

async fn filled(api: &Api<Secret>, name: &str) -> Result<Secret, Denied> {
    let is_filled = |secret: Option<&Secret>| {
        secret.is_some_and(|secret| {
            let has_key = secret
                .data
                .as_ref()
                .is_some_and(|data| data.contains_key("tls.key"));
            kind(secret) == Some(labels::TYPE_TOKEN) && has_key
        })
    };
    let waited = wait::await_condition(api.clone(), name, is_filled);
    match tokio::time::timeout(SIGNING, waited).await {
        Ok(Ok(Some(secret))) => Ok(secret),
        _ => Err(Denied::NotSigned),
    }
}

fn by_us() -> PostParams {
    PostParams {
        field_manager: Some(FIELD_MANAGER_SERVICE.to_owned()),
        ..PostParams::default()
    }
}

fn boxed(error: kube::Error) -> Denied {
    Denied::Api(Box::new(error))
}
