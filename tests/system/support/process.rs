//! Processes as the kernel shows them: who descends from whom, and who is gone. Everything is ended by pid.

use std::collections::BTreeSet;
use std::fs;
use std::process::Command;

use anyhow::Context;

use super::Outcome;
use super::wait::wait_for;

/// A process that cannot be confused with a later one of the same pid.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Process {
    pub(crate) pid: u32,
    started: String,
    pub(crate) command: String,
}

impl Process {
    /// The process with this pid, unless it is gone or a zombie.
    pub(crate) fn find(pid: u32) -> Option<(Self, u32)> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may hold spaces and parentheses: the fields begin after the last one.
        let fields: Vec<&str> = stat[stat.rfind(')')? + 1..].split_whitespace().collect();
        let (state, parent, started) = (
            *fields.first()?,
            fields.get(1)?.parse().ok()?,
            (*fields.get(19)?).to_owned(),
        );
        if matches!(state, "Z" | "X") {
            return None;
        }
        let command = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let command = String::from_utf8_lossy(&command)
            .replace('\0', " ")
            .trim()
            .to_owned();
        Some((
            Self {
                pid,
                started,
                command,
            },
            parent,
        ))
    }

    fn is_alive(&self) -> bool {
        Self::find(self.pid).is_some_and(|(now, _)| now.started == self.started)
    }
}

/// All processes below this pid.
pub(crate) fn descendants(root: u32) -> BTreeSet<Process> {
    let all: Vec<(Process, u32)> = fs::read_dir("/proc")
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| Process::find(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut found = BTreeSet::new();
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for (process, _) in all.iter().filter(|(_, of)| *of == parent) {
            if found.insert(process.clone()) {
                parents.push(process.pid);
            }
        }
    }
    found
}

/// Waits until all of them are gone.
pub(crate) fn wait_gone(processes: &BTreeSet<Process>, seconds: u64) -> Outcome {
    wait_for("the end of all processes", seconds, || {
        let alive: Vec<_> = processes.iter().filter(|process| process.is_alive()).collect();
        Ok(if alive.is_empty() {
            Ok(())
        } else {
            Err(format!("still running: {alive:?}"))
        })
    })
}

/// Sends a signal by name (`TERM`, `INT`, `KILL`) to one process.
pub(crate) fn signal(pid: u32, name: &str) -> Outcome {
    let status = Command::new("kill")
        .args([&format!("-{name}"), &pid.to_string()])
        .status()
        .context("kill")?;
    anyhow::ensure!(status.success(), "kill -{name} {pid}: {status}");
    Ok(())
}
