//! `HOST:PORT` as documents write it.

/// Why a text is no endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EndpointError {
    /// No port.
    #[error("{endpoint:?} names no port; write HOST:PORT, for example \"localhost:4317\"")]
    NoPort {
        /// The text.
        endpoint: String,
    },
    /// What follows the last colon is no port.
    #[error("{port:?} in {endpoint:?} is no port; a port is a number from 0 to 65535")]
    Port {
        /// The text.
        endpoint: String,
        /// The part that should be a port.
        port: String,
    },
    /// A URL where an endpoint belongs.
    #[error("{endpoint:?} is a URL; write only HOST:PORT here")]
    Scheme {
        /// The text.
        endpoint: String,
    },
    /// Brackets that do not hold an IPv6 address, or an IPv6 address without them.
    #[error("{endpoint:?}: an IPv6 address stands in brackets, for example \"[::1]:4317\"")]
    Brackets {
        /// The text.
        endpoint: String,
    },
    /// A host with characters that no host name has.
    #[error("{host:?} in {endpoint:?} is no host name")]
    Host {
        /// The text.
        endpoint: String,
        /// The part that should be a host.
        host: String,
    },
}

/// Splits `HOST:PORT`. The host may be empty (`:4317`) and comes without the brackets of an IPv6 address.
///
/// # Errors
/// When the text has no port, no valid port, or is something else, as the error says.
pub fn split_host_port(endpoint: &str) -> Result<(String, u16), EndpointError> {
    let text = || endpoint.to_owned();
    if endpoint.contains("://") {
        return Err(EndpointError::Scheme { endpoint: text() });
    }
    let (host, port) = endpoint
        .rsplit_once(':')
        .ok_or_else(|| EndpointError::NoPort { endpoint: text() })?;
    if endpoint.ends_with(']') {
        return Err(EndpointError::NoPort { endpoint: text() });
    }
    let host = bare_host(endpoint, host)?;
    let digits = !port.is_empty() && port.bytes().all(|byte| byte.is_ascii_digit());
    let number = if digits { port.parse().ok() } else { None };
    let number = number.ok_or_else(|| EndpointError::Port {
        endpoint: text(),
        port: port.to_owned(),
    })?;
    Ok((host, number))
}

fn bare_host(endpoint: &str, host: &str) -> Result<String, EndpointError> {
    let brackets = || EndpointError::Brackets {
        endpoint: endpoint.to_owned(),
    };
    if let Some(inside) = host.strip_prefix('[') {
        let address = inside.strip_suffix(']').ok_or_else(brackets)?;
        let unscoped = address.split_once('%').map_or(address, |(address, _)| address);
        return match unscoped.parse::<std::net::Ipv6Addr>() {
            Ok(_) => Ok(address.to_owned()),
            Err(_) => Err(brackets()),
        };
    }
    if host.contains(':') {
        return Err(brackets());
    }
    let fits = host.len() <= 253
        && host
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '.' | '-' | '_'));
    if !fits {
        return Err(EndpointError::Host {
            endpoint: endpoint.to_owned(),
            host: host.to_owned(),
        });
    }
    Ok(host.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_what_documents_write() {
        for (text, host, port) in [
            ("0.0.0.0:4317", "0.0.0.0", 4317),
            (":4317", "", 4317),
            ("[::]:1", "::", 1),
            ("a-b.default.svc:65535", "a-b.default.svc", 65535),
        ] {
            assert_eq!(split_host_port(text), Ok((host.to_owned(), port)), "{text}");
        }
    }

    #[test]
    fn says_what_is_wrong() {
        let message = |text| split_host_port(text).unwrap_err().to_string();
        assert!(message("jaeger-skupper-collector:14250\"").starts_with("\"14250\\\"\" in"));
        assert!(message("localhost").contains("names no port"));
        assert!(message("[::1]").contains("names no port"));
        assert!(message("::1:80").contains("brackets"));
        assert!(message("http://a:80").contains("is a URL"));
        assert!(message("a:65536").contains("is no port"));
        assert!(message("a:+1").contains("is no port"));
        assert!(message("a b:1").contains("no host name"));
    }
}
