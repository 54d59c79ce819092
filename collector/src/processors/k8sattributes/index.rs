//! Data → its Pod: an index of the Pods by what data may say of where it comes from. Pure.

use std::collections::{BTreeMap, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{Namespace, Node, Pod};
use karez_collector_config::k8s_attributes::{self as config, Source, SourceFrom};
use kube::ResourceExt;

use super::extract::{Container, Facts, Rules, all_of, containers};

/// A Pod as data needs it.
#[derive(Debug, Default)]
pub(super) struct Known {
    /// The attributes that its data gets.
    pub(super) facts: Facts,
    pub(super) containers: Vec<Container>,
}

/// How data finds its Pod, in the order in which the ways are tried.
#[derive(Debug)]
pub(super) struct Ways(Vec<Vec<Source>>);

impl Ways {
    pub(super) fn new(associations: &[config::Association]) -> Self {
        let given: Vec<Vec<Source>> = associations.iter().map(config::Association::all).collect();
        if !given.is_empty() {
            return Ways(given);
        }
        let attribute = |name: &str| Source {
            from: SourceFrom::ResourceAttribute,
            name: name.to_owned(),
        };
        let connection = Source {
            from: SourceFrom::Connection,
            name: String::new(),
        };
        Ways(vec![
            vec![attribute("k8s.pod.ip")],
            vec![attribute("k8s.pod.uid")],
            vec![connection],
        ])
    }
}

/// The Pods, namespaces and nodes as of now.
#[derive(Debug, Default)]
pub(super) struct Index {
    by_way: Vec<HashMap<Vec<String>, Arc<Known>>>,
    namespaces: BTreeMap<String, Facts>,
    nodes: BTreeMap<String, Facts>,
}

impl Index {
    /// Indexes what is known; later Pods outdo earlier ones that had the same address.
    pub(super) fn new<'a>(
        rules: &Rules,
        ways: &Ways,
        pods: impl Iterator<Item = &'a Pod>,
        namespaces: impl Iterator<Item = &'a Namespace>,
        nodes: impl Iterator<Item = &'a Node>,
    ) -> Self {
        let mut by_way = vec![HashMap::new(); ways.0.len()];
        for pod in pods {
            let facts = rules.of_pod(pod);
            let (mut names, host_network) = (all_of(pod), is_on_host(pod));
            names.extend(facts.clone());
            let known = Arc::new(Known {
                facts,
                containers: containers(pod),
            });
            for (way, found) in ways.0.iter().zip(&mut by_way) {
                let values = way.iter().map(|source| value_of(source, &names, host_network));
                if let Some(values) = values.collect::<Option<Vec<String>>>() {
                    found.insert(values, known.clone());
                }
            }
        }
        Index {
            by_way,
            namespaces: namespaces
                .map(|one| (one.name_any(), rules.of(config::From::Namespace, &one.metadata)))
                .collect(),
            nodes: nodes
                .map(|one| (one.name_any(), rules.of(config::From::Node, &one.metadata)))
                .collect(),
        }
    }

    /// The Pod that data comes from, by its resource's attributes and the caller's address.
    pub(super) fn pod(
        &self,
        ways: &Ways,
        peer: Option<IpAddr>,
        attribute: impl Fn(&str) -> Option<String>,
    ) -> Option<&Arc<Known>> {
        ways.0.iter().zip(&self.by_way).find_map(|(way, known)| {
            let values = way.iter().map(|source| match source.from {
                SourceFrom::Connection => peer.map(|peer| peer.to_canonical().to_string()),
                SourceFrom::ResourceAttribute => attribute(&source.name).filter(|value| !value.is_empty()),
            });
            known.get(&values.collect::<Option<Vec<String>>>()?)
        })
    }

    /// The attributes of a namespace.
    pub(super) fn namespace(&self, name: &str) -> Option<&Facts> {
        self.namespaces.get(name)
    }

    /// The attributes of a node.
    pub(super) fn node(&self, name: &str) -> Option<&Facts> {
        self.nodes.get(name)
    }
}

/// Pods on their host's network share its address: it tells nothing.
fn is_on_host(pod: &Pod) -> bool {
    pod.spec
        .as_ref()
        .and_then(|spec| spec.host_network)
        .unwrap_or(false)
}

fn value_of(source: &Source, names: &Facts, host_network: bool) -> Option<String> {
    let name = match (source.from, source.name.as_str()) {
        (SourceFrom::Connection, _) | (_, "ip" | "k8s.pod.ip") if host_network => return None,
        (SourceFrom::Connection, _) | (_, "ip") => "k8s.pod.ip",
        (_, "host.name") => "k8s.pod.hostname",
        (_, name) => name,
    };
    names.get(name).cloned()
}
