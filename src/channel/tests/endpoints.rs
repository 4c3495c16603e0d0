//! Which endpoint a call goes to, as they come and go.

use super::{ejection::stats, *};
use crate::channel::tests::net::RawPeer;

#[tokio::test(start_paused = true)]
async fn a_dead_endpoint_is_not_picked_and_takes_calls_when_it_is_back() {
    let bench = Bench::new(&["a", "dead"]);
    let _a = bench.host("a");
    assert_eq!(bench.answers(20).await, BTreeMap::from([("a".into(), 20)]));

    let _back = bench.host("dead");
    bench.until_answered_by("dead").await;
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_says_nothing_is_no_endpoint() {
    let bench = Bench::new(&["a", "stopped"]);
    // Its backlog takes connections, as that of a process that is stopped.
    let _backlog = bench.net.listen("stopped:1");
    let _a = bench.host("a");
    assert_eq!(bench.answers(20).await, BTreeMap::from([("a".into(), 20)]));
}

#[tokio::test(start_paused = true)]
async fn a_listener_that_says_nothing_is_given_up_after_2_seconds() {
    let bench = Bench::new(&["stopped"]);
    let _backlog = bench.net.listen("stopped:1");
    tokio::time::sleep(Duration::from_secs(3)).await;
    let state = stats(&bench, "stopped").state;
    let EndpointState::TransientFailure { why } = state else { panic!("{state:?}") };
    assert!(why.contains("within 2 s"), "{why}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_is_gone_is_tried_ever_more_seldom() {
    let bench = Bench::new(&["gone"]);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = bench.net.attempts();
    assert!((40..150).contains(&attempts), "{attempts}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_accepts_and_closes_is_not_asked_without_pause() {
    let bench = Bench::new(&["a"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    let closing = tokio::spawn(async move {
        loop {
            let mut connection = a.accept().await;
            // Long enough for the client to have a connection.
            let _ = timeout(Duration::from_millis(1), connection.accept()).await;
        }
    });
    tokio::time::sleep(Duration::from_secs(60)).await;
    let attempts = bench.net.attempts();
    assert!((40..150).contains(&attempts), "{attempts}");
    closing.abort();
}

#[tokio::test(start_paused = true)]
async fn after_a_crash_later_calls_succeed_without_waiting_for_the_lease() {
    let bench = Bench::new(&["a", "b"]);
    let (a, _b) = (bench.host("a"), bench.host("b"));
    bench.until_answered_by("a").await;
    bench.until_answered_by("b").await;

    a.kill().await;

    assert_eq!(bench.answers(50).await, BTreeMap::from([("b".into(), 50)]));
}

#[tokio::test(start_paused = true)]
async fn a_restarted_instance_is_reached_again_at_once() {
    let bench = Bench::new(&["a"]);
    let a = bench.host("a");
    bench.who().await;
    a.kill().await;
    let down = Instant::now();
    let _a = bench.host("a");
    bench.who().await;
    assert!(down.elapsed() < Duration::from_millis(500), "{:?}", down.elapsed());
}

#[tokio::test(start_paused = true)]
async fn only_serving_instances_get_calls() {
    let bench = Bench::new(&["a"]);
    let _hosts = [bench.host("a"), bench.host("starting"), bench.host("draining"), bench.host("ill")];
    bench.endpoints.send_replace(set([
        instance("a", InstanceStatus::Serving),
        instance("starting", InstanceStatus::Starting),
        instance("draining", InstanceStatus::Draining),
        instance("ill", InstanceStatus::NotServing),
    ]));
    assert_eq!(bench.answers(20).await, BTreeMap::from([("a".into(), 20)]));
    bench.endpoints.send_replace(set([instance("starting", InstanceStatus::Serving)]));
    bench.until_answered_by("starting").await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_finishes_its_calls_and_then_lets_go_of_its_connection() {
    let bench = Bench::new(&["a"]);
    let (a, _b) = (bench.host("a"), bench.host("b"));
    let waiting = bench.ask(net::WAIT);
    tokio::pin!(waiting);
    tokio::select! {
        answer = &mut waiting => panic!("{answer:?}"),
        () = a.until_calls(1) => {}
    }

    bench.set(&["b"]);
    bench.until_answered_by("b").await;
    assert_eq!(bench.answers(10).await, BTreeMap::from([("b".into(), 10)]));
    a.release();

    assert_eq!(soon(waiting).await.expect("not cut").into_inner(), "a");
    // Its drain limit would cut a connection that stayed, but only after 30 s.
    let begin = Instant::now();
    a.stop().await;
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_is_not_connected_to_any_more() {
    let bench = Bench::new(&["a", "gone"]);
    let _a = bench.host("a");
    bench.who().await;
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert!(bench.net.attempts() > 40, "it was tried");

    bench.set(&["a"]);
    bench.who().await;
    let attempts = bench.net.attempts();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert_eq!(bench.net.attempts(), attempts);
}

#[tokio::test(start_paused = true)]
async fn a_small_call_leaves_in_one_write() {
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    bench.who().await;
    let before = bench.net.writes();
    bench.who().await;
    assert_eq!(bench.net.writes() - before, 1);
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_endpoint_keeps_its_connection() {
    let bench = Bench::new(&["a", "b"]);
    let _hosts = [bench.host("a"), bench.host("b"), bench.host("c")];
    bench.until_answered_by("b").await;
    let attempts = bench.net.attempts();
    bench.set(&["b", "c"]);
    bench.until_answered_by("c").await;
    assert_eq!(bench.net.attempts(), attempts + 1, "c alone");
}

#[tokio::test(start_paused = true)]
async fn an_instance_that_moved_is_found_at_its_new_address() {
    let bench = Bench::new(&["a"]);
    let old = bench.host("a");
    bench.who().await;
    let moved = Instance { address: "elsewhere:1".into(), ..instance("a", InstanceStatus::Serving) };
    let new = Host::start(&bench.net, "elsewhere:1", "a");
    bench.endpoints.send_replace(set([moved]));
    soon(async {
        while new.calls() == 0 {
            bench.who().await;
        }
    })
    .await;
    let before = old.calls();
    bench.answers(10).await;
    assert_eq!((old.calls(), new.calls()), (before, 11));
}

#[tokio::test(start_paused = true)]
async fn the_faster_endpoint_gets_more_calls() {
    let bench = Arc::new(Bench::new(&["fast", "slow"]));
    let (fast, slow) = (bench.host("fast"), bench.host("slow"));
    fast.set_delay(Duration::from_millis(2));
    slow.set_delay(Duration::from_millis(40));
    let callers = (0..16).map(|_| {
        let bench = bench.clone();
        tokio::spawn(async move { bench.answers(100).await })
    });
    futures_util::future::join_all(callers).await;
    assert!(fast.calls() > 6 * slow.calls(), "{} and {}", fast.calls(), slow.calls());
    assert!(slow.calls() > 0);
}

#[tokio::test(start_paused = true)]
async fn an_address_that_is_none_is_left_out() {
    let bench = Bench::new(&[]);
    let _a = bench.host("a");
    let broken = Instance { address: "no port".into(), ..instance("broken", InstanceStatus::Serving) };
    bench.endpoints.send_replace(set([broken, instance("a", InstanceStatus::Serving)]));
    assert_eq!(bench.answers(5).await, BTreeMap::from([("a".into(), 5)]));
}
