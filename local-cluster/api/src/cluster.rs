//! The cluster in one process: the store, its files, those who wait for changes.

use crate::{
    admission::Admission,
    error::ApiError,
    files::{Files, OpenError},
    http::ApiService,
    kinds::Kind,
    store::{self, Change, Context, EventType, FieldValidation, Key, Planned, Store, Target, gc},
};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard},
};
use tokio::sync::watch;

/// How a local cluster is opened.
#[derive(Clone)]
pub struct LocalClusterOptions {
    /// The folder that holds everything; made when it is missing.
    pub state: PathBuf,
    /// Called in this order for each object that is created or updated.
    pub admission: Vec<Arc<dyn Admission>>,
}

impl LocalClusterOptions {
    /// A cluster in `state` without admission steps.
    pub fn new(state: impl Into<PathBuf>) -> Self {
        Self {
            state: state.into(),
            admission: Vec::new(),
        }
    }
}

/// A Kubernetes API over a state folder. One process has the folder at a time.
pub struct LocalCluster {
    pub(crate) state: PathBuf,
    store: RwLock<Store>,
    files: Mutex<Files>,
    admission: Vec<Arc<dyn Admission>>,
    changed: watch::Sender<u64>,
    /// Bearer tokens that were issued to service accounts: token → (account, until).
    pub(crate) tokens: Mutex<HashMap<String, (String, jiff::Timestamp)>>,
}

/// What a request says about a write.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteOptions {
    pub(crate) manager: String,
    pub(crate) validation: FieldValidation,
    pub(crate) dry_run: bool,
}

impl LocalCluster {
    /// Opens the state folder, locks it, and reads its objects.
    pub fn open(options: LocalClusterOptions) -> Result<Arc<Self>, OpenError> {
        let (files, store) = Files::open(&options.state)?;
        let cluster = Arc::new(Self {
            changed: watch::Sender::new(store.version()),
            store: RwLock::new(store),
            files: Mutex::new(files),
            state: options.state,
            admission: options.admission,
            tokens: Mutex::default(),
        });
        for name in ["default", "kube-system", "kube-public", "kube-node-lease"] {
            cluster
                .ensure("", "Namespace", "", name)
                .map_err(|e| OpenError::Prepare(e.message))?;
        }
        cluster.collect();
        Ok(cluster)
    }

    /// The state folder.
    pub fn state(&self) -> &Path {
        &self.state
    }

    /// A client to this cluster, in process, with every right. Needs a tokio runtime.
    pub fn client(self: &Arc<Self>) -> kube::Client {
        kube::Client::new(ApiService::in_process(self.clone()), "default")
    }

    /// Makes objects of a kind without a definition acceptable: they are stored and served as they are.
    ///
    /// Nothing happens when the kind is known. The plural is guessed as Kubernetes' tools do.
    pub fn accept_unknown_kind(&self, api_version: &str, kind: &str, namespaced: bool) {
        let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
        store.accept(api_version, kind, None, namespaced);
    }

    /// Whether objects of this kind can be stored now.
    pub fn knows_kind(&self, api_version: &str, kind: &str) -> bool {
        self.read().registry.named(api_version, kind).is_some()
    }

    pub(crate) fn read(&self) -> RwLockReadGuard<'_, Store> {
        // A panic while writing leaves the store as it was before or after a commit.
        self.store.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says the newest version; for watches to wait on.
    pub(crate) fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    fn context<'a>(&'a self, options: &'a WriteOptions) -> Context<'a> {
        Context {
            now: jiff::Timestamp::now(),
            uid: uuid::Uuid::new_v4().to_string(),
            random: rand::random(),
            manager: &options.manager,
            validation: options.validation,
            admission: &self.admission,
        }
    }

