//! Whatever has happened, tower's pools hold what the plan says, and every endpoint of them is drawn.

use std::collections::BTreeSet;

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::SmallRng};
use tower::util::rng::Rng;

use super::*;
use crate::{
    balance::pool::{Chance, Pool, PoolMember},
    endpoint::ServiceState,
    policy::SplitPolicy,
};

const NAMES: [&str; 6] = ["a", "b", "c", "d", "e", "f"];

/// What may happen to one of the endpoints, or to all.
#[derive(Clone, Debug)]
enum Event {
    Connects(usize),
    Disconnects(usize),
    /// Its connection ends, and its owner has not noticed.
    Ends(usize),
    /// Its connection ends and another one is there before the driver has looked.
    Flaps(usize),
    Fails(usize),
    Pauses(usize, u64),
    /// A call is made, and held.
    Call,
    /// The call that is held the longest ends so.
    CallEnds(Option<bool>),
    Moves(usize, &'static str, &'static str),
    Leaves(usize),
    Comes(usize),
    Policy(Option<u32>, bool, u32),
    Time(u64),
    DriverLooks,
}

fn event() -> impl Strategy<Value = Event> {
    let one = 0..NAMES.len();
    let name = || prop::sample::select(vec!["", "v1", "v2"]);
    prop_oneof![
        3 => one.clone().prop_map(Event::Connects),
        1 => one.clone().prop_map(Event::Disconnects),
        1 => one.clone().prop_map(Event::Ends),
        2 => one.clone().prop_map(Event::Flaps),
        3 => one.clone().prop_map(Event::Fails),
        1 => (one.clone(), 1..3000_u64).prop_map(|(one, ms)| Event::Pauses(one, ms)),
        6 => Just(Event::Call),
        4 => prop::option::of(any::<bool>()).prop_map(Event::CallEnds),
        1 => (one.clone(), name(), name()).prop_map(|(one, version, zone)| Event::Moves(one, version, zone)),
        1 => one.clone().prop_map(Event::Leaves),
        1 => one.prop_map(Event::Comes),
        1 => (prop::option::of(0..3_u32), any::<bool>(), 0..100_u32).prop_map(|(v1, zones, percent)| Event::Policy(v1, zones, percent)),
        3 => (0..1500_u64).prop_map(Event::Time),
        4 => Just(Event::DriverLooks),
    ]
}

struct History {
    bench: Bench,
    links: BTreeMap<usize, Link>,
    held: Vec<Pick<Link>>,
}

impl History {
    fn new() -> Self {
        let mut bench = Bench::within("v1");
        NAMES.into_iter().for_each(|name| drop(bench.add(name)));
        Self { bench, links: BTreeMap::new(), held: Vec::new() }
    }

    fn connect(&mut self, one: usize) {
        let new = link(NAMES[one]);
        self.links.insert(one, new.clone());
        self.bench.endpoint(NAMES[one]).connected(new);
    }

    fn end(&self, one: usize) {
        self.links.get(&one).into_iter().for_each(|link| link.ended.store(true, Ordering::SeqCst));
    }

