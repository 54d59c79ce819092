//! `Jaeger` in, the all-in-one out: a `karez collector` with an ordinary document, under the operator's names.

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec, DeploymentStrategy};
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, ContainerPort, HTTPGetAction, PodSpec, PodTemplateSpec,
    Probe, Service, ServiceAccount, ServicePort, ServiceSpec, Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use karez_kubernetes::{IMAGE, Jaeger, VERSION, labels, names};
use serde_json::{Value, json as value};
use sha2::{Digest, Sha256};

use super::collector::{cut, dns_name};
use super::site_workloads::field;
use super::{Note, Plan};
use crate::object::{ObjectRef, Strings, json, meta, non_empty, reference, strings};

const COLLECTOR_PORTS: &[(&str, i32)] = &[
    ("http-zipkin", 9411),
    ("grpc-http", 14250),
    ("http-c-tchan-trft", 14267),
    ("http-c-binary-trft", 14268),
    ("otlp-grpc", 4317),
    ("otlp-http", 4318),
];
const QUERY_PORTS: &[(&str, i32)] = &[("http-query", 16686), ("grpc-query", 16685)];

/// Ports of the container, in the operator's order.
const CONTAINER_PORTS: &[(&str, i32, &str)] = &[
    ("jg-compact-trft", 6831, "UDP"),
    ("c-binary-trft", 14268, "TCP"),
    ("query", 16686, "TCP"),
    ("admin-http", 14269, "TCP"),
    ("grpc", 14250, "TCP"),
    ("otlp-grpc", 4317, "TCP"),
    ("otlp-http", 4318, "TCP"),
];

/// Plans one Jaeger.
pub(crate) fn plan(jaeger: &Jaeger, managed: &[(ObjectRef, Strings)], ready: bool) -> Plan {
    let mut plan = Plan::default();
    if jaeger.metadata.deletion_timestamp.is_some() {
        return plan;
    }
    let parts = Parts::new(jaeger);
    parts.notes(&mut plan);
    plan.objects.push(json(&ServiceAccount {
        metadata: parts.meta(&parts.name, "service-account"),
        ..ServiceAccount::default()
    }));
    plan.objects.push(json(&parts.document()));
    plan.objects.push(json(&parts.sampling()));
    plan.objects.push(json(&parts.deployment()));
    plan.objects.extend(parts.services().iter().map(json));
    plan.statuses.push(value!({
        "apiVersion": "jaegertracing.io/v1",
        "kind": "Jaeger",
        "metadata": {"name": jaeger.metadata.name, "namespace": parts.namespace},
        "status": {"phase": if ready { "Running" } else { "Pending" }, "version": VERSION},
    }));
    let own = managed.iter().filter(|(object, labels)| {
        object.namespace == parts.namespace && labels.get(labels::APP_INSTANCE) == Some(&cut(&parts.name))
    });
    plan.prune(own.map(|(object, _)| object));
    plan
}

struct Parts<'a> {
    jaeger: &'a Jaeger,
    name: String,
    namespace: String,
    owner: OwnerReference,
}

impl<'a> Parts<'a> {
    fn new(jaeger: &'a Jaeger) -> Self {
        let own = jaeger.metadata.name.clone().unwrap_or_default();
        Self {
            name: dns_name(&own),
            namespace: jaeger.metadata.namespace.clone().unwrap_or_default(),
            owner: OwnerReference {
                api_version: "jaegertracing.io/v1".to_owned(),
                kind: "Jaeger".to_owned(),
                name: own,
                uid: jaeger.metadata.uid.clone().unwrap_or_default(),
                controller: Some(true),
                block_owner_deletion: Some(true),
            },
            jaeger,
        }
    }

    fn notes(&self, plan: &mut Plan) {
        let spec = &self.jaeger.spec;
        let mut warn = |message: String| {
            let about = reference("jaegertracing.io/v1", "Jaeger", &self.jaeger.metadata);
            plan.notes.push(Note {
                about,
                warning: true,
                reason: "NotSupported",
                message,
            });
        };
        let strategy = spec.strategy.as_deref().unwrap_or_default().to_lowercase();
        if !matches!(strategy.as_str(), "" | "allinone" | "all-in-one") {
            warn(format!(
                "spec.strategy: \"{strategy}\" runs as allinone; remove the key to say so"
            ));
        }
        let storage = spec.storage.kind.as_deref().unwrap_or_default().to_lowercase();
        if !matches!(storage.as_str(), "" | "memory") {
            warn(format!(
                "spec.storage.type: \"{storage}\" is not supported, traces are kept in memory"
            ));
        }
    }

    fn labels(&self, name: &str, component: &str) -> Strings {
        strings([
            ("app", "jaeger"),
            (labels::APP_NAME, &cut(name)),
            (labels::APP_INSTANCE, &cut(&self.name)),
            (labels::APP_COMPONENT, component),
            (labels::APP_PART_OF, "jaeger"),
            (labels::APP_MANAGED_BY, "jaeger-operator"),
        ])
    }

