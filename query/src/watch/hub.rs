//! Connects committed changes of orders with their watchers.
//!
//! One bounded ring serves all watchers, so that a slow one costs no memory: it falls out of the ring, and reads from
//! the view what it missed. For that, every set of changes says up to which positions of the order service's log the
//! watcher has seen everything.
//!
//! Where several processes share the view, a process sees only its own commits: then changes come from the view itself, as
//! [`follow`](super::follow) reads them.

use std::sync::Arc;

use meshwork_events::outbox::PARTITIONS;
use parking_lot::Mutex;
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{
    domain::{Key, OrderRow, Row},
    store::Span,
};

/// Sets of changes (one for each commit, so at most 512 orders) that a watcher may be behind before it reads the view
/// instead: about a second at full load, and at most some 10 MB whatever the number of watchers.
const RING_CAPACITY: usize = 128;

/// Orders in one set of changes; a commit has no more.
const MAX_CHANGES: usize = 512;

/// A position for each partition of the order service's log.
pub(crate) type Positions = [u64; PARTITIONS as usize];

/// The orders that one commit changed.
#[derive(Debug)]
pub(super) struct Changes {
    /// Each order once, complete or not.
    pub(super) orders: Vec<(Uuid, OrderRow)>,
    /// All changes up to here were published by now.
    pub(super) through: Positions,
    /// Of the view in which they were made.
    generation: u64,
}

/// Publishes changes to any number of watchers.
#[derive(Debug)]
pub(crate) struct Hub {
    ring: broadcast::Sender<Arc<Changes>>,
    /// Held while publishing and while subscribing, so that a subscriber knows exactly where it begins.
    published: Mutex<Published>,
}

/// What was published since the process started; 0 where nothing was.
#[derive(Clone, Copy, Debug, Default)]
struct Published {
    first: Positions,
    last: Positions,
    /// Commits are not published, but what is read from a shared view.
    shared: bool,
    /// How often the view has begun anew.
    generation: u64,
}

/// A watcher's place in the ring.
pub(super) struct Subscription {
    ring: broadcast::Receiver<Arc<Changes>>,
    /// All changes up to here were received.
    seen: Positions,
    /// Of the view that is watched.
    generation: u64,
}

/// What the ring has for a watcher.
pub(super) enum Received {
    /// Changes.
    Changes(Arc<Changes>),
    /// The watcher was too slow: what it missed is in the view, in these spans; the ring goes on behind them.
    Missed(Vec<Span>),
    /// The view has begun anew: positions mean something else.
    Ended,
}

impl Default for Hub {
    fn default() -> Self {
        Self { ring: broadcast::Sender::new(RING_CAPACITY), published: Mutex::default() }
    }
}

impl Hub {
    /// The view is shared and stands at `folded`, which watchers need not hear of.
    pub(crate) fn share(&self, folded: Positions) {
        let mut published = self.published.lock();
        *published = Published { first: folded, last: folded, shared: true, ..*published };
    }

    /// The view begins anew: all watches end. A shared one stands at `folded`, which watchers need not hear of.
    pub(super) fn begin_anew(&self, folded: Option<&[u64]>) {
        let mut published = self.published.lock();
        let folded: Positions = folded.and_then(|folded| folded.try_into().ok()).unwrap_or_default();
        let generation = published.generation + 1;
        *published = Published { first: folded, last: folded, generation, ..*published };
        // Wakes them. An error says that there are none.
        let _ = self.ring.send(Arc::new(Changes { orders: Vec::new(), through: folded, generation }));
    }

    /// What is between the last changes and `folded`, where the view stands now.
    pub(super) fn behind(&self, folded: &[u64]) -> Vec<Span> {
        let published = self.published.lock();
        let spans = (0..PARTITIONS).zip(published.last).zip(folded);
        let spans = spans.map(|((partition, after), through)| Span { partition, after, through: *through });
        spans.filter(|span| span.after < span.through).collect()
    }

