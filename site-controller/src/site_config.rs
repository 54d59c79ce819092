//! The `skupper-site` ConfigMap and what it means.
//!
//! Keys, defaults and Go's reading of booleans are Skupper's 1.9.6, except that the console is on by default as
//! in 1.0.0. Unknown keys are ignored, as Skupper does.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::api::core::v1::ConfigMap;
use karez_kubernetes::labels;

use crate::object::Strings;

/// How a site can be reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ingress {
    LoadBalancer,
    NodePort,
    None,
    /// A kind that Karez does not make; the word as it was written.
    Unsupported(String),
}

impl Ingress {
    fn parse(text: &str) -> Self {
        match text {
            "loadbalancer" => Self::LoadBalancer,
            "nodeport" => Self::NodePort,
            "none" => Self::None,
            other => Self::Unsupported(other.to_owned()),
        }
    }

    /// The type of Services that are to be reached this way.
    pub(crate) fn service_type(&self) -> &'static str {
        match self {
            Self::LoadBalancer => "LoadBalancer",
            Self::NodePort => "NodePort",
            Self::None | Self::Unsupported(_) => "ClusterIP",
        }
    }
}

/// What a `skupper-site` ConfigMap means.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "each is a key of the ConfigMap")]
pub(crate) struct SiteConfig {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) edge: bool,
    pub(crate) ingress: Ingress,
    pub(crate) ingress_host: String,
    pub(crate) console: bool,
    pub(crate) console_authentication: String,
    pub(crate) console_user: String,
    pub(crate) console_password: String,
    pub(crate) console_ingress: Ingress,
    pub(crate) router_console: bool,
    pub(crate) service_controller: bool,
    pub(crate) service_sync: bool,
    pub(crate) service_sync_ttl: Duration,
    pub(crate) replicas: i32,
    pub(crate) lifetimes: Lifetimes,
    /// How long past its end a credential can still be renewed.
    pub(crate) renew_expired: Duration,
    /// Whether every peer may offer addresses that others offer already.
    pub(crate) shares_addresses: bool,
    pub(crate) router: Tuning,
    pub(crate) controller: Tuning,
    /// Labels that go to the site's pods.
    pub(crate) labels: Strings,
    /// Annotations that go to the site's pods.
    pub(crate) annotations: Strings,
}

/// How long certificates are valid.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Lifetimes {
    /// Of authorities.
    pub(crate) authority: Duration,
    /// Of what they issue.
    pub(crate) credential: Duration,
    /// How long an authority and its successor are both believed, at most.
    pub(crate) overlap: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        const FIVE_YEARS: Duration = Duration::from_secs(5 * 365 * 24 * 3600);
        Self {
            authority: FIVE_YEARS,
            credential: FIVE_YEARS,
            overlap: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl Lifetimes {
    /// The shortest that is accepted: less cannot be renewed in time.
    const SHORTEST: Duration = Duration::from_secs(10);

    fn read(annotations: Option<&Strings>) -> Self {
        let usual = Self::default();
        let read =
            |key, usual: Duration| duration(annotations, key).map_or(usual, |read| read.max(Self::SHORTEST));
        Self {
            authority: read(labels::AUTHORITY_LIFETIME, usual.authority),
            credential: read(labels::CREDENTIAL_LIFETIME, usual.credential),
            overlap: read(labels::AUTHORITY_OVERLAP, usual.overlap),
        }
    }
}

fn duration(annotations: Option<&Strings>, key: &str) -> Option<Duration> {
    annotations?.get(key).and_then(|text| go_duration(text))
}

/// Tuning of one component.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tuning {
    pub(crate) requests: Strings,
    pub(crate) limits: Strings,
    pub(crate) node_selector: Strings,
    pub(crate) service_annotations: Strings,
    pub(crate) pod_annotations: Strings,
    pub(crate) load_balancer_ip: String,
}

impl SiteConfig {
    /// Whether routers have to find each other: edge routers never link to each other.
    pub(crate) fn has_several_routers(&self) -> bool {
        self.replicas > 1 && !self.edge
    }

