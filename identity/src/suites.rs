//! TLS 1.3's suites with QUIC's packets protected by ring.
//!
//! ```text
//!  aws-lc-rs: key exchange (post-quantum too), signatures, key schedule, TLS records ─┐
//!                                                                                      ├─▶ Tls13CipherSuite
//!  ring: QUIC's packets and their headers ────────────────────────────────────────────┘
//! ```
//!
//! ring's AES-GCM takes less of a processor than aws-lc-rs', most of all for short packets, and only the latter has the
//! post-quantum exchange. The keys come from rustls' key schedule; here is RFC 9001, sections 5.3 and 5.4. What links
//! over TCP seal is not rustls' either, so that its own records hold handshakes only and stay as they are.

use std::sync::LazyLock;

use ring::aead::quic as headers;
use ring::aead::{self, AES_128_GCM, AES_256_GCM, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, UnboundKey};
use rustls::crypto::cipher::{AeadKey, Iv};
use rustls::quic::{Algorithm, HeaderProtectionKey, PacketKey, Tag};
use rustls::{CipherSuite, Error, SupportedCipherSuite, Tls13CipherSuite};

/// Bytes of a tag.
const TAG_LEN: usize = 16;
/// The bit of a packet's first byte that says that its header is long.
const LONG_HEADER: u8 = 0x80;

/// The suites of a provider, in their order; those of TLS 1.3 protect QUIC's packets with ring.
pub(crate) fn with_ring(suites: Vec<SupportedCipherSuite>) -> Vec<SupportedCipherSuite> {
    suites
        .into_iter()
        .map(|suite| ours(suite).unwrap_or(suite))
        .collect()
}

/// Made once: rustls wants suites that live for ever.
static SUITES: LazyLock<Vec<Tls13CipherSuite>> = LazyLock::new(|| {
    let theirs = rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES;
    theirs.iter().filter_map(made).collect()
});

fn ours(suite: SupportedCipherSuite) -> Option<SupportedCipherSuite> {
    let of_ring = SUITES.iter().find(|ours| ours.common.suite == suite.suite())?;
    Some(SupportedCipherSuite::Tls13(of_ring))
}

fn made(suite: &SupportedCipherSuite) -> Option<Tls13CipherSuite> {
    let base = suite.tls13()?;
    let quic: &'static Protection = match suite.suite() {
        CipherSuite::TLS13_AES_128_GCM_SHA256 => &AES_128,
        CipherSuite::TLS13_AES_256_GCM_SHA384 => &AES_256,
        CipherSuite::TLS13_CHACHA20_POLY1305_SHA256 => &CHACHA20,
        _ => return None,
    };
    Some(Tls13CipherSuite {
        common: rustls::crypto::CipherSuiteCommon {
            suite: base.common.suite,
            hash_provider: base.common.hash_provider,
            confidentiality_limit: base.common.confidentiality_limit,
        },
        hkdf_provider: base.hkdf_provider,
        aead_alg: base.aead_alg,
        quic: Some(quic),
    })
}

/// How a suite protects packets. The limits are those of RFC 9001, section 6.6 and appendix B.
struct Protection {
    packets: &'static aead::Algorithm,
    headers: &'static headers::Algorithm,
    sealed: u64,
    forged: u64,
}

static AES_128: Protection = Protection {
    packets: &AES_128_GCM,
    headers: &headers::AES_128,
    sealed: 1 << 23,
    forged: 1 << 52,
};
static AES_256: Protection = Protection {
    packets: &AES_256_GCM,
    headers: &headers::AES_256,
    sealed: 1 << 23,
    forged: 1 << 52,
};
static CHACHA20: Protection = Protection {
    packets: &CHACHA20_POLY1305,
    headers: &headers::CHACHA20,
    sealed: u64::MAX,
    forged: 1 << 36,
};

impl Algorithm for Protection {
    fn packet_key(&self, key: AeadKey, iv: Iv) -> Box<dyn PacketKey> {
        let key = UnboundKey::new(self.packets, key.as_ref()).expect("rustls gives keys of `aead_key_len`");
        let nonce = iv.as_ref().try_into().expect("rustls gives nonces of 12 bytes");
        Box::new(Packets {
            key: LessSafeKey::new(key),
            iv: nonce,
            sealed: self.sealed,
            forged: self.forged,
        })
    }

    fn header_protection_key(&self, key: AeadKey) -> Box<dyn HeaderProtectionKey> {
        let key = headers::HeaderProtectionKey::new(self.headers, key.as_ref());
        Box::new(Headers(key.expect("rustls gives keys of `aead_key_len`")))
    }

    fn aead_key_len(&self) -> usize {
        self.packets.key_len()
    }
}

struct Packets {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sealed: u64,
    forged: u64,
}

impl Packets {
    /// A packet's number is used once: QUIC sees to that.
    fn nonce(&self, packet: u64) -> aead::Nonce {
        let mut nonce = self.iv;
        for (byte, of_number) in nonce[NONCE_LEN - 8..].iter_mut().zip(packet.to_be_bytes()) {
            *byte ^= of_number;
        }
        aead::Nonce::assume_unique_for_key(nonce)
    }
}

impl PacketKey for Packets {
    fn encrypt_in_place(&self, packet: u64, header: &[u8], payload: &mut [u8]) -> Result<Tag, Error> {
        let (nonce, aad) = (self.nonce(packet), aead::Aad::from(header));
        let tag = self.key.seal_in_place_separate_tag(nonce, aad, payload);
        let tag = tag.map_err(|_| Error::EncryptError)?;
        Ok(Tag::from(tag.as_ref()))
    }

