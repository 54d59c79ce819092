//! Tokens that must not link: refused with a clear reason.

use std::process::Output;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use jiff::{Timestamp, ToSpan};
use karez_identity::{Authority, CertificateFacts, Subject, Usage};
use libtest_mimic::Trial;
use serde_json::{Value, json};

use crate::support::Outcome;
use crate::support::cluster::{Cluster, text};
use crate::support::site::{Pair, Site, TOKEN, finish, karez, plain_sites, save, take_token};
use crate::support::stage::Stage;
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial("trust::a_tampered_token_is_refused", &[], tampered_token),
        trial(
            "trust::a_token_without_its_key_is_refused",
            &[],
            token_without_key,
        ),
        trial(
            "trust::a_token_of_another_authority_is_refused_on_both_sides",
            &[],
            token_of_another_authority,
        ),
        trial(
            "trust::an_expired_certificate_is_refused",
            &[],
            expired_certificate,
        ),
        trial(
            "trust::a_certificate_that_was_never_handed_out_is_refused_on_both_sides",
            &[],
            certificate_never_handed_out,
        ),
        trial(
            "trust::deleting_the_issuers_copy_closes_the_link",
            &[],
            revoked_token,
        ),
        trial(
            "trust::a_token_made_by_the_command_links_until_it_is_revoked",
            &[],
            made_by_the_command,
        ),
        trial(
            "trust::a_claim_is_redeemed_once_and_its_token_goes_with_the_record",
            &[],
            claim_redeemed_once,
        ),
        trial(
            "trust::a_claim_that_does_not_hold_is_refused_on_both_sides",
            &[],
            claim_refused,
        ),
        trial(
            "trust::certificates_of_a_minute_are_renewed_and_the_link_stays",
            &[],
            renewed_certificates,
        ),
        trial("trust::the_doctor_says_what_is_wrong", &[], doctor),
    ]
}

/// Two sites, the public one's token taken and not yet given.
struct Meeting {
    public: Site,
    edge: Site,
    token: Value,
}

fn meet(stage: &Stage) -> Outcome<Meeting> {
    let (public, edge) = plain_sites(stage)?;
    let public = Site::start(stage, "public", &public)?;
    let edge = Site::start(stage, "edge", &edge)?;
    let token = take_token(&public.cluster()?, "default", TOKEN)?;
    Ok(Meeting { public, edge, token })
}

impl Meeting {
    /// Gives the edge this token and waits for a refusal that `link status` explains with one of the words.
    fn refused(&self, stage: &Stage, token: &Value, reasons: &[&str]) -> Outcome {
        save(token, &self.edge.manifests.join("90-token.yaml"))?;
        wait_for(format_args!("a refusal that says one of {reasons:?}"), 45, || {
            let status = self.edge.karez_output(stage, &["link", "status"])?;
            let status = String::from_utf8_lossy(&status.stdout).into_owned()
                + &String::from_utf8_lossy(&status.stderr);
            ensure!(
                !status.contains(&format!("Link {TOKEN} is active")),
                "it links: {status}"
            );
            let explained = status.contains("not active (")
                && reasons
                    .iter()
                    .any(|reason| status.to_lowercase().contains(reason));
            Ok(if explained { Ok(()) } else { Err(status) })
        })
    }

    /// Waits until the public router's log says one of the words.
    fn public_says(&self, reasons: &[&str]) -> Outcome {
        let cluster = self.public.cluster()?;
        wait_for(
            format_args!("the public router's log to say one of {reasons:?}"),
            30,
            || {
                let log = cluster.logs("default", "skupper.io/component=router")?;
                let says = reasons.iter().any(|reason| log.to_lowercase().contains(reason));
                Ok(if says {
                    Ok(())
                } else {
                    Err(crate::support::wait::tail(&log, 10))
                })
            },
        )
    }
}

/// A certificate or key of a Secret as PEM.
fn pem(secret: &Value, key: &str) -> Outcome<String> {
    Ok(String::from_utf8(
        BASE64.decode(text(secret, &format!("/data/{key}")))?,
    )?)
}

/// The token with other credentials.
fn with_data(token: &Value, entries: &[(&str, &str)]) -> Value {
    let mut token = token.clone();
    for (key, value) in entries {
        token["data"][*key] = json!(BASE64.encode(value));
    }
    token
}

fn site_authority(cluster: &Cluster) -> Outcome<Authority> {
    let secret = cluster.wait("/api/v1/namespaces/default/secrets/skupper-site-ca", 30)?;
    Authority::from_pem(&pem(&secret, "tls.crt")?, &pem(&secret, "tls.key")?).context("the site's authority")
}

fn subject(hours: u64) -> Subject {
    Subject {
        common_name: TOKEN.to_owned(),
        dns_names: Vec::new(),
        usage: Usage::Both,
        lifetime: Duration::from_secs(hours * 3600),
        uri: None,
    }
}