    /// Reads a ConfigMap. Nothing can be wrong with one: what cannot be read has its default or reads as false.
    pub(crate) fn read(map: &ConfigMap) -> Self {
        let empty = BTreeMap::new();
        let keys = Keys(map.data.as_ref().unwrap_or(&empty));
        let namespace = map
            .metadata
            .namespace
            .clone()
            .unwrap_or_else(|| "default".to_owned());
        let ingress = keys.ingress();
        let console = keys.flag("console", true);
        Self {
            name: keys.text("name").unwrap_or(&namespace).to_owned(),
            edge: keys.edge(),
            ingress_host: keys.or_empty("ingress-host"),
            console,
            console_authentication: keys
                .text("console-authentication")
                .unwrap_or("internal")
                .to_owned(),
            console_user: keys.or_empty("console-user"),
            console_password: keys.or_empty("console-password"),
            console_ingress: keys
                .text("console-ingress")
                .map_or_else(|| ingress.clone(), Ingress::parse),
            ingress,
            router_console: keys.flag("router-console", false),
            service_controller: keys.flag("service-controller", true),
            service_sync: keys.flag("service-sync", true),
            service_sync_ttl: keys.time_to_live(),
            replicas: keys
                .text("routers")
                .and_then(|text| text.parse().ok())
                .filter(|n| *n > 0)
                .unwrap_or(1),
            lifetimes: Lifetimes::read(map.metadata.annotations.as_ref()),
            renew_expired: duration(map.metadata.annotations.as_ref(), labels::RENEW_EXPIRED)
                .unwrap_or(Duration::ZERO),
            shares_addresses: (map.metadata.annotations.as_ref())
                .and_then(|all| all.get(labels::ADDRESS_SHARING))
                .is_some_and(|value| value == "any"),
            router: keys.tuning("router"),
            controller: keys.tuning("controller"),
            labels: copied(map.metadata.labels.as_ref(), map, labels::EXCLUDE_LABELS),
            annotations: copied(
                map.metadata.annotations.as_ref(),
                map,
                labels::EXCLUDE_ANNOTATIONS,
            ),
            namespace,
        }
    }

    /// `interior` or `edge`.
    pub(crate) fn mode(&self) -> &'static str {
        if self.edge { "edge" } else { "interior" }
    }

    /// Whether the console has users of its own.
    pub(crate) fn has_console_users(&self) -> bool {
        self.console_authentication == "internal" && (self.console || self.router_console)
    }
}

struct Keys<'a>(&'a Strings);

impl Keys<'_> {
    fn text(&self, key: &str) -> Option<&str> {
        self.0
            .get(key)
            .map(String::as_str)
            .filter(|text| !text.is_empty())
    }

    fn or_empty(&self, key: &str) -> String {
        self.text(key).unwrap_or_default().to_owned()
    }

    /// Go's `ParseBool`; what it cannot parse reads as false.
    fn flag(&self, key: &str, default: bool) -> bool {
        self.0.get(key).map_or(default, |text| {
            matches!(text.as_str(), "1" | "t" | "T" | "TRUE" | "true" | "True")
        })
    }

    fn edge(&self) -> bool {
        match self.text("router-mode") {
            Some(mode) => mode == "edge",
            None => self.0.get("edge").is_some_and(|text| text == "true"),
        }
    }

    fn ingress(&self) -> Ingress {
        match self.text("ingress") {
            Some(ingress) => Ingress::parse(ingress),
            None if self.0.get("cluster-local").is_some_and(|text| text == "true") => Ingress::None,
            None => Ingress::LoadBalancer,
        }
    }

    fn time_to_live(&self) -> Duration {
        let default = Duration::from_secs(180);
        let written = self
            .text("service-sync-site-ttl")
            .and_then(go_duration)
            .unwrap_or(default);
        if written.is_zero() {
            default
        } else {
            written.max(Duration::from_secs(60))
        }
    }

    fn tuning(&self, component: &str) -> Tuning {
        let quantities = |suffix: &str| -> Strings {
            ["cpu", "memory"]
                .into_iter()
                .filter_map(|resource| {
                    let value = self.text(&format!("{component}-{resource}{suffix}"))?;
                    Some((resource.to_owned(), value.to_owned()))
                })
                .collect()
        };
        let requests = quantities("");
        // A limit defaults to its request.
        let mut limits = requests.clone();
        limits.extend(quantities("-limit"));
        let list = |key: &str| {
            self.text(&format!("{component}-{key}"))
                .map(pairs)
                .unwrap_or_default()
        };
        Tuning {
            requests,
            limits,
            node_selector: list("node-selector"),
            service_annotations: list("service-annotations"),
            pod_annotations: list("pod-annotations"),
            load_balancer_ip: self.or_empty(&format!("{component}-load-balancer-ip")),
        }
    }
}

/// Reads `k=v,k2=v2`; parts without `=` are left out.
pub(crate) fn pairs(text: &str) -> Strings {
    text.split(',')
        .filter_map(|part| part.split_once('='))
        .map(|(key, value)| (key.trim().to_owned(), value.trim().to_owned()))
        .filter(|(key, _)| !key.is_empty())
        .collect()
}

