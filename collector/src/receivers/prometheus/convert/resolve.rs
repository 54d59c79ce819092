//! What a series is: its labels with the target's, relabelled; the family it belongs to; where its points go.

use std::borrow::Cow;
use std::sync::Arc;

use karez_exposition::{Kind, series};
use karez_scrape::config::labels::{Builder, INSTANCE, JOB, Labels, NAME, RESERVED_PREFIX, SCHEME};
use karez_scrape::config::relabel;
use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::encode::attribute;
use super::group::Group;
use super::place::{Key, Place};
use super::{Conversion, Limit, Metric, Part, Shape};

/// Tells points of a metric apart.
pub(super) fn identity(metric: u32, attributes: &[u8]) -> u64 {
    xxh3_64_with_seed(attributes, u64::from(metric))
}

/// What a name is to its family.
enum Role {
    Number,
    Created,
    Bucket,
    Sum,
    Count,
    Quantile,
    Native,
}

/// What a name may have behind its family's, and what it is then.
const SUFFIXES: [(&str, Role); 8] = [
    ("_total", Role::Number),
    ("_bucket", Role::Bucket),
    ("_sum", Role::Sum),
    ("_count", Role::Count),
    ("_gsum", Role::Sum),
    ("_gcount", Role::Count),
    ("_created", Role::Created),
    ("_info", Role::Number),
];

/// What is known of a name.
struct Belonging {
    family: Arc<str>,
    role: Role,
    shape: Shape,
}

impl Conversion {
    /// Resolves a series: its metric and its part in it.
    pub(super) fn resolve(
        &mut self,
        text: &str,
        openmetrics: bool,
        native: bool,
    ) -> Result<(u32, Part), Limit> {
        let Some(labels) = self.labels(text)? else {
            return Ok((0, Part::Dropped));
        };
        let name = labels.get(NAME);
        if name.is_empty() {
            return Err(Limit::NoName);
        }
        let place = self.place(&labels);
        match name {
            "target_info" => {
                let attributes = attributes(&labels, 1, |label| !is_scope(label)).into();
                let metric = self.metric(place, name.into(), name.into(), Shape::Gauge);
                return Ok((metric, Part::TargetInfo { attributes }));
            }
            "otel_scope_info" => {
                let attributes = attributes(&labels, 3, |label| !is_scope(label)).into();
                let metric = self.metric(place, name.into(), name.into(), Shape::Gauge);
                return Ok((metric, Part::ScopeInfo { attributes }));
            }
            _ => {}
        }
        let belonging = self.belonging(name, openmetrics, native, &labels);
        Ok(self.part(place, &labels, belonging))
    }

    /// The final labels; `None` if a rule drops the series.
    fn labels(&mut self, text: &str) -> Result<Option<Labels>, Limit> {
        let limits = self.config.limits;
        let mut read: Vec<(Cow<'_, str>, Cow<'_, str>)> = Vec::with_capacity(8);
        let name =
            series::parse(text, |name, value| read.push((name, value))).map_err(|_| Limit::Malformed)?;
        read.push((Cow::Borrowed(NAME), name));
        let own = Labels::of(read.iter().map(|(name, value)| (&**name, &**value)));
        self.builder.reset(own.clone());
        if self.config.honor_labels {
            for (name, value) in self
                .target
                .series_labels()
                .filter(|(name, _)| own.get(name).is_empty())
            {
                self.builder.set(name, value);
            }
        } else {
            override_labels(&mut self.builder, &own, self.target.series_labels());
        }
        if limits.labels > 0 || limits.label_name_length > 0 || limits.label_value_length > 0 {
            let labels = self.builder.labels();
            check(&labels, &limits)?;
        }
        Ok(relabel::apply(&self.config.metric_relabel, &mut self.builder).then(|| self.builder.labels()))
    }

    /// Something new is said of a family. What was resolved by what was known before is resolved anew, if it may be
    /// of this family.
    pub(super) fn learns(&mut self, family: &str) {
        let used = self.families.get(family).is_some_and(|family| family.used);
        let loose = |name: &str| self.loose.contains(name);
        let meant = || {
            let mut suffixes = SUFFIXES.iter();
            loose(family) || suffixes.any(|(suffix, _)| loose(&format!("{family}{suffix}")))
        };
        if used || (!self.loose.is_empty() && meant()) {
            self.epoch = self.epoch.wrapping_add(1);
            self.loose.clear();
        }
    }

