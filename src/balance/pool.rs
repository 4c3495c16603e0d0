//! Endpoints of equal preference, and tower's `Balance` that draws from them.
//!
//! # What keeps tower's `Balance` correct
//!
//! - **An entry is ready or fails at once, it is never pending.** A failed one is dropped by tower, which draws again in the
//!   same `poll_ready`. So no wake-up can be lost inside of `ReadyCache`. An entry fails only for what cannot become true again
//!   under its key: its generation has moved on, or its connection has ended. The drop tells the driver, which inserts the
//!   endpoint anew, under its next generation, as soon as the plan has it.
//! - **A `Ready` is followed by a call in the same critical section**, or the index that tower keeps could name another entry
//!   after a removal (tower #856).
//! - **Changes come from a plain queue** behind the pool's lock: a tokio channel would obey the coop budget and hold some of
//!   them back. The driver hands over [`CHANGES_AT_ONCE`] at a time, so that no call meets a thousand of them.
//! - **It is polled without a waker**: nothing in it ever waits. An empty pool is `Pending`, which is `None` here.
//! - **A panic that unwinds through tower's parts is caught**, and the pool is not used again: the driver makes a new one.
//! - **The response of an entry is the endpoint.** No rpc runs under the lock, and no code of a user.
//!
//! # Weights and slow start
//!
//! tower draws both candidates uniformly, so that no load can give one of n endpoints more than 2/n of the calls: at 1:3 an
//! idle pair would get 0:100, and one of ten with tenfold weight 20 % instead of 53 %. Several entries for one endpoint would
//! compare it with itself. So draws are *thinned*: one is accepted with the chance weight x warmth / the pool's largest, else
//! it is given back and tower draws again. The pending calls in the load are divided by weight x warmth as well, so that the
//! shares hold when the endpoints are busy. The results, which `tests/shares.rs` checks:
//!
//! | weights | P2C alone, idle | thinned, idle | due |
//! |---|---|---|---|
//! | 1:3 | 0 : 100 | 25 : 75 | 25 : 75 |
//! | 50:100:250 | at most 67 for the largest | 62.5 | 62.5 |
//! | nine of 100, one of 1,000 | 20 for the large one | 52.6 | 52.6 |
//!
//! The cost: a pick among equal weights takes one draw, one among 32 with one of tenfold weight about eight: the
//! largest weight divided by the mean one, and [`MAX_THINNED`] at most.

use std::{
    cmp::Ordering,
    collections::VecDeque,
    convert::Infallible,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc,
        atomic::{self, AtomicU64},
    },
    task::{Context, Poll, Waker},
    time::Duration,
};

use futures_util::{FutureExt as _, Stream, future};
use parking_lot::Mutex;
use rand::{Rng as _, RngExt as _, rngs::SmallRng};
use tokio::time::Instant;
use tower::{Service, balance::p2c::Balance, discover::Change, load::Load, util::rng::Rng};

use crate::endpoint::{Acquired, Connection, Endpoint, Pick, ServiceState};

/// How long a new endpoint takes to its full share: its caches, pools and just-in-time compilers are cold.
pub(super) const SLOW_START: Duration = Duration::from_secs(10);
/// The share that a new endpoint begins with: enough to warm up, and to be measured.
const FIRST_SHARE: f64 = 0.1;
/// The second of two must have less than this part of the first one's load to be taken instead: of loads that are closer, noise
/// in the measurements would decide instead of the weights.
const CLEARLY_LESS: f64 = 0.9;
/// Draws before one is accepted although its share is smaller: an endpoint of a hundredth of the largest weight has waited for
/// a third of them by then.
const MAX_THINNED: usize = 32;
/// Draws that meet an endpoint which takes no call now, before the pool is looked through.
const MAX_UNAVAILABLE: usize = 8;
/// Changes that are applied in one critical section: about 50 us.
const CHANGES_AT_ONCE: usize = 64;

/// An endpoint as a member of a pool, with the generation that names it there.
#[derive(Debug)]
pub(super) struct PoolMember<C: Connection> {
    pub(super) generation: u64,
    pub(super) endpoint: Arc<Endpoint<C>>,
}

