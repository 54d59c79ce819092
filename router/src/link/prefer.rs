//! Which transport a link should be on: what it is on, how that does and what was tried in, what to try next out.
//!
//! - On TLS because QUIC did not come up: QUIC is tried again, soon at first and then ever more rarely; once it is up,
//!   the link moves. QUIC that does not last makes the next try later still.
//! - On QUIC: when many packets are lost, or so much is carried that TLS on a clean network may do better, TLS is
//!   tried for a while; the link stays there only if it carries clearly more.
//!
//! A pure core: `now` is an argument.

use std::time::Duration;

use super::transport::{Statistics, TransportKind};

/// When QUIC is first tried again, and the longest between tries.
const FIRST_TRY: Duration = Duration::from_secs(2);
const LONGEST_TRY: Duration = Duration::from_secs(120);
/// QUIC that lasted less is not believed so soon again.
const LASTING: Duration = Duration::from_secs(60);
/// How often QUIC is looked at.
const LOOK: Duration = Duration::from_secs(10);
/// For how long TLS is tried, and how long after a trial the next may be.
const TRIAL: Duration = Duration::from_secs(20);
const BETWEEN_TRIALS: Duration = Duration::from_secs(900);
/// Fewer packets than these say nothing about loss.
const PACKETS: u64 = 2_000;
/// More loss than this, in percent, is worth a trial.
const LOSS: u64 = 5;
/// More bytes a second than these are worth a trial: a core is busy with them.
const BUSY: u64 = 100_000_000;

/// When things happened, as time since some start.
type Time = Duration;

/// What is known of a link's transports.
#[derive(Debug)]
pub(crate) struct Preference {
    on: TransportKind,
    since: Time,
    due: Time,
    wait: Duration,
    seen: Option<(Time, Statistics)>,
    trial: Option<Trial>,
    next_trial: Time,
}

/// A while on TLS.
#[derive(Debug)]
struct Trial {
    /// What QUIC carried, in bytes a second.
    to_beat: u64,
}

impl Preference {
    /// Of a link that is not up yet.
    pub(crate) fn new() -> Self {
        Self {
            on: TransportKind::Quic,
            since: Time::ZERO,
            due: Time::MAX,
            wait: FIRST_TRY,
            seen: None,
            trial: None,
            next_trial: Time::ZERO,
        }
    }

    /// The link is up, or has moved.
    pub(crate) fn up(&mut self, now: Time, on: TransportKind) {
        let fell_back = self.on == TransportKind::Quic && on == TransportKind::Tls && self.since > Time::ZERO;
        self.wait = match fell_back && now.saturating_sub(self.since) < LASTING {
            true => (self.wait * 2).min(LONGEST_TRY),
            false if on == TransportKind::Tls => FIRST_TRY,
            false => self.wait,
        };
        (self.on, self.since, self.seen, self.trial) = (on, now, None, None);
        self.due = now
            + if on == TransportKind::Quic {
                LOOK
            } else {
                self.wait
            };
    }

    /// When to look next.
    pub(crate) fn due(&self) -> Time {
        self.due
    }

    /// Looks at how the transport does; says what to try.
    pub(crate) fn look(&mut self, now: Time, statistics: Statistics) -> Option<TransportKind> {
        let before = self.seen.replace((now, statistics));
        let change =
            before.map(|(then, before)| Change::between(now.saturating_sub(then), before, statistics));
        match self.on {
            TransportKind::Quic => {
                self.due = now + LOOK;
                let change = change.filter(|change| now >= self.next_trial && change.is_worth_a_trial())?;
                self.next_trial = now + BETWEEN_TRIALS;
                self.trial = Some(Trial { to_beat: change.rate });
                Some(TransportKind::Tls)
            }
            TransportKind::Tls => {
                self.due = now + self.wait;
                match (self.trial.take(), change) {
                    (Some(trial), Some(change)) if change.rate > trial.to_beat + trial.to_beat / 5 => {
                        // It stays; QUIC gets another chance when the next trial would be.
                        self.due = now + BETWEEN_TRIALS;
                        None
                    }
                    _ => Some(TransportKind::Quic),
                }
            }
        }
    }

    /// What was tried is up, and the link is on it.
    pub(crate) fn moved(&mut self, now: Time, to: TransportKind, statistics: Statistics) {
        let trial = self.trial.take();
        self.up(now, to);
        if to == TransportKind::Tls && trial.is_some() {
            self.seen = Some((now, statistics));
            self.due = now + TRIAL;
            self.trial = trial;
        }
    }

