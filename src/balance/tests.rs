//! The picker with gates that are opened and closed by hand.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use tokio::time::advance;

use super::*;

#[derive(Clone)]
struct FakeLink {
    name: &'static str,
    ended: Arc<AtomicBool>,
}

impl Link for FakeLink {
    fn is_closed(&self) -> bool {
        self.ended.load(Ordering::SeqCst)
    }
}

fn link(name: &'static str) -> FakeLink {
    FakeLink { name, ended: Arc::default() }
}

/// A seeded source of chance (splitmix64).
struct Seeded(u64);

impl Rng for Seeded {
    fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

struct Bench {
    picker: Picker<FakeLink>,
    set: LoadSet,
    gates: BTreeMap<&'static str, (Key, Arc<Gate<FakeLink>>)>,
}

impl Bench {
    /// Endpoints with open gates.
    fn new(names: &[&'static str]) -> Self {
        let mut bench = Self { picker: Picker::from_rng(Seeded(7)), set: LoadSet::default(), gates: BTreeMap::new() };
        for name in names {
            bench.add(name).open(link(name));
        }
        bench
    }

    fn add(&mut self, name: &'static str) -> Arc<Gate<FakeLink>> {
        let gate = Arc::new(Gate::new(self.set.add(0)));
        let key = self.gates.len() as Key;
        self.picker.insert(key, gate.clone());
        self.gates.insert(name, (key, gate.clone()));
        gate
    }

    fn gate(&self, name: &str) -> &Gate<FakeLink> {
        &self.gates[name].1
    }

    fn remove(&self, name: &str) {
        self.picker.remove(self.gates[name].0);
    }

    fn pick(&self) -> Option<Pick<FakeLink>> {
        match self.picker.pick(None).expect("room in the queue") {
            Picked::Now(pick) => Some(pick),
            Picked::Later(_) => None,
        }
    }

    /// How often each is picked, by calls that take no time.
    fn shares(&self, picks: usize) -> BTreeMap<&'static str, usize> {
        let mut shares = BTreeMap::new();
        for _ in 0..picks {
            let mut pick = self.pick().expect("somebody is ready");
            pick.call.answered(Outcome::Served);
            *shares.entry(pick.link.name).or_default() += 1;
        }
        shares
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_a_connection_is_never_picked_and_comes_back_when_it_has_one() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.add("dead");
    bench.gate("b").close();
    assert_eq!(bench.shares(100), BTreeMap::from([("a", 100)]));

    bench.gate("b").open(link("b"));
    assert_eq!(bench.shares(100).len(), 2, "closed is pending, not evicted");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ended_is_not_used_even_before_its_owner_has_closed_the_gate() {
    let bench = Bench::new(&["a"]);
    let ended = link("b");
    let mut bench = bench;
    bench.add("b").open(ended.clone());
    assert_eq!(bench.shares(50).len(), 2);
    ended.ended.store(true, Ordering::SeqCst);
    assert_eq!(bench.shares(50), BTreeMap::from([("a", 50)]));
}

#[tokio::test(start_paused = true)]
async fn a_paused_endpoint_is_passed_over_for_that_time_only() {
    let bench = Bench::new(&["a", "b"]);
    bench.gate("a").pause(Duration::from_secs(1));
    assert_eq!(bench.shares(50), BTreeMap::from([("b", 50)]));
    advance(Duration::from_millis(1001)).await;
    assert_eq!(bench.shares(50).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pick_outside_of_tokio_meets_a_paused_endpoint_without_harm_to_others() {
    let bench = Bench::new(&["a"]);
    bench.gate("a").pause(Duration::from_secs(3600));
    let picker = &bench.picker;
    let picked = std::thread::scope(|scope| scope.spawn(|| picker.pick(None).map(drop)).join());
    assert_eq!(picked.expect("no panic"), Ok(()));
    advance(Duration::from_secs(3601)).await;
    bench.picker.serve();
    assert_eq!(bench.shares(1), BTreeMap::from([("a", 1)]));
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_pause_wakes_those_who_wait() {
    let bench = Bench::new(&["a"]);
    bench.gate("a").pause(Duration::from_secs(1));
    let Ok(Picked::Later(later)) = bench.picker.pick(None) else { panic!("nobody is ready") };
    let driver = async {
        loop {
            bench.picker.woken().await;
            bench.picker.serve();
        }
    };
    tokio::select! {
        pick = later => assert_eq!(pick.expect("picked").link.name, "a"),
        () = driver => unreachable!("the driver does not end"),
        () = tokio::time::sleep(Duration::from_secs(2)) => panic!("nobody was woken"),
    }
}

#[tokio::test(start_paused = true)]
async fn picks_follow_the_load() {
    let bench = Bench::new(&["fast", "slow"]);
    for _ in 0..20 {
        let mut picks = [bench.pick().expect("ready"), bench.pick().expect("ready")];
        picks.sort_by_key(|pick| pick.link.name);
        advance(Duration::from_millis(2)).await;
        for pick in picks.iter_mut().filter(|pick| pick.link.name == "fast") {
            pick.call.answered(Outcome::Served);
        }
        advance(Duration::from_millis(98)).await;
        for pick in picks.iter_mut().filter(|pick| pick.link.name == "slow") {
            pick.call.answered(Outcome::Served);
        }
    }

    let held: Vec<_> = (0..60).map(|_| bench.pick().expect("ready")).collect();

    let fast = held.iter().filter(|pick| pick.link.name == "fast").count();
    assert!((50..60).contains(&fast), "a balance that sees no load would give it 30: {fast}");
}

#[tokio::test(start_paused = true)]
async fn a_removal_between_picks_never_leads_to_the_removed_endpoint_nor_to_a_panic() {
    let mut bench = Bench::new(&["a", "b", "c", "d"]);
    for name in ["d", "a", "b"] {
        assert!(bench.shares(40).contains_key(name));
        // The driver may have looked in between, and with that have made a choice.
        bench.picker.serve();
        bench.remove(name);
        assert!(!bench.shares(40).contains_key(name), "{name} is gone");
    }
    bench.remove("c");
    assert!(bench.pick().is_none());
    bench.add("e").open(link("e"));
    bench.picker.serve();
    assert_eq!(bench.shares(1), BTreeMap::from([("e", 1)]));
}

#[tokio::test(start_paused = true)]
async fn those_who_wait_are_served_in_order_when_an_endpoint_comes() {
    let mut bench = Bench::new(&[]);
    let waiting: Vec<_> = (0..3)
        .map(|_| match bench.picker.pick(None) {
            Ok(Picked::Later(later)) => later,
            _ => panic!("nobody is there"),
        })
        .collect();
    bench.add("a").open(link("a"));

    bench.picker.woken().await;
    bench.picker.serve();

    for later in waiting {
        assert_eq!(later.await.expect("served").link.name, "a");
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_those_who_left_do_not_fill_it() {
    let bench = Bench::new(&[]);
    let wait = || bench.picker.pick(None);
    let mut waiting: Vec<_> = (0..MAX_WAITING).map(|_| wait().ok()).collect();
    assert_eq!(wait().err(), Some(NoPick::QueueFull));
    waiting.pop();
    assert!(wait().is_ok(), "the place of one who left");
}

#[tokio::test(start_paused = true)]
async fn a_closed_picker_turns_everybody_away() {
    let bench = Bench::new(&[]);
    let Ok(Picked::Later(later)) = bench.picker.pick(None) else { panic!("nobody is there") };
    bench.picker.close();
    assert!(later.await.is_err());
    assert_eq!(bench.picker.pick(None).err(), Some(NoPick::Closed));
}
