//! What an item says about its sampling: a span in the member `ot` of its trace state, a log record in two attributes.

use super::threshold::{Randomness, Threshold};
use crate::processors::edit::{Attributes, text};
use crate::wire::field::{fields, put_delimited};

const THRESHOLD: &str = "sampling.threshold";
const RANDOMNESS: &str = "sampling.randomness";
/// Longest trace state that is looked at; a specification's own limit is 512.
const MAX_STATE: usize = 8192;

/// The state, as far as it is about sampling.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct State {
    pub(super) threshold: Option<Threshold>,
    pub(super) randomness: Option<Randomness>,
    /// Other entries of `ot`.
    entries: Vec<String>,
    /// Other members of the trace state.
    members: Vec<String>,
}

/// A state that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unreadable;

impl State {
    /// Of a trace state.
    pub(super) fn of_span(state: &str) -> Result<Self, Unreadable> {
        let mut read = State::default();
        if state.len() > MAX_STATE {
            return Err(Unreadable);
        }
        for member in state
            .split(',')
            .map(str::trim)
            .filter(|member| !member.is_empty())
        {
            let (key, value) = member.split_once('=').ok_or(Unreadable)?;
            match key {
                "ot" => read.entries(value)?,
                _ => read.members.push(member.to_owned()),
            }
        }
        Ok(read)
    }

    fn entries(&mut self, value: &str) -> Result<(), Unreadable> {
        for entry in value.split(';').filter(|entry| !entry.is_empty()) {
            match entry.split_once(':').ok_or(Unreadable)? {
                ("th", value) => self.threshold = Some(Threshold::parse(value).ok_or(Unreadable)?),
                ("rv", value) => self.randomness = Some(Randomness::parse(value).ok_or(Unreadable)?),
                _ => self.entries.push(entry.to_owned()),
            }
        }
        Ok(())
    }

    /// The span with this state.
    pub(super) fn write_span(&self, span: &[u8]) -> Vec<u8> {
        let own = self
            .randomness
            .map(|randomness| format!("rv:{}", randomness.text()));
        let threshold = self
            .threshold
            .map(Threshold::text)
            .filter(|text| !text.is_empty());
        let entries: Vec<String> = own
            .into_iter()
            .chain(threshold.map(|text| format!("th:{text}")))
            .chain(self.entries.iter().cloned())
            .collect();
        let ot = (!entries.is_empty()).then(|| format!("ot={}", entries.join(";")));
        let members: Vec<String> = ot.into_iter().chain(self.members.iter().cloned()).collect();
        let mut out = Vec::with_capacity(span.len() + 40);
        for field in fields(span).flatten().filter(|field| field.number != 3) {
            out.extend_from_slice(field.whole);
        }
        if !members.is_empty() {
            put_delimited(&mut out, 3, members.join(",").as_bytes());
        }
        out
    }

    /// Of a log record's attributes.
    pub(super) fn of_record(attributes: &Attributes<'_>) -> Result<Self, Unreadable> {
        let written = |key| attributes.text(key).filter(|text| !text.is_empty());
        let mut read = State::default();
        if let Some(text) = written(THRESHOLD) {
            read.threshold = Some(Threshold::parse(&text).ok_or(Unreadable)?);
        }
        if let Some(text) = written(RANDOMNESS) {
            read.randomness = Some(Randomness::parse(&text).ok_or(Unreadable)?);
        }
        Ok(read)
    }

    /// Notes it in a log record's attributes.
    pub(super) fn note(&self, attributes: &mut Attributes<'_>) {
        if let Some(randomness) = self.randomness {
            attributes.set(RANDOMNESS, text(randomness.text()));
        }
        match self
            .threshold
            .map(Threshold::text)
            .filter(|text| !text.is_empty())
        {
            Some(threshold) => attributes.set(THRESHOLD, text(threshold)),
            None => attributes.remove(|key| key == THRESHOLD),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_about_sampling_stays() {
        let state = State::of_span("a=b,ot=x:y;th:c;rv:02030405060708,c=d").unwrap();
        assert_eq!(state.threshold.unwrap().text(), "c");
        let mut span = Vec::new();
        put_delimited(&mut span, 3, b"old");
        put_delimited(&mut span, 5, b"name");
        let written = state.write_span(&span);
        let found: Vec<_> = fields(&written)
            .flatten()
            .map(|f| (f.number, f.text().to_owned()))
            .collect();
        let expected = "ot=rv:02030405060708;th:c;x:y,a=b,c=d".to_owned();
        assert_eq!(found, [(5, "name".to_owned()), (3, expected)]);
        assert_eq!(State::of_span(""), Ok(State::default()));
        for wrong in ["a", "ot=th:zz", "ot=rv:1", "ot=th"] {
            assert_eq!(State::of_span(wrong), Err(Unreadable), "{wrong}");
        }
    }
}
