//! What this service does about orders that it has heard of, and that the order service has lost: their credit is released, as
//! if each had been cancelled.

use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use meshwork::{
    contract::shop::order::v1::{GetOrderRequest, order_service_client::OrderServiceClient},
    event::{Fork, Undo, Undone, partition_of},
    rpc::Transport,
};
use meshwork_shop::{now_ms, store_status, write_status};
use tonic::Status;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use crate::{
    Store,
    domain::{Input, Reservation},
    service::DOMAIN,
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
    pub(crate) store: Store,
    pub(crate) orders: OrderServiceClient<T>,
}

#[tonic::async_trait]
impl<T: Transport> Undo for LostOrders<T> {
    async fn undo(&self, forks: &[Fork], validate_only: bool) -> Result<Undone, Status> {
        let first_ms = forks.iter().map(Fork::common_ms).min().unwrap_or_default().saturating_sub(MARGIN_MS).max(0);
        // The first id of that time (RFC 9562, 5.7).
        let mut after = Uuid::from_u128(u128::from(first_ms.unsigned_abs()) << 80);
        let mut released = 0;
        loop {
            let page = reserved_after(self.store.database(), after, PAGE).await;
            let page = page.map_err(|error| store_status(DOMAIN, &error))?;
            let Some(last) = page.last() else { break };
            after = last.order_id;
            let concerned = |held: &Reservation| {
                let partition = partition_of(held.customer_id);
                forks.iter().any(|fork| fork.partition() == partition)
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
            released += counts.iter().sum::<u64>();
        }
        Ok(Undone { effects: vec![("reservations of lost orders", released)], from_the_beginning: false })
    }
}

impl<T: Transport> LostOrders<T> {
    async fn is_there(&self, order_id: Uuid) -> Result<bool, Status> {
        let request = GetOrderRequest { order_id: order_id.to_string() };
        match self.orders.clone().get_order(request).await {
            Ok(_) => Ok(true),
            // Not whoever is between us and the order service.
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
