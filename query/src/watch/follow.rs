//! What the watches learn from the progress of the fold: changes of a view that several processes share, whichever process has
//! folded them; and, of any view, that it has begun anew, because what it had folded was not its source's past.

use std::{convert::Infallible, time::Duration};

use meshwork::log_limit::LogLimit;
use meshwork_events::{
    consumer::Progress,
    store::{Database, StoreError},
};
use tokio::time::sleep;

use super::Hub;
use crate::store::{Span, changed_orders};

/// Orders of one read: a message of a watcher, so that the ring's bound holds.
const MAX_ORDERS_PER_READ: usize = 256;
/// After a read that failed.
const RETRY_PAUSE: Duration = Duration::from_millis(250);

/// Tells `hub` what is folded into the view, as `progress` of the order service's events shows it, until it is dropped.
pub(crate) async fn follow(database: &Database, hub: &Hub, progress: &Progress) -> Infallible {
    let is_shared = database.notifier().is_some();
    let mut progress = progress.watch();
    let mut was_diverged = false;
    let limit = LogLimit::new(1);
    loop {
        let (diverged, folded) = {
            let snapshot = progress.borrow_and_update();
            (snapshot.diverged, is_shared.then(|| snapshot.applied.clone()))
        };
        if diverged != was_diverged {
            was_diverged = diverged;
            hub.begin_anew(folded.as_deref());
        }
        if let Some(folded) = folded.filter(|_| !diverged) {
            let spans = hub.behind(&folded);
            if let Err(error) = publish(database, hub, &spans).await {
                if let Some(left_out) = limit.pass() {
                    tracing::warn!(%error, "changes of the view could not be read; retrying{left_out}");
                }
                sleep(RETRY_PAUSE).await;
                continue;
            }
        }
        progress.changed().await.expect("the subscription outlives its followers");
    }
}

/// Reads what changed in `spans`, and publishes it.
pub(super) async fn publish(database: &Database, hub: &Hub, spans: &[Span]) -> Result<(), StoreError> {
    if spans.is_empty() {
        return Ok(());
    }
    let mut orders = Vec::new();
    loop {
        let after = orders.last().map(|(id, _)| *id);
        let read = changed_orders(&**database, None, spans, after, MAX_ORDERS_PER_READ).await?;
        let complete = read.len() < MAX_ORDERS_PER_READ;
        orders.extend(read.into_iter().map(|order| (order.order_id, order.row)));
        if complete {
            hub.publish_read(orders, spans);
            return Ok(());
        }
    }
}
