//! From what discovery gives to what is scraped: labels are put together, relabelled and checked. Pure.
//!
//! ```text
//! Group (labels, targets) ─▶ discovered labels (+ job, scheme, path, interval, timeout, parameters) ─▶ relabel ─▶ Target
//! ```

use std::time::Duration;

use xxhash_rust::xxh64::Xxh64;

use crate::document::ScrapeConfig;
use crate::labels::{
    ADDRESS, Builder, INSTANCE, JOB, Labels, META_PREFIX, METRICS_PATH, PARAM_PREFIX, RESERVED_PREFIX,
    SCHEME, SCRAPE_INTERVAL, SCRAPE_TIMEOUT,
};
use crate::relabel;
use crate::values::{format_duration, parse_duration};

/// Targets that discovery found together, with the labels that they share.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Group {
    /// Labels of all of them.
    pub labels: Labels,
    /// Each one's own labels, which count before those of the group.
    pub targets: Vec<Labels>,
}

/// What is scraped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The final labels with the internal ones (`__address__`, `__scheme__` …), without `__meta_…`.
    pub labels: Labels,
    /// Identifies it: the job and the final labels.
    pub identity: u64,
}

/// What became of a discovered target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// It is scraped.
    Kept(Target),
    /// A rule dropped it.
    Dropped,
    /// It cannot be scraped as it is.
    Wrong(TargetError),
}

/// Why a target cannot be scraped.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// There is no `__address__`.
    #[error("the target has no address; give it `__address__`")]
    NoAddress,
    /// The address is none.
    #[error("`{0}` is no address of a target; write HOST:PORT")]
    Address(String),
    /// An interval or timeout is none.
    #[error("{name}: {reason}")]
    Duration {
        /// The label.
        name: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// A scrape may not take longer than the time between two.
    #[error("the scrape's timeout ({timeout}) is longer than its interval ({interval})")]
    Timeout {
        /// The interval.
        interval: String,
        /// The timeout.
        timeout: String,
    },
}

/// Labels that a job's targets have unless they say otherwise.
pub fn defaults(config: &ScrapeConfig) -> Labels {
    let (interval, timeout) = (format_duration(config.interval), format_duration(config.timeout));
    let own = [
        (JOB, config.job_name.as_str()),
        (SCRAPE_INTERVAL, &interval),
        (SCRAPE_TIMEOUT, &timeout),
        (METRICS_PATH, &config.metrics_path),
        (SCHEME, &config.scheme),
    ];
    let first = |(name, values): (&String, &Vec<String>)| {
        Some((format!("{PARAM_PREFIX}{name}"), values.first()?.clone()))
    };
    let params: Vec<(String, String)> = config.params.iter().filter_map(first).collect();
    let params = params.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    Labels::of(own.into_iter().chain(params))
}

/// Puts targets of one job together. Kept, so that its memory is used again.
#[derive(Debug)]
pub struct Assembler<'a> {
    config: &'a ScrapeConfig,
    /// Labels that a target has unless it says otherwise.
    defaults: Labels,
    builder: Builder,
}

impl<'a> Assembler<'a> {
    /// For the targets of a job.
    pub fn new(config: &'a ScrapeConfig) -> Self {
        Self::with_defaults(config, defaults(config))
    }

    /// The same, with its [`defaults`] made before.
    pub fn with_defaults(config: &'a ScrapeConfig, defaults: Labels) -> Self {
        Assembler {
            config,
            defaults,
            builder: Builder::default(),
        }
    }

    /// The labels of a discovered target before relabelling.
    pub fn discovered(&mut self, group: &Group, target: &Labels) -> Labels {
        self.collect(group, target);
        self.builder.labels()
    }

    fn collect(&mut self, group: &Group, target: &Labels) {
        let sets = [&self.defaults, &group.labels, target];
        self.builder.reset(Labels::merged(sets, &[]));
    }

    /// Relabels a discovered target and says what became of it.
    pub fn assemble(&mut self, group: &Group, target: &Labels) -> Fate {
        self.collect(group, target);
        if !relabel::apply(&self.config.relabel, &mut self.builder) {
            return Fate::Dropped;
        }
        if let Err(error) = check(&self.builder) {
            return Fate::Wrong(error);
        }
        self.builder.retain(|name| !name.starts_with(META_PREFIX));
        if self.builder.get(INSTANCE).is_empty() {
            let address = self.builder.get(ADDRESS).to_owned();
            self.builder.set(INSTANCE, &address);
        }
        Fate::Kept(Target::new(&self.config.job_name, self.builder.labels()))
    }
}

