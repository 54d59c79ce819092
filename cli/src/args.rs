//! What can be written on the command line, and nothing of what it does.

use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;
use std::time::Duration;

/// The whole command line.
#[derive(Debug, Parser)]
#[command(
    name = "karez",
    version,
    about = "Carries telemetry from edge sites to a public one; the edge opens no port",
    after_help = "Start here:\n  karez demo                       two sites on this machine, spans from one to the other\n  karez site run ./my-site         a site from a directory of manifests\n  karez network status             what is linked to what\n",
    arg_required_else_help = true,
    propagate_version = true
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
    /// How much the programs log: error, warn, info, debug, trace (RUST_LOG wins)
    #[arg(long, global = true, value_name = "LEVEL", help_heading = "Logs")]
    pub(crate) log_level: Option<String>,
    /// How log lines look
    #[arg(
        long,
        global = true,
        value_enum,
        default_value = "text",
        help_heading = "Logs"
    )]
    pub(crate) log_format: LogFormat,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub(crate) enum LogFormat {
    /// For people.
    Text,
    /// One JSON object a line.
    Json,
}

/// How a table or tree is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Default)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Text,
    /// For programs.
    Json,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run two sites on this machine and carry spans from one to the other
    #[command(
        after_help = "Examples:\n  karez demo                 stays until Ctrl-C, so that you can look around\n  karez demo --exit          ends with status 0 when every span arrived\n  karez demo --state ./demo  keeps the sites' state\n"
    )]
    Demo(DemoArgs),
    /// Run a site on this machine
    #[command(subcommand)]
    Site(SiteCommand),
    /// Run a router from its document
    #[command(
        after_help = "Examples:\n  karez router --config router.yaml\n  karez router --config kube:default/skupper-internal\n"
    )]
    Router(RouterArgs),
    /// Run a collector, or check its configuration
    #[command(
        args_conflicts_with_subcommands = true,
        after_help = "Examples:\n  karez collector --config collector.yaml\n  karez collector --config a.yaml --config b.yaml --set processors.batch.timeout=2s\n  karez collector validate --config collector.yaml\n"
    )]
    Collector(CollectorArgs),
    /// Divide Prometheus targets among collectors
    #[command(
        after_help = "It takes the flags of the OpenTelemetry target allocator.\n\nExamples:\n  karez allocator --config-file allocator.yaml\n  karez allocator explain --address localhost:8080 10.0.0.7:9100\n"
    )]
    Allocator(AllocatorArgs),
    /// Turn what users declare into objects that run
    #[command(
        after_help = "Examples:\n  karez site-controller --kubeconfig ~/.kube/config\n  WATCH_NAMESPACE=west karez site-controller\n  karez site-controller --print-crds | kubectl apply -f -\n"
    )]
    SiteController(SiteControllerArgs),
    /// Keep a site's addresses and its view of the network; configured by environment
    #[command(
        after_help = "Environment: SKUPPER_NAMESPACE, SKUPPER_SITE_NAME, SKUPPER_SITE_ID, SKUPPER_ROUTER_MODE, OWNER_NAME, OWNER_UID\n\nExample:\n  SKUPPER_NAMESPACE=west SKUPPER_SITE_ID=… karez service-controller\n"
    )]
    ServiceController(ServiceControllerArgs),
    /// Look for what keeps a link from being made: names, proxy, TCP, UDP, MTU, TLS, clock, token
    #[command(
        after_help = "Examples:\n  karez doctor public.example.com:45671\n  karez doctor --token edge.yaml\n  karez doctor --token edge.yaml -o json\n"
    )]
    Doctor(DoctorArgs),
    /// Make and look at connection tokens
    #[command(subcommand)]
    Token(TokenCommand),
    /// Make what sites prove themselves with at the ends of sealed services
    #[command(subcommand)]
    Seal(SealCommand),
    /// Look at links to other sites
    #[command(subcommand)]
    Link(LinkCommand),
    /// Offer a workload or a Service to all linked sites
    #[command(
        after_help = "Examples:\n  karez expose service/otel-collector-app-collector --address otel-liked-collector\n  karez expose deployment/backend --port 8080\n"
    )]
    Expose(ExposeArgs),
    /// Take an exposed workload or Service back
    #[command(
        after_help = "Examples:\n  karez unexpose service/otel-collector-app-collector --address otel-liked-collector\n  karez unexpose deployment/backend\n"
    )]
    Unexpose(UnexposeArgs),
    /// Look at exposed addresses
    #[command(subcommand)]
    Service(ServiceCommand),
    /// Look at the whole network
    #[command(subcommand)]
    Network(NetworkCommand),
    /// Say how a site is, and which of its ports nothing serves yet
    #[command(after_help = "Examples:\n  karez status\n  karez status --site public -o json\n")]
    Status(StatusArgs),
    /// Send spans to a collector
    #[command(subcommand)]
    Telemetrygen(TelemetrygenCommand),
    /// Print a shell's completion script
    #[command(after_help = "Example:\n  karez completion bash > /etc/bash_completion.d/karez\n")]
    Completion {
        /// The shell
        shell: clap_complete::Shell,
    },
}

