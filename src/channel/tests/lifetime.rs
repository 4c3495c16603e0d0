//! Tasks and connections end with their owners.

use tokio_stream::StreamExt as _;

use super::{
    net::RawPeer,
    scripted::{begin, end, message},
    *,
};

/// Accepts a connection of the channel; the returned future completes when the channel closes it.
async fn connection(bench: &Bench) -> impl Future<Output = ()> + use<> {
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    let mut connection = peer.accept().await;
    async move {
        while connection.accept().await.is_some_and(|call| call.is_ok()) {}
        drop(peer);
    }
}

#[tokio::test(start_paused = true)]
async fn the_last_handle_of_a_channel_ends_its_tasks_and_connections() {
    let bench = Bench::new(&["a", "nobody"]);
    let closed = connection(&bench).await;
    let Bench { channel, context, .. } = bench;
    let other = channel.clone();
    drop(channel);
    assert_eq!(context.tasks.len(), 2, "another handle is left");
    drop(other);
    soon(closed).await;
    context.tasks.close();
    soon(context.tasks.wait()).await;
}

#[tokio::test(start_paused = true)]
async fn a_removed_endpoint_lets_go_of_its_connection_when_its_last_call_has_been_answered() {
    let bench = Bench::new(&["a"]);
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    let serving = async {
        let mut connection = peer.accept().await;
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            bench.set(&[]);
            let mut body = begin(&mut respond);
            // Headers go out, and the client can make no other call.
            let _ = timeout(Duration::from_millis(1), connection.accept()).await;
            message(&mut body);
            end(&mut body, Code::Ok);
        }
    };
    let (_, answer) = soon(Box::pin(async { tokio::join!(serving, bench.ask(net::WHO)) })).await;
    answer.expect("answered");
}

#[tokio::test(start_paused = true)]
async fn the_end_of_the_mesh_ends_the_tasks_of_its_channels_and_turns_calls_away() {
    let bench = Bench::new(&["a"]);
    let closed = connection(&bench).await;
    bench.context.stop.cancel();
    soon(closed).await;
    bench.context.tasks.close();
    soon(bench.context.tasks.wait()).await;
    let status = bench.ask(net::WHO).await.expect_err("closed");
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("the mesh is closed"), "{status}");
}

#[tokio::test(start_paused = true)]
async fn waiting_calls_fail_when_the_mesh_ends() {
    let bench = Bench::new(&[]);
    let asking = bench.ask(net::WHO);
    tokio::pin!(asking);
    assert!(timeout(Duration::from_millis(1), &mut asking).await.is_err());
    bench.context.stop.cancel();
    assert_eq!(soon(asking).await.expect_err("closed").code(), Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn an_answer_may_be_read_after_the_last_handle_is_gone() {
    let bench = Bench::new(&["a"]);
    let _a = bench.host("a");
    let texts = tokio_stream::iter(["one", "two"]).map(str::to_owned);
    let texts = texts.then(|text| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        text
    });
    let answers = bench.stream(net::STREAM, Request::new(texts)).await.expect("opened");
    let context = bench.context.clone();
    drop(bench);
    let echoed: Vec<_> = soon(answers.map(|text| text.expect("not cut")).collect()).await;
    assert_eq!(echoed, ["one", "two"]);
    context.tasks.close();
    soon(context.tasks.wait()).await;
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_given_up_is_reset_at_the_server() {
    let bench = Bench::new(&["a"]);
    let mut peer = RawPeer::listen(&bench.net, "a:1");
    let reset = tokio::spawn(async move {
        let mut connection = peer.accept().await;
        let (_, mut respond) = connection.accept().await.expect("a call").expect("a call");
        tokio::select! {
            reason = std::future::poll_fn(|context| respond.poll_reset(context)) => reason.expect("a reset"),
            _ = connection.accept() => panic!("the connection has ended"),
        }
    });
    let given_up = timeout(Duration::from_secs(1), bench.ask(net::WHO)).await;
    assert!(given_up.is_err());
    assert_eq!(soon(reset).await.expect("no panic"), h2::Reason::CANCEL);
}
