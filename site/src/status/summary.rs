//! `status`: one sentence about a site, and the ports that nothing serves yet.

use serde::Serialize;

/// A site in short.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SiteSummary {
    /// The site's namespace.
    pub namespace: String,
    /// The site's name.
    pub name: String,
    /// `interior` or `edge`.
    pub mode: String,
    /// Whether its router is ready.
    pub ready: bool,
    /// How many other sites it is connected to.
    pub sites: usize,
    /// How many of them only through another.
    pub indirectly: usize,
    /// How many addresses it knows.
    pub services: usize,
    /// Ports of its Services that nothing serves yet.
    pub unserved: Vec<UnservedPort>,
}

/// A port that a Service offers and nothing serves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UnservedPort {
    /// The Service.
    pub service: String,
    /// The port.
    pub port: u16,
    /// The port's name.
    pub name: String,
    /// Why nothing serves it.
    pub reason: String,
}

impl SiteSummary {
    /// The text that Skupper 1.0.x prints, and below it the ports that nothing serves.
    pub fn render(&self) -> String {
        let mut text = format!("Skupper is enabled for namespace \"{}\"", self.namespace);
        if self.name != self.namespace {
            text.push_str(&format!(" with site name \"{}\"", self.name));
        }
        text.push_str(&format!(" in {} mode.", self.mode));
        text.push_str(&if self.ready {
            self.connected()
        } else {
            " Status pending...".to_owned()
        });
        text.push_str(&match self.services {
            0 => " It has no exposed services.\n".to_owned(),
            1 => " It has 1 exposed service.\n".to_owned(),
            n => format!(" It has {n} exposed services.\n"),
        });
        if !self.unserved.is_empty() {
            text.push_str("Ports that nothing serves yet:\n");
        }
        for port in &self.unserved {
            text.push_str(&format!(
                "  {}:{} ({}): {}\n",
                port.service, port.port, port.name, port.reason
            ));
        }
        text
    }

    fn connected(&self) -> String {
        let indirectly = match self.indirectly {
            0 => String::new(),
            n => format!(" ({n} indirectly)"),
        };
        match self.sites {
            0 => " It is not connected to any other sites.".to_owned(),
            1 => format!(" It is connected to 1 other site{indirectly}."),
            n => format!(" It is connected to {n} other sites{indirectly}."),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn summary() -> SiteSummary {
        SiteSummary {
            namespace: "west".into(),
            name: "public".into(),
            mode: "interior".into(),
            ready: true,
            sites: 2,
            indirectly: 1,
            services: 1,
            unserved: Vec::new(),
        }
    }

    #[test]
    fn prints_the_sentence_of_1_0() {
        assert_eq!(
            summary().render(),
            "Skupper is enabled for namespace \"west\" with site name \"public\" in interior mode. It is connected to 2 other sites (1 indirectly). It has 1 exposed service.\n"
        );
    }

    #[test]
    fn waits_for_the_router() {
        let site = SiteSummary {
            ready: false,
            name: "west".into(),
            services: 0,
            ..summary()
        };
        assert_eq!(
            site.render(),
            "Skupper is enabled for namespace \"west\" in interior mode. Status pending... It has no exposed services.\n"
        );
    }

    #[test]
    fn lists_ports_that_nothing_serves() {
        let port = UnservedPort {
            service: "skupper".into(),
            port: 8080,
            name: "metrics".into(),
            reason: "x".into(),
        };
        let site = SiteSummary {
            unserved: vec![port],
            ..summary()
        };
        assert!(
            site.render()
                .ends_with("Ports that nothing serves yet:\n  skupper:8080 (metrics): x\n")
        );
    }
}
