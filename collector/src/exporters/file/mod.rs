//! `file`: batches into files, each a line of JSON, or protobuf (or what is compressed) behind its length in four bytes.
//!
//! ```text
//! Batch ─▶ (for each group) encoded, compressed ─▶ file, rotated when it is large ─ every flush_interval ─▶ synced
//! ```
//!
//! A batch is acknowledged when the system has it. What could not be written whole is cut off again.

mod writer;

#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::path::{Component, Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use bytes::Bytes;
use futures::future::BoxFuture;
use karez_collector_config::exporters::Encoding;
use karez_collector_config::file::{FileCompression, FileExporter};

use self::writer::Writer;
use crate::batch::Batch;
use crate::component::{ComponentContext, Exporter, Outcome, Running, StartError};
use crate::json;
use crate::registry::BuiltExporter;
use crate::wire::field::fields;
use crate::wire::{Item, Verdict, attribute, sift, single, text_of};

/// The exporter.
pub struct File {
    shared: Arc<Shared>,
}

struct Shared {
    config: FileExporter,
    /// Open files by their paths.
    writers: Mutex<HashMap<PathBuf, Open>>,
}

struct Open {
    writer: Writer,
    used: Instant,
}

/// Makes the exporter.
pub fn build(config: &FileExporter, _: &ComponentContext) -> BuiltExporter {
    let shared = Shared {
        config: config.clone(),
        writers: Mutex::default(),
    };
    BuiltExporter {
        exporter: Arc::new(File {
            shared: Arc::new(shared),
        }),
        sending: None,
    }
}

impl Exporter for File {
    fn start<'a>(&'a self, _: &'a ComponentContext) -> BoxFuture<'a, Result<Running, StartError>> {
        Box::pin(async {
            if !self.shared.config.group_by.enabled {
                self.shared.open_first()?;
            }
            let mut running = Running::none();
            let (shared, stop) = (self.shared.clone(), running.stopping());
            let interval = self.shared.config.flush_interval;
            running.spawn(async move {
                loop {
                    tokio::select! {
                        () = tokio::time::sleep(interval), if !interval.is_zero() => {}
                        () = stop.triggered() => break,
                    }
                    sync(shared.clone()).await;
                }
                sync(shared).await;
            });
            Ok(running)
        })
    }

    fn export(&self, batch: Batch) -> BoxFuture<'_, Outcome> {
        let shared = self.shared.clone();
        Box::pin(async move {
            let written = tokio::task::spawn_blocking(move || shared.write(batch)).await;
            match written {
                Ok(outcome) => outcome,
                Err(error) => Outcome::Retry {
                    after: None,
                    reason: error.to_string(),
                },
            }
        })
    }
}

async fn sync(shared: Arc<Shared>) {
    let synced = tokio::task::spawn_blocking(move || shared.sync()).await;
    if let Ok(Err(error)) = synced {
        tracing::error!(%error, "what was written cannot be synced to the disk");
    }
}

impl Shared {
    fn writers(&self) -> MutexGuard<'_, HashMap<PathBuf, Open>> {
        self.writers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// So that a path that cannot be written to is told at the start.
    fn open_first(&self) -> Result<(), StartError> {
        let path = PathBuf::from(&self.config.path);
        let opened = self.open(&path).map_err(|error| {
            let message = format!("{} cannot be written to: {error}", path.display());
            StartError::config(
                "path",
                message,
                "give the collector the right to write there, or correct the path",
            )
        })?;
        self.writers().insert(path, opened);
        Ok(())
    }

    fn open(&self, path: &Path) -> io::Result<Open> {
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
        // The folders of groups are not known before.
        if let Some(folder) = folder.filter(|_| self.config.create_directory || self.config.group_by.enabled)
        {
            make_folder(folder, self.config.mode())?;
        }
        Ok(Open {
            // A group's file that was closed for others is gone on with.
            writer: Writer::open(
                path,
                self.config.rotation.as_ref(),
                self.config.append || self.config.group_by.enabled,
            )?,
            used: Instant::now(),
        })
    }

