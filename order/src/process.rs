//! The service as a process of its own: its flags, and what they start.

use std::time::Duration;

use meshwork_process::{Failure, InstanceArgs, StoreArgs, TelemetryArgs, parse_duration, serve};
use tokio_util::sync::CancellationToken;

use crate::{Config, SERVICE, open, run};

/// Takes orders, and approves each once its customer's credit is reserved.
#[derive(clap::Parser, Debug)]
#[command(name = "meshwork-order")]
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
    /// How long an order waits for credit before it is rejected, such as 30s or 500ms
    #[arg(long, env = "MESHWORK_SAGA_DEADLINE", default_value = "30s", value_parser = parse_duration)]
    pub saga_deadline: Duration,
}

impl Args {
    /// Serves until `shutdown` is cancelled, drains, and closes what it opened.
    ///
    /// # Errors
    /// A flag that cannot be used, or a config that cannot be served.
    pub async fn serve(self, shutdown: CancellationToken) -> Result<(), Failure> {
        let Self { instance, store, saga_deadline, .. } = self;
        let run = async |server, mesh, store, incoming| {
            run(Config { server, mesh, store, saga_deadline }, incoming, shutdown.cancelled_owned()).await
        };
        serve(SERVICE, &instance, &store, open, run).await
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;

    #[test]
    fn the_flags_fit_together_and_the_deadline_is_the_librarys() {
        let args = Args::parse_from(["meshwork-order", "--database-url", "sqlite://order.db"]);
        assert_eq!(args.saga_deadline, crate::SAGA_DEADLINE);
    }

    #[tokio::test]
    async fn a_registry_that_is_none_is_the_flags_error_and_makes_no_database() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("order.db");
        let url = format!("sqlite://{}", file.display());
        let args = Args::parse_from(["meshwork-order", "--database-url", &url, "--registry", "nonsense"]);
        let failure = args.serve(CancellationToken::new()).await.expect_err("no registry");
        assert!(matches!(failure, Failure::Flag { flag: "--registry", .. }), "{failure}");
        assert!(!file.exists());
    }
}