    /// Publishes orders as they were read from a shared view, of which `spans` were asked for.
    pub(super) fn publish_read(&self, mut orders: Vec<(Uuid, OrderRow)>, spans: &[Span]) {
        let mut published = self.published.lock();
        // Another instance of this process may have read it later, and been faster: an order never goes back.
        let last = published.last;
        orders.retain(|(_, row)| last.get(row.partition as usize).is_some_and(|last| row.position > *last));
        let mut through = last;
        for span in spans {
            let through = &mut through[span.partition as usize];
            *through = span.through.max(*through);
        }
        published.last = through;
        if self.ring.receiver_count() == 0 {
            return;
        }
        let mut chunks = orders.chunks(MAX_CHANGES).peekable();
        while let Some(orders) = chunks.next() {
            // All is published with the last chunk only.
            let through = if chunks.peek().is_none() { through } else { last };
            let generation = published.generation;
            // An error says that the last watcher has just gone.
            let _ = self.ring.send(Arc::new(Changes { orders: orders.to_vec(), through, generation }));
        }
    }

    /// Publishes the orders among the rows of a commit. Must be called in commit order.
    pub(crate) fn publish(&self, changed: &[(Key, Row)]) {
        let mut published = self.published.lock();
        if published.shared {
            return;
        }
        let orders = changed.iter().filter_map(|(key, row)| match (key, row) {
            (Key::Order(id), Row::Order(row)) => Some((*id, *row)),
            _ => None,
        });
        let mut batch = Vec::new();
        let watched = self.ring.receiver_count() > 0;
        for (order_id, row) in orders {
            published.note(&row);
            if watched {
                batch.push((order_id, row));
            }
        }
        if !batch.is_empty() {
            let Published { last: through, generation, .. } = *published;
            // An error says that the last watcher has just gone.
            let _ = self.ring.send(Arc::new(Changes { orders: batch, through, generation }));
        }
    }

    /// Begins to watch, from now on.
    pub(super) fn subscribe(&self) -> Subscription {
        self.subscribe_at(&self.published.lock())
    }

    fn subscribe_at(&self, published: &Published) -> Subscription {
        Subscription { ring: self.ring.subscribe(), seen: published.last, generation: published.generation }
    }
}

impl Published {
    fn note(&mut self, row: &OrderRow) {
        let partition = row.partition as usize;
        if let (Some(first), Some(last)) = (self.first.get_mut(partition), self.last.get_mut(partition)) {
            *last = row.position.max(*last);
            *first = if *first == 0 { row.position } else { row.position.min(*first) };
        }
    }
}

impl Subscription {
    /// The next changes. Cancel-safe: nothing is taken from the ring unless it is returned.
    pub(super) async fn next(&mut self, hub: &Hub) -> Received {
        match self.ring.recv().await {
            Ok(changes) => self.take(changes),
            Err(broadcast::error::RecvError::Lagged(_)) => self.begin_again(hub),
            Err(broadcast::error::RecvError::Closed) => unreachable!("the hub holds the sender"),
        }
    }

    /// The next changes if they are there already.
    pub(super) fn try_next(&mut self, hub: &Hub) -> Option<Received> {
        match self.ring.try_recv() {
            Ok(changes) => Some(self.take(changes)),
            Err(broadcast::error::TryRecvError::Lagged(_)) => Some(self.begin_again(hub)),
            Err(broadcast::error::TryRecvError::Empty | broadcast::error::TryRecvError::Closed) => None,
        }
    }

    fn take(&mut self, changes: Arc<Changes>) -> Received {
        if changes.generation != self.generation {
            return Received::Ended;
        }
        self.seen = changes.through;
        Received::Changes(changes)
    }

    /// Goes to the ring's end. Whatever is published from now on is in the ring, so that an order is either in the spans,
    /// by its last change, or still to come.
    fn begin_again(&mut self, hub: &Hub) -> Received {
        let published = hub.published.lock();
        if published.generation != self.generation {
            return Received::Ended;
        }
        let before = std::mem::replace(self, hub.subscribe_at(&published)).seen;
        let spans = (0..PARTITIONS).map(|partition| {
            let at = partition as usize;
            // What was there before this process's first change cannot have been missed.
            let after = before[at].max(published.first[at].saturating_sub(1));
            Span { partition, after, through: self.seen[at] }
        });
        Received::Missed(spans.filter(|span| span.after < span.through).collect())
    }
}
