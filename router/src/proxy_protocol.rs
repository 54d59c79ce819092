//! The PROXY protocol, versions 1 and 2: who the client really is, said before its first byte.
//!
//! ```text
//!  a proxy before us ──header, bytes──▶ listener.rs (only where the document trusts it)
//!  connector.rs ──header, bytes──▶ target (only where the document asks for it)
//! ```
//!
//! Format: <https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>. Additional fields (TLVs) are skipped.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use karez_router_config::ProxyProtocol;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// The longest header of version 1, with its line end.
const LONGEST_V1: usize = 107;
/// The longest header of version 2 that is read, of the 65,551 bytes that it could have.
const LONGEST_V2: usize = 2048;
const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const WORD: &[u8; 6] = b"PROXY ";
/// A proxy says its header in this time.
const LIMIT: Duration = Duration::from_secs(5);

/// Both ends of the connection that a proxy took.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ends {
    /// The client.
    pub source: SocketAddr,
    /// What the client connected to.
    pub destination: SocketAddr,
}

/// What the first bytes of a connection say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// The header is not whole yet: all of these bytes belong to it.
    More,
    /// It is whole.
    Whole {
        /// Who the client is; `None` when the proxy does not say, or speaks for itself.
        ends: Option<Ends>,
        /// So many bytes belong to it.
        length: usize,
    },
}

/// Why the first bytes of a connection are no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Neither version begins so.
    #[error("the connection does not begin with a PROXY header")]
    NoHeader,
    /// Longer than allowed.
    #[error("the PROXY header is longer than allowed")]
    TooLong,
    /// A line that is not of version 1.
    #[error("the PROXY line is malformed")]
    Line,
    /// A version, command or family that there is not.
    #[error("the PROXY header is of an unknown version, command or family")]
    Unknown,
    /// Shorter than its family needs.
    #[error("the PROXY header is too short for its addresses")]
    Short,
}

/// Reads the first bytes of a connection.
///
/// # Errors
/// When no further byte could make a header of them.
pub fn parse(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let begins = |word: &[u8]| {
        let length = bytes.len().min(word.len());
        bytes[..length] == word[..length]
    };
    if begins(SIGNATURE) {
        version_2(bytes)
    } else if begins(WORD) {
        version_1(bytes)
    } else {
        Err(ParseError::NoHeader)
    }
}

