//! The orders of a run that were acknowledged.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::time::Instant;
use uuid::Uuid;

use super::Buyer;

/// Acknowledged orders. A cheap handle.
#[derive(Clone, Default)]
pub(crate) struct Placed(Arc<Mutex<Vec<PlacedOrder>>>);

/// An order that was acknowledged.
#[derive(Clone)]
pub(crate) struct PlacedOrder {
    pub(crate) id: Uuid,
    pub(crate) customer: String,
    /// When its acknowledgement came.
    pub(crate) at: Instant,
}

impl Placed {
    /// Places the nth order, and writes it down as soon as it is acknowledged.
    pub(crate) async fn place(&self, buyer: &mut Buyer, number: usize) -> Result<Uuid, String> {
        let id = buyer.place(number).await?;
        let order = PlacedOrder { id, customer: buyer.customer(number).to_owned(), at: Instant::now() };
        self.0.lock().push(order);
        Ok(id)
    }

    /// Those so far, in the order of their acknowledgements.
    pub(crate) fn orders(&self) -> Vec<PlacedOrder> {
        self.0.lock().clone()
    }
}
