//! The one Node: registered, kept ready, with the Lease that says that it is alive.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::api::core::v1::{Namespace, Node, NodeAddress, NodeCondition, NodeStatus, NodeSystemInfo};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta, Time};
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};

use karez_lifecycle::Shutdown;

use crate::pods::fields::memory_of;

const LEASES: &str = "kube-node-lease";
/// How often the Lease is renewed, and how long it holds; as kubelet does.
const RENEWAL: Duration = Duration::from_secs(10);
const LEASE_SECONDS: i32 = 40;
/// The Node's status is written this many renewals apart.
const STATUS_EVERY: u32 = 18;

/// Keeps the Node until the shutdown. What fails is tried again at the next renewal.
pub(crate) async fn keep(client: Client, name: String, address: IpAddr, shutdown: Shutdown) {
    let mut failing = false;
    for round in 0u32.. {
        let result = async {
            if round % STATUS_EVERY == 0 || failing {
                register(&client, &name, address).await?;
            }
            renew(&client, &name).await
        };
        match result.await {
            Ok(()) => failing = false,
            Err(error) => {
                tracing::warn!(node = name, %error, "the Node cannot be kept; trying again");
                failing = true;
            }
        }
        tokio::select! {
            () = shutdown.triggered() => return,
            () = tokio::time::sleep(if failing { Duration::from_secs(1) } else { RENEWAL }) => {}
        }
    }
}

/// An object that is there already is as good as one that was made.
fn unless_there(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        other => other,
    }
}

async fn register(client: &Client, name: &str, address: IpAddr) -> kube::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    let labels = [
        ("kubernetes.io/hostname", name),
        ("kubernetes.io/os", std::env::consts::OS),
        ("kubernetes.io/arch", architecture()),
    ];
    let labels = labels.map(|(key, value)| (key.to_owned(), value.to_owned()));
    let node = Node {
        metadata: ObjectMeta {
            name: Some(name.into()),
            labels: Some(labels.into()),
            ..ObjectMeta::default()
        },
        ..Node::default()
    };
    unless_there(nodes.create(&PostParams::default(), &node).await.map(drop))?;
    let known = nodes.get(name).await?;
    let status = status(name, address, known.status.as_ref(), Timestamp::now());
    let patch = serde_json::json!({"status": status});
    nodes
        .patch_status(name, &PatchParams::default(), &Patch::Merge(patch))
        .await
        .map(drop)
}

async fn renew(client: &Client, name: &str) -> kube::Result<()> {
    let now = MicroTime(Timestamp::now());
    let leases: Api<Lease> = Api::namespaced(client.clone(), LEASES);
    let patch = serde_json::json!({"spec": {
        "holderIdentity": name, "leaseDurationSeconds": LEASE_SECONDS, "renewTime": now,
    }});
    let patched = leases
        .patch(name, &PatchParams::default(), &Patch::Merge(patch))
        .await;
    match patched {
        Err(kube::Error::Api(status)) if status.code == 404 => {}
        other => return other.map(drop),
    }
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = Namespace {
        metadata: ObjectMeta {
            name: Some(LEASES.into()),
            ..ObjectMeta::default()
        },
        ..Namespace::default()
    };
    unless_there(
        namespaces
            .create(&PostParams::default(), &namespace)
            .await
            .map(drop),
    )?;
    let lease = Lease {
        metadata: ObjectMeta {
            name: Some(name.into()),
            namespace: Some(LEASES.into()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(name.into()),
            lease_duration_seconds: Some(LEASE_SECONDS),
            renew_time: Some(now),
            ..LeaseSpec::default()
        }),
    };
    unless_there(leases.create(&PostParams::default(), &lease).await.map(drop))
}

fn status(name: &str, address: IpAddr, before: Option<&NodeStatus>, now: Timestamp) -> NodeStatus {
    let known = before.and_then(|before| before.conditions.as_ref());
    let condition = |kind: &str, status: &str, reason: &str| {
        let known = known.and_then(|all| all.iter().find(|one| one.type_ == kind && one.status == status));
        let since = known.and_then(|one| one.last_transition_time.clone());
        NodeCondition {
            type_: kind.into(),
            status: status.into(),
            reason: Some(reason.into()),
            message: Some("karez runs this Node's Pods as child processes".into()),
            last_heartbeat_time: Some(Time(now)),
            last_transition_time: Some(since.unwrap_or(Time(now))),
        }
    };
    let one = |kind: &str, address: String| NodeAddress {
        type_: kind.into(),
        address,
    };
    let read = |path: &str| {
        std::fs::read_to_string(path)
            .unwrap_or_default()
            .trim()
            .to_owned()
    };
    NodeStatus {
        conditions: Some(vec![
            condition("MemoryPressure", "False", "KarezHasSufficientMemory"),
            condition("DiskPressure", "False", "KarezHasNoDiskPressure"),
            condition("PIDPressure", "False", "KarezHasSufficientPID"),
            condition("Ready", "True", "KarezReady"),
        ]),
        addresses: Some(vec![
            one("InternalIP", address.to_string()),
            one("Hostname", name.into()),
        ]),
        capacity: Some(capacity()),
        allocatable: Some(capacity()),
        node_info: Some(NodeSystemInfo {
            architecture: architecture().into(),
            operating_system: std::env::consts::OS.into(),
            kubelet_version: concat!("v", env!("CARGO_PKG_VERSION"), "+karez").into(),
            container_runtime_version: concat!("process://", env!("CARGO_PKG_VERSION")).into(),
            kernel_version: read("/proc/sys/kernel/osrelease"),
            os_image: "the host's".into(),
            ..NodeSystemInfo::default()
        }),
        ..NodeStatus::default()
    }
}

fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn capacity() -> BTreeMap<String, Quantity> {
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let memory = memory_of(&std::fs::read_to_string("/proc/meminfo").unwrap_or_default()).unwrap_or(0);
    BTreeMap::from([
        ("cpu".to_owned(), Quantity(cpus.to_string())),
        ("memory".to_owned(), Quantity(format!("{}Ki", memory / 1024))),
        ("pods".to_owned(), Quantity("253".to_owned())),
    ])
}
