//! Peers that ask for too much meet a bound.

use tokio::io::AsyncReadExt as _;
use tonic::Code;

use super::{
    logged::Logged,
    probe::{stream_of, unary},
    *,
};

fn limited(change: impl FnOnce(&mut Limits)) -> Running {
    let mut config = config();
    change(&mut config.limits);
    run(config, |server| server)
}

/// Reads until the server closes; how long that took.
async fn closed(mut pipe: DuplexStream) -> Duration {
    let begin = Instant::now();
    soon(pipe.read_to_end(&mut Vec::new())).await.expect("closed in order");
    begin.elapsed()
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_says_nothing_is_cut_and_its_place_given_to_another() {
    let running = limited(|limits| limits.connections = 1);
    assert_eq!(closed(running.pipe().await).await, Limits::default().handshake_time);
    running.client().await.deregister(unary("")).await.expect("served");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_stops_within_its_preface_is_cut() {
    use tokio::io::AsyncWriteExt as _;
    let running = limited(|_| {});
    let mut pipe = running.pipe().await;
    pipe.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("read");
    assert_eq!(closed(pipe).await, Limits::default().handshake_time);
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_vanished_is_noticed_by_keepalive() {
    use tokio::io::AsyncWriteExt as _;
    let running = limited(|_| {});
    let mut pipe = running.pipe().await;
    let settings = [0, 0, 0, 4, 0, 0, 0, 0, 0];
    pipe.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.expect("read");
    pipe.write_all(&settings).await.expect("read");
    let elapsed = closed(pipe).await;
    assert!((14..=17).contains(&elapsed.as_secs()), "{elapsed:?}");
}

#[tokio::test]
async fn a_connection_too_many_is_closed_at_once() {
    let running = limited(|limits| limits.connections = 2);
    let (mut first, mut second) = (running.client().await, running.client().await);
    first.deregister(unary("")).await.expect("served");
    second.deregister(unary("")).await.expect("served");
    closed(running.pipe().await).await;
    first.deregister(unary("")).await.expect("served as before");
}

/// Of the one place, the second connection of two that begin at once finds out only after its handshake.
#[tokio::test(start_paused = true)]
async fn the_places_of_connections_are_for_those_that_have_begun() {
    let running = limited(|limits| limits.connections = 1);
    let silent = [running.pipe().await, running.pipe().await];
    let (first, second) = (running.pipe().await, running.pipe().await);
    let mut first = client(connect_over(first).await.expect("the server answers"));
    first.deregister(unary("")).await.expect("served");
    let mut late = connect_over(second).await.map(client).expect("its preface is sent");
    late.deregister(unary("")).await.expect_err("there is no place left");
    first.deregister(unary("")).await.expect("served as before");
    drop(silent);
    running.stop().await.expect("in order");
}

#[tokio::test]
async fn a_unary_call_too_many_is_refused_and_streams_are_not_counted_with_it() {
    let running = limited(|limits| limits.concurrent_calls = 1);
    let mut client = running.client().await;
    let mut waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.deregister(unary("wait")).await });
    running.probe.until(|seen| seen.started == 1).await;

    let refused = client.deregister(unary("")).await.expect_err("refused");

    assert_eq!(refused.code(), Code::Unavailable);
    assert_eq!(header(&refused, "meshwork-refused"), Some("overloaded"));
    client.watch(stream_of("")).await.expect("served");
    running.probe.release();
    waiting.await.expect("no panic").expect("served");
    client.deregister(unary("")).await.expect("there is a place again");
}

#[tokio::test]
async fn a_stream_holds_its_place_until_it_ends() {
    let running = limited(|limits| limits.concurrent_streams = 1);
    let mut client = running.client().await;
    let stream = client.watch(stream_of("")).await.expect("served");
    let refused = client.watch(stream_of("")).await.expect_err("refused");
    assert_eq!(header(&refused, "meshwork-refused"), Some("overloaded"));
    client.deregister(unary("")).await.expect("served");
    drop(stream);
    running.probe.until(|seen| seen.alive == 0).await;
    client.watch(stream_of("")).await.expect("there is a place again");
}

#[tokio::test]
async fn a_stream_too_many_on_a_connection_waits_for_its_turn() {
    let running = limited(|limits| limits.streams_per_connection = 2);
    let client = running.client().await;
    // The server's settings are known after its first answer.
    client.clone().deregister(unary("")).await.expect("served");
    let calls: Vec<_> = (0..3)
        .map(|_| {
            let mut client = client.clone();
            tokio::spawn(async move { client.deregister(unary("wait")).await })
        })
        .collect();
    running.probe.until(|seen| seen.alive == 2).await;
    // Another connection is served after them: the third one is held back by its own connection.
    running.client().await.deregister(unary("")).await.expect("served");
    assert_eq!(running.probe.seen().alive, 2);
    for call in calls {
        running.probe.release();
        call.await.expect("no panic").expect("served");
    }
}

#[tokio::test]
async fn a_message_that_is_too_large_is_resource_exhausted() {
    let running = limited(|limits| limits.message_size = 1000);
    let mut client = running.client().await;
    client.deregister(unary(&"x".repeat(900))).await.expect("served");
    let refused = client.deregister(unary(&"x".repeat(1000))).await.expect_err("too large");
    assert_eq!(refused.code(), Code::ResourceExhausted);
    assert!(refused.message().contains("1000 bytes"), "{}", refused.message());
}

#[tokio::test]
async fn headers_that_are_too_large_or_too_many_fail_their_call_and_the_connection_goes_on() {
    let running = limited(|_| {});
    let mut connection = running.connect().await.expect("the server answers");
    let mut stream = client(connection.clone()).watch(stream_of("")).await.expect("served").into_inner();
    let large = |size| vec![("x-large".to_owned(), "x".repeat(size))];
    let many = (0..1000).map(|n| (format!("x-{n}"), String::new())).collect();
    for headers in [large(20_000), many, large(70_000), large(120_000), large(250_000)] {
        let mut request = http::Request::post("http://probe/meshwork.registry.v1.RegistryService/Deregister")
            .header("content-type", "application/grpc");
        for (name, value) in headers {
            request = request.header(name, value);
        }
        let answer = connection.call(request.body(Body::empty()).expect("a request")).await.expect("an answer");
        assert_eq!((answer.status().as_u16(), answer.headers()["grpc-status"].as_bytes()), (200, &b"8"[..]));
    }
    client(connection).deregister(unary("")).await.expect("served");
    stream.message().await.expect("the streams of the connection go on");
}

#[tokio::test]
async fn headers_up_to_the_limit_are_served() {
    let running = limited(|limits| limits.header_list_size = 100_000);
    let mut client = running.client().await;
    let mut request = Request::new(unary(""));
    request.metadata_mut().insert("x-large", "x".repeat(90_000).parse().expect("a header value"));
    client.deregister(request).await.expect("served");
}

#[tokio::test(start_paused = true)]
async fn a_unary_request_that_never_ends_is_cut() {
    let running = limited(|_| {});
    let mut connection = running.connect().await.expect("the server answers");
    let request = http::Request::post("http://probe/meshwork.registry.v1.RegistryService/Deregister")
        .header("content-type", "application/grpc");
    let never = http_body_util::StreamBody::new(futures_util::stream::pending::<
        Result<http_body::Frame<bytes::Bytes>, tonic::Status>,
    >());
    let begin = Instant::now();
    let answer = connection.call(request.body(Body::new(never)).expect("a request")).await.expect("an answer");
    assert_eq!(answer.headers()["grpc-status"], "4", "DEADLINE_EXCEEDED");
    assert_eq!(begin.elapsed(), Limits::default().unary_time);
}

#[tokio::test]
async fn a_call_that_panics_makes_room_for_the_next() {
    let running = limited(|limits| (limits.concurrent_calls, limits.concurrent_streams) = (1, 1));
    let mut client = running.client().await;
    for _ in 0..2 {
        let panicked = client.deregister(unary("panic")).await.expect_err("as told");
        assert_eq!(panicked.code(), Code::Internal);
        let mut stream = client.watch(stream_of("panic")).await.expect("there is room").into_inner();
        stream.message().await.expect_err("as told");
        running.probe.until(|seen| seen.alive == 0).await;
    }
}

#[tokio::test]
async fn a_limit_may_be_as_high_as_one_likes() {
    let running = limited(|limits| {
        (limits.connections, limits.concurrent_calls, limits.concurrent_streams) = (usize::MAX, usize::MAX, usize::MAX);
    });
    running.client().await.deregister(unary("")).await.expect("served");
}

#[tokio::test(start_paused = true)]
async fn connections_that_cannot_be_accepted_are_a_line_a_minute_and_asked_for_ever_less_often() {
    let (logged, _guard) = Logged::here();
    let lines = |text: &str| logged.lines().into_iter().filter(|line| line.starts_with(text)).collect::<Vec<_>>();
    let running = limited(|_| {});
    let begin = Instant::now();
    let refuse = async |count: u32| {
        for _ in 0..count {
            running.connections.send(Err(io::Error::other("no file is left"))).await.expect("it runs");
        }
    };
    refuse(100).await;
    running.client().await.deregister(unary("")).await.expect("served, as soon as there is one");
    assert!(begin.elapsed() >= Duration::from_secs(20), "it waits between them: {:?}", begin.elapsed());
    assert_eq!(
        lines("a connection could not be accepted"),
        ["a connection could not be accepted error=no file is left"]
    );

    tokio::time::advance(Duration::from_secs(60)).await;
    refuse(1).await;
    running.client().await.deregister(unary("")).await.expect("served");
    let said = lines("a connection could not be accepted");
    assert_eq!(
        said.last().map(String::as_str),
        Some(
            "a connection could not be accepted; and 99 more times before, which were not logged error=no file is left"
        )
    );

    // A pause holds up no end.
    refuse(1).await;
    running.stop().await.expect("stopped");
}

#[tokio::test(start_paused = true)]
async fn connections_too_many_are_a_line_a_minute() {
    let (logged, _guard) = Logged::here();
    let running = limited(|limits| limits.connections = 1);
    let mut first = running.client().await;
    first.deregister(unary("")).await.expect("served");
    for _ in 0..50 {
        closed(running.pipe().await).await;
    }
    let lines = logged.lines();
    assert_eq!(lines.iter().filter(|line| line.contains("a connection above the limit")).count(), 1, "{lines:?}");
}

#[tokio::test(start_paused = true)]
async fn a_connection_that_breaks_before_it_is_accepted_holds_no_other_up() {
    use io::ErrorKind::{
        ConnectionAborted, ConnectionReset, HostUnreachable, Interrupted, NetworkDown, NetworkUnreachable,
    };
    let running = run(config(), |server| server);
    let begin = Instant::now();
    for kind in [ConnectionAborted, ConnectionReset, Interrupted, NetworkDown, NetworkUnreachable, HostUnreachable] {
        running.connections.send(Err(kind.into())).await.expect("it runs");
    }
    running.client().await.deregister(unary("")).await.expect("served");
    assert_eq!(begin.elapsed(), Duration::ZERO);
    running.connections.send(Err(io::Error::other("no file is left"))).await.expect("it runs");
    running.client().await.deregister(unary("")).await.expect("served");
    assert!(begin.elapsed() > Duration::ZERO, "what concerns the listener does");
}
