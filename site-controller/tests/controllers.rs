//! Both controllers against the local cluster's API, in one process: what a user declares, and what becomes of it.

#![expect(clippy::unwrap_used, reason = "a failed step of a test is its failure")]

use std::time::Duration;

use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Secret, Service, ServiceAccount};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use karez_kubernetes::{Jaeger, OpenTelemetryCollector, ServiceDefinition, TargetAllocator};
use karez_lifecycle::Shutdown;
use karez_local_api::{LocalCluster, LocalClusterOptions};
use karez_net::Net;
use karez_router_config::{Mode, RouterDocument};
use karez_site_controller::{
    ServiceControllerOptions, SiteControllerOptions, run_service_controller, run_site_controller,
};
use kube::api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::core::NamespaceResourceScope;
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

struct World {
    client: Client,
    shutdown: Shutdown,
    _folder: tempfile::TempDir,
}

impl Drop for World {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

impl World {
    async fn start() -> Self {
        let _ = tracing_subscriber::fmt()
            .with_test_writer()
            .with_env_filter("warn,karez=debug")
            .try_init();
        let folder = tempfile::tempdir().unwrap();
        let cluster = LocalCluster::open(LocalClusterOptions::new(folder.path())).unwrap();
        let world = Self {
            client: cluster.client(),
            shutdown: Shutdown::new(),
            _folder: folder,
        };
        let crds: Api<CustomResourceDefinition> = Api::all(world.client.clone());
        for crd in karez_kubernetes::crds() {
            crds.create(&PostParams::default(), &crd).await.unwrap();
        }
        let (client, shutdown) = (world.client.clone(), world.shutdown.clone());
        tokio::spawn(run_site_controller(
            client,
            SiteControllerOptions::default(),
            shutdown,
        ));
        world
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, object: Value) -> K
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + serde::Serialize
            + Clone
            + std::fmt::Debug,
    {
        let object: K = serde_json::from_value(object).unwrap();
        self.api().create(&PostParams::default(), &object).await.unwrap()
    }

    /// Waits until the object is there and says what is asked of it.
    async fn until<K, T>(&self, name: &str, look: impl Fn(&K) -> Option<T>) -> T
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        eventually(&format!("{} {name}", K::kind(&())), async || {
            api.get_opt(name).await.unwrap().as_ref().and_then(&look)
        })
        .await
    }

    async fn until_gone<K>(&self, name: &str)
    where
        K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
            + DeserializeOwned
            + Clone
            + std::fmt::Debug,
    {
        let api = self.api::<K>();
        let what = format!("{} {name} to go", K::kind(&()));
        eventually(&what, async || {
            api.get_opt(name).await.unwrap().is_none().then_some(())
        })
        .await;
    }

