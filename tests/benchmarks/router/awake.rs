//! Keeps the cores of a measurement awake.
//!
//! A virtual machine's core that has nothing to do goes back to its host, and comes again many microseconds after it is
//! woken. That is a property of the host and not of a proxy, and it decides what is measured: whoever does more with one
//! wake-up lets the cores rest, and is punished for it. So on each core runs a process of the class that gets only what
//! nobody else wants; it is the same for everybody.

use std::process::{Child, Command, Stdio};

use anyhow::Context;

use crate::options::Pinning;

/// The hidden first argument that makes this program one that only keeps a core awake.
pub(crate) const COMMAND: &str = "stay-awake";

/// Processes that keep cores awake; ended when dropped.
pub(crate) struct Awake(Vec<Child>);

impl Awake {
    /// Keeps the cores awake that programs are pinned to.
    pub(crate) fn start(pinning: Pinning) -> anyhow::Result<Self> {
        let cores: &[&str] = match pinning {
            Pinning::Sides => &["0", "1"],
            Pinning::One => &["0"],
            Pinning::None => &[],
        };
        let program = std::env::current_exe()?;
        let mut awake = Self(Vec::new());
        for core in cores {
            let child = Command::new("chrt")
                .args(["--idle", "0", "taskset", "-c", core])
                .arg(&program)
                .arg(COMMAND)
                .stdin(Stdio::null())
                .spawn()
                .context("chrt (package util-linux); --let-sleep measures without it")?;
            awake.0.push(child);
        }
        Ok(awake)
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended by itself; waiting for it is what matters.
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Uses what nobody else wants of a core, until it is ended.
pub(crate) fn run() -> ! {
    loop {
        std::hint::spin_loop();
    }
}
