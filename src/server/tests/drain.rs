//! How a server leaves.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    sync::Arc,
    task::{Context, Poll},
};

use futures_util::stream::pending;
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::sync::Notify;
use tonic::Code;

use super::{
    probe::{stream_of, unary},
    *,
};
use crate::contract::grpc::health::v1::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};

#[tokio::test]
async fn a_call_under_way_finishes_and_a_long_stream_is_told_to_move() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let mut stream = client.watch(stream_of("")).await.expect("served").into_inner();
    stream.message().await.expect("the first");
    let call = tokio::spawn(async move { client.deregister(unary("wait")).await });
    running.probe.until(|seen| seen.alive == 2).await;

    running.shutdown.cancel();

    assert_eq!(stream.message().await.expect_err("told to move").code(), Code::Unavailable);
    assert!(running.draining.is_cancelled());
    running.probe.release();
    call.await.expect("no panic").expect("it finished");
    soon(running.server).await.expect("no panic").expect("it left");
}

#[tokio::test(start_paused = true)]
async fn what_never_ends_is_aborted_at_the_drain_limit() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let mut stubborn = client.watch(stream_of("stubborn")).await.expect("served").into_inner();
    stubborn.message().await.expect("the first");
    let mut waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.deregister(unary("wait")).await });
    running.probe.until(|seen| seen.alive == 2).await;
    let (probe, begin) = (running.probe.clone(), Instant::now());

    running.stop().await.expect("it left");

    assert_eq!(begin.elapsed().as_secs(), 30);
    assert_eq!(probe.seen().alive, 0, "no handler is left behind");
    stubborn.message().await.expect_err("aborted");
    waiting.await.expect("no panic").expect_err("aborted");
}

/// A user's service with an endless answer, in a package that begins as those of gRPC's own services do.
#[derive(Clone)]
pub(super) struct GrpcTesting;

impl NamedService for GrpcTesting {
    const NAME: &'static str = "grpc.testing.TestService";
}

impl Service<http::Request<Body>> for GrpcTesting {
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Ready<Result<Response<Body>, Self::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<Body>) -> Self::Future {
        let never = pending::<Result<Frame<Bytes>, tonic::Status>>();
        let body = Body::new(StreamBody::new(never));
        ready(Ok(Response::builder().header("content-type", "application/grpc").body(body).expect("made")))
    }
}

impl GrpcTesting {
    pub(super) fn request() -> http::Request<Body> {
        let request = http::Request::post("http://probe/grpc.testing.TestService/Go");
        request.header("content-type", "application/grpc").body(Body::empty()).expect("a request")
    }
}

