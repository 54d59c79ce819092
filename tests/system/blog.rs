//! The blog's collectors for communication between clusters, as they are but for their placeholders: an edge site's
//! DaemonSet, an ingress with TLS, and a remote site behind basic authentication.
//!
//! ```text
//! trace-gen's address ─▶ edge collector (k8sattributes) ─TLS, basic─▶ nginx, as the Ingress says ─▶ remote collector ─▶ Jaeger
//! ```

use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, ensure};
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::{BufMut, Bytes, BytesMut};
use http::Request;
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::Timestamp;
use karez_identity::{Authority, Subject, Usage};
use libtest_mimic::Trial;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::Message;
use serde_json::Value;
use tokio::net::TcpSocket;

use crate::acceptance::named;
use crate::support::Outcome;
use crate::support::cluster::{Cluster, runtime, text};
use crate::support::daemon::{Daemon, free};
use crate::support::http::{complete_traces, trace};
use crate::support::manifests::replace;
use crate::support::peers::{acceptance, send};
use crate::support::site::{Site, finish, karez};
use crate::support::stage::{Need, Stage};
use crate::support::wait::wait_for;
use crate::trial;

pub(crate) fn trials() -> Vec<Trial> {
    const NEEDS: &[Need] = &[Need::Acceptance, Need::Peer("python"), Need::Program("nginx")];
    vec![trial(
        "blog::spans_cross_from_the_edge_cluster_to_the_remote_one",
        NEEDS,
        spans_cross,
    )]
}

/// The domain: the one name that is this machine wherever names are resolved.
const DOMAIN: &str = "localhost";
const COLLECTOR: &str = "otel-collector-app-collector";

/// Both sites' manifests, filled in.
struct Blog {
    edge: PathBuf,
    remote: PathBuf,
    ca: PathBuf,
    ingress: SocketAddr,
}

fn spans_cross(stage: &Stage) -> Outcome {
    let blog = fill(stage)?;
    let remote = Site::start(stage, "remote", &blog.remote)?;
    let cluster = remote.cluster()?;
    let _nginx = ingress(stage, &cluster, &blog)?;
    let store = cluster.wait_endpoint("default", "my-in-memory-query", "16686", 60)?;
    only_the_right_password(stage, &blog)?;

    let ca = blog.ca.display().to_string();
    let edge = Site::start_with_variables(stage, "edge", &blog.edge, &[("SSL_CERT_FILE", &ca)])?;
    let inside = edge.cluster()?;
    let entry = inside.wait_endpoint("default", COLLECTOR, "4317", 60)?;
    let file = blog.edge.join("edge.yaml");
    named(
        &edge,
        &file,
        "      resource:",
        &["warning", "processors.resource", "in no pipeline"],
    )?;
    let ids = send("otlp-grpc", entry, "as-it-is", 3)?;
    wait_for("the SDK's traces in the remote store", 45, || {
        let complete = complete_traces(store, &ids)?;
        Ok(match complete == ids.len() {
            true => Ok(()),
            false => Err(format!("{complete} of {} are complete", ids.len())),
        })
    })?;

    let pod = traced_pod(&inside)?;
    let name = text(&pod, "/metadata/name").to_owned();
    let source: IpAddr = text(&pod, "/status/podIP").parse()?;
    let tags = arrives_from(source, entry, store, "k8s.pod.name")?;
    ensure!(
        tags.contains(&("k8s.pod.name".to_owned(), name)),
        "the span is not marked with its Pod: {tags:?}"
    );
    ensure!(
        !tags.iter().any(|(key, _)| key == "k8s.cluster.name"),
        "`resource` is in no pipeline: {tags:?}"
    );

    // The mistake mended while everything runs.
    replace(
        &file,
        "processors: [k8sattributes]",
        "processors: [k8sattributes, resource]",
    )?;
    let entry = inside.wait_endpoint("default", COLLECTOR, "4317", 60)?;
    let tags = arrives_from(source, entry, store, "k8s.cluster.name")?;
    for wanted in [
        ("k8s.cluster.name", "edge-cluster-1"),
        ("cloud.availability_zone", "eu-west-1"),
    ] {
        ensure!(
            tags.iter()
                .any(|(key, value)| (key.as_str(), value.as_str()) == wanted),
            "{wanted:?} is not in {tags:?}"
        );
    }
    Ok(())
}

