//! What the workload controllers share: owners, hashes, and what a Pod's status says.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, PodTemplateSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::{Resource, ResourceExt};
use serde::Serialize;
use sha2::{Digest, Sha256};

/// The label that ties a ReplicaSet and its Pods to one template of their Deployment.
pub(crate) const POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The label that ties a Pod to one template of its StatefulSet or DaemonSet.
pub(crate) const REVISION_HASH: &str = "controller-revision-hash";

/// The reference by which `owner` controls what is made for it.
pub(crate) fn owned_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    OwnerReference {
        api_version: K::api_version(&()).into_owned(),
        kind: K::kind(&()).into_owned(),
        name: owner.name_any(),
        uid: owner.uid().unwrap_or_default(),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

/// Whether `owner` controls an object of this metadata.
pub(crate) fn is_owned<K: Resource<DynamicType = ()>>(meta: &ObjectMeta, owner: &K) -> bool {
    let uid = owner.meta().uid.as_deref();
    let owners = meta.owner_references.iter().flatten();
    uid.is_some()
        && owners
            .into_iter()
            .any(|one| one.controller == Some(true) && Some(one.uid.as_str()) == uid)
}

/// Ten characters that stand for a template: the same template, the same characters.
pub(crate) fn hash_of(value: &impl Serialize) -> String {
    // A Kubernetes type is plain data with string keys: writing it as JSON cannot fail. Were it to, all would share
    // one hash and nothing would ever roll, which is the harmless side.
    let text = serde_json::to_vec(value).unwrap_or_default();
    let digest = Sha256::digest(&text);
    hex::encode(digest.get(..5).unwrap_or(&digest))
}

/// A Pod made from a template for `owner`, on `node`.
pub(crate) fn pod_from<K: Resource<DynamicType = ()>>(
    owner: &K,
    template: &PodTemplateSpec,
    extra_labels: &[(&str, String)],
    node: &str,
) -> Pod {
    let from = template.metadata.clone().unwrap_or_default();
    let mut labels = from.labels.unwrap_or_default();
    labels.extend(
        extra_labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), value.clone())),
    );
    let metadata = ObjectMeta {
        namespace: owner.namespace(),
        generate_name: Some(format!("{}-", owner.name_any())),
        labels: Some(labels),
        annotations: from.annotations,
        owner_references: Some(vec![owned_by(owner)]),
        ..ObjectMeta::default()
    };
    let spec = template.spec.clone().unwrap_or_default();
    let spec = PodSpec {
        node_name: Some(node.to_owned()),
        ..spec
    };
    Pod {
        metadata,
        spec: Some(spec),
        status: None,
    }
}

/// Whether the Pod counts towards its owner's replicas.
pub(crate) fn is_active(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    pod.metadata.deletion_timestamp.is_none() && !matches!(phase, Some("Failed" | "Succeeded"))
}

/// Since when the Pod is ready; none while it is not or is being deleted.
pub(crate) fn ready_since(pod: &Pod) -> Option<Timestamp> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let conditions = pod.status.as_ref()?.conditions.as_ref()?;
    let ready = conditions
        .iter()
        .find(|one| one.type_ == "Ready" && one.status == "True")?;
    Some(
        ready
            .last_transition_time
            .as_ref()
            .map_or(Timestamp::UNIX_EPOCH, |time| time.0),
    )
}

/// Whether the Pod is ready.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    ready_since(pod).is_some()
}

/// Whether the Pod has been ready for `min_ready` seconds.
pub(crate) fn is_available(pod: &Pod, min_ready: Option<i32>, now: Timestamp) -> bool {
    let wanted = i64::from(min_ready.unwrap_or(0));
    ready_since(pod).is_some_and(|since| now.as_second() - since.as_second() >= wanted)
}

/// A number of Pods as rollout strategies write it: a number, or a share of `total`.
pub(crate) fn share(value: Option<&IntOrString>, default: &str, total: i32, round_up: bool) -> i32 {
    let text = match value {
        Some(IntOrString::Int(number)) => return (*number).max(0),
        Some(IntOrString::String(text)) => text.as_str(),
        None => default,
    };
    let percent: i64 = text.trim_end_matches('%').parse().unwrap_or(25).clamp(0, 1000);
    let product = i64::from(total) * percent;
    let share = if round_up {
        (product + 99) / 100
    } else {
        product / 100
    };
    i32::try_from(share).unwrap_or(i32::MAX)
}

/// The number of something as the API counts.
pub(crate) fn count<T>(items: impl IntoIterator<Item = T>) -> i32 {
    i32::try_from(items.into_iter().count()).unwrap_or(i32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_round_as_rollouts_do() {
        assert_eq!(share(None, "25%", 1, true), 1);
        assert_eq!(share(None, "25%", 1, false), 0);
        assert_eq!(
            share(Some(&IntOrString::String("50%".into())), "25%", 3, false),
            1
        );
        assert_eq!(share(Some(&IntOrString::Int(2)), "25%", 3, false), 2);
        assert_eq!(
            share(Some(&IntOrString::String("nonsense".into())), "25%", 4, false),
            1
        );
    }

    #[test]
    fn the_same_template_has_the_same_hash() {
        let mut template = PodTemplateSpec::default();
        let one = hash_of(&template);
        assert_eq!(one, hash_of(&template));
        assert_eq!(one.len(), 10);
        template.spec = Some(PodSpec {
            host_network: Some(true),
            ..PodSpec::default()
        });
        assert_ne!(one, hash_of(&template));
    }
}