    async fn happen(&mut self, event: Event) {
        match event {
            Event::Connects(one) => self.connect(one),
            Event::Disconnects(one) => self.bench.disconnect(NAMES[one]),
            Event::Ends(one) => self.end(one),
            Event::Flaps(one) => {
                self.end(one);
                // A pick in between drops the entry.
                drop(self.bench.pick_at_once());
                self.connect(one);
            }
            Event::Fails(one) => {
                for _ in 0..5 {
                    let accept = |_, _| true;
                    let acquired = self.bench.endpoints[NAMES[one]].acquire(Instant::now(), accept);
                    if let crate::endpoint::Acquired::Taken(mut pick) = acquired {
                        pick.call.answered(Blame::Failed);
                    }
                }
            }
            Event::Pauses(one, ms) => self.bench.endpoint(NAMES[one]).pause(Duration::from_millis(ms)),
            Event::Call => self.held.extend(self.bench.pick_at_once()),
            Event::CallEnds(end) => {
                if !self.held.is_empty() {
                    let mut pick = self.held.remove(0);
                    end.into_iter().for_each(|well| pick.call.answered(if well { Blame::None } else { Blame::Failed }));
                }
            }
            Event::Moves(one, version, zone) => {
                let traits = Traits { version: version.into(), zone: zone.into(), ..Traits::default() };
                self.bench.endpoint(NAMES[one]).set_traits(traits);
            }
            Event::Leaves(one) => self.bench.remove(NAMES[one]),
            Event::Comes(one) => {
                self.bench.remove(NAMES[one]);
                drop(self.bench.add(NAMES[one]));
                self.connect(one);
            }
            Event::Policy(v1, zones, percent) => self.bench.set_policy(|policy| {
                policy.split = v1.map(|v1| SplitPolicy { weights: [("v1".into(), v1), ("v2".into(), 1)].into() });
                policy.zones.same_zone_first = zones;
                policy.ejection.max_ejected_percent = percent;
            }),
            Event::Time(ms) => advance(Duration::from_millis(ms)).await,
            Event::DriverLooks => self.bench.picker.serve_waiters(),
        }
    }

