//! Relabelling: rules on the first lines, then a line with three dashes, then a group of targets as JSON.
#![no_main]

use karez_document::{Origin, yaml};
use karez_scrape_config::discovery::GroupDocument;
use karez_scrape_config::{Assembler, Fate, Options, read};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let (rules, group) = text.split_once("\n---\n").unwrap_or((text, ""));
    let mut document = String::from("scrape_configs:\n- job_name: fuzz\n  relabel_configs:\n");
    for line in rules.lines() {
        document.push_str("  ");
        document.push_str(line);
        document.push('\n');
    }
    let Ok(nodes) = yaml::parse(&document, &Origin::file("fuzz")) else {
        return;
    };
    let Some(node) = nodes.first() else { return };
    let mut diagnoses = Vec::new();
    let jobs = read(node, "", Options::default(), &mut diagnoses);
    let written = GroupDocument {
        targets: vec!["10.0.0.1:80".to_owned(), String::new(), "a/b".to_owned()],
        ..GroupDocument::default()
    };
    let group = serde_json::from_str(group)
        .unwrap_or(written)
        .group(&[("__meta_name", "fuzz")]);
    for job in &jobs {
        let mut assembler = Assembler::new(job);
        for target in &group.targets {
            let fate = assembler.assemble(&group, target);
            assert_eq!(fate, assembler.assemble(&group, target));
            if let Fate::Kept(target) = fate {
                assert!(target.labels.iter().all(|(name, value)| {
                    !name.is_empty() && !value.is_empty() && !name.starts_with("__meta_")
                }));
                let _ = (target.url(job), target.interval(), target.timeout());
            }
        }
    }
});
