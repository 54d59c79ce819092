//! The same controllers and the same runtime against a real API server, under the service account that
//! `deploy/kubernetes` makes. Differences between the two clusters are defects of the local one.

use std::collections::BTreeSet;
use std::fs::File;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, ensure};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::Outcome;
use crate::support::cluster::{Cluster, text};
use crate::support::kubernetes::{Kubernetes, LoadBalancer, PodRuntime};
use crate::support::manifests::copy;
use crate::support::peers::{acceptance, workspace};
use crate::support::process::signal;
use crate::support::site::{Site, TOKEN, karez, save, take_token, wait_exit};
use crate::support::stage::{Need, Stage};
use crate::support::wait::{wait_for, wait_until};
use crate::trial;

/// Where the load balancer that the test plays offers the public site.
const BALANCER: &str = "127.83.1.1";
/// Where the site-controller that the test starts serves its webhook.
const CONTROLLER: &str = "127.83.1.2";
const WEBHOOK: u16 = 9443;
/// The webhook's port is one: these tests run one after the other.
pub(crate) static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[
        Need::Acceptance,
        Need::Peer("kubectl"),
        Need::Peer("etcd"),
        Need::Peer("kube-apiserver"),
        Need::Peer("kube-controller-manager"),
    ];
    vec![
        trial(
            "real_cluster::the_service_account_suffices_to_fill_a_token",
            NEEDS,
            service_account_suffices,
        ),
        trial(
            "real_cluster::the_same_sites_run_and_link_as_on_the_local_one",
            NEEDS,
            same_sites_run_and_link,
        ),
    ]
}

/// The site-controller as a process under the token of its own service account.
pub(crate) struct Controller {
    child: Child,
}

