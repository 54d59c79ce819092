//! A network of a test's own, so that documents with fixed ports run as they are.

use std::fs;
use std::process::Command;

use anyhow::Context;
use rustix::thread::{UnshareFlags, unshare_unsafe};

use super::Outcome;
use super::daemon::run;
use super::stage::Stage;

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

/// Inside of [`alone`]: from now on what this thread starts asks the name server on port 53 of 127.0.0.1.
pub(crate) fn ask_own_name_server(stage: &Stage) -> Outcome {
    let file = stage.path("resolv.conf");
    fs::write(&file, "nameserver 127.0.0.1\noptions timeout:2 attempts:3\n")?;
    // SAFETY: only this thread sees other mounts from now on, on which no open file or memory of others depends.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS) }.context("mounts of its own")?;
    run(Command::new("mount").args(["--make-rprivate", "/"]))?;
    run(Command::new("mount")
        .arg("--bind")
        .arg(&file)
        .arg("/etc/resolv.conf"))?;
    Ok(())
}
