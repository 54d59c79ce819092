//! The keys of an OpenID provider: what it publishes, or what a file holds, as what can check a signature.

use jsonwebtoken::jwk::{AlgorithmParameters, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, Header};
use serde::Deserialize;

/// More keys of one provider are not looked at.
const MOST: usize = 256;
/// The algorithms that are accepted: those by which nobody but the holder of a private key can sign.
const ACCEPTED: &[Algorithm] = &[
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
    Algorithm::ES256,
    Algorithm::ES384,
    Algorithm::EdDSA,
];

/// A key with what is known about it.
pub(super) struct Key {
    id: Option<String>,
    algorithm: Option<KeyAlgorithm>,
    pub(super) key: DecodingKey,
}

/// The keys as of now.
#[derive(Default)]
pub(super) struct Keys(Vec<Key>);

/// A published set; each key is read by itself, so that one of an unknown kind does not hide the others.
#[derive(Deserialize)]
struct Published {
    keys: Vec<serde_json::Value>,
}

impl Keys {
    /// Reads a JWK set.
    pub(super) fn published(document: &[u8]) -> Result<Self, serde_json::Error> {
        let published: Published = serde_json::from_slice(document)?;
        let keys = published.keys.into_iter().take(MOST).filter_map(read);
        Ok(Self(keys.collect()))
    }

    /// Reads a file of PEM blocks with public keys or certificates' keys.
    pub(super) fn of_pem(text: &str) -> Self {
        const END: &str = "-----END PUBLIC KEY-----";
        let blocks = text.split_inclusive(END).filter(|block| block.contains(END));
        let keys = blocks.take(MOST).filter_map(|block| {
            let block = block.trim().as_bytes();
            let key = DecodingKey::from_rsa_pem(block)
                .or_else(|_| DecodingKey::from_ec_pem(block))
                .or_else(|_| DecodingKey::from_ed_pem(block))
                .ok()?;
            Some(Key {
                id: None,
                algorithm: None,
                key,
            })
        });
        Self(keys.collect())
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The keys that may have signed a token with this header.
    pub(super) fn candidates<'a>(&'a self, header: &'a Header) -> impl Iterator<Item = &'a Key> {
        let asked = KeyAlgorithm::from(header.alg);
        self.0.iter().filter(move |key| {
            let same_id = match (&key.id, &header.kid) {
                (Some(own), Some(asked)) => own == asked,
                // A key without a name may be meant by any token, a token without one may mean any key.
                _ => true,
            };
            let same_algorithm = key.algorithm.is_none_or(|own| own == asked);
            same_id && same_algorithm && key.key.family() == family(header.alg)
        })
    }
}

/// Whether tokens of this algorithm are looked at.
pub(super) fn is_accepted(algorithm: Algorithm) -> bool {
    ACCEPTED.contains(&algorithm)
}

fn family(algorithm: Algorithm) -> AlgorithmFamily {
    match algorithm {
        Algorithm::ES256 | Algorithm::ES384 => AlgorithmFamily::Ec,
        Algorithm::EdDSA => AlgorithmFamily::Ed,
        Algorithm::HS256 | Algorithm::HS384 | Algorithm::HS512 => AlgorithmFamily::Hmac,
        _ => AlgorithmFamily::Rsa,
    }
}

fn read(value: serde_json::Value) -> Option<Key> {
    let jwk: Jwk = serde_json::from_value(value).ok()?;
    let signs = matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature));
    // A shared secret has no place in what anybody can read.
    if !signs || matches!(jwk.algorithm, AlgorithmParameters::OctetKey(_)) {
        return None;
    }
    Some(Key {
        key: DecodingKey::from_jwk(&jwk).ok()?,
        algorithm: jwk.common.key_algorithm,
        id: jwk.common.key_id,
    })
}
