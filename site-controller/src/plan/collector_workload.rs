//! The workload of a collector: pod, containers, probe; by mode a Deployment, DaemonSet or StatefulSet.

use k8s_openapi::api::apps::v1::{
    DaemonSet, DaemonSetSpec, Deployment, DeploymentSpec, StatefulSet, StatefulSetSpec,
};
use k8s_openapi::api::core::v1::{
    ConfigMapVolumeSource, Container, EnvVar, HTTPGetAction, KeyToPath, PodSpec, PodTemplateSpec, Probe,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use karez_kubernetes::{CollectorMode, IMAGE, ProbeTimings, ServiceAccountName, names};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::collector::Parts;
use super::collector_ports::{container_ports, metrics_port, port_of};
use super::site_workloads::field;
use super::target_allocator::{TLS_DIRECTORY, mount, secret_volume};
use crate::object::{Strings, json, non_empty, strings};

impl Parts<'_> {
    pub(super) fn workload(&self) -> Option<Value> {
        let mut metadata = self.meta(&self.name, &self.name);
        let annotations = self.workload_annotations();
        metadata.annotations = Some(annotations.clone());
        let selector = LabelSelector {
            match_labels: Some(self.selector()),
            ..LabelSelector::default()
        };
        let mut pod_annotations = self.collector.spec.pod_annotations.clone();
        pod_annotations.extend(annotations);
        let template = PodTemplateSpec {
            metadata: Some(ObjectMeta {
                labels: Some(self.labels(&self.name)),
                annotations: Some(pod_annotations),
                ..ObjectMeta::default()
            }),
            spec: Some(self.pod()),
        };
        let replicas = Some(self.collector.spec.replicas.unwrap_or(1));
        match self.collector.mode() {
            CollectorMode::Deployment => Some(json(&Deployment {
                metadata,
                spec: Some(DeploymentSpec {
                    replicas,
                    selector,
                    template,
                    ..DeploymentSpec::default()
                }),
                ..Deployment::default()
            })),
            CollectorMode::DaemonSet => Some(json(&DaemonSet {
                metadata,
                spec: Some(DaemonSetSpec {
                    selector,
                    template,
                    ..DaemonSetSpec::default()
                }),
                ..DaemonSet::default()
            })),
            CollectorMode::StatefulSet => Some(json(&StatefulSet {
                metadata,
                spec: Some(StatefulSetSpec {
                    replicas,
                    selector,
                    template,
                    service_name: Some(self.name.clone()),
                    pod_management_policy: Some("Parallel".to_owned()),
                    volume_claim_templates: filled(&self.collector.spec.volume_claim_templates),
                    ..StatefulSetSpec::default()
                }),
                ..StatefulSet::default()
            })),
            CollectorMode::Sidecar => None,
        }
    }

    fn workload_annotations(&self) -> Strings {
        let port = metrics_port(&self.config).to_string();
        let mut all = strings([
            ("prometheus.io/scrape", "true"),
            ("prometheus.io/port", &port),
            ("prometheus.io/path", "/metrics"),
        ]);
        all.extend(self.annotations());
        let digest = hex::encode(Sha256::digest(&self.text));
        all.insert("opentelemetry-operator-config/sha256".to_owned(), digest);
        all
    }

    fn pod(&self) -> PodSpec {
        let spec = &self.collector.spec;
        let account = match self.collector.service_account(&self.name) {
            ServiceAccountName::Given(name) | ServiceAccountName::Own(name) => name,
        };
        let mut containers = vec![self.container()];
        containers.extend(spec.additional_containers.clone());
        let mut volumes = vec![self.config_volume()];
        volumes.extend(self.allocator_credential.as_deref().map(secret_volume));
        volumes.extend(spec.volumes.clone());
        let network = if spec.host_network == Some(true) {
            "ClusterFirstWithHostNet"
        } else {
            "ClusterFirst"
        };
        PodSpec {
            service_account_name: Some(account),
            init_containers: filled(&spec.init_containers),
            containers,
            volumes: Some(volumes),
            dns_policy: Some(network.to_owned()),
            host_network: spec.host_network.filter(|on| *on),
            share_process_namespace: spec.share_process_namespace,
            node_selector: non_empty(spec.node_selector.clone()),
            tolerations: filled(&spec.tolerations),
            affinity: spec.affinity.clone(),
            topology_spread_constraints: filled(&spec.topology_spread_constraints),
            priority_class_name: spec.priority_class_name.clone().filter(|name| !name.is_empty()),
            security_context: spec.pod_security_context.clone(),
            termination_grace_period_seconds: spec.termination_grace_period_seconds,
            ..PodSpec::default()
        }
    }

    fn config_volume(&self) -> Volume {
        let item = KeyToPath {
            key: names::COLLECTOR_CONFIG_KEY.to_owned(),
            path: names::COLLECTOR_CONFIG_KEY.to_owned(),
            ..KeyToPath::default()
        };
        Volume {
            name: "otc-internal".to_owned(),
            config_map: Some(ConfigMapVolumeSource {
                name: self.name.clone(),
                items: Some(vec![item]),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        }
    }

    fn container(&self) -> Container {
        let mut mounts = vec![VolumeMount {
            name: "otc-internal".to_owned(),
            mount_path: "/conf".to_owned(),
            ..VolumeMount::default()
        }];
        let credential = self.allocator_credential.as_deref();
        mounts.extend(credential.map(|secret| mount(secret, TLS_DIRECTORY)));
        mounts.extend(self.collector.spec.volume_mounts.clone());
        Container {
            volume_mounts: Some(mounts),
            ..self.container_with("--config=/conf/collector.yaml", Vec::new())
        }
    }

    /// The container of a sidecar: the configuration travels in its environment.
    pub(crate) fn sidecar(&self) -> Container {
        let config = EnvVar {
            name: "OTEL_CONFIG".to_owned(),
            value: Some(self.text.clone()),
            ..EnvVar::default()
        };
        Container {
            volume_mounts: filled(&self.collector.spec.volume_mounts),
            ..self.container_with("--config=env:OTEL_CONFIG", vec![config])
        }
    }

    fn container_with(&self, config: &str, more: Vec<EnvVar>) -> Container {
        let spec = &self.collector.spec;
        let given = spec.image.clone().filter(|image| !image.is_empty());
        let mut args: Vec<String> = Vec::new();
        let command = given.is_none().then(|| vec!["karez".to_owned()]);
        if given.is_none() {
            args.push("collector".to_owned());
        }
        let flags = spec.args.iter().filter(|(name, _)| *name != "config");
        let flags = flags.map(|(name, value)| format!("--{name}={value}"));
        args.push(config.to_owned());
        args.extend(flags);
        let mut env = spec.env.clone();
        if !env.iter().any(|var| var.name == "POD_NAME") {
            env.push(field("POD_NAME", "metadata.name"));
        }
        env.extend(more);
        Container {
            name: names::COLLECTOR_CONTAINER.to_owned(),
            image: Some(given.unwrap_or_else(|| IMAGE.to_owned())),
            image_pull_policy: spec.image_pull_policy.clone().filter(|policy| !policy.is_empty()),
            command,
            args: Some(args),
            env: Some(env),
            env_from: filled(&spec.env_from),
            ports: Some(container_ports(&self.ports, metrics_port(&self.config))),
            resources: spec.resources.clone(),
            security_context: spec.security_context.clone(),
            lifecycle: spec.lifecycle.clone(),
            liveness_probe: health_probe(&self.config, spec.liveness_probe.as_ref()),
            ..Container::default()
        }
    }
}

/// The liveness probe that `health_check` makes possible, when the service uses it.
fn health_probe(config: &Value, timings: Option<&ProbeTimings>) -> Option<Probe> {
    let used = config.pointer("/service/extensions").and_then(Value::as_array)?;
    let id = used
        .iter()
        .filter_map(Value::as_str)
        .find(|id| id.split('/').next() == Some("health_check"))?;
    let settings = config.pointer("/extensions").and_then(|all| all.get(id))?;
    let path = settings
        .get("path")
        .and_then(Value::as_str)
        .filter(|path| !path.is_empty())
        .unwrap_or("/");
    let port = settings
        .get("endpoint")
        .and_then(Value::as_str)
        .and_then(port_of)
        .unwrap_or(13133);
    let timings = timings.cloned().unwrap_or_default();
    Some(Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(port)),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: timings.initial_delay_seconds,
        timeout_seconds: timings.timeout_seconds,
        period_seconds: timings.period_seconds,
        success_threshold: timings.success_threshold,
        failure_threshold: timings.failure_threshold,
        termination_grace_period_seconds: timings.termination_grace_period_seconds,
        ..Probe::default()
    })
}

/// `None` for an empty list, so that nothing is written for it.
fn filled<T: Clone>(list: &[T]) -> Option<Vec<T>> {
    (!list.is_empty()).then(|| list.to_vec())
}
