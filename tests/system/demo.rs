//! The first command of the README.

use std::collections::BTreeSet;
use std::fs::{self, File};

use anyhow::{Context, ensure};
use libtest_mimic::Trial;

use crate::support::Outcome;
use crate::support::peers::workspace;
use crate::support::process::{Process, descendants, signal, wait_gone};
use crate::support::site::{karez, wait_exit};
use crate::support::stage::Stage;
use crate::support::wait::{wait_for, wait_for_text};
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    vec![
        trial(
            "demo::delivers_every_span_and_leaves_nothing",
            &[],
            delivers_every_span_and_leaves_nothing,
        ),
        trial(
            "demo::stays_until_interrupted_and_then_leaves_no_process",
            &[],
            stays_until_interrupted,
        ),
    ]
}

fn delivers_every_span_and_leaves_nothing(stage: &Stage) -> Outcome {
    let log = stage.path("demo.log");
    let output = File::create(&log)?;
    let mut child = karez(stage)?
        .args(["demo", "--exit"])
        .current_dir(workspace())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    let mut seen: BTreeSet<Process> = BTreeSet::new();
    let ended = wait_for("the end of the demo", 120, || {
        seen.extend(descendants(child.id()));
        Ok(child.try_wait()?.ok_or_else(|| "it runs".to_owned()))
    });
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let status = ended?;
    let text = fs::read_to_string(&log)?;
    ensure!(status.success(), "karez demo --exit: {status}");
    ensure!(
        text.contains("20 of 20 spans"),
        "no '20 of 20 spans' in what it printed"
    );
    ensure!(
        text.contains("public-site") && text.contains("╰─"),
        "no network status tree in what it printed"
    );
    ensure!(
        seen.len() >= 4,
        "two sites have at least two routers and two collectors; seen: {seen:?}"
    );
    wait_gone(&seen, 5)?;
    let left: Vec<_> = fs::read_dir(stage.path("tmp"))?
        .flatten()
        .map(|entry| entry.path())
        .collect();
    ensure!(left.is_empty(), "left in the temporary folder: {left:?}");
    Ok(())
}

fn stays_until_interrupted(stage: &Stage) -> Outcome {
    let log = stage.path("demo.log");
    let output = File::create(&log)?;
    let mut child = karez(stage)?
        .arg("demo")
        .arg("--state")
        .arg(stage.path("kept"))
        .current_dir(workspace())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    let reached = wait_for_text("20 of 20 spans", 120, || Ok(fs::read_to_string(&log)?));
    let children = descendants(child.id());
    let still_runs = child.try_wait()?.is_none();
    signal(child.id(), "INT").or_else(|error| if still_runs { Err(error) } else { Ok(()) })?;
    let ended = wait_exit(&mut child, 30);
    if ended.is_err() {
        child.kill()?;
        child.wait()?;
    }
    reached?;
    ensure!(still_runs, "the demo did not stay: {:?}", ended);
    let status = ended.context("after an interrupt")?;
    ensure!(
        status.success(),
        "interrupted, it should end with status 0: {status}"
    );
    wait_gone(&children, 5)?;
    ensure!(
        stage.path("kept").is_dir(),
        "the state that --state names is gone"
    );
    Ok(())
}