impl<C: Connection> Clone for PoolMember<C> {
    fn clone(&self) -> Self {
        Self { generation: self.generation, endpoint: self.endpoint.clone() }
    }
}

/// Endpoints that are equally welcome.
pub(super) struct Pool<C: Connection> {
    service: Arc<ServiceState>,
    state: Mutex<State<C>>,
}

struct State<C: Connection> {
    balance: Balance<Changes<C>, ()>,
    changes: Changes<C>,
    current: Arc<Draw>,
    members: Vec<PoolMember<C>>,
    shares: Shares,
    rng: SmallRng,
    /// tower works on it. A draw that finds it so comes after a panic.
    busy: bool,
    #[cfg(test)]
    alive: Arc<Mutex<std::collections::BTreeSet<u64>>>,
}

/// How the draws of a pool are thinned.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Shares {
    /// The largest weight; `None`: all are alike.
    pub(super) largest: Option<f64>,
    /// Since when the oldest member has been there.
    pub(super) oldest: Instant,
    /// Since when the newest has.
    pub(super) newest: Instant,
}

/// The draw that is under way, for the entries of its pool.
#[derive(Debug)]
struct Draw {
    epoch: Instant,
    /// Nanoseconds since `epoch`.
    now: AtomicU64,
    /// When the oldest member came, in nanoseconds since `epoch`.
    oldest: AtomicU64,
    /// The endpoint that shall not be drawn; [`NONE`]: there is none.
    avoid: AtomicU64,
}

const NONE: u64 = u64::MAX;

/// The source of chance of tower's draws: its own hashes every number.
pub(super) struct Chance(pub(super) SmallRng);

impl Rng for Chance {
    fn next_u64(&mut self) -> u64 {
        self.0.next_u64()
    }
}

/// The queue of changes.
struct Changes<C: Connection>(Arc<Mutex<VecDeque<Change<u64, Entry<C>>>>>);

impl<C: Connection> Stream for Changes<C> {
    type Item = Result<Change<u64, Entry<C>>, Infallible>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        // Never the end, and no waker is kept: the driver polls after it has added some.
        self.0.lock().pop_front().map_or(Poll::Pending, |change| Poll::Ready(Some(Ok(change))))
    }
}

/// A member as tower's `Balance` sees it.
struct Entry<C: Connection> {
    member: PoolMember<C>,
    current: Arc<Draw>,
    #[cfg(test)]
    alive: Arc<Mutex<std::collections::BTreeSet<u64>>>,
}

/// An entry is used up.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the endpoint no longer has this generation")]
struct UsedUp;

impl<C: Connection> Service<()> for Entry<C> {
    type Response = Arc<Endpoint<C>>;
    type Error = UsedUp;
    type Future = future::Ready<Result<Arc<Endpoint<C>>, UsedUp>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), UsedUp>> {
        let current = self.member.endpoint.is_current(self.member.generation);
        Poll::Ready(if current { Ok(()) } else { Err(UsedUp) })
    }

    fn call(&mut self, (): ()) -> Self::Future {
        future::ready(Ok(self.member.endpoint.clone()))
    }
}

impl<C: Connection> Load for Entry<C> {
    type Metric = Cost;

    /// Infinite for an endpoint that is paused, or that the call shall avoid: it is drawn only together with another such one.
    fn load(&self) -> Cost {
        let endpoint = &self.member.endpoint;
        if self.current.avoids(endpoint.id()) {
            return Cost(f64::INFINITY);
        }
        let now = self.current.now();
        let share = |since| warmth(now, since, self.current.oldest());
        Cost(endpoint.load(now, share).unwrap_or(f64::INFINITY))
    }
}

impl<C: Connection> Drop for Entry<C> {
    fn drop(&mut self) {
        #[cfg(test)]
        self.alive.lock().remove(&self.member.generation);
        // tower drops a failed entry without a word.
        if !self.member.endpoint.is_current(self.member.generation) {
            self.member.endpoint.changed();
        }
    }
}

/// A load as it is compared: two that are close are equal.
#[derive(Clone, Copy, Debug)]
struct Cost(f64);

