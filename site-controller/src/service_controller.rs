//! The service-level controller of one site: watches and the router's status → snapshot → plan → apply.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Container, Pod, PodTemplateSpec, Secret, Service};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use karez_identity::NewKey;
use karez_kubernetes::{FIELD_MANAGER_SERVICE, ServiceDefinition, labels, names};
use karez_lifecycle::Shutdown;
use karez_net::Net;
use karez_router_config::Mode;
use karez_router_config::api::Status;
use kube::{Client, ResourceExt};
use tokio::sync::watch;

use crate::apply::Applier;
use crate::claims::{self, ClaimsServer, Denials, Redeemer};
use crate::object::{ObjectRef, json};
use crate::options::{RunError, ServiceControllerOptions};
use crate::plan::router_document::read_config_map;
use crate::plan::{Plan, SecretChange, renewal, service};
use crate::remotes::Remotes;
use crate::router_client;
use crate::site_config::SiteConfig;
use crate::site_controller::Chain;
use crate::snapshot::{ServiceSnapshot, SiteFacts, Workload};
use crate::watch::{Select, Store, Watches};

/// How often the age of what other sites announced is looked at.
const LOOK_AGAIN: Duration = Duration::from_secs(10);

/// Runs the service-level controller of one site until shutdown.
///
/// # Errors
/// None at present: what an API refuses is logged, published and tried again.
pub async fn run_service_controller(
    client: Client,
    options: ServiceControllerOptions,
    net: Net,
    shutdown: Shutdown,
) -> Result<(), RunError> {
    let status = router_client::follow(client.clone(), options.namespace.clone(), net.clone());
    let redeemer = Redeemer::new(
        client.clone(),
        options.namespace.clone(),
        options.site_id.clone(),
        net.clone(),
    );
    let mode = options.mode;
    let mut controller = Controller::start(client.clone(), options, status, redeemer);
    let claims = ClaimsServer {
        client,
        namespace: controller.options.namespace.clone(),
        denials: controller.denials.clone(),
        dirty: controller.watches.dirty.clone(),
    };
    let served = async {
        match mode {
            Mode::Interior => claims::serve(claims, net, shutdown.clone()).await,
            Mode::Edge => std::future::pending().await,
        }
    };
    tokio::select! {
        () = controller.run() => Ok(()),
        () = served => Ok(()),
        () = shutdown.triggered() => Ok(()),
    }
}

struct Controller {
    options: ServiceControllerOptions,
    watches: Watches,
    applier: Applier,
    status: watch::Receiver<Option<Status>>,
    remotes: Remotes,
    redeemer: Redeemer,
    denials: Denials,
    /// When it is planned again without a change.
    again: Option<Timestamp>,
    config_maps: Store<ConfigMap>,
    secrets: Store<Secret>,
    services: Store<Service>,
    deployments: Store<Deployment>,
    stateful_sets: Store<StatefulSet>,
    daemon_sets: Store<DaemonSet>,
    pods: Store<Pod>,
}

impl Controller {
    fn start(
        client: Client,
        options: ServiceControllerOptions,
        status: watch::Receiver<Option<Status>>,
        redeemer: Redeemer,
    ) -> Self {
        let mut watches = Watches::new(client.clone(), Some(options.namespace.clone()));
        Self {
            config_maps: watches.add(Select::ALL),
            secrets: watches.add(Select::labels(labels::TYPE)),
            services: watches.add(Select::ALL),
            deployments: watches.add(Select::ALL),
            stateful_sets: watches.add(Select::ALL),
            daemon_sets: watches.add(Select::ALL),
            pods: watches.add(Select::ALL),
            watches,
            applier: Applier::new(client, FIELD_MANAGER_SERVICE),
            status,
            remotes: Remotes::default(),
            redeemer,
            denials: Denials::default(),
            again: None,
            options,
        }
    }