#[tokio::test(start_paused = true)]
async fn a_users_service_with_a_package_of_grpcs_is_not_cut_by_the_drain() {
    let running = run(config(), |server| server.add_service(GrpcTesting));
    let mut connection = running.connect().await.expect("the server answers");
    let _endless = connection.call(GrpcTesting::request()).await.expect("an answer");
    let begin = Instant::now();
    running.stop().await.expect("it left");
    assert_eq!(begin.elapsed().as_secs(), 30, "its own handler sees the drain");
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_never_said_hello_does_not_hold_up_the_end() {
    let running = run(config(), |server| server);
    let _silent = running.pipe().await;
    running.client().await.deregister(unary("")).await.expect("served");
    let begin = Instant::now();
    running.stop().await.expect("it left");
    assert!(begin.elapsed() <= Limits::default().handshake_time);
}

#[tokio::test]
async fn an_idle_connection_is_closed_and_every_task_ends() {
    let running = run(config(), |server| server);
    let connection = running.connect().await.expect("the server answers");
    client(connection.clone()).deregister(unary("")).await.expect("served");
    let Connection { sender, driver } = connection;
    running.stop().await.expect("it left");
    let driver = Arc::into_inner(driver).expect("the last one");
    soon(driver).await.expect("no panic").expect("closed in order");
    drop(sender);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn under_load_every_call_that_was_started_is_answered() {
    let running = run(config(), |server| server);
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..4 {
        let client = running.client().await;
        for _ in 0..16 {
            let mut client = client.clone();
            callers.spawn(async move {
                let mut answered = 0;
                while client.deregister(unary("")).await.is_ok() {
                    answered += 1;
                }
                answered
            });
        }
    }
    running.probe.until(|seen| seen.started > 2000).await;
    running.shutdown.cancel();
    let answered: usize = soon(callers.join_all()).await.into_iter().sum();
    soon(running.server).await.expect("no panic").expect("it left");
    assert_eq!(running.probe.seen().started, answered);
}

#[tokio::test]
async fn a_connection_that_waited_while_the_server_left_is_not_reset() {
    let running = run(config(), |server| server);
    running.client().await.deregister(unary("")).await.expect("served");
    // On this one thread the server cannot accept it before it sees the shutdown.
    let (near, far) = tokio::io::duplex(64 * 1024);
    running.connections.try_send(Ok(far)).expect("there is room");
    running.shutdown.cancel();
    let call = client(connect_over(near).await.expect("greeted")).deregister(unary("")).await;
    // Either the call or the GOAWAY comes first; HTTP/2 then says that the call was not processed, and may be sent again.
    let told = call.as_ref().err().is_none_or(|status| format!("{status:?}").contains("GoAway"));
    assert!(told, "{call:?}");
    soon(running.server).await.expect("no panic").expect("it left");
}

#[tokio::test]
async fn a_server_that_is_dropped_leaves_no_task_behind() {
    let running = run(config(), |server| server);
    let mut client = running.client().await;
    let _stream = client.watch(stream_of("stubborn")).await.expect("served");
    tokio::spawn(async move { client.deregister(unary("wait")).await });
    running.probe.until(|seen| seen.alive == 2).await;
    running.server.abort();
    running.probe.until(|seen| seen.alive == 0).await;
}

#[tokio::test]
async fn an_error_of_accepting_does_not_end_the_server() {
    let running = run(config(), |server| server);
    for _ in 0..3 {
        running.connections.send(Err(io::Error::other("too many open files"))).await.expect("the server accepts");
    }
    running.client().await.deregister(unary("")).await.expect("served");
}

#[tokio::test]
async fn an_instance_id_that_cannot_be_sent_is_an_error_at_once() {
    for id in ["", "two words", "ümlaut", &"x".repeat(129)] {
        let config = Config { instance_id: id.into(), ..config() };
        let server = Server::new(config)
            .serve(futures_util::stream::pending::<io::Result<DuplexStream>>(), std::future::pending());
        assert!(matches!(soon(server).await, Err(Error::InvalidConfig(bad)) if bad.field == "instance_id"), "{id}");
    }
}

mod in_a_mesh {
    //! With a registry, and clients that learn of the drain when the test says so.

    use super::*;
    use crate::{
        contract::meshwork::registry::v1::InstanceStatus,
        discovery::announce::fake::{Fake, State},
    };

    /// A server in the fake's mesh, whose own watch shows the drain when `seen` is notified.
    fn run_in(registry: &Fake, seen: &Arc<Notify>) -> Running {
        let (client, seen) = (registry.client(), seen.clone());
        run(config(), |server| {
            server.announce_through(Announce::new(vec![(client, Gate::default())], move |_| {
                let seen = seen.clone();
                async move { seen.notified().await }
            }))
        })
    }

    #[tokio::test(start_paused = true)]
    async fn calls_and_connections_that_still_come_are_served_until_the_mesh_knows() {
        let (registry, seen) = (Fake::new(State::default()), Arc::new(Notify::new()));
        let running = run_in(&registry, &seen);
        let mut client = running.client().await;
        registry.until(|state| state.registrations == 1).await;

        running.shutdown.cancel();
        registry.until(|state| state.statuses() == [InstanceStatus::Draining]).await;

        client.deregister(unary("")).await.expect("served");
        running.client().await.deregister(unary("")).await.expect("served on a new connection");
        assert!(!running.draining.is_cancelled(), "streams go on, too");
        let mut health = HealthClient::with_origin(
            running.connect().await.expect("the server answers"),
            http::Uri::from_static("http://probe"),
        );
        let answer = health.check(HealthCheckRequest::default()).await.expect("served");
        assert_eq!(answer.get_ref().status(), ServingStatus::NotServing, "clients that only check health see it too");

        let begin = Instant::now();
        seen.notify_one();
        soon(running.draining.cancelled()).await;
        assert_eq!(begin.elapsed().as_millis(), 50);
        soon(running.server).await.expect("no panic").expect("it left");
        assert!(registry.0.borrow().leases.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn the_instance_is_registered_until_its_calls_are_done() {
        let (registry, seen) = (Fake::new(State::default()), Arc::new(Notify::new()));
        let running = run_in(&registry, &seen);
        let mut client = running.client().await;
        let call = tokio::spawn(async move { client.deregister(unary("wait")).await });
        running.probe.until(|seen| seen.alive == 1).await;
        seen.notify_one();
        running.shutdown.cancel();
        soon(running.draining.cancelled()).await;
        assert_eq!(registry.0.borrow().statuses(), [InstanceStatus::Draining]);
        running.probe.release();
        call.await.expect("no panic").expect("it finished");
        registry.until(|state| state.leases.is_empty()).await;
    }

    #[tokio::test(start_paused = true)]
    async fn an_unreachable_registry_holds_up_neither_service_nor_end() {
        let registry = Fake::new(State { away: true, ..State::default() });
        let running = run_in(&registry, &Arc::default());
        running.client().await.deregister(unary("")).await.expect("served without a registry");
        let begin = Instant::now();
        running.stop().await.expect("it left");
        assert!(begin.elapsed() <= Duration::from_secs(4), "{:?}", begin.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_that_is_fenced_stops_with_an_error() {
        let registry = Fake::new(State::default());
        let running = run_in(&registry, &Arc::default());
        let state = registry.until(|state| state.registrations == 1).await;
        registry.change(|registry| registry.fenced = state.leases.keys().cloned().collect());
        let end = soon(running.server).await.expect("no panic");
        assert!(matches!(end, Err(Error::Announce(AnnounceError::Fenced { .. }))), "{end:?}");
        assert!(is_fenced(&end.expect_err("fenced")) && !is_fenced(&io::Error::other("the disk is full")));
        assert!(running.draining.is_cancelled());
    }

    #[tokio::test(start_paused = true)]
    async fn what_no_registry_would_accept_is_an_error_before_anything_is_announced() {
        let registry = Fake::new(State::default());
        for (field, config) in [
            ("zone", Config { zone: "z".repeat(129), ..config() }),
            ("address", Config { advertise: "0.0.0.0:1".into(), ..config() }),
            ("weight", Config { weight: 0, ..config() }),
            ("lease_ttl", Config { lease_ttl: Duration::from_secs(301), ..config() }),
            ("service", Config { service: "Probe".into(), ..config() }),
        ] {
            let client = registry.client();
            let running = run(config, |server| {
                server.announce_through(Announce::new(vec![(client, Gate::default())], |_| ready(())))
            });
            let end = soon(running.server).await.expect("no panic");
            assert!(matches!(&end, Err(Error::InvalidConfig(invalid)) if invalid.field == field), "{field}: {end:?}");
        }
        assert_eq!(registry.0.borrow().registrations, 0);
    }

    #[tokio::test(start_paused = true)]
    async fn the_registry_learns_what_the_server_serves() {
        let registry = Fake::new(State::default());
        let running = run_in(&registry, &Arc::default());
        let state = registry.until(|state| state.registrations == 1).await;
        let instance = state.leases.values().next().expect("registered");
        assert_eq!(instance.grpc_services, ["meshwork.registry.v1.RegistryService"]);
        assert!(instance.idempotent_methods.iter().any(|m| m.method == "meshwork.registry.v1.RegistryService/Watch"));
        assert!(state.methods.is_sorted(), "{:?}", state.methods);
        for method in [
            "meshwork.registry.v1.RegistryService/KeepAlive",
            "grpc.health.v1.Health/Check",
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        ] {
            assert!(state.methods.iter().any(|told| told == method), "{method} is not among {:?}", state.methods);
        }
        let of_another = "meshwork.registry.v1.PolicyService/";
        assert!(!state.methods.iter().any(|told| told.starts_with(of_another)), "it is declared, and not served");
        assert!(instance.takes_pings, "idle connections to it are kept in sight");
        assert_eq!((instance.address.as_str(), instance.weight), ("127.0.0.1:1", 100));
        running.stop().await.expect("it left");
    }
}
