//! `karez doctor`: looks at everything between here and a peer's port, and says what fails, why, and the mend.
//!
//! ```text
//!  host:port ─▶ name ─▶ proxy ─▶ tcp, udp (version negotiation) ─▶ mtu ─▶ tls ─▶ clock ─▶ token ─▶ Report
//! ```
//!
//! No check changes anything at the peer; the token's private key only ever takes part in a handshake with the peer.

mod certificate;
mod environment;
mod probe;

use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use karez_identity::{CertificateFacts, ConnectionToken, Validity};
use karez_net::Net;
use serde::Serialize;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long each single try may take.
const PATIENCE: Duration = Duration::from_secs(3);
/// Clocks that differ by more than this make trouble sooner or later.
const SKEW: i64 = 60;

#[doc(hidden)]
pub use environment::{http_date, is_bypassed};
#[doc(hidden)]
pub use probe::versions;

/// What is looked at.
#[derive(Debug)]
pub struct Examination {
    /// The peer's host.
    pub host: String,
    /// Its port for links.
    pub port: u16,
    /// Where the same host redeems claims; its clock is asked there.
    pub claims_port: u16,
    /// The token to try, if there is one.
    pub token: Option<ConnectionToken>,
    /// How names are resolved.
    pub net: Net,
}

/// How a check came out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    /// As it should be.
    Ok,
    /// Works, though not as well as it could, or may stop working.
    Warning,
    /// Keeps links from being made.
    Failed,
    /// Could not be looked at.
    Skipped,
}

impl Outcome {
    fn mark(self) -> &'static str {
        match self {
            Self::Ok => "ok  ",
            Self::Warning => "warn",
            Self::Failed => "FAIL",
            Self::Skipped => "skip",
        }
    }
}

/// One check.
#[derive(Clone, Debug, Serialize)]
pub struct Finding {
    /// Which: `name`, `proxy`, `tcp`, `udp`, `mtu`, `tls`, `clock`, `token`.
    pub check: &'static str,
    /// How it came out.
    pub outcome: Outcome,
    /// What was found, and why.
    pub found: String,
    /// What to do about it; empty when nothing is to be done.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mend: String,
}

impl Finding {
    fn new(check: &'static str, outcome: Outcome, found: impl Into<String>, mend: impl Into<String>) -> Self {
        Self {
            check,
            outcome,
            found: found.into(),
            mend: mend.into(),
        }
    }

    fn ok(check: &'static str, found: impl Into<String>) -> Self {
        Self::new(check, Outcome::Ok, found, "")
    }
}

/// All checks.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// `host:port`.
    pub target: String,
    /// In the order in which a link needs them.
    pub findings: Vec<Finding>,
}

impl Report {
    /// Whether a link can be made, as far as is known.
    pub fn is_healthy(&self) -> bool {
        self.findings
            .iter()
            .all(|finding| finding.outcome != Outcome::Failed)
    }

    /// One line a check, for people.
    pub fn render(&self) -> String {
        let line = |finding: &Finding| {
            let mend = if finding.mend.is_empty() {
                String::new()
            } else {
                format!("; {}", finding.mend)
            };
            format!(
                "{} {:<6} {}{mend}\n",
                finding.outcome.mark(),
                finding.check,
                finding.found
            )
        };
        self.findings.iter().map(line).collect()
    }
}

/// Looks at everything, in bounded time.
pub async fn examine(examination: Examination) -> Report {
    let target = crate::listener::endpoint(&examination.host, examination.port);
    let mut findings = Vec::new();
    let addresses = name(&examination, &mut findings).await;
    environment::proxy(&examination.host, &mut findings);
    if let Some(first) = addresses.first().copied() {
        let tcp = tcp(&addresses, &mut findings).await;
        let udp = udp(&addresses, tcp, &mut findings).await;
        match udp {
            Some(reached) => {
                mtu(reached, &mut findings).await;
                let server = tls(&examination, reached, &mut findings).await;
                clock(&examination, first, server.as_ref(), &mut findings).await;
                token(&examination, Some(reached), &mut findings).await;
            }
            None => {
                clock(&examination, first, None, &mut findings).await;
                token(&examination, None, &mut findings).await;
            }
        }
    } else {
        token(&examination, None, &mut findings).await;
    }
    Report { target, findings }
}

