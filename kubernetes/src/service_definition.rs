//! A service definition: one value of ConfigMap `skupper-services`, JSON as Skupper 1.9.6 writes it.
//!
//! `expose` and the annotations' reader write definitions, the service-level controller turns them into the
//! router's document and Services.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// `origin` of definitions that annotations made; empty for those of `expose`, else a remote site's id.
pub const ORIGIN_ANNOTATION: &str = "annotation";

/// What an address is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceDefinition {
    /// The virtual address.
    pub address: String,
    /// `tcp`, `udp`, `http`, `http2`.
    pub protocol: String,
    /// Its ports.
    #[serde(deserialize_with = "null_is_empty")]
    pub ports: Vec<u16>,
    /// `""`, `Always`, `Never`.
    pub expose_ingress: String,
    /// Messages instead of requests (http).
    #[serde(rename = "eventchannel", skip_serializing_if = "is_false")]
    pub event_channel: bool,
    /// Gather answers (http).
    #[serde(skip_serializing_if = "String::is_empty")]
    pub aggregate: String,
    /// Headless definitions are kept but not run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub headless: Option<serde_json::Value>,
    /// Labels of the address's Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations of the address's Service.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// What serves it here.
    #[serde(deserialize_with = "null_is_empty")]
    pub targets: Vec<ServiceTarget>,
    /// Who defined it.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub origin: String,
    /// Secret with the credentials of a TLS service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub tls_credentials: String,
    /// Whether its connections are encrypted from the first to the last site.
    #[serde(rename = "karez.dev/sealed", skip_serializing_if = "is_false")]
    pub sealed: bool,
}

/// What serves an address on this site: a Service, or pods by selector.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceTarget {
    /// Its name, shown to people.
    pub name: String,
    /// `k=v,…` of pods.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub selector: String,
    /// Port of the address → port of the target, where they differ.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub target_ports: BTreeMap<u16, u16>,
    /// Name of a Service.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub service: String,
    /// Namespace of the target, when another.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub namespace: String,
    /// `v1` or `v2`: how the target is told who the client is.
    #[serde(rename = "karez.dev/proxy-protocol", skip_serializing_if = "String::is_empty")]
    pub proxy_protocol: String,
    /// Connections after which other targets and sites are preferred to it.
    #[serde(rename = "karez.dev/capacity", skip_serializing_if = "Option::is_none")]
    pub capacity: Option<u32>,
}

/// Why a definition cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DefinitionError {
    /// Not JSON of the expected shape.
    #[error("skupper-services/{address}: not a service definition: {message}")]
    Json {
        /// The key.
        address: String,
        /// What the parser says.
        message: String,
    },
    /// The address cannot be a Service's name.
    #[error(
        "address \"{address}\" is no DNS-1035 label: at most 63 of a-z, 0-9 and -, starting with a letter"
    )]
    Address {
        /// The address.
        address: String,
    },
    /// Not a protocol Skupper knows.
    #[error("protocol \"{protocol}\" of address \"{address}\" is none of tcp, udp, http, http2")]
    Protocol {
        /// The address.
        address: String,
        /// The protocol.
        protocol: String,
    },
    /// Datagrams, and sealed.
    #[error(
        "address \"{address}\" is of protocol udp, which cannot be encrypted from the first to the last site: let the \
         application encrypt (DTLS, QUIC), or leave karez.dev/sealed out"
    )]
    SealedDatagrams {
        /// The address.
        address: String,
    },
    /// No port, or port 0.
    #[error("address \"{address}\" has no usable port")]
    Ports {
        /// The address.
        address: String,
    },
}

impl ServiceDefinition {
    /// Reads one value of the ConfigMap; the key is the address when the value has none.
    ///
    /// # Errors
    /// When it is not JSON, or no definition that can be served.
    pub fn parse(key: &str, text: &str) -> Result<Self, DefinitionError> {
        let mut definition: Self = serde_json::from_str(text).map_err(|error| DefinitionError::Json {
            address: key.to_owned(),
            message: error.to_string(),
        })?;
        if definition.address.is_empty() {
            key.clone_into(&mut definition.address);
        }
        definition.check()?;
        Ok(definition)
    }

