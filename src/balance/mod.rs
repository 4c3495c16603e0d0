//! Which endpoint a call goes to: tower's `Balance` (power of two choices) over our own load and gates.
//!
//! The balance is shared behind a mutex: asking for readiness and picking are one short critical section, and only a call
//! that finds nobody ready goes to a bounded queue. One driver task serves the queue and is the only one that is ever
//! woken: by a gate that opens, or by a change of the endpoints. So changes are taken in even if no call flows.
//!
//! Since a pick follows readiness in the same section, `Balance` never holds an index that a removal could make stale
//! (tower #856).

mod gate;
mod load;

#[cfg(test)]
mod tests;

use std::{
    collections::VecDeque,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard},
    task::{Context, Poll, Wake, Waker},
};

use futures_util::{FutureExt as _, Stream};
use tokio::sync::{Notify, mpsc, oneshot};
use tower::{
    Service as _,
    balance::p2c::Balance,
    discover::Change,
    util::rng::{HasherRng, Rng},
};

use gate::GateService;

pub(crate) use gate::{Gate, Link, Pick};
pub(crate) use load::{LoadSet, Outcome, PendingCall};

/// Calls that may wait for an endpoint at a time. They wait for 3 s at most, so that more would be a pile that is thrown
/// away when its time is over.
const MAX_WAITING: usize = 1024;

/// Names an endpoint within its picker.
pub(crate) type Key = u64;

/// Picks endpoints. Calls pick; the one driver changes the endpoints and serves those who wait.
pub(crate) struct Picker<L: Link> {
    state: Mutex<State<L>>,
    changes: mpsc::UnboundedSender<Change<Key, GateService<L>>>,
    driver: Arc<Driver>,
    /// The driver's waker, with which everybody polls.
    waker: Waker,
}

struct State<L: Link> {
    balance: Balance<Changes<L>, ()>,
    waiting: VecDeque<oneshot::Sender<Pick<L>>>,
    closed: bool,
}

/// A pick, now or later.
pub(crate) enum Picked<L> {
    Now(Pick<L>),
    /// Ends without a pick when the picker is closed.
    Later(oneshot::Receiver<Pick<L>>),
}

/// Why there will be no pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPick {
    /// As many calls wait as may.
    QueueFull,
    /// The channel's tasks have ended.
    Closed,
}

impl<L: Link> Picker<L> {
    /// A picker without endpoints, which chooses at random between loads that are equal.
    pub(crate) fn new() -> Self {
        Self::from_rng(HasherRng::default())
    }

    /// The same with a given source of chance.
    pub(crate) fn from_rng(rng: impl Rng + Send + Sync + 'static) -> Self {
        let (changes, stream) = mpsc::unbounded_channel();
        let driver = Arc::new(Driver(Notify::new()));
        let balance = Balance::from_rng(Changes(stream), rng);
        let state = Mutex::new(State { balance, waiting: VecDeque::new(), closed: false });
        Self { state, changes, waker: driver.clone().into(), driver }
    }

    /// Picks an endpoint, or waits for one behind those who do already. `avoid` is picked only if nobody else is ready.
    pub(crate) fn pick(&self, avoid: Option<&Gate<L>>) -> Result<Picked<L>, NoPick> {
        let mut state = self.state();
        if state.closed {
            return Err(NoPick::Closed);
        }
        if state.waiting.is_empty()
            && let Some(pick) = state.pick_other_than(avoid, &self.waker)
        {
            return Ok(Picked::Now(pick));
        }
        state.wait().map(Picked::Later)
    }

    /// Adds an endpoint. Inside of the Tokio runtime, unlike a pick.
    pub(crate) fn insert(&self, key: Key, gate: Arc<Gate<L>>) {
        self.change(Change::Insert(key, GateService::new(gate)));
    }

    /// Removes an endpoint. Its calls go on.
    pub(crate) fn remove(&self, key: Key) {
        self.change(Change::Remove(key));
    }

    fn change(&self, change: Change<Key, GateService<L>>) {
        // Cannot fail: the other half is in our own balance. Not bounded, because the driver takes in one update of the
        // endpoint set at a time.
        let _ = self.changes.send(change);
        self.driver.0.notify_one();
    }

    /// Ends when there is something for [`Picker::serve`] to do. For the driver; cancel-safe, since a notice is kept until
    /// it is taken.
    pub(crate) async fn woken(&self) {
        self.driver.0.notified().await;
    }

    /// Takes in changes and serves those who wait, as far as endpoints are ready. For the driver.
    pub(crate) fn serve(&self) {
        let mut state = self.state();
        state.forget_departed();
        while let Some(endpoint) = state.pick(&self.waker) {
            // With nobody there it is given back by dropping it, so that no choice is kept until it is stale.
            let Some(waiting) = state.waiting.pop_front() else { return };
            // The same for one who has left.
            let _ = waiting.send(endpoint);
            state.forget_departed();
        }
    }

    /// Turns away those who wait and those who come.
    pub(crate) fn close(&self) {
        let mut state = self.state();
        state.closed = true;
        state.waiting.clear();
    }

    fn state(&self) -> MutexGuard<'_, State<L>> {
        self.state.lock().expect("no code panics while it holds this lock")
    }
}

impl<L: Link> State<L> {
    /// P2C compares two endpoints that are ready, so that one of them which is avoided is left, if there are two.
    fn pick_other_than(&mut self, avoid: Option<&Gate<L>>, waker: &Waker) -> Option<Pick<L>> {
        let Some(avoid) = avoid else { return self.pick(waker) };
        // For this pick alone: all picks are made under the lock that we are under.
        avoid.set_avoided(true);
        let pick = self.pick(waker);
        avoid.set_avoided(false);
        pick
    }

    fn pick(&mut self, waker: &Waker) -> Option<Pick<L>> {
        match self.balance.poll_ready(&mut Context::from_waker(waker)) {
            Poll::Ready(ready) => ready.expect("neither the changes nor a gate can fail"),
            Poll::Pending => return None,
        }
        let pick = self.balance.call(()).now_or_never().expect("a gate answers at once");
        Some(pick.expect("a gate cannot fail"))
    }

    fn wait(&mut self) -> Result<oneshot::Receiver<Pick<L>>, NoPick> {
        if self.waiting.len() >= MAX_WAITING {
            self.waiting.retain(|waiting| !waiting.is_closed());
            if self.waiting.len() >= MAX_WAITING {
                return Err(NoPick::QueueFull);
            }
        }
        let (pick, later) = oneshot::channel();
        self.waiting.push_back(pick);
        Ok(later)
    }

    fn forget_departed(&mut self) {
        while self.waiting.front().is_some_and(oneshot::Sender::is_closed) {
            self.waiting.pop_front();
        }
    }
}

/// Wakes the driver task.
struct Driver(Notify);

impl Wake for Driver {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.notify_one();
    }
}

/// The changes as tower's `Discover`.
struct Changes<L>(mpsc::UnboundedReceiver<Change<Key, GateService<L>>>);

impl<L> Stream for Changes<L> {
    type Item = Result<Change<Key, GateService<L>>, std::convert::Infallible>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        self.0.poll_recv(context).map(|change| change.map(Ok))
    }
}
