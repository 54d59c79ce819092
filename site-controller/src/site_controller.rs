//! The site-level controller: watches → snapshot → plan → apply, one namespace at a time.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use karez_kubernetes::{FIELD_MANAGER_SITE, Jaeger, OpenTelemetryCollector, TargetAllocator, labels};
use karez_lifecycle::Shutdown;
use karez_net::Net;
use kube::core::ApiResource;
use kube::{Client, ResourceExt};
use serde_json::Value;

use crate::apply::{Applier, ApplyError};
use crate::issue::{Issuer, OrderError};
use crate::object::{ObjectRef, Strings, reference};
use crate::options::{RunError, SiteControllerOptions};
use crate::plan::{self, CertificateKind, Note, Plan};
use crate::site_config::{Lifetimes, SiteConfig};
use crate::snapshot::SiteSnapshot;
use crate::watch::{Broken, Select, Store, Watches};
use crate::{sidecar_notes, webhook};

/// How long what was just issued stands in for what the watch has not brought yet.
const FRESH: Duration = Duration::from_secs(3);
/// How often certificates are looked at without any other reason.
const LOOK_AGAIN: Duration = Duration::from_secs(600);
/// How long after a failure the next try is made.
const RETRY: Duration = Duration::from_secs(1);

/// Kinds of the objects that this controller makes.
const MADE: &[(&str, &str)] = &[
    ("v1", "ConfigMap"),
    ("v1", "Service"),
    ("v1", "ServiceAccount"),
    ("apps/v1", "Deployment"),
    ("apps/v1", "DaemonSet"),
    ("apps/v1", "StatefulSet"),
    ("rbac.authorization.k8s.io/v1", "Role"),
    ("rbac.authorization.k8s.io/v1", "RoleBinding"),
    ("policy/v1", "PodDisruptionBudget"),
];

