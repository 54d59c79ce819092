//! Claims, scopes and renewals: what is honoured, what is refused, and that foreign bytes never panic.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{Timestamp, ToSpan};
use karez_identity::{
    Authority, CertificateFacts, CertificateRequest, Claim, ClaimRecord, NewKey, Refusal, RequestError,
    Subject, TokenScope, Usage, is_pattern, key_matches, signed_by, split_url, still_valid,
    version_may_redeem,
};
use proptest::prelude::*;

const HOUR: Duration = Duration::from_secs(3600);

fn now() -> Timestamp {
    "2026-01-02T03:04:05Z".parse().unwrap()
}

fn record(remaining: Option<u32>) -> ClaimRecord {
    ClaimRecord {
        name: "c".into(),
        password: b"secret".to_vec(),
        expires: Some(now() + 1.hour()),
        remaining,
        made: 0,
    }
}

#[test]
fn a_single_use_claim_is_honoured_once() {
    let after = record(Some(1)).redeem(b"secret", now()).unwrap();
    assert_eq!((after.remaining, after.made), (Some(0), 1));
    assert_eq!(after.redeem(b"secret", now()), Err(Refusal::UsedUp));
    assert_eq!(after.counts()["skupper.io/claims-remaining"], "0");
}

#[test]
fn a_claim_without_a_limit_is_honoured_again() {
    let after = record(None).redeem(b"secret", now()).unwrap();
    assert_eq!(after.redeem(b"secret", now()).unwrap().made, 2);
}

#[test]
fn wrong_passwords_and_late_comers_are_refused_with_the_known_statuses() {
    let refusal = |record: &ClaimRecord, password: &[u8], at| record.redeem(password, at).unwrap_err();
    assert_eq!(refusal(&record(None), b"other", now()), Refusal::Password);
    assert_eq!(refusal(&record(None), b"", now()), Refusal::Password);
    assert_eq!(
        refusal(&record(None), b"secret", now() + 2.hours()),
        Refusal::Expired
    );
    assert_eq!(Refusal::Password.status(), 403);
    assert_eq!(Refusal::Expired.status(), 404);
    assert_eq!(Refusal::UsedUp.to_string(), "No such claim");
}

#[test]
fn a_record_that_cannot_be_read_is_not_honoured() {
    let data = BTreeMap::from([("password".to_owned(), b"x".to_vec())]);
    for (key, value) in [
        ("skupper.io/claims-remaining", "-1"),
        ("skupper.io/claim-expiration", "soon"),
    ] {
        let annotations = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        assert_eq!(
            ClaimRecord::from_secret_parts("c", &annotations, &data),
            Err(Refusal::Corrupted)
        );
    }
    let none = BTreeMap::new();
    assert_eq!(
        ClaimRecord::from_secret_parts("c", &none, &BTreeMap::new()),
        Err(Refusal::Corrupted)
    );
}

#[test]
fn a_claim_survives_its_secret() {
    let claim = Claim {
        name: "link1".into(),
        host: "fd00::1".into(),
        port: 8081,
        record: "a-b".into(),
        generated_by: "site".into(),
        expires: Some(now()),
        password: b"p".to_vec(),
        ca_pem: b"CA".to_vec(),
    };
    assert_eq!(claim.url(), "https://[fd00::1]:8081/a-b");
    let back = Claim::from_secret_parts("link1", &claim.annotations("1.9.6"), &claim.data()).unwrap();
    assert_eq!(back, claim);
    assert!(!format!("{claim:?}").contains("password"));
}

#[test]
fn versions_are_compared_as_numbers() {
    for good in [
        "0.8.0",
        "1.9.6",
        "v0.10.1",
        "0.8.0-rc1",
        "",
        "a development build",
    ] {
        assert!(version_may_redeem(good), "{good}");
    }
    assert!(!version_may_redeem("0.7.9"));
}

