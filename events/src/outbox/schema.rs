//! The tables of log, cursors and members.

use crate::store::Migration;

/// The schema's history, of component `event`.
pub(super) const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, suits: 1, statements: CREATE },
    Migration { version: 2, suits: 1, statements: CREATE_HEADS },
    Migration { version: 3, suits: 1, statements: CREATE_MEMBERS },
    Migration { version: 4, suits: 3, statements: KNOW_THE_PAST },
];

const CREATE: &[&str] = &[
    "
-- one row: which data this is
create table store (\"only\" bigint not null primary key check (\"only\" = 1), store_id text not null)
",
    "
-- the next position of every partition, whose row lock puts commits in order
create table outbox_head (partition bigint not null primary key, next bigint not null)
",
    "
-- append-only: no status column, no updates
create table outbox (
    partition bigint not null,
    position bigint not null,
    event_id text not null,
    aggregate_type text not null,
    aggregate_id text not null,
    aggregate_version bigint not null,
    type text not null,
    schema_version bigint not null,
    trace_parent text not null,
    create_time_ms bigint not null,
    payload {bytes} not null,
    primary key (partition, position)
)
",
    "
-- how far this store has folded the logs of others
create table cursor (
    source text not null,
    partition bigint not null,
    store_id text not null,
    position bigint not null,
    primary key (source, partition)
)
",
];

// Where there is no row there is no lock: two processes would both take position 1.
const CREATE_HEADS: &[&str] = &["
insert into outbox_head (partition, next)
values (0, 1), (1, 1), (2, 1), (3, 1), (4, 1), (5, 1), (6, 1), (7, 1),
       (8, 1), (9, 1), (10, 1), (11, 1), (12, 1), (13, 1), (14, 1), (15, 1)
on conflict (partition) do nothing
"];

const CREATE_MEMBERS: &[&str] = &["
-- who reads a source's partitions, when several processes share this database: each counts its beat up while it lives
create table consumer_member (
    source text not null,
    member_id text not null,
    beat bigint not null,
    primary key (source, member_id)
)
"];

// Programs of version 3 write none of it, and find all that they know where it was.
const KNOW_THE_PAST: &[&str] = &[
    "
-- whose database it is, a service, or empty until the tables of a database of 0.1 have told
alter table store add column owner text not null default ''
",
    "
-- which event stands at the cursor, known only where event_position is the position: version 3 moves that alone
alter table cursor add column event_id text not null default ''
",
    "alter table cursor add column event_position bigint not null default 0",
    "
-- what is up to this position was pruned (no row: nothing was), and the event at it shows whose past that is
create table outbox_base (
    partition bigint not null primary key,
    position bigint not null,
    event_id text not null
)
",
    "
-- who reads which log, and the name of its cursors and members, the column source of cursor and consumer_member
create table consumer_group (
    source text not null,
    consumer_group text not null,
    cursor_name text not null unique,
    primary key (source, consumer_group)
)
",
];
