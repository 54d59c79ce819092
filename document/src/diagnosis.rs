//! What is wrong with a document, where, and how to mend it.

use std::fmt;

use serde::{Deserialize, Serialize};

/// How bad it is: an error keeps a document from being used, a warning does not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// The document (or the component it concerns) cannot be used.
    Error,
    /// It can be used, but probably does not do what its author meant.
    Warning,
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Severity::Error => "error",
            Severity::Warning => "warning",
        })
    }
}

/// A place in a file.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Place {
    /// The file's path, or what stands for it (`OpenTelemetryCollector ns/name`, `--set`).
    pub file: String,
    /// The line, counted from 1, of the outermost file.
    pub line: Option<u32>,
    /// The column, counted from 1; absent where the text is embedded in another file.
    pub column: Option<u32>,
}

impl Place {
    /// A file as a whole.
    pub fn file(file: impl Into<String>) -> Self {
        Place {
            file: file.into(),
            line: None,
            column: None,
        }
    }

    /// A line of a file.
    pub fn line(file: impl Into<String>, line: u32) -> Self {
        Place {
            file: file.into(),
            line: Some(line),
            column: None,
        }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{}:{line}", self.file),
            None => f.write_str(&self.file),
        }
    }
}

/// One thing that is wrong. Its `Display` is `FILE:LINE: error: KEY: message; mend`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Diagnosis {
    /// How bad it is.
    pub severity: Severity,
    /// Where it stands.
    pub place: Place,
    /// The dotted path of the key it concerns; may be empty.
    pub key: String,
    /// What is wrong. Never holds a secret.
    pub message: String,
    /// What to do about it.
    pub mend: String,
}

impl Diagnosis {
    /// An error.
    pub fn error(
        place: Place,
        key: impl Into<String>,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Diagnosis {
            severity: Severity::Error,
            place,
            key: key.into(),
            message: message.into(),
            mend: mend.into(),
        }
    }

    /// A warning.
    pub fn warning(
        place: Place,
        key: impl Into<String>,
        message: impl Into<String>,
        mend: impl Into<String>,
    ) -> Self {
        Diagnosis {
            severity: Severity::Warning,
            ..Diagnosis::error(place, key, message, mend)
        }
    }

    /// Whether this one is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}: ", self.place, self.severity)?;
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        if !self.mend.is_empty() {
            write!(f, "; {}", self.mend)?;
        }
        Ok(())
    }
}

/// Whether any of them is an error.
pub fn has_errors(diagnoses: &[Diagnosis]) -> bool {
    diagnoses.iter().any(Diagnosis::is_error)
}

/// Where a text starts in the file its author edits.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Origin {
    /// The file's path, or what stands for it.
    pub file: String,
    /// The line of that file on which the text's first line stands; 1 for a whole file.
    pub first_line: u32,
}

impl Origin {
    /// A whole file.
    pub fn file(file: impl Into<String>) -> Self {
        Origin {
            file: file.into(),
            first_line: 1,
        }
    }

    /// A text embedded in a file, starting at a line of it.
    pub fn embedded(file: impl Into<String>, first_line: u32) -> Self {
        Origin {
            file: file.into(),
            first_line: first_line.max(1),
        }
    }

    /// The place of a line (counted from 1) of the text.
    pub fn place(&self, line: u32) -> Place {
        Place::line(
            self.file.clone(),
            self.first_line.saturating_add(line).saturating_sub(1),
        )
    }
}
