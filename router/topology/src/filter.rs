//! What a peer may do with addresses: offer them, reach them. Filled from tokens' scopes; the default allows all.

use std::collections::BTreeSet;

/// A set of addresses' names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    /// Every one.
    #[default]
    Any,
    /// These names; one that ends in `*` stands for all that begin so.
    Only(BTreeSet<String>),
    /// All but these names.
    Except(BTreeSet<String>),
}

impl Scope {
    /// These names and patterns.
    pub fn only<S: Into<String>>(names: impl IntoIterator<Item = S>) -> Self {
        Self::Only(names.into_iter().map(Into::into).collect())
    }

    /// Whether a name is in it.
    pub fn allows(&self, name: &str) -> bool {
        match self {
            Self::Any => true,
            Self::Except(names) => !names.contains(name),
            Self::Only(names) => {
                names.contains(name)
                    || names.iter().any(|known| {
                        known
                            .strip_suffix('*')
                            .is_some_and(|start| name.starts_with(start))
                    })
            }
        }
    }
}

/// What the peer of one link may do.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// Addresses that it may offer: others that it announces are not believed.
    pub offer: Scope,
    /// Addresses that it may reach: it is not told of others.
    pub reach: Scope,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_patterns_are_allowed_and_nothing_else() {
        let scope = Scope::only(["otel", "edge-*"]);
        assert!(scope.allows("otel") && scope.allows("edge-7") && scope.allows("edge-"));
        assert!(!scope.allows("otel2") && !scope.allows("edge") && !scope.allows(""));
        assert!(Scope::default().allows("anything"));
        let rest = Scope::Except(BTreeSet::from(["otel".to_owned()]));
        assert!(!rest.allows("otel") && rest.allows("otel2"));
    }
}
