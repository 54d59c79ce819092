//! Patterns in RE2's syntax, anchored, as Prometheus compiles them: translated for Rust's `regex`, whose syntax differs
//! in places that would otherwise change what matches in silence.
//!
//! ```text
//! \d \w \s are ASCII      \Q…\E quotes        `{` that is no count is itself      a** and {1001} are refused
//! inside of [ ]: `[`, `&&`, `--`, `~~` are ordinary characters        \< is `<`
//! ```

use regex::Regex;

/// More repetitions than this RE2 refuses.
const MAX_REPEAT: u32 = 1000;
/// Groups deeper than this RE2 refuses.
const MAX_DEPTH: usize = 1000;
/// The largest pattern; a document is written by strangers.
const MAX_LENGTH: usize = 64 << 10;

/// Compiles a pattern that must match as a whole.
pub(super) fn compile(pattern: &str) -> Result<Regex, String> {
    if pattern.len() > MAX_LENGTH {
        return Err(format!("the pattern is longer than {MAX_LENGTH} bytes"));
    }
    let translated = translate(pattern)?;
    regex::RegexBuilder::new(&format!("^(?s:{translated})$"))
        .size_limit(4 << 20)
        .nest_limit(1000)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "the pattern is too large when compiled".to_owned(),
            // The library shows the pattern over several lines; the last one says what is wrong.
            other => other.to_string().lines().last().unwrap_or_default().to_owned(),
        })
}

/// Whether a pattern is plain text: it matches itself and nothing else.
pub(super) fn is_literal(pattern: &str) -> bool {
    !pattern.contains([
        '\\', '.', '+', '*', '?', '(', ')', '|', '[', ']', '{', '}', '^', '$',
    ])
}

fn translate(pattern: &str) -> Result<String, String> {
    let mut translator = Translator {
        rest: pattern,
        out: String::with_capacity(pattern.len() + 16),
        depth: 0,
        last: Last::Nothing,
    };
    translator.run()?;
    Ok(translator.out)
}

/// What stands before the place that is read.
#[derive(Clone, Copy, PartialEq)]
enum Last {
    /// Nothing that can be repeated.
    Nothing,
    /// Something that can.
    Atom,
    /// A repetition.
    Repeat,
    /// A repetition made lazy.
    Lazy,
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    depth: usize,
    last: Last,
}

