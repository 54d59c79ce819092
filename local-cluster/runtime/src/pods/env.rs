//! A container's environment: `env`, `envFrom`, `valueFrom`, and `$(NAME)` in values and arguments.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::api::core::v1::{ConfigMap, Container, EnvFromSource, EnvVarSource, Secret};

use super::fields::View;
use crate::observe::Objects;

/// Where values of ConfigMaps and Secrets are looked up.
pub(crate) trait Lookup {
    /// The ConfigMap of this name.
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>>;
    /// The Secret of this name.
    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>>;
}

impl Lookup for Objects {
    fn config_map(&self, namespace: &str, name: &str) -> Option<Arc<ConfigMap>> {
        Objects::config_map(self, namespace, name)
    }

    fn secret(&self, namespace: &str, name: &str) -> Option<Arc<Secret>> {
        Objects::secret(self, namespace, name)
    }
}

/// What a container still lacks before it can start.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Missing {
    #[error("{kind} {name:?} not found")]
    Object { kind: &'static str, name: String },
    #[error("{kind} {name:?} has no key {key:?}")]
    Key {
        kind: &'static str,
        name: String,
        key: String,
    },
    #[error("the Pod has no field {0:?}")]
    Field(String),
    #[error("volume {volume:?}: {path:?} is no relative path inside the volume")]
    Path { volume: String, path: String },
    #[error(
        "volume {volume:?} is of a kind that a local site has not; it has configMap, secret, projected, downwardAPI, emptyDir, hostPath and persistentVolumeClaim"
    )]
    Volume { volume: String },
}

/// The environment in order; a later variable may use an earlier one.
pub(crate) fn environment(
    view: &View<'_>,
    container: &Container,
    lookup: &dyn Lookup,
) -> Result<Vec<(String, String)>, Missing> {
    let mut known: BTreeMap<String, String> = BTreeMap::new();
    let mut order: Vec<String> = Vec::new();
    let mut add = |name: String, value: String, known: &mut BTreeMap<String, String>| {
        if known.insert(name.clone(), value).is_none() {
            order.push(name);
        }
    };
    for source in container.env_from.iter().flatten() {
        for (name, value) in from_source(view, source, lookup)? {
            add(name, value, &mut known);
        }
    }
    for variable in container.env.iter().flatten() {
        let value = match (&variable.value, &variable.value_from) {
            (Some(text), _) => Some(expand(text, &known)),
            (None, Some(source)) => from_value(view, container, source, lookup)?,
            (None, None) => Some(String::new()),
        };
        if let Some(value) = value {
            add(variable.name.clone(), value, &mut known);
        }
    }
    Ok(order
        .into_iter()
        .filter_map(|name| known.get(&name).cloned().map(|value| (name, value)))
        .collect())
}

fn from_source(
    view: &View<'_>,
    source: &EnvFromSource,
    lookup: &dyn Lookup,
) -> Result<Vec<(String, String)>, Missing> {
    let prefix = source.prefix.as_deref().unwrap_or_default();
    let mut found = Vec::new();
    if let Some(reference) = &source.config_map_ref {
        match lookup.config_map(&view.namespace(), &reference.name) {
            Some(map) => found.extend(map.data.clone().unwrap_or_default()),
            None if reference.optional.unwrap_or(false) => {}
            None => {
                return Err(Missing::Object {
                    kind: "ConfigMap",
                    name: reference.name.clone(),
                });
            }
        }
    }
    if let Some(reference) = &source.secret_ref {
        match lookup.secret(&view.namespace(), &reference.name) {
            Some(secret) => found.extend(texts(&secret)),
            None if reference.optional.unwrap_or(false) => {}
            None => {
                return Err(Missing::Object {
                    kind: "Secret",
                    name: reference.name.clone(),
                });
            }
        }
    }
    let named = found
        .into_iter()
        .map(|(key, value)| (format!("{prefix}{key}"), value));
    Ok(named
        .filter(|(name, _)| !name.is_empty() && !name.contains(['=', '\0']))
        .collect())
}

fn texts(secret: &Secret) -> BTreeMap<String, String> {
    let data = secret.data.iter().flatten();
    data.map(|(key, value)| (key.clone(), String::from_utf8_lossy(&value.0).into_owned()))
        .collect()
}