    /// The family of a name, by what was said before its samples.
    fn belonging(&mut self, name: &str, openmetrics: bool, native: bool, labels: &Labels) -> Belonging {
        let belonging = self.belongs(name, openmetrics, native, labels);
        if let Some(family) = self.families.get_mut(&belonging.family) {
            family.used = true;
        }
        if !self.families.contains_key(name) && !self.loose.contains(name) {
            self.loose.insert(name.into());
        }
        belonging
    }

    fn belongs(&self, name: &str, openmetrics: bool, native: bool, labels: &Labels) -> Belonging {
        let known = |family: &str| {
            self.families
                .get_key_value(family)
                .map(|(name, known)| (name.clone(), known.kind))
        };
        let of = |family: Arc<str>, role, shape| Belonging { family, role, shape };
        if let Some((family, kind)) = known(name) {
            return match kind {
                Kind::Histogram | Kind::GaugeHistogram if native => {
                    of(family, Role::Native, Shape::Exponential)
                }
                Kind::Summary if !labels.get("quantile").is_empty() => {
                    of(family, Role::Quantile, Shape::Summary)
                }
                Kind::Counter => of(family, Role::Number, Shape::Sum),
                _ => of(family, Role::Number, Shape::Gauge),
            };
        }
        for (suffix, role) in SUFFIXES {
            let Some((family, kind)) = name.strip_suffix(suffix).and_then(known) else {
                continue;
            };
            let shape = match (kind, &role) {
                (Kind::Counter, Role::Number) => Shape::Sum,
                (Kind::Counter, Role::Created) if openmetrics => Shape::Sum,
                (Kind::Info, Role::Number) => Shape::Gauge,
                (Kind::Histogram, Role::Bucket | Role::Sum | Role::Count) => Shape::Histogram,
                (Kind::GaugeHistogram, Role::Bucket | Role::Sum | Role::Count) => Shape::GaugeHistogram,
                (Kind::Summary, Role::Sum | Role::Count) => Shape::Summary,
                (Kind::Histogram, Role::Created) if openmetrics => Shape::Histogram,
                (Kind::Summary, Role::Created) if openmetrics => Shape::Summary,
                _ => continue,
            };
            return of(family, role, shape);
        }
        if native {
            return of(name.into(), Role::Native, Shape::Exponential);
        }
        of(name.into(), Role::Number, Shape::Gauge)
    }

    fn part(&mut self, place: u32, labels: &Labels, belonging: Belonging) -> (u32, Part) {
        let Belonging { family, role, shape } = belonging;
        let name = labels.get(NAME);
        let plain = |label: &str| !is_scope(label);
        if let Role::Number | Role::Created = role
            && matches!(shape, Shape::Sum | Shape::Gauge)
        {
            let attributes = attributes(labels, 7, plain);
            let counted: Arc<str> = match role {
                // `x_created` is about `x_total`.
                Role::Created => format!("{family}_total").into(),
                _ => name.into(),
            };
            let metric = self.metric(place, counted, family, shape);
            let part = match role {
                Role::Created => Part::NumberCreated {
                    identity: identity(metric, &attributes),
                },
                _ => Part::Number {
                    attributes: self.series.share(attributes),
                    sum: shape == Shape::Sum,
                },
            };
            return (metric, part);
        }
        let (number, special) = match shape {
            Shape::Summary => (7, "quantile"),
            Shape::Exponential => (1, ""),
            _ => (9, "le"),
        };
        let attributes = attributes(labels, number, |label| plain(label) && label != special);
        let metric = self.metric(place, family.clone(), family, shape);
        let group = self.group(metric, attributes);
        let bound = |label: &str| labels.get(label).parse().unwrap_or(f64::NAN);
        let part = match role {
            Role::Bucket => Part::Bucket {
                group,
                bound: bound("le"),
            },
            Role::Quantile => Part::Quantile {
                group,
                quantile: bound("quantile"),
            },
            Role::Sum => Part::Sum { group },
            Role::Count => Part::Count { group },
            Role::Native => Part::Native { group },
            Role::Created | Role::Number => Part::GroupCreated { group },
        };
        (metric, part)
    }

