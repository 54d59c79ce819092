//! What clients ask the local Kubernetes API for.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|said: (&str, &str, &str, &str)| {
    let (path, query, selector, label) = said;
    let object = serde_json::json!({"metadata": {"name": label, "labels": {"a": label}}});
    karez_local_api::fuzzing::request(path, query, selector, &object);
});