    fn meta(&self, name: &str, component: &str) -> ObjectMeta {
        let mut meta = meta(name, &self.namespace, "jaeger", Some(&self.owner));
        meta.labels
            .get_or_insert_default()
            .extend(self.labels(name, component));
        meta
    }

    fn selector(&self) -> Strings {
        self.labels(&self.name, "all-in-one")
    }

    fn document_name(&self) -> String {
        dns_name(&format!("{}-configuration", self.name))
    }

    fn document(&self) -> ConfigMap {
        ConfigMap {
            metadata: self.meta(&self.document_name(), "configuration"),
            data: Some(strings([(names::COLLECTOR_CONFIG_KEY, &self.document_text())])),
            ..ConfigMap::default()
        }
    }

    /// As Jaeger 2 is configured: a collector whose exporter is a store and whose extension answers queries.
    fn document_text(&self) -> String {
        format!(
            "\
# Made for Jaeger {}/{}.
receivers:
  otlp:
    protocols:
      grpc:
        endpoint: 0.0.0.0:4317
      http:
        endpoint: 0.0.0.0:4318
  jaeger:
    protocols:
      grpc:
        endpoint: 0.0.0.0:14250
      thrift_http:
        endpoint: 0.0.0.0:14268
      thrift_compact:
        endpoint: 0.0.0.0:6831
      thrift_binary:
        endpoint: 0.0.0.0:6832
exporters:
  jaeger_storage_exporter:
    trace_storage: memory
extensions:
  health_check:
    endpoint: 0.0.0.0:14269
  jaeger_storage:
    backends:
      memory:
        memory:
          max_traces: {}
  jaeger_query:
    storage:
      traces: memory
    http:
      endpoint: 0.0.0.0:16686
service:
  extensions: [health_check, jaeger_storage, jaeger_query]
  pipelines:
    traces:
      receivers: [otlp, jaeger]
      exporters: [jaeger_storage_exporter]
",
            self.namespace,
            self.name,
            self.max_traces(),
        )
    }

    /// `memory.max-traces` of the resource's options, else what Jaeger 2 has.
    fn max_traces(&self) -> u64 {
        let spec = &self.jaeger.spec;
        [&spec.storage.options, &spec.all_in_one.options]
            .into_iter()
            .filter_map(|options| option(options.as_ref()?, "memory.max-traces"))
            .find_map(|value| match value {
                Value::Number(number) => number.as_u64(),
                Value::String(text) => text.parse().ok(),
                _ => None,
            })
            .filter(|count| *count > 0)
            .unwrap_or(100_000)
    }

    fn sampling(&self) -> ConfigMap {
        let name = dns_name(&format!("{}-sampling-configuration", self.name));
        let text = r#"{"default_strategy":{"param":1,"type":"probabilistic"}}"#;
        ConfigMap {
            metadata: self.meta(&name, "sampling-configuration"),
            data: Some(strings([("sampling", text)])),
            ..ConfigMap::default()
        }
    }

