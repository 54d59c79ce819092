//! The collector's document: YAML, substitution, old spellings, every check.
#![no_main]

use karez_document::Origin;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let environment = |name: &str| name.starts_with('A').then(|| "1".to_owned());
    let _ = karez_collector_config::check(text, &Origin::file("fuzz"), &environment);
});
