//! Pure plans: a snapshot and the time in, objects and orders out. Nothing here reads or writes an API.
//!
//! | from | file | gives |
//! |---|---|---|
//! | `skupper-site` | [`site`], [`site_workloads`], [`certificates`] | a site's Deployments, Services, accounts; certificates to issue |
//! | authorities near their end | [`rollover`] | successors, and when they take over |
//! | token requests | [`tokens`] | tokens to fill |
//! | `OpenTelemetryCollector` | [`collector`], [`collector_ports`], [`collector_workload`] | workload, Services, ConfigMap |
//! | `TargetAllocator`, `spec.targetAllocator` | [`target_allocator`] | the allocator, its certificates, the receivers that ask it |
//! | `Jaeger` | [`jaeger`] | the same for the all-in-one |
//! | annotations, `skupper-services` | [`expose`], [`addresses`] | definitions, address Services |
//! | definitions, tokens | [`router_document`] | the router's document |
//! | requests for renewal, tokens near their end | [`renewal`] | renewed credentials at both ends |
//! | the router's status | [`network`], [`router_notes`] | `NetworkStatus`; what it cannot do |

pub(crate) mod addresses;
pub(crate) mod certificates;
pub(crate) mod collector;
pub(crate) mod collector_ports;
mod collector_workload;
pub(crate) mod expose;
pub(crate) mod jaeger;
pub(crate) mod network;
pub(crate) mod renewal;
pub(crate) mod rollover;
pub(crate) mod router_document;
mod router_notes;
pub(crate) mod service;
pub(crate) mod site;
pub(crate) mod site_workloads;
pub(crate) mod target_allocator;
pub(crate) mod tokens;

#[cfg(test)]
mod rollover_tests;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ObjectReference, Secret};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::Value;

use crate::object::{ObjectRef, Strings};

/// What is to be done.
#[derive(Clone, Debug, Default)]
pub(crate) struct Plan {
    /// Objects to apply, in order.
    pub(crate) objects: Vec<Value>,
    /// Objects that were ours and are no longer wanted.
    pub(crate) deletions: Vec<ObjectRef>,
    /// Certificates to issue, authorities first.
    pub(crate) certificates: Vec<CertificateOrder>,
    /// Authorities that another one follows.
    pub(crate) rollovers: Vec<RolloverOrder>,
    /// Token requests to answer.
    pub(crate) tokens: Vec<TokenOrder>,
    /// Records of claims to complete.
    pub(crate) claims: Vec<ClaimOrder>,
    /// Requests for renewed certificates to sign.
    pub(crate) renewals: Vec<RenewalOrder>,
    /// Links' Secrets that need a key for their next certificate.
    pub(crate) keys: Vec<String>,
    /// Secrets to change in part.
    pub(crate) changes: Vec<SecretChange>,
    /// When to plan again although nothing changed: a certificate is to be renewed then.
    pub(crate) again_at: Option<Timestamp>,
    /// Statuses to apply (`apiVersion`, `kind`, `metadata`, `status`).
    pub(crate) statuses: Vec<Value>,
    /// What the user should know, as Events.
    pub(crate) notes: Vec<Note>,
}

impl Plan {
    /// Adds another plan's actions to this one's.
    pub(crate) fn extend(&mut self, other: Self) {
        self.objects.extend(other.objects);
        self.deletions.extend(other.deletions);
        self.certificates.extend(other.certificates);
        self.rollovers.extend(other.rollovers);
        self.tokens.extend(other.tokens);
        self.claims.extend(other.claims);
        self.renewals.extend(other.renewals);
        self.keys.extend(other.keys);
        self.changes.extend(other.changes);
        if let Some(at) = other.again_at {
            self.again(at);
        }
        self.statuses.extend(other.statuses);
        self.notes.extend(other.notes);
    }

    /// Asks to be planned again at a time, if not earlier.
    pub(crate) fn again(&mut self, at: Timestamp) {
        self.again_at = Some(self.again_at.map_or(at, |earlier| earlier.min(at)));
    }

    /// Plans the deletion of those live objects that are not planned.
    pub(crate) fn prune<'a>(&mut self, live: impl IntoIterator<Item = &'a ObjectRef>) {
        let kept: BTreeSet<_> = self
            .objects
            .iter()
            .map(|object| ObjectRef::of(object).key())
            .collect();
        let gone = live
            .into_iter()
            .filter(|object| !kept.contains(&object.key()))
            .cloned();
        self.deletions.extend(gone);
    }
}

/// A certificate Secret that is missing, wrong or about to expire.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct CertificateOrder {
    /// The Secret's name.
    pub(crate) secret: String,
    /// Its namespace.
    pub(crate) namespace: String,
    /// What goes into it.
    pub(crate) kind: CertificateKind,
    /// Who owns the Secret; authorities outlive their site and have no owner.
    pub(crate) owner: Option<OwnerReference>,
    /// Its annotations.
    pub(crate) annotations: Strings,
    /// Other data keys.
    pub(crate) extra: BTreeMap<String, Vec<u8>>,
}

/// What kind of certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum CertificateKind {
    /// A new authority of that common name.
    Authority {
        /// Its common name.
        common_name: String,
    },
    /// Issued by the authority in that Secret.
    Issued {
        /// Secret of the authority.
        authority: String,
        /// Common name.
        common_name: String,
        /// DNS names and IP addresses.
        hosts: Vec<String>,
        /// For a server or a client.
        server: bool,
    },
    /// No certificate: a console user with a password made up for it.
    ConsoleUser {
        /// Its name.
        user: String,
    },
    /// Only the authority's certificate, for those who trust it.
    Trust {
        /// Secret of the authority.
        authority: String,
    },
}

/// An authority that another one follows: the step that is due.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RolloverOrder {
    /// The Secret's name.
    pub(crate) name: String,
    /// The Secret as it is now.
    pub(crate) authority: Secret,
    /// What is to be done.
    pub(crate) step: rollover::Step,
}

/// A token request that can be answered.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct TokenOrder {
    /// The request as it is now.
    pub(crate) request: Secret,
    /// The issuing site.
    pub(crate) site_id: String,
    /// Where interior routers dial.
    pub(crate) inter_router: (String, u16),
    /// Where edges dial.
    pub(crate) edge: (String, u16),
}

/// A claim's record that lacks what its holder needs.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ClaimOrder {
    /// The record as it is now.
    pub(crate) record: Secret,
    /// The issuing site.
    pub(crate) site_id: String,
    /// Where it is redeemed.
    pub(crate) endpoint: (String, u16),
}

/// A token's record with requests for renewed certificates.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RenewalOrder {
    /// The record as it is now.
    pub(crate) record: Secret,
    /// The issuing site.
    pub(crate) site_id: String,
    /// How long past its end a certificate can still be renewed.
    pub(crate) renew_expired: std::time::Duration,
}

/// A change of some keys of a Secret; the others are not touched.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SecretChange {
    /// Its name.
    pub(crate) secret: String,
    /// Data keys to set, or to remove.
    pub(crate) data: BTreeMap<String, Option<Vec<u8>>>,
    /// Annotations to set.
    pub(crate) annotations: Strings,
}

/// Something to tell the user about an object.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Note {
    /// The object.
    pub(crate) about: ObjectReference,
    /// Whether something is wrong.
    pub(crate) warning: bool,
    /// A word for machines.
    pub(crate) reason: &'static str,
    /// A sentence for people.
    pub(crate) message: String,
}
