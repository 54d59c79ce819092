//! What changes the allocation, one thing after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use karez_allocation::{Allocation, Copy, Found, Job, Outcome, StrategyKind};
use karez_document::Document;
use karez_lifecycle::Shutdown;
use karez_scrape::discovery::{Change, Context, Discovery};
use kube::Client;
use tokio::sync::watch;

use crate::AllocatorOptions;
use crate::collectors::{self, Known};
use crate::config::AllocatorConfig;
use crate::kubernetes::resources::{self, Resources};
use crate::kubernetes::rights::{self, Needs};
use crate::lease::Standing;
use crate::metrics::Event;
use crate::shared::{Said, Served, Shared, now};

/// What comes within this time is taken together: a list tells of its objects one by one.
const TOGETHER: Duration = Duration::from_millis(50);
/// As long as not all is known that there was at the start it is looked again so often.
const COLD: Duration = Duration::from_millis(50);
/// What is not known then is not waited for: a source that cannot be asked does not keep the others from being served.
const WARM: Duration = Duration::from_secs(30);
/// Without anything else to do it is looked again so often.
const IDLE: Duration = Duration::from_secs(30);

pub(crate) struct Engine {
    config: AllocatorConfig,
    options: AllocatorOptions,
    client: Option<Client>,
    shared: Arc<Shared>,
    shutdown: Shutdown,
    discovery: Discovery,
    collectors: watch::Receiver<Known>,
    resources: watch::Receiver<Resources>,
    /// What has to be allowed.
    needs: watch::Sender<Needs>,
    /// Whether the resources that were taken are all there were at the start.
    heard: bool,
    begun: Instant,
}

impl Engine {
    pub(crate) fn new(
        config: AllocatorConfig,
        options: AllocatorOptions,
        client: Option<Client>,
        shared: Arc<Shared>,
        shutdown: Shutdown,
    ) -> Self {
        let context = Context {
            net: options.net.clone(),
            kubernetes: client.clone(),
        };
        Engine {
            collectors: collectors::watch(&config.collectors, client.clone()),
            resources: resources::watch(&config, client.clone()),
            discovery: Discovery::start(&[], &context),
            config,
            options,
            client,
            shared,
            shutdown,
            heard: false,
            begun: Instant::now(),
            needs: watch::Sender::new(Needs::default()),
        }
    }

    /// Asks what it may not do that it has to.
    fn ask_for_rights(&self) {
        if let Some(client) = self.client.clone() {
            let (needs, shared) = (self.needs.subscribe(), self.shared.clone());
            tokio::spawn(rights::watch(client, needs, shared, self.shutdown.clone()));
        }
    }

    /// Begins to remember what changes, for others.
    fn keep_journal(&self) {
        if self.shared.peers.is_some() {
            let first = u64::try_from(now().as_nanos()).unwrap_or(u64::MAX);
            self.shared.write().keep_journal(first);
        }
    }

    /// Does as the leader did, unless it decides by itself by now.
    fn take_copy(&self, leader: &str, copy: &Copy) {
        let follows = self.shared.leader().is_some_and(|peer| peer.identity == leader);
        if follows {
            let outcome = self.change("follow", |allocation| allocation.follow(copy));
            self.shared.has_copy();
            tracing::debug!(moved = outcome.moved, whole = copy.whole, "as the leader has it");
        }
    }

    /// Another leads, or this one.
    fn take_standing(&self, standing: &Standing) {
        if standing.leads() {
            self.shared.write().lead();
        }
    }