    async fn site(&self, data: Value) -> ConfigMap {
        self.create(json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "skupper-site", "namespace": "default"}, "data": data,
        }))
        .await
    }

    /// Plays the cloud: gives `skupper-router` an address.
    async fn balance(&self, address: &str) {
        self.until::<Service, ()>("skupper-router", |_| Some(())).await;
        let status =
            json!({"status": {"loadBalancer": {"ingress": [{"ip": address, "hostname": "lb.example.com"}]}}});
        let services: Api<Service> = self.api();
        services
            .patch_status("skupper-router", &PatchParams::default(), &Patch::Merge(&status))
            .await
            .unwrap();
    }

    async fn request_token(&self, name: &str) {
        self.create::<Secret>(json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": name, "namespace": "default", "labels": {"skupper.io/type": "connection-token-request", "keep": "me"}},
        }))
        .await;
    }

    async fn filled(&self, name: &str) -> Secret {
        self.until(name, |secret: &Secret| {
            (secret.labels().get("skupper.io/type").map(String::as_str) == Some("connection-token"))
                .then(|| secret.clone())
        })
        .await
    }

    async fn run_services(&self, site: &ConfigMap, mode: Mode) {
        let options = ServiceControllerOptions {
            namespace: "default".into(),
            site_name: "s".into(),
            site_id: site.uid().unwrap(),
            mode,
            disable_service_sync: false,
            site_ttl: Duration::from_secs(180),
        };
        let (client, shutdown) = (self.client.clone(), self.shutdown.clone());
        tokio::spawn(run_service_controller(client, options, Net::system(), shutdown));
    }

    async fn document(&self, look: impl Fn(&RouterDocument) -> bool) -> RouterDocument {
        self.until("skupper-internal", |map: &ConfigMap| {
            let text = map.data.as_ref()?.get("karez-router.yaml")?;
            let document: RouterDocument = serde_saphyr::from_str(text).unwrap();
            look(&document).then_some(document)
        })
        .await
    }

    async fn event(&self, reason: &str) -> Event {
        let events: Api<Event> = self.api();
        eventually(&format!("an Event {reason}"), async || {
            let all = events.list(&ListParams::default()).await.unwrap();
            all.items
                .into_iter()
                .find(|event| event.reason.as_deref() == Some(reason))
        })
        .await
    }
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(
            tokio::time::Instant::now() < deadline,
            "{what} did not come within 20 s"
        );
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn data(secret: &Secret, key: &str) -> Vec<u8> {
    secret
        .data
        .as_ref()
        .and_then(|data| data.get(key))
        .map(|bytes| bytes.0.clone())
        .unwrap_or_default()
}

fn ports(service: &Service) -> Vec<(String, i32)> {
    let ports = service
        .spec
        .as_ref()
        .and_then(|spec| spec.ports.clone())
        .unwrap_or_default();
    ports
        .into_iter()
        .map(|port| (port.name.unwrap_or_default(), port.port))
        .collect()
}

#[tokio::test]
async fn a_site_becomes_its_objects_and_answers_a_token_request() {
    let world = World::start().await;
    let site = world
        .site(json!({"name": "public-site", "console-user": "u", "console-password": "p"}))
        .await;
    world.request_token("wanted").await;
    world
        .until::<Deployment, ()>("skupper-router", |_| Some(()))
        .await;
    world
        .until::<Deployment, ()>("skupper-service-controller", |_| Some(()))
        .await;
    world
        .until::<ServiceAccount, ()>("skupper-router", |_| Some(()))
        .await;
    world.event("TokenRequestWaits").await;
    world.balance("192.0.2.7").await;
    let token = world.filled("wanted").await;
    let annotation = |key: &str| token.annotations().get(key).cloned().unwrap_or_default();
    assert_eq!(annotation("inter-router-host"), "192.0.2.7");
    assert_eq!(annotation("inter-router-port"), "55671");
    assert_eq!(annotation("edge-port"), "45671");
    assert_eq!(annotation("skupper.io/generated-by"), site.uid().unwrap());
    assert_eq!(token.labels()["keep"], "me");
    let keys: Vec<&String> = token.data.as_ref().unwrap().keys().collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    let users = world
        .until("skupper-console-users", |secret: &Secret| Some(secret.clone()))
        .await;
    assert_eq!(data(&users, "u"), b"p");
    // The server's certificate follows the load balancer's address.
    world
        .until("skupper-site-server", |secret: &Secret| {
            secret
                .annotations()
                .get("karez.dev/issued-for")?
                .contains("192.0.2.7")
                .then_some(())
        })
        .await;
    let router = world
        .until("skupper-router", |service: &Service| Some(service.clone()))
        .await;
    assert_eq!(
        ports(&router)[..2],
        [("inter-router".into(), 55671), ("edge".into(), 45671)]
    );
    let console = world
        .until("skupper", |service: &Service| Some(service.clone()))
        .await;
    assert_eq!(
        ports(&console),
        [("metrics".into(), 8080), ("claims".into(), 8081)]
    );
}