    /// Lets the owners of ended connections notice, and the driver look until nothing is left to do.
    fn settle(&self) {
        for (one, _) in self.links.iter().filter(|(_, link)| link.is_closed()) {
            self.bench.disconnect(NAMES[*one]);
        }
        // What it removes may tell it once more.
        (0..3).for_each(|_| self.bench.picker.serve_waiters());
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 500, ..ProptestConfig::default() })]

    #[test]
    fn after_any_history_the_pools_hold_the_plan_generation_by_generation_and_each_endpoint_is_drawn(
        events in prop::collection::vec(event(), 1..80),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
        runtime.expect("a runtime").block_on(async {
            let mut history = History::new();
            for event in events {
                history.happen(event).await;
            }
            history.settle();
            let [held, planned] = history.bench.picker.audit(Instant::now());
            prop_assert_eq!(held, planned);

            // One pool of all, with equal loads and weights.
            history.held.clear();
            history.bench.set_policy(|policy| policy.zones.same_zone_first = false);
            advance(Duration::from_secs(120)).await;
            history.settle();
            let [held, _] = history.bench.picker.audit(Instant::now());
            let members: usize = held.values().map(BTreeSet::len).sum();
            let n = members as f64;
            let mut drawn = BTreeSet::new();
            for _ in 0..(6.0 * n * n.max(1.0).ln()) as usize + 60 {
                if let Some(pick) = history.bench.pick() {
                    drawn.insert(pick.connection.name);
                    pick.call.unsent();
                }
            }
            prop_assert_eq!(drawn.len(), members);
            Ok(())
        })?;
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_pause_takes_an_endpoint_out_until_its_end_whenever_the_plan_is_made() {
    let mut history = History::new();
    history.connect(0);
    history.bench.endpoint(NAMES[0]).pause(Duration::from_millis(453));
    history.settle();
    for (passed, left) in [(0, 453), (354, 99), (98, 1), (1, 0)] {
        advance(Duration::from_millis(passed)).await;
        history.settle();
        let [held, planned] = history.bench.picker.audit(Instant::now());
        assert_eq!(held, planned, "{left} ms are left");
        assert_eq!(held.is_empty(), left > 0, "{left} ms are left");
    }
}

/// Four connected endpoints in a pool that draws by `chance`; the names of the first draws.
fn drawn(chance: impl Rng + Send + Sync + 'static) -> Vec<&'static str> {
    let service = Arc::new(ServiceState::new());
    let pool = Pool::new(service.clone(), chance, SmallRng::seed_from_u64(1));
    let member = |(id, name): (u64, &'static str)| {
        let peer = Peer::new("host:1", Some(name)).expect("a peer");
        let endpoint = Arc::new(Endpoint::new(id, peer, Traits::default(), service.clone()));
        endpoint.connected(link(name));
        PoolMember { generation: endpoint.look(Instant::now()).generation, endpoint }
    };
    let members: Vec<_> = (0..).zip(["a", "b", "c", "d"]).map(member).collect();
    pool.insert(&members, || {});
    let mut names = Vec::new();
    for _ in 0..20 {
        let pick = pool.draw(Instant::now(), None).expect("all are ready");
        names.push(pick.connection.name);
        pick.call.unsent();
    }
    names
}

/// Draws always the first entry, against the second.
struct Zero;

impl Rng for Zero {
    fn next_u64(&mut self) -> u64 {
        0
    }
}

#[tokio::test(start_paused = true)]
async fn another_source_of_chance_for_towers_balance_is_another_sequence_of_picks() {
    let seeded = |seed| drawn(Chance(SmallRng::seed_from_u64(seed)));
    assert_eq!(seeded(1), seeded(1));
    assert_ne!(seeded(1), seeded(2));
    assert_ne!(seeded(1), drawn(Zero));
}

/// A source of chance that panics once.
struct PanicsOnce(u32);

impl Rng for PanicsOnce {
    fn next_u64(&mut self) -> u64 {
        self.0 += 1;
        assert!(self.0 != 30, "as told");
        u64::from(self.0).wrapping_mul(0x9e37_79b9_7f4a_7c15)
    }
}

#[tokio::test(start_paused = true)]
async fn a_pool_through_which_a_panic_has_unwound_is_not_used_again() {
    let service = Arc::new(ServiceState::new());
    let pool = Pool::new(service.clone(), PanicsOnce(0), SmallRng::seed_from_u64(1));
    let member = |(id, name): (u64, &'static str)| {
        let endpoint = Arc::new(Endpoint::new(
            id,
            Peer::new("host:1", Some(name)).expect("a peer"),
            Traits::default(),
            service.clone(),
        ));
        endpoint.connected(link(name));
        PoolMember { generation: endpoint.look(Instant::now()).generation, endpoint }
    };
    let members: Vec<_> = (0..).zip(["a", "b", "c"]).map(member).collect();
    pool.insert(&members, || {});
    service.take_changed();
    let draw = || pool.draw(Instant::now(), None).map(|pick| pick.call.unsent());
    let draws = (0..100).take_while(|_| draw().is_some()).count();
    assert!(draws > 0 && draws < 100 && pool.is_broken(), "the caller finds nothing, and lives on");
    assert!(service.take_changed(), "the driver is notified, and makes a new one");
    assert!(draw().is_none());
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_changes_its_pool_is_in_one_at_every_step() {
    use crate::balance::{
        plan::WeightedTarget,
        pools::{Pools, Route, Tracked},
    };
    let service = Arc::new(ServiceState::new());
    let peer = Peer::new("host:1", Some("a")).expect("a peer");
    let endpoint = Arc::new(Endpoint::new(1, peer, Traits::default(), service.clone()));
    endpoint.connected(link("a"));
    let mut pools = Pools::new(service, SmallRng::seed_from_u64(1));
    let mut tracked = Tracked::new(endpoint);
    let routes: std::cell::RefCell<Vec<Route<Link>>> = std::cell::RefCell::default();
    let is_found = |routes: &[Route<Link>]| {
        let pools = routes.iter().flat_map(|route| [&route.own_zone, &route.other_zones]).flatten();
        pools.into_iter().any(|pool| {
            pool.draw(Instant::now(), None).is_some_and(|pick| {
                pick.call.unsent();
                true
            })
        })
    };
    let mut steps = 0;
    for (version, own_zone) in [("v1", true), ("v2", true), ("v2", false), ("v1", true)] {
        let members = |is| if is { vec![0] } else { Vec::new() };
        let target = WeightedTarget {
            end: 1 << 64,
            version: version.into(),
            own_zone: members(own_zone),
            other_zones: members(!own_zone),
            locality_share: 1.0,
        };
        let first = steps == 0;
        let applied = || {
            steps += 1;
            let routes = routes.borrow();
            assert!(first && routes.is_empty() || is_found(&routes), "{version} {own_zone}");
        };
        pools.apply(vec![target], &mut [&mut tracked], Vec::new(), |new| drop(routes.replace(new)), applied);
        assert!(is_found(&routes.borrow()));
    }
    assert!(steps >= 4, "{steps}");
}
