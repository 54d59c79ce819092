//! For how long a batch gathers whose senders wait for their answer.
//!
//! A sender that waits sends nothing more, or only as much as it has connections for. So when nothing came in the second
//! half of a wait, everybody is taken to be here: from then on a batch goes as soon as as many wait as did then, for a
//! number of batches, after which it is tried again whether more would come.

use std::time::Duration;

/// The longest wait: what many senders send is written together, and none of them feels it.
const LONGEST: Duration = Duration::from_millis(10);
/// For how many batches it is taken that nobody else would come.
const TRUSTED: u32 = 64;

/// What the last batches taught.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// How many wait when everybody waits, and for how many batches more this is believed.
    everybody: Option<(usize, u32)>,
}

impl Pace {
    /// How long a batch gathers in which so many wait; `most` is what the document says.
    pub(super) fn wait(&self, waiting: usize, most: Duration) -> Duration {
        match self.everybody {
            Some((count, _)) if waiting >= count => Duration::ZERO,
            _ => most.min(LONGEST),
        }
    }

    /// A batch goes in which so many wait, the last of whom came so long after the first; `most` as above.
    pub(super) fn went(&mut self, waiting: usize, spread: Duration, most: Duration) {
        self.everybody = match self.everybody {
            Some((count, left)) if waiting >= count => (left > 1).then_some((count, left - 1)),
            _ => (spread < most.min(LONGEST) / 2).then_some((waiting, TRUSTED)),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOST: Duration = Duration::from_millis(200);

    #[test]
    fn senders_that_all_wait_are_not_kept_waiting() {
        let mut pace = Pace::default();
        assert_eq!(pace.wait(3, MOST), LONGEST);
        pace.went(3, Duration::from_millis(1), MOST);
        assert_eq!(
            (pace.wait(2, MOST), pace.wait(3, MOST)),
            (LONGEST, Duration::ZERO)
        );
        // One has left: two are everybody now.
        pace.went(2, Duration::ZERO, MOST);
        assert_eq!(pace.wait(2, MOST), Duration::ZERO);
        // Now and then it is looked whether there are more.
        for _ in 0..TRUSTED {
            assert_eq!(pace.wait(2, MOST), Duration::ZERO);
            pace.went(2, Duration::ZERO, MOST);
        }
        assert_eq!(pace.wait(2, MOST), LONGEST);
    }

    #[test]
    fn while_more_keep_coming_they_are_gathered() {
        let mut pace = Pace::default();
        for _ in 0..10 {
            pace.went(5, Duration::from_millis(8), MOST);
            assert_eq!(pace.wait(5, MOST), LONGEST);
        }
        assert_eq!(pace.wait(5, Duration::from_millis(1)), Duration::from_millis(1));
    }
}
