//! The durable queue: what `sending_queue.storage` names is on the disk before the sender is told that it is taken.
//!
//! ```text
//! append ─▶ writer's thread: one write, one sync for all that came meanwhile ─▶ acknowledged
//!                 │                                             │
//!                 ▼                                             ▼
//!          segment files                         fresh lane (in memory) ─▶ backlog (on disk) ─▶ worker ─▶ export
//!                 ▲                                                                                  │
//!                 └── a segment of which nothing is left is deleted ◀── state ◀── settled ◀──────────┘
//! ```
//!
//! # Files
//!
//! Each queue has a folder below the `file_storage` extension's directory, named after its exporter:
//!
//! | file | holds |
//! |---|---|
//! | `lock` | locked while the queue is open: two collectors never share one |
//! | `XXXXXXXXXXXXXXXX.segment` | accepted items, appended; named by the first one's sequence number in hexadecimal |
//! | `state` | a snapshot of the ledger and of what is settled, then what was settled since; written anew when it has grown |
//! | `reserve` | room that is given up when the disk is full, so that the state can still be written |
//! | `quarantine/` | segments in which something was damaged, as they were found; the newest 16 |
//!
//! The bytes are described in `frame.rs` (how a record stands in a file) and `record.rs` (what it says).
//!
//! # What holds
//!
//! - What was acknowledged is delivered at least once, whenever the process is killed. With `fsync` (the default) also
//!   when the machine loses its power. A sender that was told nothing sends again; then an item may be there twice.
//! - A write that was cut off ends the newest segment and was never acknowledged: it is removed. Damage inside of a
//!   segment costs the records that it hit; the rest is found and delivered, the file set aside.
//! - For every pipeline accepted = delivered + queued + refused + dropped, across restarts ([`crate::ledger`]). What is
//!   missing after damage is counted as dropped by corruption.
//! - Space returns to the disk by whole segments. When it is full, data is refused retryably; what is acknowledged is
//!   delivered, which makes room.
//! - Memory: what is fresh up to a bound, and about a hundred bytes for each batch that waits. Open files: the lock, the
//!   state, one segment, and one for each batch that is being read.

mod disk;
mod frame;
mod lanes;
mod open;
mod queue;
mod ranges;
mod record;
mod recover;
#[cfg(test)]
mod tests;
mod writer;

/// What files of a queue may say: as bytes, and as whole records of anything. For fuzzing only.
pub(crate) fn fuzz(state: &[u8], segments: &[&[u8]]) {
    let id = [7; 8];
    let framed = |bytes: &[u8]| {
        let mut file = frame::preamble(id).to_vec();
        // Bodies end with a zero; a checksum that fits is what chance hardly finds.
        for body in bytes.split(|byte| *byte == 0) {
            frame::put(&mut file, id, body);
        }
        file
    };
    for look in [&framed as &dyn Fn(&[u8]) -> Vec<u8>, &|bytes| bytes.to_vec()] {
        let mut recovery = recover::Recovery::new(&look(state), id);
        for (first, bytes) in (0..).zip(segments) {
            let file = look(bytes);
            let newest = usize::try_from(first + 1).is_ok_and(|count| count == segments.len());
            let segment = recovery.segment(first, &file, newest);
            for kept in segment.kept {
                let end = kept.offset + u64::from(kept.length);
                assert!(end <= file.len() as u64, "outside of its file");
            }
            drop(recover::rewrite(&file, id));
        }
        drop(recovery.finish());
    }
}

pub(crate) use open::{FileSettings, OpenError};
pub(crate) use queue::{Delivery, DurableQueue, Settings};
