//! The loader against a local cluster: what files say is what the cluster has.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail where they stand")]

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use karez_lifecycle::Shutdown;
use karez_local_api::{LocalCluster, LocalClusterOptions};
use karez_site::apply::Applier;
use karez_site::loader::{Loader, Notice};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::mpsc;

struct Stage {
    folder: tempfile::TempDir,
    client: Client,
    shutdown: Shutdown,
    notices: mpsc::UnboundedReceiver<Notice>,
}

impl Stage {
    fn start() -> Stage {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("site")).unwrap();
        let cluster = LocalCluster::open(LocalClusterOptions::new(folder.path().join("state"))).unwrap();
        let client = cluster.client();
        let mut stage = Stage {
            folder,
            client,
            shutdown: Shutdown::new(),
            notices: mpsc::unbounded_channel().1,
        };
        stage.load(cluster);
        stage
    }

    fn load(&mut self, cluster: Arc<LocalCluster>) {
        let (sender, notices) = mpsc::unbounded_channel();
        self.notices = notices;
        let accept = move |api_version: &str, kind: &str| {
            cluster.accept_unknown_kind(api_version, kind, true);
            Ok(())
        };
        let applier = Applier::new(self.client.clone(), "default", Some(Box::new(accept)));
        let record = self.folder.path().join("manifests.json");
        let loader = Loader::new(self.folder.path().join("site"), record, Arc::new(applier), sender);
        tokio::spawn(loader.run(self.shutdown.clone()));
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.folder.path().join("site").join(name), text).unwrap();
    }

    fn remove(&self, name: &str) {
        std::fs::remove_file(self.folder.path().join("site").join(name)).unwrap();
    }

    /// Waits for a notice.
    async fn told(&mut self, wanted: impl Fn(&Notice) -> bool) -> Notice {
        let mut seen = Vec::new();
        let search = async {
            while let Some(notice) = self.notices.recv().await {
                if wanted(&notice) {
                    return notice;
                }
                seen.push(notice);
            }
            panic!("the loader ended")
        };
        match tokio::time::timeout(Duration::from_secs(30), search).await {
            Ok(notice) => notice,
            Err(_) => panic!("not told; seen: {seen:?}"),
        }
    }

    async fn applied(&mut self, name: &str) {
        self.told(|notice| matches!(notice, Notice::Applied { object, .. } if object == name))
            .await;
    }

    fn maps(&self) -> Api<ConfigMap> {
        Api::namespaced(self.client.clone(), "default")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        self.shutdown.trigger();
    }
}

const MAP: &str = "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {key: one}\n";

#[tokio::test]
async fn a_file_that_is_added_changed_or_removed_takes_effect() {
    let mut stage = Stage::start();
    stage.write("a.yaml", MAP);
    stage.applied("configmap/a").await;
    let map = stage.maps().get("a").await.unwrap();
    let annotations = map.metadata.annotations.unwrap();
    assert!(annotations["karez.dev/source-file"].ends_with("site/a.yaml"));
    assert_eq!(annotations["karez.dev/source-line"], "1");

    stage.write("a.yaml", &MAP.replace("one", "two-two"));
    stage.applied("configmap/a").await;
    assert_eq!(
        stage.maps().get("a").await.unwrap().data.unwrap()["key"],
        "two-two"
    );

    stage.remove("a.yaml");
    stage
        .told(|notice| matches!(notice, Notice::Removed { .. }))
        .await;
    assert!(stage.maps().get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_broken_file_is_named_and_what_it_declared_stays() {
    let mut stage = Stage::start();
    stage.write("a.yaml", MAP);
    stage.applied("configmap/a").await;
    stage.write("a.yaml", "apiVersion: v1\nkind: [\n");
    let notice = stage.told(|notice| matches!(notice, Notice::Wrong(_))).await;
    let Notice::Wrong(diagnosis) = notice else {
        panic!()
    };
    assert!(diagnosis.to_string().contains("a.yaml:"), "{diagnosis}");
    stage.write("b.yaml", &MAP.replace("name: a", "name: b"));
    stage.applied("configmap/b").await;
    assert!(stage.maps().get_opt("a").await.unwrap().is_some());
}

#[tokio::test]
async fn a_field_that_a_controller_took_over_stays() {
    let mut stage = Stage::start();
    let request = "apiVersion: v1\nkind: Secret\nmetadata: {name: t, labels: {skupper.io/type: connection-token-request}}\n";
    stage.write("t.yaml", request);
    stage.applied("secret/t").await;
    let secrets: Api<Secret> = Api::namespaced(stage.client.clone(), "default");
    let filled = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": "t", "labels": {"skupper.io/type": "connection-token"}}});
    let params = PatchParams::apply("controller").force();
    secrets.patch("t", &params, &Patch::Apply(&filled)).await.unwrap();
    stage.write("t.yaml", &format!("# moved down a line\n{request}"));
    stage.applied("secret/t").await;
    let labels = secrets.get("t").await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels["skupper.io/type"], "connection-token");
}

#[tokio::test]
async fn a_kind_that_nothing_runs_is_stored_and_reported() {
    let mut stage = Stage::start();
    stage.write(
        "x.yaml",
        "apiVersion: example.com/v1\nkind: Widget\nmetadata: {name: w}\nspec: {size: 1}\n",
    );
    stage
        .told(|notice| matches!(notice, Notice::Stored { object, .. } if object == "widget/w"))
        .await;
}

#[tokio::test]
async fn what_vanished_while_the_site_was_down_is_removed() {
    let mut stage = Stage::start();
    stage.write("a.yaml", MAP);
    stage.applied("configmap/a").await;
    stage.shutdown.trigger();
    stage.told_end().await;
    stage.remove("a.yaml");
    stage.shutdown = Shutdown::new();
    let cluster = LocalCluster::open(LocalClusterOptions::new(stage.folder.path().join("second"))).unwrap();
    stage.load(cluster);
    stage
        .told(|notice| matches!(notice, Notice::Removed { .. }))
        .await;
}

impl Stage {
    async fn told_end(&mut self) {
        while self.notices.recv().await.is_some() {}
    }
}

#[test]
fn the_examples_are_manifests() {
    let examples = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .join("deploy/examples/two-sites");
    let files = karez_site::manifest::find(&examples).unwrap();
    assert_eq!(files.len(), 8);
    for file in files {
        assert_eq!(
            karez_site::manifest::read(&file).unwrap().len(),
            1,
            "{}",
            file.display()
        );
    }
}