fn check(labels: &Builder) -> Result<(), TargetError> {
    let address = labels.get(ADDRESS);
    if address.is_empty() {
        return Err(TargetError::NoAddress);
    }
    if address.contains('/') {
        return Err(TargetError::Address(address.to_owned()));
    }
    let duration = |name: &'static str| {
        let wrong = |reason| TargetError::Duration { name, reason };
        match parse_duration(labels.get(name)) {
            Ok(duration) if duration.is_zero() => Err(wrong("cannot be 0".to_owned())),
            other => other.map_err(wrong),
        }
    };
    let interval = duration(SCRAPE_INTERVAL)?;
    let timeout = duration(SCRAPE_TIMEOUT)?;
    if timeout > interval {
        return Err(TargetError::Timeout {
            interval: format_duration(interval),
            timeout: format_duration(timeout),
        });
    }
    Ok(())
}

impl Target {
    /// A target of a job with its final labels.
    pub fn new(job_name: &str, labels: Labels) -> Self {
        let mut hash = Xxh64::new(0);
        labels.hash_into(&mut hash, |name| !name.starts_with(META_PREFIX));
        hash.update(job_name.as_bytes());
        let identity = hash.digest();
        Target { labels, identity }
    }

    /// The labels that its series get.
    pub fn series_labels(&self) -> impl Iterator<Item = (&str, &str)> {
        self.labels
            .iter()
            .filter(|(name, _)| !name.starts_with(RESERVED_PREFIX))
    }

    /// How often it is scraped.
    pub fn interval(&self) -> Duration {
        parse_duration(self.labels.get(SCRAPE_INTERVAL)).unwrap_or(Duration::from_secs(60))
    }

    /// For how long at most.
    pub fn timeout(&self) -> Duration {
        parse_duration(self.labels.get(SCRAPE_TIMEOUT)).unwrap_or(Duration::from_secs(10))
    }

    /// What is asked for, as text: scheme, address, path, and the parameters sorted by name.
    pub fn url(&self, config: &ScrapeConfig) -> String {
        let mut params = config.params.clone();
        for (name, value) in &self.labels {
            let Some(name) = name.strip_prefix(PARAM_PREFIX) else {
                continue;
            };
            let values = params.entry(name.to_owned()).or_default();
            match values.first_mut() {
                Some(first) => value.clone_into(first),
                None => values.push(value.to_owned()),
            }
        }
        let path = self.labels.get(METRICS_PATH);
        let host = escaped_host(self.labels.get(ADDRESS));
        let mut url = match self.labels.get(SCHEME) {
            // As Go writes a URL without one; nobody can scrape it, and it says so.
            "" => format!("//{host}"),
            scheme => format!("{scheme}://{host}"),
        };
        if !path.is_empty() && !path.starts_with('/') {
            url.push('/');
        }
        url.push_str(&escaped_path(path));
        let mut query = url::form_urlencoded::Serializer::new(String::new());
        for (name, values) in &params {
            for value in values {
                query.append_pair(name, value);
            }
        }
        let query = query.finish();
        if !query.is_empty() {
            url.push('?');
            url.push_str(&query);
        }
        url
    }

    /// When it is scraped first after `now` (both since 1970): targets are spread over their interval, the same way
    /// after every start.
    pub fn first_scrape(&self, now: Duration, seed: u64) -> Duration {
        let interval = self.interval().as_nanos().max(1);
        let offset = u128::from(self.identity ^ seed) % interval;
        let now = now.as_nanos();
        let mut next = now - now % interval + offset;
        if next < now {
            next += interval;
        }
        Duration::from_nanos(u64::try_from(next).unwrap_or(u64::MAX))
    }
}

/// A path as a URL holds it. A `?` belongs to the path: parameters are given in another way.
fn escaped_path(path: &str) -> String {
    escaped(path, b"-_.~/$&+,:;=@")
}

/// A host as Go writes it into a URL.
fn escaped_host(host: &str) -> String {
    escaped(host, b"-_.~!$&'()*+,;=:[]<>\"")
}

