//! Frames: how records stand in a file, and how they are found again when the file is damaged. Pure.
//!
//! ```text
//! file   = "KAREZQ01" queue-id:8 frame*
//! frame  = queue-id:8 length:4 crc:4 body            (little endian; length of the body)
//! crc    = CRC-32 (IEEE) over queue-id, length, body
//! ```
//!
//! The queue's id is random and known to no client, so bytes inside of a batch can neither look like a frame nor be
//! made to: after damage the next frame is found by searching for the id.

/// How every file begins.
pub(crate) const MAGIC: [u8; 8] = *b"KAREZQ01";
/// The length of what stands before the first frame.
pub(crate) const PREAMBLE: usize = 16;
/// The length of what stands before a frame's body.
pub(crate) const HEAD: usize = 16;
/// The longest body.
pub(crate) const MAX_BODY: usize = 256 << 20;

/// What every file of a queue carries.
pub(crate) type QueueId = [u8; 8];

/// What stands before the first frame.
pub(crate) fn preamble(id: QueueId) -> [u8; PREAMBLE] {
    let mut out = [0; PREAMBLE];
    out[..8].copy_from_slice(&MAGIC);
    out[8..].copy_from_slice(&id);
    out
}

/// The id of a file's queue, if it is one of ours.
pub(crate) fn queue_id(bytes: &[u8]) -> Option<QueueId> {
    let head = bytes.get(..PREAMBLE)?;
    (head[..8] == MAGIC).then(|| head[8..].try_into().ok()).flatten()
}

/// What stands before a body that is given in parts.
pub(crate) fn head(id: QueueId, body: &[&[u8]]) -> [u8; HEAD] {
    let length: usize = body.iter().map(|part| part.len()).sum();
    debug_assert!(
        length <= MAX_BODY,
        "larger batches are refused before they come here"
    );
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_le_bytes();
    let mut out = [0; HEAD];
    out[..8].copy_from_slice(&id);
    out[8..12].copy_from_slice(&length);
    out[12..].copy_from_slice(&crc(id, length, body).to_le_bytes());
    out
}

fn crc(id: QueueId, length: [u8; 4], body: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(&id);
    hasher.update(&length);
    body.iter().for_each(|part| hasher.update(part));
    hasher.finalize()
}

/// A frame as it is written.
pub(crate) fn put(out: &mut Vec<u8>, id: QueueId, body: &[u8]) {
    out.extend_from_slice(&head(id, &[body]));
    out.extend_from_slice(body);
}

/// The body of the frame at an offset, if a whole one stands there.
pub(crate) fn at(bytes: &[u8], offset: usize, id: QueueId) -> Option<&[u8]> {
    let rest = bytes.get(offset..)?;
    let head = rest.get(..HEAD)?;
    if head[..8] != id {
        return None;
    }
    let length: [u8; 4] = head[8..12].try_into().ok()?;
    let sum = u32::from_le_bytes(head[12..16].try_into().ok()?);
    let end = HEAD.checked_add(u32::from_le_bytes(length) as usize)?;
    let body = rest.get(HEAD..end)?;
    (crc(id, length, &[body]) == sum).then_some(body)
}

/// What stands in a file, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Found<'a> {
    /// A frame, whole.
    Frame {
        /// Where it begins.
        offset: usize,
        /// What it holds.
        body: &'a [u8],
    },
    /// Bytes that are no frame, with whole frames after them.
    Damage,
    /// Bytes that are no frame, up to the end: a write that was cut off.
    Tail {
        /// Where they begin.
        offset: usize,
    },
}

/// Everything after the preamble.
pub(crate) fn frames(bytes: &[u8], id: QueueId) -> impl Iterator<Item = Found<'_>> {
    let mut offset = PREAMBLE;
    std::iter::from_fn(move || {
        if offset >= bytes.len() {
            return None;
        }
        if let Some(body) = at(bytes, offset, id) {
            let found = Found::Frame { offset, body };
            offset += HEAD + body.len();
            return Some(found);
        }
        let from = offset;
        match next_frame(bytes, from + 1, id) {
            Some(next) => {
                offset = next;
                Some(Found::Damage)
            }
            None => {
                offset = bytes.len();
                Some(Found::Tail { offset: from })
            }
        }
    })
}

/// Where the next whole frame begins.
fn next_frame(bytes: &[u8], from: usize, id: QueueId) -> Option<usize> {
    let mut at_offset = from;
    loop {
        let rest = bytes.get(at_offset..)?;
        let step = rest.windows(id.len()).position(|window| window == id)?;
        let offset = at_offset + step;
        if at(bytes, offset, id).is_some() {
            return Some(offset);
        }
        at_offset = offset + 1;
    }
}
