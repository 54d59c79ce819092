//! `components`: what the collector has, as the OpenTelemetry Collector tells it.

use karez_collector_config::component::Kind;
use karez_collector_config::{
    ConnectorConfig, ExporterConfig, ExtensionConfig, ProcessorConfig, ReceiverConfig, Signal,
};

/// The list, as YAML.
pub fn components() -> String {
    let mut out = format!(
        "buildinfo:\n    command: karez collector\n    description: Karez collector\n    version: {}\n",
        env!("CARGO_PKG_VERSION")
    );
    section::<ReceiverConfig>(&mut out);
    section::<ProcessorConfig>(&mut out);
    section::<ExporterConfig>(&mut out);
    section::<ConnectorConfig>(&mut out);
    section::<ExtensionConfig>(&mut out);
    out.push_str("providers:\n");
    for scheme in ["env", "file", "http", "https", "kube", "yaml"] {
        out.push_str(&format!("    - scheme: {scheme}\n"));
    }
    out
}

fn section<T: Kind>(out: &mut String) {
    out.push_str(&format!("{}s:\n", T::WORD));
    let mut names = T::KNOWN.to_vec();
    names.sort_unstable();
    for name in names {
        out.push_str(&format!(
            "    - name: {name}\n      module: karez {}\n      stability:\n",
            env!("CARGO_PKG_VERSION")
        ));
        if T::WORD == "extension" {
            out.push_str("        extension: Beta\n");
            continue;
        }
        if T::WORD == "connector" {
            for (from, to) in [Signal::Logs, Signal::Metrics, Signal::Traces]
                .into_iter()
                .flat_map(pairs)
            {
                if ConnectorConfig::connects(name, from, to) {
                    out.push_str(&format!("        {from}-to-{to}: Beta\n"));
                }
            }
            continue;
        }
        for signal in [Signal::Logs, Signal::Metrics, Signal::Traces] {
            let level = match T::signals(name).contains(&signal) {
                true => "Beta",
                false => "Undefined",
            };
            out.push_str(&format!("        {signal}: {level}\n"));
        }
    }
}

fn pairs(from: Signal) -> [(Signal, Signal); 3] {
    [Signal::Logs, Signal::Metrics, Signal::Traces].map(|to| (from, to))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_yaml_that_names_every_component() {
        let text = components();
        let origin = karez_document::Origin::file("components");
        let document = karez_document::yaml::parse(&text, &origin).unwrap().remove(0);
        let names = |section: &str| document.get(section).unwrap().items().len();
        assert_eq!(names("receivers"), ReceiverConfig::KNOWN.len());
        assert_eq!(names("exporters"), ExporterConfig::KNOWN.len());
        assert!(text.contains("- name: file_storage"), "{text}");
    }
}
