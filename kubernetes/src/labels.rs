//! Labels and annotations, the peers' and our own.

/// Label of Secrets: what the Secret is (see the constants below).
pub const TYPE: &str = "skupper.io/type";
/// Value of [`TYPE`]: a credential for a link.
pub const TYPE_TOKEN: &str = "connection-token";
/// Value of [`TYPE`]: please fill this Secret with a credential.
pub const TYPE_TOKEN_REQUEST: &str = "connection-token-request";
/// Value of [`TYPE`]: to be redeemed for a credential.
pub const TYPE_CLAIM: &str = "token-claim";
/// Value of [`TYPE`]: the issuer's record of a claim.
pub const TYPE_CLAIM_RECORD: &str = "token-claim-record";
/// Label of a link's Secret that a policy disabled.
pub const DISABLED: &str = "internal.skupper.io/disabled";

/// Annotation of tokens: the issuer's site id.
pub const GENERATED_BY: &str = "skupper.io/generated-by";
/// Annotation of tokens: the issuer's version.
pub const SITE_VERSION: &str = "skupper.io/site-version";
/// Annotation of tokens: the link's cost.
pub const COST: &str = "skupper.io/cost";
/// Annotation of a claim: why it is not redeemed.
pub const CLAIM_STATUS: &str = "internal.skupper.io/status";
/// Annotation of a claim that is not tried again: since when.
pub const CLAIM_LAST_FAILED: &str = "internal.skupper.io/last-failed";
/// Annotation of a token that was made for a claim: the claim's record.
pub const CLAIM: &str = "karez.dev/claim";
/// Annotation of a token request: the common name of the certificate, where it is not the Secret's name.
pub const SUBJECT: &str = "karez.dev/subject";
/// Annotation of a site's ConfigMap: how long what it issues is valid.
pub const CREDENTIAL_LIFETIME: &str = "karez.dev/credential-lifetime";
/// Annotation of a site's ConfigMap: how long its authorities are valid.
pub const AUTHORITY_LIFETIME: &str = "karez.dev/authority-lifetime";
/// Annotation of a site's ConfigMap: for how long an authority and its successor are both believed.
pub const AUTHORITY_OVERLAP: &str = "karez.dev/authority-overlap";
/// Annotation of an authority's Secret: `true` has a successor made now.
pub const ROLLOVER: &str = "karez.dev/rollover";
/// Annotation of an authority's Secret: since when its successor is believed beside it.
pub const NEXT_SINCE: &str = "karez.dev/next-since";
/// Annotation of an authority's Secret: until when its predecessor is believed beside it.
pub const PREVIOUS_UNTIL: &str = "karez.dev/previous-until";
/// Annotation of a site's ConfigMap: how long past its end a credential can still be renewed.
pub const RENEW_EXPIRED: &str = "karez.dev/renew-expired";
/// Annotation of a site's ConfigMap: `any` lets every peer offer addresses that others offer already.
pub const ADDRESS_SHARING: &str = "karez.dev/address-sharing";

/// Annotation of tokens: host for links between routers.
pub const INTER_ROUTER_HOST: &str = "inter-router-host";
/// Annotation of tokens: port for links between routers.
pub const INTER_ROUTER_PORT: &str = "inter-router-port";
/// Annotation of tokens: host for links from edges.
pub const EDGE_HOST: &str = "edge-host";
/// Annotation of tokens: port for links from edges.
pub const EDGE_PORT: &str = "edge-port";

/// Annotation of workloads and Services: expose with this protocol.
pub const PROXY: &str = "skupper.io/proxy";
/// Annotation: the virtual address.
pub const ADDRESS: &str = "skupper.io/address";
/// Annotation: `port[:targetPort][,…]`.
pub const PORT: &str = "skupper.io/port";
/// Annotation of Services: another Service is the target.
pub const TARGET: &str = "skupper.io/target";
/// Annotation of Services: define the address without targets.
pub const INGRESS_ONLY: &str = "skupper.io/ingress-only";
/// Annotation: whether the address gets a Service on this site (`Always`, `Never`).
pub const INGRESS: &str = "skupper.io/ingress";
/// Annotation: labels for Services made for the address.
pub const SERVICE_LABELS: &str = "skupper.io/service-labels";
/// Annotation: annotations for Services made for the address.
pub const SERVICE_ANNOTATIONS: &str = "skupper.io/service-annotations";
/// Annotation of StatefulSets: a headless definition.
pub const HEADLESS: &str = "skupper.io/headless";

