//! The API through a real `kube::Client` in process.

use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        apps::v1::{Deployment, ReplicaSet},
        core::v1::{ConfigMap, Namespace, Pod, Secret, Service},
    },
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use karez_local_api::{Admission, LocalCluster, LocalClusterOptions, Operation, Read, Refusal};
use kube::{
    Api, Client, ResourceExt,
    api::{
        ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, WatchEvent,
        WatchParams,
    },
    core::GroupVersionKind,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

fn open(folder: &tempfile::TempDir) -> Arc<LocalCluster> {
    LocalCluster::open(LocalClusterOptions::new(folder.path())).expect("a fresh folder opens")
}

fn object<T: serde::de::DeserializeOwned>(value: Value) -> T {
    serde_json::from_value(value).expect("a well-formed object")
}

fn config_map(name: &str, data: Value) -> ConfigMap {
    object(json!({"metadata": {"name": name}, "data": data}))
}

fn deployment(name: &str, replicas: i32) -> Deployment {
    object(
        json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": name}, "spec": {"replicas": replicas, "selector": {"matchLabels": {"app": name}},
        "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}}),
    )
}

fn status(error: kube::Error) -> (u16, String) {
    match error {
        kube::Error::Api(status) => (status.code, status.reason.clone()),
        other => panic!("{other}"),
    }
}

async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(10), future)
        .await
        .unwrap_or_else(|_| panic!("{what} within 10 s"))
}

#[tokio::test]
async fn objects_are_created_read_changed_and_deleted() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    let made = maps
        .create(&PostParams::default(), &config_map("a", json!({"k": "1"})))
        .await
        .unwrap();
    assert!(made.uid().is_some() && made.resource_version().is_some() && made.creation_timestamp().is_some());
    assert_eq!(
        status(
            maps.create(&PostParams::default(), &made_again(&made))
                .await
                .unwrap_err()
        ),
        (409, "AlreadyExists".into())
    );

    let mut newer = made.clone();
    newer.data = Some([("k".to_owned(), "2".to_owned())].into());
    let updated = maps.replace("a", &PostParams::default(), &newer).await.unwrap();
    assert_ne!(updated.resource_version(), made.resource_version());
    assert_eq!(
        status(
            maps.replace("a", &PostParams::default(), &newer)
                .await
                .unwrap_err()
        ),
        (409, "Conflict".into())
    );

    let patched = maps
        .patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"k": null, "l": "3"}})),
        )
        .await
        .unwrap();
    assert_eq!(patched.data, Some([("l".to_owned(), "3".to_owned())].into()));
    let same = maps
        .patch(
            "a",
            &PatchParams::default(),
            &Patch::Merge(json!({"data": {"l": "3"}})),
        )
        .await
        .unwrap();
    assert_eq!(same.resource_version(), patched.resource_version());

    assert!(
        maps.delete("a", &DeleteParams::default())
            .await
            .unwrap()
            .is_right()
    );
    assert_eq!(status(maps.get("a").await.unwrap_err()), (404, "NotFound".into()));
}

fn made_again(map: &ConfigMap) -> ConfigMap {
    config_map(&map.name_any(), json!({}))
}

#[tokio::test]
async fn a_watcher_follows_and_selectors_select() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    maps.create(&PostParams::default(), &config_map("before", json!({})))
        .await
        .unwrap();
    let mut names = Box::pin(watcher(maps.clone(), watcher::Config::default()).applied_objects());
    assert_eq!(
        within("the first", names.try_next())
            .await
            .unwrap()
            .unwrap()
            .name_any(),
        "before"
    );
    maps.create(&PostParams::default(), &config_map("after", json!({})))
        .await
        .unwrap();
    assert_eq!(
        within("the second", names.try_next())
            .await
            .unwrap()
            .unwrap()
            .name_any(),
        "after"
    );

    let selected = ListParams::default().labels("app in (x)");
    let version = maps
        .list(&selected)
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    let mut events = Box::pin(
        maps.watch(&WatchParams::default().labels("app in (x)"), &version)
            .await
            .unwrap(),
    );
    let label = |value: Value| Patch::Merge(json!({"metadata": {"labels": {"app": value}}}));
    maps.patch("after", &PatchParams::default(), &label(json!("x")))
        .await
        .unwrap();
    assert!(
        matches!(within("added", events.next()).await, Some(Ok(WatchEvent::Added(m))) if m.name_any() == "after")
    );
    assert_eq!(maps.list(&selected).await.unwrap().items.len(), 1);
    maps.patch("after", &PatchParams::default(), &label(Value::Null))
        .await
        .unwrap();
    assert!(
        matches!(within("deleted", events.next()).await, Some(Ok(WatchEvent::Deleted(m))) if m.name_any() == "after")
    );
}

