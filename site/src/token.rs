//! `token create --token-type cert` and `token inspect`.
//!
//! Creating: a connection-token-request Secret goes to the site, the site's controller fills it, and the filled
//! Secret, without what the server added, becomes a file that the other side applies. The Secret at the issuer
//! stays: it is the issuer's copy, and deleting it revokes the token.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use karez_document::{Origin, yaml};
use karez_identity::{Claim, ConnectionToken, TokenReport, TokenScope};
use karez_kubernetes::{FIELD_MANAGER_CLI, labels, names};
use kube::api::PostParams;
use kube::runtime::{conditions, wait};
use kube::{Api, Client, ResourceExt};
use serde::Serialize;
use serde_json::json;

/// How long a site may take to appear.
const STARTING: Duration = Duration::from_secs(5);

/// Why a token is not made.
#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    /// The API refused.
    #[error("cannot {what} in namespace {namespace}: {source}")]
    Api {
        /// What was tried.
        what: String,
        /// The namespace.
        namespace: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
    /// There is no site to link to.
    #[error(
        "Skupper is not enabled in namespace '{0}': it has no ConfigMap skupper-site, so no one can link to it"
    )]
    NoSite(String),
    /// Edge sites accept no links.
    #[error(
        "Edge configuration cannot accept connections: namespace '{0}' is an edge site; create the token at the site that is to be linked to"
    )]
    Edge(String),
    /// A token of this name is there.
    #[error(
        "a Secret {name} is already in namespace {namespace}; choose another name with --name, or delete it (which revokes the token)"
    )]
    Exists {
        /// The name.
        name: String,
        /// The namespace.
        namespace: String,
    },
    /// The controller did not answer in time.
    #[error(
        "the site did not fill Secret {name} within {seconds} s; is its site-controller running, and does Service skupper-router have an address? The request stays, and is filled once it can be"
    )]
    Timeout {
        /// The name.
        name: String,
        /// How long was waited.
        seconds: u64,
    },
    /// The file cannot be written.
    #[error("cannot write {path}: {source}")]
    Write {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A token that was written.
#[derive(Debug)]
pub struct Created {
    /// Whether it only works within the cluster, since the site has no address outside.
    pub local_only: bool,
}

/// Asks a site for a token and writes it to a file that its owner alone can read.
///
/// # Errors
/// When the site cannot issue tokens, does not answer in time, or the file cannot be written.
pub async fn create(
    client: Client,
    namespace: &str,
    name: &str,
    scope: &TokenScope,
    file: &Path,
    timeout: Duration,
) -> Result<Created, CreateError> {
    let failed = |what: &str| {
        let what = what.to_owned();
        move |source| CreateError::Api {
            what,
            namespace: namespace.to_owned(),
            source: Box::new(source),
        }
    };
    may_issue(&client, namespace).await?;
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let params = PostParams {
        field_manager: Some(FIELD_MANAGER_CLI.to_owned()),
        ..PostParams::default()
    };
    match secrets.create(&params, &request(name, scope)).await {
        Ok(_) => {}
        Err(kube::Error::Api(status)) if status.code == 409 => {
            return Err(CreateError::Exists {
                name: name.to_owned(),
                namespace: namespace.to_owned(),
            });
        }
        Err(error) => return Err(failed("create the token's Secret")(error)),
    }
    let filled =
        tokio::time::timeout(timeout, wait::await_condition(secrets.clone(), name, is_filled())).await;
    if !matches!(filled, Ok(Ok(_))) {
        return Err(CreateError::Timeout {
            name: name.to_owned(),
            seconds: timeout.as_secs(),
        });
    }
    let secret = secrets
        .get(name)
        .await
        .map_err(failed("read the token's Secret"))?;
    write_private(file, &portable(&secret)).map_err(|source| CreateError::Write {
        path: file.to_owned(),
        source,
    })?;
    let host = secret
        .annotations()
        .get(labels::EDGE_HOST)
        .cloned()
        .unwrap_or_default();
    Ok(Created {
        local_only: host.starts_with(&format!("{}.", names::ROUTER)),
    })
}

pub(crate) async fn may_issue(client: &Client, namespace: &str) -> Result<(), CreateError> {
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let failed = |source| CreateError::Api {
        what: "read the site's ConfigMap skupper-site".to_owned(),
        namespace: namespace.to_owned(),
        source: Box::new(source),
    };
    // A site that was started a moment ago is still reading its manifests.
    let appears = wait::await_condition(maps.clone(), names::SITE, |site: Option<&ConfigMap>| {
        site.is_some()
    });
    let _ = tokio::time::timeout(STARTING, appears).await;
    let site = maps.get_opt(names::SITE).await.map_err(failed)?;
    let data = site
        .ok_or_else(|| CreateError::NoSite(namespace.to_owned()))?
        .data
        .unwrap_or_default();
    let edge = match data.get("router-mode") {
        Some(mode) => mode == "edge",
        None => data.get("edge").is_some_and(|edge| edge == "true"),
    };
    if edge {
        Err(CreateError::Edge(namespace.to_owned()))
    } else {
        Ok(())
    }
}

fn request(name: &str, scope: &TokenScope) -> Secret {
    serde_json::from_value(json!({
        "apiVersion": "v1", "kind": "Secret", "type": "Opaque",
        "metadata": {
            "name": name,
            "labels": {labels::TYPE: labels::TYPE_TOKEN_REQUEST},
            "annotations": scope.annotations(),
        },
    }))
    .expect("a Secret")
}

/// Whether a token request was answered.
pub fn is_filled() -> impl conditions::Condition<Secret> {
    |secret: Option<&Secret>| {
        secret.is_some_and(|secret| {
            let of_type = secret
                .labels()
                .get(labels::TYPE)
                .is_some_and(|kind| kind == labels::TYPE_TOKEN);
            of_type
                && secret
                    .data
                    .as_ref()
                    .is_some_and(|data| data.contains_key("tls.crt"))
        })
    }
}

/// A token's Secret as YAML that another cluster can take: without what its server added, and without notes on the
/// file that asked for it.
pub fn portable(secret: &Secret) -> String {
    let inner = [
        labels::SOURCE_FILE,
        labels::SOURCE_LINE,
        labels::CONFIG_LINE,
        labels::CLAIM,
        labels::SUBJECT,
        karez_identity::ANNOTATION_USED_BY,
    ];
    let keep = |key: &str| !inner.contains(&key) && !key.starts_with("kubectl.kubernetes.io/");
    let annotations: BTreeMap<&String, &String> =
        secret.annotations().iter().filter(|(key, _)| keep(key)).collect();
    let data = serde_json::to_value(secret.data.clone().unwrap_or_default()).expect("base64 texts");
    let object = json!({
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": secret.name_any(), "labels": secret.labels(), "annotations": annotations},
        "type": secret.type_.as_deref().unwrap_or("Opaque"),
        "data": data,
    });
    serde_saphyr::to_string(&object).expect("a tree of texts")
}

/// Writes a file that its owner alone can read, whole or not at all.
///
/// # Errors
/// When it cannot be written.
pub fn write_private(path: &Path, text: &str) -> io::Result<()> {
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&partial)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    std::fs::rename(&partial, path)
}

