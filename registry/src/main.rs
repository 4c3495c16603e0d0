//! The registry as a process.

use std::process::ExitCode;

use meshwork_process::Failure;
use meshwork_registry::{Args, run};

fn main() -> ExitCode {
    meshwork_process::main(
        |args: &Args| args.telemetry.clone(),
        async |args, shutdown| {
            let (config, listener) = args.listen().await?;
            run(config, listener, shutdown.cancelled_owned()).await.map_err(Failure::run)
        },
    )
}
