//! How an instance of each service runs.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use meshwork::{Mesh, server};
use meshwork_process::Listener;
use tokio_util::sync::CancellationToken;

use super::{Config, Service, store::Stores};

/// What an instance of a service needs.
#[derive(Clone)]
pub(super) struct Parts {
    pub(super) service: Service,
    pub(super) index: usize,
    pub(super) mesh: Mesh,
    pub(super) stores: Arc<Stores>,
    pub(super) saga_deadline: Duration,
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
                let source = &self.stores.customer;
                let store = source.take().await?;
                let config = meshwork_customer::Config { server, mesh, store: store.clone() };
                let served = meshwork_customer::run(config, incoming, shutdown).await;
                source.put_back(&store).await;
                served?;
            }
            Service::Order => {
                let (source, saga_deadline) = (&self.stores.order, self.saga_deadline);
                let store = source.take().await?;
                let config = meshwork_order::Config { server, mesh, store: store.clone(), saga_deadline };
                let served = meshwork_order::run(config, incoming, shutdown).await;
                source.put_back(&store).await;
                served?;
            }
            Service::Query => {
                let source = &self.stores.query[self.index - 1];
                let store = source.take().await?;
                let config = meshwork_query::Config { server, mesh, store: store.clone() };
                let served = meshwork_query::run(config, incoming, shutdown).await;
                source.put_back(&store).await;
                served?;
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
