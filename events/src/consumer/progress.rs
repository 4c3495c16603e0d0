//! The progress of a consumer group through a source's log: callers wait for it, and operators read it.
//!
//! All subscriptions of the group in this process share one: what one of them has folded is folded for all.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use meshwork::contract::meshwork::event::v1::{Batch, Event};
use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};
use uuid::Uuid;

use super::unread::Unread;
use crate::outbox::{LogPoint, PARTITIONS, Position};

/// Events whose ids are remembered for each partition, so that a `position_token` is mostly recognized without a question to
/// the source: 16 partitions of them are 400 KiB.
const RECENT_EVENTS: usize = 1024;

/// Whether a subscription moves. The worst comes last.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SubscriptionState {
    /// It reads.
    Running,
    /// Not connected to its source; it tries again. Holds the last error, if there was one.
    Connecting(Option<String>),
    /// This service's own store refuses what was read, in part or whole; it tries again.
    Retrying(String),
    /// Stopped, in part or whole, by something that needs a person; nothing is lost. It is tried now and then.
    Stopped(String),
}

/// An event that holds up its partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stuck {
    /// The event; `None` if the move of the cursor itself fails.
    pub event: Option<EventName>,
    /// The position that the cursor could not reach.
    pub position: u64,
    /// What went wrong.
    pub reason: String,
    /// Whether it needs a person: it cannot be decoded, or the rules refuse it. Otherwise the store does, which may pass.
    pub poison: bool,
}

/// The names of an event in logs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventName {
    /// The event's id.
    pub event_id: String,
    /// The event's type.
    pub event_type: String,
    /// The kind and the id of the aggregate that it happened to.
    pub aggregate: (String, String),
}

impl From<&Event> for EventName {
    fn from(event: &Event) -> Self {
        Self {
            event_id: event.event_id.clone(),
            event_type: event.r#type.clone(),
            aggregate: (event.aggregate_type.clone(), event.aggregate_id.clone()),
        }
    }
}

impl std::fmt::Display for EventName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (kind, id) = &self.aggregate;
        write!(f, "event {} ({} of {kind} {id})", self.event_id, self.event_type)
    }
}

/// The progress of a group, by partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Whether the subscription moves.
    pub state: SubscriptionState,
    /// Whether what was folded is not the source's past: then no position means anything, until an operator reconciles it.
    pub diverged: bool,
    /// The source's store; empty until it was reached.
    pub store_id: String,
    /// All events up to here have had their effects in this store, and are the source's past.
    pub applied: Vec<u64>,
    /// The source's last known positions.
    pub heads: Vec<u64>,
    /// Partitions that are held up, and by which event.
    pub stuck: BTreeMap<u32, Stuck>,
}

impl Snapshot {
    /// The number of events that are known to exist and have had no effects here yet.
    pub fn lag(&self) -> u64 {
        lag(&self.heads, self.applied.iter().copied())
    }
}

/// How many events are between positions and heads.
pub(crate) fn lag(heads: &[u64], positions: impl Iterator<Item = u64>) -> u64 {
    heads.iter().zip(positions).map(|(head, position)| head.saturating_sub(position)).sum()
}

/// A handle to a group's progress; clones share it.
#[derive(Clone, Default)]
pub struct Progress(Arc<Inner>);

/// What is behind its locks is whole after any panic: nothing under them calls foreign code.
struct Inner {
    snapshot: watch::Sender<Snapshot>,
    unread: Mutex<Unread>,
    recent: Mutex<Recent>,
    /// A bit for each partition whose cursor the source has confirmed.
    confirmed: AtomicU32,
    /// The readers of this process, each with its state apart from its partitions.
    readers: Mutex<HashMap<u64, SubscriptionState>>,
    next_reader: AtomicU64,
}

