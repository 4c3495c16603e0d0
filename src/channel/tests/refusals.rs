//! Calls that no server has begun to process move on, and no others.

use bytes::Bytes;
use h2::Reason;
use tokio_stream::StreamExt as _;

use super::*;
use crate::{
    channel::tests::net::{RawConnection, RawPeer},
    headers::{REFUSED, Refusal},
};

/// Calls until the raw peer has got one too, and says how often it did.
async fn moved_on(bench: &Bench, calls: usize) {
    assert_eq!(bench.answers(calls).await, BTreeMap::from([("b".into(), calls)]));
}

#[tokio::test(start_paused = true)]
async fn a_port_that_another_has_taken_over_never_processes_the_call() {
    let bench = Bench::new(&["a", "b"]);
    let stranger = Host::start(&bench.net, "a:1", "stranger");
    let _b = bench.host("b");
    moved_on(&bench, 50).await;
    assert_eq!(stranger.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_service_whose_only_port_was_taken_over_fails_and_says_so() {
    let bench = Bench::new(&["a"]);
    let stranger = Host::start(&bench.net, "a:1", "stranger");
    let status = bench.ask(net::WHO).await.expect_err("no endpoint of the service is there");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("stranger"), "{status}");
    assert_eq!(told_instance(&status), Some("stranger"));
    assert_eq!(stranger.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn an_overloaded_endpoint_passes_the_call_on() {
    let bench = Bench::new(&["a", "b"]);
    let a = Host::configured(&bench.net, "a:1", "a", |config| config.limits.concurrent_streams = 0);
    let _b = bench.host("b");
    moved_on(&bench, 50).await;
    assert_eq!(a.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn when_all_refuse_the_call_ends_after_some_attempts() {
    let bench = Bench::new(&["a"]);
    let a = Host::configured(&bench.net, "a:1", "a", |config| config.limits.concurrent_streams = 0);
    let begin = Instant::now();
    let status = bench.ask(net::WHO).await.expect_err("refused");
    assert_eq!((status.code(), told_instance(&status)), (Code::Unavailable, Some("a")));
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(a.calls(), 0);
}

type Refuse = fn(&mut h2::server::SendResponse<Bytes>);

fn refuse_as(refusal: Refusal, respond: &mut h2::server::SendResponse<Bytes>) {
    let response = http::Response::builder()
        .header("content-type", "application/grpc")
        .header("grpc-status", i32::from(refusal.code()))
        .header(REFUSED, refusal.name());
    respond.send_response(response.body(()).expect("a response"), true).expect("the call is there");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_was_turned_away_is_repeated_once_and_a_misdirected_one_a_few_times() {
    let cases: [(&str, Refuse, usize); 7] = [
        ("refused stream", |respond| respond.send_reset(Reason::REFUSED_STREAM), 2),
        ("overloaded", |respond| refuse_as(Refusal::Overloaded, respond), 2),
        ("wrong instance", |respond| refuse_as(Refusal::WrongInstance, respond), 5),
        ("draining", |respond| refuse_as(Refusal::Draining, respond), 5),
        ("not admitted", |respond| refuse_as(Refusal::NotAdmitted, respond), 5),
        ("rules unknown", |respond| refuse_as(Refusal::RulesUnknown, respond), 5),
        ("expired", |respond| refuse_as(Refusal::Expired, respond), 1),
    ];
    for (case, refuse, attempts) in cases {
        let bench = Bench::new(&["a"]);
        let mut a = RawPeer::listen(&bench.net, "a:1");
        let refusing = tokio::spawn(async move {
            let mut connection = a.accept().await;
            let mut refused = 0;
            while let Some(Ok((_, mut respond))) = connection.accept().await {
                refuse(&mut respond);
                refused += 1;
            }
            refused
        });
        bench.ask(net::WHO).await.expect_err("refused");
        drop(bench);
        assert_eq!(soon(refusing).await.expect("no panic"), attempts, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_moves_on() {
    let bench = Bench::new(&["a", "b"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    let refusing = tokio::spawn(async move {
        let mut connection = a.accept().await;
        let mut refused = 0;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            respond.send_reset(Reason::REFUSED_STREAM);
            refused += 1;
        }
        refused
    });
    let _b = bench.host("b");
    moved_on(&bench, 50).await;
    drop(bench);
    assert!(soon(refusing).await.expect("no panic") > 0, "it was asked");
}

/// A connection that is in use: it has reset a call.
async fn used_connection(bench: &Bench, peer: &mut RawPeer) -> RawConnection {
    let serve = async {
        let mut connection = peer.accept().await;
        let (_, mut respond) = connection.accept().await.expect("a call").expect("a call");
        respond.send_reset(Reason::CANCEL);
        let _ = timeout(Duration::from_millis(1), connection.accept()).await;
        connection
    };
    let (connection, answer) = tokio::join!(serve, bench.ask(net::WHO));
    assert_eq!(answer.expect_err("reset").code(), Code::Cancelled);
    connection
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_goaway_does_not_cover_moves_on() {
    let bench = Bench::new(&["a"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    let mut connection = used_connection(&bench, &mut a).await;
    drop(a);
    let _b = bench.host("b");
    let asking = bench.ask(net::WHO);
    tokio::pin!(asking);
    // The call is on its way when the server, which has not read it, says that it takes none.
    assert!(timeout(Duration::from_millis(1), &mut asking).await.is_err());
    connection.abrupt_shutdown(Reason::NO_ERROR);
    while connection.accept().await.is_some() {}

    assert!(timeout(Duration::from_millis(1), &mut asking).await.is_err(), "it waits for another endpoint");
    assert_eq!(super::ejection::stats(&bench, "a").calls.failures, 1, "the call that was reset, and not this one");
    bench.set(&["b"]);
    assert_eq!(soon(asking).await.expect("moved on").into_inner(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_call_that_never_left_moves_on() {
    let bench = Bench::new(&["a"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    let connection = used_connection(&bench, &mut a).await;
    let _b = bench.host("b");
    // The call is made before the connection's task can see that its peer is gone.
    drop(connection);
    drop(a);
    let asking = bench.ask(net::WHO);
    tokio::pin!(asking);
    assert!(timeout(Duration::from_millis(100), &mut asking).await.is_err(), "it waits for another endpoint");
    bench.set(&["b"]);
    assert_eq!(soon(asking).await.expect("moved on").into_inner(), "b");
}

#[tokio::test(start_paused = true)]
async fn a_refused_stream_of_messages_is_sent_again_from_its_start() {
    let bench = Bench::new(&["stranger-here", "b"]);
    let _stranger = Host::start(&bench.net, "stranger-here:1", "stranger");
    let _b = bench.host("b");
    for _ in 0..10 {
        let (texts, stream) = tokio::sync::mpsc::unbounded_channel();
        texts.send("first".to_owned()).expect("open");
        let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(stream);
        let mut answers = bench.stream(net::STREAM, Request::new(stream)).await.expect("opened");
        texts.send("second".to_owned()).expect("open");
        drop(texts);
        let mut echoed = Vec::new();
        while let Some(text) = soon(answers.next()).await {
            echoed.push(text.expect("echoed"));
        }
        assert_eq!(echoed, ["first", "second"]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_a_server_may_have_processed_is_not_sent_again() {
    let bench = Bench::new(&["a"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    let b = bench.host("b");
    let breaking = tokio::spawn(async move {
        let mut connection = a.accept().await;
        let (request, _respond) = connection.accept().await.expect("a call").expect("a call");
        let mut body = request.into_body();
        let read: Option<Result<Bytes, _>> = tokio::select! {
            read = body.data() => read,
            _ = connection.accept() => None,
        };
        assert!(read.is_some());
    });
    let asking = bench.ask(net::WHO);
    tokio::pin!(asking);
    let status = tokio::select! {
        answer = &mut asking => answer.expect_err("broken off"),
        () = async { breaking.await.expect("no panic"); bench.set(&["b"]); std::future::pending().await } => unreachable!(),
    };
    assert_eq!((status.code(), told_instance(&status)), (Code::Unavailable, Some("a")));
    assert!(status.message().contains("the connection was lost at a@a:1"), "{status}");
    assert_eq!(b.calls(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_handler_that_claims_not_to_have_begun_is_not_believed() {
    let bench = Bench::new(&["a"]);
    let a = bench.host("a");
    let status = bench.ask(net::CLAIM).await.expect_err("as told");
    assert_eq!((status.code(), a.calls()), (Code::Unavailable, 1));
}

#[tokio::test(start_paused = true)]
async fn a_downstream_refusal_that_a_handler_passes_on_is_not_repeated_upstream() {
    let downstream = Bench::new(&["b"]);
    let _b = Host::configured(&downstream.net, "b:1", "b", |config| config.limits.concurrent_streams = 0);
    let bench = Bench::new(&["a"]);
    let a = bench.host("a");
    a.set_downstream(downstream.channel.clone());
    let status = bench.ask(net::PASS_ON).await.expect_err("refused downstream");
    assert_eq!((status.code(), a.calls()), (Code::Unavailable, 1));
    assert_eq!(told_instance(&status), Some("a"), "whose handler has failed");
}

#[tokio::test(start_paused = true)]
async fn the_failure_of_an_inner_call_that_a_handler_passes_on_shows_no_address_to_its_caller() {
    let bench = Bench::new(&["a"]);
    let a = bench.host("a");
    let downstream = Bench::new(&["secret"]);
    a.set_downstream(downstream.channel.clone());
    let status = bench.ask(net::PASS_ON).await.expect_err("nothing is there");
    assert_eq!((status.code(), status.message()), (Code::Unavailable, "a call that this one needs has failed"));
    assert_eq!(told_instance(&status), Some("a"));
    assert!(status.metadata().get("meshwork-inner-call").is_none(), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_not_grpc_names_no_address_to_the_caller_of_a_handler_that_passes_it_on() {
    let bench = Bench::new(&["a"]);
    let a = bench.host("a");
    let downstream = Bench::new(&["secret"]);
    let mut servers = scripted::Scripted::default();
    servers.serve(&downstream, "secret", |respond| {
        let response = http::Response::builder().status(404).header("content-type", "text/html");
        respond.send_response(response.body(()).expect("a response"), true).expect("the call is there");
        scripted::GO_ON
    });
    let direct = downstream.ask(net::WHO).await.expect_err("a page");
    assert!(direct.message().contains("HTTP 404 from secret@secret:1"), "{direct}");
    a.set_downstream(downstream.channel.clone());
    let status = bench.ask(net::PASS_ON).await.expect_err("a page");
    assert_eq!((status.code(), status.message()), (direct.code(), "a call that this one needs has failed"));
    assert!(status.metadata().get("meshwork-inner-call").is_none(), "{status:?}");
}

#[tokio::test(start_paused = true)]
async fn what_a_server_says_to_the_channel_does_not_reach_its_caller() {
    let bench = Bench::new(&["a"]);
    let mut servers = scripted::Scripted::default();
    servers.serve(&bench, "a", |respond| {
        let response = http::Response::builder()
            .header("content-type", "application/grpc")
            .header("grpc-status", i32::from(Code::Unavailable))
            .header("grpc-retry-pushback-ms", "7")
            .header(REFUSED, Refusal::Overloaded.name());
        respond.send_response(response.body(()).expect("a response"), true).expect("the call is there");
        scripted::GO_ON
    });
    let status = bench.ask(net::WHO).await.expect_err("refused");
    for header in ["meshwork-refused", "grpc-retry-pushback-ms"] {
        assert!(status.metadata().get(header).is_none(), "{header}");
    }

    let bench = Bench::new(&["a"]);
    servers.serve(&bench, "a", |respond| {
        let mut body = scripted::begin(respond);
        let trailers = [
            (Status::GRPC_STATUS, i32::from(Code::Unavailable).into()),
            (REFUSED, http::HeaderValue::from_static("draining")),
            (crate::headers::PUSHBACK, http::HeaderValue::from_static("7")),
        ];
        body.send_trailers(http::HeaderMap::from_iter(trailers)).expect("the call is there");
        scripted::GO_ON
    });
    let status = bench.ask(net::WHO).await.expect_err("failed");
    for header in ["meshwork-refused", "grpc-retry-pushback-ms"] {
        assert!(status.metadata().get(header).is_none(), "{header} in trailers");
    }
}
