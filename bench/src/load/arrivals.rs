//! Where a worker meets the news of its order, without polling.
//!
//! The news may come before the worker knows the order's id, because the saga does not wait for CreateOrder's answer.
//! The second of the two finds what the first one left: the news itself, or the worker to notify.

use std::collections::{HashMap, hash_map::Entry};

use meshwork_shop::contract::shop::order::v1::OrderState;
use parking_lot::{Mutex, MutexGuard};
use tokio::sync::oneshot;
use uuid::Uuid;

/// Locks among which the orders are spread: many times the cores that could want one at once.
const SHARDS: usize = 64;

enum Place {
    Seen(OrderState),
    Awaited(oneshot::Sender<OrderState>),
}

/// Orders that are awaited, or were seen before a worker asked.
pub(super) struct Arrivals {
    /// A map is whole between any two of its operations, even if a worker panicked.
    shards: Vec<Mutex<HashMap<Uuid, Place>>>,
}

impl Arrivals {
    pub(super) fn new() -> Self {
        Self { shards: (0..SHARDS).map(|_| Mutex::default()).collect() }
    }

    /// Reports that an order is in a terminal state.
    pub(super) fn seen(&self, order: Uuid, state: OrderState) {
        match self.shard(order).entry(order) {
            Entry::Occupied(place) => match place.remove() {
                // The worker may have given up.
                Place::Awaited(worker) => drop(worker.send(state)),
                Place::Seen(_) => {}
            },
            Entry::Vacant(place) => drop(place.insert(Place::Seen(state))),
        }
    }

    /// The terminal state of an order. `None`: the watch has ended before it was seen.
    pub(super) async fn wait(&self, order: Uuid) -> Option<OrderState> {
        let news = match self.shard(order).entry(order) {
            Entry::Occupied(place) => match place.remove() {
                Place::Seen(state) => return Some(state),
                // Ids are unique, so that no other worker waits for it.
                Place::Awaited(_) => return None,
            },
            Entry::Vacant(place) => {
                let (worker, news) = oneshot::channel();
                place.insert(Place::Awaited(worker));
                news
            }
        };
        news.await.ok()
    }

    /// Ends every wait under way with `None`.
    pub(super) fn give_up(&self) {
        for shard in &self.shards {
            shard.lock().clear();
        }
    }

    fn shard(&self, order: Uuid) -> MutexGuard<'_, HashMap<Uuid, Place>> {
        // The last byte of a UUIDv7 is random.
        self.shards[usize::from(order.as_bytes()[15]) % SHARDS].lock()
    }
}

#[cfg(test)]
mod tests {
    use std::task::Poll;

    use futures_util::poll;

    use super::*;

    const ORDER: Uuid = Uuid::from_u128(7);

    #[tokio::test]
    async fn news_that_come_before_the_answer_are_kept() {
        let arrivals = Arrivals::new();
        arrivals.seen(ORDER, OrderState::Approved);
        assert_eq!(arrivals.wait(ORDER).await, Some(OrderState::Approved));
    }

    #[tokio::test]
    async fn news_that_come_after_the_answer_wake_the_worker() {
        let arrivals = Arrivals::new();
        let mut wait = Box::pin(arrivals.wait(ORDER));
        assert_eq!(poll!(&mut wait), Poll::Pending);
        arrivals.seen(Uuid::from_u128(8), OrderState::Approved);
        assert_eq!(poll!(&mut wait), Poll::Pending);
        arrivals.seen(ORDER, OrderState::Rejected);
        assert_eq!(wait.await, Some(OrderState::Rejected));
    }

    #[tokio::test]
    async fn a_lost_watch_ends_every_wait() {
        let arrivals = Arrivals::new();
        let mut wait = Box::pin(arrivals.wait(ORDER));
        assert_eq!(poll!(&mut wait), Poll::Pending);
        arrivals.give_up();
        assert_eq!(wait.await, None);
    }
}
