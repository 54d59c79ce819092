//! One container: started, probed, started again when it ends, stopped when asked.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, Probe};
use kube::ResourceExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep};

use super::launch::Unit;
use super::logs;
use super::probe::{self, Tally, Verdict};
use super::process::{Exit, Launch, Process};
use super::status::{Ended, State};
use crate::events::{self, Severity, What};

/// The pause before the first restart; doubled by each further one.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// Who ran this long starts with the first pause again.
const SOUND: Duration = Duration::from_secs(60);
/// What a container lacks is looked for this often, beside every change of the API.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Asks a Pod's containers to stop: with the time that they have for it.
pub(crate) type Stop = watch::Receiver<Option<Duration>>;

/// When a container that has ended is started again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Policy {
    Always,
    OnFailure,
    Never,
}

impl Policy {
    /// A Pod's policy, as written; an init container is not started again when it has succeeded.
    pub(crate) fn of(text: Option<&str>, init: bool) -> Self {
        match text {
            Some("Never") => Self::Never,
            Some("OnFailure") => Self::OnFailure,
            _ if init => Self::OnFailure,
            _ => Self::Always,
        }
    }

    fn restarts(self, code: i32) -> bool {
        match self {
            Self::Always => true,
            Self::OnFailure => code != 0,
            Self::Never => false,
        }
    }
}

/// Runs one container.
pub(crate) struct Runner {
    pub(crate) unit: Arc<Unit>,
    pub(crate) container: Container,
    pub(crate) policy: Policy,
}

struct Run {
    end: Ended,
    stopped: bool,
}

