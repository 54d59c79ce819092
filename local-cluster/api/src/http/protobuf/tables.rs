//! What the fields of each message are called in JSON.
//!
//! Numbers: `generated.proto` beside the Kubernetes API types.

/// What a field holds.
#[derive(Clone, Copy)]
pub(super) enum Form {
    Text,
    Integer,
    Flag,
    Bytes,
    Time,
    Message(Table),
    Texts,
    Messages(Table),
    TextMap,
    BytesMap,
    IntOrString,
}

pub(super) type Table = &'static [(u64, &'static str, Form)];

use Form::{BytesMap, Flag, IntOrString, Integer, Message, Messages, Text, TextMap, Texts, Time};

const OWNER: Table = &[
    (1, "kind", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "controller", Flag),
    (7, "blockOwnerDeletion", Flag),
];
const METADATA: Table = &[
    (1, "name", Text),
    (2, "generateName", Text),
    (3, "namespace", Text),
    (4, "selfLink", Text),
    (5, "uid", Text),
    (6, "resourceVersion", Text),
    (7, "generation", Integer),
    (8, "creationTimestamp", Time),
    (9, "deletionTimestamp", Time),
    (10, "deletionGracePeriodSeconds", Integer),
    (11, "labels", TextMap),
    (12, "annotations", TextMap),
    (13, "ownerReferences", Messages(OWNER)),
    (14, "finalizers", Texts),
];
const REFERENCE: Table = &[
    (1, "kind", Text),
    (2, "namespace", Text),
    (3, "name", Text),
    (4, "uid", Text),
    (5, "apiVersion", Text),
    (6, "resourceVersion", Text),
    (7, "fieldPath", Text),
];
const CONFIG_MAP: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "data", TextMap),
    (3, "binaryData", BytesMap),
    (4, "immutable", Flag),
];
const SECRET: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "data", BytesMap),
    (3, "type", Text),
    (4, "stringData", TextMap),
    (5, "immutable", Flag),
];
const NAMESPACE: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "spec", Message(&[(1, "finalizers", Texts)])),
    (3, "status", Message(&[(1, "phase", Text)])),
];
const ACCOUNT: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "secrets", Messages(REFERENCE)),
    (3, "imagePullSecrets", Messages(&[(1, "name", Text)])),
    (4, "automountServiceAccountToken", Flag),
];
const BOUND: Table = &[
    (1, "kind", Text),
    (2, "apiVersion", Text),
    (3, "name", Text),
    (4, "uID", Text),
];
const TOKEN_SPEC: Table = &[
    (1, "audiences", Texts),
    (3, "boundObjectRef", Message(BOUND)),
    (4, "expirationSeconds", Integer),
];
const TOKEN: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "spec", Message(TOKEN_SPEC)),
    (
        3,
        "status",
        Message(&[(1, "token", Text), (2, "expirationTimestamp", Time)]),
    ),
];
const ATTRIBUTES: Table = &[
    (1, "namespace", Text),
    (2, "verb", Text),
    (3, "group", Text),
    (4, "version", Text),
    (5, "resource", Text),
    (6, "subresource", Text),
    (7, "name", Text),
];
const ACCESS: Table = &[
    (1, "resourceAttributes", Message(ATTRIBUTES)),
    (
        2,
        "nonResourceAttributes",
        Message(&[(1, "path", Text), (2, "verb", Text)]),
    ),
];
const ALLOWED: Table = &[
    (1, "allowed", Flag),
    (2, "reason", Text),
    (3, "evaluationError", Text),
    (4, "denied", Flag),
];
const ACCESS_REVIEW: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "spec", Message(ACCESS)),
    (3, "status", Message(ALLOWED)),
];
const RULES: Table = &[(3, "incomplete", Flag), (4, "evaluationError", Text)];
const RULES_REVIEW: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "spec", Message(&[(1, "namespace", Text)])),
    (3, "status", Message(RULES)),
];
const SELF_REVIEW: Table = &[
    (1, "metadata", Message(METADATA)),
    (
        2,
        "status",
        Message(&[(1, "userInfo", Message(&[(1, "username", Text)]))]),
    ),
];
const CONDITIONS: Table = &[(1, "uid", Text), (2, "resourceVersion", Text)];
const DELETE: Table = &[
    (1, "gracePeriodSeconds", Integer),
    (2, "preconditions", Message(CONDITIONS)),
    (3, "orphanDependents", Flag),
    (4, "propagationPolicy", Text),
    (5, "dryRun", Texts),
];
const EVICTION: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "deleteOptions", Message(DELETE)),
];
const SERVICE_PORT: Table = &[
    (1, "name", Text),
    (2, "protocol", Text),
    (3, "port", Integer),
    (4, "targetPort", IntOrString),
    (5, "nodePort", Integer),
    (6, "appProtocol", Text),
];
const SERVICE_SPEC: Table = &[
    (1, "ports", Messages(SERVICE_PORT)),
    (2, "selector", TextMap),
    (3, "clusterIP", Text),
    (4, "type", Text),
    (5, "externalIPs", Texts),
    (7, "sessionAffinity", Text),
    (8, "loadBalancerIP", Text),
    (10, "externalName", Text),
];
const SERVICE: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "spec", Message(SERVICE_SPEC)),
    (3, "status", Message(&[(1, "loadBalancer", Message(&[]))])),
];
const CONTAINER_PORT: Table = &[
    (1, "name", Text),
    (2, "hostPort", Integer),
    (3, "containerPort", Integer),
    (4, "protocol", Text),
    (5, "hostIP", Text),
];
const CONTAINER: Table = &[
    (1, "name", Text),
    (2, "image", Text),
    (3, "command", Texts),
    (4, "args", Texts),
    (5, "workingDir", Text),
    (6, "ports", Messages(CONTAINER_PORT)),
    (7, "env", Messages(&[(1, "name", Text), (2, "value", Text)])),
    (8, "resources", Message(&[])),
    (13, "terminationMessagePath", Text),
    (14, "imagePullPolicy", Text),
    (16, "stdin", Flag),
    (17, "stdinOnce", Flag),
    (18, "tty", Flag),
    (20, "terminationMessagePolicy", Text),
];
const POD_SPEC: Table = &[
    (2, "containers", Messages(CONTAINER)),
    (3, "restartPolicy", Text),
    (4, "terminationGracePeriodSeconds", Integer),
    (6, "dnsPolicy", Text),
    (7, "nodeSelector", TextMap),
    (8, "serviceAccountName", Text),
    (9, "serviceAccount", Text),
    (10, "nodeName", Text),
    (11, "hostNetwork", Flag),
    (12, "hostPID", Flag),
    (13, "hostIPC", Flag),
    (14, "securityContext", Message(&[])),
    (16, "hostname", Text),
    (17, "subdomain", Text),
    (19, "schedulerName", Text),
    (24, "priorityClassName", Text),
];
const TEMPLATE: Table = &[(1, "metadata", Message(METADATA)), (2, "spec", Message(POD_SPEC))];
const DEPLOYMENT_SPEC: Table = &[
    (1, "replicas", Integer),
    (2, "selector", Message(&[(1, "matchLabels", TextMap)])),
    (3, "template", Message(TEMPLATE)),
    (4, "strategy", Message(&[(1, "type", Text)])),
    (5, "minReadySeconds", Integer),
    (6, "revisionHistoryLimit", Integer),
    (7, "paused", Flag),
    (9, "progressDeadlineSeconds", Integer),
];
const COUNTS: Table = &[
    (1, "observedGeneration", Integer),
    (2, "replicas", Integer),
    (3, "updatedReplicas", Integer),
    (4, "availableReplicas", Integer),
    (5, "unavailableReplicas", Integer),
    (7, "readyReplicas", Integer),
];
const DEPLOYMENT: Table = &[
    (1, "metadata", Message(METADATA)),
    (2, "spec", Message(DEPLOYMENT_SPEC)),
    (3, "status", Message(COUNTS)),
];

pub(super) fn table(kind: &str) -> Option<Table> {
    Some(match kind {
        "ConfigMap" => CONFIG_MAP,
        "Secret" => SECRET,
        "Namespace" => NAMESPACE,
        "ServiceAccount" => ACCOUNT,
        "TokenRequest" => TOKEN,
        "SelfSubjectAccessReview" => ACCESS_REVIEW,
        "SelfSubjectRulesReview" => RULES_REVIEW,
        "SelfSubjectReview" => SELF_REVIEW,
        "DeleteOptions" => DELETE,
        "Eviction" => EVICTION,
        "Service" => SERVICE,
        "Deployment" => DEPLOYMENT,
        _ => return None,
    })
}
