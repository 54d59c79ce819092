//! `demo`: two sites on this machine, and spans from one to the other.
//!
//! ```text
//! jaeger compact, UDP ─► edge sidecar ─► otel-liked-collector:4317 ═ link ═► public collector ─► trace store
//! ```
//! The demo is a user of two local sites: it writes manifests into directories, reads a Secret as a person would,
//! sends spans and asks the query API. Each step has a deadline, and says what it waits for when that passes.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::{Pod, Secret};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use karez_collector::telemetrygen::{SendOptions, jaeger_compact};
use karez_lifecycle::Shutdown;
use kube::api::ListParams;
use kube::{Api, Client};

use crate::console::{Console, show_duration};
use crate::http;
use crate::run::{LocalSite, SiteOptions, StartError};
use crate::status::read::Reader;
use crate::token;

/// The example that the demo runs: file names and contents, as in `deploy/examples/two-sites`.
const PUBLIC: [(&str, &str); 5] = [
    (
        "10-site.yaml",
        include_str!("../../deploy/examples/two-sites/public/10-site.yaml"),
    ),
    (
        "20-token-request.yaml",
        include_str!("../../deploy/examples/two-sites/public/20-token-request.yaml"),
    ),
    (
        "30-trace-store.yaml",
        include_str!("../../deploy/examples/two-sites/public/30-trace-store.yaml"),
    ),
    (
        "40-collector.yaml",
        include_str!("../../deploy/examples/two-sites/public/40-collector.yaml"),
    ),
    (
        "50-exposed.yaml",
        include_str!("../../deploy/examples/two-sites/public/50-exposed.yaml"),
    ),
];
const EDGE: [(&str, &str); 3] = [
    (
        "10-site.yaml",
        include_str!("../../deploy/examples/two-sites/edge/10-site.yaml"),
    ),
    (
        "20-collector.yaml",
        include_str!("../../deploy/examples/two-sites/edge/20-collector.yaml"),
    ),
    (
        "30-application.yaml",
        include_str!("../../deploy/examples/two-sites/edge/30-application.yaml"),
    ),
];

const NAMESPACE: &str = "default";
const TOKEN: &str = "edge-link";
const ADDRESS: &str = "otel-liked-collector";
const QUERY: &str = "traces-query";
const QUERY_PORT: u16 = 16686;
const AGENT_PORT: u16 = 6831;
const HEALTH_PORT: u16 = 13133;
const APPLICATION_LABEL: &str = "app=shop";
const GATEWAY_LABEL: &str = "app.kubernetes.io/name=gateway-collector";
const TRACES: usize = 10;
const SPANS: usize = 2 * TRACES;
/// How long a step may take: far more than any needs on a loaded machine.
const DEADLINE: Duration = Duration::from_secs(30);
/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(50);

/// What the demo is told.
#[derive(Debug, Clone)]
pub struct DemoOptions {
    /// Leave as soon as the outcome is known.
    pub exit: bool,
    /// Keep the state here.
    pub state: Option<PathBuf>,
}

/// Why the demo did not get there.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// A folder or file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// A site does not start.
    #[error("the {site} site does not start: {source}")]
    Start {
        /// Which.
        site: &'static str,
        /// Why.
        #[source]
        source: StartError,
    },
    /// A step took too long.
    #[error("{step}: not reached within {} s; {state}", DEADLINE.as_secs())]
    Deadline {
        /// What was waited for.
        step: &'static str,
        /// What was seen last.
        state: String,
    },
    /// The spans could not be sent.
    #[error("cannot send spans: {0}")]
    Send(#[from] karez_collector::telemetrygen::SendError),
    /// Someone asked to stop.
    #[error("interrupted")]
    Interrupted,
}

/// What a look at a condition gives: the thing waited for, or words on how it is.
type Look<T> = Result<T, String>;

/// Runs the demo.
///
/// # Errors
/// With the step that was not reached.
pub async fn run(options: DemoOptions, console: Console, shutdown: Shutdown) -> Result<(), DemoError> {
    let folder = Folder::make(options.state.as_deref())?;
    let started = Instant::now();
    let mut sites = Vec::new();
    let outcome = tokio::select! {
        outcome = walk(&folder, &console, &mut sites, started) => outcome,
        () = shutdown.triggered() => Err(DemoError::Interrupted),
    };
    if outcome.is_ok() && !options.exit {
        console.line("Press Ctrl-C to stop both sites.");
        shutdown.triggered().await;
    }
    for site in sites {
        site.stop().await;
    }
    if outcome.is_err() && options.state.is_none() {
        console.line("The sites' state is gone with the demo; `karez demo --state DIR` keeps it, with the programs' logs.");
    }
    match outcome {
        // Ctrl-C while it starts is no failure of the demo.
        Err(DemoError::Interrupted) if !options.exit => Ok(()),
        outcome => outcome,
    }
}

/// The folder of both sites: a temporary one that goes with the value, or one that stays.
struct Folder {
    path: PathBuf,
    _temporary: Option<tempfile::TempDir>,
}

