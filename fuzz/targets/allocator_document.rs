//! The allocator's document, with the command line's flags and without.
#![no_main]

use karez_allocator::{Flags, read};
use karez_document::Origin;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let given = Flags {
        namespace: Some("fuzz".to_owned()),
        watch_prometheus: true,
        https: true,
        ..Flags::default()
    };
    for flags in [Flags::default(), given] {
        let origin = Origin::file("fuzz");
        let (config, diagnoses) = read(text, &origin, &flags);
        assert_eq!(config.is_none(), karez_document::has_errors(&diagnoses));
        for diagnosis in diagnoses {
            let _ = diagnosis.to_string();
        }
    }
});
