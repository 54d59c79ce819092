//! Single-dash long flags, as tracegen has them: `-otlp-insecure -otlp-endpoint HOST:PORT -traces N`.
//!
//! Only below `telemetrygen` and `collector`, where manifests and scripts of others still use them; `-o json` and
//! `-n NAME` stay what they are.

use std::ffi::OsString;

/// The arguments as clap reads them.
pub(crate) fn arguments(given: impl IntoIterator<Item = OsString>) -> Vec<OsString> {
    let mut old_style = false;
    let given = given.into_iter().enumerate().map(|(index, argument)| {
        let text = argument.to_str().unwrap_or_default();
        old_style |= index > 0 && matches!(text, "telemetrygen" | "collector" | "allocator");
        if old_style && is_single_dash_long(text) {
            return OsString::from(format!("-{text}"));
        }
        argument
    });
    given.collect()
}

/// `-name` or `-name=value` with a name of at least two letters.
fn is_single_dash_long(text: &str) -> bool {
    let Some(name) = text.strip_prefix('-') else {
        return false;
    };
    let name = name.split('=').next().unwrap_or_default();
    name.len() > 1
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name.chars().all(is_flag_character)
}

fn is_flag_character(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-'
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(line: &str) -> String {
        let words = line.split(' ').map(OsString::from);
        arguments(words)
            .iter()
            .map(|word| word.to_str().unwrap().to_owned())
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn tracegens_flags_are_understood() {
        assert_eq!(
            after("karez telemetrygen traces -otlp-insecure -otlp-endpoint h:1 -traces 10"),
            "karez telemetrygen traces --otlp-insecure --otlp-endpoint h:1 --traces 10"
        );
    }

    #[test]
    fn short_flags_and_other_commands_stay() {
        for line in [
            "karez network status -o json",
            "karez expose -n x",
            "karez telemetrygen traces -n x -h",
            "karez status -name",
        ] {
            assert_eq!(after(line), line);
        }
    }
}
