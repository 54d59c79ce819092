//! What the allocator needs to be allowed, asked for before it is missed: the API says what it lacks, and the rules to add
//! are printed as a role has them.
//!
//! ```text
//! document, jobs ─▶ needs ─▶ SelfSubjectAccessReview, one a verb ─▶ what is missing ─▶ log, Event on the Pod, the page
//! ```

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use k8s_openapi::api::core::v1::ObjectReference;
use karez_lifecycle::Shutdown;
use karez_scrape::config::discovery::{KubernetesDiscovery, Role};
use karez_scrape::config::{DiscoveryConfig, ScrapeConfig};
use kube::api::PostParams;
use kube::runtime::events::{Event, EventType, Recorder};
use kube::{Api, Client};
use tokio::sync::watch;

use crate::config::{AllocatorConfig, Collectors, PrometheusResources};
use crate::monitors::Kind;
use crate::shared::Shared;

/// How often what was there is asked for again, and what was missing.
const AGAIN: Duration = Duration::from_secs(300);
const SOON: Duration = Duration::from_secs(15);
/// Jobs come one after the other at the start.
const TOGETHER: Duration = Duration::from_secs(2);
/// Questions at once, and in all.
const AT_ONCE: usize = 8;
const MAX_ASKED: usize = 1000;
/// The longest text of an Event.
const MAX_NOTE: usize = 1000;

const READ: &[&str] = &["get", "list", "watch"];

/// A right: what may be done with a resource, in a namespace or (`None`) everywhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct What {
    group: &'static str,
    resource: &'static str,
    verbs: &'static [&'static str],
}

/// Everything that is needed, by namespace.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Needs(BTreeMap<Option<String>, BTreeSet<What>>);

impl Needs {
    /// Of a document and the jobs that it and the resources give.
    pub(crate) fn of(config: &AllocatorConfig, jobs: &[ScrapeConfig]) -> Self {
        let mut needs = Needs::default();
        let mut own = None;
        if let Collectors::Pods { namespace, .. } = &config.collectors {
            needs.add(Some(namespace), "", &["pods"], READ);
            own = Some(namespace.as_str());
        }
        if let Some(lease) = &config.lease {
            let verbs = &["get", "create", "update"];
            needs.add(Some(&lease.namespace), "coordination.k8s.io", &["leases"], verbs);
        }
        if let Some(resources) = &config.prometheus {
            needs.resources(resources);
        }
        for source in jobs.iter().flat_map(|job| &job.discovery) {
            if let DiscoveryConfig::Kubernetes(source) = source {
                needs.discovery(source, own);
            }
        }
        needs
    }

    fn add(
        &mut self,
        namespace: Option<&str>,
        group: &'static str,
        resources: &[&'static str],
        verbs: &'static [&'static str],
    ) {
        let all = self.0.entry(namespace.map(str::to_owned)).or_default();
        all.extend(resources.iter().map(|resource| What {
            group,
            resource,
            verbs,
        }));
    }

    fn resources(&mut self, config: &PrometheusResources) {
        let mut by_namespace = false;
        for (kind, selection) in Kind::ALL.into_iter().zip(&config.kinds) {
            if selection.objects.is_none() {
                continue;
            }
            by_namespace |= selection.namespaces.is_some();
            for namespace in scopes(&config.allow_namespaces) {
                self.add(namespace, super::resources::GROUP, &[kind.plural()], READ);
            }
        }
        if by_namespace {
            self.add(None, "", &["namespaces"], READ);
        }
        for namespace in config.secret_namespaces.iter().filter(|name| !name.is_empty()) {
            self.add(Some(namespace), "", &["secrets"], &["get"]);
        }
    }

    fn discovery(&mut self, source: &KubernetesDiscovery, own: Option<&str>) {
        // Another API has other accounts.
        if !source.api_server.is_empty() || !source.kubeconfig_file.is_empty() {
            return;
        }
        let mut namespaces = source.namespaces.clone();
        if source.own_namespace {
            namespaces.extend(own.map(str::to_owned));
        }
        for namespace in scopes(&namespaces) {
            match source.role {
                Role::Node => {}
                Role::Pod => self.add(namespace, "", &["pods"], READ),
                Role::Service => self.add(namespace, "", &["services"], READ),
                Role::Ingress => self.add(namespace, "networking.k8s.io", &["ingresses"], READ),
                Role::Endpoints => self.add(namespace, "", &["endpoints", "pods", "services"], READ),
                Role::EndpointSlice => {
                    self.add(namespace, "", &["pods", "services"], READ);
                    self.add(namespace, "discovery.k8s.io", &["endpointslices"], READ);
                }
            }
        }
        if source.role == Role::Node || source.attach_node {
            self.add(None, "", &["nodes"], READ);
        }
        if source.attach_namespace {
            self.add(None, "", &["namespaces"], READ);
        }
    }

