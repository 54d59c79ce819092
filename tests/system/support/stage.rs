//! A test's own folder, the wrapper that makes a trial of a function, and what a failure shows.

use std::fs;
use std::path::{Path, PathBuf};

use libtest_mimic::{Completion, Failed, Trial};

use super::Outcome;
use super::peers;
use super::wait::tail;

/// What a test needs beyond the repository.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Need {
    /// The manifests that others wrote (`KAREZ_ACCEPTANCE`).
    Acceptance,
    /// A program that `tests/peers/build` builds.
    Peer(&'static str),
    /// A program of the distribution's package of the same name.
    Program(&'static str),
    /// Networks of a test's own.
    Namespaces,
}

/// The folder of one test; gone with it.
pub(crate) struct Stage {
    folder: tempfile::TempDir,
}

impl Stage {
    fn new(name: &str) -> Outcome<Self> {
        // Without colons: kubectl reads them as separators in KUBECONFIG.
        let prefix = format!("karez-test-{}-", name[..name.len().min(24)].replace(':', "-"));
        Ok(Self {
            folder: tempfile::Builder::new().prefix(&prefix).tempdir()?,
        })
    }

    /// A path in the test's folder.
    pub(crate) fn path(&self, relative: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(relative)
    }

    /// An empty folder in the test's folder.
    pub(crate) fn folder(&self, relative: &str) -> Outcome<PathBuf> {
        let path = self.path(relative);
        fs::create_dir_all(&path)?;
        Ok(path)
    }
}

/// A trial that gives `run` a stage, is ignored where a need is not met, and shows the logs when it fails.
pub(crate) fn trial(name: &'static str, needs: &'static [Need], run: fn(&Stage) -> Outcome) -> Trial {
    Trial::ignorable_test(name, move || {
        if let Some(reason) = needs.iter().find_map(|need| peers::missing(*need)) {
            if peers::required() {
                return Err(Failed::from(format!("{reason} (KAREZ_REQUIRE_PEERS=1)")));
            }
            return Ok(Completion::ignored_with(reason));
        }
        let stage = Stage::new(name)?;
        match run(&stage) {
            Ok(()) => Ok(Completion::Completed),
            Err(error) => Err(Failed::from(format!(
                "{error:#}\n{}",
                evidence(stage.folder.path())
            ))),
        }
    })
}

/// The ends of all logs below a folder.
fn evidence(folder: &Path) -> String {
    let mut logs = Vec::new();
    collect(folder, 0, &mut logs);
    logs.sort();
    let mut text = String::new();
    for log in logs.iter().take(40) {
        let content = fs::read(log)
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default();
        if content.trim().is_empty() {
            continue;
        }
        let name = log.strip_prefix(folder).unwrap_or(log).display();
        text.push_str(&format!("---- the end of {name}\n{}\n", tail(&content, 30)));
    }
    text
}

fn collect(folder: &Path, depth: usize, into: &mut Vec<PathBuf>) {
    let Ok(entries) = fs::read_dir(folder) else { return };
    for entry in entries.flatten() {
        let path = entry.path();
        if path.is_dir() && depth < 8 {
            collect(&path, depth + 1, into);
        } else if path.extension().is_some_and(|extension| extension == "log") {
            into.push(path);
        }
    }
}
