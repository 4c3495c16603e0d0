//! Calls that wait for an endpoint.

use futures_util::FutureExt as _;

use super::*;
use crate::endpoint::Acquired;

#[tokio::test(start_paused = true)]
async fn the_end_of_a_pause_wakes_waiting_calls() {
    let bench = Bench::new(&["a"]);
    bench.endpoint("a").pause(Duration::from_secs(1));
    let Ok(Picked::Later(later)) = bench.picker.pick(None) else { panic!("no endpoint is ready") };
    let driver = async {
        loop {
            bench.picker.changed().await;
            bench.picker.serve_waiters();
        }
    };
    tokio::select! {
        pick = later => assert_eq!(pick.expect("picked").connection.name, "a"),
        () = driver => unreachable!("the driver does not end"),
        () = tokio::time::sleep(Duration::from_secs(2)) => panic!("no call was woken"),
    }
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_are_served_in_order_when_an_endpoint_arrives() {
    let mut bench = Bench::new(&[]);
    let waiting: Vec<_> = (0..3)
        .map(|_| match bench.picker.pick(None) {
            Ok(Picked::Later(later)) => later,
            _ => panic!("there is no endpoint"),
        })
        .collect();
    bench.add("a").connected(link("a"));

    bench.picker.changed().await;
    bench.picker.serve_waiters();

    for later in waiting {
        assert_eq!(later.await.expect("served").connection.name, "a");
    }
}

#[tokio::test(start_paused = true)]
async fn the_queue_is_bounded_and_abandoned_waits_do_not_fill_it() {
    let bench = Bench::new(&[]);
    let wait = || bench.picker.pick(None);
    let mut waiting: Vec<_> = (0..picker::MAX_WAITING).map(|_| wait().ok()).collect();
    assert_eq!(wait().err(), Some(NoPick::QueueFull));
    waiting.pop();
    assert!(wait().is_ok(), "in place of the abandoned one");
}

#[tokio::test(start_paused = true)]
async fn a_closed_picker_refuses_every_call() {
    let bench = Bench::new(&[]);
    let Ok(Picked::Later(later)) = bench.picker.pick(None) else { panic!("there is no endpoint") };
    bench.picker.close();
    assert!(later.await.is_err());
    assert_eq!(bench.picker.pick(None).err(), Some(NoPick::Closed));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_still_avoids_the_endpoint_that_has_had_it() {
    let mut bench = Bench::new(&[]);
    bench.add("a");
    bench.add("b");
    let avoiding = Some(bench.endpoint("a"));
    let Ok(Picked::Later(later)) = bench.picker.pick(avoiding) else { panic!("there is no endpoint") };
    let Ok(Picked::Later(last)) = bench.picker.pick(avoiding) else { panic!("there is no endpoint") };
    bench.endpoint("a").connected(link("a"));
    bench.endpoint("b").connected(link("b"));
    bench.picker.serve_waiters();
    assert_eq!(later.await.expect("served").connection.name, "b");
    assert_eq!(last.await.expect("served").connection.name, "b");

    bench.disconnect("b");
    bench.disconnect("a");
    bench.picker.serve_waiters();
    let Ok(Picked::Later(later)) = bench.picker.pick(avoiding) else { panic!("there is no endpoint") };
    bench.endpoint("a").connected(link("a"));
    bench.picker.serve_waiters();
    assert_eq!(later.await.expect("served").connection.name, "a", "there is no other");
}

#[tokio::test(start_paused = true)]
async fn whatever_changes_what_may_be_picked_wakes_the_driver() {
    let bench = Bench::new(&["a", "b", "c"]);
    // Under a paused clock: with nothing else to do, time passes at once.
    let wakes = |change: &dyn Fn()| {
        bench.picker.serve_waiters();
        while bench.picker.changed().now_or_never().is_some() {
            bench.picker.serve_waiters();
        }
        change();
        bench.picker.changed().now_or_never().is_some()
    };
    assert!(!wakes(&|| {}), "nothing has changed");
    let fail = || {
        let Acquired::Taken(mut pick) = bench.endpoints["a"].acquire(Instant::now(), |_, _| true) else {
            panic!("it takes calls")
        };
        pick.call.answered(Blame::Failed);
    };
    (0..4).for_each(|_| fail());
    assert!(wakes(&fail), "an ejection");
    assert!(wakes(&|| bench.endpoint("b").connected(link("b"))), "a connection");
    assert!(wakes(&|| bench.disconnect("b")), "its end");
    assert!(wakes(&|| bench.endpoint("c").pause(Duration::from_secs(1))), "a long pause");
    assert!(wakes(&|| bench.endpoint("c").set_traits(Traits { weight: 7, ..Traits::default() })), "a weight");
    assert!(wakes(&|| bench.set_policy(|policy| policy.ejection.max_ejected_percent = 7)), "a policy");
    assert!(wakes(&|| drop(bench.picker.pick(None))), "a call that waits");
    assert!(wakes(&|| bench.remove("c")), "a removal");
    advance(Duration::from_secs(1)).await;
    bench.set_policy(|policy| policy.ejection.max_ejected_percent = 100);
    assert!(wakes(&|| drop(bench.pick_at_once().expect("on probation"))), "a probe");
}
