//! What runs a site: Deployments, Services, accounts and roles, with Skupper's names, labels and ports.

use std::collections::BTreeMap;

use k8s_openapi::api::apps::v1::{Deployment, DeploymentSpec};
use k8s_openapi::api::core::v1::{
    ConfigMap, Container, ContainerPort, EnvVar, EnvVarSource, HTTPGetAction, ObjectFieldSelector, PodSpec,
    PodTemplateSpec, Probe, ResourceRequirements, Service, ServiceAccount, ServicePort, ServiceSpec,
};
use k8s_openapi::api::rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use karez_kubernetes::{IMAGE, labels, names};

use super::Plan;
use crate::object::{Strings, json, meta, non_empty, strings};
use crate::site_config::{Ingress, SiteConfig, Tuning};

/// A site's workloads with what decides about them.
pub(crate) struct Workloads<'a> {
    pub(crate) config: &'a SiteConfig,
    pub(crate) site_id: &'a str,
    pub(crate) owner: &'a OwnerReference,
}

impl Workloads<'_> {
    /// Adds every object.
    pub(crate) fn plan(&self, plan: &mut Plan) {
        plan.objects.extend(self.account(names::ROUTER, router_rules()));
        plan.objects.push(json(&self.services_map()));
        plan.objects.push(json(&self.service(
            names::ROUTER_LOCAL,
            "ClusterIP",
            router_labels(),
            vec![port("amqps", names::LOCAL_PORT, None)],
        )));
        if !self.config.edge {
            plan.objects.push(json(&self.router_service()));
        }
        if self.config.has_several_routers() {
            plan.objects.push(json(&self.peers_service()));
        }
        if self.config.router_console {
            let console = vec![port("console", names::CONSOLE_PORT, None)];
            plan.objects.push(json(&self.service(
                names::ROUTER_CONSOLE,
                "ClusterIP",
                router_labels(),
                console,
            )));
        }
        plan.objects.push(json(&self.router()));
        if self.config.service_controller {
            plan.objects
                .extend(self.account(names::SERVICE_CONTROLLER, controller_rules()));
            plan.objects
                .extend(self.controller_service().map(|service| json(&service)));
            plan.objects.push(json(&self.controller()));
        }
    }

    fn meta(&self, name: &str) -> ObjectMeta {
        meta(name, &self.config.namespace, "site", Some(self.owner))
    }

    /// Exists from the start, so that tools find it; its keys belong to those who write them.
    fn services_map(&self) -> ConfigMap {
        ConfigMap {
            metadata: self.meta(names::SERVICES),
            ..ConfigMap::default()
        }
    }

    fn service(&self, name: &str, kind: &str, selector: Strings, ports: Vec<ServicePort>) -> Service {
        Service {
            metadata: self.meta(name),
            spec: Some(ServiceSpec {
                type_: Some(kind.to_owned()),
                selector: Some(selector),
                ports: Some(ports),
                ..ServiceSpec::default()
            }),
            ..Service::default()
        }
    }

    /// Links are QUIC: beside Skupper's TCP ports the same numbers are offered for UDP.
    fn router_service(&self) -> Service {
        let ports = vec![
            port("inter-router", names::INTER_ROUTER_PORT, None),
            port("edge", names::EDGE_PORT, None),
            port("inter-router-quic", names::INTER_ROUTER_PORT, Some("UDP")),
            port("edge-quic", names::EDGE_PORT, Some("UDP")),
        ];
        let kind = self.config.ingress.service_type();
        tuned(
            self.service(names::ROUTER, kind, router_labels(), ports),
            &self.config.ingress,
            &self.config.router,
        )
    }

    /// Headless: its name has the address of each router, also of one that is not ready yet.
    fn peers_service(&self) -> Service {
        let ports = vec![
            port("inter-router", names::INTER_ROUTER_PORT, None),
            port("inter-router-quic", names::INTER_ROUTER_PORT, Some("UDP")),
        ];
        let mut service = self.service(names::ROUTER_PEERS, "ClusterIP", router_labels(), ports);
        if let Some(spec) = &mut service.spec {
            spec.cluster_ip = Some("None".to_owned());
            spec.publish_not_ready_addresses = Some(true);
        }
        service
    }

    fn controller_service(&self) -> Option<Service> {
        let mut ports = Vec::new();
        if self.config.console {
            ports.push(port("metrics", names::CONSOLE_PORT, None));
        }
        if !self.config.edge {
            ports.push(port("claims", names::CLAIMS_PORT, None));
        }
        if ports.is_empty() {
            return None;
        }
        let ingress = &self.config.console_ingress;
        let service = self.service(
            names::CONTROLLER_SERVICE,
            ingress.service_type(),
            controller_labels(),
            ports,
        );
        Some(tuned(service, ingress, &self.config.controller))
    }

    fn router(&self) -> Deployment {
        let mut ports = vec![container_port("amqps", names::LOCAL_PORT, "TCP")];
        if self.config.router_console {
            ports.push(container_port("console", names::CONSOLE_PORT, "TCP"));
        }
        ports.push(container_port("http", names::ADMIN_PORT, "TCP"));
        let mut env = Vec::new();
        if !self.config.edge {
            ports.extend([
                container_port("inter-router", names::INTER_ROUTER_PORT, "TCP"),
                container_port("edge", names::EDGE_PORT, "TCP"),
                container_port("link-quic", names::INTER_ROUTER_PORT, "UDP"),
                container_port("edge-quic", names::EDGE_PORT, "UDP"),
            ]);
            env.push(value("APPLICATION_NAME", names::ROUTER));
        }
        env.push(field("POD_NAMESPACE", "metadata.namespace"));
        env.push(field("POD_IP", "status.podIP"));
        env.push(value("SKUPPER_SITE_ID", self.site_id));
        let container = Container {
            name: "router".to_owned(),
            args: Some(vec![
                "router".to_owned(),
                format!("--config=kube:$(POD_NAMESPACE)/{}", names::INTERNAL),
            ]),
            env: Some(env),
            ports: Some(ports),
            liveness_probe: Some(probe("/healthz", 60)),
            readiness_probe: Some(probe("/readyz", 1)),
            ..container(&self.config.router)
        };
        let annotations = strings([("prometheus.io/port", "9090"), ("prometheus.io/scrape", "true")]);
        self.deployment(
            names::ROUTER,
            "router",
            self.config.replicas,
            container,
            annotations,
        )
    }

    fn controller(&self) -> Deployment {
        let mut env = vec![
            value("SKUPPER_NAMESPACE", &self.config.namespace),
            value("SKUPPER_SITE_NAME", &self.config.name),
            value("SKUPPER_SITE_ID", self.site_id),
            value("SKUPPER_SERVICE_ACCOUNT", names::ROUTER),
            value("SKUPPER_ROUTER_MODE", self.config.mode()),
        ];
        if !self.config.service_sync {
            env.push(value("SKUPPER_DISABLE_SERVICE_SYNC", "true"));
        }
        let container = Container {
            name: "service-controller".to_owned(),
            args: Some(vec!["service-controller".to_owned()]),
            env: Some(env),
            ..container(&self.config.controller)
        };
        self.deployment(
            names::SERVICE_CONTROLLER,
            "service-controller",
            1,
            container,
            Strings::new(),
        )
    }

    fn deployment(
        &self,
        name: &str,
        component: &str,
        replicas: i32,
        container: Container,
        mut annotations: Strings,
    ) -> Deployment {
        let is_router = component == "router";
        let tuning = if is_router {
            &self.config.router
        } else {
            &self.config.controller
        };
        let mut pod_labels = self.config.labels.clone();
        pod_labels.extend(if is_router {
            router_labels()
        } else {
            controller_labels()
        });
        annotations.extend(self.config.annotations.clone());
        annotations.extend(tuning.pod_annotations.clone());
        Deployment {
            metadata: self.meta(name),
            spec: Some(DeploymentSpec {
                replicas: Some(replicas),
                selector: LabelSelector {
                    match_labels: Some(strings([(labels::COMPONENT, component)])),
                    ..LabelSelector::default()
                },
                template: PodTemplateSpec {
                    metadata: Some(ObjectMeta {
                        labels: Some(pod_labels),
                        annotations: non_empty(annotations),
                        ..ObjectMeta::default()
                    }),
                    spec: Some(PodSpec {
                        containers: vec![container],
                        service_account_name: Some(name.to_owned()),
                        node_selector: non_empty(tuning.node_selector.clone()),
                        ..PodSpec::default()
                    }),
                },
                ..DeploymentSpec::default()
            }),
            ..Deployment::default()
        }
    }

    fn account(&self, name: &str, rules: Vec<PolicyRule>) -> [serde_json::Value; 3] {
        let account = ServiceAccount {
            metadata: self.meta(name),
            ..ServiceAccount::default()
        };
        let role = Role {
            metadata: self.meta(name),
            rules: Some(rules),
        };
        let binding = RoleBinding {
            metadata: self.meta(name),
            role_ref: RoleRef {
                api_group: "rbac.authorization.k8s.io".to_owned(),
                kind: "Role".to_owned(),
                name: name.to_owned(),
            },
            subjects: Some(vec![Subject {
                kind: "ServiceAccount".to_owned(),
                name: name.to_owned(),
                namespace: Some(self.config.namespace.clone()),
                ..Subject::default()
            }]),
        };
        [json(&account), json(&role), json(&binding)]
    }
}

