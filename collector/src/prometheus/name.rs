//! Names: of metrics, with unit and `_total` at their end; of labels.

/// How names are made.
#[derive(Debug, Clone, Default)]
pub struct Naming {
    /// Stands before each name.
    pub namespace: String,
    /// Whether unit and kind end a name.
    pub suffixes: bool,
    /// Whether names keep to `[a-zA-Z0-9_:]`.
    pub escapes: bool,
}

/// What of a metric counts for its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Counted {
    /// It only grows.
    Counter,
    /// It goes up and down.
    Gauge,
    /// Anything else.
    Other,
}

const UNITS: [(&str, &str); 22] = [
    ("d", "days"),
    ("h", "hours"),
    ("min", "minutes"),
    ("s", "seconds"),
    ("ms", "milliseconds"),
    ("us", "microseconds"),
    ("ns", "nanoseconds"),
    ("By", "bytes"),
    ("KiBy", "kibibytes"),
    ("MiBy", "mebibytes"),
    ("GiBy", "gibibytes"),
    ("TiBy", "tibibytes"),
    ("KBy", "kilobytes"),
    ("MBy", "megabytes"),
    ("GBy", "gigabytes"),
    ("TBy", "terabytes"),
    ("m", "meters"),
    ("V", "volts"),
    ("A", "amperes"),
    ("W", "watts"),
    ("Cel", "celsius"),
    ("%", "percent"),
];
const MORE_UNITS: [(&str, &str); 4] = [("J", "joules"), ("g", "grams"), ("Hz", "hertz"), ("1", "")];
const PER: [(&str, &str); 7] = [
    ("s", "second"),
    ("m", "minute"),
    ("h", "hour"),
    ("d", "day"),
    ("w", "week"),
    ("mo", "month"),
    ("y", "year"),
];

fn word<'a>(words: &[(&'a str, &'a str)], unit: &'a str) -> Option<&'a str> {
    words
        .iter()
        .find(|(known, _)| *known == unit)
        .map(|(_, word)| *word)
}

impl Naming {
    /// A metric's name.
    pub fn metric(&self, name: &str, unit: &str, counted: Counted) -> String {
        if !self.suffixes {
            let name = match self.escapes {
                true => escaped(name),
                false => name.to_owned(),
            };
            return self.begun(match self.namespace.is_empty() {
                true => name,
                false => format!("{}_{name}", self.namespace),
            });
        }
        let between = |c: char| self.escapes && !(c.is_ascii_alphanumeric() || c == ':');
        let mut tokens: Vec<String> = match self.escapes {
            true => name
                .split(between)
                .filter(|t| !t.is_empty())
                .map(str::to_owned)
                .collect(),
            false => vec![name.to_owned()],
        };
        let has = |tokens: &[String], word: &str| {
            tokens.iter().any(|t| t == word) || (!self.escapes && name.ends_with(&format!("_{word}")))
        };
        let (main, per) = unit.split_once('/').unwrap_or((unit, ""));
        let usable = |unit: &str| !unit.is_empty() && !unit.contains(['{', '}']);
        let (main, per) = (main.trim(), per.trim());
        if usable(main) {
            let main = escaped(
                word(&UNITS, main)
                    .or_else(|| word(&MORE_UNITS, main))
                    .unwrap_or(main),
            );
            let main = main.trim_matches('_');
            if !main.is_empty() && !has(&tokens, main) {
                tokens.push(main.to_owned());
            }
        }
        if usable(per) {
            let per = escaped(word(&PER, per).unwrap_or(per));
            if !per.is_empty() && !has(&tokens, &per) {
                tokens.extend(["per".to_owned(), per]);
            }
        }
        let last = match counted {
            Counted::Counter => Some("total"),
            Counted::Gauge if unit == "1" => Some("ratio"),
            _ => None,
        };
        if let Some(last) = last {
            match self.escapes {
                true => tokens.retain(|token| token != last),
                false => tokens.iter_mut().for_each(|t| {
                    if let Some(bare) = t.strip_suffix(&format!("_{last}")) {
                        *t = bare.to_owned();
                    }
                }),
            }
            tokens.push(last.to_owned());
        }
        if !self.namespace.is_empty() {
            tokens.insert(0, self.namespace.clone());
        }
        self.begun(tokens.join("_"))
    }

    /// No name begins with a digit.
    fn begun(&self, name: String) -> String {
        match self.escapes && name.starts_with(|c: char| c.is_ascii_digit()) {
            true => format!("_{name}"),
            false => name,
        }
    }

    /// A label's name.
    pub fn label(&self, name: &str) -> String {
        if !self.escapes {
            return name.to_owned();
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let name: String = name.chars().map(|c| if fits(c) { c } else { '_' }).collect();
        match name.starts_with(|c: char| c.is_ascii_digit()) {
            true => format!("key_{name}"),
            false => name,
        }
    }
}

fn escaped(name: &str) -> String {
    let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | ':');
    name.chars().map(|c| if fits(c) { c } else { '_' }).collect()
}
