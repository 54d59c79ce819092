//! Which clients have a session: bounded, and full of the ones that were active last. No clock: times come in.

use std::collections::{BTreeSet, HashMap};
use std::net::SocketAddr;

/// Something with a last activity, in milliseconds of a clock that its owner knows.
pub(super) trait Active {
    /// When it was last active.
    fn last(&self) -> u64;
}

/// Client → session.
#[derive(Debug)]
pub(super) struct Table<T> {
    limit: usize,
    sessions: HashMap<SocketAddr, (u64, T)>,
    /// By activity as far as it is known here: never later than it was.
    order: BTreeSet<(u64, SocketAddr)>,
}

impl<T: Active> Table<T> {
    /// A table of at most so many.
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            sessions: HashMap::new(),
            order: BTreeSet::new(),
        }
    }

    /// The session of a client.
    pub(super) fn find(&self, client: &SocketAddr) -> Option<&T> {
        self.sessions.get(client).map(|(_, session)| session)
    }

    /// Adds a client's session; gives back the one that had to go for it: the client's old one, else the one that was
    /// idle longest.
    pub(super) fn insert(&mut self, client: SocketAddr, session: T) -> Option<T> {
        let replaced = self.remove(&client);
        let evicted = if self.sessions.len() >= self.limit {
            self.evict()
        } else {
            None
        };
        let last = session.last();
        self.order.insert((last, client));
        self.sessions.insert(client, (last, session));
        replaced.or(evicted)
    }

    /// Removes a client's session.
    pub(super) fn remove(&mut self, client: &SocketAddr) -> Option<T> {
        let (known, session) = self.sessions.remove(client)?;
        self.order.remove(&(known, *client));
        Some(session)
    }

    fn evict(&mut self) -> Option<T> {
        loop {
            let (known, client) = self.order.pop_first()?;
            let (stored, session) = self.sessions.get_mut(&client)?;
            let last = session.last();
            if last <= known {
                return self.sessions.remove(&client).map(|(_, session)| session);
            }
            *stored = last;
            self.order.insert((last, client));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;
    use std::rc::Rc;

    use proptest::prelude::*;

    use super::*;

    type Session = Rc<Cell<u64>>;

    impl Active for Session {
        fn last(&self) -> u64 {
            self.get()
        }
    }

    fn client(number: u16) -> SocketAddr {
        ([127, 0, 0, 1], number).into()
    }

    proptest! {
        #[test]
        fn the_one_that_was_idle_longest_goes(
            steps in proptest::collection::vec((0u16..12, any::<bool>()), 1..100),
        ) {
            let mut table: Table<Session> = Table::new(4);
            let mut model: Vec<(u16, Session)> = Vec::new();
            for (now, (number, gone)) in (1u64..).zip(steps) {
                if gone {
                    table.remove(&client(number));
                    model.retain(|(known, _)| *known != number);
                } else if let Some(session) = table.find(&client(number)) {
                    session.set(now);
                } else {
                    let session = Session::new(Cell::new(now));
                    let evicted = table.insert(client(number), session.clone());
                    let oldest = model.iter().map(|(_, session)| session.get()).min();
                    prop_assert_eq!(evicted.is_some(), model.len() == 4);
                    if let Some(evicted) = evicted {
                        prop_assert_eq!(Some(evicted.get()), oldest);
                        model.retain(|(_, session)| !Rc::ptr_eq(session, &evicted));
                    }
                    model.push((number, session));
                }
                prop_assert!(model.len() <= 4 && table.order.len() == model.len());
            }
        }
    }
}
