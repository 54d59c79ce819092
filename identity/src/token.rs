//! Connection tokens: a Secret's parts in, a `ConnectionToken` out, and back.
//!
//! A token is a Secret labelled `skupper.io/type: connection-token`: annotations say where the issuer can be
//! reached, data holds a client credential that was issued for this token alone.

use std::collections::BTreeMap;

use crate::authority::Credential;
use crate::facts::{CertificateFacts, FactsError};
use crate::scope::{ScopeError, TokenScope};
use crate::tls::{TlsError, TlsMaterial};

/// Label that says what kind of token a Secret is.
pub const LABEL_TYPE: &str = "skupper.io/type";
/// A token that can be used for a link.
pub const TYPE_TOKEN: &str = "connection-token";
/// A request that the site's controller has not answered yet.
pub const TYPE_TOKEN_REQUEST: &str = "connection-token-request";
/// A claim, to be exchanged for a token first.
pub const TYPE_CLAIM: &str = "token-claim";
/// The issuer's record of a claim.
pub const TYPE_CLAIM_RECORD: &str = "token-claim-record";
/// Host for links between interior routers.
pub const ANNOTATION_INTER_ROUTER_HOST: &str = "inter-router-host";
/// Port for links between interior routers.
pub const ANNOTATION_INTER_ROUTER_PORT: &str = "inter-router-port";
/// Host for links from edge routers.
pub const ANNOTATION_EDGE_HOST: &str = "edge-host";
/// Port for links from edge routers.
pub const ANNOTATION_EDGE_PORT: &str = "edge-port";
/// The issuing site's id.
pub const ANNOTATION_GENERATED_BY: &str = "skupper.io/generated-by";
/// The issuing site's version.
pub const ANNOTATION_SITE_VERSION: &str = "skupper.io/site-version";
/// The cost of links made from this token.
pub const ANNOTATION_COST: &str = "skupper.io/cost";

/// Why a Secret is not a usable connection token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// The Secret is a request that nobody has answered.
    #[error("Secret \"{0}\" is a token request that has not been answered: wait for its site's controller")]
    NotAnswered(String),
    /// A claim is no token before it is redeemed.
    #[error(
        "Secret \"{0}\" is a claim that has not been redeemed yet: wait for the site's service-controller"
    )]
    Claim(String),
    /// The Secret says that it is something else, or nothing.
    #[error(
        "Secret \"{name}\" is not a connection token: its label skupper.io/type is {found}, expected \"connection-token\""
    )]
    NotAToken {
        /// The Secret's name.
        name: String,
        /// What the label says.
        found: String,
    },
    /// An annotation is missing.
    #[error(
        "Secret \"{name}\": annotation {key} is missing: the token is incomplete, ask its site for a new one"
    )]
    MissingAnnotation {
        /// The Secret's name.
        name: String,
        /// Which annotation.
        key: &'static str,
    },
    /// An annotation has a value that cannot be used.
    #[error("Secret \"{name}\": annotation {key}: \"{value}\" is not {expected}")]
    BadAnnotation {
        /// The Secret's name.
        name: String,
        /// Which annotation.
        key: &'static str,
        /// What it says.
        value: String,
        /// What it should say.
        expected: &'static str,
    },
    /// Its scope cannot be read.
    #[error("Secret \"{name}\": annotation {source}: the token is not admitted until it is mended")]
    Scope {
        /// The Secret's name.
        name: String,
        /// What is wrong.
        #[source]
        source: ScopeError,
    },
    /// Certificate, key or authority is missing or unusable.
    #[error("Secret \"{name}\": data.{source}: ask the token's site for a new one")]
    Data {
        /// The Secret's name.
        name: String,
        /// What is wrong.
        #[source]
        source: TlsError,
    },
    /// The certificate cannot be read.
    #[error("Secret \"{name}\": data.{item}: {source}")]
    Certificate {
        /// The Secret's name.
        name: String,
        /// `tls.crt` or `ca.crt`.
        item: &'static str,
        /// What is wrong.
        #[source]
        source: FactsError,
    },
}

/// A credential to link to the site that issued it.
#[derive(Clone, Debug)]
pub struct ConnectionToken {
    /// The Secret's name; the link takes it over.
    pub name: String,
    /// Where interior routers dial.
    pub inter_router: (String, u16),
    /// Where edge routers dial.
    pub edge: (String, u16),
    /// The issuing site's id.
    pub generated_by: String,
    /// The issuing site's version; empty when it did not say.
    pub site_version: String,
    /// The cost of the link; 1 when absent.
    pub cost: Option<u32>,
    /// What the holder may do; at the issuer this is what counts.
    pub scope: TokenScope,
    /// The client credential.
    pub credential: Credential,
}