    /// What is allowed everywhere need not be allowed again in one namespace.
    fn distinct(&self) -> Vec<(Option<String>, What)> {
        let everywhere = self.0.get(&None);
        let covered = |namespace: &Option<String>, what: &What| {
            namespace.is_some() && everywhere.is_some_and(|all| all.contains(what))
        };
        let each = self
            .0
            .iter()
            .flat_map(|(namespace, all)| all.iter().map(move |what| (namespace, what)));
        each.filter(|(namespace, what)| !covered(namespace, what))
            .map(|(namespace, what)| (namespace.clone(), *what))
            .collect()
    }
}

/// Each namespace, or everywhere where none is named.
fn scopes(namespaces: &[String]) -> Vec<Option<&str>> {
    match namespaces {
        [] => vec![None],
        named => named.iter().map(|name| Some(name.as_str())).collect(),
    }
}

/// What is needed and not allowed, by namespace.
type Missing = BTreeMap<Option<String>, BTreeMap<(&'static str, Vec<&'static str>), BTreeSet<&'static str>>>;

/// Asks the API for each. What it gives no answer to is not called missing.
async fn missing(client: &Client, needs: &Needs) -> kube::Result<Missing> {
    let mut questions: Vec<Question> = Vec::new();
    for (namespace, what) in needs.distinct() {
        let each = what.verbs.iter().map(|verb| (namespace.clone(), what, *verb));
        questions.extend(each);
    }
    questions.truncate(MAX_ASKED);
    let mut asked = Vec::new();
    for question in questions {
        asked.push(allows(client.clone(), question));
    }
    let mut answers = futures::stream::iter(asked).buffered(AT_ONCE);
    let mut lacking: BTreeMap<(Option<String>, What), Vec<&'static str>> = BTreeMap::new();
    while let Some(answer) = answers.next().await {
        let ((namespace, what, verb), allowed) = answer?;
        if !allowed {
            lacking.entry((namespace, what)).or_default().push(verb);
        }
    }
    let mut missing = Missing::new();
    for ((namespace, what), verbs) in lacking {
        let rules = missing.entry(namespace).or_default();
        rules
            .entry((what.group, verbs))
            .or_default()
            .insert(what.resource);
    }
    Ok(missing)
}

/// A verb of a right, in a namespace.
type Question = (Option<String>, What, &'static str);

async fn allows(client: Client, question: Question) -> kube::Result<(Question, bool)> {
    let (namespace, what, verb) = &question;
    let api: Api<SelfSubjectAccessReview> = Api::all(client);
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec {
            resource_attributes: Some(ResourceAttributes {
                namespace: namespace.clone(),
                group: Some(what.group.to_owned()),
                resource: Some(what.resource.to_owned()),
                verb: Some((*verb).to_owned()),
                ..ResourceAttributes::default()
            }),
            non_resource_attributes: None,
        },
        ..SelfSubjectAccessReview::default()
    };
    let answer = api.create(&PostParams::default(), &review).await?;
    let allowed = answer.status.is_none_or(|status| status.allowed);
    Ok((question, allowed))
}

/// The rules, as roles have them.
fn rules(missing: &Missing) -> String {
    let mut text = String::new();
    for (namespace, rules) in missing {
        let _ = match namespace {
            None => writeln!(text, "ClusterRole:"),
            Some(namespace) => writeln!(text, "Role in namespace {namespace}:"),
        };
        for ((group, verbs), resources) in rules {
            let resources: Vec<&str> = resources.iter().copied().collect();
            let _ = writeln!(
                text,
                "- {{apiGroups: [\"{group}\"], resources: [{}], verbs: [{}]}}",
                resources.join(", "),
                verbs.join(", ")
            );
        }
    }
    text
}

/// Asks whenever the needs change, and now and then, until the shutdown; says what is missing once.
pub(crate) async fn watch(
    client: Client,
    mut needs: watch::Receiver<Needs>,
    shared: Arc<Shared>,
    shutdown: Shutdown,
) {
    let mut said = String::new();
    loop {
        tokio::select! {
            () = tokio::time::sleep(TOGETHER) => {}
            () = shutdown.triggered() => return,
        }
        let wanted = needs.borrow_and_update().clone();
        match missing(&client, &wanted).await {
            Ok(missing) => {
                let text = rules(&missing);
                if text != said {
                    tell(&client, &text).await;
                    shared.set_lacking(text.clone());
                    said = text;
                }
            }
            // Such an API knows no reviews, or nobody may ask it; what is missing shows when it is used.
            Err(error) => tracing::debug!(%error, "it cannot be asked what is allowed"),
        }
        tokio::select! {
            changed = needs.changed() => if changed.is_err() { return },
            () = tokio::time::sleep(if said.is_empty() { AGAIN } else { SOON }) => {}
            () = shutdown.triggered() => return,
        }
    }
}

