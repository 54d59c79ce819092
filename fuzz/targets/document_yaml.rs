//! YAML that remembers its lines.
#![no_main]

use karez_document::{Origin, yaml};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(nodes) = yaml::parse(text, &Origin::file("fuzz")) {
        for node in nodes {
            let _ = (node.to_json(), node.place(), node.text_line());
        }
    }
});
