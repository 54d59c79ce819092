//! Targets: one listener that answers on every address of 127.0.0.0/8 with the same series and ever new values.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// How many different bodies there are.
const DIFFERENT: usize = 4;

/// Serves so many series from each address.
pub(crate) async fn start(series: usize) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("0.0.0.0:0").await?;
    let address = listener.local_addr()?;
    let bodies: Arc<Vec<Bytes>> = Arc::new((0..DIFFERENT).map(|round| body(series, round)).collect());
    let scrapes = Arc::new(AtomicU64::new(0));
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let (bodies, scrapes) = (bodies.clone(), scrapes.clone());
            let service = service_fn(move |_: Request<Incoming>| {
                let index = scrapes.fetch_add(1, Ordering::Relaxed) as usize % DIFFERENT;
                let response = Response::builder()
                    .header("content-type", "text/plain; version=0.0.4; charset=utf-8")
                    .body(Full::new(bodies[index].clone()));
                async move { Ok::<_, Infallible>(response.expect("the header is a constant")) }
            });
            tokio::spawn(async move {
                // A connection ends with the program under test.
                let _ = Builder::new()
                    .serve_connection(TokioIo::new(stream), service)
                    .await;
            });
        }
    });
    Ok(address)
}

/// Counters and gauges, ten series a family, with the labels that services have.
fn body(series: usize, round: usize) -> Bytes {
    let mut text = String::new();
    for index in 0..series {
        let (family, member) = (index / 10, index % 10);
        let (name, kind) = match family % 2 {
            0 => (format!("http_server_requests_{family}_total"), "counter"),
            _ => (format!("process_pool_{family}_usage_bytes"), "gauge"),
        };
        if member == 0 {
            let _ = write!(
                text,
                "# HELP {name} What the service counts here.\n# TYPE {name} {kind}\n"
            );
        }
        let value = index * 1000 + round * 17;
        let _ = writeln!(
            text,
            "{name}{{method=\"GET\",route=\"/api/v1/things/{member}\",status=\"200\",zone=\"north\"}} {value}.5"
        );
    }
    text.into()
}
