//! The outbox is the log of one store, which other services read in order from any position. Events are appended in the
//! transaction of the change, and published after its commit.
//!
//! Positions come from a counter row for each partition, taken under its lock at the end of the transaction: they are
//! gap-free and in commit order, which a plain sequence is not (marten #1629, commanded/eventstore #3).

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, Weak},
};

use meshwork::{
    contract::meshwork::event::v1::Event,
    health::{Condition, Conditioner},
};
use parking_lot::Mutex;
use prost::Message as _;
use tokio::sync::{Notify, watch};
use uuid::Uuid;

use crate::{
    consumer::{ConsumerGroups, Progress, cursor_name},
    store::{Database, Sql, StoreError, Topic, Transaction, signed},
    writer::cursor,
};
use log::Log;
use schema::MIGRATIONS;
use tail::Tail;

mod base;
mod feed;
mod log;
mod new_event;
mod owner;
mod point;
mod position;
mod row;
mod schema;
mod session;
mod standing;
mod tail;
mod tasks;

pub use feed::Feed;
pub use new_event::NewEvent;
pub use point::{HEAD_COLUMNS, point};
pub use position::{LogPoint, PARTITIONS, Position, PositionToken, partition_of};

pub(crate) use row::SCHEMA_VERSION;
pub(crate) use session::{CURSOR_EXPIRED, DOMAIN, MAX_BATCH_EVENTS, is_expired, unavailable};
pub(crate) use standing::Standing;

/// The head of each partition, with the store that it is of and the event there; that is empty if it was pruned, or committed
/// after this statement began.
const SELECT_HEADS: &str = "select partition, next, (select store_id from store), coalesce((select event_id from outbox \
                            where outbox.partition = outbox_head.partition and position = next - 1), '') from outbox_head";

/// Rows of one insert: well below SQLite's 32,766 parameters at eleven columns a row.
const MAX_INSERT_ROWS: usize = 1000;
/// Bytes of one event: it must fit into a message of 4 MiB, with room for what later versions say of it.
const MAX_EVENT_BYTES: usize = 2 << 20;

/// An open database with its log; clones share it. All instances of a service in one process use one.
#[derive(Clone)]
pub struct Outbox {
    inner: Arc<Log>,
}

