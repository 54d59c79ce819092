//! Extensions and what they name; components that nothing uses.

use indexmap::IndexSet;
use karez_document::yaml::{Node, closest};

use super::{Lint, place_of};
use crate::component::ExtensionConfig;
use crate::document::Section;
use crate::values::ComponentId;

impl Lint<'_> {
    pub(super) fn extensions(&mut self) {
        let sections = self.sections;
        for (id, written) in &sections.extensions.written {
            let at = format!("extensions.{id}");
            match &written.config {
                Some(ExtensionConfig::HealthCheck(check)) => {
                    self.http_server(&check.server, &at, &written.node, &[])
                }
                Some(ExtensionConfig::ZPages(pages)) => {
                    self.http_server(&pages.server, &at, &written.node, &[]);
                }
                Some(ExtensionConfig::JaegerQuery(query)) => {
                    if let Some(http) = &query.http {
                        self.http_server(http, &at, &written.node, &["http"]);
                    }
                    self.store(&query.storage.traces, &at, &written.node, &["storage", "traces"]);
                }
                Some(ExtensionConfig::JaegerStorage(storage)) => {
                    for (name, backend) in &storage.backends {
                        let wrong = match (&backend.memory, &backend.disk) {
                            (None, None) => "Karez keeps traces in memory, or in memory and on disk",
                            (Some(_), Some(_)) => "both `memory` and `disk` are given",
                            (None, Some(disk)) if disk.directory.is_empty() => "names no directory",
                            _ => continue,
                        };
                        let key = format!("{at}.backends.{name}");
                        let place = place_of(&written.node, &["backends", name]);
                        let mend = "write `memory: {}` or `disk: {directory: …}` below it";
                        self.error(place, key, wrong, mend);
                    }
                }
                _ => {}
            }
        }
    }

    /// Checks that a storage is there, is started, and is one.
    pub(super) fn storage(&mut self, node: &Node, key: &str) {
        let name = node.as_str().unwrap_or_default();
        let id: Option<ComponentId> = name.parse().ok();
        let written = &self.sections.extensions.written;
        let found = id.as_ref().and_then(|id| written.get(id));
        let (message, mend) = match (found.map(|found| &found.config), id) {
            (Some(Some(ExtensionConfig::FileStorage(_))), Some(id)) if self.used.extensions.contains(&id) => return,
            (Some(Some(ExtensionConfig::FileStorage(_)) | None), _) => (
                format!("names the extension `{name}`, which `service.extensions` does not start"),
                format!("write `service: {{extensions: [{name}]}}`"),
            ),
            (Some(_), _) => (
                format!("the extension `{name}` cannot keep a queue"),
                "name a `file_storage` extension".to_owned(),
            ),
            (None, _) => (
                format!("names the extension `{name}`, which is not configured"),
                "add such as `extensions: {file_storage: {directory: …}}` and name it in `service.extensions`".to_owned(),
            ),
        };
        self.error(node.place(), key.to_owned(), &message, &mend);
    }

    pub(super) fn store(&mut self, name: &str, at: &str, node: &Node, path: &[&str]) {
        let stores = self
            .sections
            .extensions
            .written
            .iter()
            .filter(|(id, _)| self.used.extensions.contains(*id));
        let names: Vec<&str> = stores
            .filter_map(|(_, written)| match &written.config {
                Some(ExtensionConfig::JaegerStorage(storage)) => {
                    Some(storage.backends.keys().map(String::as_str))
                }
                _ => None,
            })
            .flatten()
            .collect();
        if names.contains(&name) {
            return;
        }
        let mend = match closest(name, names.iter().copied()) {
            Some(meant) => format!("did you mean `{meant}`?"),
            None => {
                "add it below `backends:` of a jaeger_storage extension that the service starts".to_owned()
            }
        };
        let message =
            format!("names the store `{name}`, which no jaeger_storage extension of the service has");
        self.error(
            place_of(node, path),
            format!("{at}.{}", path.join(".")),
            &message,
            &mend,
        );
    }

    pub(super) fn unused<T>(&mut self, word: &str, section: &Section<T>, used: &IndexSet<ComponentId>) {
        for (id, written) in section.written.iter().filter(|(id, _)| !used.contains(*id)) {
            let message = format!("the {word} is configured but in no pipeline, so {}", effect(word));
            let mend = match word {
                "connector" => {
                    format!("add `{id}` to the `exporters` and `receivers` of pipelines, or remove it")
                }
                _ => format!("add `{id}` to the `{word}s` of a pipeline, or remove it"),
            };
            self.warning(written.place.clone(), format!("{word}s.{id}"), &message, &mend);
        }
    }

    pub(super) fn unused_extensions(&mut self) {
        let sections = self.sections;
        for (id, written) in sections
            .extensions
            .written
            .iter()
            .filter(|(id, _)| !self.used.extensions.contains(*id))
        {
            let authenticator = matches!(
                id.kind.as_str(),
                "basicauth" | "bearertokenauth" | "oidc" | "oauth2client"
            );
            let (message, mend) = if authenticator {
                (
                    "the extension is configured but neither in `service.extensions` nor named by a receiver's `auth`: \
                     the receivers are open to anyone",
                    format!(
                        "write `service: {{extensions: [{id}]}}` and `auth: {{authenticator: {id}}}`, or remove it"
                    ),
                )
            } else {
                (
                    "the extension is configured but not in `service.extensions`, so it does not run",
                    format!("write `service: {{extensions: [{id}]}}`, or remove it"),
                )
            };
            self.warning(written.place.clone(), format!("extensions.{id}"), message, &mend);
        }
    }
}

fn effect(word: &str) -> &'static str {
    match word {
        "receiver" => "it does not listen",
        "exporter" => "nothing is sent by it",
        "connector" => "it connects nothing",
        _ => "it changes nothing",
    }
}
