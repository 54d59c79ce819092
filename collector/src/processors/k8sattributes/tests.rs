use std::time::Duration;

use k8s_openapi::api::core::v1::{Namespace, Pod};
use karez_collector_config::{ProcessorConfig, check};
use karez_document::Origin;
use karez_local_api::{LocalCluster, LocalClusterOptions};
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client};
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value as Variant};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use serde_json::{Value, json};

use super::*;
use crate::batch::Context;

fn config(block: &str) -> Result<config::K8sAttributes, Vec<String>> {
    let document = format!(
        "receivers: {{otlp: {{protocols: {{grpc: }}}}}}\nexporters: {{debug: }}\nprocessors:\n  k8sattributes: {block}\n\
         service: {{pipelines: {{logs: {{receivers: [otlp], processors: [k8sattributes], exporters: [debug]}}}}}}"
    );
    let (config, said) = check(&document, &Origin::file("c"), &|_| None);
    match config.map(|config| config.processors[0].config.clone()) {
        Some(ProcessorConfig::K8sAttributes(config)) => Ok(config),
        _ => Err(said.iter().map(ToString::to_string).collect()),
    }
}

fn pod(name: &str, ip: &str, more: &Value) -> Pod {
    let mut pod = json!({
        "metadata": {
            "name": name, "namespace": "shop", "uid": format!("uid-{name}"),
            "labels": {"app": "cart", "pod-template-hash": "5d9c"},
            "annotations": {"team": "blue", "resource.opentelemetry.io/service.name": "cart-service"},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "cart-5d9c", "uid": "rs-1"}],
        },
        "spec": {"nodeName": "n1", "containers": [
            {"name": "main", "image": "registry.local:5000/shop/cart:1.2"},
            {"name": "side", "image": "envoy@sha256:0123"},
        ]},
        "status": {"podIP": ip, "startTime": "2026-01-02T03:04:05Z", "containerStatuses": [
            {"name": "main", "containerID": "containerd://abc", "image": "", "imageID": "", "ready": true, "restartCount": 0},
        ]},
    });
    json_patch::merge(&mut pod, more);
    serde_json::from_value(pod).unwrap()
}

fn marker(block: &str, pods: &[Pod]) -> Marker {
    let processor = K8sAttributes::new(config(block).unwrap()).unwrap();
    let namespace: Namespace =
        serde_json::from_value(json!({"metadata": {"name": "shop", "labels": {"tier": "front"}}})).unwrap();
    let index = Index::new(
        &processor.rules,
        &processor.ways,
        pods.iter(),
        std::iter::once(&namespace),
        std::iter::empty(),
    );
    Marker {
        rules: processor.rules,
        ways: processor.ways,
        index: Arc::new(ArcSwap::from_pointee(index)),
    }
}