    /// Says whether it can be served.
    ///
    /// # Errors
    /// For an address, protocol or port that cannot be.
    pub fn check(&self) -> Result<(), DefinitionError> {
        let address = self.address.clone();
        if !is_dns_1035(&self.address) {
            return Err(DefinitionError::Address { address });
        }
        if !matches!(self.protocol.as_str(), "tcp" | "udp" | "http" | "http2") {
            return Err(DefinitionError::Protocol {
                address,
                protocol: self.protocol.clone(),
            });
        }
        if self.sealed && self.protocol == "udp" {
            return Err(DefinitionError::SealedDatagrams { address });
        }
        if self.ports.is_empty() || self.ports.contains(&0) {
            return Err(DefinitionError::Ports { address });
        }
        Ok(())
    }

    /// Whether this site defined it, by command or annotation.
    #[must_use]
    pub fn is_local(&self) -> bool {
        self.origin.is_empty() || self.origin == ORIGIN_ANNOTATION
    }

    /// The value as it is stored.
    #[must_use]
    pub fn to_json(&self) -> String {
        serde_json::to_string(self).expect("only strings and numbers as keys")
    }
}

/// Why the value of `skupper.io/port` cannot be used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("\"{part}\" in \"{text}\" is no port[:targetPort] with numbers from 1 to 65535")]
pub struct PortSpecError {
    /// The whole value.
    pub text: String,
    /// The part that is wrong.
    pub part: String,
}

/// Reads `port[:targetPort][,…]` as pairs; one bad number makes the whole value bad.
///
/// # Errors
/// When a part is no pair of ports.
pub fn parse_port_list(text: &str) -> Result<Vec<(u16, u16)>, PortSpecError> {
    let number = |part: &str| part.trim().parse::<u16>().ok().filter(|port| *port > 0);
    text.split(',')
        .map(|part| {
            let (port, target) = part.split_once(':').unwrap_or((part, part));
            match (number(port), number(target)) {
                (Some(port), Some(target)) => Ok((port, target)),
                _ => Err(PortSpecError {
                    text: text.to_owned(),
                    part: part.to_owned(),
                }),
            }
        })
        .collect()
}

fn is_dns_1035(name: &str) -> bool {
    name.len() <= 63
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && !name.ends_with('-')
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-')
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde gives a reference")]
fn is_false(value: &bool) -> bool {
    !value
}

fn null_is_empty<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Ok(Option::<Vec<T>>::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_written_as_skupper_1_9_6_writes_it() {
        let definition = ServiceDefinition {
            address: "a".into(),
            protocol: "tcp".into(),
            ports: vec![4317, 4318, 55681],
            targets: vec![ServiceTarget {
                name: "x".into(),
                service: "x".into(),
                ..ServiceTarget::default()
            }],
            ..ServiceDefinition::default()
        };
        let text = definition.to_json();
        assert_eq!(
            text,
            r#"{"address":"a","protocol":"tcp","ports":[4317,4318,55681],"exposeIngress":"","targets":[{"name":"x","service":"x"}]}"#
        );
        assert_eq!(ServiceDefinition::parse("a", &text).unwrap(), definition);
    }

    #[test]
    fn accepts_null_targets_and_string_keys() {
        let text = r#"{"address":"a","protocol":"tcp","ports":[80],"targets":null}"#;
        assert!(ServiceDefinition::parse("a", text).unwrap().targets.is_empty());
        let text = r#"{"protocol":"tcp","ports":[80],"targets":[{"name":"x","targetPorts":{"80":8080}}]}"#;
        let definition = ServiceDefinition::parse("a", text).unwrap();
        assert_eq!(definition.targets[0].target_ports[&80], 8080);
    }

    #[test]
    fn refuses_what_no_service_can_be_named() {
        for text in [
            r#"{"address":"A","protocol":"tcp","ports":[80]}"#,
            r#"{"address":"a","protocol":"sctp","ports":[80]}"#,
            r#"{"address":"a","protocol":"tcp","ports":[]}"#,
            r#"{"address":"a","protocol":"udp","ports":[80],"karez.dev/sealed":true}"#,
            "[",
        ] {
            assert!(ServiceDefinition::parse("a", text).is_err(), "{text}");
        }
    }

    #[test]
    fn one_bad_port_spoils_the_list() {
        assert_eq!(parse_port_list("80:8080, 90"), Ok(vec![(80, 8080), (90, 90)]));
        assert!(parse_port_list("80,x").is_err());
        assert!(parse_port_list("0").is_err());
        assert!(parse_port_list("").is_err());
    }
}
