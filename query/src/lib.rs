//! Meshwork's query service: orders and customers as one view, folded from the event streams of both services.
//!
//! Modules are listed in the order in which an event, and then a query, passes through them. The view is a cache: it can be
//! folded again from the events at any time, and refuses every write that is not one.

mod consume;
pub mod domain;
mod store;
mod undo;
mod view;

mod open;

mod watch;

mod position;

mod service;

mod message;

pub mod process;

#[cfg(test)]
mod fixture;

use std::{future::Future, io};

use futures_util::Stream;
use meshwork::{
    Mesh,
    contract::meshwork::event::v1::event_service_client::EventServiceClient,
    server::{self, Server, StoreScope},
};
use meshwork_events::consumer::{Operations, Subscription};
use meshwork_shop::contract::shop::query::v1::query_service_server::QueryServiceServer;
use tokio::io::{AsyncRead, AsyncWrite};

pub use open::{SERVICE, Store, open};
pub use view::View;

use service::Service;
use undo::{Rows, ThrowAway};
/// What an instance is started with.
pub struct Config {
    /// How it serves.
    pub server: server::Config,
    /// The mesh that it joins, and in which it finds `order` and `customer`.
    pub mesh: Mesh,
    /// Its view. Its id makes the group of its subscriptions: `query/<view_id>`, which its sources forget an hour after
    /// they saw it last.
    pub store: Store,
}

/// Folds the events of `order` and `customer`, and serves the view on `incoming`, until `shutdown` ends and the server has
/// drained. The store stays open: its owner closes it.
///
/// # Errors
/// [`server::Error`].
pub async fn run<IO, I, F>(config: Config, incoming: I, shutdown: F) -> Result<(), server::Error>
where
    I: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    F: Future<Output = ()>,
{
    let Config { server, mesh, store } = config;
    let view_id = store.outbox().store_id();
    let [orders, customers] = [consume::orders(view_id), consume::customers(view_id)].map(|source| {
        let client = EventServiceClient::new(mesh.channel(source.name));
        Subscription::start(client, store.outbox().clone(), store.writer().clone(), source)
    });
    let throw_away = |rows| ThrowAway { database: store.database().clone(), rows };
    let operations = Operations::new(store.outbox().clone())
        .with(&orders, throw_away(Rows::Orders))
        .with(&customers, throw_away(Rows::Customers));

    let server = Server::new(server);
    let sources = [&orders, &customers].map(|subscription| (subscription.source(), subscription.past().clone()));
    let service = Service::new(&store, sources.to_vec(), &server.draining(), server.serving());
    let server = store
        .served_by(server, StoreScope::Instance)
        .add_service(QueryServiceServer::new(service))
        .descriptors(meshwork_shop::contract::DESCRIPTORS)
        .add_mesh_service(operations.service())
        .reports(orders.health_name(), orders.condition())
        .reports(customers.health_name(), customers.condition())
        .announce(mesh);
    let hub = store.decider().hub();
    let followed = watch::follow(store.database(), &hub, orders.progress());
    let result = tokio::select! {
        result = server.serve(incoming, shutdown) => result,
        never = followed => match never {}
    };
    for subscription in [orders, customers] {
        subscription.stop().await;
    }
    result
}
