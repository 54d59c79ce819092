//! A Kubernetes API with many Pods, for the allocator alone: it lists and watches Pods, Services and EndpointSlices that
//! are made when they are asked for, so that what is measured is who asks and not who stores.

use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use futures::channel::mpsc::{UnboundedReceiver, UnboundedSender, unbounded};
use futures::{StreamExt, stream};
use http::{Method, Request, Response};
use http_body_util::StreamBody;
use http_body_util::combinators::BoxBody;
use http_body_util::{BodyExt, Full};
use hyper::body::{Frame, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// Endpoints of a slice, as controllers cut them.
const SLICE: usize = 100;
/// Pods of a Service.
const SERVICE: usize = 1000;

/// What is listed and watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Pods,
    Services,
    Slices,
}

impl Kind {
    fn of(path: &str) -> Option<Self> {
        match path {
            "/api/v1/pods" => Some(Kind::Pods),
            "/api/v1/services" => Some(Kind::Services),
            "/apis/discovery.k8s.io/v1/endpointslices" => Some(Kind::Slices),
            _ => None,
        }
    }

    /// How many there are of so many Pods.
    fn count(self, pods: usize) -> usize {
        match self {
            Kind::Pods => pods,
            Kind::Services => pods.div_ceil(SERVICE),
            Kind::Slices => pods.div_ceil(SLICE),
        }
    }

    fn object(self, number: usize, pods: usize) -> String {
        match self {
            Kind::Pods => pod(number),
            Kind::Services => service(number),
            Kind::Slices => slice(number, pods),
        }
    }

    fn list(self) -> (&'static str, &'static str) {
        match self {
            Kind::Pods => ("v1", "PodList"),
            Kind::Services => ("v1", "ServiceList"),
            Kind::Slices => ("discovery.k8s.io/v1", "EndpointSliceList"),
        }
    }
}

fn namespace(service: usize) -> String {
    format!("shop-{}", service % 97)
}

fn address(number: usize) -> String {
    format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255)
}

fn pod(number: usize) -> String {
    let (service, node) = (number / SERVICE, number % 50);
    format!(
        r#"{{"apiVersion":"v1","kind":"Pod","metadata":{{"name":"web-{number}","namespace":"{}","uid":"9f3c1f36-7f6a-4c1e-8f7b-{number:012}","resourceVersion":"1","creationTimestamp":"2026-01-01T00:00:00Z","labels":{{"app":"web-{service}","team":"team-{}","pod-template-hash":"7d4b9c6f5"}},"annotations":{{"example.com/scrape":"true"}},"ownerReferences":[{{"apiVersion":"apps/v1","kind":"ReplicaSet","name":"web-{service}-7d4b9c6f5","uid":"u","controller":true}}]}},"spec":{{"nodeName":"node-{node}","serviceAccountName":"default","containers":[{{"name":"web","image":"registry.example.com/web:1.2.3","ports":[{{"name":"metrics","containerPort":9100,"protocol":"TCP"}}],"resources":{{"limits":{{"cpu":"1","memory":"1Gi"}}}}}}]}},"status":{{"phase":"Running","podIP":"{}","podIPs":[{{"ip":"{}"}}],"hostIP":"10.255.0.{node}","startTime":"2026-01-01T00:00:00Z","conditions":[{{"type":"Ready","status":"True"}}],"containerStatuses":[{{"name":"web","ready":true,"restartCount":0,"image":"registry.example.com/web:1.2.3","imageID":"i","containerID":"containerd://{number:064x}"}}]}}}}"#,
        namespace(service),
        service % 13,
        address(number),
        address(number),
    )
}

fn service(number: usize) -> String {
    format!(
        r#"{{"apiVersion":"v1","kind":"Service","metadata":{{"name":"web-{number}","namespace":"{}","resourceVersion":"1","labels":{{"app":"web-{number}"}}}},"spec":{{"clusterIP":"10.96.0.1","type":"ClusterIP","selector":{{"app":"web-{number}"}},"ports":[{{"name":"metrics","port":9100,"protocol":"TCP"}}]}}}}"#,
        namespace(number)
    )
}

fn slice(number: usize, pods: usize) -> String {
    let service = number * SLICE / SERVICE;
    let space = namespace(service);
    let mut endpoints = String::new();
    for pod in number * SLICE..((number + 1) * SLICE).min(pods) {
        let comma = if endpoints.is_empty() { "" } else { "," };
        let _ = write!(
            endpoints,
            r#"{comma}{{"addresses":["{}"],"conditions":{{"ready":true,"serving":true,"terminating":false}},"nodeName":"node-{}","zone":"a","targetRef":{{"kind":"Pod","namespace":"{space}","name":"web-{pod}"}}}}"#,
            address(pod),
            pod % 50,
        );
    }
    format!(
        r#"{{"apiVersion":"discovery.k8s.io/v1","kind":"EndpointSlice","addressType":"IPv4","metadata":{{"name":"web-{service}-{number}","namespace":"{space}","resourceVersion":"1","labels":{{"kubernetes.io/service-name":"web-{service}"}}}},"endpoints":[{endpoints}],"ports":[{{"name":"metrics","port":9100,"protocol":"TCP"}}]}}"#
    )
}

