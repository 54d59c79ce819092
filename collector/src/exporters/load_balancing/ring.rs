//! Which backend has what: a ring of points, of which each backend has a hundred. The points are those of the
//! OpenTelemetry Collector, so that collectors of both kinds side by side send a trace to the same backend.

/// Places on the ring.
const PLACES: u32 = 36_000;
/// Points of a backend.
const POINTS: u8 = 100;

/// The backends' points, by place.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Ring {
    points: Vec<(u32, usize)>,
    backends: Vec<String>,
}

fn hash(parts: &[&[u8]]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    parts.iter().for_each(|part| hasher.update(part));
    hasher.finalize() % PLACES
}

impl Ring {
    /// A ring of these backends; their order does not matter.
    pub(super) fn new(mut backends: Vec<String>) -> Self {
        backends.sort_unstable();
        backends.dedup();
        let mut points = Vec::with_capacity(backends.len() * POINTS as usize);
        for (index, backend) in backends.iter().enumerate() {
            points.extend((0..POINTS).map(|point| (hash(&[backend.as_bytes(), &[point]]), index)));
        }
        points.sort_unstable();
        points.dedup_by_key(|(place, _)| *place);
        Ring { points, backends }
    }

    /// All backends.
    pub(super) fn backends(&self) -> &[String] {
        &self.backends
    }

    /// The backend that has a key; `None` without any backend.
    pub(super) fn find(&self, key: &[u8]) -> Option<usize> {
        let place = hash(&[key]);
        let index = self.points.partition_point(|(other, _)| *other < place);
        let (_, backend) = self.points.get(index).or(self.points.first())?;
        Some(*backend)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(names: &[&str]) -> Ring {
        Ring::new(names.iter().map(|name| (*name).to_owned()).collect())
    }

    #[test]
    fn a_backend_that_goes_moves_only_what_it_had() {
        let (three, two) = (ring(&["a:1", "b:1", "c:1"]), ring(&["c:1", "a:1"]));
        let mut counts = [0; 3];
        for key in 0u32..3000 {
            let key = key.to_be_bytes();
            let before = three.find(&key).unwrap();
            counts[before] += 1;
            let after = two.find(&key).unwrap();
            if three.backends()[before] != "b:1" {
                assert_eq!(three.backends()[before], two.backends()[after]);
            }
        }
        assert!(
            counts.iter().all(|count| (500..1700).contains(count)),
            "{counts:?}"
        );
        assert_eq!(ring(&[]).find(b"x"), None);
        assert_eq!(ring(&["a", "b", "a"]), ring(&["b", "a"]));
    }
}
