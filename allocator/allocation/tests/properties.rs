//! What holds of every strategy, whatever comes in whatever order.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use karez_allocation::{Allocation, Collector, Found, Job, Settings, Standing, StrategyKind};
use karez_document::{Origin, yaml};
use karez_scrape_config::{Group, Labels, Options, ScrapeConfig, read};
use proptest::prelude::*;

const RULES: &str = "
scrape_configs:
- job_name: a
  relabel_configs:
  - {source_labels: [drop], regex: 'yes', action: drop}
  - {regex: tmp, action: labeldrop}
- job_name: b
";

fn jobs(yaml: &str) -> Vec<ScrapeConfig> {
    let node = yaml::parse(yaml, &Origin::file("t.yaml"))
        .expect("the rules are YAML")
        .remove(0);
    let mut diagnoses = Vec::new();
    let jobs = read(&node, "", Options::default(), &mut diagnoses);
    assert!(diagnoses.is_empty(), "{diagnoses:?}");
    jobs
}

fn started(settings: Settings) -> Allocation {
    let mut allocation = Allocation::new(settings);
    let jobs: Vec<Job> = jobs(RULES)
        .into_iter()
        .enumerate()
        // The second provider finds targets for both jobs.
        .map(|(number, config)| Job {
            config: Arc::new(config),
            providers: vec![number, 2],
        })
        .collect();
    allocation.set_jobs(&jobs);
    allocation
}

fn settings(strategy: StrategyKind) -> Settings {
    Settings {
        strategy,
        fallback: (strategy == StrategyKind::PerNode).then_some(StrategyKind::LeastWeighted),
        ..Settings::default()
    }
}

fn collectors(numbers: impl IntoIterator<Item = usize>) -> Vec<Collector> {
    let collector = |number| Collector {
        name: format!("collector-{number}"),
        node: format!("node-{}", number % 3),
        standing: Standing::Serving,
    };
    numbers.into_iter().map(collector).collect()
}

/// A group of targets by number; one in seven is dropped by job `a`, twins differ only in a label that goes.
fn group(numbers: &[usize]) -> Arc<Group> {
    let target = |number: &usize| {
        let (address, node) = (
            format!("10.0.0.{}:9100", number / 2),
            format!("node-{}", number % 4),
        );
        let mut labels = vec![
            ("__address__", address.as_str()),
            ("tmp", if number.is_multiple_of(2) { "1" } else { "2" }),
        ];
        if number.is_multiple_of(7) {
            labels.push(("drop", "yes"));
        }
        if number % 4 < 3 {
            labels.push(("__meta_kubernetes_pod_node_name", node.as_str()));
        }
        Labels::of(labels)
    };
    Arc::new(Group {
        labels: Labels::of([("env", "test")]),
        targets: numbers.iter().map(target).collect(),
    })
}

fn found(provider: usize, source: &str, numbers: Option<&[usize]>) -> Found {
    Found {
        provider,
        source: source.into(),
        group: numbers.map(group),
    }
}

fn owners(allocation: &Allocation) -> BTreeMap<u64, Option<String>> {
    allocation
        .assignment()
        .map(|(identity, owner)| (identity, owner.map(str::to_owned)))
        .collect()
}

/// Every target has one owner who lists it, and at most one other who lists it until the owner has it.
fn check_lists(allocation: &Allocation) {
    let owners = owners(allocation);
    assert_eq!(owners.len(), allocation.targets());
    let names: Vec<String> = allocation
        .collectors()
        .map(|(name, ..)| name.to_owned())
        .collect();
    let mut listed: BTreeMap<u64, Vec<&str>> = BTreeMap::new();
    for name in &names {
        for job in allocation.job_names() {
            let held: Vec<u64> = allocation.held(job, name).map(|held| held.identity).collect();
            assert_eq!(
                held.len(),
                held.iter().collect::<HashSet<_>>().len(),
                "listed twice for {name}"
            );
            assert_eq!(allocation.tag(job, name).0, held.len());
            held.into_iter()
                .for_each(|identity| listed.entry(identity).or_default().push(name));
        }
    }
    let mut transit = 0;
    for (identity, owner) in &owners {
        let by = listed.remove(identity).unwrap_or_default();
        match owner {
            Some(owner) => {
                assert!(
                    by.contains(&owner.as_str()),
                    "{identity:x} is {owner}'s and only listed by {by:?}"
                );
                assert!(by.len() <= 2);
                transit += by.len() - 1;
            }
            None => assert!(by.is_empty(), "{identity:x} is nobody's and listed by {by:?}"),
        }
    }
    assert!(listed.is_empty(), "targets that are gone are listed: {listed:?}");
    assert_eq!(transit, allocation.in_transit());
}

