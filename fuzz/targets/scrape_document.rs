//! Scrape configurations.
#![no_main]

use karez_document::{Origin, yaml};
use karez_scrape_config::{Options, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let Ok(nodes) = yaml::parse(text, &Origin::file("fuzz")) else {
        return;
    };
    for node in nodes {
        for without_discovery in [false, true] {
            let mut diagnoses = Vec::new();
            let _ = read(&node, "", Options { without_discovery }, &mut diagnoses);
        }
    }
    let _ = karez_scrape_config::values::parse_duration(text);
    let _ = karez_scrape_config::values::parse_size(text);
});
