//! Samples → OTLP, straight into its encoding. One [`Conversion`] a target; it remembers each series by a hash of its
//! text, with what the series became (its attributes already encoded), so that a series known from the last scrape
//! costs a look-up, a number and a copy.
//!
//! ```text
//! body ─▶ exposition ─▶ Scrape (a Sink): known series ─▶ point
//!                              new series ─▶ resolve: labels, target's labels, relabelling, metric ─▶ known
//! finish: series not seen any more ─▶ points without a value; points ─▶ metrics ─▶ scopes ─▶ resources
//! ```

mod encode;
mod finish;
mod group;
mod memory;
mod place;
mod resolve;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use karez_exposition::{Histogram, Kind, Meta, Sample, Sink};
use karez_scrape::config::labels::Builder;
use karez_scrape::config::{ScrapeConfig, Target};
use xxhash_rust::xxh3::xxh3_64_with_seed;

use encode::Point;
use group::Group;
use memory::{Hashed, Known, Memory};
use place::Place;

pub use finish::Report;

/// Metrics, families and places of one target beyond which what is remembered is thrown away: no target has so many,
/// unless it invents new ones with every scrape.
const MAX_REMEMBERED: usize = 50_000;

/// Why a scrape counts as failed although it was answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Limit {
    /// Samples.
    #[error("more samples than sample_limit ({0})")]
    Samples(u64),
    /// Labels of a sample.
    #[error("a sample has more labels than label_limit ({0})")]
    Labels(u64),
    /// A label's name.
    #[error("a label's name is longer than label_name_length_limit ({0})")]
    NameLength(u64),
    /// A label's value.
    #[error("a label's value is longer than label_value_length_limit ({0})")]
    ValueLength(u64),
    /// Buckets of a native histogram.
    #[error("a native histogram has more buckets than native_histogram_bucket_limit ({0})")]
    Buckets(u64),
    /// A sample without a name.
    #[error("a sample has no name after relabelling")]
    NoName,
    /// Labels that cannot be read.
    #[error("the labels of a sample cannot be read")]
    Malformed,
}

/// What a series is to its metric.
#[derive(Debug)]
enum Part {
    /// A point of its own; its attributes are encoded.
    Number { attributes: Arc<[u8]>, sum: bool },
    /// When the counting of another series began.
    NumberCreated { identity: u64 },
    /// A bucket of a histogram.
    Bucket { group: u32, bound: f64 },
    /// A quantile of a summary.
    Quantile { group: u32, quantile: f64 },
    /// The sum of a histogram or summary.
    Sum { group: u32 },
    /// The count of a histogram or summary.
    Count { group: u32 },
    /// When the counting of a histogram or summary began.
    GroupCreated { group: u32 },
    /// A native histogram.
    Native { group: u32 },
    /// `target_info`: attributes of the resource.
    TargetInfo { attributes: Box<[u8]> },
    /// `otel_scope_info`: attributes of a scope.
    ScopeInfo { attributes: Box<[u8]> },
    /// Dropped by a rule.
    Dropped,
}

/// What is said about a family.
#[derive(Debug, Default)]
struct Family {
    kind: Kind,
    help: String,
    unit: String,
    /// Whether series were resolved as its own.
    used: bool,
}

/// What a metric's points are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Shape {
    Gauge,
    Sum,
    Histogram,
    GaugeHistogram,
    Exponential,
    Summary,
}

/// A metric of OTLP.
#[derive(Debug)]
struct Metric {
    place: u32,
    name: Arc<str>,
    family: Arc<str>,
    shape: Shape,
}

/// Turns what a target exposes into OTLP, from scrape to scrape.
pub struct Conversion {
    config: Arc<ScrapeConfig>,
    target: Target,
    seed: u64,
    scrape: u32,
    epoch: u32,
    series: Memory,
    families: HashMap<Arc<str>, Family>,
    /// Names that no family has, or only one by a suffix: a family may still come that says otherwise.
    loose: HashSet<Box<str>>,
    metrics: Vec<Metric>,
    metric_index: HashMap<(u32, Arc<str>, Shape), u32>,
    groups: Vec<Group>,
    group_index: HashMap<(u32, u64), u32>,
    free_groups: Vec<u32>,
    places: Vec<Place>,
    builder: Builder,
    /// What the points of the last scrape took.
    size: usize,
}

impl Conversion {
    /// For a target of a job.
    pub fn new(config: Arc<ScrapeConfig>, target: Target) -> Self {
        let place = Place::of_target(&target);
        Conversion {
            config,
            target,
            // A target that chose its series so that their hashes collide would only spoil its own.
            seed: rand::random(),
            scrape: 0,
            epoch: 0,
            series: Memory::default(),
            families: HashMap::new(),
            loose: HashSet::new(),
            metrics: Vec::new(),
            metric_index: HashMap::new(),
            groups: Vec::new(),
            group_index: HashMap::new(),
            free_groups: Vec::new(),
            places: vec![place],
            builder: Builder::default(),
            size: 0,
        }
    }