    /// Carries a write out, off the async threads: it waits for the disk.
    pub(crate) async fn write<P>(self: Arc<Self>, options: WriteOptions, plan: P) -> Result<Planned, ApiError>
    where
        P: FnOnce(&Store, &Context<'_>) -> Result<Planned, ApiError> + Send + 'static,
    {
        let work = move || self.write_now(&options, plan);
        tokio::task::spawn_blocking(work)
            .await
            .unwrap_or_else(|e| Err(ApiError::internal(format!("the write did not end: {e}"))))
    }

    /// Decides, makes durable, takes in, tells, and does what follows from it.
    pub(crate) fn write_now<P>(&self, options: &WriteOptions, plan: P) -> Result<Planned, ApiError>
    where
        P: FnOnce(&Store, &Context<'_>) -> Result<Planned, ApiError>,
    {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let mut planned = plan(&self.read(), &self.context(options))?;
        if let Some(change) = planned.change.take_if(|_| !options.dry_run) {
            let consequences = gc::may_follow(&change);
            self.commit(&mut files, change)?;
            if consequences {
                self.collect_with(&mut files);
            }
        }
        Ok(planned)
    }

    fn commit(&self, files: &mut MutexGuard<'_, Files>, change: Change) -> Result<(), ApiError> {
        files.apply(&change).map_err(|e| {
            let words = format!(
                "the object could not be written to {}: {e}; nothing was changed",
                self.state.display()
            );
            tracing::error!(state = %self.state.display(), error = %e, "an object could not be written");
            ApiError::internal(words)
        })?;
        let (event, version) = {
            let mut store = self.store.write().unwrap_or_else(PoisonError::into_inner);
            (store.commit(change), store.version())
        };
        self.changed.send_replace(version);
        if event.kind == EventType::Added && event.key.resource == "namespaces" && event.key.group.is_empty()
        {
            self.ensure_with(files, "", "ServiceAccount", &event.key.name, "default")?;
        }
        Ok(())
    }

    fn collect(&self) {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.collect_with(&mut files);
    }

    /// Garbage collection, until nothing follows. Each step is a write of its own, so that a crash between two is none.
    fn collect_with(&self, files: &mut MutexGuard<'_, Files>) {
        const ROUNDS: usize = 10_000;
        let options = WriteOptions {
            manager: "garbage-collector".into(),
            ..WriteOptions::default()
        };
        for _ in 0..ROUNDS {
            let steps = gc::steps(&self.read());
            let mut progress = false;
            for step in steps {
                let planned = gc::plan(&self.read(), &step, &self.context(&options));
                match planned {
                    Ok(Some(Planned {
                        change: Some(change), ..
                    })) => match self.commit(files, change) {
                        Ok(()) => progress = true,
                        Err(_) => return,
                    },
                    Ok(_) => {}
                    Err(error) => tracing::warn!(?step, %error, "garbage collection could not do a step"),
                }
            }
            if !progress {
                return;
            }
        }
    }

    fn ensure(&self, group: &str, kind: &str, namespace: &str, name: &str) -> Result<(), ApiError> {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        self.ensure_with(&mut files, group, kind, namespace, name)
    }

    /// Creates an object that every cluster has, unless it is there.
    fn ensure_with(
        &self,
        files: &mut MutexGuard<'_, Files>,
        group: &str,
        kind: &str,
        namespace: &str,
        name: &str,
    ) -> Result<(), ApiError> {
        let options = WriteOptions {
            manager: "karez".into(),
            ..WriteOptions::default()
        };
        let planned = {
            let store = self.read();
            let Some(kind) = store.registry.in_group(group, kind) else {
                return Ok(());
            };
            if store.find(&Store::key(&kind, namespace, name)).is_some() {
                return Ok(());
            }
            let body = json!({"metadata": {"name": name}});
            let target = Target {
                kind: &kind,
                namespace,
                name,
                subresource: "",
            };
            store::create(&store, target, body, &self.context(&options))?
        };
        match planned.change {
            Some(change) => self.commit(files, change),
            None => Ok(()),
        }
    }

    /// A stored object.
    pub(crate) fn object(&self, kind: &Kind, namespace: &str, name: &str) -> Result<Arc<Value>, ApiError> {
        let key: Key = Store::key(kind, namespace, name);
        let found = self.read().find(&key).cloned();
        found.ok_or_else(|| ApiError::not_found(&kind.group, &kind.plural, name))
    }
}
