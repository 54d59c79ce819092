//! Thrift over UDP: a reader for each socket, a bounded queue, some workers that decode.
//!
//! A sender learns nothing, so what cannot be taken is lost; it is counted and said. A pipeline that refuses for a moment is asked
//! again while the queue has room.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use karez_lifecycle::Shutdown;
use socket2::SockRef;
use tokio::net::UdpSocket;
use tokio::sync::{Mutex, mpsc};
use tokio::task::JoinSet;
use tokio::time::Instant;

use super::sink::encode;
use crate::batch::Batch;
use crate::component::{Consumer, Refusal};
use crate::thrift::{self, Encoding};

/// The largest datagram that there can be.
const LARGEST: usize = 65_535;
/// How long a refused batch is offered again.
const PATIENCE: Duration = Duration::from_secs(5);

/// The keys of `thrift_compact` and `thrift_binary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UdpOptions {
    /// Which encoding arrives.
    pub encoding: Encoding,
    /// Packets that wait.
    pub queue_size: usize,
    /// The largest packet in bytes.
    pub max_packet_size: usize,
    /// Packets decoded at once.
    pub workers: usize,
    /// The kernel's buffer in bytes; 0 leaves it.
    pub socket_buffer_size: usize,
}

/// What was lost.
#[derive(Debug, Default)]
pub struct UdpLosses {
    /// Packets that no queue had room for.
    pub queue_full: AtomicU64,
    /// Packets that are larger than allowed.
    pub too_large: AtomicU64,
    /// Packets that are no Jaeger batch.
    pub malformed: AtomicU64,
    /// Spans that the pipeline refused.
    pub refused_spans: AtomicU64,
}

struct Packet {
    from: SocketAddr,
    bytes: Bytes,
}

/// Serves the sockets until the shutdown, then finishes what had arrived.
pub async fn serve(
    sockets: Vec<UdpSocket>,
    options: UdpOptions,
    consumer: Consumer,
    losses: Arc<UdpLosses>,
    shutdown: Shutdown,
) {
    let (queue, packets) = mpsc::channel(options.queue_size.clamp(1, 100_000));
    let mut tasks = JoinSet::new();
    for socket in sockets {
        tasks.spawn(read(
            socket,
            options,
            queue.clone(),
            losses.clone(),
            shutdown.clone(),
        ));
    }
    drop(queue); // the workers end when the last reader does
    let packets = Arc::new(Mutex::new(packets));
    for _ in 0..options.workers.clamp(1, 64) {
        tasks.spawn(work(
            packets.clone(),
            options.encoding,
            consumer.clone(),
            losses.clone(),
            shutdown.clone(),
        ));
    }
    while tasks.join_next().await.is_some() {}
}

async fn read(
    socket: UdpSocket,
    options: UdpOptions,
    queue: mpsc::Sender<Packet>,
    losses: Arc<UdpLosses>,
    shutdown: Shutdown,
) {
    if options.socket_buffer_size > 0
        && let Err(error) = SockRef::from(&socket).set_recv_buffer_size(options.socket_buffer_size)
    {
        tracing::warn!(%error, bytes = options.socket_buffer_size, "the socket's buffer keeps its size");
    }
    let mut buffer = vec![0; LARGEST];
    loop {
        let received = tokio::select! {
            received = socket.recv_from(&mut buffer) => received,
            () = shutdown.triggered() => break,
        };
        keep(received, &buffer, &options, &queue, &losses);
    }
    // What the kernel holds already was sent before we said stop.
    loop {
        match socket.try_recv_from(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            Err(_) => return,
            received => keep(received, &buffer, &options, &queue, &losses),
        }
    }
}

fn keep(
    received: io::Result<(usize, SocketAddr)>,
    buffer: &[u8],
    options: &UdpOptions,
    queue: &mpsc::Sender<Packet>,
    losses: &UdpLosses,
) {
    let (length, from) = match received {
        Ok(received) => received,
        // The kernel reports here that an earlier answer did not arrive, and the like; the socket stays usable.
        Err(error) => return tracing::debug!(%error, "reading a datagram"),
    };
    if length > options.max_packet_size {
        return lost(
            &losses.too_large,
            "the packet is larger than max_packet_size",
            from,
        );
    }
    let packet = Packet {
        from,
        bytes: Bytes::copy_from_slice(&buffer[..length]),
    };
    if queue.try_send(packet).is_err() {
        lost(
            &losses.queue_full,
            "the queue is full: raise queue_size or send less",
            from,
        );
    }
}

/// Counts a lost packet, and says so for the 1st, 2nd, 4th, 8th …
fn lost(counter: &AtomicU64, why: &str, from: SocketAddr) {
    let total = counter.fetch_add(1, Ordering::Relaxed) + 1;
    if total.is_power_of_two() {
        tracing::warn!(%from, total, "lost a Jaeger packet: {why}");
    }
}

async fn work(
    packets: Arc<Mutex<mpsc::Receiver<Packet>>>,
    encoding: Encoding,
    consumer: Consumer,
    losses: Arc<UdpLosses>,
    shutdown: Shutdown,
) {
    loop {
        let Some(packet) = packets.lock().await.recv().await else {
            return;
        };
        let batch = match thrift::decode_message(encoding, &packet.bytes) {
            Ok(batch) => batch,
            Err(error) => {
                lost(&losses.malformed, &error.to_string(), packet.from);
                continue;
            }
        };
        let batch = encode(batch);
        if batch.items == 0 {
            continue;
        }
        let spans = batch.items as u64;
        if let Err(refusal) = offer(&consumer, batch, &shutdown).await {
            let total = losses.refused_spans.fetch_add(spans, Ordering::Relaxed) + spans;
            tracing::warn!(from = %packet.from, spans, total, %refusal, "lost spans: the pipeline refused them");
        }
    }
}

async fn offer(consumer: &Consumer, batch: Batch, shutdown: &Shutdown) -> Result<(), Refusal> {
    let until = Instant::now() + PATIENCE;
    let mut pause = Duration::from_millis(20);
    loop {
        match consumer.send(batch.clone()).await {
            Err(refusal) if !refusal.retryable => return Err(refusal),
            Err(refusal) if Instant::now() + pause >= until || shutdown.is_triggered() => {
                return Err(refusal);
            }
            Err(_) => {
                tokio::time::sleep(pause).await;
                pause *= 2;
            }
            Ok(()) => return Ok(()),
        }
    }
}
