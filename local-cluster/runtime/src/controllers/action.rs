//! What a planner asks of the API: plain data, carried out by [`super::run`].

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::core::ApiResource;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use serde_json::Value;

/// The kinds that the controllers write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Kind {
    Deployment,
    ReplicaSet,
    StatefulSet,
    DaemonSet,
    Pod,
    Service,
    EndpointSlice,
    Endpoints,
}

impl Kind {
    /// How the API is asked for objects of this kind.
    pub(crate) fn resource(self) -> ApiResource {
        match self {
            Self::Deployment => ApiResource::erase::<Deployment>(&()),
            Self::ReplicaSet => ApiResource::erase::<ReplicaSet>(&()),
            Self::StatefulSet => ApiResource::erase::<StatefulSet>(&()),
            Self::DaemonSet => ApiResource::erase::<DaemonSet>(&()),
            Self::Pod => ApiResource::erase::<Pod>(&()),
            Self::Service => ApiResource::erase::<Service>(&()),
            Self::EndpointSlice => ApiResource::erase::<EndpointSlice>(&()),
            Self::Endpoints => ApiResource::erase::<Endpoints>(&()),
        }
    }
}

/// Which object.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

impl Target {
    /// The object that `object` is.
    pub(crate) fn of<K: Resource>(kind: Kind, object: &K) -> Self {
        Self {
            kind,
            namespace: object.namespace().unwrap_or_default(),
            name: object.name_any(),
        }
    }
}

/// One write.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Action {
    /// Make an object; one that is there already is as good.
    Create { target: Target, object: Value },
    /// Put an object in the place of the one that is there.
    Replace { target: Target, object: Value },
    /// Merge into an object.
    Merge { target: Target, patch: Value },
    /// Merge into an object's status.
    Status { target: Target, status: Value },
    /// Delete the object with this uid.
    Delete { target: Target, uid: String },
}

impl Action {
    /// Make `object`.
    pub(crate) fn create<K: Resource + Serialize>(kind: Kind, object: &K) -> Self {
        Self::Create {
            target: Target::of(kind, object),
            object: to_value(object),
        }
    }

    /// Put `object` in the place of the one of its name.
    pub(crate) fn replace<K: Resource + Serialize>(kind: Kind, object: &K) -> Self {
        Self::Replace {
            target: Target::of(kind, object),
            object: to_value(object),
        }
    }

    /// Delete `object`.
    pub(crate) fn delete<K: Resource>(kind: Kind, object: &K) -> Self {
        Self::Delete {
            target: Target::of(kind, object),
            uid: object.uid().unwrap_or_default(),
        }
    }

    /// Change how many replicas `object` has.
    pub(crate) fn scale<K: Resource>(kind: Kind, object: &K, replicas: i32) -> Self {
        let patch = serde_json::json!({"spec": {"replicas": replicas}});
        Self::Merge {
            target: Target::of(kind, object),
            patch,
        }
    }

    /// Write `status` to `object`, if it is another than `before`.
    pub(crate) fn status<K: Resource, S: Serialize + PartialEq>(
        kind: Kind,
        object: &K,
        before: Option<&S>,
        status: &S,
    ) -> Option<Self> {
        (before != Some(status)).then(|| Self::Status {
            target: Target::of(kind, object),
            status: to_value(status),
        })
    }
}

/// A Kubernetes type as JSON.
pub(crate) fn to_value(object: &impl Serialize) -> Value {
    serde_json::to_value(object).expect("invariant: Kubernetes types are plain data with string keys")
}
