//! The network of a measurement and where its programs run: network namespaces of our own, in which every socket has
//! the same congestion control, and the cores of both sides.

use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};

use anyhow::{Context, bail, ensure};

use crate::options::{Options, PathKind, Pinning};
use crate::{process, server};

/// Says that this process runs inside namespaces of its own.
const INSIDE: &str = "KAREZ_BENCH_INSIDE";
const NEAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const FAR: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// One packet in a hundred, where it arrives.
const LOSS: &str = "table ip loss {
  chain arrive {
    type filter hook prerouting priority -300
    numgen random mod 100 0 drop
  }
}
";

/// Whether the namespaces are there already.
pub(crate) fn inside() -> bool {
    std::env::var_os(INSIDE).is_some()
}

/// Runs this program again in network and process namespaces of its own: all it starts ends with it.
pub(crate) fn enter() -> anyhow::Result<()> {
    let mut flags = vec!["--net", "--pid", "--fork", "--kill-child", "--mount-proc"];
    let possible = |flags: &[&str]| {
        let probe = Command::new("unshare")
            .args(flags)
            .arg("true")
            .stderr(Stdio::null())
            .status();
        probe.is_ok_and(|status| status.success())
    };
    if !possible(&flags) {
        flags.splice(0..0, ["--user", "--map-root-user"]);
        ensure!(
            possible(&flags),
            "network namespaces cannot be made here (unshare --net); run as root, or with --no-namespaces to measure \
             loopback with the machine's own congestion control"
        );
    }
    let mut command = Command::new("unshare");
    command
        .args(flags)
        .arg(std::env::current_exe()?)
        .args(std::env::args_os().skip(1))
        .env(INSIDE, "1");
    Err(command.exec()).context("unshare")
}

/// A side of the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Side {
    /// The client's.
    Near,
    /// The server's.
    Far,
}

/// A network with the server at its far end. Gone when dropped.
pub(crate) struct Arena {
    /// Where the server listens, as the near side reaches it.
    pub(crate) server: SocketAddr,
    /// Where the far side is reached.
    pub(crate) far: IpAddr,
    pinning: Pinning,
    /// The server's process, whose network namespace is the far side's.
    holder: Child,
    apart: bool,
    ports: AtomicU16,
}

impl Arena {
    /// Makes the network and starts the server.
    pub(crate) fn new(path: PathKind, options: &Options) -> anyhow::Result<Self> {
        let apart = path != PathKind::Loopback;
        ensure!(!apart || inside(), "needs namespaces");
        let program = std::env::current_exe()?;
        let mut command = pinned(options.pinning, Side::Far, apart.then_some(["unshare", "--net"]));
        command
            .arg(program)
            .arg(server::COMMAND)
            .stdin(Stdio::null())
            .stdout(Stdio::piped());
        let mut holder = command.spawn().context("the server")?;
        let output = holder.stdout.take().context("the server's output")?;
        let mut line = String::new();
        BufReader::new(output).read_line(&mut line)?;
        let port: u16 = line.trim().parse().context("the server said no port")?;
        let far = if apart { FAR } else { Ipv4Addr::LOCALHOST };
        let arena = Self {
            server: (far, port).into(),
            far: far.into(),
            pinning: options.pinning,
            holder,
            apart,
            ports: AtomicU16::new(21_000),
        };
        if apart {
            arena.connect(path == PathKind::Lossy)?;
        } else if inside() {
            arena.tune(Side::Near, "", "")?;
        }
        Ok(arena)
    }

    /// The server as the far proxy reaches it.
    pub(crate) fn local_server(&self) -> SocketAddr {
        (Ipv4Addr::LOCALHOST, self.server.port()).into()
    }

    /// A port that nobody uses.
    pub(crate) fn port(&self) -> anyhow::Result<u16> {
        loop {
            let port = self.ports.fetch_add(1, Ordering::Relaxed);
            ensure!(port < 29_000, "no port is left");
            let free = std::net::TcpListener::bind(("127.0.0.1", port)).is_ok()
                && std::net::UdpSocket::bind(("127.0.0.1", port)).is_ok();
            if free {
                return Ok(port);
            }
        }
    }

    /// A command for a side: in its network, on its core. Its process id is the program's.
    pub(crate) fn command(&self, side: Side, program: &str) -> Command {
        let enter = format!("--net=/proc/{}/ns/net", self.holder.id());
        let inner = (self.apart && side == Side::Far).then_some(["nsenter", &enter]);
        let mut command = pinned(self.pinning, side, inner);
        command.arg(program);
        command
    }

