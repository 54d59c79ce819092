//! "Did you mean …?"

/// The candidate closest to what was written, if one is close enough to be meant.
pub fn closest<'a>(written: &str, candidates: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let limit = (written.chars().count() / 3).clamp(1, 3);
    candidates
        .into_iter()
        .map(|candidate| (distance(&normal(written), &normal(candidate)), candidate))
        .filter(|(distance, _)| *distance <= limit)
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, candidate)| candidate)
}

/// Keys are compared without case, `-` and `_`, the usual slips. Long ones are cut: they only cost time.
fn normal(text: &str) -> Vec<char> {
    text.chars()
        .filter(|c| !matches!(c, '-' | '_'))
        .flat_map(char::to_lowercase)
        .take(64)
        .collect()
}

/// Edits (insert, delete, replace, swap of neighbours) from one to the other.
fn distance(a: &[char], b: &[char]) -> usize {
    let mut before = vec![0; b.len() + 1];
    let mut last: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let replaced = last[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            row[j] = replaced.min(last[j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                row[j] = row[j].min(before[j - 2] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_slip_and_nothing_far_away() {
        assert_eq!(closest("endpont", ["endpoint", "tls"]), Some("endpoint"));
        assert_eq!(closest("endPoint", ["endpoint", "tls"]), Some("endpoint"));
        assert_eq!(closest("otpl", ["otlp", "jaeger"]), Some("otlp"));
        assert_eq!(closest("kafka", ["otlp", "jaeger"]), None);
    }
}
