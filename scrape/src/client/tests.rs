use std::collections::BTreeMap;
use std::net::SocketAddr;

use axum::Router;
use axum::extract::Request;
use axum::response::{IntoResponse, Redirect};
use axum::routing::{get, post};
use karez_scrape_config::http::{BasicAuth, Header, OAuth2};
use karez_scrape_config::values::Secret;

use super::*;

const TIMEOUT: Duration = Duration::from_secs(20);

async fn serve(router: Router) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Answers with the headers it got.
async fn echo(request: Request) -> String {
    let mut lines: Vec<String> = request
        .headers()
        .iter()
        .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
        .collect();
    lines.sort();
    lines.join("\n")
}

async fn ask(config: &HttpConfig, url: &str) -> Result<Answer, ClientError> {
    let client = Client::new(config, &Net::system())?;
    client.get(url, &HeaderMap::new(), 0, TIMEOUT).await
}

#[tokio::test]
async fn sends_credentials_from_files_and_headers() {
    let address = serve(Router::new().route("/", get(echo))).await;
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("password");
    std::fs::write(&file, "secret\n").unwrap();
    let mut config = HttpConfig {
        basic_auth: Some(BasicAuth {
            username: "user".into(),
            password_file: file.display().to_string(),
            ..BasicAuth::default()
        }),
        ..HttpConfig::default()
    };
    let header = Header {
        values: vec!["1".into()],
        ..Header::default()
    };
    config.headers = BTreeMap::from([("X-Scope".to_owned(), header)]);
    let answer = ask(&config, &format!("http://{address}/")).await.unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    assert!(
        text.contains(&format!("authorization=Basic {}", "dXNlcjpzZWNyZXQ=")),
        "{text}"
    );
    assert!(text.contains("x-scope=1"), "{text}");
    std::fs::remove_file(&file).unwrap();
    let error = ask(&config, &format!("http://{address}/")).await.unwrap_err();
    assert!(error.to_string().contains("password"), "{error}");
}

#[tokio::test]
async fn redirects_are_followed_and_get_no_credentials_elsewhere() {
    let other = serve(Router::new().route("/there", get(echo))).await;
    let to = format!("http://{other}/there");
    let router = Router::new()
        .route("/", get(move || async move { Redirect::temporary(&to) }))
        .route("/loop", get(|| async { Redirect::temporary("/loop") }));
    let address = serve(router).await;
    let mut config = HttpConfig {
        basic_auth: Some(BasicAuth::default()),
        ..HttpConfig::default()
    };
    let answer = ask(&config, &format!("http://{address}/")).await.unwrap();
    assert!(!String::from_utf8(answer.body).unwrap().contains("authorization"));
    assert!(ask(&config, &format!("http://{address}/loop")).await.is_err());
    config.follow_redirects = false;
    let answer = ask(&config, &format!("http://{address}/")).await.unwrap();
    assert_eq!(answer.status, StatusCode::TEMPORARY_REDIRECT);
}

#[tokio::test]
async fn a_token_is_fetched_once() {
    let count = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = count.clone();
    let token = move || async move {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        r#"{"access_token":"t","expires_in":3600}"#
    };
    let router = Router::new().route("/", get(echo)).route("/token", post(token));
    let address = serve(router).await;
    let config = HttpConfig {
        oauth2: Some(OAuth2 {
            client_id: "id".into(),
            client_secret: Secret::new("s"),
            token_url: format!("http://{address}/token"),
            ..OAuth2::default()
        }),
        ..HttpConfig::default()
    };
    let client = Client::new(&config, &Net::system()).unwrap();
    for _ in 0..3 {
        let url = format!("http://{address}/");
        let answer = client.get(&url, &HeaderMap::new(), 0, TIMEOUT).await.unwrap();
        assert!(
            String::from_utf8(answer.body)
                .unwrap()
                .contains("authorization=Bearer t")
        );
    }
    assert_eq!(count.load(std::sync::atomic::Ordering::Relaxed), 1);
}

#[tokio::test]
async fn a_bomb_does_not_grow_beyond_the_limit() {
    let bomb = || async {
        let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
        std::io::Write::write_all(&mut packed, &vec![b'a'; 4 << 20]).unwrap();
        ([(header::CONTENT_ENCODING, "gzip")], packed.finish().unwrap()).into_response()
    };
    let address = serve(Router::new().route("/", get(bomb))).await;
    let client = Client::new(&HttpConfig::default(), &Net::system()).unwrap();
    let url = format!("http://{address}/");
    let small = client.get(&url, &HeaderMap::new(), 1 << 20, TIMEOUT).await;
    assert!(matches!(small, Err(ClientError::TooLarge(_))), "{small:?}");
    let large = client
        .get(&url, &HeaderMap::new(), 8 << 20, TIMEOUT)
        .await
        .unwrap();
    assert_eq!(large.body.len(), 4 << 20);
}
