//! Bursts: what one of quinn's tasks sends in one go leaves with one system call.
//!
//! ```text
//!  task ──trains of up to ten packets──▶ this thread's Burst ──full, or the task has said all──▶ one sendmsg (GSO)
//!                                                                   └─the socket is full─▶ Unsent, before all that follows
//! ```
//!
//! quinn hands ten packets at a time to the kernel. Of a 1,500-byte path that is 15 kB, while the kernel takes 64, and most
//! of what it does for a train it does once. Only while a task runs there is a burst, so nothing waits for company.

use std::cell::RefCell;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use quinn::udp::{EcnCodepoint, Transmit};

use super::runtime::{Socket, Writable};

/// Bytes that one send of the kernel takes, with its headers.
const MOST: usize = 65_000;
/// Packets after which quinn pauses in what it has to say.
const TURN: usize = 20;

thread_local! {
    /// What the task that runs on this thread has to send; `None` outside such tasks.
    static BURST: RefCell<Option<Burst>> = const { RefCell::new(None) };
    /// Memory of a burst that is over, for the next one.
    static SPARE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Packets of the same size that go the same way.
#[derive(Default)]
pub(super) struct Burst {
    head: Option<Head>,
    packets: Vec<u8>,
    /// Packets that the task sent so far, gone ones too.
    sent: usize,
}

/// What all packets of a burst have in common.
struct Head {
    socket: Arc<Socket>,
    destination: SocketAddr,
    ecn: Option<EcnCodepoint>,
    src_ip: Option<IpAddr>,
    /// The length of each packet; only the last may be shorter.
    segment: usize,
}

/// Sends packets: with what comes next, in one of quinn's tasks; at once otherwise.
pub(super) fn send(socket: &Arc<Socket>, transmit: &Transmit<'_>) -> io::Result<()> {
    BURST.with_borrow_mut(|burst| match burst {
        Some(burst) => burst.send(socket, transmit),
        None => socket.send(transmit),
    })
}

/// A task begins.
pub(super) fn begin() {
    let packets = SPARE.take();
    BURST.set(Some(Burst {
        packets,
        ..Burst::default()
    }));
}

/// Whether the task paused while there was room for as much again.
pub(super) fn is_hungry() -> bool {
    BURST.with_borrow(|burst| burst.as_ref().is_some_and(Burst::is_hungry))
}

/// A task is done for now: sends what is left. What does not go must go before the task runs again.
pub(super) fn end() -> Option<Unsent> {
    let mut burst = BURST.take()?;
    match burst.flush() {
        Ok(()) => {
            burst.packets.clear();
            SPARE.set(burst.packets);
            None
        }
        Err(_) => burst.head.take().map(|head| Unsent {
            writable: Writable::new(head.socket.clone()),
            head,
            packets: burst.packets,
        }),
    }
}

impl Burst {
    fn send(&mut self, socket: &Arc<Socket>, transmit: &Transmit<'_>) -> io::Result<()> {
        let length = transmit.contents.len();
        let segment = transmit.segment_size.unwrap_or(length).max(1);
        if !self.takes(socket, transmit, segment) {
            self.flush()?;
            if length > MOST / 2 {
                // Nothing of its kind would find room beside it.
                return socket.send(transmit);
            }
            self.head = Some(Head {
                socket: socket.clone(),
                destination: transmit.destination,
                ecn: transmit.ecn,
                src_ip: transmit.src_ip,
                segment,
            });
        }
        self.packets.extend_from_slice(transmit.contents);
        self.sent += length.div_ceil(segment);
        Ok(())
    }

    /// Whether packets go together with those that are here.
    fn takes(&self, socket: &Arc<Socket>, transmit: &Transmit<'_>, segment: usize) -> bool {
        let Some(head) = &self.head else { return false };
        let same = Arc::ptr_eq(&head.socket, socket)
            && head.destination == transmit.destination
            && head.ecn == transmit.ecn
            && head.src_ip == transmit.src_ip;
        let fits = match transmit.segment_size {
            Some(_) => segment == head.segment,
            None => segment <= head.segment,
        };
        let bytes = self.packets.len() + transmit.contents.len();
        let whole = self.packets.len().is_multiple_of(head.segment);
        same && fits && whole && bytes <= MOST && bytes.div_ceil(head.segment) <= socket.segments()
    }

    fn is_hungry(&self) -> bool {
        let turn = self.head.as_ref().map_or(0, |head| TURN * head.segment);
        // A turn that ended with less than a pause has said all there was.
        turn > 0 && self.sent == TURN && self.packets.len() == turn && self.packets.len() + turn <= MOST
    }

    /// Sends what is here; it stays if the socket takes nothing.
    fn flush(&mut self) -> io::Result<()> {
        let Some(head) = &self.head else { return Ok(()) };
        head.send(&self.packets)?;
        self.head = None;
        self.packets.clear();
        Ok(())
    }
}

impl Head {
    fn send(&self, packets: &[u8]) -> io::Result<()> {
        self.socket.send(&Transmit {
            destination: self.destination,
            ecn: self.ecn,
            contents: packets,
            segment_size: (packets.len() > self.segment).then_some(self.segment),
            src_ip: self.src_ip,
        })
    }
}

/// A burst that found no room in its socket.
pub(super) struct Unsent {
    writable: Writable,
    head: Head,
    packets: Vec<u8>,
}

impl Unsent {
    /// Sends it once there is room.
    pub(super) fn poll_send(&mut self, context: &mut Context<'_>) -> Poll<()> {
        while self.head.send(&self.packets).is_err() {
            if ready!(self.writable.poll(context)).is_err() {
                // It cannot be waited for: as if the network had lost them.
                break;
            }
        }
        Poll::Ready(())
    }
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;
    use std::time::Duration;

    use super::*;

    struct Pair {
        near: Arc<Socket>,
        far: UdpSocket,
    }

    impl Pair {
        fn new() -> Self {
            let far = UdpSocket::bind("127.0.0.1:0").unwrap();
            far.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
            let near = Socket::new(UdpSocket::bind("127.0.0.1:0").unwrap()).unwrap();
            let near = Arc::new(near);
            Self { near, far }
        }

        /// Sends packets of so many bytes each, numbered from `first` by what they are filled with.
        fn send(&self, first: u8, lengths: &[usize]) {
            let mut contents = Vec::new();
            for (number, length) in (first..).zip(lengths) {
                contents.extend(std::iter::repeat_n(number, *length));
            }
            send(
                &self.near,
                &Transmit {
                    destination: self.far.local_addr().unwrap(),
                    ecn: None,
                    contents: &contents,
                    segment_size: (lengths.len() > 1).then_some(lengths[0]),
                    src_ip: None,
                },
            )
            .unwrap();
        }

        /// The next packets' numbers and lengths.
        fn receive(&self, packets: usize) -> Vec<(u8, usize)> {
            let mut memory = [0; 65_536];
            let next = |_| {
                let length = self.far.recv(&mut memory).unwrap();
                assert!(memory[..length].iter().all(|byte| *byte == memory[0]));
                (memory[0], length)
            };
            (0..packets).map(next).collect()
        }

        fn waits(&self) -> bool {
            self.far.set_nonblocking(true).unwrap();
            let waits = self.far.peek(&mut [0]).is_ok();
            self.far.set_nonblocking(false).unwrap();
            waits
        }
    }

    fn numbered(lengths: &[usize]) -> Vec<(u8, usize)> {
        (1..).zip(lengths.iter().copied()).collect()
    }

    #[tokio::test]
    async fn outside_a_task_packets_leave_at_once_and_inside_when_it_is_done() {
        let pair = Pair::new();
        pair.send(1, &[100]);
        assert_eq!(pair.receive(1), [(1, 100)]);
        begin();
        pair.send(1, &[100, 100]);
        pair.send(3, &[100, 70]);
        assert!(!pair.waits());
        assert!(end().is_none());
        assert_eq!(pair.receive(4), numbered(&[100, 100, 100, 70]));
    }

    #[tokio::test]
    async fn what_does_not_go_together_goes_one_after_the_other() {
        let pair = Pair::new();
        begin();
        pair.send(1, &[100, 70]);
        pair.send(3, &[100]); // after a short one
        pair.send(4, &[200, 200]); // longer ones
        pair.send(6, &[200]);
        pair.send(7, &[30]); // a shorter one may be the last
        pair.send(8, &[200]);
        assert!(end().is_none());
        let lengths = [100, 70, 100, 200, 200, 200, 30, 200];
        assert_eq!(pair.receive(8), numbered(&lengths));
    }

    #[tokio::test]
    async fn a_burst_holds_what_the_kernel_takes() {
        let pair = Pair::new();
        begin();
        for first in 0..5 {
            pair.send(1 + first * 10, &[1_452; 10]);
        }
        assert!(end().is_none());
        assert_eq!(pair.receive(50), numbered(&[1_452; 50]));
        begin();
        pair.send(1, &[6_500; 10]);
        assert!(pair.waits(), "nothing fits beside it");
        assert!(end().is_none());
        assert_eq!(pair.receive(10), numbered(&[6_500; 10]));
    }

    #[tokio::test]
    async fn only_a_task_that_paused_with_room_left_goes_on() {
        let pair = Pair::new();
        let hungry = |trains: &[&[usize]]| {
            begin();
            for train in trains {
                pair.send(1, train);
            }
            let hungry = is_hungry();
            assert!(end().is_none());
            pair.receive(trains.iter().map(|train| train.len()).sum());
            hungry
        };
        assert!(hungry(&[&[1_452; 10], &[1_452; 10]]));
        assert!(!hungry(&[&[1_452; 10], &[1_452; 9]]));
        assert!(!hungry(&[&[1_452; 10]]));
        assert!(!hungry(&[&[3_000; 10], &[3_000; 10]]));
        assert!(!hungry(&[]));
    }

    #[tokio::test]
    async fn what_found_no_room_goes_when_there_is_some() {
        let pair = Pair::new();
        let head = Head {
            socket: pair.near.clone(),
            destination: pair.far.local_addr().unwrap(),
            ecn: None,
            src_ip: None,
            segment: 100,
        };
        let mut unsent = Unsent {
            writable: Writable::new(pair.near.clone()),
            head,
            packets: vec![1; 100],
        };
        let sent = std::future::poll_fn(|context| unsent.poll_send(context));
        tokio::time::timeout(Duration::from_secs(10), sent).await.unwrap();
        assert_eq!(pair.receive(1), [(1, 100)]);
    }
}
