//! The runtime over the local cluster's API: manifests in, processes and answers out.
#![allow(clippy::unwrap_used, reason = "in a test the panic is the message")]

use std::fmt::Debug;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, Pod, Service};
use karez_lifecycle::Shutdown;
use karez_local_api::{LocalCluster, LocalClusterOptions};
use karez_local_runtime::{AddressPool, NAMES_FILE, PodAccess, RunError, RuntimeOptions};
use karez_net::Net;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::task::JoinHandle;

const HELPER: &str = env!("CARGO_BIN_EXE_karez-local-runtime-helper");
const DEADLINE: Duration = Duration::from_secs(30);

struct Site {
    client: Client,
    state: PathBuf,
    shutdown: Shutdown,
    running: JoinHandle<Result<(), RunError>>,
}

impl Site {
    fn start(state: &Path) -> Self {
        let cluster = open(state);
        let client = cluster.client();
        let addresses = AddressPool::choose(state).unwrap();
        let shutdown = Shutdown::new();
        let options = RuntimeOptions {
            client: client.clone(),
            state: state.to_path_buf(),
            node_name: "here".into(),
            external: addresses.first(),
            addresses,
            binary: HELPER.into(),
            kubeconfig_for_pods: PodAccess::None,
            controllers: true,
        };
        let running = tokio::spawn(karez_local_runtime::run(options, shutdown.clone()));
        Self {
            client,
            state: state.to_path_buf(),
            shutdown,
            running,
        }
    }

    async fn stop(self) {
        self.shutdown.trigger();
        tokio::time::timeout(DEADLINE, self.running)
            .await
            .expect("the runtime stops")
            .unwrap()
            .unwrap();
    }

    fn api<K>(&self) -> Api<K>
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>,
    {
        Api::namespaced(self.client.clone(), "default")
    }

    async fn create<K>(&self, value: Value)
    where
        K: kube::Resource<Scope = kube::core::NamespaceResourceScope, DynamicType = ()>
            + serde::Serialize
            + serde::de::DeserializeOwned
            + Clone
            + Debug,
    {
        let object: K = serde_json::from_value(value).unwrap();
        self.api::<K>()
            .create(&PostParams::default(), &object)
            .await
            .unwrap();
    }

    async fn pods(&self) -> Vec<Pod> {
        self.api::<Pod>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
    }

    /// What the Service answers, found by its name as every program of a site finds it.
    async fn ask(&self, name: &str, port: u16) -> Result<String, String> {
        let net = Net::builder().names_file(self.state.join(NAMES_FILE)).build();
        let mut stream = net
            .connect_tcp(name, port)
            .await
            .map_err(|error| error.to_string())?;
        let sent = stream.write_all(b"GET / HTTP/1.1\r\n\r\n").await;
        sent.map_err(|error| error.to_string())?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .await
            .map_err(|error| error.to_string())?;
        Ok(answer.rsplit("\r\n").next().unwrap_or_default().to_owned())
    }
}

/// Opens the state folder; what an earlier site spawned may hold its lock for a moment yet.
fn open(state: &Path) -> std::sync::Arc<LocalCluster> {
    let end = Instant::now() + DEADLINE;
    loop {
        match LocalCluster::open(LocalClusterOptions::new(state)) {
            Ok(cluster) => return cluster,
            Err(error) => assert!(Instant::now() < end, "{error}"),
        }
        std::thread::yield_now();
    }
}

/// Asks until the answer is the wanted one; panics with the last answer at the deadline.
async fn until<T: Debug, F: Future<Output = T>>(
    what: &str,
    ask: impl Fn() -> F,
    wanted: impl Fn(&T) -> bool,
) -> T {
    let end = Instant::now() + DEADLINE;
    loop {
        let answer = ask().await;
        if wanted(&answer) {
            return answer;
        }
        assert!(Instant::now() < end, "{what}: {answer:#?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn greeter(replicas: i32, greeting: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "greeter"},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": "greeter"}},
            "template": {"metadata": {"labels": {"app": "greeter"}}, "spec": {
                "containers": [{"name": "main", "image": "karez:test", "command": ["karez"],
                    "args": ["serve", "$(PORT)", "/conf/greeting"],
                    "env": [{"name": "PORT", "value": "8080"}, {"name": "GREETER", "value": greeting}],
                    "ports": [{"name": "http", "containerPort": 8080}],
                    "readinessProbe": {"httpGet": {"path": "/", "port": "http"}, "periodSeconds": 1},
                    "volumeMounts": [{"name": "conf", "mountPath": "/conf"}]}],
                "volumes": [{"name": "conf", "configMap": {"name": "greeting"}}]}}}
    })
}

fn service() -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "greeter"},
        "spec": {"type": "LoadBalancer", "selector": {"app": "greeter"}, "ports": [{"port": 80, "targetPort": "http"}]}})
}

fn greeting(text: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "greeting"}, "data": {"greeting": text}})
}