impl ConnectionToken {
    /// Reads a token from the parts of a Secret.
    pub fn from_secret_parts(
        name: &str,
        labels: &BTreeMap<String, String>,
        annotations: &BTreeMap<String, String>,
        data: &BTreeMap<String, Vec<u8>>,
    ) -> Result<Self, TokenError> {
        check_type(name, labels)?;
        let parts = Annotations { name, annotations };
        let material = TlsMaterial::from_secret(data).map_err(|source| TokenError::Data {
            name: name.to_owned(),
            source,
        })?;
        Ok(Self {
            name: name.to_owned(),
            inter_router: parts.endpoint(ANNOTATION_INTER_ROUTER_HOST, ANNOTATION_INTER_ROUTER_PORT)?,
            edge: parts.endpoint(ANNOTATION_EDGE_HOST, ANNOTATION_EDGE_PORT)?,
            generated_by: parts.required(ANNOTATION_GENERATED_BY)?.to_owned(),
            site_version: annotations
                .get(ANNOTATION_SITE_VERSION)
                .cloned()
                .unwrap_or_default(),
            // A cost that is no integer is ignored, as the original does.
            cost: annotations
                .get(ANNOTATION_COST)
                .and_then(|cost| cost.trim().parse().ok()),
            scope: TokenScope::from_annotations(annotations).map_err(|source| TokenError::Scope {
                name: name.to_owned(),
                source,
            })?,
            credential: credential(name, &material)?,
        })
    }

    /// The annotations of the Secret that carries this token.
    pub fn annotations(&self) -> BTreeMap<String, String> {
        let mut annotations = BTreeMap::from([
            (
                ANNOTATION_INTER_ROUTER_HOST.to_owned(),
                self.inter_router.0.clone(),
            ),
            (
                ANNOTATION_INTER_ROUTER_PORT.to_owned(),
                self.inter_router.1.to_string(),
            ),
            (ANNOTATION_EDGE_HOST.to_owned(), self.edge.0.clone()),
            (ANNOTATION_EDGE_PORT.to_owned(), self.edge.1.to_string()),
            (ANNOTATION_GENERATED_BY.to_owned(), self.generated_by.clone()),
            (ANNOTATION_SITE_VERSION.to_owned(), self.site_version.clone()),
        ]);
        if let Some(cost) = self.cost {
            annotations.insert(ANNOTATION_COST.to_owned(), cost.to_string());
        }
        annotations.extend(self.scope.annotations());
        annotations
    }

    /// The data of the Secret that carries this token.
    pub fn data(&self) -> BTreeMap<String, Vec<u8>> {
        BTreeMap::from([
            (
                "tls.crt".to_owned(),
                self.credential.certificate_pem.clone().into_bytes(),
            ),
            ("tls.key".to_owned(), self.credential.key_pem.clone().into_bytes()),
            ("ca.crt".to_owned(), self.credential.ca_pem.clone().into_bytes()),
        ])
    }

    /// What the token's certificate says.
    pub fn facts(&self) -> Result<CertificateFacts, FactsError> {
        CertificateFacts::from_pem(self.credential.certificate_pem.as_bytes())
    }
}

fn check_type(name: &str, labels: &BTreeMap<String, String>) -> Result<(), TokenError> {
    match labels.get(LABEL_TYPE).map(String::as_str) {
        Some(TYPE_TOKEN) => Ok(()),
        Some(TYPE_TOKEN_REQUEST) => Err(TokenError::NotAnswered(name.to_owned())),
        Some(TYPE_CLAIM) => Err(TokenError::Claim(name.to_owned())),
        Some(other) => Err(TokenError::NotAToken {
            name: name.to_owned(),
            found: format!("\"{other}\""),
        }),
        None => Err(TokenError::NotAToken {
            name: name.to_owned(),
            found: "missing".to_owned(),
        }),
    }
}

fn credential(name: &str, material: &TlsMaterial) -> Result<Credential, TokenError> {
    for (item, pem) in [("tls.crt", &material.cert), ("ca.crt", &material.ca)] {
        CertificateFacts::from_pem(pem).map_err(|source| TokenError::Certificate {
            name: name.to_owned(),
            item,
            source,
        })?;
    }
    let text = |item: &'static str, bytes: &[u8]| match std::str::from_utf8(bytes) {
        Ok(text) => Ok(text.to_owned()),
        Err(_) => Err(TokenError::Data {
            name: name.to_owned(),
            source: TlsError::Pem {
                item,
                reason: "not text".to_owned(),
            },
        }),
    };
    Ok(Credential {
        certificate_pem: text("tls.crt", &material.cert)?,
        key_pem: text("tls.key", &material.key)?,
        ca_pem: text("ca.crt", &material.ca)?,
    })
}

struct Annotations<'a> {
    name: &'a str,
    annotations: &'a BTreeMap<String, String>,
}

impl Annotations<'_> {
    fn required(&self, key: &'static str) -> Result<&str, TokenError> {
        match self.annotations.get(key).map(|value| value.trim()) {
            Some(value) if !value.is_empty() && value.len() <= 1024 => Ok(value),
            Some(value) if value.len() > 1024 => Err(self.bad(key, "…", "at most 1024 bytes long")),
            _ => Err(TokenError::MissingAnnotation {
                name: self.name.to_owned(),
                key,
            }),
        }
    }

    fn endpoint(&self, host: &'static str, port: &'static str) -> Result<(String, u16), TokenError> {
        let (host, number) = (self.required(host)?, self.required(port)?);
        match number.parse::<u16>() {
            Ok(number) if number > 0 => Ok((host.to_owned(), number)),
            _ => Err(self.bad(port, number, "a port (1 to 65535)")),
        }
    }

    fn bad(&self, key: &'static str, value: &str, expected: &'static str) -> TokenError {
        TokenError::BadAnnotation {
            name: self.name.to_owned(),
            key,
            value: value.to_owned(),
            expected,
        }
    }
}
