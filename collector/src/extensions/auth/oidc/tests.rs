use std::net::SocketAddr;
use std::sync::Mutex;

use axum::Router;
use axum::routing::get;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, encode};
use karez_collector_config::extensions::OidcProvider;
use karez_net::Net;
use serde_json::{Value, json};

use super::*;

/// A provider on loopback: publishes what it is told to, signs what it is asked to.
struct Issuer {
    address: SocketAddr,
    published: Arc<Mutex<Vec<Value>>>,
}

impl Issuer {
    async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let published: Arc<Mutex<Vec<Value>>> = Arc::default();
        let keys = published.clone();
        let discovery =
            json!({"issuer": format!("http://{address}"), "jwks_uri": format!("http://{address}/keys")});
        let app = Router::new()
            .route(
                "/.well-known/openid-configuration",
                get(move || std::future::ready(axum::Json(discovery.clone()))),
            )
            .route(
                "/keys",
                get(move || std::future::ready(axum::Json(json!({"keys": *keys.lock().unwrap()})))),
            );
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { address, published }
    }

    fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Makes a key and publishes it under a name.
    fn rotate(&self, id: &str) -> EncodingKey {
        let key = key();
        let mut jwk = Jwk::from_encoding_key(&key, Algorithm::ES256).unwrap();
        jwk.common.key_id = Some(id.to_owned());
        let mut published = self.published.lock().unwrap();
        // What nobody understands must not hide what follows.
        *published = vec![
            json!({"kty": "new", "kid": "x"}),
            serde_json::to_value(&jwk).unwrap(),
        ];
        key
    }

    fn config(&self) -> Oidc {
        Oidc {
            issuer_url: self.url(),
            audience: "karez".into(),
            ..Oidc::default()
        }
    }

    fn claims(&self) -> Value {
        json!({"iss": self.url(), "aud": "karez", "sub": "edge-7", "exp": now() + 60, "nbf": now() - 1,
               "name": "edge", "groups": ["a", "b"]})
    }
}

fn key() -> EncodingKey {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_second()
}

fn sign(key: &EncodingKey, id: &str, claims: &Value) -> String {
    let mut header = Header::new(Algorithm::ES256);
    header.kid = Some(id.to_owned());
    encode(&header, claims, key).unwrap()
}

fn with(claims: &Value, changes: Value) -> Value {
    let mut claims = claims.clone();
    for (key, value) in changes.as_object().unwrap() {
        claims[key] = value.clone();
    }
    claims
}

fn context() -> ComponentContext {
    ComponentContext {
        id: "oidc".parse().unwrap(),
        key: "extensions.oidc".into(),
        net: Net::system(),
        extensions: Default::default(),
        metrics: crate::metrics::Metrics::new(),
    }
}

async fn start(config: Oidc) -> (Arc<dyn ServerAuth>, Running) {
    let extension = OidcExtension::new(config);
    let running = extension.start(&context()).await.unwrap();
    (extension.server_auth().unwrap(), running)
}

/// As a server asks: at once if it can be decided at once.
async fn ask(auth: &Arc<dyn ServerAuth>, value: &str) -> Result<Principal, String> {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", value.parse().unwrap());
    let answer = match auth.authenticate_at_once(&headers) {
        Some(answer) => answer,
        None => {
            let auth = auth.clone();
            tokio::task::spawn_blocking(move || auth.authenticate(&headers))
                .await
                .unwrap()
        }
    };
    answer.map_err(|error| error.to_string())
}

async fn token(auth: &Arc<dyn ServerAuth>, token: &str) -> Result<Principal, String> {
    ask(auth, &format!("Bearer {token}")).await
}

#[tokio::test]
async fn takes_a_good_token_and_refuses_every_other() {
    let issuer = Issuer::start().await;
    let key = issuer.rotate("one");
    let (auth, _running) = start(issuer.config()).await;
    let good = issuer.claims();
    let who = token(&auth, &sign(&key, "one", &good)).await.unwrap();
    assert_eq!(who.username.as_deref(), Some("edge-7"));
    let several = with(&good, json!({"aud": ["other", "karez"]}));
    token(&auth, &sign(&key, "one", &several)).await.unwrap();

    let bad = [
        (json!({"exp": now() - 60}), "expired"),
        (json!({"nbf": now() + 60}), "not valid yet"),
        (json!({"aud": "other"}), "another audience"),
        (json!({"aud": null}), "aud"),
        (json!({"iss": "http://127.0.0.1:1"}), "another issuer"),
        (json!({"exp": null}), "exp"),
    ];
    for (changes, reason) in bad {
        let refused = token(&auth, &sign(&key, "one", &with(&good, changes.clone())))
            .await
            .unwrap_err();
        assert!(
            refused.starts_with("failed to verify token: ") && refused.contains(reason),
            "{changes}: {refused}"
        );
    }
    let refused = token(&auth, &sign(&self::key(), "one", &good)).await.unwrap_err();
    assert!(refused.contains("signature"), "{refused}");
    let mut tampered = sign(&key, "one", &good);
    let other = sign(&key, "one", &with(&good, json!({"sub": "admin"})));
    let body = other.split('.').nth(1).unwrap();
    let parts: Vec<&str> = tampered.split('.').collect();
    tampered = format!("{}.{body}.{}", parts[0], parts[2]);
    assert!(token(&auth, &tampered).await.unwrap_err().contains("signature"));
    assert!(
        token(&auth, &sign(&self::key(), "two", &good))
            .await
            .unwrap_err()
            .contains("no key")
    );
}

