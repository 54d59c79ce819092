//! The path and the query of a request.

use crate::{
    error::ApiError,
    kinds::Kind,
    selector::{Fields, Labels},
    store::FieldValidation,
};

/// What a path names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// Discovery, version, health, OpenAPI: the segments.
    Document(Vec<String>),
    Resource(Resource),
}

/// Objects of a kind, one object, or a part of one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Resource {
    pub(crate) group: String,
    pub(crate) version: String,
    pub(crate) namespace: Option<String>,
    pub(crate) plural: String,
    pub(crate) name: String,
    pub(crate) subresource: String,
}

impl Place {
    pub(crate) fn parse(path: &str) -> Result<Self, ApiError> {
        let mut segments = Vec::new();
        for segment in path.split('/').filter(|s| !s.is_empty()) {
            segments.push(
                decode(segment)
                    .ok_or_else(|| ApiError::bad_request("the path is not percent-encoded UTF-8"))?,
            );
        }
        let (group, version, rest) = match segments.as_slice() {
            [api, version, rest @ ..] if api == "api" && !rest.is_empty() => {
                (String::new(), version.clone(), rest)
            }
            [apis, group, version, rest @ ..] if apis == "apis" && !rest.is_empty() => {
                (group.clone(), version.clone(), rest)
            }
            _ => return Ok(Self::Document(segments)),
        };
        let rest: Vec<&str> = rest.iter().map(String::as_str).collect();
        let part = |namespace: Option<&str>, plural: &str, name: &str, subresource: &str| {
            Self::Resource(Resource {
                group: group.clone(),
                version: version.clone(),
                namespace: namespace.map(str::to_owned),
                plural: plural.to_owned(),
                name: name.to_owned(),
                subresource: subresource.to_owned(),
            })
        };
        Ok(match rest.as_slice() {
            ["namespaces", name, subresource @ ("status" | "finalize")] => {
                part(None, "namespaces", name, subresource)
            }
            ["namespaces", namespace, plural] => part(Some(namespace), plural, "", ""),
            ["namespaces", namespace, plural, name] => part(Some(namespace), plural, name, ""),
            ["namespaces", namespace, plural, name, subresource] => {
                part(Some(namespace), plural, name, subresource)
            }
            [plural] => part(None, plural, "", ""),
            [plural, name] => part(None, plural, name, ""),
            [plural, name, subresource] => part(None, plural, name, subresource),
            _ => return Err(ApiError::no_such_path()),
        })
    }
}

fn decode(segment: &str) -> Option<String> {
    if !segment.contains('%') {
        return Some(segment.to_owned());
    }
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        if *first == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            bytes.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            bytes.push(*first);
            rest = after;
        }
    }
    String::from_utf8(bytes).ok()
}

/// The query's parameters.
#[derive(Debug, Clone, Default)]
pub(crate) struct Query(Vec<(String, String)>);

impl Query {
    pub(crate) fn parse(query: &str) -> Self {
        Self(
            url::form_urlencoded::parse(query.as_bytes())
                .into_owned()
                .collect(),
        )
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(crate) fn flag(&self, name: &str) -> bool {
        matches!(self.get(name), Some("true" | "1"))
    }

    pub(crate) fn number(&self, name: &str) -> Option<u64> {
        self.get(name).and_then(|v| v.parse().ok())
    }

    pub(crate) fn labels(&self) -> Result<Labels, ApiError> {
        Labels::parse(self.get("labelSelector").unwrap_or(""))
            .map_err(|e| ApiError::bad_request(e.to_string()))
    }

    /// The field selector, when it names only what a kind can be selected by.
    pub(crate) fn fields(&self, kind: &Kind) -> Result<Fields, ApiError> {
        let text = self.get("fieldSelector").unwrap_or("");
        let fields = Fields::parse(text).map_err(|e| ApiError::bad_request(e.to_string()))?;
        let known = kind.selectable();
        if let Some(unknown) = fields.unknown(&known) {
            let known: Vec<String> = known.iter().map(|path| format!("\"{path}\"")).collect();
            let words = format!(
                "\"{unknown}\" is not a known field selector: only {}",
                known.join(", ")
            );
            return Err(ApiError::bad_request(words));
        }
        Ok(fields)
    }

    pub(crate) fn dry_run(&self) -> Result<bool, ApiError> {
        match self.get("dryRun") {
            None | Some("") => Ok(false),
            Some("All") => Ok(true),
            Some(other) => Err(ApiError::bad_request(format!(
                "dryRun is \"All\" or nothing, not {other:?}"
            ))),
        }
    }

    pub(crate) fn validation(&self) -> Result<FieldValidation, ApiError> {
        match self.get("fieldValidation") {
            None | Some("" | "Warn") => Ok(FieldValidation::Warn),
            Some("Strict") => Ok(FieldValidation::Strict),
            Some("Ignore") => Ok(FieldValidation::Ignore),
            Some(other) => Err(ApiError::bad_request(format!(
                "fieldValidation is Ignore, Warn or Strict, not {other:?}"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn resource(path: &str) -> Resource {
        match Place::parse(path) {
            Ok(Place::Resource(resource)) => resource,
            other => panic!("{path}: {other:?}"),
        }
    }

    #[test]
    fn finds_objects_and_their_parts() {
        let pod = resource("/api/v1/namespaces/default/pods/a%2Db/log");
        assert_eq!(
            (
                pod.namespace.as_deref(),
                pod.plural.as_str(),
                pod.name.as_str(),
                pod.subresource.as_str()
            ),
            (Some("default"), "pods", "a-b", "log")
        );
        let namespace = resource("/api/v1/namespaces/default/status");
        assert_eq!(
            (
                namespace.namespace,
                namespace.plural.as_str(),
                namespace.name.as_str()
            ),
            (None, "namespaces", "default")
        );
        let crd = resource("/apis/apiextensions.k8s.io/v1/customresourcedefinitions/a.b");
        assert_eq!(
            (crd.group.as_str(), crd.version.as_str(), crd.name.as_str()),
            ("apiextensions.k8s.io", "v1", "a.b")
        );
        assert_eq!(
            Place::parse("/apis/apps/v1"),
            Ok(Place::Document(vec!["apis".into(), "apps".into(), "v1".into()]))
        );
    }

    proptest! {
        #[test]
        fn never_panics(path in "(/[a-z%0-9é]{0,6}){0,7}", query in "\\PC{0,40}") {
            let _ = Place::parse(&path);
            let _ = Query::parse(&query).get("a");
        }
    }
}
