//! A running `karez site run`, and the token's way from one site to the other as a person would carry it.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};

use anyhow::Context;
use serde_json::{Value, json};

use super::Outcome;
use super::cluster::{Cluster, text};
use super::process::{self, Process, descendants};
use super::stage::Stage;
use super::wait::{tail, wait_for};

/// The name of the token that the acceptance input requests.
pub(crate) const TOKEN: &str = "skupper-site-requested-token";

/// A site in a process of its own; ended with the value.
pub(crate) struct Site {
    pub(crate) name: String,
    /// The folder of its manifests.
    pub(crate) manifests: PathBuf,
    /// The folder of its state.
    pub(crate) state: PathBuf,
    log: PathBuf,
    child: Child,
}

/// A command of the built binary that sees nothing of the user's own sites.
pub(crate) fn karez(stage: &Stage) -> Outcome<Command> {
    let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
    command
        .env("XDG_STATE_HOME", stage.folder("xdg-state")?)
        .env("TMPDIR", stage.folder("tmp")?)
        .env("XDG_RUNTIME_DIR", machine_locks())
        .env_remove("KUBECONFIG")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    Ok(command)
}

/// Where sites hold their networks against each other: one folder for all tests, as on a user's machine.
fn machine_locks() -> PathBuf {
    std::env::var_os("XDG_RUNTIME_DIR").map_or_else(std::env::temp_dir, PathBuf::from)
}

/// Runs a command to its end, in bounded time.
pub(crate) fn finish(mut command: Command, seconds: u64) -> Outcome<Output> {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn()?;
    let readers = (reader(child.stdout.take()), reader(child.stderr.take()));
    let status = wait_exit(&mut child, seconds).with_context(|| format!("{command:?}"));
    if status.is_err() {
        child.kill()?;
        child.wait()?;
    }
    let (stdout, stderr) = (
        readers.0.join().unwrap_or_default(),
        readers.1.join().unwrap_or_default(),
    );
    let status = status.with_context(|| {
        format!(
            "{}{}",
            String::from_utf8_lossy(&stdout),
            String::from_utf8_lossy(&stderr)
        )
    })?;
    Ok(Output {
        status,
        stdout,
        stderr,
    })
}

fn reader(from: Option<impl io::Read + Send + 'static>) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        if let Some(mut from) = from {
            // What was read before an error is what there is to show.
            let _ = from.read_to_end(&mut bytes);
        }
        bytes
    })
}

/// Waits for the end of a child.
pub(crate) fn wait_exit(child: &mut Child, seconds: u64) -> Outcome<ExitStatus> {
    wait_for("the end of the program", seconds, || {
        Ok(child.try_wait()?.ok_or_else(|| "it runs".to_owned()))
    })
}

impl Site {
    /// Starts a site from a folder of manifests; its state is kept under its name in the stage, so that a second
    /// start with the same name continues it.
    pub(crate) fn start(stage: &Stage, name: &str, manifests: &Path) -> Outcome<Self> {
        Self::start_with(stage, name, manifests, &[])
    }

    /// The same with further arguments.
    pub(crate) fn start_with(stage: &Stage, name: &str, manifests: &Path, further: &[&str]) -> Outcome<Self> {
        Self::launch(stage, name, manifests, further, &[])
    }

    /// The same with variables of the environment.
    pub(crate) fn start_with_variables(
        stage: &Stage,
        name: &str,
        manifests: &Path,
        variables: &[(&str, &str)],
    ) -> Outcome<Self> {
        Self::launch(stage, name, manifests, &[], variables)
    }

