//! The services of the shop: what each needs to be opened, and how an instance of it runs.

use std::{net::SocketAddr, path::PathBuf};

use meshwork::{Mesh, process::Listener, server};
use tokio_util::sync::CancellationToken;

use super::{Config, Error};

/// A service of the shop.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Service {
    /// Customers and their credit.
    Customer,
    /// Orders.
    Order,
    /// The read side.
    Query,
}

impl Service {
    /// All of them, in the order in which they are started.
    pub const ALL: [Self; 3] = [Self::Customer, Self::Order, Self::Query];

    /// Its name in the mesh.
    pub fn name(self) -> &'static str {
        match self {
            Self::Customer => meshwork_customer::SERVICE,
            Self::Order => meshwork_order::SERVICE,
            Self::Query => meshwork_query::SERVICE,
        }
    }

    /// The database file of its `index`th instance: write sides share one, every view has its own.
    pub(super) fn file(self, config: &Config, index: usize) -> PathBuf {
        config.data_dir.join(match self {
            Self::Customer | Self::Order => format!("{}.db", self.name()),
            Self::Query => format!("query-{index}.db"),
        })
    }
}

/// The stores, each opened once for all instances that share it.
#[derive(Clone)]
pub(super) struct Stores {
    customer: meshwork_customer::Store,
    order: meshwork_order::Store,
    query: Vec<meshwork_query::Store>,
}

impl Stores {
    pub(super) async fn open(config: &Config) -> Result<Self, Error> {
        let mut query = Vec::new();
        for index in 1..=config.replicas.query {
            let path = Service::Query.file(config, index);
            // A view that loses its last commits in a power failure folds them again.
            let url = url(&path) + "?synchronous=normal";
            query.push(meshwork_query::open(&url).await.map_err(failed(path))?);
        }
        let (customer, order) = (Service::Customer.file(config, 1), Service::Order.file(config, 1));
        Ok(Self {
            customer: meshwork_customer::open(&url(&customer)).await.map_err(failed(customer))?,
            order: meshwork_order::open(&url(&order)).await.map_err(failed(order))?,
            query,
        })
    }

    pub(super) async fn close(&self) {
        self.customer.close().await;
        self.order.close().await;
        for store in &self.query {
            store.close().await;
        }
    }
}

fn url(path: &std::path::Path) -> String {
    format!("sqlite://{}", path.display())
}

fn failed<E: std::error::Error + Send + Sync + 'static>(path: PathBuf) -> impl FnOnce(E) -> Error {
    move |source| Error::Store { path, source: Box::new(source) }
}

/// What an instance of a service needs.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) service: Service,
    pub(super) index: usize,
    pub(super) mesh: Mesh,
    pub(super) stores: Stores,
    pub(super) saga_deadline: std::time::Duration,
}

impl Parts {
    /// Runs an instance until `stopping` and its drain are over.
    pub(super) async fn run(
        &self,
        server: server::Config,
        listener: Listener,
        stopping: CancellationToken,
    ) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let (incoming, shutdown) = (listener, stopping.cancelled_owned());
        let mesh = self.mesh.clone();
        match self.service {
            Service::Customer => {
                let config = meshwork_customer::Config { server, mesh, store: self.stores.customer.clone() };
                meshwork_customer::run(config, incoming, shutdown).await?;
            }
            Service::Order => {
                let (store, saga_deadline) = (self.stores.order.clone(), self.saga_deadline);
                let config = meshwork_order::Config { server, mesh, store, saga_deadline };
                meshwork_order::run(config, incoming, shutdown).await?;
            }
            Service::Query => {
                let store = self.stores.query[self.index - 1].clone();
                let config = meshwork_query::Config { server, mesh, store };
                meshwork_query::run(config, incoming, shutdown).await?;
            }
        }
        Ok(())
    }
}

/// How an instance introduces itself.
pub(super) fn server_config(config: &Config, service: &str, address: SocketAddr) -> server::Config {
    server::Config {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        lease_ttl: config.lease_ttl,
        drain_limit: config.drain_limit,
        ..server::Config::new(service, address.to_string())
    }
}
