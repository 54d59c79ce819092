//! Waiting for a condition with a deadline: no test sleeps for a fixed time.

use std::fmt::Display;
use std::thread;
use std::time::{Duration, Instant};

use super::Outcome;

/// How often a condition is looked at.
const PERIOD: Duration = Duration::from_millis(50);

/// What one look found: the value waited for, or why it is not there yet.
pub(crate) type Look<T> = Outcome<Result<T, String>>;

/// Looks until there is a value; fails after `seconds` with what the last look found. An error of the look itself
/// counts as "not yet" (a server that is just starting), and is what the failure says.
pub(crate) fn wait_for<T>(what: impl Display, seconds: u64, mut look: impl FnMut() -> Look<T>) -> Outcome<T> {
    let deadline = Instant::now() + Duration::from_secs(seconds);
    loop {
        let last = match look() {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(missing)) => missing,
            Err(error) => format!("{error:#}"),
        };
        if Instant::now() >= deadline {
            anyhow::bail!("waited {seconds} s for {what}; last: {last}");
        }
        thread::sleep(PERIOD);
    }
}

/// Looks until the condition holds.
pub(crate) fn wait_until(
    what: impl Display,
    seconds: u64,
    mut holds: impl FnMut() -> Outcome<bool>,
) -> Outcome {
    wait_for(what, seconds, || {
        Ok(if holds()? {
            Ok(())
        } else {
            Err("it does not hold".to_owned())
        })
    })
}

/// Waits until `text()` contains `needle`; the failure shows the end of the text.
pub(crate) fn wait_for_text(
    needle: &str,
    seconds: u64,
    mut text: impl FnMut() -> Outcome<String>,
) -> Outcome<String> {
    wait_for(format_args!("the words {needle:?}"), seconds, || {
        let text = text()?;
        Ok(if text.contains(needle) {
            Ok(text)
        } else {
            Err(tail(&text, 25))
        })
    })
}

/// The last lines of a text.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