/// Everything but letters, digits and these as `%41`.
fn escaped(text: &str, kept: &[u8]) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            true => escaped.push(char::from(byte)),
            false => escaped.push_str(&format!("%{byte:02X}")),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::tests::scrape;

    fn group(labels: &[(&str, &str)], target: &[(&str, &str)]) -> (Group, Labels) {
        let target = Labels::of(target.iter().copied());
        let group = Group {
            labels: Labels::of(labels.iter().copied()),
            targets: vec![target.clone()],
        };
        (group, target)
    }

    fn fate(yaml: &str, labels: &[(&str, &str)], target: &[(&str, &str)]) -> Fate {
        let config = scrape(yaml);
        let (group, target) = group(labels, target);
        Assembler::new(&config).assemble(&group, &target)
    }

    fn kept(yaml: &str, labels: &[(&str, &str)], target: &[(&str, &str)]) -> Target {
        match fate(yaml, labels, target) {
            Fate::Kept(target) => target,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_target_has_what_it_needs() {
        let target = kept(
            "{job_name: j}",
            &[("a", "group"), ("b", "group")],
            &[("__address__", "h:1"), ("a", "own"), ("__meta_x", "y")],
        );
        let expected = r#"{__address__="h:1", __metrics_path__="/metrics", __scheme__="http", __scrape_interval__="1m", __scrape_timeout__="10s", a="own", b="group", instance="h:1", job="j"}"#;
        assert_eq!(target.labels.to_string(), expected);
        let series: Vec<_> = target.series_labels().collect();
        assert_eq!(
            series,
            [("a", "own"), ("b", "group"), ("instance", "h:1"), ("job", "j")]
        );
        assert_eq!(target.interval(), Duration::from_secs(60));
    }

    #[test]
    fn the_url_has_the_parameters() {
        let yaml = "{job_name: j, scheme: https, metrics_path: '/a b', params: {module: [http_2xx, more], x: ['&']}}";
        let target = kept(
            yaml,
            &[],
            &[
                ("__address__", "h"),
                ("__param_module", "icmp"),
                ("__param_new", "1"),
            ],
        );
        assert_eq!(
            target.url(&scrape(yaml)),
            "https://h/a%20b?module=icmp&module=more&new=1&x=%26"
        );
    }

    #[test]
    fn wrong_targets_say_why() {
        assert_eq!(
            fate("{job_name: j}", &[], &[("a", "b")]),
            Fate::Wrong(TargetError::NoAddress)
        );
        let wrong = |target: &[(&str, &str)]| match fate("{job_name: j}", &[], target) {
            Fate::Wrong(error) => error.to_string(),
            other => panic!("{other:?}"),
        };
        assert!(wrong(&[("__address__", "http://h")]).contains("HOST:PORT"));
        assert!(wrong(&[("__address__", "h"), ("__scrape_interval__", "0")]).contains("cannot be 0"));
        assert!(wrong(&[("__address__", "h"), ("__scrape_interval__", "5s")]).contains("longer"));
        let yaml = "{job_name: j, relabel_configs: [{source_labels: [a], regex: b, action: drop}]}";
        assert_eq!(fate(yaml, &[("a", "b")], &[("__address__", "h")]), Fate::Dropped);
    }

    #[test]
    fn identity_is_job_and_final_labels() {
        let yaml = "{job_name: j, relabel_configs: [{regex: tmp, action: labeldrop}]}";
        let one = kept(yaml, &[("tmp", "1"), ("__meta_a", "1")], &[("__address__", "h")]);
        let same = kept(yaml, &[("tmp", "2"), ("__meta_a", "2")], &[("__address__", "h")]);
        assert_eq!(one.identity, same.identity);
        let other = kept(
            "{job_name: k, relabel_configs: [{target_label: job, replacement: j}]}",
            &[],
            &[("__address__", "h")],
        );
        assert_eq!(one.labels, other.labels);
        assert_ne!(one.identity, other.identity);
    }

    #[test]
    fn scrapes_are_spread_and_never_in_the_past() {
        let now = Duration::from_secs(1_700_000_123);
        for index in 0..100 {
            let target = kept("{job_name: j}", &[], &[("__address__", &format!("h{index}"))]);
            let first = target.first_scrape(now, 7);
            assert!(first >= now && first < now + Duration::from_secs(60));
            assert_eq!(target.first_scrape(first, 7), first);
        }
    }
}
