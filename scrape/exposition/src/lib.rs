//! The formats in which metrics are exposed, read and written: Prometheus' text 0.0.4 and 1.0.0, OpenMetrics 1.0,
//! protobuf. Pure; a body is read once from front to back and pushed into a [`Sink`], without an allocation a sample.
//!
//! ```text
//! body ─▶ text::parse / protobuf::parse ─▶ Sink: help, type, unit, Sample (its series still text), Histogram
//!                                          series::parse ─▶ name and labels, for series that are new
//! ```

pub mod protobuf;
pub mod series;
pub mod text;
pub mod write;

/// What a family of metrics is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Kind {
    /// Not said.
    #[default]
    Unknown,
    /// Only grows.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Cumulative buckets.
    Histogram,
    /// Buckets that go up and down.
    GaugeHistogram,
    /// Quantiles.
    Summary,
    /// Labels with the value 1.
    Info,
    /// A set of states.
    StateSet,
}

impl Kind {
    /// As OpenMetrics writes it.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Unknown => "unknown",
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
            Kind::GaugeHistogram => "gaugehistogram",
            Kind::Summary => "summary",
            Kind::Info => "info",
            Kind::StateSet => "stateset",
        }
    }

    /// Reads a type; `None` for what is none.
    pub fn of(text: &str) -> Option<Kind> {
        Some(match text {
            "unknown" | "untyped" => Kind::Unknown,
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "gaugehistogram" => Kind::GaugeHistogram,
            "summary" => Kind::Summary,
            "info" => Kind::Info,
            "stateset" => Kind::StateSet,
            _ => return None,
        })
    }
}

/// What is said about a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Meta<'a> {
    /// What it means.
    Help(&'a str),
    /// What it is.
    Kind(Kind),
    /// In what it is measured.
    Unit(&'a str),
}

/// A sample.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// Name and labels, as they are written: for [`series::parse`].
    pub series: &'a str,
    /// The value.
    pub value: f64,
    /// When, in milliseconds since 1970, if it is said.
    pub timestamp: Option<i64>,
    /// An example of what was counted.
    pub exemplar: Option<Exemplar<'a>>,
    /// When the counting began, in milliseconds since 1970, if it is said here.
    pub created: Option<i64>,
}

/// An example of what was counted.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Exemplar<'a> {
    /// Its labels in braces: for [`series::parse`].
    pub labels: &'a str,
    /// Its value.
    pub value: f64,
    /// When, in milliseconds since 1970.
    pub timestamp: Option<i64>,
}

/// A native histogram.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Histogram<'a> {
    /// Name and labels.
    pub series: &'a str,
    /// When, in milliseconds since 1970, if it is said.
    pub timestamp: Option<i64>,
    /// When the counting began.
    pub created: Option<i64>,
    /// Whether it only grows.
    pub gauge: bool,
    /// Buckets a power of two: 2^schema; -53 has custom bounds.
    pub schema: i32,
    /// How many values.
    pub count: f64,
    /// Their sum.
    pub sum: f64,
    /// Up to this far from 0 a value counts as 0.
    pub zero_threshold: f64,
    /// How many values are 0.
    pub zero_count: f64,
    /// Buckets above 0: index and how many.
    pub positive: &'a [(i32, f64)],
    /// Buckets below 0.
    pub negative: &'a [(i32, f64)],
    /// Examples.
    pub exemplars: &'a [Exemplar<'a>],
}

/// Takes what a body holds, in its order.
pub trait Sink {
    /// Why it takes no more.
    type Stop;

    /// Something about a family.
    fn meta(&mut self, family: &str, meta: Meta<'_>) -> Result<(), Self::Stop>;

    /// How far the series reaches that starts a line of text, if that is known without reading it: the line is that of
    /// the series that was expected next. What is said must be what reading gives.
    fn recognise(&mut self, line: &str) -> Option<usize> {
        let _ = line;
        None
    }

    /// A sample.
    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), Self::Stop>;

    /// A native histogram.
    fn histogram(&mut self, histogram: &Histogram<'_>) -> Result<(), Self::Stop>;
}

/// Why a body is not read to its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error<S> {
    /// A line is wrong.
    #[error("line {line}: {fault}")]
    Line {
        /// Which one, from 1.
        line: usize,
        /// Why.
        fault: Fault,
    },
    /// OpenMetrics ends with `# EOF`; this does not, so something is missing.
    #[error("the body does not end with `# EOF`: it is cut off")]
    CutOff,
    /// The protobuf encoding is wrong.
    #[error("not a delimited MetricFamily: {0}")]
    Protobuf(String),
    /// The sink takes no more.
    #[error("stopped")]
    Stopped(S),
}

/// What is wrong with a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// No name.
    #[error("a name of a metric is missing")]
    Name,
    /// Labels.
    #[error("the labels are not `{{name=\"value\", …}}`")]
    Labels,
    /// No value.
    #[error("the value is no number")]
    Value,
    /// A timestamp.
    #[error("the timestamp is no number")]
    Timestamp,
    /// Something behind the end.
    #[error("something stands behind the sample")]
    Rest,
    /// A type that is none.
    #[error("the type is not known")]
    Kind,
    /// An exemplar.
    #[error("the exemplar is not `# {{…}} VALUE TIMESTAMP`")]
    Exemplar,
    /// Behind `# EOF`.
    #[error("something stands behind `# EOF`")]
    AfterEnd,
}
