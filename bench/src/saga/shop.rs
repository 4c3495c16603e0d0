//! A mesh in this process, on one store, and its buyers.

use std::{path::Path, time::Duration};

use meshwork::Mesh;
use meshwork_cli::fleet::{self, Databases, Fleet, Replicas};

use super::error::Error;
use crate::load::{Buyers, Closed, Open, closed, open, within};

/// How long draining may take.
const CLOSE_LIMIT: Duration = Duration::from_secs(60);

/// A mesh that takes orders.
pub(super) struct Shop {
    fleet: Fleet,
    /// The load generator's own: it finds and reaches the services as any other process would.
    mesh: Mesh,
    buyers: Buyers,
}

impl Shop {
    /// Starts a mesh and makes it ready for orders.
    pub(super) async fn open(folder: &Path, replicas: Replicas, databases: Databases) -> Result<Self, Error> {
        let fleet = Fleet::start(fleet::Config { replicas, databases, ..fleet::Config::new(folder) }).await?;
        let mesh = Mesh::connect(fleet.registry_url())?;
        let buyers = Buyers::open(&mesh).await?;
        Ok(Self { fleet, mesh, buyers })
    }

    /// Drives it as fast as it goes.
    pub(super) async fn drive(&self, load: Closed) -> closed::Sample {
        let buyer = self.buyers.buyer();
        load.run(move |number| buyer.clone().buy(number), self.buyers.lost()).await
    }

    /// Drives it at a given rate.
    pub(super) async fn offer(&self, load: Open) -> open::Sample {
        let buyer = self.buyers.buyer();
        load.run(move |number| buyer.clone().buy(number), self.buyers.lost()).await
    }

    /// Drains the mesh.
    pub(super) async fn close(self) -> Result<(), Error> {
        let Self { fleet, mesh, buyers } = self;
        buyers.close().await;
        let closed = async {
            mesh.close().await;
            fleet.stop().await;
        };
        Ok(within("draining the mesh", CLOSE_LIMIT, closed).await?)
    }
}
