//! Probes: when one counts as passed is decided by [`Tally`]; asking is [`ask`].

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use k8s_openapi::api::core::v1::{Container, HTTPGetAction, Probe};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Counts answers against a probe's thresholds.
#[derive(Clone, Debug)]
pub(crate) struct Tally {
    needed: i32,
    tolerated: i32,
    successes: i32,
    failures: i32,
}

/// What the answers so far amount to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Not enough answers of one kind.
    Open,
    /// Passed.
    Passed,
    /// Failed.
    Failed,
}

impl Tally {
    pub(crate) fn new(probe: &Probe) -> Self {
        Self {
            needed: probe.success_threshold.unwrap_or(1).max(1),
            tolerated: probe.failure_threshold.unwrap_or(3).max(1),
            successes: 0,
            failures: 0,
        }
    }

    /// Takes one answer in.
    pub(crate) fn add(&mut self, passed: bool) -> Verdict {
        if passed {
            self.failures = 0;
            self.successes = self.successes.saturating_add(1);
            if self.successes >= self.needed {
                Verdict::Passed
            } else {
                Verdict::Open
            }
        } else {
            self.successes = 0;
            self.failures = self.failures.saturating_add(1);
            if self.failures >= self.tolerated {
                Verdict::Failed
            } else {
                Verdict::Open
            }
        }
    }
}

fn seconds(value: Option<i32>, default: u64) -> Duration {
    Duration::from_secs(
        value
            .and_then(|number| u64::try_from(number).ok())
            .unwrap_or(default),
    )
}

/// How long to wait before the first question.
pub(crate) fn delay(probe: &Probe) -> Duration {
    seconds(probe.initial_delay_seconds, 0)
}

/// How long to wait between questions.
pub(crate) fn period(probe: &Probe) -> Duration {
    seconds(probe.period_seconds, 10).max(Duration::from_secs(1))
}

/// Asks once; the error says what the answer was.
pub(crate) async fn ask(probe: &Probe, container: &Container, address: IpAddr) -> Result<(), String> {
    let limit = seconds(probe.timeout_seconds, 1).max(Duration::from_secs(1));
    match tokio::time::timeout(limit, answer(probe, container, address)).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", limit.as_secs())),
    }
}

async fn answer(probe: &Probe, container: &Container, address: IpAddr) -> Result<(), String> {
    if let Some(get) = &probe.http_get {
        let target = target(get.host.as_deref(), &get.port, container, address)?;
        // A certificate is not verified by Kubernetes either; that somebody accepts is as much as can be asked.
        if get.scheme.as_deref() == Some("HTTPS") {
            return connect(target).await.map(drop);
        }
        return http_get(get, target).await;
    }
    if let Some(socket) = &probe.tcp_socket {
        return connect(target(socket.host.as_deref(), &socket.port, container, address)?)
            .await
            .map(drop);
    }
    if let Some(grpc) = &probe.grpc {
        return connect(target(None, &IntOrString::Int(grpc.port), container, address)?)
            .await
            .map(drop);
    }
    // `exec` runs a program of the image, and there is no image: what runs, passes.
    Ok(())
}

fn target(
    host: Option<&str>,
    port: &IntOrString,
    container: &Container,
    address: IpAddr,
) -> Result<SocketAddr, String> {
    let number = match port {
        IntOrString::Int(number) => Some(*number),
        IntOrString::String(name) => {
            let mut ports = container.ports.iter().flatten();
            let named = ports
                .find(|port| port.name.as_ref() == Some(name))
                .map(|port| port.container_port);
            named.or_else(|| name.parse().ok())
        }
    };
    let number = number.and_then(|number| u16::try_from(number).ok());
    let number = number.ok_or_else(|| format!("the container has no port {port:?}"))?;
    let host = match host {
        None | Some("" | "localhost" | "127.0.0.1") => address,
        Some(text) => text.parse().map_err(|_| format!("{text:?} is no address"))?,
    };
    Ok(SocketAddr::new(host, number))
}

async fn connect(target: SocketAddr) -> Result<TcpStream, String> {
    TcpStream::connect(target)
        .await
        .map_err(|error| format!("{target}: {error}"))
}

async fn http_get(get: &HTTPGetAction, target: SocketAddr) -> Result<(), String> {
    let path = get
        .path
        .as_deref()
        .filter(|path| path.starts_with('/'))
        .unwrap_or("/");
    let mut request = format!("GET {path} HTTP/1.1\r\nConnection: close\r\nUser-Agent: kube-probe/karez\r\n");
    let headers = get.http_headers.iter().flatten();
    if !headers
        .clone()
        .any(|header| header.name.eq_ignore_ascii_case("host"))
    {
        request.push_str(&format!("Host: {target}\r\n"));
    }
    for header in headers {
        request.push_str(&format!("{}: {}\r\n", header.name, header.value));
    }
    request.push_str("\r\n");
    let lines = request.matches("\r\n").count();
    if request.matches(['\r', '\n']).count() != 2 * lines || request.contains("\r\n\r\n\r\n") {
        return Err("the probe's path or headers hold a line break".into());
    }
    let mut stream = connect(target).await?;
    let broken = |error: std::io::Error| format!("{target}{path}: {error}");
    stream.write_all(request.as_bytes()).await.map_err(broken)?;
    let mut start = [0u8; 12];
    stream.read_exact(&mut start).await.map_err(broken)?;
    let status = std::str::from_utf8(&start)
        .ok()
        .and_then(|text| text.strip_prefix("HTTP/1.")?.get(2..5)?.parse().ok());
    match status {
        Some(200..=399u16) => Ok(()),
        Some(status) => Err(format!("{target}{path}: status {status}")),
        None => Err(format!("{target}{path}: the answer is not HTTP")),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tokio::net::TcpListener;

    use super::*;

    fn probe(value: serde_json::Value) -> Probe {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn thresholds_count_in_a_row() {
        let mut tally = Tally::new(&probe(json!({"successThreshold": 2, "failureThreshold": 2})));
        let verdicts: Vec<Verdict> = [false, true, false, true, true, false, false]
            .into_iter()
            .map(|passed| tally.add(passed))
            .collect();
        use Verdict::{Failed, Open, Passed};
        assert_eq!(verdicts, [Open, Open, Open, Open, Passed, Open, Failed]);
    }

    #[tokio::test]
    async fn asks_by_http_and_by_named_port() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = tokio::spawn(async move {
            for status in ["200 OK", "503 No"] {
                let (mut stream, _) = listener.accept().await.unwrap();
                let mut request = [0u8; 1024];
                let read = stream.read(&mut request).await.unwrap();
                assert!(request[..read].starts_with(b"GET /readyz HTTP/1.1\r\n"));
                stream
                    .write_all(format!("HTTP/1.1 {status}\r\n\r\n").as_bytes())
                    .await
                    .unwrap();
            }
        });
        let container: Container =
            serde_json::from_value(json!({"name": "c", "ports": [{"name": "admin", "containerPort": port}]}))
                .unwrap();
        let probe = probe(json!({"httpGet": {"path": "/readyz", "port": "admin"}, "timeoutSeconds": 10}));
        let address = "127.0.0.1".parse().unwrap();
        assert_eq!(ask(&probe, &container, address).await, Ok(()));
        assert!(
            ask(&probe, &container, address)
                .await
                .unwrap_err()
                .ends_with("status 503")
        );
        server.await.unwrap();
        assert!(ask(&probe, &container, address).await.is_err());
    }
}
