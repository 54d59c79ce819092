//! Text: Prometheus' 0.0.4 and 1.0.0, and OpenMetrics.

use memchr::memchr;

use crate::series::{self, unescape};
use crate::{Error, Exemplar, Fault, Kind, Meta, Sample, Sink};

/// Which text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Prometheus' own: timestamps in milliseconds, no end.
    Prometheus,
    /// OpenMetrics: timestamps in seconds, exemplars, units, `# EOF`.
    OpenMetrics,
}

/// Reads a body.
pub fn parse<S: Sink>(body: &str, format: Format, sink: &mut S) -> Result<(), Error<S::Stop>> {
    let mut rest = body;
    let (mut number, mut ended) = (0, false);
    while !rest.is_empty() {
        number += 1;
        let end = memchr(b'\n', rest.as_bytes()).unwrap_or(rest.len());
        let line = rest[..end].trim_end_matches('\r');
        rest = rest.get(end + 1..).unwrap_or_default();
        let wrong = |fault| Error::Line { line: number, fault };
        if ended && !line.is_empty() {
            return Err(wrong(Fault::AfterEnd));
        }
        let line = line.trim_start_matches([' ', '\t']);
        if line.is_empty() {
            continue;
        }
        if let Some(comment) = line.strip_prefix('#') {
            if format == Format::OpenMetrics && comment == " EOF" {
                ended = true;
                continue;
            }
            if let Some((family, meta)) = meta(comment).map_err(wrong)? {
                let help;
                let meta = match meta {
                    Meta::Help(text) => {
                        help = unescape(text);
                        Meta::Help(&help)
                    }
                    other => other,
                };
                sink.meta(&family, meta).map_err(Error::Stopped)?;
            }
            continue;
        }
        let end = match sink.recognise(line) {
            Some(end) => end,
            None => series::end(line).map_err(wrong)?,
        };
        let sample = sample(line.split_at(end), format).map_err(wrong)?;
        sink.sample(&sample).map_err(Error::Stopped)?;
    }
    match format == Format::OpenMetrics && !ended {
        true => Err(Error::CutOff),
        false => Ok(()),
    }
}

/// The next word of a line.
fn word<'a>(rest: &mut &'a str) -> &'a str {
    let text = rest.trim_start_matches([' ', '\t']);
    let end = text.find([' ', '\t']).unwrap_or(text.len());
    let (word, after) = text.split_at(end);
    *rest = after;
    word
}

/// `HELP name text`, `TYPE name kind`, `UNIT name unit`; anything else is a comment.
fn meta(comment: &str) -> Result<Option<(std::borrow::Cow<'_, str>, Meta<'_>)>, Fault> {
    let mut rest = comment;
    let what = word(&mut rest);
    if !matches!(what, "HELP" | "TYPE" | "UNIT") {
        return Ok(None);
    }
    let text = rest.trim_start_matches([' ', '\t']);
    let (name, rest) = match text.strip_prefix('"') {
        Some(inner) => {
            let end = closing_quote(inner).ok_or(Fault::Name)?;
            (unescape(&inner[..end]), &inner[end + 1..])
        }
        None => {
            let end = text.find([' ', '\t']).unwrap_or(text.len());
            (std::borrow::Cow::Borrowed(&text[..end]), &text[end..])
        }
    };
    if name.is_empty() {
        return Err(Fault::Name);
    }
    // One blank separates; further ones belong to a help text.
    let rest = rest.get(1..).unwrap_or_default();
    let meta = match what {
        "HELP" => Meta::Help(rest),
        "TYPE" => Meta::Kind(Kind::of(rest.trim()).ok_or(Fault::Kind)?),
        _ => Meta::Unit(rest.trim()),
    };
    Ok(Some((name, meta)))
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// A line: its series, and the rest.
fn sample<'a>((series, mut rest): (&'a str, &'a str), format: Format) -> Result<Sample<'a>, Fault> {
    let value = number(word(&mut rest)).ok_or(Fault::Value)?;
    let mut sample = Sample {
        series,
        value,
        timestamp: None,
        exemplar: None,
        created: None,
    };
    let mut more = rest.trim_start_matches([' ', '\t']);
    if !more.is_empty() && !more.starts_with('#') {
        sample.timestamp = Some(timestamp(word(&mut more), format)?);
        more = more.trim_start_matches([' ', '\t']);
    }
    match (more.strip_prefix('#'), format) {
        (Some(exemplar), Format::OpenMetrics) => sample.exemplar = Some(read_exemplar(exemplar)?),
        _ if more.is_empty() => {}
        _ => return Err(Fault::Rest),
    }
    Ok(sample)
}

fn read_exemplar(text: &str) -> Result<Exemplar<'_>, Fault> {
    let text = text.trim_start_matches([' ', '\t']);
    if !text.starts_with('{') {
        return Err(Fault::Exemplar);
    }
    let end = series::braces(text.as_bytes(), 1).map_err(|_| Fault::Exemplar)?;
    let (labels, mut rest) = text.split_at(end);
    let value = number(word(&mut rest)).ok_or(Fault::Exemplar)?;
    let timestamp = match word(&mut rest) {
        "" => None,
        text => Some(timestamp(text, Format::OpenMetrics)?),
    };
    match rest.trim().is_empty() {
        true => Ok(Exemplar {
            labels,
            value,
            timestamp,
        }),
        false => Err(Fault::Exemplar),
    }
}

