//! The first record each way on a secured connection: what it is for, and what each side lets the other send.
//!
//! ```text
//!  dialler  Greeting { limits, Purpose::Link }            ──▶ acceptor
//!           ◀── Greeting { limits, Purpose::Welcome(ticket) }
//!  dialler  Greeting { limits, Purpose::Lane(ticket, number) } ──▶ acceptor, on another connection
//!           ◀── Greeting { limits, Purpose::Bound }
//! ```
//!
//! The ticket is a secret of the multiplexed connection: only who holds it may add lanes, and only with a certificate
//! of the same identity.

use super::mux::Limits;

/// This version of frames and greetings.
const VERSION: u8 = 1;
const LINK: u8 = 0;
const WELCOME: u8 = 1;
const LANE: u8 = 2;
const BOUND: u8 = 3;
const UNKNOWN: u8 = 4;
/// No side may let the other send more than this without an answer.
const LARGEST: u32 = 1 << 30;

/// What lanes prove with that they belong to a connection.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Ticket {
    pub(super) link: [u8; 16],
    pub(super) secret: [u8; 32],
}

impl std::fmt::Debug for Ticket {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ticket").finish_non_exhaustive()
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    /// To be multiplexed.
    Link,
    /// It is.
    Welcome(Ticket),
    /// To be a lane.
    Lane(Ticket, u32),
    /// It is.
    Bound,
    /// No connection of ours has such a ticket.
    Unknown,
}

/// The first record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Greeting {
    pub(super) limits: Limits,
    pub(super) purpose: Purpose,
}

/// Why a greeting is not understood.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum GreetingError {
    /// It is of another version.
    #[error("the peer speaks version {0} of the TLS transport")]
    Version(u8),
    /// It makes no sense.
    #[error("the peer's greeting makes no sense")]
    Malformed,
}

impl Greeting {
    pub(super) fn encode(&self) -> Vec<u8> {
        let (kind, ticket, number) = match self.purpose {
            Purpose::Link => (LINK, None, None),
            Purpose::Welcome(ticket) => (WELCOME, Some(ticket), None),
            Purpose::Lane(ticket, number) => (LANE, Some(ticket), Some(number)),
            Purpose::Bound => (BOUND, None, None),
            Purpose::Unknown => (UNKNOWN, None, None),
        };
        let mut bytes = vec![VERSION, kind];
        bytes.extend_from_slice(&self.limits.stream_window.to_be_bytes());
        bytes.extend_from_slice(&self.limits.connection_window.to_be_bytes());
        bytes.extend_from_slice(&self.limits.streams.to_be_bytes());
        if let Some(ticket) = ticket {
            bytes.extend_from_slice(&ticket.link);
            bytes.extend_from_slice(&ticket.secret);
        }
        bytes.extend(number.iter().flat_map(|number| number.to_be_bytes()));
        bytes
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, GreetingError> {
        let mut bytes = Parts(bytes);
        let [version, kind] = bytes.array()?;
        if version != VERSION {
            return Err(GreetingError::Version(version));
        }
        let limits = Limits {
            stream_window: bytes.number()?.min(LARGEST),
            connection_window: bytes.number()?.min(LARGEST),
            streams: bytes.number()?.min(LARGEST),
        };
        let purpose = match kind {
            LINK => Purpose::Link,
            WELCOME => Purpose::Welcome(bytes.ticket()?),
            LANE => Purpose::Lane(bytes.ticket()?, bytes.number()?),
            BOUND => Purpose::Bound,
            UNKNOWN => Purpose::Unknown,
            _ => return Err(GreetingError::Malformed),
        };
        // What follows is of a later version, which says in this part what this one needs.
        Ok(Self { limits, purpose })
    }
}

struct Parts<'a>(&'a [u8]);

impl Parts<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], GreetingError> {
        let (part, rest) = self.0.split_first_chunk().ok_or(GreetingError::Malformed)?;
        self.0 = rest;
        Ok(*part)
    }

    fn number(&mut self) -> Result<u32, GreetingError> {
        self.array().map(u32::from_be_bytes)
    }

    fn ticket(&mut self) -> Result<Ticket, GreetingError> {
        Ok(Ticket {
            link: self.array()?,
            secret: self.array()?,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn purposes() -> impl Strategy<Value = Purpose> {
        let ticket = any::<([u8; 16], [u8; 32])>().prop_map(|(link, secret)| Ticket { link, secret });
        prop_oneof![
            Just(Purpose::Link),
            ticket.clone().prop_map(Purpose::Welcome),
            (ticket, any::<u32>()).prop_map(|(ticket, number)| Purpose::Lane(ticket, number)),
            Just(Purpose::Bound),
            Just(Purpose::Unknown),
        ]
    }

    proptest! {
        #[test]
        fn greetings_survive_the_way(purpose in purposes(), numbers in any::<[u16; 3]>()) {
            let [a, b, c] = numbers.map(u32::from);
            let limits = Limits { stream_window: a, connection_window: b, streams: c };
            let greeting = Greeting { limits, purpose };
            prop_assert_eq!(Greeting::decode(&greeting.encode()), Ok(greeting));
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = Greeting::decode(&bytes);
        }
    }
}
