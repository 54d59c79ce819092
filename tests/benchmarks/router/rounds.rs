//! What is measured in which order: every contender runs, then each metric is measured of each in turn, round after round.

use std::io::IsTerminal;
use std::time::Duration;

use clap::ValueEnum;
use tokio::time::{Instant, sleep};

use crate::arena::{self, Arena};
use crate::awake::Awake;
use crate::contender::{self, Contender, Start};
use crate::load;
use crate::options::{Metric, Options, PathKind, Who};
use crate::report::{Better, Report};

/// Memory that falls by less than this in half a second falls no more.
const SETTLED: f64 = 0.995;

/// Measures all that the options ask for.
pub(crate) async fn run(options: &Options) -> anyhow::Result<Report> {
    let mut report = Report::default();
    arena::pin_client(options.pinning)?;
    let _awake = (!options.let_sleep)
        .then(|| Awake::start(options.pinning))
        .transpose()?;
    for &path in PathKind::value_variants() {
        let chosen = if options.paths.is_empty() {
            path == PathKind::Loopback || arena::inside()
        } else {
            options.paths.contains(&path)
        };
        if !chosen
            || !Metric::value_variants()
                .iter()
                .any(|metric| options.measures(path, *metric))
        {
            continue;
        }
        match Arena::new(path, options) {
            Ok(arena) => measure(path, &arena, options, &mut report).await?,
            Err(error) => report.skip(path, "everybody", format!("{error:#}")),
        }
    }
    Ok(report)
}

async fn measure(
    path: PathKind,
    arena: &Arena,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let mut contenders = Vec::new();
    for &who in Who::value_variants() {
        if !options.wants(who) {
            continue;
        }
        match contender::start(who, arena, options).await {
            Ok(Start::Running(contender)) => contenders.push((who, contender)),
            Ok(Start::Missing(why)) => report.skip(path, who.name(), why),
            Err(error) => report.skip(path, who.name(), format!("{error:#}")),
        }
    }
    for round in 1..=options.rounds() {
        for &metric in Metric::value_variants() {
            if metric == Metric::Memory || !options.measures(path, metric) {
                continue;
            }
            for (who, contender) in &contenders {
                progress(&format!(
                    "{}: round {round}, {metric:?}, {}",
                    path.name(),
                    who.name()
                ));
                let lasting = Duration::from_secs_f64(options.seconds());
                if let Err(error) = once(path, *who, metric, contender, lasting, report).await {
                    report.skip(path, who.name(), format!("round {round}, {metric:?}: {error:#}"));
                }
            }
        }
    }
    let names: Vec<Who> = contenders.into_iter().map(|(who, _)| who).collect();
    if options.measures(path, Metric::Memory) {
        for who in names.into_iter().filter(|who| *who != Who::Bare) {
            progress(&format!("{}: memory, {}", path.name(), who.name()));
            if let Err(error) = memory(path, who, arena, options, report).await {
                report.skip(path, who.name(), format!("memory: {error:#}"));
            }
        }
    }
    progress("");
    Ok(())
}

/// Says what is going on, where somebody watches.
fn progress(what: &str) {
    if std::io::stderr().is_terminal() {
        eprint!("\r\x1b[K{what}");
    }
}

async fn once(
    path: PathKind,
    who: Who,
    metric: Metric,
    contender: &Contender,
    lasting: Duration,
    report: &mut Report,
) -> anyhow::Result<()> {
    let to = contender.entrance;
    let mut add = |name: &'static str, better, value| report.add(path, name, better, who, value);
    match metric {
        Metric::Bulk | Metric::Bulk8 => {
            let (connections, rate, cost) = if metric == Metric::Bulk {
                (1, "bulk, 1 connection, Gbit/s", "bulk, 1 connection, CPU s/GB")
            } else {
                (8, "bulk, 8 connections, Gbit/s", "bulk, 8 connections, CPU s/GB")
            };
            let bulk = load::bulk(to, connections, lasting, || contender.cpu_seconds()).await?;
            add(rate, Better::Higher, bulk.gigabits);
            if who != Who::Bare {
                add(cost, Better::Lower, bulk.cpu_seconds_a_gigabyte);
            }
        }
        Metric::Latency => {
            let (median, late) = load::latency(to, lasting).await?;
            add("one request, µs p50", Better::Lower, median);
            add("one request, µs p99", Better::Lower, late);
        }
        Metric::Rps => {
            let rate = load::requests(to, 64, lasting).await?;
            add("requests/s, 64 connections", Better::Higher, rate);
        }
        Metric::Cps => {
            let rate = load::connections(to, 32, lasting).await?;
            add("new connections/s", Better::Higher, rate);
        }
        Metric::Memory => {}
    }
    Ok(())
}

/// Memory of a fresh pair: idle, a connection at 1,000 and at 10,000, and what is left when they are closed.
async fn memory(
    path: PathKind,
    who: Who,
    arena: &Arena,
    options: &Options,
    report: &mut Report,
) -> anyhow::Result<()> {
    let steps: &[(usize, &'static str, &'static str)] = &[
        (
            1_000,
            "memory, 1,000 open, KiB/connection",
            "memory after them, MiB",
        ),
        (
            10_000,
            "memory, 10,000 open, KiB/connection",
            "memory after 10,000, MiB",
        ),
    ];
    let Start::Running(contender) = contender::start(who, arena, options).await? else {
        return Ok(());
    };
    let idle = settle(&contender).await;
    report.add(path, "memory idle, MiB", Better::Lower, who, idle / 1024.0);
    for (count, each, after) in steps.iter().take(if options.quick { 1 } else { 2 }) {
        // Both ends of a connection are descriptors of a proxy; some are kept for the rest.
        let count = (*count).min(open_files().saturating_sub(200) / 2);
        let (held, failed) = load::hold(contender.entrance, count).await;
        if let Some(error) = failed {
            let why = format!(
                "only {} of {count} connections could be open: {error:#}",
                held.len()
            );
            report.skip(path, who.name(), why);
        }
        let open = settle(&contender).await;
        report.add(
            path,
            each,
            Better::Lower,
            who,
            (open - idle) / held.len().max(1) as f64,
        );
        drop(held);
        report.add(path, after, Better::Lower, who, settle(&contender).await / 1024.0);
    }
    Ok(())
}

/// Waits until memory does not fall any more, 15 s at most, and says how much it is, in KiB.
async fn settle(contender: &Contender) -> f64 {
    let deadline = Instant::now() + Duration::from_secs(15);
    let mut before = f64::INFINITY;
    let mut quiet = 0;
    loop {
        let now = contender.memory_kib();
        quiet = if now < before * SETTLED { 0 } else { quiet + 1 };
        if quiet >= 4 || Instant::now() > deadline {
            return now;
        }
        before = now;
        sleep(Duration::from_millis(500)).await;
    }
}

/// How many files a process may have open.
fn open_files() -> usize {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let line = limits.lines().find(|line| line.starts_with("Max open files"));
    line.and_then(|line| line.split_whitespace().nth(3)?.parse().ok())
        .unwrap_or(1024)
}
