//! The tables of the customer service.

use meshwork_events::store::Migration;

/// The schema's history, of component `customer`.
pub(crate) const MIGRATIONS: &[Migration] = &[Migration { version: 1, suits: 1, statements: CREATE }];

const CREATE: &[&str] = &[
    "
-- a customer and its credit line, amounts in minor units of the currency
create table customer (
    customer_id {bytes} not null primary key,
    -- of its events, so that a read finds the head that goes with the row
    partition bigint not null,
    name text not null,
    currency text not null,
    limit_minor bigint not null,
    reserved_minor bigint not null,
    version bigint not null,
    -- what created it: a repeated request finds its customer here
    request_id {bytes},
    body_hash bigint,
    create_time_ms bigint not null,
    update_time_ms bigint not null,
    constraint customer_credit_check check (reserved_minor >= 0 and reserved_minor <= limit_minor)
)
",
    "
-- most have none, and an index of nulls would cost every insert
create unique index customer_request_id_key on customer (request_id) where request_id is not null
",
    "
-- what an order did to a credit line, kept for good, because it decides every repeat
create table reservation (
    order_id {bytes} not null primary key,
    customer_id {bytes} not null,
    -- 1 reserved, 2 refused, 3 released
    state bigint not null,
    amount_minor bigint not null
)
",
];
