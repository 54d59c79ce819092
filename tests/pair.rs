//! Documents and credentials of a linked pair of routers, for those who start routers from files: a *near* one, an edge
//! that offers the address `bench:9000`, and a *far* one, an interior router with the target.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use jiff::Timestamp;
use karez_identity::{Authority, CertificateFacts, Credential, Subject, Usage};

/// The name in every far side's certificate.
pub(crate) const SERVER_NAME: &str = "skupper-router";

/// What both sides prove themselves with: TLS profiles in `near/` and `far/`, each with `tls.crt`, `tls.key`, `ca.crt`, and
/// `both.pem` for programs that want certificate and key in one file. Gives the facts of the near side's certificate.
pub(crate) fn write_credentials(folder: &Path) -> anyhow::Result<CertificateFacts> {
    let authority = Authority::new("bench", Timestamp::now(), Duration::from_secs(86_400))?;
    let issue = |name: &str, dns_names: Vec<String>, usage| {
        let subject = Subject {
            common_name: name.to_owned(),
            dns_names,
            usage,
            lifetime: Duration::from_secs(36_000),
            uri: None,
        };
        authority.issue(&subject, Timestamp::now())
    };
    let near = issue("token", Vec::new(), Usage::Client)?;
    let far = issue(SERVER_NAME, vec![SERVER_NAME.to_owned()], Usage::Server)?;
    write_profile(&folder.join("near"), &near)?;
    write_profile(&folder.join("far"), &far)?;
    Ok(CertificateFacts::from_pem(near.certificate_pem.as_bytes())?)
}

fn write_profile(folder: &Path, credential: &Credential) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("tls.crt"), &credential.certificate_pem)?;
    fs::write(folder.join("tls.key"), &credential.key_pem)?;
    fs::write(folder.join("ca.crt"), &credential.ca_pem)?;
    let both = format!("{}{}", credential.certificate_pem, credential.key_pem);
    Ok(fs::write(folder.join("both.pem"), both)?)
}

fn head(name: &str, mode: &str) -> String {
    format!(
        "version: 1\nsite: {{id: {name}, name: {name}, namespace: default, version: 0.1.0}}\nrouter: {{mode: {mode}}}\n"
    )
}

/// The far router's document: it takes links at `link`, admits the near side's certificate, and dials `target`.
pub(crate) fn far_document(
    folder: &Path,
    link: SocketAddr,
    token: &CertificateFacts,
    target: SocketAddr,
) -> String {
    format!(
        "{}tls:\n- {{name: server, directory: {}}}\n\
         accept:\n- {{name: edge, role: edge, host: {}, port: {}, tls: server}}\n\
         tokens:\n- {{name: token, serial: \"{}\", fingerprint: \"{}\"}}\n\
         services:\n- {{address: bench, protocol: tcp, ports: [9000], targets: [{{name: server}}]}}\n\
         connectors:\n- {{name: bench, address: \"bench:9000\", host: {}, port: {}, target: server}}\n",
        head("far", "interior"),
        folder.join("far").display(),
        link.ip(),
        link.port(),
        token.serial,
        token.fingerprint,
        target.ip(),
        target.port(),
    )
}

/// The near router's document: it links to `link` and offers the address at `entrance`. `keys` are added to the link.
pub(crate) fn near_document(folder: &Path, link: SocketAddr, entrance: SocketAddr, keys: &str) -> String {
    format!(
        "{}tls:\n- {{name: token, directory: {}}}\n\
         links:\n- {{name: token, role: edge, host: {}, port: {}, cost: 1, tls: token{keys}}}\n\
         listeners:\n- {{name: bench, address: \"bench:9000\", host: {}, port: {}}}\n",
        head("near", "edge"),
        folder.join("near").display(),
        link.ip(),
        link.port(),
        entrance.ip(),
        entrance.port(),
    )
}

/// What a near router's log says about its document: taken over, not usable, or nothing yet.
pub(crate) fn accepted(log: &str) -> Option<bool> {
    if log.contains("document taken over") {
        return Some(true);
    }
    log.contains("document is not usable").then_some(false)
}
