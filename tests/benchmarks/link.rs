//! What a link costs: a bulk stream, a ping-pong and short connections through a linked pair of routers on loopback,
//! beside the bare connection to the same server, in one run.
//!
//! `cargo bench -p karez --bench link`. Both sides' sockets use the same congestion control (CUBIC where it can be
//! had: BBR distorts loopback). The numbers are of this machine at this moment; their ratio is what to look at.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use jiff::Timestamp;
use karez_identity::{Authority, CertificateFacts, Credential, Subject, Usage};

/// How long the bulk stream runs.
const BULK: Duration = Duration::from_secs(4);
/// How many requests of 64 bytes the ping-pong makes.
const REQUESTS: usize = 5_000;
/// How many connections are opened one after the other.
const CONNECTIONS: usize = 300;

fn main() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let server = serve()?;
    let pair = Pair::start(folder.path(), server)?;
    println!("a linked pair of karez routers on loopback beside the bare connection\n");
    println!("{:<34} {:>14} {:>14} {:>8}", "", "bare", "linked", "ratio");
    let (bare, linked) = (bulk(server)?, bulk(pair.listener)?);
    row("bulk, one connection, Gbit/s", bare, linked);
    let (bare, linked) = (latency(server)?, latency(pair.listener)?);
    row("64 bytes there and back, µs p50", bare.0, linked.0);
    row("64 bytes there and back, µs p99", bare.1, linked.1);
    let (bare, linked) = (connections(server)?, connections(pair.listener)?);
    row("open, 64 bytes, close, 1/s", bare, linked);
    Ok(())
}

fn row(what: &str, bare: f64, linked: f64) {
    println!("{what:<34} {bare:>14.2} {linked:>14.2} {:>8.3}", linked / bare);
}

/// A server that streams (first byte `b`) or echoes (first byte `e`) until the client goes.
fn serve() -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            // A client that leaves ends its connection: that is how each measurement stops.
            thread::spawn(move || drop(answer(stream)));
        }
    });
    Ok(address)
}

fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    tune(&stream);
    let mut kind = [0];
    stream.read_exact(&mut kind)?;
    if kind == *b"b" {
        let block = vec![7; 256 << 10];
        loop {
            stream.write_all(&block)?;
        }
    }
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer)?;
        if read == 0 {
            return Ok(());
        }
        stream.write_all(&buffer[..read])?;
    }
}

fn tune(stream: &TcpStream) {
    // Both are improvements of the measurement, not conditions of it.
    let _ = stream.set_nodelay(true);
    let _ = socket2::SockRef::from(stream).set_tcp_congestion(b"cubic");
}

fn connect(to: SocketAddr, kind: u8) -> anyhow::Result<TcpStream> {
    let mut stream = TcpStream::connect_timeout(&to, Duration::from_secs(5))?;
    stream.set_read_timeout(Some(Duration::from_secs(20)))?;
    tune(&stream);
    stream.write_all(&[kind])?;
    Ok(stream)
}

/// Gbit/s of one stream from the server.
fn bulk(to: SocketAddr) -> anyhow::Result<f64> {
    let mut stream = connect(to, b'b')?;
    let mut buffer = vec![0; 256 << 10];
    let warm = Instant::now() + Duration::from_millis(500);
    while Instant::now() < warm {
        ensure!(stream.read(&mut buffer)? > 0, "the stream ended early");
    }
    let (started, mut bytes) = (Instant::now(), 0_usize);
    while started.elapsed() < BULK {
        let read = stream.read(&mut buffer)?;
        ensure!(read > 0, "the stream ended early");
        bytes += read;
    }
    Ok(bytes as f64 * 8.0 / 1e9 / started.elapsed().as_secs_f64())
}

/// Microseconds of the median and of the 99th percentile.
fn latency(to: SocketAddr) -> anyhow::Result<(f64, f64)> {
    let mut stream = connect(to, b'e')?;
    let mut buffer = [1; 64];
    let mut times = Vec::with_capacity(REQUESTS);
    for round in 0..REQUESTS + 200 {
        let started = Instant::now();
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
        if round >= 200 {
            times.push(started.elapsed().as_secs_f64() * 1e6);
        }
    }
    times.sort_by(f64::total_cmp);
    Ok((times[times.len() / 2], times[times.len() * 99 / 100]))
}

/// Connections a second, one after the other.
fn connections(to: SocketAddr) -> anyhow::Result<f64> {
    let started = Instant::now();
    for _ in 0..CONNECTIONS {
        let mut stream = connect(to, b'e')?;
        let mut buffer = [1; 64];
        stream.write_all(&buffer)?;
        stream.read_exact(&mut buffer)?;
    }
    Ok(CONNECTIONS as f64 / started.elapsed().as_secs_f64())
}

