//! Orders in, Secrets out: the one place where keys are made.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use karez_identity::{
    Authority, CertificateFacts, CertificateRequest, Claim, ConnectionToken, Credential, DATA_PASSWORD,
    IssueError, ScopeError, Subject, TokenScope, TokenUri, Usage,
};
use karez_kubernetes::{VERSION, labels, names};
use rand::Rng;
use rand::distr::Alphanumeric;

use crate::object::{meta, non_empty, strings};
use crate::plan::certificates::annotation;
use crate::plan::rollover::{NEXT, PREVIOUS, Step, believed};
use crate::plan::{
    CertificateKind, CertificateOrder, ClaimOrder, RenewalOrder, RolloverOrder, TokenOrder, renewal,
};
use crate::site_config::Lifetimes;

/// Why an order could not be fulfilled.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OrderError {
    /// The authority's Secret is not there.
    #[error("Secret {secret} waits for its authority, Secret {authority}")]
    NoAuthority { secret: String, authority: String },
    /// The authority's Secret is damaged.
    #[error("Secret {authority}: {source}; delete it to get a new authority, then exchange its tokens")]
    Authority {
        authority: String,
        #[source]
        source: IssueError,
    },
    /// The authority's Secret lacks a part.
    #[error("Secret {authority}: {key} is missing or no text; delete it to get a new authority")]
    AuthorityPart { authority: String, key: &'static str },
    /// What the token may do cannot be read.
    #[error("Secret {secret}: annotation {source}")]
    Scope {
        secret: String,
        #[source]
        source: ScopeError,
    },
    /// The token would be past its end already.
    #[error("Secret {secret}: annotation karez.dev/expires: {end} is over: give it a later one")]
    Over { secret: String, end: Timestamp },
    /// The certificate cannot be made.
    #[error("Secret {secret}: {source}")]
    Issue {
        secret: String,
        #[source]
        source: IssueError,
    },
}

/// The authorities of a namespace: those that are there and those just made.
pub(crate) struct Issuer<'a> {
    secrets: &'a BTreeMap<String, Secret>,
    made: BTreeMap<String, Secret>,
    lifetimes: Lifetimes,
    now: Timestamp,
}

impl<'a> Issuer<'a> {
    /// Over the Secrets that are there.
    pub(crate) fn new(secrets: &'a BTreeMap<String, Secret>, now: Timestamp) -> Self {
        Self {
            secrets,
            made: BTreeMap::new(),
            lifetimes: Lifetimes::default(),
            now,
        }
    }

