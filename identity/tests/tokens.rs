//! Issue, write into a Secret's parts, read back, look at: with keys and certificates that are real.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use karez_identity::{
    Authority, CertificateFacts, ConnectionToken, Grace, LABEL_TYPE, Subject, TYPE_CLAIM, TYPE_TOKEN,
    TlsMaterial, TokenError, TokenUri, Usage, Validity, client_config, inspect, key_matches, server_config,
    signed_by,
};
use proptest::prelude::*;

const DAY: Duration = Duration::from_secs(86_400);

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn authority(name: &str) -> Authority {
    Authority::new(name, now(), 365 * DAY).unwrap()
}

fn subject(name: &str) -> Subject {
    Subject {
        common_name: name.into(),
        dns_names: vec!["skupper-router".into(), "127.1.2.3".into(), "::1".into()],
        usage: Usage::Both,
        lifetime: 30 * DAY,
        uri: Some(
            TokenUri {
                site_id: "u-1".into(),
                token: name.into(),
            }
            .to_uri(),
        ),
    }
}

fn token(authority: &Authority) -> ConnectionToken {
    ConnectionToken {
        name: "link1".into(),
        inter_router: ("127.1.2.1".into(), 55671),
        edge: ("::1".into(), 45671),
        generated_by: "u-1".into(),
        site_version: "0.1.0".into(),
        cost: Some(3),
        scope: karez_identity::TokenScope::default(),
        credential: authority.issue(&subject("link1"), now()).unwrap(),
    }
}

fn labels(kind: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(LABEL_TYPE.to_owned(), kind.to_owned())])
}

#[test]
fn a_certificate_says_what_it_was_issued_for() {
    let credential = authority("skupper-site-ca")
        .issue(&subject("link1"), now())
        .unwrap();
    let facts = CertificateFacts::from_pem(credential.certificate_pem.as_bytes()).unwrap();
    assert_eq!(facts.common_name, "link1");
    assert_eq!(facts.issuer, "skupper-site-ca");
    assert_eq!(facts.dns_names, ["skupper-router"]);
    assert_eq!(facts.addresses.len(), 2);
    assert_eq!(
        facts.token(),
        Some(TokenUri {
            site_id: "u-1".into(),
            token: "link1".into()
        })
    );
    assert_eq!(facts.serial.len(), 32);
    assert_eq!(facts.fingerprint.len(), 64);
    assert_eq!(facts.not_after, now() + 30 * DAY);
    assert!(facts.not_before < now());
    assert!(!facts.is_authority);
}

#[test]
fn a_certificate_ends_with_its_authority() {
    let ca = Authority::new("short", now(), DAY).unwrap();
    let credential = ca.issue(&subject("x"), now()).unwrap();
    let facts = CertificateFacts::from_pem(credential.certificate_pem.as_bytes()).unwrap();
    assert_eq!(facts.not_after, now() + DAY);
    let error = ca.issue(&subject("x"), now() + 2 * DAY).unwrap_err();
    assert!(error.to_string().contains("replace it"), "{error}");
}

#[test]
fn an_authority_survives_its_secret() {
    let ca = authority("skupper-site-ca");
    let again = Authority::from_pem(ca.certificate_pem(), ca.key_pem()).unwrap();
    let credential = again.issue(&subject("y"), now()).unwrap();
    assert!(
        signed_by(
            credential.certificate_pem.as_bytes(),
            ca.certificate_pem().as_bytes()
        )
        .unwrap()
    );
    let other = authority("skupper-site-ca");
    assert!(
        !signed_by(
            credential.certificate_pem.as_bytes(),
            other.certificate_pem().as_bytes()
        )
        .unwrap()
    );
    assert!(Authority::from_pem(ca.certificate_pem(), other.key_pem()).is_err());
    assert!(Authority::from_pem(&credential.certificate_pem, &credential.key_pem).is_err());
    assert!(!key_matches(credential.certificate_pem.as_bytes(), b"nonsense").unwrap());
}

