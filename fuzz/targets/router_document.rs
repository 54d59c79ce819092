//! The router's document.
#![no_main]

use karez_document::Origin;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (config, diagnoses) = karez_router_config::check(text, &Origin::file("fuzz"));
    assert!(
        config.is_some() || !diagnoses.is_empty(),
        "refused without a reason"
    );
});