#[tokio::test]
async fn identity_and_authorities_outlive_the_config_map() {
    let world = World::start().await;
    let first = world.site(json!({"ingress": "none"})).await;
    world.request_token("one").await;
    let one = world.filled("one").await;
    assert_eq!(one.annotations()["inter-router-host"], "skupper-router.default");
    let sites: Api<ConfigMap> = world.api();
    sites
        .delete("skupper-site", &DeleteParams::default())
        .await
        .unwrap();
    world.until_gone::<Deployment>("skupper-router").await;
    let second = world.site(json!({"ingress": "none"})).await;
    assert_ne!(first.uid(), second.uid());
    world
        .until::<Deployment, ()>("skupper-router", |_| Some(()))
        .await;
    world.request_token("two").await;
    let two = world.filled("two").await;
    assert_eq!(two.annotations()["skupper.io/generated-by"], first.uid().unwrap());
    assert_eq!(data(&one, "ca.crt"), data(&two, "ca.crt"));
    assert_ne!(data(&one, "tls.crt"), data(&two, "tls.crt"));
}

#[tokio::test]
async fn an_edge_site_has_no_listeners_and_refuses_token_requests() {
    let world = World::start().await;
    world
        .site(json!({"edge": "true", "ingress": "none", "router-console": "true"}))
        .await;
    world.request_token("wanted").await;
    let refusal = world.event("TokenRequestRefused").await;
    assert!(
        refusal
            .message
            .unwrap()
            .contains("Edge configuration cannot accept connections")
    );
    let console = world
        .until("skupper", |service: &Service| Some(service.clone()))
        .await;
    assert_eq!(ports(&console), [("metrics".into(), 8080)]);
    world
        .until::<Service, ()>("skupper-router-console", |_| Some(()))
        .await;
    let services: Api<Service> = world.api();
    assert!(services.get_opt("skupper-router").await.unwrap().is_none());
    let secrets: Api<Secret> = world.api();
    assert!(secrets.get_opt("skupper-site-ca").await.unwrap().is_none());
}

#[tokio::test]
async fn a_collector_and_a_jaeger_become_workloads_and_services() {
    let world = World::start().await;
    let config = "receivers:\n  otlp:\n    protocols:\n      grpc:\n      http:\nexporters:\n  debug:\nservice:\n  pipelines:\n    traces:\n      receivers: [otlp]\n      exporters: [debug]\n";
    world
        .create::<OpenTelemetryCollector>(json!({
            "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": "app", "namespace": "default"}, "spec": {"mode": "deployment", "config": config},
        }))
        .await;
    // As people write it: a name and nothing else.
    let bare: DynamicObject = serde_json::from_value(json!({
        "apiVersion": "jaegertracing.io/v1", "kind": "Jaeger", "metadata": {"name": "j", "namespace": "default"},
    }))
    .unwrap();
    let jaegers: Api<DynamicObject> = Api::namespaced_with(
        world.client.clone(),
        "default",
        &ApiResource::erase::<Jaeger>(&()),
    );
    jaegers.create(&PostParams::default(), &bare).await.unwrap();
    let map = world
        .until("app-collector", |map: &ConfigMap| Some(map.clone()))
        .await;
    assert_eq!(map.data.unwrap()["collector.yaml"], config);
    world.until::<Deployment, ()>("app-collector", |_| Some(())).await;
    let service = world
        .until("app-collector", |service: &Service| Some(service.clone()))
        .await;
    assert_eq!(
        ports(&service),
        [
            ("otlp-grpc".into(), 4317),
            ("otlp-http".into(), 4318),
            ("otlp-http-legacy".into(), 55681)
        ]
    );
    let headless = world
        .until("app-collector-headless", |service: &Service| {
            Some(service.clone())
        })
        .await;
    assert_eq!(headless.spec.unwrap().cluster_ip.as_deref(), Some("None"));
    world
        .until::<Service, ()>("app-collector-monitoring", |_| Some(()))
        .await;
    world.until::<Deployment, ()>("j", |_| Some(())).await;
    let service = world
        .until("j-collector", |service: &Service| Some(service.clone()))
        .await;
    let numbers: Vec<i32> = ports(&service).into_iter().map(|(_, port)| port).collect();
    assert_eq!(numbers, [9411, 14250, 14267, 14268, 4317, 4318]);
    for name in ["j-query", "j-agent", "j-collector-headless"] {
        world.until::<Service, ()>(name, |_| Some(())).await;
    }
    let status = world
        .until("app", |collector: &OpenTelemetryCollector| {
            collector.status.clone()
        })
        .await;
    assert_eq!(status.scale.unwrap().status_replicas.as_deref(), Some("0/1"));
    // Another mode: the old workload goes.
    let collectors: Api<OpenTelemetryCollector> = world.api();
    let mode = json!({"spec": {"mode": "statefulset"}});
    collectors
        .patch("app", &PatchParams::default(), &Patch::Merge(&mode))
        .await
        .unwrap();
    world
        .until::<StatefulSet, ()>("app-collector", |_| Some(()))
        .await;
    world.until_gone::<Deployment>("app-collector").await;
}

