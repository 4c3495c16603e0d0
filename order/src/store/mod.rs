//! The durable half of the service: orders as rows: what the writer loads and saves, and what the rpcs and the deadline sweeper read.

mod read;
mod schema;
mod write;

use meshwork_events::{
    EventStore, OpenError,
    store::{Row, StoreError},
};
use meshwork_shop::{Amount, Currency, RequestKey, contract::shop::order::v1::RejectionReason};

use crate::{
    SERVICE,
    domain::{Order, Orders, State},
};
use schema::MIGRATIONS;

pub(crate) use read::{get, overdue, waiting};
pub(crate) use write::{load, save};

/// The durable half of the service: opened once, shared by all its instances in a process.
pub type Store = EventStore<Orders>;

/// Opens the database of `url`; it is made if it is missing.
///
/// # Errors
/// [`OpenError`].
pub async fn open(url: &str) -> Result<Store, OpenError> {
    let orders = Orders::default();
    let watchers = orders.watchers().clone();
    let store = EventStore::open(url, SERVICE, MIGRATIONS, orders).await?;
    store.outbox().observe(move |event| watchers.changed(&event.aggregate_id));
    Ok(store)
}

/// The columns of [`order`], in its order.
const ORDER_COLUMNS: &str = "order_id, customer_id, currency, total_minor, state, reason, version, request_id, body_hash, \
     create_time_ms, update_time_ms, deadline_ms";
/// How many they are.
const ORDER_WIDTH: usize = 12;

/// Reads an order from a row that begins with [`ORDER_COLUMNS`].
fn order(row: &Row) -> Result<Order, StoreError> {
    let currency =
        Currency::from_code(row.text(2)?).map_err(|_| StoreError::Decode { column: 2, expected: "a currency code" })?;
    let total =
        Amount::new(row.int(3)?, currency).map_err(|_| StoreError::Decode { column: 3, expected: "an amount" })?;
    let state = state(row.int(4)?, row.int(5)?)
        .ok_or(StoreError::Decode { column: 4, expected: "an order's state with its reason" })?;
    let request = match row.uuid_or_null(7)? {
        Some(id) => Some(RequestKey { id, body_hash: row.int(8)? }),
        None => None,
    };
    Ok(Order {
        id: row.uuid(0)?,
        customer_id: row.uuid(1)?,
        total,
        state,
        version: row.count(6)?,
        request,
        create_time_ms: row.int(9)?,
        update_time_ms: row.int(10)?,
        deadline_ms: row.int(11)?,
    })
}

/// A state as the columns `state` and `reason`; `reason` has the contract's numbers, 0 where there is none.
fn state_numbers(state: State) -> (i64, i64) {
    match state {
        State::Pending => (1, 0),
        State::Approved => (2, 0),
        State::Rejected(reason) => (3, i32::from(reason).into()),
        State::Cancelled => (4, 0),
    }
}

fn state(state: i64, reason: i64) -> Option<State> {
    let reason = RejectionReason::try_from(i32::try_from(reason).ok()?).ok()?;
    match state {
        1 => Some(State::Pending),
        2 => Some(State::Approved),
        3 => Some(State::Rejected(reason)),
        4 => Some(State::Cancelled),
        _ => None,
    }
}
