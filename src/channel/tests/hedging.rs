//! A slow read is sent to a second endpoint; no other call is ever at two endpoints at once.

use futures_util::{StreamExt as _, stream};

use super::{
    ejection::stats,
    scripted::{Holding, set_policy, until_config, until_known},
    *,
};

const MS: Duration = Duration::from_millis(1);
const FOR_EVER: Duration = Duration::MAX;

fn within(timeout: Duration) -> Request<String> {
    let mut request = Request::new(String::new());
    request.set_timeout(timeout);
    request
}

/// Two instances of a service that answers at once: `b`, and `a`, which holds every call.
async fn one_holds(time: Duration) -> (Bench, Holding, Host) {
    let bench = Bench::new(&["b", "c", "d"]);
    let [b, _c, _d] = ["b", "c", "d"].map(|id| bench.host(id));
    until_known(&bench).await;
    for _ in 0..20 {
        bench.ask(net::READ).await.expect("answered");
    }
    let a = Holding::serve(&bench, "a", time);
    bench.set(&["a", "b"]);
    until_config(&bench, |config| config.endpoints == 2).await;
    (bench, a, b)
}

/// Reads until a call has come to the endpoint that holds it, and says how that call went and how long it took.
async fn held_read(bench: &Bench, a: &Holding, timeout: Duration) -> (Result<Response<String>, Status>, Duration) {
    let before = a.held().calls;
    soon(async {
        loop {
            let begin = Instant::now();
            let outcome = bench.send(net::READ, within(timeout)).await;
            if a.held().calls > before {
                return (outcome, begin.elapsed());
            }
        }
    })
    .await
}

