//! Consistent hashing with bounded load, placed as the OpenTelemetry allocator's library (version 0.10) places:
//! 1,061 partitions, five points a collector on the ring, at most 1.1 times the mean.

use xxhash_rust::xxh64::xxh64;

use crate::seats::{NOBODY, Seat, Seats};

/// Partitions that targets fall into.
pub(crate) const PARTITIONS: usize = 1061;
const POINTS: usize = 5;
const LOAD: f64 = 1.1;

/// Who owns each partition.
#[derive(Debug, Default)]
pub(crate) struct Ring {
    owners: Vec<Seat>,
}

impl Ring {
    pub(crate) fn new(seats: &Seats) -> Self {
        let names = seats.serving.iter().filter_map(|seat| seats.get(*seat));
        let names: Vec<&str> = names.map(|member| &*member.name).collect();
        let owners = owners(&names);
        let seat = |index: Option<usize>| index.and_then(|index| seats.serving.get(index).copied());
        Ring {
            owners: owners
                .into_iter()
                .map(|index| seat(index).unwrap_or(NOBODY))
                .collect(),
        }
    }

    pub(crate) fn owner(&self, partition: u16) -> Option<Seat> {
        let owner = self.owners.get(usize::from(partition)).copied();
        owner.filter(|seat| *seat != NOBODY)
    }
}

/// The owner of each partition, by its place among the names.
fn owners(names: &[&str]) -> Vec<Option<usize>> {
    if names.is_empty() {
        return vec![None; PARTITIONS];
    }
    let mut ring: Vec<(u64, usize)> = Vec::with_capacity(names.len() * POINTS);
    for (index, name) in names.iter().enumerate() {
        for point in 0..POINTS {
            ring.push((xxh64(format!("{name}{point}").as_bytes(), 0), index));
        }
    }
    ring.sort_unstable();
    // The library divides whole numbers; with more collectors than partitions it would allow none anything.
    let mean = (PARTITIONS / names.len()) as f64;
    let most = ((mean * LOAD).ceil() as usize).max(1);
    let mut loads = vec![0usize; names.len()];
    let mut owner = |partition: usize| {
        let hash = xxh64(&(partition as u64).to_le_bytes(), 0);
        let start = ring.partition_point(|(point, _)| *point < hash);
        let walk = ring[start..].iter().chain(&ring[..start]);
        let found = walk.map(|(_, index)| *index).find(|index| loads[*index] < most)?;
        loads[found] += 1;
        Some(found)
    };
    let owners: Vec<_> = (0..PARTITIONS).map(&mut owner).collect();
    // Rounding can leave the last partitions without room anywhere: they go round.
    owners
        .into_iter()
        .enumerate()
        .map(|(p, owner)| owner.or(Some(p % names.len())))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_partition_has_an_owner_within_the_bound() {
        for count in [1usize, 2, 3, 7, 50, 1061, 3000] {
            let names: Vec<String> = (0..count).map(|index| format!("collector-{index}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let owners = owners(&names);
            assert_eq!(owners.len(), PARTITIONS);
            let most = ((PARTITIONS / count) as f64 * LOAD).ceil().max(1.0) as usize;
            for index in 0..count {
                let has = owners.iter().filter(|owner| **owner == Some(index)).count();
                assert!(has <= most + 1, "{count}: {index} has {has} of {most}");
            }
        }
        assert!(owners(&[]).iter().all(Option::is_none));
    }

    /// What the library itself answers, as a program of it printed: a hash of the owners' names, a line each.
    #[test]
    fn places_as_the_library_does() {
        for (count, expected) in [
            (1, 0xbe3a_7c76_7244_3821),
            (3, 0x50a4_583e_ee73_0ad0),
            (7, 0x98c8_2f4f_128d_a542),
            (50, 0x7671_cd47_eff2_e058),
            (200, 0xc0dd_0483_3ac2_6064u64),
        ] {
            let names: Vec<String> = (0..count).map(|index| format!("collector-{index}")).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let lines: String = owners(&names)
                .iter()
                .map(|owner| format!("{}\n", names[owner.unwrap()]))
                .collect();
            assert_eq!(xxh64(lines.as_bytes(), 0), expected, "{count}");
        }
    }

    #[test]
    fn few_partitions_move_when_a_collector_comes() {
        let names: Vec<String> = (0..11).map(|index| format!("c{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let (before, after) = (owners(&names[..10]), owners(&names));
        let moved = before.iter().zip(&after).filter(|(a, b)| a != b).count();
        assert!(moved < PARTITIONS / 2, "{moved}");
    }
}
