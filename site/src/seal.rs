//! `seal authority` and `seal issue`: who may be at the ends of connections that are encrypted from the first to the last
//! site. Both work on files alone: the authority's key is for the network's operator, and for no site.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use karez_identity::{Authority, Credential, IssueError, SealError as ScopeError, SealScope};
use karez_kubernetes::{labels, names};
use kube::core::ObjectMeta;

use crate::token::write_private;

/// The common name of seal authorities.
const AUTHORITY: &str = "karez-seal-authority";
/// Longer than any file of an authority.
const FILE_LIMIT: u64 = 64 * 1024;

/// Why no authority or certificate was made.
#[derive(Debug, thiserror::Error)]
pub enum SealError {
    /// The file is there.
    #[error("{0} is there already: what it vouches for would no longer be believed; choose another file")]
    Exists(PathBuf),
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// It holds no authority.
    #[error("{path} holds no seal authority: {source}; make one with karez seal authority")]
    Authority {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: IssueError,
    },
    /// No authority could be made.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// No certificate could be made.
    #[error(transparent)]
    Scope(#[from] ScopeError),
}

/// What is asked for.
#[derive(Debug, Clone)]
pub struct SealOptions {
    /// The authority's file.
    pub authority: PathBuf,
    /// The site that it is for.
    pub site: String,
    /// Addresses that the site speaks for.
    pub serve: Vec<String>,
    /// Addresses that the site reaches sealed, and never otherwise.
    pub reach: Vec<String>,
    /// How long it is valid.
    pub lifetime: Duration,
}

/// Makes an authority and writes it, with its key, to a file that its owner alone can read.
///
/// # Errors
/// When the file is there, or cannot be written.
pub fn create_authority(file: &Path, lifetime: Duration) -> Result<(), SealError> {
    if file.exists() {
        return Err(SealError::Exists(file.to_owned()));
    }
    let authority = Authority::new(AUTHORITY, Timestamp::now(), lifetime)?;
    let text = format!("{}{}", authority.certificate_pem(), authority.key_pem());
    write(file, &text)
}

/// Issues a site's certificate and writes the Secret for it.
///
/// # Errors
/// When the authority cannot be read, the addresses are none, or the file cannot be written.
pub fn issue(file: &Path, options: &SealOptions) -> Result<(), SealError> {
    let path = &options.authority;
    let read = || {
        let metadata = std::fs::metadata(path)?;
        match metadata.len() > FILE_LIMIT {
            true => Err(io::Error::other("too long for an authority")),
            false => std::fs::read_to_string(path),
        }
    };
    let text = read().map_err(|source| SealError::Read {
        path: path.clone(),
        source,
    })?;
    let authority = Authority::from_pem(block(&text, "CERTIFICATE"), block(&text, "PRIVATE KEY"));
    let authority = authority.map_err(|source| SealError::Authority {
        path: path.clone(),
        source,
    })?;
    let scope = SealScope {
        serve: options.serve.clone(),
        reach: options.reach.clone(),
    };
    let credential = authority.issue_seal(&options.site, &scope, options.lifetime, Timestamp::now())?;
    write(file, &secret(&credential))
}

/// The first block of a kind in a file that has several: the key never goes where the certificate does.
fn block<'a>(text: &'a str, kind: &str) -> &'a str {
    let (begin, end) = (
        format!("-----BEGIN {kind}-----"),
        format!("-----END {kind}-----\n"),
    );
    let from = text.find(&begin).and_then(|at| text.get(at..));
    let length = from.and_then(|from| Some(from.find(&end)? + end.len()));
    from.zip(length)
        .and_then(|(from, length)| from.get(..length))
        .unwrap_or_default()
}

fn secret(credential: &Credential) -> String {
    let data = [
        ("tls.crt", &credential.certificate_pem),
        ("tls.key", &credential.key_pem),
        ("ca.crt", &credential.ca_pem),
    ];
    let secret = Secret {
        metadata: ObjectMeta {
            name: Some(names::SEAL.to_owned()),
            labels: Some([(labels::TYPE.to_owned(), labels::TYPE_SEAL.to_owned())].into()),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(
            data.into_iter()
                .map(|(key, text)| (key.to_owned(), ByteString(text.clone().into_bytes())))
                .collect(),
        ),
        ..Secret::default()
    };
    serde_saphyr::to_string(&secret).expect("a tree of texts")
}

fn write(file: &Path, text: &str) -> Result<(), SealError> {
    write_private(file, text).map_err(|source| SealError::Write {
        path: file.to_owned(),
        source,
    })
}

#[cfg(test)]
mod tests {
    use karez_identity::CertificateFacts;

    use super::*;

    #[test]
    fn an_authority_issues_a_secret_that_a_site_takes() {
        let folder = tempfile::tempdir().unwrap();
        let (authority, file) = (folder.path().join("seal.pem"), folder.path().join("shop.yaml"));
        let day = Duration::from_secs(86_400);
        create_authority(&authority, 100 * day).unwrap();
        assert!(matches!(
            create_authority(&authority, day),
            Err(SealError::Exists(_))
        ));
        let options = SealOptions {
            authority,
            site: "shop".into(),
            serve: vec!["db:5432".into()],
            reach: vec!["otel".into()],
            lifetime: day,
        };
        issue(&file, &options).unwrap();
        let text = std::fs::read_to_string(&file).unwrap();
        let secret: Secret = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(secret.metadata.labels.unwrap()[labels::TYPE], labels::TYPE_SEAL);
        let data = secret.data.unwrap();
        let facts = CertificateFacts::from_pem(&data["tls.crt"].0).unwrap();
        assert_eq!(SealScope::of(&facts).serve, ["db:5432"]);
        let believed = String::from_utf8(data["ca.crt"].0.clone()).unwrap();
        assert!(
            !believed.contains("PRIVATE KEY"),
            "the authority's key stays where it is"
        );
        let nothing = SealOptions {
            serve: Vec::new(),
            reach: Vec::new(),
            ..options
        };
        assert!(matches!(issue(&file, &nothing), Err(SealError::Scope(_))));
    }
}
