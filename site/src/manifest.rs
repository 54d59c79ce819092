//! Manifests: files below a directory in, objects with their places out.
//!
//! ```text
//! directory ─ find ─► sorted paths ─ parse ─► Manifest (object, file, line, line of its `config: |`)
//! ```
//! Symbolic links are followed, as `find -L` does; a circle of links ends at a depth limit.

use std::path::{Path, PathBuf};

use karez_document::yaml::{self, Node};
use karez_document::{Diagnosis, Origin, Place};
use serde_json::Value;

/// No directory of manifests is deeper than this; a circle of links is.
const MAX_DEPTH: usize = 16;
/// A manifest file larger than this is refused: an object of a cluster has at most 1.5 MiB.
const MAX_FILE: u64 = 8 << 20;
/// More files than this are no site.
const MAX_FILES: usize = 10_000;

/// One object as a file declares it.
#[derive(Debug, Clone)]
pub struct Manifest {
    /// The file, as it is shown.
    pub file: String,
    /// Line of the object's first line.
    pub line: u32,
    /// Line where the text of `spec.config: |` starts.
    pub config_line: Option<u32>,
    /// The object.
    pub object: Value,
    /// The object with its lines, for diagnoses.
    pub node: Node,
}

impl Manifest {
    /// `apiVersion` of the object.
    pub fn api_version(&self) -> &str {
        self.object["apiVersion"].as_str().unwrap_or_default()
    }

    /// `kind` of the object.
    pub fn kind(&self) -> &str {
        self.object["kind"].as_str().unwrap_or_default()
    }

    /// `metadata.name` of the object.
    pub fn name(&self) -> &str {
        self.object["metadata"]["name"].as_str().unwrap_or_default()
    }

    /// `metadata.namespace` of the object, where it has one.
    pub fn namespace(&self) -> Option<&str> {
        self.object["metadata"]["namespace"].as_str()
    }

    /// Where the object starts.
    pub fn place(&self) -> Place {
        Place::line(self.file.clone(), self.line)
    }
}

/// All manifest files below a directory, in sorted path order.
///
/// # Errors
/// When the directory cannot be read.
pub fn find(directory: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    walk(directory, 0, &mut found)?;
    found.sort();
    found.truncate(MAX_FILES);
    Ok(found)
}

fn walk(directory: &Path, depth: usize, found: &mut Vec<PathBuf>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let Ok(metadata) = std::fs::metadata(&path) else {
            continue;
        };
        if metadata.is_dir() {
            if depth < MAX_DEPTH && found.len() < MAX_FILES {
                // A folder below that cannot be read hides its files, not the rest.
                let _ = walk(&path, depth + 1, found);
            }
        } else if is_manifest(&path) {
            found.push(path);
        }
    }
    Ok(())
}

fn is_manifest(path: &Path) -> bool {
    path.extension()
        .is_some_and(|extension| extension == "yaml" || extension == "yml")
}

/// Reads a file's objects.
///
/// # Errors
/// With what is wrong and where, when the file cannot be read or is no manifest; nothing of it is used then.
pub fn read(path: &Path) -> Result<Vec<Manifest>, Vec<Diagnosis>> {
    let file = path.display().to_string();
    let failed = |message: String, mend: &str| vec![Diagnosis::error(Place::file(&file), "", message, mend)];
    let metadata = std::fs::metadata(path).map_err(|error| failed(error.to_string(), "make it readable"))?;
    if metadata.len() > MAX_FILE {
        let message = format!(
            "the file has {} bytes, more than the {MAX_FILE} that are read",
            metadata.len()
        );
        return Err(failed(message, "split it"));
    }
    let bytes = std::fs::read(path).map_err(|error| failed(error.to_string(), "make it readable"))?;
    let text = String::from_utf8(bytes)
        .map_err(|error| failed(format!("not UTF-8: {error}"), "save the file as UTF-8"))?;
    parse(&file, &text)
}

/// Reads a text's objects; `List` objects are opened.
///
/// # Errors
/// With everything that is wrong, when it is no manifest.
pub fn parse(file: &str, text: &str) -> Result<Vec<Manifest>, Vec<Diagnosis>> {
    let nodes = yaml::parse(text, &Origin::file(file)).map_err(|diagnosis| vec![diagnosis])?;
    let mut manifests = Vec::new();
    let mut problems = Vec::new();
    for node in nodes.iter().filter(|node| !node.is_null()) {
        collect(file, node, &mut manifests, &mut problems);
    }
    if problems.is_empty() {
        Ok(manifests)
    } else {
        Err(problems)
    }
}