#[test]
fn a_scope_survives_its_annotations_and_nonsense_is_an_error() {
    let scope = TokenScope {
        reach: Some(vec!["collector:4317".into(), "shop-*".into()]),
        offer: Some(Vec::new()),
        expires: Some(now()),
        uses: Some(2),
        role: Some("edge".into()),
        used_by: vec!["a".into()],
    };
    assert_eq!(TokenScope::from_annotations(&scope.annotations()).unwrap(), scope);
    assert_eq!(
        TokenScope::from_annotations(&BTreeMap::new()).unwrap(),
        TokenScope::default()
    );
    for (key, value) in [
        ("karez.dev/reach", "a b"),
        ("karez.dev/reach", "a*b"),
        ("karez.dev/offer", "a:0"),
        ("karez.dev/expires", "tomorrow"),
        ("karez.dev/uses", "0"),
        ("karez.dev/role", "king"),
    ] {
        let annotations = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        let error = TokenScope::from_annotations(&annotations).unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}

fn subject() -> Subject {
    Subject {
        common_name: "link1".into(),
        dns_names: Vec::new(),
        usage: Usage::Client,
        lifetime: HOUR,
        uri: None,
    }
}

#[test]
fn a_request_is_signed_for_its_own_key_and_says_nothing_else() {
    let authority = Authority::new("ca", now(), 24 * HOUR).unwrap();
    let key = NewKey::make("whatever I like").unwrap();
    let request = CertificateRequest::from_pem(key.request_pem.as_bytes()).unwrap();
    let certificate = authority.sign(&request, &subject(), now()).unwrap();
    assert!(request.is_answered_by(certificate.as_bytes()));
    assert!(key_matches(certificate.as_bytes(), key.key_pem.as_bytes()).unwrap());
    assert!(signed_by(certificate.as_bytes(), authority.certificate_pem().as_bytes()).unwrap());
    let facts = CertificateFacts::from_pem(certificate.as_bytes()).unwrap();
    assert_eq!(facts.common_name, "link1");
    assert_eq!(facts.not_after, now() + 1.hour());
    // A third of its life before its end.
    assert_eq!(facts.renew_at(), now() + 40.minutes());
    let other = CertificateRequest::from_pem(NewKey::make("x").unwrap().request_pem.as_bytes()).unwrap();
    assert!(!other.is_answered_by(certificate.as_bytes()));
}

#[test]
fn a_request_that_was_changed_is_refused() {
    let key = NewKey::make("x").unwrap();
    let long = vec![b'x'; 9000];
    assert!(matches!(
        CertificateRequest::from_pem(&long),
        Err(RequestError::TooLong(9000))
    ));
    let pem = key.request_pem;
    let place = pem.len() / 2;
    let other = if pem.as_bytes()[place] == b'A' { "B" } else { "A" };
    let changed = format!("{}{other}{}", &pem[..place], &pem[place + 1..]);
    assert!(CertificateRequest::from_pem(changed.as_bytes()).is_err());
}

#[test]
fn two_authorities_are_believed_while_one_takes_over() {
    let old = Authority::new("ca", now(), HOUR).unwrap();
    let new = Authority::new("ca", now(), 24 * HOUR).unwrap();
    let both = format!("{}{}", new.certificate_pem(), old.certificate_pem());
    let by_old = old.issue(&subject(), now()).unwrap();
    assert!(signed_by(by_old.certificate_pem.as_bytes(), both.as_bytes()).unwrap());
    assert_eq!(still_valid(&both, now()).matches("BEGIN").count(), 2);
    let later = still_valid(&both, now() + 2.hours());
    assert_eq!(later.matches("BEGIN").count(), 1);
    assert!(!signed_by(by_old.certificate_pem.as_bytes(), later.as_bytes()).unwrap());
}

proptest! {
    #[test]
    fn foreign_requests_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
        let _ = CertificateRequest::from_pem(&bytes);
    }

    #[test]
    fn foreign_urls_and_patterns_never_panic(text in "\\PC{0,80}") {
        let _ = (is_pattern(&text), version_may_redeem(&text), still_valid(&text, now()));
        if let Some((host, port, record)) = split_url(&text) {
            prop_assert!(!host.is_empty() && port > 0 && !record.contains('/'));
        }
    }

    #[test]
    fn urls_like_ours_are_read(text in "https://(\\[?[a-z0-9:.]{0,12}\\]?)(:[0-9]{0,6})?/[a-z/]{0,8}") {
        let _ = split_url(&text);
    }

    #[test]
    fn foreign_scopes_never_panic(value in "\\PC{0,60}") {
        for key in ["reach", "offer", "expires", "uses", "role", "used-by"] {
            let annotations = BTreeMap::from([(format!("karez.dev/{key}"), value.clone())]);
            let _ = TokenScope::from_annotations(&annotations);
        }
    }
}