/// The value, or none when an optional one is not there.
fn from_value(
    view: &View<'_>,
    container: &Container,
    source: &EnvVarSource,
    lookup: &dyn Lookup,
) -> Result<Option<String>, Missing> {
    if let Some(field) = &source.field_ref {
        let value = view.field(&field.field_path);
        return value
            .map(Some)
            .ok_or_else(|| Missing::Field(field.field_path.clone()));
    }
    if let Some(selector) = &source.resource_field_ref {
        let value = view.resource(container, selector);
        return value
            .map(Some)
            .ok_or_else(|| Missing::Field(selector.resource.clone()));
    }
    if let Some(from) = &source.config_map_key_ref {
        let map = lookup.config_map(&view.namespace(), &from.name);
        let data = map.map(|map| map.data.clone().unwrap_or_default());
        return key_of("ConfigMap", &from.name, &from.key, from.optional, data);
    }
    if let Some(from) = &source.secret_key_ref {
        let data = lookup
            .secret(&view.namespace(), &from.name)
            .map(|secret| texts(&secret));
        return key_of("Secret", &from.name, &from.key, from.optional, data);
    }
    Ok(None)
}

fn key_of(
    kind: &'static str,
    name: &str,
    key: &str,
    optional: Option<bool>,
    data: Option<BTreeMap<String, String>>,
) -> Result<Option<String>, Missing> {
    let missing = match data {
        Some(mut data) => match data.remove(key) {
            Some(value) => return Ok(Some(value)),
            None => Missing::Key {
                kind,
                name: name.to_owned(),
                key: key.to_owned(),
            },
        },
        None => Missing::Object {
            kind,
            name: name.to_owned(),
        },
    };
    if optional.unwrap_or(false) {
        Ok(None)
    } else {
        Err(missing)
    }
}

/// Replaces `$(NAME)` by the variable's value; `$$(NAME)` is `$(NAME)`, an unknown name stays as it is.
pub(crate) fn expand(text: &str, variables: &BTreeMap<String, String>) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            out.push('$');
            rest = after;
            continue;
        }
        let name = rest.strip_prefix('(').and_then(|inside| inside.split_once(')'));
        match name {
            Some((name, after)) => {
                match variables.get(name) {
                    Some(value) => out.push_str(value),
                    None => out.push_str(&format!("$({name})")),
                }
                rest = after;
            }
            None => out.push('$'),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
pub(crate) mod tests {
    use serde_json::json;

    use super::*;

    /// Objects by name, whatever the namespace.
    #[derive(Default)]
    pub(crate) struct Fixed {
        pub(crate) maps: BTreeMap<String, ConfigMap>,
        pub(crate) secrets: BTreeMap<String, Secret>,
    }

    impl Lookup for Fixed {
        fn config_map(&self, _: &str, name: &str) -> Option<Arc<ConfigMap>> {
            self.maps.get(name).cloned().map(Arc::new)
        }

        fn secret(&self, _: &str, name: &str) -> Option<Arc<Secret>> {
            self.secrets.get(name).cloned().map(Arc::new)
        }
    }

    #[test]
    fn variables_refer_to_earlier_ones() {
        let known = BTreeMap::from([("A".to_owned(), "1".to_owned())]);
        for (text, expected) in [
            ("$(A)/$(B)", "1/$(B)"),
            ("$$(A)", "$(A)"),
            ("$A $", "$A $"),
            ("$(A", "$(A"),
            ("kube:$(A)/x", "kube:1/x"),
        ] {
            assert_eq!(expand(text, &known), expected, "{text}");
        }
    }

    #[test]
    fn values_come_from_everywhere() {
        let pod = serde_json::from_value(json!({"metadata": {"name": "p", "namespace": "n"}})).unwrap();
        let view = View {
            pod: &pod,
            address: "127.9.8.2".parse().unwrap(),
            host: "127.9.8.1".parse().unwrap(),
        };
        let container: Container = serde_json::from_value(json!({
            "name": "c",
            "envFrom": [{"prefix": "M_", "configMapRef": {"name": "m"}}, {"secretRef": {"name": "none", "optional": true}}],
            "env": [
                {"name": "NS", "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}}},
                {"name": "URL", "value": "$(NS):$(M_key):$(KEY)"},
                {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                {"name": "OPT", "valueFrom": {"configMapKeyRef": {"name": "m", "key": "no", "optional": true}}},
                {"name": "M_key", "value": "over"}
            ]
        }))
        .unwrap();
        let mut lookup = Fixed::default();
        let object = |value| serde_json::from_value::<ConfigMap>(value).unwrap();
        lookup
            .maps
            .insert("m".into(), object(json!({"data": {"key": "v"}})));
        lookup.secrets.insert(
            "s".into(),
            serde_json::from_value(json!({"data": {"k": "c2VjcmV0"}})).unwrap(),
        );
        let pairs = environment(&view, &container, &lookup).unwrap();
        let texts: Vec<String> = pairs
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        assert_eq!(texts, ["M_key=over", "NS=n", "URL=n:v:$(KEY)", "KEY=secret"]);
        lookup.secrets.clear();
        let missing = environment(&view, &container, &lookup).unwrap_err();
        assert_eq!(missing.to_string(), "Secret \"s\" not found");
    }
}
