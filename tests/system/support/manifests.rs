//! Copies of manifest folders, with changes, and lines found by what stands on them.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::Outcome;

/// Copies the files of a folder into a new one.
pub(crate) fn copy(from: &Path, to: PathBuf) -> Outcome<PathBuf> {
    fs::create_dir_all(&to)?;
    for entry in fs::read_dir(from).with_context(|| format!("{}", from.display()))? {
        let entry = entry?;
        fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    Ok(to)
}

/// Replaces a text that must occur exactly once in a file.
pub(crate) fn replace(file: &Path, old: &str, new: &str) -> Outcome {
    let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    anyhow::ensure!(
        text.matches(old).count() == 1,
        "{}: {old:?} does not occur exactly once",
        file.display()
    );
    Ok(fs::write(file, text.replace(old, new))?)
}

/// The number of the first line that contains a text.
pub(crate) fn line_of(file: &Path, needle: &str) -> Outcome<usize> {
    let text = fs::read_to_string(file).with_context(|| format!("{}", file.display()))?;
    let index = text.lines().position(|line| line.contains(needle));
    Ok(1 + index.with_context(|| format!("{}: no line contains {needle:?}", file.display()))?)
}

/// The lines of an output that name a place `FILE:LINE` and contain all the words.
pub(crate) fn diagnosed<'a>(output: &'a str, file: &str, line: usize, words: &[&str]) -> Option<&'a str> {
    let place = format!("{file}:{line}:");
    output
        .lines()
        .find(|text| text.contains(&place) && words.iter().all(|word| text.contains(word)))
}