/// Which site or cluster a command acts on.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Which site")]
pub(crate) struct Target {
    /// kubeconfig of the cluster (default: the local site that runs)
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// Context of the kubeconfig
    #[arg(long, short = 'c', value_name = "NAME")]
    pub(crate) context: Option<String>,
    /// Namespace of the site
    #[arg(long, short = 'n', value_name = "NAME")]
    pub(crate) namespace: Option<String>,
    /// Name of a local site, as `karez site run --name` gave it
    #[arg(long, value_name = "NAME", conflicts_with_all = ["kubeconfig", "context"])]
    pub(crate) site: Option<String>,
}

/// `karez demo`
#[derive(Debug, Args)]
pub(crate) struct DemoArgs {
    /// Leave as soon as every span arrived (or did not)
    #[arg(long)]
    pub(crate) exit: bool,
    /// Keep the sites' state here instead of in a temporary folder
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
}

/// `karez site …`
#[derive(Debug, Subcommand)]
pub(crate) enum SiteCommand {
    /// Run a site from a directory of manifests, and follow the directory
    #[command(
        after_help = "Examples:\n  karez site run ./public-cloud\n  karez site run ./edge --name edge --state ./edge-state\n  karez site run ./public-cloud --host 192.0.2.10    accept links from other machines\n"
    )]
    Run(SiteRunArgs),
}

/// `karez site run`
#[derive(Debug, Args)]
pub(crate) struct SiteRunArgs {
    /// Directory of manifests (*.yaml and *.yml at any depth)
    pub(crate) dir: PathBuf,
    /// Where the site keeps its state (default: $XDG_STATE_HOME/karez/NAME)
    #[arg(long, value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,
    /// Name of the local site: its state and its kubeconfig context (default: the directory's)
    #[arg(long, value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Address at which other machines reach this site (default: loopback only)
    #[arg(long, value_name = "ADDRESS")]
    pub(crate) host: Option<std::net::IpAddr>,
    /// Namespace of manifests that name none
    #[arg(long, short = 'n', value_name = "NAME", default_value = "default")]
    pub(crate) namespace: String,
}

