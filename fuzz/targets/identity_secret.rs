//! Secrets as other sites and people write them: tokens, claims, records of claims.
#![no_main]

use std::collections::BTreeMap;

use arbitrary::Arbitrary;
use jiff::Timestamp;
use karez_identity::{Claim, ClaimRecord, ConnectionToken, inspect};
use libfuzzer_sys::fuzz_target;

/// Keys that mean something, by number, so that values are what is searched.
const ANNOTATIONS: &[&str] = &[
    karez_identity::ANNOTATION_COST,
    karez_identity::ANNOTATION_EDGE_HOST,
    karez_identity::ANNOTATION_EDGE_PORT,
    karez_identity::ANNOTATION_GENERATED_BY,
    karez_identity::ANNOTATION_INTER_ROUTER_HOST,
    karez_identity::ANNOTATION_INTER_ROUTER_PORT,
    karez_identity::ANNOTATION_SITE_VERSION,
    karez_identity::ANNOTATION_URL,
    karez_identity::ANNOTATION_CLAIM_EXPIRATION,
    karez_identity::ANNOTATION_CLAIMS_MADE,
    karez_identity::ANNOTATION_CLAIMS_REMAINING,
    karez_identity::ANNOTATION_EXPIRES,
    karez_identity::ANNOTATION_REACH,
    karez_identity::ANNOTATION_OFFER,
    karez_identity::ANNOTATION_USES,
    karez_identity::ANNOTATION_ROLE,
];
const DATA: &[&str] = &["tls.crt", "tls.key", "ca.crt", karez_identity::DATA_PASSWORD];

#[derive(Debug, Arbitrary)]
struct Secret {
    name: String,
    kind: u8,
    annotations: Vec<(u8, String)>,
    data: Vec<(u8, Vec<u8>)>,
    password: Vec<u8>,
}

fuzz_target!(|secret: Secret| {
    let kinds = [
        karez_identity::TYPE_TOKEN,
        karez_identity::TYPE_CLAIM,
        karez_identity::TYPE_CLAIM_RECORD,
        "else",
    ];
    let label = kinds[usize::from(secret.kind) % kinds.len()].to_owned();
    let labels = BTreeMap::from([(karez_identity::LABEL_TYPE.to_owned(), label)]);
    let key = |keys: &[&str], number: u8| keys[usize::from(number) % keys.len()].to_owned();
    let annotations: BTreeMap<String, String> = secret
        .annotations
        .into_iter()
        .map(|(number, value)| (key(ANNOTATIONS, number), value))
        .collect();
    let data: BTreeMap<String, Vec<u8>> = secret
        .data
        .into_iter()
        .map(|(number, value)| (key(DATA, number), value))
        .collect();
    let now = Timestamp::UNIX_EPOCH;
    if let Ok(token) = ConnectionToken::from_secret_parts(&secret.name, &labels, &annotations, &data) {
        let _ = (
            inspect(&token, now),
            token.facts(),
            token.annotations(),
            token.data(),
        );
    }
    if let Ok(claim) = Claim::from_secret_parts(&secret.name, &annotations, &data) {
        let _ = (claim.url(), claim.annotations("1"), claim.data());
    }
    if let Ok(record) = ClaimRecord::from_secret_parts(&secret.name, &annotations, &data) {
        let redeemed = record.redeem(&secret.password, now);
        let stored = data.get(karez_identity::DATA_PASSWORD);
        assert!(
            redeemed.is_err() || stored == Some(&secret.password),
            "redeemed with another password"
        );
    }
});
