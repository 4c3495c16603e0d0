//! Picks endpoints for calls, and keeps those waiting that find none ready.
//!
//! A pick is one short critical section; only a call that finds nobody ready goes to a bounded queue. One driver task serves
//! the queue and is the only one that is ever woken: by a gate that opens, by the end of a pause or an ejection, or by a
//! change of the endpoints. So changes are taken in even if no call flows.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use rand::{RngExt as _, rngs::SmallRng};
use tokio::{
    sync::oneshot,
    time::{Instant, sleep_until},
};

use super::{
    gate::{Gate, Link, Pick},
    plan::{Member, Plan, Traits, Turn},
};
use crate::{
    endpoint::{Account, Set, Statement},
    policy::Policy,
};

/// Calls that may wait for an endpoint at a time. They wait for 3 s at most, so that more would be a pile that is thrown
/// away when its time is over.
pub(super) const MAX_WAITING: usize = 1024;
/// How old the set's median latency may be: it moves slowly, and costs a look at every endpoint.
const MEDIAN_AGE: Duration = Duration::from_millis(500);

/// Names an endpoint within its picker.
pub(crate) type Key = u64;

/// Picks endpoints. Calls pick; the one driver changes the endpoints and serves those who wait.
pub(crate) struct Picker<L: Link> {
    state: Mutex<State<L>>,
    set: Arc<Set>,
}

struct State<L: Link> {
    members: BTreeMap<Key, (Arc<Gate<L>>, Traits)>,
    next_key: Key,
    policy: Arc<Policy>,
    /// Where the calls are made.
    zone: Arc<str>,
    plan: Plan<Arc<Gate<L>>>,
    turn: Turn,
    rng: SmallRng,
    /// When the set's median latency was computed.
    median: Option<Instant>,
    waiting: VecDeque<oneshot::Sender<Pick<L>>>,
    /// When the driver must look again although nothing happens.
    alarm: Option<Instant>,
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
    /// A picker without endpoints, for calls that are made in `zone` (empty: anywhere).
    pub(crate) fn new(zone: Arc<str>) -> Self {
        Self::from_rng(zone, rand::make_rng())
    }

    /// The same with a given source of chance.
    pub(super) fn from_rng(zone: Arc<str>, rng: SmallRng) -> Self {
        let policy = Arc::default();
        let state = State {
            members: BTreeMap::new(),
            next_key: 0,
            plan: Plan::new(Vec::new(), &policy, &zone, Instant::now()),
            policy,
            zone,
            turn: Turn::default(),
            rng,
            median: None,
            waiting: VecDeque::new(),
            alarm: None,
            closed: false,
        };
        Self { state: Mutex::new(state), set: Arc::new(Set::new()) }
    }

    /// Picks an endpoint, or waits for one behind those who do already. `avoid` is picked only if nobody else is ready.
    pub(crate) fn pick(&self, avoid: Option<&Gate<L>>) -> Result<Picked<L>, NoPick> {
        let mut state = self.state();
        if state.closed {
            return Err(NoPick::Closed);
        }
        if state.waiting.is_empty()
            && let Some(pick) = state.pick(avoid, &self.set)
        {
            return Ok(Picked::Now(pick));
        }
        let later = state.wait()?;
        drop(state);
        // The driver looks when the next endpoint is ready.
        self.set.driver.notify_one();
        Ok(Picked::Later(later))
    }

    /// Picks another endpoint than `other`, if one is ready and nobody waits for it.
    pub(crate) fn pick_other(&self, other: &Gate<L>) -> Option<Pick<L>> {
        let mut state = self.state();
        if state.closed || !state.waiting.is_empty() {
            return None;
        }
        let now = Instant::now();
        state.look(&self.set, now);
        state.turn.advance();
        state.pick_now(Some(other), now)
    }

    /// Adds an endpoint, whose gate is closed.
    pub(crate) fn insert(&self, traits: Traits) -> (Key, Arc<Gate<L>>) {
        let gate = Arc::new(Gate::new(Account::new(self.set.clone())));
        let mut state = self.state();
        let key = state.next_key;
        state.next_key += 1;
        state.members.insert(key, (gate.clone(), traits));
        drop(state);
        self.set.changed();
        (key, gate)
    }

    /// Says what an endpoint is by now.
    pub(crate) fn update(&self, key: Key, traits: Traits) {
        if let Some((_, known)) = self.state().members.get_mut(&key)
            && *known != traits
        {
            *known = traits;
            self.set.changed();
        }
    }

