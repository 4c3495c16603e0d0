//! The errors that a caller gets when a call fails.

use h2::Reason;
use tokio_stream::StreamExt as _;

use super::{ejection::stats, *};
use crate::channel::tests::net::RawPeer;

#[tokio::test(start_paused = true)]
async fn without_a_ready_endpoint_a_call_fails_after_3_seconds_and_says_why() {
    let bench = Bench::new(&["a"]);
    let begin = Instant::now();
    let status = bench.ask(net::WHO).await.expect_err("no endpoint is reachable");
    assert_eq!(begin.elapsed().as_millis(), 3000);
    assert_eq!(status.code(), Code::Unavailable);
    for part in ["echo", "3.0 s", "1 known: a@a:1", "connection refused", "the registry is in a test"] {
        assert!(status.message().contains(part), "{part:?} in {status}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_readiness_waits_for_it() {
    let bench = Bench::new(&["a"]);
    let mut request = Request::new(String::new());
    request.extensions_mut().insert(WaitForReady);
    let asking = bench.send(net::WHO, request);
    tokio::pin!(asking);
    assert!(timeout(Duration::from_secs(60), &mut asking).await.is_err(), "still waiting");
    let _a = bench.host("a");
    assert_eq!(soon(asking).await.expect("answered").into_inner(), "a");
}

#[tokio::test(start_paused = true)]
async fn every_answer_says_which_instance_it_is_from() {
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    let answer = bench.ask(net::WHO).await.expect("answered");
    assert_eq!(
        answer.metadata().get("meshwork-instance").map(tonic::metadata::MetadataValue::as_bytes),
        Some(b"a".as_slice())
    );
    let unknown = bench.ask("/test.Nobody/Who").await.expect_err("no such service");
    assert_eq!((unknown.code(), told_instance(&unknown)), (Code::Unimplemented, Some("a")));
}

#[tokio::test(start_paused = true)]
async fn a_reset_has_the_code_of_the_specification() {
    let bench = Bench::new(&["a"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    let reasons = [
        (Reason::CANCEL, Code::Cancelled),
        (Reason::INTERNAL_ERROR, Code::Internal),
        (Reason::ENHANCE_YOUR_CALM, Code::ResourceExhausted),
        (Reason::INADEQUATE_SECURITY, Code::PermissionDenied),
    ];
    let resetting = tokio::spawn(async move {
        let mut connection = a.accept().await;
        for (reason, _) in reasons {
            let (_, mut respond) = connection.accept().await.expect("a call").expect("a call");
            respond.send_reset(reason);
        }
        while connection.accept().await.is_some() {}
    });
    for (reason, code) in reasons {
        let status = bench.ask(net::WHO).await.expect_err("reset");
        assert_eq!((status.code(), told_instance(&status)), (code, Some("a")), "{reason}");
    }
    drop(bench);
    soon(resetting).await.expect("no panic");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_cut_is_unavailable_and_says_where() {
    let bench = Bench::new(&["a"]);
    let a = bench.host("a");
    let (texts, stream) = tokio::sync::mpsc::unbounded_channel();
    texts.send("text".to_owned()).expect("open");
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(stream);
    let mut answers = bench.stream(net::STREAM, Request::new(stream)).await.expect("opened");
    assert_eq!(soon(answers.next()).await.expect("an answer").expect("echoed"), "text");

    a.kill().await;

    let status = soon(answers.next()).await.expect("an end").expect_err("cut");
    assert_eq!((status.code(), told_instance(&status)), (Code::Unavailable, Some("a")), "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanished_without_a_word_is_found_by_keepalive() {
    let bench = Bench::new(&["a"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    let vanished = tokio::spawn(async move {
        let connection = a.accept().await;
        // It is no longer read, and never closed.
        std::future::pending::<()>().await;
        drop(connection);
    });
    let begin = Instant::now();
    let status = bench.ask(net::WHO).await.expect_err("vanished");
    assert_eq!((status.code(), told_instance(&status)), (Code::Unavailable, Some("a")), "{status}");
    assert!(begin.elapsed() <= Duration::from_secs(16), "{:?}", begin.elapsed());
    vanished.abort();
}

#[tokio::test(start_paused = true)]
async fn an_idle_connection_to_a_peer_that_vanished_is_found_before_a_call_needs_it() {
    let bench = Bench::new(&["a"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    // It is no longer read, and never closed.
    let _connection = a.accept().await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(stats(&bench, "a").state, EndpointState::Ready);

    tokio::time::sleep(Duration::from_secs(15)).await;

    let state = stats(&bench, "a").state;
    assert!(matches!(state, EndpointState::TransientFailure { .. }), "{state:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_is_told_with_its_cause() {
    let bench = Bench::new(&["a"]);
    let mut a = RawPeer::listen(&bench.net, "a:1");
    let mut connection = a.accept().await;
    // Long enough for the client to have a connection.
    let _ = timeout(Duration::from_millis(1), connection.accept()).await;
    connection.abrupt_shutdown(Reason::INADEQUATE_SECURITY);
    while connection.accept().await.is_some() {}
    let why = soon(async {
        loop {
            match stats(&bench, "a").state {
                EndpointState::TransientFailure { why } => break why,
                _ => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        }
    })
    .await;
    assert!(why.contains("the connection broke: ") && why.contains(Reason::INADEQUATE_SECURITY.description()), "{why}");
}

#[tokio::test(start_paused = true)]
async fn details_that_are_not_base64_are_left_out_of_the_status_and_the_caller_lives_on() {
    let status = [("grpc-status", "5"), ("grpc-message", "gone"), ("grpc-status-details-bin", "%%%")];
    let head = || http::Response::builder().header("content-type", "application/grpc");
    for in_trailers in [false, true] {
        let bench = Bench::new(&["a"]);
        let mut a = RawPeer::listen(&bench.net, "a:1");
        let answering = tokio::spawn(async move {
            let mut connection = a.accept().await;
            let (_, mut respond) = connection.accept().await.expect("a call").expect("a call");
            if in_trailers {
                let mut body = respond.send_response(head().body(()).expect("headers"), false).expect("sent");
                let trailers =
                    status.map(|(name, value)| (name.parse().expect("a name"), value.parse().expect("text")));
                body.send_trailers(trailers.into_iter().collect()).expect("sent");
            } else {
                let head = status.iter().fold(head(), |head, (name, value)| head.header(*name, *value));
                respond.send_response(head.body(()).expect("headers"), true).expect("sent");
            }
            while connection.accept().await.is_some() {}
        });
        let told = bench.ask(net::WHO).await.expect_err("a status");
        assert_eq!((told.code(), told.message(), told.details()), (Code::NotFound, "gone", [].as_slice()));
        drop(bench);
        soon(answering).await.expect("no panic");
    }
}

#[tokio::test(start_paused = true)]
async fn a_request_that_cannot_be_encoded_is_the_callers_error() {
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    let mut client = tonic::client::Grpc::new(bench.channel.clone()).max_encoding_message_size(3);
    client.ready().await.expect("ready");
    let request = Request::new("too long".to_owned());
    let codec = ProstCodec::<String, String>::default();
    let status = client.unary(request, PathAndQuery::from_static(net::WHO), codec).await.expect_err("too large");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
}

#[tokio::test(start_paused = true)]
async fn a_panic_in_a_callers_stream_ends_its_own_call_and_nothing_else() {
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    let (texts, stream) = tokio::sync::mpsc::unbounded_channel::<String>();
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(stream);
    let mut echo = bench.stream(net::STREAM, Request::new(stream)).await.expect("opened");

    // Before the answer, and after it.
    for method in [net::WHO, net::STREAM] {
        // Not while it is read ahead: in the connection's task.
        let panicking = futures_util::stream::once(async {
            tokio::time::sleep(Duration::from_secs(1)).await;
            panic!("as told")
        });
        let status = match bench.stream(method, Request::new(panicking)).await {
            Ok(mut answers) => soon(answers.message()).await.expect_err("broken"),
            Err(status) => status,
        };
        assert_eq!(status.code(), Code::Internal, "{method}: {status}");
        assert!(!status.message().contains("as told"), "{status}");
    }

    texts.send("still here".into()).expect("open");
    assert_eq!(soon(echo.message()).await.expect("alive"), Some("still here".to_owned()));
    assert_eq!((bench.who().await.as_str(), bench.net.attempts()), ("a", 1), "on the one connection");
}
