//! OTLP's JSON: what is read can be scanned, written and read again to the same.
#![no_main]

use karez_collector::batch::{Batch, Signal};
use karez_collector::json::{from_batch, to_protobuf};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    for signal in [Signal::Traces, Signal::Metrics, Signal::Logs] {
        if let Ok(payload) = to_protobuf(signal, bytes) {
            let batch = Batch::scan(signal, payload).expect("what prost writes can be scanned");
            let _ = from_batch(&batch);
        }
    }
});
