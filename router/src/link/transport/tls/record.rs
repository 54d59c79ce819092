//! TLS 1.3's records, sealed and opened in place.
//!
//! rustls does the handshake and keeps the key schedule; once it has finished, it hands its traffic keys over through
//! the interface that it has for the kernel's TLS, and this file does what the kernel would: RFC 8446, section 5. That
//! saves two copies and an allocation a record on each side, and lets a writer lay its records out where they are sealed.
//!
//! ```text
//!  plaintext laid out by a writer ──▶ Sealer ──▶ the same bytes as a record
//!  bytes from the socket ──▶ Opener ──▶ where in them the plaintext is
//! ```

use std::ops::Range;
use std::sync::{Arc, Mutex};

use ring::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;

/// Bytes before a record's content.
pub(crate) const HEADER: usize = 5;
/// Bytes after it: the content's type and the tag.
pub(crate) const TRAILER: usize = 1 + 16;
/// The longest plaintext.
pub(crate) const LONGEST: usize = 1 << 14;
/// The longest that a record may claim to be: plaintext, type, padding and tag.
const LONGEST_SEALED: usize = LONGEST + 256;
/// Records that one key may seal; well below what AES-GCM allows (RFC 8446, section 5.5).
const KEY_LIMIT: u64 = 1 << 22;

const CHANGE_CIPHER_SPEC: u8 = 20;
pub(crate) const ALERT: u8 = 21;
pub(crate) const HANDSHAKE: u8 = 22;
pub(crate) const DATA: u8 = 23;

/// Why a record cannot be sealed or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum RecordError {
    /// The cipher suite is none of TLS 1.3's three.
    #[error("an unknown cipher suite was agreed on")]
    Suite,
    /// The key does not belong to the suite, or cannot be renewed.
    #[error("the traffic key cannot be used")]
    Key,
    /// What came is no record, or one that is longer than any may be.
    #[error("what came is no TLS record")]
    Malformed,
    /// It was changed on its way, or sealed by somebody else.
    #[error("a record was damaged on its way")]
    Damaged,
}

/// What renews keys: rustls' key schedule.
pub(super) trait KeySchedule: Send {
    fn next_sending(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error>;
    fn next_receiving(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error>;
}

/// Shared by both directions; used once in many gigabytes.
pub(super) type Keys = Arc<Mutex<dyn KeySchedule>>;

struct Cipher {
    key: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
}

impl Cipher {
    fn new(sequence: u64, secrets: &ConnectionTrafficSecrets) -> Result<Self, RecordError> {
        let (algorithm, key, iv) = match secrets {
            ConnectionTrafficSecrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            ConnectionTrafficSecrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            ConnectionTrafficSecrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Suite),
        };
        let key = UnboundKey::new(algorithm, key.as_ref()).map_err(|_| RecordError::Key)?;
        Ok(Self {
            key: LessSafeKey::new(key),
            iv: iv.as_ref().try_into().map_err(|_| RecordError::Key)?,
            sequence,
        })
    }

    /// A number is used once: the sequence only goes up, and a key is renewed long before it could overflow.
    fn nonce(&mut self) -> Nonce {
        let mut nonce = self.iv;
        let number = self.sequence.to_be_bytes();
        for (byte, of_number) in nonce[NONCE_LEN - number.len()..].iter_mut().zip(number) {
            *byte ^= of_number;
        }
        self.sequence += 1;
        Nonce::assume_unique_for_key(nonce)
    }
}

/// Seals what this side sends.
pub(crate) struct Sealer {
    cipher: Cipher,
    keys: Keys,
}

impl Sealer {
    pub(super) fn new(
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
        keys: Keys,
    ) -> Result<Self, RecordError> {
        let cipher = Cipher::new(sequence, secrets)?;
        Ok(Self { cipher, keys })
    }

