//! OTLP metrics in Prometheus' terms, for the exporters that speak them: names, labels, values.
//!
//! ```text
//! Batch ─▶ decoded ─▶ series::walk ─▶ Datum (family, labels, value, time) ─▶ exposition, remote write
//! ```

pub mod name;
pub mod series;

#[cfg(test)]
mod tests;
