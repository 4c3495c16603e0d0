//! Which endpoint is picked, as endpoints open, close and are removed.

use super::*;

#[tokio::test(start_paused = true)]
async fn an_endpoint_without_a_connection_is_never_picked_and_comes_back_when_it_has_one() {
    let mut bench = Bench::new(&["a", "b"]);
    bench.add("dead");
    bench.disconnect("b");
    assert_eq!(bench.shares(100), BTreeMap::from([("a", 100)]));

    bench.endpoint("b").connected(link("b"));
    assert_eq!(bench.shares(100).len(), 2, "a connection that comes back is a new entry");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_ended_is_not_used_even_before_its_owner_has_noticed() {
    let bench = Bench::new(&["a"]);
    let ended = link("b");
    let mut bench = bench;
    bench.add("b").connected(ended.clone());
    assert_eq!(bench.shares(50).len(), 2);
    ended.ended.store(true, Ordering::SeqCst);
    assert_eq!(bench.shares(50), BTreeMap::from([("a", 50)]));
}

#[tokio::test(start_paused = true)]
async fn a_paused_endpoint_is_passed_over_for_that_time_only() {
    let bench = Bench::new(&["a", "b"]);
    bench.endpoint("a").pause(Duration::from_secs(1));
    assert_eq!(bench.shares(50), BTreeMap::from([("b", 50)]));
    advance(Duration::from_millis(1001)).await;
    assert_eq!(bench.shares(50).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_pick_outside_of_tokio_meets_a_paused_endpoint_without_harm_to_others() {
    let bench = Bench::new(&["a"]);
    bench.endpoint("a").pause(Duration::from_secs(3600));
    let picker = &bench.picker;
    let picked = std::thread::scope(|scope| scope.spawn(|| picker.pick(None).map(drop)).join());
    assert_eq!(picked.expect("no panic"), Ok(()));
    advance(Duration::from_secs(3601)).await;
    bench.picker.serve_waiters();
    assert_eq!(bench.shares(1), BTreeMap::from([("a", 1)]));
}

#[tokio::test(start_paused = true)]
async fn picks_follow_the_load() {
    let bench = Bench::new(&["fast", "slow"]);
    for _ in 0..20 {
        let mut picks = [bench.pick().expect("ready"), bench.pick().expect("ready")];
        picks.sort_by_key(|pick| pick.connection.name);
        advance(Duration::from_millis(2)).await;
        for pick in picks.iter_mut().filter(|pick| pick.connection.name == "fast") {
            pick.call.answered(Blame::None);
        }
        advance(Duration::from_millis(98)).await;
        for pick in picks.iter_mut().filter(|pick| pick.connection.name == "slow") {
            pick.call.answered(Blame::None);
        }
    }

    let held: Vec<_> = (0..60).map(|_| bench.pick().expect("ready")).collect();

    let fast = held.iter().filter(|pick| pick.connection.name == "fast").count();
    assert!((50..60).contains(&fast), "a balance that sees no load would give it 30: {fast}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_to_be_avoided_is_picked_only_if_no_other_is_ready() {
    let bench = Bench::new(&["a", "b", "c"]);
    bench.endpoint("b").pause(Duration::from_secs(1));
    let pick = || {
        bench.picker.serve_waiters();
        match bench.picker.pick(Some(bench.endpoint("a"))) {
            Ok(Picked::Now(pick)) => pick.connection.name,
            _ => panic!("one is ready"),
        }
    };
    assert!((0..50).all(|_| pick() == "c"));
    bench.disconnect("c");
    assert_eq!(pick(), "a");
}

#[tokio::test(start_paused = true)]
async fn another_endpoint_is_picked_only_if_it_is_ready_and_no_call_waits_for_it() {
    let bench = Bench::new(&["a", "b"]);
    let other_now = || bench.picker.pick_other(bench.endpoint("a")).map(|pick| pick.connection.name);
    let other = || {
        bench.picker.serve_waiters();
        other_now()
    };
    assert!((0..50).all(|_| other() == Some("b")));
    bench.disconnect("b");
    assert_eq!(other(), None, "not the same one");
    bench.disconnect("a");
    let _waiting = bench.picker.pick(None);
    bench.endpoint("b").connected(link("b"));
    assert_eq!(other_now(), None, "a call waits");
    assert_eq!(other(), Some("b"));
    bench.picker.close();
    assert_eq!(other(), None);
}

#[tokio::test(start_paused = true)]
async fn a_removal_between_picks_never_leads_to_the_removed_endpoint_nor_to_a_panic() {
    let mut bench = Bench::new(&["a", "b", "c", "d"]);
    for name in ["d", "a", "b"] {
        assert!(bench.shares(40).contains_key(name));
        // The driver may have looked in between, and with that have made a choice.
        bench.picker.serve_waiters();
        bench.remove(name);
        assert!(!bench.shares(40).contains_key(name), "{name} is gone");
    }
    bench.remove("c");
    assert!(bench.pick().is_none());
    bench.add("e").connected(link("e"));
    bench.picker.serve_waiters();
    assert_eq!(bench.shares(1), BTreeMap::from([("e", 1)]));
}