/// `karez router`
#[derive(Debug, Args)]
pub(crate) struct RouterArgs {
    /// The router's document: a file, or kube:NAMESPACE/NAME[#KEY]
    #[arg(long, value_name = "SOURCE")]
    pub(crate) config: String,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez allocator`
#[derive(Debug, Args)]
pub(crate) struct AllocatorArgs {
    #[command(subcommand)]
    pub(crate) command: Option<AllocatorCommand>,
    #[command(flatten)]
    pub(crate) run: AllocatorRunArgs,
}

/// `karez allocator …`
#[derive(Debug, Subcommand)]
#[expect(
    clippy::large_enum_variant,
    reason = "there is one for each run of the program"
)]
pub(crate) enum AllocatorCommand {
    /// Show what became of a target, rule by rule, who scrapes it and why
    #[command(after_help = "Example:\n  karez allocator explain --address localhost:8080 10.0.0.7:9100\n")]
    Explain(AllocatorExplainArgs),
    /// Report everything that is wrong with a configuration, without running it
    #[command(after_help = "Example:\n  karez allocator validate --config-file allocator.yaml\n")]
    Validate(AllocatorRunArgs),
}

/// `karez allocator explain`
#[derive(Debug, Args)]
pub(crate) struct AllocatorExplainArgs {
    /// HOST:PORT of the target, an identity, or the value of one of its labels
    pub(crate) target: String,
    /// Where the allocator listens
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8080")]
    pub(crate) address: String,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// The options of the OpenTelemetry target allocator.
#[derive(Debug, Clone, Args)]
pub(crate) struct AllocatorRunArgs {
    /// The configuration
    #[arg(long, value_name = "FILE", default_value = "/conf/targetallocator.yaml")]
    pub(crate) config_file: PathBuf,
    /// Where HTTP is served
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen_addr: Option<String>,
    /// Follow ServiceMonitors, PodMonitors, Probes and ScrapeConfigs
    #[arg(long)]
    pub(crate) enable_prometheus_cr_watcher: bool,
    /// A kubeconfig
    #[arg(long, value_name = "FILE")]
    pub(crate) kubeconfig_path: Option<String>,
    /// Serve HTTPS to clients with certificates
    #[arg(long)]
    pub(crate) enable_https_server: bool,
    /// Where HTTPS is served
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) listen_addr_https: Option<String>,
    /// The authority of clients' certificates
    #[arg(long, value_name = "FILE")]
    pub(crate) https_ca_file: Option<String>,
    /// The certificate of HTTPS
    #[arg(long, value_name = "FILE")]
    pub(crate) https_tls_cert_file: Option<String>,
    /// Its key
    #[arg(long, value_name = "FILE")]
    pub(crate) https_tls_key_file: Option<String>,
    /// Give secrets over plain HTTP, too
    #[arg(long, env = "ALLOW_INSECURE_AUTH_SECRETS", value_parser = clap::builder::BoolishValueParser::new(), num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    pub(crate) allow_insecure_auth_secrets: Option<bool>,
    /// Namespace of the collectors
    #[arg(long, env = "OTELCOL_NAMESPACE", hide = true)]
    pub(crate) collector_namespace: Option<String>,
    /// Flags of the original's logger; ignored
    #[arg(long, hide = true, num_args = 0..=1)]
    pub(crate) zap_devel: Option<Option<String>>,
    /// Ignored
    #[arg(long, hide = true)]
    pub(crate) zap_encoder: Option<String>,
    /// Ignored
    #[arg(long, hide = true)]
    pub(crate) zap_log_level: Option<String>,
    /// Ignored
    #[arg(long, hide = true)]
    pub(crate) zap_stacktrace_level: Option<String>,
    /// Ignored
    #[arg(long, hide = true)]
    pub(crate) zap_time_encoding: Option<String>,
}

/// `karez collector`
#[derive(Debug, Args)]
pub(crate) struct CollectorArgs {
    #[command(subcommand)]
    pub(crate) command: Option<CollectorCommand>,
    #[command(flatten)]
    pub(crate) run: CollectorRunArgs,
}

/// `karez collector …`
#[derive(Debug, Subcommand)]
// One of these is made in a run: an indirection would save nothing.
#[allow(clippy::large_enum_variant)]
pub(crate) enum CollectorCommand {
    /// Report everything that is wrong with a configuration, without running it
    #[command(after_help = "Example:\n  karez collector validate --config collector.yaml\n")]
    Validate(CollectorRunArgs),
    /// List the components that the collector has, as YAML
    #[command(after_help = "Example:\n  karez collector components\n")]
    Components,
    /// Show what became of every item that a running collector took
    #[command(
        after_help = "It asks where the collector serves its own metrics (service.telemetry.metrics).\n\nExamples:\n  karez collector status\n  karez collector status --address 127.0.0.1:8889 -o json\n"
    )]
    Status(CollectorStatusArgs),
}

/// `karez collector status`
#[derive(Debug, Args)]
pub(crate) struct CollectorStatusArgs {
    /// Where the collector serves its own metrics
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:8888")]
    pub(crate) address: String,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value_t = Output::Text)]
    pub(crate) output: Output,
}

/// The options of a collector, with the older ones still found in the wild.
#[derive(Debug, Clone, Args)]
pub(crate) struct CollectorRunArgs {
    /// A configuration: a file, kube:NAMESPACE/NAME[#KEY], env:NAME, yaml:TEXT or an http(s) URL; later ones win
    #[arg(long, value_name = "SOURCE")]
    pub(crate) config: Vec<String>,
    /// One setting over the configuration: section.name.key=value
    #[arg(long, value_name = "KEY=VALUE")]
    pub(crate) set: Vec<String>,
    /// Feature gates, comma separated; -NAME turns one off
    #[arg(long, value_name = "GATES", allow_hyphen_values = true)]
    pub(crate) feature_gates: Vec<String>,
    /// Where the collector's own metrics are served (older; now service.telemetry.metrics)
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) metrics_addr: Option<String>,
    /// Level of the collector's own metrics (older)
    #[arg(long, value_name = "LEVEL")]
    pub(crate) metrics_level: Option<String>,
    /// Level of the logs (older)
    #[arg(long, value_name = "PROFILE")]
    pub(crate) log_profile: Option<String>,
    /// Memory ballast (older; ignored)
    #[arg(long, value_name = "MIB")]
    pub(crate) mem_ballast_size_mib: Option<u64>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez site-controller`
#[derive(Debug, Args)]
pub(crate) struct SiteControllerArgs {
    /// Print the CustomResourceDefinitions as YAML and leave
    #[arg(long)]
    pub(crate) print_crds: bool,
    /// Leave out the Service port 55681 that older OTLP exporters use
    #[arg(long)]
    pub(crate) no_legacy_otlp_port: bool,
    /// Serve the sidecar webhook here, such as 0.0.0.0:9443
    #[arg(long, env = "KAREZ_WEBHOOK_LISTEN", value_name = "HOST:PORT")]
    pub(crate) webhook_listen: Option<String>,
    /// Service by which the API server reaches the webhook
    #[arg(
        long,
        env = "KAREZ_WEBHOOK_SERVICE",
        value_name = "NAME",
        default_value = "karez-webhook"
    )]
    pub(crate) webhook_service: String,
    /// Watch this namespace only (default: all)
    #[arg(long, env = "WATCH_NAMESPACE", value_name = "NAME")]
    pub(crate) watch_namespace: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez service-controller`
#[derive(Debug, Args)]
pub(crate) struct ServiceControllerArgs {
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez doctor`
#[derive(Debug, Args)]
pub(crate) struct DoctorArgs {
    /// The peer's address for links (default: the token's)
    #[arg(value_name = "HOST:PORT")]
    pub(crate) target: Option<String>,
    /// A token's file: its address is looked at, and whether the peer admits it
    #[arg(long, value_name = "FILE")]
    pub(crate) token: Option<PathBuf>,
    /// Which of the token's addresses
    #[arg(long, value_enum, default_value = "edge")]
    pub(crate) role: DoctorRole,
    /// Port for claims at the same host, where the clock is asked
    #[arg(long, value_name = "PORT", default_value_t = 8081)]
    pub(crate) claims_port: u16,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub(crate) output: Output,
}

