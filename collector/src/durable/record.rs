//! Records: what a frame's body says. Pure; numbers are little endian, a text is its length in two bytes and itself.
//!
//! ```text
//! 1 head      first:8 accounts                          begins a segment: what every account had accepted before
//! 2 item      sequence:8 time:8 signal:1 items:4 accepted:8 account:text payload     `accepted` as of before it
//! 3 snapshot  next:8 accounts segments                  begins the state: all that is settled
//! 4 settled   sequence:8 delivered:4 refused:4 dropped:4 reason:1 account:text
//! 5 mark      next:8 accounts                           what was acknowledged by now
//! accounts = count:2 (name:text accepted:8 [delivered:8 refused:8 dropped:8×4])*     the bracket in a snapshot only
//! segments = count:4 (ranges:4 (from:8 to:8)*)*          the settled items of each segment that is still there
//! ```

use super::ranges::Ranges;
use crate::ledger::{Counts, Reason, Settlement};
use karez_collector_config::Signal;

/// The most accounts of a queue.
pub(crate) const MAX_ACCOUNTS: usize = 1024;
/// The longest name of an account.
pub(crate) const MAX_NAME: usize = 1024;

/// What a segment holds of an item, but for its payload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Item<'a> {
    pub(crate) sequence: u64,
    /// Milliseconds since 1970, when it was accepted.
    pub(crate) time: u64,
    pub(crate) signal: Signal,
    pub(crate) items: u32,
    /// What its account had accepted before it.
    pub(crate) accepted: u64,
    pub(crate) account: &'a str,
}

/// A record.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Record<'a> {
    Head {
        first: u64,
        accepted: Vec<(&'a str, u64)>,
    },
    Item {
        item: Item<'a>,
        /// Where the payload begins in the body.
        payload: usize,
    },
    Snapshot {
        next: u64,
        accounts: Vec<(&'a str, Counts)>,
        settled: Ranges,
    },
    Settled {
        sequence: u64,
        settlement: Settlement,
        account: &'a str,
    },
    Mark {
        next: u64,
        accepted: Vec<(&'a str, u64)>,
    },
}

fn put_text(out: &mut Vec<u8>, text: &str) {
    debug_assert!(text.len() <= MAX_NAME, "names are checked when a queue is opened");
    out.extend_from_slice(&(text.len() as u16).to_le_bytes());
    out.extend_from_slice(text.as_bytes());
}

fn put_accepted<'a>(out: &mut Vec<u8>, accounts: impl ExactSizeIterator<Item = (&'a str, u64)>) {
    out.extend_from_slice(&(accounts.len() as u16).to_le_bytes());
    for (name, accepted) in accounts {
        put_text(out, name);
        out.extend_from_slice(&accepted.to_le_bytes());
    }
}

/// The body of a segment's first record.
pub(crate) fn head<'a>(first: u64, accounts: impl ExactSizeIterator<Item = (&'a str, u64)>) -> Vec<u8> {
    let mut out = vec![1];
    out.extend_from_slice(&first.to_le_bytes());
    put_accepted(&mut out, accounts);
    out
}

/// The body of an item, up to its payload.
pub(crate) fn item(item: &Item<'_>) -> Vec<u8> {
    let mut out = Vec::with_capacity(32 + item.account.len());
    out.push(2);
    out.extend_from_slice(&item.sequence.to_le_bytes());
    out.extend_from_slice(&item.time.to_le_bytes());
    out.push(item.signal as u8);
    out.extend_from_slice(&item.items.to_le_bytes());
    out.extend_from_slice(&item.accepted.to_le_bytes());
    put_text(&mut out, item.account);
    out
}