#[tokio::test]
async fn a_watch_from_a_version_of_an_earlier_life_lists_again() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = open(&folder);
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    maps.create(&PostParams::default(), &config_map("a", json!({})))
        .await
        .unwrap();
    let old = maps
        .list(&ListParams::default())
        .await
        .unwrap()
        .metadata
        .resource_version
        .unwrap();
    drop((maps, cluster));
    let cluster = reopen(&folder).await;
    let maps: Api<ConfigMap> = Api::namespaced(cluster.client(), "default");
    let Err(error) = maps.watch(&WatchParams::default(), &old).await else {
        panic!("the version is too old")
    };
    assert_eq!(status(error), (410, "Expired".into()));
}

/// The buffer task of a dropped client holds the cluster, and with it the lock, a moment longer.
async fn reopen(folder: &tempfile::TempDir) -> Arc<LocalCluster> {
    within("the lock is free", async {
        loop {
            match LocalCluster::open(LocalClusterOptions::new(folder.path())) {
                Ok(cluster) => return cluster,
                Err(karez_local_api::OpenError::InUse(_)) => tokio::task::yield_now().await,
                Err(other) => panic!("{other}"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn server_side_apply_keeps_owners_apart() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let deployments: Api<Deployment> = Api::namespaced(client, "default");
    let apply = |manager: &str| PatchParams::apply(manager);
    let made = deployments
        .patch("d", &apply("one"), &Patch::Apply(deployment("d", 1)))
        .await
        .unwrap();
    assert_eq!(made.metadata.generation, Some(1));
    let again = deployments
        .patch("d", &apply("one"), &Patch::Apply(deployment("d", 1)))
        .await
        .unwrap();
    assert_eq!(again.resource_version(), made.resource_version());
    let error = deployments
        .patch("d", &apply("two"), &Patch::Apply(deployment("d", 2)))
        .await
        .unwrap_err();
    assert_eq!(status(error), (409, "Conflict".into()));
    let forced = deployments
        .patch("d", &apply("two").force(), &Patch::Apply(deployment("d", 2)))
        .await
        .unwrap();
    assert_eq!(forced.spec.unwrap().replicas, Some(2));
    assert_eq!(forced.metadata.generation, Some(2));
}

#[tokio::test]
async fn a_status_comes_through_its_subresource_only() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let deployments: Api<Deployment> = Api::namespaced(client, "default");
    deployments
        .create(&PostParams::default(), &deployment("d", 1))
        .await
        .unwrap();
    let patch = Patch::Merge(json!({"status": {"readyReplicas": 1, "replicas": 1}, "spec": {"replicas": 5}}));
    let by_object = deployments
        .patch("d", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(
        (
            by_object.status.unwrap().ready_replicas,
            by_object.spec.unwrap().replicas
        ),
        (None, Some(5))
    );
    let patch = Patch::Merge(json!({"status": {"readyReplicas": 1, "replicas": 1}, "spec": {"replicas": 6}}));
    let by_status = deployments
        .patch_status("d", &PatchParams::default(), &patch)
        .await
        .unwrap();
    assert_eq!(
        (
            by_status.status.unwrap().ready_replicas,
            by_status.spec.unwrap().replicas
        ),
        (Some(1), Some(5))
    );
    let scale = deployments.get_scale("d").await.unwrap();
    assert_eq!(scale.spec.unwrap().replicas, Some(5));
    deployments
        .patch_scale(
            "d",
            &PatchParams::default(),
            &Patch::Merge(json!({"spec": {"replicas": 0}})),
        )
        .await
        .unwrap();
    assert_eq!(
        deployments.get("d").await.unwrap().spec.unwrap().replicas,
        Some(0)
    );
}

#[tokio::test]
async fn dependents_go_with_their_owner() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), "default");
    let pods: Api<Pod> = Api::namespaced(client, "default");
    for params in [
        DeleteParams::background(),
        DeleteParams::foreground(),
        DeleteParams::orphan(),
    ] {
        let orphans = params == DeleteParams::orphan();
        let owner = deployments
            .create(&PostParams::default(), &deployment("d", 1))
            .await
            .unwrap();
        let owned = |kind: &str, name: &str, uid: &str| json!([{"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid, "controller": true, "blockOwnerDeletion": true}]);
        let mut set: ReplicaSet = object(
            json!({"metadata": {"name": "s", "ownerReferences": owned("Deployment", "d", &owner.uid().unwrap())}}),
        );
        set.spec = object(
            json!({"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}}),
        );
        let set = sets.create(&PostParams::default(), &set).await.unwrap();
        let pod: Pod = object(
            json!({"metadata": {"name": "p", "ownerReferences": owned("ReplicaSet", "s", &set.uid().unwrap())}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        );
        pods.create(&PostParams::default(), &pod).await.unwrap();
        deployments.delete("d", &params).await.unwrap();
        assert!(deployments.get_opt("d").await.unwrap().is_none());
        assert_eq!(sets.get_opt("s").await.unwrap().is_some(), orphans);
        assert_eq!(pods.get_opt("p").await.unwrap().is_some(), orphans);
    }
    assert!(sets.get("s").await.unwrap().owner_references().is_empty());
}

#[tokio::test]
async fn finalizers_and_grace_hold_an_object() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "default");
    let held: ConfigMap = object(json!({"metadata": {"name": "h", "finalizers": ["example.com/hold"]}}));
    maps.create(&PostParams::default(), &held).await.unwrap();
    assert!(
        maps.delete("h", &DeleteParams::default())
            .await
            .unwrap()
            .is_left()
    );
    assert!(maps.get("h").await.unwrap().metadata.deletion_timestamp.is_some());
    maps.patch(
        "h",
        &PatchParams::default(),
        &Patch::Merge(json!({"metadata": {"finalizers": null}})),
    )
    .await
    .unwrap();
    assert!(maps.get_opt("h").await.unwrap().is_none());

    let pods: Api<Pod> = Api::namespaced(client, "default");
    let bound: Pod = object(
        json!({"metadata": {"name": "p"}, "spec": {"nodeName": "n", "containers": [{"name": "c", "image": "i"}]}}),
    );
    pods.create(&PostParams::default(), &bound).await.unwrap();
    pods.delete("p", &DeleteParams::default()).await.unwrap();
    assert_eq!(
        pods.get("p")
            .await
            .unwrap()
            .metadata
            .deletion_grace_period_seconds,
        Some(30)
    );
    pods.delete("p", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    assert!(pods.get_opt("p").await.unwrap().is_none());
}

#[tokio::test]
async fn a_namespace_takes_its_content_with_it() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), "team");
    assert_eq!(
        status(
            maps.create(&PostParams::default(), &config_map("a", json!({})))
                .await
                .unwrap_err()
        ),
        (404, "NotFound".into())
    );
    let namespaces: Api<Namespace> = Api::all(client);
    namespaces
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "team"}})),
        )
        .await
        .unwrap();
    maps.create(&PostParams::default(), &config_map("a", json!({})))
        .await
        .unwrap();
    namespaces.delete("team", &DeleteParams::default()).await.unwrap();
    assert!(namespaces.get_opt("team").await.unwrap().is_none());
    assert!(maps.get_opt("a").await.unwrap().is_none());
}