#[tokio::test]
async fn a_target_allocator_is_made_with_certificates_for_both_sides() {
    let world = World::start().await;
    let declared: TargetAllocator = world
        .create(json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "TargetAllocator",
            "metadata": {"name": "shared", "namespace": "default"},
            "spec": {"replicas": 2, "prometheusCR": {"enabled": true, "serviceMonitorSelector": {}}},
        }))
        .await;
    let event = world.event("NoCollector").await;
    assert_eq!(event.involved_object.kind.as_deref(), Some("TargetAllocator"));
    world
        .create::<OpenTelemetryCollector>(json!({
            "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": "app", "namespace": "default", "labels": {"opentelemetry.io/target-allocator": "shared"}},
            "spec": {"mode": "statefulset", "config": {
                "receivers": {"prometheus": {"config": {"scrape_configs": [{"job_name": "a"}]}}}, "exporters": {"debug": {}},
                "service": {"pipelines": {"metrics": {"receivers": ["prometheus"], "exporters": ["debug"]}}}}},
        }))
        .await;
    let name = "shared-targetallocator";
    world
        .until(name, |map: &ConfigMap| {
            let text = map.data.as_ref()?.get("targetallocator.yaml")?;
            (text.contains("job_name: a") && text.contains("default.app")).then_some(())
        })
        .await;
    let deployment = world
        .until(name, |deployment: &Deployment| Some(deployment.clone()))
        .await;
    assert_eq!(deployment.owner_references()[0].uid, declared.uid().unwrap());
    world.until::<ServiceAccount, ()>(name, |_| Some(())).await;
    let text = |secret: &Secret, key: &str| -> Option<String> {
        String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok()
    };
    for certificate in ["shared-ta-server-cert", "shared-ta-client-cert"] {
        let issued = world
            .until(certificate, |secret: &Secret| Some(secret.clone()))
            .await;
        let authority = world
            .until("shared-ca-cert", |secret: &Secret| text(secret, "tls.crt"))
            .await;
        assert_eq!(text(&issued, "ca.crt").as_ref(), Some(&authority));
        let pem = text(&issued, "tls.crt").unwrap();
        assert!(karez_identity::signed_by(pem.as_bytes(), authority.as_bytes()).unwrap());
        assert!(!text(&issued, "tls.key").unwrap().is_empty());
    }
    world
        .until("app-collector", |map: &ConfigMap| {
            let text = map.data.as_ref()?.get("collector.yaml")?;
            text.contains("https://shared-targetallocator:443").then_some(())
        })
        .await;
    world
        .until("shared", |allocator: &TargetAllocator| {
            allocator.status.as_ref()?.image.clone()
        })
        .await;
    let allocators: Api<TargetAllocator> = world.api();
    allocators
        .delete("shared", &DeleteParams::default())
        .await
        .unwrap();
    world.until_gone::<Deployment>(name).await;
    world.until_gone::<Secret>("shared-ca-cert").await;
}

