//! Placeholders (`<REPLACE: …>`) that a reader was meant to fill in. They are found in the text, line by line, because
//! with one inside a document often is no YAML at all.

use karez_document::{Diagnosis, Origin};

/// An error for every line with a placeholder, naming its key.
pub(crate) fn placeholders(text: &str, origin: &Origin) -> Vec<Diagnosis> {
    let mut path: Vec<(usize, String)> = Vec::new();
    let mut found = Vec::new();
    for (number, line) in (1u32..).zip(text.lines()) {
        let content = line.trim_start();
        if content.is_empty() || content.starts_with('#') {
            continue;
        }
        let mut indent = line.len() - content.len();
        let mut content = content;
        while let Some(rest) = content.strip_prefix("- ") {
            indent += content.len() - rest.trim_start().len();
            content = rest.trim_start();
        }
        if let Some(key) = key_of(content) {
            path.retain(|(at, _)| *at < indent);
            path.push((indent, key.to_owned()));
        }
        if let Some(at) = find(content) {
            let below: Vec<&str> = path
                .iter()
                .filter(|(i, _)| *i <= indent)
                .map(|(_, key)| key.as_str())
                .collect();
            let what: String = content[at..]
                .trim_end_matches(['"', '\''])
                .chars()
                .take(80)
                .collect();
            found.push(Diagnosis::error(
                origin.place(number),
                below.join("."),
                format!("still holds the placeholder {what}"),
                "put your own value here",
            ));
        }
    }
    found
}

fn find(content: &str) -> Option<usize> {
    let at = content.find("<REPLACE")?;
    let comment = content.find(" #");
    comment.is_none_or(|comment| at < comment).then_some(at)
}

fn key_of(content: &str) -> Option<&str> {
    let end = content.find(':')?;
    let key = content[..end].trim_matches(['"', '\'']);
    let after = &content[end + 1..];
    let plain = !key.is_empty()
        && key
            .chars()
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | '/' | '.'));
    (plain && (after.is_empty() || after.starts_with(' '))).then_some(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_key_also_where_the_text_is_no_yaml() {
        let text = "a:\n  b/c:\n    inline: |\n      <REPLACE: \"u:p\">\n  list:\n  - key: k\n    value: <REPLACE: your zone, e.g.: \"x\">\n";
        let keys: Vec<_> = placeholders(text, &Origin::file("c"))
            .into_iter()
            .map(|d| (d.key, d.place.line))
            .collect();
        assert_eq!(
            keys,
            [
                ("a.b/c.inline".to_owned(), Some(4)),
                ("a.list.value".to_owned(), Some(7))
            ]
        );
    }
}
