//! Collectors in a file: a list of names, or of `{name, node}`.

use std::path::Path;
use std::time::{Duration, SystemTime};

use karez_allocation::Collector;
use karez_document::{Origin, yaml};
use tokio::sync::watch;

use super::{Known, Seen, seen};
use crate::config::CollectorDocument;

/// The largest file.
const MAX_FILE: u64 = 4 << 20;

/// Reads the file again whenever it is another, until nobody listens. A file that is wrong changes nothing.
pub(super) async fn follow(path: String, sender: watch::Sender<Known>, look: Duration) {
    let mut before: Option<(SystemTime, u64)> = None;
    let mut said: Option<String> = None;
    loop {
        let stamp = tokio::fs::metadata(&path)
            .await
            .ok()
            .and_then(|m| Some((m.modified().ok()?, m.len())));
        if stamp.is_none() || stamp != before {
            match read(Path::new(&path)) {
                Ok(list) => {
                    (before, said) = (stamp, None);
                    let list: Vec<Seen> = list.into_iter().map(Collector::from).map(seen).collect();
                    let list = Some(list);
                    sender.send_if_modified(|known| std::mem::replace(known, list.clone()) != list);
                }
                Err(error) if said.as_ref() != Some(&error) => {
                    tracing::warn!(
                        path,
                        error,
                        "the file of collectors cannot be read; those it gave last are kept"
                    );
                    said = Some(error);
                }
                Err(_) => {}
            }
        }
        tokio::select! {
            () = tokio::time::sleep(look) => {}
            () = sender.closed() => return,
        }
    }
}

fn read(path: &Path) -> Result<Vec<CollectorDocument>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    let text = std::fs::read_to_string(path).map_err(|error| error.to_string())?;
    let nodes = yaml::parse(&text, &Origin::file(path.display().to_string())).map_err(|d| d.to_string())?;
    let Some(node) = nodes.first() else {
        return Ok(Vec::new());
    };
    let mut diagnoses = Vec::new();
    let list = yaml::decode(node, &mut diagnoses);
    match diagnoses.first() {
        Some(diagnosis) => Err(diagnosis.to_string()),
        None => Ok(list.unwrap_or_default()),
    }
}
