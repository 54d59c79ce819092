//! W3C trace context: one trace a connection, a span for each router on its way, so that their access logs meet.

use std::fmt;

/// A `traceparent`, version 00.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TraceParent {
    trace: u128,
    span: u64,
    flags: u8,
}

impl TraceParent {
    /// A new trace, not sampled.
    pub(crate) fn new() -> Self {
        Self {
            trace: rand::random::<u128>().max(1),
            span: rand::random::<u64>().max(1),
            flags: 0,
        }
    }

    /// What another router said; `None` when it makes no sense.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let digits = |part: &str, length: usize| {
            let lower = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
            (part.len() == length && part.bytes().all(lower)).then(|| u128::from_str_radix(part, 16).ok())?
        };
        let mut parts = text.split('-');
        let (version, trace, span, flags) = (parts.next()?, parts.next()?, parts.next()?, parts.next()?);
        // Later versions may say more after that.
        if digits(version, 2)? == 0xff || (version == "00" && parts.next().is_some()) {
            return None;
        }
        let parent = Self {
            trace: digits(trace, 32)?,
            span: u64::try_from(digits(span, 16)?).ok()?,
            flags: u8::try_from(digits(flags, 2)?).ok()?,
        };
        (parent.trace != 0 && parent.span != 0).then_some(parent)
    }

    /// The same trace with a span of its own.
    pub(crate) fn child(self) -> Self {
        Self {
            span: rand::random::<u64>().max(1),
            ..self
        }
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, self.flags)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_parent_comes_back_and_its_child_has_the_same_trace() {
        let parent = TraceParent::new();
        assert_eq!(TraceParent::parse(&parent.to_string()), Some(parent));
        let child = parent.child();
        assert_eq!(child.to_string()[..36], parent.to_string()[..36]);
        assert_ne!(child.span, parent.span);
    }

    #[test]
    fn refuses_what_the_specification_refuses() {
        let good = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
        assert!(TraceParent::parse(good).is_some());
        for bad in [
            "",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-x",
        ] {
            assert_eq!(TraceParent::parse(bad), None, "{bad}");
        }
    }

    proptest! {
        #[test]
        fn foreign_text_never_panics(text in ".{0,80}") {
            let _ = TraceParent::parse(&text);
        }
    }
}
