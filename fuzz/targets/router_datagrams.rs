//! Datagrams on a stream and beside it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| karez_router::fuzzing::datagrams(bytes));
