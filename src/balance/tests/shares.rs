//! How calls are shared between endpoints of different weight, age, version and zone.

use super::*;
use crate::policy::SplitPolicy;

fn weighing(weight: u32) -> Traits {
    Traits { weight, ..Traits::default() }
}

/// The shares of calls that are all under way at the same time, or one after the other, at endpoints that all take between
/// 9 and 11 ms.
async fn shares(bench: &Bench, calls: usize, concurrency: usize) -> BTreeMap<&'static str, f64> {
    let mut shares = BTreeMap::new();
    for round in 0..calls / concurrency {
        let mut held: Vec<_> = (0..concurrency).map(|_| bench.pick().expect("ready")).collect();
        advance(Duration::from_micros(9_000 + (round as u64 * 7919) % 2000)).await;
        for pick in &mut held {
            pick.call.answered(Blame::None);
            *shares.entry(pick.connection.name).or_default() += 1.0 / calls as f64;
        }
    }
    shares
}

fn near(share: f64, expected: f64) -> bool {
    (share - expected).abs() < 0.05
}

#[tokio::test(start_paused = true)]
async fn at_equal_latency_shares_follow_the_weights_whether_idle_or_busy() {
    for concurrency in [1, 10, 100] {
        let mut bench = Bench::within("");
        for (name, weight) in [("small", 50), ("usual", 0), ("large", 250)] {
            bench.add_with(name, weighing(weight)).connected(link(name));
        }
        let shares = shares(&bench, 4000, concurrency).await;
        let expected = [("small", 0.125), ("usual", 0.25), ("large", 0.625)];
        assert!(expected.iter().all(|(name, share)| near(shares[name], *share)), "{concurrency}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn of_two_the_weights_hold_as_well_and_may_change() {
    for concurrency in [1, 50] {
        let mut bench = Bench::within("");
        bench.add_with("a", weighing(100)).connected(link("a"));
        bench.add_with("b", weighing(300)).connected(link("b"));
        let before = shares(&bench, 2000, concurrency).await;
        bench.endpoint("b").set_traits(weighing(100));
        let after = shares(&bench, 2000, concurrency).await;
        assert!(near(before["b"], 0.75) && near(after["b"], 0.5), "{concurrency}: {before:?} {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_among_old_ones_gets_its_full_share_only_after_ten_seconds() {
    for concurrency in [1, 60] {
        let mut bench = Bench::new(&["a", "b"]);
        advance(Duration::from_secs(60)).await;
        bench.add("new").connected(link("new"));
        let mut seen = Vec::new();
        for _ in 0..3 {
            // About 3 s each.
            seen.push(shares(&bench, 300 * concurrency, concurrency).await["new"]);
        }
        advance(Duration::from_secs(2)).await;
        let later = shares(&bench, 300 * concurrency, concurrency).await["new"];
        assert!(seen[0] < 0.12 && seen.is_sorted() && near(later, 1.0 / 3.0), "{concurrency}: {seen:?} {later}");
    }
}

#[tokio::test(start_paused = true)]
async fn while_all_are_new_none_is_held_back() {
    let bench = Bench::new(&["a", "b", "c"]);
    let shares = shares(&bench, 300, 3).await;
    assert!(shares.values().all(|share| near(*share, 1.0 / 3.0)), "{shares:?}");
}

#[tokio::test(start_paused = true)]
async fn one_of_ten_with_tenfold_weight_gets_its_half() {
    const LIGHT: [&str; 9] = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    for concurrency in [1, 50] {
        let mut bench = Bench::within("");
        LIGHT.into_iter().for_each(|name| bench.add_with(name, weighing(100)).connected(link(name)));
        bench.add_with("heavy", weighing(1000)).connected(link("heavy"));
        let shares = shares(&bench, 4000, concurrency).await;
        assert!(near(shares["heavy"], 10.0 / 19.0), "{concurrency}: {shares:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_heavy_endpoint_that_is_slow_gets_hardly_any_calls() {
    let mut bench = Bench::within("");
    bench.add_with("heavy", weighing(1000)).connected(link("heavy"));
    ["a", "b", "c"].into_iter().for_each(|name| bench.add_with(name, weighing(100)).connected(link(name)));
    let mut heavy = 0;
    for round in 0..200 {
        let mut held: Vec<_> = (0..20).map(|_| bench.pick().expect("ready")).collect();
        let slow = held.iter().filter(|pick| pick.connection.name == "heavy").count();
        heavy += if round < 20 { 0 } else { slow };
        advance(Duration::from_millis(10)).await;
        held.iter_mut().filter(|pick| pick.connection.name != "heavy").for_each(|pick| pick.call.answered(Blame::None));
        advance(Duration::from_millis(490)).await;
        held.iter_mut().filter(|pick| pick.connection.name == "heavy").for_each(|pick| pick.call.answered(Blame::None));
    }
    assert!(heavy < 180 * 20 / 10, "ten thirteenths by weight, and it is 50 times slower: {heavy} of 3600");
}

fn split(weights: &[(&str, u32)]) -> Option<SplitPolicy> {
    Some(SplitPolicy { weights: weights.iter().map(|(version, share)| ((*version).into(), *share)).collect() })
}

/// Three instances of each version.
fn two_versions() -> Bench {
    let mut bench = Bench::within("");
    for (name, version) in [("a", "v1"), ("b", "v1"), ("c", "v1"), ("x", "v2"), ("y", "v2"), ("z", "v2")] {
        bench.add_with(name, Traits { version: version.into(), ..Traits::default() }).connected(link(name));
    }
    bench
}

/// The share of the endpoints that are called so.
fn part(shares: &BTreeMap<&'static str, f64>, names: &str) -> f64 {
    shares.iter().filter(|(name, _)| names.contains(**name)).map(|(_, share)| share).sum()
}

#[tokio::test(start_paused = true)]
async fn a_split_is_within_one_percent_over_20_000_calls_and_changes_live() {
    let bench = two_versions();
    assert!(near(part(&shares(&bench, 2000, 10).await, "xyz"), 0.5), "without a split versions make no difference");
    for (one, other) in [(95, 5), (50, 50), (0, 100)] {
        bench.set_policy(|policy| policy.split = split(&[("v1", one), ("v2", other)]));
        let canary = part(&shares(&bench, 20_000, 10).await, "xyz");
        let expected = f64::from(other) / 100.0;
        assert!((canary / expected - 1.0).abs() < 0.01, "{one}:{other}: {canary}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_version_without_a_ready_endpoint_fails_no_call_and_takes_its_share_when_it_is_back() {
    let bench = two_versions();
    bench.set_policy(|policy| policy.split = split(&[("v1", 80), ("v2", 20)]));
    // One is cut, one is paused, one has ended unnoticed.
    bench.disconnect("x");
    bench.endpoint("y").pause(Duration::from_secs(3600));
    let ended = link("z");
    bench.endpoint("z").connected(ended.clone());
    ended.ended.store(true, Ordering::SeqCst);
    assert!(near(part(&shares(&bench, 1000, 10).await, "abc"), 1.0));

    bench.endpoint("x").connected(link("x"));
    assert!(near(part(&shares(&bench, 1000, 10).await, "x"), 0.2));
    ["a", "b", "c", "x"].iter().for_each(|name| bench.remove(name));
    assert!(bench.pick().is_none());
}

#[tokio::test(start_paused = true)]
async fn versions_that_a_split_does_not_name_get_calls_only_if_no_other_is_there() {
    let bench = two_versions();
    bench.set_policy(|policy| policy.split = split(&[("v2", 1), ("v3", 1)]));
    assert!(near(part(&shares(&bench, 1000, 10).await, "xyz"), 1.0));
    ["x", "y", "z"].iter().for_each(|name| bench.remove(name));
    assert!(near(part(&shares(&bench, 1000, 10).await, "abc"), 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_version_whose_only_endpoint_is_on_probation_does_not_keep_the_calls_of_the_service_waiting() {
    let bench = two_versions();
    bench.remove("y");
    bench.remove("z");
    bench.set_policy(|policy| policy.split = split(&[("v2", 1)]));
    bench.calls("x", [Blame::Failed; 5]);
    advance(Duration::from_secs(1)).await;
    let calls: Vec<_> = (0..20).map(|_| bench.pick().expect("an endpoint is ready")).collect();
    assert_eq!(calls.iter().filter(|call| call.connection.name == "x").count(), 1, "the probe");
    drop(calls);
    bench.calls("x", [Blame::None]);
    assert!(near(part(&shares(&bench, 1000, 10).await, "x"), 1.0));
}

/// Two endpoints in the caller's zone and two in another.
fn two_zones() -> Bench {
    let mut bench = Bench::within("here");
    for (name, zone) in [("a", "here"), ("b", "here"), ("x", "there"), ("y", "there")] {
        bench.add_with(name, Traits { zone: zone.into(), ..Traits::default() }).connected(link(name));
    }
    bench
}

#[tokio::test(start_paused = true)]
async fn calls_stay_in_their_zone_zone_loss_spills_over_and_comes_back() {
    let bench = two_zones();
    assert!(near(part(&shares(&bench, 1000, 10).await, "ab"), 1.0));
    bench.disconnect("a");
    assert!(near(part(&shares(&bench, 3000, 10).await, "b"), 2.0 / 3.0), "a third of the capacity, of the half due");
    bench.disconnect("b");
    assert!(near(part(&shares(&bench, 1000, 10).await, "xy"), 1.0));

    bench.endpoint("a").connected(link("a"));
    bench.endpoint("b").connected(link("b"));
    assert!(near(part(&shares(&bench, 1000, 10).await, "ab"), 1.0));
}

#[tokio::test(start_paused = true)]
async fn a_zone_that_is_ejected_is_lost_as_well_and_is_asked_again() {
    let mut bench = two_zones();
    bench.remove("b");
    bench.remove("y");
    bench.add_with("z", Traits { zone: "there".into(), ..Traits::default() }).connected(link("z"));
    bench.calls("a", [Blame::Failed; 5]);
    assert!(near(part(&shares(&bench, 200, 10).await, "xz"), 1.0));
    advance(Duration::from_secs(1)).await;
    bench.calls("a", [Blame::None]);
    assert!(part(&shares(&bench, 1000, 10).await, "a") > 0.5);
}

#[tokio::test(start_paused = true)]
async fn a_policy_may_say_that_zones_make_no_difference() {
    let bench = two_zones();
    bench.set_policy(|policy| policy.zones.same_zone_first = false);
    assert!(near(part(&shares(&bench, 1000, 10).await, "xy"), 0.5));
}
