//! The way back for a subscription whose source was set back to a backup.
//!
//! Events that were read are then in the log no more, and others stand at their positions. The last event that both know is
//! found by time: the source gives ids in ascending order (UUIDv7), so whatever stands in the log and is not younger than the
//! event at the cursor was there before, and whatever is younger has come since. What the lost events have done is undone by
//! the service that has folded them ([`Undo`]); then the cursors go back to the fork, and the subscription reads on.

use futures_util::future::try_join_all;
use tonic::Status;
use uuid::Uuid;

use super::{
    CursorName, LogPoint, PARTITIONS, Past, Position,
    cursor::{self, Cursor},
    past::There,
};
use crate::store::{Database, StoreError};

/// Where a log parts from what was read of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fork {
    /// What was read last. Its event is not known for a cursor of Meshwork 0.1.
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

/// What a service does about events that it has folded, and that its source has lost.
#[tonic::async_trait]
pub trait Undo: Send + Sync + 'static {
    /// Undoes what the events behind the forks have done, or with `validate_only` counts it. Done before the cursors move, so that
    /// it is done again after a failure: twice must be as good as once. Events up to a fork may come again, if the clocks of the
    /// source's processes differ.
    ///
    /// # Errors
    /// A status for the operator; the subscription stays as it is.
    async fn undo(&self, forks: &[Fork], validate_only: bool) -> Result<Undone, Status>;
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

/// For a service in which lost events leave nothing to undo.
#[tonic::async_trait]
impl Undo for () {
    async fn undo(&self, _: &[Fork], _: bool) -> Result<Undone, Status> {
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
    /// What both know was pruned.
    #[error("what both know of partition {partition} was pruned from the source's log")]
    Expired {
        /// The partition.
        partition: u32,
    },
    /// This service's own store.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Where one group stands in the log of a source, and where that log parts from it.
#[derive(Debug)]
pub(super) struct Forks {
    /// By partition, with the cursors as they were.
    forks: Vec<(Cursor, Fork)>,
    /// The source's store.
    store_id: String,
}

impl Forks {
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
        Ok(Self { forks: forks.into_iter().flatten().collect(), store_id: log.store_id })
    }

    pub(super) fn forks(&self) -> Vec<Fork> {
        self.forks.iter().map(|(_, fork)| *fork).collect()
    }

    /// Moves the cursors that still stand where they stood.
    pub(super) async fn move_cursors(
        &self,
        database: &Database,
        name: &CursorName,
        from_the_beginning: bool,
    ) -> Result<(), StoreError> {
        if self.forks.is_empty() {
            return Ok(());
        }
        let partitions: Vec<u32> = self.forks.iter().map(|(_, fork)| fork.partition()).collect();
        let mut tx = database.begin().await?;
        let locked = cursor::lock(&mut *tx, name, &partitions).await?;
        let stands = |partition: u32, was: &Cursor| locked.iter().any(|(p, now)| *p == partition && now == was);
        let to = |fork: &Fork| match fork.common {
            LogPoint { event_id: Some(event_id), at } if !from_the_beginning => (at.position, event_id.to_string()),
            _ => (0, String::new()),
        };
        let moved: Vec<(u32, Cursor)> = self
            .forks
            .iter()
            .filter(|(was, fork)| stands(fork.partition(), was))
            .map(|(_, fork)| {
                let (position, event_id) = to(fork);
                (fork.partition(), Cursor { store_id: self.store_id.as_str().into(), position, event_id })
            })
            .collect();
        if moved.is_empty() {
            return Ok(());
        }
        cursor::save(&mut *tx, moved.iter().map(|(partition, cursor)| (&**name, *partition, cursor))).await?;
        tx.commit().await
    }
}

/// The log of the source, in which events are looked up.
struct Log<'a> {
    past: &'a Past,
    store_id: String,
}

impl<'a> Log<'a> {
    async fn of(past: &'a Past) -> Result<Self, ReconcileError> {
        // Before the first event, which stands in every log.
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

    /// Where the log parts from what a cursor has read; `None` if the cursor stands in it.
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
        if pruned {
            return Err(ReconcileError::Expired { partition });
        }
        let (position, event_id) = low;
        Ok(LogPoint { at: Position { partition, position }, event_id })
    }
}

/// The last id that an event may have that was there before: that at the cursor, or the last before the backup's time.
fn bound(read: Option<Uuid>, backup_ms: Option<u64>) -> Uuid {
    // Of a cursor of 0.1 nothing is known, so that all is read again.
    let read = read.unwrap_or(Uuid::nil());
    match backup_ms {
        // The time is the first 48 bits (RFC 9562, 5.7).
        Some(ms) => {
            let backup = Uuid::from_u128((u128::from(ms) & 0xffff_ffff_ffff) << 80);
            if read.is_nil() { backup } else { read.min(backup) }
        }
        None => read,
    }
}

/// The time in an event's id.
fn unix_ms(id: Uuid) -> Option<i64> {
    let (seconds, nanos) = id.get_timestamp()?.to_unix();
    i64::try_from(seconds).ok()?.checked_mul(1000)?.checked_add(i64::from(nanos) / 1_000_000)
}
