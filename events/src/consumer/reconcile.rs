//! Reconciles a subscription with a source that was restored from a backup.
//!
//! Events that were read are then missing from the log, and others are at their positions. The last shared event is
//! found by time: the source gives ids in ascending order (UUIDv7), so an event in the log that is not younger than the
//! event at the cursor was there before, and a younger one was added since. The effects of the lost events are undone by
//! the service that has folded them ([`Undo`]); then the cursors go back to the fork, and the subscription reads on.
//!
//! Between the two no reader may read on: the undo would take back what was just folded anew. So the cursors are given to a
//! mark, a store id that belongs to no store, which fences every reader. A later reconcile, after a crash or beside this one,
//! takes them over with its own mark, and the earlier one fails.

use std::{sync::Arc, time::Duration};

use futures_util::future::try_join_all;
use tonic::{Code, Status};
use uuid::Uuid;

use super::{Past, past::There};
use crate::{
    outbox::{CURSOR_EXPIRED, DOMAIN, LogPoint, PARTITIONS, Position, unavailable},
    store::{Database, StoreError, Transaction},
    writer::{
        CursorName,
        cursor::{self, Cursor},
    },
};

/// What a mark begins with: the store id of cursors that are being reconciled.
pub(super) const MARK: &str = "reconciled-by/";
/// When to try again after the source has failed.
const RETRY_DELAY: Duration = Duration::from_secs(1);
/// How often cursors are looked at anew that have moved before they were held.
const HOLD_ATTEMPTS: u32 = 5;

/// The point where a log parts from what was read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The last point that was read. Its event is not known for a cursor of Meshwork 0.1.
    pub read: LogPoint,
    /// The last point that both know.
    pub common: LogPoint,
}

impl Fork {
    /// The partition.
    pub fn partition(&self) -> u32 {
        self.read.at.partition
    }

    /// When the last event that both know was written, in milliseconds since the Unix epoch: nothing that happened before is lost.
    /// 0: at the beginning.
    pub fn common_ms(&self) -> i64 {
        self.common.event_id.and_then(unix_ms).unwrap_or_default()
    }
}

/// The events that a group has read and its source has lost.
#[derive(Clone, Debug)]
pub struct Lost {
    forks: Vec<Fork>,
    /// The cursors as they must stand; `None`: nothing is to be changed.
    held: Option<Held>,
}

/// Cursors that belong to one reconcile, until another takes them over.
#[derive(Clone, Debug)]
struct Held {
    name: CursorName,
    cursors: Vec<(u32, Cursor)>,
}

impl Lost {
    /// Creates lost events that are only to be counted, as [`Undo::undo`] gets them for a dry run.
    pub fn to_count(forks: Vec<Fork>) -> Self {
        Self { forks, held: None }
    }

    /// The points where the log parts from what was read, one for each partition.
    pub fn forks(&self) -> &[Fork] {
        &self.forks
    }

    /// Whether the effects are only to be counted.
    pub fn validate_only(&self) -> bool {
        self.held.is_none()
    }

    /// Makes sure, until `tx` ends, that no other process reconciles or reads on. Call it first in a transaction that throws away
    /// what events have folded: otherwise that transaction might throw away what was just folded anew.
    ///
    /// # Errors
    /// ABORTED if another reconcile has taken over, UNAVAILABLE if the store fails.
    pub async fn lock(&self, tx: &mut dyn Transaction) -> Result<(), Status> {
        let Some(Held { name, cursors }) = &self.held else { return Ok(()) };
        if stand(tx, name, cursors).await.map_err(|error| unavailable(&error))? { Ok(()) } else { Err(taken_over()) }
    }
}

/// What a service does about events that it has folded, and that its source has lost.
#[tonic::async_trait]
pub trait Undo: Send + Sync + 'static {
    /// Undoes what the events behind the forks have done, or only counts it if [`Lost::validate_only`]. It runs before the cursors
    /// move, and again after a failure, so it must be idempotent. Events up to a fork may come again, if the
    /// clocks of the source's processes differ.
    ///
    /// # Errors
    /// A status for the operator; the subscription stays stopped, until a later call comes to its end.
    async fn undo(&self, lost: &Lost) -> Result<Undone, Status>;
}

/// What was undone, or would be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Undone {
    /// Effects in a few words, each with its number.
    pub effects: Vec<(&'static str, u64)>,
    /// Whether the partitions are read again from their beginning, because what was folded there was thrown away. Otherwise
    /// from the fork.
    pub from_the_beginning: bool,
}

/// The undo of a service in which lost events leave nothing to undo.
#[tonic::async_trait]
impl Undo for () {
    async fn undo(&self, _: &Lost) -> Result<Undone, Status> {
        Ok(Undone::default())
    }
}

