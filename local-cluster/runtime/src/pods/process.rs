//! One child process: started with a pipe whose end tells it that we are gone, its output kept, ended politely and then
//! by force, with everything that it started.

use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use futures::future::join_all;
use rustix::process::{Pid, Signal, kill_process_group};
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::logs;

/// Variables of our own environment that a child gets too: where programs and certificates are, how to log.
const INHERITED: [&str; 14] = [
    "PATH",
    "HOME",
    "USER",
    "LANG",
    "LC_ALL",
    "TZ",
    "TMPDIR",
    "RUST_LOG",
    "RUST_BACKTRACE",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "NO_PROXY",
    "LLVM_PROFILE_FILE",
];

/// How long a child's output may take to reach the log after its end.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What to start.
#[derive(Debug)]
pub(crate) struct Launch {
    pub(crate) binary: PathBuf,
    pub(crate) args: Vec<String>,
    pub(crate) env: Vec<(String, String)>,
    pub(crate) folder: PathBuf,
    pub(crate) log: PathBuf,
}

/// A child that runs, or ran.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    group: Option<Pid>,
    /// Held open: its end is what the child notices when this process is gone, however it went.
    _alive: Option<ChildStdin>,
    /// What copies its output to the log.
    outputs: Vec<JoinHandle<()>>,
}

/// How a child ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Exit {
    pub(crate) code: i32,
    pub(crate) signal: Option<i32>,
}

impl From<ExitStatus> for Exit {
    fn from(status: ExitStatus) -> Self {
        let signal = status.signal();
        // As shells and container runtimes count.
        Self {
            code: status.code().unwrap_or_else(|| 128 + signal.unwrap_or(0)),
            signal,
        }
    }
}

impl Process {
    /// Starts it. Its output goes to the log, the previous run's log is kept beside it.
    pub(crate) fn start(launch: &Launch) -> io::Result<Self> {
        let log = logs::open(&launch.log)?;
        let mut command = Command::new(&launch.binary);
        command.args(&launch.args).env_clear().current_dir(&launch.folder);
        for name in INHERITED {
            if let Some(value) = std::env::var_os(name) {
                command.env(name, value);
            }
        }
        command.envs(launch.env.iter().map(|(name, value)| (name, value)));
        command.env(karez_lifecycle::PARENT_PIPE, "0");
        // A group of its own: the terminal's Ctrl-C reaches us alone, and the stop has an order.
        command.process_group(0).kill_on_drop(true);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn()?;
        let alive = child.stdin.take();
        let group = child
            .id()
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        let mut outputs = Vec::new();
        if let Some(output) = child.stdout.take() {
            outputs.push(tokio::spawn(logs::keep(output, log.clone())));
        }
        if let Some(output) = child.stderr.take() {
            outputs.push(tokio::spawn(logs::keep(output, log)));
        }
        Ok(Self {
            child,
            group,
            _alive: alive,
            outputs,
        })
    }

    /// Its id, for messages.
    pub(crate) fn id(&self) -> Option<u32> {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) async fn wait(&mut self) -> Exit {
        let status = self.child.wait().await;
        // What it started and left behind goes with it.
        self.signal(Signal::KILL);
        self.group = None;
        // Its last words are what tells why it ended.
        let _ = timeout(LAST_WORDS, join_all(self.outputs.drain(..))).await;
        status.map_or(
            Exit {
                code: 255,
                signal: None,
            },
            Exit::from,
        )
    }

    /// Asks it to stop, waits for `grace`, then ends it by force.
    pub(crate) async fn stop(&mut self, grace: Duration) -> Exit {
        self.signal(Signal::TERM);
        match timeout(grace, self.wait()).await {
            Ok(exit) => exit,
            Err(_) => {
                tracing::warn!(
                    process = self.id(),
                    seconds = grace.as_secs(),
                    "not stopped in time: killed"
                );
                self.signal(Signal::KILL);
                self.wait().await
            }
        }
    }

    fn signal(&self, signal: Signal) {
        if let Some(group) = self.group {
            // An empty group is what we want.
            let _ = kill_process_group(group, signal);
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
    }
}

/// Where a container's log is.
pub(crate) fn log_path(state: &Path, namespace: &str, pod: &str, container: &str) -> PathBuf {
    state
        .join("logs")
        .join(namespace)
        .join(pod)
        .join(format!("{container}.log"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(folder: &Path, script: &str) -> Launch {
        Launch {
            binary: "/bin/sh".into(),
            args: vec!["-c".into(), script.into()],
            env: vec![("GREETING".into(), "hello".into())],
            folder: folder.to_path_buf(),
            log: log_path(folder, "n", "p", "c"),
        }
    }

    #[tokio::test]
    async fn output_is_kept_and_the_exit_is_told() {
        let state = tempfile::tempdir().unwrap();
        let mut process =
            Process::start(&launch(state.path(), "echo $GREETING; echo oops >&2; exit 3")).unwrap();
        assert_eq!(
            process.wait().await,
            Exit {
                code: 3,
                signal: None
            }
        );
        let path = log_path(state.path(), "n", "p", "c");
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        loop {
            let text = std::fs::read_to_string(&path).unwrap();
            if text.contains("hello\n") && text.contains("oops\n") {
                return;
            }
            assert!(std::time::Instant::now() < deadline, "{text:?}");
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test]
    async fn who_does_not_listen_is_killed_with_its_children() {
        let state = tempfile::tempdir().unwrap();
        let script = "trap '' TERM; sleep 600 & echo $! > child; while :; do sleep 600 & wait $!; done";
        let mut process = Process::start(&launch(state.path(), script)).unwrap();
        let child = state.path().join("child");
        let deadline = std::time::Instant::now() + Duration::from_secs(10);
        let pid = loop {
            match std::fs::read_to_string(&child)
                .unwrap_or_default()
                .trim()
                .parse::<i32>()
            {
                Ok(pid) => break pid,
                Err(_) => assert!(std::time::Instant::now() < deadline),
            }
            tokio::task::yield_now().await;
        };
        assert_eq!(process.stop(Duration::from_millis(50)).await.signal, Some(9));
        while is_running(pid) {
            assert!(std::time::Instant::now() < deadline, "the child's child lives on");
            tokio::task::yield_now().await;
        }
    }

    fn is_running(pid: i32) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next());
        state.is_some_and(|state| !matches!(state, 'Z' | 'X'))
    }

    #[tokio::test]
    async fn the_child_notices_our_end() {
        let state = tempfile::tempdir().unwrap();
        let mut process = Process::start(&launch(state.path(), "read line; exit 7")).unwrap();
        process._alive = None;
        assert_eq!(process.wait().await.code, 7);
    }
}
