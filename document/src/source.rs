//! Where a document comes from.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use crate::Origin;

/// A file, or a key of a ConfigMap.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// A file, watched.
    File(PathBuf),
    /// A ConfigMap, watched: `kube:NAMESPACE/NAME[#KEY]`.
    Kube {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The key of its data; without it the only one is meant.
        key: Option<String>,
    },
}

/// A source that cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// Nothing is written.
    #[error("the source of the document is empty: name a file or kube:NAMESPACE/NAME[#KEY]")]
    Empty,
    /// `kube:` without a namespace and a name.
    #[error("`{0}` names no object: write kube:NAMESPACE/NAME or kube:NAMESPACE/NAME#KEY")]
    NoObject(String),
}

impl FromStr for Source {
    type Err = SourceError;

    fn from_str(text: &str) -> Result<Self, SourceError> {
        if text.is_empty() {
            return Err(SourceError::Empty);
        }
        let Some(object) = text.strip_prefix("kube:") else {
            return Ok(Source::File(PathBuf::from(
                text.strip_prefix("file:").unwrap_or(text),
            )));
        };
        let (object, key) = match object.split_once('#') {
            Some((object, key)) => (object, Some(key.to_owned()).filter(|key| !key.is_empty())),
            None => (object, None),
        };
        match object.split_once('/') {
            Some((namespace, name)) if !namespace.is_empty() && !name.is_empty() && !name.contains('/') => {
                Ok(Source::Kube {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                    key,
                })
            }
            _ => Err(SourceError::NoObject(text.to_owned())),
        }
    }
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Source::File(path) => write!(f, "{}", path.display()),
            Source::Kube {
                namespace,
                name,
                key: None,
            } => write!(f, "kube:{namespace}/{name}"),
            Source::Kube {
                namespace,
                name,
                key: Some(key),
            } => write!(f, "kube:{namespace}/{name}#{key}"),
        }
    }
}

/// A document as it stands at its source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Document {
    /// Its text.
    pub text: String,
    /// Where that text starts.
    pub origin: Origin,
    /// Changes whenever the source does: a ConfigMap's resourceVersion, a count for a file.
    pub version: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_read_as_they_print() {
        for text in [
            "a/b.yaml",
            "kube:default/skupper-internal",
            "kube:ns/name#collector.yaml",
        ] {
            assert_eq!(text.parse::<Source>().unwrap().to_string(), text);
        }
        assert_eq!("file:/x".parse::<Source>().unwrap(), Source::File("/x".into()));
        assert_eq!(
            "kube:name".parse::<Source>(),
            Err(SourceError::NoObject("kube:name".into()))
        );
    }
}