    fn launch(
        stage: &Stage,
        name: &str,
        manifests: &Path,
        further: &[&str],
        variables: &[(&str, &str)],
    ) -> Outcome<Self> {
        let state = stage.path(format!("{name}-state"));
        let log = stage.path(format!("{name}.log"));
        let output = File::options().create(true).append(true).open(&log)?;
        let child = karez(stage)?
            .args(["site", "run"])
            .arg(manifests)
            .arg("--state")
            .arg(&state)
            .args(["--name", name])
            .args(further)
            .envs(variables.iter().copied())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Self {
            name: name.to_owned(),
            manifests: manifests.to_owned(),
            state,
            log,
            child,
        })
    }

    /// All that it has printed, over all its starts.
    pub(crate) fn output(&self) -> Outcome<String> {
        Ok(String::from_utf8_lossy(&fs::read(&self.log)?).into_owned())
    }

    /// Waits for words in what it prints.
    pub(crate) fn wait_output(&self, needle: &str, seconds: u64) -> Outcome<String> {
        super::wait::wait_for_text(needle, seconds, || self.output())
    }

    /// Its cluster, once it answers.
    pub(crate) fn cluster(&self) -> Outcome<Cluster> {
        let kubeconfig = self.state.join("kubeconfig");
        wait_for(format_args!("the API of site {}", self.name), 60, || {
            let cluster = Cluster::open(&kubeconfig)?;
            let namespace = cluster.get("/api/v1/namespaces/default")?;
            // The kinds of collectors are the last that the site defines at its start.
            let kinds = cluster.get("/apis/opentelemetry.io/v1beta1")?;
            Ok(match (namespace, kinds) {
                (Some(_), Some(_)) => Ok(cluster),
                (namespace, _) => Err(format!("namespace: {namespace:?}; collectors are not served")),
            })
        })
    }

    /// The pid of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its child processes and theirs.
    pub(crate) fn children(&self) -> std::collections::BTreeSet<Process> {
        descendants(self.pid())
    }

    /// Ends it without a chance to clean up, and waits until none of its children is left.
    pub(crate) fn kill(mut self) -> Outcome {
        let children = self.children();
        process::signal(self.pid(), "KILL")?;
        self.child.wait()?;
        process::wait_gone(&children, 15)
    }

    /// Asks it to stop; its status, with no child left.
    pub(crate) fn stop(mut self) -> Outcome<ExitStatus> {
        let children = self.children();
        process::signal(self.pid(), "TERM")?;
        let status =
            wait_exit(&mut self.child, 30).with_context(|| format!("site {} after SIGTERM", self.name))?;
        process::wait_gone(&children, 5)?;
        Ok(status)
    }

    /// Runs a `karez` command on this site's cluster; its output must be a success.
    pub(crate) fn karez(&self, stage: &Stage, arguments: &[&str]) -> Outcome<String> {
        let output = self.karez_output(stage, arguments)?;
        let (out, err) = (
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr),
        );
        anyhow::ensure!(
            output.status.success(),
            "karez {}: {}\n{out}{err}",
            arguments.join(" "),
            output.status
        );
        Ok(out.into_owned())
    }

    /// The same whatever its status.
    pub(crate) fn karez_output(&self, stage: &Stage, arguments: &[&str]) -> Outcome<Output> {
        let mut command = karez(stage)?;
        command
            .args(arguments)
            .arg("--kubeconfig")
            .arg(self.state.join("kubeconfig"));
        finish(command, 60)
    }

    /// Waits until a link of this site is in a state that `link status` tells with these words.
    pub(crate) fn wait_link(&self, stage: &Stage, words: &str, seconds: u64) -> Outcome<String> {
        wait_for(
            format_args!("link status {words:?} of site {}", self.name),
            seconds,
            || {
                let output = self.karez_output(stage, &["link", "status"])?;
                let output = String::from_utf8_lossy(&output.stdout).into_owned()
                    + &String::from_utf8_lossy(&output.stderr);
                Ok(if output.contains(words) {
                    Ok(output)
                } else {
                    Err(output)
                })
            },
        )
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            let children = self.children();
            // Best effort: the test's own outcome matters more than a site that is already gone.
            let _ = process::signal(self.pid(), "TERM");
            if wait_exit(&mut self.child, 20).is_err() {
                let _ = self.child.kill();
                let _ = self.child.wait();
            }
            if let Err(error) = process::wait_gone(&children, 10) {
                eprintln!(
                    "site {}: {error:#}\n{}",
                    self.name,
                    tail(&self.output().unwrap_or_default(), 20)
                );
            }
        }
    }
}

/// Waits for the filled token of a site and gives it as a person would save it: without what the server added.
pub(crate) fn take_token(cluster: &Cluster, namespace: &str, name: &str) -> Outcome<Value> {
    let path = format!("/api/v1/namespaces/{namespace}/secrets/{name}");
    let mut token = wait_for(format_args!("the token {name}"), 60, || {
        let secret = cluster.get(&path)?.unwrap_or(Value::Null);
        let filled = text(&secret, "/metadata/labels/skupper.io~1type") == "connection-token"
            && !text(&secret, "/data/tls.crt").is_empty();
        Ok(if filled {
            Ok(secret)
        } else {
            Err(format!("{secret}"))
        })
    })?;
    let metadata = token["metadata"]
        .as_object_mut()
        .context("a Secret has metadata")?;
    for key in [
        "namespace",
        "resourceVersion",
        "uid",
        "creationTimestamp",
        "generation",
        "managedFields",
        "ownerReferences",
    ] {
        metadata.remove(key);
    }
    Ok(token)
}

/// Writes an object as a file of a site (JSON is YAML), at once as editors do.
pub(crate) fn save(object: &Value, file: &Path) -> Outcome {
    let aside = file.with_extension("saving");
    fs::write(&aside, serde_json::to_vec_pretty(object)?)?;
    Ok(fs::rename(aside, file)?)
}

/// A public and an edge site that are linked.
pub(crate) struct Pair {
    pub(crate) public: Site,
    pub(crate) edge: Site,
}

impl Pair {
    /// Starts both and carries the token over.
    pub(crate) fn link(stage: &Stage, public: &Path, edge: &Path) -> Outcome<Self> {
        let public = Site::start(stage, "public", public)?;
        let edge = Site::start(stage, "edge", edge)?;
        let token = take_token(&public.cluster()?, "default", TOKEN)?;
        save(&token, &edge.manifests.join("90-token.yaml"))?;
        edge.wait_link(stage, &format!("Link {TOKEN} is active"), 60)?;
        Ok(Self { public, edge })
    }
}

/// A minimal pair of sites' manifests, without collectors.
pub(crate) fn plain_sites(stage: &Stage) -> Outcome<(PathBuf, PathBuf)> {
    let (public, edge) = (stage.folder("public")?, stage.folder("edge")?);
    save(&site_map("public-site", "interior"), &public.join("10-site.yaml"))?;
    let request = json!({"apiVersion": "v1", "kind": "Secret",
        "metadata": {"name": TOKEN, "labels": {"skupper.io/type": "connection-token-request"}}});
    save(&request, &public.join("20-token.yaml"))?;
    save(&site_map("edge-site", "edge"), &edge.join("10-site.yaml"))?;
    Ok((public, edge))
}

fn site_map(name: &str, mode: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "skupper-site"},
        "data": {"name": name, "router-mode": mode, "ingress": if mode == "edge" { "none" } else { "loadbalancer" }}})
}
