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
    /// `quic` or `tls`, while it is active.
    pub transport: String,
    /// The round trip, roughly.
    pub round_trip: String,
    /// Packets that are lost, roughly.
    pub loss: String,
    /// When the peer's certificate ends, RFC 3339.
    pub certificate_expiry: String,
    /// When the token's certificate ends, RFC 3339.
    pub token_expiry: String,
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

impl LinkStatus {
    /// The link's line, and below it what else is known.
    pub fn verbose(&self) -> String {
        let peer = match self.site.as_str() {
            "" => self.peer.clone(),
            site => format!("{} (site {site})", self.peer),
        };
        let facts = [
            ("peer", peer),
            ("cost", self.cost.to_string()),
            ("transport", self.transport.clone()),
            ("round trip", about(&self.round_trip)),
            ("loss", about(&self.loss)),
            ("token ends", self.token_expiry.clone()),
            ("peer's certificate ends", self.certificate_expiry.clone()),
        ];
        let mut text = self.line() + "\n";
        for (name, value) in facts.iter().filter(|(_, value)| !value.is_empty()) {
            text.push_str(&format!("  {name}: {value}\n"));
        }
        text
    }
}

fn about(value: &str) -> String {
    if value.is_empty() {
        String::new()
    } else {
        format!("about {value}")
    }
}

/// All links with everything that is known of them.
pub fn render_verbose(links: &[LinkStatus]) -> String {
    if links.is_empty() {
        return render(links);
    }
    links.iter().map(LinkStatus::verbose).collect()
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

    #[test]
    fn tells_more_when_asked() {
        let link = LinkStatus {
            name: "link1".into(),
            peer: "10.0.0.1:45671".into(),
            site: "public".into(),
            cost: 1,
            active: true,
            transport: "quic".into(),
            round_trip: "2ms".into(),
            loss: "0%".into(),
            ..LinkStatus::default()
        };
        assert_eq!(
            render_verbose(&[link]),
            "Link link1 is active\n  peer: 10.0.0.1:45671 (site public)\n  cost: 1\n  transport: quic\n  round trip: \
             about 2ms\n  loss: about 0%\n"
        );
        assert_eq!(render_verbose(&[]), "There are no links configured or active\n");
    }
}