fn definition() -> CustomResourceDefinition {
    let schema = json!({"openAPIV3Schema": {"type": "object", "properties": {
        "spec": {"type": "object", "required": ["mode"], "properties": {"mode": {"type": "string", "enum": ["a", "b"]}, "size": {"type": "integer", "default": 3},
            "config": {"x-kubernetes-preserve-unknown-fields": true}}},
        "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}}}});
    object(
        json!({"metadata": {"name": "things.example.com"}, "spec": {"group": "example.com", "scope": "Namespaced",
        "names": {"plural": "things", "kind": "Thing"},
        "versions": [
            {"name": "v1alpha1", "served": true, "storage": false, "schema": schema, "subresources": {"status": {}}},
            {"name": "v1", "served": true, "storage": true, "schema": schema, "subresources": {"status": {}}}]}}),
    )
}

fn things(client: Client, version: &str) -> Api<DynamicObject> {
    let kind =
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk("example.com", version, "Thing"), "things");
    Api::namespaced_with(client, "default", &kind)
}

#[tokio::test]
async fn a_definition_serves_its_kind_in_every_version() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let made = definitions
        .create(&PostParams::default(), &definition())
        .await
        .unwrap();
    assert!(
        made.status
            .unwrap()
            .conditions
            .unwrap()
            .iter()
            .any(|c| c.type_ == "Established" && c.status == "True")
    );

    let thing = |spec: Value| object::<DynamicObject>(json!({"metadata": {"name": "t"}, "spec": spec}));
    let v1 = things(client.clone(), "v1");
    let error = v1
        .create(&PostParams::default(), &thing(json!({"mode": "c"})))
        .await
        .unwrap_err();
    assert_eq!(status(error), (422, "Invalid".into()));
    v1.create(
        &PostParams::default(),
        &thing(json!({"mode": "a", "unknown": 1, "config": {"x": 1}})),
    )
    .await
    .unwrap();
    let read = things(client.clone(), "v1alpha1").get("t").await.unwrap();
    assert_eq!(read.types.unwrap().api_version, "example.com/v1alpha1");
    assert_eq!(
        read.data["spec"],
        json!({"mode": "a", "size": 3, "config": {"x": 1}})
    );
    definitions
        .delete("things.example.com", &DeleteParams::default())
        .await
        .unwrap();
    assert_eq!(status(v1.get("t").await.unwrap_err()).0, 404);
}

#[tokio::test]
async fn kinds_without_a_definition_are_stored() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = open(&folder);
    cluster.accept_unknown_kind("cert-manager.io/v1", "ClusterIssuer", false);
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("cert-manager.io", "v1", "ClusterIssuer"));
    let issuers: Api<DynamicObject> = Api::all_with(cluster.client(), &kind);
    let issuer: DynamicObject = object(
        json!({"apiVersion": "cert-manager.io/v1", "kind": "ClusterIssuer", "metadata": {"name": "i"}, "spec": {"acme": {"a": [1]}}}),
    );
    issuers
        .patch("i", &PatchParams::apply("me"), &Patch::Apply(issuer))
        .await
        .unwrap();
    drop((issuers, cluster));
    let issuers: Api<DynamicObject> = Api::all_with(reopen(&folder).await.client(), &kind);
    assert_eq!(
        issuers.get("i").await.unwrap().data["spec"],
        json!({"acme": {"a": [1]}})
    );
}

