//! Text in, configuration or every diagnosis out, each with the line it concerns.

use karez_document::yaml::{self, Node};
use karez_document::{Diagnosis, Origin, Place};

use crate::config::RouterConfig;
use crate::document::RouterDocument;
use crate::validate::{Problem, validate};

/// Reads a document. The configuration is there only when nothing is wrong; all problems are reported at once.
pub fn check(text: &str, origin: &Origin) -> (Option<RouterConfig>, Vec<Diagnosis>) {
    let nodes = match yaml::parse(text, origin) {
        Ok(nodes) => nodes,
        Err(diagnosis) => return (None, vec![diagnosis]),
    };
    let [node] = nodes.as_slice() else {
        let message = format!("{} YAML documents where one is expected", nodes.len());
        let mend = "write exactly one mapping that begins with version: 1";
        return (
            None,
            vec![Diagnosis::error(Place::file(&*origin.file), "", message, mend)],
        );
    };
    let mut diagnoses = Vec::new();
    let document: Option<RouterDocument> = yaml::decode(node, &mut diagnoses);
    if !diagnoses.is_empty() {
        // What could not be read would only cause further problems that are none.
        return (None, diagnoses);
    }
    match document.as_ref().map(validate) {
        Some(Ok(config)) => (Some(config), diagnoses),
        Some(Err(problems)) => (
            None,
            problems
                .into_iter()
                .map(|problem| placed(node, problem))
                .collect(),
        ),
        None => (None, diagnoses),
    }
}

fn placed(root: &Node, problem: Problem) -> Diagnosis {
    Diagnosis::error(
        place(root, &problem.key),
        bracketed(&problem.key),
        problem.message,
        problem.mend,
    )
}

/// `links.0.port` as the decoder's diagnoses write it: `links[0].port`.
fn bracketed(key: &str) -> String {
    let mut path = String::new();
    for step in key.split('.') {
        if step.parse::<usize>().is_ok() {
            path.push_str(&format!("[{step}]"));
        } else {
            path = yaml::join_key(&path, step);
        }
    }
    path
}

/// The place of a key path, as far as it exists.
fn place(root: &Node, key: &str) -> Place {
    let mut node = root;
    let mut place = root.place();
    for step in key.split('.') {
        let next = match step.parse::<usize>() {
            Ok(index) => node.items().get(index),
            Err(_) => node.get(step),
        };
        let Some(next) = next else { break };
        place = if step.parse::<usize>().is_ok() {
            next.place()
        } else {
            node.key_place(step)
        };
        node = next;
    }
    place
}