impl Translator<'_> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(c) = self.rest.chars().next() {
            match c {
                '\\' => self.escape()?,
                '[' => self.class()?,
                '(' => self.open()?,
                '{' => self.count()?,
                '*' | '+' => self.repeat(1, false)?,
                '?' => self.repeat(1, true)?,
                ')' => {
                    self.depth = self
                        .depth
                        .checked_sub(1)
                        .ok_or("`)` closes what was not opened")?;
                    self.copy(1, Last::Atom);
                }
                '|' => self.copy(1, Last::Nothing),
                '^' | '$' | '.' => self.copy(1, Last::Atom),
                c => {
                    self.rest = &self.rest[c.len_utf8()..];
                    self.literal(c);
                }
            }
        }
        match self.depth {
            0 => Ok(()),
            _ => Err("`(` is not closed".to_owned()),
        }
    }

    fn copy(&mut self, length: usize, last: Last) {
        let (copied, rest) = self.rest.split_at(length);
        self.out.push_str(copied);
        self.rest = rest;
        self.last = last;
    }

    fn literal(&mut self, c: char) {
        match c.is_ascii_alphanumeric() {
            true => self.out.push(c),
            false => self.out.push_str(&hex(c)),
        }
        self.last = Last::Atom;
    }

    fn repeat(&mut self, length: usize, question: bool) -> Result<(), String> {
        self.last = match (self.last, question) {
            (Last::Nothing, _) => return Err("a repetition repeats nothing".to_owned()),
            (Last::Atom, _) => Last::Repeat,
            (Last::Repeat, true) => Last::Lazy,
            _ => return Err("a repetition is repeated, which RE2 refuses".to_owned()),
        };
        let (copied, rest) = self.rest.split_at(length);
        self.out.push_str(copied);
        self.rest = rest;
        Ok(())
    }

    /// `{n}`, `{n,}`, `{n,m}`, or a brace that is itself.
    fn count(&mut self) -> Result<(), String> {
        let Some((length, min, max)) = count(self.rest) else {
            self.rest = &self.rest[1..];
            self.literal('{');
            return Ok(());
        };
        if min > MAX_REPEAT || max.is_some_and(|max| max > MAX_REPEAT || max < min) {
            return Err(format!(
                "a count of repetitions is wrong: at most {MAX_REPEAT}, in order"
            ));
        }
        self.repeat(length, false)
    }

    fn open(&mut self) -> Result<(), String> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(format!("groups are nested more than {MAX_DEPTH} deep"));
        }
        let Some(inner) = self.rest.strip_prefix("(?") else {
            self.copy(1, Last::Nothing);
            return Ok(());
        };
        if inner.starts_with("P<")
            || (inner.starts_with('<') && !inner.starts_with("<=") && !inner.starts_with("<!"))
        {
            let end = inner.find('>').ok_or("the name of a group is not closed")?;
            let name = inner[..end].trim_start_matches(['P', '<']);
            if name.is_empty() || !name.chars().all(|c| c.is_alphanumeric() || c == '_') {
                return Err(format!("`{name}` is no name of a group"));
            }
            self.copy(2 + end + 1, Last::Nothing);
            return Ok(());
        }
        let flags = inner
            .find([':', ')'])
            .ok_or("a group starts with `(?` and does not go on as RE2 knows it")?;
        if !inner[..flags]
            .chars()
            .all(|c| matches!(c, 'i' | 'm' | 's' | 'U' | '-'))
        {
            return Err(format!("RE2 knows no group `(?{}`", &inner[..flags]));
        }
        if inner[flags..].starts_with(')') {
            self.depth -= 1;
        }
        self.copy(2 + flags + 1, Last::Nothing);
        Ok(())
    }

    fn escape(&mut self) -> Result<(), String> {
        if let Some(quoted) = self.rest.strip_prefix("\\Q") {
            let end = quoted.find("\\E");
            let (text, rest) = (
                &quoted[..end.unwrap_or(quoted.len())],
                end.map_or("", |end| &quoted[end + 2..]),
            );
            text.chars().for_each(|c| self.literal(c));
            self.rest = rest;
            return Ok(());
        }
        let escape = escape(&mut self.rest)?;
        match escape {
            Escape::Char(c) => self.literal(c),
            Escape::Class(class) => self.out.push_str(&class),
            Escape::Assertion(text) => self.out.push_str(text),
        }
        self.last = Last::Atom;
        Ok(())
    }

    fn class(&mut self) -> Result<(), String> {
        let open = "`[` is not closed";
        self.rest = &self.rest[1..];
        self.out.push('[');
        if let Some(rest) = self.rest.strip_prefix('^') {
            self.rest = rest;
            self.out.push('^');
        }
        let mut first = true;
        loop {
            if self.rest.starts_with(']') && !first {
                self.rest = &self.rest[1..];
                self.out.push(']');
                self.last = Last::Atom;
                return Ok(());
            }
            first = false;
            if self.rest.starts_with("[:") && self.named_class()? {
                continue;
            }
            let low = match self.member(open)? {
                Escape::Char(c) => c,
                Escape::Class(class) => {
                    self.out.push_str(&class);
                    continue;
                }
                Escape::Assertion(_) => return Err("an assertion stands inside of `[ ]`".to_owned()),
            };
            self.out.push_str(&hex(low));
            let range = self.rest.strip_prefix('-').filter(|rest| !rest.starts_with(']'));
            if let Some(rest) = range {
                self.rest = rest;
                match self.member(open)? {
                    Escape::Char(high) if low <= high => {
                        self.out.push('-');
                        self.out.push_str(&hex(high));
                    }
                    _ => return Err(format!("the range that starts at `{low}` does not go upwards")),
                }
            }
        }
    }

    /// `[:alpha:]`; whether it is one.
    fn named_class(&mut self) -> Result<bool, String> {
        let Some(end) = self.rest.find(":]") else {
            return Ok(false);
        };
        let name = self.rest[2..end].trim_start_matches('^');
        const CLASSES: [&str; 14] = [
            "alnum", "alpha", "ascii", "blank", "cntrl", "digit", "graph", "lower", "print", "punct",
            "space", "upper", "word", "xdigit",
        ];
        if !CLASSES.contains(&name) {
            return Err(format!("RE2 knows no class `[:{name}:]`"));
        }
        self.copy(end + 2, Last::Nothing);
        Ok(true)
    }

    fn member(&mut self, open: &str) -> Result<Escape, String> {
        let c = self.rest.chars().next().ok_or(open)?;
        if c == '\\' {
            return escape(&mut self.rest);
        }
        self.rest = &self.rest[c.len_utf8()..];
        Ok(Escape::Char(c))
    }
}

