//! The registry as it runs: behind its server, over HTTP/2, on an in-memory connection.

use std::collections::HashMap;

use futures_util::stream;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::{io::duplex, sync::oneshot, task::JoinHandle};
use tonic::{Code, body::Body, codegen::http};

use super::{LIMIT, Watch, request};
use crate::{
    Config,
    limits::{MAX_INSTANCES, MAX_WATCHES},
    run,
};
use meshwork::{
    contract::meshwork::registry::v1::{
        InstanceStatus, SetStatusRequest, WatchRequest, registry_service_client::RegistryServiceClient,
        watch_response::Event,
    },
    server,
};

/// Smaller than what the test sends, so that a client that does not read makes the transport run full.
const WINDOW: u32 = 65_535;

type Sender = hyper::client::conn::http2::SendRequest<Body>;

/// A registry that serves one connection, and the client's end of it.
struct Running {
    sender: Sender,
    shutdown: oneshot::Sender<()>,
    registry: JoinHandle<Result<(), server::Error>>,
}

impl Running {
    async fn start() -> Self {
        let (near, far) = duplex(64 * 1024);
        let (shutdown, stop) = oneshot::channel::<()>();
        let incoming = stream::iter([Ok(far)]);
        let registry = tokio::spawn(run(Config::new("127.0.0.1:7600"), incoming, async { _ = stop.await }));
        let mut http2 = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
        let http2 = http2.initial_stream_window_size(WINDOW).initial_connection_window_size(4 * WINDOW);
        let (sender, connection) = http2.handshake(TokioIo::new(near)).await.expect("the server answers");
        tokio::spawn(connection);
        Self { sender, shutdown, registry }
    }
}

/// A tonic client needs a service that sends requests; hyper's sender is nearly one.
macro_rules! client {
    ($running:expr) => {{
        let sender = $running.sender.clone();
        let send = move |request: http::Request<Body>| sender.clone().send_request(request);
        let origin = http::Uri::from_static("http://registry");
        RegistryServiceClient::with_origin(tower::service_fn(send), origin)
    }};
}

#[tokio::test(start_paused = true)]
async fn a_drain_sends_watchers_elsewhere_and_ends_the_registry() {
    let running = Running::start().await;
    let mut client = client!(running);
    client.register(request("order", "a")).await.expect("there is room");
    let mut watch = Watch(client.watch(WatchRequest::default()).await.expect("there is room").into_inner());
    assert!(watch.snapshot().await.provisional, "a registry starts with a grace period");

    running.shutdown.send(()).expect("it runs");

    assert_eq!(watch.next().await.expect_err("it ends").code(), Code::Unavailable);
    let ended = tokio::time::timeout(LIMIT, running.registry).await.expect("it ends").expect("without a panic");
    assert!(ended.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_watcher_that_does_not_read_is_not_queued_for() {
    const CHANGES: usize = 1000;
    let running = Running::start().await;
    let mut client = client!(running);
    let mut large = request("order", "a");
    large.instance.as_mut().expect("given").labels =
        (0..60).map(|n| (n.to_string(), "x".repeat(250))).collect::<HashMap<_, _>>();
    let lease = client.register(large).await.expect("there is room").into_inner();
    let mut watch = Watch(client.watch(WatchRequest::default()).await.expect("there is room").into_inner());
    watch.snapshot().await;

    let mut last = 0;
    for n in 0..CHANGES {
        let status = [InstanceStatus::Draining, InstanceStatus::Serving][n % 2];
        let set = SetStatusRequest { lease_id: lease.lease_id.clone(), status: status.into() };
        last = client.set_status(set).await.expect("the lease is held").into_inner().revision;
    }

    let mut responses = 0;
    while let response = watch.response().await
        && response.revision < last
    {
        assert!(matches!(response.event, Some(Event::Change(_))));
        responses += 1;
    }
    assert!(responses < CHANGES / 10, "{responses} responses of 15 kB waited for a client with a window of 64 kB");
}

#[test]
fn there_are_streams_for_every_watch_and_every_instance_and_some_that_are_not_dead_yet() {
    let limits = Config::new("registry:7600").server.limits;
    let needed = MAX_WATCHES + MAX_INSTANCES;
    assert!(limits.concurrent_streams >= needed + needed / 10, "{} for {needed}", limits.concurrent_streams);
}
