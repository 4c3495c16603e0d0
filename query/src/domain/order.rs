//! An order's row, folded from the events of `order`.

use meshwork_shop::{
    Amount,
    contract::shop::order::v1::{OrderState, RejectionReason},
};
use uuid::Uuid;

/// An order as far as its events are known.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrderRow {
    /// The customer; every event of an order names it.
    pub customer_id: Uuid,
    /// From `OrderCreated`. `None`: not seen yet, and no read shows the order.
    pub created: Option<OrderCreated>,
    /// How far the order has come.
    pub state: OrderState,
    /// Why it was rejected; unspecified in any other state.
    pub reason: RejectionReason,
    /// When its last event was decided, in milliseconds since the Unix epoch.
    pub update_time_ms: i64,
    /// The order service's partition that all events of this order are in.
    pub partition: u32,
    /// The position of its last event there. 0: none.
    pub position: u64,
}

/// What is settled when an order is created.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OrderCreated {
    /// What it costs.
    pub total: Amount,
    /// When, in milliseconds since the Unix epoch.
    pub create_time_ms: i64,
}

/// An event of the order service.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderEvent {
    /// The order.
    pub order_id: Uuid,
    /// The customer.
    pub customer_id: Uuid,
    /// When it was decided, in milliseconds since the Unix epoch.
    pub time_ms: i64,
    /// The partition it came from.
    pub partition: u32,
    /// Its position there.
    pub position: u64,
    /// What happened.
    pub change: OrderChange,
}

/// What happened to an order.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum OrderChange {
    /// It waits for credit.
    Created(OrderCreated),
    /// It got its credit.
    Approved,
    /// It did not.
    Rejected(RejectionReason),
    /// It was taken back.
    Cancelled,
}

impl OrderRow {
    /// The row before its first event.
    pub(super) fn new(event: &OrderEvent) -> Self {
        Self {
            customer_id: event.customer_id,
            created: None,
            state: OrderState::Unspecified,
            reason: RejectionReason::Unspecified,
            update_time_ms: event.time_ms,
            partition: event.partition,
            position: 0,
        }
    }

    /// The row after an event; `None` if it changes nothing.
    pub(super) fn fold(&self, event: &OrderEvent) -> Option<Self> {
        let newer = event.position > self.position;
        let completes = self.created.is_none() && matches!(event.change, OrderChange::Created(_));
        if !newer && !completes {
            return None;
        }
        let mut row = *self;
        if let OrderChange::Created(created) = event.change {
            row.created = row.created.or(Some(created));
        }
        if newer {
            row.position = event.position;
            row.update_time_ms = event.time_ms;
            (row.state, row.reason) = event.change.state();
        }
        Some(row)
    }
}

impl OrderChange {
    fn state(self) -> (OrderState, RejectionReason) {
        match self {
            Self::Created(_) => (OrderState::Pending, RejectionReason::Unspecified),
            Self::Approved => (OrderState::Approved, RejectionReason::Unspecified),
            Self::Rejected(reason) => (OrderState::Rejected, reason),
            Self::Cancelled => (OrderState::Cancelled, RejectionReason::Unspecified),
        }
    }
}
