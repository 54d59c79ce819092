//! Endpoints as documents write them.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let _ = karez_collector_config::endpoint::grpc_target(text);
    if let Ok((host, port)) = karez_net::split_host_port(text) {
        let shown = if host.contains(':') {
            format!("[{host}]:{port}")
        } else {
            format!("{host}:{port}")
        };
        assert_eq!(karez_net::split_host_port(&shown).ok(), Some((host, port)));
    }
});