/// Annotation of Services that the service-level controller made.
pub const CONTROLLED: &str = "internal.skupper.io/controlled";
/// Annotation of a Service taken over: its selector before.
pub const ORIGINAL_SELECTOR: &str = "internal.skupper.io/originalSelector";
/// Annotation of a Service taken over: its target ports before.
pub const ORIGINAL_TARGET_PORT: &str = "internal.skupper.io/originalTargetPort";
/// Annotation of a Service taken over: the target ports it was given.
pub const ORIGINAL_ASSIGNED_PORT: &str = "internal.skupper.io/originalAssignedPort";
/// Label of pods: `router` or `service-controller`.
pub const COMPONENT: &str = "skupper.io/component";
/// Label of a site's ConfigMap that the controller must leave alone.
pub const SITE_CONTROLLER_IGNORE: &str = "internal.skupper.io/site-controller-ignore";
/// Annotation of a site's ConfigMap: annotations not to copy.
pub const EXCLUDE_ANNOTATIONS: &str = "skupper.io/exclude-annotations";
/// Annotation of a site's ConfigMap: labels not to copy.
pub const EXCLUDE_LABELS: &str = "skupper.io/exclude-labels";

/// Annotation of pods, pod templates and namespaces: which collector to inject.
pub const SIDECAR_INJECT: &str = "sidecar.opentelemetry.io/inject";
/// Label of pods that have a sidecar.
pub const SIDECAR_INJECTED: &str = "sidecar.opentelemetry.io/injected";
/// Label of a collector's headless Service.
pub const COLLECTOR_HEADLESS: &str = "operator.opentelemetry.io/collector-headless-service";
/// Label of a collector's monitoring Service.
pub const COLLECTOR_MONITORING: &str = "operator.opentelemetry.io/collector-monitoring-service";

/// Recommended label: name.
pub const APP_NAME: &str = "app.kubernetes.io/name";
/// Recommended label: instance.
pub const APP_INSTANCE: &str = "app.kubernetes.io/instance";
/// Recommended label: version.
pub const APP_VERSION: &str = "app.kubernetes.io/version";
/// Recommended label: component.
pub const APP_COMPONENT: &str = "app.kubernetes.io/component";
/// Recommended label: part of.
pub const APP_PART_OF: &str = "app.kubernetes.io/part-of";
/// Recommended label: managed by.
pub const APP_MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Annotation: the file that an object was read from.
pub const SOURCE_FILE: &str = "karez.dev/source-file";
/// Annotation: the line of the object's first line in that file.
pub const SOURCE_LINE: &str = "karez.dev/source-line";
/// Annotation: the line where the text of a `config: |` block starts in that file.
pub const CONFIG_LINE: &str = "karez.dev/config-line";
/// Label of objects that a site's controllers made (`site`, `service`, `collector`, `jaeger`).
pub const MANAGED: &str = "karez.dev/managed";
/// Annotation of the local authority's Secret: the site's id, which outlives its ConfigMap.
pub const SITE_ID: &str = "karez.dev/site-id";
/// Annotation of what is exposed: `v1` or `v2` of the PROXY protocol, that targets learn the client by.
pub const PROXY_PROTOCOL: &str = "karez.dev/proxy-protocol";
/// Annotation of a site's ConfigMap: records a second of the router's access log.
pub const ACCESS_LOG: &str = "karez.dev/access-log";
/// Annotation of what is exposed: connections after which other targets and sites are preferred to it.
pub const CAPACITY: &str = "karez.dev/capacity";
/// Annotation of what is exposed: `true` encrypts its connections from the first to the last site.
pub const SEALED: &str = "karez.dev/sealed";
/// Value of [`TYPE`]: what a site proves itself with at the ends of sealed connections.
pub const TYPE_SEAL: &str = "karez-seal";
/// Annotation of certificates' Secrets: the hosts they were issued for.
pub const ISSUED_FOR: &str = "karez.dev/issued-for";

/// Label of a collector: the `TargetAllocator` of its namespace that divides its targets.
pub const TARGET_ALLOCATOR: &str = "opentelemetry.io/target-allocator";
/// Annotation of a collector or a `TargetAllocator`: `required` or `off`, where mutual TLS between them is not to be used
/// just where jobs may hold secrets.
pub const ALLOCATOR_TLS: &str = "karez.dev/allocator-tls";