    fn deployment(&self) -> Deployment {
        let spec = &self.jaeger.spec;
        let mut annotations = strings([
            ("prometheus.io/scrape", "true"),
            ("prometheus.io/port", "14269"),
            ("linkerd.io/inject", "disabled"),
        ]);
        annotations.extend(spec.annotations.clone());
        let mut metadata = self.meta(&self.name, "all-in-one");
        metadata
            .labels
            .get_or_insert_default()
            .extend(spec.labels.clone());
        metadata.annotations = Some(annotations.clone());
        annotations.extend(strings([("sidecar.istio.io/inject", "false")]));
        let digest = hex::encode(Sha256::digest(self.document_text()));
        annotations.insert("karez.dev/config-sha256".to_owned(), digest);
        let mut pod_labels = spec.labels.clone();
        pod_labels.extend(self.selector());
        Deployment {
            metadata,
            spec: Some(DeploymentSpec {
                selector: LabelSelector {
                    match_labels: Some(self.selector()),
                    ..LabelSelector::default()
                },
                strategy: Some(DeploymentStrategy {
                    type_: Some("Recreate".to_owned()),
                    ..DeploymentStrategy::default()
                }),
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(pod_labels),
                        annotations: non_empty(annotations),
                        ..ObjectMeta::default()
                    }),
                    spec: Some(self.pod()),
                },
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn pod(&self) -> PodSpec {
        let spec = &self.jaeger.spec;
        let volume = dns_name(&format!("{}-volume", self.document_name()));
        let mut volumes = vec![Volume {
            name: volume.clone(),
            config_map: Some(ConfigMapVolumeSource {
                name: self.document_name(),
                ..ConfigMapVolumeSource::default()
            }),
            ..Volume::default()
        }];
        volumes.extend(spec.volumes.clone());
        let mut mounts = vec![VolumeMount {
            name: volume,
            mount_path: "/conf".to_owned(),
            read_only: Some(true),
            ..VolumeMount::default()
        }];
        mounts.extend(spec.volume_mounts.clone());
        let account = spec.service_account.clone().filter(|name| !name.is_empty());
        PodSpec {
            containers: vec![self.container(mounts)],
            volumes: Some(volumes),
            service_account_name: Some(account.unwrap_or_else(|| self.name.clone())),
            enable_service_links: Some(false),
            ..PodSpec::default()
        }
    }

    fn container(&self, mounts: Vec<VolumeMount>) -> Container {
        let spec = &self.jaeger.spec;
        let ports = CONTAINER_PORTS
            .iter()
            .map(|(name, port, protocol)| ContainerPort {
                name: Some((*name).to_owned()),
                container_port: *port,
                protocol: Some((*protocol).to_owned()),
                ..ContainerPort::default()
            });
        let probe = |delay: i32, period: Option<i32>, failures: Option<i32>| Probe {
            http_get: Some(HTTPGetAction {
                path: Some("/".to_owned()),
                port: IntOrString::Int(14269),
                ..HTTPGetAction::default()
            }),
            initial_delay_seconds: Some(delay),
            period_seconds: period,
            failure_threshold: failures,
            ..Probe::default()
        };
        Container {
            name: "jaeger".to_owned(),
            image: Some(IMAGE.to_owned()),
            image_pull_policy: Some("IfNotPresent".to_owned()),
            command: Some(vec!["karez".to_owned()]),
            args: Some(vec![
                "collector".to_owned(),
                "--config=/conf/collector.yaml".to_owned(),
            ]),
            env: Some(vec![field("POD_NAME", "metadata.name")]),
            ports: Some(ports.collect()),
            liveness_probe: Some(probe(5, Some(15), Some(5))),
            readiness_probe: Some(probe(1, None, None)),
            resources: spec
                .all_in_one
                .resources
                .clone()
                .or_else(|| spec.resources.clone()),
            volume_mounts: Some(mounts),
            ..Container::default()
        }
    }

    fn services(&self) -> Vec<Service> {
        let spec = &self.jaeger.spec;
        let collector = dns_name(&format!("{}-collector", self.name));
        let headless = dns_name(&format!("{}-collector-headless", self.name));
        let query = dns_name(&format!("{}-query", self.name));
        let agent = dns_name(&format!("{}-agent", self.name));
        let kind = |component: &Option<String>| {
            component
                .clone()
                .filter(|kind| !kind.is_empty())
                .unwrap_or_else(|| "ClusterIP".to_owned())
        };
        let collector_ports = || {
            COLLECTOR_PORTS
                .iter()
                .map(|(name, port)| tcp(name, *port, false))
                .collect()
        };
        let mut headless_meta = self.meta(&headless, "service-collector");
        // The copy keeps the name label of the Service it copies.
        let name_label = strings([(labels::APP_NAME, &cut(&collector))]);
        headless_meta.labels.get_or_insert_default().extend(name_label);
        headless_meta.annotations = Some(strings([
            ("prometheus.io/scrape", "false"),
            (
                "service.beta.openshift.io/serving-cert-secret-name",
                &format!("{headless}-tls"),
            ),
        ]));
        let none = Some("None".to_owned());
        vec![
            self.service(
                self.meta(&collector, "service-collector"),
                Some(kind(&spec.collector.service_type)),
                None,
                collector_ports(),
            ),
            self.service(headless_meta, None, none.clone(), collector_ports()),
            self.service(
                self.meta(&query, "service-query"),
                Some(kind(&spec.query.service_type)),
                None,
                QUERY_PORTS
                    .iter()
                    .map(|(name, port)| tcp(name, *port, true))
                    .collect(),
            ),
            self.service(
                self.meta(&agent, "service-agent"),
                None,
                none,
                vec![
                    udp("zk-compact-trft", 5775),
                    tcp("http-config-rest", 5778, false),
                    udp("jg-compact-trft", 6831),
                    udp("jg-binary-trft", 6832),
                ],
            ),
        ]
    }

    fn service(
        &self,
        metadata: ObjectMeta,
        kind: Option<String>,
        cluster_ip: Option<String>,
        ports: Vec<ServicePort>,
    ) -> Service {
        Service {
            metadata,
            spec: Some(ServiceSpec {
                type_: kind,
                cluster_ip,
                selector: Some(self.selector()),
                ports: Some(ports),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }
}

fn tcp(name: &str, port: i32, target: bool) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port,
        target_port: target.then_some(IntOrString::Int(port)),
        ..ServicePort::default()
    }
}

fn udp(name: &str, port: i32) -> ServicePort {
    ServicePort {
        protocol: Some("UDP".to_owned()),
        ..tcp(name, port, false)
    }
}

/// An option by its dotted name, written dotted, nested or both.
fn option<'a>(options: &'a Value, name: &str) -> Option<&'a Value> {
    if let Some(value) = options.get(name) {
        return Some(value);
    }
    let (first, rest) = name.split_once('.')?;
    option(options.get(first)?, rest)
}
