//! The planners against a model of the API: what they ask for is done at once, Pods become ready when told.

use serde_json::json;

use super::*;

fn object<T: serde::de::DeserializeOwned>(value: serde_json::Value) -> T {
    serde_json::from_value(value).unwrap()
}

fn place() -> Place {
    Place {
        node: "here".into(),
        external: "127.9.8.1".parse().unwrap(),
    }
}

fn deployment(image: &str, strategy: &str) -> Deployment {
    object(json!({
        "metadata": {"name": "d", "namespace": "default", "uid": "d1", "generation": 3},
        "spec": {"replicas": 1, "selector": {"matchLabels": {"app": "d"}}, "strategy": {"type": strategy},
                 "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c", "image": image,
                   "ports": [{"name": "otlp", "containerPort": 4317}]}]}}}
    }))
}

/// Does what actions ask for, as an API server would.
#[derive(Default)]
struct Model {
    world: World,
    made: u32,
}

impl Model {
    fn settle(&mut self) {
        for _ in 0..20 {
            let actions = plan(&self.world, &place(), Timestamp::UNIX_EPOCH);
            if actions.is_empty() {
                return;
            }
            for action in actions {
                self.carry_out(action);
            }
        }
        panic!(
            "the plans do not settle: {:?}",
            plan(&self.world, &place(), Timestamp::UNIX_EPOCH)
        );
    }

    fn carry_out(&mut self, action: Action) {
        match action {
            Action::Create { target, mut object } => {
                self.made += 1;
                object["metadata"]["uid"] = json!(format!("uid-{}", self.made));
                if let Some(stem) = object["metadata"]["generateName"].as_str().map(str::to_owned) {
                    object["metadata"]["name"] = json!(format!("{stem}{}", self.made));
                }
                self.put(target.kind, object);
            }
            Action::Replace { target, object } => {
                self.take(&target);
                self.put(target.kind, object);
            }
            Action::Merge { target, patch } => self.merge(&target, &patch),
            Action::Status { target, status } => self.merge(&target, &json!({"status": status})),
            Action::Delete { target, .. } => drop(self.take(&target)),
        }
    }

    fn merge(&mut self, target: &action::Target, patch: &serde_json::Value) {
        let mut object = self.take(target).unwrap();
        merge(&mut object, patch);
        self.put(target.kind, object);
    }

    fn put(&mut self, kind: action::Kind, value: serde_json::Value) {
        match kind {
            action::Kind::Deployment => self.world.deployments.push(Arc::new(object(value))),
            action::Kind::ReplicaSet => self.world.replica_sets.push(Arc::new(object(value))),
            action::Kind::StatefulSet => self.world.stateful_sets.push(Arc::new(object(value))),
            action::Kind::DaemonSet => self.world.daemon_sets.push(Arc::new(object(value))),
            action::Kind::Pod => self.world.pods.push(Arc::new(object(value))),
            action::Kind::Service => self.world.services.push(Arc::new(object(value))),
            action::Kind::EndpointSlice => self.world.slices.push(Arc::new(object(value))),
            action::Kind::Endpoints => self.world.endpoints.push(Arc::new(object(value))),
        }
    }

    fn take(&mut self, target: &action::Target) -> Option<serde_json::Value> {
        fn from<K: Resource + serde::Serialize>(
            items: &mut Vec<Arc<K>>,
            name: &str,
        ) -> Option<serde_json::Value> {
            let at = items.iter().position(|item| item.name_any() == name)?;
            Some(serde_json::to_value(items.remove(at).as_ref()).unwrap())
        }
        let name = target.name.as_str();
        match target.kind {
            action::Kind::Deployment => from(&mut self.world.deployments, name),
            action::Kind::ReplicaSet => from(&mut self.world.replica_sets, name),
            action::Kind::StatefulSet => from(&mut self.world.stateful_sets, name),
            action::Kind::DaemonSet => from(&mut self.world.daemon_sets, name),
            action::Kind::Pod => from(&mut self.world.pods, name),
            action::Kind::Service => from(&mut self.world.services, name),
            action::Kind::EndpointSlice => from(&mut self.world.slices, name),
            action::Kind::Endpoints => from(&mut self.world.endpoints, name),
        }
    }

