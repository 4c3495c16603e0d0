//! What a server reports about itself: to clients that check its health, and to the registry.

use std::collections::BTreeMap;

use tokio_stream::StreamExt as _;
use tonic::{Code, Response, Status, Streaming};

use super::{
    drain::GrpcTesting,
    probe::{stream_of, unary},
    *,
};
use crate::{
    contract::{
        grpc::health::v1::{
            HealthCheckRequest, HealthCheckResponse, HealthListRequest, health_check_response::ServingStatus,
            health_client::HealthClient,
        },
        meshwork::registry::v1::InstanceStatus::{NotServing, Serving},
    },
    discovery::announce::fake::{Fake, State},
    health::{Condition, Conditioner},
};

const PROBE: &str = "meshwork.registry.v1.RegistryService";

async fn health(running: &Running) -> HealthClient<Connection> {
    let connection = running.connect().await.expect("the server answers");
    HealthClient::with_origin(connection, http::Uri::from_static("http://probe"))
}

async fn watch(running: &Running, name: &str) -> Result<Streaming<HealthCheckResponse>, Status> {
    let request = HealthCheckRequest { service: name.to_owned() };
    health(running).await.watch(request).await.map(Response::into_inner)
}

/// Waits until the health of a name is said to be this.
async fn until(running: &Running, name: &str, status: ServingStatus) {
    let mut told = watch(running, name).await.expect("watched");
    let is_told = async { while told.next().await.expect("no end").expect("no error").status() != status {} };
    soon(is_told).await;
}

fn announced(server: Server, registry: &Fake) -> Server {
    server.announce_through(Announce::new(vec![(registry.client(), Gate::default())], |_| std::future::ready(())))
}

#[tokio::test(start_paused = true)]
async fn what_calls_depend_on_is_told_to_those_who_ask_and_to_the_registry() {
    let (registry, store) = (Fake::new(State::default()), Conditioner::default());
    store.set(Err("the file was removed".into()));
    let mut serving = Condition::default();
    let running = run(config(), |server| {
        serving = server.serving();
        announced(server.depends_on(store.condition()), &registry)
    });
    registry.until(|state| state.statuses() == [NotServing]).await;
    assert_eq!(serving.problem().as_deref(), Some("the file was removed"), "its streams know from the beginning");
    for name in ["", PROBE] {
        until(&running, name, ServingStatus::NotServing).await;
    }

    store.set(Ok(()));
    registry.until(|state| state.statuses() == [Serving]).await;
    assert_eq!(serving.problem(), None);
    for name in ["", PROBE] {
        until(&running, name, ServingStatus::Serving).await;
    }

    store.set(Err("the disk is full".into()));
    registry.until(|state| state.statuses() == [NotServing]).await;
    until(&running, "", ServingStatus::NotServing).await;
    assert_eq!(registry.0.borrow().registrations, 1, "it stays in the mesh");
    running.stop().await.expect("it left");
}

