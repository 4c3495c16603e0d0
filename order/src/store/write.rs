//! What the writer loads before it decides, and saves afterwards: one statement for each table.

use meshwork::{
    event::partition_of,
    store::{Sql, StoreError, Transaction, Value},
};
use uuid::Uuid;

use super::{ORDER_COLUMNS, order, state_numbers};
use crate::domain::{Key, Order, Row};

/// Loads the rows of `keys`, which are sorted, and locks them in that order.
pub(crate) async fn load(tx: &mut dyn Transaction, keys: &[Key]) -> Result<Vec<(Key, Row)>, StoreError> {
    let ids = |pick: fn(&Key) -> Option<Uuid>| keys.iter().filter_map(pick).collect::<Vec<_>>();
    let mut rows = Vec::with_capacity(keys.len());

    let orders = ids(|key| if let Key::Order(id) = key { Some(*id) } else { None });
    if !orders.is_empty() {
        let sql = Sql::new(format!("select {ORDER_COLUMNS} from customer_order where order_id in "))
            .list(orders)
            .push(" order by order_id")
            .push(tx.for_update());
        for row in tx.fetch(sql).await? {
            let order = order(&row)?;
            rows.push((Key::Order(order.id), Row::Order(order)));
        }
    }

    let requests = ids(|key| if let Key::Request(id) = key { Some(*id) } else { None });
    if !requests.is_empty() {
        // Without a lock: these columns never change.
        let sql =
            Sql::new("select request_id, order_id, body_hash from customer_order where request_id in ").list(requests);
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
            Row::Order(order) => Some(values(order)),
            Row::Request { .. } => None,
        })
        .collect();
    if orders.is_empty() {
        return Ok(());
    }
    let sql = Sql::new(
        "insert into customer_order (order_id, customer_id, partition, currency, total_minor, state, reason, version, \
         request_id, body_hash, create_time_ms, update_time_ms, deadline_ms) values ",
    )
    .rows(orders)
    .push(
        " on conflict (order_id) do update set state = excluded.state, reason = excluded.reason, \
         version = excluded.version, update_time_ms = excluded.update_time_ms",
    );
    tx.execute(sql).await?;
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