/// Labels of the router's pods; also the selector of the site's Services.
pub(crate) fn router_labels() -> Strings {
    strings([
        ("application", names::ROUTER),
        (labels::APP_NAME, names::ROUTER),
        (labels::APP_PART_OF, "skupper"),
        (labels::COMPONENT, "router"),
    ])
}

fn controller_labels() -> Strings {
    strings([
        (labels::APP_NAME, names::SERVICE_CONTROLLER),
        (labels::APP_PART_OF, "skupper"),
        (labels::COMPONENT, "service-controller"),
    ])
}

fn tuned(mut service: Service, ingress: &Ingress, tuning: &Tuning) -> Service {
    service.metadata.annotations = non_empty(tuning.service_annotations.clone());
    if let Some(spec) = &mut service.spec
        && *ingress == Ingress::LoadBalancer
        && !tuning.load_balancer_ip.is_empty()
    {
        spec.load_balancer_ip = Some(tuning.load_balancer_ip.clone());
    }
    service
}

fn port(name: &str, number: u16, protocol: Option<&str>) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        target_port: Some(IntOrString::Int(i32::from(number))),
        protocol: Some(protocol.unwrap_or("TCP").to_owned()),
        ..ServicePort::default()
    }
}

fn container_port(name: &str, number: u16, protocol: &str) -> ContainerPort {
    ContainerPort {
        name: Some(name.to_owned()),
        container_port: i32::from(number),
        protocol: Some(protocol.to_owned()),
        ..ContainerPort::default()
    }
}

