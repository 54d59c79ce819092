//! What to make of a queue's files when it is opened. Pure: bytes in, decisions out.
//!
//! The state says what is settled, the segments hold the items. An item that stands whole in a segment and is not
//! settled is queued again. What an account had accepted is known from the last whole record; what of it is neither
//! settled nor found is lost by damage, and the ledger says so.

use std::collections::BTreeMap;

use karez_collector_config::Signal;

use super::frame::{self, Found, QueueId};
use super::ranges::Ranges;
use super::record::{self, MAX_ACCOUNTS, MAX_NAME, Record};
use crate::ledger::{Counts, Reason};

/// An item that is to be delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) sequence: u64,
    /// Where its frame begins in its segment.
    pub(crate) offset: u64,
    /// The length of its frame.
    pub(crate) length: u32,
    pub(crate) time: u64,
    pub(crate) signal: Signal,
    pub(crate) items: u32,
    pub(crate) account: String,
}

/// What is to be done with a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Nothing.
    Keep,
    /// A write was cut off: the file ends here.
    Cut(u64),
    /// Bytes inside of it are damaged: it is set aside, and its whole records go into a new file.
    Quarantine,
}

/// What was found in a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Segment {
    pub(crate) verdict: Verdict,
    /// One past its last item.
    pub(crate) end: u64,
    /// The items that are not settled.
    pub(crate) kept: Vec<Kept>,
}

/// What is known so far.
#[derive(Debug, Default)]
pub(crate) struct Recovery {
    id: QueueId,
    accounts: BTreeMap<String, Counts>,
    settled: Ranges,
    next: u64,
}

/// What is known at the end.
#[derive(Debug, PartialEq)]
pub(crate) struct Recovered {
    pub(crate) accounts: BTreeMap<String, Counts>,
    pub(crate) settled: Ranges,
    /// The sequence number of the next item.
    pub(crate) next: u64,
    /// Items lost by damage that nobody knew of before.
    pub(crate) lost: u64,
}

impl Recovery {
    /// Starts with the state file's bytes; without them everything in the segments counts as queued. `id` is what a
    /// segment says the queue's id is, for when the state does not.
    pub(crate) fn new(state: &[u8], id: QueueId) -> Self {
        let id = frame::queue_id(state).unwrap_or(id);
        let mut recovery = Recovery {
            id,
            ..Recovery::default()
        };
        for found in frame::frames(state, id) {
            if let Found::Frame { body, .. } = found
                && let Some(record) = record::read(body)
            {
                recovery.state(record);
            }
        }
        recovery
    }

    /// The queue's id.
    pub(crate) fn id(&self) -> QueueId {
        self.id
    }

    fn state(&mut self, record: Record<'_>) {
        match record {
            Record::Snapshot {
                next,
                accounts,
                settled,
            } => {
                self.next = self.next.max(next);
                for (name, counts) in accounts {
                    if let Some(account) = self.account(name) {
                        *account = counts;
                    }
                }
                for (from, to) in settled.iter() {
                    self.settled.add(from, to);
                }
            }
            Record::Settled {
                sequence,
                settlement,
                account,
            } => {
                if self.settled.insert(sequence)
                    && let Some(account) = self.account(account)
                {
                    settlement.apply(account);
                }
            }
            Record::Mark { next, accepted } => {
                self.next = self.next.max(next);
                self.accepted(&accepted);
            }
            Record::Head { .. } | Record::Item { .. } => {}
        }
    }

    fn accepted(&mut self, accepted: &[(&str, u64)]) {
        for (name, accepted) in accepted {
            if let Some(account) = self.account(name) {
                account.accepted = account.accepted.max(*accepted);
            }
        }
    }

    fn account(&mut self, name: &str) -> Option<&mut Counts> {
        if name.len() > MAX_NAME || (self.accounts.len() >= MAX_ACCOUNTS && !self.accounts.contains_key(name))
        {
            return None;
        }
        Some(self.accounts.entry(name.to_owned()).or_default())
    }

    /// Looks through a segment. Segments come in the order of their first items.
    pub(crate) fn segment(&mut self, first: u64, bytes: &[u8], newest: bool) -> Segment {
        let id = self.id;
        let mut segment = Segment {
            verdict: Verdict::Keep,
            end: first,
            kept: Vec::new(),
        };
        if frame::queue_id(bytes) != Some(id) && !(newest && bytes.len() < frame::PREAMBLE) {
            segment.verdict = Verdict::Quarantine;
        }
        for found in frame::frames(bytes, id) {
            match found {
                Found::Frame { offset, body } => match record::read(body) {
                    Some(record) => self.segment_record(record, offset, body.len(), &mut segment),
                    None => segment.verdict = Verdict::Quarantine,
                },
                Found::Damage => segment.verdict = Verdict::Quarantine,
                Found::Tail { offset } if newest && segment.verdict == Verdict::Keep => {
                    segment.verdict = Verdict::Cut(offset as u64);
                }
                // An older segment was whole when the next one was begun, unless a write to it had failed.
                Found::Tail { .. } => segment.verdict = Verdict::Quarantine,
            }
        }
        self.next = self.next.max(segment.end);
        segment
    }

    fn segment_record(&mut self, record: Record<'_>, offset: usize, length: usize, segment: &mut Segment) {
        match record {
            Record::Head { accepted, .. } => self.accepted(&accepted),
            Record::Item { item, .. } => {
                segment.end = segment.end.max(item.sequence.saturating_add(1));
                let accepted = item.accepted.saturating_add(u64::from(item.items));
                self.accepted(&[(item.account, accepted)]);
                // A name beyond the bound cannot be written by us.
                if self.settled.contains(item.sequence) || self.account(item.account).is_none() {
                    return;
                }
                segment.kept.push(Kept {
                    sequence: item.sequence,
                    offset: offset as u64,
                    length: u32::try_from(frame::HEAD + length).unwrap_or(u32::MAX),
                    time: item.time,
                    signal: item.signal,
                    items: item.items,
                    account: item.account.to_owned(),
                });
                if let Some(account) = self.account(item.account) {
                    account.queued += u64::from(item.items);
                }
            }
            Record::Snapshot { .. } | Record::Settled { .. } | Record::Mark { .. } => {}
        }
    }

    /// Closes the books: what is neither settled nor found is lost.
    pub(crate) fn finish(mut self) -> Recovered {
        let mut lost = 0;
        for counts in self.accounts.values_mut() {
            let known = counts.settled() + counts.queued;
            // More found than accepted: the record that said so is damaged, and the items are proof enough.
            counts.accepted = counts.accepted.max(known);
            let missing = counts.accepted - known;
            counts.dropped[Reason::Corrupt as usize] += missing;
            lost += missing;
        }
        Recovered {
            accounts: self.accounts,
            settled: self.settled,
            next: self.next,
            lost,
        }
    }
}

/// The whole records of a damaged segment, as a new file.
pub(crate) fn rewrite(bytes: &[u8], id: QueueId) -> Vec<u8> {
    let mut out = frame::preamble(id).to_vec();
    for found in frame::frames(bytes, id) {
        if let Found::Frame { body, .. } = found
            && record::read(body).is_some()
        {
            frame::put(&mut out, id, body);
        }
    }
    out
}
