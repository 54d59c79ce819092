//! Whether a QUIC router answers on a port, and which size of datagram reaches it: by version negotiation, which
//! needs no handshake and leaves nothing behind at the peer (RFC 9000, section 6).

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::net::UdpSocket;
use tokio::time::timeout;

/// The payload of a datagram on an Ethernet without tunnels (IPv4).
pub(super) const USUAL: usize = 1472;
/// Sizes that are tried, growing.
const SIZES: [usize; 8] = [1200, 1252, 1350, 1400, 1432, USUAL, 4052, 8952];
/// A version that nobody speaks: every server answers with those that it does.
const NO_VERSION: u32 = 0x1a2a_3a4a;
/// The smallest datagram that a server answers.
const SMALLEST: usize = 1200;
/// Tries for each size.
const TRIES: usize = 3;
/// The time for an answer when the peer is known to answer.
const ANSWER: Duration = Duration::from_millis(700);

/// The round trip of a port where QUIC is spoken.
pub(super) async fn reach(address: SocketAddr, patience: Duration) -> Option<Duration> {
    let socket = socket(address).await?;
    let each = patience / u32::try_from(TRIES).unwrap_or(1);
    for _ in 0..TRIES {
        let started = Instant::now();
        if ask(&socket, SMALLEST, each).await {
            return Some(started.elapsed());
        }
    }
    None
}

/// The largest size of those tried that reaches the port in one piece.
pub(super) async fn largest(address: SocketAddr) -> Option<usize> {
    let socket = socket(address).await?;
    let mut largest = None;
    for size in SIZES {
        let mut passed = false;
        for _ in 0..TRIES {
            if ask(&socket, size, ANSWER).await {
                passed = true;
                break;
            }
        }
        if !passed {
            break;
        }
        largest = Some(size);
    }
    largest
}

/// A socket that does not let datagrams be cut on the way.
async fn socket(address: SocketAddr) -> Option<UdpSocket> {
    let any = if address.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    quinn::udp::UdpSocketState::new((&socket).into()).ok()?;
    socket.set_nonblocking(true).ok()?;
    let socket = UdpSocket::from_std(socket).ok()?;
    socket.connect(address).await.ok()?;
    Some(socket)
}

async fn ask(socket: &UdpSocket, size: usize, patience: Duration) -> bool {
    let (destination, source): ([u8; 8], [u8; 8]) = (rand::random(), rand::random());
    let answered = async {
        // Too large for the first hop is an error here, and no answer further on.
        if socket.send(&packet(destination, source, size)).await.is_err() {
            return false;
        }
        let mut buffer = [0; 1500];
        loop {
            match socket.recv(&mut buffer).await {
                Ok(length) if versions(&buffer[..length], &destination, &source).is_some() => return true,
                Ok(_) => {}
                Err(_) => return false,
            }
        }
    };
    timeout(patience, answered).await.unwrap_or(false)
}

fn packet(destination: [u8; 8], source: [u8; 8], size: usize) -> Vec<u8> {
    let mut packet = vec![0xc0];
    packet.extend_from_slice(&NO_VERSION.to_be_bytes());
    for id in [destination, source] {
        packet.push(8);
        packet.extend_from_slice(&id);
    }
    packet.resize(size, 0);
    packet
}

/// The versions that a server names in its answer to the packet with these connection ids; `None` for anything else.
pub fn versions(answer: &[u8], destination: &[u8], source: &[u8]) -> Option<Vec<u32>> {
    let (first, rest) = answer.split_first()?;
    let (version, rest) = rest.split_first_chunk::<4>()?;
    if first & 0x80 == 0 || *version != [0; 4] {
        return None;
    }
    // The answer's ids are ours the other way round.
    let rest = after_id(rest, source)?;
    let rest = after_id(rest, destination)?;
    let (chunks, remainder) = rest.as_chunks::<4>();
    (!chunks.is_empty() && remainder.is_empty())
        .then(|| chunks.iter().map(|chunk| u32::from_be_bytes(*chunk)).collect())
}

fn after_id<'a>(bytes: &'a [u8], id: &[u8]) -> Option<&'a [u8]> {
    let (length, rest) = bytes.split_first()?;
    if usize::from(*length) != id.len() {
        return None;
    }
    rest.strip_prefix(id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_the_answer_to_our_packet_counts() {
        let mut answer = vec![0x80, 0, 0, 0, 0, 2, 3, 4, 2, 1, 2];
        answer.extend_from_slice(&1u32.to_be_bytes());
        assert_eq!(versions(&answer, &[1, 2], &[3, 4]), Some(vec![1]));
        assert_eq!(versions(&answer, &[9, 2], &[3, 4]), None);
        assert_eq!(versions(&answer[..answer.len() - 1], &[1, 2], &[3, 4]), None);
        answer[0] = 0x40;
        assert_eq!(versions(&answer, &[1, 2], &[3, 4]), None);
    }

    #[test]
    fn a_packet_has_the_size_that_is_asked_for() {
        assert_eq!(packet([1; 8], [2; 8], 1200).len(), 1200);
    }

    proptest! {
        #[test]
        fn foreign_answers_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = versions(&bytes, &[1, 2], &[3, 4]);
        }
    }
}
