//! The service as a process: its flags, and what they start.

use std::{ops::RangeInclusive, time::Duration};

use meshwork_process::{Failure, InstanceArgs, StoreArgs, TelemetryArgs, duration_in, serve};
use tokio_util::sync::CancellationToken;

use crate::{Config, SERVICE, open, run};

/// The range of `--saga-deadline`: up to 30 days, longer than anyone waits for an order.
const SAGA_DEADLINES: RangeInclusive<Duration> = Duration::from_millis(1)..=Duration::from_secs(720 * 3600);

/// Takes orders, and approves each once its customer's credit is reserved.
#[derive(clap::Parser, Debug)]
#[command(name = "meshwork-order", version, disable_version_flag = true)]
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
    /// How long an order waits for credit before it is rejected, 1ms-720h
    #[arg(long, env = "MESHWORK_SAGA_DEADLINE", default_value = "30s", value_parser = duration_in(SAGA_DEADLINES))]
    #[arg(allow_hyphen_values = true)]
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
            run(Config { server, mesh, store, saga_deadline }, incoming, shutdown.clone().cancelled_owned()).await
        };
        serve(SERVICE, &instance, &store, &shutdown, open, run).await
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

    #[test]
    fn a_deadline_that_no_clock_can_show_is_refused() {
        for (deadline, good) in [("1ms", true), ("720h", true), ("0s", false), ("4294967295m", false), ("721h", false)]
        {
            let line = ["meshwork-order", "--database-url", "sqlite://order.db", "--saga-deadline", deadline];
            assert_eq!(Args::try_parse_from(line).is_ok(), good, "{deadline}");
        }
    }

    #[tokio::test]
    async fn a_registry_list_of_which_no_mesh_can_be_made_is_the_flags_error_and_makes_no_database() {
        let folder = tempfile::tempdir().expect("a folder");
        let file = folder.path().join("order.db");
        let url = format!("sqlite://{}", file.display());
        let registries = ["127.0.0.1:1"; meshwork::MAX_REGISTRIES + 1].join(",");
        let args = Args::parse_from(["meshwork-order", "--database-url", &url, "--registry", &registries]);
        let failure = args.serve(CancellationToken::new()).await.expect_err("too many");
        assert!(matches!(failure, Failure::Flag { flag: "--registry", .. }), "{failure}");
        assert!(!file.exists());
    }
}