fn logs(attributes: &[(&str, &str)], peer: Option<&str>) -> Batch {
    let pair = |(key, value): &(&str, &str)| KeyValue {
        key: (*key).into(),
        value: Some(AnyValue {
            value: Some(Variant::StringValue((*value).into())),
        }),
        ..KeyValue::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(Resource {
                attributes: attributes.iter().map(pair).collect(),
                ..Resource::default()
            }),
            scope_logs: vec![ScopeLogs {
                log_records: vec![LogRecord::default()],
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    };
    Batch::encode(Signal::Logs, &request, 1).with_context(Arc::new(Context {
        peer: peer.map(|peer| peer.parse().unwrap()),
        ..Context::default()
    }))
}

/// The resource's attributes after the processor, as `key=value`, in their order.
fn marked(marker: &Marker, attributes: &[(&str, &str)], peer: Option<&str>) -> Vec<String> {
    let batch = marker.mark(logs(attributes, peer));
    let request: ExportLogsServiceRequest = batch.decode().unwrap();
    let resource = request.resource_logs[0].resource.clone().unwrap();
    let pairs = resource
        .attributes
        .into_iter()
        .map(|pair| match pair.value.unwrap().value {
            Some(Variant::StringValue(value)) => format!("{}={value}", pair.key),
            other => panic!("{other:?}"),
        });
    pairs.collect()
}

#[test]
fn data_gets_the_usual_attributes_of_the_pod_that_sent_it() {
    let marker = marker("", &[pod("cart-5d9c-x", "10.0.0.7", &json!({}))]);
    let expected = [
        "k8s.deployment.name=cart",
        "k8s.namespace.name=shop",
        "k8s.node.name=n1",
        "k8s.pod.name=cart-5d9c-x",
        "k8s.pod.start_time=2026-01-02T03:04:05Z",
        "k8s.pod.uid=uid-cart-5d9c-x",
        "k8s.pod.ip=10.0.0.7",
    ];
    assert_eq!(marked(&marker, &[], Some("10.0.0.7")), expected);
    assert_eq!(marked(&marker, &[], Some("::ffff:10.0.0.7")), expected);
    assert_eq!(marked(&marker, &[], Some("10.0.0.8")), ["k8s.pod.ip=10.0.0.8"]);
    assert!(marked(&marker, &[], None).is_empty());
}

#[test]
fn what_the_resource_says_itself_stays_and_leads_to_its_pod_first() {
    let pods = [pod("a", "10.0.0.7", &json!({})), pod("b", "10.0.0.8", &json!({}))];
    let marker = marker("{extract: {metadata: [k8s.pod.name, k8s.node.name]}}", &pods);
    let given = [("k8s.pod.uid", "uid-b"), ("k8s.node.name", "own")];
    assert_eq!(
        marked(&marker, &given, Some("10.0.0.7")),
        [
            "k8s.pod.uid=uid-b",
            "k8s.node.name=own",
            "k8s.pod.name=b",
            "k8s.pod.ip=10.0.0.7"
        ]
    );
}

#[test]
fn labels_and_annotations_become_attributes_by_key_and_by_pattern() {
    let marker = marker(
        "{extract: {metadata: [], otel_annotations: true,
            labels: [{tag_name: app.label, key: app}, {key_regex: 'pod-(.*)', tag_name: 'label.$1'}, {key: tier, from: namespace}],
            annotations: [{key: team}]}}",
        &[pod("a", "10.0.0.7", &json!({}))],
    );
    assert_eq!(
        marked(&marker, &[("k8s.namespace.name", "shop")], Some("10.0.0.7")),
        [
            "k8s.namespace.name=shop",
            "app.label=cart",
            "k8s.pod.annotations.team=blue",
            "label.template-hash=5d9c",
            "service.name=cart-service",
            "k8s.pod.ip=10.0.0.7",
            "k8s.namespace.labels.tier=front",
        ]
    );
}

#[test]
fn a_container_is_known_by_its_name_or_its_id() {
    let block = "{extract: {metadata: [container.image.name, container.image.tag, container.id, k8s.container.name]}}";
    let marker = marker(block, &[pod("a", "10.0.0.7", &json!({}))]);
    let main = [
        "container.image.name=registry.local:5000/shop/cart",
        "container.image.tag=1.2",
    ];
    let by_name = marked(&marker, &[("k8s.container.name", "main")], Some("10.0.0.7"));
    assert!(
        main.iter().all(|one| by_name.contains(&(*one).to_owned())),
        "{by_name:?}"
    );
    let by_id = marked(&marker, &[("container.id", "abc")], Some("10.0.0.7"));
    assert!(by_id.contains(&"k8s.container.name=main".to_owned()), "{by_id:?}");
    let side = marked(&marker, &[("k8s.container.name", "side")], Some("10.0.0.7"));
    assert!(
        side.contains(&"container.image.name=envoy".to_owned()),
        "{side:?}"
    );
    assert!(
        !side.iter().any(|one| one.starts_with("container.image.tag")),
        "{side:?}"
    );
}