    /// How many workers a peer is to have: as many as it has cores.
    pub(crate) fn workers(&self) -> usize {
        match self.pinning {
            Pinning::Sides | Pinning::One => 1,
            Pinning::None => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        }
    }

    fn connect(&self, lossy: bool) -> anyhow::Result<()> {
        let pid = self.holder.id().to_string();
        // What an earlier network has left goes with its namespace, but not at once.
        let _ = Command::new("ip")
            .args(["link", "del", "near"])
            .stderr(Stdio::null())
            .status();
        let run = |side: Side, line: &str| {
            let mut words = line.split(' ');
            let mut command = self.command(side, words.next().unwrap_or_default());
            process::succeed(command.args(words))
        };
        run(
            Side::Near,
            &format!("ip link add near type veth peer name far netns {pid}"),
        )?;
        for (side, name, address) in [(Side::Near, "near", NEAR), (Side::Far, "far", FAR)] {
            run(side, &format!("ip address add {address}/24 dev {name}"))?;
            if lossy {
                // Packets are lost one by one, as on a wire, not 64 KiB of them at once.
                run(side, &format!("ip link set dev {name} gso_max_segs 1"))?;
            }
            run(side, &format!("ip link set dev {name} mtu 1500 up"))?;
        }
        self.tune(Side::Near, "near", &NEAR.to_string())?;
        self.tune(Side::Far, "far", &FAR.to_string())?;
        if lossy {
            self.lose(Side::Near)?;
            self.lose(Side::Far)?;
        }
        Ok(())
    }

    fn tune(&self, side: Side, device: &str, address: &str) -> anyhow::Result<()> {
        let mut shell = self.command(side, "sh");
        process::succeed(shell.args(["-ec", TUNE, "tune", device, address]))
    }

    fn lose(&self, side: Side) -> anyhow::Result<()> {
        let mut nft = self
            .command(side, "nft")
            .args(["-f", "-"])
            .stdin(Stdio::piped())
            .spawn()
            .context("nft")?;
        nft.stdin
            .take()
            .context("nft's input")?
            .write_all(LOSS.as_bytes())?;
        ensure!(
            nft.wait()?.success(),
            "nft cannot drop packets here (is nftables installed?)"
        );
        Ok(())
    }
}

impl Drop for Arena {
    fn drop(&mut self) {
        // It may have ended by itself; waiting for it is what matters.
        let _ = self.holder.kill();
        let _ = self.holder.wait();
    }
}

fn pinned<const N: usize>(pinning: Pinning, side: Side, inner: Option<[&str; N]>) -> Command {
    let core = match (pinning, side) {
        (Pinning::None, _) => None,
        (Pinning::Sides, Side::Far) => Some("1"),
        (Pinning::Sides, Side::Near) | (Pinning::One, _) => Some("0"),
    };
    let mut words: Vec<&str> = core.map_or_else(Vec::new, |core| vec!["taskset", "-c", core]);
    words.extend(inner.into_iter().flatten());
    // `env` runs what follows as it is, where there is nothing to wrap.
    let mut words = words.into_iter();
    let mut command = Command::new(words.next().unwrap_or("env"));
    command.args(words);
    command
}

/// Makes a side's namespace the same for everybody: one congestion control, and enough ports for short connections. Where
/// the machine does not allow CUBIC as a namespace's default, its routes ask for it; a socket may still choose another
/// once it is connected.
const TUNE: &str = r#"
ip link set lo up
cd /proc/sys/net/ipv4
echo 30000 65535 > ip_local_port_range
echo 1 > tcp_tw_reuse
echo cubic 2>/dev/null > tcp_congestion_control && exit
for to in 127.0.0.0/8 127.0.0.1; do
  ip route replace table local local $to dev lo proto kernel scope host src 127.0.0.1 congctl cubic
done
if [ -n "$1" ]; then
  ip route replace 10.77.0.0/24 dev $1 proto kernel scope link src $2 congctl cubic
  ip route replace table local local $2 dev $1 proto kernel scope host src $2 congctl cubic
fi
"#;

/// Pins this process, the client, to its side's core.
pub(crate) fn pin_client(pinning: Pinning) -> anyhow::Result<()> {
    if pinning == Pinning::None {
        return Ok(());
    }
    let pid = std::process::id().to_string();
    let output = Command::new("taskset")
        .args(["-a", "-c", "-p", "0", &pid])
        .stdout(Stdio::null())
        .status();
    match output {
        Ok(status) if status.success() => Ok(()),
        other => bail!("taskset: {other:?}"),
    }
}
