//! A scrape configuration being written.

use serde_json::{Map, Value, json};

use super::rules::relabelings;
use super::{Refusal, flag, list, text};

/// Keys of a job.
#[derive(Default)]
pub(super) struct JobWriter {
    pub(super) keys: Map<String, Value>,
    pub(super) rules: Vec<Value>,
    pub(super) metric_rules: Vec<Value>,
}

impl JobWriter {
    pub(super) fn new(name: String) -> Self {
        let mut this = JobWriter::default();
        this.put("job_name", name);
        let original = json!({"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"});
        this.rules.push(original);
        this
    }

    pub(super) fn put(&mut self, key: &str, value: impl Into<Value>) {
        self.keys.insert(key.to_owned(), value.into());
    }

    /// A text, unless it is empty.
    pub(super) fn text(&mut self, key: &str, value: &str) {
        if !value.is_empty() {
            self.put(key, value);
        }
    }

    /// Copies what is written under other names.
    pub(super) fn copy(&mut self, from: &Value, keys: &[(&str, &str)]) {
        for (written, key) in keys {
            if let Some(value) = from.get(written).filter(|value| !value.is_null()) {
                self.put(key, value.clone());
            }
        }
    }

    /// What endpoints of every kind have in common.
    pub(super) fn endpoint(&mut self, endpoint: &Value) {
        self.put("honor_labels", flag(endpoint, "honorLabels").unwrap_or(false));
        self.copy(
            endpoint,
            &[
                ("honorTimestamps", "honor_timestamps"),
                ("trackTimestampsStaleness", "track_timestamps_staleness"),
                ("params", "params"),
                ("followRedirects", "follow_redirects"),
                ("enableHttp2", "enable_http2"),
                ("enableHTTP2", "enable_http2"),
                ("enableCompression", "enable_compression"),
            ],
        );
        self.text("scrape_interval", text(endpoint, "interval"));
        self.text("scrape_timeout", text(endpoint, "scrapeTimeout"));
        self.text("metrics_path", text(endpoint, "path"));
        self.text("scheme", &text(endpoint, "scheme").to_lowercase());
        self.proxy(endpoint);
    }

    /// A proxy is given on, so that it is refused with its name rather than left out.
    pub(super) fn proxy(&mut self, from: &Value) {
        let url = [text(from, "proxyUrl"), text(from, "proxyURL")]
            .into_iter()
            .find(|url| !url.is_empty());
        self.text("proxy_url", url.unwrap_or_default());
        if flag(from, "proxyFromEnvironment") == Some(true) {
            self.put("proxy_from_environment", true);
        }
    }

    /// Limits and formats, which resources hold at their top.
    pub(super) fn limits(&mut self, spec: &Value) {
        let limits = [
            ("sampleLimit", "sample_limit"),
            ("targetLimit", "target_limit"),
            ("labelLimit", "label_limit"),
            ("labelNameLengthLimit", "label_name_length_limit"),
            ("labelValueLengthLimit", "label_value_length_limit"),
            ("keepDroppedTargets", "keep_dropped_targets"),
            ("nativeHistogramBucketLimit", "native_histogram_bucket_limit"),
            ("scrapeNativeHistograms", "scrape_native_histograms"),
            ("scrapeClassicHistograms", "always_scrape_classic_histograms"),
        ];
        self.copy(spec, &limits);
        self.text("body_size_limit", text(spec, "bodySizeLimit"));
        self.text("fallback_scrape_protocol", text(spec, "fallbackScrapeProtocol"));
        if !list(spec, "scrapeProtocols").is_empty() {
            self.put("scrape_protocols", list(spec, "scrapeProtocols"));
        }
    }

    /// Sets a label from others.
    pub(super) fn replace(&mut self, source: &[&str], target: &str) {
        self.rules
            .push(json!({"source_labels": source, "target_label": target}));
    }

    /// Sets a label to a text.
    pub(super) fn constant(&mut self, target: &str, value: &str) {
        // A `$` of a name is no reference.
        let value = value.replace('$', "$$");
        self.rules
            .push(json!({"target_label": target, "replacement": value}));
    }

    pub(super) fn keep(&mut self, source: &[&str], regex: &str) {
        self.rules
            .push(json!({"action": "keep", "source_labels": source, "regex": regex}));
    }

    pub(super) fn drop_if(&mut self, source: &[&str], regex: &str) {
        self.rules
            .push(json!({"action": "drop", "source_labels": source, "regex": regex}));
    }

    /// Rules as resources write them.
    pub(super) fn relabelings(&mut self, written: &[Value]) -> Result<(), Refusal> {
        self.rules.extend(relabelings(written)?);
        Ok(())
    }

    pub(super) fn metric_relabelings(&mut self, written: &[Value]) -> Result<(), Refusal> {
        self.metric_rules.extend(relabelings(written)?);
        Ok(())
    }

    pub(super) fn finish(mut self) -> Value {
        self.keys.insert("relabel_configs".to_owned(), self.rules.into());
        if !self.metric_rules.is_empty() {
            self.keys
                .insert("metric_relabel_configs".to_owned(), self.metric_rules.into());
        }
        Value::Object(self.keys)
    }
}
