//! The trace store in memory: spans in their OTLP encoding, found by trace, service, operation, time and tags.
//!
//! Writers and readers meet at one lock. Writers hold it for a batch's indexing; readers copy references out under it and decode
//! outside it, so that a search over much cannot hold up what arrives.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use opentelemetry_proto::tonic::common::v1::InstrumentationScope;
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message as _;

use super::disk::{Disk, DiskError};
use super::wire;
use crate::jaeger::{from_otlp, model};
use crate::wire::Malformed;

/// What the indexes take for a span beside its encoding, counted into the limit.
const SPAN_OVERHEAD: usize = 320;
/// What a trace takes beside its spans.
const TRACE_OVERHEAD: usize = 256;

/// A trace's identifier.
pub type TraceId = [u8; 16];

/// How much is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of spans and indexes.
    pub max_bytes: usize,
    /// Traces; 0 for as many as the bytes allow.
    pub max_traces: usize,
}

/// What became of a batch.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Spans that are now in the store.
    pub stored: usize,
    /// Spans that were there already (a retried batch).
    pub known: usize,
    /// Spans without valid identifiers.
    pub invalid: usize,
    /// Spans of a trace that alone is larger than the store.
    pub too_large: usize,
}

/// A stored span.
#[derive(Debug)]
pub struct StoredSpan {
    resource: Arc<StoredResource>,
    scope: Arc<[u8]>,
    span: Box<[u8]>,
    /// Its operation.
    pub operation: Arc<str>,
    /// Its OTLP kind.
    pub kind: i32,
    /// Its identifier.
    pub id: [u8; 8],
    /// Its parent's identifier, zeros if it has none.
    pub parent: [u8; 8],
    /// Nanoseconds since 1970.
    pub start: u64,
    /// Nanoseconds since 1970.
    pub end: u64,
}

#[derive(Debug)]
struct StoredResource {
    encoded: Box<[u8]>,
    service: Arc<str>,
}

impl StoredSpan {
    /// The service that emitted it.
    pub fn service(&self) -> &str {
        &self.resource.service
    }

    /// How long it lasted, in nanoseconds.
    pub fn duration(&self) -> u64 {
        self.end.saturating_sub(self.start)
    }

    /// Its resource, scope and itself, decoded. What is stored was decoded once; damage reads as empty.
    pub fn otlp(&self) -> (Resource, InstrumentationScope, Span) {
        let resource = Resource::decode(&*self.resource.encoded).unwrap_or_default();
        let scope = InstrumentationScope::decode(&*self.scope).unwrap_or_default();
        (resource, scope, Span::decode(&*self.span).unwrap_or_default())
    }

    /// Itself in Jaeger's model, its process inside.
    pub fn decode(&self) -> model::Span {
        let (resource, scope, span) = self.otlp();
        let mut span = from_otlp::span(&span, &scope);
        span.process = Some(from_otlp::process(&resource));
        span
    }

    fn bytes(&self) -> usize {
        self.span.len() + self.scope.len() + SPAN_OVERHEAD
    }
}

/// A trace as it was at one moment.
#[derive(Clone, Debug)]
pub struct StoredTrace {
    /// Its identifier.
    pub id: TraceId,
    /// Its spans, in the order in which they arrived.
    pub spans: Vec<Arc<StoredSpan>>,
}

/// A service's operation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Operation {
    /// Its name.
    pub name: String,
    /// `client`, `server`, …; empty if the spans do not say.
    pub kind: &'static str,
}

/// The bounded store.
#[derive(Debug)]
pub struct TraceStore {
    /// Where batches are kept, too.
    disk: OnceLock<Disk>,
    limits: Limits,
    hasher: RandomState,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    bytes: usize,
    next: u64,
    traces: HashMap<TraceId, Trace>,
    /// By arrival of their first span.
    order: BTreeMap<u64, TraceId>,
    services: BTreeMap<Arc<str>, Service>,
}

#[derive(Debug)]
struct Trace {
    arrived: u64,
    bytes: usize,
    /// The first start of its spans.
    earliest: u64,
    /// The last start of its spans.
    latest: u64,
    /// Hashes of the spans' encodings, to know a retried batch by.
    seen: HashSet<u64>,
    spans: Vec<Arc<StoredSpan>>,
}

#[derive(Debug, Default)]
struct Service {
    /// Spans by operation and kind.
    operations: BTreeMap<(Arc<str>, i32), usize>,
    /// Spans by trace.
    traces: HashMap<TraceId, usize>,
}

impl TraceStore {
    /// An empty store.
    pub fn new(limits: Limits) -> Self {
        Self {
            disk: OnceLock::new(),
            limits,
            hasher: RandomState::new(),
            state: Mutex::default(),
        }
    }

