//! A durable queue's files after damage.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|files: (Vec<u8>, Vec<Vec<u8>>)| {
    let (state, segments) = files;
    let segments: Vec<&[u8]> = segments.iter().map(Vec::as_slice).collect();
    karez_collector::fuzzing::queue(&state, &segments);
});