    fn make_ready(&mut self) {
        for (index, pod) in self.world.pods.iter_mut().enumerate() {
            let mut ready = pod.as_ref().clone();
            ready.status = object(
                json!({"phase": "Running", "podIP": format!("127.9.8.{}", index + 2),
                "conditions": [{"type": "Ready", "status": "True"}]}),
            );
            *pod = Arc::new(ready);
        }
    }
}

fn merge(into: &mut serde_json::Value, patch: &serde_json::Value) {
    let (Some(fields), Some(patch)) = (into.as_object_mut(), patch.as_object()) else {
        *into = patch.clone();
        return;
    };
    for (key, value) in patch {
        if value.is_object() {
            merge(fields.entry(key).or_insert(json!({})), value);
        } else {
            fields.insert(key.clone(), value.clone());
        }
    }
}

#[test]
fn a_deployment_becomes_available_with_its_pod() {
    let mut model = Model::default();
    model
        .world
        .deployments
        .push(Arc::new(deployment("karez:1", "RollingUpdate")));
    model.settle();
    assert_eq!((model.world.replica_sets.len(), model.world.pods.len()), (1, 1));
    let pod = &model.world.pods[0];
    assert_eq!(pod.spec.as_ref().unwrap().node_name.as_deref(), Some("here"));
    assert!(pod.name_any().starts_with("d-") && pod.labels().contains_key("pod-template-hash"));
    let condition = |model: &Model, index: usize| {
        let status = model.world.deployments[0].status.clone().unwrap();
        let one = &status.conditions.unwrap()[index];
        format!("{}={} {}", one.type_, one.status, one.reason.clone().unwrap())
    };
    assert_eq!(condition(&model, 0), "Available=False MinimumReplicasUnavailable");
    model.make_ready();
    model.settle();
    assert_eq!(condition(&model, 0), "Available=True MinimumReplicasAvailable");
    assert_eq!(condition(&model, 1), "Progressing=True NewReplicaSetAvailable");
    let status = model.world.deployments[0].status.clone().unwrap();
    assert_eq!(
        (status.observed_generation, status.ready_replicas),
        (Some(3), Some(1))
    );
}

#[test]
fn a_changed_template_replaces_the_pod_when_the_new_one_is_ready() {
    let mut model = Model::default();
    model
        .world
        .deployments
        .push(Arc::new(deployment("karez:1", "RollingUpdate")));
    model.settle();
    model.make_ready();
    model.settle();
    let first = model.world.pods[0].name_any();
    let mut changed = model.world.deployments.remove(0).as_ref().clone();
    changed.spec = deployment("karez:2", "RollingUpdate").spec;
    model.world.deployments.push(Arc::new(changed));
    model.settle();
    assert_eq!(
        model.world.pods.len(),
        2,
        "the old one stays until the new one is ready"
    );
    model.make_ready();
    model.settle();
    assert_eq!(model.world.pods.len(), 1);
    assert_ne!(model.world.pods[0].name_any(), first);
    let revision = "deployment.kubernetes.io/revision";
    assert_eq!(model.world.deployments[0].annotations()[revision], "2");
}

#[test]
fn recreating_never_has_two() {
    let mut model = Model::default();
    model
        .world
        .deployments
        .push(Arc::new(deployment("karez:1", "Recreate")));
    model.settle();
    let mut changed = model.world.deployments.remove(0).as_ref().clone();
    changed.spec = deployment("karez:2", "Recreate").spec;
    model.world.deployments.push(Arc::new(changed));
    let mut ending = model.world.pods.remove(0).as_ref().clone();
    ending.metadata.deletion_timestamp = object(json!("2026-01-01T00:00:00Z"));
    model.world.pods.push(Arc::new(ending));
    model.settle();
    assert_eq!(
        model.world.pods.len(),
        1,
        "the new one waits for the old one's end"
    );
    model.world.pods.clear();
    model.settle();
    assert_eq!(
        model.world.pods[0].spec.as_ref().unwrap().containers[0]
            .image
            .as_deref(),
        Some("karez:2")
    );
}