    /// Follows everything until the shutdown.
    pub(crate) async fn run(mut self, mut document: watch::Receiver<Option<Document>>) {
        let Some(mut heard) = self.shared.hear() else {
            return;
        };
        self.keep_journal();
        self.ask_for_rights();
        let mut standing = self.shared.standing.subscribe();
        self.take_jobs();
        let mut wake = self.take_collectors();
        let mut even = tokio::time::interval(self.config.rebalance.max(Duration::from_secs(1)));
        even.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let idle = if *self.shared.warm.borrow() { IDLE } else { COLD };
            let waits = wake.min(now() + idle).saturating_sub(now());
            tokio::select! {
                () = self.shutdown.triggered() => return,
                mut changes = self.discovery.changes() => {
                    tokio::time::sleep(TOGETHER).await;
                    changes.extend(self.discovery.changes_so_far());
                    self.take_groups(changes);
                }
                Some(said) = heard.recv() => {
                    let mut all = vec![said];
                    while all.len() < 1024 && let Ok(said) = heard.try_recv() {
                        all.push(said);
                    }
                    for said in &all {
                        if let Said::Copied(leader, copy) = said {
                            self.take_copy(leader, copy);
                        }
                    }
                    self.take_said(all);
                }
                Ok(()) = self.collectors.changed() => {}
                Ok(()) = self.resources.changed() => {
                    tokio::time::sleep(TOGETHER).await;
                    self.shared.metrics.event(Event::PrometheusResources);
                    self.take_jobs();
                }
                Ok(()) = standing.changed() => self.take_standing(&standing.borrow_and_update().clone()),
                Ok(()) = document.changed() => self.take_document(&mut document),
                _ = even.tick() => if self.shared.leads() {
                    self.rebalance();
                },
                () = tokio::time::sleep(waits) => {}
            }
            wake = self.take_collectors().min(self.tick());
            self.warm_up();
            self.shared.publish();
        }
    }

    /// Lets lists be given once all is known that there was at the start, so that nobody takes the rest for gone.
    fn warm_up(&mut self) {
        if *self.shared.warm.borrow() {
            return;
        }
        let known = self.heard && self.collectors.borrow().is_some() && self.discovery.is_complete();
        if known || self.begun.elapsed() > WARM {
            if !known {
                tracing::warn!(
                    after = ?WARM,
                    "not all sources of targets have told what there is; the others' targets are given"
                );
            }
            self.shared.warm.send_replace(true);
        }
    }

    fn take_groups(&mut self, changes: Vec<Change>) {
        let begun = Instant::now();
        let found = changes.into_iter().map(|change| Found {
            provider: change.provider,
            source: change.source,
            group: change.group,
        });
        let outcome = self.change("found", |allocation| allocation.found(found.collect()));
        tracing::debug!(
            new = outcome.new,
            gone = outcome.gone,
            moved = outcome.moved,
            took = ?begun.elapsed(),
            "targets changed"
        );
    }

    /// Changes the allocation, and measures it.
    fn change(&self, what: &'static str, change: impl FnOnce(&mut Allocation) -> Outcome) -> Outcome {
        let begun = Instant::now();
        let outcome = change(&mut self.shared.write());
        self.shared.metrics.changed(what, begun.elapsed(), &outcome);
        outcome
    }

    fn take_said(&self, said: Vec<Said>) {
        let (mut allocation, now) = (self.shared.write(), now());
        for said in said {
            match said {
                Said::Has(collector, revision) => {
                    allocation.confirmed(&collector, revision);
                }
                Said::Asked(job, collector, revision) => allocation.asked(&job, &collector, revision, now),
                Said::Samples(samples) => allocation.weigh(samples),
                Said::Copied(..) => {}
            }
        }
    }

    /// Takes the collectors as they are seen; when to look again, because somebody's grace ends.
    fn take_collectors(&mut self) -> Duration {
        let Some(seen) = self.collectors.borrow_and_update().clone() else {
            return Duration::MAX;
        };
        self.shared.metrics.discovered(seen.len());
        let (present, again) = karez_allocation::presence::collectors(&seen, self.config.grace, now());
        let same = {
            let allocation = self.shared.read();
            let known = allocation
                .collectors()
                .map(|(name, node, standing, ..)| (name, node, standing));
            known.eq(present
                .iter()
                .map(|c| (c.name.as_str(), c.node.as_str(), c.standing)))
        };
        if !same {
            let outcome = self.change("collectors", |allocation| allocation.set_collectors(&present));
            tracing::info!(
                collectors = present.len(),
                moved = outcome.moved,
                "the collectors changed"
            );
        }
        again.unwrap_or(Duration::MAX)
    }

    /// Hands over what has waited long enough; when to look again.
    fn tick(&self) -> Duration {
        self.shared.write().tick(now()).unwrap_or(Duration::MAX)
    }

    fn rebalance(&self) {
        if self.config.settings.strategy == StrategyKind::Weighted {
            let outcome = self.change("rebalance", Allocation::rebalance);
            if outcome.moved > 0 {
                tracing::info!(moved = outcome.moved, "targets were evened out by their samples");
            }
        }
    }

    /// The document and the resources say which jobs there are.
    fn take_jobs(&mut self) {
        let resources = self.resources.borrow_and_update().clone();
        self.heard = resources.heard;
        let mut jobs = self.config.jobs.clone();
        let mut refused = resources.refused;
        // Of two jobs with one name the resources' counts, which cannot choose theirs.
        jobs.retain(|job| !resources.jobs.iter().any(|other| other.job_name == job.job_name));
        jobs.extend(resources.jobs);
        jobs.sort_by(|a, b| a.job_name.cmp(&b.job_name));
        jobs.dedup_by(|a, b| a.job_name == b.job_name);
        refused.sort();
        let context = Context {
            net: self.options.net.clone(),
            kubernetes: self.client.clone(),
        };
        self.discovery.update(&jobs, &context);
        let numbered = jobs.iter().enumerate().map(|(number, config)| Job {
            config: Arc::new(config.clone()),
            providers: self.discovery.providers_of(number),
        });
        let numbered: Vec<Job> = numbered.collect();
        self.change("jobs", |allocation| allocation.set_jobs(&numbered));
        let served = Served::new(&jobs, self.config.allow_insecure_secrets, refused);
        for job in &served.withheld {
            tracing::error!(
                job,
                "the job holds secrets, which plain HTTP does not give: configure `https` and let collectors use it, \
                 name files of credentials instead, or set `allow_insecure_auth_secrets`"
            );
        }
        if *self.shared.served() != served {
            self.shared.serve(served);
        }
        let needs = Needs::of(&self.config, &jobs);
        self.needs
            .send_if_modified(|before| std::mem::replace(before, needs.clone()) != needs);
    }

    fn take_document(&mut self, document: &mut watch::Receiver<Option<Document>>) {
        let Some(document) = document.borrow_and_update().clone() else {
            tracing::warn!("the configuration is gone; what it said last holds");
            return;
        };
        let (config, diagnoses) = crate::config::read(&document.text, &document.origin, &self.options.flags);
        for diagnosis in &diagnoses {
            match diagnosis.is_error() {
                true => tracing::error!(%diagnosis, "the configuration is wrong; what it said before holds"),
                false => tracing::warn!(%diagnosis, "the configuration is not as it should be"),
            }
        }
        let Some(config) = config else {
            return;
        };
        self.shared.metrics.event(Event::ConfigMap);
        let fixed = |config: &AllocatorConfig| {
            let AllocatorConfig {
                listen,
                https,
                lease,
                push,
                ..
            } = config;
            (listen.clone(), https.clone(), lease.clone(), push.clone())
        };
        if fixed(&config) != fixed(&self.config) {
            tracing::warn!(
                "other addresses, certificates, another Lease or `telemetry` are used after a restart only"
            );
        }
        if config.settings != self.config.settings {
            let settings = config.settings.clone();
            let outcome = self.change("settings", |allocation| allocation.set_settings(settings));
            tracing::info!(strategy = %config.settings.strategy, moved = outcome.moved, "targets are divided in another way");
        }
        if config.collectors != self.config.collectors {
            self.collectors = collectors::watch(&config.collectors, self.client.clone());
        }
        if config.prometheus != self.config.prometheus {
            self.resources = resources::watch(&config, self.client.clone());
        }
        self.config = config;
        self.take_jobs();
    }
}
