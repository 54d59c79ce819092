//! What a store keeps on disk: batches in the order of their arrival, from which the store is filled again at a start.
//!
//! The oldest batches go when there are more bytes than may be. A batch is synced before its sender is told.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use redb::{Database, ReadableDatabase, ReadableTable, ReadableTableMetadata, TableDefinition};

const BATCHES: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("batches");
/// The cache of the database; the store itself is in memory.
const CACHE: usize = 8 << 20;

/// Why something cannot be kept.
#[derive(Debug, thiserror::Error)]
pub enum DiskError {
    /// The folder cannot be made.
    #[error("the folder {path} cannot be made")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// What the system says.
        source: std::io::Error,
    },
    /// The file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// What the database says.
        source: Box<redb::Error>,
    },
}

/// Batches on disk.
pub(super) struct Disk {
    path: PathBuf,
    database: Database,
    max_bytes: u64,
    kept: Mutex<Kept>,
}

impl std::fmt::Debug for Disk {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Disk")
            .field("path", &self.path)
            .finish_non_exhaustive()
    }
}

#[derive(Debug, Default, Clone, Copy)]
struct Kept {
    next: u64,
    bytes: u64,
}

impl Disk {
    /// Opens the file in a folder, which is made, and hands each batch on, the oldest first.
    pub(super) fn open(folder: &Path, max_bytes: u64, each: impl FnMut(&[u8])) -> Result<Self, DiskError> {
        std::fs::create_dir_all(folder).map_err(|source| DiskError::Folder {
            path: folder.to_owned(),
            source,
        })?;
        let path = folder.join("traces.redb");
        let opened = open(&path, max_bytes, each);
        let (database, kept) = opened.map_err(|source| file(&path, source))?;
        Ok(Disk {
            path,
            database,
            max_bytes,
            kept: Mutex::new(kept),
        })
    }

    /// Appends a batch and lets the oldest go; both are on disk when it returns.
    pub(super) fn append(&self, batch: &[u8]) -> Result<(), DiskError> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let changed = append(&self.database, *kept, batch, self.max_bytes);
        *kept = changed.map_err(|source| file(&self.path, source))?;
        Ok(())
    }
}

fn file(path: &Path, source: redb::Error) -> DiskError {
    DiskError::File {
        path: path.to_owned(),
        source: Box::new(source),
    }
}

fn open(path: &Path, max_bytes: u64, mut each: impl FnMut(&[u8])) -> Result<(Database, Kept), redb::Error> {
    let mut database = Database::builder().set_cache_size(CACHE).create(path)?;
    let large = std::fs::metadata(path).is_ok_and(|it| it.len() > max_bytes.saturating_mul(3).max(64 << 20));
    if large {
        database.compact()?;
    }
    let writing = database.begin_write()?;
    writing.open_table(BATCHES)?;
    writing.commit()?;
    let mut kept = Kept::default();
    let table = database.begin_read()?.open_table(BATCHES)?;
    tracing::info!(path = %path.display(), batches = table.len()?, "reading the traces on disk");
    for entry in table.iter()? {
        let (key, value) = entry?;
        each(value.value());
        kept.next = key.value() + 1;
        kept.bytes += value.value().len() as u64;
    }
    drop(table);
    Ok((database, kept))
}

fn append(database: &Database, mut kept: Kept, batch: &[u8], max_bytes: u64) -> Result<Kept, redb::Error> {
    let writing = database.begin_write()?;
    {
        let mut table = writing.open_table(BATCHES)?;
        table.insert(kept.next, batch)?;
        kept.next += 1;
        kept.bytes += batch.len() as u64;
        while kept.bytes > max_bytes {
            match table.pop_first()? {
                Some((_, gone)) => kept.bytes -= gone.value().len() as u64,
                None => break,
            }
        }
    }
    writing.commit()?;
    Ok(kept)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(folder: &Path, max_bytes: u64) -> (Disk, Vec<Vec<u8>>) {
        let mut found = Vec::new();
        let disk = Disk::open(folder, max_bytes, |batch| found.push(batch.to_vec())).unwrap();
        (disk, found)
    }

    #[test]
    fn batches_outlive_the_process_and_the_oldest_go() {
        let folder = tempfile::tempdir().unwrap();
        let inside = folder.path().join("made");
        let (disk, found) = read(&inside, 250);
        assert!(found.is_empty());
        for number in 0..5u8 {
            disk.append(&[number; 100]).unwrap();
        }
        drop(disk);
        let (disk, found) = read(&inside, 250);
        assert_eq!(found, [vec![3; 100], vec![4; 100]]);
        disk.append(&[5; 100]).unwrap();
        drop(disk);
        assert_eq!(read(&inside, 250).1, [vec![4; 100], vec![5; 100]]);
    }

    #[test]
    fn a_file_that_is_none_of_ours_or_in_use_is_an_error_with_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let (_held, _) = read(folder.path(), 100);
        let again = Disk::open(folder.path(), 100, |_| ()).unwrap_err();
        assert!(again.to_string().contains("traces.redb"), "{again}");
        let other = tempfile::tempdir().unwrap();
        std::fs::write(other.path().join("traces.redb"), b"not a database").unwrap();
        let wrong = Disk::open(other.path(), 100, |_| ()).unwrap_err();
        assert!(wrong.to_string().contains("traces.redb"), "{wrong}");
    }
}
