//! A network of a test's own, so that documents with fixed ports run as they are.

use std::process::Command;

use anyhow::Context;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Outcome;
use super::daemon::run;

/// Why networks cannot be made here; nothing if they can.
pub(crate) fn missing() -> Option<String> {
    let tried = run(Command::new("unshare").args(["--net", "ip", "link", "set", "lo", "up"]));
    let error = tried.err()?;
    Some(format!(
        "no network namespace can be made here (run as root): {error:#}"
    ))
}

/// Runs a test on a thread in a new network that has nothing but loopback. What it starts is there, too.
pub(crate) fn alone(test: impl FnOnce() -> Outcome + Send) -> Outcome {
    std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            // SAFETY: only this thread's network changes, which no open file or memory of others depends on.
            unsafe { unshare_unsafe(UnshareFlags::NEWNET) }.context("a network namespace")?;
            run(Command::new("ip").args(["link", "set", "lo", "up"]))?;
            test()
        });
        thread.join().map_err(|_| anyhow::anyhow!("the test panicked"))?
    })
}