fn hex(c: char) -> String {
    format!("\\x{{{:X}}}", u32::from(c))
}

/// `{n}`, `{n,}` or `{n,m}` at the start of a text: its length and the numbers.
fn count(text: &str) -> Option<(usize, u32, Option<u32>)> {
    let end = text.find('}')?;
    let number = |digits: &str| match digits.len() {
        0 => None,
        // Beyond any limit, and so refused by it.
        length if length > 6 => digits.bytes().all(|b| b.is_ascii_digit()).then_some(u32::MAX),
        _ => digits
            .bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| digits.parse().ok())?,
    };
    let inner = &text[1..end];
    match inner.split_once(',') {
        None => number(inner).map(|n| (end + 1, n, Some(n))),
        Some((min, "")) => number(min).map(|min| (end + 1, min, None)),
        Some((min, max)) => Some((end + 1, number(min)?, Some(number(max)?))),
    }
}

/// What an escape means.
enum Escape {
    Char(char),
    Class(String),
    Assertion(&'static str),
}

/// Reads an escape at the start of a text.
fn escape(text: &mut &str) -> Result<Escape, String> {
    let rest = &text[1..];
    let c = rest.chars().next().ok_or("the pattern ends with `\\`")?;
    let after = &rest[c.len_utf8()..];
    *text = after;
    Ok(match c {
        'd' => Escape::Class("[0-9]".to_owned()),
        'D' => Escape::Class("[^0-9]".to_owned()),
        'w' => Escape::Class("[0-9A-Za-z_]".to_owned()),
        'W' => Escape::Class("[^0-9A-Za-z_]".to_owned()),
        's' => Escape::Class("[\\t\\n\\x0C\\r ]".to_owned()),
        'S' => Escape::Class("[^\\t\\n\\x0C\\r ]".to_owned()),
        'b' => Escape::Assertion("(?-u:\\b)"),
        'B' => Escape::Assertion("(?-u:\\B)"),
        'A' => Escape::Assertion("\\A"),
        'z' => Escape::Assertion("\\z"),
        'a' => Escape::Char('\x07'),
        'f' => Escape::Char('\x0c'),
        'n' => Escape::Char('\n'),
        'r' => Escape::Char('\r'),
        't' => Escape::Char('\t'),
        'v' => Escape::Char('\x0b'),
        'p' | 'P' => property(c == 'P', text)?,
        'x' => Escape::Char(hexadecimal(text)?),
        '0' => Escape::Char(octal(0, 2, text)),
        '1'..='7' if after.starts_with(|c: char| c.is_digit(8)) => {
            Escape::Char(octal(u32::from(c) - u32::from('0'), 2, text))
        }
        c if c.is_ascii_punctuation() => Escape::Char(c),
        c => return Err(format!("RE2 knows no escape `\\{c}`")),
    })
}

fn octal(first: u32, most: usize, text: &mut &str) -> char {
    let digits = text
        .bytes()
        .take(most)
        .take_while(|b| (b'0'..b'8').contains(b))
        .count();
    let value = text[..digits]
        .bytes()
        .fold(first, |value, digit| value * 8 + u32::from(digit - b'0'));
    *text = &text[digits..];
    char::from_u32(value).unwrap_or('\0')
}

fn hexadecimal(text: &mut &str) -> Result<char, String> {
    let wrong = || "`\\x` needs two digits, or digits in braces".to_owned();
    let (digits, length) = match text.strip_prefix('{') {
        Some(braced) => {
            let end = braced.find('}').ok_or_else(wrong)?;
            (&braced[..end], end + 2)
        }
        None => (text.get(..2).ok_or_else(wrong)?, 2),
    };
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    let c = u32::from_str_radix(digits, 16)
        .ok()
        .and_then(char::from_u32)
        .ok_or_else(wrong)?;
    *text = &text[length..];
    Ok(c)
}

/// `\pL`, `\p{Greek}`, `\p{^Greek}`.
fn property(mut negated: bool, text: &mut &str) -> Result<Escape, String> {
    let wrong = || "`\\p` needs the name of a Unicode class".to_owned();
    let (mut name, length) = match text.strip_prefix('{') {
        Some(braced) => {
            let end = braced.find('}').ok_or_else(wrong)?;
            (&braced[..end], end + 2)
        }
        None => {
            let length = text.chars().next().ok_or_else(wrong)?.len_utf8();
            (&text[..length], length)
        }
    };
    if let Some(rest) = name.strip_prefix('^') {
        name = rest;
        negated = !negated;
    }
    if name.is_empty() || !name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_') {
        return Err(wrong());
    }
    let class = format!("\\{}{{{name}}}", if negated { 'P' } else { 'p' });
    *text = &text[length..];
    Ok(Escape::Class(class))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, text: &str) -> bool {
        compile(pattern)
            .unwrap_or_else(|error| panic!("{pattern}: {error}"))
            .is_match(text)
    }

    /// Pattern, what it matches, what it does not: from RE2's syntax page and Go's `regexp/syntax`.
    #[test]
    fn means_what_re2_means() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("", &[""], &["a"]),
            ("a|b", &["a", "b"], &["ab", "xa", "bx"]),
            ("(.*)", &["", "a\nb", "ü"], &[]),
            (r"\d+", &["12"], &["١", "a", ""]),
            (r"\w+", &["aZ_9"], &["ü", "a-b"]),
            (r"[\w.]+", &["a.b"], &["a-b"]),
            (r"[^\d]", &["a"], &["1"]),
            (r"\s", &[" ", "\t", "\n"], &["\u{b}", "\u{a0}"]),
            (r"\Qa.b*\E+", &["a.b*", "a.b**"], &["aXb*"]),
            (r"a{,2}", &["a{,2}"], &["a", "aa"]),
            (r"a{2,3}", &["aa", "aaa"], &["a", "aaaa"]),
            (r"{", &["{"], &[""]),
            (r"[a&&b]", &["a", "&", "b"], &[""]),
            (r"[[a]", &["[", "a"], &["]"]),
            (r"[]a]", &["]", "a"], &["["]),
            (r"[a-]", &["a", "-"], &["b"]),
            (r"[~~]", &["~"], &[""]),
            (r"[[:alpha:]1]+", &["ab1"], &["2"]),
            (r"\<\>", &["<>"], &[""]),
            (r"\x41\x{42}\103", &["ABC"], &[]),
            (r"(?i)ab", &["AB", "aB"], &["ac"]),
            (r"(?i:a)b", &["Ab"], &["AB"]),
            (r"(?P<x>a)(?<y>b)", &["ab"], &[]),
            (r"\pL+", &["aü"], &["1"]),
            (r"\p{^Lu}", &["a"], &["A"]),
            (r"a\bb|a\b", &["a"], &["ab"]),
            (r"^a$", &["a"], &["a\n"]),
            (r"a??", &["", "a"], &["aa"]),
            (r"node;(.*)", &["node;x"], &["pod;x"]),
        ];
        for (pattern, yes, no) in table {
            for text in *yes {
                assert!(matches(pattern, text), "{pattern} {text:?}");
            }
            for text in *no {
                assert!(!matches(pattern, text), "{pattern} {text:?}");
            }
        }
    }

    #[test]
    fn refuses_what_re2_refuses() {
        for pattern in [
            "(",
            ")",
            "a**",
            "a*+",
            "a{1001}",
            "a{2,1}",
            "*",
            "|*",
            "(?=a)",
            "(?<!a)",
            "(?x)a",
            r"\1",
            r"\Z",
            r"\u0041",
            r"\e",
            "[a",
            "[z-a]",
            "[[:word2:]]",
            r"\",
            r"\pQ",
            "(?P<a.b>c)",
            r"\x{110000}",
            "(?P<n>a)(?P<n>b)",
        ] {
            assert!(compile(pattern).is_err(), "{pattern}");
        }
    }

    proptest! {
        #[test]
        fn takes_any_text(pattern in "\\PC{0,40}") {
            let _ = compile(&pattern);
        }

        #[test]
        fn quoted_text_matches_itself(text in "[^\\\\]{0,20}") {
            let quoted = format!("\\Q{text}\\E");
            prop_assert!(matches(&quoted, &text));
            if is_literal(&text) {
                prop_assert!(matches(&text, &text));
            }
        }
    }
}