#[tokio::test(start_paused = true)]
async fn a_read_that_is_not_answered_is_answered_by_another_endpoint_after_10_ms() {
    let (bench, a, _b) = one_holds(FOR_EVER).await;
    let (outcome, took) = held_read(&bench, &a, 1000 * MS).await;
    assert_eq!(outcome.expect("answered").into_inner(), "b");
    assert!((10 * MS..=12 * MS).contains(&took), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn the_slower_of_two_attempts_is_cancelled_at_its_server() {
    let (bench, mut a, _b) = one_holds(FOR_EVER).await;
    held_read(&bench, &a, 1000 * MS).await.0.expect("answered");
    a.until(|held| held.cancelled == held.calls).await;
}

#[tokio::test(start_paused = true)]
async fn what_is_not_a_read_with_one_response_is_never_at_two_endpoints() {
    for method in [net::WHO, net::WRITE, net::FOLLOW] {
        let (bench, a, b) = one_holds(FOR_EVER).await;
        let before = b.calls();
        let mut calls = 0;
        while a.held().calls == 0 {
            calls += 1;
            let outcome = bench.send(method, within(500 * MS)).await;
            let expected = if outcome.is_ok() { Code::Ok } else { Code::DeadlineExceeded };
            assert_eq!(outcome.map_or_else(|status| status.code(), |_| Code::Ok), expected, "{method}");
        }
        assert_eq!(a.held().calls + b.calls() - before, calls, "{method}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_is_hedged_only_when_it_takes_longer_than_nearly_all() {
    let bench = Bench::new(&["a", "b"]);
    let hosts = [bench.host("a"), bench.host("b")];
    let sent = || hosts.iter().map(Host::calls).sum::<usize>();
    until_config(&bench, |config| config.endpoints == 2).await;
    hosts.iter().for_each(|host| host.set_delay(90 * MS));
    for _ in 0..50 {
        bench.ask(net::READ).await.expect("answered");
    }
    assert_eq!(sent(), 50, "the usual time is not slow");

    hosts.iter().for_each(|host| host.set_delay(400 * MS));
    let begin = Instant::now();
    bench.ask(net::READ).await.expect("answered");
    assert_eq!(sent(), 52);
    assert!(begin.elapsed() <= 405 * MS, "the first was faster after all: {:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn there_is_no_hedge_without_budget_or_against_the_policy() {
    let (bench, a, b) = one_holds(FOR_EVER).await;
    set_policy(&bench, |retry| {
        retry.budget_percent = 0;
        retry.budget_min_per_second = 0;
    })
    .await;
    // What was earned before is forgotten.
    tokio::time::sleep(60_000 * MS).await;
    let (outcome, took) = held_read(&bench, &a, 300 * MS).await;
    let sent = stats(&bench, "b").calls.calls;
    assert_eq!(sent, b.calls() as u64, "no call is counted that was not sent");
    assert_eq!((outcome.expect_err("held").code(), took), (Code::DeadlineExceeded, 300 * MS));

    let (bench, a, _b) = one_holds(FOR_EVER).await;
    set_policy(&bench, |retry| retry.hedge_after = None).await;
    let (outcome, _) = held_read(&bench, &a, 300 * MS).await;
    assert_eq!(outcome.expect_err("held").code(), Code::DeadlineExceeded);
}

#[tokio::test(start_paused = true)]
async fn a_single_endpoint_is_not_asked_twice() {
    let bench = Bench::new(&["a"]);
    let a = Holding::serve(&bench, "a", FOR_EVER);
    until_known(&bench).await;
    bench.send(net::READ, within(1000 * MS)).await.expect_err("held");
    assert_eq!(a.held().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn a_read_is_not_asked_twice_of_the_only_endpoint_that_is_ready() {
    let bench = Bench::new(&["a", "b"]);
    let a = Holding::serve(&bench, "a", FOR_EVER);
    until_config(&bench, |config| config.endpoints == 2).await;
    bench.send(net::READ, within(1000 * MS)).await.expect_err("held");
    assert_eq!(a.held().calls, 1);
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_came_later_and_does_not_declare_the_method_gets_no_hedge() {
    let (bench, mut a, _b) = one_holds(FOR_EVER).await;
    let c = bench.host("c");
    let reads = async { while c.calls() == 0 && bench.send(net::READ, within(400 * MS)).await.is_ok() {} };
    let swap = async {
        a.until(|held| held.calls > 0).await;
        bench.endpoints.send_replace(super::set([instance("a", InstanceStatus::Serving), undeclared("c")]));
    };
    tokio::join!(reads, swap);
    assert_eq!(c.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_all_endpoints_are_slow_the_budget_bounds_the_hedges() {
    const CALLS: usize = 1000;
    let bench = Bench::new(&["a", "b"]);
    let hosts = [bench.host("a"), bench.host("b")];
    until_config(&bench, |config| config.endpoints == 2).await;
    hosts.iter().for_each(|host| host.set_delay(20_000 * MS));
    let calls = (0..CALLS).map(|_| bench.send(net::READ, within(1000 * MS)));
    let outcomes: Vec<_> = stream::iter(calls).buffer_unordered(500).collect().await;
    assert!(outcomes.iter().all(Result::is_err), "too slow");
    let sent: usize = hosts.iter().map(Host::calls).sum();
    assert!((CALLS + 1..=CALLS * 5 / 4).contains(&sent), "{sent} attempts at {CALLS} calls");
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_one_attempt_is_not_the_calls_while_the_other_is_under_way() {
    let (mut failed_first, mut failed_second) = (false, false);
    while !(failed_first && failed_second) {
        // Fails after 20 ms; the other answers after 60, and there is no third attempt.
        let (bench, a, b) = one_holds(20 * MS).await;
        set_policy(&bench, |retry| retry.max_attempts = 2).await;
        b.set_delay(60 * MS);
        let begin = Instant::now();
        assert_eq!(bench.ask(net::READ).await.expect("answered").into_inner(), "b");
        assert_eq!(a.held().calls, 1);
        // The second is asked 10 ms after the first.
        let b_was_first = begin.elapsed() < 65 * MS;
        failed_first |= !b_was_first;
        failed_second |= b_was_first;
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_an_endpoint_waits_once() {
    let bench = Arc::new(Bench::new(&["a", "b"]));
    until_config(&bench, |config| config.endpoints == 2).await;
    let asking = tokio::spawn({
        let bench = bench.clone();
        async move { bench.ask(net::READ).await }
    });
    tokio::time::sleep(1000 * MS).await;
    let b = bench.host("b");
    soon(asking).await.expect("no panic").expect("answered");
    assert_eq!(b.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_found_no_endpoint_says_nothing_about_how_long_its_method_takes() {
    let bench = Bench::new(&["a", "b"]);
    until_known(&bench).await;
    bench.ask(net::READ).await.expect_err("no endpoint is reachable");
    let config = bench.channel.shared.config.of(&PathAndQuery::from_static(net::READ));
    assert_eq!(config.method.expect("listed").times.p95(), None);
}

#[tokio::test(start_paused = true)]
async fn a_read_whose_request_is_still_coming_is_at_one_endpoint() {
    let (bench, a, b) = one_holds(FOR_EVER).await;
    let before = b.calls();
    let mut calls = 0;
    while a.held().calls == 0 {
        calls += 1;
        let text = stream::once(async {
            tokio::time::sleep(MS).await;
            "text".to_owned()
        });
        let mut request = Request::new(text);
        request.set_timeout(500 * MS);
        // Whatever comes of it.
        let _ = bench.stream(net::READ, request).await;
    }
    assert_eq!(a.held().calls + b.calls() - before, calls);
}

#[tokio::test(start_paused = true)]
async fn hedges_and_retries_together_are_no_more_than_the_attempts_of_the_policy() {
    for max_attempts in [1, 2, 3] {
        let bench = Bench::new(&["a", "b"]);
        let servers = [Holding::serve(&bench, "a", 200 * MS), Holding::serve(&bench, "b", 200 * MS)];
        until_config(&bench, |config| config.endpoints == 2).await;
        set_policy(&bench, |retry| retry.max_attempts = max_attempts).await;
        let status = bench.ask(net::READ).await.expect_err("all fail");
        assert_eq!(status.code(), Code::Unavailable);
        let sent: usize = servers.iter().map(|server| server.held().calls).sum();
        assert_eq!(sent, max_attempts as usize);
    }
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_only_loses_is_known_to_be_slow_and_not_to_fail() {
    let (bench, a, b) = one_holds(FOR_EVER).await;
    let before = b.calls();
    for _ in 0..300 {
        assert_eq!(bench.ask(net::READ).await.expect("answered").into_inner(), "b");
    }
    assert_eq!(b.calls() - before, 300);
    assert!(a.held().calls <= 30, "{} of 300 went to it first", a.held().calls);
    assert_eq!(stats(&bench, "a").calls.failures, 0);
}