/// A number as Go reads it, without its hexadecimal forms.
fn number(text: &str) -> Option<f64> {
    // Most values are small whole numbers, for which a general parser does too much.
    let bytes = text.as_bytes();
    if (1..=15).contains(&bytes.len()) && bytes.iter().all(u8::is_ascii_digit) {
        let value = bytes
            .iter()
            .fold(0u64, |value, digit| value * 10 + u64::from(digit - b'0'));
        // At most 15 digits: exact as a double.
        return Some(value as f64);
    }
    text.parse().ok()
}

fn timestamp(text: &str, format: Format) -> Result<i64, Fault> {
    match format {
        Format::Prometheus => text.parse().map_err(|_| Fault::Timestamp),
        Format::OpenMetrics => {
            let seconds = number(text)
                .filter(|seconds| seconds.is_finite())
                .ok_or(Fault::Timestamp)?;
            Ok((seconds * 1000.0) as i64)
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::Histogram;

    /// Writes down what it hears.
    #[derive(Default)]
    pub(crate) struct Notes(pub(crate) Vec<String>);

    impl Sink for Notes {
        type Stop = ();

        fn meta(&mut self, family: &str, meta: Meta<'_>) -> Result<(), ()> {
            self.0.push(format!("{family} {meta:?}"));
            Ok(())
        }

        fn sample(&mut self, sample: &Sample<'_>) -> Result<(), ()> {
            let Sample {
                series,
                value,
                timestamp,
                exemplar,
                created,
            } = sample;
            let mut note = format!("{series} = {value}");
            if let Some(timestamp) = timestamp {
                note.push_str(&format!(" at {timestamp}"));
            }
            if let Some(e) = exemplar {
                note.push_str(&format!(" like {} {} {:?}", e.labels, e.value, e.timestamp));
            }
            if let Some(created) = created {
                note.push_str(&format!(" since {created}"));
            }
            self.0.push(note);
            Ok(())
        }

        fn histogram(&mut self, h: &Histogram<'_>) -> Result<(), ()> {
            self.0.push(format!("{h:?}"));
            Ok(())
        }
    }

    fn notes(body: &str, format: Format) -> Result<Vec<String>, Error<()>> {
        let mut notes = Notes::default();
        parse(body, format, &mut notes).map(|()| notes.0)
    }

    #[test]
    fn reads_prometheus_text() {
        let body = "# HELP http_requests_total The total number of\\nHTTP \\\\ requests.
# TYPE http_requests_total counter
http_requests_total{method=\"post\",code=\"200\"} 1027 1395066363000
# Escaping in label values:
msdos{path=\"C:\\\\DIR\\\\F.TXT\",error=\"Cannot find:\\n\\\"FILE.TXT\\\"\"} 1.458255915e9

metric_without_timestamp_and_labels 12.47
weird{problem=\"division by zero\"} +Inf -3982045
\tspaced   {a=\"b\"}\t NaN
# TYPE \"utf8.name\" gauge
{\"utf8.name\",\"a.b\"=\"c\"} 3\r
";
        let notes = notes(body, Format::Prometheus).unwrap();
        let expected = [
            "http_requests_total Help(\"The total number of\\nHTTP \\\\ requests.\")",
            "http_requests_total Kind(Counter)",
            "http_requests_total{method=\"post\",code=\"200\"} = 1027 at 1395066363000",
            "msdos{path=\"C:\\\\DIR\\\\F.TXT\",error=\"Cannot find:\\n\\\"FILE.TXT\\\"\"} = 1458255915",
            "metric_without_timestamp_and_labels = 12.47",
            "weird{problem=\"division by zero\"} = inf at -3982045",
            "spaced   {a=\"b\"} = NaN",
            "utf8.name Kind(Gauge)",
            "{\"utf8.name\",\"a.b\"=\"c\"} = 3",
        ];
        assert_eq!(notes, expected);
    }

    #[test]
    fn reads_openmetrics() {
        let body = "# TYPE foo_seconds counter
# UNIT foo_seconds seconds
# HELP foo_seconds A \\\"quoted\\\" help
foo_seconds_total{a=\"b\"} 17.0 1520879607.789 # {trace_id=\"KOO5S4vxi0o\"} 0.67 1520879607.5
foo_seconds_created{a=\"b\"} 1520430000.123
h_bucket{le=\"+Inf\"} 3 # {} 1
# EOF
";
        let expected = [
            "foo_seconds Kind(Counter)",
            "foo_seconds Unit(\"seconds\")",
            "foo_seconds Help(\"A \\\"quoted\\\" help\")",
            "foo_seconds_total{a=\"b\"} = 17 at 1520879607789 like {trace_id=\"KOO5S4vxi0o\"} 0.67 Some(1520879607500)",
            "foo_seconds_created{a=\"b\"} = 1520430000.123",
            "h_bucket{le=\"+Inf\"} = 3 like {} 1 None",
        ];
        assert_eq!(notes(body, Format::OpenMetrics).unwrap(), expected);
        assert_eq!(notes("a 1\n", Format::OpenMetrics), Err(Error::CutOff));
        let line = |line, fault| Err(Error::Line { line, fault });
        assert_eq!(
            notes("# EOF\na 1\n", Format::OpenMetrics),
            line(2, Fault::AfterEnd)
        );
        assert_eq!(
            notes("a 1 # {} x\n# EOF\n", Format::OpenMetrics),
            line(1, Fault::Exemplar)
        );
    }

    #[test]
    fn says_which_line_is_wrong() {
        for (body, line, fault) in [
            ("a\n", 1, Fault::Value),
            ("a 1\nb x\n", 2, Fault::Value),
            ("a 1 2 3\n", 1, Fault::Rest),
            ("a 1 2.5\n", 1, Fault::Timestamp),
            ("a{b=\"c} 1\n", 1, Fault::Labels),
            ("# TYPE a potato\n", 1, Fault::Kind),
            ("{} 1 # {}\n", 1, Fault::Rest),
        ] {
            assert_eq!(
                notes(body, Format::Prometheus),
                Err(Error::Line { line, fault }),
                "{body}"
            );
        }
    }

    proptest! {
        #[test]
        fn takes_any_text(body in "(# (HELP|TYPE|UNIT|EOF)? ?|[a{}\"=,\\\\ \n1.e#ü-]){0,60}") {
            for format in [Format::Prometheus, Format::OpenMetrics] {
                let mut notes = Notes::default();
                let _ = parse(&body, format, &mut notes);
            }
        }

        #[test]
        fn numbers_are_read_exactly(value in proptest::num::f64::ANY, whole in 0u64..2_000_000_000_000_000_000) {
            for text in [value.to_string(), whole.to_string()] {
                let read = number(&text).unwrap();
                let expected: f64 = text.parse().unwrap();
                prop_assert!(read == expected || (read.is_nan() && expected.is_nan()));
            }
        }
    }
}
