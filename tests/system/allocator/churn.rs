//! Targets of a real cluster while everything changes: Pods, Services and monitors by the hundred (by the thousand
//! with `KAREZ_FLEET=long`), collectors from 3 to 30 to 2, the allocator itself. Every target that stays is held by
//! somebody at every instant, and by one alone once things have calmed down.
//!
//! ```text
//! this test ─ Pods, Services, monitors ─▶ API server ─▶ karez allocator ─ lists ─▶ collectors (played) ─▶ holders, counted
//!                └──────── Pods of collectors ──────────────▲                    └▶ observer: who has what, sweep by sweep
//! ```

use std::collections::{HashMap, HashSet};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use libtest_mimic::Trial;
use serde_json::json;

use super::holders::{Collector, Holders, Manner, Target};
use super::world::{self, Call, FLEET, Pod};
use super::{Allocator, CLUSTER, ask, escaped};
use crate::support::Outcome;
use crate::support::cluster::Cluster;
use crate::support::daemon::free;
use crate::support::kubernetes::Kubernetes;
use crate::support::stage::Stage;
use crate::support::wait::wait_for;
use crate::trial;

pub(super) fn trials() -> Vec<Trial> {
    vec![trial(
        "allocator::every_target_has_one_collector_whatever_changes",
        CLUSTER,
        whatever_changes,
    )]
}

/// How much there is.
struct Size {
    apps: usize,
    pods: usize,
    /// Of the applications so many stay as they are.
    anchors: usize,
    rounds: usize,
}

impl Size {
    fn wanted() -> Self {
        match std::env::var("KAREZ_FLEET").as_deref() {
            Ok("long") => Size {
                apps: 240,
                pods: 16,
                anchors: 60,
                rounds: 2,
            },
            _ => Size {
                apps: 14,
                pods: 6,
                anchors: 4,
                rounds: 1,
            },
        }
    }
}

const DOCUMENT: &str = "
allocation_strategy: consistent-hashing
collector_selector: {matchLabels: {app: collector}}
collector_not_ready_grace_period: 3s
karez: {settle: 2s}
prometheus_cr:
  enabled: true
  service_monitor_selector: {}
  pod_monitor_selector: {}
";

/// An application: a Service with Pods, and what watches them.
struct App {
    namespace: String,
    name: String,
    pods: Vec<Pod>,
    /// The Service is there, with its Pods.
    there: bool,
    monitored: bool,
    pods_monitored: bool,
}

/// All applications, as they should be.
struct World {
    cluster: Cluster,
    apps: Vec<App>,
    made: usize,
    written: usize,
}

impl World {
    fn new(cluster: Cluster, size: &Size) -> Self {
        let mut this = World {
            cluster,
            apps: Vec::new(),
            made: 0,
            written: 0,
        };
        for number in 0..size.apps {
            let (namespace, name) = (format!("shop-{}", number % 4), format!("app-{number}"));
            let pods = (0..size.pods).map(|_| this.next_pod(&namespace, &name)).collect();
            this.apps.push(App {
                namespace,
                name,
                pods,
                there: true,
                monitored: true,
                pods_monitored: number % 8 == 0,
            });
        }
        this
    }

    fn next_pod(&mut self, namespace: &str, app: &str) -> Pod {
        let number = self.made;
        self.made += 1;
        Pod {
            namespace: namespace.to_owned(),
            name: format!("{app}-{number}"),
            app: app.to_owned(),
            ip: format!("10.{}.{}.{}", number >> 16, number >> 8 & 255, number & 255),
            node: number % world::NODES,
        }
    }

    fn all(&mut self, calls: Vec<Call>) -> Outcome {
        self.written += calls.len();
        world::all(&self.cluster, calls)
    }

    fn make(&mut self) -> Outcome {
        let pods: Vec<Pod> = self.apps.iter().flat_map(|app| app.pods.clone()).collect();
        self.written += 2 * pods.len();
        world::run(&self.cluster, &pods)?;
        let calls = self.apps.iter().flat_map(|app| {
            let mut calls = vec![
                world::service(&app.namespace, &app.name),
                world::service_monitor(&app.namespace, &app.name),
            ];
            if app.pods_monitored {
                calls.push(world::pod_monitor(&app.namespace, &app.name));
            }
            calls
        });
        let calls = calls.collect();
        self.all(calls)
    }

