//! What counts as an endpoint's failure, and what failures lead to.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use h2::{Reason, server::SendResponse};
use tokio::task::JoinHandle;

use super::{
    net::RawPeer,
    scripted::{begin, until_known},
    *,
};

const SECOND: Duration = Duration::from_secs(1);

type Respond = SendResponse<Bytes>;

/// An instance that does the same with every call.
fn answering(bench: &Bench, id: &str, answer: impl Fn(Respond) + Send + 'static) -> JoinHandle<()> {
    let mut peer = RawPeer::listen(&bench.net, &format!("{id}:1"));
    tokio::spawn(async move {
        loop {
            let mut connection = peer.accept().await;
            while let Some(Ok((_, respond))) = connection.accept().await {
                answer(respond);
            }
        }
    })
}

fn with_status(status: Code) -> impl Fn(Respond) {
    move |mut respond| {
        let headers = http::Response::builder().header("content-type", "application/grpc");
        let headers = headers.header("grpc-status", i32::from(status)).body(()).expect("headers");
        respond.send_response(headers, true).expect("sent");
    }
}

fn with_trailers(status: Code) -> impl Fn(Respond) {
    move |mut respond| {
        let headers = http::Response::builder().header("content-type", "application/grpc").body(()).expect("headers");
        let mut body = respond.send_response(headers, false).expect("sent");
        let trailers = [("grpc-status", i32::from(status))];
        let trailers = trailers.map(|(name, value)| (name.parse().expect("a name"), value.into()));
        body.send_trailers(trailers.into_iter().collect()).expect("sent");
    }
}

pub(super) fn stats(bench: &Bench, id: &str) -> EndpointStats {
    bench.channel.endpoints().into_iter().find(|endpoint| endpoint.instance_id == id).expect("it is known")
}

/// Whether an instance that answers so is blamed for it.
async fn is_blamed(answer: impl Fn(Respond) + Send + 'static) -> bool {
    let bench = Bench::new(&["a"]);
    let serving = answering(&bench, "a", answer);
    let _ = bench.ask(net::WHO).await;
    serving.abort();
    stats(&bench, "a").calls.failures > 0
}

#[tokio::test(start_paused = true)]
async fn a_status_that_speaks_of_the_server_is_a_failure_and_one_that_speaks_of_the_call_is_none() {
    for status in 0..=16 {
        let status = Code::from_i32(status);
        let expected = matches!(status, Code::Unavailable | Code::Internal | Code::Unknown | Code::DataLoss);
        assert_eq!(is_blamed(with_status(status)).await, expected, "{status:?}");
        assert_eq!(is_blamed(with_trailers(status)).await, expected, "{status:?} in trailers");
    }
}

