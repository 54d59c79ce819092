//! What each block allows but the document as a whole does not, or not sensibly: endpoints that cannot be dialled,
//! credentials that are not there, components that nothing uses.

mod context;
mod unused;

use std::collections::HashMap;

use indexmap::IndexSet;
use karez_document::yaml::{Node, closest};
use karez_document::{Diagnosis, Place};

use crate::common::{Auth, ClientTls, GrpcClient, GrpcServer, HttpServer};
use crate::component::{ExporterConfig, ExtensionConfig, ReceiverConfig};
use crate::document::{Sections, Written};
use crate::endpoint::{grpc_target, http_url, listen_endpoint};
use crate::exporters::OtlpHttpExporter;
use crate::values::ComponentId;

/// What pipelines and the service use.
pub(crate) struct Used {
    pub(crate) receivers: IndexSet<ComponentId>,
    pub(crate) processors: IndexSet<ComponentId>,
    pub(crate) exporters: IndexSet<ComponentId>,
    pub(crate) connectors: IndexSet<ComponentId>,
    pub(crate) extensions: IndexSet<ComponentId>,
}

/// Why a component (`exporters.otlp/x`) cannot work, though the others can.
pub(crate) type Faults = HashMap<String, Diagnosis>;

/// Adds what is wrong and gives the components' faults (which are among the diagnoses, too).
pub(crate) fn lint(sections: &Sections, used: &Used, diagnoses: &mut Vec<Diagnosis>) -> Faults {
    let mut lint = Lint {
        sections,
        used,
        diagnoses,
        faults: Faults::new(),
    };
    lint.receivers();
    lint.exporters();
    lint.extensions();
    lint.unused("receiver", &sections.receivers, &used.receivers);
    lint.unused("processor", &sections.processors, &used.processors);
    lint.unused("exporter", &sections.exporters, &used.exporters);
    lint.unused("connector", &sections.connectors, &used.connectors);
    lint.unused_extensions();
    lint.faults
}

struct Lint<'a> {
    sections: &'a Sections,
    used: &'a Used,
    diagnoses: &'a mut Vec<Diagnosis>,
    faults: Faults,
}

fn place_of(node: &Node, path: &[&str]) -> Place {
    let (last, before) = path.split_last().expect("invariant: paths name a key");
    let mut at = node;
    for key in before {
        match at.get(key) {
            Some(below) => at = below,
            None => break,
        }
    }
    at.key_place(last)
}

/// Splits `message; mend`.
fn parts(text: &str) -> (&str, &str) {
    text.split_once("; ").unwrap_or((text, "correct it"))
}