/// Why a token cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file is no Secret.
    #[error("{0}")]
    NotASecret(String),
    /// The Secret is a claim, and a damaged one.
    #[error("{path}: {source}")]
    Claim {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: karez_identity::ClaimError,
    },
    /// The Secret is a request that nothing has filled.
    #[error(
        "{path}: Secret {name} asks for a token and holds none; apply it at the site that is to be linked to, and save the filled Secret: kubectl get secret {name} -o yaml"
    )]
    Request {
        /// The file.
        path: PathBuf,
        /// The Secret.
        name: String,
    },
    /// The Secret is no token.
    #[error("{path}: {source}")]
    Token {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: karez_identity::TokenError,
    },
    /// The certificates cannot be read.
    #[error("{path}: {source}")]
    Facts {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: karez_identity::FactsError,
    },
    /// The issuer could not be asked.
    #[error("cannot ask the issuer in namespace {namespace}: {source}")]
    Issuer {
        /// The namespace.
        namespace: String,
        /// Why.
        #[source]
        source: Box<kube::Error>,
    },
}

/// What the issuer says of a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Standing {
    /// No one was asked.
    NotAsked,
    /// The cluster that was asked is another site than the issuer.
    OtherSite,
    /// The issuer's copy is there.
    Held,
    /// The issuer's copy is gone or is another's: the token is revoked.
    Revoked,
}

/// A token as it is shown.
#[derive(Debug, Serialize)]
pub struct Inspected {
    /// What it holds.
    #[serde(flatten)]
    pub report: TokenReport,
    /// What its issuer says.
    pub standing: Standing,
}