impl PartialEq for Cost {
    fn eq(&self, other: &Self) -> bool {
        self.partial_cmp(other) == Some(Ordering::Equal)
    }
}

impl PartialOrd for Cost {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(if other.0 < self.0 * CLEARLY_LESS {
            Ordering::Greater
        } else if self.0 < other.0 * CLEARLY_LESS {
            Ordering::Less
        } else {
            Ordering::Equal
        })
    }
}

impl<C: Connection> Pool<C> {
    /// An empty pool. `chance` is the source of tower's draws, `thinning` that of what is given back.
    pub(super) fn new(
        service: Arc<ServiceState>,
        chance: impl Rng + Send + Sync + 'static,
        thinning: SmallRng,
    ) -> Self {
        let state = State::new(service.created(), chance, thinning);
        Self { service, state: Mutex::new(state) }
    }

    /// Draws an endpoint and takes it for a call. `avoid` is the id of an endpoint that is not taken.
    pub(super) fn draw(&self, now: Instant, avoid: Option<u64>) -> Option<Pick<C>> {
        let mut state = self.state.lock();
        if state.busy {
            // A panic has left tower's parts in an unknown state: the driver makes a new pool.
            drop(state);
            self.service.changed();
            return None;
        }
        state.busy = true;
        let drawn = catch_unwind(AssertUnwindSafe(|| state.draw(now, avoid)));
        self.done(&mut state, drawn).flatten()
    }

    /// The result of tower's work. After a panic, which its hook has reported, the pool stays busy and is not used again.
    fn done<T>(&self, state: &mut State<C>, work: std::thread::Result<T>) -> Option<T> {
        state.busy = work.is_err();
        if state.busy {
            self.service.changed();
        }
        work.ok()
    }

    /// Whether a panic has unwound through it.
    pub(super) fn is_broken(&self) -> bool {
        self.state.lock().busy
    }

    /// Adds members, a few at a time. After each step `applied` is called, without the lock.
    pub(super) fn insert(&self, members: &[PoolMember<C>], mut applied: impl FnMut()) {
        for members in members.chunks(CHANGES_AT_ONCE) {
            self.change(|state| {
                let entries = members.iter().map(|member| state.entry(member));
                let changes: Vec<_> = entries.map(|entry| Change::Insert(entry.member.generation, entry)).collect();
                state.changes.0.lock().extend(changes);
                state.members.extend(members.iter().cloned());
            });
            applied();
        }
    }

    /// Removes members in the same way.
    pub(super) fn remove(&self, generations: &[u64], mut applied: impl FnMut()) {
        for generations in generations.chunks(CHANGES_AT_ONCE) {
            self.change(|state| {
                state.changes.0.lock().extend(generations.iter().copied().map(Change::Remove));
                state.members.retain(|member| !generations.contains(&member.generation));
            });
            applied();
        }
    }

    fn change(&self, add: impl FnOnce(&mut State<C>)) {
        let mut state = self.state.lock();
        if state.busy {
            return;
        }
        state.busy = true;
        let changed = catch_unwind(AssertUnwindSafe(|| {
            add(&mut state);
            // Takes the changes in. What is drawn is given back.
            let _ = state.next();
        }));
        self.done(&mut state, changed);
    }

    /// Thins the draws by these shares from now on.
    pub(super) fn set_shares(&self, shares: Shares) {
        let mut state = self.state.lock();
        state.current.oldest.store(state.current.nanos(shares.oldest), atomic::Ordering::Relaxed);
        state.shares = shares;
    }

    /// The generations that tower holds.
    #[cfg(test)]
    pub(super) fn alive(&self) -> std::collections::BTreeSet<u64> {
        self.state.lock().alive.lock().clone()
    }
}

impl<C: Connection> State<C> {
    fn new(epoch: Instant, chance: impl Rng + Send + Sync + 'static, thinning: SmallRng) -> Self {
        let changes = Changes(Arc::default());
        let balance = Balance::from_rng(Changes(changes.0.clone()), chance);
        let current = Draw { epoch, now: AtomicU64::new(0), oldest: AtomicU64::new(0), avoid: AtomicU64::new(NONE) };
        Self {
            balance,
            changes,
            current: Arc::new(current),
            members: Vec::new(),
            shares: Shares { largest: None, oldest: epoch, newest: epoch },
            rng: thinning,
            busy: false,
            #[cfg(test)]
            alive: Arc::default(),
        }
    }

