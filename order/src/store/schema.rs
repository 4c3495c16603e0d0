//! The tables of the order service.

use meshwork_events::store::Migration;

/// The schema's history, of component `order`.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration { version: 1, suits: 1, statements: CREATE }];

const CREATE: &[&str] = &[
    "
-- an order and its saga, not named order, which is a keyword
create table customer_order (
    order_id {bytes} not null primary key,
    customer_id {bytes} not null,
    -- of its events, so that a read finds the head that goes with the row
    partition bigint not null,
    currency text not null,
    -- in minor units of the currency
    total_minor bigint not null,
    -- 1 pending, 2 approved, 3 rejected, 4 cancelled
    state bigint not null,
    -- why it was rejected, numbered as in shop.order.v1.RejectionReason, 0 otherwise
    reason bigint not null,
    version bigint not null,
    -- what created it: a repeated request finds its order here
    request_id {bytes},
    body_hash bigint,
    create_time_ms bigint not null,
    update_time_ms bigint not null,
    -- when it is rejected if it is still pending
    deadline_ms bigint not null
)
",
    "
-- most have none, and an index of nulls would cost every insert
create unique index customer_order_request_id_key on customer_order (request_id) where request_id is not null
",
    "
-- only what still waits: the sweeper's question stays cheap however many orders there are
create index customer_order_deadline on customer_order (deadline_ms) where state = 1
",
];
