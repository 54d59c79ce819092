//! `headers_setter`: sets headers of outgoing requests, also from the request that the data came with.

use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use futures::future::BoxFuture;
use http::{HeaderMap, HeaderName, HeaderValue};
use karez_collector_config::ComponentId;
use karez_collector_config::credentials::{self as config, HeaderAction};

use super::file::SecretFile;
use super::{ClientAuth, CredentialsError};
use crate::batch::Context;
use crate::component::{ComponentContext, Extension, Running, StartError};

/// Extension `headers_setter`.
pub struct HeadersSetterExtension {
    config: config::HeadersSetter,
    setter: Arc<Setter>,
}

/// The changes, compiled when the extension starts.
#[derive(Debug, Default)]
struct Setter {
    changes: OnceLock<Vec<Change>>,
    additional: OnceLock<Arc<dyn ClientAuth>>,
}

struct Change {
    header: HeaderName,
    action: HeaderAction,
    source: Source,
    default: Option<HeaderValue>,
}

impl std::fmt::Debug for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Change")
            .field("header", &self.header)
            .finish_non_exhaustive()
    }
}

enum Source {
    Nothing,
    Value(HeaderValue),
    /// As [`Context::find`] has it.
    Context(String),
    File(SecretFile<Option<HeaderValue>>),
}

impl HeadersSetterExtension {
    /// Takes its configuration.
    pub fn new(config: config::HeadersSetter) -> Self {
        HeadersSetterExtension {
            config,
            setter: Arc::default(),
        }
    }

    fn begin(&self, cx: &ComponentContext) -> Result<(), StartError> {
        let changes = self.config.headers.iter().enumerate().map(|(index, change)| {
            compile(change).map_err(|error| {
                let mend = "use characters that a header can carry";
                StartError::config(format!("headers[{index}]"), error.to_string(), mend)
            })
        });
        let changes = changes.collect::<Result<Vec<_>, _>>()?;
        let name = self.config.additional_auth.as_str();
        if !name.is_empty() {
            let id: Option<ComponentId> = name.parse().ok();
            let found = id.and_then(|id| cx.extensions.find(&id)?.client_auth());
            let mend = "name an authenticator that stands before this one in service.extensions";
            let missing =
                || StartError::config("additional_auth", format!("`{name}` adds no credentials"), mend);
            let _ = self.setter.additional.set(found.ok_or_else(missing)?);
        }
        let _ = self.setter.changes.set(changes);
        Ok(())
    }
}

fn value(text: &str) -> Result<HeaderValue, CredentialsError> {
    HeaderValue::try_from(text).map_err(|_| CredentialsError::NotAHeader("value"))
}

fn compile(change: &config::HeaderChange) -> Result<Change, CredentialsError> {
    let header = HeaderName::try_from(change.key.to_ascii_lowercase())
        .map_err(|_| CredentialsError::HeaderName(change.key.clone()))?;
    let source = if let Some(text) = &change.value {
        Source::Value(value(text.expose())?)
    } else if let Some(name) = &change.from_context {
        match name.contains('.') {
            true => Source::Context(name.clone()),
            false => Source::Context(format!("metadata.{name}")),
        }
    } else if let Some(name) = &change.from_attribute {
        Source::Context(format!("auth.{name}"))
    } else if let Some(file) = &change.value_file {
        let read = |text: &str| HeaderValue::try_from(text.trim()).ok();
        Source::File(SecretFile::open(&PathBuf::from(file), read)?)
    } else {
        Source::Nothing
    };
    let default = change
        .default_value
        .as_ref()
        .map(|text| value(text.expose()))
        .transpose()?;
    Ok(Change {
        header,
        action: change.action,
        source,
        default,
    })
}

impl Extension for HeadersSetterExtension {
    fn start<'a>(&'a self, cx: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async { self.begin(cx).map(|()| Running::none()) })
    }

    fn client_auth(&self) -> Option<Arc<dyn ClientAuth>> {
        Some(self.setter.clone())
    }
}

impl Change {
    fn apply(&self, headers: &mut HeaderMap, context: Option<&Context>) {
        if self.action == HeaderAction::Delete {
            headers.remove(&self.header);
            return;
        }
        let there = headers.contains_key(&self.header);
        let wanted = match self.action {
            HeaderAction::Insert => !there,
            HeaderAction::Update => there,
            HeaderAction::Upsert | HeaderAction::Delete => true,
        };
        let found = match &self.source {
            Source::Nothing => None,
            Source::Value(value) => Some(value.clone()),
            Source::Context(name) => {
                let found = context.and_then(|context| context.find(name));
                found.and_then(|text| HeaderValue::try_from(text).ok())
            }
            Source::File(file) => file.current(),
        };
        if let Some(value) = found.or_else(|| self.default.clone()).filter(|_| wanted) {
            headers.insert(self.header.clone(), value);
        }
    }
}

impl ClientAuth for Setter {
    fn headers(&self) -> Result<Vec<(HeaderName, HeaderValue)>, CredentialsError> {
        let mut headers = HeaderMap::new();
        self.apply(&mut headers, None)?;
        Ok(headers
            .into_iter()
            .filter_map(|(name, value)| Some((name?, value)))
            .collect())
    }

    fn apply(&self, headers: &mut HeaderMap, context: Option<&Context>) -> Result<(), CredentialsError> {
        if let Some(additional) = self.additional.get() {
            additional.apply(headers, context)?;
        }
        let changes = self.changes.get().into_iter().flatten();
        changes.for_each(|change| change.apply(headers, context));
        Ok(())
    }

    fn needs_secure_transport(&self) -> bool {
        self.additional
            .get()
            .is_some_and(|additional| additional.needs_secure_transport())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn setter(changes: serde_json::Value) -> Setter {
        let changes: Vec<config::HeaderChange> = serde_json::from_value(changes).unwrap();
        let compiled: Vec<Change> = changes.iter().map(|change| compile(change).unwrap()).collect();
        Setter {
            changes: OnceLock::from(compiled),
            additional: OnceLock::new(),
        }
    }

    #[test]
    fn headers_come_from_values_and_from_the_request() {
        let setter = setter(serde_json::json!([
            {"key": "X-A", "value": "a"},
            {"key": "X-Tenant", "from_context": "tenant", "default_value": "none"},
            {"key": "X-Insert", "action": "insert", "value": "new"},
            {"key": "X-Update", "action": "update", "value": "new"},
            {"key": "X-Gone", "action": "delete"},
            {"key": "X-Who", "from_attribute": "username"},
        ]));
        let mut context = Context::default();
        context.metadata.insert("tenant", HeaderValue::from_static("t"));
        let sent = |context: Option<&Context>| {
            let mut headers = HeaderMap::new();
            headers.insert("x-insert", HeaderValue::from_static("old"));
            headers.insert("x-gone", HeaderValue::from_static("old"));
            setter.apply(&mut headers, context).unwrap();
            let mut all: Vec<String> = headers
                .iter()
                .map(|(name, value)| format!("{name}={}", value.to_str().unwrap()))
                .collect();
            all.sort();
            all
        };
        assert_eq!(sent(Some(&context)), ["x-a=a", "x-insert=old", "x-tenant=t"]);
        assert_eq!(sent(None), ["x-a=a", "x-insert=old", "x-tenant=none"]);
    }
}