/// Which of a token's addresses is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum DoctorRole {
    /// The one for edges.
    Edge,
    /// The one for interior routers.
    InterRouter,
}

/// `karez token …`
#[derive(Debug, Subcommand)]
pub(crate) enum TokenCommand {
    /// Make a token that lets another site link to this one
    #[command(
        after_help = "Examples:\n  karez token create edge.yaml\n  karez token create edge.yaml --name shop-7 --site public\n  karez token create shop.yaml --token-type cert --reach collector:4317 --offer shop-7 --expiry 720h\n"
    )]
    Create(TokenCreateArgs),
    /// Say what a token holds and whether it is still good
    #[command(
        visible_alias = "status",
        after_help = "Examples:\n  karez token inspect edge.yaml\n  karez token inspect edge.yaml --site public    also asks the issuer\n"
    )]
    Inspect(TokenInspectArgs),
}

/// `karez seal …`
#[derive(Debug, Subcommand)]
pub(crate) enum SealCommand {
    /// Make the authority that vouches for the ends of sealed services; it stays with you
    #[command(after_help = "Examples:\n  karez seal authority seal.pem\n")]
    Authority(SealAuthorityArgs),
    /// Make a site's certificate for sealed services: a Secret to apply at that site
    #[command(
        after_help = "Examples:\n  karez seal issue hub.yaml --authority seal.pem --site hub --serve db\n  karez seal issue shop.yaml --authority seal.pem --site shop-7 --reach db,otel:4317\n"
    )]
    Issue(SealIssueArgs),
}

