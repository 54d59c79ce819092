//! `file_sd_configs`: files of groups, looked at each second, read when they change.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime};

use karez_document::{Origin, yaml};
use karez_scrape_config::Group;
use karez_scrape_config::discovery::{FileDiscovery, GroupDocument};

use super::{Given, Health, Sink, ticks};

/// Files are looked at so often, as changes of a mounted volume tell of themselves in no reliable way.
const LOOK: Duration = Duration::from_secs(1);
/// The largest file.
const MAX_FILE: u64 = 256 << 20;

/// What tells that a file is another than before.
type Stamp = (SystemTime, u64);

struct Known {
    stamp: Stamp,
    groups: Vec<Group>,
    health: Health,
}

pub(super) async fn run(config: FileDiscovery, sink: Sink) {
    let mut files: HashMap<PathBuf, Known> = HashMap::new();
    let mut given = Given::default();
    let mut read_all = Instant::now();
    let mut ticks = ticks(LOOK);
    loop {
        ticks.tick().await;
        let again = read_all.elapsed() >= config.refresh;
        if again {
            read_all = Instant::now();
        }
        let (patterns, look_sink) = (config.files.clone(), sink.clone());
        // Files may be large and on slow disks.
        let looked = tokio::task::spawn_blocking(move || {
            let changed = look(&patterns, &mut files, again, &look_sink);
            (changed, files)
        });
        let Ok((changed, kept)) = looked.await else {
            return;
        };
        files = kept;
        if changed {
            let groups = files.iter().flat_map(|(path, known)| {
                let numbered = known.groups.iter().enumerate();
                numbered.map(move |(index, group)| (format!("{}:{index}", path.display()), group.clone()))
            });
            given.replace(&sink, groups);
        }
        sink.told();
    }
}

/// Reads what is new; whether anything is.
fn look(patterns: &[String], files: &mut HashMap<PathBuf, Known>, again: bool, sink: &Sink) -> bool {
    let mut there: HashMap<PathBuf, Stamp> = HashMap::new();
    for path in patterns.iter().flat_map(|pattern| matching(pattern)) {
        if let Some(stamp) = stamp(&path) {
            there.insert(path, stamp);
        }
    }
    let before = files.len();
    files.retain(|path, _| there.contains_key(path));
    let mut changed = files.len() != before;
    for (path, stamp) in there {
        let known = files.get(&path);
        if known.is_some_and(|known| known.stamp == stamp) && !again {
            continue;
        }
        let mut known = files.remove(&path).unwrap_or(Known {
            stamp,
            groups: Vec::new(),
            health: Health::default(),
        });
        known.stamp = stamp;
        let name = path.display().to_string();
        match read(&path) {
            Ok(groups) => {
                known.health.works(sink, &name);
                changed |= known.groups != groups || groups.is_empty();
                known.groups = groups;
            }
            Err(error) => known.health.failed(sink, &name, &error),
        }
        files.insert(path, known);
    }
    changed
}

fn stamp(path: &Path) -> Option<Stamp> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// The files that a pattern names: its last part may hold one `*`.
fn matching(pattern: &str) -> Vec<PathBuf> {
    let path = Path::new(pattern);
    let name = path
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let Some((before, after)) = name.split_once('*') else {
        return vec![path.to_owned()];
    };
    let folder = match path.parent() {
        Some(parent) if parent != Path::new("") => parent,
        _ => Path::new("."),
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let matches = |name: &str| {
        name.len() >= before.len() + after.len() && name.starts_with(before) && name.ends_with(after)
    };
    entries
        .filter(|entry| entry.file_name().to_str().is_some_and(matches))
        .map(|entry| entry.path())
        .collect()
}

fn read(path: &Path) -> Result<Vec<Group>, String> {
    let length = std::fs::metadata(path).map_err(|error| error.to_string())?.len();
    if length > MAX_FILE {
        return Err(format!("is larger than {MAX_FILE} bytes"));
    }
    let bytes = std::fs::read(path).map_err(|error| error.to_string())?;
    let file = path.display().to_string();
    let groups = match path.extension().is_some_and(|extension| extension == "json") {
        true => serde_json::from_slice(&bytes).map_err(|error| error.to_string())?,
        false => read_yaml(&bytes, &file)?,
    };
    let more = [("__meta_filepath", file.as_str())];
    Ok(groups.into_iter().map(|group| group.group(&more)).collect())
}

fn read_yaml(bytes: &[u8], file: &str) -> Result<Vec<GroupDocument>, String> {
    let text = std::str::from_utf8(bytes).map_err(|_| "is no text in UTF-8".to_owned())?;
    let nodes = yaml::parse(text, &Origin::file(file)).map_err(|diagnosis| diagnosis.to_string())?;
    let Some(node) = nodes.first() else {
        return Ok(Vec::new());
    };
    let mut diagnoses = Vec::new();
    let groups = yaml::decode(node, &mut diagnoses);
    match (groups, diagnoses.first()) {
        (Some(groups), None) => Ok(groups),
        (_, Some(diagnosis)) => Err(diagnosis.to_string()),
        (None, None) => Err("holds no list of groups".to_owned()),
    }
}
