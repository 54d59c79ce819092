//! A far namespace, the relay to it, and a router on each side.

use std::fs;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use karez_identity::CertificateFacts;
use tempfile::TempDir;

use crate::relay::Relay;
use crate::{echo, pair, traffic, tun};

/// Says that this process runs inside namespaces of its own.
const INSIDE: &str = "KAREZ_NETWORK_INSIDE";
/// The port of links in the far namespace.
const LINK: u16 = 45_671;
/// A link that is not there by then is never there: machines that run tests may be slow.
pub(crate) const DEADLINE: Duration = Duration::from_secs(45);

/// Whether the namespaces are there already.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again in network and process namespaces of its own: all it starts ends with it. Comes back only
/// when that is not possible, with the reason.
pub(crate) fn enter() -> String {
    let flags = ["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let probe = Command::new("unshare")
        .args(flags)
        .args(["sh", "-c", "ip tuntap add dev probe mode tun"])
        .stdin(Stdio::null())
        .output();
    match probe {
        Ok(output) if output.status.success() => {}
        Ok(output) => {
            let error = String::from_utf8_lossy(&output.stderr).trim().to_owned();
            return format!("needs root, network namespaces and /dev/net/tun: {error}");
        }
        Err(error) => return format!("needs the command unshare: {error}"),
    }
    let Ok(program) = std::env::current_exe() else {
        return "does not know its own file".to_owned();
    };
    let mut command = Command::new("unshare");
    command
        .args(flags)
        .arg(program)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1");
    format!("unshare: {}", command.exec())
}

/// Two linked routers and the network between them. Ended when dropped.
pub(crate) struct World {
    /// What happens between them.
    pub(crate) relay: Relay,
    /// Where a client connects on the near side.
    pub(crate) entrance: SocketAddr,
    folder: TempDir,
    number: u8,
    holder: Child,
    near: Option<Child>,
    far: Option<Child>,
    far_document: String,
}

impl World {
    /// Makes the network and starts both routers; the network already has its conditions. `keys` are the link's.
    pub(crate) fn new(keys: &str, conditions: impl FnOnce(&Relay)) -> anyhow::Result<Self> {
        static NUMBERS: AtomicU8 = AtomicU8::new(1);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        succeed("ip", "link set lo up")?;
        let (holder, target) = start_target()?;
        let folder = tempfile::tempdir()?;
        let relay = devices(number, holder.id())?;
        conditions(&relay);
        let token = pair::write_credentials(folder.path())?;
        // Below the ports that the system gives to others; this network has nobody else on it.
        let entrance = SocketAddr::from(([127, 0, 0, 1], 20_000 + u16::from(number)));
        let mut world = Self {
            relay,
            entrance,
            far_document: far_document(folder.path(), number, &token, target),
            folder,
            number,
            holder,
            near: None,
            far: None,
        };
        world.start_far()?;
        let link = (address(number, 2), LINK).into();
        let document = pair::near_document(world.folder.path(), link, entrance, keys);
        world.near = Some(world.router("near", &document, &[])?);
        Ok(world)
    }

    /// The same, and waits until it carries.
    pub(crate) fn linked(keys: &str) -> anyhow::Result<Self> {
        let world = Self::new(keys, |_| ())?;
        world.carries()?;
        Ok(world)
    }

    /// How long it takes until a new connection is carried.
    pub(crate) fn carries(&self) -> anyhow::Result<Duration> {
        traffic::until_carried(self.entrance, DEADLINE).with_context(|| self.logs())
    }

    /// Sends bytes through and compares what comes back.
    pub(crate) fn carry(&self, bytes: usize, deadline: Duration) -> anyhow::Result<Duration> {
        traffic::carry(self.entrance, bytes, deadline).with_context(|| self.logs())
    }

    /// Starts the far router.
    pub(crate) fn start_far(&mut self) -> anyhow::Result<()> {
        let enter = format!("--net=/proc/{}/ns/net", self.holder.id());
        self.far = Some(self.router("far", &self.far_document, &["nsenter", &enter])?);
        Ok(())
    }

    /// Ends the far router without a farewell.
    pub(crate) fn kill_far(&mut self) {
        end(&mut self.far);
    }

    /// Gives the near side another address, as a machine that moves to another network has.
    pub(crate) fn move_near(&self) -> anyhow::Result<()> {
        let (number, device) = (self.number, format!("near{}", self.number));
        succeed(
            "ip",
            &format!("address add {}/24 dev {device}", address(number, 9)),
        )?;
        succeed(
            "ip",
            &format!("address del {}/24 dev {device}", address(number, 1)),
        )?;
        // Deleting the first address takes the other one of its network along on some systems.
        succeed(
            "ip",
            &format!("address replace {}/24 dev {device}", address(number, 9)),
        )
    }

    /// Makes packets of both devices smaller.
    pub(crate) fn shrink(&self, bytes: usize) -> anyhow::Result<()> {
        let number = self.number;
        succeed("ip", &format!("link set dev near{number} mtu {bytes}"))?;
        self.in_far(&format!("ip link set dev far{number} mtu {bytes}"))
    }

    fn in_far(&self, line: &str) -> anyhow::Result<()> {
        let pid = self.holder.id();
        succeed("nsenter", &format!("--net=/proc/{pid}/ns/net {line}"))
    }

    fn router(&self, name: &str, document: &str, wrapper: &[&str]) -> anyhow::Result<Child> {
        let file = self.folder.path().join(format!("{name}.yaml"));
        fs::write(&file, document)?;
        let log = fs::File::options()
            .create(true)
            .append(true)
            .open(self.folder.path().join(format!("{name}.log")))?;
        let program = std::env::var("KAREZ_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_karez").to_owned());
        let mut words = wrapper.iter().copied().chain([program.as_str()]);
        let mut command = Command::new(words.next().context("the program is the last word")?);
        command
            .args(words)
            .args(["router", "--config"])
            .arg(file)
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        command.spawn().context("karez router")
    }

    /// The ends of both routers' logs, for a failure.
    fn logs(&self) -> String {
        let end = |name: &str| {
            let file = self.folder.path().join(format!("{name}.log"));
            let log = fs::read_to_string(file).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            format!(
                "--- {name}\n{}\n",
                lines[lines.len().saturating_sub(20)..].join("\n")
            )
        };
        format!("{}{}", end("near"), end("far"))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        end(&mut self.near);
        end(&mut self.far);
        let _ = self.holder.kill();
        let _ = self.holder.wait();
        // The relay's threads end with the devices.
        let _ = succeed("ip", &format!("link del near{}", self.number));
    }
}

