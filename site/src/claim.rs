//! `token create --token-type claim`: a record goes to the issuing site, its controller says where it is redeemed, and
//! the claim, with its password, becomes a file that the other side applies.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Secret;
use karez_identity::{
    ANNOTATION_CLAIM_EXPIRATION, ANNOTATION_CLAIMS_REMAINING, ANNOTATION_URL, Claim, DATA_PASSWORD,
    TokenScope,
};
use karez_kubernetes::{FIELD_MANAGER_CLI, VERSION, labels, names};
use kube::api::PostParams;
use kube::runtime::wait;
use kube::{Api, Client, ResourceExt};
use serde_json::json;

use crate::token::{CreateError, Created, may_issue, portable, write_private};

pub use karez_identity::{TokenScope as Scope, is_pattern};

/// What a claim is to be.
#[derive(Debug)]
pub struct ClaimOptions {
    /// Its name; one is made up when absent.
    pub name: Option<String>,
    /// Its password; one is made up by the site when absent.
    pub password: Option<String>,
    /// How long it can be redeemed; zero: without end.
    pub expiry: Duration,
    /// How often it can be redeemed; zero: without limit.
    pub uses: u32,
    /// What the tokens that it is redeemed for may do.
    pub scope: TokenScope,
}

/// Makes a claim at a site and writes it to a file that its owner alone can read.
///
/// # Errors
/// When the site cannot issue tokens, does not answer in time, or the file cannot be written.
pub async fn create(
    client: Client,
    namespace: &str,
    options: &ClaimOptions,
    file: &Path,
    timeout: Duration,
) -> Result<Created, CreateError> {
    may_issue(&client, namespace).await?;
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let name = options.name.clone().unwrap_or_else(random_name);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER_CLI.to_owned()),
        ..PostParams::default()
    };
    let failed = |what: &str, source| CreateError::Api {
        what: what.to_owned(),
        namespace: namespace.to_owned(),
        source: Box::new(source),
    };
    let record = record(&name, options, Timestamp::now());
    match secrets.create(&params, &record).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            return Err(CreateError::Exists {
                name,
                namespace: namespace.to_owned(),
            });
        }
        Err(error) => return Err(failed("create the claim's record", error)),
    }
    let waited = wait::await_condition(secrets.clone(), &name, is_complete);
    let record = match tokio::time::timeout(timeout, waited).await {
        Ok(Ok(Some(record))) => record,
        _ => {
            return Err(CreateError::Timeout {
                name,
                seconds: timeout.as_secs(),
            });
        }
    };
    let path = || -> PathBuf { file.to_owned() };
    let claim = read(&record).ok_or_else(|| CreateError::Timeout {
        name: name.clone(),
        seconds: timeout.as_secs(),
    })?;
    write_private(file, &portable(&secret(&claim, &options.scope)))
        .map_err(|source| CreateError::Write { path: path(), source })?;
    Ok(Created {
        local_only: claim.host.starts_with(&format!("{}.", names::CONTROLLER_SERVICE)),
    })
}

/// The record as the issuer keeps it.
fn record(name: &str, options: &ClaimOptions, now: Timestamp) -> Secret {
    let mut annotations = options.scope.annotations();
    annotations.insert(labels::SITE_VERSION.to_owned(), VERSION.to_owned());
    if let Some(end) = end(options.expiry, now) {
        annotations.insert(ANNOTATION_CLAIM_EXPIRATION.to_owned(), end.to_string());
    }
    if options.uses > 0 {
        annotations.insert(ANNOTATION_CLAIMS_REMAINING.to_owned(), options.uses.to_string());
    }
    let mut record: Secret = serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": name,
            "labels": {labels::TYPE: labels::TYPE_CLAIM_RECORD},
            "annotations": annotations,
        },
    }))
    .expect("a Secret");
    if let Some(password) = &options.password {
        let password = k8s_openapi::ByteString(password.clone().into_bytes());
        record.data = Some(BTreeMap::from([(DATA_PASSWORD.to_owned(), password)]));
    }
    record
}

fn end(expiry: Duration, now: Timestamp) -> Option<Timestamp> {
    let expiry = SignedDuration::try_from(expiry)
        .ok()
        .filter(|expiry| !expiry.is_zero())?;
    now.checked_add(expiry).ok()
}

fn is_complete(record: Option<&Secret>) -> bool {
    record.is_some_and(|record| read(record).is_some())
}

