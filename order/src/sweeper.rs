//! The saga's deadline: rejects orders that still wait for credit when their time is over.
//!
//! Deadlines are rows, so they hold over restarts; while it runs, [`Deadlines`] holds them to a clock that is not set. Several
//! instances may sweep at once: the rules let only the first rejection of an order count.

use std::{error::Error, sync::Arc, time::Duration};

use futures_util::future::join_all;
use meshwork::log_limit::LogLimit;
use meshwork_events::{store::StoreError, writer::WriteError};
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::{
    Store,
    deadlines::{Deadlines, MAX_HELD_ORDERS, Now, Waiting},
    domain::{Input, Refusal},
    store,
};

/// How late a deadline may be noticed: well below the shortest that makes sense.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// Orders of one sweep: a batch of the writer. What is left is swept at once.
const MAX_SWEPT_ORDERS: usize = 512;

/// Sweeps until it is dropped.
pub(crate) async fn run(store: &Store) {
    let start = Instant::now();
    let mut sweeper = Sweeper::new(Now::since(start));
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let limit = LogLimit::new(1);
    loop {
        ticks.tick().await;
        if let Err(error) = sweeper.sweep(store, Now::since(start)).await
            && let Some(left_out) = limit.pass()
        {
            let error = &error as &dyn Error;
            tracing::warn!(error, "overdue orders could not be rejected; retrying{left_out}");
        }
    }
}

/// What a sweep knows of those before.
pub(crate) struct Sweeper {
    deadlines: Deadlines,
}

/// What the store rejects.
#[derive(Default)]
struct Failed {
    count: usize,
    first: Option<(Uuid, Arc<StoreError>)>,
}

impl Sweeper {
    /// As after a start: deadlines are what the wall clock says.
    pub(crate) fn new(now: Now) -> Self {
        Self { deadlines: Deadlines::new(now) }
    }

    /// Rejects all orders that are overdue. One that cannot be holds up no other.
    pub(crate) async fn sweep(&mut self, store: &Store, now: Now) -> Result<(), SweepError> {
        if let Some(by_ms) = self.deadlines.was_set(now) {
            let waiting = store::waiting(store.database(), MAX_HELD_ORDERS).await?;
            let held = self.deadlines.hold(now, &waiting);
            tracing::warn!(
                by_ms,
                held,
                "the system's clock was set: orders that wait keep the time that they had left"
            );
        }
        let mut failed = Failed::default();
        for overdue in self.deadlines.overdue(now).chunks(MAX_SWEPT_ORDERS) {
            for order_id in reject(store, overdue, now.wall_ms, &mut failed).await? {
                self.deadlines.release(&order_id);
            }
        }
        let mut passed_over = 0;
        loop {
            let found = store::overdue(store.database(), now.wall_ms, MAX_SWEPT_ORDERS, passed_over).await?;
            let is_overdue =
                |order: &&Waiting| !self.deadlines.holds(&order.order_id) && self.deadlines.is_overdue(now, order);
            let overdue: Vec<_> = found.iter().filter(is_overdue).map(|order| (order.order_id, now.wall_ms)).collect();
            let rejected = reject(store, &overdue, now.wall_ms, &mut failed).await?;
            passed_over += found.len() - rejected.len();
            if found.len() < MAX_SWEPT_ORDERS {
                break;
            }
        }
        self.deadlines.swept(now);
        match failed.first {
            None => Ok(()),
            Some((first, source)) => Err(SweepError::Some { count: failed.count, first, source }),
        }
    }
}

/// Rejects orders, each with the time that its deadline is compared with; returns those that need no more.
async fn reject(
    store: &Store,
    overdue: &[(Uuid, i64)],
    now_ms: i64,
    failed: &mut Failed,
) -> Result<Vec<Uuid>, SweepError> {
    let inputs = overdue.iter().map(|(order_id, overdue_ms)| Input::TimeOut {
        order_id: *order_id,
        now_ms,
        overdue_ms: *overdue_ms,
    });
    let rejected = join_all(inputs.map(|input| store.writer().submit(input))).await;
    let mut done = Vec::with_capacity(overdue.len());
    for ((order_id, _), rejected) in overdue.iter().zip(rejected) {
        match rejected {
            Ok(_) => done.push(*order_id),
            Err(WriteError::Store(error)) if !error.is_about_the_store() => {
                failed.count += 1;
                failed.first.get_or_insert((*order_id, error));
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(done)
}

/// Why a sweep did not finish.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SweepError {
    #[error("cannot read overdue orders")]
    Read(#[from] StoreError),
    #[error("cannot reject an order")]
    Write(#[from] WriteError<Refusal>),
    #[error("the store refused {count} orders, the first of them {first}; the others are done")]
    Some { count: usize, first: Uuid, source: Arc<StoreError> },
}
