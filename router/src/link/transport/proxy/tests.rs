use super::*;

fn choose(variables: &[(&str, &str)], host: &str, port: u16) -> Option<String> {
    let variable = |name: &str| {
        let found = variables.iter().find(|(known, _)| *known == name);
        found.map(|(_, value)| (*value).to_owned())
    };
    let chosen = Proxy::choose(&ProxyChoice::Environment, host, port, variable);
    chosen
        .unwrap()
        .map(|proxy| format!("{}:{}", proxy.host, proxy.port))
}

#[test]
fn the_environment_names_the_proxy_and_its_exceptions() {
    let proxy = ("HTTPS_PROXY", "http://proxy:3128");
    assert_eq!(choose(&[], "hub.example.com", 55671), None);
    assert_eq!(
        choose(&[proxy], "hub.example.com", 55671).as_deref(),
        Some("proxy:3128")
    );
    assert_eq!(
        choose(&[("https_proxy", "proxy")], "hub", 1).as_deref(),
        Some("proxy:80")
    );
    assert_eq!(choose(&[proxy], "127.0.0.1", 55671), None);
    assert_eq!(choose(&[proxy], "localhost", 55671), None);
    for except in [
        "*",
        "hub.example.com",
        ".example.com",
        "a, example.com",
        "EXAMPLE.com:55671",
        "*.example.com",
    ] {
        assert_eq!(
            choose(&[proxy, ("NO_PROXY", except)], "hub.example.com", 55671),
            None,
            "{except}"
        );
    }
    for except in ["", "ample.com", "example.com:1", "hub.example.com.org"] {
        assert!(
            choose(&[proxy, ("no_proxy", except)], "hub.example.com", 55671).is_some(),
            "{except}"
        );
    }
    for (except, host) in [
        ("10.0.0.0/8", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("fd00::/8", "fd12::1"),
        ("0.0.0.0/0", "1.2.3.4"),
    ] {
        assert_eq!(choose(&[proxy, ("NO_PROXY", except)], host, 1), None, "{except}");
    }
    for (except, host) in [
        ("10.0.0.0/8", "11.1.2.3"),
        ("10.0.0.0/99", "10.1.2.3"),
        ("fd00::/8", "10.1.2.3"),
    ] {
        assert!(
            choose(&[proxy, ("NO_PROXY", except)], host, 1).is_some(),
            "{except}"
        );
    }
}

#[test]
fn credentials_come_from_the_url_and_are_not_shown() {
    let proxy = Proxy::parse("https://us%40er:p%3Aw@proxy.example.com", "it").unwrap();
    assert_eq!((proxy.tls, proxy.port), (true, 443));
    assert_eq!(proxy.authorization.as_deref(), Some("Basic dXNAZXI6cDp3"));
    assert_eq!(format!("{proxy:?}"), "Proxy(proxy.example.com:443)");
    for bad in ["ftp://proxy", "http://", "socks5://proxy:1080"] {
        assert!(
            matches!(Proxy::parse(bad, "it"), Err(ProxyError::Url("it"))),
            "{bad}"
        );
    }
}

/// A proxy that gives one answer and then echoes; what it was asked.
async fn answering(answer: &'static [u8]) -> (Proxy, tokio::task::JoinHandle<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://user:word@{}", listener.local_addr().unwrap());
    let served = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut asked = Vec::new();
        while !asked.ends_with(b"\r\n\r\n") {
            asked.push(socket.read_u8().await.unwrap());
        }
        socket.write_all(answer).await.unwrap();
        let (mut read, mut write) = socket.split();
        let _ = tokio::io::copy(&mut read, &mut write).await;
        String::from_utf8(asked).unwrap()
    });
    (Proxy::parse(&url, "it").unwrap(), served)
}

#[tokio::test]
async fn asks_for_the_peer_and_hands_over_the_socket() {
    let (proxy, served) = answering(b"HTTP/1.1 200 Connection established\r\nVia: x\r\n\r\nhello").await;
    let mut socket = proxy
        .connect(&Net::system(), "hub.example.com", 55671)
        .await
        .unwrap();
    let mut greeting = [0; 5];
    socket.read_exact(&mut greeting).await.unwrap();
    assert_eq!(&greeting, b"hello");
    drop(socket);
    let asked = served.await.unwrap();
    assert!(
        asked.starts_with("CONNECT hub.example.com:55671 HTTP/1.1\r\nHost: hub.example.com:55671\r\n"),
        "{asked}"
    );
    assert!(
        asked.contains("Proxy-Authorization: Basic dXNlcjp3b3Jk\r\n"),
        "{asked}"
    );
}

#[tokio::test]
async fn says_why_the_proxy_does_not_connect() {
    let cases: [(&[u8], &str); 4] = [
        (
            b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n",
            "refuses the credentials",
        ),
        (b"HTTP/1.0 403 No such luck\r\n\r\n", "403 No such luck"),
        (b"SSH-2.0-OpenSSH\r\n\r\n", "does not answer as an HTTP proxy"),
        (
            b"HTTP/1.1 two hundred\r\n\r\n",
            "does not answer as an HTTP proxy",
        ),
    ];
    for (answer, expected) in cases {
        let (proxy, _) = answering(answer).await;
        let error = proxy
            .connect(&Net::system(), "hub", 1)
            .await
            .unwrap_err()
            .to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[tokio::test]
async fn a_stream_that_is_no_socket_is_relayed() {
    let (near, mut far) = tokio::io::duplex(64);
    let mut socket = relayed(near).await.unwrap();
    socket.write_all(b"there").await.unwrap();
    let mut read = [0; 5];
    far.read_exact(&mut read).await.unwrap();
    assert_eq!(&read, b"there");
    far.write_all(b"back").await.unwrap();
    drop(far);
    let mut rest = String::new();
    socket.read_to_string(&mut rest).await.unwrap();
    assert_eq!(rest, "back");
}
