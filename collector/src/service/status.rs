//! What a collector says about itself at `/status`, beside its metrics, and how a command asks for it.

use std::fmt::Write as _;
use std::time::Duration;

use karez_net::Net;
use serde::{Deserialize, Serialize};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::ledger::{Ledger, Line};

/// The longest answer that is read.
const MAX_ANSWER: u64 = 4 << 20;
/// For the whole exchange.
const TIMEOUT: Duration = Duration::from_secs(10);

/// The answer of `/status`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Status {
    /// The program's version.
    pub version: String,
    /// What became of every item, for each pipeline and exporter.
    pub ledger: Vec<Line>,
}

/// Why a collector's status cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// Nobody answers.
    #[error(
        "no collector answers at {address}: {reason}; name where its own metrics are served \
         (service.telemetry.metrics, localhost:8888 unless written)"
    )]
    Unreachable {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
    /// Somebody else does.
    #[error("what answers at {address} is no Karez collector: {reason}")]
    NotOurs {
        /// Where.
        address: String,
        /// Why.
        reason: String,
    },
}

impl Status {
    /// As things are.
    pub(crate) fn of(ledger: &Ledger) -> Self {
        Status {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            ledger: ledger.lines(),
        }
    }

    /// For people.
    pub fn render(&self) -> String {
        let mut out = format!("Karez collector {}\n", self.version);
        if self.ledger.is_empty() {
            out.push_str("No pipeline runs.\n");
            return out;
        }
        let mut rows = vec![
            [
                "PIPELINE",
                "EXPORTER",
                "ACCEPTED",
                "DELIVERED",
                "QUEUED",
                "REFUSED",
                "DROPPED",
            ]
            .map(str::to_owned),
        ];
        for line in &self.ledger {
            let dropped: u64 = line.dropped.values().sum();
            let reasons: Vec<String> = line
                .dropped
                .iter()
                .map(|(reason, items)| format!("{reason} {items}"))
                .collect();
            let dropped = match reasons.is_empty() {
                true => "0".to_owned(),
                false => format!("{dropped} ({})", reasons.join(", ")),
            };
            let numbers = [line.accepted, line.delivered, line.queued, line.refused].map(|n| n.to_string());
            let [accepted, delivered, queued, refused] = numbers;
            rows.push([
                line.pipeline.clone(),
                line.exporter.clone(),
                accepted,
                delivered,
                queued,
                refused,
                dropped,
            ]);
        }
        let width = |column: usize| {
            rows.iter()
                .map(|row| row[column].chars().count())
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..7).map(width).collect();
        for row in &rows {
            let cells = row
                .iter()
                .zip(&widths)
                .map(|(cell, width)| format!("{cell:<width$}"));
            let _ = writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end());
        }
        for line in self.ledger.iter().filter(|line| !line.balanced) {
            let _ = writeln!(
                out,
                "The ledger of {} at {} does not balance: this is a mistake in Karez.",
                line.pipeline, line.exporter
            );
        }
        out
    }
}

/// Asks a collector for its status. `address` is `HOST:PORT` of its own metrics.
pub async fn status(net: &Net, address: &str) -> Result<Status, StatusError> {
    let unreachable = |reason: String| StatusError::Unreachable {
        address: address.to_owned(),
        reason,
    };
    let asked = tokio::time::timeout(TIMEOUT, ask(net, address)).await;
    let answer = asked
        .map_err(|_| unreachable("no answer in time".to_owned()))?
        .map_err(unreachable)?;
    let not_ours = |reason: String| StatusError::NotOurs {
        address: address.to_owned(),
        reason,
    };
    let (head, body) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| not_ours("it does not speak HTTP".to_owned()))?;
    let code = head.split_whitespace().nth(1).unwrap_or_default();
    if code != "200" {
        return Err(not_ours(format!("it answers /status with {code}")));
    }
    serde_json::from_str(body).map_err(|error| not_ours(error.to_string()))
}

/// HTTP/1.0, so that the answer ends with the connection.
async fn ask(net: &Net, address: &str) -> Result<String, String> {
    let (host, port) = address.rsplit_once(':').ok_or("write HOST:PORT")?;
    let host = match host.trim_matches(['[', ']']) {
        "" => "localhost",
        host => host,
    };
    let port = port.parse().map_err(|_| format!("`{port}` is no port"))?;
    let connected = net.connect_tcp(host, port).await;
    let mut stream = connected.map_err(|error| error.to_string())?;
    let request = format!("GET /status HTTP/1.0\r\nHost: {address}\r\nAccept: application/json\r\n\r\n");
    stream
        .write_all(request.as_bytes())
        .await
        .map_err(|error| error.to_string())?;
    let mut answer = Vec::new();
    let read = stream.take(MAX_ANSWER).read_to_end(&mut answer).await;
    read.map_err(|error| error.to_string())?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::{Fate, Reason, Settlement};

    #[test]
    fn the_table_shows_every_account_and_why_items_are_lost() {
        let ledger = Ledger::default();
        let account = ledger.account("traces/a", &"otlp".parse().unwrap());
        account.accept(12);
        account.settle(&Settlement::of(5, Fate::Delivered));
        account.settle(&Settlement::of(3, Fate::Dropped(Reason::Overflow)));
        let text = Status::of(&ledger).render();
        let row = text.lines().last().unwrap();
        let cells: Vec<&str> = row
            .split("  ")
            .map(str::trim)
            .filter(|cell| !cell.is_empty())
            .collect();
        assert_eq!(
            cells,
            ["traces/a", "otlp", "12", "5", "4", "0", "3 (overflow 3)"],
            "{text}"
        );
    }
}
