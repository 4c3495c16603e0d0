//! The registry as a process.

use std::process::ExitCode;

use meshwork_process::Failure;
use meshwork_registry::{Args, run};

fn main() -> ExitCode {
    meshwork_process::main(
        |args: &Args| args.telemetry.clone(),
        async |args, shutdown| {
            let Some(listened) = shutdown.run_until_cancelled(args.listen()).await else { return Ok(()) };
            let (config, listener) = listened?;
            run(config, listener, shutdown.cancelled_owned()).await.map_err(Failure::run)
        },
    )
}
