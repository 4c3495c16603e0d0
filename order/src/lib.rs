//! Meshwork's order service: orders, and the saga that approves or rejects them.
//!
//! A command or a consumed event ([`domain::Input`]) goes through the writer, which asks the rules in [`domain`] and keeps
//! rows and events in one transaction.

mod consume;
mod deadlines;
pub mod domain;
mod names;
pub mod process;
mod service;
mod store;
mod sweeper;
mod watchers;

pub use domain::Orders;
pub use names::SERVICE;
pub use store::{Store, open};

use std::{future::Future, io, time::Duration};

use futures_util::Stream;
use meshwork::{
    Mesh,
    contract::meshwork::event::v1::event_service_client::EventServiceClient,
    server::{self, Server, StoreScope},
};
use meshwork_events::{
    consumer::{Operations, Subscription},
    outbox::Feed,
};
use meshwork_shop::contract::shop::order::v1::order_service_server::OrderServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};

/// Who reads the events, in a mesh in strict mode.
const CONSUMERS: &[&str] = &["service/customer", "service/query"];

/// How long an order waits for credit by default.
pub const SAGA_DEADLINE: Duration = Duration::from_secs(30);

/// One instance of the service.
pub struct Config {
    /// Its identity in the mesh, and its limits.
    pub server: server::Config,
    /// Where it finds the customer service, and announces itself.
    pub mesh: Mesh,
    /// Its durable half; stays open when the instance ends.
    pub store: Store,
    /// How long an order waits for credit before it is rejected as TIMED_OUT. [`SAGA_DEADLINE`] is a good value.
    pub saga_deadline: Duration,
}

/// Serves the connections of `incoming` until `shutdown` ends, then drains.
///
/// # Errors
/// A config that cannot be served.
pub async fn run<IO, I, F>(config: Config, incoming: I, shutdown: F) -> Result<(), server::Error>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()>,
{
    let Config { server, mesh, store, saga_deadline } = config;
    let server = Server::new(server);
    let (draining, serving) = (server.draining(), server.serving());
    let credit = Subscription::start(
        EventServiceClient::new(mesh.channel("customer")),
        store.outbox().clone(),
        store.writer().clone(),
        consume::credit(),
    );
    let rpcs = service::Rpcs::new(store.clone(), saga_deadline, draining.clone(), serving.clone());
    let server = store
        .served_by(server, StoreScope::Service)
        .add_service(OrderServiceServer::new(rpcs))
        .descriptors(meshwork_shop::contract::DESCRIPTORS)
        .add_mesh_service_for(CONSUMERS, Feed::service(store.outbox().clone(), draining, serving))
        // Lost events of credit leave nothing to undo: the customer service decides anew, and an order follows.
        .add_mesh_service(Operations::new(store.outbox().clone()).with(&credit, ()).service())
        .reports(credit.health_name(), credit.condition())
        .announce(mesh);
    let served = tokio::select! {
        served = server.serve(incoming, shutdown) => served,
        () = sweeper::run(&store) => unreachable!("the sweeper has no end"),
    };
    credit.stop().await;
    served
}
