//! Sidecars: a pod, the collectors and the namespace in, the pod with its collector out. Pure; the local cluster
//! calls it as an admission step, in a cluster the webhook does.

use k8s_openapi::api::core::v1::{Container, EnvVar, Namespace, Pod};
use karez_kubernetes::{CollectorMode, OpenTelemetryCollector, labels, names};

use crate::object::Strings;
use crate::plan::collector::{Parts, config_text, cut, origin};
use crate::plan::site_workloads::{field, value};

const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
const POD_NAME: &str = "OTEL_RESOURCE_ATTRIBUTES_POD_NAME";
const POD_UID: &str = "OTEL_RESOURCE_ATTRIBUTES_POD_UID";
const NODE_NAME: &str = "OTEL_RESOURCE_ATTRIBUTES_NODE_NAME";

/// The pod with its sidecar, or `None` when it is to stay as it is.
///
/// The annotation `sidecar.opentelemetry.io/inject` on the pod or its namespace says which collector: `true` for
/// the only sidecar-mode one of the namespace, a name, or `namespace/name`; `false` takes a sidecar away.
#[must_use]
pub fn inject(pod: &Pod, collectors: &[OpenTelemetryCollector], namespace: &Namespace) -> Option<Pod> {
    let own = annotation(pod.metadata.annotations.as_ref());
    let wanted = effective(annotation(namespace.metadata.annotations.as_ref()), own)?;
    let spec = pod.spec.as_ref()?;
    let has_sidecar = spec
        .containers
        .iter()
        .any(|container| container.name == names::COLLECTOR_CONTAINER);
    if wanted.eq_ignore_ascii_case("false") {
        return has_sidecar.then(|| without(pod));
    }
    if has_sidecar {
        return None;
    }
    let namespace = namespace
        .metadata
        .name
        .as_deref()
        .or(pod.metadata.namespace.as_deref())?;
    let collector = select(wanted, collectors, namespace)?;
    with(pod, collector, namespace)
}

/// The collector that an annotation's value means, if it can be a sidecar.
pub(crate) fn select<'a>(
    wanted: &str,
    collectors: &'a [OpenTelemetryCollector],
    namespace: &str,
) -> Option<&'a OpenTelemetryCollector> {
    let mut sidecars = collectors
        .iter()
        .filter(|collector| collector.mode() == CollectorMode::Sidecar);
    let is = |collector: &OpenTelemetryCollector, namespace: &str, name: &str| {
        collector.metadata.namespace.as_deref() == Some(namespace)
            && collector.metadata.name.as_deref() == Some(name)
    };
    if wanted.eq_ignore_ascii_case("true") {
        let mut own = sidecars.filter(|one| one.metadata.namespace.as_deref() == Some(namespace));
        let only = own.next()?;
        return own.next().is_none().then_some(only);
    }
    let (namespace, name) = wanted.split_once('/').unwrap_or((namespace, wanted));
    sidecars.find(|collector| is(collector, namespace, name))
}

/// What holds of a namespace's and a pod's annotation.
pub(crate) fn effective<'a>(namespace: Option<&'a str>, pod: Option<&'a str>) -> Option<&'a str> {
    let filled = |text: Option<&'a str>| text.filter(|text| !text.is_empty());
    match (filled(namespace), filled(pod)) {
        (namespace, None) => namespace,
        (None, pod) => pod,
        (Some(namespace), Some(pod)) => {
            let plain = pod.eq_ignore_ascii_case("true") && !namespace.eq_ignore_ascii_case("false");
            Some(if plain { namespace } else { pod })
        }
    }
}

pub(crate) fn annotation(annotations: Option<&Strings>) -> Option<&str> {
    annotations?.get(labels::SIDECAR_INJECT).map(String::as_str)
}

fn without(pod: &Pod) -> Pod {
    let mut pod = pod.clone();
    if let Some(spec) = &mut pod.spec {
        spec.containers
            .retain(|container| container.name != names::COLLECTOR_CONTAINER);
    }
    if let Some(labels) = &mut pod.metadata.labels {
        labels.remove(labels::SIDECAR_INJECTED);
    }
    pod
}

