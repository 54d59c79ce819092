//! What differs between two keyed sets: old and new in, what to add, change and remove out.

use std::collections::BTreeMap;

/// The names that differ. What is in none of the three is not to be touched.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Difference {
    /// Only in the new one.
    pub added: Vec<String>,
    /// In both, with another value.
    pub changed: Vec<String>,
    /// Only in the old one.
    pub removed: Vec<String>,
}

impl Difference {
    /// Compares two sets.
    pub fn between<T: PartialEq>(old: &BTreeMap<String, T>, new: &BTreeMap<String, T>) -> Self {
        let mut difference = Self::default();
        for (name, value) in new {
            match old.get(name) {
                None => difference.added.push(name.clone()),
                Some(was) if was != value => difference.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        difference
            .removed
            .extend(old.keys().filter(|name| !new.contains_key(*name)).cloned());
        difference
    }

    /// What must go before the new is made: removed and changed ones.
    pub fn to_stop(&self) -> impl Iterator<Item = &String> {
        self.removed.iter().chain(&self.changed)
    }

    /// What is to be made: changed and added ones.
    pub fn to_start(&self) -> impl Iterator<Item = &String> {
        self.changed.iter().chain(&self.added)
    }

    /// Whether nothing differs.
    pub fn is_empty(&self) -> bool {
        self.added.is_empty() && self.changed.is_empty() && self.removed.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_only_what_differs() {
        let set = |items: &[(&str, u8)]| items.iter().map(|(k, v)| ((*k).to_owned(), *v)).collect();
        let difference = Difference::between(
            &set(&[("a", 1), ("b", 1), ("c", 1)]),
            &set(&[("b", 1), ("c", 2), ("d", 1)]),
        );
        assert_eq!(difference.added, ["d"]);
        assert_eq!(difference.changed, ["c"]);
        assert_eq!(difference.removed, ["a"]);
        assert!(Difference::between(&set(&[("a", 1)]), &set(&[("a", 1)])).is_empty());
    }
}
