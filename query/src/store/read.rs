//! What the rpcs read. A row that is still partial, because its creation was not seen yet, is not shown.

use meshwork_events::{
    outbox::{Position, partition_of},
    store::{Sql, Store, StoreError},
};
use meshwork_shop::contract::shop::order::v1::OrderState;
use uuid::Uuid;

use super::write::{CUSTOMER_COLUMNS, ORDER_COLUMNS, count, customer_row, order_row};
use crate::domain::{CustomerRow, OrderRow};

/// Every state that an order can be in once it was created.
const STATES: [OrderState; 4] =
    [OrderState::Pending, OrderState::Approved, OrderState::Rejected, OrderState::Cancelled];

/// An order with what its customer adds to it.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Order {
    /// The order's id.
    pub(crate) order_id: Uuid,
    /// Its row, which is complete.
    pub(crate) row: OrderRow,
    /// The customer's name. Empty: the customer was not seen yet.
    pub(crate) customer_name: String,
}

/// A customer that was seen.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Customer {
    /// The customer's id.
    pub(crate) customer_id: Uuid,
    /// Its row, which is complete.
    pub(crate) row: CustomerRow,
}

/// Which orders to list.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct OrderFilter {
    /// Only this customer's.
    pub(crate) customer_id: Option<Uuid>,
    /// Only in this state.
    pub(crate) state: Option<OrderState>,
}

/// Positions (after, through] of one partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Span {
    /// The partition.
    pub(crate) partition: u32,
    /// The position before the first.
    pub(crate) after: u64,
    /// The last position.
    pub(crate) through: u64,
}

/// The order with this id.
pub(crate) async fn order(store: &dyn Store, order_id: Uuid) -> Result<Option<Order>, StoreError> {
    let sql = select_orders().push(" where o.order_id = ").arg(order_id);
    Ok(fetch_orders(store, sql.push(" and o.create_time_ms is not null")).await?.pop())
}

