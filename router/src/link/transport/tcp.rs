//! What the kernel is asked for, and asked about, each TCP connection of a link.
//!
//! Where nothing is lost CUBIC carries most: BBR paces and probes, which halves what loopback carries. Where packets are
//! lost at random BBR carries a multiple: CUBIC takes each loss for a full path. So `auto` begins with CUBIC, whatever the
//! system's default is, and [`Watch`] moves a connection to BBR once it has lost packets though no queue stands on
//! its path. A connection stays on BBR.
//!
//! A packet lost at the end of what is under way is only noticed when a timer runs out, which Linux sets to no less than
//! 200 ms: on a short path that loses one packet in a hundred this, not the congestion control, is what a connection
//! mostly does. So a connection that loses at random also gets a shorter least timer. Measured on a 1,500-byte path
//! with 1 % loss (Gbit/s, one plain connection): CUBIC .05, BBR .17, CUBIC and 5 ms .12, BBR and 5 ms .31, BBR and 10 ms .29.
//!
//! All of it is best effort: a kernel without BBR, or that does not let us choose it (`net.ipv4.tcp_allowed_congestion_control`),
//! still carries.

use std::mem::{MaybeUninit, size_of};
use std::os::fd::AsRawFd;
use std::time::Duration;

use karez_router_config::Congestion;
use socket2::SockRef;
use tokio::net::TcpStream;

/// The kernel is asked again after so many bytes.
const LOOK: u64 = 1 << 20;
/// Fewer segments than these say nothing about loss.
const SEGMENTS: u32 = 500;
/// One in so many sent again is loss.
const LOST: u32 = 200;
/// A round trip longer than one and a half of the shortest, and this, says that a queue stands.
const QUEUE: Duration = Duration::from_millis(5);

/// The least time after which what was not acknowledged is sent again, where packets are lost at random.
const AGAIN: Duration = Duration::from_millis(10);
/// `TCP_RTO_MIN_US` of `linux/tcp.h`, since Linux 6.15.
const LEAST_TIMER: libc::c_int = 45;

const CUBIC: &[u8] = b"cubic";
const BBR: &[u8] = b"bbr";

/// What a connection begins with.
pub(super) fn begin(socket: &TcpStream, congestion: Congestion) {
    let first = match congestion {
        Congestion::Auto | Congestion::Cubic => CUBIC,
        Congestion::Bbr => BBR,
    };
    let _ = SockRef::from(socket).set_tcp_congestion(first);
}

/// The smoothed round trip of a connection.
pub(super) fn round_trip(socket: &TcpStream) -> Option<Duration> {
    known(socket).map(|known| known.round_trip)
}

/// Watches what becomes of what a connection sends.
#[derive(Debug)]
pub(super) struct Watch {
    /// Whether there is anything left to decide.
    watching: bool,
    unseen: u64,
    seen: Counts,
}

/// What was sent so far.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    segments: u32,
    again: u32,
}

/// What the kernel knows of a connection.
#[derive(Clone, Copy, Debug)]
struct Known {
    counts: Counts,
    round_trip: Duration,
    least: Duration,
}

impl Watch {
    /// Of a connection that has begun with what was set.
    pub(super) fn new(congestion: Congestion) -> Self {
        Self {
            watching: congestion == Congestion::Auto,
            unseen: 0,
            seen: Counts::default(),
        }
    }

    /// So many bytes were handed to the socket.
    pub(super) fn sent(&mut self, socket: &TcpStream, bytes: usize) {
        self.unseen += bytes as u64;
        if !self.watching || self.unseen < LOOK {
            return;
        }
        self.unseen = 0;
        match known(socket) {
            None => self.watching = false,
            Some(known) if self.loses(known) => {
                self.watching = false;
                let moved = SockRef::from(socket).set_tcp_congestion(BBR);
                shorten_timer(socket);
                tracing::debug!(
                    remote = ?socket.peer_addr().ok(),
                    round_trip = ?known.round_trip,
                    error = ?moved.err(),
                    "packets are lost at random: BBR"
                );
            }
            Some(_) => {}
        }
    }

    /// Whether packets were lost since this was last so asked with enough of them, and no queue explains it.
    fn loses(&mut self, known: Known) -> bool {
        let segments = known.counts.segments.wrapping_sub(self.seen.segments);
        let again = known.counts.again.wrapping_sub(self.seen.again);
        if segments < SEGMENTS {
            return false;
        }
        self.seen = known.counts;
        again >= segments / LOST && known.round_trip <= known.least * 3 / 2 + QUEUE
    }
}

/// Sets the least timer. A kernel before Linux 6.15 refuses, and keeps its own.
fn shorten_timer(socket: &TcpStream) {
    let Ok(micros) = libc::c_int::try_from(AGAIN.as_micros()) else {
        return;
    };
    let length = libc::socklen_t::try_from(size_of::<libc::c_int>()).unwrap_or(0);
    // SAFETY: `micros` is readable for `length` bytes, and the kernel keeps no reference. No safe interface has the option.
    let _ = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            LEAST_TIMER,
            (&raw const micros).cast(),
            length,
        )
    };
}

/// Asks the kernel.
fn known(socket: &TcpStream) -> Option<Known> {
    let mut info = MaybeUninit::<libc::tcp_info>::zeroed();
    let mut length = libc::socklen_t::try_from(size_of::<libc::tcp_info>()).ok()?;
    // SAFETY: `info` is writable for `length` bytes, and the kernel writes no more. No safe interface has `TCP_INFO`.
    let asked = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut length,
        )
    };
    if asked != 0 {
        return None;
    }
    // SAFETY: it was zeroed, and any bytes are a `tcp_info`; what an older kernel does not know stays zero.
    let info = unsafe { info.assume_init() };
    Some(Known {
        counts: Counts {
            segments: info.tcpi_segs_out,
            again: info.tcpi_total_retrans,
        },
        round_trip: Duration::from_micros(info.tcpi_rtt.into()),
        least: Duration::from_micros(info.tcpi_min_rtt.into()),
    })
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;

    fn after(segments: u32, again: u32, round_trip: u64, least: u64) -> Known {
        Known {
            counts: Counts { segments, again },
            round_trip: Duration::from_millis(round_trip),
            least: Duration::from_millis(least),
        }
    }

    #[test]
    fn loss_without_a_queue_is_random_and_with_one_is_congestion() {
        for (known, random) in [
            (after(1_000, 10, 50, 50), true),
            (after(1_000, 3, 50, 50), false),
            (after(1_000, 10, 120, 50), false),
            (after(100, 10, 50, 50), false),
        ] {
            assert_eq!(Watch::new(Congestion::Auto).loses(known), random, "{known:?}");
        }
    }

    #[test]
    fn only_what_is_new_counts() {
        let mut watch = Watch::new(Congestion::Auto);
        assert!(!watch.loses(after(10_000, 10, 1, 1)));
        assert!(!watch.loses(after(11_000, 11, 1, 1)));
        assert!(watch.loses(after(12_000, 31, 1, 1)));
    }

    #[tokio::test]
    async fn the_kernel_knows_what_was_sent() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut server, _) = listener.accept().await.unwrap();
        begin(&client, Congestion::Auto);
        client.write_all(&[1; 5]).await.unwrap();
        server.read_exact(&mut [0; 5]).await.unwrap();
        let known = known(&client).expect("a socket that is connected");
        assert!(known.counts.segments > 0 && known.least > Duration::ZERO);
    }
}
