//! What the API holds, kept up to date: one store a kind and one signal for all of them.

use std::sync::Arc;

use futures::StreamExt;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Secret, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::runtime::reflector::{ObjectRef, Store, store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use karez_lifecycle::Shutdown;

/// The stores. Those of the workload kinds stay empty where somebody else runs the controllers.
#[derive(Clone)]
pub(crate) struct Objects {
    pub(crate) deployments: Store<Deployment>,
    pub(crate) replica_sets: Store<ReplicaSet>,
    pub(crate) stateful_sets: Store<StatefulSet>,
    pub(crate) daemon_sets: Store<DaemonSet>,
    pub(crate) pods: Store<Pod>,
    pub(crate) services: Store<Service>,
    pub(crate) slices: Store<EndpointSlice>,
    pub(crate) endpoints: Store<Endpoints>,
    pub(crate) config_maps: Store<ConfigMap>,
    pub(crate) secrets: Store<Secret>,
    signal: Signal,
}

/// Rings whenever an object changed.
#[derive(Clone)]
pub(crate) struct Signal(Arc<watch::Sender<u64>>);

/// One listener to a [`Signal`]; a ring between two calls is not lost.
pub(crate) struct Changes(watch::Receiver<u64>);

impl Signal {
    pub(crate) fn new() -> Self {
        Self(Arc::new(watch::Sender::new(0)))
    }

    pub(crate) fn ring(&self) {
        self.0.send_modify(|count| *count = count.wrapping_add(1));
    }

    pub(crate) fn listen(&self) -> Changes {
        Changes(self.0.subscribe())
    }
}

impl Changes {
    /// Returns at the next ring, at once when there was one since the last call.
    pub(crate) async fn next(&mut self) {
        if self.0.changed().await.is_err() {
            // Nobody can ring any more: there will be no change.
            std::future::pending::<()>().await;
        }
    }
}

impl Objects {
    /// Starts to follow the API; returns when every store holds what was there.
    ///
    /// The tasks end with the shutdown; whoever waits for them knows that nothing holds the client any more.
    pub(crate) async fn follow(
        client: &Client,
        controllers: bool,
        shutdown: &Shutdown,
    ) -> (Self, JoinSet<()>) {
        let signal = Signal::new();
        let mut start = Follow {
            client,
            signal: &signal,
            shutdown,
            tasks: JoinSet::new(),
        };
        let objects = Self {
            deployments: start.kind_if(controllers),
            replica_sets: start.kind_if(controllers),
            stateful_sets: start.kind_if(controllers),
            daemon_sets: start.kind_if(controllers),
            pods: start.kind_if(true),
            services: start.kind_if(true),
            slices: start.kind_if(true),
            endpoints: start.kind_if(controllers),
            config_maps: start.kind_if(true),
            secrets: start.kind_if(true),
            signal: signal.clone(),
        };
        let tasks = start.tasks;
        objects.wait(controllers, shutdown).await;
        (objects, tasks)
    }

    /// A listener to every change.
    pub(crate) fn listen(&self) -> Changes {
        self.signal.listen()
    }

    /// The Pod of this name.
    pub(crate) fn pod(&self, namespace: &str, name: &str) -> Option<Arc<Pod>> {
        self.pods.get(&ObjectRef::new(name).within(namespace))
    }

    /// The ConfigMap of this name.
    pub(crate) fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        self.config_maps.get(&ObjectRef::new(name).within(namespace))
    }

    /// The Secret of this name.
    pub(crate) fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        self.secrets.get(&ObjectRef::new(name).within(namespace))
    }

    async fn wait(&self, controllers: bool, shutdown: &Shutdown) {
        let all = async {
            let _ = self.pods.wait_until_ready().await;
            let _ = self.services.wait_until_ready().await;
            let _ = self.slices.wait_until_ready().await;
            let _ = self.config_maps.wait_until_ready().await;
            let _ = self.secrets.wait_until_ready().await;
            if controllers {
                let _ = self.deployments.wait_until_ready().await;
                let _ = self.replica_sets.wait_until_ready().await;
                let _ = self.stateful_sets.wait_until_ready().await;
                let _ = self.daemon_sets.wait_until_ready().await;
                let _ = self.endpoints.wait_until_ready().await;
            }
        };
        tokio::select! {
            () = all => {}
            () = shutdown.triggered() => {}
        }
    }
}

struct Follow<'a> {
    client: &'a Client,
    signal: &'a Signal,
    shutdown: &'a Shutdown,
    tasks: JoinSet<()>,
}

impl Follow<'_> {
    /// A store of all objects of one kind; an empty one where they are not wanted.
    fn kind_if<K>(&mut self, wanted: bool) -> Store<K>
    where
        K: Resource<DynamicType = ()> + Clone + std::fmt::Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (reader, mut writer) = store::<K>();
        if !wanted {
            return reader;
        }
        let (signal, shutdown) = (self.signal.clone(), self.shutdown.clone());
        let mut events = watcher(Api::<K>::all(self.client.clone()), watcher::Config::default())
            .default_backoff()
            .boxed();
        self.tasks.spawn(async move {
            loop {
                let event = tokio::select! {
                    event = events.next() => event,
                    () = shutdown.triggered() => return,
                };
                match event {
                    Some(Ok(event)) => {
                        writer.apply_watcher_event(&event);
                        signal.ring();
                    }
                    Some(Err(error)) => {
                        tracing::warn!(kind = %K::kind(&()), %error, "watch interrupted; trying again")
                    }
                    None => return,
                }
            }
        });
        reader
    }
}
