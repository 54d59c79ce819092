//! Extension `health_check`: whether the pipelines run, as the Collector says it on port 13133.

mod component;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::any;
use jiff::Timestamp;
use serde::Serialize;

pub use component::HealthCheckExtension;

/// Since when the pipelines run, if they do. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Health(Arc<Mutex<Option<Timestamp>>>);

impl Health {
    /// The pipelines run, or no longer do.
    pub fn set(&self, ready: bool) {
        let mut since = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match (ready, *since) {
            (true, None) => *since = Some(Timestamp::now()),
            (true, Some(_)) => {}
            (false, _) => *since = None,
        }
    }

    fn since(&self) -> Option<Timestamp> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What is answered where.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HealthOptions {
    /// The path; empty for `/`.
    pub path: String,
    /// Bodies that stand instead of the JSON: healthy, unhealthy.
    pub bodies: Option<(String, String)>,
}

#[derive(Clone)]
struct Served {
    health: Health,
    bodies: Option<(String, String)>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body {
    status: &'static str,
    up_since: String,
    uptime: String,
}

/// The route.
pub fn router(health: Health, options: HealthOptions) -> Router {
    let path = format!("/{}", options.path.trim_start_matches('/'));
    Router::new().route(&path, any(answer)).with_state(Served {
        health,
        bodies: options.bodies,
    })
}

async fn answer(State(served): State<Served>) -> Response {
    let since = served.health.since();
    let status = if since.is_some() {
        StatusCode::OK
    } else {
        StatusCode::SERVICE_UNAVAILABLE
    };
    if let Some((healthy, unhealthy)) = served.bodies {
        return (status, if since.is_some() { healthy } else { unhealthy }).into_response();
    }
    let body = match since {
        Some(since) => Body {
            status: "Server available",
            up_since: since.to_string(),
            uptime: go_duration(since.duration_until(Timestamp::now()).unsigned_abs()),
        },
        None => Body {
            status: "Server not available",
            up_since: "0001-01-01T00:00:00Z".to_owned(),
            uptime: String::new(),
        },
    };
    let text = serde_json::to_string(&body).unwrap_or_default();
    let json = HeaderValue::from_static("application/json");
    (status, [(header::CONTENT_TYPE, json)], text).into_response()
}

/// A duration as Go writes it: `1h2m3.5s`, `250ms`.
fn go_duration(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => return "0s".to_owned(),
        1..1_000 => return format!("{nanos}ns"),
        1_000..1_000_000 => return format!("{}µs", nanos as f64 / 1e3),
        1_000_000..1_000_000_000 => return format!("{}ms", nanos as f64 / 1e6),
        _ => {}
    }
    let whole = duration.as_secs();
    let (hours, minutes) = (whole / 3_600, whole / 60 % 60);
    let fraction = format!("{:09}", duration.subsec_nanos());
    let fraction = fraction.trim_end_matches('0');
    let dot = if fraction.is_empty() { "" } else { "." };
    let seconds = format!("{}{dot}{fraction}s", whole % 60);
    match (hours, minutes) {
        (0, 0) => seconds,
        (0, _) => format!("{minutes}m{seconds}"),
        _ => format!("{hours}h{minutes}m{seconds}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body as AxumBody;
    use axum::http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn ask(router: Router, path: &str) -> (u16, String) {
        let request = Request::get(path).body(AxumBody::empty()).unwrap();
        let response = router.oneshot(request).await.unwrap();
        let status = response.status().as_u16();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(body.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn says_when_the_pipelines_run_and_when_not() {
        let health = Health::default();
        let router = || router(health.clone(), HealthOptions::default());
        let expected = r#"{"status":"Server not available","upSince":"0001-01-01T00:00:00Z","uptime":""}"#;
        assert_eq!(ask(router(), "/").await, (503, expected.to_owned()));
        health.set(true);
        let (status, body) = ask(router(), "/").await;
        assert_eq!(status, 200);
        assert!(
            body.starts_with(r#"{"status":"Server available","upSince":"2"#),
            "{body}"
        );
        assert!(body.ends_with(r#"s"}"#), "{body}");
        assert_eq!(ask(router(), "/other").await.0, 404);
        health.set(false);
        assert_eq!(ask(router(), "/").await.0, 503);
    }

    #[tokio::test]
    async fn path_and_bodies_are_as_configured() {
        let health = Health::default();
        let options = HealthOptions {
            path: "/health/status".into(),
            bodies: Some(("fine".into(), "bad".into())),
        };
        let router = || router(health.clone(), options.clone());
        assert_eq!(ask(router(), "/health/status").await, (503, "bad".to_owned()));
        health.set(true);
        assert_eq!(ask(router(), "/health/status").await, (200, "fine".to_owned()));
    }

    #[test]
    fn durations_are_written_as_go_writes_them() {
        let text = |nanos| go_duration(Duration::from_nanos(nanos));
        assert_eq!(text(0), "0s");
        assert_eq!(text(1_500_000), "1.5ms");
        assert_eq!(text(61_500_000_000), "1m1.5s");
        assert_eq!(text(3_600_000_000_000), "1h0m0s");
    }
}
