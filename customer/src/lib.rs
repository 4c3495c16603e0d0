//! Meshwork's customer service: customers, and the credit that their orders reserve.
//!
//! A command or a consumed event ([`domain::Input`]) goes through the writer, which asks the rules in [`domain`] and keeps
//! rows and events in one transaction.

mod consume;
pub mod domain;
mod names;
pub mod process;
mod service;
mod store;
mod undo;

pub use domain::Customers;
pub use names::SERVICE;
pub use store::{Store, open};

use std::{future::Future, io};

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
use meshwork_shop::contract::shop::{
    customer::v1::customer_service_server::CustomerServiceServer, order::v1::order_service_client::OrderServiceClient,
};
use tokio::io::{AsyncRead, AsyncWrite};

use undo::LostOrders;

/// Who reads the events, in a mesh in strict mode.
const CONSUMERS: &[&str] = &["service/order", "service/query"];

/// One instance of the service.
pub struct Config {
    /// Its identity in the mesh, and its limits.
    pub server: server::Config,
    /// Where it finds the order service, and announces itself.
    pub mesh: Mesh,
    /// Its durable half; stays open when the instance ends.
    pub store: Store,
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
    let Config { server, mesh, store } = config;
    let server = Server::new(server);
    let (draining, serving) = (server.draining(), server.serving());
    let orders = Subscription::start(
        EventServiceClient::new(mesh.channel("order")),
        store.outbox().clone(),
        store.writer().clone(),
        consume::orders(),
    );
    let undo = LostOrders::new(store.clone(), OrderServiceClient::new(mesh.channel("order")));
    let server = store
        .served_by(server, StoreScope::Service)
        .add_service(CustomerServiceServer::new(service::Rpcs::new(store.clone())))
        .descriptors(meshwork_shop::contract::DESCRIPTORS)
        .add_mesh_service_for(CONSUMERS, Feed::service(store.outbox().clone(), draining, serving))
        .add_mesh_service(Operations::new(store.outbox().clone()).with(&orders, undo).service())
        .reports(orders.health_name(), orders.condition())
        .announce(mesh);
    let served = server.serve(incoming, shutdown).await;
    orders.stop().await;
    served
}
