use karez_collector_config::Signal;
use karez_collector_config::file::Rotation;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;

use super::*;
use crate::processors::edit::text;

fn shared(config: FileExporter) -> Shared {
    Shared {
        config,
        writers: Mutex::default(),
    }
}

fn batch(groups: &[&str], body: usize) -> Batch {
    let of = |group: &&str| ResourceLogs {
        resource: Some(Resource {
            attributes: vec![KeyValue {
                key: "fileexporter.path_segment".into(),
                value: Some(text(*group)),
                ..KeyValue::default()
            }],
            ..Resource::default()
        }),
        scope_logs: vec![ScopeLogs {
            log_records: vec![LogRecord {
                body: Some(text("x".repeat(body))),
                ..LogRecord::default()
            }],
            ..ScopeLogs::default()
        }],
        ..ResourceLogs::default()
    };
    let request = ExportLogsServiceRequest {
        resource_logs: groups.iter().map(of).collect(),
    };
    Batch::encode(Signal::Logs, &request, groups.len())
}

#[test]
fn json_is_written_in_lines_and_protobuf_behind_its_length() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("made/out.json");
    let config = FileExporter {
        path: path.display().to_string(),
        create_directory: true,
        ..FileExporter::default()
    };
    let file = shared(config.clone());
    for _ in 0..2 {
        assert_eq!(file.write(batch(&["a"], 1)), Outcome::Delivered);
    }
    let written = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = written.lines().collect();
    let again = crate::json::to_protobuf(Signal::Logs, lines[1].as_bytes()).unwrap();
    assert_eq!((lines.len(), again), (2, batch(&["a"], 1).payload));

    for compression in [FileCompression::None, FileCompression::Zstd] {
        let config = FileExporter {
            format: Encoding::Proto,
            compression,
            ..config.clone()
        };
        let file = shared(config);
        assert_eq!(file.write(batch(&["a"], 100)), Outcome::Delivered);
        let written = std::fs::read(&path).unwrap();
        let (length, body) = written.split_at(4);
        assert_eq!(
            u32::from_be_bytes(length.try_into().unwrap()) as usize,
            body.len()
        );
        let body = match compression {
            FileCompression::None => body.to_vec(),
            FileCompression::Zstd => zstd::bulk::decompress(body, 1 << 20).unwrap(),
        };
        assert_eq!(Bytes::from(body), batch(&["a"], 100).payload);
    }
}

#[test]
fn a_new_file_begins_when_it_is_large_and_old_ones_go() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("out.data");
    let file = shared(FileExporter {
        path: path.display().to_string(),
        format: Encoding::Proto,
        rotation: Some(Rotation {
            max_megabytes: 1,
            max_backups: 2,
            ..Rotation::default()
        }),
        ..FileExporter::default()
    });
    for _ in 0..5 {
        assert_eq!(file.write(batch(&["a"], 600_000)), Outcome::Delivered);
    }
    let files: Vec<_> = std::fs::read_dir(folder.path()).unwrap().collect();
    assert_eq!(files.len(), 3, "{files:?}");
    for file in files {
        assert!(file.unwrap().metadata().unwrap().len() < 1 << 20);
    }
}

#[test]
fn groups_have_files_of_their_own_that_stay_below_the_folder() {
    let folder = tempfile::tempdir().unwrap();
    let file = shared(FileExporter {
        path: format!("{}/in/*.json", folder.path().display()),
        group_by: karez_collector_config::file::GroupBy {
            enabled: true,
            max_open_files: 1,
            ..karez_collector_config::file::GroupBy::default()
        },
        ..FileExporter::default()
    });
    for _ in 0..2 {
        assert_eq!(
            file.write(batch(&["a", "b/c", "../../../up", "a"], 1)),
            Outcome::Delivered
        );
    }
    let lines = |name: &str| {
        let text = std::fs::read_to_string(folder.path().join("in").join(name)).unwrap();
        text.lines()
            .map(|line| line.matches("\"body\"").count())
            .collect::<Vec<_>>()
    };
    assert_eq!(lines("a.json"), [2, 2]);
    assert_eq!(lines("b/c.json"), [1, 1]);
    assert_eq!(lines("up.json"), [1, 1]);
    assert_eq!(file.writers().len(), 1);
}

#[test]
fn what_cannot_be_written_is_tried_again() {
    let file = shared(FileExporter {
        path: "/nowhere/at/all".into(),
        ..FileExporter::default()
    });
    assert!(matches!(file.write(batch(&["a"], 1)), Outcome::Retry { .. }));
    let full = shared(FileExporter {
        path: "/dev/full".into(),
        append: true,
        ..FileExporter::default()
    });
    assert!(matches!(full.write(batch(&["a"], 1)), Outcome::Retry { .. }));
}