/// The same, and nobody is without an owner who could have one.
fn check(allocation: &Allocation) {
    check_lists(allocation);
    let owners = owners(allocation);
    let serving = allocation
        .collectors()
        .filter(|(_, _, standing, ..)| *standing == Standing::Serving)
        .count();
    let unassigned = owners.values().filter(|owner| owner.is_none()).count();
    assert_eq!(unassigned, allocation.unassigned());
    if serving > 0 && allocation.settings().strategy != StrategyKind::PerNode {
        assert_eq!(unassigned, 0);
    }
    let counted: u64 = allocation.collectors().map(|(_, _, _, targets, _)| targets).sum();
    assert_eq!(counted as usize + unassigned, owners.len());
    let of_jobs: u64 = allocation.jobs_with_targets().map(|(_, targets)| targets).sum();
    assert_eq!(of_jobs as usize, owners.len());
}

#[derive(Debug, Clone)]
enum Step {
    Found(usize, usize, Option<Vec<usize>>),
    Collectors(Vec<usize>),
    Leaving(usize),
    Asked(usize),
    Confirmed(usize),
    Tick(u64),
    Weigh(u32),
    Rebalance,
    Rules(bool),
}

fn step() -> impl Strategy<Value = Step> {
    let numbers = proptest::collection::vec(0usize..40, 0..30);
    prop_oneof![
        4 => (0usize..3, 0usize..3, proptest::option::weighted(0.8, numbers)).prop_map(|(p, s, n)| Step::Found(p, s, n)),
        2 => proptest::collection::vec(0usize..6, 0..6).prop_map(Step::Collectors),
        1 => (0usize..6).prop_map(Step::Leaving),
        1 => (0usize..6).prop_map(Step::Asked),
        1 => (0usize..6).prop_map(Step::Confirmed),
        1 => (0u64..20).prop_map(Step::Tick),
        1 => (0u32..1000).prop_map(Step::Weigh),
        1 => Just(Step::Rebalance),
        1 => any::<bool>().prop_map(Step::Rules),
    ]
}

struct World {
    allocation: Allocation,
    now: Duration,
    collectors: Vec<Collector>,
}

impl World {
    fn take(&mut self, step: &Step) {
        let this = &mut self.allocation;
        match step {
            Step::Found(provider, source, numbers) => {
                this.found(vec![found(*provider, &source.to_string(), numbers.as_deref())]);
            }
            Step::Collectors(numbers) => {
                self.collectors = collectors(numbers.iter().copied());
                this.set_collectors(&self.collectors);
            }
            Step::Leaving(number) => {
                let name = format!("collector-{number}");
                if let Some(collector) = self.collectors.iter_mut().find(|c| c.name == name) {
                    collector.standing = Standing::Leaving;
                }
                this.set_collectors(&self.collectors);
            }
            Step::Asked(number) => {
                for job in ["a", "b", "none"] {
                    this.asked(job, &format!("collector-{number}"), this.revision(), self.now);
                }
            }
            Step::Confirmed(number) => {
                let revision = this.revision();
                this.confirmed(&format!("collector-{number}"), revision);
            }
            Step::Tick(seconds) => {
                self.now += Duration::from_secs(*seconds);
                this.tick(self.now);
            }
            Step::Weigh(factor) => {
                let samples: Vec<(u64, u32)> = this
                    .assignment()
                    .map(|(identity, _)| (identity, (identity % 7) as u32 * factor))
                    .collect();
                this.weigh(samples);
            }
            Step::Rebalance => {
                this.rebalance();
            }
            Step::Rules(second) => {
                let yaml = if *second {
                    RULES.replace("regex: tmp", "regex: tm.")
                } else {
                    RULES.to_owned()
                };
                let job = |(number, config)| Job {
                    config: Arc::new(config),
                    providers: vec![number, 2],
                };
                let jobs: Vec<Job> = jobs(&yaml).into_iter().enumerate().map(job).collect();
                this.set_jobs(&jobs);
            }
        }
    }
}

fn world(kind: StrategyKind) -> World {
    World {
        allocation: started(settings(kind)),
        now: Duration::ZERO,
        collectors: Vec::new(),
    }
}

