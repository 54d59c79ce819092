//! Texts of the collector's operators: htpasswd, a proxy's URL, durations.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = karez_collector::extensions::auth::Htpasswd::parse(text);
    let _ = karez_collector::client::Proxy::parse(text);
    let _ = karez_collector_config::values::parse_duration(text);
});