    async fn run(&mut self) {
        self.watches.listed().await;
        let namespace = self.options.namespace.clone();
        self.remotes = Remotes::restored(self.stored(), Timestamp::now());
        tracing::info!(
            namespace,
            site = self.options.site_name,
            "the service-controller watches"
        );
        let dirty = self.watches.dirty.clone();
        dirty.mark(&namespace);
        let mut look_again = tokio::time::interval(LOOK_AGAIN);
        loop {
            tokio::select! {
                _ = dirty.take() => self.reconcile().await,
                // A sender that is gone is no news: it must not keep the loop turning.
                Ok(()) = self.status.changed() => dirty.mark(&namespace),
                _ = look_again.tick() => dirty.mark(&namespace),
            }
        }
    }

    /// The definitions in `skupper-services` that can be read.
    fn stored(&self) -> Vec<ServiceDefinition> {
        let map = self.config_maps.get(&self.options.namespace, names::SERVICES);
        let data = map.as_ref().and_then(|map| map.data.as_ref());
        data.into_iter()
            .flatten()
            .filter_map(|(key, text)| ServiceDefinition::parse(key, text).ok())
            .collect()
    }

    async fn reconcile(&mut self) {
        let now = Timestamp::now();
        let snapshot = self.snapshot(now);
        self.redeemer.see_to(&snapshot.tokens);
        let plan = service::plan(&snapshot, now);
        let mut failed = false;
        for object in &plan.objects {
            let live = self.live(&ObjectRef::of(object));
            if let Err(error) = self.applier.apply(object, live.as_ref()).await {
                tracing::warn!(error = %Chain(&error), "an object was refused; trying again");
                failed = true;
            }
        }
        for object in &plan.deletions {
            if let Err(error) = self.applier.delete(object).await {
                tracing::warn!(error = %Chain(&error), "an object cannot be deleted; trying again");
                failed = true;
            }
        }
        failed |= self.renew(&plan).await;
        if let Some(at) = plan.again_at {
            self.again_at(at, now);
        }
        self.applier
            .publish(&self.options.namespace, &plan.notes, now)
            .await;
        if failed {
            let (dirty, namespace) = (self.watches.dirty.clone(), self.options.namespace.clone());
            tokio::spawn(async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                dirty.mark(&namespace);
            });
        }
    }

    /// Makes keys for links' next certificates, and changes Secrets; says whether something failed.
    async fn renew(&self, plan: &Plan) -> bool {
        let mut failed = false;
        for name in &plan.keys {
            let key = match NewKey::make(name) {
                Ok(key) => key,
                Err(error) => {
                    tracing::warn!(link = name, %error, "cannot make a key for the next certificate");
                    continue;
                }
            };
            let change = SecretChange {
                secret: name.clone(),
                data: BTreeMap::from([
                    (renewal::NEXT_KEY.to_owned(), Some(key.key_pem.into_bytes())),
                    (
                        renewal::NEXT_REQUEST.to_owned(),
                        Some(key.request_pem.into_bytes()),
                    ),
                ]),
                ..SecretChange::default()
            };
            tracing::info!(link = name, "asking for a renewed certificate");
            failed |= self.change(&change).await;
        }
        for change in &plan.changes {
            failed |= self.change(change).await;
        }
        failed
    }

    async fn change(&self, change: &SecretChange) -> bool {
        match self.applier.change_secret(&self.options.namespace, change).await {
            Ok(()) => false,
            Err(error) => {
                tracing::warn!(error = %Chain(&error), "a Secret cannot be changed; trying again");
                true
            }
        }
    }

    /// Plans again at a time.
    fn again_at(&mut self, at: Timestamp, now: Timestamp) {
        if self.again.is_some_and(|planned| planned > now && planned <= at) {
            return;
        }
        self.again = Some(at);
        let (dirty, namespace) = (self.watches.dirty.clone(), self.options.namespace.clone());
        let wait = Duration::try_from(at.duration_since(now)).unwrap_or_default();
        // A clock that is set meanwhile makes it too early or late by a day at most.
        let wait = wait.clamp(Duration::from_millis(200), Duration::from_secs(86_400));
        tokio::spawn(async move {
            tokio::time::sleep(wait).await;
            dirty.mark(&namespace);
        });
    }

    fn snapshot(&mut self, now: Timestamp) -> ServiceSnapshot {
        let namespace = self.options.namespace.clone();
        let config_map = self.config_maps.get(&namespace, names::SITE);
        let config = config_map.as_ref().map(|map| SiteConfig::read(map));
        let tokens: Vec<Secret> = self
            .secrets
            .of(&namespace)
            .iter()
            .map(|secret| (**secret).clone())
            .collect();
        let status = self.status.borrow_and_update().clone();
        let sync =
            !self.options.disable_service_sync && config.as_ref().is_none_or(|config| config.service_sync);
        let keep = config
            .as_ref()
            .map_or(self.options.site_ttl, |config| config.service_sync_ttl);
        let is_link = |secret: &&Secret| {
            let issuer = secret
                .metadata
                .annotations
                .as_ref()
                .and_then(|all| all.get(labels::GENERATED_BY));
            crate::plan::tokens::kind(secret) == Some(labels::TYPE_TOKEN)
                && issuer != Some(&self.options.site_id)
        };
        let is_linked = tokens.iter().any(|secret| is_link(&secret));
        self.remotes
            .update(status.as_ref(), &self.options.site_id, is_linked, keep, now);
        ServiceSnapshot {
            site: SiteFacts {
                id: self.options.site_id.clone(),
                name: self.options.site_name.clone(),
                namespace: namespace.clone(),
                mode: self.options.mode,
                sync,
                renew_expired: config.map_or(Duration::ZERO, |config| config.renew_expired),
            },
            config_map: config_map.map(|map| (*map).clone()),
            denials: (tokens.iter())
                .filter_map(|secret| Some((secret.name_any(), self.denials.of(&secret.name_any(), now)?)))
                .collect(),
            tokens,
            services_map: self
                .config_maps
                .get(&namespace, names::SERVICES)
                .map(|map| (*map).clone()),
            services: self
                .services
                .of(&namespace)
                .iter()
                .map(|service| (service.name_any(), (**service).clone()))
                .collect(),
            workloads: self.workloads(&namespace),
            pods: self
                .pods
                .of(&namespace)
                .iter()
                .map(|pod| (**pod).clone())
                .collect(),
            router: self
                .deployments
                .get(&namespace, names::ROUTER)
                .map(|router| router.metadata.clone()),
            previous: self
                .config_maps
                .get(&namespace, names::INTERNAL)
                .and_then(|map| read_config_map(&map)),
            status,
            remotes: if sync {
                self.remotes.services()
            } else {
                BTreeMap::new()
            },
        }
    }

    fn workloads(&self, namespace: &str) -> Vec<Workload> {
        let mut all = Vec::new();
        for one in self.deployments.of(namespace) {
            all.extend(
                one.spec
                    .as_ref()
                    .map(|spec| workload("Deployment", &one.metadata, &spec.selector, &spec.template)),
            );
        }
        for one in self.stateful_sets.of(namespace) {
            all.extend(
                one.spec
                    .as_ref()
                    .map(|spec| workload("StatefulSet", &one.metadata, &spec.selector, &spec.template)),
            );
        }
        for one in self.daemon_sets.of(namespace) {
            all.extend(
                one.spec
                    .as_ref()
                    .map(|spec| workload("DaemonSet", &one.metadata, &spec.selector, &spec.template)),
            );
        }
        all
    }

    fn live(&self, object: &ObjectRef) -> Option<serde_json::Value> {
        match object.kind.as_str() {
            "Service" => self
                .services
                .get(&object.namespace, &object.name)
                .map(|one| json(&*one)),
            _ => self
                .config_maps
                .get(&object.namespace, &object.name)
                .map(|one| json(&*one)),
        }
    }
}

fn workload(
    kind: &'static str,
    metadata: &ObjectMeta,
    selector: &LabelSelector,
    template: &PodTemplateSpec,
) -> Workload {
    let containers: &[Container] = template.spec.as_ref().map_or(&[], |spec| &spec.containers);
    let ports = |protocol: &str| {
        let all = containers
            .iter()
            .flat_map(|container| container.ports.iter().flatten());
        all.filter(|port| port.protocol.as_deref().unwrap_or("TCP") == protocol)
            .filter_map(|port| u16::try_from(port.container_port).ok())
            .collect()
    };
    Workload {
        kind,
        metadata: metadata.clone(),
        selector: selector.match_labels.clone().unwrap_or_default(),
        container_ports: ports("TCP"),
        container_udp_ports: ports("UDP"),
    }
}
