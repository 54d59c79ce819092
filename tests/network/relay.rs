//! The network between the sides: packets from one device to the other, as the conditions of the moment have it.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// Packets that wait longer than this for a throttled line are dropped, as a router's full queue does.
const QUEUE: Duration = Duration::from_millis(200);
/// The protocol numbers of IP.
const TCP: u8 = 6;
const UDP: u8 = 17;

/// What the network does to packets, each way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conditions {
    /// Nothing passes.
    pub(crate) down: bool,
    /// How many of a hundred packets are lost.
    pub(crate) loss: f64,
    /// How long a packet is on its way.
    pub(crate) delay: Duration,
    /// How many of a hundred packets come `late` later than those sent after them.
    pub(crate) reordered: f64,
    /// How much later.
    pub(crate) late: Duration,
    /// How many of a hundred packets come twice.
    pub(crate) duplicated: f64,
    /// Bits a second.
    pub(crate) rate: Option<f64>,
    /// Larger packets vanish without a word.
    pub(crate) largest: usize,
    /// No TCP passes.
    pub(crate) no_tcp: bool,
    /// No UDP passes.
    pub(crate) no_udp: bool,
}

impl Default for Conditions {
    fn default() -> Self {
        Self {
            down: false,
            loss: 0.0,
            delay: Duration::ZERO,
            reordered: 0.0,
            late: Duration::from_millis(5),
            duplicated: 0.0,
            rate: None,
            largest: usize::MAX,
            no_tcp: false,
            no_udp: false,
        }
    }
}

/// The relay of one network. Its threads end when its devices are gone.
#[derive(Clone)]
pub(crate) struct Relay {
    conditions: Arc<Mutex<Conditions>>,
}

impl Relay {
    /// Starts to relay between two devices.
    pub(crate) fn start(near: File, far: File) -> std::io::Result<Self> {
        let relay = Self {
            conditions: Arc::default(),
        };
        relay.way(near.try_clone()?, far.try_clone()?, 1);
        relay.way(far, near, 2);
        Ok(relay)
    }

    /// Changes the conditions from now on; what is on its way arrives as it would have.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Conditions)) {
        change(&mut lock(&self.conditions));
    }

    fn way(&self, mut from: File, to: File, seed: u64) {
        let line = Arc::new(Line::default());
        let delivery = line.clone();
        thread::spawn(move || delivery.deliver(to));
        let relay = self.clone();
        thread::spawn(move || {
            let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15));
            let mut buffer = vec![0; 65_536];
            let mut free = Instant::now();
            while let Ok(length) = from.read(&mut buffer) {
                let conditions = *lock(&relay.conditions);
                for due in fate(&conditions, &buffer[..length], &mut dice, &mut free) {
                    line.send(due, &buffer[..length]);
                }
            }
            line.end();
        });
    }
}

/// When a packet arrives: not at all, once or twice. `free` is when the throttled line has sent what was before.
fn fate(conditions: &Conditions, packet: &[u8], dice: &mut Dice, free: &mut Instant) -> Vec<Instant> {
    let now = Instant::now();
    let protocol = match packet.first().map(|first| first >> 4) {
        Some(4) => packet.get(9),
        _ => packet.get(6),
    };
    let barred =
        (conditions.no_tcp && protocol == Some(&TCP)) || (conditions.no_udp && protocol == Some(&UDP));
    if conditions.down || barred || packet.len() > conditions.largest || dice.falls(conditions.loss) {
        return Vec::new();
    }
    let mut due = now;
    if let Some(rate) = conditions.rate {
        if *free > now + QUEUE {
            return Vec::new();
        }
        *free = now.max(*free) + Duration::from_secs_f64(packet.len() as f64 * 8.0 / rate);
        due = *free;
    }
    due += conditions.delay;
    if dice.falls(conditions.reordered) {
        due += conditions.late;
    }
    let mut arrivals = vec![due];
    if dice.falls(conditions.duplicated) {
        arrivals.push(due + conditions.late);
    }
    arrivals
}

/// Packets on their way in one direction.
#[derive(Default)]
struct Line {
    state: Mutex<LineState>,
    changed: Condvar,
}

#[derive(Default)]
struct LineState {
    /// By when they are due, then by when they were sent.
    queue: BinaryHeap<Reverse<(Instant, u64, Vec<u8>)>>,
    sent: u64,
    ended: bool,
}

impl Line {
    fn send(&self, due: Instant, packet: &[u8]) {
        let mut state = lock(&self.state);
        state.sent += 1;
        let number = state.sent;
        state.queue.push(Reverse((due, number, packet.to_vec())));
        self.changed.notify_one();
    }

    fn end(&self) {
        lock(&self.state).ended = true;
        self.changed.notify_one();
    }

    /// Hands packets over when they are due, until the way has ended.
    fn deliver(&self, mut to: File) {
        let mut state = lock(&self.state);
        while !state.ended {
            let now = Instant::now();
            let due = state.queue.peek().map(|Reverse((due, ..))| *due);
            match due {
                Some(due) if due <= now => {
                    let packet = state.queue.pop();
                    drop(state);
                    if let Some(Reverse((_, _, packet))) = packet {
                        // A device that is not up takes nothing, as a cable that is not plugged in.
                        let _ = to.write(&packet);
                    }
                    state = lock(&self.state);
                }
                due => {
                    let wait = due.map_or(Duration::from_secs(3600), |due| due - now);
                    let waited = self.changed.wait_timeout(state, wait);
                    state = waited.unwrap_or_else(PoisonError::into_inner).0;
                }
            }
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Chance that is the same in every run (xorshift64*), as far as packets come in the same order.
struct Dice(u64);

impl Dice {
    /// Whether what happens `percent` times in a hundred happens now.
    fn falls(&mut self, percent: f64) -> bool {
        if percent <= 0.0 {
            return false;
        }
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 40;
        (number % 100_000) as f64 / 1000.0 < percent
    }
}