/// `karez seal authority`
#[derive(Debug, Args)]
pub(crate) struct SealAuthorityArgs {
    /// The file to write; it holds a private key and is made readable by you alone
    pub(crate) file: PathBuf,
    /// How long it is valid
    #[arg(long, value_name = "DURATION", default_value = "87600h", value_parser = karez_site::claim::duration)]
    pub(crate) lifetime: Duration,
}

/// `karez seal issue`
#[derive(Debug, Args)]
pub(crate) struct SealIssueArgs {
    /// The file to write; it holds a private key and is made readable by you alone
    pub(crate) file: PathBuf,
    /// The file of the authority
    #[arg(long)]
    pub(crate) authority: PathBuf,
    /// The site that it is for, as logs are to name it
    #[arg(long)]
    pub(crate) site: String,
    /// Addresses that the site serves sealed, NAME or NAME:PORT, * at the end
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS")]
    pub(crate) serve: Vec<String>,
    /// Addresses that the site reaches sealed, and never otherwise
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS")]
    pub(crate) reach: Vec<String>,
    /// How long it is valid
    #[arg(long, value_name = "DURATION", default_value = "8760h", value_parser = karez_site::claim::duration)]
    pub(crate) lifetime: Duration,
}

/// What a token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TokenType {
    /// The certificate itself.
    Cert,
    /// A right to fetch one, once and soon, by a password.
    Claim,
}

