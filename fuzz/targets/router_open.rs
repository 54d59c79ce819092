//! The header of a carried stream, and the answer to it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    karez_router::fuzzing::open(bytes);
    karez_router::fuzzing::answer(bytes);
});