impl Runner {
    /// Runs until the container has ended for good, or was stopped; gives the last exit code, if it ever ran.
    pub(crate) async fn run(self, mut stop: Stop) -> Option<i32> {
        let mut pause = FIRST_PAUSE;
        loop {
            let launch = self.prepare(&mut stop).await?;
            let begun = Instant::now();
            let run = self.once(&launch, &mut stop).await;
            let code = run.end.code;
            if run.stopped || !self.policy.restarts(code) {
                self.change(|observed| observed.state = State::Ended(run.end));
                return Some(code);
            }
            if begun.elapsed() >= SOUND {
                pause = FIRST_PAUSE;
            }
            self.back_off(run.end, pause);
            tokio::select! {
                () = stopped(&mut stop) => return Some(code),
                () = sleep(pause) => {}
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    fn change(&self, change: impl FnOnce(&mut super::status::Observed)) {
        self.unit.board.change(&self.container.name, |observed| {
            observed.ready = false;
            observed.started = false;
            change(observed);
        });
    }

    fn event(&self, severity: Severity, reason: &str, message: String) {
        let host = &self.unit.host;
        // What a container lacks differs from time to time; the rest only repeats itself.
        let about = if reason == "Failed" {
            message.clone()
        } else {
            self.container.name.clone()
        };
        let what = What {
            severity,
            reason,
            about: &about,
            message,
        };
        events::record(&host.client, &self.unit.pod(), &host.node, what);
    }

    /// Waits until everything that the container needs is there; none when stopped before.
    async fn prepare(&self, stop: &mut Stop) -> Option<Launch> {
        let mut changes = self.unit.host.objects.listen();
        let mut told = String::new();
        loop {
            let error = tokio::select! {
                () = stopped(stop) => return None,
                launch = self.unit.launch(&self.container) => match launch {
                    Ok(launch) => return Some(launch),
                    Err(error) => error,
                },
            };
            let message = error.to_string();
            if told != message {
                let (pod, container) = (self.unit.pod().name_any(), &self.container.name);
                tracing::warn!(pod, container, error = message, "not started yet");
                self.event(
                    Severity::Warning,
                    "Failed",
                    format!("Container {container}: {message}"),
                );
                self.change(|observed| {
                    observed.state = State::Waiting {
                        reason: error.reason().into(),
                        message: message.clone(),
                    };
                });
                told = message;
            }
            tokio::select! {
                () = stopped(stop) => return None,
                () = changes.next() => {}
                () = sleep(LOOK_AGAIN) => {}
            }
        }
    }

    /// One run, from start to end.
    async fn once(&self, launch: &Launch, stop: &mut Stop) -> Run {
        let started = Timestamp::now();
        let end = |exit: Exit, reason: &str, message: Option<String>| Ended {
            code: exit.code,
            signal: exit.signal,
            reason: reason.to_owned(),
            message,
            started,
            finished: Timestamp::now(),
        };
        let mut process = match Process::start(launch) {
            Ok(process) => process,
            Err(error) => {
                let message = format!("{} cannot be started: {error}", launch.binary.display());
                let exit = Exit {
                    code: 128,
                    signal: None,
                };
                return Run {
                    end: end(exit, "StartError", Some(message)),
                    stopped: false,
                };
            }
        };
        let (pod, container) = (self.unit.pod().name_any(), self.container.name.clone());
        tracing::info!(pod, container, process = process.id(), args = ?launch.args, "started");
        self.event(
            Severity::Normal,
            "Started",
            format!("Started container {container}"),
        );
        let id = process.id();
        self.change(|observed| {
            observed.state = State::Running {
                since: started,
                process: id,
            };
            observed.started = self.container.startup_probe.is_none();
            observed.ready = observed.started && self.container.readiness_probe.is_none();
        });
        let grace = self.grace();
        tokio::select! {
            exit = process.wait() => {
                if exit.code == 0 {
                    tracing::info!(pod, container, code = 0, "ended");
                    return Run { end: end(exit, "Completed", None), stopped: false };
                }
                let said = logs::last_line(&launch.log);
                tracing::warn!(pod, container, code = exit.code, said, "ended");
                Run { end: end(exit, "Error", said), stopped: false }
            }
            () = stopped(stop) => {
                let grace = stop.borrow().unwrap_or(grace);
                let exit = process.stop(grace).await;
                let reason = if exit.code == 0 { "Completed" } else { "Error" };
                Run { end: end(exit, reason, None), stopped: true }
            }
            why = self.probes() => {
                tracing::warn!(pod, container, why, "restarting");
                self.event(Severity::Warning, "Unhealthy", why.clone());
                self.change(|_| {});
                let exit = process.stop(grace).await;
                // A failed probe is a failure, however politely the process went.
                let exit = Exit { code: if exit.code == 0 { 137 } else { exit.code }, ..exit };
                Run { end: end(exit, "Unhealthy", Some(why)), stopped: stop.borrow().is_some() }
            }
        }
    }

    fn grace(&self) -> Duration {
        let seconds = self
            .unit
            .pod()
            .spec
            .as_ref()
            .and_then(|spec| spec.termination_grace_period_seconds);
        Duration::from_secs(
            seconds
                .and_then(|number| u64::try_from(number).ok())
                .unwrap_or(30),
        )
    }

    fn back_off(&self, end: Ended, pause: Duration) {
        let name = &self.container.name;
        let said = end
            .message
            .as_ref()
            .map(|said| format!(": {said}"))
            .unwrap_or_default();
        let code = end.code;
        let what = format!("restarting failed container {name}: exit code {code}{said}");
        if pause > FIRST_PAUSE {
            self.event(Severity::Warning, "BackOff", format!("Back-off {what}"));
        }
        let message = format!("back-off {pause:?} {what}");
        self.change(|observed| {
            observed.last = Some(end);
            observed.restarts = observed.restarts.saturating_add(1);
            observed.state = State::Waiting {
                reason: "CrashLoopBackOff".into(),
                message,
            };
        });
    }

    /// Asks the container's probes; ends with the reason when it must be restarted.
    async fn probes(&self) -> String {
        if let Some(startup) = &self.container.startup_probe {
            if let Err(why) = self.startup(startup).await {
                return why;
            }
            let ready = self.container.readiness_probe.is_none();
            self.unit.board.change(&self.container.name, |observed| {
                observed.started = true;
                observed.ready = ready;
            });
        }
        tokio::select! {
            () = self.readiness() => unreachable_end().await,
            why = self.liveness() => why,
        }
    }

    async fn ask(&self, probe: &Probe) -> Result<(), String> {
        probe::ask(probe, &self.container, self.unit.address).await
    }

    async fn startup(&self, probe: &Probe) -> Result<(), String> {
        let mut tally = Tally::new(probe);
        sleep(probe::delay(probe)).await;
        loop {
            let answer = self.ask(probe).await;
            match tally.add(answer.is_ok()) {
                Verdict::Passed => return Ok(()),
                Verdict::Failed => {
                    return Err(format!(
                        "Startup probe failed: {}",
                        answer.err().unwrap_or_default()
                    ));
                }
                Verdict::Open => sleep(probe::period(probe)).await,
            }
        }
    }

    async fn readiness(&self) {
        let Some(probe) = &self.container.readiness_probe else {
            return std::future::pending().await;
        };
        let mut tally = Tally::new(probe);
        let begun = Instant::now();
        sleep(probe::delay(probe)).await;
        let mut was_ready = false;
        loop {
            let answer = self.ask(probe).await;
            match tally.add(answer.is_ok()) {
                Verdict::Passed => was_ready = true,
                Verdict::Failed => {
                    if was_ready {
                        let why = answer.err().unwrap_or_default();
                        self.event(
                            Severity::Warning,
                            "Unhealthy",
                            format!("Readiness probe failed: {why}"),
                        );
                    }
                    was_ready = false;
                }
                Verdict::Open => {}
            }
            self.unit
                .board
                .change(&self.container.name, |observed| observed.ready = was_ready);
            // A process is ready moments after its start; asking often then keeps nobody waiting for a whole period.
            let young = !was_ready && begun.elapsed() < Duration::from_secs(10);
            let pause = if young {
                Duration::from_millis(100)
            } else {
                probe::period(probe)
            };
            sleep(pause).await;
        }
    }

    async fn liveness(&self) -> String {
        let Some(probe) = &self.container.liveness_probe else {
            return std::future::pending().await;
        };
        let mut tally = Tally::new(probe);
        sleep(probe::delay(probe)).await;
        loop {
            let answer = self.ask(probe).await;
            if tally.add(answer.is_ok()) == Verdict::Failed {
                return format!("Liveness probe failed: {}", answer.err().unwrap_or_default());
            }
            sleep(probe::period(probe)).await;
        }
    }
}

/// The readiness loop has no end; were it to have one, nothing should happen.
async fn unreachable_end() -> String {
    std::future::pending().await
}

/// Returns when the stop was asked for.
async fn stopped(stop: &mut Stop) {
    if stop.wait_for(Option::is_some).await.is_err() {
        // Whoever could ask is gone; the task is about to be dropped.
        std::future::pending::<()>().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn restart_policies() {
        assert!(Policy::of(None, false).restarts(0));
        assert!(!Policy::of(Some("OnFailure"), false).restarts(0));
        assert!(Policy::of(Some("OnFailure"), false).restarts(1));
        assert!(!Policy::of(Some("Never"), true).restarts(1));
        assert!(!Policy::of(Some("Always"), true).restarts(0));
    }
}
