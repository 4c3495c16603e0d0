//! Calls that failed are sent again if their method allows it, within bounds, and no others.

use std::ops::ControlFlow;

use futures_util::{StreamExt as _, stream};
use h2::Reason;

use super::{
    net::RawPeer,
    scripted::{
        Deal, GO_ON, Respond, Scripted, begin, end, fail, message, set_policy, unavailable, until_config, until_known,
    },
    *,
};

/// All the ways in which a server that may have processed a call can fail before it sends a message.
const FAILURES: [(&str, Deal); 8] = [
    ("UNAVAILABLE", unavailable),
    ("UNAVAILABLE after the headers", |respond| {
        end(&mut begin(respond), Code::Unavailable);
        GO_ON
    }),
    ("a proxy's 503", |respond| {
        let response = http::Response::builder().status(503).body(()).expect("headers");
        respond.send_response(response, true).expect("the call is there");
        GO_ON
    }),
    ("a reset", |respond| {
        respond.send_reset(Reason::INTERNAL_ERROR);
        GO_ON
    }),
    ("a cancelled stream", |respond| {
        respond.send_reset(Reason::CANCEL);
        GO_ON
    }),
    ("a reset after the headers", |respond| {
        begin(respond).send_reset(Reason::INTERNAL_ERROR);
        GO_ON
    }),
    ("a lost connection", |_| ControlFlow::Break(())),
    ("a lost connection after the headers", |respond| {
        begin(respond);
        ControlFlow::Break(())
    }),
];

/// One endpoint that fails always, at the address `a:1`.
async fn failing(deal: impl Fn(&mut Respond) -> ControlFlow<()> + Send + 'static) -> (Bench, Scripted) {
    let bench = Bench::new(&["a"]);
    let mut servers = Scripted::default();
    servers.serve(&bench, "a", deal);
    until_known(&bench).await;
    (bench, servers)
}

