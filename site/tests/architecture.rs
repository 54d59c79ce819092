//! ARCHITECTURE.md names files and types; it must not lag behind the code.
#![expect(clippy::unwrap_used, reason = "a test that cannot read its input fails")]

use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// What stands between backquotes.
fn quoted(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// The cells of each table row.
fn rows(text: &str) -> impl Iterator<Item = Vec<&str>> {
    let rows = text
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|-"));
    rows.map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
}

fn source_below(path: &Path) -> String {
    if path.is_file() {
        return std::fs::read_to_string(path).unwrap_or_default();
    }
    let entries = std::fs::read_dir(path).into_iter().flatten().flatten();
    let inside = entries
        .map(|entry| entry.path())
        .filter(|path| path.is_dir() || path.extension().is_some_and(|extension| extension == "rs"));
    inside.map(|path| source_below(&path)).collect()
}

fn is_path(word: &str) -> bool {
    word.contains('/') && !word.contains(' ') && !word.starts_with('/') && !word.contains(':')
}

#[test]
fn every_path_it_names_exists() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let missing: Vec<&str> = quoted(&text)
        .into_iter()
        .filter(|word| is_path(word) && !root().join(word).exists())
        .collect();
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what does not exist: {missing:?}"
    );
}

#[test]
fn every_type_it_names_is_in_its_file() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let mut missing = Vec::new();
    let mut checked = 0;
    for cells in rows(&text) {
        let [_, place, types] = cells.as_slice() else {
            continue;
        };
        let Some(path) = quoted(place).into_iter().find(|word| is_path(word)) else {
            continue;
        };
        let source = source_below(&root().join(path));
        for name in quoted(types).into_iter().filter(|word| !is_path(word)) {
            checked += 1;
            if !source.contains(name) {
                missing.push(format!("{name} in {path}"));
            }
        }
    }
    assert!(
        missing.is_empty(),
        "ARCHITECTURE.md names what is not there: {missing:?}"
    );
    assert!(
        checked > 10,
        "only {checked} types were checked: are the tables still tables of three columns?"
    );
}