fn kind() -> impl Strategy<Value = StrategyKind> {
    (0usize..4).prop_map(|index| StrategyKind::ALL[index])
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn every_target_is_owned_once(kind in kind(), steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = world(kind);
        for step in &steps {
            world.take(step);
            check(&world.allocation);
        }
        // When everybody says that it has what it was told, nothing is on its way any more.
        for number in 0..6 {
            world.take(&Step::Confirmed(number));
        }
        check(&world.allocation);
        prop_assert_eq!(world.allocation.in_transit(), 0);
    }

    /// One that is told what another did has the same places, though it saw neither weights nor what collectors said, and
    /// takes the lead without a move.
    #[test]
    fn who_follows_has_the_same(kind in kind(), steps in proptest::collection::vec((step(), any::<bool>()), 1..40)) {
        let (mut leader, mut follower) = (world(kind), world(kind));
        leader.allocation.keep_journal(1000);
        let mut next = None;
        let tell = |leader: &World, follower: &mut World, next: &mut Option<u64>| {
            let copy = leader.allocation.copy(*next).expect("it keeps a journal");
            let copy = karez_allocation::Copy::from_bytes(&copy.to_bytes()).expect("it was written as one");
            *next = Some(copy.next);
            follower.allocation.follow(&copy);
        };
        for (step, told) in &steps {
            leader.take(step);
            if matches!(step, Step::Found(..) | Step::Collectors(_) | Step::Leaving(_) | Step::Rules(_)) {
                follower.take(step);
                check_lists(&follower.allocation);
            }
            if *told {
                tell(&leader, &mut follower, &mut next);
            }
        }
        tell(&leader, &mut follower, &mut next);
        check_lists(&follower.allocation);
        prop_assert_eq!(owners(&leader.allocation), owners(&follower.allocation));
        for (name, ..) in leader.allocation.collectors() {
            for job in ["a", "b"] {
                prop_assert_eq!(leader.allocation.tag(job, name), follower.allocation.tag(job, name));
            }
        }
        let before = owners(&follower.allocation);
        follower.allocation.lead();
        let present = follower.collectors.clone();
        prop_assert_eq!(follower.allocation.set_collectors(&present).moved, 0);
        prop_assert_eq!(owners(&follower.allocation), before);
    }

    #[test]
    fn the_same_steps_end_the_same(kind in kind(), steps in proptest::collection::vec(step(), 1..30)) {
        let (mut one, mut two) = (world(kind), world(kind));
        for step in &steps {
            one.take(step);
            two.take(step);
        }
        prop_assert_eq!(owners(&one.allocation), owners(&two.allocation));
        for (name, ..) in one.allocation.collectors() {
            for job in ["a", "b"] {
                prop_assert_eq!(one.allocation.tag(job, name), two.allocation.tag(job, name));
            }
        }
    }

    #[test]
    fn targets_are_what_is_found_last(steps in proptest::collection::vec(step(), 1..40)) {
        let mut world = world(StrategyKind::LeastWeighted);
        steps.iter().for_each(|step| world.take(step));
        let mut last: BTreeMap<(usize, usize), Vec<usize>> = BTreeMap::new();
        let mut rules = false;
        for step in &steps {
            match step {
                Step::Found(p, s, numbers) => drop(last.insert((*p, *s), numbers.clone().unwrap_or_default())),
                Step::Rules(second) => rules = *second,
                _ => {}
            }
        }
        let mut fresh = started(settings(StrategyKind::LeastWeighted));
        if rules {
            let mut other = World { allocation: fresh, now: Duration::ZERO, collectors: Vec::new() };
            other.take(&Step::Rules(true));
            fresh = other.allocation;
        }
        for ((provider, source), numbers) in &last {
            fresh.found(vec![found(*provider, &source.to_string(), Some(numbers))]);
        }
        let identities = |allocation: &Allocation| owners(allocation).into_keys().collect::<Vec<_>>();
        prop_assert_eq!(identities(&world.allocation), identities(&fresh));
    }

    #[test]
    fn only_targets_of_who_leaves_move(
        kind in prop_oneof![Just(StrategyKind::LeastWeighted), Just(StrategyKind::Weighted), Just(StrategyKind::PerNode)],
        count in 2usize..8, targets in 1usize..300, gone in 0usize..8,
    ) {
        let mut allocation = started(settings(kind));
        let numbers: Vec<usize> = (0..targets).collect();
        allocation.set_collectors(&collectors(0..count));
        allocation.found(vec![found(1, "s", Some(&numbers))]);
        let before = owners(&allocation);
        let gone = format!("collector-{}", gone % count);
        let left: Vec<Collector> = collectors(0..count).into_iter().filter(|c| c.name != gone).collect();
        allocation.set_collectors(&left);
        for (identity, owner) in owners(&allocation) {
            let was = before[&identity].clone();
            if was.as_deref() != Some(gone.as_str()) && was.is_some() {
                prop_assert_eq!(was, owner);
            }
        }
        check(&allocation);
    }

    #[test]
    fn what_is_found_moves_nobody_else(kind in kind(), first in 1usize..200, more in 1usize..50) {
        let mut allocation = started(settings(kind));
        allocation.set_collectors(&collectors(0..5));
        allocation.found(vec![found(1, "s", Some(&(0..first).collect::<Vec<_>>()))]);
        let before = owners(&allocation);
        let outcome = allocation.found(vec![found(1, "s", Some(&(0..first + more).collect::<Vec<_>>()))]);
        prop_assert!(outcome.relabelled <= more);
        let after = owners(&allocation);
        for (identity, owner) in before {
            prop_assert_eq!(&owner, &after[&identity]);
        }
    }

    #[test]
    fn weighted_stays_within_its_bound(weights in proptest::collection::vec(1u32..200, 200..400), joins in 0usize..3) {
        let mut allocation = started(settings(StrategyKind::Weighted));
        allocation.set_collectors(&collectors(0..4));
        allocation.found(vec![found(1, "s", Some(&(0..2 * weights.len()).collect::<Vec<_>>()))]);
        let samples: Vec<(u64, u32)> =
            allocation.assignment().zip(&weights).map(|((identity, _), weight)| (identity, *weight)).collect();
        allocation.weigh(samples);
        allocation.set_collectors(&collectors(0..4 + joins));
        let total: u64 = allocation.collectors().map(|(.., load)| load).sum();
        let budget = (total as f64 * 0.1).ceil() as u64 + 200;
        for _ in 0..40 {
            let before = owners(&allocation);
            allocation.rebalance();
            check(&allocation);
            let after = owners(&allocation);
            let moved = before.iter().zip(&after).filter(|(a, b)| a.1 != b.1).count() as u64;
            prop_assert!(moved <= budget);
        }
        let mean = total as f64 / (4 + joins) as f64;
        for (name, _, _, _, load) in allocation.collectors() {
            prop_assert!(load as f64 <= mean * 1.1 + 1.0, "{} has {} of {}", name, load, mean);
        }
        // What is even stays.
        prop_assert_eq!(allocation.rebalance().moved, 0);
    }
}

