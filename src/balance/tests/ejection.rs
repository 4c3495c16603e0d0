//! Endpoints that fail get no calls for a while, and are asked again.

use futures_util::FutureExt as _;

use super::*;

const SECOND: Duration = Duration::from_secs(1);
/// The default policy's number in a row.
const ENOUGH: [Blame; 5] = [Blame::Failed; 5];

/// Lets the driver of a picker work for a time.
async fn drive(bench: &Bench, time: Duration) {
    let driver = async {
        loop {
            bench.picker.changed().await;
            bench.picker.serve_waiters();
        }
    };
    assert!(tokio::time::timeout(time, driver).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn after_five_failures_in_a_row_an_endpoint_gets_no_call_for_half_a_second_to_a_second() {
    let bench = Bench::new(&["a", "b"]);
    bench.calls("a", [Blame::Failed; 4]);
    bench.pick_of("a");
    bench.calls("a", [Blame::Failed]);
    drive(&bench, SECOND / 2 - Duration::from_millis(1)).await;
    assert_eq!(bench.shares(100), BTreeMap::from([("b", 100)]));
    drive(&bench, SECOND / 2 + Duration::from_millis(1)).await;
    assert_eq!(bench.shares(100).len(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_ejected_endpoint_keeps_its_connection() {
    let bench = Bench::new(&["a", "b"]);
    let before = bench.endpoint("a").look(Instant::now()).ready_since;
    bench.calls("a", ENOUGH);
    assert!(before.is_some() && bench.endpoint("a").look(Instant::now()).ready_since == before);
}

#[tokio::test(start_paused = true)]
async fn one_call_decides_whether_an_endpoint_is_back() {
    let bench = Bench::new(&["a", "b"]);
    bench.calls("a", ENOUGH);
    drive(&bench, SECOND).await;
    let mut probe = bench.pick_of("a");
    let others: Vec<_> = (0..100).map(|_| bench.pick().expect("ready").connection.name).collect();
    assert!(others.iter().all(|name| *name == "b"), "a single one");

    probe.call.answered(Blame::Failed);
    drop(probe);
    drive(&bench, SECOND - Duration::from_millis(1)).await;
    assert_eq!(bench.shares(100), BTreeMap::from([("b", 100)]), "twice the time");
    drive(&bench, SECOND + Duration::from_millis(1)).await;
    bench.calls("a", [Blame::None]);
    let shares = bench.shares(1000);
    assert!(shares["a"] > 300, "it begins again with the load of the others: {shares:?}");
}

#[tokio::test(start_paused = true)]
async fn a_probe_that_its_caller_gave_up_is_followed_by_another() {
    let bench = Bench::new(&["a", "b"]);
    bench.calls("a", ENOUGH);
    drive(&bench, SECOND).await;
    drop(bench.pick_of("a"));
    bench.calls("a", [Blame::None]);
    assert!(bench.shares(1000)["a"] > 300);
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_was_given_up_between_headers_and_message_did_not_go_well() {
    let bench = Bench::new(&["a", "b"]);
    bench.calls("a", [Blame::Failed; 4]);
    let mut stalled = bench.pick_of("a");
    stalled.call.answered(Blame::None);
    stalled.call.awaits_message(true);
    drop(stalled);
    bench.calls("a", [Blame::Failed]);
    assert_eq!(bench.shares(100), BTreeMap::from([("b", 100)]));
}

#[tokio::test(start_paused = true)]
async fn a_waiting_call_is_served_when_a_probe_has_made_room_or_takes_too_long() {
    for gives_up in [true, false] {
        let bench = Bench::new(&["a"]);
        bench.set_policy(|policy| policy.ejection.max_ejected_percent = 100);
        bench.calls("a", ENOUGH);
        drive(&bench, SECOND).await;
        let probe = bench.pick().expect("on probation");
        let Picked::Later(later) = bench.picker.pick(None).expect("room in the queue") else { panic!("one at a time") };
        drive(&bench, SECOND / 1000).await;
        let held = Some(probe).filter(|_| !gives_up);
        drive(&bench, if gives_up { SECOND / 1000 } else { 6 * SECOND }).await;
        assert!(later.now_or_never().is_some(), "gives up: {gives_up}");
        drop(held);
    }
}

#[tokio::test(start_paused = true)]
async fn no_more_than_half_are_ejected_then_all_are_used_and_those_who_answer_stay() {
    let bench = Bench::new(&["a", "b", "c", "d"]);
    bench.calls("a", ENOUGH);
    bench.calls("b", ENOUGH);
    let shares = bench.shares(100);
    assert!(!shares.contains_key("a") && !shares.contains_key("b"), "{shares:?}");

    bench.calls("c", ENOUGH);
    advance(Duration::from_millis(1)).await;
    let names: Vec<_> = ["a", "b", "c", "d"].into_iter().map(|name| bench.pick_of(name).connection.name).collect();
    assert_eq!(names, ["a", "b", "c", "d"], "panic");

    bench.calls("a", [Blame::None]);
    // A panic lasts a moment.
    advance(Duration::from_millis(100)).await;
    let held: Vec<_> = (0..100).map(|_| bench.pick().expect("ready")).collect();
    assert!(held.iter().all(|pick| ["a", "d"].contains(&pick.connection.name)), "half are well again");
}

#[tokio::test(start_paused = true)]
async fn the_only_endpoint_is_never_without_calls() {
    let bench = Bench::new(&["a"]);
    bench.calls("a", [Blame::Failed; 100]);
    assert_eq!(bench.shares(10), BTreeMap::from([("a", 10)]));
}

#[tokio::test(start_paused = true)]
async fn endpoints_without_a_connection_do_not_count_for_the_half() {
    let mut bench = Bench::new(&["a", "b"]);
    ["1", "2", "3", "4", "5", "6", "7", "8", "9", "10"].into_iter().for_each(|name| drop(bench.add(name)));
    bench.add("c").connected(link("c"));
    bench.calls("a", ENOUGH);
    bench.calls("b", ENOUGH);
    advance(Duration::from_millis(1)).await;
    bench.pick_of("a");
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_ejects_no_endpoint_is_obeyed_at_once_and_so_is_its_number_of_failures() {
    let bench = Bench::new(&["a", "b"]);
    bench.calls("a", ENOUGH);
    assert_eq!(bench.shares(100).len(), 1);
    bench.set_policy(|policy| policy.ejection.max_ejected_percent = 0);
    bench.pick_of("a");
    bench.set_policy(|policy| policy.ejection.consecutive_failures = 1);
    bench.calls("b", [Blame::Failed]);
    bench.pick_of("b");
    assert!(["a", "b"].iter().all(|name| matches!(bench.state(name), EndpointState::Ejected { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_refusal_is_no_failure() {
    let bench = Bench::new(&["a", "b"]);
    bench.calls("a", [Blame::Refused; 100]);
    bench.pick_of("a");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_in_failure_counts_although_its_headers_looked_well() {
    let bench = Bench::new(&["a", "b"]);
    for _ in 0..5 {
        let mut pick = bench.pick_of("a");
        pick.call.answered(Blame::None);
        pick.call.failed_late();
    }
    assert_eq!(bench.shares(100), BTreeMap::from([("b", 100)]));
}

/// Calls that wait for a second without an answer, at an endpoint of a set that answers in 10 ms.
async fn unanswered(due: Option<Duration>) -> BTreeMap<&'static str, usize> {
    let bench = Bench::new(&["a", "b"]);
    for name in ["a", "b"] {
        let mut pick = bench.pick_of(name);
        advance(Duration::from_millis(10)).await;
        pick.call.answered(Blame::None);
    }
    for _ in 0..5 {
        let mut pick = bench.pick_of("a");
        if let Some(due) = due {
            pick.call.due(Instant::now() + due);
        }
        advance(SECOND).await;
    }
    // Long enough that the load, which is not tested here, is forgotten.
    drive(&bench, SECOND / 4).await;
    let held: Vec<_> = (0..100).map(|_| bench.pick().expect("ready")).collect();
    held.iter().fold(BTreeMap::new(), |mut shares, pick| {
        *shares.entry(pick.connection.name).or_default() += 1;
        shares
    })
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passed_without_an_answer_is_a_failure_and_a_call_that_was_given_up_is_none() {
    assert_eq!(unanswered(Some(SECOND)).await, BTreeMap::from([("b", 100)]));
    assert_eq!(unanswered(None).await.len(), 2);
    assert_eq!(unanswered(Some(2 * SECOND)).await.len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_left_no_time_is_not_the_endpoints_fault() {
    let bench = Bench::new(&["a", "b"]);
    for name in ["a", "b"] {
        let mut pick = bench.pick_of(name);
        advance(Duration::from_millis(10)).await;
        pick.call.answered(Blame::None);
    }
    for _ in 0..100 {
        let mut pick = bench.pick_of("a");
        pick.call.due(Instant::now() + Duration::from_millis(5));
        advance(Duration::from_millis(5)).await;
    }
    bench.pick_of("a");
}
