//! The view's tables, and the statements on them.
//!
//! `order_view` and `customer_view` hold one row for each order and customer; only reads join them, so that a customer
//! event never touches orders. The hot path is two multi-row statements for each table and batch: load and upsert.

mod read;
mod write;

pub use read::{Customer, Order, OrderFilter, Span, changed_orders, customer, customer_names, order, orders};
pub use write::{load, save};

use meshwork::store::{Database, Migration, Sql, StoreError};
use uuid::Uuid;

/// The name under which the schema's version is recorded.
const COMPONENT: &str = "query";

/// The schema's history.
///
/// An order's id is a UUIDv7 of its creation, so "newest first" is its primary key backwards, and each index below ends in
/// it: every filter of ListOrders reads just the rows of its page. `position` has no index on purpose: only a watcher that
/// fell behind looks for it, and it pays with a scan what otherwise every order would pay.
const MIGRATIONS: [Migration; 1] = [Migration {
    version: 1,
    sql: "
create table order_view (
    order_id bytea primary key,
    customer_id bytea not null,
    -- these three are null until OrderCreated was seen
    currency text,
    total_minor bigint,
    create_time_ms bigint,
    -- shop.order.v1.OrderState and RejectionReason, and the aggregate version that set them
    state bigint not null,
    reason bigint not null,
    version bigint not null,
    update_time_ms bigint not null,
    -- the last event of the order service that changed this row
    partition bigint not null,
    position bigint not null
);
create index order_view_by_customer on order_view (customer_id, state, order_id);
create index order_view_by_state on order_view (state, order_id);
create table customer_view (
    customer_id bytea primary key,
    -- these two are null until CustomerCreated was seen
    name text,
    create_time_ms bigint,
    -- of limit_minor and available_minor; each with the aggregate version that set it
    currency text,
    limit_minor bigint,
    limit_version bigint not null,
    available_minor bigint,
    version bigint not null
);
create table view_identity (
    singleton bigint primary key check (singleton = 1),
    view_id bytea not null
)",
}];

/// Brings the schema up to date and returns the view's id: `new_id` if the view is new.
pub async fn open(database: &Database, new_id: Uuid) -> Result<Uuid, StoreError> {
    database.migrate(COMPONENT, &MIGRATIONS).await?;
    let mut tx = database.begin().await?;
    let insert = Sql::new("insert into view_identity (singleton, view_id) values (1, ").arg(new_id);
    tx.execute(insert.push(") on conflict (singleton) do nothing")).await?;
    let rows = tx.fetch(Sql::new("select view_id from view_identity")).await?;
    let view_id = rows.first().expect("the row was inserted if it was not there").uuid(0)?;
    tx.commit().await?;
    Ok(view_id)
}

#[cfg(test)]
mod tests;
