//! The durable half of the service: customers and reservations as rows, which the writer loads and saves and the rpcs read.

mod read;
mod schema;
mod write;

use meshwork_events::{
    EventStore, OpenError,
    store::{Row, StoreError},
};
use meshwork_shop::{Amount, Currency, RequestKey};

use crate::{
    SERVICE,
    domain::{Customer, Customers, Reservation, ReservationState},
};
use schema::MIGRATIONS;

/// The durable half of the service: opened once, shared by all its instances in a process.
pub type Store = EventStore<Customers>;

/// Opens the database of `url`; it is made if it is missing.
///
/// # Errors
/// [`OpenError`].
pub async fn open(url: &str) -> Result<Store, OpenError> {
    EventStore::open(url, SERVICE, MIGRATIONS, Customers).await
}

pub(crate) use read::{get, list, reserved_after};
pub(crate) use write::{load, save};

/// The columns of [`customer`], in its order.
const CUSTOMER_COLUMNS: &str = "customer.customer_id, name, currency, limit_minor, reserved_minor, version, request_id, \
     body_hash, create_time_ms, update_time_ms";
/// How many they are.
const CUSTOMER_WIDTH: usize = 10;

/// Reads a customer from a row that begins with [`CUSTOMER_COLUMNS`].
fn customer(row: &Row) -> Result<Customer, StoreError> {
    let currency =
        Currency::from_code(row.text(2)?).map_err(|_| StoreError::Decode { column: 2, expected: "a currency code" })?;
    let amount = |column| {
        Amount::new(row.int(column)?, currency).map_err(|_| StoreError::Decode { column, expected: "an amount" })
    };
    let request = match row.uuid_or_null(6)? {
        Some(id) => Some(RequestKey { id, body_hash: row.int(7)? }),
        None => None,
    };
    Ok(Customer {
        id: row.uuid(0)?,
        name: row.text(1)?.to_owned(),
        limit: amount(3)?,
        reserved: amount(4)?,
        version: row.count(5)?,
        request,
        create_time_ms: row.int(8)?,
        update_time_ms: row.int(9)?,
    })
}

/// The columns of [`reservation`], in its order.
const RESERVATION_COLUMNS: &str = "order_id, customer_id, state, amount_minor";

/// Reads [`RESERVATION_COLUMNS`].
fn reservation(row: &Row) -> Result<Reservation, StoreError> {
    Ok(Reservation {
        order_id: row.uuid(0)?,
        customer_id: row.uuid(1)?,
        state: state_of(row.int(2)?).ok_or(StoreError::Decode { column: 2, expected: "a reservation's state" })?,
        amount_minor: row.int(3)?,
    })
}

fn state_number(state: ReservationState) -> i64 {
    match state {
        ReservationState::Reserved => 1,
        ReservationState::Refused => 2,
        ReservationState::Released => 3,
    }
}

fn state_of(number: i64) -> Option<ReservationState> {
    match number {
        1 => Some(ReservationState::Reserved),
        2 => Some(ReservationState::Refused),
        3 => Some(ReservationState::Released),
        _ => None,
    }
}
