//! What kube-controller-manager does, for the few kinds that a site needs: a pure step from what is there ([`World`])
//! to what to write ([`action::Action`]), and a loop around it ([`run::run`]).

mod action;
mod daemon_set;
mod deployment;
pub(crate) mod endpoints;
mod object;
mod replica_set;
mod rollout;
pub(crate) mod run;
mod stateful_set;
#[cfg(test)]
mod tests;

use std::net::IpAddr;
use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use k8s_openapi::api::discovery::v1::EndpointSlice;
use kube::{Resource, ResourceExt};

use action::Action;

pub(crate) use object::hash_of;

/// Everything that the controllers look at.
#[derive(Debug, Default)]
pub(crate) struct World {
    pub(crate) deployments: Vec<Arc<Deployment>>,
    pub(crate) replica_sets: Vec<Arc<ReplicaSet>>,
    pub(crate) stateful_sets: Vec<Arc<StatefulSet>>,
    pub(crate) daemon_sets: Vec<Arc<DaemonSet>>,
    pub(crate) pods: Vec<Arc<Pod>>,
    pub(crate) services: Vec<Arc<Service>>,
    pub(crate) slices: Vec<Arc<EndpointSlice>>,
    pub(crate) endpoints: Vec<Arc<Endpoints>>,
}

/// Where the controllers work.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The one Node.
    pub(crate) node: String,
    /// The address that a load balancer gets.
    pub(crate) external: IpAddr,
}

fn within<K: Resource>(items: &[Arc<K>], namespace: Option<String>) -> Vec<Arc<K>> {
    items
        .iter()
        .filter(|item| item.namespace() == namespace)
        .cloned()
        .collect()
}

/// Everything to write now.
pub(crate) fn plan(world: &World, place: &Place, now: Timestamp) -> Vec<Action> {
    let mut actions = Vec::new();
    for deployment in &world.deployments {
        let sets = within(&world.replica_sets, deployment.namespace());
        let pods = within(&world.pods, deployment.namespace());
        let left =
            |set: &ReplicaSet| object::count(pods.iter().filter(|pod| object::is_owned(&pod.metadata, set)));
        actions.extend(deployment::plan(deployment, &sets, &left, now));
    }
    for set in &world.replica_sets {
        actions.extend(replica_set::plan(
            set,
            &within(&world.pods, set.namespace()),
            &place.node,
            now,
        ));
    }
    for set in &world.stateful_sets {
        actions.extend(stateful_set::plan(
            set,
            &within(&world.pods, set.namespace()),
            &place.node,
            now,
        ));
    }
    for set in &world.daemon_sets {
        actions.extend(daemon_set::plan(
            set,
            &within(&world.pods, set.namespace()),
            &place.node,
            now,
        ));
    }
    for service in &world.services {
        let pods = within(&world.pods, service.namespace());
        let slices = within(&world.slices, service.namespace());
        let endpoints = within(&world.endpoints, service.namespace());
        actions.extend(endpoints::plan(service, &pods, &slices, &endpoints));
        actions.extend(endpoints::balance(service, &pods, place.external));
    }
    actions
}
