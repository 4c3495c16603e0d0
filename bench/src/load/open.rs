//! Orders in an [open loop](crate::open_loop), of which each has to end.

use std::{future::Future, time::Duration};

use meshwork_harness::report::{Failures, quantile_ms};
use tokio::time::timeout;

use crate::open_loop::{Ended, offer};

/// How long an order may take; one that takes longer is lost. Several leases of a partition, and less than the saga's
/// deadline, which would end it by rejecting it.
const ORDER_LIMIT: Duration = Duration::from_secs(20);

/// How much load, for how long.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Open {
    /// Orders that begin each second, evenly.
    pub(crate) per_s: u32,
    /// Load before the window.
    pub(crate) warm_up: Duration,
    /// How long is measured: the orders that are due in it, whenever they end.
    pub(crate) window: Duration,
}

/// What a load has found.
#[derive(Debug, Default)]
pub(crate) struct Sample {
    /// The orders of the window that have ended well.
    pub(crate) ended: Vec<Ended>,
    /// What failed, in the window or before.
    pub(crate) failures: Failures,
}

impl Sample {
    /// The latency that this share of the orders does not exceed, milliseconds.
    pub(crate) fn latency_ms(&self, quantile: f64) -> f64 {
        quantile_ms(self.ended.iter().map(|order| order.took), quantile)
    }

    fn of(orders: Vec<Ended>, from: Duration) -> Self {
        let mut sample = Self::default();
        for mut order in orders {
            match order.failure.take() {
                Some(failure) => sample.failures.add(failure),
                None if order.due >= from => sample.ended.push(order),
                None => {}
            }
        }
        if sample.ended.is_empty() {
            sample.failures.add("no order ended within the window");
        }
        sample
    }
}

impl Open {
    /// Begins the orders in their time. `order(n)` is the nth order from its beginning to its end.
    ///
    /// Always returns: `broken` ends the load, and orders that do not end are failures.
    pub(crate) async fn run<O, F>(self, order: O, broken: impl Future<Output = ()>) -> Sample
    where
        O: Fn(usize) -> F,
        F: Future<Output = Result<(), String>> + Send + 'static,
    {
        let orders = (0..).map(order);
        let mut orders = orders.map(|order| async {
            timeout(ORDER_LIMIT, order).await.unwrap_or_else(|_| Err("an order was not seen to end".to_owned()))
        });
        let call = || orders.next().expect("there is no last number");
        let mut lost = Sample::default();
        tokio::select! {
            ended = offer(self.per_s, self.warm_up + self.window, call) => Sample::of(ended, self.warm_up),
            () = broken => {
                lost.failures.add("the watch was lost");
                lost
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::{Instant, sleep, sleep_until};

    use super::*;

    const LOAD: Open = Open { per_s: 20, warm_up: Duration::from_secs(1), window: Duration::from_secs(2) };

    #[tokio::test(start_paused = true)]
    async fn orders_begin_in_their_time_and_count_if_they_are_due_in_the_window() {
        let order = |_| async {
            sleep(Duration::from_millis(700)).await;
            Ok(())
        };
        let sample = LOAD.run(order, pending()).await;
        assert_eq!(sample.ended.len(), 40);
        assert!((700.0..=702.0).contains(&sample.latency_ms(0.99)), "{}", sample.latency_ms(0.99));
        assert!(sample.failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_mesh_that_stands_still_is_seen_in_all_orders_that_were_due_meanwhile() {
        let again = Instant::now() + Duration::from_secs(2);
        let order = move |_| async move {
            sleep_until(again).await;
            Ok(())
        };
        let sample = LOAD.run(order, pending()).await;
        // It stood still for the first second of the window: half of the orders waited, 500 ms on average.
        let total: Duration = sample.ended.iter().map(|order| order.took).sum();
        assert!((10.0..=11.0).contains(&total.as_secs_f64()), "{total:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn orders_that_never_end_are_failures_and_do_not_hold_up_the_run() {
        let order = |number| async move { if number % 10 == 9 { pending().await } else { Ok(()) } };
        let sample = LOAD.run(order, pending()).await;
        assert_eq!((sample.ended.len(), sample.failures.total()), (36, 6));
    }

    #[tokio::test(start_paused = true)]
    async fn a_load_without_orders_that_end_has_no_figures() {
        let sample = LOAD.run(|_| ready(Err("refused".to_owned())), pending()).await;
        assert!(sample.ended.is_empty() && !sample.failures.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lost_watch_ends_the_load_and_is_a_failure() {
        let begin = Instant::now();
        let sample = LOAD.run(|_| ready(Ok(())), sleep(Duration::from_millis(100))).await;
        assert!(!sample.failures.is_empty());
        assert!(begin.elapsed() < LOAD.warm_up);
    }
}
