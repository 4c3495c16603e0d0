//! The saga's deadline: rejects orders that still wait for credit when their time is over.
//!
//! Deadlines are rows, so they hold over restarts. Several instances may sweep at once: the rules let only the first
//! rejection of an order count.

use std::{error::Error, sync::Arc, time::Duration};

use futures_util::future::join_all;
use meshwork_events::{store::StoreError, writer::WriteError};
use meshwork_shop::now_ms;
use tokio::time::{Instant, MissedTickBehavior, interval};
use uuid::Uuid;

use crate::{
    Store,
    domain::{Input, Refusal},
    store,
};

/// How late a deadline may be noticed: well below the shortest that makes sense.
const SWEEP_INTERVAL: Duration = Duration::from_millis(500);
/// How long it is silent about orders that could not be rejected.
const SAY_AGAIN: Duration = Duration::from_secs(30);
/// Orders of one sweep: a batch of the writer. What is left is swept at once.
const MAX_SWEPT_ORDERS: usize = 512;

/// Sweeps until it is dropped.
pub(crate) async fn run(store: &Store) {
    let mut ticks = interval(SWEEP_INTERVAL);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said: Option<Instant> = None;
    loop {
        ticks.tick().await;
        match sweep(store, now_ms()).await {
            Ok(()) => said = None,
            Err(error) if said.is_some_and(|said| said.elapsed() < SAY_AGAIN) => {
                tracing::debug!(error = &error as &dyn Error, "overdue orders still wait");
            }
            Err(error) => {
                said = Some(Instant::now());
                tracing::warn!(error = &error as &dyn Error, "overdue orders could not be rejected; retrying");
            }
        }
    }
}

/// Rejects all orders that are overdue at `now_ms`. One that cannot be holds up no other.
pub(crate) async fn sweep(store: &Store, now_ms: i64) -> Result<(), SweepError> {
    let (mut count, mut first) = (0, None);
    loop {
        let overdue = store::overdue(store.database(), now_ms, MAX_SWEPT_ORDERS, count).await?;
        let inputs = overdue.iter().map(|order_id| Input::TimeOut { order_id: *order_id, now_ms });
        let rejected = join_all(inputs.map(|input| store.writer().submit(input))).await;
        for (order_id, rejected) in overdue.iter().zip(rejected) {
            match rejected {
                Ok(_) => {}
                Err(WriteError::Store(error)) if !error.is_about_the_store() => {
                    count += 1;
                    first.get_or_insert((*order_id, error));
                }
                Err(error) => return Err(error.into()),
            }
        }
        if overdue.len() < MAX_SWEPT_ORDERS {
            return first.map_or(Ok(()), |(first, source)| Err(SweepError::Some { count, first, source }));
        }
    }
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