impl Controller {
    /// Starts it with everything that `deploy/kubernetes` holds.
    pub(crate) fn start(stage: &Stage, kubernetes: &Kubernetes) -> Outcome<Self> {
        let deploy = workspace().join("deploy/kubernetes");
        let deploy = deploy.to_str().context("the workspace's path is text")?;
        kubernetes
            .admin
            .kubectl(&["apply", "--server-side", "-f", deploy], "")?;
        let (namespace, account) = declared_account(&kubernetes.admin)?;
        let kubeconfig = kubernetes.as_service_account(&namespace, &account)?;
        let log = File::create(stage.path("site-controller.log"))?;
        let child = karez(stage)?
            .arg("site-controller")
            .env("KUBECONFIG", kubeconfig)
            .env("KAREZ_POD_ADDRESS", CONTROLLER)
            .env("KAREZ_WEBHOOK_LISTEN", format!("0.0.0.0:{WEBHOOK}"))
            .env("POD_NAMESPACE", &namespace)
            .env("NAMESPACE", &namespace)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        let controller = Self { child };
        play_service_network(&kubernetes.admin)?;
        Ok(controller)
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        let asked = signal(self.child.id(), "TERM").and_then(|()| wait_exit(&mut self.child, 15));
        if asked.is_err() {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

/// Namespace and service account of the Deployment that runs the site-controller.
fn declared_account(cluster: &Cluster) -> Outcome<(String, String)> {
    let deployments = cluster.list("/apis/apps/v1/deployments")?;
    let controller = deployments.iter().find(|deployment| {
        deployment
            .pointer("/spec/template/spec/containers/0")
            .is_some_and(|container| container.to_string().contains("site-controller"))
    });
    let controller = controller.context("deploy/kubernetes holds no Deployment of the site-controller")?;
    let account = text(controller, "/spec/template/spec/serviceAccountName").to_owned();
    ensure!(
        !account.is_empty(),
        "the site-controller's Deployment names no service account"
    );
    Ok((text(controller, "/metadata/namespace").to_owned(), account))
}

/// Leads the API server to the webhook of the controller that this test runs: there is no network of Services here,
/// so the webhook's Service becomes a name for the address.
fn play_service_network(cluster: &Cluster) -> Outcome {
    let path = "/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations";
    let configuration = wait_for("the controller's webhook", 60, || {
        Ok(cluster
            .list(path)?
            .into_iter()
            .next()
            .ok_or_else(|| "none is registered".to_owned()))
    })?;
    let service = configuration
        .pointer("/webhooks/0/clientConfig/service")
        .cloned()
        .unwrap_or(Value::Null);
    let (namespace, name) = (text(&service, "/namespace"), text(&service, "/name"));
    let named = json!({"spec": {"type": "ExternalName", "externalName": CONTROLLER,
        "selector": null, "clusterIP": null, "clusterIPs": null}});
    cluster.merge(&format!("/api/v1/namespaces/{namespace}/services/{name}"), &named)?;
    let port =
        format!(r#"[{{"op": "add", "path": "/webhooks/0/clientConfig/service/port", "value": {WEBHOOK}}}]"#);
    let configuration = text(&configuration, "/metadata/name");
    cluster.kubectl(
        &[
            "patch",
            "mutatingwebhookconfiguration",
            configuration,
            "--type=json",
            "-p",
            &port,
        ],
        "",
    )?;
    Ok(())
}

/// Applies a folder of manifests as a person would.
fn apply(cluster: &Cluster, namespace: &str, folder: &Path) -> Outcome {
    let mut files: Vec<_> = std::fs::read_dir(folder)?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    files.sort();
    for file in files {
        // kubectl refuses files without an object; these are empty by intent.
        if std::fs::read_to_string(&file)?.trim().is_empty() {
            continue;
        }
        let file = file.to_str().context("a path is text")?;
        cluster.kubectl(&["apply", "-n", namespace, "-f", file], "")?;
    }
    Ok(())
}

fn namespace(cluster: &Cluster, name: &str) -> Outcome {
    let object = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    cluster.create("/api/v1/namespaces", &object).map(|_| ())
}

fn service_account_suffices(stage: &Stage) -> Outcome {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let kubernetes = Kubernetes::start(stage)?;
    let _balancer = LoadBalancer::play(kubernetes.admin.clone(), BALANCER);
    let _controller = Controller::start(stage, &kubernetes)?;
    namespace(&kubernetes.admin, "public")?;
    apply(
        &kubernetes.admin,
        "public",
        &acceptance("skupper-example/public-cloud"),
    )?;
    let token = take_token(&kubernetes.admin, "public", TOKEN)?;
    ensure!(
        text(&token, "/metadata/annotations/edge-host") == BALANCER,
        "the token's host: {token}"
    );
    for name in [
        "skupper-router",
        "skupper-service-controller",
        "otel-collector-app-collector",
        "jaeger-skupper",
    ] {
        kubernetes
            .admin
            .wait(&format!("/apis/apps/v1/namespaces/public/deployments/{name}"), 30)?;
    }
    let log = std::fs::read_to_string(stage.path("site-controller.log"))?;
    let forbidden: Vec<&str> = log
        .lines()
        .filter(|line| line.to_lowercase().contains("forbidden"))
        .collect();
    ensure!(
        forbidden.is_empty(),
        "the service account lacks rights: {forbidden:#?}"
    );
    Ok(())
}

fn same_sites_run_and_link(stage: &Stage) -> Outcome {
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let kubernetes = Kubernetes::start(stage)?;
    let _balancer = LoadBalancer::play(kubernetes.admin.clone(), BALANCER);
    let _controller = Controller::start(stage, &kubernetes)?;
    let _runtime = PodRuntime::start(stage, &kubernetes, BALANCER)?;
    let real = &kubernetes.admin;
    let edge_manifests = copy(
        &acceptance("skupper-example/private-cloud"),
        stage.path("private-cloud"),
    )?;
    for (name, folder) in [
        ("public", acceptance("skupper-example/public-cloud")),
        ("private", edge_manifests.clone()),
    ] {
        namespace(real, name)?;
        apply(real, name, &folder)?;
    }
    let token = take_token(real, "public", TOKEN)?;
    let file = stage.path("token.json");
    save(&token, &file)?;
    real.kubectl(
        &[
            "apply",
            "-n",
            "private",
            "-f",
            file.to_str().context("a path is text")?,
        ],
        "",
    )?;
    wait_for("the link between the two namespaces", 120, || {
        let mut command = karez(stage)?;
        command
            .args(["link", "status", "-n", "private", "--kubeconfig"])
            .arg(&real.kubeconfig);
        let output = crate::support::site::finish(command, 30)?;
        let status =
            String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
        Ok(if status.contains(&format!("Link {TOKEN} is active")) {
            Ok(())
        } else {
            Err(status)
        })
    })?;
    let public = Site::start_with(
        stage,
        "public",
        &acceptance("skupper-example/public-cloud"),
        &["--namespace", "public"],
    )?;
    same_objects(real, &public.cluster()?, "public")?;
    let local_token = take_token(&public.cluster()?, "public", TOKEN)?;
    save(&local_token, &edge_manifests.join("90-token.yaml"))?;
    let private = Site::start_with(stage, "private", &edge_manifests, &["--namespace", "private"])?;
    same_objects(real, &private.cluster()?, "private")
}

/// Waits until both clusters hold the same objects in a namespace.
fn same_objects(real: &Cluster, local: &Cluster, namespace: &str) -> Outcome {
    wait_until(format_args!("the site in {namespace}"), 60, || {
        Ok(!inventory(local, namespace)?.is_empty())
    })?;
    wait_for(
        format_args!("the same objects in {namespace} on both clusters"),
        60,
        || {
            let (of_real, of_local) = (inventory(real, namespace)?, inventory(local, namespace)?);
            let only_real: Vec<_> = of_real.difference(&of_local).collect();
            let only_local: Vec<_> = of_local.difference(&of_real).collect();
            Ok(if only_real.is_empty() && only_local.is_empty() {
                Ok(())
            } else {
                Err(format!(
                    "only on the real one: {only_real:#?}\nonly on the local one: {only_local:#?}"
                ))
            })
        },
    )
}

/// The namespace's objects by kind, name, type and ports; without what every cluster puts into each namespace.
fn inventory(cluster: &Cluster, namespace: &str) -> Outcome<BTreeSet<String>> {
    let mut all = BTreeSet::new();
    let core = format!("/api/v1/namespaces/{namespace}");
    for service in cluster.list(&format!("{core}/services"))? {
        let headless = text(&service, "/spec/clusterIP") == "None";
        let ports = ports(
            &service["spec"]["ports"],
            &["name", "port", "protocol", "targetPort"],
        );
        all.insert(format!(
            "Service {} {} headless={headless} {ports}",
            text(&service, "/metadata/name"),
            text(&service, "/spec/type")
        ));
    }
    for deployment in cluster.list(&format!("/apis/apps/v1/namespaces/{namespace}/deployments"))? {
        for container in deployment
            .pointer("/spec/template/spec/containers")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
        {
            let ports = ports(&container["ports"], &["name", "containerPort", "protocol"]);
            all.insert(format!(
                "Deployment {} {} {ports}",
                text(&deployment, "/metadata/name"),
                text(container, "/name")
            ));
        }
    }
    for map in cluster.list(&format!("{core}/configmaps"))? {
        let name = text(&map, "/metadata/name");
        if name != "kube-root-ca.crt" {
            all.insert(format!("ConfigMap {name}"));
        }
    }
    for secret in cluster.list(&format!("{core}/secrets"))? {
        let name = text(&secret, "/metadata/name");
        let keys: Vec<_> = secret["data"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(key, _)| key.clone())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        all.insert(format!(
            "Secret {name} {} {}",
            text(&secret, "/type"),
            keys.join(",")
        ));
    }
    for account in cluster.list(&format!("{core}/serviceaccounts"))? {
        if text(&account, "/metadata/name") != "default" {
            all.insert(format!("ServiceAccount {}", text(&account, "/metadata/name")));
        }
    }
    Ok(all)
}

fn ports(list: &Value, keys: &[&str]) -> String {
    let each = list.as_array().into_iter().flatten().map(|port| {
        keys.iter()
            .map(|key| port[*key].to_string().trim_matches('"').to_owned())
            .collect::<Vec<_>>()
            .join("/")
    });
    each.collect::<Vec<_>>().join(" ")
}