    fn decrypt_in_place<'a>(
        &self,
        packet: u64,
        header: &[u8],
        payload: &'a mut [u8],
    ) -> Result<&'a [u8], Error> {
        let (nonce, aad) = (self.nonce(packet), aead::Aad::from(header));
        let plain = self.key.open_in_place(nonce, aad, payload);
        plain.map(|plain| &*plain).map_err(|_| Error::DecryptError)
    }

    fn tag_len(&self) -> usize {
        TAG_LEN
    }

    fn confidentiality_limit(&self) -> u64 {
        self.sealed
    }

    fn integrity_limit(&self) -> u64 {
        self.forged
    }
}

struct Headers(headers::HeaderProtectionKey);

impl Headers {
    /// Puts the mask over a header, or takes it off: `masked` says which.
    fn mask(&self, sample: &[u8], first: &mut u8, number: &mut [u8], masked: bool) -> Result<(), Error> {
        let mask = self.0.new_mask(sample);
        let wrong = |_| Error::General("a sample of a wrong length".into());
        let [of_first, of_number @ ..] = mask.map_err(wrong)?;
        if number.len() > of_number.len() {
            return Err(Error::General("a packet number that is too long".into()));
        }
        let bits = if *first & LONG_HEADER == 0 { 0x1f } else { 0x0f };
        let other = *first ^ (of_first & bits);
        // How long the number is stands in the first byte, unmasked.
        let length = usize::from(if masked { other } else { *first } & 0x03) + 1;
        *first = other;
        for (byte, mask) in number.iter_mut().zip(of_number).take(length) {
            *byte ^= mask;
        }
        Ok(())
    }
}

impl HeaderProtectionKey for Headers {
    fn encrypt_in_place(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) -> Result<(), Error> {
        self.mask(sample, first, number, false)
    }

    fn decrypt_in_place(&self, sample: &[u8], first: &mut u8, number: &mut [u8]) -> Result<(), Error> {
        self.mask(sample, first, number, true)
    }

    fn sample_len(&self) -> usize {
        self.0.algorithm().sample_len()
    }
}

#[cfg(test)]
mod tests {
    use rustls::Side;
    use rustls::crypto::aws_lc_rs::DEFAULT_CIPHER_SUITES;
    use rustls::quic::{DirectionalKeys, Keys, Version};

    use super::*;

    fn sending(suite: SupportedCipherSuite) -> Option<DirectionalKeys> {
        let suite = suite.tls13()?;
        Some(Keys::initial(Version::V1, suite, suite.quic?, b"connection", Side::Client).local)
    }

    /// The same keys of every suite of TLS 1.3, in ring's hands and in those of aws-lc-rs.
    fn both() -> Vec<(DirectionalKeys, DirectionalKeys)> {
        let suites = with_ring(DEFAULT_CIPHER_SUITES.to_vec());
        let pairs = suites.into_iter().zip(DEFAULT_CIPHER_SUITES);
        pairs
            .filter_map(|(ours, theirs)| sending(ours).zip(sending(*theirs)))
            .collect()
    }

    #[test]
    fn all_suites_stay_in_their_order() {
        let suites = with_ring(DEFAULT_CIPHER_SUITES.to_vec());
        let names =
            |suites: &[SupportedCipherSuite]| suites.iter().map(|suite| suite.suite()).collect::<Vec<_>>();
        assert_eq!(names(&suites), names(DEFAULT_CIPHER_SUITES));
        assert_eq!(both().len(), 3);
    }

    #[test]
    fn packets_are_what_the_other_library_makes_of_them() {
        let header = [0x43, 1, 2, 3];
        for (DirectionalKeys { packet: ring, .. }, DirectionalKeys { packet: other, .. }) in both() {
            assert_eq!(ring.tag_len(), other.tag_len());
            assert_eq!(ring.confidentiality_limit(), other.confidentiality_limit());
            assert_eq!(ring.integrity_limit(), other.integrity_limit());
            for number in [0, 1, 0x0123_4567_89ab] {
                let mut sealed = [b"hello".as_slice(), &[0; TAG_LEN]].concat();
                let tag = ring.encrypt_in_place(number, &header, &mut sealed[..5]);
                sealed[5..].copy_from_slice(tag.expect("it is short").as_ref());
                let opened = |key: &dyn PacketKey, number| {
                    let mut packet = sealed.clone();
                    key.decrypt_in_place(number, &header, &mut packet)
                        .map(<[u8]>::to_vec)
                };
                assert_eq!(opened(&*ring, number), Ok(b"hello".to_vec()));
                assert_eq!(opened(&*other, number), Ok(b"hello".to_vec()));
                assert_eq!(opened(&*ring, number + 1), Err(Error::DecryptError));
            }
        }
    }

    #[test]
    fn headers_are_what_the_other_library_makes_of_them() {
        for (DirectionalKeys { header: ring, .. }, DirectionalKeys { header: other, .. }) in both() {
            assert_eq!(ring.sample_len(), other.sample_len());
            for first in 0..=255 {
                let (mut one, mut two) = ((first, [5; 4]), (first, [5; 4]));
                let sample = [first; 16];
                ring.encrypt_in_place(&sample, &mut one.0, &mut one.1)
                    .expect("of the right length");
                other
                    .encrypt_in_place(&sample, &mut two.0, &mut two.1)
                    .expect("of the right length");
                assert_eq!(one, two);
                ring.decrypt_in_place(&sample, &mut one.0, &mut one.1)
                    .expect("of the right length");
                assert_eq!(one, (first, [5; 4]));
            }
            assert!(ring.encrypt_in_place(&[0; 15], &mut 0, &mut [0; 4]).is_err());
            assert!(ring.encrypt_in_place(&[0; 16], &mut 0, &mut [0; 5]).is_err());
        }
    }
}