/// Two routers in processes of their own, linked by a token; ended with the value.
struct Pair {
    routers: Vec<Child>,
    /// Where the virtual address of the server is offered.
    listener: SocketAddr,
}

impl Pair {
    fn start(folder: &Path, server: SocketAddr) -> anyhow::Result<Self> {
        let authority = Authority::new("bench", Timestamp::now(), Duration::from_secs(86_400))?;
        let issue = |name: &str, dns: &[&str], usage| {
            let dns_names = dns.iter().map(|name| (*name).to_owned()).collect();
            let lifetime = Duration::from_secs(3_600);
            let subject = Subject {
                common_name: name.to_owned(),
                dns_names,
                usage,
                lifetime,
                uri: None,
            };
            authority.issue(&subject, Timestamp::now())
        };
        let token = issue("token", &[], Usage::Client)?;
        write_profile(
            &folder.join("server"),
            &issue("skupper-router", &["skupper-router"], Usage::Server)?,
        )?;
        write_profile(&folder.join("token"), &token)?;
        let facts = CertificateFacts::from_pem(token.certificate_pem.as_bytes())?;
        let link = UdpSocket::bind("127.0.0.1:0")?.local_addr()?.port();
        let listener = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
        let site = |name: &str| {
            format!("version: 1\nsite: {{id: {name}, name: {name}, namespace: default, version: 0.1.0}}\n")
        };
        let public = format!(
            "{}router: {{mode: interior}}\ntls:\n- {{name: server, directory: {}}}\n\
             accept:\n- {{name: edge, role: edge, host: 127.0.0.1, port: {link}, tls: server}}\n\
             tokens:\n- {{name: token, serial: \"{}\", fingerprint: \"{}\"}}\n\
             services:\n- {{address: bench, protocol: tcp, ports: [9000], targets: [{{name: server}}]}}\n\
             connectors:\n- {{name: bench, address: \"bench:9000\", host: 127.0.0.1, port: {}, target: server}}\n",
            site("public"),
            folder.join("server").display(),
            facts.serial,
            facts.fingerprint,
            server.port(),
        );
        let edge = format!(
            "{}router: {{mode: edge}}\ntls:\n- {{name: token, directory: {}}}\n\
             links:\n- {{name: token, role: edge, host: 127.0.0.1, port: {link}, cost: 1, tls: token}}\n\
             listeners:\n- {{name: bench, address: \"bench:9000\", host: 127.0.0.1, port: {}}}\n",
            site("edge"),
            folder.join("token").display(),
            listener.port(),
        );
        let routers = vec![router(folder, "public", &public)?, router(folder, "edge", &edge)?];
        let pair = Self { routers, listener };
        pair.wait(folder)?;
        Ok(pair)
    }

    /// Waits until an echo comes back through the link.
    fn wait(&self, folder: &Path) -> anyhow::Result<()> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let echo = connect(self.listener, b'e').and_then(|mut stream| {
                stream.write_all(b"?")?;
                let mut back = [0];
                Ok(stream.read_exact(&mut back)?)
            });
            match echo {
                Ok(()) => return Ok(()),
                Err(_) if Instant::now() < deadline => thread::sleep(Duration::from_millis(50)),
                Err(error) => {
                    for name in ["public", "edge"] {
                        eprintln!(
                            "{}",
                            fs::read_to_string(folder.join(format!("{name}.log"))).unwrap_or_default()
                        );
                    }
                    return Err(error).context("the routers did not link in 20 s");
                }
            }
        }
    }
}

fn write_profile(folder: &Path, credential: &Credential) -> anyhow::Result<()> {
    fs::create_dir_all(folder)?;
    fs::write(folder.join("tls.crt"), &credential.certificate_pem)?;
    fs::write(folder.join("tls.key"), &credential.key_pem)?;
    Ok(fs::write(folder.join("ca.crt"), &credential.ca_pem)?)
}

fn router(folder: &Path, name: &str, document: &str) -> anyhow::Result<Child> {
    let file = folder.join(format!("{name}.yaml"));
    fs::write(&file, document)?;
    let log = fs::File::create(folder.join(format!("{name}.log")))?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_karez"));
    command
        .args(["router", "--config"])
        .arg(file)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    command.spawn().context("karez router")
}

impl Drop for Pair {
    fn drop(&mut self) {
        for router in &mut self.routers {
            // It may have ended by itself; waiting for it is what matters.
            let _ = router.kill();
            let _ = router.wait();
        }
    }
}
