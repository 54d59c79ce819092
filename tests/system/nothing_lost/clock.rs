//! The wall clock of a process, moved while it runs. No namespace has a clock of its own for the time of day, so a small
//! library stands before the C library and adds what a file says.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context;

use crate::support::Outcome;
use crate::support::daemon::run;
use crate::support::peers::workspace;
use crate::support::stage::Stage;

/// A clock that can be moved.
pub(super) struct Clock {
    library: PathBuf,
    offset: PathBuf,
}

impl Clock {
    /// Compiles the library; nothing where there is no C compiler.
    pub(super) fn new(stage: &Stage) -> Outcome<Option<Self>> {
        let (library, offset) = (stage.path("clock.so"), stage.path("clock"));
        let source = workspace().join("tests/system/nothing_lost/clock.c");
        let mut compiler = Command::new("cc");
        compiler.args(["-shared", "-fPIC", "-O2", "-o"]);
        if Command::new("cc").arg("--version").output().is_err() {
            println!("there is no C compiler: the clock does not move in this run");
            return Ok(None);
        }
        run(compiler.arg(&library).arg(source))?;
        fs::write(&offset, 0_i64.to_ne_bytes())?;
        Ok(Some(Clock { library, offset }))
    }

    /// Has a command run by this clock.
    pub(super) fn of(&self, command: &mut Command) {
        command
            .env("LD_PRELOAD", &self.library)
            .env("KAREZ_TEST_CLOCK", &self.offset);
    }

    /// Moves it so far from the right time.
    pub(super) fn set(&self, seconds: i64) -> Outcome {
        let file = fs::File::options().write(true).open(&self.offset)?;
        // In place: the process looks at this very file.
        file.write_all_at(&seconds.to_ne_bytes(), 0)
            .with_context(|| self.offset.display().to_string())
    }
}
