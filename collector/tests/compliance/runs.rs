//! The runs of the harness: what each shows, and which components it leaves out, for which reason. The page
//! `docs/collector/compliance.md` is made of this; `KAREZ_UPDATE_DOCS=1` writes it.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::cases::{CASES, Case};

/// A run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Run {
    Configuration,
    Life,
    Counts,
    BackPressure,
    Stop,
    Bounds,
}

const NO_DATA: &str = "no data goes through it";
const NO_QUEUE: &str = "writes before it answers, and has no queue";

impl Run {
    pub(crate) const ALL: [Run; 6] = [
        Run::Configuration,
        Run::Life,
        Run::Counts,
        Run::BackPressure,
        Run::Stop,
        Run::Bounds,
    ];

    /// The components of a section that take part.
    pub(crate) fn of(self, section: &'static str) -> impl Iterator<Item = &'static Case> {
        CASES
            .iter()
            .filter(move |case| case.section == section && self.leaves_out(case).is_none())
    }

    fn name(self) -> &'static str {
        match self {
            Run::Configuration => "configuration",
            Run::Life => "life",
            Run::Counts => "counts",
            Run::BackPressure => "back-pressure",
            Run::Stop => "stop",
            Run::Bounds => "bounds",
        }
    }

    fn shows(self) -> &'static str {
        match self {
            Run::Configuration => {
                "a wrong key and a block of the wrong kind are errors with line, key and mend"
            }
            Run::Life => "it starts, stops in bounded time, and starts again",
            Run::Counts => "its metrics count exactly what it was given and what it gave",
            Run::BackPressure => "what is refused behind it is told to the sender, and may be sent again",
            Run::Stop => "a stop delivers all that was acknowledged",
            Run::Bounds => "what is too large or too much is refused, so that memory stays bounded",
        }
    }

    /// Why it leaves a component out.
    pub(crate) fn leaves_out(self, case: &Case) -> Option<&'static str> {
        match (self, case.section, case.kind) {
            (Run::Configuration, ..) => None,
            (Run::Life, _, "oidc") => Some("asks its provider when it starts: its tests have one"),
            (Run::Life, ..) => None,
            (_, "extensions", _) => Some(NO_DATA),
            (Run::Counts, ..) => None,
            (Run::BackPressure, "receivers", "prometheus") => {
                Some("nobody waits for an answer; what is refused is counted, and scraped anew")
            }
            (Run::BackPressure, "processors", "batch") => {
                Some("has answered before, unless a queue on disk stands behind it: then its tests show it")
            }
            (Run::BackPressure, "connectors", "spanmetrics" | "span_metrics") => {
                Some("takes spans whatever becomes of their metrics")
            }
            (Run::BackPressure | Run::Bounds | Run::Stop, "exporters", _)
                if !case.block.contains("QUEUE") =>
            {
                Some(NO_QUEUE)
            }
            (Run::Stop, "receivers", "prometheus") => Some("holds nothing between scrapes"),
            (Run::Bounds, "receivers", "prometheus") => {
                Some("its limits are keys of their own, and are tested with them")
            }
            (Run::Bounds, "processors", "memory_limiter") => {
                Some("is the bound itself: its tests fill memory")
            }
            (Run::Bounds, "processors", "batch") => Some(
                "holds at most a batch, and what comes while it is handed on; `memory_limiter` bounds the rest",
            ),
            (Run::Bounds, "processors", _) => Some("holds nothing"),
            (Run::Bounds, "connectors", "spanmetrics" | "span_metrics") => Some(
                "holds series and no data: `aggregation_cardinality_limit`, `resource_metrics_cache_size`",
            ),
            (Run::Bounds, "connectors", _) => Some("holds nothing"),
            _ => None,
        }
    }
}

fn page() -> String {
    let mut page = "# What every component goes through

Made by `collector/tests/compliance/`, which runs each component through the same tests. A component without a case there fails them. Beside these it has
tests of its own, beside its code; `cargo test -p karez --test system -- nothing_lost` and `interop::` run whole collectors.

| run | shows that |
|---|---|
"
    .to_owned();
    for run in Run::ALL {
        writeln!(page, "| {} | {} |", run.name(), run.shows()).unwrap();
    }
    let heads: Vec<&str> = Run::ALL.iter().map(|run| run.name()).collect();
    writeln!(
        page,
        "\n| component | {} |\n|---|{}",
        heads.join(" | "),
        "---|".repeat(heads.len())
    )
    .unwrap();
    let mut notes: Vec<&str> = Vec::new();
    for section in ["receivers", "processors", "exporters", "connectors", "extensions"] {
        for case in CASES.iter().filter(|case| case.section == section) {
            let cells: Vec<String> = Run::ALL
                .iter()
                .map(|run| match run.leaves_out(case) {
                    None => "yes".to_owned(),
                    Some(NO_DATA) => "–".to_owned(),
                    Some(why) => {
                        let number = notes.iter().position(|note| *note == why).unwrap_or_else(|| {
                            notes.push(why);
                            notes.len() - 1
                        });
                        format!("({})", number + 1)
                    }
                })
                .collect();
            writeln!(page, "| {section} `{}` | {} |", case.kind, cells.join(" | ")).unwrap();
        }
    }
    page.push_str("\n– no data goes through it.\n\n");
    for (number, note) in notes.iter().enumerate() {
        writeln!(page, "{}. {note}.", number + 1).unwrap();
    }
    page
}

#[test]
fn the_page_says_which_runs_apply() {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../docs/collector/compliance.md");
    let page = page();
    if std::env::var_os("KAREZ_UPDATE_DOCS").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == page,
        "docs/collector/compliance.md is not what holds; write it with KAREZ_UPDATE_DOCS=1"
    );
}
