//! Noticing that the parent is gone: the read end of a pipe, whose write end only the parent holds, reaches its end.

use std::fs::File;
use std::io::{self, Read};
use std::time::Duration;

use crate::Shutdown;

/// The environment variable that names the inherited descriptor; `0` is standard input.
pub const PARENT_PIPE: &str = "KAREZ_PARENT_PIPE";

/// How long a program may take to stop after its parent's death, before it is ended by force.
const GRACE: Duration = Duration::from_secs(10);

/// Watches the descriptor that the environment names, if it names one.
pub(crate) fn watch_from_env(shutdown: &Shutdown) -> io::Result<()> {
    let Ok(value) = std::env::var(PARENT_PIPE) else {
        return Ok(());
    };
    let number: u32 = value.trim().parse().map_err(|_| {
        let text = format!("{PARENT_PIPE} is {value:?}, not the number of an inherited descriptor");
        io::Error::new(io::ErrorKind::InvalidInput, text)
    })?;
    let pipe = open(number)?;
    let shutdown = shutdown.clone();
    std::thread::Builder::new().name("parent".into()).spawn(move || {
        wait_for_end(pipe);
        // First of all: the parent read our standard error too, so what is said next may reach nobody.
        shutdown.trigger();
        tracing::warn!("the parent process is gone: stopping");
        std::thread::sleep(GRACE);
        tracing::error!(
            seconds = GRACE.as_secs(),
            "not stopped in time after the parent's death: ending by force"
        );
        std::process::exit(1);
    })?;
    Ok(())
}

/// The descriptor as something readable, without taking ownership of a raw number (which would need unsafe code).
fn open(number: u32) -> io::Result<Box<dyn Read + Send>> {
    if number == 0 {
        return Ok(Box::new(io::stdin()));
    }
    let path = format!("/dev/fd/{number}");
    let file = File::open(&path).map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("{PARENT_PIPE}: cannot read {path}: {error}"),
        )
    })?;
    Ok(Box::new(file))
}

/// Returns when the other end is closed. What a parent may write is read and thrown away.
fn wait_for_end(mut pipe: impl Read) {
    let mut buffer = [0u8; 64];
    loop {
        match pipe.read(&mut buffer) {
            Ok(0) => return,
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_the_pipe_is_the_parents_death() {
        let (read, write) = io::pipe().unwrap();
        let waiter = std::thread::spawn(move || wait_for_end(read));
        drop(write);
        waiter.join().unwrap();
    }
}