/// `karez token create`
#[derive(Debug, Args)]
pub(crate) struct TokenCreateArgs {
    /// The file to write; it holds a secret and is made readable by you alone
    pub(crate) file: PathBuf,
    /// The token's name; deleting the Secret of this name at the issuer revokes it (default: skupper; of a claim: made up)
    #[arg(long)]
    pub(crate) name: Option<String>,
    /// Kind of token
    #[arg(long, short = 't', value_enum, default_value = "claim")]
    pub(crate) token_type: TokenType,
    /// Password of a claim (default: made up)
    #[arg(long, short = 'p')]
    pub(crate) password: Option<String>,
    /// How long a claim can be redeemed (default: 15m; 0: without end), or until when a certificate token is good (default: without end)
    #[arg(long, value_name = "DURATION", value_parser = karez_site::claim::duration)]
    pub(crate) expiry: Option<Duration>,
    /// How often a claim can be redeemed (default: 1; 0: without limit), or how many sites may use a certificate token (default: any number)
    #[arg(long)]
    pub(crate) uses: Option<u32>,
    /// Addresses that the holder may reach, NAME or NAME:PORT, * at the end (default: all that is exposed)
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS", value_parser = address_pattern)]
    pub(crate) reach: Option<Vec<String>>,
    /// Addresses that the holder may offer, also those that others offer (default: what nobody else offers)
    #[arg(long, value_delimiter = ',', value_name = "ADDRESS", value_parser = address_pattern)]
    pub(crate) offer: Option<Vec<String>>,
    /// The only kind of link that the token is for
    #[arg(long, value_name = "ROLE", value_parser = ["edge", "inter-router"])]
    pub(crate) role: Option<String>,
    /// How long to wait for the site to issue it, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    pub(crate) timeout: u64,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez token inspect`
#[derive(Debug, Args)]
pub(crate) struct TokenInspectArgs {
    /// The token's file
    pub(crate) file: PathBuf,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez link …`
#[derive(Debug, Subcommand)]
pub(crate) enum LinkCommand {
    /// Say how the links of this site are
    #[command(
        after_help = "Examples:\n  karez link status\n  karez link status edge-link --site edge\n  karez link status -o json\n"
    )]
    Status(LinkStatusArgs),
}

/// `karez link status`
#[derive(Debug, Args)]
pub(crate) struct LinkStatusArgs {
    /// One link; all of them if left out
    pub(crate) name: Option<String>,
    /// Tell everything that is known: transport, round trip, loss, when certificates end
    #[arg(long, short = 'v')]
    pub(crate) verbose: bool,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez expose`
#[derive(Debug, Args)]
pub(crate) struct ExposeArgs {
    /// deployment/NAME, statefulset/NAME, daemonset/NAME or service/NAME (also as two words)
    #[arg(required = true, num_args = 1..=2, value_name = "KIND/NAME")]
    pub(crate) what: Vec<String>,
    /// The address that other sites use (default: the name; a Service needs one)
    #[arg(long)]
    pub(crate) address: Option<String>,
    /// Ports of the address (default: those of the target)
    #[arg(long, value_delimiter = ',', value_name = "PORT")]
    pub(crate) port: Vec<u16>,
    /// Ports of the target, as PORT:TARGET or one port
    #[arg(long, value_delimiter = ',', value_name = "PORT[:TARGET]")]
    pub(crate) target_port: Vec<String>,
    /// Protocol
    #[arg(long, default_value = "tcp", value_parser = ["tcp", "udp", "http", "http2"])]
    pub(crate) protocol: String,
    /// Encrypt its connections from the first to the last site, so that routers between cannot read them
    #[arg(long)]
    pub(crate) sealed: bool,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez unexpose`
#[derive(Debug, Args)]
pub(crate) struct UnexposeArgs {
    /// deployment/NAME, statefulset/NAME, daemonset/NAME or service/NAME (also as two words)
    #[arg(required = true, num_args = 1..=2, value_name = "KIND/NAME")]
    pub(crate) what: Vec<String>,
    /// The address it was exposed by (default: the name; a Service needs one)
    #[arg(long)]
    pub(crate) address: Option<String>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez service …`
#[derive(Debug, Subcommand)]
pub(crate) enum ServiceCommand {
    /// List the addresses that this site knows
    #[command(
        after_help = "Examples:\n  karez service status\n  karez service status --show-labels --site public\n"
    )]
    Status(ServiceStatusArgs),
}

/// `karez service status`
#[derive(Debug, Args)]
pub(crate) struct ServiceStatusArgs {
    /// Show the labels of the Services too
    #[arg(long)]
    pub(crate) show_labels: bool,
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez network …`
#[derive(Debug, Subcommand)]
pub(crate) enum NetworkCommand {
    /// Print all sites, their links and what they serve
    #[command(after_help = "Examples:\n  karez network status\n  karez network status --site edge -o json\n")]
    Status(StatusArgs),
}

/// A command that only reads and prints.
#[derive(Debug, Args)]
pub(crate) struct StatusArgs {
    /// How to print it
    #[arg(long, short = 'o', value_enum, default_value = "text")]
    pub(crate) output: Output,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// `karez telemetrygen …`
#[derive(Debug, Subcommand)]
pub(crate) enum TelemetrygenCommand {
    /// Send traces of two spans each
    #[command(
        after_help = "Examples:\n  karez telemetrygen traces --otlp-insecure --otlp-endpoint 127.0.0.1:4317 --traces 10\n  karez telemetrygen traces -otlp-insecure -otlp-endpoint 127.0.0.1:4317 -traces 10\n  karez telemetrygen traces --jaeger-endpoint 127.0.0.1:6831 --traces 10\n"
    )]
    Traces(TracesArgs),
}

/// `karez telemetrygen traces`
#[derive(Debug, Args)]
pub(crate) struct TracesArgs {
    /// Where to send OTLP
    #[arg(long, value_name = "HOST:PORT", default_value = "localhost:4317")]
    pub(crate) otlp_endpoint: String,
    /// Send without TLS
    #[arg(long)]
    pub(crate) otlp_insecure: bool,
    /// Send OTLP by HTTP instead of gRPC
    #[arg(long)]
    pub(crate) otlp_http: bool,
    /// Send Jaeger compact Thrift by UDP to this address instead
    #[arg(long, value_name = "HOST:PORT")]
    pub(crate) jaeger_endpoint: Option<String>,
    /// Trust these authorities instead of the system's (PEM)
    #[arg(long, value_name = "FILE")]
    pub(crate) ca_cert: Option<PathBuf>,
    /// Headers to send, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) otlp_header: Vec<(String, String)>,
    /// Attributes of the resource, KEY=VALUE
    #[arg(long, value_name = "KEY=VALUE", value_parser = key_value)]
    pub(crate) otlp_attributes: Vec<(String, String)>,
    /// Path of OTLP requests by HTTP
    #[arg(long, value_name = "PATH", default_value = "/v1/traces")]
    pub(crate) otlp_http_url_path: String,
    /// How many traces
    #[arg(long, default_value_t = 1)]
    pub(crate) traces: usize,
    /// Send for so many seconds instead of a number of traces
    #[arg(long, value_name = "SECONDS")]
    pub(crate) duration: Option<u64>,
    /// Traces a second; 0 is as many as go
    #[arg(long, default_value_t = 0.0)]
    pub(crate) rate: f64,
    /// Name of the service that the spans are of
    #[arg(long, visible_alias = "service-name", default_value = "telemetrygen")]
    pub(crate) service: String,
}

/// An address of a token's scope. One empty word means none at all.
fn address_pattern(text: &str) -> Result<String, String> {
    if text.is_empty() || karez_site::claim::is_pattern(text) {
        return Ok(text.to_owned());
    }
    Err("write NAME or NAME:PORT, with * at the end of the name or alone".to_owned())
}

/// `KEY=VALUE`, the value also in quotes, as telemetrygen takes it.
fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text.split_once('=').ok_or("write KEY=VALUE")?;
    let value = value
        .strip_prefix('"')
        .and_then(|value| value.strip_suffix('"'))
        .unwrap_or(value);
    Ok((key.to_owned(), value.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    fn parses(line: &str) -> bool {
        Cli::try_parse_from(line.split(' ')).is_ok()
    }

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn lines_that_others_write_are_understood() {
        for line in [
            "karez expose service/otel-collector-app-collector --address otel-liked-collector",
            "karez expose deployment backend --port 8080",
            "karez network status -o json --site edge",
            "karez collector --config a.yaml --config b.yaml --set processors.batch.timeout=2s",
            "karez collector --config=x --metrics-addr=:8889",
            "karez collector validate --config=x",
            "karez collector components",
            "karez collector status --address h:1 -o json",
            "karez token create f.yaml --token-type claim",
            "karez token create f.yaml -t cert --reach a,b:1 --offer c-* --expiry 1h --uses 2 --role edge",
            "karez token inspect f.yaml -o json",
            "karez telemetrygen traces --otlp-insecure --otlp-endpoint h:1 --traces 10",
            "karez link status",
            "karez status -n west --kubeconfig k",
            "karez site run d --state s --name n --host 127.0.0.1",
            "karez completion zsh",
            "karez doctor h:45671 --token t.yaml -o json --role inter-router",
            "karez demo --exit",
        ] {
            assert!(parses(line), "{line}");
        }
    }

    #[test]
    fn every_command_has_examples() {
        fn leaves(command: &clap::Command, path: &str, bare: &mut Vec<String>) {
            let path = format!("{path} {}", command.get_name());
            let below: Vec<_> = command
                .get_subcommands()
                .filter(|sub| sub.get_name() != "help")
                .collect();
            if below.is_empty() && command.get_after_help().is_none() {
                bare.push(path.clone());
            }
            for sub in below {
                leaves(sub, &path, bare);
            }
        }
        let mut bare = Vec::new();
        leaves(&Cli::command(), "", &mut bare);
        assert!(bare.is_empty(), "no examples: {bare:?}");
    }
}
