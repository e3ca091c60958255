//! Numbers of one kind, and what is told of them.

use std::time::Duration;

/// Samples of one figure, in its unit.
#[derive(Debug, Clone, Default)]
pub(super) struct Samples(Vec<f64>);

impl Samples {
    pub(super) fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    pub(super) fn extend(&mut self, more: &Self) {
        self.0.extend(&more.0);
    }

    pub(super) fn push_duration(&mut self, duration: Duration) {
        self.push(duration.as_secs_f64() * 1000.0);
    }

    pub(super) fn count(&self) -> usize {
        self.0.len()
    }

    /// The smallest sample that at least this many hundredths of all do not exceed; 0 of nothing.
    pub(super) fn percentile(&self, hundredths: usize) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let rank = (sorted.len() * hundredths).div_ceil(100).max(1);
        sorted.get(rank - 1).copied().unwrap_or(0.0)
    }

    pub(super) fn p50(&self) -> f64 {
        self.percentile(50)
    }

    pub(super) fn p99(&self) -> f64 {
        self.percentile(99)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(values: &[f64], p50: f64, p99: f64) {
        let samples = Samples(values.to_vec());
        assert_eq!((samples.p50(), samples.p99()), (p50, p99));
    }

    #[test]
    fn percentiles_are_samples_by_nearest_rank() {
        check(&[], 0.0, 0.0);
        check(&[7.0], 7.0, 7.0);
        check(&[3.0, 1.0, 2.0], 2.0, 3.0);
        let hundred: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        check(&hundred, 50.0, 99.0);
    }
}