#[derive(Default)]
struct State {
    pods: usize,
    watches: Vec<(Kind, UnboundedSender<Bytes>)>,
}

/// The API. It serves until the process ends.
#[derive(Clone)]
pub(crate) struct Api {
    state: Arc<Mutex<State>>,
    runtime: Arc<Runtime>,
    pub(crate) port: u16,
}

impl Api {
    /// Serves so many Pods.
    pub(crate) fn start(pods: usize) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(1)
            .enable_all()
            .build()?;
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0"))?;
        let state = State {
            pods,
            watches: Vec::new(),
        };
        let this = Api {
            state: Arc::new(Mutex::new(state)),
            port: listener.local_addr()?.port(),
            runtime: Arc::new(runtime),
        };
        let state = this.state.clone();
        this.runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let state = state.clone();
                tokio::spawn(async move {
                    let service = service_fn(move |request| {
                        let state = state.clone();
                        async move { Ok::<_, Infallible>(answer(&state, request).await) }
                    });
                    let server = hyper::server::conn::http1::Builder::new();
                    let _ = server.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Ok(this)
    }

    /// More Pods, and what the controllers make of them; all who watch are told.
    pub(crate) fn add(&self, more: usize) {
        let mut state = lock(&self.state);
        let (before, after) = (state.pods, state.pods + more);
        state.pods = after;
        state.watches.retain(|(kind, watch)| {
            let from = match kind {
                Kind::Pods => before,
                // The last one may have had room.
                Kind::Services | Kind::Slices => kind.count(before).saturating_sub(1),
            };
            (from..kind.count(after)).all(|number| {
                let change = if number < kind.count(before) {
                    "MODIFIED"
                } else {
                    "ADDED"
                };
                let object = kind.object(number, after);
                let event = format!("{{\"type\":\"{change}\",\"object\":{object}}}\n");
                watch.unbounded_send(event.into()).is_ok()
            })
        });
    }

    /// How `kubectl` would find it.
    pub(crate) fn kubeconfig(&self) -> String {
        format!(
            "apiVersion: v1
kind: Config
clusters: [{{name: bench, cluster: {{server: 'http://127.0.0.1:{}'}}}}]
users: [{{name: bench, user: {{}}}}]
contexts: [{{name: bench, context: {{cluster: bench, user: bench}}}}]
current-context: bench
",
            self.port
        )
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

type Body = BoxBody<Bytes, Infallible>;

fn json(text: String) -> Response<Body> {
    let body = Full::new(Bytes::from(text)).boxed();
    let response = Response::builder().header("content-type", "application/json");
    response.body(body).unwrap_or_default()
}

async fn answer(state: &Mutex<State>, request: Request<Incoming>) -> Response<Body> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    if request.method() == Method::POST {
        // Everything that is asked about is allowed.
        let body = request.into_body().collect().await;
        let body = body.map(|body| body.to_bytes()).unwrap_or_default();
        let mut asked: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
        asked["status"] = serde_json::json!({"allowed": true});
        return json(asked.to_string());
    }
    let Some(kind) = Kind::of(request.uri().path()) else {
        let mut none =
            json(r#"{"kind":"Status","apiVersion":"v1","status":"Failure","code":404}"#.to_owned());
        *none.status_mut() = http::StatusCode::NOT_FOUND;
        return none;
    };
    let given = |key: &str| {
        query
            .split('&')
            .find_map(|pair| pair.strip_prefix(key)?.strip_prefix('='))
    };
    let number = |key: &str| given(key).and_then(|text| text.parse::<usize>().ok());
    if given("watch") == Some("true") {
        let (sender, receiver): (_, UnboundedReceiver<Bytes>) = unbounded();
        lock(state).watches.push((kind, sender));
        let frames = receiver
            .map(|bytes| Ok::<_, Infallible>(Frame::data(bytes)))
            .chain(stream::pending());
        let response = Response::builder().header("content-type", "application/json");
        return response
            .body(BodyExt::boxed(StreamBody::new(frames)))
            .unwrap_or_default();
    }
    let pods = lock(state).pods;
    let (from, all) = (number("continue").unwrap_or(0), kind.count(pods));
    let to = (from + number("limit").unwrap_or(usize::MAX).min(all)).min(all);
    let items: Vec<String> = (from..to).map(|number| kind.object(number, pods)).collect();
    let next = if to < all { to.to_string() } else { String::new() };
    let (version, name) = kind.list();
    json(format!(
        r#"{{"apiVersion":"{version}","kind":"{name}","metadata":{{"resourceVersion":"1","continue":"{next}"}},"items":[{}]}}"#,
        items.join(",")
    ))
}
