//! What the writer loads before it decides, and saves afterwards: one statement for each table.

use meshwork::{
    event::partition_of,
    store::{self, Sql, StoreError, Transaction, Value},
};
use uuid::Uuid;

use super::{CUSTOMER_COLUMNS, customer};
use crate::domain::{Customer, Key, Reservation, ReservationState, Row};

/// Loads the rows of `keys`, which are sorted, and locks them in that order.
pub(crate) async fn load(tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
    let ids = |pick: fn(&Key) -> Option<Uuid>| keys.iter().filter_map(pick).collect::<Vec<_>>();
    let mut rows = Vec::with_capacity(keys.len());

    let customers = ids(|key| if let Key::Customer(id) = key { Some(*id) } else { None });
    if !customers.is_empty() {
        let sql = Sql::new(format!("select {CUSTOMER_COLUMNS} from customer where customer_id in "))
            .list(customers)
            .push(" order by customer_id")
            .push(tx.for_update());
        for row in tx.fetch(sql).await? {
            let customer = customer(&row)?;
            rows.push((Key::Customer(customer.id), Row::Customer(customer)));
        }
    }

    let orders = ids(|key| if let Key::Reservation(id) = key { Some(*id) } else { None });
    if !orders.is_empty() {
        let sql = Sql::new("select order_id, customer_id, state, amount_minor from reservation where order_id in ")
            .list(orders)
            .push(" order by order_id")
            .push(tx.for_update());
        for row in tx.fetch(sql).await? {
            let reservation = reservation(&row)?;
            rows.push((Key::Reservation(reservation.order_id), Row::Reservation(reservation)));
        }
    }

    let requests = ids(|key| if let Key::Request(id) = key { Some(*id) } else { None });
    if !requests.is_empty() {
        // Without a lock: these columns never change.
        let sql =
            Sql::new("select request_id, customer_id, body_hash from customer where request_id in ").list(requests);
        for row in tx.fetch(sql).await? {
            rows.push((Key::Request(row.uuid(0)?), Row::Request { customer_id: row.uuid(1)?, body_hash: row.int(2)? }));
        }
    }
    Ok(rows)
}

/// Saves the changed rows.
pub(crate) async fn save(tx: &mut dyn Transaction, changed: &[(Key, Row)]) -> Result<(), StoreError> {
    let mut customers = Vec::new();
    let mut reservations = Vec::new();
    for (_, row) in changed {
        match row {
            Row::Customer(customer) => customers.push(customer_values(customer)),
            Row::Reservation(reservation) => reservations.push(reservation_values(reservation)),
            Row::Request { .. } => {}
        }
    }
    if !customers.is_empty() {
        let sql = Sql::new(
            "insert into customer (customer_id, partition, name, currency, limit_minor, reserved_minor, version, \
             request_id, body_hash, create_time_ms, update_time_ms) values ",
        )
        .rows(customers)
        .push(
            " on conflict (customer_id) do update set limit_minor = excluded.limit_minor, \
             reserved_minor = excluded.reserved_minor, version = excluded.version, \
             update_time_ms = excluded.update_time_ms",
        );
        tx.execute(sql).await?;
    }
    if !reservations.is_empty() {
        let sql = Sql::new("insert into reservation (order_id, customer_id, state, amount_minor) values ")
            .rows(reservations)
            .push(" on conflict (order_id) do update set state = excluded.state");
        tx.execute(sql).await?;
    }
    Ok(())
}

fn customer_values(customer: &Customer) -> [Value; 11] {
    [
        customer.id.into(),
        i64::from(partition_of(customer.id)).into(),
        customer.name.as_str().into(),
        customer.limit.currency().code().into(),
        customer.limit.minor().into(),
        customer.reserved.minor().into(),
        customer.version.cast_signed().into(),
        customer.request.map(|request| request.id).into(),
        customer.request.map(|request| request.body_hash).into(),
        customer.create_time_ms.into(),
        customer.update_time_ms.into(),
    ]
}

fn reservation_values(reservation: &Reservation) -> [Value; 4] {
    [
        reservation.order_id.into(),
        reservation.customer_id.into(),
        state_number(reservation.state).into(),
        reservation.amount_minor.into(),
    ]
}

fn reservation(row: &store::Row) -> Result<Reservation, StoreError> {
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
