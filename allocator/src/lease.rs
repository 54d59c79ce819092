//! Which of several allocators leads: who holds a Lease (coordination.k8s.io). The others do as it does.
//!
//! ```text
//! Lease ─ holder, renewed? ─▶ attempt ─▶ Standing (leads, follows whom) ─▶ the engine, HTTP
//!   ▲                            │
//!   └── created, renewed, taken over when nobody renewed it for its duration, given back at the end
//! ```
//!
//! Whether a Lease is still renewed is measured by one's own clock, from when one saw it change; clocks of others are not
//! compared with it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use karez_lifecycle::Shutdown;
use kube::api::PostParams;
use kube::{Api, Client, ResourceExt};
use tokio::sync::watch;

/// Annotations of the Lease: where its holder answers.
const HTTP: &str = "karez.dev/http";
const HTTPS: &str = "karez.dev/https";
/// The longest address that is believed.
const MAX_ADDRESS: usize = 256;

/// An allocator among others.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Peer {
    /// Its name.
    pub(crate) identity: String,
    /// Its address for HTTP, `HOST:PORT`; empty where others cannot reach it.
    pub(crate) http: String,
    /// Its address for mutual TLS, if there is one.
    pub(crate) https: Option<String>,
}

/// How an allocator stands among others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is not known yet who leads.
    Unknown,
    /// It decides.
    Leads,
    /// It decides as long as nobody says otherwise: the API does not answer, so that it cannot renew its Lease. Nor could
    /// another take it where the API answers nobody; where it answers others, they are to be asked.
    Acts,
    /// Another decides; `None` while nobody does.
    Follows(Option<Peer>),
}

impl Standing {
    /// Whether it decides.
    pub(crate) fn leads(&self) -> bool {
        matches!(self, Standing::Leads | Standing::Acts)
    }
}

/// The Lease that is sought.
#[derive(Debug, Clone)]
pub(crate) struct Sought {
    pub(crate) namespace: String,
    pub(crate) name: String,
    /// For how long it is held without being renewed.
    pub(crate) duration: Duration,
    /// Who seeks it.
    pub(crate) own: Peer,
}

struct Seeker {
    api: Api<Lease>,
    sought: Sought,
    /// What was seen last of the Lease, and since when.
    seen: Option<(String, Instant)>,
    /// When one's own Lease was renewed last.
    renewed: Option<Instant>,
    /// Who was seen to hold it last.
    leader: Option<Peer>,
    said: Option<String>,
}

/// Seeks the Lease until the shutdown, and gives it back then.
pub(crate) async fn seek(
    client: Client,
    sought: Sought,
    standing: watch::Sender<Standing>,
    shutdown: Shutdown,
) {
    let mut seeker = Seeker {
        api: Api::namespaced(client, &sought.namespace),
        seen: None,
        renewed: None,
        leader: None,
        said: None,
        sought,
    };
    // However long it lasts, one that is given back is seen soon.
    let every = (seeker.sought.duration / 7).min(Duration::from_secs(2));
    loop {
        let found = tokio::select! {
            found = tokio::time::timeout(seeker.sought.duration / 2, seeker.attempt()) => found,
            () = shutdown.triggered() => break,
        };
        let now = match found {
            Ok(Ok(now)) => {
                seeker.said = None;
                now
            }
            Ok(Err(error)) => seeker.failed(&error),
            Err(_) => seeker.without_answer("the API does not answer in time".to_owned()),
        };
        standing.send_if_modified(|before| {
            let changed = *before != now;
            if changed {
                tell(&now, &seeker.sought);
            }
            *before = now.clone();
            changed
        });
        tokio::select! {
            () = tokio::time::sleep(every) => {}
            () = shutdown.triggered() => break,
        }
    }
    // Whoever comes next need not wait until it has run out.
    let _ = tokio::time::timeout(Duration::from_secs(2), seeker.give_back()).await;
}

fn tell(standing: &Standing, sought: &Sought) {
    let lease = &sought.name;
    match standing {
        Standing::Unknown => {}
        Standing::Leads => tracing::info!(lease, "this allocator leads"),
        Standing::Acts => {
            tracing::warn!(
                lease,
                "the Lease cannot be renewed; this allocator decides until somebody else does"
            );
        }
        Standing::Follows(Some(leader)) => {
            tracing::info!(lease, leader = leader.identity, "this allocator follows another");
        }
        Standing::Follows(None) => tracing::warn!(lease, "no allocator leads"),
    }
}

impl Seeker {
    /// Looks at the Lease; renews it, or takes it if it may be had.
    async fn attempt(&mut self) -> kube::Result<Standing> {
        let Some(lease) = self.api.get_opt(&self.sought.name).await? else {
            let lease = self.lease(None);
            return match self.api.create(&PostParams::default(), &lease).await {
                Ok(_) => Ok(self.leads()),
                Err(kube::Error::Api(status)) if status.code == 409 => Ok(Standing::Follows(None)),
                Err(error) => Err(error),
            };
        };
        let holder = holder(&lease);
        if !holder.is_empty() && holder != self.sought.own.identity && !self.has_run_out(&lease) {
            self.renewed = None;
            self.leader = Some(peer(&lease));
            return Ok(Standing::Follows(self.leader.clone()));
        }
        let taken = self.lease(Some(&lease));
        match self
            .api
            .replace(&self.sought.name, &PostParams::default(), &taken)
            .await
        {
            Ok(_) => Ok(self.leads()),
            // Somebody was faster; the next look says who.
            Err(kube::Error::Api(status)) if status.code == 409 => {
                self.renewed = None;
                Ok(Standing::Follows(None))
            }
            Err(error) => Err(error),
        }
    }

