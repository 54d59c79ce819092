//! Clients whose certificate has ended: let in for a bounded time where a server is told to, so that they can renew it.
//!
//! Everything but the end is verified as ever: who signed it, for what, and that the client has its key. What such a
//! client may do is the server's business; it must not be more than to ask for a new certificate.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustls::client::danger::HandshakeSignatureValid;
use rustls::pki_types::{CertificateDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, Error, SignatureScheme};

use crate::facts::CertificateFacts;

/// How long past its end a client's certificate is let in; at first not at all. Clones are the same, so that a running
/// server follows it.
#[derive(Clone, Debug, Default)]
pub struct Grace(Arc<AtomicU64>);

impl Grace {
    /// The longest that makes sense: what ended longer ago needs a new token.
    pub const LONGEST: Duration = Duration::from_secs(90 * 24 * 3600);

    /// Sets it, for handshakes to come.
    pub fn set(&self, grace: Duration) {
        self.0
            .store(grace.min(Self::LONGEST).as_secs(), Ordering::Relaxed);
    }

    /// How long it is.
    #[must_use]
    pub fn duration(&self) -> Duration {
        Duration::from_secs(self.0.load(Ordering::Relaxed))
    }
}

/// It is no part of what material is: a change of it is no change of the material.
impl PartialEq for Grace {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Grace {}

/// Verifies clients' certificates as the strict verifier does, but for their end.
#[derive(Debug)]
pub(crate) struct Lenient {
    pub(crate) strict: Arc<dyn ClientCertVerifier>,
    pub(crate) grace: Grace,
}

impl Lenient {
    /// The end of a certificate that ended within the grace.
    fn forgiven(&self, end_entity: &CertificateDer<'_>, now: UnixTime) -> Option<UnixTime> {
        let facts = CertificateFacts::from_der(end_entity).ok()?;
        let end = u64::try_from(facts.not_after.as_second()).ok()?;
        let late = now.as_secs().checked_sub(end)?;
        (late <= self.grace.duration().as_secs())
            .then(|| UnixTime::since_unix_epoch(Duration::from_secs(end)))
    }
}

impl ClientCertVerifier for Lenient {
    fn offer_client_auth(&self) -> bool {
        self.strict.offer_client_auth()
    }

    fn client_auth_mandatory(&self) -> bool {
        self.strict.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.strict.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.strict.verify_client_cert(end_entity, intermediates, now);
        let Err(Error::InvalidCertificate(
            CertificateError::Expired | CertificateError::ExpiredContext { .. },
        )) = &verified
        else {
            return verified;
        };
        match self.forgiven(end_entity, now) {
            Some(end) => self.strict.verify_client_cert(end_entity, intermediates, end),
            None => verified,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict
            .verify_tls12_signature(message, certificate, signature)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.strict
            .verify_tls13_signature(message, certificate, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.strict.supported_verify_schemes()
    }
}

#[cfg(test)]
mod tests {
    use jiff::{SignedDuration, Timestamp};
    use rustls::pki_types::pem::PemObject;
    use rustls::server::WebPkiClientVerifier;

    use super::*;
    use crate::{Authority, Subject, TlsMaterial, Usage, provider};

    const HOUR: Duration = Duration::from_secs(3600);

    #[test]
    fn only_the_end_is_forgiven_and_only_for_so_long() {
        let now = Timestamp::from_second(1_800_000_000).unwrap();
        let (ours, other) = (
            Authority::new("ca", now, 100 * HOUR).unwrap(),
            Authority::new("ca", now, 100 * HOUR).unwrap(),
        );
        let subject = Subject {
            common_name: "shop".into(),
            dns_names: Vec::new(),
            usage: Usage::Client,
            lifetime: HOUR,
            uri: None,
        };
        let issue = |authority: &Authority| {
            let issued = authority.issue(&subject, now).unwrap();
            CertificateDer::from_pem_slice(issued.certificate_pem.as_bytes()).unwrap()
        };
        let material = TlsMaterial::from(&ours.issue(&subject, now).unwrap());
        let strict = WebPkiClientVerifier::builder_with_provider(material.roots().unwrap(), provider());
        let grace = Grace::default();
        let lenient = Lenient {
            strict: strict.build().unwrap(),
            grace: grace.clone(),
        };
        let at = |minutes| {
            let then = now + SignedDuration::from_mins(minutes);
            UnixTime::since_unix_epoch(Duration::from_secs(u64::try_from(then.as_second()).unwrap()))
        };
        let (own, foreign) = (issue(&ours), issue(&other));
        let verify =
            |leaf: &CertificateDer<'_>, minutes| lenient.verify_client_cert(leaf, &[], at(minutes)).is_ok();
        assert!(
            verify(&own, 30) && !verify(&own, 61),
            "nothing is forgiven unless it is said"
        );
        grace.set(HOUR);
        assert!(verify(&own, 61) && verify(&own, 120) && !verify(&own, 122));
        assert!(
            !verify(&foreign, 30) && !verify(&foreign, 61),
            "of another authority"
        );
        assert!(!verify(&own, -6), "not valid yet");
        grace.set(Grace::LONGEST * 2);
        assert_eq!(grace.duration(), Grace::LONGEST);
    }
}
