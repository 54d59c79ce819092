//! The table of what was carried and how soon the link was back.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

/// A line of the table.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    pub(crate) scenario: String,
    pub(crate) transport: &'static str,
    pub(crate) what: String,
}

static ROWS: Mutex<Vec<Row>> = Mutex::new(Vec::new());

/// Keeps a line for the end.
pub(crate) fn add(scenario: &str, transport: &'static str, what: String) {
    let row = Row {
        scenario: scenario.to_owned(),
        transport,
        what,
    };
    ROWS.lock().unwrap_or_else(PoisonError::into_inner).push(row);
}

/// Prints all lines, by scenario.
pub(crate) fn print() {
    let mut rows = ROWS.lock().unwrap_or_else(PoisonError::into_inner).clone();
    if rows.is_empty() {
        return;
    }
    rows.sort();
    let scenario = rows
        .iter()
        .map(|row| row.scenario.chars().count())
        .max()
        .unwrap_or(0);
    println!();
    for row in rows {
        println!("{:<scenario$}  {:<5} {}", row.scenario, row.transport, row.what);
    }
}

/// `1.25 s`.
pub(crate) fn seconds(duration: Duration) -> String {
    format!("{:.2} s", duration.as_secs_f64())
}

/// `4 MiB in 1.25 s (26.8 Mbit/s)`.
pub(crate) fn carried(bytes: usize, duration: Duration) -> String {
    let size = if bytes >= 1 << 20 {
        format!("{} MiB", bytes >> 20)
    } else {
        format!("{} KiB", bytes >> 10)
    };
    let rate = bytes as f64 * 8.0 / 1e6 / duration.as_secs_f64();
    format!(
        "{size} there and back in {} ({rate:.1} Mbit/s)",
        seconds(duration)
    )
}
