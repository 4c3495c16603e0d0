//! Picks endpoints for calls, and queues the calls that find none.
//!
//! A pick is one draw from a pool, in a short critical section; only a call that finds no endpoint goes to a bounded queue. One
//! driver task makes the plan, applies it to the pools and serves the queue, woken by an endpoint that connects or fails, by
//! the end of a pause or an ejection, or by a change of the set. So changes are applied even while there are no calls.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use parking_lot::{Mutex, RwLock};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    plan::{Plan, Turn},
    pool::Pool,
    pools::{Placed, Pools, Route, Tracked},
};
use crate::{
    endpoint::{Connection, Endpoint, Pick, ServiceState, Traits, connection::handle::ConnectionHandle, peer::Peer},
    policy::Policy,
};

/// Calls that may wait for an endpoint at a time. They wait for 3 s at most, so that more would be a pile that is thrown
/// away when its time is over.
pub(super) const MAX_WAITING: usize = 1024;
/// The driver rests after a look for this multiple of the time that the look took: of a thousand endpoints that connect one
/// after the other, not each costs a look at all.
const REST: u32 = 10;
/// And for this long at most: a look that was interrupted may seem to have taken seconds.
const LONGEST_REST: Duration = Duration::from_millis(10);

/// Picks endpoints. Calls pick; the one driver changes the endpoints and serves the calls that wait.
pub(crate) struct Picker<C: Connection = ConnectionHandle> {
    service: Arc<ServiceState>,
    routes: RwLock<Vec<Route<C>>>,
    turn: AtomicU64,
    /// Receives the calls for which their own zone lacks capacity.
    chance: Mutex<SmallRng>,
    waiting: Mutex<VecDeque<Waiting<C>>>,
    /// The length of `waiting`, for a look without its lock.
    waiting_count: AtomicUsize,
    closed: AtomicBool,
    driven: Mutex<Driven<C>>,
}

/// A call that found no endpoint.
struct Waiting<C: Connection> {
    /// The endpoint that it gets only if no other is ready.
    avoid: Option<u64>,
    pick: oneshot::Sender<Pick<C>>,
}

/// What only the driver touches, and what changes the endpoints.
struct Driven<C: Connection> {
    endpoints: BTreeMap<u64, Tracked<C>>,
    /// Entries of endpoints that were removed.
    departed: Vec<Placed>,
    next_id: u64,
    policy: Arc<Policy>,
    /// Where the calls are made.
    zone: Arc<str>,
    pools: Pools<C>,
    panic_since: Option<Instant>,
    /// When the plan must be made anew without any event.
    plan_until: Option<Instant>,
    /// When the driver must look again without any event.
    alarm: Option<Instant>,
    /// When it may.
    rested: Instant,
}

/// A pick, now or later.
pub(crate) enum Picked<C = ConnectionHandle>
where
    C: Connection,
{
    Now(Pick<C>),
    /// Ends without a pick when the picker is closed.
    Later(oneshot::Receiver<Pick<C>>),
}

/// Why there will be no pick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum NoPick {
    /// As many calls wait as may.
    QueueFull,
    /// The channel's tasks have ended.
    Closed,
}

impl<C: Connection> Picker<C> {
    /// A picker without endpoints, for calls that are made in `zone` (empty: anywhere).
    pub(crate) fn new(zone: Arc<str>) -> Self {
        Self::from_seed(zone, rand::random())
    }

    /// The same with a given source of chance.
    pub(super) fn from_seed(zone: Arc<str>, seed: u64) -> Self {
        let mut seeds = SmallRng::seed_from_u64(seed);
        let chance = SmallRng::from_rng(&mut seeds);
        let service = Arc::new(ServiceState::new());
        let driven = Driven {
            endpoints: BTreeMap::new(),
            departed: Vec::new(),
            next_id: 0,
            policy: Arc::default(),
            zone,
            pools: Pools::new(service.clone(), seeds),
            panic_since: None,
            plan_until: None,
            alarm: None,
            rested: Instant::now(),
        };
        Self {
            service,
            routes: RwLock::default(),
            turn: AtomicU64::new(0),
            chance: Mutex::new(chance),
            waiting: Mutex::default(),
            waiting_count: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            driven: Mutex::new(driven),
        }
    }

    /// Picks an endpoint, or waits for one behind the calls that do already. `avoid` is picked only if no other is ready.
    pub(crate) fn pick(&self, avoid: Option<&Endpoint<C>>) -> Result<Picked<C>, NoPick> {
        if self.closed.load(Ordering::Acquire) {
            return Err(NoPick::Closed);
        }
        let avoid = avoid.map(Endpoint::id);
        if self.waiting_count.load(Ordering::Acquire) == 0
            && let Some(pick) = self.pick_now(avoid, Last::Avoided)
        {
            return Ok(Picked::Now(pick));
        }
        let later = self.wait(avoid)?;
        // The driver looks when the next endpoint is ready.
        self.service.driver.notify_one();
        Ok(Picked::Later(later))
    }

