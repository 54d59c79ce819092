//! What flows through pipelines: a batch is its OTLP encoding until a component needs structure.
//!
//! The payload is an `Export…ServiceRequest`: field 1, repeated. Encodings of repeated fields concatenate, so batches
//! are joined by joining their bytes. Whoever makes a batch from foreign bytes has them scanned, so that no later
//! component meets anything that a decoder would refuse.

use bytes::{BufMut, Bytes, BytesMut};
use prost::Message;

pub use karez_collector_config::Signal;

use crate::wire::{self, Malformed};

/// Spans, data points or log records, encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// What it holds.
    pub signal: Signal,
    /// The OTLP encoding of an export request.
    pub payload: Bytes,
    /// How many spans, data points or log records that are.
    pub items: usize,
}

impl Batch {
    /// Takes bytes from outside: scans the encoding and counts its items.
    pub fn scan(signal: Signal, payload: Bytes) -> Result<Self, Malformed> {
        let items = wire::scan(signal, &payload)?;
        Ok(Batch {
            signal,
            payload,
            items,
        })
    }

    /// Encodes an `Export…ServiceRequest` that the program made.
    pub fn encode(signal: Signal, request: &impl Message, items: usize) -> Self {
        Batch {
            signal,
            payload: request.encode_to_vec().into(),
            items,
        }
    }

    /// The size of its encoding.
    pub fn bytes(&self) -> usize {
        self.payload.len()
    }

    /// Whether it holds nothing.
    pub fn is_empty(&self) -> bool {
        self.items == 0 && self.payload.is_empty()
    }

    /// Joins batches of one signal. Nothing is decoded; one batch is not even copied.
    pub fn join(mut batches: Vec<Batch>) -> Option<Batch> {
        if batches.len() <= 1 {
            return batches.pop();
        }
        let signal = batches[0].signal;
        let mut payload = BytesMut::with_capacity(batches.iter().map(Batch::bytes).sum());
        let mut items = 0;
        for batch in &batches {
            debug_assert_eq!(batch.signal, signal, "batches of one pipeline have one signal");
            payload.put_slice(&batch.payload);
            items += batch.items;
        }
        Some(Batch {
            signal,
            payload: payload.freeze(),
            items,
        })
    }

    /// Decodes it, for the few components that need whole structures.
    pub fn decode<M: Message + Default>(&self) -> Result<M, prost::DecodeError> {
        M::decode(self.payload.clone())
    }
}
