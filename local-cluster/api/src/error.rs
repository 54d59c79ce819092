//! What a request that cannot be served is answered with: a `Status` object.

use serde_json::{Map, Value, json};

/// One thing that is wrong with an object: what kind of mistake, in which words, at which field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cause {
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) field: String,
}

impl Cause {
    pub(crate) fn required(field: &str, message: &str) -> Self {
        let message = if message.is_empty() {
            "Required value".to_owned()
        } else {
            format!("Required value: {message}")
        };
        Self {
            reason: "FieldValueRequired",
            message,
            field: field.to_owned(),
        }
    }

    pub(crate) fn invalid(field: &str, value: &Value, message: &str) -> Self {
        let shown = clip(&value.to_string());
        Self {
            reason: "FieldValueInvalid",
            message: format!("Invalid value: {shown}: {message}"),
            field: field.to_owned(),
        }
    }

    pub(crate) fn unsupported(field: &str, value: &Value, allowed: &str) -> Self {
        let shown = clip(&value.to_string());
        let message = format!("Unsupported value: {shown}: supported values: {allowed}");
        Self {
            reason: "FieldValueNotSupported",
            message,
            field: field.to_owned(),
        }
    }

    pub(crate) fn duplicate(field: &str, value: &Value) -> Self {
        let message = format!("Duplicate value: {}", clip(&value.to_string()));
        Self {
            reason: "FieldValueDuplicate",
            message,
            field: field.to_owned(),
        }
    }

    pub(crate) fn forbidden(field: &str, message: &str) -> Self {
        Self {
            reason: "FieldValueForbidden",
            message: format!("Forbidden: {message}"),
            field: field.to_owned(),
        }
    }
}

/// A value in a message is shown up to a length; the rest of it helps nobody.
fn clip(text: &str) -> String {
    const SHOWN: usize = 200;
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

/// A refusal with the code, the reason and the words that an API server gives.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[error("{message}")]
pub(crate) struct ApiError {
    pub(crate) code: u16,
    pub(crate) reason: &'static str,
    pub(crate) message: String,
    pub(crate) details: Option<Box<Value>>,
}

impl ApiError {
    pub(crate) fn new(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            code,
            reason,
            message: message.into(),
            details: None,
        }
    }

    /// As `new`, with details that say nothing, as the original has them here.
    pub(crate) fn with_details(code: u16, reason: &'static str, message: impl Into<String>) -> Self {
        Self {
            details: Some(Box::new(json!({}))),
            ..Self::new(code, reason, message)
        }
    }

    pub(crate) fn bad_request(message: impl Into<String>) -> Self {
        Self::new(400, "BadRequest", message)
    }

    /// `resource` as `deployments.apps` or `pods`.
    pub(crate) fn not_found(group: &str, resource: &str, name: &str) -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            format!("{} \"{name}\" not found", qualified(group, resource)),
        );
        error.details = Some(Box::new(details(group, resource, name)));
        error
    }

    pub(crate) fn no_such_path() -> Self {
        let mut error = Self::new(
            404,
            "NotFound",
            "the server could not find the requested resource",
        );
        error.details = Some(Box::new(json!({})));
        error
    }

    pub(crate) fn method_not_allowed() -> Self {
        Self::with_details(
            405,
            "MethodNotAllowed",
            "the server does not allow this method on the requested resource",
        )
    }

    pub(crate) fn already_exists(group: &str, resource: &str, name: &str) -> Self {
        let mut error = Self::new(
            409,
            "AlreadyExists",
            format!("{} \"{name}\" already exists", qualified(group, resource)),
        );
        error.details = Some(Box::new(details(group, resource, name)));
        error
    }

    pub(crate) fn conflict(group: &str, resource: &str, name: &str, why: &str) -> Self {
        let message = format!(
            "Operation cannot be fulfilled on {} \"{name}\": {why}",
            qualified(group, resource)
        );
        let mut error = Self::new(409, "Conflict", message);
        error.details = Some(Box::new(details(group, resource, name)));
        error
    }

    pub(crate) fn modified(group: &str, resource: &str, name: &str) -> Self {
        let why =
            "the object has been modified; please apply your changes to the latest version and try again";
        Self::conflict(group, resource, name, why)
    }

    pub(crate) fn invalid(group: &str, kind: &str, name: &str, causes: &[Cause]) -> Self {
        let subject = if group.is_empty() {
            kind.to_owned()
        } else {
            format!("{kind}.{group}")
        };
        let each: Vec<String> = causes
            .iter()
            .map(|c| format!("{}: {}", c.field, c.message))
            .collect();
        let all = if each.len() == 1 {
            each.concat()
        } else {
            format!("[{}]", each.join(", "))
        };
        let mut details = json!({});
        for (field, value) in [("name", name), ("group", group), ("kind", kind)] {
            if !value.is_empty() {
                details[field] = json!(value);
            }
        }
        details["causes"] = causes_json(causes);
        Self {
            code: 422,
            reason: "Invalid",
            message: format!("{subject} \"{name}\" is invalid: {all}"),
            details: Some(Box::new(details)),
        }
    }

    pub(crate) fn expired(message: impl Into<String>) -> Self {
        Self::new(410, "Expired", message)
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new(500, "InternalError", message)
    }

    pub(crate) fn status(&self) -> Value {
        let mut status = json!({
            "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": self.message, "reason": self.reason,
        });
        if let Some(details) = &self.details {
            status["details"] = (**details).clone();
        }
        status["code"] = json!(self.code);
        status
    }
}

pub(crate) fn causes_json(causes: &[Cause]) -> Value {
    causes
        .iter()
        .map(|c| json!({"reason": c.reason, "message": c.message, "field": c.field}))
        .collect()
}

fn details(group: &str, resource: &str, name: &str) -> Value {
    let mut details = Map::new();
    details.insert("name".into(), json!(name));
    if !group.is_empty() {
        details.insert("group".into(), json!(group));
    }
    details.insert("kind".into(), json!(resource));
    Value::Object(details)
}

/// `deployments.apps`, or `pods` for the core group.
pub(crate) fn qualified(group: &str, resource: &str) -> String {
    if group.is_empty() {
        resource.to_owned()
    } else {
        format!("{resource}.{group}")
    }
}
