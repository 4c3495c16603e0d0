//! From slices to figures. Pure.

use meshwork_caller::Slice;

use meshwork_harness::figure::median;

/// The geometric mean of the ratios of neighbouring slices.
pub(crate) fn ratio(these: &[Slice], those: &[Slice], figure: impl Fn(&Slice) -> f64) -> f64 {
    let pairs = these.iter().zip(those).map(|(this, that)| figure(this) / figure(that));
    geometric_mean(&pairs.collect::<Vec<_>>())
}

/// The median of the ratios of neighbouring slices.
pub(crate) fn median_ratio(these: &[Slice], those: &[Slice], figure: impl Fn(&Slice) -> f64) -> f64 {
    let pairs = these.iter().zip(those).map(|(this, that)| figure(this) / figure(that));
    median(&pairs.collect::<Vec<_>>())
}

/// The median of a figure over the slices.
pub(crate) fn median_of(slices: &[Slice], figure: impl Fn(&Slice) -> f64) -> f64 {
    median(&slices.iter().map(figure).collect::<Vec<_>>())
}

/// One ratio at each number of calls in flight.
#[derive(Debug, Default)]
pub(crate) struct Ratios(Vec<f64>);

impl Ratios {
    /// Adds that of one more number of calls in flight.
    pub(crate) fn add(&mut self, ratio: f64) {
        self.0.push(ratio);
    }

    /// The geometric mean.
    pub(crate) fn mean(&self) -> f64 {
        geometric_mean(&self.0)
    }

    /// The worst, if more is better.
    pub(crate) fn lowest(&self) -> f64 {
        self.0.iter().copied().fold(f64::INFINITY, f64::min)
    }

    /// The worst, if less is better.
    pub(crate) fn highest(&self) -> f64 {
        self.0.iter().copied().fold(f64::NEG_INFINITY, f64::max)
    }
}

fn geometric_mean(values: &[f64]) -> f64 {
    (values.iter().map(|value| value.ln()).sum::<f64>() / values.len() as f64).exp()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn slices(calls: &[u64]) -> Vec<Slice> {
        let slice = |calls: &u64| Slice { calls: *calls, took: Duration::from_secs(1), ..Slice::default() };
        calls.iter().map(slice).collect()
    }

    #[test]
    fn ratios_that_mirror_each_other_cancel_out() {
        assert!((ratio(&slices(&[100, 400]), &slices(&[200, 200]), Slice::calls_per_s) - 1.0).abs() < 1e-12);
        assert!((ratio(&slices(&[300]), &slices(&[100]), Slice::calls_per_s) - 3.0).abs() < 1e-12);
    }

    #[test]
    fn what_slows_a_whole_pair_down_does_not_change_the_ratio() {
        assert!((ratio(&slices(&[200, 20]), &slices(&[100, 10]), Slice::calls_per_s) - 2.0).abs() < 1e-12);
        assert!((median_of(&slices(&[200, 20, 30]), Slice::calls_per_s) - 30.0).abs() < 1e-12);
    }

    #[test]
    fn the_worst_is_the_lowest_or_the_highest() {
        let mut ratios = Ratios::default();
        for ratio in [0.5, 2.0, 1.0] {
            ratios.add(ratio);
        }
        assert_eq!((ratios.lowest(), ratios.highest()), (0.5, 2.0));
        assert!((ratios.mean() - 1.0).abs() < 1e-12);
    }
}
