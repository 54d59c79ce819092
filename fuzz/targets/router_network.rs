//! What peers tell of the network, in sequences.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| karez_router::fuzzing::network(bytes));
