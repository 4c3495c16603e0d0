//! The service as a process: its flags, and what they start.

use meshwork_process::{Failure, InstanceArgs, StoreArgs, TelemetryArgs, serve};
use tokio_util::sync::CancellationToken;

use crate::{Config, SERVICE, open, run};

/// Keeps customers, and the credit that their orders reserve.
#[derive(clap::Parser, Debug)]
#[command(name = "meshwork-customer", version, disable_version_flag = true)]
pub struct Args {
    /// Its place in the mesh.
    #[command(flatten)]
    pub instance: InstanceArgs,
    /// Its data.
    #[command(flatten)]
    pub store: StoreArgs,
    /// What it tells about itself.
    #[command(flatten)]
    pub telemetry: TelemetryArgs,
}

impl Args {
    /// Serves until `shutdown` is cancelled, drains, and closes what it opened.
    ///
    /// # Errors
    /// A flag that cannot be used, or a config that cannot be served.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let run = async |server, mesh, store, incoming| {
            run(Config { server, mesh, store }, incoming, shutdown.clone().cancelled_owned()).await
        };
        serve(SERVICE, &self.instance, &self.store, &shutdown, open, run).await
    }
}