    /// Keeps batches in a folder as well, at most so many bytes as the store has, and takes in what is there.
    pub fn open(&self, folder: &Path) -> Result<(), DiskError> {
        let most = u64::try_from(self.limits.max_bytes).unwrap_or(u64::MAX);
        let disk = Disk::open(folder, most, |batch| {
            if let Err(malformed) = self.add(batch) {
                tracing::warn!(%malformed, "a batch on disk is left out");
            }
        })?;
        let _ = self.disk.set(disk);
        Ok(())
    }

    /// Whether batches are kept on disk as well.
    pub fn is_on_disk(&self) -> bool {
        self.disk.get().is_some()
    }

    /// Keeps a batch on disk, if there is one; to be called before it is added. It waits for the disk.
    pub fn keep(&self, batch: &[u8]) -> Result<(), DiskError> {
        self.disk.get().map_or(Ok(()), |disk| disk.append(batch))
    }

    /// Stores a batch (an encoded `TracesData`), then lets the oldest traces go until the limits hold.
    pub fn add(&self, batch: &[u8]) -> Result<Added, Malformed> {
        let prepared = self.prepare(batch)?;
        let mut added = Added {
            invalid: prepared.invalid,
            ..Added::default()
        };
        let mut state = self.lock();
        for (id, hash, span) in prepared.spans {
            match state.insert(id, hash, span, self.limits.max_bytes) {
                Insert::Stored => added.stored += 1,
                Insert::Known => added.known += 1,
                Insert::TooLarge => added.too_large += 1,
            }
        }
        state.shrink(self.limits);
        Ok(added)
    }

    /// Checks and copies a batch before the lock is taken.
    fn prepare(&self, batch: &[u8]) -> Result<Prepared, Malformed> {
        let mut prepared = Prepared::default();
        let mut resource: Option<(*const u8, Arc<StoredResource>)> = None;
        let mut scope: Option<(*const u8, Arc<[u8]>)> = None;
        wire::spans(batch, |resource_bytes, scope_bytes, span_bytes| {
            let head = wire::head(span_bytes)?;
            let (Some(trace_id), Some(id)) = (id::<16>(head.trace_id), id::<8>(head.span_id)) else {
                prepared.invalid += 1;
                return Ok(());
            };
            // Decoded once here, so that what is stored can be relied on.
            Span::decode(span_bytes).map_err(|_| Malformed::Truncated)?;
            let resource = shared(&mut resource, resource_bytes, stored_resource)?;
            let scope = shared(&mut scope, scope_bytes, |bytes| {
                InstrumentationScope::decode(bytes).map_err(|_| Malformed::Truncated)?;
                Ok(Arc::from(bytes))
            })?;
            let span = StoredSpan {
                resource,
                scope,
                span: span_bytes.into(),
                operation: head.name.into(),
                kind: head.kind,
                id,
                parent: self::id(head.parent).unwrap_or_default(),
                start: head.start,
                end: head.end,
            };
            prepared.spans.push((
                trace_id,
                self.hasher.hash_one((resource_bytes, span_bytes)),
                Arc::new(span),
            ));
            Ok(())
        })?;
        Ok(prepared)
    }

    /// Services with spans in the store, sorted.
    pub fn services(&self) -> Vec<String> {
        self.lock().services.keys().map(|name| name.to_string()).collect()
    }

    /// A service's operations, sorted by name and kind.
    pub fn operations(&self, service: &str) -> Vec<Operation> {
        let state = self.lock();
        let Some(service) = state.services.get(service) else {
            return Vec::new();
        };
        let operation = |(name, kind): &(Arc<str>, i32)| Operation {
            name: name.to_string(),
            kind: from_otlp::kind_name(*kind).unwrap_or_default(),
        };
        let mut all: Vec<_> = service.operations.keys().map(operation).collect();
        all.sort();
        all.dedup();
        all
    }

    /// A trace, if it is (still) there.
    pub fn trace(&self, id: &TraceId) -> Option<StoredTrace> {
        let state = self.lock();
        state.traces.get(id).map(|trace| StoredTrace {
            id: *id,
            spans: trace.spans.clone(),
        })
    }

    /// Traces with a span of the service (or of any) and with spans around a time, latest first: candidates for a search.
    pub(super) fn candidates(&self, service: Option<&str>, start: u64, end: u64) -> Vec<TraceId> {
        let state = self.lock();
        let in_time = |id: &TraceId| {
            let trace = state.traces.get(id)?;
            (trace.latest >= start && trace.earliest <= end).then_some((trace.latest, *id))
        };
        let mut found: Vec<(u64, TraceId)> = match service {
            None => state.traces.keys().filter_map(in_time).collect(),
            Some(name) => match state.services.get(name) {
                None => Vec::new(),
                Some(service) => service.traces.keys().filter_map(in_time).collect(),
            },
        };
        drop(state);
        found.sort_unstable_by(|a, b| b.cmp(a));
        found.into_iter().map(|(_, id)| id).collect()
    }

