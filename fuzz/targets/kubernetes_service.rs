//! Definitions of services and ports as annotations and ConfigMaps have them.
#![no_main]

use karez_kubernetes::{ServiceDefinition, parse_port_list};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    if let Ok(definition) = ServiceDefinition::parse("key", text) {
        let again = ServiceDefinition::parse("key", &definition.to_json());
        assert_eq!(
            again.expect("what we write we read").to_json(),
            definition.to_json()
        );
    }
    if let Ok(ports) = parse_port_list(text) {
        assert!(ports.iter().all(|(port, target)| *port > 0 && *target > 0));
    }
});