/// Looks at a token's file, and asks the issuer where one is given.
///
/// # Errors
/// When the file holds no token, or the issuer cannot be asked.
pub async fn inspect(file: &Path, issuer: Option<(Client, String)>) -> Result<Shown, InspectError> {
    let (name, secret) = open(file)?;
    if secret
        .labels()
        .get(labels::TYPE)
        .is_some_and(|kind| kind == labels::TYPE_CLAIM)
    {
        let claim = Claim::from_secret_parts(&name, secret.annotations(), &bytes(&secret));
        let claim = claim.map_err(|source| InspectError::Claim {
            path: file.to_owned(),
            source,
        })?;
        return Ok(Shown::Claim(ShownClaim::of(
            &claim,
            &secret,
            jiff::Timestamp::now(),
        )));
    }
    let token = read(file)?;
    let report =
        karez_identity::inspect(&token, jiff::Timestamp::now()).map_err(|source| InspectError::Facts {
            path: file.to_owned(),
            source,
        })?;
    let standing = match issuer {
        None => Standing::NotAsked,
        Some((client, namespace)) => ask(client, &namespace, &token).await?,
    };
    Ok(Shown::Token(Box::new(Inspected { report, standing })))
}

async fn ask(client: Client, namespace: &str, token: &ConnectionToken) -> Result<Standing, InspectError> {
    let failed = |source| InspectError::Issuer {
        namespace: namespace.to_owned(),
        source: Box::new(source),
    };
    let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
    let site = maps
        .get_opt(names::SITE)
        .await
        .map_err(failed)?
        .and_then(|site| site.metadata.uid);
    if site.as_deref() != Some(token.generated_by.as_str()) {
        return Ok(Standing::OtherSite);
    }
    let secrets: Api<Secret> = Api::namespaced(client, namespace);
    let copy = secrets
        .get_opt(&token.name)
        .await
        .map_err(failed)?
        .and_then(|secret| secret.data);
    let same = copy.and_then(|data| data.get("tls.crt").cloned());
    let held = same.is_some_and(|copy| copy.0 == token.credential.certificate_pem.as_bytes());
    Ok(if held { Standing::Held } else { Standing::Revoked })
}

fn open(file: &Path) -> Result<(String, Secret), InspectError> {
    let text = std::fs::read_to_string(file).map_err(|source| InspectError::Read {
        path: file.to_owned(),
        source,
    })?;
    let secret = secret(file, &text)?;
    Ok((secret.name_any(), secret))
}

fn bytes(secret: &Secret) -> BTreeMap<String, Vec<u8>> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), value.0.clone())).collect()
}

/// Reads a token's file.
///
/// # Errors
/// When the file holds no token that can be used.
pub fn read(file: &Path) -> Result<ConnectionToken, InspectError> {
    let path = || file.to_owned();
    let (name, secret) = open(file)?;
    let kind = secret.labels().get(labels::TYPE);
    if kind.is_some_and(|kind| kind == labels::TYPE_TOKEN_REQUEST) {
        return Err(InspectError::Request { path: path(), name });
    }
    ConnectionToken::from_secret_parts(&name, secret.labels(), secret.annotations(), &bytes(&secret))
        .map_err(|source| InspectError::Token { path: path(), source })
}

/// The first Secret of a file.
pub(crate) fn secret(file: &Path, text: &str) -> Result<Secret, InspectError> {
    let shown = file.display().to_string();
    let nodes = yaml::parse(text, &Origin::file(&*shown))
        .map_err(|diagnosis| InspectError::NotASecret(diagnosis.to_string()))?;
    let node = nodes
        .iter()
        .find(|node| node.get("kind").and_then(yaml::Node::as_str) == Some("Secret"));
    let node = node.ok_or_else(|| {
        InspectError::NotASecret(format!("{shown}: holds no Secret; a token is a Secret as YAML"))
    })?;
    serde_json::from_value(node.to_json()).map_err(|error| {
        InspectError::NotASecret(format!(
            "{}: error: not a Secret: {error}; save it again",
            node.place()
        ))
    })
}

/// What a file holds.
#[derive(Debug, Serialize)]
#[serde(untagged)]
pub enum Shown {
    /// A token.
    Token(Box<Inspected>),
    /// A right to fetch one.
    Claim(ShownClaim),
}

impl Shown {
    /// Whether it can be used now, as far as is known.
    pub fn usable(&self) -> bool {
        match self {
            Self::Token(token) => token.usable(),
            Self::Claim(claim) => claim.problems.is_empty(),
        }
    }

    /// The text for people.
    pub fn render(&self) -> String {
        match self {
            Self::Token(token) => token.render(),
            Self::Claim(claim) => claim.render(),
        }
    }
}

/// A claim as it is shown, without its password.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ShownClaim {
    /// Its name.
    pub name: String,
    /// Where it is redeemed.
    pub claim: String,
    /// The site that honours it.
    pub issuer_site: String,
    /// Its end.
    pub expires: Option<jiff::Timestamp>,
    /// Why it cannot be redeemed.
    pub problems: Vec<String>,
}