    fn leads(&mut self) -> Standing {
        self.renewed = Some(Instant::now());
        (self.seen, self.leader) = (None, None);
        Standing::Leads
    }

    /// Whether a Lease has not changed for as long as it is held without being renewed.
    fn has_run_out(&mut self, lease: &Lease) -> bool {
        let version = format!(
            "{}/{}",
            lease.resource_version().unwrap_or_default(),
            holder(lease)
        );
        let written = lease.spec.as_ref().and_then(|spec| spec.lease_duration_seconds);
        let written = written.and_then(|seconds| u64::try_from(seconds).ok());
        let lasts = written.map_or(self.sought.duration, Duration::from_secs);
        match &self.seen {
            Some((seen, since)) if *seen == version => since.elapsed() >= lasts,
            _ => {
                self.seen = Some((version, Instant::now()));
                false
            }
        }
    }

    /// The Lease as this allocator holds it.
    fn lease(&self, before: Option<&Lease>) -> Lease {
        let own = &self.sought.own;
        let now = MicroTime(Timestamp::now());
        let spec = before.and_then(|lease| lease.spec.clone()).unwrap_or_default();
        let was_ours = spec.holder_identity.as_deref() == Some(&own.identity);
        let transitions = spec.lease_transitions.unwrap_or(0);
        let mut metadata = before.map_or_else(ObjectMeta::default, |lease| lease.metadata.clone());
        metadata.name = Some(self.sought.name.clone());
        metadata.namespace = Some(self.sought.namespace.clone());
        metadata.managed_fields = None;
        let annotations = metadata.annotations.get_or_insert_with(BTreeMap::new);
        annotations.insert(HTTP.to_owned(), own.http.clone());
        annotations.insert(HTTPS.to_owned(), own.https.clone().unwrap_or_default());
        Lease {
            metadata,
            spec: Some(LeaseSpec {
                holder_identity: Some(own.identity.clone()),
                lease_duration_seconds: i32::try_from(self.sought.duration.as_secs().max(1)).ok(),
                acquire_time: match was_ours {
                    true => spec.acquire_time.or_else(|| Some(now.clone())),
                    false => Some(now.clone()),
                },
                renew_time: Some(now),
                lease_transitions: Some(match was_ours || before.is_none() {
                    true => transitions,
                    false => transitions.saturating_add(1),
                }),
                ..spec
            }),
        }
    }

    fn failed(&mut self, error: &kube::Error) -> Standing {
        match error {
            // Without the right, or without such a kind, it is alone as far as it can know.
            kube::Error::Api(status) if [403, 404, 405].contains(&status.code) => {
                let mend = "several allocators would each decide for themselves: let the Role of this ServiceAccount \
                            `{apiGroups: [coordination.k8s.io], resources: [leases], verbs: [get, create, update]}`, or \
                            run one without `karez.lease`";
                self.say(format!("{}; {mend}", status.message));
                Standing::Leads
            }
            error => self.without_answer(error.to_string()),
        }
    }

    /// The API cannot be asked: who led goes on, and who followed follows, as far as they can know.
    fn without_answer(&mut self, reason: String) -> Standing {
        self.say(reason);
        let deadline = self.sought.duration * 2 / 3;
        match self.renewed {
            Some(renewed) if renewed.elapsed() < deadline => Standing::Leads,
            Some(_) => Standing::Acts,
            None => Standing::Follows(self.leader.clone()),
        }
    }

    fn say(&mut self, reason: String) {
        if self.said.as_ref() != Some(&reason) {
            let lease = format!("{}/{}", self.sought.namespace, self.sought.name);
            tracing::warn!(lease, reason, "the Lease cannot be read or renewed");
            self.said = Some(reason);
        }
    }

    async fn give_back(&self) {
        if self.renewed.is_none() {
            return;
        }
        let Ok(Some(mut lease)) = self.api.get_opt(&self.sought.name).await else {
            return;
        };
        if holder(&lease) != self.sought.own.identity {
            return;
        }
        if let Some(spec) = &mut lease.spec {
            spec.holder_identity = Some(String::new());
        }
        if let Err(error) = self
            .api
            .replace(&self.sought.name, &PostParams::default(), &lease)
            .await
        {
            tracing::debug!(%error, "the Lease is not given back; it runs out");
        }
    }
}

fn holder(lease: &Lease) -> &str {
    let spec = lease.spec.as_ref();
    spec.and_then(|spec| spec.holder_identity.as_deref())
        .unwrap_or_default()
}

/// Who holds a Lease, and where it answers.
fn peer(lease: &Lease) -> Peer {
    let address = |key: &str| {
        let address = lease
            .annotations()
            .get(key)
            .map(String::as_str)
            .unwrap_or_default();
        match address.len() <= MAX_ADDRESS && !address.contains(['/', '?', '#', '@', ' ']) {
            true => address.to_owned(),
            false => String::new(),
        }
    };
    Peer {
        identity: holder(lease).to_owned(),
        http: address(HTTP),
        https: Some(address(HTTPS)).filter(|address| !address.is_empty()),
    }
}
