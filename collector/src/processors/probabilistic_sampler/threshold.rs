//! Thresholds and randomness of consistent sampling: numbers of 56 bits, written in hexadecimal. An item is kept when
//! its randomness is not below the threshold.

/// One more than the greatest randomness.
const RANGE: u64 = 1 << 56;
/// Hexadecimal digits of 56 bits.
const DIGITS: u32 = 14;
/// The least probability that a threshold can say.
const LEAST: f64 = 1.0 / RANGE as f64;

/// From what randomness on an item is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Threshold(u64);

/// An item's randomness.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Randomness(u64);

impl Threshold {
    pub(super) const ALWAYS: Threshold = Threshold(0);
    pub(super) const NEVER: Threshold = Threshold(RANGE);

    /// The threshold of a probability, with so many significant digits; `None` if it is none or too small.
    pub(super) fn of(probability: f64, digits: u32) -> Option<Self> {
        if probability == 1.0 {
            return Some(Threshold::ALWAYS);
        }
        if !(LEAST..1.0).contains(&probability) {
            return None;
        }
        // Near 0 and near 1 leading digits say nothing, so more of them are written.
        let more = |fraction: f64| (-exponent(fraction)).max(0) as u32 / 4;
        let digits = (digits + more(probability).max(more(1.0 - probability))).clamp(1, DIGITS);
        let scaled = (probability * RANGE as f64).round() as u64;
        let mut threshold = RANGE - scaled;
        let shift = 4 * (DIGITS - digits);
        if shift > 0 {
            threshold = (threshold + (1 << (shift - 1))) >> shift << shift;
        }
        Some(Threshold(threshold))
    }

    /// The threshold that rejects so many of 2^14 buckets.
    pub(super) fn of_buckets(rejected: u32) -> Self {
        Threshold(u64::from(rejected) << 42)
    }

    /// Reads what `th:` holds.
    pub(super) fn parse(text: &str) -> Option<Self> {
        let length = u32::try_from(text.len())
            .ok()
            .filter(|length| (1..=DIGITS).contains(length))?;
        hex(text).map(|value| Threshold(value << (4 * (DIGITS - length))))
    }

    /// What `th:` holds; empty for a threshold that keeps nothing.
    pub(super) fn text(self) -> String {
        match self {
            Threshold::ALWAYS => "0".to_owned(),
            Threshold::NEVER => String::new(),
            Threshold(value) => format!("{value:014x}").trim_end_matches('0').to_owned(),
        }
    }

    /// How likely an item is kept.
    pub(super) fn probability(self) -> f64 {
        (RANGE - self.0) as f64 / RANGE as f64
    }

    pub(super) fn keeps(self, randomness: Randomness) -> bool {
        randomness.0 >= self.0
    }
}

/// The binary exponent of a fraction, with its digits from a half to one.
fn exponent(fraction: f64) -> i32 {
    match fraction > 0.0 {
        true => fraction.log2().floor() as i32 + 1,
        false => 0,
    }
}

fn hex(text: &str) -> Option<u64> {
    let digits = text
        .bytes()
        .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
    digits.then(|| u64::from_str_radix(text, 16).ok()).flatten()
}

impl Randomness {
    /// What stands in for one that is missing: kept only by what keeps all.
    pub(super) const GREATEST: Randomness = Randomness(RANGE - 1);

    /// The last 56 bits of a trace identifier, unless it is none.
    pub(super) fn of_trace(id: &[u8]) -> Option<Self> {
        let id: [u8; 16] = id.try_into().ok().filter(|id| *id != [0; 16])?;
        Some(Randomness(
            (u128::from_be_bytes(id) & u128::from(RANGE - 1)) as u64,
        ))
    }

    /// Of a hash with a seed, FNV-1a of 32 bits, of which 14 decide. As other collectors compute it, so that they
    /// decide alike.
    pub(super) fn of_hash(bytes: &[u8], seed: u32) -> Self {
        let seed = seed.to_le_bytes();
        let hash = seed.iter().chain(bytes).fold(0x811c_9dc5_u32, |hash, byte| {
            (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193)
        });
        let bucket = u64::from(hash & 0x3fff);
        let unused = u64::from(hash >> 14);
        let mixed = (unused ^ (unused << 10)) & 0x0fff_ffff;
        Randomness(((0x3fff - bucket) << 42) | (mixed << 14) | bucket)
    }

    /// Reads what `rv:` holds.
    pub(super) fn parse(text: &str) -> Option<Self> {
        (text.len() == DIGITS as usize)
            .then(|| hex(text))
            .flatten()
            .map(Randomness)
    }

    /// What `rv:` holds.
    pub(super) fn text(self) -> String {
        format!("{:014x}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thresholds_are_written_as_the_specification_has_them() {
        let text = |probability: f64, digits| Threshold::of(probability, digits).unwrap().text();
        assert_eq!(text(1.0, 4), "0");
        assert_eq!(text(0.5, 4), "8");
        assert_eq!(text(0.25, 4), "c");
        assert_eq!(text(0.1, 4), "e666");
        assert_eq!(text(0.01, 4), "fd70a");
        assert_eq!(text(1.0 / 3.0, 4), "aaab");
        assert_eq!(Threshold::of(0.0, 4), None);
        assert_eq!(Threshold::NEVER.text(), "");
        for probability in [0.5, 0.25, 0.75, 0.001, 0.99] {
            let threshold = Threshold::of(probability, 14).unwrap();
            assert!((threshold.probability() - probability).abs() < 1e-9);
            assert_eq!(Threshold::parse(&threshold.text()), Some(threshold));
        }
        for wrong in ["", "g", "C", "123456789012345", "-1"] {
            assert_eq!(Threshold::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn randomness_is_of_56_bits() {
        let id = hex::decode("0102030405060708f102030405060708").unwrap();
        assert_eq!(Randomness::of_trace(&id).unwrap().text(), "02030405060708");
        assert_eq!(Randomness::of_trace(&[0; 16]), None);
        assert_eq!(Randomness::of_trace(&[1; 8]), None);
        assert_eq!(
            Randomness::parse("02030405060708").unwrap().text(),
            "02030405060708"
        );
        assert_eq!(Randomness::parse("2"), None);
    }

    #[test]
    fn a_hash_decides_by_its_bucket() {
        // FNV-1a of nothing after the four bytes of the seed.
        for seed in 0..50 {
            let randomness = Randomness::of_hash(b"abc", seed);
            let bucket = 0x3fff - (randomness.0 >> 42);
            assert_eq!(bucket, randomness.0 & 0x3fff);
            let kept = Threshold::of_buckets(0x4000 - 1000).keeps(randomness);
            assert_eq!(kept, bucket < 1000);
        }
    }
}