impl Default for Inner {
    fn default() -> Self {
        let none = vec![0; PARTITIONS as usize];
        let snapshot = Snapshot {
            state: SubscriptionState::Connecting(None),
            diverged: false,
            store_id: String::new(),
            applied: none.clone(),
            heads: none,
            stuck: BTreeMap::new(),
        };
        Self {
            snapshot: watch::Sender::new(snapshot),
            unread: Mutex::default(),
            recent: Mutex::default(),
            confirmed: AtomicU32::default(),
            readers: Mutex::default(),
            next_reader: AtomicU64::default(),
        }
    }
}

impl Progress {
    /// The progress as of now.
    pub fn snapshot(&self) -> Snapshot {
        self.0.snapshot.borrow().clone()
    }

    /// Waits until all events up to `at` have had their effects. Returns `false` if what was read is not the source's past, so
    /// that the position means nothing. Waits for ever if the source never gets there: give the call a timeout.
    pub async fn wait_for(&self, at: Position) -> bool {
        let mut receiver = self.0.snapshot.subscribe();
        let is_reached = |s: &Snapshot| s.applied.get(at.partition as usize).is_some_and(|p| *p >= at.position);
        let seen = receiver.wait_for(|s| s.diverged || is_reached(s)).await;
        !seen.expect("this handle holds a sender").diverged
    }

    /// A receiver of the progress that changes with it.
    pub fn watch(&self) -> watch::Receiver<Snapshot> {
        self.0.snapshot.subscribe()
    }

    /// The event that was read at a position, if it is remembered.
    pub fn recent(&self, at: Position) -> Option<LogPoint> {
        let event_id = self.0.recent.lock().get(at)?;
        Some(LogPoint { at, event_id: Some(event_id) })
    }

    /// The age of the oldest event that is known to exist and has had no effects here. Events that were read tell it by the wall
    /// clock of the host that decided them.
    pub fn oldest_unread(&self) -> Option<Duration> {
        self.0.unread.lock().since().map(|since| since.elapsed())
    }

    /// For how long an event has been known here, and has had no effects.
    pub(crate) fn longest_unread(&self) -> Option<Duration> {
        self.0.unread.lock().known().map(|known| known.elapsed())
    }

    /// Whether the source is connected and has confirmed that what was read is its past.
    pub(crate) fn is_confirmed(&self) -> bool {
        self.0.readers.lock().values().any(|state| *state == SubscriptionState::Running)
    }

    /// Another reader of the group in this process.
    pub(crate) fn reader(&self) -> ReaderProgress {
        let id = self.0.next_reader.fetch_add(1, Ordering::Relaxed);
        let reader = ReaderProgress { progress: self.clone(), id, stuck: Mutex::default() };
        reader.set_state(SubscriptionState::Connecting(None));
        reader
    }

    /// The source was reached and sent the heads of its log; it may be another log than before, so that the events that are
    /// remembered say nothing about it.
    pub(crate) fn opened(&self, store_id: &str, heads: impl Iterator<Item = Position> + Clone) {
        *self.0.recent.lock() = Recent::default();
        self.0.snapshot.send_modify(|snapshot| {
            store_id.clone_into(&mut snapshot.store_id);
            for head in heads.clone() {
                if let Some(known) = snapshot.heads.get_mut(head.partition as usize) {
                    *known = head.position;
                }
            }
        });
        let mut unread = self.0.unread.lock();
        heads.clone().for_each(|head| unread.ends_at(head));
        drop(unread);
        self.there(heads);
    }

    /// The source's last positions have moved.
    pub(crate) fn heads(&self, heads: impl Iterator<Item = Position> + Clone) {
        self.0.snapshot.send_if_modified(|snapshot| raise(&mut snapshot.heads, heads.clone()));
        self.there(heads);
    }