    fn metric(&mut self, place: u32, name: Arc<str>, family: Arc<str>, shape: Shape) -> u32 {
        let key = (place, name.clone(), shape);
        if let Some(known) = self.metric_index.get(&key) {
            // What it is called by is the same; what is said of it may have come since.
            self.metrics[*known as usize].family = family;
            return *known;
        }
        let number = self.metrics.len() as u32;
        self.metrics.push(Metric {
            place,
            name,
            family,
            shape,
        });
        self.metric_index.insert(key, number);
        number
    }

    fn group(&mut self, metric: u32, attributes: Vec<u8>) -> u32 {
        let identity = identity(metric, &attributes);
        if let Some(known) = self.group_index.get(&(metric, identity)) {
            return *known;
        }
        let group = Group {
            metric,
            identity,
            attributes: attributes.into(),
            scrape: self.scrape.wrapping_sub(1),
            born: self.scrape,
            ..Group::default()
        };
        let number = match self.free_groups.pop() {
            Some(free) => {
                self.groups[free as usize] = group;
                free
            }
            None => {
                self.groups.push(group);
                (self.groups.len() - 1) as u32
            }
        };
        self.group_index.insert((metric, identity), number);
        number
    }

    fn place(&mut self, labels: &Labels) -> u32 {
        let scope = |name: &str| labels.get(name).to_owned();
        let attributes = labels.iter().filter_map(|(name, value)| {
            let name = name.strip_prefix("otel_scope_")?;
            let own = matches!(name, "name" | "version" | "schema_url");
            (!own).then(|| (name.to_owned(), value.to_owned()))
        });
        let key = Key {
            job: labels.get(JOB).to_owned(),
            instance: labels.get(INSTANCE).to_owned(),
            scope: scope("otel_scope_name"),
            version: scope("otel_scope_version"),
            schema_url: scope("otel_scope_schema_url"),
            attributes: attributes.collect(),
        };
        let known = self.places.iter().position(|place| place.key == key);
        let number = known.unwrap_or_else(|| {
            self.places.push(Place::new(key, self.target.labels.get(SCHEME)));
            self.places.len() - 1
        });
        number as u32
    }
}

fn is_scope(label: &str) -> bool {
    label.starts_with("otel_scope_")
}

/// The target's labels count; what a sample calls the same becomes `exported_…`.
fn override_labels<'a>(
    builder: &mut Builder,
    own: &Labels,
    target: impl Iterator<Item = (&'a str, &'a str)>,
) {
    let mut moved: Vec<(String, String)> = Vec::new();
    for (name, value) in target {
        let exported = own.get(name);
        if !exported.is_empty() {
            moved.push((name.to_owned(), exported.to_owned()));
        }
        builder.set(name, value);
    }
    for (name, value) in moved {
        let mut name = format!("exported_{name}");
        while !builder.get(&name).is_empty() {
            name = format!("exported_{name}");
        }
        builder.set(&name, &value);
    }
}

fn check(labels: &Labels, limits: &karez_scrape::config::document::Limits) -> Result<(), Limit> {
    if limits.labels > 0 && labels.len() as u64 > limits.labels {
        return Err(Limit::Labels(limits.labels));
    }
    for (name, value) in labels {
        if limits.label_name_length > 0 && name.len() as u64 > limits.label_name_length {
            return Err(Limit::NameLength(limits.label_name_length));
        }
        if limits.label_value_length > 0 && value.len() as u64 > limits.label_value_length {
            return Err(Limit::ValueLength(limits.label_value_length));
        }
    }
    Ok(())
}

/// Labels as encoded attributes of field `number`: all but those that are said elsewhere.
fn attributes(labels: &Labels, number: u8, wanted: impl Fn(&str) -> bool) -> Vec<u8> {
    let mut out = Vec::new();
    for (name, value) in labels {
        let elsewhere = matches!(name, JOB | INSTANCE) || name.starts_with(RESERVED_PREFIX);
        if !elsewhere && wanted(name) {
            attribute(&mut out, number, name, value);
        }
    }
    out
}
