//! How calls are shared between endpoints of different weight, age, version and zone.

use super::*;

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
            pick.call.answered(Outcome::Served);
            *shares.entry(pick.link.name).or_default() += 1.0 / calls as f64;
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
            bench.add_with(name, weighing(weight)).open(link(name));
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
        bench.add_with("a", weighing(100)).open(link("a"));
        bench.add_with("b", weighing(300)).open(link("b"));
        let before = shares(&bench, 2000, concurrency).await;
        bench.picker.update(bench.gates["b"].0, weighing(100));
        let after = shares(&bench, 2000, concurrency).await;
        assert!(near(before["b"], 0.75) && near(after["b"], 0.5), "{concurrency}: {before:?} {after:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_new_endpoint_among_old_ones_gets_its_full_share_only_after_ten_seconds() {
    for concurrency in [1, 60] {
        let mut bench = Bench::new(&["a", "b"]);
        advance(Duration::from_secs(60)).await;
        bench.add("new").open(link("new"));
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
