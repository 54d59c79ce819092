//! Which certificates a site has, and which of them must be issued now.
//!
//! Authorities are made once and outlive the site's ConfigMap; what they issued is issued anew when the hosts
//! change, when the authority changed, and well before it expires.

use std::collections::BTreeMap;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use karez_identity::{CertificateFacts, signed_by};
use karez_kubernetes::{labels, names};

use super::{CertificateKind, CertificateOrder, RolloverOrder, rollover};
use crate::object::{Strings, strings};
use crate::site_config::SiteConfig;
use crate::snapshot::SiteSnapshot;

/// A site's certificates with what decides about them.
pub(crate) struct Certificates<'a> {
    pub(crate) config: &'a SiteConfig,
    pub(crate) site_id: &'a str,
    pub(crate) snapshot: &'a SiteSnapshot,
    /// Hosts by which `skupper-router` is reached from outside.
    pub(crate) router_hosts: &'a [String],
    /// Hosts by which `skupper` is reached from outside.
    pub(crate) controller_hosts: &'a [String],
    pub(crate) owner: &'a OwnerReference,
    pub(crate) now: Timestamp,
}

struct Wanted {
    secret: &'static str,
    authority: &'static str,
    common_name: &'static str,
    hosts: Vec<String>,
    server: bool,
}

impl Certificates<'_> {
    /// What must be issued now, authorities first.
    pub(crate) fn orders(&self) -> Vec<CertificateOrder> {
        let mut orders: Vec<_> = self
            .authorities()
            .into_iter()
            .filter_map(|name| self.authority(name))
            .collect();
        orders.extend(self.wanted().into_iter().filter_map(|wanted| self.issued(wanted)));
        orders.extend(self.trust());
        orders
    }

    /// When the next of them is to be renewed.
    pub(crate) fn next_renewal(&self) -> Option<Timestamp> {
        let secrets = self
            .wanted()
            .into_iter()
            .filter_map(|wanted| self.snapshot.secrets.get(wanted.secret));
        let facts = secrets.filter_map(|secret| CertificateFacts::from_pem(bytes(secret, "tls.crt")?).ok());
        facts
            .map(|facts| facts.renew_at())
            .filter(|at| *at > self.now)
            .min()
    }

    /// The authorities for which a step of their replacement is due, and when the next one is.
    pub(crate) fn rollovers(&self) -> (Vec<RolloverOrder>, Option<Timestamp>) {
        let (mut orders, mut again) = (Vec::new(), None::<Timestamp>);
        for name in self.authorities() {
            let Some(secret) = self.snapshot.secrets.get(name) else {
                continue;
            };
            // Some have only what is believed, and issue nothing.
            if bytes(secret, "tls.key").is_none_or(<[u8]>::is_empty) {
                continue;
            }
            let (step, at) = rollover::due(secret, self.config.lifetimes.overlap, self.now);
            orders.extend(step.map(|step| rollover::order(name, secret, step)));
            again = again.into_iter().chain(at).min();
        }
        (orders, again)
    }

    /// Names of the Secrets that hold the site's authorities.
    pub(crate) fn authorities(&self) -> Vec<&'static str> {
        if self.config.edge {
            vec![names::LOCAL_CA, names::SERVICE_CA]
        } else {
            vec![names::LOCAL_CA, names::SITE_CA, names::SERVICE_CA]
        }
    }

    fn authority(&self, name: &'static str) -> Option<CertificateOrder> {
        if self.snapshot.secrets.contains_key(name) {
            return None;
        }
        let annotations = if name == names::LOCAL_CA {
            strings([(labels::SITE_ID, self.site_id)])
        } else {
            Strings::new()
        };
        Some(CertificateOrder {
            secret: name.to_owned(),
            namespace: self.config.namespace.clone(),
            kind: CertificateKind::Authority {
                common_name: name.to_owned(),
            },
            owner: None,
            annotations,
            extra: BTreeMap::new(),
        })
    }

    fn wanted(&self) -> Vec<Wanted> {
        let namespace = &self.config.namespace;
        let in_cluster = |name: &str| vec![name.to_owned(), format!("{name}.{namespace}.svc.cluster.local")];
        let mut all = vec![
            Wanted {
                secret: names::LOCAL_SERVER,
                authority: names::LOCAL_CA,
                common_name: names::ROUTER_LOCAL,
                hosts: in_cluster(names::ROUTER_LOCAL),
                server: true,
            },
            Wanted {
                secret: names::LOCAL_CLIENT,
                authority: names::LOCAL_CA,
                common_name: names::ROUTER_LOCAL,
                hosts: Vec::new(),
                server: false,
            },
        ];
        let with_hosts = |first: &[String], hosts: &[String]| {
            let mut all = first.to_vec();
            all.extend(hosts.iter().cloned());
            all
        };
        if !self.config.edge {
            let router = names::ROUTER;
            let own = [
                router.to_owned(),
                format!("{router}.{namespace}"),
                format!("{router}.{namespace}.svc.cluster.local"),
            ];
            all.push(Wanted {
                secret: names::SITE_SERVER,
                authority: names::SITE_CA,
                common_name: router,
                hosts: with_hosts(&own, self.router_hosts),
                server: true,
            });
        }
        let controller = [
            names::CONTROLLER_SERVICE.to_owned(),
            format!("{}.{namespace}", names::CONTROLLER_SERVICE),
        ];
        if !self.config.edge {
            all.push(Wanted {
                secret: names::CLAIMS_SERVER,
                authority: names::SITE_CA,
                common_name: names::CONTROLLER_SERVICE,
                hosts: with_hosts(&controller, self.controller_hosts),
                server: true,
            });
        }
        if self.config.console {
            all.push(Wanted {
                secret: names::CONSOLE_CERTS,
                authority: names::LOCAL_CA,
                common_name: names::CONTROLLER_SERVICE,
                hosts: with_hosts(&controller, self.controller_hosts),
                server: true,
            });
        }
        all
    }

    fn issued(&self, wanted: Wanted) -> Option<CertificateOrder> {
        let issued_for = wanted.hosts.join(",");
        let authority = self.snapshot.secrets.get(wanted.authority);
        if let Some(secret) = self.snapshot.secrets.get(wanted.secret)
            && let Some(authority) = authority
            && annotation(secret, labels::ISSUED_FOR) == Some(&issued_for)
            && self.is_owned(secret)
            && is_good(secret, authority, self.now)
        {
            return None;
        }
        let mut extra = BTreeMap::new();
        if wanted.secret == names::LOCAL_CLIENT {
            extra.insert("connect.json".to_owned(), CONNECT_JSON.as_bytes().to_vec());
        }
        Some(CertificateOrder {
            secret: wanted.secret.to_owned(),
            namespace: self.config.namespace.clone(),
            kind: CertificateKind::Issued {
                authority: wanted.authority.to_owned(),
                common_name: wanted.common_name.to_owned(),
                hosts: wanted.hosts,
                server: wanted.server,
            },
            owner: Some(self.owner.clone()),
            annotations: strings([(labels::ISSUED_FOR, &issued_for)]),
            extra,
        })
    }

    /// A Secret of an earlier ConfigMap goes with it: it must be made for this one.
    fn is_owned(&self, secret: &Secret) -> bool {
        let mut owners = secret.metadata.owner_references.iter().flatten();
        owners.any(|owner| owner.uid == self.owner.uid)
    }

    /// `skupper-service-client`: what clients of TLS services trust.
    fn trust(&self) -> Option<CertificateOrder> {
        let authority = self.snapshot.secrets.get(names::SERVICE_CA);
        let there = self.snapshot.secrets.get(names::SERVICE_CLIENT);
        if let (Some(authority), Some(there)) = (authority, there)
            && bytes(there, "ca.crt") == Some(&rollover::believed(authority)[..])
            && self.is_owned(there)
        {
            return None;
        }
        Some(CertificateOrder {
            secret: names::SERVICE_CLIENT.to_owned(),
            namespace: self.config.namespace.clone(),
            kind: CertificateKind::Trust {
                authority: names::SERVICE_CA.to_owned(),
            },
            owner: Some(self.owner.clone()),
            annotations: Strings::new(),
            extra: BTreeMap::new(),
        })
    }
}

