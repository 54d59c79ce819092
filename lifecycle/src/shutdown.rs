//! One way to stop: a token that every task waits on, triggered by a signal, by the parent's death or by the program.

use std::io;

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::parent;

/// Asks a program, or one part of it, to stop. Clones share one state; [`Shutdown::child`] makes a part of its own.
#[derive(Clone, Debug, Default)]
pub struct Shutdown {
    token: CancellationToken,
}

impl Shutdown {
    /// A new one that nothing has triggered.
    pub fn new() -> Self {
        Self::default()
    }

    /// One that SIGINT, SIGTERM and the parent's death trigger. A second signal ends the process at once, so that a
    /// stop that hangs can be ended by hand. Must be called inside a tokio runtime.
    ///
    /// The parent's death is noticed when `KAREZ_PARENT_PIPE` names the inherited descriptor of a pipe whose other end
    /// the parent holds: it reaches its end even when the parent was killed.
    ///
    /// # Errors
    /// When the signal handlers cannot be installed or the descriptor that `KAREZ_PARENT_PIPE` names cannot be read.
    pub fn on_signals() -> io::Result<Self> {
        let shutdown = Self::new();
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        let signalled = shutdown.clone();
        tokio::spawn(async move {
            for asked in 0u8.. {
                let name = tokio::select! {
                    got = interrupt.recv() => got.map(|()| "SIGINT"),
                    got = terminate.recv() => got.map(|()| "SIGTERM"),
                };
                let Some(name) = name else { return };
                if asked > 0 {
                    tracing::warn!(signal = name, "asked to stop again: ending at once");
                    std::process::exit(130);
                }
                tracing::info!(signal = name, "stopping");
                signalled.trigger();
            }
        });
        parent::watch_from_env(&shutdown)?;
        Ok(shutdown)
    }

    /// Asks everything that waits on this one, and on its children, to stop. Further calls change nothing.
    pub fn trigger(&self) {
        self.token.cancel();
    }

    /// Whether the stop was asked for.
    pub fn is_triggered(&self) -> bool {
        self.token.is_cancelled()
    }

    /// Ends when the stop is asked for; at once when it already was.
    pub async fn triggered(&self) {
        self.token.cancelled().await;
    }

    /// A part of this one: stops with it, and can be stopped alone.
    pub fn child(&self) -> Self {
        Self {
            token: self.token.child_token(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_child_stops_with_its_parent_and_not_the_other_way() {
        let parent = Shutdown::new();
        let (one, two) = (parent.child(), parent.child());
        one.trigger();
        one.triggered().await;
        assert!(!parent.is_triggered() && !two.is_triggered());
        parent.trigger();
        two.triggered().await;
        assert!(two.is_triggered());
    }
}