    /// Picks another endpoint than `other`, if one is ready and no call waits for it.
    pub(crate) fn pick_other(&self, other: &Endpoint<C>) -> Option<Pick<C>> {
        if self.closed.load(Ordering::Acquire) || self.waiting_count.load(Ordering::Acquire) > 0 {
            return None;
        }
        self.pick_now(Some(other.id()), Last::None)
    }

    fn pick_now(&self, avoid: Option<u64>, last: Last) -> Option<Pick<C>> {
        let turn = Turn(self.turn.fetch_add(Turn::STEP, Ordering::Relaxed).wrapping_add(Turn::STEP));
        let now = Instant::now();
        self.service.note_call(now);
        let routes = self.routes.read();
        let draw = |avoid| self.pools(&routes, turn).find_map(|pool| pool.draw(now, avoid));
        draw(avoid).or_else(|| match (avoid, last) {
            (Some(_), Last::Avoided) => draw(None),
            (Some(_), Last::None) | (None, _) => None,
        })
    }

    /// The pools to try for a call, the best first.
    fn pools<'a>(&self, routes: &'a [Route<C>], turn: Turn) -> impl Iterator<Item = &'a Pool<C>> {
        let first = turn.first(routes.iter().map(|route| route.end));
        let (before, after) = routes.split_at(first);
        after.iter().chain(before).flat_map(move |route| {
            let Route { own_zone, other_zones, locality_share, .. } = route;
            let stays = *locality_share >= 1.0
                || (*locality_share > 0.0 && self.chance.lock().random::<f64>() < *locality_share);
            let pools = if stays { [own_zone, other_zones] } else { [other_zones, own_zone] };
            pools.into_iter().flatten().map(|pool| &**pool)
        })
    }

    fn wait(&self, avoid: Option<u64>) -> Result<oneshot::Receiver<Pick<C>>, NoPick> {
        let mut waiting = self.waiting.lock();
        if self.closed.load(Ordering::Acquire) {
            return Err(NoPick::Closed);
        }
        if waiting.len() >= MAX_WAITING {
            waiting.retain(|waiting| !waiting.pick.is_closed());
            if waiting.len() >= MAX_WAITING {
                return Err(NoPick::QueueFull);
            }
        }
        let (pick, later) = oneshot::channel();
        waiting.push_back(Waiting { avoid, pick });
        self.waiting_count.store(waiting.len(), Ordering::Release);
        Ok(later)
    }

    /// Adds an endpoint, which has no connection yet.
    pub(crate) fn insert(&self, peer: Peer, traits: Traits) -> Arc<Endpoint<C>> {
        let mut driven = self.driven.lock();
        let id = driven.next_id;
        driven.next_id += 1;
        let endpoint = Arc::new(Endpoint::new(id, peer, traits, self.service.clone()));
        driven.endpoints.insert(id, Tracked::new(endpoint.clone()));
        drop(driven);
        self.service.changed();
        endpoint
    }

    /// Removes an endpoint. Its calls go on.
    pub(crate) fn remove(&self, endpoint: &Endpoint<C>) {
        let mut driven = self.driven.lock();
        let removed = driven.endpoints.remove(&endpoint.id());
        driven.departed.extend(removed.and_then(|tracked| tracked.placed()));
        drop(driven);
        self.service.changed();
    }

    /// Acts by another policy from now on.
    pub(crate) fn set_policy(&self, policy: Arc<Policy>) {
        let mut driven = self.driven.lock();
        if !Arc::ptr_eq(&driven.policy, &policy) {
            self.service.set_ejection(policy.ejection.clone());
            driven.policy = policy;
            drop(driven);
            self.service.changed();
        }
    }

    /// Every endpoint, in the order in which they came.
    pub(crate) fn endpoints(&self) -> Vec<Arc<Endpoint<C>>> {
        self.driven.lock().endpoints.values().map(|tracked| tracked.endpoint.clone()).collect()
    }

    /// Ends when there is something for [`Picker::serve_waiters`] to do. For the driver; cancel-safe, since a notice is kept
    /// until it is taken.
    pub(crate) async fn changed(&self) {
        let (alarm, rested) = {
            let driven = self.driven.lock();
            (driven.alarm, driven.rested)
        };
        let alarm = async {
            match alarm {
                Some(alarm) => sleep_until(alarm).await,
                None => std::future::pending().await,
            }
        };
        if rested > Instant::now() {
            sleep_until(rested).await;
        }
        tokio::select! {
            () = self.service.driver.notified() => {}
            () = alarm => {}
        }
    }

    /// Takes in changes and serves the calls that wait, as far as endpoints are ready. For the driver.
    pub(crate) fn serve_waiters(&self) {
        let now = Instant::now();
        let mut driven = self.driven.lock();
        self.refresh_median(&driven);
        if self.service.take_changed() || driven.plan_until.is_some_and(|until| until <= now) {
            self.refresh(&mut driven, now);
            driven.rested = Instant::now() + rest(now.elapsed());
        }
        self.serve_queue();
        driven.alarm = self.next_opening(&driven, now);
    }

    /// Turns away the calls that wait, and all later ones.
    pub(crate) fn close(&self) {
        self.closed.store(true, Ordering::Release);
        let mut waiting = self.waiting.lock();
        waiting.clear();
        self.waiting_count.store(0, Ordering::Release);
    }

    /// Makes a new plan and applies what has changed by it.
    fn refresh(&self, driven: &mut Driven<C>, now: Instant) {
        let Driven { endpoints, departed, policy, zone, pools, panic_since, plan_until, .. } = driven;
        for id in self.service.take_dirty() {
            endpoints.get_mut(&id).into_iter().for_each(|tracked| tracked.look(now));
        }
        endpoints.values_mut().filter(|tracked| !tracked.candidate.is_settled()).for_each(|tracked| tracked.look(now));
        let candidates: Vec<_> = endpoints.values().map(|tracked| &tracked.candidate).collect();
        let plan = Plan::new(&candidates, policy, zone, *panic_since, now);
        (*panic_since, *plan_until) = (plan.panic_since, plan.until);
        self.service.set_panic(plan.panic_since.is_some());
        let mut endpoints: Vec<_> = endpoints.values_mut().collect();
        let publish = |routes| *self.routes.write() = routes;
        pools.apply(plan.targets, &mut endpoints, std::mem::take(departed), publish, || self.serve_queue());
    }

    /// Brings the median latency up to date, if a call wants it.
    fn refresh_median(&self, driven: &Driven<C>) {
        if self.service.take_median_wanted() {
            let measured = driven.endpoints.values().filter_map(|tracked| tracked.endpoint.measured());
            median(measured.collect()).into_iter().for_each(|median| self.service.set_typical(median));
        }
    }

    /// Serves the calls that wait, the first first, as far as endpoints are ready.
    fn serve_queue(&self) {
        if self.waiting_count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut waiting = self.waiting.lock();
        loop {
            while waiting.front().is_some_and(|first| first.pick.is_closed()) {
                waiting.pop_front();
            }
            let Some(first) = waiting.front() else { break };
            let Some(pick) = self.pick_now(first.avoid, Last::Avoided) else { break };
            if let Some(first) = waiting.pop_front() {
                // A caller that has left in this moment gives the pick back by dropping it.
                let _ = first.pick.send(pick);
            }
        }
        self.waiting_count.store(waiting.len(), Ordering::Release);
    }

    /// When the plan must be made anew, or if a call waits for it, when a pause ends that had not ended by `now`.
    fn next_opening(&self, driven: &Driven<C>, now: Instant) -> Option<Instant> {
        let awaited = self.waiting_count.load(Ordering::Acquire) > 0;
        let pauses =
            driven.endpoints.values().filter(|_| awaited).filter_map(|tracked| tracked.endpoint.paused_until());
        pauses.filter(|at| *at > now).chain(driven.plan_until).min()
    }

    /// The generations that tower holds in each pool, and those of a plan that is made now.
    #[cfg(test)]
    pub(super) fn audit(&self, now: Instant) -> [BTreeMap<(String, bool), std::collections::BTreeSet<u64>>; 2] {
        let driven = self.driven.lock();
        let candidates: Vec<_> = driven.endpoints.values().map(|tracked| tracked.endpoint.look(now)).collect();
        let refs: Vec<_> = candidates.iter().collect();
        let plan = Plan::new(&refs, &driven.policy, &driven.zone, driven.panic_since, now);
        let pools = plan.targets.into_iter().flat_map(|target| {
            let super::plan::WeightedTarget { version, own_zone, other_zones, .. } = target;
            [((version.clone(), true), own_zone), ((version, false), other_zones)]
        });
        let planned = pools.filter(|(_, members)| !members.is_empty());
        [
            driven.pools.alive(),
            planned
                .map(|(key, members)| (key, members.iter().map(|index| candidates[*index].generation).collect()))
                .collect(),
        ]
    }
}

/// What is picked when no other endpoint is ready.
#[derive(Clone, Copy)]
enum Last {
    /// The endpoint that should be avoided.
    Avoided,
    None,
}

/// How long the driver rests after a look that has `took` this long.
fn rest(took: Duration) -> Duration {
    took.saturating_mul(REST).min(LONGEST_REST)
}

/// The lower of the two in the middle, if they are two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_driver_rests_in_proportion_to_its_look_and_never_for_long() {
        assert_eq!(rest(Duration::ZERO), Duration::ZERO);
        assert_eq!(rest(Duration::from_micros(300)), Duration::from_millis(3));
        for interrupted in [Duration::from_secs(5), Duration::MAX] {
            assert_eq!(rest(interrupted), LONGEST_REST);
        }
    }
}