#[test]
fn a_target_stays_until_its_new_owner_has_it() {
    let mut allocation = started(settings(StrategyKind::ConsistentHashing));
    let numbers: Vec<usize> = (0..200).collect();
    allocation.set_collectors(&collectors(0..2));
    allocation.found(vec![found(1, "s", Some(&numbers))]);
    assert_eq!(allocation.in_transit(), 0, "what is new is with nobody else");
    let listed = |allocation: &Allocation, name: &str| allocation.tag("b", name).0;
    let before = (
        listed(&allocation, "collector-0"),
        listed(&allocation, "collector-1"),
    );
    allocation.set_collectors(&collectors(0..3));
    let moved = allocation.in_transit();
    assert!(moved > 0);
    assert!(listed(&allocation, "collector-0") >= before.0 && listed(&allocation, "collector-1") >= before.1);
    // A collector that says nothing of what it got is believed after a while.
    let told = allocation.revision();
    allocation.asked("b", "collector-2", told, Duration::from_secs(10));
    assert_eq!(
        allocation.tick(Duration::from_secs(11)),
        Some(Duration::from_secs(16))
    );
    assert_eq!(allocation.in_transit(), moved);
    assert_eq!(allocation.tick(Duration::from_secs(16)), None);
    assert!(allocation.in_transit() < moved);
    for name in ["collector-0", "collector-1"] {
        let told = allocation.revision();
        allocation.asked("b", name, told, Duration::from_secs(20));
    }
    allocation.tick(Duration::from_secs(30));
    assert_eq!(allocation.in_transit(), 0);
    assert_eq!(allocation.targets(), before.0 + before.1);
    check(&allocation);
}

#[test]
fn a_list_that_was_read_before_a_move_says_nothing_of_it() {
    let mut allocation = started(settings(StrategyKind::LeastWeighted));
    allocation.set_collectors(&collectors(0..2));
    allocation.found(vec![found(1, "s", Some(&(0..20).collect::<Vec<_>>()))]);
    let told = allocation.revision();
    let mut ending = collectors(0..2);
    ending[0].standing = Standing::Leaving;
    allocation.set_collectors(&ending);
    // The list was read before the other began to end, and that it was given is heard after.
    allocation.asked("b", "collector-1", told, Duration::from_secs(1));
    allocation.tick(Duration::from_secs(60));
    assert_eq!(
        (allocation.in_transit(), allocation.tag("b", "collector-0").0),
        (10, 10)
    );
    let told = allocation.revision();
    allocation.asked("b", "collector-1", told, Duration::from_secs(61));
    allocation.tick(Duration::from_secs(120));
    assert_eq!(allocation.in_transit(), 0);
}

