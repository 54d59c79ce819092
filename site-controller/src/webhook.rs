//! The sidecar webhook, for real clusters: an AdmissionReview comes in over TLS, a JSON patch goes back.
//!
//! The certificate is issued by an authority of its own, kept in a Secret, and put into the
//! MutatingWebhookConfiguration. Both are looked at every hour: what nears its end is replaced while it serves, first
//! where the API server looks whom to believe, then here. Whatever goes wrong, the pod is admitted as it is: a controller that is down or
//! confused must not keep pods from starting.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, State};
use axum::routing::post;
use axum::{Json, Router};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use hyper_util::service::TowerToHyperService;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Namespace, Pod, Secret};
use karez_identity::{TlsError, TlsMaterial};
use karez_kubernetes::{FIELD_MANAGER_SITE, OpenTelemetryCollector, VERSION};
use karez_lifecycle::Shutdown;
use karez_net::{BindError, Net};
use kube::api::ListParams;
use kube::{Api, Client};
use rustls::ServerConfig;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use tokio::time::Instant;
use tokio_rustls::TlsAcceptor;

use crate::apply::{Applier, ApplyError};
use crate::issue::{Issuer, OrderError};
use crate::options::WebhookOptions;
use crate::plan::certificates::is_good;
use crate::plan::{CertificateKind, CertificateOrder, rollover};
use crate::site_config::Lifetimes;

const AUTHORITY: &str = "karez-webhook-ca";
const CERTIFICATE: &str = "karez-webhook";
const CONFIGURATION: &str = "karez-sidecar";
const PATH: &str = "/mutate-v1-pod";
/// A review holds a pod, perhaps twice; an API object has at most a few MiB.
const REVIEW_LIMIT: usize = 8 << 20;
/// How often it is looked whether the certificate and its authority are still good.
const LOOK: Duration = Duration::from_secs(3600);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(10);

