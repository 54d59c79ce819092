//! Endpoints that are dialled: what they mean, and what is wrong with them.

use url::Url;

/// Where a gRPC client connects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GrpcTarget {
    /// The host, as written; an IPv6 address without its brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// What a scheme in front says about TLS: `http` no, `https` yes, without one the `tls` block decides.
    pub tls: Option<bool>,
}

/// Reads a gRPC client's endpoint. The error says what is wrong with it, then, after `; `, the mend.
pub fn grpc_target(endpoint: &str) -> Result<GrpcTarget, String> {
    let text = endpoint.trim();
    if text.is_empty() {
        return Err("no endpoint is given; write `endpoint: HOST:PORT`".to_owned());
    }
    let (tls, rest) = match text.split_once("://") {
        Some(("http", rest)) => (Some(false), rest),
        Some(("https", rest)) => (Some(true), rest),
        Some(("dns", rest)) => (None, rest.trim_start_matches('/')),
        Some((scheme, _)) => {
            return Err(format!(
                "the scheme `{scheme}` is not known for gRPC; write HOST:PORT"
            ));
        }
        None => (None, text),
    };
    let rest = match tls {
        Some(_) => rest.trim_end_matches('/'),
        None => rest,
    };
    let (host, port) = split(rest, tls)?;
    if host.is_empty() {
        return Err(format!("`{endpoint}` names no host; write HOST:PORT"));
    }
    if let Some(wrong) = host
        .chars()
        .find(|c| !(c.is_alphanumeric() || matches!(c, '.' | '-' | '_' | ':' | '%')))
    {
        return Err(format!("the host contains `{wrong}`; write HOST:PORT"));
    }
    Ok(GrpcTarget {
        host: host.to_owned(),
        port,
        tls,
    })
}

fn split(text: &str, tls: Option<bool>) -> Result<(&str, u16), String> {
    let (host, port) = match text.strip_prefix('[') {
        Some(rest) => {
            let (host, rest) = rest
                .split_once(']')
                .ok_or("`[` is not closed; write [ADDRESS]:PORT")?;
            (host, rest.strip_prefix(':'))
        }
        None => match text.rsplit_once(':') {
            Some((host, _)) if host.contains(':') => {
                return Err(format!(
                    "`{text}` is ambiguous; write an IPv6 address as [ADDRESS]:PORT"
                ));
            }
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        },
    };
    match (port, tls) {
        (Some(port), _) => Ok((host, parse_port(port)?)),
        (None, Some(true)) => Ok((host, 443)),
        (None, Some(false)) => Ok((host, 80)),
        (None, None) => Err(format!(
            "`{text}` has no port; write HOST:PORT, for OTLP usually {text}:4317"
        )),
    }
}

fn parse_port(port: &str) -> Result<u16, String> {
    let digits: String = port.chars().filter(char::is_ascii_digit).collect();
    match port.parse::<u16>() {
        Ok(port) if port > 0 => Ok(port),
        _ if digits != port && digits.parse::<u16>().is_ok_and(|p| p > 0) => {
            Err(format!("`{port}` is no port; write {digits}"))
        }
        _ => Err(format!("`{port}` is no port; write a number from 1 to 65535")),
    }
}

/// Reads an HTTP client's endpoint. The error says what is wrong with it, then, after `; `, the mend.
pub fn http_url(endpoint: &str) -> Result<Url, String> {
    let text = endpoint.trim();
    if text.is_empty() {
        return Err("no endpoint is given; write `endpoint: http://HOST:PORT`".to_owned());
    }
    if !text.contains("://") {
        return Err(format!(
            "`{text}` has no scheme; write http://{text} or https://{text}"
        ));
    }
    let url =
        Url::parse(text).map_err(|error| format!("`{text}` is no URL ({error}); write http://HOST:PORT"))?;
    match url.scheme() {
        "http" | "https" if url.host_str().is_some_and(|host| !host.is_empty()) => Ok(url),
        "http" | "https" => Err(format!("`{text}` names no host; write http://HOST:PORT")),
        scheme => Err(format!(
            "the scheme `{scheme}` is not HTTP; write http:// or https://"
        )),
    }
}

/// Reads where a server listens. The error says what is wrong with it, then, after `; `, the mend.
pub fn listen_endpoint(endpoint: &str) -> Result<(), String> {
    let text = endpoint.trim();
    if text.contains("://") {
        return Err(format!(
            "`{text}` has a scheme; write where to listen as HOST:PORT"
        ));
    }
    let Some((_, port)) = text.rsplit_once(':') else {
        return Err(format!(
            "`{text}` has no port; write HOST:PORT, such as 0.0.0.0:4317"
        ));
    };
    match port.parse::<u16>() {
        Ok(_) => Ok(()),
        Err(_) => parse_port(port).map(|_| ()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_endpoints_of_grpc_clients() {
        let target = |host: &str, port, tls| {
            Ok(GrpcTarget {
                host: host.into(),
                port,
                tls,
            })
        };
        assert_eq!(grpc_target("a:4317"), target("a", 4317, None));
        assert_eq!(grpc_target("http://a.b:4317"), target("a.b", 4317, Some(false)));
        assert_eq!(grpc_target("https://a.b"), target("a.b", 443, Some(true)));
        assert_eq!(grpc_target("dns:///a:1"), target("a", 1, None));
        assert_eq!(grpc_target("[::1]:4317"), target("::1", 4317, None));
        assert_eq!(
            grpc_target("a:14250\""),
            Err("`14250\"` is no port; write 14250".into())
        );
        for wrong in [
            "",
            "a",
            ":1",
            "a:0",
            "a:70000",
            "::1:4317",
            "ftp://a:1",
            "a b:1",
            "[::1:3",
        ] {
            assert!(grpc_target(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn reads_endpoints_of_http_clients_and_servers() {
        assert_eq!(http_url("http://a:4318/x").unwrap().port(), Some(4318));
        assert!(http_url("a:4318").unwrap_err().contains("no scheme"));
        assert!(http_url("ftp://a").is_err());
        assert!(listen_endpoint(":4317").is_ok());
        assert!(listen_endpoint("[::]:0").is_ok());
        assert!(listen_endpoint("localhost").is_err());
        assert!(listen_endpoint("http://localhost:1").is_err());
    }
}
