//! What the channel says and understands on the wire, against servers that speak HTTP/2 by hand.

use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::HeaderMap;
use metrics_exporter_prometheus::PrometheusBuilder;
use tokio::{sync::mpsc, task::JoinHandle};
use tokio_stream::{StreamExt as _, wrappers::UnboundedReceiverStream};

use super::{
    net::RawPeer,
    scripted::{GO_ON, Respond, Scripted, begin, end, message},
    *,
};

const SECOND: Duration = Duration::from_secs(1);

/// How a request stream ended at the server: how many messages came, and why it was reset.
type Arrived = (usize, Option<Reason>);

async fn arrived(mut request: RecvStream) -> Arrived {
    let mut messages = 0;
    loop {
        match request.data().await {
            Some(Ok(data)) => {
                // The end of a stream may come in a separate frame.
                messages += usize::from(!data.is_empty());
                request.flow_control().release_capacity(data.len()).expect("of what was received");
            }
            Some(Err(error)) => return (messages, error.reason()),
            None => return (messages, None),
        }
    }
}

/// As `arrived`, but of bytes, by a server that takes what its window holds and no more.
async fn arrived_in_the_window(mut request: RecvStream) -> Arrived {
    let mut bytes = 0;
    loop {
        match request.data().await {
            Some(Ok(data)) => bytes += data.len(),
            Some(Err(error)) => return (bytes, error.reason()),
            None => return (bytes, None),
        }
    }
}

/// The instance `a`, which begins its answer to one call at once, goes on as told, and says how the request stream ended.
fn answering(bench: &Bench, answer: impl FnOnce(Respond) + Send + 'static) -> JoinHandle<Arrived> {
    reading(bench, answer, arrived)
}

/// As `answering`, with the reader of the request stream.
fn reading<R: Future<Output = Arrived> + Send>(
    bench: &Bench,
    answer: impl FnOnce(Respond) + Send + 'static,
    read: impl FnOnce(RecvStream) -> R + Send + 'static,
) -> JoinHandle<Arrived> {
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    tokio::spawn(async move {
        let mut connection = peer.accept().await;
        let (request, respond) = connection.accept().await.expect("a call").expect("a call");
        answer(respond);
        tokio::select! {
            arrived = read(request.into_body()) => arrived,
            _ = connection.accept() => panic!("one call"),
        }
    })
}

/// Answers with a message and keeps the answer open.
fn begins(held: mpsc::UnboundedSender<h2::SendStream<Bytes>>) -> impl FnOnce(Respond) {
    move |mut respond| {
        let mut body = begin(&mut respond);
        message(&mut body);
        held.send(body).expect("the test is here");
    }
}