/// Whether this build takes a link with these keys; a near router is started alone to ask it.
pub(crate) fn takes(keys: &str) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir()?;
    pair::write_credentials(folder.path())?;
    let nowhere: SocketAddr = ([127, 0, 0, 1], 9).into();
    let entrance = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let file = folder.path().join("near.yaml");
    fs::write(&file, pair::near_document(folder.path(), nowhere, entrance, keys))?;
    let log = folder.path().join("near.log");
    let output = fs::File::create(&log)?;
    let program = std::env::var("KAREZ_BIN").unwrap_or_else(|_| env!("CARGO_BIN_EXE_karez").to_owned());
    let mut router = Command::new(program)
        .args(["router", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(output.try_clone()?)
        .stderr(output)
        .spawn()?;
    let deadline = Instant::now() + DEADLINE;
    let mut accepted = None;
    while accepted.is_none() && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
        accepted = pair::accepted(&fs::read_to_string(&log)?);
    }
    let _ = router.kill();
    let _ = router.wait();
    accepted.context("a router said nothing about its document")
}

fn end(router: &mut Option<Child>) {
    if let Some(mut router) = router.take() {
        // It may have ended by itself; waiting for it is what matters.
        let _ = router.kill();
        let _ = router.wait();
    }
}

/// The far namespace's process, which is the target, and its address there.
fn start_target() -> anyhow::Result<(Child, SocketAddr)> {
    let mut command = Command::new("unshare");
    command
        .arg("--net")
        .arg(std::env::current_exe()?)
        .arg(echo::COMMAND)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    let mut holder = command.spawn().context("unshare")?;
    let mut line = String::new();
    BufReader::new(holder.stdout.take().context("the target's output")?).read_line(&mut line)?;
    let port: u16 = line.trim().parse().context("the target said no port")?;
    Ok((holder, (Ipv4Addr::LOCALHOST, port).into()))
}

/// A device on each side with an address, and the relay between them.
fn devices(number: u8, holder: u32) -> anyhow::Result<Relay> {
    let (near, far) = (
        tun::device(&format!("near{number}"))?,
        tun::device(&format!("far{number}"))?,
    );
    succeed("ip", &format!("link set dev far{number} netns {holder}"))?;
    let far_side = format!("nsenter --net=/proc/{holder}/ns/net ");
    for (side, name, last) in [("", "near", 1), (far_side.as_str(), "far", 2)] {
        for line in [
            format!("address add {}/24 dev {name}{number}", address(number, last)),
            format!("link set dev {name}{number} mtu 1500 up"),
            "link set lo up".to_owned(),
        ] {
            let line = format!("{side}ip {line}");
            let (program, rest) = line.split_once(' ').context("the line has several words")?;
            succeed(program, rest)?;
        }
    }
    Ok(Relay::start(near, far)?)
}

fn far_document(folder: &Path, number: u8, token: &CertificateFacts, target: SocketAddr) -> String {
    pair::far_document(folder, (address(number, 2), LINK).into(), token, target)
}

fn address(number: u8, last: u8) -> Ipv4Addr {
    Ipv4Addr::new(10, 78, number, last)
}

fn succeed(program: &str, line: &str) -> anyhow::Result<()> {
    let output = Command::new(program)
        .args(line.split(' '))
        .stdin(Stdio::null())
        .output()
        .with_context(|| program.to_owned())?;
    ensure!(
        output.status.success(),
        "{program} {line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}
