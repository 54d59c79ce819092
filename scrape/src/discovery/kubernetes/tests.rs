use std::collections::BTreeSet;
use std::sync::Mutex as StdMutex;

use axum::Router;
use axum::body::Body;
use axum::extract::{Query, State};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use serde_json::{Value, json};

use super::super::Discovery;
use super::*;
use objects::Maker;

fn meta(name: &str, labels: &Value) -> Value {
    json!({"name": name, "namespace": "ns", "uid": "u", "resourceVersion": "7", "labels": labels,
        "annotations": {"c/d": "e"}, "finalizers": ["f"], "managedFields": [{"manager": "x", "fieldsV1": {"f:a": {}}}],
        "ownerReferences": [{"kind": "Other", "name": "o"}, {"kind": "ReplicaSet", "name": "r", "controller": true}]})
}

fn pod_object(name: &str, ip: &str, team: &str) -> Value {
    let container = |name: &str, ports: Value| json!({"name": name, "image": "i", "env": [{"name": "E", "value": "v"}], "ports": ports});
    let ports = json!([{"name": "m", "containerPort": 9090, "protocol": "TCP"}, {"containerPort": 9091, "protocol": "UDP"}]);
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": meta(name, &json!({"team": team})),
        "spec": {"nodeName": "n", "volumes": [{}], "containers": [container("c", ports), container("d", Value::Null)],
            "initContainers": [container("i", json!([{"name": "first", "containerPort": 9090, "protocol": "TCP"}]))]},
        "status": {"podIP": ip, "hostIP": "10.0.0.2", "phase": "Running",
            "conditions": [{"type": "Initialized", "status": "True"}, {"type": "Ready", "status": "False"}],
            "containerStatuses": [{"name": "c", "containerID": "x://c"}]}})
}

fn slice_object(pods: &[(&str, &str)]) -> Value {
    let endpoint = |(name, ip): &(&str, &str)| {
        json!({"addresses": [ip], "nodeName": "n", "zone": "z", "conditions": {"ready": true, "serving": null},
            "targetRef": {"kind": "Pod", "namespace": "ns", "name": name}})
    };
    let endpoints: Vec<Value> = pods.iter().map(endpoint).collect();
    json!({"metadata": meta("s-1", &json!({"kubernetes.io/service-name": "s"})), "addressType": "IPv4",
        "endpoints": endpoints, "ports": [{"name": "m", "port": 9090, "protocol": "TCP"}]})
}

/// What is kept of an object.
macro_rules! facts {
    ($object:expr, $kind:ident, $facts:ident) => {{
        let text = $object.to_string();
        let object: raw::$kind<'_> = serde_json::from_str(&text).unwrap();
        Maker::new(true, true).$facts(&object)
    }};
}

fn shown(labels: &Labels) -> Vec<String> {
    let labels = labels.iter().filter(|(name, _)| !name.contains("present_"));
    labels
        .map(|(name, value)| format!("{}={value}", name.trim_start_matches("__meta_kubernetes_")))
        .collect()
}

#[test]
fn a_pod_is_a_target_for_each_port() {
    let Facts::Group(part) = facts!(pod_object("p", "10.0.0.1", "a"), Pod, pod) else {
        panic!("no group");
    };
    let expected = [
        "namespace=ns",
        "pod_annotation_c_d=e",
        "pod_controller_kind=ReplicaSet",
        "pod_controller_name=r",
        "pod_host_ip=10.0.0.2",
        "pod_ip=10.0.0.1",
        "pod_label_team=a",
        "pod_name=p",
        "pod_node_name=n",
        "pod_phase=Running",
        "pod_ready=false",
        "pod_uid=u",
    ];
    assert_eq!(shown(&part.labels), expected);
    assert_eq!(part.labels.get("__meta_kubernetes_pod_labelpresent_team"), "true");
    let targets: Vec<Vec<String>> = part.targets.iter().map(shown).collect();
    let expected = [
        "__address__=10.0.0.1:9090",
        "pod_container_id=x://c",
        "pod_container_image=i",
        "pod_container_init=false",
        "pod_container_name=c",
        "pod_container_port_name=m",
        "pod_container_port_number=9090",
        "pod_container_port_protocol=TCP",
    ];
    assert_eq!(targets[0], expected);
    assert_eq!(targets[2][0], "__address__=10.0.0.1", "a container without ports");
    assert_eq!(targets[3][2], "pod_container_init=true");
    assert_eq!(part.attached, ["namespace/ns".into(), "node/n".into()]);
    let starting = facts!(pod_object("p", "", "a"), Pod, pod);
    assert_eq!(
        starting,
        Facts::Group(Part::default()),
        "without an address it is no target"
    );
}

fn job(role: Role) -> karez_scrape_config::ScrapeConfig {
    let text = format!("scrape_configs: [{{job_name: a, kubernetes_sd_configs: [{{role: {role:?}}}]}}]")
        .to_lowercase();
    let node = karez_document::yaml::parse(&text, &karez_document::Origin::file("p.yaml"))
        .unwrap()
        .remove(0);
    karez_scrape_config::read(
        &node,
        "",
        karez_scrape_config::Options::default(),
        &mut Vec::new(),
    )
    .remove(0)
}

