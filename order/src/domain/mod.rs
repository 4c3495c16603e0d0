//! The rules of orders: the saga's states and what moves them. [`Orders`] decides without I/O, and has rows loaded and saved
//! by the store.
//!
//! ```text
//!              CreditReserved
//!    PENDING ------------------> APPROVED
//!     |  |  \                    |   |
//!     |  |   \ CancelOrder       |   | CancelOrder, CreditReleased
//!     |  |    \----> CANCELLED <-----/
//!     |  |  CreditReleased       |
//!     |  |                       | CreditRefused
//!     |  | CreditRefused,        v
//!     |  \ deadline passed --> REJECTED (reason)
//! ```
//!
//! Late, repeated and reordered events change nothing: what an order's end has caused comes after that end. OrderCancelled and
//! OrderRejected release the credit, so an order that ended before its CreditReserved arrived needs to do nothing more.
//!
//! Only a store that was set back to a backup hears of an APPROVED order's credit again. CreditReleased says that the order had
//! ended, which this store has forgotten; CreditRefused, that the customer's store has forgotten the reservation and can give
//! it no more. Either way the order goes without credit, and so it ends.

mod decide;
mod events;
#[cfg(test)]
mod tests;

use meshwork_shop::{Amount, RequestKey, contract::shop::order::v1::RejectionReason};
use uuid::Uuid;

use crate::watchers::Watchers;

/// What decides on orders.
#[derive(Debug, Default)]
pub struct Orders {
    watchers: Watchers,
}

impl Orders {
    /// The watchers, which wait for orders to change.
    pub(crate) fn watchers(&self) -> &Watchers {
        &self.watchers
    }
}

/// Names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// An order, by id.
    Order(Uuid),
    /// The order that a `request_id` created. It is a column of the order, and never written alone.
    Request(Uuid),
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Of [`Key::Order`].
    Order(Order),
    /// Of [`Key::Request`].
    Request {
        /// The order it created.
        order_id: Uuid,
        /// [`RequestKey::body_hash`].
        body_hash: i64,
    },
}

/// An order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Which.
    pub id: Uuid,
    /// The customer, known or not.
    pub customer_id: Uuid,
    /// What it costs.
    pub total: Amount,
    /// How far it has come.
    pub state: State,
    /// From 1, one more with every change; the etag.
    pub version: u64,
    /// The request that created it.
    pub request: Option<RequestKey>,
    /// When it was created.
    pub create_time_ms: i64,
    /// When it last changed.
    pub update_time_ms: i64,
    /// When it is rejected if it is still PENDING.
    pub deadline_ms: i64,
}

impl Order {
    /// Changes with every change.
    pub fn etag(&self) -> String {
        self.version.to_string()
    }

    fn moved_to(&self, state: State, now_ms: i64) -> Self {
        Self { state, version: self.version + 1, update_time_ms: now_ms.max(self.update_time_ms), ..*self }
    }
}

/// How far an order has come; see the diagram of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Waits for credit.
    Pending,
    /// Has its credit.
    Approved,
    /// Did not get credit, or not in time.
    Rejected(RejectionReason),
    /// Taken back by the customer.
    Cancelled,
}

impl State {
    /// Whether the saga has ended: WatchOrder ends here.
    pub fn is_terminal(self) -> bool {
        match self {
            Self::Pending => false,
            Self::Approved | Self::Rejected(_) | Self::Cancelled => true,
        }
    }
}

/// What may be asked of the orders.
#[derive(Clone, Copy, Debug)]
pub enum Input {
    /// Takes an order.
    CreateOrder {
        /// Its new id.
        order_id: Uuid,
        /// The customer.
        customer_id: Uuid,
        /// What it costs.
        total: Amount,
        /// Makes it repeatable.
        request: Option<RequestKey>,
        /// Now.
        now_ms: i64,
        /// When it is rejected if it still waits for credit.
        deadline_ms: i64,
    },
    /// Takes an order back.
    CancelOrder {
        /// Which.
        order_id: Uuid,
        /// Now.
        now_ms: i64,
    },
    /// The sweeper found an order past its deadline.
    TimeOut {
        /// Which.
        order_id: Uuid,
        /// Now.
        now_ms: i64,
        /// Its deadline is over if it is not later: now, by the clock that the deadline was stored by.
        overdue_ms: i64,
    },
    /// `CreditReserved` was consumed.
    CreditReserved {
        /// For which order.
        order_id: Uuid,
        /// Now.
        now_ms: i64,
    },
    /// `CreditReleased` was consumed.
    CreditReleased {
        /// For which order.
        order_id: Uuid,
        /// Now.
        now_ms: i64,
    },
    /// `CreditRefused` was consumed.
    CreditRefused {
        /// For which order.
        order_id: Uuid,
        /// Why.
        reason: RejectionReason,
        /// Now.
        now_ms: i64,
    },
}

/// The answer to an accepted input.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The order as it is now.
    Order(Order),
    /// This order was created by the same request before.
    Existing(Uuid),
    /// Nothing that the caller waits for.
    Settled,
}

/// Why an input was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such order.
    #[error("there is no order {0}")]
    UnknownOrder(Uuid),
    /// A rejected order cannot be cancelled.
    #[error("order {0} was rejected, there is nothing to cancel")]
    OrderRejected(Uuid),
    /// The `request_id` was used with another body.
    #[error("{0} was used with another body")]
    RequestIdReused(Uuid),
}