/// Runs `karez token inspect` on a token's file.
fn inspect(stage: &Stage, token: &Value) -> Outcome<Output> {
    let file = stage.path("inspected.yaml");
    save(token, &file)?;
    let mut command = karez(stage)?;
    command.args(["token", "inspect"]).arg(&file);
    finish(command, 20)
}

fn inspect_says(stage: &Stage, token: &Value, reasons: &[&str]) -> Outcome {
    let output = inspect(stage, token)?;
    let said = String::from_utf8_lossy(&output.stdout).to_lowercase()
        + &String::from_utf8_lossy(&output.stderr).to_lowercase();
    ensure!(
        !output.status.success(),
        "karez token inspect finds it good: {said}"
    );
    ensure!(
        reasons.iter().any(|reason| said.contains(reason)),
        "karez token inspect says none of {reasons:?}: {said}"
    );
    Ok(())
}

fn tampered_token(stage: &Stage) -> Outcome {
    let meeting = meet(stage)?;
    let good = inspect(stage, &meeting.token)?;
    ensure!(
        good.status.success(),
        "karez token inspect of a good token: {good:?}"
    );
    // One bit in the middle of the certificate's body.
    let certificate = pem(&meeting.token, "tls.crt")?;
    let middle = certificate.len() / 2;
    let flipped = if certificate.as_bytes()[middle] == b'A' {
        "B"
    } else {
        "A"
    };
    let tampered = format!(
        "{}{flipped}{}",
        &certificate[..middle],
        &certificate[middle + 1..]
    );
    let token = with_data(&meeting.token, &[("tls.crt", &tampered)]);
    let reasons = ["signature", "certificate", "tls.crt"];
    inspect_says(stage, &token, &reasons)?;
    meeting.refused(stage, &token, &reasons)?;
    // One whose signature was changed still goes out, and is refused by the issuer, who says so too.
    let authority = Authority::new(
        "skupper-site-ca",
        Timestamp::now(),
        Duration::from_secs(48 * 3600),
    )?;
    let forged = authority.issue(&subject(24), Timestamp::now())?;
    let token = with_data(
        &meeting.token,
        &[("tls.crt", &forged.certificate_pem), ("tls.key", &forged.key_pem)],
    );
    meeting.refused(stage, &token, &["signed by another authority"])?;
    meeting.public_says(&["signed by another authority"])
}

fn token_without_key(stage: &Stage) -> Outcome {
    let meeting = meet(stage)?;
    let mut token = meeting.token.clone();
    token["data"]
        .as_object_mut()
        .context("a token has data")?
        .remove("tls.key");
    inspect_says(stage, &token, &["tls.key"])?;
    save(&token, &meeting.edge.manifests.join("90-token.yaml"))?;
    meeting.edge.wait_output("tls.key is missing", 45)?;
    meeting.edge.wait_link(stage, "tls.key is missing", 15)?;
    // The mend takes effect without a restart.
    save(&meeting.token, &meeting.edge.manifests.join("90-token.yaml"))?;
    meeting
        .edge
        .wait_link(stage, &format!("Link {TOKEN} is active"), 30)
        .map(|_| ())
}

fn token_of_another_authority(stage: &Stage) -> Outcome {
    let meeting = meet(stage)?;
    let other = Authority::new("another", Timestamp::now(), Duration::from_secs(48 * 3600))?;
    let credential = other.issue(&subject(24), Timestamp::now())?;
    let token = with_data(
        &meeting.token,
        &[
            ("ca.crt", &credential.ca_pem),
            ("tls.crt", &credential.certificate_pem),
            ("tls.key", &credential.key_pem),
        ],
    );
    meeting.refused(stage, &token, &["authority", "issuer", "signed"])?;
    meeting.public_says(&["authority", "issuer", "unknown ca", "unknownca", "signed"])
}

fn expired_certificate(stage: &Stage) -> Outcome {
    let meeting = meet(stage)?;
    let authority = site_authority(&meeting.public.cluster()?)?;
    let credential = authority.issue(&subject(1), Timestamp::now() - 48.hours())?;
    let token = with_data(
        &meeting.token,
        &[
            ("tls.crt", &credential.certificate_pem),
            ("tls.key", &credential.key_pem),
        ],
    );
    inspect_says(stage, &token, &["expired"])?;
    meeting.refused(stage, &token, &["expired"])?;
    meeting.public_says(&["certificate expired"])?;
    meeting.public.wait_output("PeerRefused", 30)?;
    Ok(())
}

