//! `link status`: the links that this site makes, in the words of Skupper 1.0.x.

use serde::Serialize;

/// One link of this site and how it is.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LinkStatus {
    /// The link's name: the token Secret's.
    pub name: String,
    /// `host:port` of the peer.
    pub peer: String,
    /// Name of the site at the other end, once known.
    pub site: String,
    /// Its cost.
    pub cost: u32,
    /// Whether it carries traffic.
    pub active: bool,
    /// Why not, where that is known.
    pub description: String,
}

impl LinkStatus {
    /// The link's line.
    pub fn line(&self) -> String {
        match (self.active, self.description.is_empty()) {
            (true, _) => format!("Link {} is active", self.name),
            (false, true) => format!("Link {} not active", self.name),
            (false, false) => format!("Link {} not active ({})", self.name, self.description),
        }
    }
}

/// All links' lines, or the sentence that there is none.
pub fn render(links: &[LinkStatus]) -> String {
    if links.is_empty() {
        return "There are no links configured or active\n".to_owned();
    }
    links.iter().map(|link| link.line() + "\n").collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_the_lines_of_1_0() {
        let mut link = LinkStatus {
            name: "link1".into(),
            active: true,
            ..LinkStatus::default()
        };
        assert_eq!(render(std::slice::from_ref(&link)), "Link link1 is active\n");
        link.active = false;
        assert_eq!(render(std::slice::from_ref(&link)), "Link link1 not active\n");
        link.description = "connection refused".into();
        assert_eq!(render(&[link]), "Link link1 not active (connection refused)\n");
        assert_eq!(render(&[]), "There are no links configured or active\n");
    }
}
