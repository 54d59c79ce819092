//! A histogram whose buckets adapt: their bounds are powers of 2^(2^-scale), and the scale falls when they become too
//! many.

use std::collections::VecDeque;

use opentelemetry_proto::tonic::metrics::v1::exponential_histogram_data_point::Buckets;

/// The finest scale.
const MAX_SCALE: i32 = 20;

/// Counts of positive numbers.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Exponential {
    most: usize,
    scale: i32,
    offset: i32,
    counts: VecDeque<u64>,
    pub(super) zeros: u64,
}

impl Exponential {
    pub(super) fn new(most: u32) -> Self {
        Exponential {
            most: most.max(2) as usize,
            scale: MAX_SCALE,
            offset: 0,
            counts: VecDeque::new(),
            zeros: 0,
        }
    }

    pub(super) fn scale(&self) -> i32 {
        self.scale
    }

    pub(super) fn buckets(&self) -> Buckets {
        Buckets {
            offset: self.offset,
            bucket_counts: self.counts.iter().copied().collect(),
        }
    }

    pub(super) fn record(&mut self, value: f64) {
        // Also what is no number.
        if value
            .partial_cmp(&f64::MIN_POSITIVE)
            .is_none_or(std::cmp::Ordering::is_lt)
        {
            self.zeros += 1;
            return;
        }
        let mut index = self.index(value);
        if self.counts.is_empty() {
            self.offset = index;
            self.counts.push_back(1);
            return;
        }
        while self.span(index) > self.most as i64 {
            self.coarsen();
            index = self.index(value);
        }
        while index < self.offset {
            self.counts.push_front(0);
            self.offset -= 1;
        }
        let at = (index - self.offset) as usize;
        while at >= self.counts.len() {
            self.counts.push_back(0);
        }
        self.counts[at] += 1;
    }

    /// The bucket of a value: from above its lower bound to its upper.
    fn index(&self, value: f64) -> i32 {
        (value.log2() * f64::from(self.scale).exp2()).ceil() as i32 - 1
    }

    /// How many buckets there are with this one.
    fn span(&self, index: i32) -> i64 {
        let last = i64::from(self.offset) + self.counts.len() as i64 - 1;
        last.max(i64::from(index)) - i64::from(self.offset.min(index)) + 1
    }

    /// Makes one of every two buckets.
    fn coarsen(&mut self) {
        let offset = self.offset >> 1;
        let mut counts: VecDeque<u64> = VecDeque::new();
        for (at, count) in self.counts.iter().enumerate() {
            let index = (((i64::from(self.offset) + at as i64) >> 1) - i64::from(offset)) as usize;
            if index >= counts.len() {
                counts.resize(index + 1, 0);
            }
            counts[index] += count;
        }
        (self.offset, self.counts) = (offset, counts);
        self.scale -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn every_value_is_in_its_bucket_and_they_are_few(values in proptest::collection::vec(1e-9f64..1e12, 1..300)) {
            let mut histogram = Exponential::new(20);
            values.iter().for_each(|value| histogram.record(*value));
            let buckets = histogram.buckets();
            prop_assert!(buckets.bucket_counts.len() <= 20);
            prop_assert_eq!(buckets.bucket_counts.iter().sum::<u64>(), values.len() as u64);
            let base = f64::from(-histogram.scale()).exp2().exp2();
            for value in &values {
                let near = |at: usize| {
                    let low = base.powi(buckets.offset + at as i32);
                    *value > low * 0.999_999 && *value <= low * base * 1.000_001
                };
                prop_assert!((0..buckets.bucket_counts.len()).any(near), "{value} in {buckets:?}");
            }
        }
    }

    #[test]
    fn powers_of_two_are_the_upper_ends() {
        let mut histogram = Exponential::new(160);
        histogram.record(0.0);
        histogram.record(f64::NAN);
        assert_eq!((histogram.zeros, histogram.buckets().bucket_counts.len()), (2, 0));
        for power in 0..200 {
            histogram.record(f64::from(power).exp2());
        }
        assert_eq!((histogram.scale(), histogram.buckets().offset), (-1, -1));
        assert_eq!(histogram.buckets().bucket_counts.len(), 101);
    }
}
