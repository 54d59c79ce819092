//! `service status`: the addresses that this site knows, and what serves them here.

use serde::Serialize;
use std::collections::BTreeMap;

use super::Tree;

/// One exposed address, as `skupper-services` describes it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceStatus {
    /// The virtual address.
    pub address: String,
    /// `tcp`, `http` or `http2`.
    pub protocol: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// The targets of this site.
    pub targets: Vec<ServiceTarget>,
    /// Labels that its Services carry.
    pub labels: BTreeMap<String, String>,
    /// Whether its connections are encrypted from the first to the last site.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub sealed: bool,
    /// Where the definition comes from: empty (by hand), `annotation`, or a site's id.
    pub origin: String,
}

/// What serves an address on this site.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceTarget {
    /// The target's name.
    pub name: String,
    /// The selector of its Pods, for workloads.
    pub selector: String,
    /// The Service, for Services.
    pub service: String,
}

/// The text that Skupper 1.0.x prints for these services.
pub fn render(services: &[ServiceStatus], show_labels: bool) -> String {
    if services.is_empty() {
        return "No services defined\n".to_owned();
    }
    let children = services.iter().map(|service| service.tree(show_labels));
    Tree::new("Services exposed through Skupper:")
        .children(children)
        .render()
}

impl ServiceStatus {
    fn tree(&self, show_labels: bool) -> Tree {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let word = if ports.len() == 1 { "port" } else { "ports" };
        let sealed = if self.sealed { ", sealed" } else { "" };
        let mut tree = Tree::new(format!(
            "{} ({} {word} {}{sealed})",
            self.address,
            self.protocol,
            ports.join(" ")
        ));
        if !self.targets.is_empty() {
            let targets = self.targets.iter().map(|target| Tree::new(target.line()));
            tree = tree.child(Tree::new("Targets:").children(targets));
        }
        if show_labels && !self.labels.is_empty() {
            let labels = self
                .labels
                .iter()
                .map(|(key, value)| Tree::new(format!("{key}={value}")));
            tree = tree.child(Tree::new("Labels:").children(labels));
        }
        tree
    }
}

impl ServiceTarget {
    fn line(&self) -> String {
        let by = if self.selector.is_empty() {
            &self.service
        } else {
            &self.selector
        };
        if by.is_empty() {
            format!("name={}", self.name)
        } else {
            format!("{by} name={}", self.name)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_tree_of_1_0_0() {
        let services = [
            ServiceStatus {
                address: "a".into(),
                protocol: "tcp".into(),
                ports: vec![8080],
                targets: vec![ServiceTarget {
                    name: "a".into(),
                    selector: "app=a".into(),
                    ..Default::default()
                }],
                ..ServiceStatus::default()
            },
            ServiceStatus {
                address: "b".into(),
                protocol: "tcp".into(),
                ports: vec![1, 2],
                sealed: true,
                ..ServiceStatus::default()
            },
        ];
        let expected = "Services exposed through Skupper:\n├─ a (tcp port 8080)\n│  ╰─ Targets:\n│     ╰─ app=a name=a\n╰─ b (tcp ports 1 2, sealed)\n";
        assert_eq!(render(&services, false), expected);
    }

    #[test]
    fn says_so_when_there_is_none() {
        assert_eq!(render(&[], false), "No services defined\n");
    }

    #[test]
    fn shows_labels_when_asked() {
        let service = ServiceStatus {
            address: "a".into(),
            protocol: "tcp".into(),
            ports: vec![1],
            labels: BTreeMap::from([("app".to_owned(), "x".to_owned())]),
            ..ServiceStatus::default()
        };
        let text = render(&[service], true);
        assert_eq!(
            text,
            "Services exposed through Skupper:\n╰─ a (tcp port 1)\n   ╰─ Labels:\n      ╰─ app=x\n"
        );
    }
}
