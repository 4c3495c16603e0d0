//! The view's rules: how events of `order` and `customer` fold into rows. Pure: no I/O, clock or randomness.
//!
//! Each row takes the events of one service only: an order's row those of `order`, a customer's those of `customer`. Reads
//! join them. So the two streams commute, in whatever relative order they arrive. All events of
//! a row are in one partition, so their positions are its versions: every field keeps the value of the highest position that
//! set it. Repeats and late events change nothing, and an event that arrives before its row's creation leaves a partial row,
//! which no read shows, instead of being lost. (An aggregate version would not do: reservations are separate aggregates.)

mod customer;
mod order;

use meshwork_events::writer::Rows;
use uuid::Uuid;

pub use customer::{CustomerChange, CustomerCreated, CustomerEvent, CustomerRow};
pub use order::{OrderChange, OrderCreated, OrderEvent, OrderRow};

/// Names a row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Key {
    /// The order with this id.
    Order(Uuid),
    /// The customer with this id.
    Customer(Uuid),
}

/// A row of the view.
#[derive(Clone, Debug, PartialEq)]
pub enum Row {
    /// Of an order.
    Order(OrderRow),
    /// Of a customer.
    Customer(CustomerRow),
}

/// A consumed event, as far as the view cares.
#[derive(Clone, Debug, PartialEq)]
pub enum Input {
    /// Of the order service.
    Order(OrderEvent),
    /// Of the customer service.
    Customer(CustomerEvent),
}

impl Input {
    /// The one row it may change.
    pub fn key(&self) -> Key {
        match self {
            Self::Order(event) => Key::Order(event.order_id),
            Self::Customer(event) => Key::Customer(event.customer_id),
        }
    }
}

/// Folds one event: the row as it is now, or `None` if nothing changes.
pub fn fold(rows: &Rows<Key, Row>, input: &Input) -> Option<Row> {
    match (input, rows.get(&input.key())) {
        (Input::Order(event), Some(Row::Order(row))) => row.fold(event).map(Row::Order),
        (Input::Order(event), None) => OrderRow::new(event).fold(event).map(Row::Order),
        (Input::Customer(event), Some(Row::Customer(row))) => row.fold(event).map(Row::Customer),
        (Input::Customer(event), None) => CustomerRow::default().fold(event).map(Row::Customer),
        (Input::Order(_), Some(Row::Customer(_))) | (Input::Customer(_), Some(Row::Order(_))) => {
            unreachable!("a key and its row are of the same kind")
        }
    }
}

#[cfg(test)]
mod tests;
