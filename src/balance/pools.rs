//! The pools of a plan, and what the driver has put into them.
//!
//! A plan is applied in this order: new pools, what is inserted, the routes, what is removed. So an endpoint that changes its
//! pool is never in none. The lock of one pool is held at a time.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::time::Instant;

use super::{
    plan::WeightedTarget,
    pool::{Chance, Pool, PoolMember, Shares},
};
use crate::endpoint::{Candidate, Connection, Endpoint, ServiceState};

/// A target of the plan with its pools.
pub(super) struct Route<C: Connection> {
    /// The turns below are its own, or those of one before it.
    pub(super) end: u128,
    pub(super) own_zone: Option<Arc<Pool<C>>>,
    pub(super) other_zones: Option<Arc<Pool<C>>>,
    /// The part of its calls that stay in our zone.
    pub(super) locality_share: f64,
}

/// An endpoint, how it stood when the driver looked last, and where it is.
pub(super) struct Tracked<C: Connection> {
    pub(super) endpoint: Arc<Endpoint<C>>,
    pub(super) candidate: Candidate,
    placed: Option<Placed>,
}

/// An entry of a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Placed {
    pool: u64,
    generation: u64,
}

impl<C: Connection> Tracked<C> {
    /// An endpoint that is in no pool.
    pub(super) fn new(endpoint: Arc<Endpoint<C>>) -> Self {
        Self { candidate: endpoint.look(Instant::now()), endpoint, placed: None }
    }

    /// Looks at it again.
    pub(super) fn look(&mut self, now: Instant) {
        self.candidate = self.endpoint.look(now);
    }

    /// Where it is.
    pub(super) fn placed(&self) -> Option<Placed> {
        self.placed
    }
}

/// The pools.
pub(super) struct Pools<C: Connection> {
    service: Arc<ServiceState>,
    pools: BTreeMap<PoolKey, Managed<C>>,
    next_id: u64,
    seeds: SmallRng,
}

#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct PoolKey {
    version: String,
    own_zone: bool,
}

struct Managed<C: Connection> {
    /// Unlike that of any pool before.
    id: u64,
    pool: Arc<Pool<C>>,
    shares: Option<Shares>,
    /// Whether the latest plan has it.
    planned: bool,
}

impl<C: Connection> Pools<C> {
    /// No pools. `seeds` is the source of all chance in those to come.
    pub(super) fn new(service: Arc<ServiceState>, seeds: SmallRng) -> Self {
        Self { service, pools: BTreeMap::new(), next_id: 0, seeds }
    }

    /// Makes the pools those of a plan, whose endpoints are named by their place in `endpoints`. What is `departed` belongs to no
    /// endpoint any more. `publish` receives the routes; `applied` is called between steps, without a lock.
    pub(super) fn apply(
        &mut self,
        targets: Vec<WeightedTarget>,
        endpoints: &mut [&mut Tracked<C>],
        departed: Vec<Placed>,
        publish: impl FnOnce(Vec<Route<C>>),
        mut applied: impl FnMut(),
    ) {
        let (mut routes, mut gone) = (Vec::new(), departed);
        let mut planned = vec![false; endpoints.len()];
        self.pools.values_mut().for_each(|managed| managed.planned = false);
        for WeightedTarget { end, version, own_zone, other_zones, locality_share } in targets {
            own_zone.iter().chain(&other_zones).for_each(|index| planned[*index] = true);
            let mut fill = |members: Vec<usize>, own_zone| {
                let key = PoolKey { version: version.clone(), own_zone };
                (!members.is_empty()).then(|| self.fill(key, &members, endpoints, &mut gone, &mut applied))
            };
            let (own_zone, other_zones) = (fill(own_zone, true), fill(other_zones, false));
            routes.push(Route { end, own_zone, other_zones, locality_share });
        }
        publish(routes);
        let unplanned = endpoints.iter_mut().zip(planned).filter(|(_, planned)| !planned);
        gone.extend(unplanned.filter_map(|(tracked, _)| tracked.placed.take()));
        self.remove(gone, applied);
    }

    /// Inserts into a pool what it lacks, and notes what has left another place for it.
    fn fill(
        &mut self,
        key: PoolKey,
        members: &[usize],
        endpoints: &mut [&mut Tracked<C>],
        gone: &mut Vec<Placed>,
        applied: &mut impl FnMut(),
    ) -> Arc<Pool<C>> {
        let shares = shares(members.iter().map(|index| &endpoints[*index].candidate));
        let managed = self.managed(key);
        let mut new = Vec::new();
        for index in members {
            let tracked = &mut *endpoints[*index];
            let generation = tracked.candidate.generation;
            let wanted = Placed { pool: managed.id, generation };
            if tracked.placed != Some(wanted) {
                gone.extend(tracked.placed.replace(wanted));
                new.push(PoolMember { generation, endpoint: tracked.endpoint.clone() });
            }
        }
        managed.pool.insert(&new, applied);
        if managed.shares != Some(shares) {
            managed.shares = Some(shares);
            managed.pool.set_shares(shares);
        }
        managed.pool.clone()
    }

    /// The pool of that name; a new one, if there is none, or a panic has unwound through it.
    fn managed(&mut self, key: PoolKey) -> &mut Managed<C> {
        let Self { service, pools, next_id, seeds } = self;
        let mut make = || {
            let [chance, thinning] = [(); 2].map(|()| SmallRng::from_rng(&mut *seeds));
            *next_id += 1;
            let pool = Arc::new(Pool::new(service.clone(), Chance(chance), thinning));
            Managed { id: *next_id, pool, shares: None, planned: false }
        };
        let managed = pools.entry(key).or_insert_with(&mut make);
        if managed.pool.is_broken() {
            *managed = make();
        }
        managed.planned = true;
        managed
    }

    fn remove(&mut self, gone: Vec<Placed>, mut applied: impl FnMut()) {
        let mut by_pool: HashMap<u64, Vec<u64>> = HashMap::new();
        for Placed { pool, generation } in gone {
            by_pool.entry(pool).or_default().push(generation);
        }
        self.pools.retain(|_, managed| managed.planned);
        for managed in self.pools.values() {
            if let Some(generations) = by_pool.get(&managed.id) {
                managed.pool.remove(generations, &mut applied);
            }
        }
    }

    /// The generations that tower holds in each pool.
    #[cfg(test)]
    pub(super) fn alive(&self) -> BTreeMap<(String, bool), std::collections::BTreeSet<u64>> {
        let alive =
            |(key, managed): (&PoolKey, &Managed<C>)| ((key.version.clone(), key.own_zone), managed.pool.alive());
        self.pools.iter().map(alive).collect()
    }
}

/// How the draws of a pool with these members are thinned.
fn shares<'a>(members: impl Iterator<Item = &'a Candidate>) -> Shares {
    let (mut smallest, mut largest) = (f64::INFINITY, 0.0_f64);
    let (mut oldest, mut newest) = (None, None);
    for candidate in members {
        (smallest, largest) = (smallest.min(candidate.weight), largest.max(candidate.weight));
        oldest = [oldest, candidate.ready_since].into_iter().flatten().min();
        newest = newest.max(candidate.ready_since);
    }
    let known = "a plan has only endpoints with a connection, and no empty pools";
    Shares {
        largest: (smallest < largest).then_some(largest),
        oldest: oldest.expect(known),
        newest: newest.expect(known),
    }
}
