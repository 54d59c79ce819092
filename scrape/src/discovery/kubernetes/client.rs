//! The API that discovery asks: the one around us, or the one that the document names.

use karez_kubernetes::ClientOptions;
use karez_scrape_config::discovery::KubernetesDiscovery;
use kube::Client;
use kube::config::{AuthInfo, Config};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

use crate::discovery::Context;

pub(super) async fn make(config: &KubernetesDiscovery, cx: &Context) -> Result<Client, String> {
    if !config.api_server.is_empty() {
        return named(config).await;
    }
    if let Some(client) = cx
        .kubernetes
        .clone()
        .filter(|_| config.kubeconfig_file.is_empty())
    {
        return Ok(client);
    }
    let options = ClientOptions {
        kubeconfig: (!config.kubeconfig_file.is_empty()).then(|| config.kubeconfig_file.clone().into()),
        ..ClientOptions::default()
    };
    let made = karez_kubernetes::client(&options).await;
    made.map(|(client, _)| client).map_err(|error| error.to_string())
}

async fn named(config: &KubernetesDiscovery) -> Result<Client, String> {
    let url = config
        .api_server
        .parse()
        .map_err(|_| "`api_server` is no URL".to_owned())?;
    let mut made = Config::new(url);
    let (http, tls) = (&config.http, &config.http.tls);
    made.accept_invalid_certs = tls.insecure_skip_verify;
    if !tls.server_name.is_empty() {
        made.tls_server_name = Some(tls.server_name.clone());
    }
    let text = |inline: &str, file: &str| match file.is_empty() {
        true => Ok(Some(inline.to_owned()).filter(|text| !text.is_empty())),
        false => std::fs::read_to_string(file)
            .map(Some)
            .map_err(|error| format!("{file}: {error}")),
    };
    if let Some(ca) = text(tls.ca.expose(), &tls.ca_file)? {
        let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(ca.as_bytes()).collect();
        let found = found.map_err(|_| "the authority holds no certificate in PEM".to_owned())?;
        made.root_cert = Some(
            found
                .into_iter()
                .map(|certificate| certificate.to_vec())
                .collect(),
        );
    }
    let mut auth = AuthInfo::default();
    if let Some(authorization) = &http.authorization {
        let given = authorization.credentials.expose().to_owned();
        auth.token = Some(given).filter(|token| !token.is_empty()).map(Into::into);
        auth.token_file = Some(authorization.credentials_file.clone()).filter(|file| !file.is_empty());
    }
    if let Some(basic) = &http.basic_auth {
        auth.username = Some(basic.username.clone());
        auth.password = text(basic.password.expose(), &basic.password_file)?.map(Into::into);
    }
    if !tls.cert_file.is_empty() {
        auth.client_certificate = Some(tls.cert_file.clone());
        auth.client_key = Some(tls.key_file.clone());
    }
    made.auth_info = auth;
    Client::try_from(made).map_err(|error| error.to_string())
}
