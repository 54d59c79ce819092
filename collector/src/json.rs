//! OTLP's JSON ↔ its protobuf encoding.

use bytes::Bytes;
use karez_collector_config::Signal;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::collector::metrics::v1::ExportMetricsServiceRequest;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::batch::Batch;

/// Reads an export request in JSON and encodes it.
pub fn to_protobuf(signal: Signal, json: &[u8]) -> Result<Bytes, serde_json::Error> {
    fn translate<M: Message + DeserializeOwned>(json: &[u8]) -> Result<Bytes, serde_json::Error> {
        serde_json::from_slice::<M>(json).map(|message| message.encode_to_vec().into())
    }
    match signal {
        Signal::Traces => translate::<ExportTraceServiceRequest>(json),
        Signal::Metrics => translate::<ExportMetricsServiceRequest>(json),
        Signal::Logs => translate::<ExportLogsServiceRequest>(json),
    }
}

/// Decodes a batch and writes it as JSON.
pub fn from_batch(batch: &Batch) -> Result<Vec<u8>, String> {
    fn translate<M: Message + Default + Serialize>(batch: &Batch) -> Result<Vec<u8>, String> {
        let message: M = batch.decode().map_err(|error| error.to_string())?;
        serde_json::to_vec(&message).map_err(|error| error.to_string())
    }
    match batch.signal {
        Signal::Traces => translate::<ExportTraceServiceRequest>(batch),
        Signal::Metrics => translate::<ExportMetricsServiceRequest>(batch),
        Signal::Logs => translate::<ExportLogsServiceRequest>(batch),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_what_senders_write() {
        let json = br#"{"resourceSpans":[{"resource":{"attributes":[{"key":"service.name","value":{"stringValue":"s"}}]},
            "scopeSpans":[{"scope":{"name":"x"},"spans":[{"traceId":"5b8efff798038103d269b633813fc60c",
            "spanId":"eee19b7ec3c1b174","name":"n","kind":2,"startTimeUnixNano":"1544712660000000000",
            "endTimeUnixNano":"1544712661000000000","attributes":[{"key":"i","value":{"intValue":"7"}}],"status":{}}]}]}]}"#;
        let payload = to_protobuf(Signal::Traces, json).unwrap();
        let batch = Batch::scan(Signal::Traces, payload).unwrap();
        assert_eq!(batch.items, 1);
        let request: ExportTraceServiceRequest = batch.decode().unwrap();
        let span = &request.resource_spans[0].scope_spans[0].spans[0];
        assert_eq!(
            (span.trace_id.len(), span.start_time_unix_nano),
            (16, 1_544_712_660_000_000_000)
        );
        let again = to_protobuf(Signal::Traces, &from_batch(&batch).unwrap()).unwrap();
        assert_eq!(again, batch.payload);
        assert!(to_protobuf(Signal::Traces, b"{\"resourceSpans\": 5}").is_err());
    }
}
