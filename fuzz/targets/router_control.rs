//! Control messages of a peer.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| karez_router::fuzzing::control(bytes));
