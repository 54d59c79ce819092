//! The access log: whether there is one, and how many records a second it may take.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::time::Instant;

/// Switched by the document; asked once a connection.
#[derive(Debug)]
pub(crate) struct AccessLog {
    on: AtomicBool,
    limit: AtomicU32,
    began: Instant,
    /// The second since it began (high half), and the records written in it (low half).
    written: AtomicU64,
}

impl Default for AccessLog {
    fn default() -> Self {
        Self {
            on: AtomicBool::new(false),
            limit: AtomicU32::new(0),
            began: Instant::now(),
            written: AtomicU64::new(0),
        }
    }
}

/// What is to be done with one record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// There is no access log.
    Off,
    /// It is to be written.
    Write,
    /// This second has had its records.
    Skip,
}

impl AccessLog {
    /// Switches it: so many records a second, or none at all.
    pub(crate) fn set(&self, limit: Option<u32>) {
        self.limit.store(limit.unwrap_or(0), Ordering::Relaxed);
        self.on.store(limit.is_some(), Ordering::Relaxed);
    }

    /// Whether a record that is ready now is to be written.
    pub(crate) fn admit(&self) -> Verdict {
        if !self.on.load(Ordering::Relaxed) {
            return Verdict::Off;
        }
        self.admit_at(self.began.elapsed().as_secs())
    }

    fn admit_at(&self, second: u64) -> Verdict {
        let limit = u64::from(self.limit.load(Ordering::Relaxed));
        let admitted = self
            .written
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |written| {
                let count = if written >> 32 == second {
                    written & 0xffff_ffff
                } else {
                    0
                };
                (count < limit).then_some(second << 32 | (count + 1))
            });
        match admitted {
            Ok(_) => Verdict::Write,
            Err(_) => Verdict::Skip,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn writes_so_many_a_second() {
        let log = AccessLog::default();
        assert_eq!(log.admit(), Verdict::Off);
        log.set(Some(2));
        let verdicts: Vec<_> = [0, 0, 0, 1, 1, 1].map(|second| log.admit_at(second)).into();
        use Verdict::{Skip, Write};
        assert_eq!(verdicts, [Write, Write, Skip, Write, Write, Skip]);
        log.set(None);
        assert_eq!(log.admit(), Verdict::Off);
    }
}
