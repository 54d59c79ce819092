use super::*;
use std::io::Write as _;

fn headers(name: &'static str, value: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(name, HeaderValue::from_str(value).unwrap());
    headers
}

fn basic(pair: &str) -> HeaderMap {
    use base64::Engine as _;
    headers(
        "authorization",
        &format!("Basic {}", base64::engine::general_purpose::STANDARD.encode(pair)),
    )
}

fn server(inline: &str) -> BasicAuthServer {
    BasicAuthServer::new(&HtpasswdConfig {
        file: None,
        inline: inline.into(),
    })
    .unwrap()
}

#[test]
fn every_hash_of_htpasswd_is_understood() {
    let lines = [
        ("plain", "1234", "1234"),
        ("apr1", "$apr1$TqI9WECO$6cFBkWfX0yAmaARabWrfW/", "password"),
        ("md5", "$1$TqI9WECO$yni61AhbWIkTOTIIPbkQy1", "password"),
        ("sha", "{SHA}W6ph5Mm5Pz8GgiULbPgzG37mj9g=", "password"),
        (
            "sha256",
            "$5$saltstringsaltst$Ekah6lEFydzYloW2P/P45IGa7Yv0vGRQi.McSitgqd9",
            "password",
        ),
        (
            "sha256",
            "$5$saltstring$5B8vYYiY.CVt1RlTTf8KbXBH3hsxY/GNooZaBBGWEc5",
            "Hello world!",
        ),
        (
            "rounds",
            "$5$rounds=10000$saltstringsaltst$3xv.VbSHBb41AL9AvLeujZkZRBAwqFMz2.opqey6IcA",
            "Hello world!",
        ),
        (
            "sha512",
            "$6$abc$j20ajI72HG5U6IAwFiiQ9IwwqXg7IsO4K5M/JiKRbCkMfO6X5fxHdd59LM18wEdGA4vAyA3MRyOb5jwPIjXcr1",
            "a much longer password than sixty-four characters, to be sure that all of it counts",
        ),
    ];
    for (name, hash, password) in lines {
        assert!(crypt::matches(password, hash), "{name}");
        assert!(!crypt::matches(&format!("{password}\n"), hash), "{name}");
    }
    let made = bcrypt::hash("secret", 4).unwrap();
    assert!(crypt::matches("secret", &made.replacen("$2b$", "$2y$", 1)));
    assert!(!crypt::matches("Secret", &made));
    assert!(!crypt::matches("x", "$2y$broken") && !crypt::matches("x", "$6$rounds=4000000000$a$b"));
}

#[test]
fn right_credentials_name_the_user() {
    let server = server("# users\n\nuser-1:1234\nuser-2:a:b\n");
    assert_eq!(
        server
            .authenticate(&basic("user-1:1234"))
            .unwrap()
            .username
            .as_deref(),
        Some("user-1")
    );
    assert!(server.authenticate(&basic("user-1:1234")).is_ok(), "remembered");
    assert!(server.authenticate(&basic("user-2:a:b")).is_ok());
}

#[test]
fn wrong_and_missing_credentials_have_the_collectors_texts() {
    let server = server("user-1:1234");
    let text = |headers: &HeaderMap| server.authenticate(headers).unwrap_err().to_string();
    assert_eq!(text(&HeaderMap::new()), "no basic auth provided");
    assert_eq!(text(&headers("authorization", "")), "no basic auth provided");
    assert_eq!(
        text(&headers("authorization", "Bearer x")),
        "invalid authorization scheme prefix"
    );
    assert_eq!(
        text(&headers("authorization", "Basic ***")),
        "invalid authorization format"
    );
    assert_eq!(text(&basic("no colon")), "invalid authorization format");
    assert_eq!(text(&basic("user-1:wrong")), "invalid credentials");
    assert_eq!(text(&basic("user-1:1234\n")), "invalid credentials");
    assert_eq!(text(&basic("nobody:1234")), "invalid credentials");
}

#[test]
fn slow_hashes_are_told_apart_and_remembered() {
    let server = server(&format!(
        "fast:1234\nslow:{}\n",
        bcrypt::hash("secret", 4).unwrap()
    ));
    assert!(
        server
            .authenticate_at_once(&basic("fast:1234"))
            .is_some_and(|done| done.is_ok())
    );
    assert!(server.authenticate_at_once(&basic("slow:secret")).is_none());
    assert!(
        server
            .authenticate_at_once(&basic("slow"))
            .is_some_and(|done| done.is_err())
    );
    assert!(server.authenticate(&basic("slow:secret")).is_ok());
    assert!(
        server
            .authenticate_at_once(&basic("slow:secret"))
            .is_some_and(|done| done.is_ok())
    );
    assert!(server.authenticate_at_once(&basic("slow:wrong")).is_none());
}

