//! Mutual TLS between an allocator and its collectors, by an authority of their own: two Secrets with certificates, and
//! one with the authority, which is followed by another before it ends as a site's is.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Secret;
use karez_identity::CertificateFacts;
use karez_kubernetes::labels;
use serde_json::{Value, json};

use super::{TLS_DIRECTORY, TargetAllocator};
use crate::object::{Strings, strings};
use crate::plan::certificates::{annotation, bytes, is_good};
use crate::plan::collector::dns_name;
use crate::plan::{CertificateKind, CertificateOrder, Plan, rollover};

/// What is known when certificates are planned.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Issuing<'a> {
    /// Secrets of ours, by name.
    pub(crate) secrets: &'a BTreeMap<String, Secret>,
    /// For how long an authority and its successor are both believed.
    pub(crate) overlap: Duration,
    /// The time.
    pub(crate) now: Timestamp,
}

/// Keys of a scrape configuration that hold a secret, not the name of a file with one.
const SECRET_KEYS: [&str; 7] = [
    "password",
    "credentials",
    "bearer_token",
    "client_secret",
    "token",
    "secrets",
    "key",
];

/// `tls` of a collector's receiver.
pub(super) fn settings() -> Value {
    json!({
        "ca_file": format!("{TLS_DIRECTORY}/ca.crt"),
        "cert_file": format!("{TLS_DIRECTORY}/tls.crt"),
        "key_file": format!("{TLS_DIRECTORY}/tls.key"),
        "reload_interval": "5m",
    })
}

fn holds_secret(value: &Value) -> bool {
    match value {
        Value::Object(map) => map.iter().any(|(key, value)| {
            (SECRET_KEYS.contains(&key.as_str()) && !value.is_null()) || holds_secret(value)
        }),
        Value::Array(items) => items.iter().any(holds_secret),
        _ => false,
    }
}

impl TargetAllocator {
    /// Whether they speak over TLS: as the annotation says; without one where jobs may hold secrets, which plain HTTP does
    /// not give, and both sides are ours, since older ones of others do not know how.
    pub(super) fn wants_tls(&self, annotations: Option<&Strings>, foreign_collector: bool) -> bool {
        match annotations
            .and_then(|all| all.get(labels::ALLOCATOR_TLS))
            .map(String::as_str)
        {
            Some("required") => return true,
            Some("off") => return false,
            _ => {}
        }
        let secrets = self.watches_resources() || self.scrape_configs.iter().any(holds_secret);
        let insecure = self.spec["allowInsecureAuthSecrets"] == true;
        secrets && !insecure && self.image().is_none() && !foreign_collector
    }

    fn authority(&self) -> String {
        dns_name(&format!("{}-ca-cert", self.base))
    }

    /// The Secret of the allocator's certificate.
    pub(super) fn server_secret(&self) -> String {
        dns_name(&format!("{}-ta-server-cert", self.base))
    }

    /// The Secret of its collectors' certificate.
    pub(super) fn client_secret(&self) -> String {
        dns_name(&format!("{}-ta-client-cert", self.base))
    }

    /// Plans what is to be issued now, and when to look again.
    pub(in crate::plan) fn issue(&self, issuing: Issuing<'_>, plan: &mut Plan) {
        if !self.tls {
            return;
        }
        let name = self.authority();
        match issuing.secrets.get(&name) {
            None => {
                let kind = CertificateKind::Authority {
                    common_name: name.clone(),
                };
                plan.certificates.push(self.order(&name, kind, Strings::new()));
            }
            Some(authority) => {
                let (step, again) = rollover::due(authority, issuing.overlap, issuing.now);
                plan.rollovers
                    .extend(step.map(|step| rollover::order(&name, authority, step)));
                again.into_iter().for_each(|at| plan.again(at));
            }
        }
        let (service, namespace) = (&self.name, &self.namespace);
        let hosts = vec![
            service.clone(),
            format!("{service}.{namespace}"),
            format!("{service}.{namespace}.svc"),
            format!("{service}.{namespace}.svc.cluster.local"),
        ];
        self.issued(&self.server_secret(), service, hosts, true, issuing, plan);
        self.issued(
            &self.client_secret(),
            &self.base,
            Vec::new(),
            false,
            issuing,
            plan,
        );
    }

    fn issued(
        &self,
        secret: &str,
        common_name: &str,
        hosts: Vec<String>,
        server: bool,
        issuing: Issuing<'_>,
        plan: &mut Plan,
    ) {
        let issued_for = hosts.join(",");
        if let Some(there) = issuing.secrets.get(secret) {
            let authority = issuing.secrets.get(&self.authority());
            let good = authority.is_some_and(|authority| is_good(there, authority, issuing.now));
            if good && annotation(there, labels::ISSUED_FOR) == Some(&issued_for) {
                let facts = bytes(there, "tls.crt").and_then(|pem| CertificateFacts::from_pem(pem).ok());
                let renew = facts.map(|facts| facts.renew_at());
                renew
                    .filter(|at| *at > issuing.now)
                    .into_iter()
                    .for_each(|at| plan.again(at));
                return;
            }
        }
        let kind = CertificateKind::Issued {
            authority: self.authority(),
            common_name: common_name.to_owned(),
            hosts,
            server,
        };
        let annotations = strings([(labels::ISSUED_FOR, &issued_for)]);
        plan.certificates.push(self.order(secret, kind, annotations));
    }

    fn order(&self, secret: &str, kind: CertificateKind, annotations: Strings) -> CertificateOrder {
        CertificateOrder {
            secret: secret.to_owned(),
            namespace: self.namespace.clone(),
            kind,
            owner: Some(self.owner.clone()),
            annotations,
            extra: BTreeMap::new(),
        }
    }
}
