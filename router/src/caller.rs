//! Who opened a connection: told to the target that wants to know it, and to the routers on the way.

use std::net::SocketAddr;

use crate::proxy_protocol::Ends;
use crate::trace::TraceParent;
use crate::wire::Open;

/// Who opened a connection.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The real client and what it connected to, as far as the first router knows.
    pub(crate) ends: Option<Ends>,
    /// The span of this router.
    pub(crate) trace: TraceParent,
}

impl Caller {
    /// A client of this site: its trace begins here.
    pub(crate) fn here(ends: Option<Ends>) -> Self {
        Self {
            ends,
            trace: TraceParent::new(),
        }
    }

    /// What the header of a stream says; whatever of it makes no sense is as if it had not been said.
    pub(crate) fn of(header: &Open) -> Self {
        let address = |text: &str| text.parse::<SocketAddr>().ok();
        let ends = address(&header.client)
            .zip(address(&header.destination))
            .map(|(source, destination)| Ends { source, destination });
        Self {
            ends,
            trace: TraceParent::parse(&header.trace_parent).map_or_else(TraceParent::new, TraceParent::child),
        }
    }

    /// Puts it into the header of a stream.
    pub(crate) fn tell(&self, header: &mut Open) {
        if let Some(ends) = self.ends {
            header.client = ends.source.to_string();
            header.destination = ends.destination.to_string();
        }
        header.trace_parent = self.trace.to_string();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_told_is_understood_and_nonsense_is_not() {
        let ends = Ends {
            source: "192.0.2.1:5000".parse().unwrap(),
            destination: "[2001:db8::1]:80".parse().unwrap(),
        };
        let here = Caller::here(Some(ends));
        let mut header = Open::default();
        here.tell(&mut header);
        let there = Caller::of(&header);
        assert_eq!(there.ends, Some(ends));
        assert_eq!(there.trace.to_string()[..36], here.trace.to_string()[..36]);
        header.client = "somebody".into();
        assert_eq!(Caller::of(&header).ends, None);
    }
}
