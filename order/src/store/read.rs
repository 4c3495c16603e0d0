//! What the rpcs and the deadline sweeper read, beside the writer.

use meshwork_events::{
    outbox::{HEAD_COLUMNS, LogPoint},
    store::{Database, Row, Sql, StoreError},
};
use uuid::Uuid;

use super::{ORDER_COLUMNS, ORDER_WIDTH, order};
use crate::{deadlines::Waiting, domain::Order};

/// An order, if there is one, with the head of its partition: a reader that has seen all up to there has seen the order as it
/// is here.
pub(crate) async fn get(database: &Database, id: Uuid) -> Result<Option<(Order, LogPoint)>, StoreError> {
    let sql = Sql::new(format!(
        "select {ORDER_COLUMNS}, {HEAD_COLUMNS} from customer_order \
         join outbox_head on outbox_head.partition = customer_order.partition where order_id = "
    ))
    .arg(id);
    let rows = database.read(sql).await?;
    rows.first().map(|row| Ok((order(row)?, meshwork_events::outbox::point(row, ORDER_WIDTH)?))).transpose()
}

/// At most `limit` orders that are still PENDING past their deadline, the longest overdue first, without the first `passed_over`.
pub(crate) async fn overdue(
    database: &Database,
    now_ms: i64,
    limit: usize,
    passed_over: usize,
) -> Result<Vec<Waiting>, StoreError> {
    let sql = Sql::new(
        "select order_id, create_time_ms, deadline_ms from customer_order where state = 1 and deadline_ms <= ",
    )
    .arg(now_ms)
    .push(" order by deadline_ms, order_id limit ")
    .arg(i64::try_from(limit).unwrap_or(i64::MAX))
    .push(" offset ")
    .arg(i64::try_from(passed_over).unwrap_or(i64::MAX));
    database.read(sql).await?.iter().map(order_that_waits).collect()
}

/// At most `limit` orders that are PENDING, those with the first deadlines.
pub(crate) async fn waiting(database: &Database, limit: usize) -> Result<Vec<Waiting>, StoreError> {
    let sql = Sql::new("select order_id, create_time_ms, deadline_ms from customer_order where state = 1")
        .push(" order by deadline_ms, order_id limit ")
        .arg(i64::try_from(limit).unwrap_or(i64::MAX));
    database.read(sql).await?.iter().map(order_that_waits).collect()
}

fn order_that_waits(row: &Row) -> Result<Waiting, StoreError> {
    Ok(Waiting { order_id: row.uuid(0)?, create_time_ms: row.int(1)?, deadline_ms: row.int(2)? })
}