impl Lint<'_> {
    fn error(&mut self, place: Place, key: String, message: &str, mend: &str) {
        self.diagnoses.push(Diagnosis::error(place, key, message, mend));
    }

    fn warning(&mut self, place: Place, key: String, message: &str, mend: &str) {
        self.diagnoses.push(Diagnosis::warning(place, key, message, mend));
    }

    /// An error of one component, with which the others still run. Without use it only warns.
    fn fault(&mut self, component: &str, used: bool, place: Place, key: String, text: &str) {
        let (message, mend) = parts(text);
        if !used {
            return self.warning(place, key, message, mend);
        }
        let diagnosis = Diagnosis::error(place, key, message, mend);
        self.diagnoses.push(diagnosis.clone());
        self.faults.entry(component.to_owned()).or_insert(diagnosis);
    }

    fn receivers(&mut self) {
        let sections = self.sections;
        for (id, written) in &sections.receivers.written {
            let at = format!("receivers.{id}");
            match &written.config {
                Some(ReceiverConfig::Otlp(otlp)) => {
                    if let Some(grpc) = &otlp.grpc {
                        self.grpc_server(grpc, &at, written, &["protocols", "grpc"]);
                    }
                    if let Some(http) = &otlp.http {
                        self.http_server(&http.server, &at, &written.node, &["protocols", "http"]);
                    }
                }
                Some(ReceiverConfig::Jaeger(jaeger)) => {
                    let protocols = &jaeger.protocols;
                    if let Some(grpc) = &protocols.grpc {
                        self.grpc_server(grpc, &at, written, &["protocols", "grpc"]);
                    }
                    if let Some(http) = &protocols.thrift_http {
                        self.http_server(http, &at, &written.node, &["protocols", "thrift_http"]);
                    }
                    let udp = [
                        ("thrift_compact", &protocols.thrift_compact),
                        ("thrift_binary", &protocols.thrift_binary),
                    ];
                    for (name, udp) in udp {
                        let endpoint = udp.as_ref().map_or("", |udp| udp.endpoint.as_str());
                        self.listens(endpoint, &at, &written.node, &["protocols", name]);
                    }
                }
                Some(ReceiverConfig::Zipkin(zipkin)) => {
                    self.http_server(&zipkin.server, &at, &written.node, &[]);
                }
                // All that can be wrong is said where it is read.
                Some(ReceiverConfig::Prometheus(_)) | None => {}
            }
        }
    }

    fn listens(&mut self, endpoint: &str, at: &str, node: &Node, path: &[&str]) {
        if endpoint.is_empty() {
            return;
        }
        if let Err(wrong) = listen_endpoint(endpoint) {
            let path = [path, &["endpoint"]].concat();
            let (message, mend) = parts(&wrong);
            self.error(
                place_of(node, &path),
                format!("{at}.{}", path.join(".")),
                message,
                mend,
            );
        }
    }

    /// A server listens on TCP, or on a socket of the file system.
    fn listens_by(&mut self, transport: &str, endpoint: &str, at: &str, node: &Node, path: &[&str]) {
        let (name, message, mend) = match transport {
            "" | "tcp" => return self.listens(endpoint, at, node, path),
            "unix" if endpoint.contains('/') => return,
            "unix" => (
                "endpoint",
                "a socket of the file system needs a path",
                "write such as `endpoint: /run/otel/otlp.sock`",
            ),
            _ => ("transport", "is not supported", "write `tcp` or `unix`"),
        };
        let path = [path, &[name]].concat();
        let key = format!("{at}.{}", path.join("."));
        self.error(place_of(node, &path), key, message, mend);
    }

    fn grpc_server<T>(&mut self, server: &GrpcServer, at: &str, written: &Written<T>, path: &[&str]) {
        self.listens_by(&server.transport, &server.endpoint, at, &written.node, path);
        self.server_tls(server.tls.as_ref(), at, &written.node, path);
        self.authenticator(server.auth.as_ref(), at, &written.node, path, Side::Server);
    }

    fn http_server(&mut self, server: &HttpServer, at: &str, node: &Node, path: &[&str]) {
        self.listens_by(&server.transport, &server.endpoint, at, node, path);
        self.server_tls(server.tls.as_ref(), at, node, path);
        self.authenticator(server.auth.as_ref(), at, node, path, Side::Server);
    }

    fn server_tls(&mut self, tls: Option<&crate::common::ServerTls>, at: &str, node: &Node, path: &[&str]) {
        let Some(tls) = tls else { return };
        let certificate = !tls.cert_file.is_empty() || !tls.cert_pem.is_empty();
        let key = !tls.key_file.is_empty() || !tls.key_pem.is_empty();
        if !(certificate && key) {
            let path = [path, &["tls"]].concat();
            let message = "a server needs a certificate and its key";
            let mend = "write `cert_file:` and `key_file:`";
            self.error(
                place_of(node, &path),
                format!("{at}.{}", path.join(".")),
                message,
                mend,
            );
        }
        self.versions(
            &tls.min_version,
            &tls.max_version,
            at,
            node,
            &[path, &["tls"]].concat(),
        );
    }

    fn versions(&mut self, min: &str, max: &str, at: &str, node: &Node, path: &[&str]) {
        for (name, version) in [("min_version", min), ("max_version", max)] {
            if matches!(version, "" | "1.2" | "1.3") {
                continue;
            }
            let path = [path, &[name]].concat();
            let message = format!("TLS {version} is not supported");
            self.error(
                place_of(node, &path),
                format!("{at}.{}", path.join(".")),
                &message,
                "write \"1.2\" or \"1.3\"",
            );
        }
    }

    fn exporters(&mut self) {
        let sections = self.sections;
        for (id, written) in &sections.exporters.written {
            let at = format!("exporters.{id}");
            let used = self.used.exporters.contains(id);
            match &written.config {
                Some(ExporterConfig::Otlp(exporter)) => {
                    self.grpc_client(&exporter.client, &at, used, written)
                }
                Some(ExporterConfig::Jaeger(exporter)) => {
                    self.grpc_client(&exporter.client, &at, used, written);
                    self.jaeger_tls(&exporter.client, &at, written);
                }
                Some(ExporterConfig::OtlpHttp(exporter)) => self.http_client(exporter, &at, used, written),
                Some(ExporterConfig::JaegerStorage(exporter)) => {
                    self.store(&exporter.trace_storage, &at, &written.node, &["trace_storage"]);
                }
                Some(ExporterConfig::Prometheus(exporter)) => {
                    self.http_server(&exporter.server, &at, &written.node, &[]);
                }
                Some(ExporterConfig::PrometheusRemoteWrite(exporter)) => {
                    self.remote_write(&exporter.client, &at, used, written);
                }
                Some(ExporterConfig::Zipkin(exporter)) => {
                    self.remote_write(&exporter.client, &at, used, written);
                }
                Some(ExporterConfig::LoadBalancing(exporter)) => {
                    if let Some(node) = written.node.at_path(&["protocol", "otlp"]) {
                        let client = &exporter.otlp.client;
                        let at = format!("{at}.protocol.otlp");
                        self.client_tls(&client.tls, &at, node);
                        self.authenticator(client.auth.as_ref(), &at, node, &[], Side::Client);
                    }
                }
                Some(ExporterConfig::Debug(_) | ExporterConfig::Logging(_) | ExporterConfig::File(_))
                | None => {}
            }
            if let Some(node) = written
                .node
                .at_path(&["sending_queue", "storage"])
                .filter(|node| !node.is_null())
            {
                self.storage(node, &format!("{at}.sending_queue.storage"));
                let partition = written.node.at_path(&["sending_queue", "batch", "partition"]);
                if let Some(partition) = partition.filter(|partition| !partition.is_null()) {
                    let key = format!("{at}.sending_queue.batch.partition");
                    let message = "does not go with a queue on disk, which does not keep headers";
                    self.error(partition.place(), key, message, "remove it, or `storage:`");
                }
            }
            self.context(&written.node, &at);
            if id.kind == "logging" && used {
                self.warning(
                    written.place.clone(),
                    at,
                    "`logging` is an old spelling",
                    "write `debug`",
                );
            }
        }
    }

    fn grpc_client(&mut self, client: &GrpcClient, at: &str, used: bool, written: &Written<ExporterConfig>) {
        let node = &written.node;
        let place = place_of(node, &["endpoint"]);
        let key = format!("{at}.endpoint");
        let target = match grpc_target(&client.endpoint) {
            Ok(target) => target,
            Err(wrong) => return self.fault(at, used, place, key, &wrong),
        };
        if target.tls == Some(false) {
            let message = "a gRPC endpoint needs no scheme; `http://` means without TLS";
            let rest = client
                .endpoint
                .trim_start_matches("http://")
                .trim_end_matches('/');
            let mend = format!("write `{rest}` and `tls: {{insecure: true}}`");
            self.warning(place, key, message, &mend);
        }
        self.client_tls(&client.tls, at, node);
        self.authenticator(client.auth.as_ref(), at, node, &[], Side::Client);
        if uses_tls(client, target.tls) {
            return;
        }
        if let Some(ExtensionConfig::BasicAuth(_)) = self.extension(client.auth.as_ref()) {
            let text = "basic credentials would travel in the clear, which gRPC refuses; \
                        use TLS: remove `insecure: true` and `http://`";
            self.fault(at, used, place_of(node, &["auth"]), format!("{at}.auth"), text);
        }
    }

    fn jaeger_tls(&mut self, client: &GrpcClient, at: &str, written: &Written<ExporterConfig>) {
        let scheme = grpc_target(&client.endpoint).ok().and_then(|target| target.tls);
        if written.node.get("tls").is_none() && scheme.is_none() {
            let message = "there is no `tls:` block, so TLS is insisted on, which a Jaeger collector does not serve \
                           unless it is told to";
            let mend = "write `tls: {insecure: true}`, or `tls: {}` if it does serve TLS";
            self.warning(written.place.clone(), format!("{at}.tls"), message, mend);
        }
    }

    fn client_tls(&mut self, tls: &ClientTls, at: &str, node: &Node) {
        let certificate = !tls.cert_file.is_empty() || !tls.cert_pem.is_empty();
        let key = !tls.key_file.is_empty() || !tls.key_pem.is_empty();
        if certificate != key {
            let message = "a certificate and its key belong together";
            self.error(
                place_of(node, &["tls"]),
                format!("{at}.tls"),
                message,
                "write `cert_file:` and `key_file:`",
            );
        }
        self.versions(&tls.min_version, &tls.max_version, at, node, &["tls"]);
    }

    fn http_client(
        &mut self,
        exporter: &OtlpHttpExporter,
        at: &str,
        used: bool,
        written: &Written<ExporterConfig>,
    ) {
        let node = &written.node;
        let settings = &exporter.settings;
        let own = [
            ("traces_endpoint", &settings.traces_endpoint),
            ("metrics_endpoint", &settings.metrics_endpoint),
            ("logs_endpoint", &settings.logs_endpoint),
        ];
        let endpoint = ("endpoint", &exporter.client.endpoint);
        let some = own.iter().any(|(_, text)| !text.is_empty());
        for (name, text) in own.into_iter().chain([endpoint]) {
            if text.is_empty() && (some || name != "endpoint") {
                continue;
            }
            if let Err(wrong) = http_url(text) {
                self.fault(at, used, place_of(node, &[name]), format!("{at}.{name}"), &wrong);
            }
        }
        self.client_tls(&exporter.client.tls, at, node);
        self.authenticator(exporter.client.auth.as_ref(), at, node, &[], Side::Client);
    }

    fn remote_write(
        &mut self,
        client: &crate::common::HttpClient,
        at: &str,
        used: bool,
        written: &Written<ExporterConfig>,
    ) {
        let node = &written.node;
        if let Err(wrong) = http_url(&client.endpoint) {
            let place = place_of(node, &["endpoint"]);
            self.fault(at, used, place, format!("{at}.endpoint"), &wrong);
        }
        self.client_tls(&client.tls, at, node);
        self.authenticator(client.auth.as_ref(), at, node, &[], Side::Client);
    }

    fn extension(&self, auth: Option<&Auth>) -> Option<&ExtensionConfig> {
        let id: ComponentId = auth?.authenticator.parse().ok()?;
        self.sections.extensions.written.get(&id)?.config.as_ref()
    }

    /// Checks that an authenticator is there, is started, and can do what is asked of it.
    fn authenticator(&mut self, auth: Option<&Auth>, at: &str, node: &Node, path: &[&str], side: Side) {
        let Some(auth) = auth else { return };
        let path = [path, &["auth", "authenticator"]].concat();
        let place = place_of(node, &path);
        let key = format!("{at}.{}", path.join("."));
        let name = &auth.authenticator;
        let id = name.parse::<ComponentId>().ok();
        let Some((id, written)) = id.and_then(|id| {
            let written = self.sections.extensions.written.get(&id)?;
            Some((id, written))
        }) else {
            let ids: Vec<String> = self
                .sections
                .extensions
                .written
                .keys()
                .map(ToString::to_string)
                .collect();
            let mend = match closest(name, ids.iter().map(String::as_str)) {
                Some(meant) => format!("did you mean `{meant}`?"),
                None => "add it below `extensions:` and to `service.extensions`".to_owned(),
            };
            return self.error(
                place,
                key,
                &format!("names the extension `{name}`, which is not configured"),
                &mend,
            );
        };
        if !self.used.extensions.contains(&id) {
            let message = format!("names the extension `{name}`, which `service.extensions` does not start");
            return self.error(
                place,
                key,
                &message,
                &format!("write `service: {{extensions: [{name}]}}`"),
            );
        }
        let fits = match (&written.config, side) {
            (Some(ExtensionConfig::BasicAuth(basic)), Side::Server) => basic.htpasswd.is_some(),
            (Some(ExtensionConfig::BasicAuth(basic)), Side::Client) => basic.client_auth.is_some(),
            (Some(ExtensionConfig::BearerTokenAuth(_)) | None, _) => true,
            (Some(ExtensionConfig::Oidc(_)), Side::Server) => true,
            (Some(ExtensionConfig::OAuth2Client(_) | ExtensionConfig::HeadersSetter(_)), Side::Client) => {
                true
            }
            (Some(_), _) => false,
        };
        if !fits {
            let (who, what) = match side {
                Side::Server => ("callers", "`htpasswd:`"),
                Side::Client => ("us to others", "`client_auth:`"),
            };
            let message = format!("the extension `{name}` cannot authenticate {who}");
            self.error(
                place,
                key,
                &message,
                &format!("name an authenticator, such as basicauth with {what}"),
            );
        }
    }
}

#[derive(Clone, Copy)]
enum Side {
    Server,
    Client,
}

/// Whether a gRPC client speaks TLS: a scheme decides, else the `tls` block, in which an authority outweighs
/// `insecure`.
pub fn uses_tls(client: &GrpcClient, scheme: Option<bool>) -> bool {
    let authority = !client.tls.ca_file.is_empty() || !client.tls.ca_pem.is_empty();
    scheme.unwrap_or(!client.tls.insecure || authority)
}
