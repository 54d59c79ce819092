//! What the `file` exporter is told.

use std::time::Duration;

use karez_document::Diagnosis;
use karez_document::yaml::{Node, decode_at, join_key};
use serde::Deserialize;
use serde_json::Value;

use crate::exporters::Encoding;
use crate::values::{duration, present};

/// `file`.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct FileExporter {
    /// The file; with `group_by`, one `*` stands for the group.
    pub path: String,
    /// A line of JSON a batch, or protobuf behind its length.
    pub format: Encoding,
    /// A new file when it is large, and how many old ones are kept.
    #[serde(deserialize_with = "present")]
    pub rotation: Option<Rotation>,
    /// Each batch compressed, behind its length.
    pub compression: FileCompression,
    /// How often what was written is synced to the disk; 0 leaves that to the system.
    #[serde(deserialize_with = "duration")]
    pub flush_interval: Duration,
    /// Go on with a file that is there.
    pub append: bool,
    /// A file for each value of a resource's attribute.
    pub group_by: GroupBy,
    /// Make the folder.
    pub create_directory: bool,
    /// Its mode then, octal.
    pub directory_permissions: String,
    /// An encoding extension: refused.
    pub encoding: Option<Value>,
}

impl Default for FileExporter {
    fn default() -> Self {
        FileExporter {
            path: String::new(),
            format: Encoding::Json,
            rotation: None,
            compression: FileCompression::None,
            flush_interval: Duration::from_secs(1),
            append: false,
            group_by: GroupBy::default(),
            create_directory: false,
            directory_permissions: "0755".to_owned(),
            encoding: None,
        }
    }
}

/// A new file when it is large.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Rotation {
    /// The most of a file.
    pub max_megabytes: u64,
    /// After how many days old files go; 0 never.
    pub max_days: u32,
    /// How many old files stay; 0 all.
    pub max_backups: u32,
    /// Name old files by local time instead of UTC.
    pub localtime: bool,
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation {
            max_megabytes: 100,
            max_days: 0,
            max_backups: 100,
            localtime: false,
        }
    }
}

/// How a batch is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum FileCompression {
    /// Not at all.
    #[default]
    #[serde(alias = "")]
    None,
    /// zstd.
    Zstd,
}

/// A file for each value of a resource's attribute.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct GroupBy {
    /// Whether there is.
    pub enabled: bool,
    /// The attribute.
    pub resource_attribute: String,
    /// The most files that are open at once.
    pub max_open_files: u32,
}

impl Default for GroupBy {
    fn default() -> Self {
        GroupBy {
            enabled: false,
            resource_attribute: "fileexporter.path_segment".to_owned(),
            max_open_files: 100,
        }
    }
}

impl FileExporter {
    /// The mode of folders that are made.
    pub fn mode(&self) -> u32 {
        u32::from_str_radix(&self.directory_permissions, 8).unwrap_or(0o755)
    }
}

pub(crate) fn read(node: &Node, key: &str, diagnoses: &mut Vec<Diagnosis>) -> Option<FileExporter> {
    let file: FileExporter = decode_at(node, key, diagnoses)?;
    let mut fault = |part: &str, message: &str, mend: &str| {
        let place = node.key_place(part);
        diagnoses.push(Diagnosis::error(place, join_key(key, part), message, mend));
    };
    if file.path.is_empty() {
        fault("path", "is missing", "write the file to write to");
    }
    if file.encoding.as_ref().is_some_and(|encoding| !encoding.is_null()) {
        fault(
            "encoding",
            "encoding extensions are not supported",
            "write `format: json` or `format: proto`",
        );
    }
    if u32::from_str_radix(&file.directory_permissions, 8).is_err() {
        fault(
            "directory_permissions",
            "is no octal mode",
            "write such as \"0755\"",
        );
    }
    if file.append && file.rotation.is_some() {
        fault(
            "append",
            "does not go with `rotation`, which goes on with a file anyway",
            "remove it",
        );
    }
    if file.append && file.compression != FileCompression::None {
        fault("append", "does not go with `compression`", "remove one of them");
    }
    if file
        .rotation
        .as_ref()
        .is_some_and(|rotation| rotation.max_megabytes == 0)
    {
        fault(
            "rotation",
            "max_megabytes must be more than 0",
            "write such as 100",
        );
    }
    if file.group_by.enabled {
        if file.path.matches('*').count() != 1 || file.path.starts_with('*') {
            fault(
                "path",
                "needs one `*`, not at its start, for the group",
                "write such as /data/*.json",
            );
        }
        if file.rotation.is_some() {
            fault("rotation", "does not go with `group_by`", "remove one of them");
        }
        if file.group_by.max_open_files == 0 {
            fault(
                "group_by",
                "max_open_files must be more than 0",
                "write such as 100",
            );
        }
    }
    Some(file)
}