    /// Removes an endpoint. Its calls go on.
    pub(crate) fn remove(&self, key: Key) {
        self.state().members.remove(&key);
        self.set.changed();
    }

    /// Acts by another policy from now on.
    pub(crate) fn set_policy(&self, policy: Arc<Policy>) {
        self.set.set_ejection(policy.ejection.clone());
        self.state().policy = policy;
        self.set.changed();
    }

    /// Every endpoint as it stands.
    pub(crate) fn statements(&self) -> Vec<(Key, Traits, Statement)> {
        let now = Instant::now();
        let statement = |(key, (gate, traits)): (&Key, &(Arc<Gate<L>>, Traits))| {
            (*key, traits.clone(), gate.account.statement(now, traits.relative_weight()))
        };
        self.state().members.iter().map(statement).collect()
    }

    /// Ends when there is something for [`Picker::serve`] to do. For the driver; cancel-safe, since a notice is kept until
    /// it is taken.
    pub(crate) async fn woken(&self) {
        let alarm = self.state().alarm;
        let alarm = async {
            match alarm {
                Some(alarm) => sleep_until(alarm).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = self.set.driver.notified() => {}
            () = alarm => {}
        }
    }

    /// Takes in changes and serves those who wait, as far as endpoints are ready. For the driver.
    pub(crate) fn serve(&self) {
        let mut state = self.state();
        let now = Instant::now();
        state.look(&self.set, now);
        state.forget_departed();
        while !state.waiting.is_empty()
            && let Some(pick) = state.pick(None, &self.set)
            && let Some(waiting) = state.waiting.pop_front()
        {
            // One who has left in this moment gives the pick back by dropping it.
            let _ = waiting.send(pick);
            state.forget_departed();
        }
        state.alarm = state.next_opening(now);
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
    fn pick(&mut self, avoid: Option<&Gate<L>>, set: &Set) -> Option<Pick<L>> {
        let now = Instant::now();
        self.look(set, now);
        self.turn.advance();
        match avoid {
            Some(_) => self.pick_now(avoid, now).or_else(|| self.pick_now(None, now)),
            None => self.pick_now(None, now),
        }
    }

    fn pick_now(&mut self, avoid: Option<&Gate<L>>, now: Instant) -> Option<Pick<L>> {
        let Plan { ejections, oldest, .. } = self.plan;
        let load = |gate: &Arc<Gate<L>>, weight: f64| {
            let avoided = avoid.is_some_and(|avoid| std::ptr::eq(avoid, &raw const **gate));
            if avoided { None } else { gate.offer(now, ejections, weight) }
        };
        let mut tiers = self.plan.tiers(self.turn, self.rng.random());
        tiers.find_map(|tier| tier.choose(now, oldest, &mut self.rng, load)?.enter(now))
    }

    /// Makes a new plan if something has changed, and brings the median up to date.
    fn look(&mut self, set: &Set, now: Instant) {
        if set.take_changed() || self.plan.until.is_some_and(|until| until <= now) {
            let members = self.members.values().map(|(gate, traits)| Member {
                endpoint: gate.clone(),
                traits,
                connected: gate.connected(),
                health: gate.account.health(),
            });
            self.plan = Plan::new(members.collect(), &self.policy, &self.zone, now);
        }
        if self.median.is_none_or(|at| now.saturating_duration_since(at) > MEDIAN_AGE) {
            self.median = Some(now);
            let measured = self.members.values().filter_map(|(gate, _)| gate.account.measured());
            if let Some(median) = median(measured.collect()) {
                set.set_typical(median);
            }
        }
    }

    /// When an ejection ends, or if somebody waits for it a pause or the patience with a probe, of those that had not ended
    /// by `now`.
    fn next_opening(&self, now: Instant) -> Option<Instant> {
        let opening = |(gate, _): &(Arc<Gate<L>>, Traits)| [gate.paused(), gate.account.health().next_probe()];
        let openings = self.members.values().flat_map(opening).flatten().filter(|at| *at > now);
        let awaited = if self.waiting.is_empty() { None } else { openings.min() };
        self.plan.until.into_iter().chain(awaited).min()
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

/// The lower of the two in the middle, if they are two.
fn median(mut values: Vec<f64>) -> Option<f64> {
    let middle = values.len().checked_sub(1)? / 2;
    let (_, median, _) = values.select_nth_unstable_by(middle, f64::total_cmp);
    Some(*median)
}