    /// What was tried did not come up.
    pub(crate) fn failed(&mut self, now: Time) {
        self.trial = None;
        if self.on == TransportKind::Tls {
            self.wait = (self.wait * 2).min(LONGEST_TRY);
            self.due = now + self.wait;
        }
    }
}

/// How a transport did for a while.
struct Change {
    packets: u64,
    lost: u64,
    /// Bytes a second, both ways.
    rate: u64,
}

impl Change {
    fn between(took: Duration, before: Statistics, after: Statistics) -> Self {
        let bytes = |statistics: Statistics| statistics.bytes_sent + statistics.bytes_received;
        let carried = bytes(after).saturating_sub(bytes(before));
        let millis = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).max(1);
        Self {
            packets: after.packets_sent.saturating_sub(before.packets_sent),
            lost: after.packets_lost.saturating_sub(before.packets_lost),
            rate: carried.saturating_mul(1000) / millis,
        }
    }

    fn is_worth_a_trial(&self) -> bool {
        self.rate >= BUSY || (self.packets >= PACKETS && self.lost * 100 >= self.packets * LOSS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUIC: TransportKind = TransportKind::Quic;
    const TLS: TransportKind = TransportKind::Tls;

    fn at(seconds: u64) -> Time {
        Duration::from_secs(seconds)
    }

    fn carried(bytes: u64, sent: u64, lost: u64) -> Statistics {
        Statistics {
            bytes_sent: bytes,
            packets_sent: sent,
            packets_lost: lost,
            ..Statistics::default()
        }
    }

    #[test]
    fn quic_is_tried_again_ever_more_rarely_and_taken_when_it_is_back() {
        let mut preference = Preference::new();
        preference.up(at(100), TLS);
        let mut times = Vec::new();
        for _ in 0..9 {
            let now = preference.due();
            times.push((now - at(100)).as_secs());
            assert_eq!(preference.look(now, carried(0, 0, 0)), Some(QUIC));
            preference.failed(now);
        }
        assert_eq!(times, [2, 6, 14, 30, 62, 126, 246, 366, 486]);
        preference.moved(at(600), QUIC, carried(0, 0, 0));
        assert_eq!(preference.due(), at(610));
    }

    #[test]
    fn quic_that_does_not_last_waits_longer() {
        let mut preference = Preference::new();
        preference.up(at(1), TLS);
        let mut now = preference.due();
        let mut waits = Vec::new();
        for _ in 0..3 {
            assert_eq!(preference.look(now, carried(0, 0, 0)), Some(QUIC));
            preference.moved(now, QUIC, carried(0, 0, 0));
            now += at(11);
            preference.up(now, TLS);
            waits.push((preference.due() - now).as_secs());
            now = preference.due();
        }
        assert_eq!(waits, [4, 8, 16]);
    }

    #[test]
    fn a_quiet_or_clean_link_stays_on_quic() {
        let mut preference = Preference::new();
        preference.up(at(1), QUIC);
        for (index, lost) in [0, 10, 20, 40].into_iter().enumerate() {
            let index = index as u64;
            let now = preference.due();
            assert_eq!(
                preference.look(now, carried(index * 1_000_000, index * 10_000, lost)),
                None
            );
        }
    }

    #[test]
    fn loss_earns_tls_a_trial_and_it_must_carry_more_to_keep_the_link() {
        for (carries, then) in [(20_000_000, None), (1_000_000, Some(QUIC))] {
            let mut preference = Preference::new();
            preference.up(at(1), QUIC);
            assert_eq!(preference.look(at(11), carried(0, 0, 0)), None);
            let lossy = carried(10_000_000, 10_000, 900);
            assert_eq!(preference.look(at(21), lossy), Some(TLS));
            preference.moved(at(22), TLS, carried(0, 0, 0));
            assert_eq!(preference.due(), at(42));
            assert_eq!(preference.look(at(42), carried(carries * 20, 0, 0)), then);
            if then.is_some() {
                preference.moved(at(43), QUIC, carried(0, 0, 0));
                assert_eq!(preference.look(at(53), carried(0, 0, 0)), None);
                assert_eq!(preference.look(at(63), lossy), None, "the next trial is later");
            }
        }
    }
}