    fn write(&self, batch: Batch) -> Outcome {
        let parts = match self.config.group_by.enabled {
            false => vec![(PathBuf::from(&self.config.path), batch)],
            true => self.groups(batch),
        };
        for (path, part) in parts {
            let encoded = match self.encode(&part) {
                Ok(encoded) => encoded,
                Err(reason) => return Outcome::Refused { reason },
            };
            if let Err(error) = self.append(&path, &encoded) {
                let reason = format!("{}: {error}", path.display());
                return Outcome::Retry { after: None, reason };
            }
        }
        Outcome::Delivered
    }

    fn append(&self, path: &Path, bytes: &[u8]) -> io::Result<()> {
        let mut writers = self.writers();
        if !writers.contains_key(path) {
            if writers.len() >= self.config.group_by.max_open_files.max(1) as usize {
                let oldest = writers.iter().min_by_key(|(_, open)| open.used);
                if let Some(mut gone) = oldest
                    .map(|(path, _)| path.clone())
                    .and_then(|path| writers.remove(&path))
                {
                    gone.writer.sync()?;
                }
            }
            writers.insert(path.to_owned(), self.open(path)?);
        }
        match writers.get_mut(path) {
            Some(open) => {
                open.used = Instant::now();
                open.writer.write(bytes)
            }
            None => Ok(()),
        }
    }

    fn sync(&self) -> io::Result<()> {
        let mut writers = self.writers();
        writers.values_mut().try_for_each(|open| open.writer.sync())
    }

    fn encode(&self, batch: &Batch) -> Result<Bytes, String> {
        let encoded = match self.config.format {
            Encoding::Proto => batch.payload.clone(),
            Encoding::Json => json::from_batch(batch)?.into(),
        };
        let encoded = match self.config.compression {
            FileCompression::None => encoded,
            FileCompression::Zstd => zstd::bulk::compress(&encoded, 0)
                .map_err(|error| error.to_string())?
                .into(),
        };
        if self.config.format == Encoding::Json && self.config.compression == FileCompression::None {
            return Ok([encoded.as_ref(), b"\n"].concat().into());
        }
        let length = u32::try_from(encoded.len()).map_err(|_| "the batch is larger than 4 GiB".to_owned())?;
        Ok([&length.to_be_bytes()[..], encoded.as_ref()].concat().into())
    }

    /// A batch by the files that its resources go to.
    fn groups(&self, batch: Batch) -> Vec<(PathBuf, Batch)> {
        let mut paths: Vec<PathBuf> = Vec::new();
        for of_resource in fields(&batch.payload).flatten().filter(|field| field.number == 1) {
            let path = self.path_of(&single(of_resource.value, 1));
            if !paths.contains(&path) {
                paths.push(path);
            }
        }
        let of = |path: PathBuf| {
            let verdict = |item: Item<'_>| match self.path_of(item.resource) == path {
                true => Verdict::Keep,
                false => Verdict::Drop,
            };
            sift(batch.clone(), verdict).map(|part| (path.clone(), part))
        };
        paths.into_iter().filter_map(of).collect()
    }

    /// The file of a resource. What the attribute says stays below the folder that the document names.
    fn path_of(&self, resource: &[u8]) -> PathBuf {
        let value = attribute(resource, 1, &self.config.group_by.resource_attribute);
        let value = value.map(text_of).unwrap_or_default().replace('\0', "");
        let (before, after) = self
            .config
            .path
            .split_once('*')
            .unwrap_or((&self.config.path, ""));
        let inside = Path::new(&value).components().filter_map(|part| match part {
            Component::Normal(part) => part.to_str(),
            _ => None,
        });
        PathBuf::from(format!("{before}{}{after}", inside.collect::<Vec<_>>().join("/")))
    }
}

fn make_folder(folder: &Path, mode: u32) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let mut builder = std::fs::DirBuilder::new();
    builder.recursive(true).mode(mode).create(folder)
}