    /// The targets that there should be, of some applications.
    fn targets<'a>(apps: impl IntoIterator<Item = &'a App>) -> HashSet<Target> {
        let mut targets = HashSet::new();
        for app in apps.into_iter().filter(|app| app.there) {
            let kinds = [
                ("serviceMonitor", app.monitored),
                ("podMonitor", app.pods_monitored),
            ];
            for (kind, _) in kinds.into_iter().filter(|(_, there)| *there) {
                let job: Arc<str> = format!("{kind}/{}/{}/0", app.namespace, app.name).into();
                let pods = app
                    .pods
                    .iter()
                    .map(|pod| (job.clone(), format!("{}:8080", pod.ip).into()));
                targets.extend(pods);
            }
        }
        targets
    }

    fn expected(&self) -> HashSet<Target> {
        Self::targets(&self.apps)
    }

    /// Changes each application that is no anchor, in one of six ways.
    fn churn(&mut self, anchors: usize, round: usize) -> Outcome {
        let mut calls = Vec::new();
        let mut later = Vec::new();
        for number in anchors..self.apps.len() {
            match (number + round) % 6 {
                0 => self.replace_pods(number, &mut calls, &mut later),
                1 => {
                    let app = &self.apps[number];
                    let pods = app.pods.iter().filter(|_| app.there);
                    calls.extend(pods.map(|pod| pod.status(round % 2 == 1)));
                }
                2 => {
                    let app = &self.apps[number];
                    let path = world::monitors(&app.namespace, "servicemonitors") + &format!("/{}", app.name);
                    let endpoint = json!({"port": "web", "path": format!("/round-{round}")});
                    if app.monitored && app.there {
                        calls.push(world::merge(path, json!({"spec": {"endpoints": [endpoint]}})));
                    }
                }
                3 => self.toggle_monitor(number, &mut calls),
                4 => self.toggle(number, &mut calls, &mut later),
                _ => {
                    let app = &self.apps[number];
                    let path = world::core(&app.namespace, "services") + &format!("/{}", app.name);
                    let patch = json!({"metadata": {"annotations": {"round": round.to_string()}}});
                    if app.there {
                        calls.push(world::merge(path, patch));
                    }
                }
            }
        }
        self.all(calls)?;
        self.all(later)
    }

    fn replace_pods(&mut self, number: usize, calls: &mut Vec<Call>, later: &mut Vec<Call>) {
        if !self.apps[number].there {
            return;
        }
        let (namespace, name) = (
            self.apps[number].namespace.clone(),
            self.apps[number].name.clone(),
        );
        let new: Vec<Pod> = (0..2).map(|_| self.next_pod(&namespace, &name)).collect();
        calls.extend(new.iter().map(Pod::create));
        later.extend(new.iter().map(|pod| pod.status(true)));
        let pods = &mut self.apps[number].pods;
        later.extend(pods.drain(..2).map(|pod| world::delete(pod.path(), 0)));
        pods.extend(new);
    }

    fn toggle_monitor(&mut self, number: usize, calls: &mut Vec<Call>) {
        let app = &mut self.apps[number];
        if !app.there {
            return;
        }
        app.monitored = !app.monitored;
        let path = world::monitors(&app.namespace, "servicemonitors") + &format!("/{}", app.name);
        calls.push(match app.monitored {
            true => world::service_monitor(&app.namespace, &app.name),
            false => world::delete(path, 0),
        });
    }

    fn toggle(&mut self, number: usize, calls: &mut Vec<Call>, later: &mut Vec<Call>) {
        let app = &mut self.apps[number];
        app.there = !app.there;
        let service = world::core(&app.namespace, "services") + &format!("/{}", app.name);
        if app.there {
            calls.push(world::service(&app.namespace, &app.name));
            calls.extend(app.pods.iter().map(Pod::create));
            later.extend(app.pods.iter().map(|pod| pod.status(true)));
        } else {
            calls.push(world::delete(service, 0));
            calls.extend(app.pods.iter().map(|pod| world::delete(pod.path(), 0)));
        }
    }
}