/// Why the webhook cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum WebhookError {
    /// The address cannot be bound.
    #[error("{source}; or choose another with --webhook-listen")]
    Bind {
        /// Why, and who may hold it.
        #[source]
        source: Box<BindError>,
    },
    /// Its Secrets or its configuration cannot be written or read.
    #[error("{0}")]
    Api(String),
    /// Its certificate cannot be issued.
    #[error("{0}")]
    Issue(String),
    /// Its certificate cannot be used.
    #[error("Secret {CERTIFICATE}: {0}")]
    Tls(#[from] TlsError),
    /// Certificate and key are refused.
    #[error("Secret {CERTIFICATE}: {0}")]
    Server(#[from] rustls::Error),
}

impl From<ApplyError> for WebhookError {
    fn from(error: ApplyError) -> Self {
        Self::Api(error.to_string())
    }
}

impl From<OrderError> for WebhookError {
    fn from(error: OrderError) -> Self {
        Self::Issue(error.to_string())
    }
}

/// Serves until shutdown.
pub(crate) async fn serve(
    client: Client,
    options: WebhookOptions,
    net: &Net,
    shutdown: Shutdown,
) -> Result<(), WebhookError> {
    let mut secret = certificate(&client, &options, Timestamp::now()).await?;
    let mut acceptor = acceptor(&secret)?;
    register(&client, &options, &secret).await?;
    let mut listener = net
        .listen_tcp(&options.listen)
        .await
        .map_err(|source| WebhookError::Bind {
            source: Box::new(source),
        })?;
    tracing::info!(listen = options.listen, "serving the sidecar webhook");
    let app = Router::new()
        .route(PATH, post(review))
        .layer(DefaultBodyLimit::max(REVIEW_LIMIT))
        .with_state(client.clone());
    let mut look = tokio::time::interval_at(Instant::now() + LOOK, LOOK);
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = shutdown.triggered() => return Ok(()),
            _ = look.tick() => {
                match renewed(&client, &options, &secret, Timestamp::now()).await {
                    Ok(Some((new, serving))) => (secret, acceptor) = (new, serving),
                    Ok(None) => {}
                    Err(error) => tracing::warn!(%error, "the webhook's certificate cannot be renewed; trying again"),
                }
                continue;
            }
        };
        match accepted {
            Ok((stream, _)) => {
                tokio::spawn(connection(acceptor.clone(), stream, app.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "the webhook cannot accept");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

fn acceptor(secret: &Secret) -> Result<TlsAcceptor, WebhookError> {
    Ok(TlsAcceptor::from(Arc::new(server_config(secret)?)))
}

/// What is to be served from now on, when that is not what is served: the API server believes it already.
async fn renewed(
    client: &Client,
    options: &WebhookOptions,
    served: &Secret,
    now: Timestamp,
) -> Result<Option<(Secret, TlsAcceptor)>, WebhookError> {
    let secret = certificate(client, options, now).await?;
    if secret.data == served.data {
        return Ok(None);
    }
    let acceptor = acceptor(&secret)?;
    register(client, options, &secret).await?;
    tracing::info!("the webhook's certificate was renewed");
    Ok(Some((secret, acceptor)))
}

async fn connection(acceptor: TlsAcceptor, stream: TcpStream, app: Router) {
    let stream = match tokio::time::timeout(HANDSHAKE, acceptor.accept(stream)).await {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => return tracing::debug!(%error, "TLS with the webhook failed"),
        Err(_) => return,
    };
    let service = TowerToHyperService::new(app);
    if let Err(error) = Builder::new(TokioExecutor::new())
        .serve_connection(TokioIo::new(stream), service)
        .await
    {
        tracing::debug!(%error, "a webhook connection ended");
    }
}

async fn review(State(client): State<Client>, Json(review): Json<Value>) -> Json<Value> {
    let uid = review.pointer("/request/uid").cloned().unwrap_or_default();
    let mut response = json!({"uid": uid, "allowed": true});
    match patch(&client, &review).await {
        Ok(Some(patch)) => {
            response["patchType"] = json!("JSONPatch");
            response["patch"] = json!(BASE64_STANDARD.encode(patch));
        }
        Ok(None) => {}
        Err(message) => {
            tracing::warn!(message, "a pod was admitted without looking at its sidecar");
            response["status"] = json!({"code": 500, "message": message});
        }
    }
    Json(json!({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}))
}

async fn patch(client: &Client, review: &Value) -> Result<Option<Vec<u8>>, String> {
    let text = |error: &dyn std::error::Error| error.to_string();
    let object = review.pointer("/request/object").cloned().unwrap_or_default();
    let pod: Pod = serde_json::from_value(object).map_err(|error| text(&error))?;
    let name = review
        .pointer("/request/namespace")
        .and_then(Value::as_str)
        .unwrap_or_default();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = namespaces.get(name).await.map_err(|error| text(&error))?;
    let annotated =
        |annotations: Option<&BTreeMap<String, String>>| crate::inject::annotation(annotations).is_some();
    if !annotated(pod.metadata.annotations.as_ref()) && !annotated(namespace.metadata.annotations.as_ref()) {
        return Ok(None);
    }
    let collectors: Api<OpenTelemetryCollector> = Api::all(client.clone());
    let collectors = collectors
        .list(&ListParams::default())
        .await
        .map_err(|error| text(&error))?;
    let Some(injected) = crate::inject(&pod, &collectors.items, &namespace) else {
        return Ok(None);
    };
    // Both sides went through the same types, so that fields these do not know are no difference.
    let difference = json_patch::diff(&crate::object::json(&pod), &crate::object::json(&injected));
    serde_json::to_vec(&difference)
        .map(Some)
        .map_err(|error| text(&error))
}

/// The webhook's certificate: what is there when it is good, else a new one. Its authority is replaced in time as well.
async fn certificate(
    client: &Client,
    options: &WebhookOptions,
    now: Timestamp,
) -> Result<Secret, WebhookError> {
    let api: Api<Secret> = Api::namespaced(client.clone(), &options.namespace);
    let get = async |name: &str| {
        api.get_opt(name)
            .await
            .map_err(|error| WebhookError::Api(format!("cannot read Secret {name}: {error}")))
    };
    let mut secrets = BTreeMap::new();
    secrets.extend(get(AUTHORITY).await?.map(|secret| (AUTHORITY.to_owned(), secret)));
    let order = |secret: &str, kind| CertificateOrder {
        secret: secret.to_owned(),
        namespace: options.namespace.clone(),
        kind,
        owner: None,
        annotations: BTreeMap::new(),
        extra: BTreeMap::new(),
    };
    let mut applier = Applier::new(client.clone(), FIELD_MANAGER_SITE);
    let mut issuer = Issuer::new(&secrets, now);
    let authority = match secrets.get(AUTHORITY) {
        None => {
            let kind = CertificateKind::Authority {
                common_name: AUTHORITY.to_owned(),
            };
            let made = issuer.certificate(&order(AUTHORITY, kind))?;
            applier.create_authority(&made).await?;
            made
        }
        Some(there) => match rollover::due(there, Lifetimes::default().overlap, now).0 {
            None => there.clone(),
            Some(step) => {
                let changed = issuer.rollover(&rollover::order(AUTHORITY, there, step))?;
                applier.replace_secret(&changed).await?;
                changed
            }
        },
    };
    if let Some(secret) = get(CERTIFICATE).await?
        && is_good(&secret, &authority, now)
    {
        return Ok(secret);
    }
    let service = &options.service;
    let host = format!("{service}.{}.svc", options.namespace);
    let hosts = vec![service.clone(), host.clone(), format!("{host}.cluster.local")];
    let kind = CertificateKind::Issued {
        authority: AUTHORITY.to_owned(),
        common_name: host,
        hosts,
        server: true,
    };
    let secret = issuer.certificate(&order(CERTIFICATE, kind))?;
    applier.apply(&crate::object::json(&secret), None).await?;
    Ok(secret)
}

/// TLS without client certificates: the API server usually has none.
fn server_config(secret: &Secret) -> Result<ServerConfig, WebhookError> {
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, PrivateKeyDer};
    let data = secret
        .data
        .iter()
        .flatten()
        .map(|(key, value)| (key.clone(), value.0.clone()))
        .collect();
    let material = TlsMaterial::from_secret(&data)?;
    let damaged = |item: &'static str| {
        WebhookError::Issue(format!(
            "Secret {CERTIFICATE}: {item} is damaged; delete the Secret to get a new one"
        ))
    };
    let chain: Vec<CertificateDer<'static>> = CertificateDer::pem_slice_iter(&material.cert)
        .collect::<Result<_, _>>()
        .map_err(|_| damaged("tls.crt"))?;
    let key = PrivateKeyDer::from_pem_slice(&material.key).map_err(|_| damaged("tls.key"))?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let mut config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(chain, key)?;
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(config)
}

async fn register(client: &Client, options: &WebhookOptions, secret: &Secret) -> Result<(), WebhookError> {
    let authority = secret.data.as_ref().and_then(|data| data.get("ca.crt"));
    let bundle = authority
        .map(|bytes| BASE64_STANDARD.encode(&bytes.0))
        .unwrap_or_default();
    let mut applier = Applier::new(client.clone(), FIELD_MANAGER_SITE);
    Ok(applier.apply(&configuration(options, &bundle), None).await?)
}

fn configuration(options: &WebhookOptions, bundle: &str) -> Value {
    json!({
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {
            "name": CONFIGURATION,
            "labels": {"app.kubernetes.io/name": "karez", "app.kubernetes.io/version": VERSION},
        },
        "webhooks": [{
            "name": "sidecar.karez.dev",
            "admissionReviewVersions": ["v1"],
            "sideEffects": "None",
            "failurePolicy": "Ignore",
            "timeoutSeconds": 10,
            "clientConfig": {
                "caBundle": bundle,
                "service": {
                    "name": options.service, "namespace": options.namespace, "path": PATH, "port": 443,
                },
            },
            "rules": [{
                "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"], "operations": ["CREATE"],
                "scope": "Namespaced",
            }],
            // Our own pods and the cluster's must not wait for us.
            "namespaceSelector": {"matchExpressions": [{
                "key": "kubernetes.io/metadata.name", "operator": "NotIn",
                "values": ["kube-system", options.namespace],
            }]},
        }],
    })
}

#[cfg(test)]
mod tests {
    use jiff::SignedDuration;
    use karez_identity::CertificateFacts;
    use karez_local_api::{LocalCluster, LocalClusterOptions};

    use super::*;

    fn end(secret: &Secret) -> Timestamp {
        let pem = &secret.data.as_ref().unwrap()["tls.crt"].0;
        CertificateFacts::from_pem(pem).unwrap().not_after
    }

    fn believed(secret: &Secret) -> usize {
        let pem = &secret.data.as_ref().unwrap()["ca.crt"].0;
        String::from_utf8_lossy(pem).matches("BEGIN CERTIFICATE").count()
    }

    #[tokio::test]
    async fn the_certificate_and_its_authority_are_replaced_while_it_serves() {
        let folder = tempfile::tempdir().unwrap();
        let cluster = LocalCluster::open(LocalClusterOptions::new(folder.path())).unwrap();
        let client = cluster.client();
        let options = WebhookOptions {
            listen: "127.0.0.1:0".into(),
            namespace: "default".into(),
            service: "karez-webhook".into(),
        };
        let start = Timestamp::from_second(1_800_000_000).unwrap();
        let day = |days: i64| start + SignedDuration::from_hours(24 * days);
        let first = certificate(&client, &options, start).await.unwrap();
        let again = async |secret: &Secret, now| renewed(&client, &options, secret, now).await.unwrap();
        assert!(again(&first, day(1000)).await.is_none(), "it is still good");
        // Authority and certificate live for five years: a month before their end a successor is believed.
        let (both, _) = again(&first, day(1800)).await.expect("another one");
        assert_eq!((believed(&both), end(&both) <= day(1826)), (2, true));
        assert!(again(&both, day(1801)).await.is_none());
        let (new, _) = again(&both, day(1812)).await.expect("of the successor");
        assert!(end(&new) > day(3000) && believed(&new) == 2);
        let (alone, _) = again(&new, day(1830)).await.expect("without the old one");
        assert_eq!(believed(&alone), 1);
    }
}
