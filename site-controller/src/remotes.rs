//! What other sites announced, and for how long it holds when they cannot be reached. No clock: `now` comes in.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use karez_kubernetes::ServiceDefinition;
use karez_router_config::api::Status;

use crate::plan::network::announced;

/// The definitions of other sites.
#[derive(Debug, Default)]
pub(crate) struct Remotes {
    sites: BTreeMap<String, Remote>,
}

#[derive(Debug)]
struct Remote {
    services: Vec<ServiceDefinition>,
    seen: Timestamp,
}

impl Remotes {
    /// Starts with what was stored before: a restart must not take addresses away.
    pub(crate) fn restored(stored: impl IntoIterator<Item = ServiceDefinition>, now: Timestamp) -> Self {
        let mut sites: BTreeMap<String, Remote> = BTreeMap::new();
        for definition in stored.into_iter().filter(|definition| !definition.is_local()) {
            let remote = sites.entry(definition.origin.clone()).or_insert_with(|| Remote {
                services: Vec::new(),
                seen: now,
            });
            remote.services.push(definition);
        }
        Self { sites }
    }

    /// Takes in what the router says now.
    ///
    /// A site that is there says itself what it serves: what it withdrew goes at once. One that is not there keeps
    /// what it had for `keep`; without any link, configured or made by others, there is nothing to wait for.
    pub(crate) fn update(
        &mut self,
        status: Option<&Status>,
        local_id: &str,
        is_linked: bool,
        keep: Duration,
        now: Timestamp,
    ) {
        if let Some(status) = status {
            for (id, services) in announced(status, local_id) {
                self.sites.insert(id, Remote { services, seen: now });
            }
            if !is_linked && status.links.is_empty() {
                self.sites.retain(|_, remote| remote.seen == now);
            }
        }
        let keep = SignedDuration::try_from(keep).unwrap_or(SignedDuration::MAX);
        self.sites
            .retain(|_, remote| now.duration_since(remote.seen) <= keep);
    }

    /// What holds now, by site id.
    pub(crate) fn services(&self) -> BTreeMap<String, Vec<ServiceDefinition>> {
        self.sites
            .iter()
            .map(|(id, remote)| (id.clone(), remote.services.clone()))
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use karez_router_config::api::{ServiceStatus, SiteStatus};

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn status(addresses: &[&str]) -> Status {
        let services = addresses.iter().map(|address| ServiceStatus {
            address: (*address).to_owned(),
            protocol: "tcp".into(),
            ports: vec![80],
            ..ServiceStatus::default()
        });
        Status {
            sites: vec![
                SiteStatus {
                    id: "me".into(),
                    ..SiteStatus::default()
                },
                SiteStatus {
                    id: "you".into(),
                    services: services.collect(),
                    ..SiteStatus::default()
                },
            ],
            ..Status::default()
        }
    }

    const KEEP: Duration = Duration::from_secs(60);

    #[test]
    fn what_a_reachable_site_withdraws_goes_at_once() {
        let mut remotes = Remotes::default();
        remotes.update(Some(&status(&["a", "b"])), "me", true, KEEP, at(0));
        assert_eq!(remotes.services()["you"].len(), 2);
        remotes.update(Some(&status(&["b"])), "me", true, KEEP, at(1));
        assert_eq!(remotes.services()["you"][0].address, "b");
        assert_eq!(remotes.services()["you"].len(), 1);
    }

    #[test]
    fn an_unreachable_site_is_remembered_for_a_while() {
        let mut remotes = Remotes::default();
        remotes.update(Some(&status(&["a"])), "me", true, KEEP, at(0));
        remotes.update(Some(&Status::default()), "me", true, KEEP, at(60));
        assert_eq!(remotes.services().len(), 1);
        remotes.update(None, "me", true, KEEP, at(61));
        assert!(remotes.services().is_empty());
    }

    #[test]
    fn without_a_link_nothing_is_waited_for() {
        let mut remotes = Remotes::default();
        remotes.update(Some(&status(&["a"])), "me", true, KEEP, at(0));
        remotes.update(Some(&Status::default()), "me", false, KEEP, at(1));
        assert!(remotes.services().is_empty());
    }

    #[test]
    fn a_restart_keeps_what_was_stored() {
        let stored = ServiceDefinition {
            address: "a".into(),
            origin: "you".into(),
            ..ServiceDefinition::default()
        };
        let local = ServiceDefinition {
            address: "b".into(),
            ..ServiceDefinition::default()
        };
        let mut remotes = Remotes::restored([stored, local], at(0));
        remotes.update(None, "me", true, KEEP, at(10));
        assert_eq!(remotes.services().len(), 1);
    }
}