impl ShownClaim {
    fn of(claim: &Claim, secret: &Secret, now: jiff::Timestamp) -> Self {
        let mut problems = Vec::new();
        if let Some(end) = claim.expires.filter(|end| *end <= now) {
            problems.push(format!("the claim expired on {end}: ask its site for a new one"));
        }
        problems.extend(secret.annotations().get(labels::CLAIM_STATUS).cloned());
        Self {
            name: claim.name.clone(),
            claim: claim.url(),
            issuer_site: claim.generated_by.clone(),
            expires: claim.expires,
            problems,
        }
    }

    fn render(&self) -> String {
        let until = self
            .expires
            .map_or_else(|| "without end".to_owned(), |end| end.to_string());
        let mut text = format!(
            "{:<22} {}\n{:<22} {} (a claim: the site that gets it fetches its token there)\n{:<22} {}\n{:<22} {until}\n",
            "name:",
            self.name,
            "redeemed at:",
            self.claim,
            "issued by site:",
            self.issuer_site,
            "valid until:"
        );
        for problem in &self.problems {
            text.push_str(&format!("{:<22} {problem}\n", "problem:"));
        }
        text
    }
}

impl Inspected {
    /// Whether the token can link now, as far as is known.
    pub fn usable(&self) -> bool {
        self.report.problems.is_empty() && self.standing != Standing::Revoked
    }

    /// The text for people.
    pub fn render(&self) -> String {
        let report = &self.report;
        let (from, until) = (report.certificate.not_before, report.certificate.not_after);
        let standing = match self.standing {
            Standing::NotAsked => "not asked (name the issuer with --site, or --kubeconfig and -n)",
            Standing::OtherSite => "unknown: the site that was asked did not issue this token",
            Standing::Held => "held by the issuer",
            Standing::Revoked => "REVOKED: the issuer's copy is gone",
        };
        let yes = |good: bool| if good { "yes" } else { "NO" };
        let mut text = String::new();
        let mut line = |key: &str, value: &str| text.push_str(&format!("{key:<22} {value}\n"));
        line("name:", &report.name);
        line("issued by site:", &report.issuer_site);
        line("site version:", &report.site_version);
        line("for interior routers:", &report.inter_router);
        line("for edge routers:", &report.edge);
        line("cost:", &report.cost.to_string());
        line("valid:", &format!("{from} to {until}"));
        line("signed by authority:", yes(report.signed_by_authority));
        line("key matches:", yes(report.key_matches));
        let list = |all: &Option<Vec<String>>, absent: &str| match all {
            None => absent.to_owned(),
            Some(all) if all.is_empty() => "nothing".to_owned(),
            Some(all) => all.join(", "),
        };
        let scope = &report.scope;
        line("may reach:", &list(&scope.reach, "all that is exposed"));
        line("may offer:", &list(&scope.offer, "what nobody else offers"));
        if let Some(end) = scope.expires {
            line("token ends:", &end.to_string());
        }
        if let Some(uses) = scope.uses {
            line("sites that may use it:", &uses.to_string());
        }
        if let Some(role) = &scope.role {
            line("only for links:", role);
        }
        line("standing:", standing);
        for problem in &report.problems {
            line("problem:", problem);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::ByteString;

    fn filled() -> Secret {
        let mut secret = request("edge-link", &TokenScope::default());
        secret
            .labels_mut()
            .insert(labels::TYPE.into(), labels::TYPE_TOKEN.into());
        secret
            .annotations_mut()
            .insert(labels::EDGE_HOST.into(), "127.1.2.1".into());
        secret
            .annotations_mut()
            .insert(labels::SOURCE_FILE.into(), "x.yaml".into());
        secret.metadata.uid = Some("u".into());
        secret.metadata.resource_version = Some("7".into());
        secret.data = Some(BTreeMap::from([("tls.crt".into(), ByteString(b"PEM".to_vec()))]));
        secret
    }

    #[test]
    fn a_portable_token_has_no_server_metadata() {
        let text = portable(&filled());
        let back = secret(Path::new("t.yaml"), &text).unwrap();
        assert_eq!(back.metadata.uid, None);
        assert_eq!(back.metadata.resource_version, None);
        assert_eq!(back.annotations().keys().collect::<Vec<_>>(), [labels::EDGE_HOST]);
        assert_eq!(back.labels()[labels::TYPE], labels::TYPE_TOKEN);
        assert_eq!(back.data, filled().data);
    }

    #[test]
    fn only_a_filled_secret_is_a_token() {
        use conditions::Condition as _;
        assert!(is_filled().matches_object(Some(&filled())));
        assert!(!is_filled().matches_object(Some(&request("x", &TokenScope::default()))));
    }
}