#[tokio::test(start_paused = true)]
async fn what_is_only_reported_has_its_own_name_and_takes_no_calls_away() {
    let (registry, events) = (Fake::new(State::default()), Conditioner::default());
    let running = run(config(), |server| announced(server.reports("events/order", events.condition()), &registry));
    until(&running, "events/order", ServingStatus::Serving).await;
    events.set(Err("event 7 cannot be decoded".into()));
    until(&running, "events/order", ServingStatus::NotServing).await;
    until(&running, "", ServingStatus::Serving).await;
    assert_eq!(registry.until(|state| state.registrations == 1).await.statuses(), [Serving]);
    events.set(Ok(()));
    until(&running, "events/order", ServingStatus::Serving).await;
    running.stop().await.expect("it left");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_is_not_admitted_with_its_store_is_not_well_until_it_is() {
    let refuses = Some((Code::FailedPrecondition, "probe is served from store a"));
    let registry = Fake::new(State { refuses, ..State::default() });
    let store = ServedStore { store_id: "b".into(), place: "x".repeat(999), scope: StoreScope::Service };
    let running = run(config(), |server| announced(server.add_service(GrpcTesting).serves_store(store), &registry));
    until(&running, "", ServingStatus::NotServing).await;
    until(&running, PROBE, ServingStatus::NotServing).await;
    let mut client = running.client().await;
    let refused = client.deregister(unary("")).await.expect_err("no other instance would see what it acknowledges");
    assert_eq!((refused.code(), header(&refused, "meshwork-refused")), (Code::Unavailable, Some("not-admitted")));
    assert!(refused.message().contains("probe is served from store a"), "{refused}");
    assert_eq!(running.probe.seen().started, 0);
    let mut connection = running.connect().await.expect("the server answers");
    let other = connection.call(GrpcTesting::request()).await.expect("an answer");
    assert_eq!(
        other.headers()["meshwork-refused"],
        "not-admitted",
        "its package begins as those of gRPC's own services"
    );

    registry.change(|state| state.refuses = None);

    until(&running, "", ServingStatus::Serving).await;
    let state = registry.until(|state| state.statuses() == [Serving]).await;
    assert_eq!(state.leases.values().next().expect("registered").store_id, "b");
    client.deregister(unary("")).await.expect("served");
    running.stop().await.expect("it left");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_leaves_does_not_come_back_when_its_store_does() {
    let (registry, store) = (Fake::new(State::default()), Conditioner::default());
    let running = run(config(), |server| {
        let never = |_| std::future::pending();
        let server = server.depends_on(store.condition());
        server.announce_through(Announce::new(vec![(registry.client(), Gate::default())], never))
    });
    registry.until(|state| state.statuses() == [Serving]).await;
    store.set(Err("the store is unavailable".into()));
    registry.until(|state| state.statuses() == [NotServing]).await;
    running.shutdown.cancel();
    let draining = [crate::contract::meshwork::registry::v1::InstanceStatus::Draining];
    registry.until(|state| state.statuses() == draining).await;
    store.set(Ok(()));
    soon(running.server).await.expect("no panic").expect("it left");
    assert!(registry.0.borrow().leases.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_name_that_the_server_does_not_know_can_be_watched_and_is_said_to_be_unknown() {
    let running = run(config(), |server| server);
    let mut told = watch(&running, "nobody").await.expect("watched");
    let first = soon(told.next()).await.expect("no end").expect("no error");
    assert_eq!(first.status(), ServingStatus::ServiceUnknown);
    assert!(timeout(SOON, told.next()).await.is_err(), "it stays open");
    running.shutdown.cancel();
    let end = soon(told.next()).await.expect("the drain").expect_err("told to move");
    assert_eq!(end.code(), Code::Unavailable);
    soon(running.server).await.expect("no panic").expect("it left");
}

#[tokio::test]
async fn watches_are_bounded_but_take_no_place_of_a_users_stream_and_keep_no_unknown_name_that_is_long() {
    let mut config = config();
    config.limits.concurrent_streams = 1;
    let known = "n".repeat(1000);
    let running = run(config, |server| server.reports(known.clone(), Conditioner::default().condition()));
    let long = watch(&running, &"x".repeat(257)).await.expect_err("it would be kept");
    assert_eq!(long.code(), Code::InvalidArgument);
    until(&running, &known, ServingStatus::NotServing).await;
    let held = watch(&running, "nobody").await.expect("watched");
    let refused = watch(&running, "nobody").await.expect_err("one too many");
    assert_eq!(header(&refused, "meshwork-refused"), Some("overloaded"));
    let stream = running.client().await.watch(stream_of("")).await.expect("served");
    drop((held, stream));
}

#[tokio::test]
async fn all_names_are_listed_and_a_hundred_are_the_most() {
    let events = Conditioner::default();
    events.set(Err("event 7 cannot be decoded".into()));
    let running = run(config(), |server| server.reports("events/order", events.condition()));
    let list = health(&running).await.list(HealthListRequest {}).await.expect("listed").into_inner();
    let listed: BTreeMap<_, _> = list.statuses.iter().map(|(name, said)| (name.as_str(), said.status())).collect();
    let (serving, not) = (ServingStatus::Serving, ServingStatus::NotServing);
    assert_eq!(listed, BTreeMap::from([("", serving), (PROBE, serving), ("events/order", not)]));

    for (reported, code) in [(98, Code::Ok), (99, Code::ResourceExhausted)] {
        let running = run(config(), |server| {
            (0..reported).fold(server, |server, n| server.reports(format!("events/{n}"), Condition::default()))
        });
        let listed = health(&running).await.list(HealthListRequest {}).await;
        assert_eq!(listed.map_or_else(|status| status.code(), |_| Code::Ok), code, "{reported} and two");
    }
}
