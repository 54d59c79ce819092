//! Certificates, requests for them, and what stands in them.
#![no_main]

use jiff::Timestamp;
use karez_identity::{
    CertificateFacts, CertificateRequest, TokenUri, key_matches, signed_by, split_url, still_valid,
};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(facts) = CertificateFacts::from_der(bytes) {
        let _ = (facts.token(), facts.renew_at());
    }
    let _ = (
        CertificateFacts::from_pem(bytes),
        CertificateRequest::from_pem(bytes),
    );
    let (one, other) = bytes.split_at(bytes.len() / 2);
    let _ = (signed_by(one, other), key_matches(one, other));
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = (still_valid(text, Timestamp::UNIX_EPOCH), split_url(text));
        if let Some(uri) = TokenUri::parse(text) {
            assert!(TokenUri::parse(&uri.to_uri()).is_some());
        }
    }
});
