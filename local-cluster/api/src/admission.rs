//! Where others join a write before it happens: the place that webhooks have in a cluster.

use serde_json::Value;

/// What is about to happen to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operation {
    /// It is new.
    Create,
    /// It exists and gets another content.
    Update,
}

/// What an admission step may look at: the objects as they are before the write.
pub trait Read {
    /// The object of a kind in an API group (`""` for the core group), in any served version.
    fn get(&self, group: &str, kind: &str, namespace: Option<&str>, name: &str) -> Option<Value>;

    /// All objects of a kind, in one namespace or in all.
    fn list(&self, group: &str, kind: &str, namespace: Option<&str>) -> Vec<Value>;
}

/// Why an admission step refuses an object; the words reach the client with status 403.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// What is wrong and what to do.
    pub message: String,
}

/// A step between a client's write and the store: it may change the object or refuse it.
///
/// Called while the store's writer is held: decide in memory, do no I/O.
pub trait Admission: Send + Sync {
    /// Judges `object`, which is complete with its defaults; changes to it are kept.
    fn admit(&self, operation: Operation, object: &mut Value, store: &dyn Read) -> Result<(), Refusal>;
}
