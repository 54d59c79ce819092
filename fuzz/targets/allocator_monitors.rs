//! Custom resources of Prometheus Operator → jobs. What they give can be written as JSON and read again.
#![no_main]

use std::collections::BTreeMap;

use karez_document::{Origin, yaml};
use karez_scrape_config::document::read_one;
use karez_scrape_config::{Options, write};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(object) = serde_json::from_str(text) else {
        return;
    };
    let held = [
        "username", "password", "token", "key", "ca.crt", "tls.crt", "tls.key",
    ]
    .map(|key| (key.to_owned(), "x".to_owned()));
    let Ok(jobs) = karez_allocator::jobs_of(&object, &BTreeMap::from(held)) else {
        return;
    };
    for job in jobs {
        let written = write::to_json(&job).to_string();
        let Ok(nodes) = yaml::parse(&written, &Origin::file("fuzz")) else {
            panic!("what was written is no document: {written}");
        };
        let mut diagnoses = Vec::new();
        let again = read_one(&nodes[0], "", Options::default(), &mut diagnoses);
        assert!(
            again.is_some() && !karez_document::has_errors(&diagnoses),
            "{diagnoses:?}: {written}"
        );
    }
});