    /// Seals a record in place: `record` is the space for the header, the plaintext, and the space for the trailer.
    pub(crate) fn seal(&mut self, record: &mut [u8], kind: u8) -> Result<(), RecordError> {
        let sealed = record.len().checked_sub(HEADER).ok_or(RecordError::Malformed)?;
        let length = u16::try_from(sealed).map_err(|_| RecordError::Malformed)?;
        let plain = sealed.checked_sub(TRAILER).ok_or(RecordError::Malformed)?;
        let [high, low] = length.to_be_bytes();
        let header = [DATA, 3, 3, high, low];
        let (head, body) = record.split_at_mut(HEADER);
        head.copy_from_slice(&header);
        let (content, tag) = body.split_at_mut(plain + 1);
        content[plain] = kind;
        let nonce = self.cipher.nonce();
        let made = self
            .cipher
            .key
            .seal_in_place_separate_tag(nonce, Aad::from(header), content)
            .map_err(|_| RecordError::Key)?;
        tag.copy_from_slice(made.as_ref());
        Ok(())
    }

    /// Whether the key is used up: then a key update goes first.
    pub(crate) fn is_used_up(&self) -> bool {
        self.cipher.sequence >= KEY_LIMIT
    }

    /// The record that tells the peer of a new key, which is used from then on.
    pub(crate) fn renew(&mut self) -> Result<[u8; HEADER + 5 + TRAILER], RecordError> {
        let mut record = [0; HEADER + 5 + TRAILER];
        // A key update that does not ask the peer for one of its own.
        record[HEADER..HEADER + 5].copy_from_slice(&[KEY_UPDATE, 0, 0, 1, 0]);
        self.seal(&mut record, HANDSHAKE)?;
        let mut keys = self.keys.lock().map_err(|_| RecordError::Key)?;
        let secrets = keys.next_sending().map_err(|_| RecordError::Key)?;
        self.cipher = Cipher::new(0, &secrets)?;
        Ok(record)
    }
}

/// The handshake message of a new key.
const KEY_UPDATE: u8 = 24;
/// The handshake message of a session ticket.
const NEW_SESSION_TICKET: u8 = 4;

/// What a record holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// Frames.
    Data(Range<usize>),
    /// The peer ends the TLS connection: the alert's number.
    Alert(u8),
    /// Something of TLS itself.
    Nothing,
}

/// Opens what the peer sends.
pub(crate) struct Opener {
    cipher: Cipher,
    keys: Keys,
}

impl Opener {
    pub(super) fn new(
        sequence: u64,
        secrets: &ConnectionTrafficSecrets,
        keys: Keys,
    ) -> Result<Self, RecordError> {
        let cipher = Cipher::new(sequence, secrets)?;
        Ok(Self { cipher, keys })
    }

    /// How long the record is that these bytes begin with, when they say so already.
    pub(crate) fn length(bytes: &[u8]) -> Result<Option<usize>, RecordError> {
        let Some(header) = bytes.first_chunk::<HEADER>() else {
            return Ok(None);
        };
        let [kind, major, _, high, low] = *header;
        let length = usize::from(u16::from_be_bytes([high, low]));
        let is_record = (CHANGE_CIPHER_SPEC..=DATA).contains(&kind) && major == 3;
        if !is_record || length > LONGEST_SEALED {
            return Err(RecordError::Malformed);
        }
        Ok(Some(HEADER + length))
    }

    /// Opens a whole record in place.
    pub(crate) fn open(&mut self, record: &mut [u8]) -> Result<Content, RecordError> {
        let (header, body) = record
            .split_first_chunk_mut::<HEADER>()
            .ok_or(RecordError::Malformed)?;
        if header[0] != DATA {
            return Err(RecordError::Malformed);
        }
        let nonce = self.cipher.nonce();
        let opened = self.cipher.key.open_in_place(nonce, Aad::from(*header), body);
        let plain = opened.map_err(|_| RecordError::Damaged)?;
        // Padding is zeros after the type.
        let last = plain
            .iter()
            .rposition(|byte| *byte != 0)
            .ok_or(RecordError::Malformed)?;
        if last > LONGEST {
            return Err(RecordError::Malformed);
        }
        match plain[last] {
            DATA => Ok(Content::Data(HEADER..HEADER + last)),
            ALERT => plain[..last]
                .get(1)
                .map(|alert| Content::Alert(*alert))
                .ok_or(RecordError::Malformed),
            HANDSHAKE => {
                let renewed = is_key_update(&plain[..last])?;
                if renewed {
                    self.renew()?;
                }
                Ok(Content::Nothing)
            }
            _ => Err(RecordError::Malformed),
        }
    }

