//! Compressed bodies over HTTP and messages over gRPC, bombs among them: what comes out is never more than may be, and
//! what we pack is what comes out.
#![no_main]

use karez_collector::fuzzing::{COMPRESSIONS, packed, unpacked};
use libfuzzer_sys::fuzz_target;

const MOST: usize = 64 << 10;

fuzz_target!(|bytes: &[u8]| {
    for name in COMPRESSIONS {
        for out in unpacked(name, bytes, MOST).into_iter().flatten() {
            assert!(out.len() <= MOST);
        }
        if let Some(packed) = packed(name, bytes) {
            let whole = (bytes.len() <= MOST).then_some(bytes);
            for out in unpacked(name, &packed, MOST) {
                assert_eq!(out.as_deref(), whole);
            }
        }
    }
});