    /// The target.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Starts a scrape at a time (milliseconds since 1970). What it hears is finished by [`Scrape::finish`].
    pub fn scrape(&mut self, now: i64) -> Scrape<'_> {
        let full = [
            self.families.len(),
            self.metrics.len(),
            self.places.len(),
            self.groups.len(),
            self.loose.len(),
        ];
        if full.into_iter().any(|length| length > MAX_REMEMBERED) {
            let scrape = self.scrape;
            *self = Conversion::new(self.config.clone(), self.target.clone());
            self.scrape = scrape;
        }
        self.scrape = self.scrape.wrapping_add(1);
        self.series.start();
        for place in &mut self.places {
            place.start();
        }
        Scrape {
            now,
            openmetrics: false,
            out: Vec::with_capacity(self.size + self.size / 16),
            runs: Vec::new(),
            positions: HashMap::default(),
            exemplars: Vec::new(),
            recognised: None,
            points: 0,
            samples: 0,
            kept: 0,
            added: 0,
            of: self,
        }
    }
}

/// Points of one metric that stand together.
#[derive(Debug, Clone, Copy)]
struct Run {
    metric: u32,
    start: usize,
    end: usize,
}

/// A scrape being converted.
pub struct Scrape<'a> {
    of: &'a mut Conversion,
    now: i64,
    openmetrics: bool,
    /// Encoded points, as the repeated field 1 of their metrics' data.
    out: Vec<u8>,
    runs: Vec<Run>,
    /// Where the start of a counter stands, to be filled in when it is told.
    positions: HashMap<u64, usize, Hashed>,
    exemplars: Vec<u8>,
    /// The hash of the series that was recognised.
    recognised: Option<u64>,
    points: usize,
    samples: u64,
    kept: u64,
    added: u64,
}

impl Scrape<'_> {
    /// The body is OpenMetrics, where `_created` says when counting began.
    pub fn openmetrics(&mut self) {
        self.openmetrics = true;
    }

    /// The time that a sample is given, and whether its end is told.
    fn time(&self, timestamp: Option<i64>) -> (i64, bool) {
        match timestamp.filter(|_| self.of.config.honor_timestamps) {
            Some(own) => (own, self.of.config.track_timestamps_staleness),
            None => (self.now, true),
        }
    }

    /// Ends the run of points that ends here.
    fn ran(&mut self, metric: u32, start: usize) {
        let end = self.out.len();
        self.points += 1;
        match self.runs.last_mut() {
            Some(last) if last.metric == metric && last.end == start => last.end = end,
            _ => self.runs.push(Run { metric, start, end }),
        }
    }

    /// Where what is known of a series is; resolved anew when it is new, or when types were learnt since.
    fn known(&mut self, series: &str, tracked: bool, native: bool) -> Result<usize, Limit> {
        self.samples += 1;
        let of = &mut *self.of;
        let hash = || xxh3_64_with_seed(series.as_bytes(), of.seed ^ u64::from(native));
        let key = self.recognised.take().unwrap_or_else(hash);
        let (scrape, order) = (of.scrape, self.samples as u32);
        let place = of.series.find(key);
        let mut born = scrape;
        if let Some(known) = place.and_then(|place| of.series.at_mut(place)) {
            if known.epoch == of.epoch {
                (known.seen, known.order, known.tracked) = (scrape, order, tracked);
                if !matches!(known.part, Part::Dropped) {
                    self.kept += 1;
                }
                return self.within(place.unwrap_or_default());
            }
            born = known.born;
        }
        let (metric, part) = of.resolve(series, self.openmetrics, native)?;
        if !matches!(part, Part::Dropped) {
            self.kept += 1;
            self.added += u64::from(born == scrape);
        }
        let known = Known {
            key,
            length: series.len() as u32,
            seen: scrape,
            born,
            epoch: of.epoch,
            metric,
            order,
            tracked,
            part,
        };
        let place = match place.and_then(|place| Some((place, of.series.at_mut(place)?))) {
            Some((place, before)) => {
                *before = known;
                place
            }
            None => of.series.add(known),
        };
        self.within(place)
    }

    fn within(&self, place: usize) -> Result<usize, Limit> {
        match self.of.config.limits.samples {
            0 => Ok(place),
            limit if self.kept > limit => Err(Limit::Samples(limit)),
            _ => Ok(place),
        }
    }
}