fn is_available(deployment: &Deployment, replicas: i32) -> bool {
    let status = deployment.status.clone().unwrap_or_default();
    status.available_replicas == Some(replicas)
        && status.updated_replicas == Some(replicas)
        && status.replicas == Some(replicas)
        && status.observed_generation == deployment.metadata.generation
}

async fn rolled_out(site: &Site, replicas: i32) {
    let api = site.api::<Deployment>();
    let get = || async { api.get("greeter").await.unwrap() };
    until("the Deployment is rolled out", get, |deployment| {
        is_available(deployment, replicas)
    })
    .await;
}

fn is_running(id: u32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
    stat.rsplit(") ")
        .next()
        .and_then(|rest| rest.chars().next())
        .is_some_and(|state| !matches!(state, 'Z' | 'X'))
}

fn process_of(pod: &Pod) -> Option<u32> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status
        .container_id
        .as_ref()?
        .strip_prefix("process://")?
        .parse()
        .ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_deployment_serves_by_name_follows_its_configuration_and_leaves_nothing() {
    let state = tempfile::tempdir().unwrap();
    let site = Site::start(state.path());
    site.create::<Service>(service()).await;
    site.create::<Deployment>(greeter(1, "first")).await;
    let waiting = |pods: &Vec<Pod>| {
        let text = serde_json::to_string(pods).unwrap();
        text.contains("CreateContainerConfigError") && text.contains(r#"ConfigMap \"greeting\" not found"#)
    };
    until("the Pod says what it lacks", || site.pods(), waiting).await;

    site.create::<ConfigMap>(greeting("hello")).await;
    rolled_out(&site, 1).await;
    let hello = |answer: &Result<String, String>| answer.as_deref() == Ok("hello");
    let _ = until(
        "the Service answers",
        || site.ask("greeter.default.svc", 80),
        hello,
    )
    .await;
    let nodes: Api<Node> = Api::all(site.client.clone());
    assert!(
        nodes
            .get("here")
            .await
            .unwrap()
            .status
            .unwrap()
            .conditions
            .unwrap()
            .iter()
            .any(|one| one.type_ == "Ready")
    );
    let ingress = site
        .api::<Service>()
        .get("greeter")
        .await
        .unwrap()
        .status
        .unwrap()
        .load_balancer
        .unwrap()
        .ingress;
    assert!(ingress.unwrap()[0].ip.as_ref().unwrap().ends_with(".1"));

    let change = Patch::Merge(greeting("changed"));
    site.api::<ConfigMap>()
        .patch("greeting", &PatchParams::default(), &change)
        .await
        .unwrap();
    let changed = |answer: &Result<String, String>| answer.as_deref() == Ok("changed");
    let _ = until("the mounted file follows", || site.ask("greeter", 80), changed).await;

    let first = site.pods().await[0].name_any();
    let log = state.path().join("logs/default").join(&first).join("main.log");
    assert!(std::fs::read_to_string(log).unwrap().starts_with("first serves"));
    let change = Patch::Merge(greeter(2, "second"));
    site.api::<Deployment>()
        .patch("greeter", &PatchParams::default(), &change)
        .await
        .unwrap();
    rolled_out(&site, 2).await;
    let two = |pods: &Vec<Pod>| pods.len() == 2 && pods.iter().all(|pod| pod.name_any() != first);
    let pods = until("two new Pods", || site.pods(), two).await;
    let processes: Vec<u32> = pods.iter().filter_map(process_of).collect();
    assert!(processes.len() == 2 && processes.iter().all(|id| is_running(*id)));

    site.api::<Deployment>()
        .delete("greeter", &DeleteParams::background())
        .await
        .unwrap();
    until("the Pods go", || site.pods(), Vec::is_empty).await;
    assert!(!processes.iter().any(|id| is_running(*id)));
    let error = |answer: &Result<String, String>| {
        answer
            .as_ref()
            .is_err_and(|text| text.contains("no ready endpoint"))
    };
    let _ = until("the Service is empty", || site.ask("greeter", 80), error).await;
    let folders = || async { std::fs::read_dir(state.path().join("pods")).unwrap().count() };
    until("their folders go", folders, |count| *count == 0).await;
    site.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_site_that_stops_ends_its_processes_and_starts_them_again() {
    let state = tempfile::tempdir().unwrap();
    let site = Site::start(state.path());
    site.create::<ConfigMap>(greeting("hello")).await;
    site.create::<Deployment>(greeter(1, "x")).await;
    rolled_out(&site, 1).await;
    let before = site.pods().await.remove(0);
    let process = process_of(&before).unwrap();
    site.stop().await;
    assert!(!is_running(process));

    let site = Site::start(state.path());
    let again = |pods: &Vec<Pod>| {
        pods.len() == 1 && process_of(&pods[0]).is_some_and(|id| id != process && is_running(id))
    };
    let after = until("the Pod runs again", || site.pods(), again).await.remove(0);
    assert_eq!(before.uid(), after.uid());
    let address = |pod: &Pod| pod.status.clone().unwrap().pod_ip;
    assert_eq!(address(&before), address(&after), "a Pod keeps its address");
    site.stop().await;
}

fn pod(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_fails_is_told() {
    let state = tempfile::tempdir().unwrap();
    let site = Site::start(state.path());
    let container =
        |args: &[&str]| json!({"name": "main", "image": "karez:test", "command": ["karez"], "args": args});
    site.create::<Pod>(pod("loops", json!({"containers": [container(&["exit", "3"])]})))
        .await;
    let once = json!({"restartPolicy": "Never", "containers": [container(&["exit", "0"])]});
    site.create::<Pod>(pod("once", once)).await;
    site.create::<Pod>(pod(
        "foreign",
        json!({"containers": [{"name": "main", "image": "nginx:1"}]}),
    ))
    .await;
    let beside = json!({"containers": [{"name": "main", "image": "nginx:1"},
        {"name": "otc-container", "image": "otel/opentelemetry-collector:1", "args": ["x"]}]});
    site.create::<Pod>(pod("beside", beside)).await;

    let api = site.api::<Pod>();
    let status = |name: &'static str| {
        let api = api.clone();
        move || {
            let api = api.clone();
            async move { serde_json::to_value(api.get(name).await.unwrap().status).unwrap() }
        }
    };
    let text = |value: &Value, pointer: &str| {
        value
            .pointer(pointer)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let reason = "/containerStatuses/0/state/waiting/reason";
    let loops = until("the crash loop shows", status("loops"), |value| {
        text(value, reason) == "CrashLoopBackOff"
    })
    .await;
    assert_eq!(
        loops["containerStatuses"][0]["lastState"]["terminated"]["exitCode"],
        3
    );
    assert_eq!(text(&loops, "/phase"), "Running");
    let done = until("the one run shows", status("once"), |value| {
        text(value, "/phase") == "Succeeded"
    })
    .await;
    assert_eq!(
        done["containerStatuses"][0]["state"]["terminated"]["reason"],
        "Completed"
    );
    let foreign = until("the foreign image shows", status("foreign"), |value| {
        text(value, reason) == "NotRunByKarez"
    })
    .await;
    assert_eq!(text(&foreign, "/phase"), "Pending");
    assert!(text(&foreign, "/message").contains("\"nginx:1\" is not one Karez runs"));
    let ran = "/containerStatuses/1/restartCount";
    let beside = until("the sidecar runs", status("beside"), |value| {
        value.pointer(ran).is_some_and(|n| n.as_i64() > Some(0))
    })
    .await;
    assert_eq!(text(&beside, reason), "NotRunByKarez");
    let events = || async {
        site.api::<Event>()
            .list(&ListParams::default())
            .await
            .unwrap()
            .items
    };
    until("an Event tells of the start", events, |all| {
        all.iter().any(|one| {
            one.reason.as_deref() == Some("Started") && one.involved_object.name.as_deref() == Some("loops")
        })
    })
    .await;
    site.stop().await;
}

const PARENT: &str = "KAREZ_TEST_PARENT";

/// Not a test of its own: the process that the next one starts and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parent_that_is_killed() {
    let Some(state) = std::env::var_os(PARENT).map(PathBuf::from) else {
        return;
    };
    let site = Site::start(&state);
    site.create::<ConfigMap>(greeting("hello")).await;
    site.create::<Deployment>(greeter(1, "x")).await;
    std::future::pending::<()>().await;
}

/// The process of the only Pod, from the state folder.
fn process_in(state: &Path) -> Option<u32> {
    let mut folder = std::fs::read_dir(state.join("objects/core/pods/default"))
        .ok()?
        .flatten();
    // Not what is being written beside it.
    let written = folder.find(|entry| entry.path().extension().is_some_and(|end| end == "yaml"))?;
    let text = std::fs::read_to_string(written.path()).ok()?;
    let (_, after) = text.split_once("process://")?;
    let digits: String = after.chars().take_while(char::is_ascii_digit).collect();
    digits.parse().ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_with_its_children_gone_and_started_again() {
    let state = tempfile::tempdir().unwrap();
    let mut parent = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "parent_that_is_killed"])
        .env(PARENT, state.path())
        .spawn()
        .unwrap();
    let path = state.path();
    let id = until("a child runs", || async { process_in(path) }, Option::is_some)
        .await
        .unwrap();
    assert!(is_running(id));
    parent.kill().unwrap();
    parent.wait().unwrap();
    until(
        "the child ends by itself",
        || async { is_running(id) },
        |running| !running,
    )
    .await;
    let site = Site::start(path);
    // What the API says first is what it was told last, before the kill.
    let again = |pods: &Vec<Pod>| {
        let status = pods
            .first()
            .and_then(|pod| pod.status.clone()?.container_statuses?.into_iter().next());
        let restarted = status.is_some_and(|status| status.restart_count > 0 && status.ready);
        restarted && pods.len() == 1 && process_of(&pods[0]).is_some_and(|new| new != id && is_running(new))
    };
    until("the Pod runs again", || site.pods(), again).await;
    rolled_out(&site, 1).await;
    site.stop().await;
}
