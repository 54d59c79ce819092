//! `network status`: every site that this one knows, its links and the addresses it serves.
//!
//! Pure: [`NetworkStatus`] is what was observed, [`NetworkStatus::tree`] is the text of Skupper 1.0.1.

use serde::Serialize;

use super::Tree;

/// The whole network as one site sees it; the local site comes where the caller puts it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkStatus {
    /// All sites, the local one among them.
    pub sites: Vec<SiteStatus>,
    /// Every address of the network.
    pub services: Vec<NetworkService>,
}

/// One site of the network.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteStatus {
    /// The site's id: the UID of its `skupper-site` ConfigMap.
    pub id: String,
    /// The site's name.
    pub name: String,
    /// The namespace it lives in.
    pub namespace: String,
    /// The version it runs.
    pub version: String,
    /// Where its router can be reached; empty where it accepts no links.
    pub url: String,
    /// `interior` or `edge`; printed for the local site only.
    pub mode: String,
    /// Whether this is the site that was asked.
    pub local: bool,
    /// The sites that it made links to.
    pub links: Vec<LinkedSite>,
}

/// The other end of a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkedSite {
    /// Id of the site at the other end.
    pub id: String,
    /// Name of the site at the other end.
    pub name: String,
    /// Whether the link carries traffic now.
    pub active: bool,
}

/// An address of the network and the sites that serve it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkService {
    /// The virtual address.
    pub address: String,
    /// `tcp`, `http` or `http2`.
    pub protocol: String,
    /// Its ports.
    pub ports: Vec<u16>,
    /// What serves it: one entry a connector, so a target with three ports is named three times.
    pub targets: Vec<NetworkTarget>,
}

/// A target of an address, on the site that has it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NetworkTarget {
    /// Id of the site that has the target.
    pub site: String,
    /// The target's name.
    pub name: String,
}

impl NetworkStatus {
    /// The tree as text, as Skupper 1.0.1 prints it. `colour` marks links that are down in red.
    pub fn tree(&self, colour: bool) -> String {
        Tree::new("Sites:")
            .children(self.sites.iter().map(|site| self.site(site, colour)))
            .render()
    }

    fn site(&self, site: &SiteStatus, colour: bool) -> Tree {
        let place = if site.local { "local" } else { "remote" };
        let links: Vec<String> = site
            .links
            .iter()
            .map(|link| link.render(site.local, colour))
            .collect();
        let tree = Tree::new(format!("[{place}] {} - {} ", short(&site.id), site.name))
            .detail("URL", &site.url)
            .detail("mode", if site.local { site.mode.as_str() } else { "" })
            .detail("name", &site.name)
            .detail("namespace", &site.namespace)
            .detail("sites linked to", links.join(", "))
            .detail("version", &site.version);
        if self.services.is_empty() {
            return tree;
        }
        let services = self.services.iter().map(|service| service.tree(&site.id));
        tree.child(Tree::new("Services:").children(services))
    }
}

impl LinkedSite {
    fn render(&self, local: bool, colour: bool) -> String {
        let name = format!("{}-{}", short(&self.id), self.name);
        match (self.active || !local, colour) {
            (true, _) => name,
            (false, true) => format!("\u{1b}[1;31m{name} (link not active)\u{1b}[0m"),
            (false, false) => format!("{name} (link not active)"),
        }
    }
}

impl NetworkService {
    fn tree(&self, site: &str) -> Tree {
        let ports: Vec<String> = self.ports.iter().map(u16::to_string).collect();
        let tree = Tree::new(format!("name: {}", self.address))
            .detail("address", format!("{}: {}", self.address, ports.join(" ")))
            .detail("protocol", &self.protocol);
        let targets: Vec<Tree> = self
            .targets
            .iter()
            .filter(|target| target.site == site)
            .map(|target| Tree::new(format!("name: {}", target.name)))
            .collect();
        if targets.is_empty() {
            tree
        } else {
            tree.child(Tree::new("Targets:").children(targets))
        }
    }
}

/// The first seven characters of an id, as Skupper shortens them.
fn short(id: &str) -> String {
    id.chars().take(7).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network() -> NetworkStatus {
        let target = NetworkTarget {
            site: "d454838c-public".into(),
            name: "otel-collector-app-collector".into(),
        };
        NetworkStatus {
            sites: vec![
                SiteStatus {
                    id: "d454838c-public".into(),
                    name: "public-site".into(),
                    namespace: "linked".into(),
                    version: "1.0.0".into(),
                    mode: "interior".into(),
                    ..SiteStatus::default()
                },
                SiteStatus {
                    id: "d529a861-edge".into(),
                    name: "edge-site".into(),
                    namespace: "default".into(),
                    version: "1.0.1".into(),
                    mode: "edge".into(),
                    local: true,
                    links: vec![LinkedSite {
                        id: "d454838c-public".into(),
                        name: "public-site".into(),
                        active: true,
                    }],
                    ..SiteStatus::default()
                },
            ],
            services: vec![NetworkService {
                address: "otel-liked-collector".into(),
                protocol: "tcp".into(),
                ports: vec![4317, 4318, 55681],
                targets: vec![target.clone(), target.clone(), target],
            }],
        }
    }

    #[test]
    fn prints_the_tree_of_1_0_1() {
        let expected = [
            "Sites:",
            "├─ [remote] d454838 - public-site ",
            "│  name: public-site",
            "│  namespace: linked",
            "│  version: 1.0.0",
            "│  ╰─ Services:",
            "│     ╰─ name: otel-liked-collector",
            "│        address: otel-liked-collector: 4317 4318 55681",
            "│        protocol: tcp",
            "│        ╰─ Targets:",
            "│           ├─ name: otel-collector-app-collector",
            "│           ├─ name: otel-collector-app-collector",
            "│           ╰─ name: otel-collector-app-collector",
            "╰─ [local] d529a86 - edge-site ",
            "   mode: edge",
            "   name: edge-site",
            "   namespace: default",
            "   sites linked to: d454838-public-site",
            "   version: 1.0.1",
            "   ╰─ Services:",
            "      ╰─ name: otel-liked-collector",
            "         address: otel-liked-collector: 4317 4318 55681",
            "         protocol: tcp",
            "",
        ];
        assert_eq!(network().tree(false), expected.join("\n"));
    }

    #[test]
    fn marks_a_local_link_that_is_down() {
        let mut network = network();
        network.sites[1].links[0].active = false;
        assert!(
            network
                .tree(false)
                .contains("   sites linked to: d454838-public-site (link not active)\n")
        );
        let coloured = "sites linked to: \u{1b}[1;31md454838-public-site (link not active)\u{1b}[0m\n";
        assert!(network.tree(true).contains(coloured));
    }

    #[test]
    fn a_site_without_services_has_no_services_branch() {
        let mut network = network();
        network.services.clear();
        assert!(!network.tree(false).contains("Services:"));
    }
}
