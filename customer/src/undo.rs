//! Undoes orders whose events this service has read and the order service has lost: their credit is released, as
//! if each had been cancelled.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use meshwork::rpc::Transport;
use meshwork_events::{
    consumer::{Fork, Lost, Undo, Undone, first_id},
    outbox::partition_of,
    store_status, write_status,
};
use meshwork_shop::{
    contract::shop::order::v1::{GetOrderRequest, order_service_client::OrderServiceClient},
    now_ms,
};
use parking_lot::Mutex;
use tonic::Status;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    Store,
    domain::{Input, Reservation},
    names::DOMAIN,
    store::reserved_after,
};

/// An order's id is of the time before its first event. Clocks of several instances, and what an order waits for the writer,
/// are far below this.
const MARGIN_MS: i64 = 3_600_000;
/// The order service's reason for an order that it does not have.
const UNKNOWN_ORDER: &str = "UNKNOWN_ORDER";
/// Reservations of one read.
const PAGE: usize = 1000;
/// Questions to the order service under way.
const QUESTIONS: usize = 32;

/// Undoes what lost orders have done.
pub(crate) struct LostOrders<T> {
    store: Store,
    orders: OrderServiceClient<T>,
    /// How far the last call came that was cut off: a call has its deadline, however many reservations there are.
    cut_off: Mutex<Option<Asked>>,
}

/// A call; cut off, it leaves its place to the next.
struct Turn<'a> {
    cut_off: &'a Mutex<Option<Asked>>,
    asked: Option<Asked>,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Some(asked) = self.asked.take() {
            *self.cut_off.lock() = Some(asked);
        }
    }
}

/// How far the reservations were asked after.
#[derive(Clone)]
struct Asked {
    forks: Vec<Fork>,
    validate_only: bool,
    /// The last order.
    after: Uuid,
    /// Reservations of lost orders so far.
    lost: u64,
}

#[tonic::async_trait]
impl<T: Transport> Undo for LostOrders<T> {
    async fn undo(&self, lost: &Lost) -> Result<Undone, Status> {
        let (forks, validate_only) = (lost.forks(), lost.validate_only());
        let mut asked = self.begin(forks, validate_only);
        let mut turn = Turn { cut_off: &self.cut_off, asked: Some(asked.clone()) };
        loop {
            // The instance that has taken over does the same.
            let mut tx = self.store.database().begin().await.map_err(|error| store_status(DOMAIN, &error))?;
            lost.lock(&mut *tx).await?;
            drop(tx);
            let page = reserved_after(self.store.database(), asked.after, PAGE).await;
            let page = page.map_err(|error| store_status(DOMAIN, &error))?;
            let Some(last) = page.last() else { break };
            asked.after = last.order_id;
            let concerned = |held: &Reservation| {
                let partition = partition_of(held.customer_id);
                forks.iter().any(|fork| fork.partition() == partition && held.order_id >= first_order(fork))
            };
            let questions = page.into_iter().filter(concerned).map(|held| async move {
                if self.is_there(held.order_id).await? {
                    return Ok::<_, Status>(0);
                }
                if !validate_only {
                    self.release(&held).await?;
                }
                Ok(1)
            });
            let counts: Vec<u64> = stream::iter(questions).buffer_unordered(QUESTIONS).try_collect().await?;
            asked.lost += counts.iter().sum::<u64>();
            turn.asked = Some(asked.clone());
        }
        turn.asked = None;
        Ok(Undone { effects: vec![("reservations of lost orders", asked.lost)], from_the_beginning: false })
    }
}

/// No order that was lost behind this fork has an id before this one.
fn first_order(fork: &Fork) -> Uuid {
    first_id(fork.common_ms().saturating_sub(MARGIN_MS).max(0).unsigned_abs())
}

impl<T: Transport> LostOrders<T> {
    /// An undo for the customers in `store`, which asks `orders`.
    pub(crate) fn new(store: Store, orders: OrderServiceClient<T>) -> Self {
        Self { store, orders, cut_off: Mutex::default() }
    }

    /// Where a call begins that asks about these forks: where the last one was cut off, if it asked the same.
    fn begin(&self, forks: &[Fork], validate_only: bool) -> Asked {
        let cut_off = self.cut_off.lock().take();
        cut_off.filter(|asked| asked.forks == forks && asked.validate_only == validate_only).unwrap_or_else(|| Asked {
            forks: forks.to_vec(),
            validate_only,
            after: forks.iter().map(first_order).min().unwrap_or_default(),
            lost: 0,
        })
    }

    async fn is_there(&self, order_id: Uuid) -> Result<bool, Status> {
        let request = GetOrderRequest { order_id: order_id.to_string() };
        match self.orders.clone().get_order(request).await {
            Ok(_) => Ok(true),
            // Not a proxy between us and the order service.
            Err(status) if status.get_error_details().error_info().is_some_and(|info| info.reason == UNKNOWN_ORDER) => {
                Ok(false)
            }
            Err(status) => Err(status),
        }
    }

    async fn release(&self, Reservation { order_id, customer_id, .. }: &Reservation) -> Result<(), Status> {
        let input = Input::OrderEnded { order_id: *order_id, customer_id: *customer_id, now_ms: now_ms() };
        let released = self.store.writer().submit(input).await;
        released.map(drop).map_err(|error| write_status(DOMAIN, error, |refusal| Status::internal(refusal.to_string())))
    }
}

#[cfg(test)]
mod tests;