impl Folder {
    fn make(state: Option<&Path>) -> Result<Folder, DemoError> {
        let folder = match state {
            Some(path) => Folder {
                path: path.to_owned(),
                _temporary: None,
            },
            None => {
                let made = tempfile::Builder::new().prefix("karez-demo-").tempdir();
                let made = made.map_err(|source| DemoError::Write {
                    path: std::env::temp_dir(),
                    source,
                })?;
                Folder {
                    path: made.path().to_owned(),
                    _temporary: Some(made),
                }
            }
        };
        write_files(&folder.path.join("public"), &PUBLIC)?;
        write_files(&folder.path.join("edge"), &EDGE)?;
        Ok(folder)
    }
}

fn write_files(folder: &Path, files: &[(&str, &str)]) -> Result<(), DemoError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| DemoError::Write { path, source }
    };
    std::fs::create_dir_all(folder).map_err(failed(folder))?;
    for (name, text) in files {
        let path = folder.join(name);
        std::fs::write(&path, text).map_err(failed(&path))?;
    }
    Ok(())
}

/// All steps; sites that were started are in `sites`, however it ends.
async fn walk(
    folder: &Folder,
    console: &Console,
    sites: &mut Vec<LocalSite>,
    started: Instant,
) -> Result<(), DemoError> {
    let steps = Steps { console };
    let begun = Instant::now();
    let (public, edge) = tokio::join!(start(folder, console, "public"), start(folder, console, "edge"));
    let mut failure = None;
    for site in [public, edge] {
        match site {
            Ok(site) => sites.push(site),
            Err(error) => failure = Some(error),
        }
    }
    if let Some(error) = failure {
        return Err(error);
    }
    let [public, edge] = sites.as_slice() else {
        return Err(DemoError::Interrupted);
    };
    steps.reached("two sites started, each with a Kubernetes API of its own", begun);

    let token = steps
        .wait("the public site fills the token", || filled(&public.client))
        .await?;
    let file = folder.path.join("edge").join("90-edge-link.yaml");
    token::write_private(&file, &token).map_err(|source| DemoError::Write { path: file, source })?;
    steps
        .wait("the edge links to the public site with it", || {
            linked(&edge.client)
        })
        .await?;
    steps
        .wait(
            "the virtual address otel-liked-collector is there at the edge",
            || offered(&edge.client),
        )
        .await?;
    let query = steps
        .wait("the public trace store answers", || store(&public.client))
        .await?;
    steps
        .wait("the public collector runs", || {
            healthy(&public.client, GATEWAY_LABEL)
        })
        .await?;
    let edge_collector = steps.wait("the edge collector runs as a sidecar", || {
        healthy(&edge.client, APPLICATION_LABEL)
    });
    let agent = SocketAddr::new(edge_collector.await?, AGENT_PORT);

    let begun = Instant::now();
    let ids = jaeger_compact(SendOptions {
        target: agent,
        traces: TRACES,
        service: "karez-demo".into(),
    })
    .await?;
    steps.reached(
        &format!("{SPANS} spans in {TRACES} traces sent to udp {agent} at the edge"),
        begun,
    );
    steps
        .wait("the spans are in the public trace store", || arrived(query, &ids))
        .await?;
    console.good(&format!(
        "{SPANS} of {SPANS} spans, {} after the start",
        show_duration(started.elapsed())
    ));
    finale(console, public, edge, query).await;
    Ok(())
}

async fn start(folder: &Folder, console: &Console, name: &'static str) -> Result<LocalSite, DemoError> {
    let options = SiteOptions {
        directory: folder.path.join(name),
        state: Some(folder.path.join(format!("{name}-state"))),
        name: Some(name.to_owned()),
        host: None,
        namespace: NAMESPACE.to_owned(),
    };
    let site = LocalSite::start(options, console.quiet(name)).await;
    site.map_err(|source| DemoError::Start { site: name, source })
}

/// Prints steps, and waits for what they need.
struct Steps<'a> {
    console: &'a Console,
}