async fn name(examination: &Examination, findings: &mut Vec<Finding>) -> Vec<SocketAddr> {
    let resolved = examination.net.resolve(&examination.host, examination.port);
    match timeout(PATIENCE * 2, resolved).await {
        Ok(Ok(addresses)) => {
            let listed: Vec<_> = addresses.iter().map(|address| address.ip().to_string()).collect();
            findings.push(Finding::ok(
                "name",
                format!("{} is {}", examination.host, listed.join(", ")),
            ));
            addresses
        }
        Ok(Err(error)) => {
            let mend = "correct the host in the token (annotations edge-host, inter-router-host), or this machine's DNS";
            findings.push(Finding::new("name", Outcome::Failed, error.to_string(), mend));
            Vec::new()
        }
        Err(_) => {
            let found = format!("the DNS server does not answer about {}", examination.host);
            findings.push(Finding::new(
                "name",
                Outcome::Failed,
                found,
                "check /etc/resolv.conf and the network",
            ));
            Vec::new()
        }
    }
}

/// Whether the port answers at all by TCP: connected, or refused by a machine that is there.
async fn tcp(addresses: &[SocketAddr], findings: &mut Vec<Finding>) -> bool {
    let mut failures = Vec::new();
    for address in addresses.iter().take(4) {
        match timeout(PATIENCE, TcpStream::connect(address)).await {
            Ok(Ok(_)) => {
                findings.push(Finding::ok("tcp", format!("{address} accepts connections")));
                return true;
            }
            Ok(Err(error)) => failures.push(format!("{address}: {error}")),
            Err(_) => failures.push(format!("{address}: no answer")),
        }
    }
    let found = failures.join("; ");
    let mend = "links by QUIC need UDP only; TCP is the way around a network that blocks UDP";
    findings.push(Finding::new("tcp", Outcome::Warning, found, mend));
    false
}

async fn udp(addresses: &[SocketAddr], tcp: bool, findings: &mut Vec<Finding>) -> Option<SocketAddr> {
    for address in addresses.iter().take(4) {
        if let Some(round_trip) = probe::reach(*address, PATIENCE).await {
            let found = format!(
                "{address} speaks QUIC, round trip {:.1} ms",
                round_trip.as_secs_f64() * 1e3
            );
            findings.push(Finding::ok("udp", found));
            return Some(*address);
        }
    }
    let found = "no answer to a QUIC packet";
    let mend = "see that the peer's router runs, that its Service offers the port for UDP too, and that no firewall \
                drops UDP between here and there";
    // Where TCP passes a link can be made, only not by QUIC.
    let outcome = if tcp { Outcome::Warning } else { Outcome::Failed };
    findings.push(Finding::new("udp", outcome, found, mend));
    None
}

async fn mtu(address: SocketAddr, findings: &mut Vec<Finding>) {
    findings.push(match probe::largest(address).await {
        Some(size) if size >= probe::USUAL => {
            Finding::ok("mtu", format!("datagrams of {size} bytes pass whole"))
        }
        Some(size) => Finding::new(
            "mtu",
            Outcome::Warning,
            format!(
                "only datagrams of {size} bytes pass whole, and {} are usual",
                probe::USUAL
            ),
            "links work; a tunnel on the way takes the rest (each packet carries less)",
        ),
        None => Finding::new(
            "mtu",
            Outcome::Failed,
            "datagrams of 1200 bytes do not pass whole",
            "QUIC needs them: raise the MTU of the tunnel on the way to 1280 or more",
        ),
    });
}

