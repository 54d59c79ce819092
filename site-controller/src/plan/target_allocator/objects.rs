//! The objects of an allocator.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, EnvVar, HTTPGetAction, KeyToPath, PodSpec,
    PodTemplateSpec, Probe, SecretVolumeSource, Service, ServiceAccount, ServicePort, ServiceSpec, Volume,
    VolumeMount,
};
use k8s_openapi::api::policy::v1::{PodDisruptionBudget, PodDisruptionBudgetSpec};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use karez_kubernetes::{IMAGE, labels};
use serde::de::DeserializeOwned;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{TLS_DIRECTORY, TargetAllocator};
use crate::object::{Strings, json as object, meta, strings};
use crate::plan::collector::{cut, dns_name};
use crate::plan::site_workloads::field;

/// The file in its ConfigMap.
pub(super) const KEY: &str = "targetallocator.yaml";
const HTTP_PORT: i32 = 8080;
/// Where it serves over mutual TLS.
pub(super) const HTTPS_PORT: i32 = 8443;
/// Kinds of Prometheus' resources.
const MONITORS: [&str; 4] = ["servicemonitors", "podmonitors", "probes", "scrapeconfigs"];
const READ: &[&str] = &["get", "list", "watch"];

impl TargetAllocator {
    /// Everything that is made for it, but its certificates.
    pub(in crate::plan) fn objects(&self) -> Vec<Value> {
        let text = self.document();
        let mut objects = vec![object(&ConfigMap {
            metadata: self.meta(),
            data: Some(strings([(KEY, &text)])),
            ..ConfigMap::default()
        })];
        if self.account_given().is_none() {
            objects.push(object(&ServiceAccount {
                metadata: self.meta(),
                ..ServiceAccount::default()
            }));
            objects.extend(self.rights());
        }
        objects.push(object(&self.deployment(&text)));
        objects.push(object(&self.service()));
        objects.extend(self.budget().map(|budget| object(&budget)));
        objects
    }

    fn account_given(&self) -> Option<&str> {
        self.text("serviceAccount")
    }

    /// By which its objects are known as its own.
    pub(super) fn instance(&self) -> String {
        cut(&format!("{}.{}", self.namespace, self.base))
    }

    fn labels(&self) -> Strings {
        let mut all = self.selector();
        let image = self.image().unwrap_or_default();
        let image = image.split('@').next().unwrap_or_default();
        let last = image.rsplit('/').next().unwrap_or_default();
        let version = last.split_once(':').map_or("latest", |(_, tag)| tag);
        all.insert(labels::APP_VERSION.to_owned(), cut(version));
        all
    }

    fn selector(&self) -> Strings {
        strings([
            (labels::APP_MANAGED_BY, "opentelemetry-operator"),
            (labels::APP_INSTANCE, &self.instance()),
            (labels::APP_PART_OF, "opentelemetry"),
            (labels::APP_COMPONENT, "opentelemetry-targetallocator"),
            (labels::APP_NAME, &self.name),
        ])
    }

    fn meta(&self) -> ObjectMeta {
        let mut meta = meta(&self.name, &self.namespace, self.managed, Some(&self.owner));
        meta.labels.get_or_insert_default().extend(self.labels());
        meta
    }