impl Steps<'_> {
    fn reached(&self, step: &str, begun: Instant) {
        self.console
            .good(&format!("{step} ({})", show_duration(begun.elapsed())));
    }

    /// Looks again and again until the condition holds.
    async fn wait<T, F: Future<Output = Look<T>>>(
        &self,
        step: &'static str,
        look: impl Fn() -> F,
    ) -> Result<T, DemoError> {
        let begun = Instant::now();
        loop {
            let state = match tokio::time::timeout(DEADLINE, look()).await {
                Ok(Ok(found)) => {
                    self.reached(step, begun);
                    return Ok(found);
                }
                Ok(Err(state)) => state,
                Err(_) => "nothing answered".to_owned(),
            };
            if begun.elapsed() > DEADLINE {
                self.console.bad(&format!("{step}: {state}"));
                return Err(DemoError::Deadline { step, state });
            }
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// The filled token as a person saves it.
async fn filled(client: &Client) -> Look<String> {
    use kube::runtime::conditions::Condition as _;
    let secrets: Api<Secret> = Api::namespaced(client.clone(), NAMESPACE);
    let secret = secrets.get_opt(TOKEN).await.map_err(|error| error.to_string())?;
    let secret = secret.ok_or_else(|| format!("Secret {TOKEN} is not there yet"))?;
    if token::is_filled().matches_object(Some(&secret)) {
        return Ok(token::portable(&secret));
    }
    Err(format!("Secret {TOKEN} is still a request"))
}

async fn linked(client: &Client) -> Look<()> {
    let links = Reader::new(client.clone(), NAMESPACE)
        .links()
        .await
        .map_err(|error| error.to_string())?;
    match links.first() {
        Some(link) if link.active => Ok(()),
        Some(link) => Err(link.line()),
        None => Err("there is no link yet".to_owned()),
    }
}

async fn offered(client: &Client) -> Look<()> {
    ready_endpoint(client, ADDRESS, None).await.map(|_| ())
}

/// A ready endpoint of a Service, by port name or number.
async fn ready_endpoint(client: &Client, service: &str, port: Option<u16>) -> Look<SocketAddr> {
    let slices: Api<EndpointSlice> = Api::namespaced(client.clone(), NAMESPACE);
    let params = ListParams::default().labels(&format!("kubernetes.io/service-name={service}"));
    let slices = slices.list(&params).await.map_err(|error| error.to_string())?;
    for slice in &slices.items {
        let ready = slice.endpoints.iter().filter(|endpoint| {
            endpoint
                .conditions
                .as_ref()
                .and_then(|conditions| conditions.ready)
                .unwrap_or(true)
        });
        let address = ready
            .flat_map(|endpoint| &endpoint.addresses)
            .find_map(|text| text.parse::<IpAddr>().ok());
        let numbers = slice
            .ports
            .iter()
            .flatten()
            .filter_map(|port| u16::try_from(port.port?).ok());
        let number = numbers
            .into_iter()
            .find(|number| port.is_none_or(|wanted| wanted == *number));
        if let (Some(address), Some(number)) = (address, number) {
            return Ok(SocketAddr::new(address, number));
        }
    }
    Err(format!("Service {service} has no ready endpoint"))
}

/// The address of the Pod whose collector says that it is healthy.
async fn healthy(client: &Client, label: &str) -> Look<IpAddr> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    let pods = pods
        .list(&ListParams::default().labels(label))
        .await
        .map_err(|error| error.to_string())?;
    let pod = pods
        .items
        .first()
        .ok_or_else(|| format!("no Pod with {label} is there yet"))?;
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_deref());
    let address = address
        .and_then(|ip| ip.parse::<IpAddr>().ok())
        .ok_or("its Pod has no address yet")?;
    let health = SocketAddr::new(address, HEALTH_PORT);
    match http::get(health, "/").await {
        Ok(answer) if answer.status == 200 => Ok(address),
        Ok(answer) => Err(format!("http://{health}/ answers {}", answer.status)),
        Err(error) => Err(format!("http://{health}/ does not answer: {error}")),
    }
}

/// Where the query API is, once it answers.
async fn store(client: &Client) -> Look<SocketAddr> {
    let query = ready_endpoint(client, QUERY, Some(QUERY_PORT)).await?;
    let answer = http::get(query, "/api/services")
        .await
        .map_err(|error| error.to_string())?;
    if answer.status == 200 {
        Ok(query)
    } else {
        Err(format!("http://{query}/api/services: status {}", answer.status))
    }
}

/// Whether every span of every trace is in the store.
async fn arrived(query: SocketAddr, ids: &[String]) -> Look<()> {
    let mut spans = 0;
    for id in ids {
        let answer = http::get(query, &format!("/api/traces/{id}"))
            .await
            .map_err(|error| error.to_string())?;
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let traces = body["data"].as_array().into_iter().flatten();
        spans += traces
            .filter_map(|trace| trace["spans"].as_array())
            .map(Vec::len)
            .sum::<usize>();
    }
    if spans == SPANS {
        Ok(())
    } else {
        Err(format!("{spans} of {SPANS} spans"))
    }
}

/// What there is to look at now.
async fn finale(console: &Console, public: &LocalSite, edge: &LocalSite, query: SocketAddr) {
    console.line("");
    if let Ok(network) = Reader::new(edge.client.clone(), NAMESPACE).network().await {
        console.line(network.tree(console.colour()).trim_end_matches('\n'));
        console.line("");
    }
    console.line(&format!(
        "Traces:       http://{query}/api/traces?service=karez-demo"
    ));
    for (title, site) in [("Public site: ", public), ("Edge site:   ", edge)] {
        console.line(&format!(
            "{title} kubectl --kubeconfig {} get pods,services",
            site.kubeconfig.display()
        ));
    }
    console.line("Look around:  karez network status --site edge    karez link status --site edge");
}