    /// How many bytes are counted against the limit.
    pub fn bytes(&self) -> usize {
        self.lock().bytes
    }

    /// How many traces are in the store.
    pub fn traces(&self) -> usize {
        self.lock().traces.len()
    }

    /// No code panics while it holds the lock half-way through a change; what is there stays usable.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Default)]
struct Prepared {
    spans: Vec<(TraceId, u64, Arc<StoredSpan>)>,
    invalid: usize,
}

enum Insert {
    Stored,
    Known,
    TooLarge,
}

impl State {
    fn insert(&mut self, id: TraceId, hash: u64, span: Arc<StoredSpan>, max_bytes: usize) -> Insert {
        let next = self.next;
        let trace = self.traces.entry(id).or_insert_with(|| Trace {
            arrived: next,
            bytes: 0,
            earliest: u64::MAX,
            latest: 0,
            seen: HashSet::new(),
            spans: Vec::new(),
        });
        if !trace.seen.insert(hash) {
            return Insert::Known;
        }
        let first = trace.spans.is_empty();
        let shared = trace
            .spans
            .iter()
            .rev()
            .take(32)
            .any(|known| Arc::ptr_eq(&known.resource, &span.resource));
        let resource = if shared {
            0
        } else {
            span.resource.encoded.len() + span.service().len()
        };
        let bytes = span.bytes() + resource + if first { TRACE_OVERHEAD } else { 0 };
        if trace.bytes + bytes > max_bytes {
            trace.seen.remove(&hash);
            if first {
                self.traces.remove(&id);
            }
            return Insert::TooLarge;
        }
        trace.bytes += bytes;
        trace.earliest = trace.earliest.min(span.start);
        trace.latest = trace.latest.max(span.start);
        trace.spans.push(span.clone());
        self.bytes += bytes;
        if first {
            self.order.insert(next, id);
            self.next += 1;
        }
        let service = self.services.entry(span.resource.service.clone()).or_default();
        *service
            .operations
            .entry((span.operation.clone(), span.kind))
            .or_default() += 1;
        *service.traces.entry(id).or_default() += 1;
        Insert::Stored
    }

    fn shrink(&mut self, limits: Limits) {
        let over = |state: &Self| {
            state.bytes > limits.max_bytes
                || (limits.max_traces > 0 && state.traces.len() > limits.max_traces)
        };
        while over(self) {
            let Some((_, oldest)) = self.order.pop_first() else {
                return;
            };
            self.forget(&oldest);
        }
    }

    fn forget(&mut self, id: &TraceId) {
        let Some(trace) = self.traces.remove(id) else {
            return;
        };
        self.bytes -= trace.bytes;
        self.order.remove(&trace.arrived);
        for span in trace.spans {
            let Some(service) = self.services.get_mut(span.service()) else {
                continue;
            };
            decrement(&mut service.operations, &(span.operation.clone(), span.kind));
            if let Some(count) = service.traces.get_mut(id) {
                *count -= 1;
                if *count == 0 {
                    service.traces.remove(id);
                }
            }
            if service.traces.is_empty() {
                self.services.remove(span.service());
            }
        }
    }
}

fn decrement<K: Ord>(counts: &mut BTreeMap<K, usize>, key: &K) {
    if let Some(count) = counts.get_mut(key) {
        *count -= 1;
        if *count == 0 {
            counts.remove(key);
        }
    }
}

/// An identifier of the right length that is not zeros alone.
fn id<const N: usize>(bytes: &[u8]) -> Option<[u8; N]> {
    let id: [u8; N] = bytes.try_into().ok()?;
    (id != [0; N]).then_some(id)
}

/// Makes a shared copy once for a run of spans that come from the same place of the batch.
fn shared<'a, T: Clone>(
    last: &mut Option<(*const u8, T)>,
    bytes: &'a [u8],
    make: impl Fn(&'a [u8]) -> Result<T, Malformed>,
) -> Result<T, Malformed> {
    match last {
        Some((place, made)) if *place == bytes.as_ptr() && !bytes.is_empty() => Ok(made.clone()),
        _ => {
            let made = make(bytes)?;
            *last = Some((bytes.as_ptr(), made.clone()));
            Ok(made)
        }
    }
}

fn stored_resource(bytes: &[u8]) -> Result<Arc<StoredResource>, Malformed> {
    let resource = Resource::decode(bytes).map_err(|_| Malformed::Truncated)?;
    let service = from_otlp::process(&resource).service_name.into();
    Ok(Arc::new(StoredResource {
        encoded: bytes.into(),
        service,
    }))
}