#[tokio::test]
async fn everything_is_there_after_the_process_was_killed() {
    let folder = tempfile::tempdir().unwrap();
    let cluster = open(&folder);
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), "default");
    let secret = object(
        json!({"metadata": {"name": "s", "labels": {"yes": "no"}}, "stringData": {"a": "multi\nline: text\n", "b": ""}}),
    );
    let secret = secrets.create(&PostParams::default(), &secret).await.unwrap();
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    let service: Service = object(json!({"metadata": {"name": "web"}, "spec": {"ports": [{"port": 80}]}}));
    let service = services.create(&PostParams::default(), &service).await.unwrap();
    assert!(
        service
            .spec
            .as_ref()
            .unwrap()
            .cluster_ip
            .as_deref()
            .unwrap()
            .starts_with("10.")
    );
    // A torn write of an object that was there, and of one that never was.
    let place = folder.path().join("objects/core/secrets/default");
    std::fs::write(place.join("s.yaml.tmp"), "apiVersion: v1\nkin").unwrap();
    std::fs::write(place.join("t.yaml.tmp"), "").unwrap();
    drop((secrets, services, cluster));
    let cluster = reopen(&folder).await;
    let secrets: Api<Secret> = Api::namespaced(cluster.client(), "default");
    assert_eq!(secrets.get("s").await.unwrap(), secret);
    assert!(secrets.get_opt("t").await.unwrap().is_none());
    let services: Api<Service> = Api::namespaced(cluster.client(), "default");
    assert_eq!(services.get("web").await.unwrap(), service);
    let newer = secrets
        .create(
            &PostParams::default(),
            &object(json!({"metadata": {"name": "u"}})),
        )
        .await
        .unwrap();
    let number = |v: Option<String>| v.unwrap().parse::<u64>().unwrap();
    assert!(number(newer.resource_version()) > number(service.resource_version()));
}

#[tokio::test]
async fn a_folder_serves_one_process() {
    let folder = tempfile::tempdir().unwrap();
    let _cluster = open(&folder);
    assert!(matches!(
        LocalCluster::open(LocalClusterOptions::new(folder.path())),
        Err(karez_local_api::OpenError::InUse(_))
    ));
}

#[tokio::test]
async fn lists_go_on_where_they_stopped() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let maps: Api<ConfigMap> = Api::namespaced(client, "default");
    for name in ["a", "b", "c"] {
        maps.create(&PostParams::default(), &config_map(name, json!({})))
            .await
            .unwrap();
    }
    let first = maps.list(&ListParams::default().limit(2)).await.unwrap();
    assert_eq!(first.items.len(), 2);
    let token = first.metadata.continue_.unwrap();
    let second = maps
        .list(&ListParams::default().limit(2).continue_token(&token))
        .await
        .unwrap();
    assert_eq!(
        second.items.iter().map(ResourceExt::name_any).collect::<Vec<_>>(),
        ["c"]
    );
    assert_eq!(second.metadata.continue_.unwrap_or_default(), "");
    let generated: ConfigMap = object(json!({"metadata": {"generateName": "g-"}}));
    assert_eq!(
        maps.create(&PostParams::default(), &generated)
            .await
            .unwrap()
            .name_any()
            .len(),
        7
    );
}

