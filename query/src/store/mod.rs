//! The view's tables, and the statements on them.
//!
//! `order_view` and `customer_view` hold one row for each order and customer; only reads join them, so that a customer
//! event never touches orders. The hot path is two multi-row statements for each table and batch: load and upsert.

mod read;
mod write;

use meshwork_events::store::Migration;

pub(crate) use read::{
    Customer, Found, Order, OrderFilter, Span, changed_orders, customer, customer_names, later_customers, later_orders,
    order, orders,
};
pub(crate) use write::{delete_customers, delete_orders, load, save};

/// The schema's history.
///
/// An order's id is a UUIDv7 of its creation, so "newest first" is its primary key backwards, and each index below ends in
/// it: every filter of ListOrders reads just the rows of its page. `position` has no index on purpose: only a watcher that
/// fell behind looks for it, and it pays with a scan what otherwise every order would pay.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    suits: 1,
    statements: &[
        "
create table order_view (
    order_id {bytes} primary key,
    customer_id {bytes} not null,
    -- these three are null until OrderCreated was seen
    currency text,
    total_minor bigint,
    create_time_ms bigint,
    -- shop.order.v1.OrderState and RejectionReason
    state bigint not null,
    reason bigint not null,
    update_time_ms bigint not null,
    -- its last event in the order service's log
    partition bigint not null,
    position bigint not null
)
",
        "create index order_view_by_customer on order_view (customer_id, state, order_id)",
        "create index order_view_by_state on order_view (state, order_id)",
        "
create table customer_view (
    customer_id {bytes} primary key,
    -- these two are null until CustomerCreated was seen
    name text,
    create_time_ms bigint,
    -- of limit_minor and available_minor, each with the position in the customer service's log that set it
    currency text,
    limit_minor bigint,
    limit_position bigint not null,
    available_minor bigint,
    position bigint not null
)
",
    ],
}];

/// The schema's history where several processes share the view: there the watchers of each look for what the others have
/// changed.
pub(crate) const SHARED_MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    suits: 1,
    statements: &["create index order_view_by_position on order_view (partition, position)"],
}];

#[cfg(test)]
mod tests;