fn config(role: Role) -> KubernetesDiscovery {
    match job(role).discovery.remove(0) {
        karez_scrape_config::DiscoveryConfig::Kubernetes(config) => config,
        other => panic!("{other:?}"),
    }
}

/// What is known of slices when three watches tell; what was given.
struct World {
    known: Known,
    sink: Sink,
    health: Health,
}

impl World {
    fn new() -> Self {
        let config = config(Role::EndpointSlice);
        let uri = "http://127.0.0.1:1".parse().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let _inside = runtime.enter();
        let client = kube::Client::try_from(kube::Config::new(uri)).unwrap();
        let sink = Sink {
            shared: Arc::default(),
            provider: 0,
            job: "a".into(),
        };
        World {
            known: Known::new(&config, &watches(&config, &client, &[String::new()])),
            sink,
            health: Health::default(),
        }
    }

    fn hear(&mut self, watch: usize, told: Told) {
        self.known.hear(watch, told, &self.sink, &mut self.health);
    }

    fn lists(&mut self, watch: usize, objects: Vec<(&str, Facts)>) {
        self.hear(watch, Told::Begins);
        let objects = objects.into_iter().map(|(key, facts)| (key.into(), Some(facts)));
        self.hear(watch, Told::Objects(objects.collect()));
        self.hear(watch, Told::Ends);
    }

    fn given(&mut self) -> Vec<(Key, Option<Arc<Group>>)> {
        self.known.give(&self.sink);
        let waiting = std::mem::take(&mut *self.sink.shared.waiting());
        waiting
            .into_iter()
            .map(|((_, key), group)| (key, group))
            .collect()
    }
}

#[test]
fn an_endpoint_has_the_labels_of_its_pod_and_service_and_changes_with_them() {
    let mut world = World::new();
    let pod = |team: &str| facts!(pod_object("p", "10.0.0.1", team), Pod, behind);
    let service = json!({"metadata": meta("s", &json!({"app": "x"}))});
    let slice = slice_object(&[("p", "10.0.0.1"), ("missing", "10.0.0.9")]);
    world.lists(
        0,
        vec![("endpointslice/ns/s-1", facts!(slice, EndpointSlice, slice))],
    );
    world.lists(
        2,
        vec![
            ("pod/ns/p", pod("a")),
            ("pod/ns/q", facts!(pod_object("q", "10.0.0.3", "b"), Pod, behind)),
        ],
    );
    assert_eq!(world.given(), [], "the Services are not known yet");
    world.lists(1, vec![("svc/ns/s", facts!(service, Service, service_labels))]);
    let given = world.given();
    let group = given[0].1.clone().unwrap();
    assert_eq!((given.len(), &*given[0].0), (1, "endpointslice/ns/s-1"));
    assert_eq!(group.labels.get("__meta_kubernetes_service_label_app"), "x");
    let addresses: Vec<&str> = group.targets.iter().map(|target| target.get(ADDRESS)).collect();
    assert_eq!(addresses, ["10.0.0.1:9090", "10.0.0.9:9090", "10.0.0.1:9091"]);
    let first = &group.targets[0];
    // The container that starts first has the port, too, and comes last.
    assert_eq!(first.get("__meta_kubernetes_pod_container_name"), "i");
    assert_eq!(first.get("__meta_kubernetes_pod_label_team"), "a");
    assert_eq!(first.get("__meta_kubernetes_endpointslice_endpoint_zone"), "z");
    assert_eq!(group.targets[1].get("__meta_kubernetes_pod_name"), "");

    let change = |key: &str, facts: Option<Facts>| Told::Objects(vec![(key.into(), facts)]);
    world.hear(2, change("pod/ns/p", Some(pod("a"))));
    assert_eq!(world.given(), [], "nothing that labels are made of has changed");
    world.hear(2, change("pod/ns/p", Some(pod("z"))));
    world.hear(1, change("svc/ns/s", None));
    let given = world.given();
    let group = given[0].1.clone().unwrap();
    assert_eq!(
        (
            given.len(),
            group.labels.get("__meta_kubernetes_service_label_app")
        ),
        (1, "")
    );
    assert_eq!(group.targets[0].get("__meta_kubernetes_pod_label_team"), "z");

    // A new list without the Pod, and one without the slice.
    world.lists(2, vec![]);
    assert_eq!(world.given()[0].1.clone().unwrap().targets.len(), 2);
    world.lists(0, vec![]);
    assert_eq!(world.given(), [("endpointslice/ns/s-1".into(), None)]);
    assert!(world.known.objects.is_empty(), "nothing is kept of what is gone");
}