/// At most `limit` orders, newest first, that come after the order `after` in that sequence.
pub(crate) async fn orders(
    store: &dyn Store,
    filter: OrderFilter,
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Order>, StoreError> {
    fetch_orders(store, page(filter, after, limit)).await
}

/// The customer with this id.
pub(crate) async fn customer(store: &dyn Store, customer_id: Uuid) -> Result<Option<Customer>, StoreError> {
    let sql = Sql::new(format!("select {CUSTOMER_COLUMNS} from customer_view c where c.customer_id = "))
        .arg(customer_id)
        .push(" and c.create_time_ms is not null");
    let rows = store.read(sql).await?;
    rows.first().map(|row| Ok(Customer { customer_id, row: customer_row(row)? })).transpose()
}

/// Rows of one kind, found in the order of their ids.
pub(crate) struct Found {
    /// Their ids.
    pub(crate) ids: Vec<Uuid>,
    /// Where to go on; `None`: there are no more.
    pub(crate) last: Option<Uuid>,
}

/// Among `limit` orders with ids after `after` those that an event behind the positions `kept` of the order service's log has
/// changed.
pub(crate) async fn later_orders(
    store: &dyn Store,
    kept: &[Position],
    after: Uuid,
    limit: usize,
) -> Result<Found, StoreError> {
    let mut sql = Sql::new("select order_id from order_view where order_id > ").arg(after);
    for (index, at) in kept.iter().enumerate() {
        sql = sql.push(if index == 0 { " and (" } else { " or " }).push("(partition = ");
        sql = sql.arg(i64::from(at.partition)).push(" and position > ").arg(count(at.position)).push(")");
    }
    let rows = store.read(sql.push(") order by order_id limit ").arg(row_limit(limit))).await?;
    let ids: Vec<Uuid> = rows.iter().map(|row| row.uuid(0)).collect::<Result<_, _>>()?;
    Ok(Found { last: ids.last().copied(), ids })
}

/// Among `limit` customers with ids after `after` those that an event behind the positions `kept` of the customer service's log has
/// changed.
pub(crate) async fn later_customers(
    store: &dyn Store,
    kept: &[Position],
    after: Uuid,
    limit: usize,
) -> Result<Found, StoreError> {
    let lowest = kept.iter().map(|at| at.position).min().unwrap_or_default();
    let select = Sql::new("select customer_id, position, limit_position from customer_view where customer_id > ")
        .arg(after)
        .push(" and (position > ")
        .arg(count(lowest))
        .push(" or limit_position > ")
        .arg(count(lowest))
        .push(") order by customer_id limit ")
        .arg(row_limit(limit));
    let mut found = Found { ids: Vec::new(), last: None };
    for row in store.read(select).await? {
        let (customer_id, position) = (row.uuid(0)?, row.count(1)?.max(row.count(2)?));
        let partition = partition_of(customer_id);
        if kept.iter().any(|at| at.partition == partition && at.position < position) {
            found.ids.push(customer_id);
        }
        found.last = Some(customer_id);
    }
    Ok(found)
}

/// The names of those of `customer_ids`, at least one, that were seen.
pub(crate) async fn customer_names(
    store: &dyn Store,
    customer_ids: impl IntoIterator<Item = Uuid>,
) -> Result<Vec<(Uuid, String)>, StoreError> {
    let sql = Sql::new("select customer_id, name from customer_view where name is not null and customer_id ");
    let rows = store.read(sql.in_list(customer_ids)).await?;
    rows.iter().map(|row| Ok((row.uuid(0)?, row.text(1)?.to_owned()))).collect()
}

/// At most `limit` orders, by id and after the id `after`, whose last change is in `spans`, of which there is at least one.
pub(crate) async fn changed_orders(
    store: &dyn Store,
    customer_id: Option<Uuid>,
    spans: &[Span],
    after: Option<Uuid>,
    limit: usize,
) -> Result<Vec<Order>, StoreError> {
    let mut sql = select_orders().push(" where o.create_time_ms is not null");
    if let Some(customer_id) = customer_id {
        sql = sql.push(" and o.customer_id = ").arg(customer_id);
    }
    if let Some(after) = after {
        sql = sql.push(" and o.order_id > ").arg(after);
    }
    for (index, span) in spans.iter().enumerate() {
        sql = sql.push(if index == 0 { " and (" } else { " or " });
        sql = sql.push("(o.partition = ").arg(i64::from(span.partition));
        sql = sql.push(" and o.position > ").arg(count(span.after));
        sql = sql.push(" and o.position <= ").arg(count(span.through)).push(")");
    }
    fetch_orders(store, sql.push(") order by o.order_id limit ").arg(row_limit(limit))).await
}

/// One index range for each state that is wanted, since with a customer the index leads through the state.
pub(super) fn page(filter: OrderFilter, after: Option<Uuid>, limit: usize) -> Sql {
    let states = match (filter.customer_id, filter.state) {
        (_, Some(state)) => vec![Some(state)],
        (Some(_), None) => STATES.map(Some).to_vec(),
        (None, None) => vec![None],
    };
    let mut sql = select_columns().push(" from (");
    for (index, state) in states.into_iter().enumerate() {
        sql = sql.push(if index == 0 { "select * from (" } else { " union all select * from (" });
        sql = sql.push("select * from order_view where create_time_ms is not null");
        if let Some(customer_id) = filter.customer_id {
            sql = sql.push(" and customer_id = ").arg(customer_id);
        }
        if let Some(state) = state {
            sql = sql.push(" and state = ").arg(i64::from(i32::from(state)));
        }
        if let Some(after) = after {
            sql = sql.push(" and order_id < ").arg(after);
        }
        sql = sql.push(" order by order_id desc limit ").arg(row_limit(limit)).push(") as branch");
    }
    sql = sql.push(" order by order_id desc limit ").arg(row_limit(limit)).push(") as o").push(JOIN_CUSTOMER);
    sql.push(" order by o.order_id desc")
}

const JOIN_CUSTOMER: &str = " left join customer_view c on c.customer_id = o.customer_id";

fn select_columns() -> Sql {
    Sql::new(format!("select {ORDER_COLUMNS}, coalesce(c.name, '')"))
}

fn select_orders() -> Sql {
    select_columns().push(" from order_view as o").push(JOIN_CUSTOMER)
}

async fn fetch_orders(store: &dyn Store, sql: Sql) -> Result<Vec<Order>, StoreError> {
    let rows = store.read(sql).await?;
    rows.iter()
        .map(|row| Ok(Order { order_id: row.uuid(0)?, row: order_row(row)?, customer_name: row.text(10)?.to_owned() }))
        .collect()
}

fn row_limit(limit: usize) -> i64 {
    i64::try_from(limit).expect("pages are small")
}
