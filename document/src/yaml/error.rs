//! What goes wrong while decoding, and where.

use std::cell::RefCell;
use std::collections::HashSet;
use std::fmt;

use serde::de;

use super::{closest, join_key};
use crate::{Diagnosis, Place};

#[derive(Default)]
pub(super) struct State {
    /// Nodes that are wrong and now count as absent.
    pub(super) aside: RefCell<HashSet<usize>>,
    /// Keys whose value was set aside because it was wrong: that they are missing is no news.
    pub(super) reported: RefCell<HashSet<String>>,
}

pub(super) struct Fault {
    pub(super) key: String,
    pub(super) place: Place,
    pub(super) node: usize,
}

pub(super) struct Error {
    pub(super) kind: ErrorKind,
    pub(super) fault: Option<Fault>,
}

pub(super) enum ErrorKind {
    Unknown {
        field: String,
        expected: &'static [&'static str],
    },
    Missing {
        field: &'static str,
    },
    NullScalar,
    Wrong(String),
}

impl ErrorKind {
    pub(super) fn diagnosis(self, fault: &Fault, state: &State) -> Option<Diagnosis> {
        let place = fault.place.clone();
        match self {
            ErrorKind::NullScalar => None,
            ErrorKind::Missing { field } => {
                let key = join_key(&fault.key, field);
                state.reported.borrow_mut().insert(fault.key.clone());
                if state.reported.borrow().contains(&key) {
                    return None;
                }
                Some(Diagnosis::error(
                    place,
                    key,
                    "is missing",
                    format!("add `{field}:`"),
                ))
            }
            ErrorKind::Unknown { field, expected } => {
                let mend = match closest(&field, expected.iter().copied()) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None if expected.is_empty() => "remove it".to_owned(),
                    None => format!("known here: {}", expected.join(", ")),
                };
                Some(Diagnosis::error(place, fault.key.clone(), "unknown key", mend))
            }
            ErrorKind::Wrong(message) => {
                state.reported.borrow_mut().insert(fault.key.clone());
                let (message, mend) = match message.split_once("; ") {
                    Some((message, mend)) => (message.to_owned(), mend.to_owned()),
                    None => (message, "correct the value".to_owned()),
                };
                Some(Diagnosis::error(place, fault.key.clone(), message, mend))
            }
        }
    }
}

impl Error {
    pub(super) fn wrong(message: String) -> Self {
        Error {
            kind: ErrorKind::Wrong(message),
            fault: None,
        }
    }

    /// The innermost place that an error passes is where it belongs.
    pub(super) fn at(mut self, fault: impl FnOnce() -> Fault) -> Self {
        if self.fault.is_none() {
            self.fault = Some(fault());
        }
        self
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.kind {
            ErrorKind::Unknown { field, .. } => write!(f, "unknown key {field}"),
            ErrorKind::Missing { field } => write!(f, "{field} is missing"),
            ErrorKind::NullScalar => f.write_str("no value"),
            ErrorKind::Wrong(message) => f.write_str(message),
        }
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Error::wrong(message.to_string())
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Error {
            kind: ErrorKind::Unknown {
                field: field.to_owned(),
                expected,
            },
            fault: None,
        }
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let mend = match closest(variant, expected.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => format!("write one of {}", expected.join(", ")),
        };
        Error::wrong(format!("`{variant}` is not known here; {mend}"))
    }

    fn missing_field(field: &'static str) -> Self {
        Error {
            kind: ErrorKind::Missing { field },
            fault: None,
        }
    }
}