#[tokio::test]
async fn what_is_wrong_with_a_configuration_is_published_with_file_and_line() {
    let world = World::start().await;
    world
        .create::<OpenTelemetryCollector>(json!({
            "apiVersion": "opentelemetry.io/v1beta1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": "app", "namespace": "default", "annotations": {
                "karez.dev/source-file": "site/app.yaml", "karez.dev/source-line": "1", "karez.dev/config-line": "10",
            }},
            "spec": {"config": "receivers:\n  nonsense:\nservice:\n  pipelines:\n    traces:\n      receivers: [nonsense]\n      exporters: []\n"},
        }))
        .await;
    let event = world.event("ConfigurationError").await;
    assert!(
        event.message.as_deref().unwrap().starts_with("site/app.yaml:1"),
        "{:?}",
        event.message
    );
    assert_eq!(event.involved_object.name.as_deref(), Some("app"));
}

#[tokio::test]
async fn exposing_makes_an_address_and_unexposing_takes_it_away() {
    let world = World::start().await;
    let site = world.site(json!({"ingress": "none"})).await;
    world.run_services(&site, Mode::Interior).await;
    world
        .until::<ConfigMap, ()>("skupper-services", |_| Some(()))
        .await;
    let definition = r#"{"address":"liked","protocol":"tcp","ports":[4317,4318],"exposeIngress":"","targets":[{"name":"x","service":"x"}]}"#;
    let maps: Api<ConfigMap> = world.api();
    let patch = json!({"data": {"liked": definition}});
    maps.patch("skupper-services", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    let service = world
        .until("liked", |service: &Service| Some(service.clone()))
        .await;
    assert_eq!(
        ports(&service),
        [("liked4317".into(), 4317), ("liked4318".into(), 4318)]
    );
    assert_eq!(service.annotations()["internal.skupper.io/controlled"], "true");
    assert_eq!(service.owner_references()[0].name, "skupper-router");
    let document = world.document(|document| !document.services.is_empty()).await;
    assert_eq!(document.listeners.len(), 2);
    assert_eq!(document.listeners[0].port, 1024);
    assert_eq!(document.connectors[0].host, "x");
    assert!(karez_router_config::validate(&document).is_ok());
    // What `expose` stored is untouched by the controller.
    let map = maps.get("skupper-services").await.unwrap();
    assert_eq!(map.data.unwrap()["liked"], definition);
    let patch = json!({"data": {"liked": null}});
    maps.patch("skupper-services", &PatchParams::default(), &Patch::Merge(&patch))
        .await
        .unwrap();
    world.until_gone::<Service>("liked").await;
    world.document(|document| document.listeners.is_empty()).await;
}

#[tokio::test]
async fn an_annotated_service_is_exposed_and_a_bad_annotation_explained() {
    let world = World::start().await;
    let site = world.site(json!({"ingress": "none"})).await;
    world.run_services(&site, Mode::Interior).await;
    let service = |name: &str, annotations: Value| {
        json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": name, "namespace": "default", "annotations": annotations},
            "spec": {"selector": {"app": name}, "ports": [{"port": 80, "targetPort": 8080}]},
        })
    };
    world
        .create::<Service>(service(
            "web",
            json!({"skupper.io/proxy": "tcp", "skupper.io/address": "shown"}),
        ))
        .await;
    world
        .create::<Service>(service("bad", json!({"skupper.io/proxy": "sctp"})))
        .await;
    world.until::<Service, ()>("shown", |_| Some(())).await;
    let stored = world
        .until("skupper-services", |map: &ConfigMap| {
            map.data.as_ref()?.get("shown").cloned()
        })
        .await;
    let definition = ServiceDefinition::parse("shown", &stored).unwrap();
    assert_eq!(definition.origin, "annotation");
    assert_eq!(definition.targets[0].service, "web");
    let event = world.event("AnnotationIgnored").await;
    assert_eq!(event.involved_object.name.as_deref(), Some("bad"));
    let services: Api<Service> = world.api();
    let gone = json!({"metadata": {"annotations": {"skupper.io/proxy": null}}});
    services
        .patch("web", &PatchParams::default(), &Patch::Merge(&gone))
        .await
        .unwrap();
    world.until_gone::<Service>("shown").await;
    world
        .until("skupper-services", |map: &ConfigMap| {
            map.data
                .as_ref()
                .is_none_or(|data| !data.contains_key("shown"))
                .then_some(())
        })
        .await;
}

