//! What flows through pipelines: a batch is its OTLP encoding until a component needs structure.
//!
//! The payload is an `Export…ServiceRequest`: field 1, repeated. Encodings of repeated fields concatenate, so batches
//! are joined by joining their bytes. Whoever makes a batch from foreign bytes has them scanned, so that no later
//! component meets anything that a decoder would refuse.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use http::HeaderMap;
use prost::Message;

pub use karez_collector_config::Signal;

use crate::extensions::auth::Principal;
use crate::wire::{self, Malformed};

/// The request that data came with, as far as later components may ask about it. Batches that are joined lose it.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Context {
    /// The caller's address.
    pub peer: Option<IpAddr>,
    /// The request's headers; empty unless the receiver's `include_metadata` keeps them.
    pub metadata: HeaderMap,
    /// Who the caller proved to be.
    pub principal: Option<Principal>,
}

impl Context {
    /// What `from_context: metadata.x`, `auth.x` or `client.address` means; several values are joined by `;`.
    pub fn find(&self, name: &str) -> Option<String> {
        let (of, name) = name.split_once('.').unwrap_or(("metadata", name));
        match (of, name) {
            ("client", "address") => self.peer.map(|peer| peer.to_string()),
            ("auth", "username" | "subject") => self.principal.as_ref()?.username.clone(),
            ("auth", "groups" | "membership") => {
                Some(self.principal.as_ref()?.groups.join(";")).filter(|groups| !groups.is_empty())
            }
            ("metadata", name) => {
                let values = self.metadata.get_all(name).iter();
                let texts: Vec<&str> = values.filter_map(|value| value.to_str().ok()).collect();
                (!texts.is_empty()).then(|| texts.join(";"))
            }
            _ => None,
        }
    }
}

/// Spans, data points or log records, encoded.
#[derive(Debug, Clone, PartialEq)]
pub struct Batch {
    /// What it holds.
    pub signal: Signal,
    /// The OTLP encoding of an export request.
    pub payload: Bytes,
    /// How many spans, data points or log records that are.
    pub items: usize,
    /// The request it came with, while it is of one request.
    pub context: Option<Arc<Context>>,
}

impl Batch {
    /// Takes bytes from outside: scans the encoding and counts its items.
    pub fn scan(signal: Signal, payload: Bytes) -> Result<Self, Malformed> {
        let items = wire::scan(signal, &payload)?;
        Ok(Batch {
            signal,
            payload,
            items,
            context: None,
        })
    }

    /// The same, with the request it came with.
    #[must_use]
    pub fn with_context(mut self, context: Arc<Context>) -> Self {
        self.context = Some(context);
        self
    }

    /// Encodes an `Export…ServiceRequest` that the program made.
    pub fn encode(signal: Signal, request: &impl Message, items: usize) -> Self {
        Batch {
            signal,
            payload: request.encode_to_vec().into(),
            items,
            context: None,
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
        // Each is given back when it was copied.
        for batch in batches {
            debug_assert_eq!(batch.signal, signal, "batches of one pipeline have one signal");
            payload.put_slice(&batch.payload);
            items += batch.items;
        }
        Some(Batch {
            signal,
            payload: payload.freeze(),
            items,
            context: None,
        })
    }

    /// Decodes it, for the few components that need whole structures.
    pub fn decode<M: Message + Default>(&self) -> Result<M, prost::DecodeError> {
        M::decode(self.payload.clone())
    }
}
