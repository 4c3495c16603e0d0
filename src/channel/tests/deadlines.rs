//! Deadlines are clamped, sent to the server, and enforced wherever the call is.

use tokio_stream::StreamExt as _;

use super::*;
use crate::deadline::{Deadline, parse_timeout, scope};

fn within(timeout: Duration) -> Request<String> {
    let mut request = Request::new(String::new());
    request.set_timeout(timeout);
    request
}

const SECOND: Duration = Duration::from_secs(1);

#[tokio::test(start_paused = true)]
async fn a_call_that_is_not_answered_ends_at_its_deadline_with_deadline_exceeded() {
    let bench = Bench::new(&["a"]);
    let mut a = net::RawPeer::listen(&bench.net, "a:1");
    let silent = tokio::spawn(async move {
        let mut connection = a.accept().await;
        let call = connection.accept().await;
        let _ = connection.accept().await;
        drop(call);
    });
    let begin = Instant::now();
    let status = bench.send(net::WHO, within(SECOND)).await.expect_err("not answered");
    assert_eq!(status.code(), Code::DeadlineExceeded, "tonic would say CANCELLED");
    assert_eq!(begin.elapsed(), SECOND);
    assert_eq!(told_instance(&status), Some("a"));
    silent.abort();
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_while_no_endpoint_is_ready() {
    let bench = Bench::new(&[]);
    let begin = Instant::now();
    let status = bench.send(net::WHO, within(SECOND)).await.expect_err("there is no endpoint");
    assert_eq!((status.code(), begin.elapsed()), (Code::DeadlineExceeded, SECOND));
    assert!(status.message().contains("no endpoint of echo"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn the_deadline_holds_until_the_last_byte_of_a_stream() {
    let bench = Bench::new(&["a"]);
    let mut a = net::RawPeer::listen(&bench.net, "a:1");
    let halfway = tokio::spawn(async move {
        let mut connection = a.accept().await;
        let (_, mut respond) = connection.accept().await.expect("a call").expect("a call");
        let headers = http::Response::builder().header("content-type", "application/grpc").body(()).expect("headers");
        let mut body = respond.send_response(headers, false).expect("sent");
        body.send_data(bytes::Bytes::from_static(b"\0\0\0\0\x03\x0a\x01x"), false).expect("sent");
        let _ = connection.accept().await;
        drop(body);
    });
    let mut request = Request::new(tokio_stream::once("text".to_owned()));
    request.set_timeout(SECOND);
    let begin = Instant::now();
    let mut answers = bench.stream(net::STREAM, request).await.expect("opened");
    assert_eq!(answers.next().await.expect("a message").expect("decodes"), "x");
    let status = soon(answers.next()).await.expect("an end").expect_err("not finished");
    assert_eq!((status.code(), begin.elapsed()), (Code::DeadlineExceeded, SECOND));
    halfway.abort();
}

#[tokio::test(start_paused = true)]
async fn the_server_is_told_what_is_left_by_the_callers_own_and_the_inbound_deadline() {
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    let told = |request| async {
        let answer = bench.send(net::TIMEOUT, request).await.expect("answered").into_inner();
        (!answer.is_empty()).then(|| parse_timeout(&answer.parse().expect("a header")).expect("a timeout"))
    };
    assert_eq!(told(Request::new(String::new())).await, None, "no deadline, no timeout");
    assert_eq!(told(within(5 * SECOND)).await, Some(5 * SECOND));
    let inbound = Deadline::after(2 * SECOND);
    assert_eq!(scope(inbound, told(within(5 * SECOND))).await, Some(2 * SECOND));
    assert_eq!(scope(inbound, told(Request::new(String::new()))).await, Some(2 * SECOND));
    tokio::time::advance(SECOND).await;
    assert_eq!(scope(inbound, told(within(5 * SECOND))).await, Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waited_tells_what_is_left_then() {
    let bench = Arc::new(Bench::new(&["a"]));
    let asking = tokio::spawn({
        let bench = bench.clone();
        async move { bench.send(net::TIMEOUT, within(5 * SECOND)).await }
    });
    tokio::time::sleep(2 * SECOND).await;
    let _a = bench.host("a");
    let told = soon(asking).await.expect("no panic").expect("answered").into_inner();
    let told = parse_timeout(&told.parse().expect("a header")).expect("a timeout");
    assert!(told <= 3 * SECOND, "{told:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policys_timeout_ends_a_call_whose_answer_has_not_begun_and_no_stream_that_has() {
    let bench = Bench::new(&["a"]);
    let a = bench.host("a");
    bench.endpoints.send_modify(|set| Arc::make_mut(&mut set.policy).timeout = Some(SECOND));
    scripted::until_config(&bench, |config| config.policy.timeout.is_some()).await;
    a.set_delay(3 * SECOND);
    for (own, limit) in [(None, SECOND), (Some(2 * SECOND), SECOND), (Some(SECOND / 2), SECOND / 2)] {
        let begin = Instant::now();
        let request = own.map_or_else(|| Request::new(String::new()), within);
        let status = bench.send(net::WAIT, request).await.expect_err("too slow");
        assert_eq!((status.code(), begin.elapsed()), (Code::DeadlineExceeded, limit));
    }
    assert!(ejection::stats(&bench, "a").calls.failures > 0, "an endpoint that is too slow for the policy is to blame");

    // A stream that has begun goes on to its own deadline, if it has one.
    for (own, limit) in [(None, None), (Some(7 * SECOND), None), (Some(2 * SECOND), Some(2 * SECOND))] {
        let texts = tokio_stream::iter(["one", "two"]).map(str::to_owned).throttle(3 * SECOND);
        let mut request = Request::new(texts);
        own.into_iter().for_each(|own| request.set_timeout(own));
        let begin = Instant::now();
        let mut answers = bench.stream(net::STREAM, request).await.expect("opened");
        assert_eq!(soon(answers.next()).await.expect("a message").expect("decodes"), "one");
        let second = soon(answers.next()).await.expect("a message or its failure");
        match limit {
            None => assert_eq!(second.expect("not cut"), "two"),
            Some(limit) => {
                assert_eq!((second.expect_err("cut").code(), begin.elapsed()), (Code::DeadlineExceeded, limit));
            }
        }
    }
}