#[tokio::test(start_paused = true)]
async fn a_failed_call_of_an_idempotent_method_is_answered_by_another_endpoint() {
    for (case, deal) in FAILURES {
        let bench = Bench::new(&["a", "b"]);
        let mut servers = Scripted::default();
        servers.serve(&bench, "a", deal);
        let _b = bench.host("b");
        until_known(&bench).await;
        for call in 0..20 {
            let method = if call % 2 == 0 { net::READ } else { net::WRITE };
            assert_eq!(bench.ask(method).await.expect(case).into_inner(), "b", "{case}");
        }
        assert!(servers.calls() > 0, "{case}: it was asked");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_is_not_declared_idempotent_is_sent_once_whatever_comes_of_it() {
    let pushed_back: (&str, Deal) = ("a pushback", |respond| fail(respond, Code::Unavailable, Some("1")));
    for (case, deal) in FAILURES.into_iter().chain([pushed_back]) {
        let (bench, servers) = failing(deal).await;
        bench.ask(net::WHO).await.expect_err(case);
        assert_eq!(servers.calls(), 1, "{case}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_method_that_one_endpoint_does_not_declare_is_sent_once() {
    let (bench, servers) = failing(unavailable).await;
    let silent = Instance { idempotent_methods: Vec::new(), ..instance("b", InstanceStatus::Serving) };
    bench.endpoints.send_replace(set([instance("a", InstanceStatus::Serving), silent]));
    until_config(&bench, |config| config.method.is_none()).await;
    bench.ask(net::READ).await.expect_err("unavailable");
    assert_eq!(servers.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_is_sent_three_times_at_most_and_each_attempt_says_how_many_were_before() {
    let (bench, servers) = failing(unavailable).await;
    let status = bench.ask(net::WRITE).await.expect_err("unavailable");
    assert_eq!((status.code(), told_instance(&status)), (Code::Unavailable, Some("a")));
    let told: Vec<_> = servers.arrived().into_iter().map(|arrived| arrived.previous_attempts).collect();
    assert_eq!(told, [None, Some("1".into()), Some("2".into())]);
}

#[tokio::test(start_paused = true)]
async fn between_attempts_there_is_a_jittered_backoff() {
    let (bench, servers) = failing(unavailable).await;
    bench.ask(net::WRITE).await.expect_err("unavailable");
    let at: Vec<_> = servers.arrived().into_iter().map(|arrived| arrived.at).collect();
    for (pair, longest) in at.windows(2).zip([25, 50]) {
        let waited = pair[1] - pair[0];
        // The timer is as coarse as a millisecond.
        assert!((longest / 2..=longest + 2).contains(&waited.as_millis()), "{waited:?} of {longest} ms");
    }
}

#[tokio::test(start_paused = true)]
async fn what_a_server_refuses_before_processing_is_not_multiplied_by_retries() {
    let (bench, servers) = failing(|respond| {
        respond.send_reset(Reason::REFUSED_STREAM);
        GO_ON
    })
    .await;
    bench.ask(net::READ).await.expect_err("refused");
    assert_eq!(servers.calls(), 4, "three attempts, and one transparent one over all of them");
}

#[tokio::test(start_paused = true)]
async fn a_storm_is_stopped_by_the_budget() {
    const CALLS: usize = 2000;
    let bench = Bench::new(&["a", "b"]);
    let mut servers = Scripted::default();
    servers.serve(&bench, "a", unavailable);
    servers.serve(&bench, "b", unavailable);
    until_known(&bench).await;
    let calls = (0..CALLS).map(|_| bench.ask(net::READ));
    let outcomes: Vec<_> = stream::iter(calls).buffer_unordered(64).collect().await;
    assert!(outcomes.iter().all(Result::is_err), "all fail");
    let reached = servers.calls();
    assert!((CALLS * 11 / 10..=CALLS * 5 / 4).contains(&reached), "{reached} attempts at {CALLS} calls");
}

#[tokio::test(start_paused = true)]
async fn a_retry_avoids_the_endpoint_that_failed_even_if_the_other_is_busier() {
    let bench = Bench::new(&["b"]);
    let b = bench.host("b");
    let waiting: Vec<_> = (0..30).map(|_| Box::pin(bench.ask(net::WAIT))).collect();
    let mut waiting = futures_util::future::join_all(waiting);
    tokio::select! {
        _ = &mut waiting => unreachable!("no call is released"),
        () = b.until_calls(30) => {}
    }
    let mut servers = Scripted::default();
    servers.serve(&bench, "a", unavailable);
    bench.set(&["a", "b"]);
    soon(async {
        while servers.calls() == 0 {
            bench.ask(net::READ).await.expect("the second attempt is answered by b");
        }
    })
    .await;
    assert_eq!(servers.calls(), 1, "and so is no third one needed");
}

#[tokio::test(start_paused = true)]
async fn after_the_first_message_nothing_is_sent_again() {
    let (bench, servers) = failing(|respond| {
        let mut body = begin(respond);
        message(&mut body);
        end(&mut body, Code::Unavailable);
        GO_ON
    })
    .await;
    assert_eq!(bench.ask(net::READ).await.expect_err("unavailable").code(), Code::Unavailable);
    assert_eq!(servers.calls(), 1, "of a unary call");

    let mut answers = bench.stream(net::FOLLOW, Request::new(tokio_stream::once("text".into()))).await.expect("opened");
    assert_eq!(soon(answers.next()).await.expect("a message").expect("decodes"), "x");
    assert_eq!(soon(answers.next()).await.expect("an end").expect_err("cut").code(), Code::Unavailable);
    assert_eq!(servers.calls(), 2, "of a stream");
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_opened_again_only_before_it_has_begun() {
    let (bench, servers) = failing(unavailable).await;
    let opened = bench.stream(net::FOLLOW, Request::new(tokio_stream::once("text".into()))).await;
    assert_eq!(opened.expect_err("unavailable").code(), Code::Unavailable);
    assert_eq!(servers.calls(), 3);

    let (bench, servers) = failing(|respond| {
        end(&mut begin(respond), Code::Unavailable);
        GO_ON
    })
    .await;
    let mut opened = bench.stream(net::FOLLOW, Request::new(tokio_stream::once("text".into()))).await.expect("opened");
    assert_eq!(soon(opened.next()).await.expect("an end").expect_err("failed").code(), Code::Unavailable);
    assert_eq!(servers.calls(), 1, "its headers went to the caller at once");
}

#[tokio::test(start_paused = true)]
async fn the_headers_of_a_stream_do_not_wait_for_its_first_message() {
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    until_known(&bench).await;
    let (texts, stream) = tokio::sync::mpsc::unbounded_channel();
    let stream = tokio_stream::wrappers::UnboundedReceiverStream::new(stream);
    let mut answers = bench.stream(net::FOLLOW, Request::new(stream)).await.expect("opened before a text was sent");
    texts.send("text".to_owned()).expect("open");
    assert_eq!(soon(answers.next()).await.expect("a message").expect("decodes"), "text");
}

#[tokio::test(start_paused = true)]
async fn a_body_beyond_the_buffer_is_not_sent_again() {
    for (texts, attempts) in [(1, 3), (40, 1)] {
        // Fails when it has read the request.
        let bench = Bench::new(&["a"]);
        let mut peer = RawPeer::listen(&bench.net, "a:1");
        let reading = tokio::spawn(async move {
            let mut connection = peer.accept().await;
            let mut calls = 0;
            while let Some(Ok((request, mut respond))) = connection.accept().await {
                let mut body = request.into_body();
                let read = async {
                    while let Some(data) = body.data().await {
                        let size = data.expect("sent").len();
                        body.flow_control().release_capacity(size).expect("no more than was received");
                    }
                };
                tokio::select! {
                    () = read => {}
                    _ = connection.accept() => panic!("one call at a time"),
                }
                calls += 1;
                let _ = unavailable(&mut respond);
            }
            calls
        });
        until_known(&bench).await;
        let stream = tokio_stream::iter((0..texts).map(|_| "x".repeat(2000)));
        // Sent one at a time, so that not all of it is read ahead.
        let stream = tokio_stream::StreamExt::throttle(stream, Duration::from_millis(1));
        bench.stream(net::FOLLOW, Request::new(stream)).await.expect_err("unavailable");
        drop(bench);
        assert_eq!(soon(reading).await.expect("no panic"), attempts, "{texts} texts");
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_says_when_the_call_comes_again_or_that_it_does_not() {
    for code in [Code::Unavailable, Code::ResourceExhausted] {
        let (bench, servers) = failing(move |respond| fail(respond, code, Some("700"))).await;
        bench.ask(net::READ).await.expect_err("fails");
        let at: Vec<_> = servers.arrived().into_iter().map(|arrived| arrived.at).collect();
        assert_eq!(at.len(), 3, "{code:?}");
        assert!(at.windows(2).all(|pair| (700..=702).contains(&(pair[1] - pair[0]).as_millis())), "{code:?}");

        let (bench, servers) = failing(move |respond| fail(respond, code, Some("-1"))).await;
        bench.ask(net::READ).await.expect_err("fails");
        assert_eq!(servers.calls(), 1, "{code:?}");
    }
    let (bench, servers) = failing(|respond| fail(respond, Code::ResourceExhausted, None)).await;
    bench.ask(net::READ).await.expect_err("fails");
    assert_eq!(servers.calls(), 1, "a quota is no failure");
}

#[tokio::test(start_paused = true)]
async fn an_endpoint_that_came_later_and_does_not_declare_the_method_gets_no_retry() {
    let (bench, servers) = failing(|respond| fail(respond, Code::Unavailable, Some("700"))).await;
    let b = bench.host("b");
    let swap = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        bench.endpoints.send_replace(super::set([undeclared("b")]));
    };
    let (outcome, ()) = tokio::join!(bench.ask(net::WRITE), swap);
    assert_eq!(outcome.expect_err("it failed").code(), Code::Unavailable);
    assert_eq!((servers.calls(), b.calls()), (1, 0));
}

#[tokio::test(start_paused = true)]
async fn retries_end_with_the_deadline_and_the_failure_is_reported() {
    let (bench, servers) = failing(|respond| fail(respond, Code::Unavailable, Some("400"))).await;
    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_secs(1));
    let begin = Instant::now();
    let status = bench.send(net::WRITE, request).await.expect_err("fails");
    assert_eq!(status.code(), Code::Unavailable, "and not that a third attempt would have come too late");
    assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
    assert_eq!(servers.calls(), 3);

    let mut request = Request::new(String::new());
    request.set_timeout(Duration::from_millis(399));
    let begin = Instant::now();
    assert_eq!(bench.send(net::WRITE, request).await.expect_err("fails").code(), Code::Unavailable);
    assert!(begin.elapsed() < Duration::from_millis(10), "{:?}", begin.elapsed());
    assert_eq!(servers.calls(), 4);
}

#[tokio::test(start_paused = true)]
async fn a_policy_changes_how_often_running_clients_send_a_call() {
    let (bench, servers) = failing(unavailable).await;
    for attempts in [1, 5] {
        set_policy(&bench, |retry| retry.max_attempts = attempts).await;
        let before = servers.calls();
        bench.ask(net::READ).await.expect_err("unavailable");
        assert_eq!(servers.calls() - before, attempts as usize);
    }
}