/// Why a subscription cannot be brought back.
#[derive(Debug, thiserror::Error)]
pub(super) enum ReconcileError {
    /// The source does not answer.
    #[error("the source cannot be asked: {}", .0.message())]
    Source(Status),
    /// Instances of the source answer with two stores.
    #[error("the source is served from two stores, {0} and {1}")]
    TwoStores(String, String),
    /// The last event that both know was pruned.
    #[error("the last shared event of partition {partition} was pruned from the source's log")]
    Expired {
        /// The partition.
        partition: u32,
    },
    /// Another process reconciles, or reads on.
    #[error("{}", TAKEN_OVER)]
    TakenOver,
    /// This service's own store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

const TAKEN_OVER: &str = "the cursors have moved: another reconcile of this subscription is running; try again";

impl From<ReconcileError> for Status {
    fn from(error: ReconcileError) -> Self {
        match error {
            ReconcileError::Source(_) | ReconcileError::TwoStores(..) => {
                DOMAIN.retry_later("SOURCE_UNAVAILABLE", error.to_string(), RETRY_DELAY)
            }
            ReconcileError::Expired { .. } => DOMAIN.error(Code::OutOfRange, CURSOR_EXPIRED, error.to_string()),
            ReconcileError::TakenOver => taken_over(),
            ReconcileError::Store(error) => unavailable(&error),
        }
    }
}

fn taken_over() -> Status {
    DOMAIN.error(Code::Aborted, "CURSORS_MOVED", TAKEN_OVER)
}

/// A group's cursors in the log of a source, and where that log differs from what it has read.
#[derive(Debug)]
pub(super) struct Forks {
    name: CursorName,
    /// By partition, with the cursors as they stand.
    forks: Vec<(Cursor, Fork)>,
    /// The source's store.
    store_id: String,
}

impl Forks {
    /// Finds where the log parts from what was read, and [holds](Self::hold) the cursors there. Nothing is done as long as readers
    /// that read on in between are ahead of it, so that it is tried some times.
    pub(super) async fn find_and_hold(
        database: &Database,
        name: &CursorName,
        past: &Past,
        backup_ms: Option<u64>,
    ) -> Result<(Self, Lost), ReconcileError> {
        let mut attempts = 1;
        loop {
            let mut found = Self::find(database, name, past, backup_ms).await?;
            if found.is_empty() {
                let lost = found.lost();
                return Ok((found, lost));
            }
            match found.hold(database).await {
                Ok(lost) => return Ok((found, lost)),
                Err(ReconcileError::TakenOver) if attempts < HOLD_ATTEMPTS => attempts += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Compares a group's cursors with the source's log. `backup_ms`: what stands there and is of that time, or later, is
    /// taken for younger than all that was read.
    pub(super) async fn find(
        database: &Database,
        name: &CursorName,
        past: &Past,
        backup_ms: Option<u64>,
    ) -> Result<Self, ReconcileError> {
        let log = Log::of(past).await?;
        let cursors = cursor::load(database, name).await?;
        let read = cursors.into_iter().filter(|(partition, cursor)| cursor.position > 0 && *partition < PARTITIONS);
        let forks = try_join_all(read.map(|(partition, cursor)| log.fork(partition, cursor, backup_ms))).await?;
        Ok(Self { name: name.clone(), forks: forks.into_iter().flatten().collect(), store_id: log.store_id })
    }

    pub(super) fn is_empty(&self) -> bool {
        self.forks.is_empty()
    }

    /// The lost events, only to be counted.
    pub(super) fn lost(&self) -> Lost {
        Lost::to_count(self.forks.iter().map(|(_, fork)| *fork).collect())
    }

    /// Takes the cursors from their readers, and from other reconciliations, until they are
    /// [moved](Self::move_cursors).
    async fn hold(&mut self, database: &Database) -> Result<Lost, ReconcileError> {
        let mark: Arc<str> = format!("{MARK}{}", Uuid::new_v4()).into();
        self.replace(database, |was, _| Cursor { store_id: mark.clone(), ..was.clone() }).await?;
        Ok(Lost { held: Some(Held { name: self.name.clone(), cursors: self.cursors() }), ..self.lost() })
    }

    /// Gives the cursors back to their readers, at the forks or `from_the_beginning`.
    pub(super) async fn move_cursors(
        &mut self,
        database: &Database,
        from_the_beginning: bool,
    ) -> Result<(), ReconcileError> {
        let store_id: Arc<str> = self.store_id.as_str().into();
        let to = |_: &Cursor, fork: &Fork| match fork.common {
            LogPoint { event_id: Some(event_id), at } if !from_the_beginning => {
                Cursor { store_id: store_id.clone(), position: at.position, event_id: event_id.to_string() }
            }
            _ => Cursor { store_id: store_id.clone(), ..Cursor::default() },
        };
        self.replace(database, to).await
    }

    async fn replace(
        &mut self,
        database: &Database,
        to: impl Fn(&Cursor, &Fork) -> Cursor,
    ) -> Result<(), ReconcileError> {
        let mut tx = database.begin().await?;
        if !stand(&mut *tx, &self.name, &self.cursors()).await? {
            return Err(ReconcileError::TakenOver);
        }
        self.forks.iter_mut().for_each(|(cursor, fork)| *cursor = to(cursor, fork));
        let rows = self.forks.iter().map(|(cursor, fork)| (&*self.name, fork.partition(), cursor));
        cursor::save(&mut *tx, rows).await?;
        Ok(tx.commit().await?)
    }

    fn cursors(&self) -> Vec<(u32, Cursor)> {
        self.forks.iter().map(|(cursor, fork)| (fork.partition(), cursor.clone())).collect()
    }
}

/// Locks cursors, and returns whether all are as expected.
async fn stand(tx: &mut dyn Transaction, name: &str, cursors: &[(u32, Cursor)]) -> Result<bool, StoreError> {
    let partitions: Vec<u32> = cursors.iter().map(|(partition, _)| *partition).collect();
    Ok(cursor::lock(tx, name, &partitions).await? == cursors)
}

/// The log of the source, in which events are looked up.
struct Log<'a> {
    past: &'a Past,
    store_id: String,
}

impl<'a> Log<'a> {
    async fn of(past: &'a Past) -> Result<Self, ReconcileError> {
        // Before the first event, which is in every log.
        match past.look(Position { partition: 0, position: 0 }).await.map_err(ReconcileError::Source)? {
            There::Event { store_id, .. } => Ok(Self { past, store_id }),
            There::Beyond | There::Pruned => Err(ReconcileError::Expired { partition: 0 }),
        }
    }

    async fn look(&self, at: Position) -> Result<There, ReconcileError> {
        match self.past.look(at).await.map_err(ReconcileError::Source)? {
            There::Event { store_id, .. } if store_id != self.store_id => {
                Err(ReconcileError::TwoStores(self.store_id.clone(), store_id))
            }
            there => Ok(there),
        }
    }

    /// Where the log differs from what a cursor has read; `None` if it does not.
    async fn fork(
        &self,
        partition: u32,
        cursor: Cursor,
        backup_ms: Option<u64>,
    ) -> Result<Option<(Cursor, Fork)>, ReconcileError> {
        let at = Position { partition, position: cursor.position };
        let read = LogPoint { at, event_id: Uuid::try_parse(&cursor.event_id).ok() };
        let there = self.look(at).await?;
        let same_store = *cursor.store_id == *self.store_id;
        let same_event = matches!(&there, There::Event { event_id, .. } if *event_id == cursor.event_id);
        // A cursor of 0.1 is believed, as when it starts.
        let believed = cursor.event_id.is_empty() && matches!(there, There::Event { .. });
        let common = match (same_store, same_event) {
            (true, same_event) if same_event || believed => return Ok(None),
            // The same log in another store, as after a move.
            (false, true) => read,
            _ => self.last_up_to(at, bound(read.event_id, backup_ms)).await?,
        };
        Ok(Some((cursor, Fork { read, common })))
    }

    /// The last point before `end` whose event is not beyond `bound`.
    async fn last_up_to(&self, end: Position, bound: Uuid) -> Result<LogPoint, ReconcileError> {
        let partition = end.partition;
        let (mut low, mut high) = ((0, None), end.position);
        let mut pruned = false;
        while high - low.0 > 1 {
            let position = low.0 + (high - low.0) / 2;
            match self.look(Position { partition, position }).await? {
                There::Pruned => (low, pruned) = ((position, None), true),
                There::Beyond => high = position,
                There::Event { event_id, .. } => match Uuid::try_parse(&event_id) {
                    Ok(event_id) if event_id <= bound => (low, pruned) = ((position, Some(event_id)), false),
                    // What cannot be compared is not taken for common.
                    Ok(_) | Err(_) => high = position,
                },
            }
        }
        let (position, event_id) = low;
        let first = Position { partition, position: 1 };
        if pruned || (position == 0 && self.look(first).await? == There::Pruned) {
            return Err(ReconcileError::Expired { partition });
        }
        Ok(LogPoint { at: Position { partition, position }, event_id })
    }
}

/// The last id that an event may have that was there before: that at the cursor, or the last before the backup's time.
fn bound(read: Option<Uuid>, backup_ms: Option<u64>) -> Uuid {
    // Of a cursor of 0.1 nothing is known, so that all is read again.
    let read = read.unwrap_or(Uuid::nil());
    match backup_ms {
        Some(ms) => {
            let backup = first_id(ms);
            if read.is_nil() { backup } else { read.min(backup) }
        }
        None => read,
    }
}

/// The first id that can have been made at a time in milliseconds since the Unix epoch: its first 48 bits (UUIDv7: RFC 9562, 5.7).
pub fn first_id(unix_ms: u64) -> Uuid {
    Uuid::from_u128((u128::from(unix_ms) & 0xffff_ffff_ffff) << 80)
}

/// The time in an event's id.
fn unix_ms(id: Uuid) -> Option<i64> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(i64::from(nanos) / 1_000_000)
}
