//! Renewal of what a peer is admitted by: a request one way, a certificate and authorities the other.

use prost::Message;

use super::frame::WireError;

/// The longest request.
const REQUEST: usize = 8 * 1024;
/// The longest certificate, and the longest list of authorities.
const ANSWER: usize = 32 * 1024;

/// A dialler sends `request`; its peer sends `certificate` and `authorities`, or `authorities` alone.
#[derive(Clone, PartialEq, Message)]
pub(crate) struct Renewal {
    /// A certificate request, PEM.
    #[prost(string, tag = "1")]
    pub(crate) request: String,
    /// A certificate, PEM.
    #[prost(string, tag = "2")]
    pub(crate) certificate: String,
    /// Authorities, PEM.
    #[prost(string, tag = "3")]
    pub(crate) authorities: String,
}

impl Renewal {
    /// Checks the sizes; what is inside only the site's controllers read.
    pub(crate) fn checked(&self) -> Result<(), WireError> {
        let fits = self.request.len() <= REQUEST
            && self.certificate.len() <= ANSWER
            && self.authorities.len() <= ANSWER;
        let texts = [&self.request, &self.certificate, &self.authorities];
        let is_pem = |text: &&String| {
            text.chars()
                .all(|c| c.is_ascii_graphic() || matches!(c, ' ' | '\n' | '\r'))
        };
        match fits && texts.iter().all(is_pem) {
            true => Ok(()),
            false => Err(WireError::Content("a renewal that is none")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_are_bounded() {
        let of = |length| Renewal {
            request: "x".repeat(length),
            ..Renewal::default()
        };
        assert!(of(REQUEST).checked().is_ok());
        assert!(of(REQUEST + 1).checked().is_err());
    }

    proptest! {
        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(renewal) = Renewal::decode(bytes.as_slice()) {
                let _ = renewal.checked();
            }
        }
    }
}
