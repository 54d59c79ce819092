//! Child processes: ended with their value, and what they cost.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};

/// Clock ticks a second of `/proc/<pid>/stat`: `USER_HZ`, which Linux fixes.
const TICKS: f64 = 100.0;

/// A program in the background with its log. Ended when dropped.
pub(crate) struct Process {
    child: Child,
    log: PathBuf,
}

/// So many lines of its log are shown of a program that has ended.
const LAST_LINES: usize = 20;

impl Process {
    /// Starts it; what it prints goes to a file.
    pub(crate) fn start(mut command: Command, log: &Path) -> anyhow::Result<Self> {
        let file = fs::File::create(log)?;
        command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file);
        let child = command
            .spawn()
            .with_context(|| format!("{}", command.get_program().display()))?;
        Ok(Self {
            child,
            log: log.to_owned(),
        })
    }

    /// Fails with the last lines that it printed when it has ended, so that nobody waits for it.
    pub(crate) fn runs(&self) -> anyhow::Result<()> {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        let text = fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n");
        ensure!(
            !matches!(state, None | Some('Z' | 'X')),
            "the program under test has ended; it said last:\n{last}"
        );
        Ok(())
    }

    /// It and its descendants.
    fn family(&self) -> Vec<u32> {
        let mut family = vec![self.child.id()];
        let mut next = 0;
        while let Some(pid) = family.get(next) {
            let file = format!("/proc/{pid}/task/{pid}/children");
            let children = fs::read_to_string(file).unwrap_or_default();
            family.extend(
                children
                    .split_whitespace()
                    .filter_map(|pid| pid.parse::<u32>().ok()),
            );
            next += 1;
        }
        family
    }

    /// CPU seconds that it and its children have used.
    pub(crate) fn cpu_seconds(&self) -> f64 {
        self.family().into_iter().map(cpu_seconds).sum()
    }

    /// How many files it has open.
    pub(crate) fn files(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.child.id())).map_or(0, Iterator::count)
    }

    /// KiB of memory that it and its children have to themselves, shared pages divided.
    pub(crate) fn memory_kib(&self) -> f64 {
        self.family().into_iter().map(memory_kib).sum()
    }

    /// KiB that it alone had in memory at its most.
    pub(crate) fn peak_memory_kib(&self) -> f64 {
        self.status_kib("VmHWM:")
    }

    /// KiB of that which are its own now, and no pages of files, such as of the program itself.
    pub(crate) fn own_memory_kib(&self) -> f64 {
        self.status_kib("RssAnon:")
    }

    fn status_kib(&self, field: &str) -> f64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix(field));
        line.and_then(|line| line.split_whitespace().next()?.parse().ok())
            .unwrap_or(0.0)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // nginx' worker ends with its master's socket; the whole family is ended to be sure.
        for pid in self.family().into_iter().skip(1) {
            let _ = Command::new("kill")
                .args(["-KILL", &pid.to_string()])
                .stderr(Stdio::null())
                .status();
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds that a process has used.
pub(crate) fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name in parentheses may hold anything; after it come state, …, utime and stime as fields 14 and 15.
    let fields = stat.rsplit(')').next().unwrap_or_default().split_whitespace();
    let ticks: f64 = fields
        .skip(11)
        .take(2)
        .filter_map(|field| field.parse::<f64>().ok())
        .sum();
    ticks / TICKS
}

fn memory_kib(pid: u32) -> f64 {
    let rollup = fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).unwrap_or_default();
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok())
        .unwrap_or(0.0)
}

/// Runs a command that must succeed.
pub(crate) fn succeed(command: &mut Command) -> anyhow::Result<()> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("{command:?}"))?;
    ensure!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Whether there is such a program.
pub(crate) fn exists(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let sbin = ["/usr/sbin", "/sbin"].map(str::to_owned);
    path.split(':')
        .map(str::to_owned)
        .chain(sbin)
        .any(|folder| Path::new(&folder).join(program).is_file())
}