/// The body of a snapshot.
pub(crate) fn snapshot<'a>(
    next: u64,
    accounts: impl ExactSizeIterator<Item = (&'a str, &'a Counts)>,
    settled: &[&Ranges],
) -> Vec<u8> {
    let mut out = vec![3];
    out.extend_from_slice(&next.to_le_bytes());
    out.extend_from_slice(&(accounts.len() as u16).to_le_bytes());
    for (name, counts) in accounts {
        put_text(&mut out, name);
        let numbers = [counts.accepted, counts.delivered, counts.refused];
        for number in numbers.iter().chain(&counts.dropped) {
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
    out.extend_from_slice(&(settled.len() as u32).to_le_bytes());
    for ranges in settled {
        out.extend_from_slice(&(ranges.len() as u32).to_le_bytes());
        for (from, to) in ranges.iter() {
            out.extend_from_slice(&from.to_le_bytes());
            out.extend_from_slice(&to.to_le_bytes());
        }
    }
    out
}

/// The body of a settlement.
pub(crate) fn settled(sequence: u64, settlement: &Settlement, account: &str) -> Vec<u8> {
    let mut out = vec![4];
    out.extend_from_slice(&sequence.to_le_bytes());
    for number in [settlement.delivered, settlement.refused, settlement.dropped] {
        out.extend_from_slice(&number.to_le_bytes());
    }
    out.push(settlement.reason.map_or(u8::MAX, |reason| reason as u8));
    put_text(&mut out, account);
    out
}

/// The body of a mark.
pub(crate) fn mark<'a>(next: u64, accounts: impl ExactSizeIterator<Item = (&'a str, u64)>) -> Vec<u8> {
    let mut out = vec![5];
    out.extend_from_slice(&next.to_le_bytes());
    put_accepted(&mut out, accounts);
    out
}

/// Reads a body; `None` for one that says nothing we know.
pub(crate) fn read(body: &[u8]) -> Option<Record<'_>> {
    let mut reader = Reader(body);
    let record = match reader.bytes::<1>()?[0] {
        1 => Record::Head {
            first: reader.u64()?,
            accepted: reader.accepted()?,
        },
        2 => {
            let item = reader.item()?;
            let payload = body.len() - reader.0.len();
            return Some(Record::Item { item, payload });
        }
        3 => Record::Snapshot {
            next: reader.u64()?,
            accounts: reader.accounts()?,
            settled: reader.ranges()?,
        },
        4 => Record::Settled {
            sequence: reader.u64()?,
            settlement: reader.settlement()?,
            account: reader.text()?,
        },
        5 => Record::Mark {
            next: reader.u64()?,
            accepted: reader.accepted()?,
        },
        _ => return None,
    };
    reader.0.is_empty().then_some(record)
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(taken)
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u16(&mut self) -> Option<usize> {
        self.bytes().map(|b| usize::from(u16::from_le_bytes(b)))
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<&'a str> {
        let length = self.u16()?;
        std::str::from_utf8(self.take(length)?).ok()
    }

    fn accepted(&mut self) -> Option<Vec<(&'a str, u64)>> {
        let count = self.u16()?.min(MAX_ACCOUNTS);
        (0..count).map(|_| Some((self.text()?, self.u64()?))).collect()
    }

    fn accounts(&mut self) -> Option<Vec<(&'a str, Counts)>> {
        let count = self.u16()?.min(MAX_ACCOUNTS);
        let account = |_| {
            let name = self.text()?;
            let mut counts = Counts {
                accepted: self.u64()?,
                delivered: self.u64()?,
                refused: self.u64()?,
                ..Counts::default()
            };
            for dropped in &mut counts.dropped {
                *dropped = self.u64()?;
            }
            Some((name, counts))
        };
        (0..count).map(account).collect()
    }

    fn ranges(&mut self) -> Option<Ranges> {
        let mut all = Ranges::default();
        for _ in 0..self.u32()? {
            for _ in 0..self.u32()? {
                let (from, to) = (self.u64()?, self.u64()?);
                all.add(from, to);
            }
        }
        Some(all)
    }

    fn settlement(&mut self) -> Option<Settlement> {
        let (delivered, refused, dropped) = (self.u32()?, self.u32()?, self.u32()?);
        let reason = Reason::ALL.get(usize::from(self.bytes::<1>()?[0])).copied();
        Some(Settlement {
            delivered,
            refused,
            dropped,
            reason,
        })
    }

    fn item(&mut self) -> Option<Item<'a>> {
        Some(Item {
            sequence: self.u64()?,
            time: self.u64()?,
            signal: *Signal::ALL.get(usize::from(self.bytes::<1>()?[0]))?,
            items: self.u32()?,
            accepted: self.u64()?,
            account: self.text()?,
        })
    }
}