/// The log cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("cannot open the event log")]
pub struct OutboxError(#[from] StoreError);

impl Outbox {
    /// Brings the tables of log and cursors up to date and reads the heads of the log. From now on the database belongs to the
    /// service `owner`; other tables in it are of the component `owner`, or of one that begins with `owner_`.
    ///
    /// # Errors
    /// [`OutboxError`] if the database fails, or belongs to another service.
    pub async fn open(database: Database, owner: &str) -> Result<Self, OutboxError> {
        owner::check_unopened(&database, owner).await?;
        database.migrate("event", MIGRATIONS).await?;
        let store_id = owner::claim(&database, owner).await?;
        let place = database.place().await?;
        let mut heads: Vec<_> = (0..PARTITIONS).map(LogPoint::begin).collect();
        for row in database.read(Sql::new(SELECT_HEADS)).await? {
            if let Some(head) = usize::try_from(row.int(0)?).ok().and_then(|partition| heads.get_mut(partition)) {
                head.at.position = row.count(1)?.saturating_sub(1);
                head.event_id = Uuid::try_parse(row.text(3)?).ok();
            }
        }
        let behind = Arc::new(Notify::new());
        let watched = behind.clone();
        let conditioner = Conditioner::default();
        let notified = database.notifier().map(|notifier| notifier.subscribe(Topic::Log));
        let inner = Arc::new_cyclic(|inner: &Weak<Log>| Log {
            store_id,
            place,
            tail: Mutex::new(Tail::new(heads)),
            heads: watch::Sender::new(()),
            went_back: OnceLock::new(),
            observers: Mutex::default(),
            unread: Mutex::default(),
            catching_up: tokio::spawn(tasks::catch_up(inner.clone(), notified, behind.clone())),
            behind,
            consumer_groups: ConsumerGroups::new(database.clone()),
            progress: Mutex::default(),
            condition: conditioner.condition(),
            watching: tokio::spawn(tasks::watch_over(inner.clone(), conditioner, watched)),
            database,
        });
        Ok(Self { inner })
    }

    /// The database behind the log.
    pub fn database(&self) -> &Database {
        &self.inner.database
    }

    /// The id that the store was given when it was created. Another id means other data.
    pub fn store_id(&self) -> &str {
        &self.inner.store_id
    }

    /// The place of the store: another place with the same id is a copy.
    pub fn place(&self) -> &str {
        &self.inner.place
    }

    /// The `position_token` for a point of this log, which `source` serves.
    pub fn token(&self, source: &str, LogPoint { at, event_id }: LogPoint) -> String {
        PositionToken {
            source: source.to_owned(),
            store_id: self.inner.store_id.clone(),
            partition: at.partition,
            position: at.position,
            event_id: event_id.map(|id| id.to_string()).unwrap_or_default(),
        }
        .to_text()
    }

    /// Whether the database answers, can be written, and still holds this store, with all that was published of it; and whether
    /// what others have written there can be read.
    ///
    /// # Errors
    /// What is wrong with it.
    pub async fn check(&self) -> Result<(), StoreError> {
        self.inner.check().await
    }

    /// # Errors
    /// [`StoreError::WentBack`] once it was noticed that what was published is not the past of the log in the database.
    pub(crate) fn check_not_set_back(&self) -> Result<(), StoreError> {
        self.inner.check_not_set_back()
    }

    /// Calls `observer` with every event that any process commits from now on: once for each event, in order of its partition.
    /// It serves to wake tasks that wait for a change; it runs while events are published, so it must not block.
    pub fn observe(&self, observer: impl Fn(&Event) + Send + Sync + 'static) {
        self.inner.observers().push(Box::new(observer));
    }

    /// The condition of the store: whether it answers, can be written, and is still the one that was opened.
    pub fn condition(&self) -> Condition {
        self.inner.condition.clone()
    }

    /// How far a group that reads into this store has come with a source; one for all of its readers in this process.
    pub(crate) fn progress(&self, source: &str, group: &str) -> Progress {
        let mut progress = self.inner.progress.lock();
        progress.entry((source.to_owned(), group.to_owned())).or_default().clone()
    }

    /// The positions up to which a group has folded the log of `source` into this store, by partition. This gives an unknown
    /// group a name for its cursors, as if it had begun to read.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn folded(&self, source: &str, group: &str) -> Result<[u64; PARTITIONS as usize], StoreError> {
        let database = self.database();
        let name = cursor_name(database, source, group).await?;
        let mut folded = [0; PARTITIONS as usize];
        for at in cursor::positions(&cursor::load(database, &name).await?) {
            if let Some(folded) = folded.get_mut(at.partition as usize) {
                *folded = at.position;
            }
        }
        Ok(folded)
    }

    pub(crate) fn consumer_groups(&self) -> &ConsumerGroups {
        &self.inner.consumer_groups
    }

    /// The last position of every partition that was published here.
    pub(crate) fn heads(&self) -> Vec<u64> {
        self.inner.tail().heads().iter().map(|head| head.at.position).collect()
    }

    /// Changes whenever events were published.
    pub(crate) fn published(&self) -> watch::Receiver<()> {
        self.inner.heads.subscribe()
    }

    /// Up to `limit` events after a position, from memory if it holds them.
    pub(crate) async fn read(&self, after: Position, limit: usize) -> Result<Vec<Arc<Event>>, StoreError> {
        self.check_not_set_back()?;
        if let Some(events) = self.inner.tail().after(after, limit) {
            return Ok(events);
        }
        let rows = self.inner.database.read(row::select(Sql::new(""), after, limit)).await?;
        rows.iter().map(|row| row::event(row).map(Arc::new)).collect()
    }

    /// Gives `events` their positions and writes them. The last thing in a transaction before its cursors, because it locks
    /// the heads; in ascending partition order, so that two writers cannot wait for each other in a circle.
    pub(crate) async fn append(
        &self,
        tx: &mut dyn Transaction,
        events: Vec<NewEvent>,
    ) -> Result<Vec<Event>, StoreError> {
        if events.is_empty() {
            return Ok(Vec::new());
        }
        let partition = |event: &NewEvent| partition_of(Uuid::from_bytes(event.partition_key));
        let partitions: Vec<u32> = events.iter().map(partition).collect();
        let mut heads: BTreeMap<u32, u64> = partitions.iter().map(|partition| (*partition, 1)).collect();
        let lock = Sql::new(SELECT_HEADS)
            .push(" where partition ")
            .in_list(heads.keys().map(|partition| i64::from(*partition)))
            .push(" order by partition")
            .push(tx.for_update());
        let locked = tx.fetch(lock).await?;
        // From here no commit can land behind these heads, so what was published ends at or before them.
        let published = self.inner.tail().heads().to_vec();
        for row in locked {
            let (partition, next, event_id) = (row.int(0)?, row.count(1)?, row.text(3)?);
            let (partition, head) = u32::try_from(partition)
                .ok()
                .and_then(|partition| Some((partition, heads.get_mut(&partition)?)))
                .expect("asked for by number");
            let published = &published[partition as usize];
            let found = next.saturating_sub(1);
            let mut there = String::new();
            if found > 0 && found == published.at.position {
                event_id.clone_into(&mut there);
                if there.is_empty() {
                    // Committed while the lock was waited for.
                    let at = Position { partition, position: found };
                    there = event_id_at(tx, at).await?.unwrap_or_default();
                }
            }
            self.inner.compare(row.text(2)?, published, found, &there)?;
            *head = next;
        }

        let appended: Vec<Event> = events
            .into_iter()
            .zip(partitions)
            .map(|(event, partition)| {
                let next = heads.get_mut(&partition).expect("collected from the same events");
                *next += 1;
                row::positioned(event, Position { partition, position: *next - 1 })
            })
            .collect();

        if let Some(event) = appended.iter().find(|event| event.encoded_len() > MAX_EVENT_BYTES) {
            let (event_type, bytes) = (event.r#type.clone(), event.encoded_len());
            return Err(StoreError::EventTooLarge { event_type, bytes, limit: MAX_EVENT_BYTES });
        }

        let moved = Sql::new("insert into outbox_head (partition, next) ")
            .values(heads.iter().map(|(partition, next)| [i64::from(*partition).into(), signed(*next).into()]))
            .push(" on conflict (partition) do update set next = excluded.next");
        tx.execute(moved).await?;
        for chunk in appended.chunks(MAX_INSERT_ROWS) {
            let insert = Sql::new(format!("insert into outbox ({}) ", row::COLUMNS));
            tx.execute(insert.values(chunk.iter().map(row::values))).await?;
        }
        Ok(appended)
    }

    /// Looks for events that no commit will publish, such as those of a commit whose answer was lost.
    pub(crate) fn look_behind(&self) {
        self.inner.behind.notify_one();
    }

    /// Makes committed events visible to subscribers. To be called after the commit, never before.
    pub(crate) fn publish(&self, events: Vec<Event>) {
        if !events.is_empty() {
            self.inner.publish(events);
            self.notify_others();
        }
    }

    /// Notifies the other processes on this database of a commit that concerns them.
    pub(crate) fn notify_others(&self) {
        if let Some(notifier) = self.inner.database.notifier() {
            notifier.notify(Topic::Log);
        }
    }
}

/// The event at a position, if there is one now.
async fn event_id_at(tx: &mut dyn Transaction, at: Position) -> Result<Option<String>, StoreError> {
    let select = Sql::new("select event_id from outbox where partition = ").arg(i64::from(at.partition));
    let rows = tx.fetch(select.push(" and position = ").arg(signed(at.position))).await?;
    rows.first().map(|row| row.text(0).map(str::to_owned)).transpose()
}
