//! The parameters of Jaeger's query API and what is wrong with them, in Jaeger's words.

use std::collections::BTreeMap;

use crate::extensions::jaeger_storage::TraceId;
use crate::extensions::jaeger_storage::search::Query;

/// How far back a search looks that does not say.
const LOOKBACK: u64 = 2 * 24 * 3_600 * 1_000_000_000;
/// How many traces a search gives that does not say.
const LIMIT: usize = 100;
/// More parameters than any search has are not read.
const MAX_PARAMETERS: usize = 256;

/// Decoded query parameters, in order.
#[derive(Debug, Default)]
pub(super) struct Params(Vec<(String, String)>);

/// A search, or traces asked for by id.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    Matching(Query),
    ById(Vec<TraceId>),
}

impl Params {
    pub(super) fn new(query: Option<&str>) -> Self {
        let pairs = url::form_urlencoded::parse(query.unwrap_or_default().as_bytes());
        Self(pairs.into_owned().take(MAX_PARAMETERS).collect())
    }

    pub(super) fn all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.0
            .iter()
            .filter(move |(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// The first value, if it is not empty.
    pub(super) fn first(&self, name: &str) -> Option<&str> {
        let mut values = self.0.iter().filter(|(key, _)| key == name);
        values
            .next()
            .map(|(_, value)| value.as_str())
            .filter(|value| !value.is_empty())
    }

    /// Whether the answer is to be indented.
    pub(super) fn pretty(&self) -> bool {
        self.first("prettyPrint").is_some_and(|value| value != "false")
    }

    pub(super) fn required(&self, name: &str) -> Result<&str, String> {
        self.first(name)
            .ok_or_else(|| format!("parameter '{name}' is required"))
    }

    fn number(&self, name: &str) -> Result<Option<i64>, String> {
        let Some(text) = self.first(name) else {
            return Ok(None);
        };
        text.parse().map(Some).map_err(|_| {
            format!("unable to parse param '{name}': strconv.ParseInt: parsing {text:?}: invalid syntax")
        })
    }

    fn duration(&self, name: &str) -> Result<Option<u64>, String> {
        let Some(text) = self.first(name) else {
            return Ok(None);
        };
        let nanos = go_duration(text);
        nanos
            .map(Some)
            .ok_or_else(|| format!("unable to parse param '{name}': time: invalid duration {text:?}"))
    }

    /// An instant in units of `unit` nanoseconds.
    fn instant(&self, name: &str, unit: u64) -> Result<Option<u64>, String> {
        Ok(self
            .number(name)?
            .map(|value| u64::try_from(value).unwrap_or(0).saturating_mul(unit)))
    }

    /// Reads a search; `now` in nanoseconds since 1970.
    pub(super) fn search(&self, now: u64) -> Result<Wanted, String> {
        let start = self
            .instant("start", 1_000)?
            .unwrap_or(now.saturating_sub(LOOKBACK));
        let end = self.instant("end", 1_000)?.unwrap_or(now);
        let limit = self
            .number("limit")?
            .and_then(|limit| usize::try_from(limit).ok());
        let min_duration = self.duration("minDuration")?;
        let max_duration = self.duration("maxDuration")?;
        let tags = self.tags()?;
        let ids = self
            .all("traceID")
            .filter(|id| !id.is_empty())
            .map(trace_id)
            .collect::<Result<Vec<_>, _>>()?;
        let service = self.first("service").map(str::to_owned);
        if !ids.is_empty() {
            return Ok(Wanted::ById(ids));
        }
        let service = Some(service.ok_or("parameter 'service' is required")?);
        if let (Some(least), Some(most)) = (min_duration, max_duration)
            && least > most
        {
            return Err("'maxDuration' should be greater than 'minDuration'".to_owned());
        }
        Ok(Wanted::Matching(Query {
            service,
            operation: self.first("operation").map(str::to_owned),
            tags,
            start,
            end,
            min_duration,
            max_duration,
            limit: limit.filter(|limit| *limit > 0).unwrap_or(LIMIT),
        }))
    }

    fn tags(&self) -> Result<Vec<(String, String)>, String> {
        let mut all = BTreeMap::new();
        for tag in self.all("tag") {
            let Some((key, value)) = tag.split_once(':') else {
                return Err(format!(
                    "malformed 'tag' parameter, expecting key:value, received: {tag}"
                ));
            };
            all.insert(key.to_owned(), value.to_owned());
        }
        for tags in self.all("tags") {
            let more: BTreeMap<String, String> = serde_json::from_str(tags)
                .map_err(|error| format!("malformed 'tags' parameter, cannot unmarshal JSON: {error}"))?;
            all.extend(more);
        }
        Ok(all.into_iter().collect())
    }

    /// The time span of a dependency graph, in nanoseconds since 1970.
    pub(super) fn graph(&self, now: u64) -> Result<(u64, u64), String> {
        const MILLI: u64 = 1_000_000;
        let end = self.instant("endTs", MILLI)?.unwrap_or(now);
        let lookback = self
            .instant("lookback", MILLI)?
            .unwrap_or(24 * 3_600 * 1_000 * MILLI);
        Ok((end.saturating_sub(lookback), end))
    }
}

/// Reads a trace's identifier: up to 32 hexadecimal digits, the missing ones are leading zeros.
pub(super) fn trace_id(text: &str) -> Result<TraceId, String> {
    let wrong = |why: String| format!("unable to parse param 'traceID': {why}");
    if text.len() > 32 {
        return Err(wrong(format!(
            "TraceID cannot be longer than 32 hex characters: {text}"
        )));
    }
    let number = u128::from_str_radix(text, 16)
        .ok()
        .filter(|_| text.bytes().all(|byte| byte.is_ascii_hexdigit()));
    number
        .map(u128::to_be_bytes)
        .ok_or_else(|| wrong(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")))
}

/// A duration as Go writes it (`1.5s`, `2h45m`, `300us`), in nanoseconds; negative ones are none.
pub(super) fn go_duration(text: &str) -> Option<u64> {
    let mut rest = text.strip_prefix('+').unwrap_or(text);
    if rest == "0" {
        return Some(0);
    }
    let mut total = 0f64;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let end = rest
            .find(|c: char| c.is_ascii_digit() || c == '.')
            .unwrap_or(rest.len());
        total += number
            * match &rest[..end] {
                "ns" => 1.0,
                "us" | "µs" | "μs" => 1e3,
                "ms" => 1e6,
                "s" => 1e9,
                "m" => 60e9,
                "h" => 3_600e9,
                _ => return None,
            };
        rest = &rest[end..];
    }
    (!text.is_empty() && total <= i64::MAX as f64).then_some(total as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_read_as_go_reads_them() {
        let read = |text| go_duration(text);
        assert_eq!(read("1.5s"), Some(1_500_000_000));
        assert_eq!(read("1h2m3s"), Some(3_723_000_000_000));
        assert_eq!(
            (read("300us"), read("300µs"), read("0")),
            (Some(300_000), Some(300_000), Some(0))
        );
        for wrong in ["", "5", "-1s", "1x", "s", "1.2.3s", "9999999999h"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn searches_have_defaults_and_units() {
        let now = 1_000_000_000_000_000_000;
        let Ok(Wanted::Matching(query)) = Params::new(Some("service=a&lookback=1h")).search(now) else {
            panic!("a search")
        };
        assert_eq!((query.start, query.end, query.limit), (now - LOOKBACK, now, 100));
        let text = "service=a&operation=GET+%2F&tag=a:b:c&tags=%7B%22x%22%3A%22y%22%7D&start=5&end=9&minDuration=1ms&limit=7";
        let Ok(Wanted::Matching(query)) = Params::new(Some(text)).search(now) else {
            panic!("a search")
        };
        assert_eq!(query.operation.as_deref(), Some("GET /"));
        assert_eq!(query.tags, [("a".into(), "b:c".into()), ("x".into(), "y".into())]);
        assert_eq!((query.start, query.end, query.limit), (5_000, 9_000, 7));
        assert_eq!(query.min_duration, Some(1_000_000));
    }

    #[test]
    fn trace_ids_may_be_short_but_not_wrong() {
        assert_eq!(trace_id("1f").unwrap()[15], 0x1f);
        for wrong in ["", "+1", "xyz", &"1".repeat(33)] {
            assert!(trace_id(wrong).is_err(), "{wrong}");
        }
    }
}
