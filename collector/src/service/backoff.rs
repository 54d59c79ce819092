//! Waits between attempts.

use std::time::Duration;

use karez_collector_config::common::Retry;

/// Waits that grow, each chosen at random around its middle.
#[derive(Debug, Default)]
pub(crate) struct Backoff {
    last: Option<Duration>,
}

impl Backoff {
    pub(crate) fn next(&mut self, retry: &Retry) -> Duration {
        let middle = match self.last {
            None => retry.initial_interval,
            Some(last) => last.mul_f64(retry.multiplier.clamp(1.0, 100.0)),
        };
        let middle = middle.min(retry.max_interval.max(Duration::from_millis(1)));
        self.last = Some(middle);
        let factor = retry.randomization_factor.clamp(0.0, 1.0);
        middle.mul_f64(1.0 + factor * (rand::random::<f64>() * 2.0 - 1.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound() {
        let retry = Retry {
            randomization_factor: 0.0,
            ..Retry::default()
        };
        let mut backoff = Backoff::default();
        let waits: Vec<f64> = (0..8).map(|_| backoff.next(&retry).as_secs_f64()).collect();
        assert_eq!(&waits[..3], [5.0, 7.5, 11.25]);
        assert_eq!(waits[7], 30.0);
    }
}