#[test]
fn password_files_are_checked_at_the_start() {
    let none = BasicAuthServer::new(&HtpasswdConfig::default()).unwrap_err();
    assert!(none.to_string().contains("names no user"), "{none}");
    let broken = Htpasswd::parse("a:b\nnonsense\n").unwrap_err();
    assert_eq!(
        broken.to_string(),
        "htpasswd line 2: no `:` between user and password"
    );
    let missing = HtpasswdConfig {
        file: Some("/nowhere/htpasswd".into()),
        inline: String::new(),
    };
    assert!(
        BasicAuthServer::new(&missing)
            .unwrap_err()
            .to_string()
            .contains("/nowhere/htpasswd")
    );
    let mut file = tempfile::NamedTempFile::new().unwrap();
    write!(file, "a:1\nb:2\n").unwrap();
    let both = HtpasswdConfig {
        file: Some(file.path().into()),
        inline: "a:3".into(),
    };
    let server = BasicAuthServer::new(&both).unwrap();
    assert!(server.authenticate(&basic("a:3")).is_ok() && server.authenticate(&basic("a:1")).is_err());
    assert!(server.authenticate(&basic("b:2")).is_ok());
}

#[test]
fn the_basic_client_satisfies_the_server() {
    let config = ClientAuthConfig {
        username: "user-1".into(),
        password: "1234".into(),
        ..ClientAuthConfig::default()
    };
    let client = BasicAuthClient::new(&config).unwrap();
    let sent: HeaderMap = client.headers().unwrap().into_iter().collect();
    assert!(sent["authorization"].is_sensitive());
    assert!(server("user-1:1234").authenticate(&sent).is_ok());
    assert!(client.needs_secure_transport());
    assert!(BasicAuthClient::new(&ClientAuthConfig::default()).is_err());
}

#[test]
fn bearer_tokens_are_compared_with_scheme_and_have_the_collectors_texts() {
    let config = BearerConfig {
        token: "one".into(),
        tokens: vec!["two".into()],
        ..BearerConfig::default()
    };
    let auth = BearerTokenAuth::new(&config).unwrap();
    assert!(auth.authenticate(&headers("authorization", "Bearer two")).is_ok());
    let text = |headers: &HeaderMap| auth.authenticate(headers).unwrap_err().to_string();
    assert_eq!(
        text(&HeaderMap::new()),
        "missing or empty authorization header: Authorization"
    );
    let wrong = "provided authorization does not match expected scheme or token";
    assert_eq!(text(&headers("authorization", "Bearer three")), wrong);
    assert_eq!(text(&headers("authorization", "one")), wrong);
    assert_eq!(auth.headers().unwrap()[0].1, "Bearer one");
    let bare = BearerConfig {
        scheme: String::new(),
        header: "X-Key".into(),
        ..config
    };
    let bare = BearerTokenAuth::new(&bare).unwrap();
    assert!(bare.authenticate(&headers("x-key", "one")).is_ok());
    assert!(BearerTokenAuth::new(&BearerConfig::default()).is_err());
}

#[test]
fn a_replaced_token_file_takes_effect_and_a_vanished_one_does_not() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, "old\n").unwrap();
    let auth = BearerTokenAuth::new(&BearerConfig {
        filename: Some(path.clone()),
        ..BearerConfig::default()
    })
    .unwrap();
    assert!(auth.authenticate(&headers("authorization", "Bearer old")).is_ok());
    std::fs::write(&path, "new\nother\n").unwrap();
    auth.expire();
    assert!(
        auth.authenticate(&headers("authorization", "Bearer old"))
            .is_err()
    );
    assert!(
        auth.authenticate(&headers("authorization", "Bearer other"))
            .is_ok()
    );
    assert_eq!(auth.headers().unwrap()[0].1, "Bearer new");
    std::fs::remove_file(&path).unwrap();
    auth.expire();
    assert!(auth.authenticate(&headers("authorization", "Bearer new")).is_ok());
}
