//! `file_storage`: a directory in which exporters keep their queues. See the module `durable` for what is in it.

use std::fs;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use futures::future::BoxFuture;
use karez_collector_config::ComponentId;
use karez_collector_config::extensions as config;
use karez_collector_config::extensions::WhenFull;
use karez_lifecycle::volumes;

use crate::component::{ComponentContext, Extension, Running, StartError};

/// Extension `file_storage`.
pub struct FileStorageExtension {
    config: config::FileStorage,
}

/// Where a component keeps its files, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Storage {
    /// The component's own folder.
    pub folder: PathBuf,
    /// Whether what is acknowledged is synced first.
    pub fsync: bool,
    /// How long another's lock is waited for.
    pub timeout: Duration,
    /// What the folder may take.
    pub max_bytes: u64,
    /// What happens then.
    pub when_full: WhenFull,
    /// Bounds the delivery of old data; 0 does not.
    pub backlog_bytes_per_second: u64,
}

impl FileStorageExtension {
    /// Takes its configuration.
    pub fn new(config: config::FileStorage) -> Self {
        FileStorageExtension { config }
    }

    fn directory(&self) -> PathBuf {
        volumes::locate(Path::new(&self.config.directory))
    }

    fn check(&self) -> Result<(), StartError> {
        let directory = self.directory();
        if directory.is_dir() {
            return Ok(());
        }
        let shown = directory.display();
        if !self.config.create_directory {
            return Err(StartError::config(
                "directory",
                format!("{shown} is not a directory that is there"),
                "make it, or write `create_directory: true`",
            ));
        }
        let mode = u32::from_str_radix(&self.config.directory_permissions, 8).unwrap_or(0o750);
        let made = fs::DirBuilder::new()
            .recursive(true)
            .mode(mode)
            .create(&directory);
        made.map_err(|error| {
            let mend = "name a directory in a place that the collector may write to";
            StartError::config("directory", format!("{shown} cannot be made: {error}"), mend)
        })
    }
}

impl Extension for FileStorageExtension {
    fn start<'a>(&'a self, _: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async { self.check().map(|()| Running::none()) })
    }

    fn storage(&self, section: &str, id: &ComponentId) -> Option<Storage> {
        let config = &self.config;
        Some(Storage {
            folder: self.directory().join(folder_name(section, id)),
            fsync: config.fsync,
            timeout: config.timeout,
            max_bytes: config.max_bytes,
            when_full: config.when_full,
            backlog_bytes_per_second: config.backlog_bytes_per_second,
        })
    }
}

/// `exporter_otlp_name`; what cannot stand in a file's name as %XX.
fn folder_name(section: &str, id: &ComponentId) -> String {
    let mut name = section.to_owned();
    for part in [&id.kind, &id.name] {
        if part.is_empty() {
            continue;
        }
        name.push('_');
        for byte in part.bytes() {
            match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' => name.push(char::from(byte)),
                other => name.push_str(&format!("%{other:02X}")),
            }
        }
    }
    name
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_components_are_names_of_folders_and_differ() {
        let name = |id: &str| folder_name("exporter", &id.parse().unwrap());
        assert_eq!(name("otlp"), "exporter_otlp");
        assert_eq!(name("otlp/to.the-hub"), "exporter_otlp_to.the-hub");
        assert_eq!(name("otlp/a_b"), "exporter_otlp_a%5Fb");
        assert_ne!(name("otlp/a_b"), name("otlp_a/b"));
    }
}
