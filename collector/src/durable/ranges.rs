//! Sets of sequence numbers that are nearly gapless.

use std::collections::BTreeMap;

/// Half-open ranges that neither touch nor overlap.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Ranges(BTreeMap<u64, u64>);

impl Ranges {
    /// Adds one number; says whether it is new.
    pub(crate) fn insert(&mut self, number: u64) -> bool {
        let new = !self.contains(number) && number < u64::MAX;
        if new {
            self.add(number, number + 1);
        }
        new
    }

    /// Adds `from..to`.
    pub(crate) fn add(&mut self, mut from: u64, mut to: u64) {
        if from >= to {
            return;
        }
        if let Some((&start, &end)) = self.0.range(..=from).next_back()
            && end >= from
        {
            from = start;
            to = to.max(end);
        }
        while let Some((&start, &end)) = self.0.range(from..=to).next() {
            self.0.remove(&start);
            to = to.max(end);
        }
        self.0.insert(from, to);
    }

    /// Whether a number is in it.
    pub(crate) fn contains(&self, number: u64) -> bool {
        let before = self.0.range(..=number).next_back();
        before.is_some_and(|(_, end)| *end > number)
    }

    /// How many ranges it has.
    pub(crate) fn len(&self) -> usize {
        self.0.len()
    }

    /// The ranges in order.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, u64)> {
        self.0.iter().map(|(from, to)| (*from, *to))
    }

    /// What of it lies in `from..to`.
    pub(crate) fn within(&self, from: u64, to: u64) -> Ranges {
        let mut out = Ranges::default();
        for (start, end) in self.iter() {
            out.add(start.max(from), end.min(to));
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeSet;

    proptest! {
        #[test]
        fn holds_what_was_put_in(ranges in prop::collection::vec((0u64..60, 0u64..9), 0..20), single in 0u64..70) {
            let (mut set, mut wanted) = (Ranges::default(), BTreeSet::new());
            for (from, length) in ranges {
                set.add(from, from + length);
                wanted.extend(from..from + length);
            }
            prop_assert_eq!(set.insert(single), wanted.insert(single));
            let all: BTreeSet<u64> = set.iter().flat_map(|(from, to)| from..to).collect();
            prop_assert_eq!(&all, &wanted);
            prop_assert!((0..80).all(|n| set.contains(n) == wanted.contains(&n)));
            let ends: Vec<_> = set.iter().collect();
            prop_assert!(ends.windows(2).all(|pair| pair[0].1 < pair[1].0));
        }
    }
}
