//! Small values as Prometheus writes them: durations, sizes, secrets, protocols.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Deserializer, de};

/// Units of a duration, in milliseconds, the largest first; whether it is only written when nothing is left below it.
const UNITS: [(&str, u64, bool); 7] = [
    ("y", 365 * 24 * 3_600_000, true),
    ("w", 7 * 24 * 3_600_000, true),
    ("d", 24 * 3_600_000, false),
    ("h", 3_600_000, false),
    ("m", 60_000, false),
    ("s", 1000, false),
    ("ms", 1, false),
];

/// Reads a duration as Prometheus writes it: `1h30m`, `15s`, `500ms`, `0`. Units go from large to small.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let help = || format!("`{text}` is no duration; write a number with a unit, such as 500ms, 15s or 1m");
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    if text.is_empty() {
        return Err(help());
    }
    let (mut rest, mut milliseconds, mut from) = (text, 0u64, 0);
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        let number: u64 = rest[..digits].parse().map_err(|_| help())?;
        rest = &rest[digits..];
        let length = rest.bytes().take_while(u8::is_ascii_lowercase).count();
        let unit = UNITS[from..]
            .iter()
            .position(|(unit, ..)| *unit == &rest[..length]);
        let unit = from + unit.ok_or_else(help)?;
        let more = number.checked_mul(UNITS[unit].1).ok_or_else(help)?;
        milliseconds = milliseconds.checked_add(more).ok_or_else(help)?;
        from = unit + 1;
        rest = &rest[length..];
    }
    // What Go's signed 64-bit nanoseconds hold.
    match milliseconds <= i64::MAX as u64 / 1_000_000 {
        true => Ok(Duration::from_millis(milliseconds)),
        false => Err(help()),
    }
}

/// Writes a duration as Prometheus does: `1m30s`, `2w`.
pub fn format_duration(duration: Duration) -> String {
    let mut rest = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
    if rest == 0 {
        return "0s".to_owned();
    }
    let mut text = String::new();
    for (unit, size, exact) in UNITS {
        if exact && rest % size != 0 {
            continue;
        }
        if rest >= size {
            text.push_str(&format!("{}{unit}", rest / size));
            rest %= size;
        }
    }
    text
}

/// A duration field.
pub(crate) fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_duration(&text).map_err(de::Error::custom))
        .transpose()
}

/// Reads a size: `10MB`, `512KiB`, `1000`; all units are powers of 1024, as Prometheus takes them.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let help = || format!("`{text}` is no size; write a number with a unit, such as 10MB");
    let digits = text
        .bytes()
        .take_while(|b| b.is_ascii_digit() || *b == b'.')
        .count();
    let number: f64 = text[..digits].parse().map_err(|_| help())?;
    let power = match text[digits..].trim() {
        "" if number == 0.0 => 0,
        "B" => 0,
        "KB" | "KiB" => 1,
        "MB" | "MiB" => 2,
        "GB" | "GiB" => 3,
        "TB" | "TiB" => 4,
        "PB" | "PiB" => 5,
        _ => return Err(help()),
    };
    Ok((number * 1024f64.powi(power)) as u64)
}

/// A size field.
pub(crate) fn size<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<u64>, D::Error> {
    let text = Option::<String>::deserialize(deserializer)?;
    text.map(|text| parse_size(&text).map_err(de::Error::custom))
        .transpose()
}

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps a text.
    pub fn new(text: impl Into<String>) -> Self {
        Secret(text.into())
    }

    /// The text itself, for the one who sends it.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.0.is_empty() {
            "Secret(none)"
        } else {
            "Secret(…)"
        })
    }
}

/// An exposition format that is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize)]
pub enum Protocol {
    /// Protobuf, delimited.
    #[serde(rename = "PrometheusProto")]
    PrometheusProto,
    /// Prometheus' text.
    #[serde(rename = "PrometheusText0.0.4")]
    PrometheusText004,
    /// Prometheus' text with names in UTF-8.
    #[serde(rename = "PrometheusText1.0.0")]
    PrometheusText100,
    /// OpenMetrics before its first version.
    #[serde(rename = "OpenMetricsText0.0.1")]
    OpenMetricsText001,
    /// OpenMetrics.
    #[serde(rename = "OpenMetricsText1.0.0")]
    OpenMetricsText100,
}

impl Protocol {
    /// As the document writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::PrometheusProto => "PrometheusProto",
            Protocol::PrometheusText004 => "PrometheusText0.0.4",
            Protocol::PrometheusText100 => "PrometheusText1.0.0",
            Protocol::OpenMetricsText001 => "OpenMetricsText0.0.1",
            Protocol::OpenMetricsText100 => "OpenMetricsText1.0.0",
        }
    }

    /// As an `Accept` header asks for it.
    pub fn media_type(self) -> &'static str {
        match self {
            Protocol::PrometheusProto => {
                "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;encoding=delimited"
            }
            Protocol::PrometheusText004 => "text/plain;version=0.0.4",
            Protocol::PrometheusText100 => "text/plain;version=1.0.0;escaping=allow-utf-8",
            Protocol::OpenMetricsText001 => "application/openmetrics-text;version=0.0.1",
            Protocol::OpenMetricsText100 => "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8",
        }
    }

    /// What is asked for unless the document says otherwise.
    pub const DEFAULT: [Protocol; 4] = [
        Protocol::OpenMetricsText100,
        Protocol::OpenMetricsText001,
        Protocol::PrometheusText100,
        Protocol::PrometheusText004,
    ];

    /// The same when native histograms are wanted, which only protobuf has.
    pub const DEFAULT_NATIVE: [Protocol; 5] = [
        Protocol::PrometheusProto,
        Protocol::OpenMetricsText100,
        Protocol::OpenMetricsText001,
        Protocol::PrometheusText100,
        Protocol::PrometheusText004,
    ];
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_are_prometheus() {
        for (text, milliseconds) in [
            ("0", 0),
            ("15s", 15_000),
            ("1h30m", 5_400_000),
            ("1m500ms", 60_500),
            ("1d", 86_400_000),
            ("2w", 1_209_600_000),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_millis(milliseconds)),
                "{text}"
            );
        }
        for wrong in [
            "",
            "5",
            "s",
            "1s1m",
            "1.5s",
            "-1s",
            "1 s",
            "99999999999y",
            "1ms1ms",
            "1µs",
        ] {
            assert!(parse_duration(wrong).is_err(), "{wrong}");
        }
        let write = |milliseconds| format_duration(Duration::from_millis(milliseconds));
        assert_eq!(write(90_000), "1m30s");
        assert_eq!(write(14 * 24 * 3_600_000), "2w");
        assert_eq!(write(15 * 24 * 3_600_000), "15d");
        assert_eq!(write(0), "0s");
    }

    #[test]
    fn sizes_are_powers_of_1024() {
        assert_eq!(parse_size("10MB"), Ok(10 << 20));
        assert_eq!(parse_size("1KiB"), Ok(1024));
        assert_eq!(parse_size("7B"), Ok(7));
        assert_eq!(parse_size("0"), Ok(0));
        assert!(parse_size("7").is_err());
        assert!(parse_size("MB").is_err());
        assert!(parse_size("10 potatoes").is_err());
    }

    proptest! {
        #[test]
        fn a_duration_reads_as_it_is_written(milliseconds in 0u64..9_000_000_000_000) {
            let duration = Duration::from_millis(milliseconds);
            prop_assert_eq!(parse_duration(&format_duration(duration)), Ok(duration));
        }
    }
}
