//! The rows that the writer loads before it decides and saves afterwards: one statement for each table, or a few if
//! the rows are many.

use meshwork_events::{
    outbox::partition_of,
    store::{MAX_ROWS_PER_STATEMENT, Sql, StoreError, Transaction, Value},
};
use uuid::Uuid;

use super::{CUSTOMER_COLUMNS, RESERVATION_COLUMNS, customer, reservation, state_number};
use crate::domain::{Customer, Key, Reservation, Row};

/// Loads the rows of `keys`, which are sorted, and locks them in that order.
pub(crate) async fn load(tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
    let ids = |pick: fn(&Key) -> Option<Uuid>| keys.iter().filter_map(pick).collect::<Vec<_>>();
    let mut rows = Vec::with_capacity(keys.len());

    let customers = ids(|key| if let Key::Customer(id) = key { Some(*id) } else { None });
    for ids in customers.chunks(MAX_ROWS_PER_STATEMENT) {
        let sql = Sql::new(format!("select {CUSTOMER_COLUMNS} from customer where customer_id "))
            .in_list(ids.iter().copied())
            .push(" order by customer_id")
            .push(tx.for_update());
        for row in tx.fetch(sql).await? {
            let customer = customer(&row)?;
            rows.push((Key::Customer(customer.id), Row::Customer(customer)));
        }
    }

    let orders = ids(|key| if let Key::Reservation(id) = key { Some(*id) } else { None });
    for ids in orders.chunks(MAX_ROWS_PER_STATEMENT) {
        let sql = Sql::new(format!("select {RESERVATION_COLUMNS} from reservation where order_id "))
            .in_list(ids.iter().copied())
            .push(" order by order_id")
            .push(tx.for_update());
        for row in tx.fetch(sql).await? {
            let reservation = reservation(&row)?;
            rows.push((Key::Reservation(reservation.order_id), Row::Reservation(reservation)));
        }
    }

    let requests = ids(|key| if let Key::Request(id) = key { Some(*id) } else { None });
    for ids in requests.chunks(MAX_ROWS_PER_STATEMENT) {
        // Without a lock: these columns never change.
        let sql = Sql::new("select request_id, customer_id, body_hash from customer where request_id ")
            .in_list(ids.iter().copied());
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
            Row::Customer(customer) => customers.push(customer),
            Row::Reservation(reservation) => reservations.push(reservation),
            Row::Request { .. } => {}
        }
    }
    for customers in customers.chunks(MAX_ROWS_PER_STATEMENT) {
        let sql = Sql::new(
            "insert into customer (customer_id, partition, name, currency, limit_minor, reserved_minor, version, \
             request_id, body_hash, create_time_ms, update_time_ms) ",
        )
        .values(customers.iter().copied().map(customer_values))
        .push(
            " on conflict (customer_id) do update set limit_minor = excluded.limit_minor, \
             reserved_minor = excluded.reserved_minor, version = excluded.version, \
             update_time_ms = excluded.update_time_ms",
        );
        tx.execute(sql).await?;
    }
    for reservations in reservations.chunks(MAX_ROWS_PER_STATEMENT) {
        let sql = Sql::new("insert into reservation (order_id, customer_id, state, amount_minor) ")
            .values(reservations.iter().copied().map(reservation_values))
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

#[cfg(test)]
mod tests {
    use meshwork_fixture::Engine;
    use meshwork_shop::{Amount, Currency, RequestKey};

    use super::*;
    use crate::domain::ReservationState;

    /// Generous: only a promise that is broken takes this long.
    const SOON: std::time::Duration = std::time::Duration::from_secs(20);
    /// Their 11 columns are more parameters than SQLite takes in one statement.
    const MANY: u128 = 3_000;
    /// The same for the 4 columns of a reservation.
    const MANY_RESERVATIONS: u128 = 8_500;

    fn a_customer(number: u128) -> (Key, Row) {
        let amount = |minor| Amount::new(minor, Currency::from_code("USD").expect("a currency")).expect("an amount");
        let customer = Customer {
            id: Uuid::from_u128(number),
            name: "Ada".into(),
            limit: amount(5),
            reserved: amount(1),
            version: 1,
            request: Some(RequestKey { id: Uuid::from_u128(MANY + number), body_hash: 5 }),
            create_time_ms: 1,
            update_time_ms: 1,
        };
        (Key::Customer(customer.id), Row::Customer(customer))
    }

    fn a_reservation(number: u128) -> (Key, Row) {
        let (order_id, customer_id) = (Uuid::from_u128(number), Uuid::from_u128(1));
        let reservation = Reservation { order_id, customer_id, state: ReservationState::Reserved, amount_minor: 1 };
        (Key::Reservation(order_id), Row::Reservation(reservation))
    }

    #[tokio::test]
    async fn more_rows_than_fit_a_statement_are_saved_and_loaded_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("customer.db").display());
        let store = crate::open(&url).await.expect("opened");
        let rows: Vec<_> = (1..=MANY).map(a_customer).chain((1..=MANY_RESERVATIONS).map(a_reservation)).collect();
        let requests = (1..=MANY).map(|number| Key::Request(Uuid::from_u128(MANY + number)));
        let keys: Vec<_> = rows.iter().map(|(key, _)| *key).chain(requests).collect();

        let mut tx = store.database().begin().await.expect("begun");
        save(&mut *tx, &rows).await.expect("saved");
        let loaded = load(&mut *tx, &keys).await.expect("loaded");
        assert_eq!(loaded.len(), keys.len());
        assert!(loaded.starts_with(&rows));
        drop(tx);
        store.close().await;
    }

    #[tokio::test]
    async fn rows_are_locked_in_key_order_so_that_processes_never_wait_in_a_circle() {
        let Some(engine) = Engine::postgres() else { return };
        let place = engine.place();
        let store = crate::open(&place.url).await.expect("opened");
        let begin = async || store.database().begin().await.expect("begun");
        let [low, high] = [1, 2].map(a_customer);
        let (low_key, high_key) = (low.0, high.0);
        let mut tx = begin().await;
        // They do not lie in the order of their keys.
        save(&mut *tx, &[high, low]).await.expect("saved");
        tx.commit().await.expect("committed");

        let (mut first, mut both, mut other) = (begin().await, begin().await, begin().await);
        load(&mut *first, &[low_key]).await.expect("locked");
        let while_both_waits = async {
            let waiting =
                "select 1 from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
            while store.database().read(Sql::new(waiting)).await.expect("readable").is_empty() {}
            other.execute(Sql::new("set local lock_timeout = 1")).await.expect("set");
            load(&mut *other, &[high_key]).await.expect("not locked before the first");
            drop((first, other));
        };
        let keys = [low_key, high_key];
        let all = async { tokio::join!(load(&mut *both, &keys), while_both_waits) };
        let (loaded, ()) = tokio::time::timeout(SOON, all).await.expect("it waits, until the lock is given back");
        assert_eq!(loaded.expect("loaded").len(), 2);
    }
}