    /// The same with other lifetimes than the usual ones.
    pub(crate) fn lasting(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Makes the Secret of one order. Authorities come before what they issue.
    pub(crate) fn certificate(&mut self, order: &CertificateOrder) -> Result<Secret, OrderError> {
        let mut data: BTreeMap<String, Vec<u8>> = order.extra.clone();
        let mut kind = "kubernetes.io/tls";
        match &order.kind {
            CertificateKind::Authority { common_name } => {
                let authority = Authority::new(common_name, self.now, self.lifetimes.authority);
                let authority = authority.map_err(|source| OrderError::Issue {
                    secret: order.secret.clone(),
                    source,
                })?;
                data.insert(
                    "tls.crt".to_owned(),
                    authority.certificate_pem().as_bytes().to_vec(),
                );
                data.insert("tls.key".to_owned(), authority.key_pem().as_bytes().to_vec());
            }
            CertificateKind::Issued {
                authority,
                common_name,
                hosts,
                server,
            } => {
                let subject = Subject {
                    common_name: common_name.clone(),
                    dns_names: hosts.clone(),
                    usage: if *server { Usage::Both } else { Usage::Client },
                    lifetime: self.lifetimes.credential,
                    uri: None,
                };
                data.extend(pem(&self.issue(&order.secret, authority, &subject)?));
            }
            CertificateKind::ConsoleUser { user } => {
                let password: Vec<u8> = rand::rng().sample_iter(Alphanumeric).take(10).collect();
                data.insert(user.clone(), password);
                kind = "Opaque";
            }
            CertificateKind::Trust { authority } => {
                let secret = self.authority_secret(&order.secret, authority)?;
                part(secret, authority, "tls.crt")?;
                data.insert("ca.crt".to_owned(), believed(secret));
                data.insert("tls.crt".to_owned(), Vec::new());
                data.insert("tls.key".to_owned(), Vec::new());
            }
        }
        let managed = if order.owner.is_some() {
            "certificate"
        } else {
            "authority"
        };
        let secret = Secret {
            metadata: ObjectMeta {
                annotations: non_empty(order.annotations.clone()),
                ..meta(&order.secret, &order.namespace, managed, order.owner.as_ref())
            },
            type_: Some(kind.to_owned()),
            data: Some(bytes(data)),
            ..Secret::default()
        };
        if matches!(order.kind, CertificateKind::Authority { .. }) {
            self.made.insert(order.secret.clone(), secret.clone());
        }
        Ok(secret)
    }

    /// Fills a token request: data replaced as a whole, annotations added, label flipped, all else kept.
    pub(crate) fn token(&self, order: &TokenOrder) -> Result<Secret, OrderError> {
        let name = order.request.metadata.name.clone().unwrap_or_default();
        let uri = TokenUri {
            site_id: order.site_id.clone(),
            token: name.clone(),
        }
        .to_uri();
        let mut hosts = vec![order.inter_router.0.clone(), order.edge.0.clone()];
        hosts.dedup();
        let scope = self.scope(&order.request)?;
        let subject = Subject {
            common_name: annotation(&order.request, labels::SUBJECT)
                .unwrap_or(&name)
                .clone(),
            dns_names: hosts,
            usage: Usage::Client,
            lifetime: self.lifetime(&scope),
            uri: Some(uri),
        };
        let token = ConnectionToken {
            name: name.clone(),
            inter_router: order.inter_router.clone(),
            edge: order.edge.clone(),
            generated_by: order.site_id.clone(),
            site_version: VERSION.to_owned(),
            cost: None,
            scope,
            credential: self.issue_to_client(&name, &subject)?,
        };
        let mut secret = order.request.clone();
        secret.data = Some(bytes(token.data()));
        secret
            .metadata
            .annotations
            .get_or_insert_default()
            .extend(token.annotations());
        let flipped = strings([(labels::TYPE, labels::TYPE_TOKEN)]);
        secret.metadata.labels.get_or_insert_default().extend(flipped);
        secret.metadata.managed_fields = None;
        Ok(secret)
    }

    /// What the token may do; one whose scope cannot be read is not made.
    fn scope(&self, secret: &Secret) -> Result<TokenScope, OrderError> {
        let name = secret.metadata.name.clone().unwrap_or_default();
        let annotations = secret.metadata.annotations.clone().unwrap_or_default();
        let scope = TokenScope::from_annotations(&annotations).map_err(|source| OrderError::Scope {
            secret: name.clone(),
            source,
        })?;
        match scope.expires {
            Some(end) if end <= self.now => Err(OrderError::Over { secret: name, end }),
            _ => Ok(scope),
        }
    }

    /// As long as certificates are valid here, and not past the token's own end.
    fn lifetime(&self, scope: &TokenScope) -> Duration {
        let left = scope.expires.map(|end| end.duration_since(self.now));
        let left = left.and_then(|left| Duration::try_from(left).ok());
        left.map_or(self.lifetimes.credential, |left| {
            left.min(self.lifetimes.credential)
        })
    }

    /// Signs the requests for renewed certificates in a record; what has ended goes.
    pub(crate) fn renew(&self, order: &RenewalOrder) -> Result<Secret, OrderError> {
        let mut record = order.record.clone();
        let name = record.metadata.name.clone().unwrap_or_default();
        let scope = self.scope(&record)?;
        let failed = |source| OrderError::Issue {
            secret: name.clone(),
            source,
        };
        let authority = self.newest(&name)?;
        let bundle = believed(self.authority_secret(&name, names::SITE_CA)?);
        let subject = Subject {
            common_name: annotation(&record, labels::SUBJECT).unwrap_or(&name).clone(),
            dns_names: Vec::new(),
            usage: Usage::Client,
            lifetime: self.lifetime(&scope),
            uri: Some(
                TokenUri {
                    site_id: order.site_id.clone(),
                    token: name.clone(),
                }
                .to_uri(),
            ),
        };
        let data = record.data.get_or_insert_default();
        data.insert("ca.crt".to_owned(), ByteString(bundle));
        for (key, request) in renewal::waiting(&order.record) {
            data.remove(&key);
            match CertificateRequest::from_pem(&request) {
                Ok(request) => {
                    let certificate = authority.sign(&request, &subject, self.now).map_err(failed)?;
                    data.insert(renewal::answered_key(&key), ByteString(certificate.into_bytes()));
                }
                Err(error) => tracing::warn!(token = name, %error, "a request for renewal is not signed"),
            }
        }
        for (key, certificate) in renewal::renewed(&order.record) {
            let ended_before = self.now.checked_sub(order.renew_expired).unwrap_or(self.now);
            let ended =
                CertificateFacts::from_pem(certificate).map_or(true, |facts| facts.not_after <= ended_before);
            if ended {
                data.remove(key);
            }
        }
        record.metadata.managed_fields = None;
        Ok(record)
    }

    /// Completes the record of a claim: where it is redeemed, whom the holder believes, a password if it has none.
    pub(crate) fn claim(&self, order: &ClaimOrder) -> Result<Secret, OrderError> {
        let name = order.record.metadata.name.clone().unwrap_or_default();
        let authority = self.authority_secret(&name, names::SITE_CA)?;
        part(authority, names::SITE_CA, "tls.crt")?;
        let ca = believed(authority);
        let mut secret = order.record.clone();
        let data = secret.data.get_or_insert_default();
        data.entry(DATA_PASSWORD.to_owned())
            .or_insert_with(|| ByteString(rand::rng().sample_iter(Alphanumeric).take(24).collect()));
        let password = data[DATA_PASSWORD].0.clone();
        data.insert("ca.crt".to_owned(), ByteString(ca.clone()));
        let claim = Claim {
            name: name.clone(),
            host: order.endpoint.0.clone(),
            port: order.endpoint.1,
            record: name,
            generated_by: order.site_id.clone(),
            expires: None,
            password,
            ca_pem: ca,
        };
        let annotations = secret.metadata.annotations.get_or_insert_default();
        annotations.extend(claim.annotations(VERSION));
        secret.metadata.managed_fields = None;
        Ok(secret)
    }

    /// Does the step that is due about an authority.
    pub(crate) fn rollover(&mut self, order: &RolloverOrder) -> Result<Secret, OrderError> {
        let mut secret = order.authority.clone();
        let data = secret.data.get_or_insert_default();
        let annotations = secret.metadata.annotations.get_or_insert_default();
        match order.step {
            Step::Begin => {
                let next = Authority::new(&order.name, self.now, self.lifetimes.authority);
                let next = next.map_err(|source| OrderError::Issue {
                    secret: order.name.clone(),
                    source,
                })?;
                data.insert(NEXT.0.to_owned(), ByteString(next.certificate_pem().into()));
                data.insert(NEXT.1.to_owned(), ByteString(next.key_pem().into()));
                annotations.insert(labels::NEXT_SINCE.to_owned(), self.now.to_string());
                annotations.remove(labels::ROLLOVER);
            }
            Step::Switch(until) => {
                let taken =
                    [(NEXT.0, "tls.crt"), (NEXT.1, "tls.key")].map(|(from, to)| (data.remove(from), to));
                if let Some(old) = data.get("tls.crt").cloned() {
                    data.insert(PREVIOUS.to_owned(), old);
                }
                for (value, to) in taken {
                    data.extend(value.map(|value| (to.to_owned(), value)));
                }
                annotations.remove(labels::NEXT_SINCE);
                annotations.insert(labels::PREVIOUS_UNTIL.to_owned(), until.to_string());
            }
            Step::Leave => {
                data.remove(PREVIOUS);
                annotations.remove(labels::PREVIOUS_UNTIL);
            }
        }
        secret.metadata.managed_fields = None;
        self.made.insert(order.name.clone(), secret.clone());
        Ok(secret)
    }

    /// What is for a client is issued by the successor as soon as there is one: servers believe it from then on.
    fn newest(&self, secret: &str) -> Result<Authority, OrderError> {
        let source = self.authority_secret(secret, names::SITE_CA)?;
        let has_next = source.data.as_ref().is_some_and(|data| data.contains_key(NEXT.0));
        let keys = if has_next { NEXT } else { ("tls.crt", "tls.key") };
        read_authority(source, names::SITE_CA, keys)
    }

    fn issue_to_client(&self, secret: &str, subject: &Subject) -> Result<Credential, OrderError> {
        let issued = self.newest(secret)?.issue(subject, self.now);
        self.believing(issued, secret, names::SITE_CA)
    }

    /// What was issued, with all that are believed.
    fn believing(
        &self,
        issued: Result<Credential, IssueError>,
        secret: &str,
        authority: &str,
    ) -> Result<Credential, OrderError> {
        let mut credential = issued.map_err(|source| OrderError::Issue {
            secret: secret.to_owned(),
            source,
        })?;
        let bundle = believed(self.authority_secret(secret, authority)?);
        credential.ca_pem = String::from_utf8_lossy(&bundle).into_owned();
        Ok(credential)
    }

    fn authority(&self, secret: &str, authority: &str) -> Result<Authority, OrderError> {
        let source = self.authority_secret(secret, authority)?;
        read_authority(source, authority, ("tls.crt", "tls.key"))
    }

    fn issue(&self, secret: &str, authority: &str, subject: &Subject) -> Result<Credential, OrderError> {
        let issued = self.authority(secret, authority)?.issue(subject, self.now);
        self.believing(issued, secret, authority)
    }

    fn authority_secret(&self, secret: &str, authority: &str) -> Result<&Secret, OrderError> {
        self.made
            .get(authority)
            .or_else(|| self.secrets.get(authority))
            .ok_or_else(|| OrderError::NoAuthority {
                secret: secret.to_owned(),
                authority: authority.to_owned(),
            })
    }
}

fn read_authority(
    source: &Secret,
    authority: &str,
    keys: (&'static str, &'static str),
) -> Result<Authority, OrderError> {
    let (certificate, key) = (part(source, authority, keys.0)?, part(source, authority, keys.1)?);
    Authority::from_pem(certificate, key).map_err(|source| OrderError::Authority {
        authority: authority.to_owned(),
        source,
    })
}

fn part<'a>(secret: &'a Secret, authority: &str, key: &'static str) -> Result<&'a str, OrderError> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .and_then(|bytes| std::str::from_utf8(&bytes.0).ok())
        .ok_or_else(|| OrderError::AuthorityPart {
            authority: authority.to_owned(),
            key,
        })
}

fn pem(credential: &Credential) -> BTreeMap<String, Vec<u8>> {
    BTreeMap::from([
        (
            "tls.crt".to_owned(),
            credential.certificate_pem.clone().into_bytes(),
        ),
        ("tls.key".to_owned(), credential.key_pem.clone().into_bytes()),
        ("ca.crt".to_owned(), credential.ca_pem.clone().into_bytes()),
    ])
}

fn bytes(data: BTreeMap<String, Vec<u8>>) -> BTreeMap<String, ByteString> {
    data.into_iter()
        .map(|(key, value)| (key, ByteString(value)))
        .collect()
}