#[test]
fn all_sources_of_a_way_must_agree_and_a_hosts_address_is_no_pods() {
    let pods = [
        pod("a", "10.0.0.7", &json!({})),
        pod("h", "10.0.0.1", &json!({"spec": {"hostNetwork": true}})),
    ];
    let block = "{extract: {metadata: [k8s.pod.uid]}, pod_association: [
        {sources: [{from: resource_attribute, name: k8s.namespace.name}, {from: resource_attribute, name: k8s.pod.name}]},
        {sources: [{from: connection}]}]}";
    let marker = marker(block, &pods);
    let named = |namespace| [("k8s.namespace.name", namespace), ("k8s.pod.name", "a")];
    assert!(marked(&marker, &named("shop"), None).contains(&"k8s.pod.uid=uid-a".to_owned()));
    assert_eq!(marked(&marker, &named("other"), None).len(), 2);
    assert_eq!(marked(&marker, &[], Some("10.0.0.1")), ["k8s.pod.ip=10.0.0.1"]);
}

#[test]
fn mistakes_are_named() {
    let said = config(
        "{extract: {metadata: [k8s.pod.nam], labels: [{key: a, key_regex: b}], annotations: [{key_regex: '('}]},
          pod_association: [{sources: []}], exclude: {pods: [{name: '['}]}}",
    )
    .unwrap_err()
    .join("\n");
    for part in [
        "extract.metadata[0]: `k8s.pod.nam` is not known",
        "extract.labels[0]: needs one key",
        "extract.annotations[0].key_regex: is no regular expression",
        "pod_association[0].sources: names no source",
        "exclude.pods[0].name: is no regular expression",
    ] {
        assert!(said.contains(part), "{part}: {said}");
    }
}

async fn until(what: &str, mut met: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !met() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn create(client: &Client, name: &str, ip: &str) {
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    let labels = json!({"metadata": {"namespace": "default", "uid": null, "ownerReferences": null}});
    let pod = pod(name, ip, &labels);
    let made = api.create(&PostParams::default(), &pod).await.unwrap();
    let with_status = Pod {
        status: pod.status,
        ..made
    };
    api.replace_status(name, &PostParams::default(), &with_status)
        .await
        .unwrap();
}

#[tokio::test]
async fn follows_the_pods_of_an_api() {
    let state = tempfile::tempdir().unwrap();
    let cluster = LocalCluster::open(LocalClusterOptions::new(state.path())).unwrap();
    let client = cluster.client();
    create(&client, "before", "10.0.0.1").await;
    create(&client, "jaeger-agent", "10.0.0.9").await;
    let processor = K8sAttributes::new(config("{extract: {metadata: [k8s.pod.name]}}").unwrap()).unwrap();
    let (synced, is_synced) = channel::channel(false);
    let marker = Marker {
        rules: processor.rules.clone(),
        ways: processor.ways.clone(),
        index: Arc::default(),
    };
    let watch = Watch {
        client: client.clone(),
        filter: config::Filter {
            labels: vec![config::Selector {
                key: "app".into(),
                value: "cart".into(),
                op: config::Operator::Equals,
            }],
            ..config::Filter::default()
        },
        node: "n1".into(),
        excluded: processor.excluded,
        rules: processor.rules,
        ways: processor.ways,
        index: marker.index.clone(),
        synced,
    };
    let running = tokio::spawn(watch.run());
    until("listed", || *is_synced.borrow()).await;
    let knows =
        |ip: &str, name: &str| marked(&marker, &[], Some(ip)).contains(&format!("k8s.pod.name={name}"));
    assert!(knows("10.0.0.1", "before") && !knows("10.0.0.9", "jaeger-agent"));
    create(&client, "after", "10.0.0.2").await;
    until("a new Pod", || knows("10.0.0.2", "after")).await;
    let api: Api<Pod> = Api::namespaced(client.clone(), "default");
    api.delete("before", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    create(&client, "heir", "10.0.0.3").await;
    until("a later Pod", || knows("10.0.0.3", "heir")).await;
    assert!(
        knows("10.0.0.1", "before"),
        "data of a Pod that is gone still finds it"
    );
    running.abort();
}