async fn tls(
    examination: &Examination,
    address: SocketAddr,
    findings: &mut Vec<Finding>,
) -> Option<CertificateFacts> {
    let seen = match timeout(PATIENCE * 2, certificate::seen_by_quic(address)).await {
        Ok(Ok(seen)) => seen,
        Ok(Err(reason)) => {
            findings.push(Finding::new(
                "tls",
                Outcome::Failed,
                reason,
                "is this the port for links of a Karez router?",
            ));
            return None;
        }
        Err(_) => {
            findings.push(Finding::new(
                "tls",
                Outcome::Failed,
                "no handshake in time",
                "try again; the peer may be busy",
            ));
            return None;
        }
    };
    let authority = examination
        .token
        .as_ref()
        .map(|token| token.credential.ca_pem.as_bytes());
    findings.push(certificate::judge(&seen, authority, Timestamp::now()));
    CertificateFacts::from_der(&seen).ok()
}

async fn clock(
    examination: &Examination,
    address: SocketAddr,
    server: Option<&CertificateFacts>,
    findings: &mut Vec<Finding>,
) {
    let claims = SocketAddr::new(address.ip(), examination.claims_port);
    let now = Timestamp::now();
    if let Ok(Some(theirs)) = timeout(PATIENCE, certificate::date_by_https(claims)).await {
        let ahead = now.as_second() - theirs.as_second();
        let (direction, by) = (if ahead > 0 { "ahead of" } else { "behind" }, ahead.abs());
        findings.push(if by <= SKEW {
            Finding::ok("clock", format!("within {} s of the peer's", by.max(1)))
        } else {
            Finding::new(
                "clock",
                Outcome::Failed,
                format!("this machine's clock is {by} s {direction} the peer's"),
                "set both by NTP: certificates are refused by a clock that is wrong",
            )
        });
        return;
    }
    let early = server.filter(|facts| Validity::of(facts, now) == Validity::NotYet);
    findings.push(match early {
        Some(facts) => Finding::new(
            "clock",
            Outcome::Failed,
            format!(
                "it is {now} here, and the peer's certificate begins at {}",
                facts.not_before
            ),
            "set this machine's clock, by NTP best",
        ),
        None => Finding::new(
            "clock",
            Outcome::Skipped,
            "the peer's clock cannot be asked (port for claims)",
            "",
        ),
    });
}

async fn token(examination: &Examination, address: Option<SocketAddr>, findings: &mut Vec<Finding>) {
    let Some(token) = &examination.token else {
        let mend = "name it with --token FILE to have it tried";
        findings.push(Finding::new(
            "token",
            Outcome::Skipped,
            "no token was given",
            mend,
        ));
        return;
    };
    match karez_identity::inspect(token, Timestamp::now()) {
        Ok(report) if report.problems.is_empty() => {}
        Ok(report) => {
            let found = report.problems.join("; ");
            findings.push(Finding::new(
                "token",
                Outcome::Failed,
                found,
                "ask the peer's site for a new token",
            ));
            return;
        }
        Err(error) => {
            findings.push(Finding::new(
                "token",
                Outcome::Failed,
                error.to_string(),
                "save the token's file again",
            ));
            return;
        }
    }
    let Some(address) = address else {
        let found = "good by itself; whether the peer admits it cannot be tried";
        findings.push(Finding::new("token", Outcome::Skipped, found, ""));
        return;
    };
    findings.push(match certificate::admitted(address, token).await {
        Ok(()) => Finding::ok("token", format!("the peer admits \"{}\"", token.name)),
        Err(reason) => Finding::new(
            "token",
            Outcome::Failed,
            reason,
            "ask the peer's site for a new token: `karez token create FILE` there",
        ),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_has_a_line_a_check_with_its_mend() {
        let report = Report {
            target: "h:1".into(),
            findings: vec![
                Finding::ok("name", "h is 192.0.2.1"),
                Finding::new("udp", Outcome::Failed, "no answer", "open the port"),
            ],
        };
        assert_eq!(
            report.render(),
            "ok   name   h is 192.0.2.1\nFAIL udp    no answer; open the port\n"
        );
        assert!(!report.is_healthy());
    }
}