    fn renew(&mut self) -> Result<(), RecordError> {
        let mut keys = self.keys.lock().map_err(|_| RecordError::Key)?;
        let secrets = keys.next_receiving().map_err(|_| RecordError::Key)?;
        self.cipher = Cipher::new(0, &secrets)?;
        Ok(())
    }
}

/// Whether the message renews the key. Our peers run this same code: they send key updates that ask for none back, and
/// no tickets; whatever else there may be is refused.
fn is_key_update(message: &[u8]) -> Result<bool, RecordError> {
    match message {
        [KEY_UPDATE, 0, 0, 1, 0] => Ok(true),
        [NEW_SESSION_TICKET, ..] => Ok(false),
        _ => Err(RecordError::Malformed),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;
    use rustls::crypto::cipher::{AeadKey, Iv};

    use super::*;

    /// A key schedule that has the same key for both sides.
    struct Same(u8);

    fn secrets(seed: u8) -> ConnectionTrafficSecrets {
        ConnectionTrafficSecrets::Aes256Gcm {
            key: AeadKey::from([seed; 32]),
            iv: Iv::copy(&[seed; 12]),
        }
    }

    impl KeySchedule for Same {
        fn next_sending(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error> {
            self.0 += 1;
            Ok(secrets(self.0))
        }

        fn next_receiving(&mut self) -> Result<ConnectionTrafficSecrets, rustls::Error> {
            self.next_sending()
        }
    }

    impl Sealer {
        pub(in super::super) fn use_up(&mut self) {
            self.cipher.sequence = KEY_LIMIT;
        }
    }

    impl Opener {
        pub(in super::super) fn use_up(&mut self) {
            self.cipher.sequence = KEY_LIMIT;
        }
    }

    pub(in super::super) fn pair() -> (Sealer, Opener) {
        let keys = || Arc::new(Mutex::new(Same(1)));
        let sealer = Sealer::new(0, &secrets(1), keys()).expect("a key");
        let opener = Opener::new(0, &secrets(1), keys()).expect("a key");
        (sealer, opener)
    }

    fn sealed(sealer: &mut Sealer, plain: &[u8]) -> Vec<u8> {
        let mut record = [&[0; HEADER][..], plain, &[0; TRAILER]].concat();
        sealer.seal(&mut record, DATA).expect("it fits");
        record
    }

    proptest! {
        #[test]
        fn what_is_sealed_opens(texts in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 1..300), 1..8)) {
            let (mut sealer, mut opener) = pair();
            for text in texts {
                let mut record = sealed(&mut sealer, &text);
                prop_assert_eq!(Opener::length(&record), Ok(Some(record.len())));
                let Ok(Content::Data(place)) = opener.open(&mut record) else {
                    panic!("it is data");
                };
                prop_assert_eq!(&record[place], &text[..]);
            }
        }

        #[test]
        fn foreign_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let (_, mut opener) = pair();
            let _ = Opener::length(&bytes);
            prop_assert!(opener.open(&mut bytes).is_err());
        }
    }

    #[test]
    fn a_changed_record_is_damaged() {
        let (mut sealer, mut opener) = pair();
        let mut record = sealed(&mut sealer, b"hello");
        record[HEADER] ^= 1;
        assert_eq!(opener.open(&mut record), Err(RecordError::Damaged));
    }

    #[test]
    fn keys_are_renewed_on_both_sides() {
        let (mut sealer, mut opener) = pair();
        assert!(!sealer.is_used_up());
        let mut update = sealer.renew().expect("there is a next key");
        let mut record = sealed(&mut sealer, b"hello");
        assert_eq!(opener.open(&mut update), Ok(Content::Nothing));
        assert_eq!(opener.open(&mut record), Ok(Content::Data(HEADER..HEADER + 5)));
    }
}
