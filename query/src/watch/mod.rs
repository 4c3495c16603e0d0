//! WatchOrders: a stream of changed orders, fed by commits.
//!
//! ```text
//!   commit -> Hub (one ring) -> Watcher -> messages
//!                                  ^
//!   view -------- what it missed --+   (only if it was too slow for the ring)
//! ```
//!
//! A watcher is no task: it runs while its stream is polled, so the transport's flow control is its back pressure. States
//! between are skipped when it is slow, the last one never, and an order never goes back.

mod follow;
mod hub;
mod names;

use std::{collections::BTreeMap, sync::Arc};

use futures_util::{Stream, StreamExt as _, stream};
use meshwork::{
    health::Condition,
    rpc::{draining_status, not_serving_status},
};
use meshwork_events::{
    store::{Database, StoreError},
    store_status,
};
use meshwork_shop::contract::shop::query::v1::{self as proto, WatchOrdersResponse};
use tokio_util::sync::CancellationToken;
use tonic::Status;
use uuid::Uuid;

use crate::{
    domain::OrderRow,
    message::{DOMAIN, RETRY_DELAY, order_message},
    store::{self, Span},
};
use hub::{Changes, Received, Subscription};
use names::Names;

pub(crate) use follow::follow;
pub(crate) use hub::Hub;

/// Orders in one message: some 60 KiB, far from the 4 MiB that clients accept.
const MAX_ORDERS_PER_MESSAGE: usize = 256;

/// What all watchers share.
pub(crate) struct Watches {
    database: Database,
    hub: Arc<Hub>,
    names: Names,
    draining: CancellationToken,
    serving: Condition,
}

/// One WatchOrders stream.
struct Watcher {
    shared: Arc<Watches>,
    customer_id: Option<Uuid>,
    subscription: Subscription,
    serving: Condition,
    /// Changes to be sent, each order once, as it is now.
    pending: BTreeMap<Uuid, OrderRow>,
    missed: Option<Missed>,
    ended: bool,
}

/// Changes that are to be read from the view, after those that are pending and before those of the ring.
struct Missed {
    spans: Vec<Span>,
    /// All orders up to this id were read.
    after: Option<Uuid>,
}

impl Watches {
    /// Watches over the changes of `hub`. `draining` ends every watch, and so does whatever is wrong with `serving`.
    pub(crate) fn new(database: Database, hub: Arc<Hub>, draining: CancellationToken, serving: Condition) -> Self {
        Self { database, hub, names: Names::default(), draining, serving }
    }

    /// Begins to watch, from now on: first an empty response, then orders as they change.
    pub(crate) fn watch(
        self: &Arc<Self>,
        customer_id: Option<Uuid>,
    ) -> impl Stream<Item = Result<WatchOrdersResponse, Status>> + Send + use<> {
        let subscription = self.hub.subscribe();
        let watcher = Watcher {
            shared: self.clone(),
            customer_id,
            subscription,
            serving: self.serving.clone(),
            pending: BTreeMap::new(),
            missed: None,
            ended: false,
        };
        let begun = stream::once(async { Ok(WatchOrdersResponse::default()) });
        begun.chain(stream::try_unfold(watcher, |mut watcher| async move {
            let orders = watcher.next().await?;
            Ok(Some((WatchOrdersResponse { orders }, watcher)))
        }))
    }
}

impl Watcher {
    /// The next message's orders, at least one.
    async fn next(&mut self) -> Result<Vec<proto::Order>, Status> {
        loop {
            if self.shared.draining.is_cancelled() {
                return Err(draining_status());
            }
            if let Some(problem) = self.serving.problem() {
                return Err(not_serving_status(&problem));
            }
            if self.ended {
                return Err(begun_anew());
            }
            if !self.pending.is_empty() {
                return self.pending_messages().await.map_err(|error| store_status(DOMAIN, &error));
            }
            if self.missed.is_some() {
                let orders = self.missed_messages().await.map_err(|error| store_status(DOMAIN, &error))?;
                if !orders.is_empty() {
                    return Ok(orders);
                }
                continue;
            }
            self.receive().await;
        }
    }

    /// Waits for changes, and takes all that are there, up to a message.
    async fn receive(&mut self) {
        let shared = self.shared.clone();
        let first = tokio::select! {
            received = self.subscription.next(&shared.hub) => received,
            () = shared.draining.cancelled() => return,
            _ = self.serving.until_problem() => return,
        };
        self.take(first);
        while self.missed.is_none() && !self.ended && self.pending.len() < MAX_ORDERS_PER_MESSAGE {
            let Some(received) = self.subscription.try_next(&shared.hub) else { break };
            self.take(received);
        }
    }

    fn take(&mut self, received: Received) {
        match received {
            Received::Changes(changes) => self.pending.extend(self.wanted(&changes)),
            Received::Missed(spans) if spans.is_empty() => {}
            Received::Missed(spans) => self.missed = Some(Missed { spans, after: None }),
            Received::Ended => self.ended = true,
        }
    }

    fn wanted(&self, changes: &Changes) -> Vec<(Uuid, OrderRow)> {
        let wanted = |row: &OrderRow| self.customer_id.is_none_or(|id| id == row.customer_id);
        changes.orders.iter().filter(|(_, row)| row.created.is_some() && wanted(row)).copied().collect()
    }

    async fn pending_messages(&mut self) -> Result<Vec<proto::Order>, StoreError> {
        let later = self.pending.keys().nth(MAX_ORDERS_PER_MESSAGE).copied();
        let later = later.map(|id| self.pending.split_off(&id)).unwrap_or_default();
        let orders = std::mem::replace(&mut self.pending, later);
        let customers = orders.values().map(|row| row.customer_id);
        let names = self.shared.names.of(&*self.shared.database, customers).await?;
        let name = |row: &OrderRow| names.get(&row.customer_id).map_or("", |name| name);
        Ok(orders.iter().map(|(id, row)| order_message(*id, row, name(row))).collect())
    }

    async fn missed_messages(&mut self) -> Result<Vec<proto::Order>, StoreError> {
        let Some(missed) = &mut self.missed else { return Ok(Vec::new()) };
        let database = &*self.shared.database;
        let (customer_id, limit) = (self.customer_id, MAX_ORDERS_PER_MESSAGE);
        let orders = store::changed_orders(database, customer_id, &missed.spans, missed.after, limit).await?;
        missed.after = orders.last().map(|order| order.order_id);
        if orders.len() < limit {
            self.missed = None;
        }
        Ok(orders.iter().map(|order| order_message(order.order_id, &order.row, &order.customer_name)).collect())
    }
}

/// What was watched is no more: its source has lost events, and was, or is to be, reconciled.
fn begun_anew() -> Status {
    let message = "the view is being rebuilt because its source has lost events: watch again";
    DOMAIN.retry_later("VIEW_DIVERGED", message, RETRY_DELAY)
}

#[cfg(test)]
mod tests;
