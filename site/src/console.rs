//! What a site prints for people: one line a fact, on standard output; colour only on a terminal.

use std::io::{IsTerminal, Write};
use std::time::Duration;

/// Prints lines, all under one name where several sites share a terminal.
#[derive(Debug, Clone)]
pub struct Console {
    name: Option<String>,
    colour: bool,
    quiet: bool,
}

impl Console {
    /// On standard output, with colour where that is a terminal and `NO_COLOR` is not set.
    pub fn stdout() -> Console {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        Console {
            name: None,
            colour: wanted && std::io::stdout().is_terminal(),
            quiet: false,
        }
    }

    /// The same, each line under a name.
    pub fn named(&self, name: &str) -> Console {
        Console {
            name: Some(name.to_owned()),
            ..self.clone()
        }
    }

    /// The same, each line under a name, and only what is wrong.
    pub fn quiet(&self, name: &str) -> Console {
        Console {
            quiet: true,
            ..self.named(name)
        }
    }

    /// Whether colour is wanted.
    pub fn colour(&self) -> bool {
        self.colour
    }

    /// Prints a line.
    pub fn line(&self, text: &str) {
        if !self.quiet {
            self.write(text);
        }
    }

    fn write(&self, text: &str) {
        let prefix = self
            .name
            .as_ref()
            .map(|name| format!("[{name}] "))
            .unwrap_or_default();
        let mut out = std::io::stdout().lock();
        // A closed pipe ends the output, not the site.
        let _ = writeln!(out, "{prefix}{text}");
        let _ = out.flush();
    }

    /// Prints something that went well.
    pub fn good(&self, text: &str) {
        self.line(&self.paint("32", "✓", text));
    }

    /// Prints something that went wrong.
    pub fn bad(&self, text: &str) {
        self.write(&self.paint("31", "✗", text));
    }

    /// Prints what a diagnosis or Event warns of.
    pub fn warning(&self, text: &str) {
        let code = if text.contains(": error: ") { "31" } else { "33" };
        self.write(&self.paint(code, "!", text));
    }

    fn paint(&self, code: &str, sign: &str, text: &str) -> String {
        if self.colour {
            format!("\u{1b}[{code}m{sign}\u{1b}[0m {text}")
        } else {
            format!("{sign} {text}")
        }
    }
}

/// A duration as people read it.
pub fn show_duration(duration: Duration) -> String {
    match duration.as_secs_f64() {
        seconds if seconds < 1.0 => format!("{:.0} ms", seconds * 1000.0),
        seconds => format!("{seconds:.1} s"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_short() {
        assert_eq!(show_duration(Duration::from_millis(12)), "12 ms");
        assert_eq!(show_duration(Duration::from_millis(1234)), "1.2 s");
    }
}
