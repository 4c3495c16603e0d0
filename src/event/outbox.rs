//! The log of one store: appended to in the transaction of the change, published after its commit.
//!
//! Positions come from a counter row for each partition, taken under its lock at the end of the transaction: they are
//! gap-free and in commit order, which a plain sequence is not (marten #1629, commanded/eventstore #3).

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prost_types::{Any, Timestamp};
use tokio::sync::watch;
use uuid::Uuid;

use super::{PARTITIONS, Position, PositionToken, membership::Memberships, partition_of, tail::Tail};
use crate::{
    contract::meshwork::event::v1::Event,
    store::{Database, Migration, Row, Sql, StoreError, Transaction},
    write::NewEvent,
};

/// Rows of one insert: well below SQLite's 32,766 and PostgreSQL's 65,535 parameters at eleven columns a row.
const MAX_INSERT_ROWS: usize = 1000;
/// The version that all events have until a type's meaning changes.
const SCHEMA_VERSION: u32 = 1;

const COLUMNS: &str = "partition, position, event_id, aggregate_type, aggregate_id, aggregate_version, type, \
                       schema_version, trace_parent, create_time_ms, payload";

/// An open database with its log; clones share it. All instances of a service in one process use one.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Inner>,
}

struct Inner {
    database: Database,
    store_id: String,
    tail: Mutex<Tail>,
    heads: watch::Sender<()>,
    memberships: Memberships,
}

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the event log")]
pub struct OutboxError(#[from] StoreError);

impl Outbox {
    /// Brings the tables of log and cursors up to date and reads where the log stands.
    ///
    /// # Errors
    /// [`OutboxError`] if the database fails.
    pub async fn open(database: Database) -> Result<Self, OutboxError> {
        database.migrate("event", MIGRATIONS).await?;
        let store_id = store_id(&database).await?;
        let mut heads = vec![0; PARTITIONS as usize];
        for row in database.read(Sql::new("select partition, next from outbox_head")).await? {
            if let Some(head) = usize::try_from(row.int(0)?).ok().and_then(|partition| heads.get_mut(partition)) {
                *head = row.count(1)?.saturating_sub(1);
            }
        }
        let (heads_moved, _) = watch::channel(());
        Ok(Self {
            inner: Arc::new(Inner {
                database,
                store_id,
                tail: Mutex::new(Tail::new(heads)),
                heads: heads_moved,
                memberships: Memberships::default(),
            }),
        })
    }

    /// The database behind the log.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    /// The id of the store, made when it was created. Another id means other data.
    pub fn store_id(&self) -> &str {
        &self.inner.store_id
    }

    /// The `position_token` for a position in this log, which `source` serves.
    pub fn token(&self, source: &str, position: Position) -> String {
        PositionToken {
            source: source.to_owned(),
            store_id: self.inner.store_id.clone(),
            partition: position.partition,
            position: position.position,
        }
        .to_text()
    }

    pub(super) fn memberships(&self) -> &Memberships {
        &self.inner.memberships
    }

    /// The last position of every partition.
    pub(super) fn heads(&self) -> Vec<u64> {
        self.tail().heads().to_vec()
    }

    /// Changes whenever events were published.
    pub(super) fn published(&self) -> watch::Receiver<()> {
        self.inner.heads.subscribe()
    }

    /// Up to `limit` events after a position, from memory if it holds them.
    pub(super) async fn read(&self, after: Position, limit: usize) -> Result<Vec<Arc<Event>>, StoreError> {
        if let Some(events) = self.tail().after(after, limit) {
            return Ok(events);
        }
        let sql = Sql::new(format!("select {COLUMNS} from outbox where partition = "))
            .arg(i64::from(after.partition))
            .push(" and position > ")
            .arg(signed(after.position))
            .push(" order by position limit ")
            .arg(signed(limit as u64));
        self.inner.database.read(sql).await?.iter().map(|row| event(row).map(Arc::new)).collect()
    }

    /// Makes committed events visible to subscribers. To be called after the commit, never before.
    pub(crate) fn publish(&self, events: Vec<Event>) {
        if events.is_empty() {
            return;
        }
        let mut tail = self.tail();
        events.into_iter().for_each(|event| tail.publish(Arc::new(event)));
        drop(tail);
        self.inner.heads.send_replace(());
    }

    fn tail(&self) -> MutexGuard<'_, Tail> {
        // A tail that another thread left in the middle of a push is still a contiguous run.
        self.inner.tail.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Gives `events` their positions and writes them. The last thing in a transaction before its cursors, because it locks
/// the heads; in ascending partition order, so that two writers cannot wait for each other in a circle.
pub(crate) async fn append(tx: &mut dyn Transaction, events: Vec<NewEvent>) -> Result<Vec<Event>, StoreError> {
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let partitions: Vec<u32> = events.iter().map(|event| partition_of(Uuid::from_bytes(event.partition_key))).collect();
    let mut heads: BTreeMap<u32, u64> = partitions.iter().map(|partition| (*partition, 1)).collect();
    let lock = Sql::new("select partition, next from outbox_head where partition in ")
        .list(heads.keys().map(|partition| i64::from(*partition)))
        .push(" order by partition")
        .push(tx.for_update());
    for row in tx.fetch(lock).await? {
        let partition = u32::try_from(row.int(0)?).ok().and_then(|partition| heads.get_mut(&partition));
        *partition.expect("asked for by number") = row.count(1)?;
    }

    let appended: Vec<Event> = events
        .into_iter()
        .zip(partitions)
        .map(|(event, partition)| {
            let next = heads.get_mut(&partition).expect("collected from the same events");
            *next += 1;
            positioned(event, Position { partition, position: *next - 1 })
        })
        .collect();

    let moved = Sql::new("insert into outbox_head (partition, next) values ")
        .rows(heads.iter().map(|(partition, next)| [i64::from(*partition).into(), signed(*next).into()]))
        .push(" on conflict (partition) do update set next = excluded.next");
    tx.execute(moved).await?;
    for chunk in appended.chunks(MAX_INSERT_ROWS) {
        let insert = Sql::new(format!("insert into outbox ({COLUMNS}) values "));
        tx.execute(insert.rows(chunk.iter().map(|event| {
            let payload = event.payload.as_ref().map(|any| any.value.clone());
            [
                i64::from(event.partition).into(),
                signed(event.position).into(),
                event.event_id.as_str().into(),
                event.aggregate_type.as_str().into(),
                event.aggregate_id.as_str().into(),
                signed(event.aggregate_version).into(),
                event.r#type.as_str().into(),
                i64::from(event.schema_version).into(),
                event.trace_parent.as_str().into(),
                event.create_time.as_ref().map_or(0, millis).into(),
                payload.unwrap_or_default().into(),
            ]
        })))
        .await?;
    }
    Ok(appended)
}

async fn store_id(database: &Database) -> Result<String, StoreError> {
    let mut tx = database.begin().await?;
    let select = Sql::new(format!("select store_id from store{}", tx.for_update()));
    if let Some(row) = tx.fetch(select).await?.first() {
        return row.text(0).map(str::to_owned);
    }
    let store_id = Uuid::now_v7().to_string();
    tx.execute(Sql::new("insert into store (only, store_id) values ").rows([[1.into(), store_id.as_str().into()]]))
        .await?;
    tx.commit().await?;
    Ok(store_id)
}

fn positioned(event: NewEvent, at: Position) -> Event {
    Event {
        event_id: Uuid::now_v7().to_string(),
        partition: at.partition,
        position: at.position,
        aggregate_type: event.aggregate_type.to_owned(),
        aggregate_id: event.aggregate_id,
        aggregate_version: event.aggregate_version,
        payload: Some(payload(&event.event_type, event.payload)),
        r#type: event.event_type,
        schema_version: SCHEMA_VERSION,
        trace_parent: event.trace_parent,
        create_time: Some(timestamp(event.create_time_ms)),
    }
}

fn event(row: &Row) -> Result<Event, StoreError> {
    let small = |column| {
        row.count(column).and_then(|value| {
            u32::try_from(value).map_err(|_| StoreError::Decode { column, expected: "a small count" })
        })
    };
    Ok(Event {
        partition: small(0)?,
        position: row.count(1)?,
        event_id: row.text(2)?.to_owned(),
        aggregate_type: row.text(3)?.to_owned(),
        aggregate_id: row.text(4)?.to_owned(),
        aggregate_version: row.count(5)?,
        r#type: row.text(6)?.to_owned(),
        schema_version: small(7)?,
        trace_parent: row.text(8)?.to_owned(),
        create_time: Some(timestamp(row.int(9)?)),
        payload: Some(payload(row.text(6)?, row.bytes(10)?.to_vec())),
    })
}

fn payload(event_type: &str, value: Vec<u8>) -> Any {
    Any { type_url: format!("type.googleapis.com/{event_type}"), value }
}

fn timestamp(ms: i64) -> Timestamp {
    let nanos = i32::try_from(ms.rem_euclid(1000) * 1_000_000).expect("less than a second");
    Timestamp { seconds: ms.div_euclid(1000), nanos }
}

fn millis(time: &Timestamp) -> i64 {
    time.seconds * 1000 + i64::from(time.nanos / 1_000_000)
}

/// Positions, versions and limits stay far below `i64::MAX`: a log of a million events a second would need 292,000 years.
pub(super) fn signed(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

const MIGRATIONS: &[Migration] = &[Migration {
    version: 1,
    sql: "
    -- one row: which data this is
    create table store (only bigint not null primary key check (only = 1), store_id text not null);

    -- the next position of every partition, whose row lock puts commits in order
    create table outbox_head (partition bigint not null primary key, next bigint not null);

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
        payload bytea not null,
        primary key (partition, position)
    );

    -- how far this store has folded the logs of others
    create table cursor (
        source text not null,
        partition bigint not null,
        store_id text not null,
        position bigint not null,
        primary key (source, partition)
    );
    ",
}];