fn collect(file: &str, node: &Node, manifests: &mut Vec<Manifest>, problems: &mut Vec<Diagnosis>) {
    let is_list = node
        .get("kind")
        .and_then(Node::as_str)
        .is_some_and(|kind| kind.ends_with("List"));
    if let (true, Some(items)) = (is_list, node.get("items")) {
        for item in items.items() {
            collect(file, item, manifests, problems);
        }
        return;
    }
    match check(node) {
        Some(problem) => problems.push(problem),
        None => manifests.push(Manifest {
            file: file.to_owned(),
            line: node.line().max(1),
            config_line: node
                .at_path(&["spec", "config"])
                .map(Node::text_line)
                .filter(|line| *line > 0),
            object: node.to_json(),
            node: node.clone(),
        }),
    }
}

/// What keeps a document from being an object.
fn check(node: &Node) -> Option<Diagnosis> {
    if node.entries().is_empty() {
        let message = format!(
            "a manifest is a mapping with apiVersion, kind and metadata, this is {}",
            node.describe()
        );
        return Some(Diagnosis::error(
            node.place(),
            "",
            message,
            "see the examples in deploy/examples",
        ));
    }
    let required: [(&[&str], &str); 3] = [
        (&["apiVersion"], "add apiVersion, such as `apiVersion: v1`"),
        (&["kind"], "add kind, such as `kind: ConfigMap`"),
        (&["metadata", "name"], "add metadata.name"),
    ];
    for (path, mend) in required {
        let value = node.at_path(path);
        let generated = path.len() == 2 && node.at_path(&["metadata", "generateName"]).is_some();
        if generated {
            let message = "a manifest that is followed needs a name of its own, not generateName";
            return Some(Diagnosis::error(
                node.place(),
                "metadata.generateName",
                message,
                mend,
            ));
        }
        if value.and_then(Node::as_str).is_none_or(str::is_empty) {
            return Some(Diagnosis::error(
                node.place(),
                path.join("."),
                "missing or empty",
                mend,
            ));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accepts_empty_files_and_documents() {
        for text in ["", "\n", "---\n---\n", "# nothing\n", "---\n# nothing\n---\n"] {
            assert!(parse("a.yaml", text).unwrap().is_empty(), "{text:?}");
        }
    }

    #[test]
    fn remembers_lines() {
        let text = "# head\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\n---\napiVersion: opentelemetry.io/v1alpha1\nkind: OpenTelemetryCollector\nmetadata:\n  name: b\nspec:\n  config: |\n    receivers:\n";
        let manifests = parse("a.yaml", text).unwrap();
        let lines: Vec<_> = manifests
            .iter()
            .map(|m| (m.name(), m.line, m.config_line))
            .collect();
        assert_eq!(lines, [("a", 2, None), ("b", 6, Some(12))]);
    }

    #[test]
    fn opens_lists() {
        let text = "apiVersion: v1\nkind: List\nitems:\n- {apiVersion: v1, kind: Secret, metadata: {name: x}}\n- {apiVersion: v1, kind: Secret, metadata: {name: y}}\n";
        let names: Vec<String> = parse("a", text)
            .unwrap()
            .iter()
            .map(|manifest| manifest.name().to_owned())
            .collect();
        assert_eq!(names, ["x", "y"]);
    }

    #[test]
    fn names_file_line_key_and_mend() {
        let problem = parse("a.yaml", "\napiVersion: v1\nmetadata: {name: a}\n")
            .unwrap_err()
            .remove(0)
            .to_string();
        assert_eq!(
            problem,
            "a.yaml:2: error: kind: missing or empty; add kind, such as `kind: ConfigMap`"
        );
        let problem = parse("b.yaml", "a: [\n").unwrap_err().remove(0).to_string();
        assert!(problem.starts_with("b.yaml:"), "{problem}");
    }

    #[test]
    fn finds_files_in_sorted_path_order_and_follows_links() {
        let folder = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        std::fs::write(elsewhere.path().join("c.yaml"), "").unwrap();
        for name in ["b.yml", "a.yaml", "ignored.txt"] {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        std::os::unix::fs::symlink(elsewhere.path(), folder.path().join("linked")).unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("z-circle")).unwrap();
        let found = find(folder.path()).unwrap();
        let first: Vec<_> = found
            .iter()
            .take(3)
            .map(|path| path.file_name().unwrap())
            .collect();
        assert_eq!(first, ["a.yaml", "b.yml", "c.yaml"]);
    }
}
