//! What Secrets and ConfigMaps hold, as far as it is known, and what is asked for.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use serde_json::Value;

use super::{Refusal, text};

/// A Secret or a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Reference {
    /// Whether it is a Secret.
    pub(crate) secret: bool,
    pub(crate) namespace: String,
    pub(crate) name: String,
}

/// What is known of one: its data, or why there is none.
pub(crate) type Known = Result<BTreeMap<String, String>, String>;

/// All of them.
#[derive(Debug, Default)]
pub(crate) struct Secrets {
    pub(crate) known: BTreeMap<Reference, Known>,
    /// What conversion asked for since it was looked at last.
    wanted: Mutex<BTreeSet<Reference>>,
    /// Namespaces whose Secrets may be read; empty for all.
    pub(crate) allowed: Vec<String>,
}

impl Secrets {
    /// Nothing is known yet; Secrets may be read in these namespaces only.
    pub(crate) fn allowed_in(namespaces: &[String]) -> Self {
        Secrets {
            allowed: namespaces
                .iter()
                .filter(|name| !name.is_empty())
                .cloned()
                .collect(),
            ..Secrets::default()
        }
    }

    /// What was asked for since this was called last.
    pub(crate) fn take_wanted(&self) -> BTreeSet<Reference> {
        std::mem::take(&mut *self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The value that `{name, key}` names in a namespace; `None` if the selector is not there.
    pub(crate) fn value(
        &self,
        namespace: &str,
        selector: Option<&Value>,
        secret: bool,
    ) -> Result<Option<String>, Refusal> {
        let Some(selector) = selector.filter(|selector| !text(selector, "name").is_empty()) else {
            return Ok(None);
        };
        let (name, key) = (text(selector, "name"), text(selector, "key"));
        let kind = if secret { "Secret" } else { "ConfigMap" };
        if secret && !self.allowed.is_empty() && !self.allowed.iter().any(|allowed| allowed == namespace) {
            let allowed = self.allowed.join(", ");
            return Err(Refusal::Wrong(format!(
                "Secret {namespace}/{name} may not be read: `secret_namespaces` allows {allowed}"
            )));
        }
        let reference = Reference {
            secret,
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        };
        self.wanted
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(reference.clone());
        let optional = selector.get("optional").and_then(Value::as_bool) == Some(true);
        match self.known.get(&reference) {
            None => Err(Refusal::Pending),
            Some(Err(_)) if optional => Ok(None),
            Some(Err(reason)) => Err(Refusal::Wrong(format!("{kind} {namespace}/{name}: {reason}"))),
            Some(Ok(data)) => match data.get(key) {
                Some(value) => Ok(Some(value.clone())),
                None if optional => Ok(None),
                None => Err(Refusal::Wrong(format!(
                    "{kind} {namespace}/{name} has no key `{key}`"
                ))),
            },
        }
    }

    /// The value of `{secret: {…}}` or `{configMap: {…}}`.
    pub(crate) fn either(
        &self,
        namespace: &str,
        selector: Option<&Value>,
    ) -> Result<Option<String>, Refusal> {
        let Some(selector) = selector else {
            return Ok(None);
        };
        match self.value(namespace, selector.get("secret"), true)? {
            Some(value) => Ok(Some(value)),
            None => self.value(namespace, selector.get("configMap"), false),
        }
    }
}