fn certificate_never_handed_out(stage: &Stage) -> Outcome {
    let meeting = meet(stage)?;
    let authority = site_authority(&meeting.public.cluster()?)?;
    let credential = authority.issue(&subject(24), Timestamp::now())?;
    let token = with_data(
        &meeting.token,
        &[
            ("tls.crt", &credential.certificate_pem),
            ("tls.key", &credential.key_pem),
        ],
    );
    let reasons = [
        "revoked",
        "not admitted",
        "no token",
        "not known",
        "unknown token",
    ];
    meeting.refused(stage, &token, &reasons)?;
    meeting.public_says(&reasons)
}

fn revoked_token(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let pair = Pair::link(stage, &public, &edge)?;
    pair.public
        .cluster()?
        .delete(&format!("/api/v1/namespaces/default/secrets/{TOKEN}"))?;
    let status = pair.edge.wait_link(stage, "not active (", 20)?;
    let reasons = [
        "revoked",
        "not admitted",
        "no token",
        "not known",
        "unknown token",
    ];
    ensure!(
        reasons
            .iter()
            .any(|reason| status.to_lowercase().contains(reason)),
        "the edge does not say why: {status}"
    );
    Ok(())
}

fn made_by_the_command(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let public = Site::start(stage, "public", &public)?;
    let edge = Site::start(stage, "edge", &edge)?;
    public.cluster()?;
    let file = edge.manifests.join("90-token.yaml");
    let path = file.to_str().context("a path is text")?;
    let create = [
        "token",
        "create",
        path,
        "--name",
        "hand-made",
        "--token-type",
        "cert",
    ];
    public.karez(stage, &create)?;
    edge.wait_link(stage, "Link hand-made is active", 45)?;
    let good = public.karez_output(stage, &["token", "inspect", path])?;
    ensure!(
        good.status.success(),
        "karez token inspect of a good token: {good:?}"
    );
    public
        .cluster()?
        .delete("/api/v1/namespaces/default/secrets/hand-made")?;
    edge.wait_link(stage, "Link hand-made not active", 20)?;
    let revoked = public.karez_output(stage, &["token", "inspect", path])?;
    let said =
        String::from_utf8_lossy(&revoked.stdout).into_owned() + &String::from_utf8_lossy(&revoked.stderr);
    ensure!(
        !revoked.status.success() && said.to_lowercase().contains("revoked"),
        "karez token inspect of a revoked token: {said}"
    );
    Ok(())
}

/// A claim of the public site as its file's content.
fn claim(stage: &Stage, public: &Site, name: &str, further: &[&str]) -> Outcome<Value> {
    public.cluster()?;
    let file = stage.path(format!("{name}.yaml"));
    let path = file.to_str().context("a path is text")?;
    public.karez(
        stage,
        &[&["token", "create", path, "--name", name], further].concat(),
    )?;
    let secret = serde_saphyr::from_str(&std::fs::read_to_string(&file)?)?;
    Ok(secret)
}

fn claim_redeemed_once(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let public = Site::start(stage, "public", &public)?;
    let edge = Site::start(stage, "edge", &edge)?;
    let claim = claim(stage, &public, "invited", &[])?;
    let url = text(&claim, "/metadata/annotations/skupper.io~1url");
    ensure!(
        url.starts_with("https://") && url.ends_with(":8081/invited"),
        "{claim}"
    );
    ensure!(claim["data"].get("tls.key").is_none(), "a claim holds no key");
    save(&claim, &edge.manifests.join("90-claim.yaml"))?;
    edge.wait_link(stage, "Link invited is active", 60)?;
    let record = "/api/v1/namespaces/default/secrets/invited";
    let left = public.cluster()?.wait(record, 10)?;
    let remaining = text(&left, "/metadata/annotations/skupper.io~1claims-remaining");
    ensure!(remaining == "0", "claims left: {left}");

    // The same claim again, under another name: it is used up, and both sides say so.
    let mut again = claim.clone();
    again["metadata"]["name"] = json!("again");
    save(&again, &edge.manifests.join("91-again.yaml"))?;
    edge.wait_link(
        stage,
        "Link again not active (Failed to redeem claim: 404 No such claim)",
        45,
    )?;
    public.wait_output("used up", 30)?;
    edge.wait_link(stage, "Link invited is active", 10)?;

    public.cluster()?.delete(record)?;
    edge.wait_link(stage, "Link invited not active", 30)?;
    Ok(())
}

