//! The rows that the writer loads before it decides and saves afterwards: one statement for each table, or a few if
//! the rows are many.

use meshwork_events::{
    outbox::partition_of,
    store::{MAX_ROWS_PER_STATEMENT, Sql, StoreError, Transaction, Value},
};
use uuid::Uuid;

use super::{ORDER_COLUMNS, order, state_numbers};
use crate::domain::{Key, Order, Row};

/// Loads the rows of `keys`, which are sorted, and locks them in that order.
pub(crate) async fn load(tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
    let ids = |pick: fn(&Key) -> Option<Uuid>| keys.iter().filter_map(pick).collect::<Vec<_>>();
    let mut rows = Vec::with_capacity(keys.len());

    let orders = ids(|key| if let Key::Order(id) = key { Some(*id) } else { None });
    for ids in orders.chunks(MAX_ROWS_PER_STATEMENT) {
        let sql = Sql::new(format!("select {ORDER_COLUMNS} from customer_order where order_id "))
            .in_list(ids.iter().copied())
            .push(" order by order_id")
            .push(tx.for_update());
        for row in tx.fetch(sql).await? {
            let order = order(&row)?;
            rows.push((Key::Order(order.id), Row::Order(order)));
        }
    }

    let requests = ids(|key| if let Key::Request(id) = key { Some(*id) } else { None });
    for ids in requests.chunks(MAX_ROWS_PER_STATEMENT) {
        // Without a lock: these columns never change.
        let sql = Sql::new("select request_id, order_id, body_hash from customer_order where request_id ")
            .in_list(ids.iter().copied());
        for row in tx.fetch(sql).await? {
            rows.push((Key::Request(row.uuid(0)?), Row::Request { order_id: row.uuid(1)?, body_hash: row.int(2)? }));
        }
    }
    Ok(rows)
}

/// Saves the changed rows.
pub(crate) async fn save(tx: &mut dyn Transaction, changed: &[(Key, Row)]) -> Result<(), StoreError> {
    let orders: Vec<_> = changed
        .iter()
        .filter_map(|(_, row)| match row {
            Row::Order(order) => Some(order),
            Row::Request { .. } => None,
        })
        .collect();
    for orders in orders.chunks(MAX_ROWS_PER_STATEMENT) {
        let sql = Sql::new(
            "insert into customer_order (order_id, customer_id, partition, currency, total_minor, state, reason, \
             version, request_id, body_hash, create_time_ms, update_time_ms, deadline_ms) ",
        )
        .values(orders.iter().copied().map(values))
        .push(
            " on conflict (order_id) do update set state = excluded.state, reason = excluded.reason, \
             version = excluded.version, update_time_ms = excluded.update_time_ms",
        );
        tx.execute(sql).await?;
    }
    Ok(())
}

fn values(order: &Order) -> [Value; 13] {
    let (state, reason) = state_numbers(order.state);
    [
        order.id.into(),
        order.customer_id.into(),
        i64::from(partition_of(order.customer_id)).into(),
        order.total.currency().code().into(),
        order.total.minor().into(),
        state.into(),
        reason.into(),
        order.version.cast_signed().into(),
        order.request.map(|request| request.id).into(),
        order.request.map(|request| request.body_hash).into(),
        order.create_time_ms.into(),
        order.update_time_ms.into(),
        order.deadline_ms.into(),
    ]
}

#[cfg(test)]
mod tests {
    use meshwork_fixture::Engine;
    use meshwork_shop::{Amount, Currency, RequestKey};

    use super::*;
    use crate::domain::State;

    /// Generous: only a promise that is broken takes this long.
    const SOON: std::time::Duration = std::time::Duration::from_secs(20);
    /// Their 13 columns are more parameters than SQLite takes in one statement.
    const MANY: u128 = 3_000;

    fn an_order(number: u128) -> Order {
        let currency = Currency::from_code("USD").expect("a currency");
        Order {
            id: Uuid::from_u128(number),
            customer_id: Uuid::from_u128(number % 7),
            total: Amount::new(1, currency).expect("an amount"),
            state: State::Pending,
            version: 1,
            request: Some(RequestKey { id: Uuid::from_u128(MANY + number), body_hash: 5 }),
            create_time_ms: 1,
            update_time_ms: 1,
            deadline_ms: 2,
        }
    }

    #[tokio::test]
    async fn more_rows_than_fit_a_statement_are_saved_and_loaded_in_order() {
        let folder = tempfile::tempdir().expect("a folder");
        let url = format!("sqlite://{}", folder.path().join("order.db").display());
        let store = crate::open(&url).await.expect("opened");
        let orders: Vec<_> = (1..=MANY).map(an_order).map(|order| (Key::Order(order.id), Row::Order(order))).collect();
        let requests = (1..=MANY).map(|number| Key::Request(Uuid::from_u128(MANY + number)));
        let keys: Vec<_> = orders.iter().map(|(key, _)| *key).chain(requests).collect();

        let mut tx = store.database().begin().await.expect("begun");
        save(&mut *tx, &orders).await.expect("saved");
        let loaded = load(&mut *tx, &keys).await.expect("loaded");
        assert_eq!(loaded.len(), keys.len());
        assert!(loaded.starts_with(&orders));
        drop(tx);
        store.close().await;
    }

    #[tokio::test]
    async fn rows_are_locked_in_key_order_so_that_processes_never_wait_in_a_circle() {
        let Some(engine) = Engine::postgres() else { return };
        let place = engine.place();
        let store = crate::open(&place.url).await.expect("opened");
        let begin = async || store.database().begin().await.expect("begun");
        let [low, high] = [1, 2].map(|number| (Key::Order(Uuid::from_u128(number)), Row::Order(an_order(number))));
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