#[test]
fn a_token_comes_back_from_its_secret() {
    let token = token(&authority("skupper-site-ca"));
    let read =
        ConnectionToken::from_secret_parts("link1", &labels(TYPE_TOKEN), &token.annotations(), &token.data())
            .unwrap();
    assert_eq!(read.edge, ("::1".to_owned(), 45671));
    assert_eq!(read.cost, Some(3));
    let report = inspect(&read, now()).unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.edge, "[::1]:45671");
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["certificate"]["commonName"], "link1");
    assert!(!json.to_string().contains("PRIVATE"));
    let late = inspect(&read, now() + 60 * DAY).unwrap();
    assert_eq!(late.validity, Validity::Expired);
    assert!(late.problems[0].contains("expired"), "{:?}", late.problems);
}

#[test]
fn a_tampered_token_is_seen() {
    let (mut token, other) = (token(&authority("ca")), token(&authority("ca")));
    token.credential.ca_pem = other.credential.ca_pem;
    token.credential.key_pem = other.credential.key_pem;
    let report = inspect(&token, now()).unwrap();
    assert_eq!(report.problems.len(), 2, "{:?}", report.problems);
}

#[test]
fn says_what_a_bad_secret_lacks() {
    let token = token(&authority("ca"));
    let read = |labels: &_, annotations: &_, data: &_| {
        ConnectionToken::from_secret_parts("t", labels, annotations, data).unwrap_err()
    };
    let (annotations, data) = (token.annotations(), token.data());
    assert!(matches!(
        read(&labels(TYPE_CLAIM), &annotations, &data),
        TokenError::Claim(_)
    ));
    assert!(matches!(
        read(&BTreeMap::new(), &annotations, &data),
        TokenError::NotAToken { .. }
    ));
    let mut bad = annotations.clone();
    bad.insert("edge-port".into(), "99999".into());
    let error = read(&labels(TYPE_TOKEN), &bad, &data).to_string();
    assert!(error.contains("edge-port") && error.contains("99999"), "{error}");
    let mut bad = annotations.clone();
    bad.remove("inter-router-host");
    assert!(
        read(&labels(TYPE_TOKEN), &bad, &data)
            .to_string()
            .contains("inter-router-host")
    );
    let mut bad = data.clone();
    bad.remove("tls.key");
    assert!(
        read(&labels(TYPE_TOKEN), &annotations, &bad)
            .to_string()
            .contains("tls.key")
    );
    let mut bad = data;
    bad.insert("tls.crt".into(), b"garbage".to_vec());
    assert!(
        read(&labels(TYPE_TOKEN), &annotations, &bad)
            .to_string()
            .contains("tls.crt")
    );
}

#[test]
fn tls_prefers_the_post_quantum_exchange_and_tls_1_3_only() {
    let credential = authority("ca").issue(&subject("both"), now()).unwrap();
    let material = TlsMaterial::from(&credential);
    let server = server_config(&material, &[b"karez-link/1"]).unwrap();
    let client = client_config(&material, &[b"karez-link/1"]).unwrap();
    assert_eq!(client.alpn_protocols, [b"karez-link/1".to_vec()]);
    for groups in [
        &server.crypto_provider().kx_groups,
        &client.crypto_provider().kx_groups,
    ] {
        assert_eq!(groups[0].name(), rustls::NamedGroup::X25519MLKEM768);
    }
    let other = authority("ca").issue(&subject("other"), now()).unwrap();
    let mixed = TlsMaterial {
        key: other.key_pem.into_bytes(),
        ..material
    };
    assert!(client_config(&mixed, &[]).is_err());
    assert_eq!(format!("{mixed:?}"), "TlsMaterial { .. }");
}

proptest! {
    #[test]
    fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = CertificateFacts::from_der(&bytes);
        let _ = CertificateFacts::from_pem(&bytes);
        let material = TlsMaterial { cert: bytes.clone(), key: bytes.clone(), ca: bytes, grace: Grace::default() };
        let _ = server_config(&material, &[]);
    }

    #[test]
    fn a_damaged_certificate_never_panics(at in 0usize..400, to in any::<u8>()) {
        static PEM: std::sync::LazyLock<Vec<u8>> = std::sync::LazyLock::new(|| {
            use rustls_pki_types::pem::PemObject;
            let credential = authority("ca").issue(&subject("x"), now()).unwrap();
            rustls_pki_types::CertificateDer::from_pem_slice(credential.certificate_pem.as_bytes()).unwrap().to_vec()
        });
        let mut der = PEM.clone();
        let at = at % der.len();
        der[at] = to;
        let _ = CertificateFacts::from_der(&der);
    }
}