/// Copies of the files with a value for each placeholder, and the ingress' certificate.
fn fill(stage: &Stage) -> Outcome<Blog> {
    let (edge, remote) = (stage.folder("edge")?, stage.folder("remote")?);
    let ingress = free()?;
    for (name, to) in [
        ("edge.yaml", &edge),
        ("trace-gen.yaml", &edge),
        ("remote.yaml", &remote),
        ("remote-ingress.yaml", &remote),
    ] {
        fs::copy(acceptance("blog").join(name), to.join(name))?;
    }
    let file = edge.join("edge.yaml");
    for (placeholder, value) in [
        (
            "<REPLACE: your basicauth username, e.g.: \"user-1\">",
            "user-1".to_owned(),
        ),
        (
            "<REPLACE: your basicauth password, e.g.: \"1234\">",
            "\"1234\"".to_owned(),
        ),
        (
            "<REPLACE: your availability zone, e.g.: \"eu-west-1\">",
            "eu-west-1".to_owned(),
        ),
        (
            "<REPLACE: your cluster name, e.g.: \"edge-cluster-1\">",
            "edge-cluster-1".to_owned(),
        ),
        (
            "<REPLACE: your domain endpoint, e.g.: \"traces.example.com:443\">",
            format!("{DOMAIN}:{}", ingress.port()),
        ),
    ] {
        replace(&file, placeholder, &value)?;
    }
    replace(
        &remote.join("remote.yaml"),
        "<REPLACE: your backend credentials, e.g.: \"user-1:1234\">",
        "user-1:1234",
    )?;
    let file = remote.join("remote-ingress.yaml");
    fs::write(&file, fs::read_to_string(&file)?.replace("your-host", DOMAIN))?;
    Ok(Blog {
        ca: certificates(stage)?,
        edge,
        remote,
        ingress,
    })
}

/// What an issuer would make for the ingress; gives the authority's file.
fn certificates(stage: &Stage) -> Outcome<PathBuf> {
    let authority = Authority::new("blog", Timestamp::now(), Duration::from_secs(86_400))?;
    let subject = Subject {
        common_name: DOMAIN.to_owned(),
        dns_names: vec![DOMAIN.to_owned()],
        usage: Usage::Server,
        lifetime: Duration::from_secs(36_000),
        uri: None,
    };
    let issued = authority.issue(&subject, Timestamp::now())?;
    fs::write(stage.path("ingress.crt"), &issued.certificate_pem)?;
    fs::write(stage.path("ingress.key"), &issued.key_pem)?;
    let ca = stage.path("ca.pem");
    fs::write(&ca, &issued.ca_pem)?;
    Ok(ca)
}

/// nginx as its ingress controller would run it for the Ingress object: TLS ends here, gRPC goes on to the Service.
fn ingress(stage: &Stage, cluster: &Cluster, blog: &Blog) -> Outcome<Daemon> {
    let path = "/apis/networking.k8s.io/v1/namespaces/default/ingresses/ingress-otel";
    let object = cluster.wait(path, 30)?;
    ensure!(
        text(&object, "/spec/rules/0/host") == DOMAIN,
        "the Ingress: {object}"
    );
    let service = "/spec/rules/0/http/paths/0/backend/service";
    let port = object.pointer(&format!("{service}/port/number"));
    let port = port.map(Value::to_string).context("the Ingress names a port")?;
    let to = cluster.wait_endpoint("default", text(&object, &format!("{service}/name")), &port, 60)?;
    let folder = stage.folder("nginx")?;
    let own = |name: &str| folder.join(name).display().to_string();
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|kind| format!("{kind}_temp_path {};\n", own(kind)))
        .collect();
    let config = format!(
        "daemon off; user root; worker_processes 1; pid {}; error_log stderr warn;\nevents {{ worker_connections 64; }}\n\
         http {{\naccess_log off;\n{temporary}server {{ listen {} ssl http2; server_name {DOMAIN}; ssl_certificate {}; \
         ssl_certificate_key {}; location / {{ grpc_pass grpc://{to}; }} }}\n}}\n",
        own("nginx.pid"),
        blog.ingress,
        stage.path("ingress.crt").display(),
        stage.path("ingress.key").display(),
    );
    let file = folder.join("nginx.conf");
    fs::write(&file, config)?;
    let mut command = Command::new("nginx");
    command
        .arg("-p")
        .arg(&folder)
        .args(["-e", "stderr", "-c"])
        .arg(&file);
    Daemon::start(stage, "nginx", &mut command)?.listens(&[blog.ingress])
}