/// Runs the site-level controller until shutdown.
///
/// # Errors
/// When the webhook cannot be served; what an API refuses is logged, published and tried again.
pub async fn run_site_controller(
    client: Client,
    options: SiteControllerOptions,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let mut controller = Controller::start(client.clone(), &options);
    let served = async {
        match options.webhook.clone() {
            Some(webhook) => webhook::serve(client, webhook, &Net::from_env(), shutdown.clone()).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = controller.run() => Ok(()),
        served = served => Ok(served?),
        () = shutdown.triggered() => Ok(()),
    }
}

struct Controller {
    watches: Watches,
    applier: Applier,
    legacy_otlp: bool,
    sites: Store<ConfigMap>,
    secrets: [Store<Secret>; 2],
    made: Vec<(ObjectRef, Store<Value>)>,
    collectors: Store<OpenTelemetryCollector>,
    allocators: Store<TargetAllocator>,
    jaegers: Store<Jaeger>,
    deployments: Store<Deployment>,
    fresh: BTreeMap<(String, String), (Instant, Secret)>,
    /// When namespaces are planned again without a change.
    again: BTreeMap<String, Timestamp>,
}

impl Controller {
    fn start(client: Client, options: &SiteControllerOptions) -> Self {
        let mut watches = Watches::new(client.clone(), options.watch_namespace.clone());
        let made = MADE
            .iter()
            .map(|(api_version, kind)| {
                let kind = ObjectRef {
                    api_version: (*api_version).to_owned(),
                    kind: (*kind).to_owned(),
                    namespace: String::new(),
                    name: String::new(),
                };
                let resource: ApiResource = kind.resource();
                (
                    kind,
                    watches.add_as::<Value>(&resource, Select::labels(labels::MANAGED)),
                )
            })
            .collect();
        Self {
            sites: watches.add(Select::fields("metadata.name=skupper-site")),
            secrets: [
                watches.add(Select::labels(labels::TYPE)),
                watches.add(Select::labels(labels::MANAGED)),
            ],
            collectors: watches.add(Select::ALL),
            allocators: watches.add(Select::ALL),
            jaegers: watches.add(Select::ALL),
            deployments: watches.add(Select::ALL),
            made,
            applier: Applier::new(client, FIELD_MANAGER_SITE),
            legacy_otlp: options.legacy_otlp_port,
            watches,
            fresh: BTreeMap::new(),
            again: BTreeMap::new(),
        }
    }

    async fn run(&mut self) {
        self.watches.listed().await;
        tracing::info!("the site-controller watches");
        let mut look_again = tokio::time::interval(LOOK_AGAIN);
        loop {
            let dirty = self.watches.dirty.clone();
            tokio::select! {
                namespaces = dirty.take() => {
                    for namespace in namespaces {
                        self.reconcile(&namespace).await;
                    }
                }
                _ = look_again.tick() => {
                    let of_allocators = self.allocators.namespaces();
                    let others = self.collectors.namespaces();
                    for namespace in self.sites.namespaces().union(&of_allocators).chain(&others) {
                        dirty.mark(namespace);
                    }
                }
            }
        }
    }

    async fn reconcile(&mut self, namespace: &str) {
        let now = Timestamp::now();
        let (mut plan, snapshot) = self.plan(namespace, now);
        if let Err(error) = self.carry_out(&mut plan, &snapshot, now).await {
            tracing::warn!(namespace, error = %Chain(&error), "cannot carry out the plan; trying again");
            self.look_again(namespace.to_owned(), RETRY);
        }
        if let Some(at) = plan.again_at {
            self.again_at(namespace, at, now);
        }
        self.applier.publish(namespace, &plan.notes, now).await;
    }

    /// Plans a namespace again at a time, if that is before one looks again anyway.
    fn again_at(&mut self, namespace: &str, at: Timestamp, now: Timestamp) {
        let planned = self.again.get(namespace);
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        if wait > LOOK_AGAIN || planned.is_some_and(|planned| *planned > now && *planned <= at) {
            return;
        }
        self.again.insert(namespace.to_owned(), at);
        self.look_again(namespace.to_owned(), wait.max(Duration::from_millis(200)));
    }

    /// Plans a namespace again after a while.
    fn look_again(&self, namespace: String, after: Duration) {
        let dirty = self.watches.dirty.clone();
        tokio::spawn(async move {
            tokio::time::sleep(after).await;
            dirty.mark(&namespace);
        });
    }

    fn plan(&mut self, namespace: &str, now: Timestamp) -> (Plan, SiteSnapshot) {
        let snapshot = self.snapshot(namespace);
        let mut plan = plan::site::plan(&snapshot, now);
        let managed = self.managed(namespace);
        let sidecars = self.plan_collectors(&snapshot, &managed, now, &mut plan);
        for jaeger in self.jaegers.of(namespace) {
            let ready = self
                .replicas(namespace, &jaeger.name_any())
                .is_some_and(|(ready, _)| ready > 0);
            plan.extend(plan::jaeger::plan(&jaeger, &managed, ready));
        }
        for deployment in self.deployments.of(namespace) {
            plan.notes.extend(sidecar_notes::note(&deployment, &sidecars));
        }
        let broken = self.collectors.broken(namespace).into_iter();
        plan.notes.extend(
            broken.map(|broken| unreadable("opentelemetry.io/v1beta1", "OpenTelemetryCollector", &broken)),
        );
        let broken = self.jaegers.broken(namespace).into_iter();
        plan.notes
            .extend(broken.map(|broken| unreadable("jaegertracing.io/v1", "Jaeger", &broken)));
        (plan, snapshot)
    }

    /// Plans the collectors of a namespace and the target allocators that are declared beside them.
    fn plan_collectors(
        &self,
        snapshot: &SiteSnapshot,
        managed: &[(ObjectRef, Strings)],
        now: Timestamp,
        plan: &mut Plan,
    ) -> Vec<OpenTelemetryCollector> {
        let namespace = &snapshot.namespace;
        let (collectors, allocators) = (self.collectors.of(namespace), self.allocators.of(namespace));
        let mut around = plan::collector::Surroundings {
            managed,
            replicas: None,
            legacy_otlp: self.legacy_otlp,
            collectors: &collectors,
            allocators: &allocators,
            issuing: plan::target_allocator::Issuing {
                secrets: &snapshot.secrets,
                overlap: lifetimes(snapshot).overlap,
                now,
            },
        };
        for collector in &collectors {
            around.replicas = self.replicas(namespace, &format!("{}-collector", collector.name_any()));
            plan.extend(plan::collector::plan(collector, around));
        }
        for allocator in &allocators {
            plan.extend(plan::target_allocator::plan(allocator, &around));
        }
        let broken = self.allocators.broken(namespace).into_iter();
        plan.notes
            .extend(broken.map(|broken| unreadable("opentelemetry.io/v1alpha1", "TargetAllocator", &broken)));
        collectors.iter().map(|collector| (**collector).clone()).collect()
    }

    fn snapshot(&mut self, namespace: &str) -> SiteSnapshot {
        self.fresh.retain(|_, (since, _)| since.elapsed() < FRESH);
        let mut secrets: BTreeMap<String, Secret> = BTreeMap::new();
        for store in &self.secrets {
            secrets.extend(
                store
                    .of(namespace)
                    .iter()
                    .map(|secret| (secret.name_any(), (**secret).clone())),
            );
        }
        // What a watch has brought needs no stand-in any more: when it goes again, that must be seen.
        self.fresh.retain(|(ns, name), (_, secret)| {
            ns != namespace || secrets.get(name).is_none_or(|seen| seen.data != secret.data)
        });
        for ((_, name), (_, secret)) in self.fresh.iter().filter(|((ns, _), _)| ns == namespace) {
            secrets.insert(name.clone(), secret.clone());
        }
        let services = self
            .made_of("Service", namespace)
            .into_iter()
            .filter_map(|value| {
                let service: k8s_openapi::api::core::v1::Service =
                    serde_json::from_value((*value).clone()).ok()?;
                Some((service.name_any(), service))
            });
        let managed = self.managed(namespace).into_iter();
        SiteSnapshot {
            namespace: namespace.to_owned(),
            site: self
                .sites
                .get(namespace, "skupper-site")
                .map(|site| (*site).clone()),
            services: services.collect(),
            managed: managed
                .filter(|(_, labels)| labels.get(labels::MANAGED).is_some_and(|value| value == "site"))
                .map(|(object, _)| object)
                .collect(),
            secrets,
        }
    }

    fn made_of(&self, kind: &str, namespace: &str) -> Vec<Arc<Value>> {
        self.made
            .iter()
            .filter(|(made, _)| made.kind == kind)
            .flat_map(|(_, store)| store.of(namespace))
            .collect()
    }

    /// Live objects of ours, with their labels.
    fn managed(&self, namespace: &str) -> Vec<(ObjectRef, Strings)> {
        let objects = self.made.iter().flat_map(|(_, store)| store.of(namespace));
        objects
            .filter(|object| object.pointer("/metadata/deletionTimestamp").is_none())
            .map(|object| {
                let labels = object.pointer("/metadata/labels").cloned().unwrap_or_default();
                (
                    ObjectRef::of(&object),
                    serde_json::from_value(labels).unwrap_or_default(),
                )
            })
            .collect()
    }

    fn live(&self, object: &ObjectRef) -> Option<Arc<Value>> {
        if object.kind == "Secret" {
            let mut stores = self.secrets.iter();
            let secret = stores.find_map(|store| store.get(&object.namespace, &object.name))?;
            return Some(Arc::new(crate::object::json(&*secret)));
        }
        let (_, store) = self.made.iter().find(|(made, _)| made.kind == object.kind)?;
        store.get(&object.namespace, &object.name)
    }

    /// Ready and wanted replicas of a workload.
    fn replicas(&self, namespace: &str, name: &str) -> Option<(i32, i32)> {
        let number = |object: &Value, pointers: [&str; 2]| {
            let found = pointers
                .iter()
                .find_map(|pointer| object.pointer(pointer).and_then(Value::as_i64));
            i32::try_from(found.unwrap_or(0)).unwrap_or(i32::MAX)
        };
        ["Deployment", "StatefulSet", "DaemonSet"]
            .into_iter()
            .find_map(|kind| {
                let workload = self
                    .made_of(kind, namespace)
                    .into_iter()
                    .find(|object| object.pointer("/metadata/name").and_then(Value::as_str) == Some(name))?;
                let ready = number(&workload, ["/status/readyReplicas", "/status/numberReady"]);
                let wanted = number(&workload, ["/spec/replicas", "/status/desiredNumberScheduled"]);
                Some((ready, wanted))
            })
    }

    async fn carry_out(
        &mut self,
        plan: &mut Plan,
        snapshot: &SiteSnapshot,
        now: Timestamp,
    ) -> Result<(), ApplyError> {
        self.issue(plan, snapshot, now).await?;
        let mut first_failure = None;
        for object in &plan.objects {
            let live = self.live(&ObjectRef::of(object));
            if let Err(error) = self.applier.apply(object, live.as_deref()).await {
                // The others may well succeed: one refused object must not keep a site from running.
                tracing::warn!(error = %Chain(&error), "an object was refused");
                first_failure.get_or_insert(error);
            }
        }
        for object in &plan.deletions {
            self.applier.delete(object).await?;
        }
        for status in &plan.statuses {
            let live = self.live_resource(&ObjectRef::of(status));
            self.applier.status(status, live.as_ref()).await?;
        }
        first_failure.map_or(Ok(()), Err)
    }

    fn live_resource(&self, object: &ObjectRef) -> Option<Value> {
        let value = match object.kind.as_str() {
            "Jaeger" => serde_json::to_value(self.jaegers.get(&object.namespace, &object.name)?),
            "TargetAllocator" => serde_json::to_value(self.allocators.get(&object.namespace, &object.name)?),
            _ => serde_json::to_value(self.collectors.get(&object.namespace, &object.name)?),
        };
        value.ok()
    }

    async fn issue(
        &mut self,
        plan: &mut Plan,
        snapshot: &SiteSnapshot,
        now: Timestamp,
    ) -> Result<(), ApplyError> {
        let mut issuer = Issuer::new(&snapshot.secrets, now).lasting(lifetimes(snapshot));
        for order in &plan.certificates {
            let secret = match issuer.certificate(order) {
                Ok(secret) => secret,
                Err(error) => {
                    let message = Chain(&error).to_string();
                    tracing::warn!(
                        namespace = order.namespace,
                        message,
                        "a certificate is not issued"
                    );
                    plan.notes
                        .extend(site_note(snapshot, "CertificateNotIssued", message));
                    continue;
                }
            };
            if matches!(order.kind, CertificateKind::Authority { .. }) {
                self.applier.create_authority(&secret).await?;
            } else {
                self.applier.apply(&crate::object::json(&secret), None).await?;
            }
            tracing::info!(namespace = order.namespace, secret = order.secret, "issued");
            self.keep_fresh(secret);
        }
        self.roll_over(&mut issuer, plan, &snapshot.namespace).await?;
        for order in &plan.tokens {
            let name = order.request.name_any();
            match issuer.token(order) {
                Ok(secret) => {
                    self.applier.replace_secret(&secret).await?;
                    tracing::info!(
                        namespace = snapshot.namespace,
                        token = name,
                        "answered a token request"
                    );
                    self.keep_fresh(secret);
                }
                Err(error) => plan
                    .notes
                    .push(secret_note(&order.request, "TokenNotIssued", &error)),
            }
        }
        for order in &plan.renewals {
            let name = order.record.name_any();
            match issuer.renew(order) {
                Ok(secret) => {
                    self.applier.replace_secret(&secret).await?;
                    tracing::info!(
                        namespace = snapshot.namespace,
                        token = name,
                        "brought a token's record up to date"
                    );
                    self.keep_fresh(secret);
                }
                Err(error) => plan
                    .notes
                    .push(secret_note(&order.record, "RenewalRefused", &error)),
            }
        }
        for order in &plan.claims {
            let name = order.record.name_any();
            match issuer.claim(order) {
                Ok(secret) => {
                    self.applier.replace_secret(&secret).await?;
                    tracing::info!(
                        namespace = snapshot.namespace,
                        claim = name,
                        "a claim can be redeemed"
                    );
                    self.keep_fresh(secret);
                }
                Err(error) => plan
                    .notes
                    .push(secret_note(&order.record, "ClaimNotReady", &error)),
            }
        }
        Ok(())
    }

    /// Does what is due about authorities that another one follows.
    async fn roll_over(
        &mut self,
        issuer: &mut Issuer<'_>,
        plan: &mut Plan,
        namespace: &str,
    ) -> Result<(), ApplyError> {
        for order in &plan.rollovers {
            match issuer.rollover(order) {
                Ok(secret) => {
                    self.applier.replace_secret(&secret).await?;
                    let (authority, step) = (&order.name, order.step);
                    tracing::info!(namespace, authority, ?step, "an authority is being replaced");
                    self.keep_fresh(secret);
                }
                Err(error) => plan
                    .notes
                    .push(secret_note(&order.authority, "AuthorityNotReplaced", &error)),
            }
        }
        Ok(())
    }

    fn keep_fresh(&mut self, secret: Secret) {
        let key = (secret.namespace().unwrap_or_default(), secret.name_any());
        self.look_again(key.0.clone(), FRESH);
        self.fresh.insert(key, (Instant::now(), secret));
    }
}

/// How long what is issued in a namespace is valid.
fn lifetimes(snapshot: &SiteSnapshot) -> Lifetimes {
    let config = snapshot.site.as_ref().map(SiteConfig::read);
    config.map(|config| config.lifetimes).unwrap_or_default()
}

fn secret_note(secret: &Secret, reason: &'static str, error: &OrderError) -> Note {
    Note {
        about: reference("v1", "Secret", &secret.metadata),
        warning: true,
        reason,
        message: Chain(error).to_string(),
    }
}

fn site_note(snapshot: &SiteSnapshot, reason: &'static str, message: String) -> Option<Note> {
    let about = reference("v1", "ConfigMap", &snapshot.site.as_ref()?.metadata);
    Some(Note {
        about,
        warning: true,
        reason,
        message,
    })
}

fn unreadable(api_version: &str, kind: &str, broken: &Broken) -> Note {
    let annotations = broken.metadata.annotations.as_ref();
    let file = annotations.and_then(|all| all.get(labels::SOURCE_FILE));
    let line = annotations.and_then(|all| all.get(labels::SOURCE_LINE));
    let name = broken.metadata.name.as_deref().unwrap_or_default();
    let place = match (file, line) {
        (Some(file), Some(line)) => format!("{file}:{line}"),
        (Some(file), None) => file.clone(),
        _ => format!(
            "{kind} {}/{name}",
            broken.metadata.namespace.as_deref().unwrap_or_default()
        ),
    };
    Note {
        about: reference(api_version, kind, &broken.metadata),
        warning: true,
        reason: "ConfigurationError",
        message: format!(
            "{place}: error: {kind} {name} cannot be read: {}; correct that field",
            broken.message
        ),
    }
}

/// An error with everything that caused it, on one line.
pub(crate) struct Chain<'a>(pub(crate) &'a (dyn std::error::Error + 'static));

impl std::fmt::Display for Chain<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut last = self.0.to_string();
        f.write_str(&last)?;
        let mut source = self.0.source();
        while let Some(error) = source {
            let text = error.to_string();
            // Many errors already quote their source.
            if !last.contains(&text) {
                write!(f, ": {text}")?;
            }
            last = text;
            source = error.source();
        }
        Ok(())
    }
}
