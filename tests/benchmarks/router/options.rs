//! The command line.

use clap::{Parser, ValueEnum};

/// Measures linked karez routers beside nginx, HAProxy, rathole and the bare connection.
#[derive(Debug, Parser)]
#[command(name = "router")]
pub(crate) struct Options {
    /// Whom to measure, separated by commas; everybody unless given.
    #[arg(long, alias = "only", value_delimiter = ',', value_enum)]
    pub(crate) contenders: Vec<Who>,
    /// What to measure, separated by commas; everything unless given.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) metrics: Vec<Metric>,
    /// Over which networks; all that can be made unless given. Only bulk is measured over others than loopback unless
    /// metrics are given.
    #[arg(long, value_delimiter = ',', value_enum)]
    pub(crate) paths: Vec<PathKind>,
    /// How long each measurement lasts.
    #[arg(long)]
    pub(crate) seconds: Option<f64>,
    /// How often everything is measured.
    #[arg(long)]
    pub(crate) rounds: Option<usize>,
    /// Two short rounds, memory with 1,000 connections only.
    #[arg(long)]
    pub(crate) quick: bool,
    /// Which cores the programs run on.
    #[arg(long, value_enum, default_value_t = Pinning::Sides)]
    pub(crate) pinning: Pinning,
    /// Let cores rest when nobody has work for them: in a virtual machine their way back is measured, too.
    #[arg(long)]
    pub(crate) let_sleep: bool,
    /// Stay in this network namespace: loopback only, and its congestion control.
    #[arg(long)]
    pub(crate) no_namespaces: bool,
    /// How to print the result.
    #[arg(short, long, value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,
    /// The karez binary to measure instead of the one built with the benchmark.
    #[arg(long, env = "KAREZ_BIN", default_value = env!("CARGO_BIN_EXE_karez"))]
    pub(crate) karez: String,
    /// Keys added to the near router's link, for instance `, congestion: bbr`.
    #[arg(long, default_value = "")]
    pub(crate) link_keys: String,
    /// Keys added to the port where the far router takes links, for instance `, congestion: bbr`.
    #[arg(long, default_value = "")]
    pub(crate) accept_keys: String,
    /// What `cargo bench` hands to every target.
    #[arg(long, hide = true)]
    pub(crate) bench: bool,
}

impl Options {
    pub(crate) fn wants(&self, who: Who) -> bool {
        self.contenders.is_empty() || self.contenders.contains(&who)
    }

    pub(crate) fn measures(&self, path: PathKind, metric: Metric) -> bool {
        if self.metrics.is_empty() {
            return path == PathKind::Loopback || matches!(metric, Metric::Bulk | Metric::Bulk8);
        }
        self.metrics.contains(&metric)
    }

    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick { 2 } else { 5 })
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.seconds.unwrap_or(if self.quick { 1.0 } else { 3.0 })
    }
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Who {
    /// The client connects to the server.
    Bare,
    /// Linked routers over QUIC.
    KarezQuic,
    /// Linked routers over TLS 1.3 on TCP.
    KarezTls,
    /// nginx `stream`, mutual TLS 1.3.
    Nginx,
    /// HAProxy, mutual TLS 1.3.
    Haproxy,
    /// rathole, TLS.
    Rathole,
}

impl Who {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bare => "bare",
            Self::KarezQuic => "karez-quic",
            Self::KarezTls => "karez-tls",
            Self::Nginx => "nginx",
            Self::Haproxy => "haproxy",
            Self::Rathole => "rathole",
        }
    }

    /// Whether it is one of those that others are compared with.
    pub(crate) fn is_peer(self) -> bool {
        matches!(self, Self::Nginx | Self::Haproxy | Self::Rathole)
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum Metric {
    /// One connection that carries as much as it can, from far to near.
    Bulk,
    /// Eight of them.
    Bulk8,
    /// 64 bytes there and back on one connection.
    Latency,
    /// Requests a second on 64 kept-alive connections.
    Rps,
    /// Connections a second: opened, 64 bytes there and back, closed; 32 at once.
    Cps,
    /// Memory idle, with 1,000 and with 10,000 open connections.
    Memory,
}

/// A network between the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
pub(crate) enum PathKind {
    /// Loopback.
    Loopback,
    /// A veth pair with an MTU of 1,500.
    Ethernet,
    /// The same, losing one packet in a hundred each way.
    Lossy,
}

impl PathKind {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Loopback => "loopback",
            Self::Ethernet => "1,500-byte path",
            Self::Lossy => "1,500-byte path, 1 % loss",
        }
    }
}

/// Which cores the programs run on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Pinning {
    /// Client and near proxy on core 0, far proxy and server on core 1.
    Sides,
    /// Everything on core 0.
    One,
    /// Wherever the kernel likes; peers get as many workers as there are cores.
    None,
}

/// How the result is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}
