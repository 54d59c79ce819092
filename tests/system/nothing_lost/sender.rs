//! Sends numbered batches at a steady rate, each again until it is acknowledged.

use std::io::BufReader;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::wire;

/// What is sent.
#[derive(Clone, Copy)]
pub(super) struct Load {
    /// Batches a second.
    pub(super) rate: u64,
    /// Items of a batch.
    pub(super) batch: u64,
    /// Connections at once.
    pub(super) connections: u64,
}

/// A steady stream, as applications send it.
pub(super) const STEADY: Load = Load {
    rate: 200,
    batch: 20,
    connections: 8,
};

/// A running sender.
pub(super) struct Sender {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Sent>>,
}

/// What was sent.
#[derive(Default)]
pub(super) struct Sent {
    /// The numbers that were acknowledged.
    pub(super) acknowledged: Vec<u64>,
    /// Attempts that were not.
    pub(super) refused: u64,
}

impl Sender {
    /// Sends until it is stopped.
    pub(super) fn start(to: SocketAddr, load: Load) -> Self {
        let (stop, next) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let thread = |_| {
            let (stop, next) = (stop.clone(), next.clone());
            let pause = Duration::from_nanos(1_000_000_000 * load.connections / load.rate);
            std::thread::spawn(move || send(to, load.batch, pause, &stop, &next))
        };
        let threads = (0..load.connections).map(thread).collect();
        Sender { stop, threads }
    }

    /// Stops, and says what was acknowledged.
    pub(super) fn stop(self) -> Sent {
        self.stop.store(true, Ordering::Relaxed);
        let mut all = Sent::default();
        for thread in self.threads {
            let sent = thread.join().unwrap_or_default();
            all.acknowledged.extend(sent.acknowledged);
            all.refused += sent.refused;
        }
        all
    }
}

fn send(to: SocketAddr, batch: u64, pause: Duration, stop: &AtomicBool, next: &AtomicU64) -> Sent {
    let mut sent = Sent::default();
    let mut connection = None;
    let mut due = Instant::now();
    while !stop.load(Ordering::Relaxed) {
        let first = next.fetch_add(batch, Ordering::Relaxed);
        let body = wire::request(first..first + batch);
        while !stop.load(Ordering::Relaxed) {
            if attempt(to, &mut connection, &body) {
                sent.acknowledged.extend(first..first + batch);
                break;
            }
            sent.refused += 1;
            std::thread::sleep(Duration::from_millis(20));
        }
        due += pause;
        match due.checked_duration_since(Instant::now()) {
            Some(left) => std::thread::sleep(left),
            // What could not be sent in time is not made up for: the rate is steady.
            None => due = Instant::now(),
        }
    }
    sent
}

/// Whether the batch was acknowledged. A connection that failed is made anew the next time.
fn attempt(to: SocketAddr, connection: &mut Option<BufReader<TcpStream>>, body: &[u8]) -> bool {
    if connection.is_none() {
        *connection = TcpStream::connect_timeout(&to, Duration::from_secs(1))
            .ok()
            .map(|stream| {
                let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
                let _ = stream.set_nodelay(true);
                BufReader::new(stream)
            });
    }
    let Some(stream) = connection else { return false };
    match wire::post(stream, body) {
        Ok(status) => status == 200,
        Err(_) => {
            *connection = None;
            false
        }
    }
}
