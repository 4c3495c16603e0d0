//! The promises of the mesh, and which of them were broken. Pure: it sees only what was acknowledged and what is remembered.
//!
//! 1. Every acknowledged order is there as it was acknowledged, and no customer has more orders than were acknowledged.
//! 2. Every order has reached a final state; one whose cancellation was acknowledged is CANCELLED.
//! 3. The available credit of every customer is the limit minus the approved orders, and never negative.

use std::collections::HashMap;

use meshwork_shop::contract::shop::order::v1::OrderState;

/// What the mesh has acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    /// The order.
    pub order_id: String,
    /// Whose it is.
    pub customer_id: String,
    /// What it costs, in cents.
    pub cents: i64,
    /// Whether its cancellation was acknowledged.
    pub cancelled: bool,
}

/// An order as the read side remembers it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Remembered {
    /// The order.
    pub order_id: String,
    /// What it costs, in cents.
    pub cents: i64,
    /// How far it has come.
    pub state: OrderState,
}

/// A customer and its orders as the mesh remembers them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CreditLine {
    /// The customer.
    pub customer_id: String,
    /// The credit limit, in cents.
    pub limit: i64,
    /// What is left of it, in cents.
    pub available: i64,
    /// The customer's orders.
    pub orders: Vec<Remembered>,
}

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Violation {
    /// An acknowledged order is not there.
    #[error("order {0} was acknowledged but is lost")]
    Lost(String),
    /// An order is there that was never placed, or it is there twice.
    #[error("order {0} was never acknowledged, or is there twice")]
    Doubled(String),
    /// An order's total is not the acknowledged one.
    #[error("order {order_id} was acknowledged with {} but is stored with {}", money(*promised), money(*remembered))]
    Changed {
        /// The order.
        order_id: String,
        /// What it cost, in cents.
        promised: i64,
        /// What it costs, in cents.
        remembered: i64,
    },
    /// An order has not come to an end.
    #[error("order {order_id} is still {}", shown(*state))]
    NotTerminal {
        /// The order.
        order_id: String,
        /// How far it has come.
        state: OrderState,
    },
    /// A cancellation was acknowledged and is not remembered.
    #[error("the cancellation of order {order_id} was acknowledged, but the order is {}", shown(*state))]
    NotCancelled {
        /// The order.
        order_id: String,
        /// What it is instead.
        state: OrderState,
    },
    /// More was approved than the customer may spend.
    #[error("customer {customer_id} has a credit limit of {}, but approved orders of {}", money(*limit), money(*approved))]
    OverLimit {
        /// The customer.
        customer_id: String,
        /// The credit limit, in cents.
        limit: i64,
        /// The sum of the approved orders, in cents.
        approved: i64,
    },
    /// Credit is lost, or there is more than there should be.
    #[error(
        "customer {customer_id} has {} of available credit; expected {}: the limit minus the approved orders",
        money(*available),
        money(*expected)
    )]
    Credit {
        /// The customer.
        customer_id: String,
        /// What the customer service says is left, in cents.
        available: i64,
        /// What should be left, in cents.
        expected: i64,
    },
}

/// Which promises were broken; none, if all is well.
pub fn audit(promises: &[Promise], credit_lines: &[CreditLine]) -> Vec<Violation> {
    let mut promised: HashMap<(&str, &str), &Promise> =
        promises.iter().map(|promise| ((&*promise.customer_id, &*promise.order_id), promise)).collect();
    let mut violations = Vec::new();
    for line in credit_lines {
        for order in &line.orders {
            match promised.remove(&(&*line.customer_id, &*order.order_id)) {
                Some(promise) => violations.extend(order_violations(promise, order)),
                None => violations.push(Violation::Doubled(order.order_id.clone())),
            }
        }
        violations.extend(credit_violations(line));
    }
    // In the order of the promises, so that the same evidence gives the same report.
    let lost = promises.iter().filter(|p| promised.contains_key(&(&*p.customer_id, &*p.order_id)));
    violations.extend(lost.map(|promise| Violation::Lost(promise.order_id.clone())));
    violations
}

fn order_violations(promise: &Promise, order: &Remembered) -> Vec<Violation> {
    let Remembered { order_id, cents, state } = order.clone();
    let mut violations = Vec::new();
    if cents != promise.cents {
        violations.push(Violation::Changed { order_id: order_id.clone(), promised: promise.cents, remembered: cents });
    }
    if !is_terminal(state) {
        violations.push(Violation::NotTerminal { order_id, state });
    } else if promise.cancelled && state != OrderState::Cancelled {
        violations.push(Violation::NotCancelled { order_id, state });
    }
    violations
}

fn credit_violations(line: &CreditLine) -> Vec<Violation> {
    let CreditLine { ref customer_id, limit, available, ref orders } = *line;
    let approved: i64 =
        orders.iter().filter(|order| order.state == OrderState::Approved).map(|order| order.cents).sum();
    let mut violations = Vec::new();
    if approved > limit {
        violations.push(Violation::OverLimit { customer_id: customer_id.clone(), limit, approved });
    }
    let expected = limit - approved;
    if available != expected {
        violations.push(Violation::Credit { customer_id: customer_id.clone(), available, expected });
    }
    violations
}

/// Whether an order in this state waits for nothing any more.
pub fn is_terminal(state: OrderState) -> bool {
    match state {
        OrderState::Unspecified | OrderState::Pending => false,
        OrderState::Approved | OrderState::Rejected | OrderState::Cancelled => true,
    }
}

fn shown(state: OrderState) -> String {
    state.as_str_name().trim_start_matches("ORDER_STATE_").to_lowercase()
}

fn money(cents: i64) -> String {
    let sign = if cents < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}", cents.unsigned_abs() / 100, cents.unsigned_abs() % 100)
}

#[cfg(test)]
mod tests;
