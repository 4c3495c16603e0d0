//! The service as a process of its own: its flags, and what they start.

use meshwork::process::{Failure, InstanceArgs, LogArgs, StoreArgs};
use tokio_util::sync::CancellationToken;

use crate::{Config, SERVICE, open, run};

/// Keeps customers, and the credit that their orders reserve.
#[derive(clap::Parser, Debug)]
#[command(name = "meshwork-customer")]
pub struct Args {
    /// Its place in the mesh.
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Its data.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Its logs.
    #[command(flatten)]
    pub log: LogArgs,
}

impl Args {
    /// Serves until `shutdown` is cancelled, drains, and closes what it opened.
    ///
    /// # Errors
    /// A flag that cannot be used, or a config that cannot be served.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let mesh = self.instance.mesh()?;
        let url = &self.store.database_url;
        let store = open(url).await.map_err(|error| error.into_failure(url))?;
        let incoming = self.instance.bind().await?;
        let server = self.instance.config(SERVICE, &incoming)?;
        let config = Config { server, mesh: mesh.clone(), store: store.clone() };
        let served = run(config, incoming.say_ready(SERVICE), shutdown.cancelled_owned()).await;
        mesh.close().await;
        store.close().await;
        served.map_err(Failure::run)
    }
}