fn version_1(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let Some(end) = bytes.iter().take(LONGEST_V1).position(|byte| *byte == b'\n') else {
        return if bytes.len() < LONGEST_V1 {
            Ok(Parsed::More)
        } else {
            Err(ParseError::TooLong)
        };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(ParseError::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| ParseError::Line)?;
    let words: Vec<&str> = line.split(' ').collect();
    let ends = match words.as_slice() {
        ["PROXY", "UNKNOWN", ..] => None,
        ["PROXY", family, source, destination, from, to] => {
            let address = |text: &str| -> Option<IpAddr> {
                match *family {
                    "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
                    "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
                    _ => None,
                }
            };
            let end = |host: &str, number: &str| Some(SocketAddr::new(address(host)?, port(number)?));
            let source = end(source, from).ok_or(ParseError::Line)?;
            let destination = end(destination, to).ok_or(ParseError::Line)?;
            Some(Ends { source, destination })
        }
        _ => return Err(ParseError::Line),
    };
    Ok(Parsed::Whole {
        ends,
        length: end + 1,
    })
}

/// Digits only, and no more of them than needed.
fn port(text: &str) -> Option<u16> {
    let plain = text.bytes().all(|byte| byte.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    plain.then(|| text.parse().ok())?
}

fn version_2(bytes: &[u8]) -> Result<Parsed, ParseError> {
    let Some(&[command, family, high, low]) = bytes.get(12..16).and_then(|rest| rest.first_chunk()) else {
        return Ok(Parsed::More);
    };
    let length = 16 + usize::from(u16::from_be_bytes([high, low]));
    if length > LONGEST_V2 {
        return Err(ParseError::TooLong);
    }
    let said = match command {
        // The proxy speaks for itself: a health check.
        0x20 => false,
        0x21 => true,
        _ => return Err(ParseError::Unknown),
    };
    if family >> 4 > 3 || family & 0xf > 2 {
        return Err(ParseError::Unknown);
    }
    let Some(body) = bytes.get(16..length) else {
        return Ok(Parsed::More);
    };
    let ends = match family {
        0x11 if said => Some(ends_of::<4>(body)?),
        0x21 if said => Some(ends_of::<16>(body)?),
        // Not over TCP and IP: nothing that could be said further.
        _ => None,
    };
    Ok(Parsed::Whole { ends, length })
}

fn ends_of<const N: usize>(body: &[u8]) -> Result<Ends, ParseError>
where
    IpAddr: From<[u8; N]>,
{
    let part = |at: usize| body.get(at..).and_then(|rest| rest.first_chunk::<N>());
    let number = |at: usize| body.get(at..).and_then(|rest| rest.first_chunk::<2>());
    match (part(0), part(N), number(2 * N), number(2 * N + 2)) {
        (Some(source), Some(destination), Some(from), Some(to)) => Ok(Ends {
            source: SocketAddr::new(IpAddr::from(*source), u16::from_be_bytes(*from)),
            destination: SocketAddr::new(IpAddr::from(*destination), u16::from_be_bytes(*to)),
        }),
        _ => Err(ParseError::Short),
    }
}

/// The header for these ends; without them it says that nothing is known.
pub fn encode(version: ProxyProtocol, ends: Option<Ends>) -> Vec<u8> {
    let ends = ends.map(|ends| {
        let (source, destination) = (
            ends.source.ip().to_canonical(),
            ends.destination.ip().to_canonical(),
        );
        let both = match (source, destination) {
            (IpAddr::V4(source), IpAddr::V6(destination)) => {
                (source.to_ipv6_mapped().into(), destination.into())
            }
            (IpAddr::V6(source), IpAddr::V4(destination)) => {
                (source.into(), destination.to_ipv6_mapped().into())
            }
            same => same,
        };
        (both, ends.source.port(), ends.destination.port())
    });
    match version {
        ProxyProtocol::V1 => encode_1(ends),
        ProxyProtocol::V2 => encode_2(ends),
    }
}

type Both = ((IpAddr, IpAddr), u16, u16);

fn encode_1(ends: Option<Both>) -> Vec<u8> {
    let mut line = Vec::with_capacity(LONGEST_V1);
    let written = match ends {
        None => write!(line, "PROXY UNKNOWN\r\n"),
        Some(((source, destination), from, to)) => {
            let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
            write!(line, "PROXY {family} {source} {destination} {from} {to}\r\n")
        }
    };
    written.expect("a vector takes everything");
    line
}

fn encode_2(ends: Option<Both>) -> Vec<u8> {
    let mut header = SIGNATURE.to_vec();
    let mut body = Vec::new();
    let family = match ends {
        None => 0x00,
        Some(((source, destination), from, to)) => {
            for address in [source, destination] {
                match address {
                    IpAddr::V4(address) => body.extend_from_slice(&address.octets()),
                    IpAddr::V6(address) => body.extend_from_slice(&address.octets()),
                }
            }
            body.extend_from_slice(&from.to_be_bytes());
            body.extend_from_slice(&to.to_be_bytes());
            if source.is_ipv4() { 0x11 } else { 0x21 }
        }
    };
    header.extend_from_slice(&[if ends.is_some() { 0x21 } else { 0x20 }, family]);
    header.extend_from_slice(&u16::try_from(body.len()).unwrap_or(0).to_be_bytes());
    header.extend_from_slice(&body);
    header
}

/// Why a connection's header could not be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum AcceptError {
    /// It is none.
    #[error(transparent)]
    Parse(#[from] ParseError),
    /// The connection failed or ended before.
    #[error("before its PROXY header was whole: {0}")]
    Io(#[from] std::io::Error),
    /// It took too long.
    #[error("no PROXY header in time")]
    Slow,
}

/// Takes the header off a connection, and not a byte more.
pub(crate) async fn accept(stream: &mut TcpStream) -> Result<Option<Ends>, AcceptError> {
    timeout(LIMIT, take(stream))
        .await
        .map_err(|_| AcceptError::Slow)?
}

async fn take(stream: &mut TcpStream) -> Result<Option<Ends>, AcceptError> {
    let mut bytes = [0; LONGEST_V2];
    let mut taken = 0;
    loop {
        let seen = taken + stream.peek(&mut bytes[taken..]).await?;
        if seen == taken {
            return Err(std::io::Error::from(std::io::ErrorKind::UnexpectedEof).into());
        }
        let parsed = parse(&bytes[..seen])?;
        let (length, found) = match parsed {
            Parsed::More => (seen, None),
            Parsed::Whole { ends, length } => (length, Some(ends)),
        };
        // They are there already, so this does not wait.
        stream.read_exact(&mut bytes[taken..length]).await?;
        taken = length;
        if let Some(ends) = found {
            return Ok(ends);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ends(source: &str, destination: &str) -> Ends {
        Ends {
            source: source.parse().unwrap(),
            destination: destination.parse().unwrap(),
        }
    }

    #[test]
    fn writes_the_headers_of_the_specification() {
        let v4 = ends("192.0.2.1:56324", "198.51.100.7:443");
        let line = encode(ProxyProtocol::V1, Some(v4));
        assert_eq!(line, b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 443\r\n");
        let mixed = ends("192.0.2.1:1", "[2001:db8::1]:2");
        let line = encode(ProxyProtocol::V1, Some(mixed));
        assert_eq!(line, b"PROXY TCP6 ::ffff:192.0.2.1 2001:db8::1 1 2\r\n");
        let binary = encode(ProxyProtocol::V2, Some(v4));
        assert_eq!(&binary[12..16], [0x21, 0x11, 0, 12]);
        assert_eq!(encode(ProxyProtocol::V1, None), b"PROXY UNKNOWN\r\n");
    }

    #[test]
    fn refuses_what_is_no_header() {
        for bytes in [
            &b"GET / HTTP/1.1\r\n"[..],
            b"PROXY TCP4 192.0.2.1 198.51.100.7 56324 70000\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 056 443\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 +56 443\r\n",
            b"PROXY TCP4 ::1 ::1 1 2\r\n",
            b"PROXY TCP4 192.0.2.1 198.51.100.7 1 2\n",
            b"PROXY UDP4 192.0.2.1 198.51.100.7 1 2\r\n",
            b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\x0c",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
            b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x02ab",
            &[b'P', b'R', b'O', b'X', b'Y', b' ']
                .iter()
                .copied()
                .chain([b'x'; 101])
                .collect::<Vec<_>>(),
        ] {
            assert!(parse(bytes).is_err(), "{:?}", bytes.escape_ascii().to_string());
        }
    }

    #[test]
    fn a_proxy_that_speaks_for_itself_names_no_client() {
        let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0rest";
        let whole = Parsed::Whole {
            ends: None,
            length: 16,
        };
        assert_eq!(parse(local), Ok(whole));
    }

    proptest! {
        #[test]
        fn a_header_comes_back_and_takes_nothing_of_what_follows(
            v4 in any::<bool>(), source in any::<[u8; 16]>(), destination in any::<[u8; 16]>(),
            from in any::<u16>(), to in any::<u16>(), second in any::<bool>(),
            rest in proptest::collection::vec(any::<u8>(), 0..40),
        ) {
            let address = |bytes: [u8; 16]| -> IpAddr {
                if v4 {
                    IpAddr::from([bytes[0], bytes[1], bytes[2], bytes[3]])
                } else {
                    // Never one that stands for IPv4: those are written as such.
                    let mut bytes = bytes;
                    bytes[0] = 0x20;
                    IpAddr::from(bytes)
                }
            };
            let ends = Ends {
                source: SocketAddr::new(address(source), from),
                destination: SocketAddr::new(address(destination), to),
            };
            let version = if second { ProxyProtocol::V2 } else { ProxyProtocol::V1 };
            let header = encode(version, Some(ends));
            let mut bytes = header.clone();
            bytes.extend_from_slice(&rest);
            let whole = Parsed::Whole { ends: Some(ends), length: header.len() };
            prop_assert_eq!(parse(&bytes), Ok(whole));
            for cut in 0..header.len() {
                prop_assert_eq!(parse(&header[..cut]), Ok(Parsed::More));
            }
        }

        #[test]
        fn foreign_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300), begin in 0usize..3) {
            let start: &[u8] = [&b""[..], WORD, SIGNATURE][begin];
            let bytes = [start, &bytes].concat();
            if let Ok(Parsed::Whole { length, .. }) = parse(&bytes) {
                prop_assert!(length <= bytes.len());
            }
        }
    }
}
