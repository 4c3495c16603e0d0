//! The closed loop: a fixed number of workers, each with one order under way at a time.
//!
//! Orders count when they end within the window between warm-up and end; the load does not change at its edges.

use std::{future::Future, time::Duration};

use hdrhistogram::Histogram;
use meshwork_harness::report::Failures;
use tokio::{
    task::JoinSet,
    time::{Instant, sleep_until, timeout},
};

use crate::cpu;

/// How long the last orders may take once no more are begun; one that takes longer is lost.
const LAST_ORDERS_LIMIT: Duration = Duration::from_secs(10);
/// Latency is kept in microseconds to three digits.
const DIGITS: u8 = 3;

/// How much load, for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Closed {
    /// Orders under way at any time.
    pub(crate) in_flight: usize,
    /// Closed before the window.
    pub(crate) warm_up: Duration,
    /// How long is measured.
    pub(crate) window: Duration,
}

/// What a load has found.
pub(crate) struct Sample {
    window: Duration,
    cpu: Duration,
    tally: Tally,
}

struct Tally {
    latency_us: Histogram<u64>,
    failures: Failures,
}

impl Tally {
    fn new() -> Self {
        Self { latency_us: Histogram::new(DIGITS).expect("0 to 5 digits"), failures: Failures::default() }
    }

    fn merge(&mut self, other: Self) {
        self.latency_us.add(&other.latency_us).expect("it grows as needed");
        self.failures.merge(other.failures);
    }
}

impl Sample {
    /// Orders that ended within the window, per second.
    pub(crate) fn orders_per_s(&self) -> f64 {
        self.orders() / self.window.as_secs_f64()
    }

    /// CPU time of this process, load generator included, for each order, microseconds.
    pub(crate) fn cpu_us_per_order(&self) -> f64 {
        self.cpu.as_secs_f64() * 1e6 / self.orders()
    }

    /// The latency that this share of the orders does not exceed, milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        self.tally.latency_us.value_at_quantile(quantile) as f64 / 1_000.0
    }

    /// What failed.
    pub(crate) fn failures(self) -> Failures {
        self.tally.failures
    }

    fn orders(&self) -> f64 {
        self.tally.latency_us.len() as f64
    }
}

impl Closed {
    /// Keeps `in_flight` orders under way. `order(n)` is the nth order from its beginning to its end, for any n.
    ///
    /// Always returns: `broken` ends the load early, and orders that do not end are failures.
    pub(crate) async fn run<O, F>(self, order: O, broken: impl Future<Output = ()>) -> Sample
    where
        O: Fn(usize) -> F + Clone + Send + 'static,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let from = Instant::now() + self.warm_up;
        let until = from + self.window;
        let mut workers = JoinSet::new();
        for worker in 0..self.in_flight {
            let numbers = (worker..).step_by(self.in_flight);
            workers.spawn(work(order.clone(), numbers, from, until));
        }

        let window = async {
            sleep_until(from).await;
            let before = cpu::process_time();
            sleep_until(until).await;
            cpu::process_time() - before
        };
        let cpu = tokio::select! {
            cpu = window => cpu,
            () = broken => Duration::ZERO,
        };

        let mut tally = Tally::new();
        let ended = timeout(LAST_ORDERS_LIMIT, async {
            while let Some(worker) = workers.join_next().await {
                match worker {
                    Ok(found) => tally.merge(found),
                    Err(panic) => tally.failures.add(format!("a worker panicked: {panic}")),
                }
            }
        });
        if ended.await.is_err() {
            for _ in 0..workers.len() {
                tally.failures.add("an order was not seen in a terminal state in time");
            }
        }
        if tally.latency_us.is_empty() {
            tally.failures.add("no order ended within the window");
        }
        Sample { window: self.window, cpu, tally }
    }
}

async fn work<O, F>(order: O, numbers: impl Iterator<Item = usize>, from: Instant, until: Instant) -> Tally
where
    O: Fn(usize) -> F,
    F: Future<Output = Result<(), String>>,
{
    let mut tally = Tally::new();
    for number in numbers {
        let start = Instant::now();
        if start >= until {
            break;
        }
        let result = order(number).await;
        let end = Instant::now();
        if let Err(failure) = result {
            tally.failures.add(failure);
            // The figures are void already; hammering a mesh that fails would only fill the screen.
            break;
        }
        if (from..until).contains(&end) {
            let us = u64::try_from((end - start).as_micros()).expect("a run is shorter than 500,000 years");
            tally.latency_us.record(us).expect("it grows as needed");
        }
    }
    tally
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::time::sleep;

    use super::*;

    const LOAD: Closed = Closed { in_flight: 4, warm_up: Duration::from_secs(1), window: Duration::from_secs(2) };

    #[tokio::test(start_paused = true)]
    async fn orders_count_within_the_window_only() {
        let order = |_| async {
            sleep(Duration::from_millis(100)).await;
            Ok(())
        };
        let sample = LOAD.run(order, pending()).await;
        // 10 a second from each worker; one that ends at the very edge may fall on either side.
        assert!((38.0..=42.0).contains(&sample.orders_per_s()), "{}", sample.orders_per_s());
        assert!((99.0..=101.0).contains(&sample.latency_ms(0.5)), "{}", sample.latency_ms(0.5));
        assert!(sample.failures().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_failed_order_is_reported() {
        let order = |number| async move {
            sleep(Duration::from_millis(100)).await;
            if number == 3 { Err("refused".to_owned()) } else { Ok(()) }
        };
        let mut expected = Failures::default();
        expected.add("refused");
        assert_eq!(LOAD.run(order, pending()).await.failures(), expected);
    }

    #[tokio::test(start_paused = true)]
    async fn an_order_that_never_ends_is_a_failure_and_does_not_hold_up_the_run() {
        let order = |number| async move {
            sleep(Duration::from_millis(100)).await;
            if number == 3 { pending().await } else { Ok(()) }
        };
        assert!(!LOAD.run(order, pending()).await.failures().is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_without_a_single_order_is_a_failure() {
        let order = |_| async {
            sleep(Duration::from_secs(5)).await;
            Ok(())
        };
        assert!(!LOAD.run(order, pending()).await.failures().is_empty());
    }
}
