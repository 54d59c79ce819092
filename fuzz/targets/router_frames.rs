//! Frames over TLS: whatever comes, memory and streams stay bounded.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| karez_router::fuzzing::frames(bytes));