/// What the allocator's own lists say, of all collectors at one instant.
#[derive(Debug, Default)]
struct Sweeps {
    /// Looks at a target.
    looks: u64,
    lost: u64,
    /// With the old owner and the new one.
    handed_over: u64,
    /// With more than those.
    crowded: u64,
}

/// Looks at the lists of these targets until the end.
fn observe(at: SocketAddr, anchors: HashSet<Target>, stop: Arc<AtomicBool>) -> thread::JoinHandle<Sweeps> {
    thread::spawn(move || {
        let mut jobs: HashMap<Arc<str>, Vec<Arc<str>>> = HashMap::new();
        for (job, address) in anchors {
            jobs.entry(job).or_default().push(address);
        }
        let mut sweeps = Sweeps::default();
        while !stop.load(Ordering::Relaxed) {
            for (job, addresses) in &jobs {
                // Nobody answers while the allocator is started anew.
                let Ok(answer) = ask(at, &format!("/jobs/{}/targets", escaped(job))) else {
                    continue;
                };
                let collectors = answer.as_object().into_iter().flatten();
                let targets = collectors.flat_map(|(_, has)| has["targets"].as_array().into_iter().flatten());
                let mut counts: HashMap<&str, u32> = HashMap::new();
                for address in targets.filter_map(|target| target["targets"][0].as_str()) {
                    *counts.entry(address).or_default() += 1;
                }
                for address in addresses {
                    sweeps.looks += 1;
                    match counts.get(&**address) {
                        None => sweeps.lost += 1,
                        Some(1) => {}
                        Some(2) => sweeps.handed_over += 1,
                        Some(_) => sweeps.crowded += 1,
                    }
                }
            }
            thread::sleep(Duration::from_millis(50));
        }
        sweeps
    })
}

/// The collectors, as their Pods and as what they do.
struct Fleet {
    cluster: Cluster,
    at: SocketAddr,
    holders: Holders,
    running: HashMap<usize, Collector>,
}

impl Fleet {
    fn scale_up(&mut self, to: usize) -> Outcome {
        let new: Vec<usize> = (0..to)
            .filter(|number| !self.running.contains_key(number))
            .collect();
        let pods: Vec<Pod> = new.iter().map(|number| world::collector(*number)).collect();
        for number in new {
            let manner = if number % 5 == 4 {
                Manner::Polling
            } else {
                Manner::Told
            };
            let name = world::collector(number).name;
            self.running
                .insert(number, Collector::start(self.at, &name, manner, &self.holders));
        }
        world::run(&self.cluster, &pods)?;
        wait_for("the allocator to know the new collectors", 60, || {
            for pod in &pods {
                if !self.is_known(&pod.name)? {
                    return Ok(Err(format!("{} is not", pod.name)));
                }
            }
            Ok(Ok(()))
        })
    }

    fn is_known(&self, collector: &str) -> Outcome<bool> {
        let news = ask(self.at, &format!("/collectors/{collector}/changes"))?;
        Ok(news["known"] == json!(true))
    }

    fn leaving(&self, to: usize) -> Vec<usize> {
        self.running
            .keys()
            .copied()
            .filter(|number| *number >= to)
            .collect()
    }

    /// They are told to end, and do so when nothing is left to them.
    fn scale_down(&mut self, to: usize) -> Outcome {
        let leaving = self.leaving(to);
        let delete = |seconds| {
            let calls = leaving
                .iter()
                .map(|number| world::delete(world::collector(*number).path(), seconds));
            calls.collect::<Vec<Call>>()
        };
        world::all(&self.cluster, delete(300))?;
        wait_for("those that leave to have nothing", 120, || {
            let held: usize = leaving
                .iter()
                .map(|number| self.holders.held_by(&world::collector(*number).name))
                .sum();
            Ok(if held == 0 {
                Ok(())
            } else {
                Err(format!("{held} targets"))
            })
        })?;
        world::all(&self.cluster, delete(0))?;
        leaving
            .iter()
            .for_each(|number| drop(self.running.remove(number)));
        Ok(())
    }