#[tokio::test(start_paused = true)]
async fn a_reset_is_a_failure_unless_the_server_has_no_room() {
    for (reason, expected) in [
        (Reason::INTERNAL_ERROR, true),
        (Reason::CANCEL, true),
        (Reason::NO_ERROR, true),
        (Reason::REFUSED_STREAM, false),
        (Reason::ENHANCE_YOUR_CALM, false),
    ] {
        assert_eq!(is_blamed(move |mut respond: Respond| respond.send_reset(reason)).await, expected, "{reason}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_is_lost_is_a_failure_of_each_of_its_calls() {
    let bench = Bench::new(&["a"]);
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    let breaking = tokio::spawn(async move {
        let mut connection = peer.accept().await;
        let calls = [connection.accept().await, connection.accept().await];
        drop((connection, calls));
    });
    let (one, other) = tokio::join!(bench.ask(net::WHO), bench.ask(net::WHO));
    assert!(one.is_err() && other.is_err());
    breaking.await.expect("no panic");
    assert_eq!(stats(&bench, "a").calls.failures, 2);
}

/// Waits until an instance has a connection.
async fn until_ready(bench: &Bench, id: &str) {
    soon(async {
        let ready = |endpoint: &EndpointStats| endpoint.instance_id == id && endpoint.state == EndpointState::Ready;
        while !bench.channel.endpoints().iter().any(ready) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
}

/// Makes 100 calls per second for 8 s, each with a second of time, and says how many failed.
async fn failed_calls(bench: &Arc<Bench>) -> usize {
    let mut calls = tokio::task::JoinSet::new();
    for _ in 0..800 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        let bench = bench.clone();
        calls.spawn(async move {
            let mut request = Request::new(String::new());
            request.set_timeout(SECOND);
            bench.send(net::WHO, request).await.is_err()
        });
    }
    soon(calls.join_all()).await.into_iter().filter(|failed| *failed).count()
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_accepts_and_never_answers_fails_a_few_calls() {
    let bench = Arc::new(Bench::new(&["silent", "b", "c"]));
    let held = parking_lot::Mutex::new(Vec::new());
    let silent = answering(&bench, "silent", move |respond| held.lock().push(respond));
    let _hosts = [bench.host("b"), bench.host("c")];
    until_ready(&bench, "b").await;

    let failed = failed_calls(&bench).await;

    assert!((1..20).contains(&failed), "a fair share would be 267: {failed}");
    silent.abort();
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_sends_headers_and_falls_silent_has_failed_its_call_once() {
    let bench = Bench::new(&["a"]);
    let held = parking_lot::Mutex::new(Vec::new());
    let silent = answering(&bench, "a", move |mut respond| {
        let body = begin(&mut respond);
        held.lock().push((respond, body));
    });
    until_known(&bench).await;
    let mut request = Request::new(String::new());
    request.set_timeout(SECOND);
    assert_eq!(bench.send(net::WRITE, request).await.expect_err("silent").code(), Code::DeadlineExceeded);
    assert_eq!(stats(&bench, "a").calls.failures, 1);
    silent.abort();
}

#[tokio::test(start_paused = true)]
async fn a_host_that_vanished_fails_a_few_calls_long_before_keepalive_ends_its_connection() {
    let bench = Arc::new(Bench::new(&["gone", "b", "c"]));
    let mut gone = RawPeer::listen(&bench.net, "gone:1");
    let _hosts = [bench.host("b"), bench.host("c")];
    // This connection is neither read nor closed any more.
    let _connection = soon(gone.accept()).await;
    until_ready(&bench, "b").await;

    let failed = failed_calls(&bench).await;

    assert!((1..20).contains(&failed), "a fair share would be 267: {failed}");
    let EndpointStats { state, calls, .. } = stats(&bench, "gone");
    assert!(!matches!(state, EndpointState::TransientFailure { .. }), "it is found out before: {state:?}");
    assert!(calls.calls < 30, "{calls:?}");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_fails_is_ejected_and_takes_calls_again_when_it_is_well() {
    let bench = Bench::new(&["a"]);
    let ill = Arc::new(AtomicBool::new(true));
    let serving = answering(&bench, "a", {
        let ill = ill.clone();
        move |respond| {
            let status = if ill.load(Ordering::SeqCst) { Code::Unavailable } else { Code::NotFound };
            with_status(status)(respond);
        }
    });
    let _b = bench.host("b");
    for _ in 0..5 {
        bench.ask(net::WHO).await.expect_err("it is ill");
    }
    bench.set(&["a", "b"]);
    until_ready(&bench, "b").await;
    assert_eq!(bench.answers(20).await, BTreeMap::from([("b".into(), 20)]));
    assert!(matches!(stats(&bench, "a").state, EndpointState::Ejected { .. }));
    let attempts = bench.net.attempts();

    ill.store(false, Ordering::SeqCst);
    soon(async {
        while stats(&bench, "a").state != EndpointState::Ready {
            let _ = bench.ask(net::WHO).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;

    assert_eq!(bench.net.attempts(), attempts, "on the connection that it kept");
    serving.abort();
}
