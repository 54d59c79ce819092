//! CUBIC that does not take packets lost at random for a full path.
//!
//! CUBIC halves what is under way, nearly, whenever a packet is lost. On a radio or a worn line that loses one packet in a
//! hundred whatever is sent, it ends at a few packets under way, then at the mercy of timers: over a 1,500-byte path
//! with 1 % loss it carried .27 Gbit/s where the processors carry 3. quinn's BBR knows no such thing, but its idea of the
//! bandwidth-delay product fails where the round trip is the processors' own (microseconds unloaded, milliseconds loaded).
//!
//! ```text
//!  acknowledged, lost ──▶ share lost of the last packets ─┐
//!                                                         ├─▶ random: the window stays     (counted, nothing more)
//!  smoothed and least round trip ──▶ is a queue standing? ┘─▶ otherwise: CUBIC, as ever
//! ```
//!
//! After a cut CUBIC needs seconds to grow back what a loss-free path would have told it in a few round trips. While no
//! queue stands the window therefore grows by at least a thirty-second each round trip (BBR probes for about as
//! much), and doubles while it is tiny.
//!
//! A loss is random when few of the latest packets were lost *and* no queue stands on the path. The share that is borne,
//! 2.5 %, is about what BBR bears since its third version: a shallow buffer that overflows loses more and is heeded;
//! a deep one shows in the round trip before it overflows. Marks of congestion (ECN) and persistent congestion are
//! always heeded.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use quinn::congestion::{Controller, ControllerFactory, ControllerMetrics, CubicConfig};
use quinn_proto::RttEstimator;

/// The share lost that is borne, as one in so many.
const BORNE: u64 = 40;
/// Packets that the share is taken over: the current lot and the one before.
const LOT: u64 = 512;
/// So many may be lost before a share means anything.
const FEW: u64 = 2;
/// A round trip longer than one and a half of the shortest, and this, says that a queue stands.
const QUEUE: Duration = Duration::from_millis(5);

/// While no queue stands the window grows by one in so many of what is acknowledged.
const GROWTH: u64 = 32;
/// And by all of it while fewer packets than these may be under way.
const TINY: u64 = 64;
/// What is left of the window after a loss that is heeded: CUBIC's own share, in tenths.
const LEFT: u64 = 7;

/// Makes [`Tolerant`] controllers.
#[derive(Debug, Default)]
pub(super) struct TolerantConfig(Arc<CubicConfig>);

impl ControllerFactory for TolerantConfig {
    fn build(self: Arc<Self>, now: Instant, current_mtu: u16) -> Box<dyn Controller> {
        Box::new(Tolerant {
            cubic: self.0.clone().build(now, current_mtu),
            share: Share::new(current_mtu),
            queue: false,
            window: 0,
            heeded: None,
        })
    }
}

/// CUBIC, and what it is not told of.
struct Tolerant {
    cubic: Box<dyn Controller>,
    share: Share,
    /// Whether a queue stood when something was last acknowledged.
    queue: bool,
    /// What may be under way while it is more than CUBIC would have.
    window: u64,
    /// When a loss was last heeded: what was sent before says nothing new.
    heeded: Option<Instant>,
}

impl Tolerant {
    fn is_old(&self, sent: Instant) -> bool {
        self.heeded.is_some_and(|heeded| sent <= heeded)
    }
}

impl Controller for Tolerant {
    fn on_sent(&mut self, now: Instant, bytes: u64, last_packet_number: u64) {
        self.cubic.on_sent(now, bytes, last_packet_number);
    }

    fn on_ack(&mut self, now: Instant, sent: Instant, bytes: u64, app_limited: bool, rtt: &RttEstimator) {
        self.share.acknowledged(bytes);
        self.queue = is_queue(rtt.get(), rtt.min());
        self.cubic.on_ack(now, sent, bytes, app_limited, rtt);
        if !app_limited && !self.queue && !self.is_old(sent) {
            let window = self.window();
            let tiny = window < TINY * self.share.packet;
            self.window = window + if tiny { bytes } else { bytes / GROWTH };
        }
    }

    fn on_end_acks(
        &mut self,
        now: Instant,
        in_flight: u64,
        app_limited: bool,
        largest_packet_num_acked: Option<u64>,
    ) {
        self.cubic
            .on_end_acks(now, in_flight, app_limited, largest_packet_num_acked);
    }

    fn on_congestion_event(&mut self, now: Instant, sent: Instant, is_persistent: bool, lost_bytes: u64) {
        self.share.lost(lost_bytes);
        let marked = lost_bytes == 0;
        if !marked && !is_persistent && !self.queue && self.share.is_borne() {
            return;
        }
        if is_persistent || !self.is_old(sent) {
            self.window = if is_persistent {
                0
            } else {
                self.window() / 10 * LEFT
            };
            // What comes next is judged by what the smaller window does.
            self.share.begin();
            self.heeded = Some(now);
        }
        self.cubic
            .on_congestion_event(now, sent, is_persistent, lost_bytes);
    }

