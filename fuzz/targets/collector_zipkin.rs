//! Zipkin's spans, version 1 and 2, JSON and protobuf: what is read is as many spans in an encoding that the scan takes,
//! and goes out as Zipkin's again.
#![no_main]

use karez_collector::batch::{Batch, Signal};
use karez_collector::zipkin::{Encoding, from_otlp, read, to_otlp};
use libfuzzer_sys::fuzz_target;
use opentelemetry_proto::tonic::trace::v1::TracesData;
use prost::Message;

fuzz_target!(|bytes: &[u8]| {
    for encoding in [Encoding::Json, Encoding::Proto, Encoding::JsonV1] {
        let Ok(spans) = read(encoding, bytes) else {
            continue;
        };
        let count = spans.len();
        for typed in [false, true] {
            let Ok(resource_spans) = to_otlp::resources(spans.clone(), typed) else {
                break;
            };
            let request = TracesData {
                resource_spans: resource_spans.clone(),
            };
            let batch = Batch::scan(Signal::Traces, request.encode_to_vec().into());
            assert_eq!(batch.expect("what prost writes can be scanned").items, count);
            let back = from_otlp::spans(resource_spans, "service");
            assert_eq!(back.len(), count);
            to_otlp::resources(back, typed).expect("what we write we read");
        }
    }
});