#[tokio::test]
async fn refuses_algorithms_by_which_anybody_can_sign() {
    use base64::Engine as _;
    let issuer = Issuer::start().await;
    issuer.rotate("one");
    let (auth, _running) = start(issuer.config()).await;
    let base64 = |value: &Value| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(value.to_string());
    let claims = base64(&issuer.claims());
    let none = format!("{}.{claims}.", base64(&json!({"alg": "none", "typ": "JWT"})));
    assert!(token(&auth, &none).await.is_err());
    let public = issuer.published.lock().unwrap()[1].to_string();
    let mut header = Header::new(Algorithm::HS256);
    header.kid = Some("one".into());
    let secret = EncodingKey::from_secret(public.as_bytes());
    let hmac = encode(&header, &issuer.claims(), &secret).unwrap();
    let refused = token(&auth, &hmac).await.unwrap_err();
    assert!(refused.contains("algorithm"), "{refused}");
}

#[tokio::test]
async fn what_is_no_token_is_refused() {
    let issuer = Issuer::start().await;
    issuer.rotate("one");
    let (auth, _running) = start(issuer.config()).await;
    let empty = auth.authenticate(&HeaderMap::new()).unwrap_err().to_string();
    assert_eq!(empty, "authentication didn't succeed");
    for value in ["Basic dXNlcg==", "Bearer", "x"] {
        assert_eq!(
            ask(&auth, value).await.unwrap_err(),
            "invalid authorization header format"
        );
    }
    let long = "a".repeat(MAX_TOKEN + 1);
    for value in ["", "a.b.c", "..", long.as_str()] {
        assert!(token(&auth, value).await.is_err(), "{value}");
    }
}

#[tokio::test]
async fn follows_the_rotation_of_keys() {
    let issuer = Issuer::start().await;
    let old = issuer.rotate("old");
    let (auth, _running) = start(issuer.config()).await;
    token(&auth, &sign(&old, "old", &issuer.claims())).await.unwrap();
    let new = issuer.rotate("new");
    // The keys are not asked for at once again, so this may take a moment.
    let deadline = tokio::time::Instant::now() + Duration::from_secs(20);
    while token(&auth, &sign(&new, "new", &issuer.claims())).await.is_err() {
        assert!(tokio::time::Instant::now() < deadline, "the new key is not taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let withdrawn = token(&auth, &sign(&old, "old", &issuer.claims())).await;
    assert!(withdrawn.unwrap_err().contains("no key"));
}

#[tokio::test]
async fn several_providers_are_told_apart_by_the_issuer() {
    let (first, second) = (Issuer::start().await, Issuer::start().await);
    let (one, two) = (first.rotate("k"), second.rotate("k"));
    let provider = |issuer: &Issuer| OidcProvider {
        issuer_url: issuer.url(),
        audience: "karez".into(),
        username_claim: "name".into(),
        groups_claim: "groups".into(),
        ..OidcProvider::default()
    };
    let config = Oidc {
        providers: vec![provider(&first), provider(&second)],
        ..Oidc::default()
    };
    let (auth, _running) = start(config).await;
    let who = token(&auth, &sign(&two, "k", &second.claims())).await.unwrap();
    assert_eq!(who.username.as_deref(), Some("edge"));
    assert_eq!(who.groups, ["a", "b"]);
    token(&auth, &sign(&one, "k", &first.claims())).await.unwrap();
    // A token that names one provider and is signed by the other.
    assert!(token(&auth, &sign(&two, "k", &first.claims())).await.is_err());
    let unnamed = with(&first.claims(), json!({"name": 7}));
    assert!(
        token(&auth, &sign(&one, "k", &unnamed))
            .await
            .unwrap_err()
            .contains("name")
    );
}

#[tokio::test]
async fn keys_of_a_file_need_no_provider() {
    let pair = rcgen::KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256).unwrap();
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("# keys\n{}", pair.public_key_pem())).unwrap();
    let config = Oidc {
        providers: vec![OidcProvider {
            issuer_url: "https://nowhere.invalid".into(),
            audience: "karez".into(),
            public_keys_file: file.path().display().to_string(),
            ..OidcProvider::default()
        }],
        ..Oidc::default()
    };
    let (auth, _running) = start(config).await;
    let key = EncodingKey::from_ec_pem(pair.serialize_pem().as_bytes()).unwrap();
    let claims = json!({"iss": "https://nowhere.invalid", "aud": "karez", "sub": "x", "exp": now() + 60});
    token(&auth, &sign(&key, "any", &claims)).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_is_not_what_it_should_be_refuses_the_start() {
    let issuer = Issuer::start().await;
    let refused = |config: Oidc| async move {
        let error = OidcExtension::new(config).start(&context()).await.map(drop);
        error.unwrap_err().to_string()
    };
    assert!(refused(issuer.config()).await.contains("no public key"));
    issuer.rotate("one");
    let renamed = Oidc {
        issuer_url: format!("http://localhost:{}", issuer.address.port()),
        ..issuer.config()
    };
    assert!(refused(renamed).await.contains("calls itself"));
    let absent = Oidc {
        issuer_url: "http://127.0.0.1:1".into(),
        ..issuer.config()
    };
    assert!(refused(absent).await.contains("cannot be read"));
}
