//! Groups of targets as HTTP discovery and files give them: JSON and YAML.
#![no_main]

use karez_document::{Origin, yaml};
use karez_scrape_config::discovery::GroupDocument;
use karez_scrape_config::labels::Labels;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let answered: Vec<GroupDocument> = serde_json::from_str(text).unwrap_or_default();
    let mut diagnoses = Vec::new();
    let nodes = yaml::parse(text, &Origin::file("fuzz")).unwrap_or_default();
    let from_file: Option<Vec<GroupDocument>> =
        nodes.first().and_then(|node| yaml::decode(node, &mut diagnoses));
    for group in answered.into_iter().chain(from_file.into_iter().flatten()) {
        let group = group.group(&[("__meta_url", "http://fuzz")]);
        let again = Labels::of(group.labels.iter());
        assert_eq!(again, group.labels);
        let names: Vec<&str> = group.labels.iter().map(|(name, _)| name).collect();
        assert!(names.is_sorted(), "{names:?}");
        let _ = serde_json::to_string(&group.labels);
    }
});
