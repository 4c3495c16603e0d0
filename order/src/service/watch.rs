//! WatchOrder: an order as it is, then each state that a reader sees, to the end of its saga.
//!
//! Runs only while its stream is polled: no task, and nothing queues. States that follow each other faster than they are
//! read are skipped, never the last one.

use futures_util::{Stream, stream};
use meshwork::{
    health::Condition,
    rpc::{draining_status, not_serving_status},
};
use meshwork_events::store_status;
use meshwork_shop::contract::shop::order::v1::Order as OrderMessage;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use super::{message::message, refusal::refused};
use crate::{
    Store,
    domain::{Order, Refusal},
    names::DOMAIN,
    store,
    watchers::Watch,
};

/// A watch of one order; fails at once if there is no such order.
pub(super) async fn open(
    store: Store,
    order_id: Uuid,
    draining: CancellationToken,
    serving: Condition,
) -> Result<impl Stream<Item = Result<OrderMessage, Status>> + Send, Status> {
    let watch = store.decider().watchers().watch(order_id);
    let mut watcher = Watcher { watch, store, order_id, draining, serving, last: None };
    let (_, first) = watcher.read().await?;
    let rest = stream::try_unfold(watcher, |mut watcher| async move {
        Ok(watcher.next().await?.map(|message| (message, watcher)))
    });
    Ok(futures_util::StreamExt::chain(stream::iter([Ok(first)]), rest))
}

struct Watcher {
    watch: Watch,
    store: Store,
    order_id: Uuid,
    draining: CancellationToken,
    serving: Condition,
    /// The order as it was last sent.
    last: Option<Order>,
}

impl Watcher {
    /// The next state; `None` after a terminal one.
    async fn next(&mut self) -> Result<Option<OrderMessage>, Status> {
        while self.last.is_none_or(|order| !order.state.is_terminal()) {
            // All arms are cancel-safe; after each wake-up the order is read anew.
            tokio::select! {
                () = self.draining.cancelled() => return Err(draining_status()),
                problem = self.serving.until_problem() => return Err(not_serving_status(&problem)),
                () = self.watch.changed() => {}
            }
            let before = self.last.map(|order| order.version);
            let (version, message) = self.read().await?;
            if before != Some(version) {
                return Ok(Some(message));
            }
        }
        Ok(None)
    }

    async fn read(&mut self) -> Result<(u64, OrderMessage), Status> {
        let found = store::get(self.store.database(), self.order_id).await;
        let found = found.map_err(|error| store_status(DOMAIN, &error))?;
        let (order, point) = found.ok_or_else(|| refused(&Refusal::UnknownOrder(self.order_id)))?;
        self.last = Some(order);
        Ok((order.version, message(&self.store, &order, point)))
    }
}