/// Opens a stream of texts that never ends, and reads the first message of its answer.
async fn open(bench: &Bench, timeout: Option<Duration>) -> (mpsc::UnboundedSender<String>, Streaming<String>) {
    let (texts, stream) = mpsc::unbounded_channel();
    let mut request = Request::new(UnboundedReceiverStream::new(stream));
    timeout.into_iter().for_each(|timeout| request.set_timeout(timeout));
    texts.send("first".to_owned()).expect("open");
    let mut answers = bench.stream(net::STREAM, request).await.expect("opened");
    assert_eq!(soon(answers.next()).await.expect("a message").expect("decodes"), "x");
    (texts, answers)
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_answer_is_dropped_is_cancelled_at_its_server_and_sends_no_more() {
    let bench = Bench::new(&["a"]);
    let (hold, _held) = mpsc::unbounded_channel();
    let serving = answering(&bench, begins(hold));
    let (texts, answers) = open(&bench, None).await;
    drop(answers);
    for _ in 0..40 {
        // As long as anything takes them.
        let _ = texts.send("late".to_owned());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(soon(serving).await.expect("no panic"), (1, Some(Reason::CANCEL)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_deadline_passes_after_its_answer_has_begun_is_cancelled_at_its_server() {
    let bench = Bench::new(&["a"]);
    let (hold, _held) = mpsc::unbounded_channel();
    let serving = answering(&bench, begins(hold));
    let (_texts, mut answers) = open(&bench, Some(SECOND)).await;
    let status = soon(answers.next()).await.expect("an end").expect_err("too late");
    assert_eq!(status.code(), Code::DeadlineExceeded);
    assert_eq!(soon(serving).await.expect("no panic"), (1, Some(Reason::CANCEL)));
}

/// HTTP/2's own size of a stream's window, and of a connection's.
const WINDOW: usize = 65_535;

#[tokio::test(start_paused = true)]
async fn a_stream_that_flow_control_holds_up_is_cancelled_when_its_answer_is_dropped_or_its_deadline_passes() {
    for timeout in [None, Some(SECOND)] {
        let bench = Bench::new(&["a"]);
        let (hold, _held) = mpsc::unbounded_channel();
        let serving = reading(&bench, begins(hold), arrived_in_the_window);
        let (texts, mut answers) = open(&bench, timeout).await;
        for _ in 0..100 {
            texts.send("x".repeat(1000)).expect("the call goes on");
        }
        if timeout.is_some() {
            let status = soon(answers.next()).await.expect("an end").expect_err("too late");
            assert_eq!(status.code(), Code::DeadlineExceeded);
        } else {
            tokio::time::sleep(Duration::from_millis(1)).await;
            drop(answers);
        }
        assert_eq!(soon(serving).await.expect("no panic"), (WINDOW, Some(Reason::CANCEL)));
    }
}

#[tokio::test(start_paused = true)]
async fn the_end_of_a_stream_that_flow_control_holds_up_is_felt_by_no_other_call_of_its_connection() {
    let bench = Bench::new(&["a"]);
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    let (arrivals, mut ends) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let mut connection = peer.accept().await;
        // One stream that is not read shall not hold up the others.
        connection.set_target_window_size(1 << 20);
        let (mut held, mut streams) = (Vec::new(), 0);
        while let Some(Ok((request, mut respond))) = connection.accept().await {
            let is_stream = request.uri().path() == net::STREAM;
            let mut body = begin(&mut respond);
            message(&mut body);
            if !is_stream {
                end(&mut body, Code::Ok);
                continue;
            }
            held.push(body);
            streams += 1;
            let (arrivals, stream, request) = (arrivals.clone(), streams, request.into_body());
            tokio::spawn(async move {
                let end = if stream == 2 { arrived_in_the_window(request).await } else { arrived(request).await };
                arrivals.send((stream, end)).expect("the test is here");
            });
        }
    });
    let first = open(&bench, None).await;
    assert_eq!(bench.who().await, "x");
    let (texts, answers) = open(&bench, None).await;
    let third = open(&bench, None).await;
    for _ in 0..100 {
        texts.send("x".repeat(1000)).expect("the call goes on");
    }
    assert_eq!(bench.who().await, "x");
    tokio::time::sleep(Duration::from_millis(1)).await;

    drop(answers);

    assert_eq!(soon(ends.recv()).await, Some((2, (WINDOW, Some(Reason::CANCEL)))));
    assert_eq!(bench.who().await, "x");
    for (stream, (texts, answers)) in [(1, first), (3, third)] {
        texts.send("more".to_owned()).expect("the call goes on");
        drop(texts);
        assert_eq!(soon(ends.recv()).await, Some((stream, (2, None))), "it is sent to its end");
        drop(answers);
    }
    assert_eq!(bench.net.attempts(), 1);
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_flow_control_holds_up_ends_when_its_server_has_said_its_status() {
    let bench = Bench::new(&["a"]);
    let (hold, mut held) = mpsc::unbounded_channel();
    let serving = reading(&bench, begins(hold), arrived_in_the_window);
    let (texts, mut answers) = open(&bench, None).await;
    for _ in 0..100 {
        texts.send("x".repeat(1000)).expect("the call goes on");
    }
    tokio::time::sleep(Duration::from_millis(1)).await;
    end(&mut held.recv().await.expect("answered"), Code::Ok);
    assert!(soon(answers.next()).await.is_none(), "it ended well");
    assert_eq!(soon(serving).await.expect("no panic"), (WINDOW, Some(Reason::CANCEL)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_server_has_said_its_status_sends_no_more_and_is_no_failure() {
    let bench = Bench::new(&["a"]);
    let serving = answering(&bench, |mut respond| {
        let mut body = begin(&mut respond);
        message(&mut body);
        end(&mut body, Code::Ok);
    });
    let (texts, mut answers) = open(&bench, None).await;
    assert!(soon(answers.next()).await.is_none(), "it ended well");
    let _ = texts.send("late".to_owned());
    assert_eq!(soon(serving).await.expect("no panic"), (1, Some(Reason::NO_ERROR)));
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_server_says_its_status_at_once_is_reset_without_an_error() {
    let bench = Bench::new(&["a"]);
    let serving = answering(&bench, |mut respond| {
        let headers = http::Response::builder().header("content-type", "application/grpc").header("grpc-status", "5");
        respond.send_response(headers.body(()).expect("headers"), true).expect("the call is there");
    });
    let (texts, stream) = mpsc::unbounded_channel();
    texts.send("first".to_owned()).expect("open");
    let status = bench.stream(net::STREAM, Request::new(UnboundedReceiverStream::new(stream))).await;
    assert_eq!(status.expect_err("as told").code(), Code::NotFound);
    assert_eq!(soon(serving).await.expect("no panic"), (1, Some(Reason::NO_ERROR)));
}

#[tokio::test(start_paused = true)]
async fn however_many_answers_come_after_their_calls_were_given_up_the_connection_stays() {
    const CALLS: usize = 500;
    const ROUNDS: usize = 10;
    const MOMENT: Duration = Duration::from_millis(1);
    let bench = Bench::new(&["a"]);
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    let (give_up, mut gives_up) = mpsc::unbounded_channel();
    let (given_up, mut is_given_up) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let deaf = Arc::new(AtomicBool::new(false));
        let mut connection = peer.accept_deaf(deaf.clone()).await;
        for _ in 0..ROUNDS {
            let mut calls = Vec::new();
            while calls.len() < CALLS {
                calls.push(connection.accept().await.expect("a call").expect("a call").1);
            }
            deaf.store(true, Ordering::SeqCst);
            give_up.send(()).expect("the test is here");
            is_given_up.recv().await.expect("the test is here");
            for mut respond in calls {
                let mut body = begin(&mut respond);
                message(&mut body);
                end(&mut body, Code::Ok);
            }
            timeout(MOMENT, connection.accept()).await.expect_err("nothing is heard");
            deaf.store(false, Ordering::SeqCst);
        }
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            let mut body = begin(&mut respond);
            message(&mut body);
            end(&mut body, Code::Ok);
        }
    });
    for _ in 0..ROUNDS {
        let calls = futures_util::future::join_all((0..CALLS).map(|_| bench.ask(net::WHO)));
        tokio::select! {
            _ = calls => panic!("no call is answered"),
            () = async { gives_up.recv().await.expect("the server is here") } => {}
        }
        tokio::time::sleep(MOMENT).await;
        given_up.send(()).expect("the server is here");
    }
    assert_eq!(bench.who().await, "x");
    assert_eq!(bench.net.attempts(), 1);
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_callers_own_stream_that_breaks_off_after_the_answer_has_begun_is_not_held_against_the_endpoint() {
    let bench = Bench::new(&["a"]);
    let (hold, _held) = mpsc::unbounded_channel();
    let serving = answering(&bench, begins(hold));
    let (texts, stream) = mpsc::unbounded_channel();
    let mut client = tonic::client::Grpc::new(bench.channel.clone()).max_encoding_message_size(100);
    client.ready().await.expect("ready");
    texts.send("first".to_owned()).expect("open");
    let codec = ProstCodec::<String, String>::default();
    let request = Request::new(UnboundedReceiverStream::new(stream));
    let answers = client.streaming(request, PathAndQuery::from_static(net::STREAM), codec).await.expect("opened");
    let mut answers = answers.into_inner();
    assert_eq!(soon(answers.next()).await.expect("a message").expect("decodes"), "x");
    texts.send("too long".repeat(100)).expect("open");
    let status = soon(answers.next()).await.expect("an end").expect_err("cannot be encoded");
    assert_eq!(status.code(), Code::OutOfRange, "{status}");
    assert_eq!(super::ejection::stats(&bench, "a").calls.failures, 0);
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn a_connector_that_panics_is_a_failed_attempt_to_connect() {
    let mut bench = Bench::new(&[]);
    let (net, panics) = (bench.net.connector(), Arc::new(std::sync::atomic::AtomicUsize::new(2)));
    let connector = Connector::new(move |target: Target| {
        let (net, panics) = (net.clone(), panics.clone());
        async move {
            let left =
                panics.fetch_update(std::sync::atomic::Ordering::SeqCst, std::sync::atomic::Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                });
            assert!(left.is_err(), "as told");
            net.connect(target).await
        }
    });
    bench.context = ChannelContext { connector, ..bench.context.clone() };
    let explain = || None;
    bench.channel = Channel::internal(Shared::discovered("echo", bench.endpoints.subscribe(), explain, &bench.context));
    let _a = bench.host("a");
    bench.set(&["a"]);
    assert_eq!(bench.who().await, "a");
}

fn page(respond: &mut Respond, status: u16, content_type: &str) {
    let response = http::Response::builder().status(status).header("content-type", content_type);
    let mut body = respond.send_response(response.body(()).expect("headers"), false).expect("the call is there");
    body.send_data(Bytes::from_static(b"<html>who are you</html>"), true).expect("the call is there");
}

#[tokio::test(start_paused = true)]
async fn an_http_error_with_a_body_has_the_mapped_code_for_its_caller_and_in_the_metrics() {
    for (status, code, name) in [
        (400, Code::Internal, "INTERNAL"),
        (401, Code::Unauthenticated, "UNAUTHENTICATED"),
        (403, Code::PermissionDenied, "PERMISSION_DENIED"),
        (404, Code::Unimplemented, "UNIMPLEMENTED"),
        (429, Code::Unavailable, "UNAVAILABLE"),
        (431, Code::Internal, "INTERNAL"),
        (500, Code::Unknown, "UNKNOWN"),
        (503, Code::Unavailable, "UNAVAILABLE"),
        (200, Code::Unknown, "UNKNOWN"),
    ] {
        let types = ["text/html", "application/grpc"].into_iter().filter(|kind| status != 200 || *kind == "text/html");
        for (content_type, streaming) in types.flat_map(|kind| [(kind, false), (kind, true)]) {
            let recorder = PrometheusBuilder::new().build_recorder();
            let _counting = ::metrics::set_default_local_recorder(&recorder);
            let (bench, mut servers) = (Bench::new(&["a"]), Scripted::default());
            servers.serve(&bench, "a", move |respond| {
                page(respond, status, content_type);
                GO_ON
            });
            let told = if streaming {
                let texts = tokio_stream::once("text".to_owned());
                bench.stream(net::STREAM, Request::new(texts)).await.expect_err("no gRPC response")
            } else {
                bench.ask(net::WHO).await.expect_err("no gRPC response")
            };
            assert_eq!((told.code(), told_instance(&told)), (code, Some("a")), "{status}: {told}");
            assert!(told.message().contains(&format!("HTTP {status} from a@a:1")), "{told}");
            let counted = format!(r#"rpc_response_status_code="{name}"}} 1"#);
            assert!(recorder.handle().render().contains(&counted), "{status}: {}", recorder.handle().render());
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_ends_without_a_status_is_no_success() {
    type Answer = fn(&mut Respond);
    let cases: [(&str, Answer, Code); 3] = [
        (
            "RST_STREAM(NO_ERROR) after the headers",
            |respond| begin(respond).send_reset(Reason::NO_ERROR),
            Code::Internal,
        ),
        ("RST_STREAM(CANCEL) after the headers", |respond| begin(respond).send_reset(Reason::CANCEL), Code::Cancelled),
        (
            "an end without trailers",
            |respond| begin(respond).send_data(Bytes::new(), true).expect("the call is there"),
            Code::Unknown,
        ),
    ];
    for (case, answer, code) in cases {
        let (bench, mut servers) = (Bench::new(&["a"]), Scripted::default());
        servers.serve(&bench, "a", move |respond| {
            answer(respond);
            GO_ON
        });
        let status = bench.ask(net::WHO).await.expect_err(case);
        assert_eq!((status.code(), told_instance(&status)), (code, Some("a")), "{case}: {status}");
        assert_eq!(super::ejection::stats(&bench, "a").calls.failures, 1, "{case}");
    }
}

/// A connection's end at the server: SETTINGS, then GOAWAY with ENHANCE_YOUR_CALM and this debug data, and the end.
async fn ask_for_calm(mut io: tokio::io::DuplexStream, debug_data: &[u8]) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    const SETTINGS: [u8; 9] = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    const SETTINGS_ACK: [u8; 9] = [0, 0, 0, 4, 1, 0, 0, 0, 0];
    const ENHANCE_YOUR_CALM: [u8; 4] = [0, 0, 0, 11];
    io.write_all(&SETTINGS).await.expect("read");
    let mut heard = Vec::new();
    while !heard.windows(SETTINGS_ACK.len()).any(|frame| frame == SETTINGS_ACK) {
        io.read_buf(&mut heard).await.expect("the client is there");
    }
    let length = u8::try_from(8 + debug_data.len()).expect("short");
    let goaway = [&[0, 0, length, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0][..], &ENHANCE_YOUR_CALM, debug_data].concat();
    io.write_all(&goaway).await.expect("read");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_finds_pings_too_many_gets_fewer_on_all_later_connections() {
    for (debug_data, slowed) in [(&b"too_many_pings"[..], true), (b"", false)] {
        let bench = Bench::new(&["a"]);
        let mut incoming = bench.net.listen("a:1");
        ask_for_calm(soon(incoming.recv()).await.expect("a connection"), debug_data).await;
        let _next = soon(incoming.recv()).await.expect("it connects again");
        let keepalive = bench.channel.shared.picker.endpoints()[0].keepalive();
        assert_eq!(keepalive.interval > Duration::from_secs(300), slowed, "{keepalive:?}");
        assert_eq!(keepalive.while_idle, !slowed, "{keepalive:?}");
    }
}

/// Metadata of that many bytes.
fn metadata(size: usize) -> HeaderMap {
    HeaderMap::from_iter([(http::HeaderName::from_static("x-large"), "x".repeat(size).parse().expect("a value"))])
}

/// What a server says in `READ` calls, while a stream of the same connection goes on.
async fn beside_a_stream(answer: fn(&mut Respond), expected: Result<&str, Code>, case: &str) {
    let bench = Bench::new(&["a"]);
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    let (tell, mut go_on) = mpsc::unbounded_channel();
    let serving = tokio::spawn(async move {
        let mut connection = peer.accept().await;
        let (mut streams, mut requests) = (Vec::new(), Vec::new());
        loop {
            tokio::select! {
                call = connection.accept() => {
                    let Some(Ok((request, mut respond))) = call else { return };
                    if request.uri().path() == net::STREAM {
                        let mut body = begin(&mut respond);
                        message(&mut body);
                        streams.push(body);
                        requests.push(request);
                    } else {
                        answer(&mut respond);
                    }
                }
                Some(()) = go_on.recv() => streams.iter_mut().for_each(message),
            }
        }
    });
    let (_texts, mut stream) = open(&bench, None).await;
    for method in [net::READ, net::WHO] {
        let said = bench.ask(method).await;
        let said = said.as_ref().map(|answer| answer.get_ref().as_str()).map_err(Status::code);
        // Of an undeclared method it is not known that it has one response.
        if (case, method) == ("two messages", net::WHO) {
            assert_eq!(said, Ok("x"), "{case}");
        } else {
            assert_eq!(said, expected, "{case}");
        }
    }
    tell.send(()).expect("the server is here");
    assert_eq!(soon(stream.next()).await.expect("it goes on").expect("decodes"), "x", "{case}");
    assert_eq!(bench.net.attempts(), 1, "{case}");
    serving.abort();
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_too_large_or_has_too_many_messages_fails_alone_on_its_connection() {
    fn headers(respond: &mut Respond, size: usize) {
        let mut response = http::Response::new(());
        response.headers_mut().extend(metadata(size));
        response.headers_mut().insert("content-type", http::HeaderValue::from_static("application/grpc"));
        let mut body = respond.send_response(response, false).expect("the call is there");
        message(&mut body);
        end(&mut body, Code::Ok);
    }
    fn trailers(respond: &mut Respond, size: usize) {
        let mut body = begin(respond);
        message(&mut body);
        let mut trailers = metadata(size);
        trailers.insert(Status::GRPC_STATUS, 0.into());
        body.send_trailers(trailers).expect("the call is there");
    }
    fn messages(respond: &mut Respond, messages: &'static [u8]) {
        let mut body = begin(respond);
        body.send_data(Bytes::from_static(messages), false).expect("the call is there");
        end(&mut body, Code::Ok);
    }
    let cases: [(&str, fn(&mut Respond), Result<&str, Code>); 6] = [
        ("headers of 70 KB", |respond| headers(respond, 70_000), Ok("x")),
        ("headers of 300 KB", |respond| headers(respond, 300_000), Err(Code::Internal)),
        ("trailers of 70 KB", |respond| trailers(respond, 70_000), Ok("x")),
        // h2 leaves out the fields of trailers that pass the limit, and the status with them.
        ("trailers of 300 KB", |respond| trailers(respond, 300_000), Err(Code::Unknown)),
        ("a large message", |respond| messages(respond, &[0, 0, 0x40, 0, 1]), Err(Code::ResourceExhausted)),
        (
            "two messages",
            |respond| messages(respond, b"\0\0\0\0\x03\x0a\x01x\0\0\0\0\x03\x0a\x01y"),
            Err(Code::Internal),
        ),
    ];
    for (case, answer, expected) in cases {
        beside_a_stream(answer, expected, case).await;
    }
}

#[tokio::test(start_paused = true)]
async fn the_limit_of_an_answers_messages_is_its_channels() {
    let (bench, mut servers) = (Bench::new(&["a"]), Scripted::default());
    servers.serve(&bench, "a", |respond| {
        let mut body = begin(respond);
        message(&mut body);
        end(&mut body, Code::Ok);
        GO_ON
    });
    for (limit, expected) in [(2, Err(Code::ResourceExhausted)), (3, Ok("x".to_owned()))] {
        let mut client = tonic::client::Grpc::new(bench.channel.clone().max_response_message_size(limit));
        client.ready().await.expect("ready");
        let (path, codec) = (PathAndQuery::from_static(net::WHO), ProstCodec::<String, String>::default());
        let unary = soon(client.unary(Request::new(String::new()), path, codec)).await;
        assert_eq!(unary.map(Response::into_inner).map_err(|status| status.code()), expected);
        let (path, codec) = (PathAndQuery::from_static(net::FOLLOW), ProstCodec::<String, String>::default());
        let stream = client.server_streaming(Request::new(String::new()), path, codec).await.expect("opened");
        let first = soon(stream.into_inner().next()).await.expect("a message or an error");
        if let Err(status) = &first {
            assert_eq!(told_instance(status), Some("a"));
        }
        assert_eq!(first.map_err(|status| status.code()), expected);
    }
    assert_eq!(super::ejection::stats(&bench, "a").calls.failures, 0, "the endpoint did its work");
}

#[tokio::test(start_paused = true)]
async fn metadata_that_is_too_large_for_any_server_is_not_sent() {
    let bench = Bench::new(&["a"]);
    let mut servers = Scripted::default();
    servers.serve(&bench, "a", |respond| {
        let mut body = begin(respond);
        message(&mut body);
        end(&mut body, Code::Ok);
        GO_ON
    });
    for (size, expected) in [(60_000, Ok("x".to_owned())), (66_000, Err(Code::ResourceExhausted))] {
        let mut request = Request::new(String::new());
        request.metadata_mut().insert("x-large", "x".repeat(size).parse().expect("a value"));
        let said = bench.send(net::WHO, request).await;
        assert_eq!(said.map(Response::into_inner).map_err(|status| status.code()), expected, "{size}");
    }
    assert_eq!((servers.calls(), bench.net.attempts()), (1, 1));
}

/// A bench whose instance `a` does not say that it takes PINGs.
fn stock() -> Bench {
    let bench = Bench::new(&[]);
    bench.endpoints.send_replace(set([Instance { takes_pings: false, ..instance("a", InstanceStatus::Serving) }]));
    bench
}

#[tokio::test(start_paused = true)]
async fn a_server_that_does_not_say_that_it_takes_pings_gets_them_after_5_minutes_and_only_during_calls() {
    for (idle, seconds) in [(0, 310..=316), (3600, 5..=6)] {
        let bench = stock();
        let mut peer = RawPeer::listen(&bench.net, "a:1");
        // It is neither read nor closed any more.
        let _connection = peer.accept().await;
        tokio::time::sleep(Duration::from_secs(idle)).await;
        assert_eq!(bench.net.attempts(), 1, "while it is idle nothing is asked of it");
        let begin = Instant::now();
        assert_eq!(bench.ask(net::WHO).await.expect_err("vanished").code(), Code::Unavailable);
        assert!(seconds.contains(&begin.elapsed().as_secs()), "{:?} after {idle} s", begin.elapsed());
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_answers_as_meshworks_do_is_pinged_as_they_are() {
    for is_meshwork in [false, true] {
        let (bench, mut servers) = (stock(), Scripted::default());
        let _host = if is_meshwork {
            Some(bench.host("a"))
        } else {
            servers.serve(&bench, "a", |respond| {
                let mut body = begin(respond);
                message(&mut body);
                end(&mut body, Code::Ok);
                GO_ON
            });
            None
        };
        bench.who().await;
        assert_eq!(bench.channel.shared.picker.endpoints()[0].keepalive().while_idle, is_meshwork);
    }
}
