//! Objects without what no label is made of: a Pod has kilobytes of it, and there are many.

use k8s_openapi::api::core::v1::{
    Container, ContainerStatus, Endpoints, Namespace, Node, NodeCondition, NodeSpec, NodeStatus, Pod,
    PodSpec, PodStatus, Service, ServiceSpec,
};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use k8s_openapi::api::networking::v1::Ingress;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;

/// Drops what is never read.
pub(super) trait Slim {
    /// Keeps what labels are made of.
    fn slim(&mut self);
}

fn metadata(meta: &mut ObjectMeta) {
    let meta_before = std::mem::take(meta);
    let owners = meta_before.owner_references.map(|owners| {
        let controllers = owners.into_iter().filter(|owner| owner.controller == Some(true));
        controllers.take(1).collect()
    });
    *meta = ObjectMeta {
        name: meta_before.name,
        namespace: meta_before.namespace,
        uid: meta_before.uid,
        labels: meta_before.labels,
        annotations: meta_before.annotations,
        owner_references: owners,
        ..ObjectMeta::default()
    };
}

fn container(container: Container) -> Container {
    Container {
        name: container.name,
        image: container.image,
        ports: container.ports,
        ..Container::default()
    }
}

fn statuses(all: Option<Vec<ContainerStatus>>) -> Option<Vec<ContainerStatus>> {
    let slim = |status: ContainerStatus| ContainerStatus {
        name: status.name,
        container_id: status.container_id,
        ..ContainerStatus::default()
    };
    all.map(|all| all.into_iter().map(slim).collect())
}

impl Slim for Pod {
    fn slim(&mut self) {
        metadata(&mut self.metadata);
        self.spec = self.spec.take().map(|spec| PodSpec {
            node_name: spec.node_name,
            containers: spec.containers.into_iter().map(container).collect(),
            init_containers: spec
                .init_containers
                .map(|all| all.into_iter().map(container).collect()),
            ..PodSpec::default()
        });
        self.status = self.status.take().map(|status| PodStatus {
            pod_ip: status.pod_ip,
            host_ip: status.host_ip,
            phase: status.phase,
            conditions: status
                .conditions
                .map(|all| all.into_iter().filter(|one| one.type_ == "Ready").collect()),
            container_statuses: statuses(status.container_statuses),
            init_container_statuses: statuses(status.init_container_statuses),
            ..PodStatus::default()
        });
    }
}

impl Slim for Service {
    fn slim(&mut self) {
        metadata(&mut self.metadata);
        self.status = None;
        self.spec = self.spec.take().map(|spec| ServiceSpec {
            ports: spec.ports,
            type_: spec.type_,
            external_name: spec.external_name,
            cluster_ip: spec.cluster_ip,
            load_balancer_ip: spec.load_balancer_ip,
            ..ServiceSpec::default()
        });
    }
}

impl Slim for Node {
    fn slim(&mut self) {
        metadata(&mut self.metadata);
        self.spec = self.spec.take().map(|spec| NodeSpec {
            provider_id: spec.provider_id,
            ..NodeSpec::default()
        });
        // It also lists every image that the Node has.
        self.status = self.status.take().map(|status| NodeStatus {
            addresses: status.addresses,
            daemon_endpoints: status.daemon_endpoints,
            conditions: status.conditions.map(|conditions| {
                let bare = |condition: NodeCondition| NodeCondition {
                    type_: condition.type_,
                    status: condition.status,
                    ..NodeCondition::default()
                };
                conditions.into_iter().map(bare).collect()
            }),
            ..NodeStatus::default()
        });
    }
}

impl Slim for Namespace {
    fn slim(&mut self) {
        metadata(&mut self.metadata);
        (self.spec, self.status) = (None, None);
    }
}

impl Slim for Ingress {
    fn slim(&mut self) {
        metadata(&mut self.metadata);
        self.status = None;
    }
}

impl Slim for Endpoints {
    fn slim(&mut self) {
        metadata(&mut self.metadata);
    }
}

