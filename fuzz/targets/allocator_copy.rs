//! What one allocator tells another of who has what.
#![no_main]

use karez_allocation::Copy;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(copy) = Copy::from_bytes(bytes) {
        let again = Copy::from_bytes(&copy.to_bytes());
        assert_eq!(again.as_ref(), Ok(&copy));
    }
});