    /// A batch is in hand.
    pub(crate) fn received(&self, batch: &Batch) {
        let through = Position { partition: batch.partition, position: batch.through };
        let now = Instant::now();
        let decided = batch.events.first().and_then(decided).unwrap_or(now);
        self.0.snapshot.send_if_modified(|snapshot| raise(&mut snapshot.heads, [through]));
        let mut unread = self.0.unread.lock();
        unread.there(through, now, decided);
        let applied = self.0.snapshot.borrow().applied.get(batch.partition as usize).copied();
        if applied == Some(batch.after) && !batch.events.is_empty() {
            unread.first_is_of(batch.partition, decided);
        }
        drop(unread);
        self.0.recent.lock().note(batch);
    }

    /// More has had its effects.
    pub(crate) fn applied(&self, applied: impl Iterator<Item = Position> + Clone) {
        self.0.snapshot.send_if_modified(|snapshot| raise(&mut snapshot.applied, applied.clone()));
        let mut unread = self.0.unread.lock();
        applied.for_each(|at| unread.read(at));
    }

    /// The source has confirmed that a cursor is in its past. `set_back`: it is before what was applied when it was read.
    pub(crate) fn confirmed(&self, at: Position, set_back: bool) {
        self.0.confirmed.fetch_or(1 << at.partition.min(31), Ordering::Relaxed);
        if set_back {
            self.begin_again(at);
        } else {
            self.applied([at].into_iter());
        }
    }

    /// Cursors as other processes have moved them, and what was `applied` before they were read: one that is before that
    /// was set back. Returns whether one was.
    pub(crate) fn followed(&self, applied: &[u64], cursors: impl Iterator<Item = Position>) -> bool {
        let confirmed = self.0.confirmed.load(Ordering::Relaxed);
        let mut set_back = false;
        for at in cursors.filter(|at| confirmed & (1 << at.partition.min(31)) != 0) {
            if applied.get(at.partition as usize).is_some_and(|applied| *applied > at.position) {
                self.0.recent.lock().forget(at.partition);
                self.begin_again(at);
                set_back = true;
            } else {
                self.applied([at].into_iter());
            }
        }
        set_back
    }

    fn begin_again(&self, at: Position) {
        let head = self.0.snapshot.borrow().heads.get(at.partition as usize).copied().unwrap_or_default();
        self.0.snapshot.send_modify(|snapshot| {
            if let Some(applied) = snapshot.applied.get_mut(at.partition as usize) {
                *applied = at.position;
            }
        });
        let mut unread = self.0.unread.lock();
        unread.begin_again(at);
        let now = Instant::now();
        unread.there(Position { position: head, ..at }, now, now);
    }

    /// What was folded is, or is not, the source's past. If not, what is known of positions and events is worth nothing.
    pub(crate) fn set_diverged(&self, diverged: bool) {
        if diverged {
            *self.0.recent.lock() = Recent::default();
            self.0.confirmed.store(0, Ordering::Relaxed);
        }
        self.0.snapshot.send_if_modified(|snapshot| {
            if diverged {
                snapshot.applied.fill(0);
            }
            std::mem::replace(&mut snapshot.diverged, diverged) != diverged
        });
    }

    fn there(&self, heads: impl Iterator<Item = Position>) {
        let now = Instant::now();
        let mut unread = self.0.unread.lock();
        heads.for_each(|at| unread.there(at, now, now));
    }

    /// Puts the states of readers and partitions together.
    fn change(&self, change: impl FnOnce(&mut HashMap<u64, SubscriptionState>, &mut BTreeMap<u32, Stuck>) -> bool) {
        let mut readers = self.0.readers.lock();
        self.0.snapshot.send_if_modified(|snapshot| {
            let changed = change(&mut readers, &mut snapshot.stuck);
            let of_partition = |(partition, stuck): (&u32, &Stuck)| {
                let what = stuck.event.as_ref().map_or_else(|| "the cursor".to_owned(), ToString::to_string);
                let Stuck { position, reason, .. } = stuck;
                let problem = format!("partition {partition}, position {position}: {what}: {reason}");
                if stuck.poison { SubscriptionState::Stopped(problem) } else { SubscriptionState::Retrying(problem) }
            };
            let states = readers.values().cloned().chain(snapshot.stuck.iter().map(of_partition));
            let state = states.max().unwrap_or(SubscriptionState::Connecting(None));
            let other = snapshot.state != state;
            snapshot.state = state;
            changed || other
        });
    }
}