#[tokio::test]
async fn mistakes_are_named_and_dry_runs_change_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let mut wrong = deployment("d", 1);
    wrong.metadata.name = Some("No_Name".into());
    wrong
        .spec
        .as_mut()
        .unwrap()
        .template
        .metadata
        .as_mut()
        .unwrap()
        .labels = None;
    let Err(kube::Error::Api(status)) = deployments.create(&PostParams::default(), &wrong).await else {
        panic!("it is wrong")
    };
    assert_eq!((status.code, status.reason.as_str()), (422, "Invalid"));
    let fields: Vec<String> = status
        .details
        .unwrap()
        .causes
        .into_iter()
        .map(|c| c.field)
        .collect();
    assert_eq!(fields, ["metadata.name", "spec.template.metadata.labels"]);

    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    deployments.create(&dry, &deployment("d", 1)).await.unwrap();
    assert!(deployments.get_opt("d").await.unwrap().is_none());

    let mut strict = PatchParams::apply("me");
    strict.field_validation = Some(kube::api::ValidationDirective::Strict);
    let unknown = json!({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d"}, "spec": {"replicass": 1}});
    let Err(kube::Error::Api(status)) = deployments.patch("d", &strict, &Patch::Apply(unknown)).await else {
        panic!("it is unknown")
    };
    assert!(
        status.message.contains("unknown field \"spec.replicass\""),
        "{}",
        status.message
    );
}

struct Labels;

impl Admission for Labels {
    fn admit(&self, operation: Operation, object: &mut Value, store: &dyn Read) -> Result<(), Refusal> {
        if object["kind"] != "Pod" || operation != Operation::Create {
            return Ok(());
        }
        if object["metadata"]["name"] == "bad" {
            return Err(Refusal {
                message: "bad is no name".into(),
            });
        }
        let namespaces = store.list("", "Namespace", None).len();
        object["metadata"]["labels"] = json!({"namespaces": namespaces.to_string()});
        Ok(())
    }
}

#[tokio::test]
async fn admission_changes_and_refuses() {
    let folder = tempfile::tempdir().unwrap();
    let mut options = LocalClusterOptions::new(folder.path());
    options.admission.push(Arc::new(Labels));
    let pods: Api<Pod> = Api::namespaced(LocalCluster::open(options).unwrap().client(), "default");
    let pod = |name: &str| {
        object::<Pod>(
            json!({"metadata": {"name": name}, "spec": {"containers": [{"name": "c", "image": "i"}]}}),
        )
    };
    let made = pods.create(&PostParams::default(), &pod("good")).await.unwrap();
    assert_eq!(made.labels()["namespaces"], "4");
    assert_eq!(
        status(
            pods.create(&PostParams::default(), &pod("bad"))
                .await
                .unwrap_err()
        ),
        (403, "Forbidden".into())
    );
}

#[tokio::test]
async fn events_of_both_kinds_are_one() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let newer: Api<k8s_openapi::api::events::v1::Event> = Api::namespaced(client.clone(), "default");
    let event = object(
        json!({"metadata": {"name": "e"}, "eventTime": "2026-01-01T00:00:00.000000Z", "reason": "R", "note": "words", "type": "Warning",
        "action": "A", "reportingController": "c", "reportingInstance": "i", "regarding": {"kind": "Pod", "name": "p", "namespace": "default"}}),
    );
    newer.create(&PostParams::default(), &event).await.unwrap();
    let core: Api<k8s_openapi::api::core::v1::Event> = Api::namespaced(client, "default");
    let found = core
        .list(&ListParams::default().fields("involvedObject.name=p"))
        .await
        .unwrap();
    assert_eq!(found.items[0].message.as_deref(), Some("words"));
    assert_eq!(newer.get("e").await.unwrap().note.as_deref(), Some("words"));
}

#[tokio::test]
async fn discovery_tells_what_is_served() {
    let folder = tempfile::tempdir().unwrap();
    let client = open(&folder).client();
    let found = kube::discovery::Discovery::new(client.clone())
        .run()
        .await
        .unwrap();
    assert!(found.groups().count() > 10);
    assert!(
        found
            .resolve_gvk(&GroupVersionKind::gvk("apps", "v1", "Deployment"))
            .is_some()
    );
    let found = kube::discovery::Discovery::new(client)
        .run_aggregated()
        .await
        .unwrap();
    assert!(
        found
            .resolve_gvk(&GroupVersionKind::gvk("", "v1", "Pod"))
            .is_some()
    );
}
