//! Jaeger's Thrift in both protocols: what is read is written and read again to the same.
#![no_main]

use karez_collector::thrift::{Encoding, decode_batch, decode_message, encode_batch, encode_message};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for (encoding, other) in [
        (Encoding::Compact, Encoding::Binary),
        (Encoding::Binary, Encoding::Compact),
    ] {
        if let Ok(batch) = decode_message(encoding, bytes) {
            let written = encode_message(other, &batch);
            decode_message(other, &written).expect("what we write we read");
        }
        if let Ok(batch) = decode_batch(encoding, bytes) {
            let written = encode_batch(other, &batch);
            decode_batch(other, &written).expect("what we write we read");
        }
    }
});
