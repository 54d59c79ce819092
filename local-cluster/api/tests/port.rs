//! The API on its port, through the kubeconfig that it writes.

use futures::{AsyncBufReadExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Pod};
use karez_lifecycle::Shutdown;
use karez_local_api::{LocalCluster, LocalClusterOptions, Serving};
use kube::{
    Api, Client, Config,
    api::{ListParams, LogParams, PostParams},
    config::{KubeConfigOptions, Kubeconfig},
};
use serde_json::{Value, json};
use std::{io::Write, net::Ipv4Addr, os::unix::fs::PermissionsExt, sync::Arc, time::Duration};

struct Site {
    folder: tempfile::TempDir,
    _cluster: Arc<LocalCluster>,
    serving: Serving,
    shutdown: Shutdown,
}

async fn serve() -> Site {
    let folder = tempfile::tempdir().expect("the API is served");
    let cluster = LocalCluster::open(LocalClusterOptions::new(folder.path())).expect("the API is served");
    let shutdown = Shutdown::new();
    let serving = cluster
        .serve((Ipv4Addr::LOCALHOST, 0).into(), shutdown.clone())
        .await
        .expect("the API is served");
    Site {
        folder,
        _cluster: cluster,
        serving,
        shutdown,
    }
}

impl Site {
    async fn config(&self) -> Config {
        // Whoever came first has installed the same provider.
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let kubeconfig = Kubeconfig::read_from(&self.serving.kubeconfig).expect("the API is served");
        Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
            .await
            .expect("the API is served")
    }

    async fn client(&self) -> Client {
        Client::try_from(self.config().await).expect("the API is served")
    }
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a well-formed object")
}

#[tokio::test]
async fn its_kubeconfig_lets_in_and_nothing_else_does() {
    let site = serve().await;
    let mode = std::fs::metadata(&site.serving.kubeconfig)
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let maps: Api<ConfigMap> = Api::default_namespaced(site.client().await);
    maps.create(
        &PostParams::default(),
        &object(json!({"metadata": {"name": "a"}})),
    )
    .await
    .unwrap();
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 1);

    let mut config = site.config().await;
    config.auth_info = kube::config::AuthInfo::default();
    let stranger: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config).unwrap());
    let Err(kube::Error::Api(status)) = stranger.get("a").await else {
        panic!("strangers are refused")
    };
    assert_eq!((status.code, status.reason.as_str()), (401, "Unauthorized"));
}

#[tokio::test]
async fn a_service_accounts_token_lets_in() {
    let site = serve().await;
    let request = object(json!({"metadata": {}, "spec": {"audiences": [], "expirationSeconds": 600}}));
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::default_namespaced(site.client().await);
    let issued = accounts
        .create_token_request("default", &PostParams::default(), &request)
        .await
        .unwrap();
    let mut config = site.config().await;
    config.auth_info = serde_json::from_value(json!({"token": issued.status.unwrap().token})).unwrap();
    let maps: Api<ConfigMap> = Api::default_namespaced(Client::try_from(config).unwrap());
    assert_eq!(maps.list(&ListParams::default()).await.unwrap().items.len(), 0);
}

#[tokio::test]
async fn tables_have_the_usual_columns() {
    let site = serve().await;
    let accept = "application/json;as=Table;v=v1;g=meta.k8s.io, application/json";
    let request = http::Request::get("/api/v1/namespaces/default/serviceaccounts")
        .header("Accept", accept)
        .body(Vec::new())
        .unwrap();
    let table: Value = site.client().await.request(request).await.unwrap();
    assert_eq!(table["kind"], "Table");
    let names: Vec<&str> = table["columnDefinitions"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|c| c["name"].as_str())
        .collect();
    assert_eq!(names, ["Name", "Secrets", "Age"]);
    assert_eq!(table["rows"][0]["cells"][0], "default");
}

#[tokio::test]
async fn openapi_tells_kubectl_what_it_asks() {
    let site = serve().await;
    let client = site.client().await;
    let get = |path: &str| http::Request::get(path).body(Vec::new()).unwrap();
    let index: Value = client.request(get("/openapi/v3")).await.unwrap();
    let url = index["paths"]["apis/apps/v1"]["serverRelativeURL"]
        .as_str()
        .unwrap();
    let document: Value = client.request(get(url)).await.unwrap();
    let patch = &document["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]["patch"];
    assert!(
        patch["parameters"]
            .as_array()
            .unwrap()
            .iter()
            .any(|p| p["name"] == "fieldValidation")
    );
    let containers =
        &document["components"]["schemas"]["io.k8s.api.core.v1.PodSpec"]["properties"]["containers"];
    assert_eq!(containers["x-kubernetes-patch-merge-key"], "name");
}

#[tokio::test]
async fn logs_are_read_and_followed_to_the_pods_end() {
    let site = serve().await;
    let pods: Api<Pod> = Api::default_namespaced(site.client().await);
    let pod =
        object(json!({"metadata": {"name": "p"}, "spec": {"containers": [{"name": "c", "image": "i"}]}}));
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let place = site.folder.path().join("logs/default/p");
    std::fs::create_dir_all(&place).unwrap();
    std::fs::write(place.join("c.log"), "one\ntwo\n").unwrap();
    let tail = LogParams {
        tail_lines: Some(1),
        ..LogParams::default()
    };
    assert_eq!(pods.logs("p", &tail).await.unwrap(), "two\n");

    let follow = LogParams { follow: true, ..tail };
    let mut lines = pods.log_stream("p", &follow).await.unwrap().lines();
    assert_eq!(lines.try_next().await.unwrap().as_deref(), Some("two"));
    let mut log = std::fs::File::options()
        .append(true)
        .open(place.join("c.log"))
        .unwrap();
    log.write_all(b"three\n").unwrap();
    let more = tokio::time::timeout(Duration::from_secs(10), async {
        let third = lines.try_next().await.unwrap();
        pods.delete("p", &kube::api::DeleteParams::default())
            .await
            .unwrap();
        (third, lines.try_next().await.unwrap())
    });
    assert_eq!(
        more.await.expect("the log ends with its Pod"),
        (Some("three".to_owned()), None)
    );
}

#[tokio::test]
async fn it_stops_and_frees_its_port() {
    let site = serve().await;
    let maps: Api<ConfigMap> = Api::default_namespaced(site.client().await);
    maps.list(&ListParams::default()).await.unwrap();
    site.shutdown.trigger();
    let freed = async {
        while tokio::net::TcpListener::bind(site.serving.address).await.is_err() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), freed)
        .await
        .expect("the port is free");
}