/// One reader's part in its group's progress; dropped, it has left.
pub(crate) struct ReaderProgress {
    progress: Progress,
    id: u64,
    /// The partitions that it has reported.
    stuck: Mutex<BTreeSet<u32>>,
}

impl ReaderProgress {
    /// This reader's state, apart from its partitions.
    pub(crate) fn set_state(&self, state: SubscriptionState) {
        self.progress.change(|readers, _| readers.insert(self.id, state.clone()) != Some(state));
    }

    /// This reader's state, apart from its partitions.
    pub(crate) fn state(&self) -> SubscriptionState {
        self.progress.0.readers.lock().get(&self.id).cloned().unwrap_or(SubscriptionState::Connecting(None))
    }

    /// A partition does not get over an event. Returns whether that is news.
    pub(crate) fn stuck(&self, partition: u32, stuck: &Stuck) -> bool {
        let mut news = false;
        self.stuck.lock().insert(partition);
        self.progress.change(|_, all| {
            news = all.insert(partition, stuck.clone()).as_ref() != Some(stuck);
            news
        });
        news
    }

    /// A partition makes progress again, or is another reader's. Returns what had blocked it.
    pub(crate) fn unstuck(&self, partition: u32) -> Option<Stuck> {
        let mut held_up = None;
        if self.stuck.lock().remove(&partition) {
            self.progress.change(|_, all| {
                held_up = all.remove(&partition);
                held_up.is_some()
            });
        }
        held_up
    }
}

impl Drop for ReaderProgress {
    fn drop(&mut self) {
        let stuck = std::mem::take(&mut *self.stuck.lock());
        self.progress.change(|readers, all| {
            all.retain(|partition, _| !stuck.contains(partition));
            readers.remove(&self.id);
            true
        });
    }
}

/// The ids of the last events.
#[derive(Debug, Default)]
struct Recent(HashMap<u32, VecDeque<(u64, Uuid)>>);

impl Recent {
    fn forget(&mut self, partition: u32) {
        self.0.remove(&partition);
    }

    fn note(&mut self, batch: &Batch) {
        let events = batch.events.iter().map(|event| (event.position, event.event_id.as_str()));
        let last = batch.events.last().is_none_or(|event| event.position != batch.through);
        let last = last.then_some((batch.through, batch.through_event_id.as_str()));
        let ids = self.0.entry(batch.partition).or_default();
        for (position, id) in events.chain(last) {
            let Ok(id) = Uuid::try_parse(id) else { continue };
            // Read again, from a cursor.
            while ids.back().is_some_and(|(known, _)| *known >= position) {
                ids.pop_back();
            }
            ids.push_back((position, id));
            if ids.len() > RECENT_EVENTS {
                ids.pop_front();
            }
        }
    }

    fn get(&self, at: Position) -> Option<Uuid> {
        let ids = self.0.get(&at.partition)?;
        let index = ids.binary_search_by_key(&at.position, |(position, _)| *position).ok()?;
        Some(ids[index].1)
    }
}

/// When an event was decided, by a clock that only goes forward; now, if that is still to come.
fn decided(event: &Event) -> Option<Instant> {
    let time = SystemTime::try_from(event.create_time?).ok()?;
    let age = SystemTime::now().duration_since(time).unwrap_or_default();
    Instant::now().checked_sub(age)
}

/// Positions never go back. Says whether one went on.
fn raise(positions: &mut [u64], to: impl IntoIterator<Item = Position>) -> bool {
    let mut raised = false;
    for at in to {
        if let Some(position) = positions.get_mut(at.partition as usize).filter(|position| **position < at.position) {
            *position = at.position;
            raised = true;
        }
    }
    raised
}

#[cfg(test)]
mod tests;