/// The claim that a completed record stands for.
fn read(record: &Secret) -> Option<Claim> {
    if !record.annotations().contains_key(ANNOTATION_URL) {
        return None;
    }
    let data = record.data.iter().flatten();
    let data = data.map(|(key, value)| (key.clone(), value.0.clone())).collect();
    Claim::from_secret_parts(&record.name_any(), record.annotations(), &data).ok()
}

/// The claim as its holder gets it. The scope in it informs; what counts is the record.
fn secret(claim: &Claim, scope: &TokenScope) -> Secret {
    let mut annotations = claim.annotations(VERSION);
    annotations.extend(scope.annotations());
    let data = claim.data().into_iter();
    let mut secret = Secret {
        type_: Some("Opaque".to_owned()),
        data: Some(
            data.map(|(key, value)| (key, k8s_openapi::ByteString(value)))
                .collect(),
        ),
        ..Secret::default()
    };
    secret.metadata.name = Some(claim.name.clone());
    secret.metadata.labels = Some(BTreeMap::from([(
        labels::TYPE.to_owned(),
        labels::TYPE_CLAIM.to_owned(),
    )]));
    secret.metadata.annotations = Some(annotations);
    secret
}

/// Reads a duration as Skupper's command line takes it: `15m`, `1h30m`, `0`.
///
/// # Errors
/// When it is none, or longer than a century.
pub fn duration(text: &str) -> Result<Duration, String> {
    if text.trim() == "0" {
        return Ok(Duration::ZERO);
    }
    let read = text.trim().parse::<SignedDuration>().ok();
    read.and_then(|read| Duration::try_from(read).ok())
        .filter(|read| read.as_secs() <= 100 * 365 * 24 * 3600)
        .ok_or_else(|| "write a duration as 15m, 1h30m or 0".to_owned())
}

/// The scope with an end, counted from now, and a number of sites.
pub fn limited(scope: TokenScope, expiry: Option<Duration>, uses: Option<u32>) -> TokenScope {
    scope.limited(Timestamp::now(), expiry, uses)
}

/// A name that no other claim has, in the form of a UUID.
fn random_name() -> String {
    let hex: String = rand::random::<[u8; 16]>()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let parts = [&hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..]];
    parts.join("-")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options() -> ClaimOptions {
        ClaimOptions {
            name: None,
            password: Some("open sesame".into()),
            expiry: Duration::from_secs(900),
            uses: 1,
            scope: TokenScope {
                reach: Some(vec!["collector".into()]),
                ..TokenScope::default()
            },
        }
    }

    #[test]
    fn a_record_says_what_it_may_be_redeemed_for() {
        let now = "2026-01-02T03:04:05Z".parse().unwrap();
        let record = record("c", &options(), now);
        let says = |key: &str| record.annotations().get(key).map(String::as_str);
        assert_eq!(says("skupper.io/claims-remaining"), Some("1"));
        assert_eq!(says("skupper.io/claim-expiration"), Some("2026-01-02T03:19:05Z"));
        assert_eq!(says("karez.dev/reach"), Some("collector"));
        assert!(read(&record).is_none(), "the site has not said where");
    }

    #[test]
    fn without_limits_nothing_is_said_of_them() {
        let unlimited = ClaimOptions {
            expiry: Duration::ZERO,
            uses: 0,
            ..options()
        };
        let record = record("c", &unlimited, Timestamp::now());
        assert!(!record.annotations().contains_key("skupper.io/claims-remaining"));
        assert!(!record.annotations().contains_key("skupper.io/claim-expiration"));
    }

    #[test]
    fn durations_are_read_as_skupper_writes_them() {
        for (text, seconds) in [
            ("15m", 900),
            ("1h30m", 5400),
            ("90s", 90),
            ("0", 0),
            ("15m0s", 900),
        ] {
            assert_eq!(duration(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for bad in ["", "soon", "-1h", "15", "9999999h"] {
            assert!(duration(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_claim_file_is_read_back() {
        let claim = Claim {
            name: random_name(),
            host: "192.0.2.1".into(),
            port: 8081,
            record: "r".into(),
            generated_by: "site".into(),
            expires: None,
            password: b"p".to_vec(),
            ca_pem: b"CA".to_vec(),
        };
        let text = portable(&secret(&claim, &options().scope));
        let back = crate::token::secret(Path::new("c.yaml"), &text).unwrap();
        assert_eq!(read(&back), Some(claim));
        assert_eq!(back.labels()[labels::TYPE], labels::TYPE_CLAIM);
        assert_eq!(back.annotations()["karez.dev/reach"], "collector");
    }
}