impl Sink for Scrape<'_> {
    type Stop = Limit;

    fn meta(&mut self, family: &str, meta: Meta<'_>) -> Result<(), Limit> {
        let of = &mut *self.of;
        let known = match of.families.get_mut(family) {
            Some(known) => known,
            None => {
                of.learns(family);
                of.families.entry(family.into()).or_default()
            }
        };
        match meta {
            Meta::Kind(kind) if known.kind != kind => {
                known.kind = kind;
                of.learns(family);
            }
            Meta::Help(help) if known.help != help => help.clone_into(&mut known.help),
            Meta::Unit(unit) if known.unit != unit => unit.clone_into(&mut known.unit),
            _ => {}
        }
        Ok(())
    }

    fn recognise(&mut self, line: &str) -> Option<usize> {
        let known = self.of.series.expected()?;
        let end = known.length as usize;
        let (series, rest) = line.as_bytes().split_at_checked(end)?;
        // Behind a blank there may still be labels, or more blanks.
        let (&[b' ', next], _) = rest.split_first_chunk()? else {
            return None;
        };
        let whole = !matches!(next, b' ' | b'\t' | b'{');
        self.recognised =
            (whole && xxh3_64_with_seed(series, self.of.seed) == known.key).then_some(known.key);
        self.recognised.map(|_| end)
    }

    fn sample(&mut self, sample: &Sample<'_>) -> Result<(), Limit> {
        let (time, tracked) = self.time(sample.timestamp);
        let place = self.known(sample.series, tracked, false)?;
        self.exemplars.clear();
        let Some(known) = self.of.series.at(place) else {
            return Ok(());
        };
        let (metric, scrape) = (known.metric, self.of.scrape);
        let group = match &known.part {
            Part::Dropped => return Ok(()),
            Part::Number { attributes, sum } => {
                if let Some(exemplar) = &sample.exemplar {
                    encode::exemplar(&mut self.exemplars, 5, exemplar);
                }
                let start = self.out.len();
                let point = Point {
                    created: sample.created,
                    time,
                    value: sample.value,
                    attributes,
                    exemplars: &self.exemplars,
                };
                let position = encode::number(&mut self.out, &point, *sum && self.openmetrics);
                if let Some(position) = position {
                    self.positions
                        .insert(resolve::identity(metric, attributes), position);
                }
                self.ran(metric, start);
                return Ok(());
            }
            Part::NumberCreated { identity } => {
                if let Some(position) = self.positions.get(identity) {
                    encode::fill_start(&mut self.out, *position, (sample.value * 1000.0) as i64);
                }
                return Ok(());
            }
            Part::TargetInfo { attributes } => {
                let place = self.of.metrics[metric as usize].place;
                self.of.places[place as usize].info(attributes, sample.value);
                return Ok(());
            }
            Part::ScopeInfo { attributes } => {
                let place = self.of.metrics[metric as usize].place;
                self.of.places[place as usize].scope_info(attributes);
                return Ok(());
            }
            Part::Bucket { group, .. }
            | Part::Quantile { group, .. }
            | Part::Sum { group }
            | Part::Count { group }
            | Part::GroupCreated { group }
            | Part::Native { group } => *group,
        };
        let group = &mut self.of.groups[group as usize];
        group.seen(scrape, time, tracked, sample.created);
        match &known.part {
            Part::Bucket { bound, .. } => {
                group.bucket(*bound, sample.value);
                if let Some(exemplar) = &sample.exemplar {
                    encode::exemplar(&mut group.exemplars, 8, exemplar);
                }
            }
            Part::Quantile { quantile, .. } => group.quantiles.push((*quantile, sample.value)),
            Part::Sum { .. } => group.sum = Some(sample.value),
            Part::Count { .. } => group.count = Some(sample.value),
            Part::GroupCreated { .. } => group.created = Some((sample.value * 1000.0) as i64),
            _ => {}
        }
        Ok(())
    }

    fn histogram(&mut self, histogram: &Histogram<'_>) -> Result<(), Limit> {
        let limit = self.of.config.limits.native_buckets;
        let buckets = (histogram.positive.len() + histogram.negative.len()) as u64;
        if limit > 0 && buckets > limit {
            return Err(Limit::Buckets(limit));
        }
        let (time, tracked) = self.time(histogram.timestamp);
        let place = self.known(histogram.series, tracked, true)?;
        let Some(known) = self.of.series.at(place) else {
            return Ok(());
        };
        if let Part::Native { group } = known.part {
            let (metric, scrape) = (known.metric, self.of.scrape);
            let group = &mut self.of.groups[group as usize];
            group.seen(scrape, time, tracked, histogram.created);
            let start = self.out.len();
            encode::exponential(&mut self.out, histogram, time, &group.attributes);
            self.ran(metric, start);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
