//! The handshakes that are under way at a port: bounded, and no one's flood keeps others out.
//!
//! ```text
//!  a peer comes ──▶ a Place ──▶ handshake, hello ──▶ a link: the place is free again
//!                      └── one too many: of the address with the most, the oldest gives way
//! ```
//!
//! Who opens handshakes and leaves them half open drives out its own; a peer elsewhere, and one that is quick, are not hurt.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio_util::sync::CancellationToken;

/// The places of a port; clones are the same.
#[derive(Clone)]
pub(super) struct Places {
    most: usize,
    state: Arc<Mutex<State>>,
}

#[derive(Default)]
struct State {
    count: usize,
    next: u64,
    /// By where they come from, the oldest first.
    taken: HashMap<IpAddr, VecDeque<(u64, CancellationToken)>>,
}

/// A peer's place, until dropped.
pub(super) struct Place {
    places: Places,
    from: IpAddr,
    number: u64,
    lost: CancellationToken,
}

impl Places {
    /// So many.
    pub(super) fn new(most: usize) -> Self {
        Self {
            most,
            state: Arc::default(),
        }
    }

    /// A place for a peer. Somebody else may lose one for it.
    pub(super) fn take(&self, peer: IpAddr) -> Place {
        let from = network(peer);
        let lost = CancellationToken::new();
        let mut state = self.state();
        state.next += 1;
        let number = state.next;
        state.count += 1;
        let places = state.taken.entry(from).or_default();
        places.push_back((number, lost.clone()));
        if state.count > self.most {
            state.give_way();
        }
        drop(state);
        Place {
            places: self.clone(),
            from,
            number,
            lost,
        }
    }

    /// Whether more than half are taken.
    pub(super) fn is_busy(&self) -> bool {
        self.state().count > self.most / 2
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Each change is whole before anything could panic.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// Takes the oldest place of the address that has the most; of several such the longest taken.
    fn give_way(&mut self) {
        let oldest = |places: &VecDeque<(u64, CancellationToken)>| places.front().map(|(number, _)| *number);
        let most = self
            .taken
            .iter()
            .max_by_key(|(_, places)| (places.len(), std::cmp::Reverse(oldest(places))))
            .map(|(from, places)| (*from, oldest(places)));
        if let Some((from, Some(number))) = most
            && let Some(lost) = self.free(from, number)
        {
            lost.cancel();
        }
    }

    fn free(&mut self, from: IpAddr, number: u64) -> Option<CancellationToken> {
        let places = self.taken.get_mut(&from)?;
        let index = places.iter().position(|(taken, _)| *taken == number)?;
        let (_, lost) = places.remove(index)?;
        if places.is_empty() {
            self.taken.remove(&from);
        }
        self.count -= 1;
        Some(lost)
    }
}

impl Place {
    /// Waits until it had to give way.
    pub(super) async fn lost(&self) {
        self.lost.cancelled().await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Gone already when it had to give way.
        self.places.state().free(self.from, self.number);
    }
}

/// Who has one address of such a network has all of them.
fn network(peer: IpAddr) -> IpAddr {
    match peer.to_canonical() {
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & (u128::MAX << 64)).into(),
        v4 => v4,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_lost(place: &Place) -> bool {
        place.lost.is_cancelled()
    }

    #[test]
    fn who_has_the_most_gives_way() {
        let places = Places::new(8);
        let honest = places.take([10, 0, 0, 1].into());
        let flood: Vec<_> = (0..10_000).map(|_| places.take([10, 0, 0, 2].into())).collect();
        assert!(!is_lost(&honest));
        assert_eq!(flood.iter().filter(|place| !is_lost(place)).count(), 7);
        assert!(flood[..9_993].iter().all(is_lost), "the oldest go first");
        let late = places.take([10, 0, 0, 3].into());
        assert!(!is_lost(&late) && !is_lost(&honest) && places.is_busy());
        drop((flood, honest, late));
        assert!(!places.is_busy() && places.state().taken.is_empty());
    }

    #[test]
    fn of_equals_the_longest_waiting_gives_way() {
        let places = Places::new(2);
        let all: Vec<_> = (1..=4u8)
            .map(|last| places.take([10, 0, 0, last].into()))
            .collect();
        assert_eq!(
            all.iter().map(is_lost).collect::<Vec<_>>(),
            [true, true, false, false]
        );
    }

    #[test]
    fn addresses_of_one_network_count_as_one() {
        let places = Places::new(3);
        let honest = places.take("2001:db8:1::1".parse().unwrap());
        let flood: Vec<_> = (0..9u16)
            .map(|n| places.take(IpAddr::from([0x2001, 0xdb8, 2, 0, n, 0, 0, 1])))
            .collect();
        assert!(!is_lost(&honest));
        assert_eq!(flood.iter().filter(|place| !is_lost(place)).count(), 2);
    }
}