    /// What it needs in its own namespace. What it needs in others and in the cluster it says itself, as the rules that a
    /// role lacks.
    fn rights(&self) -> [Value; 2] {
        let mut rules = vec![rule("", &["pods"], READ)];
        if self.watches_resources() {
            rules.extend(self.rights_of_resources());
        }
        if self.image().is_none() {
            rules.push(rule("events.k8s.io", &["events"], &["create", "patch"]));
            rules.push(rule(
                "coordination.k8s.io",
                &["leases"],
                &["get", "create", "update"],
            ));
        }
        let role = Role {
            metadata: self.meta(),
            rules: Some(rules),
        };
        let binding = RoleBinding {
            metadata: self.meta(),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "Role".to_owned(),
                name: self.name.clone(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: self.name.clone(),
                namespace: Some(self.namespace.clone()),
                ..Subject::default()
            }]),
        };
        [object(&role), object(&binding)]
    }

    /// For Prometheus' resources: Secrets that they name, and they themselves where they are looked for here only.
    fn rights_of_resources(&self) -> Vec<PolicyRule> {
        let own = |key: &str| {
            let listed = self.spec["prometheusCR"][key].as_array();
            listed.map(|names| names.iter().any(|name| *name == *self.namespace))
        };
        let mut rules = Vec::new();
        if own("secretNamespaces").unwrap_or(true) {
            rules.push(rule("", &["secrets", "configmaps"], &["get"]));
        }
        if own("allowNamespaces").unwrap_or(false) {
            rules.push(rule("monitoring.coreos.com", &MONITORS, READ));
            rules.push(rule("", &["services", "endpoints"], READ));
            rules.push(rule("discovery.k8s.io", &["endpointslices"], READ));
            rules.push(rule("networking.k8s.io", &["ingresses"], READ));
        }
        rules
    }

    /// A part of the resource as a type of the API; left out where it is none.
    fn given<T: DeserializeOwned>(&self, key: &str) -> Option<T> {
        let value = self.spec.get(key).filter(|value| !value.is_null())?;
        serde_json::from_value(value.clone()).ok()
    }

    fn deployment(&self, text: &str) -> Deployment {
        let hash = hex::encode(Sha256::digest(text));
        let mut annotations = self.annotations.clone();
        annotations.insert("opentelemetry-targetallocator-config/hash".to_owned(), hash);
        let account = self.account_given().unwrap_or(&self.name).to_owned();
        let mut containers = vec![self.container()];
        containers.extend(
            self.given::<Vec<Container>>("additionalContainers")
                .unwrap_or_default(),
        );
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(self.labels()),
                annotations: Some(annotations),
                ..ObjectMeta::default()
            }),
            spec: Some(PodSpec {
                service_account_name: Some(account),
                containers,
                init_containers: self.given("initContainers"),
                volumes: Some(self.volumes()),
                node_selector: self.given("nodeSelector"),
                tolerations: self.given("tolerations"),
                affinity: self.given("affinity"),
                topology_spread_constraints: self.given("topologySpreadConstraints"),
                security_context: self.given("podSecurityContext"),
                host_network: self.given("hostNetwork"),
                share_process_namespace: self.given("shareProcessNamespace"),
                priority_class_name: self.given("priorityClassName"),
                termination_grace_period_seconds: self.given("terminationGracePeriodSeconds"),
                dns_policy: self.given("dnsPolicy"),
                ..PodSpec::default()
            }),
        };
        Deployment {
            metadata: self.meta(),
            spec: Some(DeploymentSpec {
                replicas: Some(self.given("replicas").unwrap_or(1)),
                selector: LabelSelector {
                    match_labels: Some(self.selector()),
                    ..LabelSelector::default()
                },
                template,
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn volumes(&self) -> Vec<Volume> {
        let item = KeyToPath {
            key: KEY.to_owned(),
            path: KEY.to_owned(),
            ..KeyToPath::default()
        };
        let mut volumes = vec![Volume {
            name: "ta-internal".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: self.name.clone(),
                items: Some(vec![item]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        }];
        if self.tls {
            volumes.push(secret_volume(&self.server_secret()));
        }
        volumes.extend(self.given::<Vec<Volume>>("volumes").unwrap_or_default());
        volumes
    }

    fn container(&self) -> Container {
        let given = self.image();
        let mut args: Vec<String> = Vec::new();
        if given.is_none() {
            args.push("allocator".to_owned());
        }
        if self.watches_resources() {
            args.push("--enable-prometheus-cr-watcher".to_owned());
        }
        let flags: Strings = self.given("args").unwrap_or_default();
        args.extend(flags.iter().map(|(name, value)| format!("--{name}={value}")));
        let mut env: Vec<EnvVar> = self.given("env").unwrap_or_default();
        env.push(field("OTELCOL_NAMESPACE", "metadata.namespace"));
        if given.is_none() {
            env.push(field("POD_NAME", "metadata.name"));
            env.push(field("POD_IP", "status.podIP"));
        }
        let mut ports = vec![container_port("http", HTTP_PORT)];
        let mut mounts = vec![mount("ta-internal", "/conf")];
        if self.tls {
            ports.push(container_port("https", HTTPS_PORT));
            mounts.push(mount(&self.server_secret(), TLS_DIRECTORY));
        }
        ports.extend(self.given::<Vec<ContainerPort>>("ports").unwrap_or_default());
        mounts.extend(self.given::<Vec<VolumeMount>>("volumeMounts").unwrap_or_default());
        Container {
            name: "ta-container".to_owned(),
            image: Some(given.unwrap_or(IMAGE).to_owned()),
            image_pull_policy: self.given("imagePullPolicy"),
            command: given.is_none().then(|| vec!["karez".to_owned()]),
            args: Some(args).filter(|args| !args.is_empty()),
            env: Some(env),
            env_from: self.given("envFrom"),
            ports: Some(ports),
            volume_mounts: Some(mounts),
            resources: self.given("resources"),
            security_context: self.given("securityContext"),
            lifecycle: self.given("lifecycle"),
            liveness_probe: Some(probe("/livez")),
            readiness_probe: Some(probe("/readyz")),
            ..Container::default()
        }
    }

    fn service(&self) -> Service {
        let port = |name: &str, port: i32, target: &str| ServicePort {
            name: Some(name.to_owned()),
            port,
            target_port: Some(IntOrString::String(target.to_owned())),
            ..ServicePort::default()
        };
        let mut ports = vec![port("targetallocation", 80, "http")];
        if self.tls {
            ports.push(port("targetallocation-https", 443, "https"));
        }
        Service {
            metadata: self.meta(),
            spec: Some(ServiceSpec {
                selector: Some(self.selector()),
                ports: Some(ports),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// As 0.98 for what a collector declares: for consistent hashing only, or where one is asked for.
    fn budget(&self) -> Option<PodDisruptionBudget> {
        let given = &self.spec["podDisruptionBudget"];
        if self.managed == "collector" && given.is_null() && self.strategy() != "consistent-hashing" {
            return None;
        }
        let bound = |key: &str| serde_json::from_value::<IntOrString>(given.get(key)?.clone()).ok();
        let least = bound("minAvailable");
        let most = bound("maxUnavailable").or_else(|| least.is_none().then_some(IntOrString::Int(1)));
        Some(PodDisruptionBudget {
            metadata: self.meta(),
            spec: Some(PodDisruptionBudgetSpec {
                max_unavailable: most,
                min_available: least,
                selector: Some(LabelSelector {
                    match_labels: Some(self.selector()),
                    ..LabelSelector::default()
                }),
                ..PodDisruptionBudgetSpec::default()
            }),
            ..PodDisruptionBudget::default()
        })
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| -> Vec<String> { list.iter().map(|text| (*text).to_owned()).collect() };
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

/// A Secret as a volume of its name.
pub(in crate::plan) fn secret_volume(secret: &str) -> Volume {
    Volume {
        name: dns_name(secret),
        secret: Some(SecretVolumeSource {
            secret_name: Some(secret.to_owned()),
            ..SecretVolumeSource::default()
        }),
        ..Volume::default()
    }
}

/// A volume at a path.
pub(in crate::plan) fn mount(volume: &str, path: &str) -> VolumeMount {
    VolumeMount {
        name: dns_name(volume),
        mount_path: path.to_owned(),
        ..VolumeMount::default()
    }
}

fn container_port(name: &str, port: i32) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: port,
        protocol: Some("TCP".to_owned()),
        ..ContainerPort::default()
    }
}

fn probe(path: &str) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(HTTP_PORT),
            ..HTTPGetAction::default()
        }),
        ..Probe::default()
    }
}