pub(crate) fn value(name: &str, value: &str) -> EnvVar {
    EnvVar {
        name: name.to_owned(),
        value: Some(value.to_owned()),
        ..EnvVar::default()
    }
}

pub(crate) fn field(name: &str, path: &str) -> EnvVar {
    let field = ObjectFieldSelector {
        field_path: path.to_owned(),
        ..ObjectFieldSelector::default()
    };
    EnvVar {
        name: name.to_owned(),
        value_from: Some(EnvVarSource {
            field_ref: Some(field),
            ..EnvVarSource::default()
        }),
        ..EnvVar::default()
    }
}

fn probe(path: &str, delay: i32) -> Probe {
    Probe {
        http_get: Some(HTTPGetAction {
            path: Some(path.to_owned()),
            port: IntOrString::Int(i32::from(names::ADMIN_PORT)),
            ..HTTPGetAction::default()
        }),
        initial_delay_seconds: Some(delay),
        ..Probe::default()
    }
}

fn container(tuning: &Tuning) -> Container {
    let quantities = |map: &Strings| -> Option<BTreeMap<String, Quantity>> {
        let map: BTreeMap<_, _> = map
            .iter()
            .map(|(key, value)| (key.clone(), Quantity(value.clone())))
            .collect();
        (!map.is_empty()).then_some(map)
    };
    let (requests, limits) = (quantities(&tuning.requests), quantities(&tuning.limits));
    Container {
        image: Some(IMAGE.to_owned()),
        image_pull_policy: Some("IfNotPresent".to_owned()),
        command: Some(vec!["karez".to_owned()]),
        resources: (requests.is_some() || limits.is_some()).then(|| ResourceRequirements {
            requests,
            limits,
            ..ResourceRequirements::default()
        }),
        ..Container::default()
    }
}

fn rule(group: &str, resources: &[&str], verbs: &[&str]) -> PolicyRule {
    let owned = |list: &[&str]| list.iter().map(|&text| text.to_owned()).collect::<Vec<_>>();
    PolicyRule {
        api_groups: Some(vec![group.to_owned()]),
        resources: Some(owned(resources)),
        verbs: owned(verbs),
        ..PolicyRule::default()
    }
}

const READ: &[&str] = &["get", "list", "watch"];

/// The router reads its document and its certificates.
fn router_rules() -> Vec<PolicyRule> {
    vec![rule("", &["configmaps", "secrets"], READ)]
}

/// The service-level controller reads what may be exposed and writes Services and ConfigMaps.
fn controller_rules() -> Vec<PolicyRule> {
    let write = &["get", "list", "watch", "create", "update", "patch", "delete"];
    vec![
        // Secrets: it redeems claims, counts redemptions, and keeps renewed credentials.
        rule("", &["configmaps", "services", "secrets"], write),
        rule("", &["pods"], READ),
        rule("", &["events"], &["list", "create", "patch", "delete"]),
        rule("apps", &["deployments", "statefulsets", "daemonsets"], READ),
    ]
}