/// How Skupper's own clients find 5671.
const CONNECT_JSON: &str = r#"{"scheme":"amqps","host":"skupper-router-local","port":"5671","tls":{"ca":"/etc/messaging/ca.crt","cert":"/etc/messaging/tls.crt","key":"/etc/messaging/tls.key","verify":true}}"#;

pub(crate) fn annotation<'a>(secret: &'a Secret, key: &str) -> Option<&'a String> {
    secret.metadata.annotations.as_ref()?.get(key)
}

pub(crate) fn bytes<'a>(secret: &'a Secret, key: &str) -> Option<&'a [u8]> {
    Some(&secret.data.as_ref()?.get(key)?.0)
}

/// Whether a certificate Secret is whole, signed by the authority, and not about to expire.
pub(crate) fn is_good(secret: &Secret, authority: &Secret, now: Timestamp) -> bool {
    let (Some(certificate), Some(key), Some(ca)) = (
        bytes(secret, "tls.crt"),
        bytes(secret, "tls.key"),
        bytes(authority, "tls.crt"),
    ) else {
        return false;
    };
    let (Ok(facts), Ok(issuer)) = (
        CertificateFacts::from_pem(certificate),
        CertificateFacts::from_pem(ca),
    ) else {
        return false;
    };
    let believed = rollover::believed(authority);
    let signed =
        signed_by(certificate, ca).unwrap_or(false) && bytes(secret, "ca.crt") == Some(&believed[..]);
    // Nothing is gained by renewing what already lives as long as its authority.
    let renewable = issuer.not_after > facts.not_after;
    signed && !key.is_empty() && !(renewable && expires_soon(&facts, now))
}

/// Whether it is time to renew: a month before the end, or a third of a shorter life.
pub(crate) fn expires_soon(facts: &CertificateFacts, now: Timestamp) -> bool {
    facts.renew_at() <= now
}
