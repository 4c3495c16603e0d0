//! How long to wait before the next attempt: doubling, capped, and jittered, so that many clients do not return at once.

use std::time::Duration;

/// The waits of one series of attempts.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    /// The wait before jitter.
    next: Duration,
}

impl Backoff {
    /// Waits of `first`, doubling up to `longest`.
    pub const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// The wait before the next attempt. `jitter` is random in 0..1 and takes away up to half of it.
    pub fn next(&mut self, jitter: f64) -> Duration {
        let wait = self.next.mul_f64(1.0 - jitter / 2.0);
        self.next = (self.next * 2).min(self.longest);
        wait
    }

    /// An attempt succeeded: begin again with the first wait.
    pub fn reset(&mut self) {
        self.next = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_to_their_cap_and_begin_again() {
        let mut backoff = Backoff::new(Duration::from_millis(100), Duration::from_millis(300));
        let waits: Vec<_> = (0..4).map(|_| backoff.next(0.0).as_millis()).collect();
        assert_eq!(waits, [100, 200, 300, 300]);
        assert_eq!(backoff.next(1.0), Duration::from_millis(150), "jitter takes away half at most");
        backoff.reset();
        assert_eq!(backoff.next(0.0), Duration::from_millis(100));
    }
}