impl Slim for EndpointSlice {
    fn slim(&mut self) {
        metadata(&mut self.metadata);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::super::objects::{self, Others};
    use super::*;

    /// One Pod, one Service and one Node, whatever they are called.
    struct Around(Pod, Service, Node);

    impl Others for Around {
        fn service(&self, _: &str, _: &str) -> Option<Arc<Service>> {
            Some(Arc::new(self.1.clone()))
        }
        fn pod(&self, _: &str, _: &str) -> Option<Arc<Pod>> {
            Some(Arc::new(self.0.clone()))
        }
        fn node(&self, _: &str) -> Option<Arc<Node>> {
            Some(Arc::new(self.2.clone()))
        }
        fn namespace(&self, _: &str) -> Option<Arc<Namespace>> {
            None
        }
    }

    fn meta(name: &str) -> Value {
        json!({"name": name, "namespace": "ns", "uid": "u", "resourceVersion": "7", "finalizers": ["f"],
            "labels": {"a": "b"}, "annotations": {"c": "d"}, "creationTimestamp": "2026-01-01T00:00:00Z",
            "ownerReferences": [{"apiVersion": "v1", "kind": "Other", "name": "o", "uid": "1"},
                                {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "r", "uid": "2", "controller": true}]})
    }

    fn of<T: serde::de::DeserializeOwned>(value: Value) -> T {
        serde_json::from_value(value).unwrap()
    }

    fn world() -> (Around, EndpointSlice, Endpoints) {
        let one = |name: &str| {
            json!({"name": name, "image": "i", "env": [{"name": "E", "value": "v"}],
            "ports": [{"name": "m", "containerPort": 9090, "protocol": "TCP"}, {"containerPort": 9091}]})
        };
        let status = |name: &str| {
            json!({"name": name, "containerID": format!("c://{name}"), "ready": true, "restartCount": 1,
            "image": "i", "imageID": "x"})
        };
        let pod = of(
            json!({"metadata": meta("p"), "spec": {"nodeName": "n", "containers": [one("c")],
            "initContainers": [one("i")], "volumes": [{"name": "v", "emptyDir": {}}]},
            "status": {"podIP": "10.0.0.1", "hostIP": "10.0.0.2", "phase": "Running", "qosClass": "Burstable",
                "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "True"}],
                "containerStatuses": [status("c")], "initContainerStatuses": [status("i")]}}),
        );
        let service = of(
            json!({"metadata": meta("s"), "spec": {"type": "LoadBalancer", "clusterIP": "10.1.0.1",
            "loadBalancerIP": "1.2.3.4", "selector": {"a": "b"}, "ports": [{"name": "p", "port": 80, "protocol": "TCP"}]},
            "status": {"loadBalancer": {"ingress": [{"ip": "1.2.3.4"}]}}}),
        );
        let node = of(
            json!({"metadata": meta("n"), "spec": {"providerID": "x://1", "podCIDR": "10.0.0.0/24"},
            "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.2"}], "images": [{"names": ["i"]}],
                "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}}}}),
        );
        let reference = json!({"kind": "Pod", "name": "p", "namespace": "ns"});
        let slice = of(
            json!({"metadata": meta("s-1"), "addressType": "IPv4", "ports": [{"name": "m", "port": 9090}],
            "endpoints": [{"addresses": ["10.0.0.1"], "nodeName": "n", "targetRef": reference, "conditions": {"ready": true}}]}),
        );
        let endpoints = of(
            json!({"metadata": meta("s"), "subsets": [{"ports": [{"name": "m", "port": 9090}],
            "addresses": [{"ip": "10.0.0.1", "nodeName": "n", "targetRef": reference}]}]}),
        );
        (Around(pod, service, node), slice, endpoints)
    }

    /// Everything that discovery makes of them.
    fn groups(
        world: &(Around, EndpointSlice, Endpoints),
        ingress: &Ingress,
    ) -> Vec<karez_scrape_config::Group> {
        let (around, slice, endpoints) = world;
        vec![
            objects::pod(&around.0, around),
            objects::service(&around.1, around),
            objects::node(&around.2).unwrap(),
            objects::endpoint_slice(slice, around),
            objects::endpoints(endpoints, around),
            objects::ingress(ingress, around),
        ]
    }

    #[test]
    fn labels_are_the_same_without_the_rest() {
        let mut world = world();
        let mut ingress: Ingress = of(json!({"metadata": meta("i"), "spec": {"ingressClassName": "c",
            "tls": [{"hosts": ["h"]}], "rules": [{"host": "h", "http": {"paths":
            [{"path": "/x", "pathType": "Prefix", "backend": {}}]}}]}, "status": {"loadBalancer": {}}}));
        let before = groups(&world, &ingress);
        world.0.0.slim();
        world.0.1.slim();
        world.0.2.slim();
        world.1.slim();
        world.2.slim();
        ingress.slim();
        assert_eq!(groups(&world, &ingress), before);
        // Packed and unpacked, as they are kept.
        world.0.0 = of(json!(world.0.0));
        world.0.1 = of(json!(world.0.1));
        world.0.2 = of(json!(world.0.2));
        (world.1, world.2, ingress) = (of(json!(world.1)), of(json!(world.2)), of(json!(ingress)));
        assert_eq!(groups(&world, &ingress), before);
        let left = serde_json::to_string(&world.0.0).unwrap();
        for gone in [
            "volumes",
            "env",
            "resourceVersion",
            "qosClass",
            "Initialized",
            "imageID\":\"x",
        ] {
            assert!(!left.contains(gone), "{gone} is still in {left}");
        }
    }

    #[test]
    fn a_packed_pod_is_smaller_than_its_type() {
        let mut pod = world().0.0;
        pod.slim();
        let packed = serde_json::to_vec(&pod).unwrap().len();
        let unpacked = size_of::<Pod>() + 2 * (size_of::<Container>() + size_of::<ContainerStatus>());
        assert!(packed * 3 < unpacked, "{packed} bytes packed, {unpacked} not");
    }
}
