//! Log records to stderr.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

/// How a log record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LogFormat {
    /// One line of text, coloured on a terminal.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
}

/// Sends log records to stderr from `level` (`error`, `warn`, `info`, `debug`, `trace`, or a filter as `RUST_LOG` has
/// it) upwards; `RUST_LOG` wins where it is set. A second call changes nothing.
pub fn init_logs(level: &str, format: LogFormat) {
    let filter = filter(std::env::var("RUST_LOG").ok().as_deref(), level);
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // A record that cannot be written (the reader of a pipe is gone) would otherwise be reported with `eprintln!`,
        // which panics on the same pipe: a child of a killed parent would die in the wrong place, or not at all.
        .log_internal_errors(false);
    let result = match format {
        LogFormat::Text => builder.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    if let Err(error) = result {
        tracing::debug!(%error, "log records already have a destination");
    }
}

fn filter(from_env: Option<&str>, level: &str) -> EnvFilter {
    let text = from_env.filter(|text| !text.trim().is_empty()).unwrap_or(level);
    EnvFilter::try_new(text).unwrap_or_else(|_| EnvFilter::new("info"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_wins_and_nonsense_is_info() {
        assert_eq!(filter(Some("debug"), "warn").to_string(), "debug");
        assert_eq!(filter(Some(" "), "warn").to_string(), "warn");
        assert_eq!(filter(None, "a=b=c").to_string(), "info");
    }
}