fn claim_refused(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let public = Site::start(stage, "public", &public)?;
    let edge = Site::start(stage, "edge", &edge)?;
    let mut wrong = claim(stage, &public, "wrong", &["--uses", "5"])?;
    wrong["data"]["password"] = json!(BASE64.encode("guessed"));
    save(&wrong, &edge.manifests.join("90-wrong.yaml"))?;
    edge.wait_link(
        stage,
        "Link wrong not active (Failed to redeem claim: 403 Claim refused)",
        45,
    )?;
    public.wait_output("wrong password", 30)?;

    let late = claim(stage, &public, "late", &["--expiry", "1ms"])?;
    save(&late, &edge.manifests.join("91-late.yaml"))?;
    edge.wait_link(
        stage,
        "Link late not active (Failed to redeem claim: 404 No such claim)",
        45,
    )?;
    public.wait_output("expired", 30)?;

    // Whoever is not the claim's site learns no password.
    let mut other = claim(stage, &public, "other", &[])?;
    let authority = Authority::new("another", Timestamp::now(), Duration::from_secs(3600))?;
    other["data"]["ca.crt"] = json!(BASE64.encode(authority.certificate_pem()));
    save(&other, &edge.manifests.join("92-other.yaml"))?;
    edge.wait_link(stage, "the claims server is not the claim's site", 45)?;
    Ok(())
}

fn renewed_certificates(stage: &Stage) -> Outcome {
    let (public, edge) = plain_sites(stage)?;
    let site = public.join("10-site.yaml");
    let mut map: Value = serde_saphyr::from_str(&std::fs::read_to_string(&site)?)?;
    map["metadata"]["annotations"] = json!({"karez.dev/credential-lifetime": "45s"});
    save(&map, &site)?;
    let pair = Pair::link(stage, &public, &edge)?;
    let (public, edge) = (pair.public.cluster()?, pair.edge.cluster()?);
    let path = format!("/api/v1/namespaces/default/secrets/{TOKEN}");
    let first = pem(&edge.wait(&path, 10)?, "tls.crt")?;
    let ends = CertificateFacts::from_pem(first.as_bytes())?.not_after;
    let server = "/api/v1/namespaces/default/secrets/skupper-site-server";
    let first_server = pem(&public.wait(server, 10)?, "tls.crt")?;
    // Its second third passes, then the edge asks for the next one over the link.
    wait_for("a renewed client certificate at the edge", 60, || {
        let secret = edge.wait(&path, 10)?;
        let is_next = pem(&secret, "tls.crt")? != first && secret["data"].get("next.key").is_none();
        Ok(if is_next {
            Ok(())
        } else {
            Err("the first one".to_owned())
        })
    })?;
    wait_for("the end of the first certificate", 60, || {
        let is_over = Timestamp::now() > ends + 2.seconds();
        Ok(if is_over {
            Ok(())
        } else {
            Err("not yet".to_owned())
        })
    })?;
    pair.edge
        .wait_link(stage, &format!("Link {TOKEN} is active"), 5)?;
    ensure!(
        pem(&public.wait(server, 10)?, "tls.crt")? != first_server,
        "the server's is the first one"
    );
    let log = public.logs("default", "skupper.io/component=router")?;
    ensure!(log.contains("credential renewed"), "{log}");
    // A busy machine may link over TLS first and move to QUIC later; what else ends a link is an outage.
    let outage = log.lines().find(|line| {
        line.contains("a peer's link has ended") && !line.contains("moved to another transport")
    });
    ensure!(outage.is_none(), "the link was down: {log}");
    Ok(())
}

fn doctor(stage: &Stage) -> Outcome {
    let meeting = meet(stage)?;
    let file = stage.path("doctor.yaml");
    let path = file.to_str().context("a path is text")?;
    let look = |token: &Value| -> Outcome<(bool, String)> {
        save(token, &file)?;
        let mut command = karez(stage)?;
        command.args(["doctor", "--token", path]);
        let output = finish(command, 60)?;
        Ok((
            output.status.success(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
        ))
    };
    // The token may be there before its site listens.
    let said = wait_for("a doctor without complaint", 60, || {
        let (healthy, said) = look(&meeting.token)?;
        Ok(if healthy { Ok(said) } else { Err(said) })
    })?;
    for line in [
        "ok   name",
        "ok   udp",
        "ok   mtu",
        "ok   tls",
        "ok   clock",
        "ok   token",
    ] {
        ensure!(said.contains(line), "no {line:?} in {said}");
    }
    let authority = site_authority(&meeting.public.cluster()?)?;
    let unknown = authority.issue(&subject(24), Timestamp::now())?;
    let token = with_data(
        &meeting.token,
        &[
            ("tls.crt", &unknown.certificate_pem),
            ("tls.key", &unknown.key_pem),
        ],
    );
    let (healthy, said) = look(&token)?;
    ensure!(
        !healthy && said.contains("FAIL token") && said.contains("revoked"),
        "{said}"
    );
    let mut elsewhere = meeting.token.clone();
    elsewhere["metadata"]["annotations"]["edge-port"] = json!("9");
    let (healthy, said) = look(&elsewhere)?;
    ensure!(!healthy && said.contains("FAIL udp"), "{said}");
    Ok(())
}