    /// They are gone from one instant to the next.
    fn kill(&mut self, to: usize) -> Outcome {
        let leaving = self.leaving(to);
        leaving
            .iter()
            .for_each(|number| drop(self.running.remove(number)));
        let calls = leaving
            .iter()
            .map(|number| world::delete(world::collector(*number).path(), 0));
        world::all(&self.cluster, calls.collect())?;
        wait_for("the allocator to miss them", 60, || {
            for number in &leaving {
                if self.is_known(&world::collector(*number).name)? {
                    return Ok(Err(format!("{number} is known")));
                }
            }
            Ok(Ok(()))
        })
    }

    /// Waits until every collector has asked again, twice: the second question comes after the first answer was taken.
    fn all_ask(&self) -> Outcome {
        let before = self.holders.turns();
        wait_for("every collector to ask", 60, || {
            let now = self.holders.turns();
            let count =
                |turns: &HashMap<String, u64>, name: &str| turns.get(name).copied().unwrap_or_default();
            let late = self.running.keys().map(|number| world::collector(*number).name);
            let late: Vec<String> = late
                .filter(|name| count(&now, name) < count(&before, name) + 2)
                .collect();
            Ok(if late.is_empty() {
                Ok(())
            } else {
                Err(format!("{late:?} have not"))
            })
        })
    }

    /// Waits until each of these targets, and nothing else, is held by one collector.
    fn settles(&self, what: &str, expected: &HashSet<Target>) -> Outcome<Duration> {
        let begun = Instant::now();
        wait_for(format_args!("one collector for each target {what}"), 180, || {
            let (missing, several, strange) = self.holders.wrong(expected);
            Ok(match (missing, several, strange) {
                (0, 0, 0) => Ok(()),
                _ => Err(format!(
                    "of {} targets {missing} are with nobody, {several} with several, {strange} should not be there",
                    expected.len()
                )),
            })
        })?;
        Ok(begun.elapsed())
    }

    /// Says what was seen since the last time; no target may have been without a collector.
    fn no_gap(&self, what: &str) -> Outcome {
        let told = self.holders.told();
        eprintln!(
            "{what}: {} lists changed, {} gaps, {} overlaps, the longest {:?}",
            told.changes,
            told.gaps.len(),
            told.overlaps,
            told.longest_overlap
        );
        let longest = told.gaps.iter().max();
        ensure!(
            longest.is_none(),
            "{what}: {} times a target was with nobody, for {longest:?} at most",
            told.gaps.len()
        );
        Ok(())
    }
}

fn whatever_changes(stage: &Stage) -> Outcome {
    let size = Size::wanted();
    let kubernetes = Kubernetes::start(stage)?;
    let cluster = kubernetes.admin.clone();
    let namespaces = (0..4)
        .map(|number| format!("shop-{number}"))
        .chain([FLEET.to_owned()]);
    world::furnish(&cluster, &namespaces.collect::<Vec<_>>())?;
    let _kubelets = world::Kubelets::start(&cluster);
    let at = free()?;
    let start = |name| Allocator::start(stage, name, at, DOCUMENT, Some(&cluster.kubeconfig));
    let allocator = start("allocator")?;
    let mut fleet = Fleet {
        cluster: cluster.clone(),
        at,
        holders: Holders::default(),
        running: HashMap::new(),
    };
    let mut world = World::new(cluster.clone(), &size);
    fleet.scale_up(3)?;
    world.make()?;
    let took = fleet.settles("at first", &world.expected())?;
    eprintln!(
        "{} targets, the last was held {took:?} after it was made",
        world.expected().len()
    );
    let anchors = World::targets(&world.apps[..size.anchors]);
    fleet.holders.watch(anchors.clone());
    let stop = Arc::new(AtomicBool::new(false));
    let observer = observe(at, anchors, stop.clone());
    // Whatever fails, the observer must end.
    let other_strategy = || {
        let other = DOCUMENT.replace("consistent-hashing", "least-weighted");
        super::write_document(stage, at, &other)
    };
    let result = changes(&mut fleet, &mut world, &size, allocator, start, other_strategy);
    stop.store(true, Ordering::Relaxed);
    let sweeps = observer
        .join()
        .map_err(|_| anyhow::anyhow!("the observer broke"))?;
    eprintln!(
        "{} objects written; the allocator's own lists: {sweeps:?}",
        world.written
    );
    result?;
    ensure!(
        sweeps.lost == 0 && sweeps.crowded == 0 && sweeps.looks > 0,
        "{sweeps:?}"
    );
    Ok(())
}