    fn entry(&self, member: &PoolMember<C>) -> Entry<C> {
        #[cfg(test)]
        self.alive.lock().insert(member.generation);
        Entry {
            member: member.clone(),
            current: self.current.clone(),
            #[cfg(test)]
            alive: self.alive.clone(),
        }
    }

    /// One draw of tower's. `None`: it has no entry.
    fn next(&mut self) -> Option<Arc<Endpoint<C>>> {
        match self.balance.poll_ready(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Ok(())) => {}
            // The queue of changes has no errors.
            Poll::Pending | Poll::Ready(Err(_)) => return None,
        }
        self.balance.call(()).now_or_never().expect("an entry answers at once").ok()
    }

    fn draw(&mut self, now: Instant, avoid: Option<u64>) -> Option<Pick<C>> {
        self.current.begin(now, avoid);
        let (mut thinned, mut unavailable) = (0, 0);
        while unavailable < MAX_UNAVAILABLE {
            let endpoint = self.next()?;
            if avoid == Some(endpoint.id()) {
                unavailable += 1;
                continue;
            }
            let accept = |weight, since| thinned == MAX_THINNED || self.accepts(now, weight, since);
            match endpoint.acquire(now, accept) {
                Acquired::Taken(pick) => return Some(pick),
                Acquired::Thinned => thinned += 1,
                Acquired::Unavailable => unavailable += 1,
            }
        }
        self.look_through(now, avoid)
    }

    /// Whether a draw of an endpoint is accepted, so that each is used in proportion to its share.
    fn accepts(&mut self, now: Instant, weight: f64, since: Instant) -> bool {
        let Shares { largest, oldest, newest } = self.shares;
        let all_warm = oldest == newest || now.saturating_duration_since(newest) >= SLOW_START;
        if largest.is_none() && all_warm {
            return true;
        }
        let share = weight / largest.unwrap_or(weight) * warmth(now, since, oldest);
        share >= 1.0 || self.rng.random::<f64>() < share
    }

    /// The first that takes a call. For a pool in which nearly all have just refused one.
    fn look_through(&mut self, now: Instant, avoid: Option<u64>) -> Option<Pick<C>> {
        let count = self.members.len();
        let first = self.rng.random_range(0..count.max(1));
        let members = (0..count).map(|step| &self.members[(first + step) % count]);
        members.filter(|member| avoid != Some(member.endpoint.id())).find_map(|member| {
            match member.endpoint.acquire(now, |_, _| true) {
                Acquired::Taken(pick) => Some(pick),
                Acquired::Thinned | Acquired::Unavailable => None,
            }
        })
    }
}

impl Draw {
    fn begin(&self, now: Instant, avoid: Option<u64>) {
        self.now.store(self.nanos(now), atomic::Ordering::Relaxed);
        self.avoid.store(avoid.unwrap_or(NONE), atomic::Ordering::Relaxed);
    }

    fn now(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.now.load(atomic::Ordering::Relaxed))
    }

    fn oldest(&self) -> Instant {
        self.epoch + Duration::from_nanos(self.oldest.load(atomic::Ordering::Relaxed))
    }

    fn avoids(&self, id: u64) -> bool {
        self.avoid.load(atomic::Ordering::Relaxed) == id
    }

    fn nanos(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.epoch).as_nanos()).unwrap_or(u64::MAX)
    }
}

/// The part of its full share that an endpoint is due. Counted against the oldest: while all are new, none is held back.
fn warmth(now: Instant, since: Instant, oldest: Instant) -> f64 {
    let age = now.saturating_duration_since(since);
    if age >= SLOW_START || since <= oldest {
        return 1.0;
    }
    let full = now.saturating_duration_since(oldest).min(SLOW_START);
    (age.as_secs_f64() / full.as_secs_f64()).max(FIRST_SHARE)
}