/// The remote collector takes what comes with the right credentials, and nothing else.
fn only_the_right_password(stage: &Stage, blog: &Blog) -> Outcome {
    for (credentials, right) in [
        (Some("user-1:1234"), true),
        (Some("user-1:4321"), false),
        (Some("user-2:1234"), false),
        // `echo` ends with a line: a mistake that the blog's readers made.
        (Some("user-1:1234\n"), false),
        (None, false),
    ] {
        let mut command = karez(stage)?;
        command.args(["telemetrygen", "traces", "--traces=1"]);
        command.arg(format!("--otlp-endpoint={DOMAIN}:{}", blog.ingress.port()));
        command.arg(format!("--ca-cert={}", blog.ca.display()));
        if let Some(credentials) = credentials {
            let encoded = BASE64.encode(credentials);
            command.arg(format!("--otlp-header=authorization=Basic {encoded}"));
        }
        let output = finish(command, 30)?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success() == right && (right || said.contains("nauthenticated")),
            "with {credentials:?}: {}: {said}",
            output.status
        );
    }
    Ok(())
}

/// The Pod of `trace-gen`: its image is not run here, its address is the Pod's all the same.
fn traced_pod(cluster: &Cluster) -> Outcome<Value> {
    wait_for("the Pod of trace-gen", 30, || {
        let pods = cluster.list("/api/v1/namespaces/default/pods?labelSelector=app=trace-gen")?;
        let pod = pods
            .into_iter()
            .find(|pod| !text(pod, "/status/podIP").is_empty());
        Ok(pod.ok_or_else(|| "there is none with an address".to_owned()))
    })
}

/// Sends spans from an address until one arrives with this attribute; gives all that it is marked with.
fn arrives_from(
    source: IpAddr,
    entry: SocketAddr,
    store: SocketAddr,
    attribute: &str,
) -> Outcome<Vec<(String, String)>> {
    let mut number = 0_u64;
    let mut sent = Vec::new();
    wait_for(format_args!("a span with {attribute}"), 45, || {
        number += 1;
        let id = format!("{:016x}{number:016x}", attribute.len());
        // Refused while the collector starts again with a changed configuration.
        let answer = runtime().block_on(export(source, entry, &id))?;
        sent.push(id);
        let mut marks = Vec::new();
        for id in &sent {
            let Some(trace) = trace(store, id)? else { continue };
            marks = process_tags(&trace);
            if marks.iter().any(|(key, _)| key == attribute) {
                return Ok(Ok(marks));
            }
        }
        Ok(Err(format!("the answer was {answer}; marked with {marks:?}")))
    })
}

fn process_tags(trace: &Value) -> Vec<(String, String)> {
    let processes = trace["processes"].as_object().into_iter().flatten();
    let tags = processes.flat_map(|(_, process)| process["tags"].as_array().into_iter().flatten());
    tags.map(|tag| (text(tag, "/key").to_owned(), text(tag, "/value").to_owned()))
        .collect()
}

/// OTLP over gRPC from this address; gives the status.
async fn export(source: IpAddr, to: SocketAddr, id: &str) -> Outcome<String> {
    let bytes = |text: &str| u128::from_str_radix(text, 16).map(u128::to_be_bytes);
    let span = Span {
        trace_id: bytes(id)?.to_vec(),
        span_id: vec![7; 8],
        name: "from-the-pod".to_owned(),
        start_time_unix_nano: 1_750_000_000_000_000_000,
        end_time_unix_nano: 1_750_000_000_000_001_000,
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    let message = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec();
    let mut frame = BytesMut::from(&[0][..]);
    frame.put_u32(u32::try_from(message.len())?);
    frame.extend_from_slice(&message);
    let socket = TcpSocket::new_v4()?;
    socket.bind(SocketAddr::new(source, 0))?;
    let answer = tokio::time::timeout(Duration::from_secs(10), async {
        let stream = TokioIo::new(socket.connect(to).await?);
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), stream).await?;
        tokio::spawn(connection);
        let method = "opentelemetry.proto.collector.trace.v1.TraceService/Export";
        let request = Request::post(format!("http://{to}/{method}"))
            .header("content-type", "application/grpc")
            .header("te", "trailers")
            .body(Full::<Bytes>::new(frame.freeze()))?;
        let response = sender.send_request(request).await?;
        let status = response.headers().get("grpc-status").cloned();
        let body = response.into_body().collect().await?;
        let trailer = body
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status").cloned());
        anyhow::Ok(status.or(trailer))
    });
    let status = answer.await.context("no answer")??;
    Ok(format!("{status:?}"))
}
