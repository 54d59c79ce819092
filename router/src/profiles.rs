//! TLS profiles: a Secret or a directory in, its material out, anew with each change.

use std::path::{Path, PathBuf};
use std::time::Duration;

use karez_identity::TlsMaterial;
use karez_lifecycle::volumes;
use karez_router_config::TlsSource;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::metrics::Metrics;

/// How often a directory is looked at.
const POLL: Duration = Duration::from_secs(1);
/// How long something may be missing at the start before that is worth a word.
const PATIENCE: Duration = Duration::from_secs(2);
/// More than any PEM file has.
const FILE_LIMIT: u64 = 256 * 1024;

/// A profile as it stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Profile {
    /// Not usable yet; the reason.
    Waiting(String),
    /// Usable.
    Ready(TlsMaterial),
}

/// The profile once it is usable; what it waits for when that takes longer than a moment.
pub(crate) async fn usable(profile: &mut watch::Receiver<Profile>) -> Profile {
    let ready = profile.wait_for(|profile| matches!(profile, Profile::Ready(_)));
    if let Ok(Ok(ready)) = timeout(PATIENCE + PATIENCE / 2, ready).await {
        return ready.clone();
    }
    profile.borrow_and_update().clone()
}

/// Where Secrets are.
#[derive(Clone)]
pub(crate) struct Secrets {
    pub(crate) client: Option<kube::Client>,
    pub(crate) namespace: String,
}

/// Follows a profile until nobody listens.
pub(crate) async fn follow(
    name: String,
    source: TlsSource,
    secrets: Secrets,
    metrics: Metrics,
) -> watch::Receiver<Profile> {
    match source {
        TlsSource::Directory(path) => {
            let path = volumes::locate(&path);
            let (sender, receiver) = watch::channel(from_directory(&path).await);
            note(&name, &sender.borrow(), &metrics);
            tokio::spawn(follow_directory(name, path, sender, metrics));
            receiver
        }
        TlsSource::Secret(secret) => {
            let (sender, receiver) = watch::channel(Profile::Waiting(format!("waiting for Secret {secret}")));
            match secrets.client {
                Some(client) => {
                    let data = karez_document::watch_secret(&secrets.namespace, &secret, client).await;
                    tokio::spawn(follow_secret(name, secret, data, sender, metrics));
                }
                None => {
                    let reason =
                        format!("Secret {secret} cannot be read without a Kubernetes API: use directory:");
                    sender.send_replace(Profile::Waiting(reason));
                }
            }
            receiver
        }
    }
}

async fn follow_secret(
    name: String,
    secret: String,
    mut data: watch::Receiver<Option<karez_document::SecretData>>,
    sender: watch::Sender<Profile>,
    metrics: Metrics,
) {
    let mut last = None;
    // The first reading takes a moment; until then nothing is known, which is not the same as missing.
    if data.borrow().is_none() {
        let _ = timeout(PATIENCE, data.changed()).await;
    }
    loop {
        let profile = match &*data.borrow_and_update() {
            None => Profile::Waiting(format!("Secret {secret} is not there yet")),
            Some(data) => match TlsMaterial::from_secret(data) {
                Ok(material) => Profile::Ready(material),
                Err(error) => Profile::Waiting(format!("Secret {secret}: {error}")),
            },
        };
        publish(&name, &sender, &mut last, profile, &metrics);
        tokio::select! {
            changed = data.changed() => if changed.is_err() { return },
            () = sender.closed() => break,
        }
    }
    metrics.forget_expiry(&name);
}

async fn follow_directory(name: String, path: PathBuf, sender: watch::Sender<Profile>, metrics: Metrics) {
    let mut last = Some(sender.borrow().clone());
    loop {
        tokio::select! {
            () = tokio::time::sleep(POLL) => {}
            () = sender.closed() => break,
        }
        let profile = from_directory(&path).await;
        publish(&name, &sender, &mut last, profile, &metrics);
    }
    metrics.forget_expiry(&name);
}

/// A reading that is not the one before is published. A profile that was usable stays so when its source goes or breaks: what runs keeps running.
fn publish(
    name: &str,
    sender: &watch::Sender<Profile>,
    last: &mut Option<Profile>,
    profile: Profile,
    metrics: &Metrics,
) {
    if last.as_ref() == Some(&profile) {
        return;
    }
    *last = Some(profile.clone());
    let changed = sender.send_if_modified(|old| {
        if *old == profile {
            return false;
        }
        if let (Profile::Ready(_), Profile::Waiting(reason)) = (&*old, &profile) {
            tracing::warn!(
                profile = name,
                reason,
                "TLS profile is gone or broken; the one read last stays in use"
            );
            return false;
        }
        *old = profile;
        true
    });
    if changed {
        note(name, &sender.borrow(), metrics);
    }
}

fn note(name: &str, profile: &Profile, metrics: &Metrics) {
    match profile {
        Profile::Waiting(reason) => tracing::info!(profile = name, reason, "TLS profile is not usable yet"),
        Profile::Ready(material) => {
            if let Ok(facts) = material.facts() {
                metrics.set_expiry(name, facts.not_after.as_second());
                tracing::info!(profile = name, subject = facts.common_name, until = %facts.not_after, "TLS profile read");
            }
        }
    }
}

async fn from_directory(path: &Path) -> Profile {
    let mut data = karez_document::SecretData::new();
    for name in ["tls.crt", "tls.key", "ca.crt"] {
        let file = path.join(name);
        match read(&file).await {
            Ok(bytes) => drop(data.insert(name.to_owned(), bytes)),
            Err(error) => return Profile::Waiting(format!("{}: {error}", file.display())),
        }
    }
    match TlsMaterial::from_secret(&data) {
        Ok(material) => Profile::Ready(material),
        Err(error) => Profile::Waiting(format!("{}: {error}", path.display())),
    }
}

async fn read(file: &Path) -> std::io::Result<Vec<u8>> {
    if tokio::fs::metadata(file).await?.len() > FILE_LIMIT {
        return Err(std::io::Error::other("too long for a PEM file"));
    }
    tokio::fs::read(file).await
}
