//! Mutual TLS of files that are watched: a renewed certificate is used from the next connection on.

use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use karez_identity::{Grace, TlsMaterial, server_config};
use tokio_rustls::TlsAcceptor;

use crate::config::Https;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);

/// The certificate as it is now.
#[derive(Clone)]
pub(crate) struct Watched(Arc<RwLock<TlsAcceptor>>);

impl Watched {
    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        self.0.read().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Reads the files and follows them while somebody serves.
pub(crate) async fn watch(https: Https) -> Result<Watched, String> {
    let mut material = read(&https).await?;
    let watched = Watched(Arc::new(RwLock::new(acceptor(&material)?)));
    let weak = Arc::downgrade(&watched.0);
    tokio::spawn(async move {
        loop {
            tokio::time::sleep(LOOK).await;
            let Some(current) = weak.upgrade() else {
                return;
            };
            let new = match read(&https).await {
                Ok(new) if new != material => new,
                _ => continue,
            };
            match acceptor(&new) {
                Ok(acceptor) => {
                    *current.write().unwrap_or_else(PoisonError::into_inner) = acceptor;
                    tracing::info!(file = https.cert_file, "the certificate was renewed");
                }
                Err(error) => tracing::warn!(error, "the renewed certificate cannot be used; the old one is"),
            }
            // What cannot be used is not tried again before it is another.
            material = new;
        }
    });
    Ok(watched)
}

async fn read(https: &Https) -> Result<TlsMaterial, String> {
    let file = async |path: &str| {
        let path = karez_lifecycle::volumes::locate(std::path::Path::new(path));
        tokio::fs::read(&path)
            .await
            .map_err(|error| format!("{}: {error}", path.display()))
    };
    Ok(TlsMaterial {
        ca: file(&https.ca_file).await?,
        cert: file(&https.cert_file).await?,
        key: file(&https.key_file).await?,
        grace: Grace::default(),
    })
}

fn acceptor(material: &TlsMaterial) -> Result<TlsAcceptor, String> {
    let config = server_config(material, &[b"h2", b"http/1.1"]).map_err(|error| error.to_string())?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}