async fn tell(client: &Client, text: &str) {
    if text.is_empty() {
        tracing::info!("everything that is needed is allowed now");
        return;
    }
    tracing::warn!(
        "this ServiceAccount lacks rights; give it these rules:\n{}",
        text.trim_end()
    );
    let variable = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let (Some(pod), Some(namespace)) = (variable("POD_NAME"), variable("OTELCOL_NAMESPACE")) else {
        return;
    };
    let about = ObjectReference {
        api_version: Some("v1".to_owned()),
        kind: Some("Pod".to_owned()),
        name: Some(pod),
        namespace: Some(namespace),
        ..ObjectReference::default()
    };
    let note = format!("this ServiceAccount lacks rights; give it these rules:\n{text}");
    let event = Event {
        type_: EventType::Warning,
        reason: "RightsMissing".to_owned(),
        note: Some(note.chars().take(MAX_NOTE).collect()),
        action: "AskForRights".to_owned(),
        secondary: None,
    };
    let recorder = Recorder::new(client.clone(), "karez-allocator".into());
    if let Err(error) = recorder.publish(&event, &about).await {
        tracing::debug!(%error, "no Event can be made");
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use http::{Request, Response};
    use http_body_util::{BodyExt, Full};
    use karez_document::Origin;
    use kube::client::Body;
    use serde_json::{Value, json};

    use super::*;
    use crate::config::{Flags, read};

    const DOCUMENT: &str = "
collector_selector: {matchLabels: {a: b}}
karez: {lease: l}
prometheus_cr:
  enabled: true
  service_monitor_selector: {}
  probe_selector: {}
  probe_namespace_selector: {matchLabels: {team: a}}
config:
  scrape_configs:
  - {job_name: slices, kubernetes_sd_configs: [{role: endpointslice, attach_metadata: {node: true}}]}
  - {job_name: pods, kubernetes_sd_configs: [{role: pod, namespaces: {names: [x]}}]}
  - {job_name: elsewhere, kubernetes_sd_configs: [{role: ingress, api_server: 'https://other:6443'}]}
";

    fn needs() -> Needs {
        let flags = Flags {
            namespace: Some("own".to_owned()),
            ..Flags::default()
        };
        let (config, diagnoses) = read(DOCUMENT, &Origin::file("ta.yaml"), &flags);
        let config = config.unwrap_or_else(|| panic!("{diagnoses:?}"));
        let jobs = config.jobs.clone();
        Needs::of(&config, &jobs)
    }

    /// An API that allows what `allowed` says of the namespace, the resource and the verb.
    fn client(allowed: impl Fn(&str, &str, &str) -> bool + Clone + Send + Sync + 'static) -> Client {
        let service = tower::service_fn(move |request: Request<Body>| {
            let allowed = allowed.clone();
            async move {
                let body = request.into_body().collect().await.unwrap().to_bytes();
                let mut review: Value = serde_json::from_slice(&body).unwrap();
                let asked = review["spec"]["resourceAttributes"].clone();
                let text = |key: &str| asked[key].as_str().unwrap_or_default().to_owned();
                let answer = allowed(&text("namespace"), &text("resource"), &text("verb"));
                review["status"] = json!({"allowed": answer});
                Ok::<_, Infallible>(Response::new(Full::from(review.to_string().into_bytes())))
            }
        });
        Client::new(service, "default")
    }

    #[tokio::test]
    async fn says_exactly_what_is_missing() {
        let lacking = client(|namespace, resource, verb| match (namespace, resource) {
            ("", "servicemonitors" | "probes") => false,
            ("", "nodes") => verb == "get",
            ("own", "leases") => verb != "update",
            _ => true,
        });
        let text = rules(&missing(&lacking, &needs()).await.unwrap());
        assert_eq!(
            text,
            "ClusterRole:
- {apiGroups: [\"\"], resources: [nodes], verbs: [list, watch]}
- {apiGroups: [\"monitoring.coreos.com\"], resources: [probes, servicemonitors], verbs: [get, list, watch]}
Role in namespace own:
- {apiGroups: [\"coordination.k8s.io\"], resources: [leases], verbs: [update]}
"
        );
        let all = client(|_, _, _| true);
        assert_eq!(rules(&missing(&all, &needs()).await.unwrap()), "");
    }

    #[tokio::test]
    async fn asks_for_no_more_than_is_needed() {
        let nothing = client(|_, _, _| false);
        let text = rules(&missing(&nothing, &needs()).await.unwrap());
        // Pods of the cluster are Pods of each namespace; another API is none of ours.
        assert!(
            !text.contains("namespace x") && !text.contains("ingresses"),
            "{text}"
        );
        for expected in [
            "resources: [namespaces, nodes, pods, services], verbs: [get, list, watch]",
            "{apiGroups: [\"\"], resources: [secrets], verbs: [get]}",
            "{apiGroups: [\"discovery.k8s.io\"], resources: [endpointslices], verbs: [get, list, watch]}",
        ] {
            assert!(text.contains(expected), "{expected}\n{text}");
        }
    }
}