#[test]
fn who_ends_keeps_its_targets_until_others_have_them() {
    let mut allocation = started(settings(StrategyKind::LeastWeighted));
    allocation.set_collectors(&collectors(0..2));
    allocation.found(vec![found(1, "s", Some(&(0..20).collect::<Vec<_>>()))]);
    let mut ending = collectors(0..2);
    ending[0].standing = Standing::Leaving;
    allocation.set_collectors(&ending);
    assert_eq!(
        (
            allocation.tag("b", "collector-0").0,
            allocation.tag("b", "collector-1").0
        ),
        (10, 20)
    );
    let revision = allocation.revision();
    assert_eq!(allocation.changed_since("collector-1", revision - 1), ["b"]);
    assert_eq!(allocation.confirmed("collector-1", revision), 10);
    assert!(allocation.is_idle("collector-0"));
    assert_eq!(allocation.changed_since("collector-0", revision), ["b"]);
}

#[test]
fn explains_what_became_of_a_target() {
    let mut allocation = started(settings(StrategyKind::LeastWeighted));
    allocation.set_collectors(&collectors(0..2));
    allocation.found(vec![found(0, "s", Some(&[0, 1]))]);
    let explained = allocation.explain("10.0.0.0:9100", 10);
    assert_eq!(explained.len(), 2);
    let text: Vec<String> = explained.iter().map(|e| format!("{:?}", e.outcome)).collect();
    assert!(
        text.iter().any(|text| text.starts_with("Dropped { rule: 0 }")),
        "{text:?}"
    );
    let kept = text.iter().find(|text| text.starts_with("Kept")).unwrap();
    assert!(
        kept.contains("collector-0") && kept.contains("fewest targets"),
        "{kept}"
    );
    let dropped = explained
        .iter()
        .find(|e| e.discovered.get("drop") == "yes")
        .unwrap();
    assert_eq!(dropped.steps[0].effect, "dropped the target");
}

#[test]
fn another_strategy_takes_effect_by_hand_over() {
    let numbers: Vec<usize> = (0..400).collect();
    for (from, to) in StrategyKind::ALL
        .into_iter()
        .flat_map(|from| StrategyKind::ALL.map(|to| (from, to)))
        .filter(|(from, to)| from != to)
    {
        let made = |strategy| {
            let mut allocation = started(settings(strategy));
            allocation.set_collectors(&collectors(0..6));
            allocation.found(vec![found(2, "s", Some(&numbers))]);
            allocation
        };
        let mut allocation = made(from);
        let before = owners(&allocation);
        allocation.set_settings(settings(to));
        check(&allocation);
        for (identity, had) in &before {
            let has = allocation.owner(*identity).map(|(_, has)| has.to_owned());
            assert_eq!(
                &has, had,
                "{from} to {to}: who had a target keeps it until another has it"
            );
        }
        match to {
            StrategyKind::ConsistentHashing => {
                assert_eq!(owners(&allocation), owners(&made(to)), "{from} to {to}");
            }
            StrategyKind::LeastWeighted => {
                let loads: Vec<u64> = allocation
                    .collectors()
                    .map(|(_, _, _, targets, _)| targets)
                    .collect();
                let (least, most) = (loads.iter().min(), loads.iter().max());
                assert!(
                    most.zip(least).is_some_and(|(most, least)| most - least <= 6),
                    "{loads:?}"
                );
            }
            StrategyKind::PerNode | StrategyKind::Weighted => {}
        }
    }
}

#[test]
fn who_is_gone_is_told_that_it_has_nothing() {
    let mut allocation = started(settings(StrategyKind::LeastWeighted));
    allocation.set_collectors(&collectors(0..2));
    allocation.found(vec![found(2, "s", Some(&[1, 2, 3, 4]))]);
    let told = allocation.revision();
    assert!(allocation.changed_since("collector-1", told).is_empty());
    allocation.set_collectors(&collectors(0..1));
    assert_eq!(allocation.changed_since("collector-1", told), ["a", "b"]);
    assert_eq!(allocation.held("a", "collector-1").count(), 0);
    assert!(
        allocation
            .changed_since("collector-1", allocation.revision())
            .is_empty()
    );
}
