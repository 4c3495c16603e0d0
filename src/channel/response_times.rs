//! How long the answers of a method take: the 95th percentile of the last thousand or so.
//!
//! A histogram with eight buckets for each doubling, so that the percentile is at most a tenth too high, and never too low.
//! When it is full all counts are halved: old answers fade. Recording takes one short lock; reading takes none.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;

const PER_DOUBLING: u32 = 8;
/// The first bucket's end. No hedge is made earlier, so that shorter times need not be distinguished.
const SHORTEST: Duration = Duration::from_millis(1);
/// From a millisecond to a minute: no call waits longer for a hedge.
const DOUBLINGS: u32 = 16;
const BUCKETS: usize = (PER_DOUBLING * DOUBLINGS) as usize + 1;
/// Answers that are remembered: enough for a percentile that is not one or two outliers, few enough to follow a service that
/// changes.
const FULL: u32 = 1024;
/// The percentile is computed anew after this many answers; for fewer it is the longest anyway.
const REFRESH: u32 = 16;

/// What is remembered of a method's answers. Shared by all calls of a channel.
#[derive(Debug, Default)]
pub(crate) struct ResponseTimes {
    /// In nanoseconds; 0: nothing is known.
    p95: AtomicU64,
    histogram: Mutex<Histogram>,
}

impl ResponseTimes {
    /// Notes an answer.
    pub(crate) fn record(&self, took: Duration) {
        let mut histogram = self.histogram.lock();
        histogram.record(took);
        if histogram.total < REFRESH || histogram.total.is_multiple_of(REFRESH) {
            let p95 = u64::try_from(histogram.p95().as_nanos()).unwrap_or(u64::MAX);
            self.p95.store(p95, Ordering::Relaxed);
        }
    }

    /// Within this time 95 % of the answers came. `None`: there has been none.
    pub(crate) fn p95(&self) -> Option<Duration> {
        match self.p95.load(Ordering::Relaxed) {
            0 => None,
            p95 => Some(Duration::from_nanos(p95)),
        }
    }
}

#[derive(Debug)]
struct Histogram {
    counts: [u32; BUCKETS],
    total: u32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0; BUCKETS], total: 0 }
    }
}

impl Histogram {
    fn record(&mut self, took: Duration) {
        if self.total >= FULL {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.total = self.counts.iter().sum();
        }
        self.counts[bucket(took)] += 1;
        self.total += 1;
    }

    /// The end of the bucket in which the percentile lies.
    fn p95(&self) -> Duration {
        let mut beyond = self.total / 20;
        let last = self.counts.iter().rposition(|count| {
            let enough = *count > beyond;
            beyond = beyond.saturating_sub(*count);
            enough
        });
        last.map_or(Duration::ZERO, end)
    }
}

/// Which bucket a time falls into; all beyond the last are in the last.
fn bucket(took: Duration) -> usize {
    let doublings = (took.as_secs_f64() / SHORTEST.as_secs_f64()).log2();
    // A float becomes an integer within its range: what is below the first bucket is in the first.
    ((doublings * f64::from(PER_DOUBLING)).ceil() as usize).min(BUCKETS - 1)
}

fn end(bucket: usize) -> Duration {
    SHORTEST.mul_f64((bucket as f64 / f64::from(PER_DOUBLING)).exp2())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn p95_of(times_ms: impl IntoIterator<Item = u64>) -> Duration {
        let times = ResponseTimes::default();
        times_ms.into_iter().for_each(|ms| times.record(Duration::from_millis(ms)));
        times.p95().expect("recorded")
    }

    #[test]
    fn nothing_is_known_before_the_first_answer() {
        assert_eq!(ResponseTimes::default().p95(), None);
        assert_eq!(p95_of([0]), SHORTEST);
    }

    #[test]
    fn a_slow_twentieth_is_beyond_the_percentile_and_more_are_not() {
        let with_slow = |slow: u64| p95_of((0..960).map(|call| if call % 100 < slow { 2000 } else { 167 }));
        let close =
            |p95: Duration, ms: u64| (ms..=ms * 11 / 10).contains(&u64::try_from(p95.as_millis()).expect("small"));
        assert!(close(with_slow(4), 167), "{:?}", with_slow(4));
        assert!(close(with_slow(7), 2000), "{:?}", with_slow(7));
    }

    #[test]
    fn the_percentile_follows_a_service_that_changes() {
        let faster = (0..2000).map(|_| 500).chain((0..3 * u64::from(FULL)).map(|_| 5));
        assert!(p95_of(faster) < Duration::from_millis(6));
    }

    proptest! {
        #[test]
        fn the_percentile_is_not_below_the_true_one_and_at_most_a_tenth_above_it(
            mut times_us in prop::collection::vec(1_000_u64..60_000_000, 1..FULL as usize)
        ) {
            let mut histogram = Histogram::default();
            times_us.iter().for_each(|us| histogram.record(Duration::from_micros(*us)));
            times_us.sort_unstable();
            let exact = Duration::from_micros(times_us[times_us.len() - 1 - times_us.len() / 20]);
            let p95 = histogram.p95();
            // To a nanosecond: the ends of buckets are floats.
            prop_assert!(p95 + Duration::from_nanos(1) >= exact, "{p95:?} of {exact:?}");
            prop_assert!(p95 <= exact.mul_f64(1.1), "{p95:?} of {exact:?}");
        }
    }
}