fn with(pod: &Pod, collector: &OpenTelemetryCollector, namespace: &str) -> Option<Pod> {
    let text = config_text(collector)?;
    let config = karez_document::yaml::parse(&text, &origin(collector))
        .ok()
        .and_then(|documents| documents.first().map(karez_document::yaml::Node::to_json))
        .unwrap_or_default();
    let mut container = Parts::new(collector, text, config, false).sidecar();
    add_resource_attributes(&mut container, pod, namespace);
    let mut pod = pod.clone();
    let mark = cut(&format!(
        "{}.{}",
        collector.metadata.namespace.as_deref().unwrap_or_default(),
        collector.metadata.name.as_deref().unwrap_or_default()
    ));
    pod.metadata
        .labels
        .get_or_insert_default()
        .insert(labels::SIDECAR_INJECTED.to_owned(), mark);
    let spec = pod.spec.as_mut()?;
    spec.containers.push(container);
    if !collector.spec.init_containers.is_empty() {
        spec.init_containers
            .get_or_insert_default()
            .extend(collector.spec.init_containers.clone());
    }
    if !collector.spec.volumes.is_empty() {
        spec.volumes
            .get_or_insert_default()
            .extend(collector.spec.volumes.clone());
    }
    Some(pod)
}

/// All four variables or none, so that what a user set is not half overwritten.
fn add_resource_attributes(container: &mut Container, pod: &Pod, namespace: &str) {
    let env: &mut Vec<EnvVar> = container.env.get_or_insert_default();
    if env.iter().any(|var| var.name == ATTRIBUTES) {
        return;
    }
    let mut attributes = vec![
        ("k8s.namespace.name", namespace.to_owned()),
        ("k8s.node.name", format!("$({NODE_NAME})")),
        ("k8s.pod.name", format!("$({POD_NAME})")),
        ("k8s.pod.uid", format!("$({POD_UID})")),
    ];
    let owners = pod.metadata.owner_references.iter().flatten();
    for owner in owners.filter(|owner| owner.kind == "ReplicaSet") {
        attributes.push(("k8s.replicaset.name", owner.name.clone()));
        attributes.push(("k8s.replicaset.uid", owner.uid.clone()));
    }
    attributes.sort_by_key(|(key, _)| *key);
    let text: Vec<String> = attributes
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    env.push(field(POD_NAME, "metadata.name"));
    env.push(field(POD_UID, "metadata.uid"));
    env.push(field(NODE_NAME, "spec.nodeName"));
    env.push(value(ATTRIBUTES, &text.join(",")));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::strings;
    use k8s_openapi::api::core::v1::PodSpec;
    use kube::core::ObjectMeta;
    use serde_json::json;

    fn collector(name: &str, mode: &str) -> OpenTelemetryCollector {
        serde_json::from_value(json!({
            "apiVersion": "opentelemetry.io/v1alpha1", "kind": "OpenTelemetryCollector",
            "metadata": {"name": name, "namespace": "ns"},
            "spec": {"mode": mode, "config": "receivers:\n  jaeger:\n    protocols:\n      thrift_compact:\nservice:\n  pipelines:\n    traces:\n      receivers: [jaeger]\n"}
        }))
        .unwrap()
    }

    fn pod(inject: Option<&str>) -> Pod {
        Pod {
            metadata: ObjectMeta {
                annotations: inject.map(|value| strings([(labels::SIDECAR_INJECT, value)])),
                ..ObjectMeta::default()
            },
            spec: Some(PodSpec {
                containers: vec![Container {
                    name: "app".into(),
                    ..Container::default()
                }],
                ..PodSpec::default()
            }),
            ..Pod::default()
        }
    }

    fn namespace(inject: Option<&str>) -> Namespace {
        Namespace {
            metadata: ObjectMeta {
                name: Some("ns".into()),
                annotations: inject.map(|value| strings([(labels::SIDECAR_INJECT, value)])),
                ..ObjectMeta::default()
            },
            ..Namespace::default()
        }
    }

    #[test]
    fn the_only_sidecar_of_the_namespace_is_added() {
        let collectors = [collector("side", "sidecar"), collector("app", "deployment")];
        let pod = inject(&pod(Some("true")), &collectors, &namespace(None)).unwrap();
        let spec = pod.spec.unwrap();
        assert_eq!(spec.containers.len(), 2);
        let sidecar = &spec.containers[1];
        assert_eq!(sidecar.name, "otc-container");
        assert_eq!(
            sidecar.args.as_deref().unwrap(),
            ["collector", "--config=env:OTEL_CONFIG"]
        );
        let names: Vec<&str> = sidecar
            .env
            .iter()
            .flatten()
            .map(|var| var.name.as_str())
            .collect();
        assert_eq!(
            names,
            [
                "POD_NAME",
                "OTEL_CONFIG",
                POD_NAME,
                POD_UID,
                NODE_NAME,
                ATTRIBUTES
            ]
        );
        let attributes = sidecar.env.as_ref().unwrap()[5].value.clone().unwrap();
        assert_eq!(
            attributes,
            "k8s.namespace.name=ns,k8s.node.name=$(OTEL_RESOURCE_ATTRIBUTES_NODE_NAME),\
             k8s.pod.name=$(OTEL_RESOURCE_ATTRIBUTES_POD_NAME),k8s.pod.uid=$(OTEL_RESOURCE_ATTRIBUTES_POD_UID)"
        );
        assert_eq!(pod.metadata.labels.unwrap()[labels::SIDECAR_INJECTED], "ns.side");
        let ports: Vec<i32> = sidecar
            .ports
            .iter()
            .flatten()
            .map(|port| port.container_port)
            .collect();
        assert_eq!(ports, [8888, 6831]);
    }

    #[test]
    fn several_or_none_or_another_mode_leave_the_pod_alone() {
        let two = [collector("a", "sidecar"), collector("b", "sidecar")];
        assert_eq!(inject(&pod(Some("true")), &two, &namespace(None)), None);
        assert!(inject(&pod(Some("b")), &two, &namespace(None)).is_some());
        assert!(inject(&pod(Some("ns/b")), &two, &namespace(None)).is_some());
        assert_eq!(inject(&pod(Some("other/b")), &two, &namespace(None)), None);
        assert_eq!(inject(&pod(Some("true")), &[], &namespace(None)), None);
        assert_eq!(
            inject(&pod(Some("c")), &[collector("c", "deployment")], &namespace(None)),
            None
        );
        assert_eq!(inject(&pod(None), &two, &namespace(None)), None);
    }

    #[test]
    fn pod_and_namespace_together() {
        let table = [
            (None, Some("x"), Some("x")),
            (Some("y"), None, Some("y")),
            (Some("y"), Some("false"), Some("false")),
            (Some("y"), Some("name"), Some("name")),
            (Some("false"), Some("true"), Some("true")),
            (Some("name"), Some("true"), Some("name")),
            (None, None, None),
            (Some(""), Some("true"), Some("true")),
        ];
        for (namespace, pod, expected) in table {
            assert_eq!(effective(namespace, pod), expected, "{namespace:?} {pod:?}");
        }
    }

    #[test]
    fn false_takes_the_sidecar_away_and_a_second_is_not_added() {
        let collectors = [collector("side", "sidecar")];
        let injected = inject(&pod(Some("true")), &collectors, &namespace(None)).unwrap();
        assert_eq!(inject(&injected, &collectors, &namespace(None)), None);
        let mut refused = injected;
        refused.metadata.annotations = Some(strings([(labels::SIDECAR_INJECT, "false")]));
        let cleaned = inject(&refused, &collectors, &namespace(None)).unwrap();
        assert_eq!(cleaned.spec.unwrap().containers.len(), 1);
    }
}