#[tokio::test]
async fn a_service_annotated_under_its_own_name_is_taken_over_and_given_back() {
    let world = World::start().await;
    let site = world.site(json!({"ingress": "none"})).await;
    world.run_services(&site, Mode::Interior).await;
    world
        .create::<Service>(json!({
            "apiVersion": "v1", "kind": "Service",
            "metadata": {"name": "web", "namespace": "default", "annotations": {"skupper.io/proxy": "tcp"}},
            "spec": {"selector": {"app": "web"}, "ports": [{"port": 80, "targetPort": 8080}]},
        }))
        .await;
    let selector = |service: &Service| service.spec.as_ref()?.selector.clone();
    world
        .until("web", |service: &Service| {
            let selector = selector(service)?;
            (selector.get("application")? == "skupper-router" && !selector.contains_key("app")).then_some(())
        })
        .await;
    let services: Api<Service> = world.api();
    let gone = json!({"metadata": {"annotations": {"skupper.io/proxy": null}}});
    services
        .patch("web", &PatchParams::default(), &Patch::Merge(&gone))
        .await
        .unwrap();
    world
        .until("web", |service: &Service| {
            let restored = selector(service)?.get("app")? == "web" && selector(service)?.len() == 1;
            let port = service
                .spec
                .as_ref()?
                .ports
                .as_ref()?
                .first()?
                .target_port
                .clone()?;
            let marked = service
                .annotations()
                .contains_key("internal.skupper.io/originalSelector");
            (restored && !marked && serde_json::to_value(port).ok()? == json!(8080)).then_some(())
        })
        .await;
}

#[tokio::test]
async fn issued_tokens_are_admitted_until_their_secret_goes_and_foreign_ones_make_links() {
    let world = World::start().await;
    let site = world.site(json!({"ingress": "none"})).await;
    world.run_services(&site, Mode::Interior).await;
    world.request_token("mine").await;
    let token = world.filled("mine").await;
    let document = world.document(|document| document.tokens.len() == 1).await;
    assert_eq!(document.tokens[0].name, "mine");
    assert!(document.links.is_empty());
    // The same token from another site's point of view.
    let mut foreign = token.clone();
    foreign.metadata.resource_version = None;
    foreign.metadata.uid = None;
    foreign.metadata.name = Some("link1".into());
    foreign
        .metadata
        .annotations
        .as_mut()
        .unwrap()
        .insert("skupper.io/generated-by".into(), "other".into());
    let secrets: Api<Secret> = world.api();
    secrets.create(&PostParams::default(), &foreign).await.unwrap();
    let document = world.document(|document| document.links.len() == 1).await;
    let link = &document.links[0];
    assert_eq!((link.name.as_str(), link.port), ("link1", 55671));
    assert!(
        document
            .tls
            .iter()
            .any(|profile| profile.secret.as_deref() == Some("link1"))
    );
    secrets.delete("mine", &DeleteParams::default()).await.unwrap();
    world.document(|document| document.tokens.is_empty()).await;
    secrets.delete("link1", &DeleteParams::default()).await.unwrap();
    world.document(|document| document.links.is_empty()).await;
}

#[tokio::test]
async fn a_settled_site_is_left_alone() {
    let world = World::start().await;
    let site = world.site(json!({"ingress": "none"})).await;
    world.run_services(&site, Mode::Interior).await;
    world
        .until::<ConfigMap, ()>("skupper-network-status", |_| Some(()))
        .await;
    let maps: Api<ConfigMap> = world.api();
    let version = async || {
        let list = maps.list(&ListParams::default()).await.unwrap();
        list.metadata.resource_version.unwrap().parse::<u64>().unwrap()
    };
    // Settled: for a whole second nothing is written but what the test writes.
    let mut before = version().await;
    eventually("silence", async || {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let now = version().await;
        std::mem::replace(&mut before, now).eq(&now).then_some(())
    })
    .await;
}