fn changes(
    fleet: &mut Fleet,
    world: &mut World,
    size: &Size,
    allocator: Allocator,
    start: impl Fn(&'static str) -> Outcome<Allocator>,
    other_strategy: impl Fn() -> Outcome,
) -> Outcome {
    fleet.no_gap("before anything changes")?;
    for round in 0..size.rounds {
        thread::scope(|scope| {
            let churning = scope.spawn(|| world.churn(size.anchors, 2 * round));
            fleet.scale_up(30)?;
            churning.join().map_err(|_| anyhow::anyhow!("the churn broke"))?
        })?;
        let took = fleet.settles("with 30 collectors", &world.expected())?;
        fleet.no_gap(&format!("from 3 to 30 collectors, settled after {took:?}"))?;
        thread::scope(|scope| {
            let churning = scope.spawn(|| world.churn(size.anchors, 2 * round + 1));
            fleet.scale_down(2)?;
            churning.join().map_err(|_| anyhow::anyhow!("the churn broke"))?
        })?;
        let took = fleet.settles("with 2 collectors", &world.expected())?;
        fleet.no_gap(&format!("from 30 to 2 collectors, settled after {took:?}"))?;
    }
    fleet.scale_up(6)?;
    // Two have everything already: what follows is to begin when the others have taken their part.
    wait_for("each of 6 collectors to have something", 60, || {
        let held = fleet
            .running
            .keys()
            .map(|number| fleet.holders.held_by(&world::collector(*number).name));
        let held: Vec<usize> = held.collect();
        Ok(match held.len() == 6 && held.iter().all(|held| *held > 0) {
            true => Ok(()),
            false => Err(format!("{held:?}")),
        })
    })?;
    fleet.settles("with 6 collectors", &world.expected())?;
    fleet.no_gap("from 2 to 6 collectors")?;

    allocator.stop()?;
    let allocator = start("allocator-again")?;
    fleet.all_ask()?;
    fleet.settles("after a restart", &world.expected())?;
    fleet.no_gap("over a restart of the allocator")?;

    other_strategy()?;
    let expected = world.expected();
    wait_for("an even division", 60, || {
        let held = fleet
            .running
            .keys()
            .map(|number| fleet.holders.held_by(&world::collector(*number).name));
        let held: Vec<usize> = held.collect();
        let fair = expected.len().div_ceil(held.len());
        Ok(match held.iter().all(|held| *held <= fair) {
            true => Ok(()),
            false => Err(format!("{held:?}")),
        })
    })?;
    fleet.settles("with another strategy", &expected)?;
    fleet.no_gap("over a change of the strategy")?;

    // Who is not ready for longer than the grace period has nothing; then it is as if it had come anew.
    let unready = world::collector(5);
    world::all(&fleet.cluster, vec![unready.status(false)])?;
    wait_for("who is not ready to have nothing", 60, || {
        let held = fleet.holders.held_by(&unready.name);
        Ok(if held == 0 {
            Ok(())
        } else {
            Err(format!("{held} targets"))
        })
    })?;
    fleet.settles("without who is not ready", &world.expected())?;
    world::all(&fleet.cluster, vec![unready.status(true)])?;
    fleet.settles("with all ready", &world.expected())?;
    let told = fleet.holders.told();
    eprintln!(
        "unready: {} gaps, the longest {:?}",
        told.gaps.len(),
        told.gaps.iter().max()
    );

    fleet.kill(3)?;
    let took = fleet.settles("after three were killed", &world.expected())?;
    let told = fleet.holders.told();
    eprintln!(
        "three of six killed: {} targets without a collector, for {:?} at most; settled after {took:?}",
        told.gaps.len(),
        told.gaps.iter().max()
    );
    allocator.stop()
}
