//! Exposed metrics in every format; series that the text gives can be read, and written again.
#![no_main]

use std::borrow::Cow;
use std::convert::Infallible;

use karez_exposition::{Histogram, Meta, Sample, Sink, protobuf, series, text, write};
use libfuzzer_sys::fuzz_target;

/// Looks at everything it is given.
struct Look;

impl Sink for Look {
    type Stop = Infallible;

    fn meta(&mut self, _family: &str, _meta: Meta<'_>) -> Result<(), Infallible> {
        Ok(())
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), Infallible> {
        look(sample.series);
        if let Some(exemplar) = sample.exemplar {
            look(exemplar.labels);
        }
        Ok(())
    }

    fn histogram(&mut self, histogram: &Histogram<'_>) -> Result<(), Infallible> {
        look(histogram.series);
        Ok(())
    }
}

fn look(written: &str) {
    let mut labels: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::new();
    if let Ok(name) = series::parse(written, |key, value| labels.push((key, value))) {
        let mut out = String::new();
        let pairs = labels.iter().map(|(key, value)| (key.as_ref(), value.as_ref()));
        write::series(&mut out, &name, pairs);
    }
}

fuzz_target!(|bytes: &[u8]| {
    for (native, classic_too) in [(false, false), (true, false), (true, true)] {
        let _ = protobuf::parse(bytes, protobuf::Options { native, classic_too }, &mut Look);
    }
    if let Ok(body) = std::str::from_utf8(bytes) {
        for format in [text::Format::Prometheus, text::Format::OpenMetrics] {
            let _ = text::parse(body, format, &mut Look);
        }
    }
});
