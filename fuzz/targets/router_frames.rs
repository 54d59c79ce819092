//! Frames of many streams on one TLS connection.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| karez_router::fuzz_frames(bytes));