    fn on_mtu_update(&mut self, new_mtu: u16) {
        self.share.packet = new_mtu.into();
        self.cubic.on_mtu_update(new_mtu);
    }

    fn window(&self) -> u64 {
        self.window.max(self.cubic.window())
    }

    fn metrics(&self) -> ControllerMetrics {
        let mut metrics = self.cubic.metrics();
        metrics.congestion_window = self.window();
        metrics
    }

    fn clone_box(&self) -> Box<dyn Controller> {
        Box::new(Self {
            cubic: self.cubic.clone_box(),
            share: self.share,
            queue: self.queue,
            window: self.window,
            heeded: self.heeded,
        })
    }

    fn initial_window(&self) -> u64 {
        self.cubic.initial_window()
    }

    fn into_any(self: Box<Self>) -> Box<dyn Any> {
        self
    }
}

/// Whether packets wait on the path. The least round trip of an idle path is next to nothing where both ends are near, and
/// what their processors take is no queue.
fn is_queue(smoothed: Duration, least: Duration) -> bool {
    smoothed > least * 3 / 2 + QUEUE
}

/// Which share of the latest packets was lost, in bytes.
#[derive(Clone, Copy, Debug)]
struct Share {
    packet: u64,
    before: Lot,
    current: Lot,
}

#[derive(Clone, Copy, Debug, Default)]
struct Lot {
    arrived: u64,
    lost: u64,
}

impl Share {
    fn new(packet: u16) -> Self {
        Self {
            packet: packet.into(),
            before: Lot::default(),
            current: Lot::default(),
        }
    }

    fn acknowledged(&mut self, bytes: u64) {
        self.current.arrived += bytes;
        if self.current.arrived >= LOT * self.packet {
            self.before = std::mem::take(&mut self.current);
        }
    }

    fn lost(&mut self, bytes: u64) {
        self.current.lost += bytes;
    }

    fn is_borne(&self) -> bool {
        let lost = self.before.lost + self.current.lost;
        let all = self.before.arrived + self.current.arrived + lost;
        lost.saturating_sub(FEW * self.packet) * BORNE <= all
    }

    fn begin(&mut self) {
        (self.before, self.current) = (Lot::default(), Lot::default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PACKET: u64 = 1452;

    /// Loses every `nth` packet of so many; gives how often that was not borne.
    fn not_borne(nth: u64, packets: u64) -> usize {
        let mut share = Share::new(PACKET as u16);
        let mut heeded = 0;
        for packet in 1..=packets {
            if packet % nth != 0 {
                share.acknowledged(PACKET);
                continue;
            }
            share.lost(PACKET);
            if !share.is_borne() {
                share.begin();
                heeded += 1;
            }
        }
        heeded
    }

    #[test]
    fn one_in_a_hundred_is_borne_and_one_in_twenty_is_not() {
        assert_eq!(not_borne(100, 100_000), 0);
        assert_eq!(not_borne(50, 100_000), 0);
        assert!(not_borne(20, 100_000) > 100);
    }

    #[test]
    fn a_burst_is_not_borne() {
        let mut share = Share::new(PACKET as u16);
        for _ in 0..2_000 {
            share.acknowledged(PACKET);
        }
        share.lost(20 * PACKET);
        assert!(share.is_borne());
        share.lost(20 * PACKET);
        assert!(!share.is_borne());
    }

    #[test]
    fn a_queue_is_what_takes_longer_than_the_path_itself() {
        let millis = Duration::from_millis;
        assert!(!is_queue(millis(2), Duration::from_micros(40)));
        assert!(is_queue(millis(8), Duration::from_micros(40)));
        assert!(!is_queue(millis(110), millis(100)));
        assert!(is_queue(millis(180), millis(100)));
    }

    #[test]
    fn marks_persistent_loss_and_heavy_loss_shrink_the_window_and_random_loss_does_not() {
        let now = Instant::now();
        let later = now + Duration::from_secs(1);
        let made = || Arc::new(TolerantConfig::default()).build(now, 1452);
        let before = made().window();
        for (persistent, lost, shrinks) in [
            (false, PACKET, false),
            (false, 0, true),
            (true, PACKET, true),
            (false, 8 * PACKET, true),
        ] {
            let mut controller = made();
            controller.on_congestion_event(later, later, persistent, lost);
            assert_eq!(controller.window() < before, shrinks, "{persistent} {lost}");
        }
    }
}