#[test]
fn a_service_has_its_ready_pods_by_named_port() {
    let mut model = Model::default();
    model
        .world
        .deployments
        .push(Arc::new(deployment("karez:1", "RollingUpdate")));
    model.world.services.push(Arc::new(object(json!({
        "metadata": {"name": "s", "namespace": "default", "uid": "s1"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "d"}, "ports": [{"name": "grpc", "port": 80, "targetPort": "otlp"}]}
    }))));
    model.settle();
    assert!(model.world.slices[0].endpoints.is_empty());
    assert!(model.world.services[0].status.is_none());
    model.make_ready();
    model.settle();
    let slice = &model.world.slices[0];
    assert_eq!(slice.endpoints[0].addresses, ["127.9.8.2"]);
    assert_eq!(slice.ports.as_ref().unwrap()[0].port, Some(4317));
    let subset = &model.world.endpoints[0].subsets.as_ref().unwrap()[0];
    assert_eq!(subset.addresses.as_ref().unwrap()[0].ip, "127.9.8.2");
    let ingress = model.world.services[0]
        .status
        .clone()
        .unwrap()
        .load_balancer
        .unwrap()
        .ingress
        .unwrap();
    assert_eq!(ingress[0].ip.as_deref(), Some("127.9.8.1"));
}

#[test]
fn a_stateful_set_starts_in_order_and_rolls_from_the_end() {
    let set = |image: &str| -> StatefulSet {
        object(json!({
            "metadata": {"name": "s", "namespace": "default", "uid": "s1"},
            "spec": {"replicas": 2, "serviceName": "peers", "selector": {"matchLabels": {"app": "s"}},
                     "template": {"metadata": {"labels": {"app": "s"}}, "spec": {"containers": [{"name": "c", "image": image}]}}}
        }))
    };
    let mut model = Model::default();
    model.world.stateful_sets.push(Arc::new(set("karez:1")));
    model.settle();
    assert_eq!(model.world.pods.len(), 1, "the second waits for the first");
    model.make_ready();
    model.settle();
    model.make_ready();
    model.settle();
    let names: Vec<String> = model.world.pods.iter().map(|pod| pod.name_any()).collect();
    assert_eq!(names, ["s-0", "s-1"]);
    assert_eq!(
        model.world.pods[1].spec.as_ref().unwrap().subdomain.as_deref(),
        Some("peers")
    );
    let mut changed = model.world.stateful_sets.remove(0).as_ref().clone();
    changed.spec = set("karez:2").spec;
    model.world.stateful_sets.push(Arc::new(changed));
    model.settle();
    let image = |model: &Model, name: &str| {
        let pod = model
            .world
            .pods
            .iter()
            .find(|pod| pod.name_any() == name)
            .cloned()
            .unwrap();
        pod.spec.as_ref().unwrap().containers[0].image.clone().unwrap()
    };
    assert_eq!(
        (image(&model, "s-0"), image(&model, "s-1")),
        ("karez:1".into(), "karez:2".into())
    );
    model.make_ready();
    model.settle();
    assert_eq!(image(&model, "s-0"), "karez:2");
}

#[test]
fn a_daemon_set_has_one_pod() {
    let mut model = Model::default();
    model.world.daemon_sets.push(Arc::new(object(json!({
        "metadata": {"name": "d", "namespace": "default", "uid": "d1"},
        "spec": {"selector": {"matchLabels": {"app": "d"}},
                 "template": {"metadata": {"labels": {"app": "d"}}, "spec": {"containers": [{"name": "c"}]}}}
    }))));
    model.settle();
    model.make_ready();
    model.settle();
    assert_eq!(model.world.pods.len(), 1);
    let status = model.world.daemon_sets[0].status.clone().unwrap();
    assert_eq!(
        (
            status.number_ready,
            status.desired_number_scheduled,
            status.number_available
        ),
        (1, 1, Some(1))
    );
}