/// An API that lists Pods in pages of two and ends its watches with an error when it is told to.
#[derive(Default)]
struct Cluster {
    pods: BTreeSet<usize>,
    watches: Vec<futures::channel::mpsc::UnboundedSender<String>>,
    asked: Vec<String>,
}

type Served = Arc<StdMutex<Cluster>>;

async fn pods(State(cluster): State<Served>, Query(query): Query<BTreeMap<String, String>>) -> Response {
    let mut cluster = cluster.lock().unwrap();
    let pod = |number: &usize| pod_object(&format!("p{number}"), &format!("10.0.0.{number}"), "a");
    if query.contains_key("watch") {
        cluster
            .asked
            .push(format!("watch from {}", query["resourceVersion"]));
        let (tell, told) = futures::channel::mpsc::unbounded();
        cluster.watches.push(tell);
        let told = futures::StreamExt::map(told, Ok::<_, std::convert::Infallible>);
        return Body::from_stream(told).into_response();
    }
    cluster.asked.push(format!(
        "list {}",
        query.get("labelSelector").cloned().unwrap_or_default()
    ));
    let from: usize = query.get("continue").map_or(0, |from| from.parse().unwrap());
    let items: Vec<Value> = cluster.pods.iter().skip(from).take(2).map(pod).collect();
    let more = if from + 2 < cluster.pods.len() {
        (from + 2).to_string()
    } else {
        String::new()
    };
    json!({"kind": "PodList", "metadata": {"resourceVersion": "5", "continue": more}, "items": items})
        .to_string()
        .into_response()
}

async fn follow(discovery: &Discovery, known: &mut BTreeSet<String>, expected: &[&str]) {
    let expected: BTreeSet<String> = expected.iter().map(|name| (*name).to_owned()).collect();
    let changes = async {
        while *known != expected {
            for change in discovery.changes().await {
                match change.group {
                    Some(_) => known.insert(change.source.to_string()),
                    None => known.remove(&*change.source),
                };
            }
        }
    };
    let followed = tokio::time::timeout(Duration::from_secs(30), changes).await;
    assert!(followed.is_ok(), "{known:?} is not {expected:?}");
}

#[tokio::test]
async fn objects_are_listed_in_pages_followed_and_listed_again_when_the_api_forgot() {
    let served = Served::default();
    served.lock().unwrap().pods.extend([1, 2, 3, 4, 5]);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/api/v1/namespaces/ns/pods", get(pods))
        .with_state(served.clone());
    tokio::spawn(async move { axum::serve(listener, router).await });
    let mut config = config(Role::Pod);
    config.api_server = format!("http://{address}");
    config.namespaces = vec!["ns".to_owned()];
    config.selectors = vec![karez_scrape_config::discovery::Selector {
        role: Role::Pod,
        label: "a=b,c".to_owned(),
        field: String::new(),
    }];
    let mut scrape = job(Role::Pod);
    scrape.discovery = vec![karez_scrape_config::DiscoveryConfig::Kubernetes(config)];
    let cx = Context {
        net: karez_net::Net::system(),
        kubernetes: None,
    };
    let discovery = Discovery::start(&[scrape], &cx);
    let mut known = BTreeSet::new();
    let all = ["pod/ns/p1", "pod/ns/p2", "pod/ns/p3", "pod/ns/p4", "pod/ns/p5"];
    follow(&discovery, &mut known, &all).await;

    let tell = |lines: &[Value]| {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        served
            .lock()
            .unwrap()
            .watches
            .last()
            .unwrap()
            .unbounded_send(text)
            .unwrap();
    };
    let watched = |count: usize| {
        let served = served.clone();
        async move {
            while served.lock().unwrap().watches.len() < count {
                tokio::task::yield_now().await;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(30), watched(1))
        .await
        .unwrap();
    let event = |kind: &str, object: Value| json!({"type": kind, "object": object});
    tell(&[
        event("ADDED", pod_object("p6", "10.0.0.6", "a")),
        event("DELETED", pod_object("p1", "10.0.0.1", "a")),
        event("BOOKMARK", json!({"metadata": {"resourceVersion": "9"}})),
    ]);
    let mut expected = all.to_vec();
    expected.retain(|name| *name != "pod/ns/p1");
    expected.push("pod/ns/p6");
    follow(&discovery, &mut known, &expected).await;

    // It has forgotten what was before; meanwhile others went and came.
    served.lock().unwrap().pods = BTreeSet::from([2, 7]);
    tell(&[event(
        "ERROR",
        json!({"kind": "Status", "status": "Failure", "message": "too old", "code": 410}),
    )]);
    follow(&discovery, &mut known, &["pod/ns/p2", "pod/ns/p7"]).await;
    tokio::time::timeout(Duration::from_secs(30), watched(2))
        .await
        .unwrap();
    let asked = served.lock().unwrap().asked.clone();
    let lists = asked.iter().filter(|asked| *asked == "list a=b,c").count();
    assert_eq!(
        (lists, asked.last().unwrap().as_str()),
        (4, "watch from 5"),
        "{asked:?}"
    );
}
