//! The rules of credit: what a customer may have reserved, and what orders do to it. [`Customers`] decides without I/O, and has
//! rows loaded and saved by the store.
//!
//! Invariants: `reserved` is the sum of the customer's RESERVED reservations, and never more than `credit_limit`.
//! A reservation row, once written, decides every repeat:
//!
//! ```text
//!            OrderCreated                      OrderCancelled, OrderRejected
//!   (none) --------------> RESERVED ---------------------------------------> RELEASED
//!      |  \--------------> REFUSED   (for good: a repeated OrderCreated is not decided anew)     ^
//!      \-----------------------------------------------------------------------------------------/
//!              a release that comes before its reservation wins: the late OrderCreated finds it
//! ```

mod decide;
mod events;
#[cfg(test)]
mod tests;

use meshwork_shop::{Amount, RequestKey};
use uuid::Uuid;

/// What decides on credit.
#[derive(Debug)]
pub struct Customers;

/// Names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// A customer, by id.
    Customer(Uuid),
    /// What an order has reserved, by the order's id.
    Reservation(Uuid),
    /// The customer that a `request_id` created. It is a column of the customer, and never written alone.
    Request(Uuid),
}

/// A row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Row {
    /// Of [`Key::Customer`].
    Customer(Customer),
    /// Of [`Key::Reservation`].
    Reservation(Reservation),
    /// Of [`Key::Request`].
    Request {
        /// The customer it created.
        customer_id: Uuid,
        /// [`RequestKey::body_hash`].
        body_hash: i64,
    },
}

/// A customer and its credit line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Customer {
    /// The customer's id.
    pub id: Uuid,
    /// The name.
    pub name: String,
    /// The most that orders may reserve together.
    pub limit: Amount,
    /// What they have reserved; in the limit's currency.
    pub reserved: Amount,
    /// From 1, one more with every change; the etag.
    pub version: u64,
    /// The request that created it.
    pub request: Option<RequestKey>,
    /// When it was created.
    pub create_time_ms: i64,
    /// When it last changed.
    pub update_time_ms: i64,
}

impl Customer {
    /// What is left of the credit.
    pub fn available(&self) -> Amount {
        self.limit.checked_sub(self.reserved).expect("never more is reserved than the limit, in its currency")
    }

    /// Changes with every change.
    pub fn etag(&self) -> String {
        self.version.to_string()
    }

    fn changed(&self, now_ms: i64) -> Self {
        Self { version: self.version + 1, update_time_ms: now_ms.max(self.update_time_ms), ..self.clone() }
    }
}

/// What an order has done to a credit line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// The order.
    pub order_id: Uuid,
    /// Whose credit.
    pub customer_id: Uuid,
    /// Its state.
    pub state: ReservationState,
    /// What was reserved, in minor units of the customer's currency; 0 if nothing ever was.
    pub amount_minor: i64,
}

/// A reservation's state; see the diagram of this module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReservationState {
    /// The order has its credit.
    Reserved,
    /// The order was refused, for good.
    Refused,
    /// The order gave its credit back, or will never need it.
    Released,
}

/// What may be asked of the credit lines.
#[derive(Clone, Debug)]
pub enum Input {
    /// Creates a customer.
    CreateCustomer {
        /// Its new id.
        id: Uuid,
        /// Its name.
        name: String,
        /// Its credit limit.
        limit: Amount,
        /// Makes it repeatable.
        request: Option<RequestKey>,
        /// Now.
        now_ms: i64,
    },
    /// Sets a credit limit.
    UpdateCreditLimit {
        /// Whose.
        id: Uuid,
        /// The new limit.
        limit: Amount,
        /// Only if the customer still has this etag; empty: in any case.
        etag: String,
        /// Now.
        now_ms: i64,
    },
    /// `OrderCreated` was consumed: reserve credit, or refuse it.
    OrderCreated {
        /// The order.
        order_id: Uuid,
        /// Whose credit.
        customer_id: Uuid,
        /// How much.
        total: Amount,
        /// Now.
        now_ms: i64,
    },
    /// `OrderCancelled` or `OrderRejected` was consumed: release what the order has or may yet reserve.
    OrderEnded {
        /// The order.
        order_id: Uuid,
        /// Whose credit.
        customer_id: Uuid,
        /// Now.
        now_ms: i64,
    },
}

/// The answer to an accepted input.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The customer as it is now.
    Customer(Box<Customer>),
    /// This customer was created by the same request before.
    Existing(Uuid),
    /// The order's credit is settled.
    Settled,
}

/// Why an input was refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no such customer.
    #[error("there is no customer {0}")]
    UnknownCustomer(Uuid),
    /// The `request_id` was used with another body.
    #[error("{0} was used with another body")]
    RequestIdReused(Uuid),
    /// Orders have reserved more than the new limit.
    #[error("orders have reserved more than the new limit")]
    CreditInUse,
    /// A customer's currency does not change.
    #[error("the customer's credit is in {0}")]
    CurrencyMismatch(&'static str),
    /// The customer has changed.
    #[error("the customer has changed: its etag is {0:?}")]
    EtagMismatch(String),
    /// An event contradicts what is stored; nothing but a damaged store or a defect can do that.
    #[error("order {0} does not fit its reservation")]
    Inconsistent(Uuid),
}