/// Reads what Go's `ParseDuration` reads, for the units that make sense here.
fn go_duration(text: &str) -> Option<Duration> {
    let mut total = 0.0_f64;
    let mut rest = text.trim();
    if rest == "0" {
        return Some(Duration::ZERO);
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !(c.is_ascii_digit() || c == '.'))?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let unit_end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..unit_end] {
                "ms" => 0.001,
                "s" => 1.0,
                "m" => 60.0,
                "h" => 3600.0,
                _ => return None,
            };
        rest = &rest[unit_end..];
    }
    Duration::try_from_secs_f64(total).ok()
}

fn copied(from: Option<&Strings>, map: &ConfigMap, exclude: &str) -> Strings {
    let annotations = map.metadata.annotations.as_ref();
    let excluded: Vec<&str> = annotations
        .and_then(|annotations| annotations.get(exclude))
        .map(|list| list.split(',').map(str::trim).collect())
        .unwrap_or_default();
    let own = [
        labels::EXCLUDE_ANNOTATIONS,
        labels::EXCLUDE_LABELS,
        labels::SITE_CONTROLLER_IGNORE,
    ];
    from.into_iter()
        .flatten()
        .filter(|(key, _)| !excluded.contains(&key.as_str()) && !own.contains(&key.as_str()))
        .filter(|(key, _)| {
            // Bookkeeping of whoever applied the ConfigMap is not the site's.
            !key.starts_with("karez.dev/") && !key.starts_with("kubectl.kubernetes.io/")
        })
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::strings;
    use kube::core::ObjectMeta;

    fn read<const N: usize>(data: [(&str, &str); N]) -> SiteConfig {
        SiteConfig::read(&ConfigMap {
            metadata: ObjectMeta {
                namespace: Some("ns".into()),
                labels: Some(strings([("team", "a"), (labels::SITE_CONTROLLER_IGNORE, "true")])),
                annotations: Some(strings([
                    ("keep", "1"),
                    ("drop", "2"),
                    (labels::EXCLUDE_ANNOTATIONS, "drop"),
                    (labels::SOURCE_FILE, "x.yaml"),
                ])),
                ..ObjectMeta::default()
            },
            data: Some(strings(data)),
            ..ConfigMap::default()
        })
    }

    #[test]
    fn an_empty_site_has_the_defaults() {
        let site = read([]);
        assert_eq!((site.name.as_str(), site.mode()), ("ns", "interior"));
        assert_eq!(site.ingress, Ingress::LoadBalancer);
        assert!(site.console && site.service_controller && site.service_sync && !site.router_console);
        assert_eq!(site.service_sync_ttl, Duration::from_secs(180));
        assert_eq!(site.labels, strings([("team", "a")]));
        assert_eq!(site.annotations, strings([("keep", "1")]));
    }

    #[test]
    fn booleans_are_read_as_go_reads_them() {
        assert!(!read([("console", "yes")]).console);
        assert!(read([("console", "T")]).console);
        assert!(!read([("service-sync", "")]).service_sync);
    }

    #[test]
    fn router_mode_wins_over_edge() {
        assert!(read([("edge", "true")]).edge);
        assert!(!read([("edge", "True")]).edge);
        assert!(!read([("edge", "true"), ("router-mode", "interior")]).edge);
    }

    #[test]
    fn cluster_local_is_read_only_without_ingress() {
        assert_eq!(read([("cluster-local", "true")]).ingress, Ingress::None);
        assert_eq!(
            read([("cluster-local", "true"), ("ingress", "nodeport")]).ingress,
            Ingress::NodePort
        );
        assert_eq!(read([("ingress", "none")]).console_ingress, Ingress::None);
    }

    #[test]
    fn limits_default_to_requests() {
        let site = read([
            ("router-cpu", "1"),
            ("router-memory", "1Gi"),
            ("router-memory-limit", "2Gi"),
        ]);
        assert_eq!(site.router.limits, strings([("cpu", "1"), ("memory", "2Gi")]));
    }

    #[test]
    fn the_time_to_live_has_a_floor() {
        assert_eq!(
            read([("service-sync-site-ttl", "10s")]).service_sync_ttl,
            Duration::from_secs(60)
        );
        assert_eq!(
            read([("service-sync-site-ttl", "1h30m")]).service_sync_ttl,
            Duration::from_secs(5400)
        );
        assert_eq!(
            read([("service-sync-site-ttl", "soon")]).service_sync_ttl,
            Duration::from_secs(180)
        );
    }
}
